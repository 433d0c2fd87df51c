"""The Fabric Eventstream sink: what follows from a connection string, and who is let in by it."""

from __future__ import annotations

import logging
import pickle
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from pipelines.local.receivers import certificate
from tests.transforms.sinks.alerts import PARTITION, SOURCE, alert
from tests.transforms.sinks.doubles.fabric_eventstream import Gateway, connection_string
from tests.transforms.sinks.doubles.kafka import MockCluster, count
from transforms.secrets import SecretError
from transforms.sinks.base import Accepted, Refresh, Stop
from transforms.sinks.fabric_eventstream import FabricEventstream, FabricEventstreamSettings
from transforms.sinks.kafka import Kafka, KafkaSettings

SHOWN = (
    "Endpoint=sb://Esehams1.servicebus.windows.net/;SharedAccessKeyName=key_ab;"
    "SharedAccessKey=c2VjcmV0;EntityPath=es_0f1e2d3c"
)
KEY = "c2VjcmV0LWtleQ=="


def sink(**options: Any) -> FabricEventstream:
    given = {"connection_string": "env:EVENTSTREAM", **options}
    return FabricEventstream("fabric", FabricEventstreamSettings(**given))


class TestConnectionString:
    def test_everything_follows_from_what_the_endpoint_shows(self, monkeypatch):
        monkeypatch.setenv("EVENTSTREAM", SHOWN)
        found = sink(patience=7, concurrency=2).found().settings
        assert found.brokers == "Esehams1.servicebus.windows.net:9093"
        assert found.topic == "es_0f1e2d3c"
        assert found.tls is not None and found.tls.verify
        assert found.sasl is not None
        assert (found.sasl.mechanism, found.sasl.username) == ("PLAIN", "$ConnectionString")
        assert found.sasl.password == "env:EVENTSTREAM"
        assert (found.patience, found.concurrency, found.compression) == (7, 2, "none")
        assert sink().destination() == "esehams1.servicebus.windows.net/es_0f1e2d3c"

    def test_an_emulator_on_this_machine_needs_no_tls(self, monkeypatch):
        text = SHOWN.replace("Esehams1.servicebus.windows.net", "localhost")
        monkeypatch.setenv("EVENTSTREAM", f"{text};UseDevelopmentEmulator=true")
        found = sink().found().settings
        assert (found.brokers, found.tls) == ("localhost:9092", None)

    def test_an_emulator_elsewhere_would_see_the_key_in_the_clear(self, monkeypatch):
        monkeypatch.setenv("EVENTSTREAM", f"{SHOWN};UseDevelopmentEmulator=true")
        with pytest.raises(SecretError, match="unencrypted"):
            sink().connect()

    @pytest.mark.parametrize(
        ("text", "why"),
        [
            ("c2VjcmV0", "no connection string"),
            (SHOWN.partition(";EntityPath")[0], "names no hub"),
            (SHOWN.replace("es_", "es/"), "no topic of an Eventstream"),
            (SHOWN.replace("net/", "net:x/"), "no topic of an Eventstream"),
        ],
    )
    def test_one_that_leads_nowhere_is_told_and_not_shown(self, monkeypatch, text, why):
        monkeypatch.setenv("EVENTSTREAM", text)
        for ask in (sink().connect, lambda: sink().check(1), sink().destination):
            with pytest.raises(SecretError, match=why) as caught:
                ask()
            assert "c2VjcmV0" not in str(caught.value)

    def test_it_is_read_no_sooner_than_needed_and_kept_nowhere(self, monkeypatch):
        monkeypatch.delenv("EVENTSTREAM", raising=False)
        to = sink()
        assert to.encode(alert(1), SOURCE, PARTITION)
        assert to.target == "the Eventstream that env:EVENTSTREAM leads to"
        monkeypatch.setenv("EVENTSTREAM", SHOWN)
        assert b"c2VjcmV0" not in pickle.dumps(to)
        assert "c2VjcmV0" not in f"{to!r} {to.settings!r} {to.found().settings!r}"

    def test_it_is_given_as_a_reference(self):
        with pytest.raises(ValidationError) as caught:
            sink(connection_string=SHOWN)
        assert "c2VjcmV0" not in str(caught.value)


def test_records_are_those_of_kafka() -> None:
    kafka = Kafka("k", KafkaSettings(brokers="a:1", topic="b"))
    large = alert(1, text="x" * 5_000)
    assert sink().encode(large, SOURCE, PARTITION) == kafka.encode(large, SOURCE, PARTITION)
    assert sink().shrink(large, SOURCE, PARTITION, 2_000) == kafka.shrink(
        large, SOURCE, PARTITION, 2_000
    )
    assert (sink().limits, sink().separator_bytes) == (kafka.limits, kafka.separator_bytes)


@pytest.mark.parametrize("compression", ["snappy", "lz4", "zstd"])
def test_a_compression_that_event_hubs_does_not_take_is_refused(compression):
    with pytest.raises(ValidationError):
        sink(compression=compression)


class TestEndpoint:
    @pytest.fixture
    def gateway(self, tmp_path: Path, monkeypatch) -> Iterator[tuple[Gateway, Path]]:
        cluster = MockCluster()
        tls = certificate(tmp_path)
        made = Gateway(cluster.brokers, tls)
        made.password = connection_string(made.address, KEY)
        monkeypatch.setenv("EVENTSTREAM", made.password)
        yield made, tls[0]
        made.stop()
        assert count(cluster) <= 1
        cluster.stop()

    def test_with_its_connection_string_one_is_let_in_over_tls(self, gateway):
        to = sink(tls={"ca": str(gateway[1])}, timeout=5)
        assert to.check(5.0).startswith("brokers: 3; partitions of alerts: 1;")
        connection = to.connect()
        assert isinstance(connection.send([to.encode(alert(1), "", "")], 5.0), Accepted)
        connection.close()

    def test_a_certificate_that_is_not_trusted_stops_it(self, gateway):
        connection = sink().connect()
        verdict = connection.send([sink().encode(alert(1), "", "")], 5.0)
        connection.close()
        assert isinstance(verdict, Stop)
        assert "certificate verify failed" in verdict.reason

    def test_a_key_that_is_refused_is_read_anew_and_shown_nowhere(self, gateway, caplog):
        caplog.set_level(logging.DEBUG)
        gateway[0].password = "another"
        gateway[0].says = f"The key {KEY} is not valid"
        to = sink(tls={"ca": str(gateway[1])})
        connection = to.connect()
        started = time.monotonic()
        verdict = connection.send([to.encode(alert(1), "", "")], 5.0)
        connection.close()
        assert time.monotonic() - started < 4
        assert isinstance(verdict, Refresh)
        assert "The key *** is not valid" in verdict.reason
        assert KEY not in caplog.text
