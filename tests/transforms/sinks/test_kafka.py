"""The Kafka sink by itself, and against librdkafka's mock cluster."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from confluent_kafka import KafkaError
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from schemas.formats import FORMATS
from schemas.formats.ndjson import ndjson
from tests.transforms.sinks.alerts import HOSTILE, PARTITION, SOURCE, alert
from tests.transforms.sinks.doubles import kafka as doubles
from transforms.sinks.base import Accepted, Refresh, RejectItems, Retry, Stop
from transforms.sinks.kafka import Kafka, KafkaSettings

NOWHERE = "127.0.0.1:1"  # nobody listens there


def sink(**options: Any) -> Kafka:
    return Kafka("siem", KafkaSettings(**{"brokers": NOWHERE, "topic": "alerts", **options}))


def parts(payload: bytes) -> tuple[bytes, bytes, bytes]:
    """Key, event id and value of an encoded record."""
    value_at = 2 + int.from_bytes(payload[:2], "big") + 32
    return payload[2 : value_at - 32], payload[value_at - 32 : value_at], payload[value_at:]


@pytest.fixture
def cluster() -> Iterator[doubles.MockCluster]:
    made = doubles.MockCluster(partitions=6)
    yield made
    made.stop()


# ---------------------------------------------------------------------------------- settings


@pytest.mark.parametrize(
    "brokers", ["a.b:9092", "a:9092, b:9093", "[::1]:9092", "ns.servicebus.windows.net:9093"]
)
def test_brokers_are_hosts_with_ports(brokers):
    assert sink(brokers=brokers).settings.brokers == brokers.replace(" ", "")


@pytest.mark.parametrize("brokers", ["", "a", "a:9092,", "a:b", "kafka://a:9092", "u:p@a:9092"])
def test_anything_else_is_none(brokers):
    with pytest.raises(ValidationError):
        sink(brokers=brokers)


@pytest.mark.parametrize("topic", ["", "a b", "a/b", "ä", "x" * 250])
def test_a_topic_is_what_kafka_calls_one(topic):
    with pytest.raises(ValidationError):
        sink(topic=topic)


def test_a_password_leaves_this_machine_over_tls_only():
    sasl = {"username": "$ConnectionString", "password": "env:PASSWORD"}
    assert sink(sasl=sasl)
    assert sink(sasl=sasl, brokers="a.b:9093", tls={})
    with pytest.raises(ValidationError, match="unencrypted"):
        sink(sasl=sasl, brokers=f"{NOWHERE},a.b:9093")


def test_a_certificate_is_for_the_brokers_own_names():
    with pytest.raises(ValidationError, match="server_name"):
        sink(tls={"server_name": "other"})


# ---------------------------------------------------------------------------------- encoding


def test_a_record_is_key_id_and_value():
    made = alert(1, entity="alert-1")
    key, identity, value = parts(sink().encode(made, SOURCE, PARTITION))
    assert (key, identity) == (b"alert-1", made.event_id.encode())
    assert value == ndjson(made, source=SOURCE, partition=PARTITION)


@pytest.mark.parametrize("form", sorted(FORMATS.keys() - {"ndjson"}))
def test_the_value_is_said_in_any_format(form):
    made = alert(1, text=HOSTILE)
    assert parts(sink(format=form).encode(made, SOURCE, PARTITION))[2] == FORMATS[form].say(made)


@given(entity=st.text(), update=st.binary(min_size=16, max_size=16))
def test_all_updates_of_an_alert_have_one_key_whatever_its_name(entity, update):
    made = alert(1, entity=entity)
    later = msgspec.structs.replace(made, key=update)
    one, other = (parts(sink().encode(it, SOURCE, PARTITION)) for it in (made, later))
    assert one[0] == other[0] or not entity
    assert 0 < len(one[0]) <= 1000
    assert (one[1], other[1]) == (made.event_id.encode(), later.event_id.encode())


def test_a_key_that_is_very_long_is_a_hash():
    keys = {parts(sink().encode(alert(1, entity="x" * n), "", ""))[0] for n in (1001, 1002, 70_000)}
    assert len(keys) == 3 and {len(key) for key in keys} == {32}


def test_only_json_is_said_shorter():
    made = alert(1, text="x" * 50_000)
    assert sink(format="cef").shrink(made, SOURCE, PARTITION, 3000) is None
    said = sink(format="ecs").shrink(made, SOURCE, PARTITION, 3000)
    assert len(said) <= 3000
    assert msgspec.json.decode(parts(said)[2])["id"] == made.event_id
    assert sink().shrink(made, SOURCE, PARTITION, 60) is None


# ------------------------------------------------------------------------------ the connection


def test_without_the_package_it_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "confluent_kafka", None)
    for ask in (sink().connect, lambda: sink().check(1.0), lambda: sink().probe(1.0)):
        with pytest.raises(OSError, match=r"pip install 'alertbeam\[kafka\]'"):
            ask()
    assert sink().encode(alert(1), SOURCE, PARTITION)


def test_a_certificate_that_cannot_be_read_is_told_at_once(tmp_path):
    with pytest.raises(OSError):
        sink(tls={"ca": str(tmp_path / "missing.pem")}).connect()


def test_where_nobody_listens_it_does_not_wait_and_says_why(capfd):
    to = sink(timeout=10)
    connection = to.connect()
    started = time.monotonic()
    verdict = connection.send([to.encode(alert(1), SOURCE, PARTITION)], 10.0)
    connection.close()
    assert isinstance(verdict, Retry) and "Connection refused" in verdict.reason
    with pytest.raises(OSError, match="Connection refused"):
        to.check(0.3)
    assert time.monotonic() - started < 3
    assert capfd.readouterr() == ("", ""), "librdkafka's log is not the user's"


def test_what_was_given_up_is_not_sent_behind_its_back(cluster):
    to = sink(brokers=cluster.brokers)
    sent = [to.encode(alert(n), SOURCE, PARTITION) for n in range(50)]
    connection = to.connect()
    assert isinstance(connection.send(sent[:10], 5.0), Accepted)
    cluster.down()
    started = time.monotonic()
    assert isinstance(connection.send(sent[10:], 0.3), Retry)
    assert time.monotonic() - started < 1
    cluster.up()
    time.sleep(0.3)
    assert isinstance(connection.send(sent[:1], 5.0), Accepted)
    connection.close()
    assert doubles.count(cluster) == 11


def test_where_one_broker_refuses_the_others_records_are_taken(cluster):
    to = sink(brokers=cluster.brokers)
    sent = [to.encode(alert(n), SOURCE, PARTITION) for n in range(60)]
    connection = to.connect()
    assert isinstance(connection.send(sent, 5.0), Accepted)
    cluster.refuse_at(1, KafkaError.POLICY_VIOLATION)
    verdict = connection.send(sent, 5.0)
    assert isinstance(verdict, RejectItems) and verdict.taken and not verdict.reasons
    assert 0 < len(verdict.again) < 60
    left = [sent[at] for at in sorted(verdict.again)]
    cluster.refuse_at(1, KafkaError.POLICY_VIOLATION)
    verdict = connection.send(left, 5.0)
    assert isinstance(verdict, Stop) and "topic alerts" in verdict.reason
    assert isinstance(connection.send(left, 5.0), Accepted)
    connection.close()
    assert doubles.count(cluster) == 120


def test_what_librdkafka_says_while_nothing_is_sent_does_not_pile_up(cluster, caplog):
    caplog.set_level("DEBUG", logger="transforms.sinks.kafka")
    to = sink(brokers=cluster.brokers)
    connection = to.connect()
    assert isinstance(connection.send([to.encode(alert(1), SOURCE, PARTITION)], 5.0), Accepted)
    cluster.down()
    time.sleep(0.2)
    assert "Disconnected" not in caplog.text
    assert connection.idle()
    assert "Disconnected" in caplog.text
    assert connection._producer.poll(0) == 0
    connection.close()
    assert connection.idle() is None


class Says:
    """An error as librdkafka reports it."""

    def __init__(self, name: str, text: str, fatal: bool = False) -> None:
        self.name, self.str, self.fatal = lambda: name, lambda: text, lambda: fatal


def test_a_password_that_a_broker_quotes_is_not_repeated(monkeypatch):
    monkeypatch.setenv("PASSWORD", "hunter2")
    connection = sink(sasl={"username": "me", "password": "env:PASSWORD"}).connect()
    connection._hear(Says("_AUTHENTICATION", "no \x1b[31m user with password hunter2"))
    assert connection._hopeless == Refresh("no  [31m user with password ***")
    connection.close()


def test_a_producer_that_can_go_on_no_more_is_replaced(cluster):
    to = sink(brokers=cluster.brokers)
    record = to.encode(alert(1), SOURCE, PARTITION)
    connection = to.connect()
    assert isinstance(connection.send([record], 5.0), Accepted)
    first = connection._producer
    wait = connection._wait

    def fail(producer: Any, timeout: float) -> None:
        connection._hear(Says("_FATAL", "out of order", fatal=True))
        wait(producer, 0.0)

    cluster.down()
    connection._wait = fail
    assert connection.send([record], 5.0) == Retry("out of order")
    cluster.up()
    connection._wait = wait
    assert isinstance(connection.send([record], 5.0), Accepted)
    assert connection._producer is not first
    connection.close()
