"""Kafka: the mock cluster that librdkafka brings along, three brokers in this process.

It speaks the protocol over TCP, keeps what it takes, and says every error that it is told to. It
knows no TLS and no SASL, and does not look into records: for those see test_kafka_server.py, which
sends to the real server. Its C functions are called as rdkafka_mock.h declares them.
"""

from __future__ import annotations

import ctypes
import dataclasses
import logging
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from confluent_kafka import Consumer, KafkaError, TopicPartition

from tests.transforms.sinks.alerts import alert
from tests.transforms.sinks.doubles.base import Double, Says
from transforms.sinks import kafka
from transforms.sinks.base import Accepted, Connection, Sink

__all__ = ["Kafka", "MockCluster", "count", "quiet"]

_PRODUCE = 0  # the request's key in the protocol
_ALL = -1  # brokers
_MANY = 100_000
_NO_RECORDS = "the mock cluster does not look into records; the real server does"
_NO_SASL = "the mock cluster asks for no credentials; the real server does"

quiet = logging.getLogger("librdkafka")
quiet.propagate = False
quiet.addHandler(logging.NullHandler())


def _library() -> ctypes.CDLL:
    """The librdkafka that confluent_kafka has loaded."""
    maps = Path("/proc/self/maps").read_text().split()
    library = ctypes.CDLL(next(path for path in maps if "librdkafka" in path))
    for name in ("conf_new", "new", "mock_cluster_new"):
        getattr(library, f"rd_kafka_{name}").restype = ctypes.c_void_p
    library.rd_kafka_mock_cluster_bootstraps.restype = ctypes.c_char_p
    return library


class MockCluster:
    """Three brokers, and the topic `alerts`. `brokers`: their addresses."""

    def __init__(self, partitions: int = 1) -> None:
        self._library = library = _library()
        said = ctypes.create_string_buffer(512)
        config = ctypes.c_void_p(library.rd_kafka_conf_new())
        library.rd_kafka_conf_set(config, b"log_level", b"0", said, 512)
        self._client = ctypes.c_void_p(library.rd_kafka_new(0, config, said, 512))
        assert self._client, said.value
        self._cluster = ctypes.c_void_p(library.rd_kafka_mock_cluster_new(self._client, 3))
        self.brokers: str = library.rd_kafka_mock_cluster_bootstraps(self._cluster).decode()
        self._do("topic_create", b"alerts", partitions, 3)
        for number in range(partitions):  # it would choose at random
            self._do("partition_set_leader", b"alerts", number, number % 3 + 1)

    def down(self) -> None:
        self._do("broker_set_down", _ALL)

    def up(self) -> None:
        self._do("broker_set_up", _ALL)

    def delay(self, ms: int) -> None:
        """How long every answer takes from now on."""
        self._do("broker_set_rtt", _ALL, ms)

    def refuse(self, code: int, times: int) -> None:
        """Answer so many requests to produce with this error."""
        errors = (ctypes.c_int * times)(*[code] * times)
        self._do("push_request_errors_array", _PRODUCE, ctypes.c_size_t(times), errors)

    def refuse_at(self, broker: int, code: int) -> None:
        """Answer the next request to produce with this error, if it comes to this broker (1-3)."""
        number = ctypes.c_int
        error = number(broker), number(_PRODUCE), ctypes.c_size_t(1), number(code), number(0)
        self._do("broker_push_request_error_rtts", *error)

    def heal(self) -> None:
        self._do("clear_request_errors", _PRODUCE)
        self.delay(0)

    def stop(self) -> None:
        self._do("cluster_destroy")
        self._library.rd_kafka_destroy(self._client)

    def _do(self, name: str, *arguments: Any) -> None:
        getattr(self._library, f"rd_kafka_mock_{name}")(self._cluster, *arguments)


def count(cluster: MockCluster) -> int:
    """Records that the topic `alerts` holds."""
    consumer = Consumer({"bootstrap.servers": cluster.brokers, "group.id": "-"}, logger=quiet)
    try:
        numbers = consumer.list_topics("alerts", 5.0).topics["alerts"].partitions
        places = [TopicPartition("alerts", number) for number in numbers]
        return sum(consumer.get_watermark_offsets(place, 5.0)[1] for place in places)
    finally:
        consumer.close()


@dataclasses.dataclass(frozen=True)
class _Refuses:
    """An error of the protocol, by its name; `times`: where it is not said until up."""

    name: str
    times: int | None = None


class _Ready(kafka.Kafka):
    """The sink, with a first connection that has been used."""

    def connect(self) -> Connection:
        return _READY.pop(self.settings, None) or super().connect()


_READY: dict[kafka.KafkaSettings, Connection] = {}
_FIRST = alert(10**9)


class Kafka(Double):
    kind = "kafka"
    system = "librdkafka's mock cluster; TLS, SASL and what it refuses of records: Apache Kafka 4.1"
    faults: ClassVar[Mapping[str, Any]] = {
        "timeout": "silence",
        "reset mid-body": _Refuses("_TRANSPORT"),
        "reset after taking": "cut",
    }
    lacks: ClassVar[Mapping[str, str]] = {
        **dict.fromkeys(
            ("slow drip", "half-closed"), "a broken answer is librdkafka's to read, not the sink's"
        ),
        **dict.fromkeys(
            ("Retry-After in seconds", "Retry-After as a date"),
            "a broker that throttles is obeyed by librdkafka itself",
        ),
        **dict.fromkeys(("partial rejection", "unnamed rejection", "too large"), _NO_RECORDS),
        **dict.fromkeys(("credentials renewed", "quoted secret"), _NO_SASL),
    }
    table: ClassVar[Sequence[Says]] = [
        # These librdkafka tries again by itself, within the request's deadline.
        *(
            Says(name, _Refuses(name), becomes)
            for name in (
                "INVALID_MSG",
                "NOT_LEADER_FOR_PARTITION",
                "REQUEST_TIMED_OUT",
                "NOT_ENOUGH_REPLICAS",
                "NOT_ENOUGH_REPLICAS_AFTER_APPEND",
                "KAFKA_STORAGE_ERROR",
                "_TRANSPORT",
            )
            for becomes in ("delivered", "owed")
        ),
        *(
            Says(name, _Refuses(name), "stopped")
            for name in (
                "TOPIC_EXCEPTION",
                "INVALID_REQUIRED_ACKS",
                "TOPIC_AUTHORIZATION_FAILED",
                "CLUSTER_AUTHORIZATION_FAILED",
                "UNSUPPORTED_FOR_MESSAGE_FORMAT",
                "POLICY_VIOLATION",
                "UNSUPPORTED_COMPRESSION_TYPE",
            )
        ),
        *(
            Says(name, _Refuses(name, times=1), "split")
            for name in ("MSG_SIZE_TOO_LARGE", "RECORD_LIST_TOO_LARGE", "INVALID_RECORD")
        ),
    ]
    # What was sent when the deadline passed may have been taken.
    may_repeat = frozenset({"timeout", "reset after taking", "nothing lost", "outage"})

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.cluster = MockCluster()
        self._up = True
        self._found: list[str] = []  # by their offsets

    def sink(self, name: str = "siem", **options: Any) -> Sink[Any]:
        """Where little patience is asked for, its connection is ready: else librdkafka needs half
        a second until it may send."""
        sink = super().sink(name, **options)
        if not self._up or options.get("patience", 0) >= 5:
            return sink
        ready = _Ready(name, sink.settings)
        connection = sink.connect()
        assert isinstance(connection.send([sink.encode(_FIRST, "", "")], 5.0), Accepted)
        _READY[ready.settings] = connection
        return ready

    def settings(self) -> dict[str, Any]:
        return {"brokers": self.cluster.brokers, "topic": "alerts"}

    def ids(self) -> list[str]:
        if self._up:
            consumer = Consumer(
                {"bootstrap.servers": self.cluster.brokers, "group.id": "-"}, logger=quiet
            )
            try:
                self._read(consumer)
            finally:
                consumer.close()
        return [it for it in self._found if it != _FIRST.event_id]

    def down(self) -> None:
        self._up = False
        self.cluster.down()

    def up(self) -> None:
        self.cluster.down()  # answers that are still delayed go with their connections
        self.cluster.heal()
        self.cluster.up()
        self._up = True

    def play(self, fault: Any, times: int | None = None) -> None:
        if isinstance(fault, _Refuses):
            code = getattr(KafkaError, fault.name)
            self.cluster.refuse(code, fault.times or times or _MANY)
        else:
            self.cluster.delay(10_000)
            if fault == "cut":
                threading.Timer(0.1, self._cut).start()

    def stop(self) -> None:
        self.up()
        for settings in [it for it in _READY if it.brokers == self.cluster.brokers]:
            _READY.pop(settings).close()
        self.cluster.stop()

    def _cut(self) -> None:
        self.cluster.down()
        self.up()

    def _read(self, consumer: Consumer) -> None:
        _, end = consumer.get_watermark_offsets(TopicPartition("alerts", 0), timeout=5.0)
        consumer.assign([TopicPartition("alerts", 0, len(self._found))])
        while len(self._found) < end:
            message = consumer.poll(5.0)
            assert message is not None, "it cannot be read back"
            if not message.error():
                ((name, value),) = message.headers()
                assert name == "event_id"
                self._found.append(value.decode())
