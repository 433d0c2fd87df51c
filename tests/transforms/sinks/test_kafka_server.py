"""What Apache Kafka makes of what the sink sends: one broker, with TLS, SASL and access control."""

from __future__ import annotations

import dataclasses
import itertools
import logging
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import confluent_kafka
import pytest
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    NewTopic,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)

from pipelines.local.receivers import certificate
from schemas.receipt import Outcome
from tests.transforms.sinks import daemons
from tests.transforms.sinks.alerts import HOSTILE, PARTITION, SOURCE, alert, identity
from tests.transforms.sinks.doubles.kafka import quiet
from transforms.delivery.engine import Engine
from transforms.delivery.parcel import Parcel
from transforms.sinks.kafka import Kafka, KafkaSettings

PASSWORD = "c0ffee-password-that-nobody-may-see"
D, DEAD, OWED = Outcome.DELIVERED, Outcome.DEAD, Outcome.OWED

Deliver = Callable[[Kafka, list[Parcel]], list[Outcome | None]]


@dataclasses.dataclass
class Server:
    """The broker, a topic of the test's own in it, and the certificate that it shows."""

    broker: daemons.Kafka
    topic: str
    ca: Path

    def __post_init__(self) -> None:
        clear = f"127.0.0.1:{self.broker.clear}"
        self.admin = AdminClient({"bootstrap.servers": clear}, logger=quiet)

    def sink(self, port: str = "clear", **options: Any) -> Kafka:
        sasl = {"mechanism": "SCRAM-SHA-512", "username": "alertbeam", "password": "env:PASSWORD"}
        given: dict[str, Any] = {
            "brokers": f"127.0.0.1:{getattr(self.broker, port)}",
            "topic": self.topic,
            "patience": 5.0,
            "timeout": 4.0,
            **({} if port == "clear" else {"sasl": sasl}),
            **({"tls": {"ca": f"file:{self.ca}"}} if port == "tls" else {}),
        }
        return Kafka("siem", KafkaSettings(**{**given, **options}))

    def make(self, topic: str, partitions: int = 1, **config: str) -> None:
        self.topic = topic
        done(self.admin.create_topics([NewTopic(topic, partitions, config=config)]))

    def password(self, password: str) -> None:
        """SCRAM's, from now on."""
        info = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096)
        change = UserScramCredentialUpsertion("alertbeam", info, password.encode())
        done(self.admin.alter_user_scram_credentials([change]))

    def records(self) -> list[confluent_kafka.Message]:
        """All that the topic holds, in the order of partitions and offsets."""
        clear = f"127.0.0.1:{self.broker.clear}"
        config = {"bootstrap.servers": clear, "group.id": "test", "fetch.wait.max.ms": 10}
        consumer = Consumer(config, logger=quiet)
        try:
            found: list[confluent_kafka.Message] = []
            for number in consumer.list_topics(self.topic, 5.0).topics[self.topic].partitions:
                _, end = consumer.get_watermark_offsets(TopicPartition(self.topic, number), 5.0)
                consumer.assign([TopicPartition(self.topic, number, 0)])
                position = 0
                while position < end:
                    message = consumer.poll(5.0)
                    assert message is not None and not message.error()
                    found.append(message)
                    position = message.offset() + 1
            return found
        finally:
            consumer.close()

    def ids(self) -> list[str]:
        return [dict(record.headers())["event_id"].decode() for record in self.records()]


def done(futures: dict[Any, Any]) -> None:
    for future in futures.values():
        future.result(timeout=10)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[daemons.Kafka, Path]]:
    daemons.missing("kafka")
    folder = tmp_path_factory.mktemp("kafka")
    cert, key = certificate(folder)
    with daemons.Kafka(folder, cert, key, PASSWORD) as broker:
        server = Server(broker, "", cert)
        server.password(PASSWORD)
        rules = [
            ("*", ResourcePatternType.LITERAL, AclOperation.ALL, AclPermissionType.ALLOW),
            ("closed", ResourcePatternType.PREFIXED, AclOperation.WRITE, AclPermissionType.DENY),
        ]
        who = ("User:alertbeam", "*")
        acls = [AclBinding(ResourceType.TOPIC, it[0], it[1], *who, *it[2:]) for it in rules]
        done(server.admin.create_acls(acls))
        yield broker, cert


numbers = itertools.count()


@pytest.fixture
def server(running: tuple[daemons.Kafka, Path], monkeypatch: pytest.MonkeyPatch) -> Server:
    monkeypatch.setenv("PASSWORD", PASSWORD)
    made = Server(running[0], "", running[1])
    made.make(f"alerts-{next(numbers)}")
    return made


@pytest.fixture
def deliver() -> Iterator[Deliver]:
    engines: dict[int, Engine] = {}

    def run(to: Kafka, sent: list[Parcel]) -> list[Outcome | None]:
        engine = engines.setdefault(id(to), Engine(to, cool_down=(0.05, 0.2)))
        run.engine = engine  # type: ignore[attr-defined]
        engine.submit(sent)
        engine.settle()
        return [parcel.outcome for parcel in sent]

    yield run
    for engine in engines.values():
        engine.close()


def parcels(to: Kafka, these: range, **fields: Any) -> list[Parcel]:
    made = [alert(n, **fields) for n in these]
    return [parcel(to, one) for one in made]


def parcel(to: Kafka, one: Any) -> Parcel:
    from schemas.batch import Origin

    payload = to.encode(one, SOURCE, PARTITION)
    return Parcel(one.sequence, 0, payload, one, origin=Origin(SOURCE, PARTITION))


def pay(engine: Engine, to: Kafka, sent: list[Parcel], deliver: Deliver) -> None:
    until = time.monotonic() + 20
    while owed := [it for it in sent if it.outcome is OWED]:
        assert time.monotonic() < until, engine.status().reason
        while engine.status().circuit == "open":
            assert time.monotonic() < until, engine.status().reason
            time.sleep(0.01)
        sent = [Parcel(it.sequence, 0, it.payload, it.alert) for it in owed]
        deliver(to, sent)


@pytest.mark.parametrize("compression", ["none", "gzip", "snappy", "lz4", "zstd"])
def test_every_alert_is_one_record_whatever_it_says(server, deliver, compression):
    to = server.sink(compression=compression)
    sent = parcels(to, range(300), text=HOSTILE, entity=HOSTILE)
    assert deliver(to, sent) == [D] * 300
    records = server.records()
    assert [dict(r.headers())["event_id"].decode() for r in records] == [
        identity(n) for n in range(300)
    ]
    assert {r.key() for r in records} == {HOSTILE.encode()}
    assert [r.value() for r in records] == [
        it.payload[2 + len(HOSTILE.encode()) + 32 :] for it in sent
    ]


def test_the_updates_of_an_alert_lie_in_one_partition_in_their_order(server, deliver):
    server.make("updates", partitions=6)
    to = server.sink()
    sent = [parcel(to, alert(n, entity=f"alert-{n % 40}")) for n in range(400)]
    assert deliver(to, sent) == [D] * 400
    places, numbers = defaultdict(set), defaultdict(list)
    order = {identity(n): n for n in range(400)}
    for record in server.records():
        places[record.key()].add(record.partition())
        numbers[record.key()].append(order[dict(record.headers())["event_id"].decode()])
    assert len(places) == 40
    assert all(len(place) == 1 for place in places.values())
    assert all(found == sorted(found) for found in numbers.values())
    assert len(set.union(*places.values())) == 6


@pytest.mark.parametrize("port", ["sasl", "tls"])
@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-512"])
def test_with_a_password_in_the_clear_on_this_machine_and_over_tls(
    server, deliver, port, mechanism
):
    who = {"mechanism": mechanism, "username": "alertbeam", "password": "env:PASSWORD"}
    to = server.sink(port, sasl=who)
    assert deliver(to, parcels(to, range(20))) == [D] * 20
    assert server.ids() == [identity(n) for n in range(20)]
    assert f"brokers: 1; partitions of {server.topic}: 1;" in to.check(5.0)


def test_a_certificate_that_is_not_trusted_stops_it(server, deliver):
    to = server.sink("tls", tls={})
    sent = parcels(to, range(3))
    started = time.monotonic()
    assert deliver(to, sent) == [OWED] * 3
    assert time.monotonic() - started < 3, "it waits for nothing"
    assert "certificate verify failed" in sent[0].reason
    with pytest.raises(OSError, match="certificate verify failed"):
        to.check(5.0)
    assert server.ids() == []


def test_a_wrong_password_stops_it_and_shows_nowhere(server, deliver, monkeypatch, caplog, capfd):
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("PASSWORD", "wr0ng-one")
    to = server.sink("tls")
    sent = parcels(to, range(3))
    started = time.monotonic()
    assert deliver(to, sent) == [OWED] * 3
    assert time.monotonic() - started < 4, "it waits for nothing"
    assert "Authentication failed" in sent[0].reason
    with pytest.raises(OSError, match="Authentication failed"):
        to.check(5.0)
    shown = f"{sent!r} {to!r} {to.settings!r} {deliver.engine.status()!r} {caplog.text}"
    assert "wr0ng-one" not in shown + "".join(capfd.readouterr())
    assert "Authentication failed" in caplog.text, "librdkafka's log is kept for debugging"
    monkeypatch.setenv("PASSWORD", PASSWORD)
    pay(deliver.engine, to, sent, deliver)
    assert server.ids() == [identity(n) for n in range(3)]


def test_a_password_that_has_changed_is_read_anew(server, deliver, monkeypatch):
    to = server.sink("sasl")
    assert deliver(to, parcels(to, range(3))) == [D] * 3
    try:
        server.password("another-one")
        monkeypatch.setenv("PASSWORD", "another-one")
        fresh = server.sink("sasl")
        with monkeypatch.context() as before:
            before.setenv("PASSWORD", PASSWORD)
            stale = fresh.connect()
        connect, left = fresh.connect, [stale]
        fresh.connect = lambda: left.pop() if left else connect()
        assert deliver(fresh, parcels(fresh, range(3, 6))) == [D] * 3
        assert deliver.engine.status().openings == 0
    finally:
        server.password(PASSWORD)
    assert server.ids() == [identity(n) for n in range(6)]


def test_a_topic_that_is_not_there_stops_it_and_is_not_made(server, deliver):
    to = server.sink(topic="mistyped")
    sent = parcels(to, range(3))
    assert deliver(to, sent) == [OWED] * 3
    assert "topic mistyped" in sent[0].reason and "Unknown topic" in sent[0].reason
    with pytest.raises(OSError, match="mistyped"):
        to.check(5.0)
    assert "mistyped" not in server.admin.list_topics(timeout=5.0).topics
    server.make("mistyped")
    pay(deliver.engine, to, sent, deliver)
    assert server.ids() == [identity(n) for n in range(3)]


def test_a_topic_that_may_not_be_written_to_stops_it(server, deliver):
    server.make("closed-to-it")
    to = server.sink("sasl")
    sent = parcels(to, range(3))
    assert deliver(to, sent) == [OWED] * 3
    assert "uthorization failed" in sent[0].reason
    assert server.ids() == []


def test_batches_over_the_topics_limit_are_halved_and_what_is_over_it_alone_is_shortened(
    server, deliver
):
    """The topic takes less than the settings say, and the broker does not say which it minds."""
    server.make("small", partitions=3, **{"max.message.bytes": "20000"})
    to = server.sink()
    sent = parcels(to, range(60), text="x" * 2000)
    sent[17] = parcels(to, range(17, 18), text="y" * 30_000)[0]
    assert deliver(to, sent) == [D] * 60
    assert sorted(server.ids()) == sorted(identity(n) for n in range(60))
    shortened = [r for r in server.records() if b'"shortened":true' in r.value()]
    assert len(shortened) == 1 and identity(17).encode() in shortened[0].value()


def test_only_the_record_that_the_broker_names_is_dead(server, deliver, monkeypatch):
    """A compacted topic takes no record without a key."""

    class Keyless(confluent_kafka.Producer):
        def produce(self, *arguments: Any, **given: Any) -> None:
            if given["key"] == b"keyless":
                given["key"] = None
            super().produce(*arguments, **given)

    monkeypatch.setattr(confluent_kafka, "Producer", Keyless)
    server.make("compacted", **{"cleanup.policy": "compact"})
    to = server.sink()
    made = [alert(n, entity="keyless" if n in (3, 7) else f"alert-{n}") for n in range(12)]
    sent = [parcel(to, one) for one in made]
    assert deliver(to, sent) == [DEAD if n in (3, 7) else D for n in range(12)]
    assert "failed to validate" in sent[3].reason
    assert server.ids() == [identity(n) for n in range(12) if n not in (3, 7)]


def test_what_was_given_up_in_silence_comes_once_a_request_at_most(server, deliver):
    to = server.sink(timeout=0.6, patience=0.7)
    warm = parcels(to, range(1))
    if deliver(to, warm) != [D]:
        pay(deliver.engine, to, warm, deliver)
    sent = parcels(to, range(1, 40))
    server.broker.hold()
    try:
        started = time.monotonic()
        assert set(deliver(to, sent)) == {OWED}
        assert time.monotonic() - started < 2
    finally:
        server.broker.go_on()
    pay(deliver.engine, to, sent, deliver)
    found = Counter(server.ids())
    assert found.keys() == {identity(n) for n in range(40)}
    assert max(found.values()) <= deliver.engine.status().requests - 1, "once a request"


def test_killed_and_started_again_it_misses_nothing(server, deliver):
    to = server.sink(patience=1.0, timeout=1.0)
    sent = parcels(to, range(100))
    if set(deliver(to, sent)) != {D}:
        pay(deliver.engine, to, sent, deliver)
    assert {*server.ids()} == {identity(n) for n in range(100)}
    server.broker.kill()
    late = parcels(to, range(100, 150))
    assert deliver(to, late) == [OWED] * 50
    assert late[0].reason
    server.broker.start()
    pay(deliver.engine, to, late, deliver)
    assert {*server.ids()} == {identity(n) for n in range(150)}
