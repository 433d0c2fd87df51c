"""The SDK's private parts are where `transforms/read/sdk.py` reaches for them, and a link tells
plainly why it ended."""

from __future__ import annotations

import contextlib
import inspect
import io
import os
import selectors
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import azure.eventhub
import pytest
from azure.eventhub import EventHubConsumerClient
from azure.eventhub._consumer import EventHubConsumer
from azure.eventhub._pyamqp import _decode, cbs, link, session
from azure.eventhub._pyamqp._connection import Connection
from azure.eventhub._pyamqp.constants import ConnectionState, LinkState
from azure.eventhub._pyamqp.error import ErrorCondition

from pipelines.local.hub import EmbeddedHub
from tests.transforms.read.conftest import HUB, PARTITIONS, until
from transforms.read import sdk
from transforms.read.access import EventHubsAccess
from transforms.read.frames import Event
from transforms.read.sdk import (
    HubError,
    PartitionLink,
    hub_properties,
    kept_sequences,
    partition_ids,
)

CHECKED = "5.15.1"
RECHECK = f"""
azure-eventhub is not the {CHECKED} any more that transforms/read/sdk.py was written against, or
has been changed. That file reaches into the SDK's private parts. Before this test is changed:
  1. go through every name with a leading underscore in transforms/read/sdk.py, and read in the
     new SDK what it does now (docs/adr/0002-frames-are-read-here.md says what is relied on);
  2. above all: PartitionLink.open (who grants the first credit, and what the SDK may have read
     before), _feed (counters of link and session), _renew (credit and window), tick (listen with
     batch=0 must read nothing), and which errors `_check` sees;
  3. run tests/transforms/read, then the acceptance run.
"""

Links = Callable[..., PartitionLink]


@pytest.fixture
def links(hub: EmbeddedHub, access: Callable[..., EventHubsAccess]) -> Iterator[Links]:
    """Opens links to the hub, or to another one, and closes them at the end."""
    opened: list[PartitionLink] = []

    def make(
        partition: str = "0",
        at: int = 0,
        prefetch: int = 100,
        of: EmbeddedHub = hub,
        group: str = "$Default",
        open_: bool = True,
        role: str = "alertbeam",
        epoch: int | None = None,
        **fields: Any,
    ) -> PartitionLink:
        client = access(of, **fields).client()
        opened.append(PartitionLink(client, group, partition, at, prefetch, role, epoch))
        if open_:
            opened[-1].open(5.0)
        return opened[-1]

    yield make
    for one in opened:
        one.close()


def read(link: PartitionLink, count: int, seconds: float = 5.0) -> list[Event]:
    """That many events, as the background reader reads them: when the socket has something."""
    found: list[Event] = []
    end = time.monotonic() + seconds
    with selectors.DefaultSelector() as selector:
        selector.register(link.sock, selectors.EVENT_READ)
        while len(found) < count and time.monotonic() < end:
            if selector.select(0.05):
                found += link.read()
                link.grant()
            link.tick()
    return found


def readable(link: PartitionLink, seconds: float = 0.1) -> bool:
    with selectors.DefaultSelector() as selector:
        selector.register(link.sock, selectors.EVENT_READ)
        return bool(selector.select(seconds))


def failure(act: Callable[[], Any]) -> HubError:
    with pytest.raises(HubError) as error:
        until(lambda: act() and False)
    text = str(error.value)
    assert len(text) <= 300
    assert "\n" not in text
    return error.value


# ------------------------------------------------------------------------------------ the guard


def test_the_sdk_is_the_one_that_this_was_written_against() -> None:
    assert azure.eventhub.__version__ == CHECKED, RECHECK


@pytest.mark.parametrize(
    ("what", "parameters"),
    [
        (EventHubConsumer.__init__, ["self", "client", "source", "kwargs"]),
        (EventHubConsumer._open, ["self"]),
        (EventHubConsumer.close, ["self"]),
        (Connection.listen, ["self", "wait", "batch", "kwargs"]),
        (Connection._process_incoming_frame, ["self", "channel", "frame"]),
        (link.Link.flow, ["self", "link_credit", "kwargs"]),
        (link.Link.get_state, ["self"]),
        (session.Session._outgoing_flow, ["self", "frame"]),
        (cbs.CBSAuthenticator.handle_token, ["self"]),
        (_decode.decode_frame, ["data"]),
        (_decode.decode_empty_frame, ["header"]),
    ],
)
def test_its_functions_take_what_they_took(what: Any, parameters: list[str]) -> None:
    assert list(inspect.signature(what).parameters) == parameters, RECHECK


def test_its_consumer_knows_the_options_that_are_given_to_it() -> None:
    """It takes any keyword, and ignores those that it does not know."""
    source = inspect.getsource(EventHubConsumer.__init__)
    for option in (
        "event_position",
        "event_position_inclusive",
        "prefetch",
        "owner_level",
        "keep_alive",
        "idle_timeout",
        "track_last_enqueued_event_properties",
        "on_event_received",
        "amqp_transport",
    ):
        assert f'"{option}"' in source, f"{option}\n{RECHECK}"


def test_its_names_for_states_and_errors_are_the_same() -> None:
    assert (ConnectionState.OPENED.name, LinkState.ATTACHED.name) == ("OPENED", "ATTACHED")
    assert LinkState.ATTACHED.value == 3, RECHECK
    assert ErrorCondition.LinkStolen == b"amqp:link:stolen", RECHECK


def test_an_open_link_has_all_the_parts_that_are_reached_for(links: Links, partition: str) -> None:
    opened = links(partition)
    consumer = opened._consumer
    handler: Any = consumer._handler
    found: dict[str, Any] = {
        "client._address.hostname": consumer._client._address.hostname,
        "client._address.path": consumer._client._address.path,
        "_link_properties": consumer._link_properties,
        "handler._link.state": handler._link.state,
        "handler._link.remote_handle": handler._link.remote_handle,
        "handler._link.current_link_credit": handler._link.current_link_credit,
        "handler._link.delivery_count": handler._link.delivery_count,
        "handler._session.incoming_window": handler._session.incoming_window,
        "handler._session.target_incoming_window": handler._session.target_incoming_window,
        "handler._session.remote_outgoing_window": handler._session.remote_outgoing_window,
        "handler._session.next_incoming_id": handler._session.next_incoming_id,
        "handler._connection.state": handler._connection.state,
        "handler._connection._error": handler._connection._error,
        "handler._connection._last_frame_received_time": (
            handler._connection._last_frame_received_time
        ),
        "handler._connection._transport.sock": handler._connection._transport.sock,
        "handler._connection._transport._read_buffer": handler._connection._transport._read_buffer,
        "handler._cbs_authenticator": handler._cbs_authenticator,
    }
    expected: dict[str, Any] = {
        "client._address.hostname": str,
        "client._address.path": str,
        "_link_properties": dict,
        "handler._connection.state": ConnectionState.OPENED,
        "handler._connection._error": None,
        "handler._connection._last_frame_received_time": float,
        "handler._connection._transport.sock": socket.socket,
        "handler._connection._transport._read_buffer": io.BytesIO,
        "handler._link.state": LinkState.ATTACHED,
        "handler._link.current_link_credit": 100,
        "handler._cbs_authenticator": cbs.CBSAuthenticator,
    }
    for name, value in found.items():
        like = expected.get(name, int)
        right = isinstance(value, like) if isinstance(like, type) else value == like
        assert right, f"{name} is {value!r}\n{RECHECK}"


def test_the_sdk_reads_no_event_while_it_opens(
    hub: EmbeddedHub, links: Links, partition: str
) -> None:
    """It would put them into a buffer of its own, where nobody looks."""
    hub.publish(HUB, [b"x" * 1000] * 50, partition)
    opened = links(partition)
    assert not opened._consumer._message_buffer, RECHECK
    assert [event.sequence for event in read(opened, 50)] == list(range(50))


def test_listening_to_nothing_reads_nothing(hub: EmbeddedHub, links: Links, partition: str) -> None:
    opened = links(partition)
    hub.publish(HUB, [b"a"], partition)
    for _ in range(5):
        opened.tick()
    assert not opened._consumer._message_buffer, RECHECK
    assert [event.body for event in read(opened, 1)] == [b"a"]


# -------------------------------------------------------------------------------------- reading


def test_events_come_as_the_hub_keeps_them(hub: EmbeddedHub, links: Links, partition: str) -> None:
    bodies = [b"", b"x", b"\xff\0", b"y" * 300, b"z" * 70_000, b"0" * (1 << 20)]
    began = int(time.time() * 1000)
    hub.publish(HUB, bodies, partition, partition_key="k")
    found = read(links(partition), len(bodies))
    assert [event.body for event in found] == bodies
    assert [event.sequence for event in found] == list(range(len(bodies)))
    assert all(began - 1 <= event.enqueued_ms <= time.time() * 1000 for event in found)
    assert {event.last_sequence for event in found} == {len(bodies) - 1}
    assert {event.last_enqueued_ms for event in found} == {found[-1].enqueued_ms}


@pytest.mark.parametrize(("at", "first"), [(-1, 0), (0, 0), (1, 1), (7, 7), (10, 10)])
def test_a_link_begins_at_the_number_that_it_is_asked_for(
    shared_hub: EmbeddedHub, links: Links, partition: str, at: int, first: int
) -> None:
    """Also at the one that comes next, and does not exist yet."""
    shared_hub.publish(HUB, [b"%d" % n for n in range(10)], partition)
    opened = links(partition, at)
    shared_hub.publish(HUB, [b"10"], partition)
    found = read(opened, 11 - first)
    assert [int(event.body) for event in found] == list(range(first, 11))


def test_credit_and_window_are_renewed_as_they_are_used(
    hub: EmbeddedHub, links: Links, partition: str
) -> None:
    for _ in range(10):
        hub.publish(HUB, [b"x" * 50] * 100, partition)
    opened = links(partition, prefetch=7)
    opened._session.target_incoming_window = opened._session.incoming_window = 40
    opened._session._outgoing_flow()
    assert [event.sequence for event in read(opened, 1000)] == list(range(1000))
    assert 0 < opened._link.current_link_credit <= 7
    assert 0 < opened._session.incoming_window <= 40


def test_no_more_comes_than_is_granted(hub: EmbeddedHub, links: Links, partition: str) -> None:
    hub.publish(HUB, [b"x"] * 50, partition)
    opened = links(partition, open_=False)
    opened.open(5.0, 8)

    def comes() -> int:
        return len(opened.read()) if readable(opened) else 0

    assert comes() == 8
    assert (opened.grant(0), comes()) == (0, 0)
    assert (opened.grant(10), comes()) == (10, 10)
    assert (opened.grant(4), comes()) == (4, 4)
    assert (opened.grant(), opened.grant(3)) == (100, 100), "what was granted stays"
    assert comes() == 28
    assert opened.grant(200) == 72, "half of it is not used up"


def test_frames_may_be_cut_anywhere(hub: EmbeddedHub, links: Links, partition: str) -> None:
    """TCP is a stream: what one call brings may end within a header."""
    hub.publish(HUB, [b"a" * 10, b"b" * 70_000, b"", b"c" * 200_000, b"d"], partition)
    opened = links(partition)
    raw = b""
    opened.sock.settimeout(0.2)
    while True:
        try:
            raw += opened.sock.recv(1 << 20)
        except TimeoutError:
            break
    for size in (1000, 8, 1):
        events: list[Event] = []
        part = raw if size > 1 else raw[:300]
        for start in range(0, len(part), size):
            opened._feed(part[start : start + size], events)
        if size > 1:
            assert [event.body[:1] for event in events] == [b"a", b"b", b"", b"c", b"d"]
        else:
            assert [event.body for event in events] == [b"a" * 10]
        opened._tail, opened._parts = b"", []


@pytest.mark.parametrize(
    "garbage",
    [
        b"\0" * 16,
        b"\0\0\0\x09\x02\0\0\0\xff" * 3,
        b"HTTP/1.1 400 Bad Request\r\n\r\n" * 4,
        b"\0\0\0\x14\x02\0\0\x01\x00\x53\x14\xff\0\0\0\0\0\0\0\0",
        b"\0\0\0\x10\x02\0\0\x01\x00\x53\x16\xff\xff\xff\xff\xff",
    ],
)
def test_bytes_that_are_no_frames_end_the_link_and_nothing_else(
    links: Links, partition: str, garbage: bytes
) -> None:
    opened = links(partition)
    ours, theirs = socket.socketpair()
    opened.sock.close()
    ours.settimeout(0.05)
    opened.sock = ours
    theirs.sendall(garbage)
    theirs.close()
    failure(opened.read)


# ----------------------------------------------------------------------------- how a link ends


def test_a_connection_that_is_reset_is_told(hub: EmbeddedHub, links: Links, partition: str) -> None:
    opened = links(partition)
    hub.drop_connections()
    assert not failure(opened.read).stolen


def test_a_hub_that_goes_away_says_so(separate_hub: Any, links: Links) -> None:
    gone = separate_hub()
    opened = links(of=gone)
    gone.stop()
    assert "shutting down" in str(failure(opened.read))


def test_a_link_that_is_detached_names_the_reason(
    hub: EmbeddedHub, links: Links, partition: str
) -> None:
    opened = links(partition)
    hub.detach_links(HUB, partition)
    assert str(failure(opened.read)) == (
        "amqp:link:detach-forced: The link was detached on demand."
    )


def test_a_link_that_another_reader_took_is_stolen(links: Links, partition: str) -> None:
    opened = links(partition)
    links(partition, role="thief", epoch=5)
    error = failure(opened.read)
    assert error.stolen
    assert "New receiver" in str(error)
    me = f"{socket.gethostname()}/{os.getpid()}"
    assert error.rival == f"thief {me}"
    refused = links(partition, open_=False)
    error = failure(lambda: refused.open(5.0))
    assert (error.stolen, error.rival) == (True, ""), "without an epoch it may not even attach"
    lower = links(partition, open_=False, epoch=4)
    error = failure(lambda: lower.open(5.0))
    assert (error.stolen, error.rival) == (True, f"thief {me}")


def test_one_that_has_no_name_is_told_without_one(links: Links, partition: str) -> None:
    opened = links(partition)
    thief = links(partition, open_=False, epoch=0)
    del thief._consumer._link_properties[b"com.microsoft:receiver-name"]
    thief.open(5.0)
    error = failure(opened.read)
    assert (error.stolen, error.rival) == (True, "")


def test_a_long_name_of_a_machine_is_cut(
    hub: EmbeddedHub, links: Links, partition: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "x" * 100)
    links(partition)
    (reader,) = hub.readers[HUB, "$default", partition]
    assert reader.name == "alertbeam " + "x" * 54


def test_a_link_without_credit_brings_nothing(
    hub: EmbeddedHub, links: Links, partition: str
) -> None:
    hub.publish(HUB, [b"x"] * 5, partition)
    assert read(links(partition, prefetch=0), 1, 0.15) == []


def test_a_busy_server_is_named(hub: EmbeddedHub, links: Links, partition: str) -> None:
    hub.refuse_attaches(1)
    opened = links(partition, open_=False)
    assert "server-busy" in str(failure(lambda: opened.open(5.0)))


@pytest.mark.parametrize(
    "fields", [{"partition": "99"}, {"group": "nobody"}], ids=["partition", "group"]
)
def test_what_is_not_there_is_told(separate_hub: Any, links: Links, fields: Any) -> None:
    own = separate_hub(consumer_groups=["siem"])
    opened = links(of=own, open_=False, **fields)
    error = failure(lambda: opened.open(5.0))
    assert "not-found" in str(error)
    assert "could not be found" in str(error)


def test_a_wrong_key_is_refused_and_not_shown(separate_hub: Any, links: Links) -> None:
    own = separate_hub(key="the-right-key")
    wrong = own.connection_string(HUB).replace("the-right-key", "c2VjcmV0LWtleQ==")
    opened = links(of=own, string=wrong, open_=False)
    error = failure(lambda: opened.open(5.0))
    assert "InvalidSignature" in str(error)
    assert "c2VjcmV0" not in str(error)
    assert len(str(error)) < 150


def test_nobody_listening_is_told(links: Links, separate_hub: Any) -> None:
    own = separate_hub()
    opened = links(of=own, open_=False)
    own.stop()
    assert "refused" in str(failure(lambda: opened.open(5.0))).lower()


@pytest.mark.parametrize("answer", [b"", b"AMQP\x03\x01\x00\x00"], ids=["silent", "begins"])
def test_a_server_that_never_answers_is_given_up(
    links: Links, answer: bytes, hub: EmbeddedHub
) -> None:
    """The SDK itself would wait for its first frames for ever."""
    with socket.create_server(("127.0.0.1", 0)) as mute:

        def accept() -> None:
            client, _ = mute.accept()
            with client, contextlib.suppress(OSError):
                client.recv(1000)
                client.sendall(answer)
                while client.recv(1000):
                    pass

        threading.Thread(target=accept, daemon=True).start()
        port = str(mute.getsockname()[1])
        string = hub.connection_string(HUB).replace(str(hub.port), port)
        opened = links(string=string, open_=False)
        began = time.monotonic()
        assert str(failure(lambda: opened.open(0.3))) == "the hub did not answer within 0.3 s"
        assert time.monotonic() - began < 2


def test_closing_never_raises_and_never_waits(
    hub: EmbeddedHub, links: Links, partition: str
) -> None:
    opened = links(partition)
    never = links(partition, open_=False)
    hub.drop_connections()
    began = time.monotonic()
    for one in (opened, opened, never):
        one.close()
    assert time.monotonic() - began < 0.5


# -------------------------------------------------------------------------- while nothing comes


def test_a_token_is_renewed_before_it_ends(
    separate_hub: Any, links: Links, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = separate_hub(key="a-key")
    asked = []
    check = own.check_token
    monkeypatch.setattr(own, "check_token", lambda token: (asked.append(token), check(token))[1])
    opened = links(of=own)
    assert len(asked) == 1
    opened._cbs._expires_on = int(time.time()) + 30
    opened._cbs._refresh_window = 60
    opened._token_checked = -100.0
    opened.tick()
    until(lambda: len(asked) == 2)
    own.publish(HUB, [b"after"], 0)
    assert [event.body for event in read(opened, 1)] == [b"after"]
    assert opened._cbs.handle_token(), "the answer was given to the SDK"


def test_a_token_that_is_refused_ends_the_link(separate_hub: Any, links: Links) -> None:
    own = separate_hub(key="a-key")
    opened = links(of=own)
    own.key = "another"
    opened._cbs._expires_on = int(time.time()) + 30
    opened._cbs._refresh_window = 60

    def tend() -> None:
        opened._token_checked = -100.0
        opened.tick()
        opened.read()

    assert "InvalidSignature" in str(failure(tend))


def test_a_heartbeat_is_sent_when_the_hub_wants_one(links: Links, partition: str) -> None:
    opened = links(partition)
    connection = opened._connection
    connection._remote_idle_timeout = 0.1
    connection._remote_idle_timeout_send_frame = 0.05
    before = connection._last_frame_sent_time
    until(lambda: (opened.tick(), connection._last_frame_sent_time > before)[1])
    opened.tick()


# ---------------------------------------------------------------------------- questions to a hub


def test_a_hub_tells_its_partitions(hub: EmbeddedHub, access: Any) -> None:
    assert partition_ids(access(hub)) == [str(n) for n in range(PARTITIONS)]


def test_a_hub_tells_when_it_was_made(separate_hub: Any, access: Any) -> None:
    own = separate_hub(clock=lambda: 1_700_000_000_123)
    assert hub_properties(access(own)) == (["0", "1"], 1_700_000_000_123)
    own.stop()
    again = separate_hub(port=own.port)
    assert hub_properties(access(again)).created_ms == 1_700_000_000_123
    anew = separate_hub("another", clock=lambda: 1_700_000_000_124)
    assert hub_properties(access(anew)).created_ms == 1_700_000_000_124


def test_a_partition_tells_what_it_holds(separate_hub: Any, access: Any) -> None:
    from pipelines.local.hub import Retention

    own = separate_hub(retention=Retention(events=3))
    assert kept_sequences(access(own), "0") == range(0)
    own.publish(HUB, [b"1", b"2"], 0)
    assert kept_sequences(access(own), "0") == range(2)
    own.publish(HUB, [b"x"] * 8, 0)
    assert kept_sequences(access(own), "0") == range(7, 10)


@pytest.mark.parametrize("what", ["key", "port", "secret"])
def test_a_hub_that_cannot_be_asked_says_why(
    separate_hub: Any, access: Any, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = separate_hub(key="the-right-key")
    if what == "secret":
        asked = EventHubsAccess(hub=HUB, connection_string="env:NO_SUCH_VARIABLE")
        expected = "env:NO_SUCH_VARIABLE: the environment variable NO_SUCH_VARIABLE is not set"
    elif what == "key":
        wrong = own.connection_string(HUB).replace("the-right-key", "c2VjcmV0LWtleQ==")
        asked, expected = access(own, string=wrong), "InvalidSignature"
    else:
        asked, expected = access(own), "refused"
        own.stop()
    error = failure(lambda: partition_ids(asked))
    assert expected.lower() in str(error).lower()
    assert "c2VjcmV0" not in str(error)
    assert len(str(error)) < 200


def test_a_hub_that_never_answers_a_question_holds_up_nobody(
    hub: EmbeddedHub, access: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sdk, "_ASK_SECONDS", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        port = str(mute.getsockname()[1])
        asked = access(hub, string=hub.connection_string(HUB).replace(str(hub.port), port))
        before = threading.active_count()
        for _ in range(sdk._ASKERS + 3):
            assert str(failure(lambda: partition_ids(asked))) == (
                "the hub did not answer within 0.1 s"
            )
        assert threading.active_count() - before <= sdk._ASKERS, "no thread for each try"
    monkeypatch.setattr(sdk, "_ASK_SECONDS", 30.0)
    assert len(partition_ids(access(hub))) == PARTITIONS


def test_the_client_is_one_that_raises_at_once(hub: EmbeddedHub, access: Any) -> None:
    client: EventHubConsumerClient = access(hub).client()
    assert client._config.max_retries == 0
    assert client._config.socket_timeout == 0.05
