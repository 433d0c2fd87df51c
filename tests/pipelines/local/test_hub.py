"""The embedded hub, seen through the unmodified azure-eventhub clients."""

from __future__ import annotations

import asyncio
import datetime
import logging
import os
import random
import signal
import socket
import stat
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from azure.eventhub import (
    EventData,
    EventHubConsumerClient,
    EventHubProducerClient,
    _client_base,
)
from azure.eventhub._consumer import EventHubConsumer
from azure.eventhub._pyamqp import client as pyamqp_client
from azure.eventhub._pyamqp.utils import generate_sas_token
from azure.eventhub.aio import EventHubConsumerClient as AsyncConsumerClient
from azure.eventhub.aio import EventHubProducerClient as AsyncProducerClient
from azure.eventhub.exceptions import (
    AuthenticationError,
    ConnectError,
    ConnectionLostError,
    EventDataSendError,
    EventHubError,
)

from pipelines.local.hub import EmbeddedHub, PortInUseError, Retention, amqp


class Reader:
    """The SDK's consumer of one partition, without the load balancer above it: it opens in
    milliseconds and says at once what is wrong."""

    def __init__(
        self, hub: EmbeddedHub, partition: str = "0", position: Any = "-1", **options: Any
    ) -> None:
        string = options.pop("connection_string", None) or hub.connection_string("alerts")
        group = options.pop("group", "$Default")
        self.events: list[EventData] = []
        self.client = EventHubConsumerClient.from_connection_string(
            string, group, retry_total=0, socket_timeout=0.02
        )
        address = f"{self.client._address.hostname}{self.client._address.path}"
        self.consumer = EventHubConsumer(
            self.client,
            f"amqps://{address}/ConsumerGroups/{group}/Partitions/{partition}",
            event_position=position,
            event_position_inclusive=options.pop("inclusive", False),
            on_event_received=self.events.extend,
            keep_alive=None,
            amqp_transport=self.client._amqp_transport,
            **options,
        )

    def attach(self) -> Reader:
        """Drive the consumer until its link is attached and the hub knows its credit."""
        while not self.consumer.handler_ready:
            self.poll()
        self.poll()
        return self

    def poll(self) -> list[EventData]:
        self.consumer.receive(batch=True, max_batch_size=5000)
        return self.events

    def read(self, count: int, seconds: float = 5.0) -> list[EventData]:
        deadline = time.monotonic() + seconds
        while len(self.events) < count and time.monotonic() < deadline:
            self.poll()
        return self.events

    def idle(self, seconds: float = 0.15) -> list[EventData]:
        """What comes within some time: everything there is, for all we know."""
        return self.read(1 << 30, seconds)

    def close(self) -> None:
        self.consumer.close()
        self.client.close()


def sequences(events: list[EventData]) -> list[int | None]:
    return [event.sequence_number for event in events]


def bodies(events: list[EventData]) -> list[bytes]:
    return [b"".join(event.body) for event in events]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The SDK polls with naps of 50 ms while it opens; naps of 1 ms do as well."""
    naps = SimpleNamespace(time=time.time, sleep=lambda seconds: time.sleep(min(seconds, 0.001)))
    for module in (_client_base, pyamqp_client):
        monkeypatch.setattr(module, "time", naps)


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[EmbeddedHub]:
    with EmbeddedHub(tmp_path / "hub", {"alerts": 2}) as started:
        yield started


@pytest.fixture
def reader(hub: EmbeddedHub) -> Iterator[Callable[..., Reader]]:
    """Makes readers of `hub` (or of another hub given first), and closes them at the end."""
    opened: list[Reader] = []

    def make(*args: Any, **options: Any) -> Reader:
        if not args or not isinstance(args[0], EmbeddedHub):
            args = (hub, *args)
        opened.append(Reader(*args, **options))
        return opened[-1]

    yield make
    for one in opened:
        one.close()


def producer(hub: EmbeddedHub, **options: Any) -> EventHubProducerClient:
    string = hub.connection_string("alerts")
    return EventHubProducerClient.from_connection_string(
        string, retry_total=0, retry_backoff_factor=0, socket_timeout=0.02, **options
    )


# --------------------------------------------------------------------- producing and consuming


def test_what_the_sync_producer_sends_the_public_consumer_receives(hub: EmbeddedHub) -> None:
    with producer(hub) as sender:
        event = EventData(b"one")
        event.properties = {"kind": "alert", "count": 7}
        event.content_type, event.correlation_id = "application/json", "c-1"
        sender.send_event(event, partition_id="1")
        sender.send_batch([EventData("zwei"), EventData(b"")], partition_id="1")
    got: list[EventData] = []
    client = EventHubConsumerClient.from_connection_string(
        hub.connection_string("alerts"), "$Default"
    )

    def on_event(context: Any, event: EventData) -> None:
        got.append(event)
        if len(got) == 3:
            threading.Thread(target=client.close).start()

    with client:
        client.receive(on_event, partition_id="1", starting_position="-1")
    assert bodies(got) == [b"one", b"zwei", b""]
    assert got[0].properties == {b"kind": b"alert", b"count": 7}
    assert (got[0].content_type, got[0].correlation_id) == ("application/json", "c-1")
    assert sequences(got) == [0, 1, 2]
    offsets = [int(event.offset or "") for event in got]
    assert offsets[0] == 0 and offsets == sorted(set(offsets))
    times = [event.enqueued_time for event in got]
    now = datetime.datetime.now(datetime.timezone.utc)
    assert times == sorted(times) and abs((now - times[0]).total_seconds()) < 60


def test_the_async_producer_and_consumer_work_too(hub: EmbeddedHub) -> None:
    async def roundtrip() -> list[bytes]:
        got: list[bytes] = []
        string = hub.connection_string("alerts")
        async with AsyncProducerClient.from_connection_string(string) as sender:
            batch = await sender.create_batch(partition_id="0")
            for number in range(5):
                batch.add(EventData(str(number)))
            await sender.send_batch(batch)
        client = AsyncConsumerClient.from_connection_string(string, "$Default")
        done = asyncio.Event()

        async def on_event(context: Any, event: EventData) -> None:
            got.append(b"".join(event.body))
            if len(got) == 5:
                done.set()

        async with client:
            task = asyncio.create_task(
                client.receive(on_event, partition_id="0", starting_position="-1")
            )
            await asyncio.wait_for(done.wait(), 10)
            task.cancel()
        return got

    assert asyncio.run(roundtrip()) == [b"0", b"1", b"2", b"3", b"4"]


@pytest.mark.parametrize(
    ("position", "inclusive", "first"),
    [
        ("-1", False, 0),
        ("-1", True, 0),
        (-1, False, 0),
        (0, True, 0),
        (4, False, 5),
        (4, True, 4),
        (9, False, 10),
        (9, True, 9),
        ("offset of 4", False, 5),
        ("offset of 4", True, 4),
        ("offset of 9", False, 10),
        ("@latest", False, 10),
        ("time of 4", False, 5),
        ("time of 4", True, 4),
        ("before time of 4", False, 4),
        (datetime.datetime(2001, 1, 1), False, 0),
        (datetime.datetime(2100, 1, 1), False, 10),
    ],
)
def test_a_reader_starts_at_the_position_asked_for(
    tmp_path: Path, reader: Callable[..., Reader], position: Any, inclusive: bool, first: int
) -> None:
    clock = iter(range(1_700_000_000_000, 1_800_000_000_000, 1000)).__next__
    with EmbeddedHub(tmp_path / "own", {"alerts": 1}, clock=clock) as hub:
        for number in range(10):
            hub.publish("alerts", [str(number)])
        if isinstance(position, str) and "of" in position:
            event = reader(hub).read(10)[4 if "4" in position else 9]
            position = {
                "offset of 4": event.offset,
                "offset of 9": event.offset,
                "time of 4": event.enqueued_time,
                "before time of 4": event.enqueued_time - datetime.timedelta(milliseconds=1),
            }[position]
        one = reader(hub, position=position, inclusive=inclusive).attach()
        hub.publish("alerts", ["10"])
        assert sequences(one.read(11 - first)) == list(range(first, 11))


@pytest.mark.parametrize(("position", "name"), [(1, "sequence number"), ("100000", "offset")])
@pytest.mark.parametrize("inclusive", [True, False])
def test_a_position_behind_the_last_event_is_refused_as_the_service_does(
    hub: EmbeddedHub, reader: Callable[..., Reader], position: Any, name: str, inclusive: bool
) -> None:
    hub.publish("alerts", [b"only"], partition=0)
    with pytest.raises(
        ConnectError, match=f"The supplied {name} '{position}' is invalid. The last"
    ):
        reader("0", position, inclusive=inclusive).read(1)


def test_events_of_a_partition_key_share_a_partition_and_carry_the_key(
    hub: EmbeddedHub, reader: Callable[..., Reader]
) -> None:
    with producer(hub) as sender:
        for key in ("a", "b", "c", "d", "a"):
            sender.send_batch([EventData(key), EventData(key)], partition_key=key)
    hub.publish("alerts", [b"a"], partition_key="a")
    found: dict[bytes, set[str]] = {}
    for partition in ("0", "1"):
        for event in reader(partition).idle():
            found.setdefault(event.partition_key, set()).add(partition)
            assert event.partition_key == b"".join(event.body)
    assert set(found) == {b"a", b"b", b"c", b"d"}
    assert all(len(partitions) == 1 for partitions in found.values())


def test_batches_without_a_key_take_turns_and_stay_whole(hub: EmbeddedHub) -> None:
    with producer(hub) as sender:
        for _ in range(4):
            sender.send_batch([EventData("x") for _ in range(3)])
    assert [hub.partition_info("alerts", i).last_sequence_number for i in (0, 1)] == [5, 5]
    assert [hub.publish("alerts", [b"x"]).partition for _ in range(4)] == ["0", "1", "0", "1"]


def test_an_event_of_just_the_maximum_size_gets_through_and_a_larger_one_is_refused(
    hub: EmbeddedHub, reader: Callable[..., Reader]
) -> None:
    overhead = 8  # of the data section
    with producer(hub) as sender:
        body = os.urandom((1 << 20) - overhead)
        sender.send_event(EventData(body), partition_id="0")
        with pytest.raises(EventDataSendError, match=r"exceeds the limit \(1048576 bytes\)"):
            sender.send_event(EventData(body + b"!"), partition_id="0")
        sender.send_event(EventData(b"after"), partition_id="0")
        assert sender.create_batch().max_size_in_bytes == 1 << 20
    assert bodies(reader().read(2)) == [body, b"after"]
    with pytest.raises(ValueError, match="1048577 bytes"):
        hub.publish("alerts", [body + b"123456789"])


def test_credit_and_session_window_are_respected_and_renewed(
    hub: EmbeddedHub, reader: Callable[..., Reader], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pyamqp_client, "INCOMING_WINDOW", 7)
    for start in range(0, 1000, 100):
        hub.publish("alerts", [b"%d" % n for n in range(start, start + 100)], partition=0)
    one = reader(prefetch=13)
    assert bodies(one.read(1000)) == [b"%d" % n for n in range(1000)]
    link = one.consumer._handler._link
    assert 0 <= link.current_link_credit <= 13


def test_a_reader_that_does_not_read_holds_up_nobody_and_misses_nothing(
    hub: EmbeddedHub, reader: Callable[..., Reader]
) -> None:
    slow = reader(prefetch=10000).attach()
    for _ in range(8):
        hub.publish("alerts", [b"x" * 2500] * 1000, partition=0)
    assert len(reader(prefetch=3000).read(8000)) == 8000
    assert sequences(slow.read(8000)) == list(range(8000))


def test_a_producer_gets_its_credit_renewed(
    hub: EmbeddedHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.local.hub.links.CREDIT", 4)
    with producer(hub) as sender:
        for _ in range(12):
            sender.send_event(EventData("x"), partition_id="0")
        assert sender._producers["0"]._handler._link.current_link_credit <= 4
    assert hub.partition_info("alerts", 0).last_sequence_number == 11


def test_a_message_larger_than_the_clients_frames_is_split(
    hub: EmbeddedHub, reader: Callable[..., Reader], monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = [os.urandom(size) for size in (0, 100, 600, 5000, 474, 475, 300)]
    hub.publish("alerts", sent, partition=0)
    monkeypatch.setattr(pyamqp_client, "MAX_FRAME_SIZE_BYTES", 512)
    monkeypatch.setattr(pyamqp_client, "INCOMING_WINDOW", 3)
    one = reader(track_last_enqueued_event_properties=True)
    assert bodies(one.read(len(sent))) == sent


def test_a_waiting_reader_gets_an_event_within_milliseconds(
    hub: EmbeddedHub, reader: Callable[..., Reader]
) -> None:
    one = reader().attach()
    sock = one.consumer._handler._connection._transport.sock
    waits = []
    for _ in range(20):
        start = time.perf_counter()
        hub.publish("alerts", [b"x"], partition=0)
        while not sock.recv(1 << 16, socket.MSG_PEEK):
            pass
        waits.append(time.perf_counter() - start)
        sock.recv(1 << 16)
    assert sorted(waits)[10] < 0.005


def test_runtime_metrics_tell_where_the_partition_ends(
    hub: EmbeddedHub, reader: Callable[..., Reader]
) -> None:
    hub.publish("alerts", [b"a", b"b", b"c"], partition=0)
    event = reader(track_last_enqueued_event_properties=True).read(3)[0]
    info = hub.partition_info("alerts", 0)
    last = event._raw_amqp_message.delivery_annotations
    assert last[b"last_enqueued_sequence_number"] == info.last_sequence_number == 2
    assert last[b"last_enqueued_offset"] == info.last_offset.encode()
    assert last[b"last_enqueued_time_utc"] == info.last_enqueued_ms
    assert not reader().read(1)[0]._raw_amqp_message.delivery_annotations


# ------------------------------------------------------------------------------------ properties


def test_properties_of_hub_and_partitions_are_told(hub: EmbeddedHub) -> None:
    hub.publish("alerts", [b"a", b"b"], partition=1)
    with producer(hub) as sender:
        properties = sender.get_eventhub_properties()
        empty, used = (sender.get_partition_properties(number) for number in ("0", "1"))
        with pytest.raises(EventHubError, match="404"):
            sender.get_partition_properties("7")
    assert properties["eventhub_name"] == "alerts"
    assert properties["partition_ids"] == ["0", "1"]
    age = datetime.datetime.now(datetime.timezone.utc) - properties["created_at"]
    assert 0 <= age.total_seconds() < 60
    assert (empty["is_empty"], empty["last_enqueued_sequence_number"]) == (True, -1)
    assert (empty["last_enqueued_offset"], empty["beginning_sequence_number"]) == ("-1", -1)
    assert (used["is_empty"], used["last_enqueued_sequence_number"]) == (False, 1)
    assert used["beginning_sequence_number"] == 0
    assert used["last_enqueued_offset"] == hub.partition_info("alerts", 1).last_offset


def test_a_partition_added_to_a_running_hub_is_told_written_and_read(
    hub: EmbeddedHub, reader: Callable[..., Reader]
) -> None:
    with pytest.raises(ConnectionLostError, match="could not be found"):
        reader("2").read(1)
    hub.add_partitions("alerts", 3)
    with producer(hub) as sender:
        assert sender.get_partition_ids() == ["0", "1", "2"]
        sender.send_event(EventData("new"), partition_id="2")
    assert bodies(reader("2").read(1)) == [b"new"]
    with pytest.raises(ValueError, match="3 partitions already"):
        hub.add_partitions("alerts", 2)


@pytest.mark.parametrize(
    ("group", "partition", "entity"),
    [("$Default", "0", "nothing"), ("$Default", "9", "alerts"), ("others", "0", "alerts")],
)
def test_what_does_not_exist_is_not_found(
    tmp_path: Path, reader: Callable[..., Reader], group: str, partition: str, entity: str
) -> None:
    with EmbeddedHub(tmp_path / "own", {"alerts": 1}, consumer_groups=["SIEM"]) as hub:
        string = hub.connection_string("alerts").replace("=alerts", f"={entity}")
        with pytest.raises(ConnectionLostError, match=r"could not be found(.|\n)*amqp:not-found"):
            reader(hub, partition, group=group, connection_string=string).read(1)
        hub.publish("alerts", [b"x"])
        assert len(reader(hub, group="siem").read(1)) == 1
        assert len(reader(hub).read(1)) == 1


# --------------------------------------------------------------------------- readers and epochs


def test_an_epoch_steals_the_partition_from_lower_and_equal_epochs_and_from_those_without(
    hub: EmbeddedHub, reader: Callable[..., Reader]
) -> None:
    plain, elsewhere = reader().attach(), reader("1").attach()
    first = reader(owner_level=1).attach()
    with pytest.raises(ConnectionLostError, match="with epoch '0' is getting disconnected"):
        plain.idle()
    second = reader(owner_level=1).attach()
    with pytest.raises(ConnectionLostError, match="New receiver 'nil' with higher epoch of '1'"):
        first.idle()
    reader(owner_level=0, group="others").attach()
    hub.publish("alerts", [b"x"], partition=0)
    assert len(second.read(1)) == 1
    assert elsewhere.idle() == []


def test_a_lower_epoch_or_none_is_refused_while_a_higher_reads(
    hub: EmbeddedHub, reader: Callable[..., Reader]
) -> None:
    owner = reader(owner_level=5).attach()
    with pytest.raises(ConnectionLostError, match="a higher epoch '5' already exists"):
        reader(owner_level=4).attach()
    with pytest.raises(ConnectionLostError, match="non-epoch receiver is not allowed"):
        reader().attach()
    owner.close()
    reader(owner_level=4).attach()


def test_readers_are_told_of_by_the_names_that_they_gave(
    hub: EmbeddedHub, reader: Callable[..., Reader]
) -> None:
    def named(name: str, **options: Any) -> Reader:
        made = reader(**options)
        made.consumer._link_properties[b"com.microsoft:receiver-name"] = name
        return made

    plain = named("siem").attach()
    owner = named("function", owner_level=5).attach()
    with pytest.raises(
        ConnectionLostError,
        match="New receiver 'function' with higher epoch of '5' is created hence current receiver "
        "'siem' with epoch '0' is getting disconnected",
    ):
        plain.idle()
    with pytest.raises(
        ConnectionLostError,
        match="Receiver 'function' with a higher epoch '5' already exists",
    ):
        reader(owner_level=4).attach()
    with pytest.raises(ConnectionLostError, match="epoch of '5', and so non-epoch receiver is not"):
        named("late").attach()
    owner.close()


def test_a_reader_whose_connection_breaks_makes_room(
    hub: EmbeddedHub, reader: Callable[..., Reader]
) -> None:
    """As the service does once it has noticed, which takes it a while where nobody tells it."""
    reader(owner_level=5).attach()
    hub.drop_connections()
    reader().attach()


def test_five_readers_without_an_epoch_are_the_limit(
    hub: EmbeddedHub, reader: Callable[..., Reader]
) -> None:
    five = [reader().attach() for _ in range(5)]
    with pytest.raises(ConnectionLostError, match=r"which is 5\. .* - nil, nil, nil, nil, nil\."):
        reader().attach()
    reader("1").attach()
    reader(group="others").attach()
    five[0].close()
    reader().attach()


# ----------------------------------------------------------------------------- storage and files


@pytest.mark.parametrize(
    "retention", [Retention(events=10), Retention(bytes=10 * 1100), Retention(seconds=9.5)]
)
def test_retention_drops_the_oldest_and_readers_start_at_what_is_left(
    tmp_path: Path, reader: Callable[..., Reader], retention: Retention
) -> None:
    clock = [1_700_000_000_000]
    options: dict[str, Any] = {"retention": retention, "clock": lambda: clock[0]}
    folder = tmp_path / "own"
    with EmbeddedHub(folder, {"alerts": 1}, segment_bytes=3000, **options) as hub:
        for _ in range(100):
            clock[0] += 1000
            hub.publish("alerts", [b"x" * 980])
        info = hub.partition_info("alerts", 0)
        assert (info.begin_sequence_number, info.last_sequence_number) == (90, 99)
        assert len(list((folder / "alerts" / "0").iterdir())) <= 6
        assert sequences(reader(hub, position=3).read(10)) == list(range(90, 100))
    with EmbeddedHub(folder, {"alerts": 1}, segment_bytes=3000, **options) as hub:
        assert hub.partition_info("alerts", 0) == info
        assert sequences(reader(hub).read(10)) == list(range(90, 100))


def test_a_partition_whose_events_all_aged_out_is_empty_but_goes_on_counting(
    tmp_path: Path, reader: Callable[..., Reader]
) -> None:
    clock = [1_700_000_000_000]
    folder, options = tmp_path / "own", {"retention": Retention(seconds=1)}
    with EmbeddedHub(folder, {"alerts": 1}, clock=lambda: clock[0], **options) as hub:
        hub.publish("alerts", [b"a", b"b"])
        clock[0] += 60_000
        info = hub.partition_info("alerts", 0)
        assert (info.is_empty, info.begin_sequence_number) == (True, 2)
    with EmbeddedHub(folder, clock=lambda: clock[0], **options) as hub:
        assert hub.publish("alerts", [b"c"]).first == 2
        assert bodies(reader(hub, position=0).read(1)) == [b"c"]


def test_a_clock_that_steps_back_does_not_reorder_time(tmp_path: Path) -> None:
    times = iter([0, 5000, 3000, 2000, 6000, 6000, 6000])
    with EmbeddedHub(tmp_path / "own", {"alerts": 1}, clock=lambda: next(times)) as hub:
        seen = []
        for _ in range(4):
            hub.publish("alerts", [b"x"])
            seen.append(hub.partition_info("alerts", 0).last_enqueued_ms)
    assert seen == [5000, 5000, 5000, 6000]


def test_a_restarted_hub_has_its_events_partitions_and_offsets(
    tmp_path: Path, reader: Callable[..., Reader]
) -> None:
    folder = tmp_path / "own"
    with EmbeddedHub(folder, {"alerts": 1}, segment_bytes=500) as hub:
        hub.publish("alerts", [b"%d" % n for n in range(10)], partition=0)
        hub.add_partitions("alerts", 2)
        hub.publish("alerts", [b"other"], partition=1)
        for number in range(10, 20):
            hub.publish("alerts", [b"%d" % number], partition=0)
        port, before = hub.port, hub.partition_info("alerts", 0)
        offsets = [event.offset for event in reader(hub).read(20)]
    with EmbeddedHub(folder, {"alerts": 1}, port=port) as hub:
        assert hub.partition_info("alerts", 0) == before
        assert hub.publish("alerts", [b"20"], partition=0).first == 20
        events = reader(hub).read(21)
        assert bodies(events) == [b"%d" % n for n in range(21)]
        assert [event.offset for event in events[:20]] == offsets
        assert bodies(reader(hub, "1").read(1)) == [b"other"]


def test_a_torn_record_at_the_end_is_cut_off(
    tmp_path: Path, reader: Callable[..., Reader], caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "own"
    for damage in (b"\0", b"\0\0\0\x64garbage", b"\0\0\0\x05" + b"\0" * 12 + b"wrong", b"\0" * 64):
        with EmbeddedHub(folder, {"alerts": 1}) as hub:
            last = hub.publish("alerts", [b"whole"]).last
        (path,) = (folder / "alerts" / "0").glob("*.log")
        with path.open("ab") as file:
            file.write(damage)
        with EmbeddedHub(folder, {"alerts": 1}) as hub:
            assert hub.publish("alerts", [b"next"]).first == last + 1
            assert bodies(reader(hub).read(last + 2)) == [b"whole", b"next"] * (last // 2 + 1)
    assert sum("torn record" in record.message for record in caplog.records) == 4


def test_a_killed_process_loses_nothing_it_acknowledged(tmp_path: Path) -> None:
    program = """
import sys
from pipelines.local.hub import EmbeddedHub
hub = EmbeddedHub(sys.argv[1], {"alerts": 1})
while True:
    print(hub.publish("alerts", [b"x" * 3000] * 20).last, flush=True)
"""
    command = [sys.executable, "-c", program, str(tmp_path / "own")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for _ in range(50):
            acknowledged = int(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
        acknowledged = max([acknowledged, *map(int, process.stdout.read().split())])
    with EmbeddedHub(tmp_path / "own") as hub:
        info = hub.partition_info("alerts", 0)
        assert info.last_sequence_number >= acknowledged
        assert (info.last_sequence_number + 1) % 20 in range(20)


def test_a_damaged_segment_that_others_follow_is_an_error_not_a_gap(tmp_path: Path) -> None:
    folder = tmp_path / "own"
    with EmbeddedHub(folder, {"alerts": 1}, segment_bytes=100) as hub:
        for _ in range(3):
            hub.publish("alerts", [b"x" * 100])
    first, second, _ = sorted((folder / "alerts" / "0").glob("*.log"))
    whole = first.read_bytes()
    first.write_bytes(whole[:-1])
    with pytest.raises(OSError, match="damaged at byte 0"):
        EmbeddedHub(folder)
    first.write_bytes(whole)
    second.unlink()
    with pytest.raises(OSError, match="does not continue"):
        EmbeddedHub(folder)


def test_what_cannot_be_written_whole_is_not_stored_at_all(
    hub: EmbeddedHub, reader: Callable[..., Reader], monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.publish("alerts", [b"before"], partition=0)
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[:30]))
    with pytest.raises(OSError, match="No space left"):
        hub.publish("alerts", [b"lost"] * 5, partition=0)
    monkeypatch.undo()
    assert hub.publish("alerts", [b"after"], partition=0).first == 1
    assert bodies(reader().read(2)) == [b"before", b"after"]


def test_files_and_folders_are_the_owners_alone(hub: EmbeddedHub) -> None:
    hub.publish("alerts", [b"secret"])
    paths = [hub.folder, *hub.folder.rglob("*")]
    assert len(paths) > 5
    modes = {path.is_dir(): stat.S_IMODE(path.stat().st_mode) for path in paths}
    assert modes == {True: 0o700, False: 0o600}


def test_a_folder_serves_one_hub_at_a_time(hub: EmbeddedHub) -> None:
    with pytest.raises(BlockingIOError, match="in use by another hub"):
        EmbeddedHub(hub.folder)


@pytest.mark.parametrize("name", ["../x", "", "a/b", "-a", "a" * 300, "ä"])
def test_a_hubs_name_cannot_leave_the_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="cannot name a hub"):
        EmbeddedHub(tmp_path / "own", {name: 1})


def test_a_port_in_use_is_named(tmp_path: Path, hub: EmbeddedHub) -> None:
    other = EmbeddedHub(tmp_path / "own", {"alerts": 1}, port=hub.port)
    with pytest.raises(PortInUseError, match=f"port {hub.port} on 127.0.0.1 is in use; choose"):
        other.start()
    EmbeddedHub(tmp_path / "own").stop()  # the folder is free again
    assert issubclass(PortInUseError, OSError)


def test_only_loopback_is_bound_and_a_stopped_hub_takes_nothing(tmp_path: Path) -> None:
    with EmbeddedHub(tmp_path / "own", {"alerts": 1}) as hub:
        assert hub._socket is not None and hub._socket.getsockname()[0] == "127.0.0.1"
    with pytest.raises(OSError, match="stopped"):
        hub.publish("alerts", [b"x"])
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", hub.port))


def test_serve_runs_in_the_callers_loop(tmp_path: Path) -> None:
    async def main() -> bytes:
        hub = EmbeddedHub(tmp_path / "own", {"alerts": 1})
        task = asyncio.create_task(hub.serve())
        while not hub.port:
            await asyncio.sleep(0)
        string = hub.connection_string("alerts")
        async with AsyncProducerClient.from_connection_string(string) as sender:
            await sender.send_event(EventData("x"))
        assert hub.drop_connections() >= 0
        last = hub.partition_info("alerts", 0).last_sequence_number
        hub.stop()
        await asyncio.wait_for(task, 5)
        return b"%d" % last

    assert asyncio.run(main()) == b"0"


# ----------------------------------------------------------------------------------------- access


@pytest.fixture
def locked(tmp_path: Path) -> Iterator[EmbeddedHub]:
    with EmbeddedHub(tmp_path / "locked", {"alerts": 1, "other": 1}, key="right") as started:
        started.publish("alerts", [b"x"])
        yield started


def with_token(hub: EmbeddedHub, resource: str, key: str = "right", seconds: int = 60) -> str:
    token = generate_sas_token(resource, "policy", key, int(time.time()) + seconds)
    endpoint = f"Endpoint=sb://127.0.0.1:{hub.port};EntityPath=alerts;UseDevelopmentEmulator=true"
    return f"{endpoint};SharedAccessSignature={token}"


def test_the_right_key_opens_reading_writing_and_properties(
    locked: EmbeddedHub, reader: Callable[..., Reader]
) -> None:
    with producer(locked) as sender:
        sender.send_event(EventData("y"))
        assert sender.get_partition_ids() == ["0"]
    assert bodies(reader(locked).read(2)) == [b"x", b"y"]
    resource = f"sb://127.0.0.1:{locked.port}/alerts"
    assert len(reader(locked, connection_string=with_token(locked, resource)).read(2)) == 2


@pytest.mark.parametrize(
    ("key", "seconds", "said"),
    [("wrong", 60, "InvalidSignature"), ("right", -60, "ExpiredToken")],
)
def test_a_wrong_key_or_an_expired_token_is_refused_with_401(
    locked: EmbeddedHub, reader: Callable[..., Reader], key: str, seconds: int, said: str
) -> None:
    string = with_token(locked, f"sb://127.0.0.1:{locked.port}/alerts", key, seconds)
    with pytest.raises(AuthenticationError, match=f"401.*\n.*{said}"):
        reader(locked, connection_string=string).read(1)


def test_a_token_for_another_hub_does_not_open_this_one(
    locked: EmbeddedHub, reader: Callable[..., Reader]
) -> None:
    for resource in ("other", "alert", "alerts/consumergroups/x"):
        string = with_token(locked, f"sb://127.0.0.1:{locked.port}/{resource}")
        with pytest.raises(ConnectionLostError, match="Unauthorized"):
            reader(locked, connection_string=string).read(1)
    client = EventHubProducerClient.from_connection_string(
        string, retry_total=0, retry_backoff_factor=0, socket_timeout=0.02
    )
    with client, pytest.raises(AuthenticationError, match="401"):
        client.get_eventhub_properties()


def test_without_a_key_every_token_is_accepted(
    hub: EmbeddedHub, reader: Callable[..., Reader]
) -> None:
    hub.publish("alerts", [b"x"], partition=0)
    string = with_token(hub, "sb://elsewhere/x", "whatever")
    assert len(reader(connection_string=string).read(1)) == 1


# ----------------------------------------------------------------------------------------- faults


def test_fault_dropped_connections(hub: EmbeddedHub, reader: Callable[..., Reader]) -> None:
    one = reader().attach()
    assert hub.drop_connections() == 1
    with pytest.raises(EventHubError):
        one.idle(1)
    hub.publish("alerts", [b"x"], partition=0)
    assert len(reader().read(1)) == 1


def test_fault_detached_links(hub: EmbeddedHub, reader: Callable[..., Reader]) -> None:
    one, two = reader("0").attach(), reader("1").attach()
    assert hub.detach_links("alerts", 0, "com.microsoft:timeout", "on demand") == 1
    with pytest.raises(ConnectError, match=r"timeout(.|\n)*on demand"):
        one.idle(1)
    hub.publish("alerts", [b"x"], partition=1)
    assert len(two.read(1)) == 1


def test_fault_a_producers_link_detached_then_sends_again(hub: EmbeddedHub) -> None:
    with producer(hub) as sender:
        sender.send_event(EventData("1"), partition_id="0")
        assert hub.detach_links("alerts", 0) == 1
        with pytest.raises(EventHubError):
            sender.send_event(EventData("2"), partition_id="0")
        sender.send_event(EventData("3"), partition_id="0")


def test_fault_busy_at_the_next_attaches(hub: EmbeddedHub, reader: Callable[..., Reader]) -> None:
    hub.refuse_attaches(2)
    for _ in range(2):
        with pytest.raises(ConnectError, match="server-busy"):
            reader().attach()
    reader().attach()


def test_fault_a_hub_refused_until_it_is_accepted_again(
    hub: EmbeddedHub, reader: Callable[..., Reader]
) -> None:
    one = reader().attach()
    hub.refuse_hub("alerts", "amqp:resource-deleted")
    with pytest.raises(ConnectionLostError, match="amqp:resource-deleted"):
        one.idle(1)
    for _ in range(3):
        with pytest.raises(ConnectionLostError, match="amqp:resource-deleted"):
            reader().attach()
    with producer(hub) as sender, pytest.raises(EventHubError, match="503"):
        sender.get_eventhub_properties()
    hub.accept_hub("alerts")
    reader().attach()


def test_fault_slow_delivery(hub: EmbeddedHub, reader: Callable[..., Reader]) -> None:
    hub.publish("alerts", [b"x"] * 200, partition=0)
    hub.slow_down(0.03)
    one = reader()
    assert 1 <= len(one.idle(0.4)) < 30
    hub.slow_down(0)
    assert sequences(one.read(200)) == list(range(200))


def test_fault_a_frame_cut_in_the_middle(hub: EmbeddedHub, reader: Callable[..., Reader]) -> None:
    one, two = reader("0").attach(), reader("1").attach()
    hub.cut_frame("alerts", 0)
    for partition in (0, 1):
        hub.publish("alerts", [b"x" * 1000] * 3, partition=partition)
    with pytest.raises(EventHubError):
        one.idle(1)
    assert one.events == []
    assert len(two.read(3)) == 3
    assert len(reader("0").read(3)) == 3


def test_fault_stalled_delivery(hub: EmbeddedHub, reader: Callable[..., Reader]) -> None:
    one, two = reader("0").attach(), reader("1").attach()
    hub.stall("alerts", 0)
    for partition in (0, 1):
        hub.publish("alerts", [b"x"], partition=partition)
    assert len(two.read(1)) == 1
    assert one.idle() == []
    hub.heal()
    assert len(one.read(1)) == 1


# --------------------------------------------------------------------------------- broken clients

HELLO = (
    amqp.SASL_HEADER
    + amqp.frame(0, amqp.composite(0x41, amqp.symbol("ANONYMOUS"), amqp.NULL, amqp.NULL), kind=1)
    + amqp.AMQP_HEADER
)
OPEN = amqp.frame(
    0, amqp.composite(0x10, amqp.string("me"), amqp.NULL, amqp.uint(1 << 20), amqp.NULL,
                      amqp.uint(100))
)  # fmt: skip
BEGIN = amqp.frame(
    1, amqp.composite(0x11, amqp.NULL, amqp.uint(0), amqp.uint(100), amqp.uint(100))
)  # fmt: skip


def converse(hub: EmbeddedHub, data: bytes, seconds: float = 5.0) -> bytes:
    """Send bytes; what comes back until the hub closes."""
    got = b""
    with socket.create_connection(("127.0.0.1", hub.port)) as sock:
        sock.settimeout(seconds)
        sock.sendall(data)
        try:
            while chunk := sock.recv(1 << 16):
                got += chunk
        except ConnectionResetError:
            pass
    return got


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        amqp.AMQP_HEADER,
        amqp.SASL_HEADER + amqp.frame(0, amqp.composite(0x41, amqp.symbol("PLAIN")), kind=1),
        HELLO + os.urandom(64),
        HELLO + OPEN + struct.pack(">IBBH", 1 << 30, 2, 0, 0),
        HELLO + OPEN + struct.pack(">IBBH", 4, 2, 0, 0),
        HELLO + OPEN + amqp.frame(0, OPEN[8:30]),
        HELLO + OPEN + BEGIN + amqp.frame(1, b"\x00\x53\x12\xc0\x02\x01\xa1"),
        HELLO + OPEN + BEGIN + amqp.frame(1, b"\0" * 60000),
        HELLO + OPEN + BEGIN + amqp.frame(1, b"\0\x53\x13\xf0\0\0\0\x08\xff\xff\xff\xff\x40"),
        HELLO + OPEN + BEGIN + amqp.frame(1, b"\0\x53\x12\xc1\x05\x02\x45\x40\x40\x40"),
        HELLO + OPEN + BEGIN + BEGIN,
        HELLO + OPEN + OPEN,
        HELLO + BEGIN,
    ],
)
def test_a_broken_client_is_cut_off_with_a_warning_and_others_do_not_notice(
    hub: EmbeddedHub,
    reader: Callable[..., Reader],
    caplog: pytest.LogCaptureFixture,
    data: bytes,
) -> None:
    healthy = reader().attach()
    converse(hub, data)
    hub.publish("alerts", [b"x"], partition=0)
    assert len(healthy.read(1)) == 1
    warnings = [r for r in caplog.records if r.name == "pipelines.local.hub.connection"]
    assert [r.levelno for r in warnings] == [logging.WARNING]
    assert "closing the connection from 127.0.0.1" in warnings[0].message


def test_random_bytes_never_decode_into_anything_but_the_errors_named() -> None:
    rng = random.Random(7)
    seeds = [OPEN[8:], BEGIN[8:], amqp.composite(0x12, amqp.string("n"), amqp.mapping({}))]
    for _ in range(3000):
        data = bytearray(rng.choice(seeds))
        for _ in range(rng.randint(1, 6)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        for read in (amqp.read_performative, lambda d: list(amqp.sections(d)), amqp.decode):
            try:
                read(bytes(data[: rng.randint(1, len(data))]))  # type: ignore[operator]
            except amqp.DECODE_ERRORS:
                pass


def test_a_message_that_is_not_amqp_is_rejected_and_the_link_stays(
    hub: EmbeddedHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    with producer(hub) as sender:
        sender.send_event(EventData("1"), partition_id="0")
        encode = sys.modules["azure.eventhub._pyamqp.sender"].encode_payload
        broken = "azure.eventhub._pyamqp.sender.encode_payload"
        monkeypatch.setattr(broken, lambda output, message: output.extend(b"\0\x53\x75\xb0\xff"))
        with pytest.raises(EventDataSendError):
            sender.send_event(EventData("2"), partition_id="0")
        monkeypatch.setattr(broken, encode)
        sender.send_event(EventData("3"), partition_id="0")
    assert hub.partition_info("alerts", 0).last_sequence_number == 1


def test_a_client_that_announces_an_idle_timeout_gets_heartbeats(hub: EmbeddedHub) -> None:
    with socket.create_connection(("127.0.0.1", hub.port)) as sock:
        sock.sendall(HELLO + OPEN)
        sock.settimeout(2)
        got = b""
        while got.count(amqp.EMPTY_FRAME) < 3:
            got += sock.recv(1 << 16)


def test_an_idle_sdk_client_stays_connected(
    hub: EmbeddedHub, reader: Callable[..., Reader]
) -> None:
    one = reader(idle_timeout=0.3).attach()
    assert one.idle(0.8) == []
    hub.publish("alerts", [b"x"], partition=0)
    assert len(one.read(1)) == 1
