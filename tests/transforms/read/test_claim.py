"""Whoever else reads with this consumer group is noticed at the start, and while reading; nothing
is lost by it, nor read twice."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest
from azure.eventhub import EventHubConsumerClient
from azure.eventhub._eventprocessor.in_memory_checkpoint_store import InMemoryCheckpointStore

from pipelines.local.hub import EmbeddedHub
from pipelines.local.hub.links import Reader
from tests.transforms.read.conftest import HUB, until
from transforms.read import claim as module
from transforms.read import reader as reader_module
from transforms.read.access import EventHubsAccess
from transforms.read.claim import HubTaken, claim
from transforms.read.event_hubs import END
from transforms.read.frames import Event
from transforms.read.reader import HubReader, ReadSession
from transforms.read.sdk import HubError, PartitionLink

Access = Callable[..., EventHubsAccess]
ME = f"{socket.gethostname()}/{os.getpid()}"


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader_module, "_BACKOFF_SECONDS", (0.005, 0.05))
    monkeypatch.setattr(reader_module, "_TICK_SECONDS", 0.05)


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """A claim that nobody answers is held for a moment only."""
    monkeypatch.setattr(module, "_CLAIM_SECONDS", 0.2)


@pytest.fixture
def sessions() -> Iterator[Callable[..., ReadSession]]:
    made: list[ReadSession] = []

    def make(defends: bool = True) -> ReadSession:
        made.append(ReadSession(defends=defends))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def links() -> Iterator[Callable[..., PartitionLink]]:
    """Opens links of other readers; with an epoch, as those that SDKs' event processors open."""
    opened: list[PartitionLink] = []

    def make(access: EventHubsAccess, partition: str, epoch: int | None = None) -> PartitionLink:
        link = PartitionLink(access.client(), "$Default", partition, 0, 100, epoch=epoch)
        del link._consumer._link_properties[b"com.microsoft:receiver-name"]
        link.open(5.0)
        opened.append(link)
        return link

    yield make
    for one in opened:
        one.close()


def readers_of(hub: EmbeddedHub, partition: str) -> list[Reader]:
    return list(hub.readers[HUB, "$default", partition])


def reads(
    session: ReadSession, access: EventHubsAccess, partition: str
) -> tuple[HubReader, list[Event]]:
    """A reader of the partition, and what it brings, taken as the pipeline takes it."""
    reader = session.reader("hub", access)
    reader.seek(partition, 0)
    found: list[Event] = []

    def take() -> None:
        while reader.is_alive():
            session.wait(0.05)
            found.extend(reader.take(partition, END, 200, 1 << 20))

    threading.Thread(target=take, daemon=True).start()
    until(lambda: reader.status(partition).connected)
    return reader, found


def driven_out(link: PartitionLink) -> None:
    """Wait until a defence ends the link."""
    with pytest.raises(HubError, match="alertbeam-defence"):
        until(lambda: link.read() and False)


# ----------------------------------------------------------------------------------- the start


def test_a_group_that_nobody_reads_is_free_and_stays_so(
    separate_hub: Any, access: Access, brief: None
) -> None:
    own = separate_hub()
    own.publish(HUB, [b"x"] * 5, 0)
    claim(access(own), "0")
    until(lambda: not own.connections)
    assert not readers_of(own, "0")


def test_a_claim_lasts_long_enough_for_another_to_answer() -> None:
    assert module._CLAIM_SECONDS >= 2


def test_a_reader_with_an_epoch_is_named_and_not_disturbed(
    hub: EmbeddedHub, access: Access, partition: str, links: Any
) -> None:
    owner = links(access(hub), partition, epoch=0)
    before = readers_of(hub, partition)
    with pytest.raises(HubTaken, match="another reader, by an epoch") as error:
        claim(access(hub, namespace=None), partition)
    told = str(error.value)
    assert f"reads hub {HUB} as consumer group $Default" in told
    assert "az eventhubs eventhub consumer-group create" in told
    assert f"--eventhub-name {HUB} " in told
    assert "consumer_group: alertbeam" in told
    assert max(map(len, told.splitlines()[1:])) <= 80, "it is copied from a terminal"
    assert readers_of(hub, partition) == before
    owner.tick()


def test_another_alertbeam_is_named_and_reads_on(
    hub: EmbeddedHub, access: Access, partition: str, sessions: Any
) -> None:
    _, found = reads(sessions(), access(hub), partition)
    ended = threading.Event()

    def publish() -> None:
        while not ended.is_set():
            hub.publish(HUB, [b"x"], partition)
            time.sleep(0.001)

    publisher = threading.Thread(target=publish)
    publisher.start()
    began = time.monotonic()
    try:
        with pytest.raises(HubTaken) as error:
            claim(access(hub), partition)
    finally:
        ended.set()
        publisher.join()
    assert time.monotonic() - began < 1.5, "it is told as soon as the claim is answered"
    assert str(error.value).startswith(f"another alertbeam ({ME}) reads hub {HUB} ")
    count = hub.partition_info(HUB, partition).last_sequence_number + 1
    until(lambda: len(found) == count)
    assert [event.sequence for event in found] == list(range(count))


def test_one_that_is_started_again_and_again_is_refused_each_time(
    hub: EmbeddedHub, access: Access, partition: str, sessions: Any
) -> None:
    reader, found = reads(sessions(), access(hub), partition)
    for _ in range(4):
        with pytest.raises(HubTaken, match="another alertbeam"):
            claim(access(hub), partition)
        until(lambda: reader.status(partition).connected)
    hub.publish(HUB, [b"x"], partition)
    until(lambda: len(found) == 1)


def test_of_two_that_start_at_the_same_time_one_begins(
    hub: EmbeddedHub, access: Access, partition: str, brief: None
) -> None:
    def attempt(which: EventHubsAccess) -> str:
        try:
            claim(which, partition)
        except HubTaken:
            return "refused"
        return "begins"

    with ThreadPoolExecutor(2) as pool:
        assert sorted(pool.map(attempt, [access(hub), access(hub)])) == ["begins", "refused"]


def test_a_claim_that_comes_before_the_first_link_of_a_run_is_answered_too(
    hub: EmbeddedHub, access: Access, partition: str, sessions: Any
) -> None:
    """A run has claimed the hub, and builds its pipeline, when the next one starts."""
    with ThreadPoolExecutor(1) as pool:
        second = pool.submit(claim, access(hub), partition)
        until(lambda: [r.epoch for r in readers_of(hub, partition)] == [1])
        reader, _ = reads(sessions(), access(hub), partition)
        with pytest.raises(HubTaken, match="another alertbeam"):
            second.result(5)
        until(lambda: reader.status(partition).error == "")


def test_those_who_pay_what_is_owed_hold_up_no_start_and_come_back(
    hub: EmbeddedHub, access: Access, partition: str, sessions: Any, brief: None
) -> None:
    """`redeliver` reads beside a run, and is no second pipeline."""
    reader, found = reads(sessions(defends=False), access(hub), partition)
    hub.publish(HUB, [b"1"], partition)
    until(lambda: len(found) == 1)
    claim(access(hub), partition)
    hub.publish(HUB, [b"2"], partition)
    until(lambda: len(found) == 2)
    assert [event.body for event in found] == [b"1", b"2"]
    until(lambda: reader.status(partition).connected)


def test_readers_of_other_partitions_and_groups_notice_nothing(
    separate_hub: Any, access: Access, links: Any, brief: None
) -> None:
    own = separate_hub()
    links(access(own), "1")
    before = readers_of(own, "1")
    claim(access(own), "0")
    assert readers_of(own, "1") == before
    owner = links(access(own), "0", epoch=0)
    claim(access(own, consumer_group="alertbeam"), "0")
    owner.tick()


def test_five_readers_without_an_epoch_are_asked_by_the_claim(
    hub: EmbeddedHub, access: Access, partition: str, links: Any, sessions: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    for _ in range(5):
        links(access(hub), partition)
    with monkeypatch.context() as brief:  # nobody answers this one
        brief.setattr(module, "_CLAIM_SECONDS", 0.2)
        claim(access(hub), partition)
    reads(sessions(), access(hub), partition)
    for _ in range(4):
        links(access(hub), partition)
    with pytest.raises(HubTaken, match="another alertbeam"):
        claim(access(hub), partition)


@pytest.mark.parametrize("what", ["key", "port", "secret", "dropped"])
def test_a_hub_that_cannot_be_asked_is_not_taken(
    separate_hub: Any, access: Access, what: str
) -> None:
    own = separate_hub(key="the-right-key")
    asked, expected = access(own), "closed|reset"
    if what == "secret":
        asked = EventHubsAccess(hub=HUB, connection_string="env:NO_SUCH_VARIABLE")
        expected = "NO_SUCH_VARIABLE is not set"
    elif what == "key":
        wrong = own.connection_string(HUB).replace("the-right-key", "c2VjcmV0LWtleQ==")
        asked, expected = access(own, string=wrong), "InvalidSignature"
    elif what == "port":
        own.stop()
        expected = "refused"
    else:

        def drop() -> None:
            until(lambda: [r.epoch for r in readers_of(own, "0")] == [1])
            own.drop_connections()

        threading.Thread(target=drop, daemon=True).start()
    with pytest.raises(HubError, match=f"(?i){expected}") as error:
        claim(asked, "0")
    assert not isinstance(error.value, HubTaken)
    assert "c2VjcmV0" not in str(error.value)


@pytest.mark.parametrize("times", [1, 2, 3])
def test_a_hub_that_is_busy_for_a_moment_is_asked_again(
    separate_hub: Any,
    access: Access,
    brief: None,
    times: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_PAUSE", 0.01)
    own = separate_hub()
    own.refuse_attaches(times)
    if times < module._ATTEMPTS:
        claim(access(own), "0")
    else:
        with pytest.raises(HubError, match="server-busy"):
            claim(access(own), "0")


def test_what_another_calls_itself_is_told_without_its_control_characters(
    hub: EmbeddedHub, access: Access, partition: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everybody who may read the hub can choose a name."""
    error = HubError("stolen", stolen=True, rival="alertbeam-claim \x1b[2Jhost\n/1")
    assert str(module._taken(access(hub), error)).startswith("another alertbeam ( [2Jhost")


# --------------------------------------------------------------------------------- while reading


def test_a_consumer_with_an_epoch_is_answered_once_and_then_waited_for(
    hub: EmbeddedHub, access: Access, partition: str, links: Any, sessions: Any
) -> None:
    reader, found = reads(sessions(), access(hub), partition)
    hub.publish(HUB, [b"1"], partition)
    until(lambda: len(found) == 1)
    driven_out(links(access(hub), partition, epoch=0))
    until(lambda: reader.status(partition).connected)
    again = links(access(hub), partition, epoch=0)
    until(lambda: not reader.status(partition).connected)
    hub.publish(HUB, [b"2"], partition)
    time.sleep(0.2)  # many tries
    assert [r.epoch for r in readers_of(hub, partition)] == [0], "it is let be"
    status = reader.status(partition)
    assert "consumer group $Default to itself, by an epoch" in status.error
    assert (status.connected, len(found)) == (False, 1)
    again.close()
    until(lambda: len(found) == 2)
    assert [event.sequence for event in found] == [0, 1]
    assert reader.status(partition).error == ""


def test_who_holds_a_partition_for_long_is_let_be_for_as_long(
    hub: EmbeddedHub, access: Access, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The truce counts from the last refusal, not from the first; a claim is always answered."""
    now = 1000.0
    monkeypatch.setattr(reader_module, "time", SimpleNamespace(monotonic=lambda: now))
    reader = HubReader("hub", access(hub), threading.Condition(), defends=True)
    reader.seek("0", 0)
    feed = reader._feeds["0"]

    def defended(rival: str = "") -> bool:
        feed.defending = False
        reader._lost(feed, HubError("stolen", stolen=True, rival=rival))
        return feed.defending

    truce = reader_module._TRUCE_SECONDS
    assert defended()
    for _ in range(5):
        now += truce - 1
        assert not defended()
    assert defended("alertbeam-claim host/1")
    assert defended("alertbeam-claim host/1")
    now += truce - 1
    assert not defended("function")
    now += truce
    assert defended("function")


def test_a_hub_that_forgets_an_epoch_slowly_costs_time_and_no_event(
    hub: EmbeddedHub, access: Access, partition: str, sessions: Any
) -> None:
    _, found = reads(sessions(), access(hub), partition)
    hub.publish(HUB, [b"1"], partition)
    until(lambda: len(found) == 1)
    hub.refuse_attaches(4, "amqp:link:stolen")
    hub.detach_links(HUB, partition, "amqp:link:stolen", "New receiver 'nil' with higher epoch")
    hub.publish(HUB, [b"2"], partition)
    until(lambda: len(found) == 2)
    assert [event.body for event in found] == [b"1", b"2"]


def test_two_that_read_already_do_not_drive_each_other_out_for_ever(
    hub: EmbeddedHub,
    access: Access,
    partition: str,
    sessions: Any,
    brief: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nobody claimed (a cluster's workers that were split, say): they are told, and both read."""
    defences = []
    defend = reader_module.defend
    monkeypatch.setattr(
        reader_module, "defend", lambda *args: (defences.append(args), defend(*args))[1]
    )
    one, found_one = reads(sessions(), access(hub), partition)
    two, found_two = reads(sessions(), access(hub), partition)
    with pytest.raises(HubTaken):
        claim(access(hub), partition)
    until(lambda: len(readers_of(hub, partition)) == 2)
    count = len(defences)
    time.sleep(0.2)
    assert len(defences) == count <= 4
    hub.publish(HUB, [b"x"], partition)
    until(lambda: len(found_one) == len(found_two) == 1)
    assert one.status(partition).connected
    assert two.status(partition).connected


# ------------------------------------------------------------------------------ the real consumer


class Consumer:
    """The SDK's own consumer with a checkpoint store, as a Function or anybody else has it."""

    def __init__(self, access: EventHubsAccess, checkpoints: Any) -> None:
        assert access.connection_string is not None
        self.bodies: list[bytes] = []
        self.errors: list[Exception] = []
        self._client = EventHubConsumerClient.from_connection_string(
            access.connection_string.resolve().reveal(),
            access.consumer_group,
            eventhub_name=access.hub,
            checkpoint_store=checkpoints,
            load_balancing_interval=0.2,
            retry_total=0,
            socket_timeout=0.02,
        )
        self._thread = threading.Thread(target=self._receive, daemon=True)
        self._thread.start()

    def _receive(self) -> None:
        self._client.receive(
            on_event=self._take,
            on_error=lambda _, error: self.errors.append(error),
            starting_position="-1",
            max_wait_time=0.1,
        )

    def _take(self, context: Any, event: Any) -> None:
        if event is not None:
            self.bodies.append(b"".join(event.body))
            context.update_checkpoint(event)

    def close(self) -> None:
        self._client.close()
        self._thread.join(20)
        assert not self._thread.is_alive()


def test_an_event_processor_comes_and_goes_and_nothing_is_lost_or_read_twice(
    separate_hub: Any, access: Access, sessions: Any
) -> None:
    own = separate_hub(hubs={HUB: 1})
    reader, found = reads(sessions(), access(own), "0")
    own.publish(HUB, [b"before"], 0)
    until(lambda: len(found) == 1)
    consumer = Consumer(access(own), InMemoryCheckpointStore())
    try:
        until(lambda: consumer.errors, 20)  # it was answered
        until(lambda: [r.epoch for r in readers_of(own, "0")] == [0], 20)  # and came again
        until(lambda: "by an epoch" in reader.status("0").error)
        own.publish(HUB, [b"meanwhile"], 0)
        until(lambda: b"meanwhile" in consumer.bodies, 20)
        assert len(found) == 1
        with pytest.raises(HubTaken, match="by an epoch"):
            claim(access(own), "0")
        own.publish(HUB, [b"undisturbed"], 0)
        until(lambda: b"undisturbed" in consumer.bodies, 20)
    finally:
        consumer.close()
    until(lambda: len(found) == 3)
    own.publish(HUB, [b"after"], 0)
    until(lambda: len(found) == 4)
    assert [event.body for event in found] == [b"before", b"meanwhile", b"undisturbed", b"after"]
