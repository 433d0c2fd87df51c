"""Each event is read once and in order, whatever happens to the links, and nobody waits for
another's partition."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines.local.hub import EmbeddedHub, Retention
from tests.transforms.read.conftest import HUB, until
from transforms.read import reader as module
from transforms.read.access import EventHubsAccess
from transforms.read.event_hubs import END
from transforms.read.frames import Event
from transforms.read.reader import HubReader, ReadSession, close_session, session
from transforms.read.sdk import PartitionLink

Access = Callable[..., EventHubsAccess]


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Try again after some ms, not after seconds."""
    monkeypatch.setattr(module, "_BACKOFF_SECONDS", (0.005, 0.05))
    monkeypatch.setattr(module, "_TICK_SECONDS", 0.05)


@pytest.fixture
def reading() -> Iterator[ReadSession]:
    made = ReadSession()
    yield made
    made.close()


@pytest.fixture
def reader(reading: ReadSession, hub: EmbeddedHub, access: Access) -> HubReader:
    return reading.reader("hub", access(hub))


def take(
    reading: ReadSession, reader: HubReader, partition: str, count: int, seconds: float = 20.0
) -> list[Event]:
    """The next so many events, as the pipeline takes them."""
    found: list[Event] = []
    end = time.monotonic() + seconds
    while len(found) < count:
        assert time.monotonic() < end, f"{len(found)} of {count} came; {reader.status(partition)}"
        reading.wait(0.2)
        found += reader.take(partition, END, 200, 1 << 20)
    return found


def connected(reader: HubReader, partition: str) -> None:
    until(lambda: reader.status(partition).connected)


# ------------------------------------------------------------------------- once and in order


def test_what_was_there_and_what_comes_is_read_in_order(
    reading: ReadSession, reader: HubReader, hub: EmbeddedHub, partition: str
) -> None:
    hub.publish(HUB, [b"%d" % n for n in range(100)], partition)
    reader.seek(partition, 0)
    found = take(reading, reader, partition, 100)
    hub.publish(HUB, [b"%d" % n for n in range(100, 120)], partition)
    found += take(reading, reader, partition, 20)
    assert [int(event.body) for event in found] == list(range(120))
    assert [event.sequence for event in found] == list(range(120))


def test_reading_begins_where_it_is_told(
    reading: ReadSession, reader: HubReader, hub: EmbeddedHub, partition: str
) -> None:
    hub.publish(HUB, [b"%d" % n for n in range(10)], partition)
    reader.seek(partition, 7)
    assert [event.sequence for event in take(reading, reader, partition, 3)] == [7, 8, 9]


def test_events_of_a_megabyte_and_of_nothing(
    reading: ReadSession, reader: HubReader, hub: EmbeddedHub, partition: str
) -> None:
    bodies = [b"", b"x" * (1 << 20), b"", b"y" * (1 << 20), b"z"]
    hub.publish(HUB, bodies, partition)
    reader.seek(partition, 0)
    assert [event.body for event in take(reading, reader, partition, 5)] == bodies


FAULTS: dict[str, Callable[[EmbeddedHub, str], Any]] = {
    "connections reset": lambda hub, partition: hub.drop_connections(),
    "links detached": lambda hub, partition: hub.detach_links(HUB, partition),
    "detached, then busy": lambda hub, partition: (
        hub.refuse_attaches(3),
        hub.detach_links(HUB, partition),
    ),
    "a frame cut": lambda hub, partition: hub.cut_frame(HUB, partition),
    "one by one": lambda hub, partition: hub.slow_down(0.001),
    "stalled, then reset": lambda hub, partition: (
        hub.stall(HUB, partition),
        hub.drop_connections(),
        hub.heal(),
    ),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_each_event_comes_once_and_in_order_through(
    reading: ReadSession,
    reader: HubReader,
    hub: EmbeddedHub,
    partition: str,
    fault: Callable[[EmbeddedHub, str], Any],
) -> None:
    bodies = [b"%d " % n + b"x" * (n * 37 % 3000) for n in range(400)]
    reader.seek(partition, 0)
    connected(reader, partition)

    def publish() -> None:
        for start in range(0, len(bodies), 20):
            hub.publish(HUB, bodies[start : start + 20], partition)
            if start % 80 == 0:
                fault(hub, partition)
            time.sleep(0.002)

    publisher = threading.Thread(target=publish)
    publisher.start()
    found = take(reading, reader, partition, len(bodies))
    publisher.join()
    assert [event.sequence for event in found] == list(range(len(bodies)))
    assert [event.body for event in found] == bodies
    assert not reading.wait(0.02), "and nothing comes twice"


def test_a_message_that_was_cut_within_its_frames_is_read_whole(
    reading: ReadSession, reader: HubReader, hub: EmbeddedHub, partition: str
) -> None:
    hub.cut_frame(HUB, partition)
    hub.publish(HUB, [b"x" * (1 << 20), b"y"], partition)
    reader.seek(partition, 0)
    assert [len(event.body) for event in take(reading, reader, partition, 2)] == [1 << 20, 1]


class Says:
    """A link that brings these portions, one a call."""

    def __init__(self, *portions: list[Event]) -> None:
        self.portions = list(portions)

    def read(self) -> list[Event]:
        return self.portions.pop(0)

    def grant(self, events: int) -> int:
        return events

    def close(self) -> None:
        pass


def idle_reader(access: EventHubsAccess) -> HubReader:
    """One whose thread does not run: tests call its parts."""
    made = HubReader("hub", access, threading.Condition())
    made.seek("0", 10)
    return made


def event(sequence: int, body: bytes = b"", last: int | None = None) -> Event:
    return Event(sequence, 1000 + sequence, body, last, None)


def test_what_a_hub_sends_again_is_passed_over(hub: EmbeddedHub, access: Access) -> None:
    reader = idle_reader(access(hub))
    feed = reader._feeds["0"]
    feed.link = Says(  # type: ignore[assignment]
        [event(8), event(9), event(10)], [event(9), event(10)], [event(10), event(11)]
    )
    for _ in range(3):
        reader._read(feed)
    assert [one.sequence for one in reader.take("0", END, 99, 99)] == [10, 11]


def test_seeking_elsewhere_reads_from_there(
    reading: ReadSession, reader: HubReader, hub: EmbeddedHub, partition: str
) -> None:
    """A shift that failed is done again from the checkpoint."""
    hub.publish(HUB, [b"%d" % n for n in range(50)], partition)
    reader.seek(partition, 0)
    assert len(take(reading, reader, partition, 50)) == 50
    for at in (20, 49, 0, 50, 3):
        reader.seek(partition, at)
        if at < 50:
            found = take(reading, reader, partition, 50 - at)
            assert [one.sequence for one in found] == list(range(at, 50))


def test_seeking_where_it_stands_keeps_what_came(
    reading: ReadSession, reader: HubReader, hub: EmbeddedHub, partition: str
) -> None:
    """The next shift goes on with the same link and buffer."""
    hub.publish(HUB, [b"x"] * 10, partition)
    reader.seek(partition, 0)
    until(lambda: reader.waiting(partition))
    before = reader._feeds[partition].link
    assert [one.sequence for one in reader.take(partition, 4, 99, 99)] == [0, 1, 2, 3]
    reader.seek(partition, 4)
    assert reader._feeds[partition].link is before
    assert [one.sequence for one in take(reading, reader, partition, 6)] == [4, 5, 6, 7, 8, 9]


# ----------------------------------------------------------------------------- taking in parts


def test_taking_is_bounded_by_number_size_and_end(
    reading: ReadSession, reader: HubReader, hub: EmbeddedHub, partition: str
) -> None:
    hub.publish(HUB, [b"x" * 100] * 20, partition)
    reader.seek(partition, 0)
    with reading.changed:
        assert reading.changed.wait_for(lambda: len(reader._feeds[partition].events) == 20, 10)
    assert len(reader.take(partition, END, 3, 10_000)) == 3
    assert len(reader.take(partition, END, 99, 250)) == 3, "the one that fills it goes too"
    assert len(reader.take(partition, 8, 99, 10_000)) == 2
    assert reader.take(partition, 8, 99, 10_000) == []
    assert reader.wait(partition, 8, 0) == "past"
    assert reader.wait(partition, 9, 0) == "ready"
    assert len(reader.take(partition, END, 99, 10_000)) == 12
    assert reader.wait(partition, END, 0.01) == "late"
    assert reader._feeds[partition].bytes == 0


def test_a_reader_waits_above_its_bound_and_goes_on_below(
    reading: ReadSession,
    reader: HubReader,
    hub: EmbeddedHub,
    partition: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reader, "_buffer_bytes", 200_000)
    for _ in range(4):
        hub.publish(HUB, [b"x" * 4_000] * 100, partition)
    reader.seek(partition, 0)
    feed = reader._feeds[partition]
    until(lambda: feed.starved)
    time.sleep(0.05)
    assert 200_000 < feed.bytes < 250_000
    assert not feed.paused, "its socket is read"
    assert [one.sequence for one in take(reading, reader, partition, 400)] == list(range(400))


def test_events_that_are_suddenly_much_larger_are_left_in_the_socket(
    reading: ReadSession,
    reader: HubReader,
    hub: EmbeddedHub,
    partition: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Their size is not known before they come: credit for many is out."""
    monkeypatch.setattr(reader, "_buffer_bytes", 400_000)
    reader.seek(partition, 0)
    connected(reader, partition)
    feed = reader._feeds[partition]
    for _ in range(3):
        hub.publish(HUB, [b"x" * 100_000] * 10, partition)
    until(lambda: feed.paused and feed.bytes)
    time.sleep(0.05)
    assert 800_000 < feed.bytes < 800_000 + 2 * 256 * 1024
    assert [one.sequence for one in take(reading, reader, partition, 30)] == list(range(30))


def test_the_end_of_a_link_is_seen_however_much_waits(
    reading: ReadSession,
    reader: HubReader,
    hub: EmbeddedHub,
    partition: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """So another pipeline is noticed also while this one has much to catch up with."""
    monkeypatch.setattr(reader, "_buffer_bytes", 200_000)
    for _ in range(4):
        hub.publish(HUB, [b"x" * 4_000] * 100, partition)
    reader.seek(partition, 0)
    feed = reader._feeds[partition]
    until(lambda: feed.starved)
    hub.refuse_attaches(2)
    hub.detach_links(HUB, partition)
    until(lambda: "detach-forced" in reader.status(partition).error, 1.0)
    connected(reader, partition)
    hub.detach_links(HUB, partition)
    until(lambda: "detach-forced" in reader.status(partition).error, 1.0)
    assert [one.sequence for one in take(reading, reader, partition, 400)] == list(range(400))


def test_events_without_a_body_fill_the_bound_too(
    reader: HubReader, hub: EmbeddedHub, partition: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "_buffer_bytes", 100_000)
    for _ in range(50):
        hub.publish(HUB, [b""] * 200, partition)
    reader.seek(partition, 0)
    feed = reader._feeds[partition]
    until(lambda: feed.starved)
    time.sleep(0.05)
    assert len(feed.events) < 1_000


def test_one_that_is_full_holds_up_no_other(
    reading: ReadSession,
    reader: HubReader,
    hub: EmbeddedHub,
    partition: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reader, "_buffer_bytes", 1000)
    full, other = "30", partition
    hub.publish(HUB, [b"x" * 10_000] * 50, full)
    reader.seek(full, 0)
    until(lambda: reader._feeds[full].starved)
    reader.seek(other, 0)
    connected(reader, other)
    hub.publish(HUB, [b"y"], other)
    until(lambda: reader.take(other, END, 1, 1), 1.0)


# -------------------------------------------------------------------------------- many at once


def test_opening_idle_partitions_holds_up_nobody(
    reading: ReadSession, reader: HubReader, hub: EmbeddedHub
) -> None:
    """A socket that is read although it has nothing blocks the one thread for a while."""
    reader.seek("31", hub.partition_info(HUB, "31").last_sequence_number + 1)
    connected(reader, "31")
    for n in range(31):
        reader.seek(str(n), hub.partition_info(HUB, n).last_sequence_number + 1)
    slowest = 0.0
    while not all(reader.status(str(n)).connected for n in range(31)):
        began = time.monotonic()
        hub.publish(HUB, [b"x"], "31")
        take(reading, reader, "31", 1)
        slowest = max(slowest, time.monotonic() - began)
    assert slowest < 0.3


def test_idle_partitions_cost_next_to_nothing(
    reader: HubReader, hub: EmbeddedHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_TICK_SECONDS", 1.0)
    for n in range(32):
        reader.seek(str(n), hub.partition_info(HUB, n).last_sequence_number + 1)
    for n in range(32):
        connected(reader, str(n))
    began = time.process_time()
    time.sleep(0.6)
    assert (time.process_time() - began) / 0.6 < 0.1


def test_waiting_ends_with_the_first_event_of_any_partition(
    reading: ReadSession, reader: HubReader, hub: EmbeddedHub, partition: str
) -> None:
    reader.seek(partition, 0)
    connected(reader, partition)
    assert not reading.wait(0.01)
    threading.Timer(0.05, hub.publish, (HUB, [b"x"], partition)).start()
    began = time.monotonic()
    assert reading.wait(5)
    assert 0.03 < time.monotonic() - began < 1
    assert (reading.ready(), reading.wait(0.01, events=2)) == (1, False)


def test_draining_ends_all_waiting_at_once(reading: ReadSession) -> None:
    threading.Timer(0.05, setattr, (reading, "draining", True)).start()
    began = time.monotonic()
    assert reading.wait(5)
    assert time.monotonic() - began < 1
    assert reading.draining


# ------------------------------------------------------------------------------- what goes wrong


def test_a_hub_that_fails_stops_no_other(
    reading: ReadSession, separate_hub: Any, hub: EmbeddedHub, access: Access, partition: str
) -> None:
    gone = separate_hub()
    access_to_gone = access(gone)
    gone.stop()
    failing = reading.reader("gone", access_to_gone)
    failing.seek("0", 0)
    until(lambda: failing.status("0").error)
    works = reading.reader("hub", access(hub))
    works.seek(partition, 0)
    hub.publish(HUB, [b"x"], partition)
    assert len(take(reading, works, partition, 1)) == 1
    assert works.status(partition).error == ""
    assert "refused" in failing.status("0").error.lower()
    assert not failing.status("0").connected


def test_a_hub_that_comes_back_is_read_again_from_where_it_stood(
    reading: ReadSession, separate_hub: Any, access: Access, caplog: pytest.LogCaptureFixture
) -> None:
    first = separate_hub()
    reader = reading.reader("hub", access(first))
    reader.seek("0", 0)
    first.publish(HUB, [b"1", b"2"], 0)
    assert len(take(reading, reader, "0", 2)) == 2
    first.stop()
    until(lambda: reader.status("0").error)
    again = separate_hub(port=first.port)
    again.publish(HUB, [b"3"], 0)
    assert [one.body for one in take(reading, reader, "0", 1)] == [b"3"]
    assert reader.status("0").error == ""
    messages = [record.getMessage() for record in caplog.records if record.name == module.__name__]
    assert messages[-1] == "hub/0: read again"
    assert len(messages) == len(set(messages)), "each reason is logged once"


def test_a_secret_that_is_put_right_is_read_anew(
    reading: ReadSession, separate_hub: Any, tmp_path: Path
) -> None:
    own = separate_hub(key="the-right-key")
    secret = tmp_path / "secret"
    secret.write_text(own.connection_string(HUB).replace("the-right-key", "wr0ng"))
    reader = reading.reader("hub", EventHubsAccess(hub=HUB, connection_string=f"file:{secret}"))
    reader.seek("0", 0)
    until(lambda: "InvalidSignature" in reader.status("0").error)
    assert "wr0ng" not in reader.status("0").error
    own.publish(HUB, [b"x"], 0)
    secret.write_text(own.connection_string(HUB))
    assert len(take(reading, reader, "0", 1)) == 1


def test_a_bug_while_opening_is_told_and_tried_again(
    reader: HubReader, hub: EmbeddedHub, partition: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: PartitionLink, timeout: float, credit: int) -> None:
        raise RuntimeError("SharedAccessKey=abc")

    with monkeypatch.context() as patch:
        patch.setattr(PartitionLink, "open", broken)
        reader.seek(partition, 0)
        until(lambda: reader.status(partition).error == "RuntimeError")
    connected(reader, partition)


def test_a_refusal_without_a_word_is_a_refusal(
    reader: HubReader, partition: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wordless(self: PartitionLink, timeout: float, credit: int) -> None:
        raise OSError

    with monkeypatch.context() as patch:
        patch.setattr(PartitionLink, "open", wordless)
        reader.seek(partition, 0)
        until(lambda: reader.status(partition).error == "OSError")
        assert not reader.status(partition).connected
    connected(reader, partition)


def test_a_bug_while_reading_does_not_end_reading(
    reading: ReadSession,
    reader: HubReader,
    hub: EmbeddedHub,
    partition: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reader.seek(partition, 0)
    connected(reader, partition)

    def broken(self: PartitionLink) -> list[Event]:
        raise RuntimeError("a bug")

    with monkeypatch.context() as patch:
        patch.setattr(PartitionLink, "read", broken)
        hub.publish(HUB, [b"x"], partition)
        until(lambda: reader.status(partition).error)
    assert [one.body for one in take(reading, reader, partition, 1)] == [b"x"]


def test_waiting_between_tries_grows_and_begins_anew_after_a_link_that_held(
    hub: EmbeddedHub, access: Access, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_BACKOFF_SECONDS", (1.0, 30.0))
    monkeypatch.setattr(module.random, "uniform", lambda low, high: high)
    reader = idle_reader(access(hub))
    feed = reader._feeds["0"]

    def pause() -> float:
        reader._failed(feed, "cut off")
        return round(feed.retry_at - time.monotonic())

    assert [pause() for _ in range(7)] == [2, 4, 8, 16, 30, 30, 30]
    feed.opened = time.monotonic() - 5
    assert pause() == 30, "one that opens and is lost at once is no success"
    feed.opened = time.monotonic() - 60
    assert pause() == 2
    feed.link = Says([event(10)])  # type: ignore[assignment]
    reader._read(feed)
    assert pause() == 2


def test_what_retention_took_is_told_exactly(
    reading: ReadSession, separate_hub: Any, access: Access, caplog: pytest.LogCaptureFixture
) -> None:
    own = separate_hub(retention=Retention(events=5))
    own.publish(HUB, [b"%d" % n for n in range(3)], 0)
    reader = reading.reader("hub", access(own))
    reader.seek("0", 0)
    assert len(take(reading, reader, "0", 3)) == 3
    own.stall(HUB, 0)
    for n in range(3, 23):
        own.publish(HUB, [b"%d" % n], 0)
    own.heal()
    assert [one.sequence for one in take(reading, reader, "0", 5)] == [18, 19, 20, 21, 22]
    told = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert told == ["hub/0: events 3 to 17 are gone from the hub (retention); going on at 18"]


def test_a_start_at_the_oldest_event_is_no_loss(
    reading: ReadSession, separate_hub: Any, access: Access, caplog: pytest.LogCaptureFixture
) -> None:
    own = separate_hub(retention=Retention(events=2))
    own.publish(HUB, [b"%d" % n for n in range(9)], 0)
    reader = reading.reader("hub", access(own))
    reader.seek("0", 0)
    assert [one.sequence for one in take(reading, reader, "0", 2)] == [7, 8]
    assert caplog.records == []


def test_a_position_that_the_hub_never_had_is_refused_plainly(
    reading: ReadSession, separate_hub: Any, access: Access
) -> None:
    """A hub that was deleted and made anew counts from the start again."""
    own = separate_hub()
    own.publish(HUB, [b"x"], 0)
    reader = reading.reader("hub", access(own))
    reader.seek("0", 5000)
    until(lambda: "The supplied sequence number '4999' is invalid" in reader.status("0").error)


# ------------------------------------------------------------------------------------- its state


def test_the_status_tells_where_reading_stands(
    reading: ReadSession, reader: HubReader, hub: EmbeddedHub, partition: str
) -> None:
    reader.seek(partition, 0)
    status = reader.status(partition)
    assert (status.lag, status.taken, status.next) == (None, 0, 0)
    assert reader.backlog(partition) == -1
    hub.publish(HUB, [b"x"] * 30, partition)
    with reading.changed:
        assert reading.changed.wait_for(lambda: len(reader._feeds[partition].events) == 30, 10)
    reader.take(partition, END, 10, 1000)
    status = reader.status(partition)
    assert (status.lag, status.taken, status.next, status.last_sequence) == (20, 10, 10, 29)
    assert status.last_enqueued_ms == hub.partition_info(HUB, partition).last_enqueued_ms
    assert status.read_enqueued_ms is not None
    assert (status.connected, status.error) == (True, "")
    assert reader.backlog(partition) == 29
    assert reader.backlog("never sought") == -1


def test_the_session_tells_of_all_partitions_in_order(
    reading: ReadSession, hub: EmbeddedHub, access: Access
) -> None:
    for source in ("b", "a"):
        for partition in ("10", "9"):
            reading.reader(source, access(hub)).seek(partition, 0)
    assert [(one.source, one.partition) for one in reading.status()] == [
        ("a", "9"),
        ("a", "10"),
        ("b", "9"),
        ("b", "10"),
    ]


def test_a_partition_is_quiet_once_it_is_read_to_its_end_and_silent(
    reading: ReadSession, reader: HubReader, hub: EmbeddedHub, partition: str
) -> None:
    hub.publish(HUB, [b"x"] * 3, partition)
    reader.seek(partition, 0)
    assert not reader.quiet(partition, 0), "there is no link yet"
    until(lambda: reader.waiting(partition))
    assert not reader.quiet(partition, 0), "something waits"
    take(reading, reader, partition, 3)
    assert reader.quiet(partition, 0)
    assert not reader.quiet(partition, 60), "it was heard just now"


def test_events_that_the_hub_still_has_are_no_quiet(hub: EmbeddedHub, access: Access) -> None:
    reader = idle_reader(access(hub))
    feed = reader._feeds["0"]
    feed.status.connected = True
    feed.link = Says([event(10, last=12)], [event(11, last=12), event(12, last=12)])  # type: ignore[assignment]
    reader._read(feed)
    reader.take("0", END, 99, 99)
    assert not reader.quiet("0", 0)
    reader._read(feed)
    reader.take("0", END, 99, 99)
    assert reader.quiet("0", 0)


def test_a_partition_that_is_released_is_let_go_of_and_can_be_sought_again(
    reading: ReadSession, reader: HubReader, hub: EmbeddedHub, partition: str
) -> None:
    hub.publish(HUB, [b"x"] * 5, partition)
    reader.seek(partition, 0)
    until(lambda: reader.waiting(partition))
    reader.take(partition, 2, 99, 99)
    reader.release(partition)
    assert (reading.ready(), reading.wait(0.01)) == (0, False)
    until(lambda: reader._feeds[partition].link is None)
    hub.publish(HUB, [b"x"], partition)
    assert not reading.wait(0.05)
    reader.seek(partition, 2)
    assert [one.sequence for one in take(reading, reader, partition, 4)] == [2, 3, 4, 5]


def test_closing_lets_go_of_links_and_threads(
    separate_hub: Any, access: Access, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = separate_hub()
    made = session("a run of a test")
    assert session("a run of a test") is made
    reader = made.reader("hub", access(own))
    for partition in ("0", "1"):
        reader.seek(partition, 0)
        connected(reader, partition)
    close_session("a run of a test")
    assert not reader.is_alive()
    until(lambda: not own.connections)
    assert session("a run of a test") is not made
    close_session("a run of a test")
    close_session("a run of a test")


def test_two_hundred_reconnects_leave_no_descriptor_and_no_thread_behind(
    separate_hub: Any, access: Access
) -> None:
    """Dropped, detached, refused, stolen: whatever ended a link, nothing of it stays."""
    own = separate_hub(hubs={HUB: 4})
    partitions = ["0", "1", "2", "3"]
    reading = ReadSession(defends=True)
    reader = reading.reader("hub", access(own))

    def all_connected() -> bool:
        found = [reader._feeds[partition].link for partition in partitions]
        return None not in found and not any(link in before for link in found)

    def held() -> tuple[int, int]:
        return len(list(Path("/dev/fd").iterdir())), threading.active_count()

    def drop(turn: int) -> None:
        if turn % 4 == 0:
            own.detach_links(HUB)
        elif turn % 4 == 1:
            own.refuse_attaches(4)
            own.drop_connections()
        elif turn % 4 == 2:
            own.detach_links(HUB, None, "amqp:link:stolen", "New receiver 'alertbeam-claim x/1'")
        else:
            own.drop_connections()

    for partition in partitions:
        reader.seek(partition, 0)
    before: list[Any] = []
    until(all_connected)
    for turn in range(4):  # what is opened once and kept: the openers' threads
        before = [reader._feeds[partition].link for partition in partitions]
        drop(turn)
        until(all_connected)
    until(lambda: len(own.connections) == 4)
    at_first = held()
    for turn in range(50):
        before = [reader._feeds[partition].link for partition in partitions]
        drop(turn)
        until(all_connected)
    until(lambda: len(own.connections) == 4)
    until(lambda: held()[0] <= at_first[0] and held()[1] <= at_first[1] + module._OPENERS - 4)
    own.publish(HUB, [b"x"], 2)
    assert [one.body for one in take(reading, reader, "2", 1)] == [b"x"]
    reading.close()
    until(lambda: not own.connections)


def test_closing_while_partitions_are_being_opened_ends_too(
    separate_hub: Any, access: Access, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = separate_hub()
    begun, go_on = threading.Event(), threading.Event()
    opening = PartitionLink.open

    def slow(self: PartitionLink, timeout: float, credit: int) -> None:
        begun.set()
        go_on.wait(5)
        opening(self, timeout, credit)

    monkeypatch.setattr(PartitionLink, "open", slow)
    made = ReadSession()
    reader = made.reader("hub", access(own))
    reader.seek("0", 0)
    assert begun.wait(5)
    made.close()
    assert not reader.is_alive()
    go_on.set()
    until(lambda: not reader._feeds["0"].opening)
    until(lambda: not own.connections)
