"""The Event Hubs sink against the embedded hub: events, partitions, limits, deadlines, the SDK."""

from __future__ import annotations

import inspect
import json
import pickle
import socket
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import azure.eventhub
import pytest
from azure.core.credentials import AccessToken
from azure.core.exceptions import ClientAuthenticationError
from azure.eventhub import EventHubProducerClient
from azure.eventhub._producer import EventHubProducer
from azure.eventhub._pyamqp import _connection, cbs, client, link
from azure.eventhub._pyamqp._decode import decode_payload
from azure.eventhub._pyamqp.message import BatchMessage
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from pipelines.local.hub import EmbeddedHub
from pipelines.local.receivers import SyslogReceiver, certificate
from schemas.formats import FORMATS
from tests.transforms.sinks.alerts import HOSTILE, PARTITION, SOURCE, alert, identity
from tests.transforms.sinks.doubles.event_hubs import Event, events
from transforms.secrets import SecretError
from transforms.sinks.base import Accepted, Connection, Refresh, RejectItems, Retry, Shrink, Stop
from transforms.sinks.event_hubs import EventHubs, EventHubsSettings, _parts

HUB, KEY = "forwarded", "s3cret-key"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[EmbeddedHub]:
    with EmbeddedHub(tmp_path / "hub", {HUB: 4}, key=KEY) as made:
        monkeypatch.setenv("CONNECTION", made.connection_string(HUB))
        yield made


def sink(**options: Any) -> EventHubs:
    return EventHubs(
        "out", EventHubsSettings(**{"connection_string": "env:CONNECTION", "timeout": 5, **options})
    )


def payload(to: EventHubs, number: int = 1, **fields: Any) -> bytes:
    return to.encode(alert(number, **fields), SOURCE, PARTITION)


@pytest.fixture
def connect() -> Iterator[Any]:
    made: list[Connection] = []

    def open_(to: EventHubs) -> Any:
        made.append(to.connect())
        return made[-1]

    yield open_
    for connection in made:
        connection.close()


def held(hub: EmbeddedHub) -> list[Event]:
    return [event for partition in range(4) for event in events(hub, HUB, partition)]


def until(check: Any, within: float = 5.0) -> None:
    end = time.monotonic() + within
    while not check():
        assert time.monotonic() < end
        time.sleep(0.005)


class TestSettings:
    @pytest.mark.parametrize(
        "given",
        [
            {},
            {"connection_string": "env:A", "namespace": "a.servicebus.windows.net", "hub": "h"},
            {"namespace": "a.servicebus.windows.net"},
            {"namespace": "sb://a.servicebus.windows.net", "hub": "h"},
            {"connection_string": "env:A", "hub": "a/b"},
            {
                "connection_string": "Endpoint=sb://a.b;SharedAccessKeyName=k;SharedAccessKey=hunter2"
            },
        ],
    )
    def test_there_is_one_way_in_and_it_leads_to_a_hub(self, given):
        with pytest.raises(ValidationError) as caught:
            EventHubsSettings(**given)
        assert "hunter2" not in str(caught.value)

    @pytest.mark.parametrize(
        ("text", "why"),
        [
            ("hunter2", "no connection string"),
            ("Endpoint=sb://a.b;EntityPath=h", "no connection string"),
            ("Endpoint=sb://a.b;SharedAccessKeyName=k;SharedAccessKey=hunter2", "names no hub"),
            ("Endpoint=sb://a.b;SharedAccessKey=hunter2;EntityPath=h", "Invalid connection string"),
        ],
    )
    def test_a_connection_string_that_is_none_is_told_and_not_shown(self, monkeypatch, text, why):
        monkeypatch.setenv("CONNECTION", text)
        for ask in (sink().connect, lambda: sink().check(1)):
            with pytest.raises(SecretError, match=why) as caught:
                ask()
            assert "hunter2" not in str(caught.value)

    def test_where_it_writes_to_can_be_compared(self, monkeypatch):
        text = "Endpoint=sb://NS.servicebus.windows.net/;SharedAccessKeyName=k;SharedAccessKey=s"
        monkeypatch.setenv("CONNECTION", f"{text};EntityPath=Alerts")
        assert sink().destination() == "ns.servicebus.windows.net/alerts"
        assert sink(hub="Other").destination() == "ns.servicebus.windows.net/other"
        named = EventHubsSettings(namespace="ns.servicebus.windows.net", hub="alerts")
        assert EventHubs("x", named).destination() == "ns.servicebus.windows.net/alerts"
        monkeypatch.delenv("CONNECTION")
        with pytest.raises(SecretError):
            sink().destination()

    def test_only_json_is_said_shorter_and_it_fits(self):
        large = alert(1, text="x" * 100_000)
        assert sink(format="cef").shrink(large, SOURCE, PARTITION, 3_000) is None
        for most in (2_000, 3_001, 60_000):
            said = sink().shrink(large, SOURCE, PARTITION, most)
            assert most - 10 <= len(said) <= most
        assert sink().shrink(large, SOURCE, PARTITION, 100) is None


class TestEvents:
    @pytest.mark.parametrize("form", FORMATS)
    def test_the_sdk_reads_what_was_said(self, form):
        made = alert(1, text=HOSTILE, entity="alert-1", severity="high", status="new")
        key, event = _parts(sink(format=form).encode(made, SOURCE, PARTITION))
        read = decode_payload(memoryview(event))
        assert key == "alert-1"
        assert read.message_annotations == {b"x-opt-partition-key": b"alert-1"}
        told = {"event_id": made.event_id, "kind": "defender_alert"}
        told |= {"severity": "high", "status": "new"}
        found = read.application_properties
        assert {k.decode(): v.decode() for k, v in found.items()} == told
        assert read.properties.message_id == made.event_id.encode()
        assert read.properties.content_type == FORMATS[form].media_type.encode()
        if form != "ndjson":
            assert b"".join(read.data) == FORMATS[form].say(made)

    @given(entity=st.text())
    def test_any_entity_has_a_key_that_a_hub_takes(self, entity):
        key, event = _parts(payload(sink(), entity=entity))
        assert 0 < len(key) <= 128
        annotations = decode_payload(memoryview(event)).message_annotations
        assert annotations == {b"x-opt-partition-key": key.encode()}

    def test_the_updates_of_an_alert_lie_in_one_partition_in_their_order(self, hub, connect):
        to = sink()
        sent = [payload(to, n, entity=f"alert-{n % 40}") for n in range(400)]
        assert isinstance(connect(to).send(sent, 5), Accepted)
        order = {identity(n): n for n in range(400)}
        places, numbers = defaultdict(set), defaultdict(list)
        for partition in range(4):
            for event in events(hub, HUB, partition):
                places[event.key].add(partition)
                numbers[event.key].append(order[event.message_id])
        assert len(places) == 40
        assert all(len(place) == 1 for place in places.values())
        assert all(found == sorted(found) for found in numbers.values())
        assert set.union(*places.values()) == {0, 1, 2, 3}

    def test_without_a_key_a_request_is_one_publication(self, hub, connect):
        to = sink(partition_key="none")
        connection = connect(to)
        for _ in range(4):
            assert isinstance(connection.send([payload(to, n) for n in range(50)], 5), Accepted)
        assert [len(events(hub, HUB, partition)) for partition in range(4)] == [50] * 4
        assert {event.key for event in held(hub)} == {None}

    def test_an_event_of_many_frames_arrives_whole(self, hub, connect):
        to = sink()
        large = payload(to, text="x" * 300_000)
        assert isinstance(connect(to).send([large], 5), Accepted)
        (event,) = held(hub)
        assert len(event.body) > 900_000
        assert json.loads(event.body)["id"] == identity(1)

    def test_a_record_is_handed_on_as_it_came(self, hub, connect):
        to, raw = sink(format="raw"), b'{"SystemAlertId": "a"}'
        assert isinstance(connect(to).send([payload(to, raw=raw)], 5), Accepted)
        assert [event.body for event in held(hub)] == [raw]


class TestLimits:
    @pytest.mark.parametrize("key", ["entity", "none"])
    def test_what_the_hub_told_that_it_takes_is_kept_before_it_is_sent(
        self, tmp_path, monkeypatch, connect, key
    ):
        with EmbeddedHub(tmp_path / "basic", {HUB: 1}, max_message_size=262_144) as basic:
            monkeypatch.setenv("CONNECTION", basic.connection_string(HUB))
            to = sink(partition_key=key)
            assert "up to 262,144 bytes" in to.check(5)
            connection = connect(to)
            large = payload(to, 1, text="x" * 150_000)
            verdict = connection.send([large], 5)
            assert isinstance(verdict, Shrink)
            assert "the hub takes 262,144" in verdict.reason
            if key == "entity":
                verdict = connection.send([payload(to, 2), large, payload(to, 3)], 5)
                assert verdict == RejectItems({}, taken=True, again=[1])
            assert isinstance(connection.send([payload(to, 4)], 5), Accepted)

    @pytest.mark.parametrize("key", ["entity", "none"])
    def test_a_full_request_is_no_larger_than_the_settings_say(self, hub, connect, key):
        to = sink(partition_key=key, max_bytes=20_000)
        hub.max_message_size = 20_000
        sent, room = [], to.limits.max_bytes
        for number in range(100):
            one = payload(to, number, entity="same")
            room -= len(one) + to.separator_bytes
            if room < 0:
                break
            sent.append(one)
        assert len(sent) > 5
        assert isinstance(connect(to).send(sent, 5), Accepted)

    def test_what_the_hub_refuses_by_its_size_is_said_shorter(self, hub, connect):
        to = sink()
        hub.refuse_events(HUB, "amqp:link:message-size-exceeded", detach=True)
        assert isinstance(connect(to).send([payload(to)], 5), Shrink)


class TestFailures:
    def test_what_was_accepted_before_the_link_ended_is_not_sent_again(self, hub, connect):
        to = sink()
        connection = connect(to)
        assert isinstance(connection.send([payload(to, 0)], 5), Accepted)
        hub.refuse_events(HUB, marker=b"p0ison", detach=True)
        sent = [payload(to, n, text="p0ison" if n == 3 else "") for n in range(1, 6)]
        verdict = connection.send(sent, 5)
        assert isinstance(verdict, RejectItems)
        assert (verdict.reasons, verdict.taken, [*verdict.again]) == ({}, True, [2, 3, 4])
        hub.heal()
        assert isinstance(connection.send([sent[at] for at in verdict.again], 5), Accepted)
        assert sorted(it.message_id for it in held(hub)) == sorted(identity(n) for n in range(6))

    def test_what_there_is_no_time_to_send_is_not_sent_and_nothing_comes_twice(
        self, hub, connect, monkeypatch
    ):
        to = sink()
        connection = connect(to)
        sent = [payload(to, n) for n in range(250)]
        monkeypatch.setattr("transforms.sinks.event_hubs._SENDING", 1e-9)
        verdict = connection.send(sent, 5)
        assert verdict == RejectItems({}, taken=True, again=[*range(100, 250)])
        assert sorted(it.message_id for it in held(hub)) == sorted(map(identity, range(100)))

    def test_a_hub_that_does_not_exist_stops_it(self, hub, connect):
        to = sink(hub="mistyped")
        verdict = connect(to).send([payload(to)], 5)
        assert isinstance(verdict, Stop)
        assert "'sb://127.0.0.1/mistyped' could not be found" in verdict.reason
        with pytest.raises(OSError, match="could not be found"):
            to.check(5)

    def test_a_key_that_is_refused_is_read_anew(self, hub, connect, monkeypatch):
        monkeypatch.setenv("CONNECTION", hub.connection_string(HUB).replace(KEY, "wr0ng"))
        verdict = connect(sink()).send([payload(sink())], 5)
        assert isinstance(verdict, Refresh)
        assert "InvalidSignature" in verdict.reason
        assert "wr0ng" not in verdict.reason

    @pytest.mark.parametrize("said", [b"", b"AMQP\x03\x01\x00\x00"])
    def test_a_server_that_says_no_more_is_given_up_in_time(self, monkeypatch, connect, said):
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
            kept: list[socket.socket] = []

            def accept() -> None:
                while True:
                    try:
                        kept.append(server.accept()[0])
                        kept[-1].sendall(kept[-1].recv(8) and said)
                    except OSError:
                        return

            threading.Thread(target=accept, daemon=True).start()
            monkeypatch.setenv(
                "CONNECTION",
                f"Endpoint=sb://127.0.0.1:{port};SharedAccessKeyName=k;SharedAccessKey=s;"
                f"UseDevelopmentEmulator=true;EntityPath={HUB}",
            )
            to = sink(timeout=10)
            started = time.monotonic()
            verdict = connect(to).send([payload(to)], 0.2)
            with pytest.raises(TimeoutError, match="no answer within"):
                to.check(0.2)
            assert time.monotonic() - started < 1
            assert verdict == Retry("hub forwarded: no outcome within 0.2 s")
            server.shutdown(socket.SHUT_RDWR)
        for sock in kept:
            sock.close()

    def test_a_hub_that_drips_is_given_up_in_time(self, hub, connect, monkeypatch):
        with socket.create_server(("127.0.0.1", 0)) as server:

            def drip() -> None:
                try:
                    there, _ = server.accept()
                    onward = socket.create_connection(("127.0.0.1", hub.port))
                    threading.Thread(target=_pump, args=(there, onward), daemon=True).start()
                    while data := onward.recv(1):
                        there.sendall(data)
                        time.sleep(0.01)
                except OSError:
                    return

            threading.Thread(target=drip, daemon=True).start()
            text = hub.connection_string(HUB).replace(str(hub.port), str(server.getsockname()[1]))
            monkeypatch.setenv("CONNECTION", text)
            to = sink(timeout=10)
            started = time.monotonic()
            assert isinstance(connect(to).send([payload(to)], 0.3), Retry)
            assert time.monotonic() - started < 0.8
            server.shutdown(socket.SHUT_RDWR)

    def test_a_link_that_was_detached_while_nothing_was_sent_costs_no_attempt(self, hub, connect):
        to = sink()
        connection = connect(to)
        assert isinstance(connection.send([payload(to, 1)], 5), Accepted)
        assert hub.detach_links(HUB) == 1
        assert isinstance(connection.send([payload(to, 2)], 5), Accepted)
        assert hub.drop_connections() == 1
        assert isinstance(connection.send([payload(to, 3)], 5), Accepted)
        assert len(held(hub)) == 3

    def test_while_nothing_is_sent_it_hears_that_the_link_has_ended(self, hub, connect):
        to = sink()
        connection = connect(to)
        assert connection.idle() is None
        assert isinstance(connection.send([payload(to)], 5), Accepted)
        assert connection.idle() == 10.0
        hub.detach_links(HUB)
        until(lambda: connection.idle() is None)
        assert connection._handler is None

    def test_an_access_signature_that_ends_is_renewed_before(self, hub, connect, monkeypatch):
        to = sink()
        connection = connect(to)
        assert isinstance(connection.send([payload(to)], 5), Accepted)
        authenticator = connection._handler._cbs_authenticator
        put = authenticator._token_put_time = -1
        authenticator._expires_on = int(time.time()) + 1
        authenticator._refresh_window = 60
        assert connection.idle() == 10.0
        assert authenticator._token_put_time != put
        assert isinstance(connection.send([payload(to)], 5), Accepted)

    def test_a_connection_that_is_closed_is_gone_at_the_hub(self, hub, connect):
        to = sink()
        connection = to.connect()
        assert isinstance(connection.send([payload(to)], 5), Accepted)
        assert len(hub.connections) == 1
        started = time.monotonic()
        connection.close()
        assert time.monotonic() - started < 0.3
        to.check(5)
        until(lambda: not hub.connections)
        until(lambda: not [t for t in threading.enumerate() if t.name == "event hub's deadline"])


def _pump(there: socket.socket, onward: socket.socket) -> None:
    try:
        while data := there.recv(65536):
            onward.sendall(data)
    except OSError:
        return


class _Credential:
    """Entra's, as the SDK sees it."""

    def __init__(self, refuses: bool = False) -> None:
        self.refuses = refuses
        self.asked: list[str] = []
        self.closed = False

    def get_token(self, *scopes: str, **_: Any) -> AccessToken:
        self.asked += scopes
        if self.refuses:
            raise ClientAuthenticationError("AADSTS7000215: Invalid client secret provided")
        return AccessToken("header.claims.signature", int(time.time()) + 3600)

    def close(self) -> None:
        self.closed = True


class TestEntra:
    @pytest.fixture
    def entered(self, hub, monkeypatch) -> Iterator[_Credential]:
        """A namespace that is the embedded hub, which speaks no TLS and takes any token."""
        hub.key, credential = None, _Credential()
        monkeypatch.setattr(
            "transforms.sinks.event_hubs.identity", lambda given, timeout: credential
        )
        init = EventHubProducerClient.__init__

        def local(self: Any, host: str, *given: Any, **options: Any) -> None:
            init(self, f"127.0.0.1:{hub.port}", *given, use_tls=False, **options)

        monkeypatch.setattr(EventHubProducerClient, "__init__", local)
        yield credential

    def test_a_namespace_is_entered_with_a_token_for_event_hubs(self, hub, entered):
        to = sink(connection_string=None, namespace="ns.servicebus.windows.net", hub=HUB)
        connection = to.connect()
        assert isinstance(connection.send([payload(to)], 5), Accepted)
        connection.close()
        assert entered.asked == ["https://eventhubs.azure.net//.default"]
        assert entered.closed
        assert len(held(hub)) == 1

    def test_where_entra_refuses_the_secret_is_read_anew(self, entered, connect):
        entered.refuses = True
        to = sink(connection_string=None, namespace="ns.servicebus.windows.net", hub=HUB)
        verdict = connect(to).send([payload(to)], 5)
        assert isinstance(verdict, Refresh)
        assert "AADSTS7000215" in verdict.reason


def test_a_certificate_that_is_not_trusted_stops_it(monkeypatch, connect, tmp_path):
    with SyslogReceiver(tls=certificate(tmp_path)) as server:
        monkeypatch.setenv(
            "CONNECTION",
            "Endpoint=sb://127.0.0.1/;SharedAccessKeyName=k;SharedAccessKey=s;EntityPath=h",
        )
        # A port in a host's name is ignored by the SDK.
        monkeypatch.setattr(_connection, "SECURE_PORT", server.port)
        verdict = connect(sink()).send([payload(sink())], 5)
    assert isinstance(verdict, Stop)
    assert "the certificate was refused" in verdict.reason


def test_it_pickles_without_its_secret(hub, connect):
    to = sink()
    connection = connect(to)
    assert isinstance(connection.send([payload(to)], 5), Accepted)
    assert KEY.encode() not in pickle.dumps(to)
    assert KEY not in f"{to!r} {to.settings!r} {connection!r} {to.target}"


CHECKED = "5.15.1"
RECHECK = f"""
azure-eventhub is not the {CHECKED} any more that transforms/sinks/event_hubs.py was written
against, or has been changed. Go through the names with a leading underscore in that file, and read
in the new SDK what they do now: above all SendClient.do_work (it sends what waits, and reads one
frame), SenderLink.update_pending_deliveries, how outcomes reach a _MessageDelivery, what is raised
where a link or connection ends, and that a write is given up after the socket's timeout. Then run
this file and the contract suite.
"""


def test_the_sdk_is_the_one_whose_parts_are_used() -> None:
    assert azure.eventhub.__version__ == CHECKED, RECHECK
    parts = [
        (EventHubProducerClient._create_producer, "self, partition_id, send_timeout"),
        (EventHubProducer._create_handler, "self, auth"),
        (client.SendClient._transfer_message, "self, message_delivery, timeout"),
        (client.SendClient.do_work, "self, kwargs"),
        (client.SendClient.client_ready, "self"),
        (_connection.Connection.listen, "self, wait, batch, kwargs"),
        (cbs.CBSAuthenticator.handle_token, "self"),
        (link.Link.get_state, "self"),
    ]
    for part, parameters in parts:
        assert ", ".join(inspect.signature(part).parameters) == parameters, RECHECK
    assert BatchMessage._code == 0x80013700, RECHECK
