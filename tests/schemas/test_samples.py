"""Real events, beside the repository: none is fatal, and the known kinds read what peers do."""

from __future__ import annotations

import collections
import json
from pathlib import Path
from typing import Any

import pytest

from schemas.alert import Alert
from schemas.batch import Batch, Origin, Record
from schemas.formats.cef import cef
from schemas.formats.hec import hec
from schemas.formats.ndjson import ndjson
from schemas.formats.rfc5424 import header, rfc5424
from schemas.kinds import _base
from transforms.parse import parse_batch

ELASTIC = "elastic_integrations__microsoft"
DEFENDER = f"mdc_continuous_export/{ELASTIC}_defender_cloud__event__test-alert.log"
SENTINEL = f"la_securityalert/{ELASTIC}_sentinel__event__test-event.log"
STIX = "stixshifter__transmission_"


def parsed(*bodies: bytes) -> tuple[list[Alert], int]:
    records = [Record(number, 0, 1, body) for number, body in enumerate(bodies)]
    batch, dead = parse_batch(Batch(Origin("file", "0"), 0, len(bodies), None, records))
    return batch.alerts, len(dead)


def alerts(file: Path) -> list[Alert]:
    return parsed(file.read_bytes())[0]


def expected(shared: Path, peer: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((shared / "expected" / peer).read_text())["expected"]
    return found


def test_every_sample_parses_and_can_be_said(shared: Path) -> None:
    kinds: collections.Counter[str] = collections.Counter()
    for file in sorted((shared / "samples").glob("*/*")):
        body = file.read_bytes()
        found, dead = parsed(body)
        by_line, dead_lines = parsed(*body.splitlines())
        assert found or dead
        assert len(by_line) + dead_lines >= len(body.splitlines())
        if "raw_" not in file.parent.name:
            assert not dead, file
        for alert in (*found, *by_line):
            kinds[alert.kind] += 1
            json.loads(hec(alert))
            json.loads(ndjson(alert, source="s", partition="0"))
            assert len(rfc5424(cef(alert), header(alert)).decode().splitlines()) == 1
    assert set(kinds) == {"defender_alert", "security_alert", "security_incident", "unknown"}


def test_a_json_lines_file_holds_as_many_records_as_lines(shared: Path) -> None:
    file = shared / "samples/la_securityalert/azuresentinelnotebooks__alertlist.converted.jsonl"
    found = alerts(file)
    assert len(found) == 126
    assert {alert.kind for alert in found} == {"security_alert"}
    assert all(alert.start_ms and alert.severity != "unknown" for alert in found)
    # The workspace's own subscription is nobody's resource.
    assert sum(bool(alert.subscription_id) for alert in found) >= 104


def test_a_defender_alert_as_elastic_reads_it(shared: Path) -> None:
    alert = alerts(shared / "samples" / DEFENDER)[4]
    peer = expected(shared, "elastic/microsoft_defender_cloud__event__KEYFIELDS.json")[4]
    assert alert.kind == "defender_alert"
    assert alert.entity == peer["system.alert_id"]
    assert alert.severity_original == peer["severity"]
    assert (alert.severity, alert.status) == ("medium", "new")
    assert alert.status_original == peer["status"]
    assert alert.product == peer["event.provider"]
    assert alert.vendor == peer["observer.vendor"]
    assert alert.alert_type == peer["alert_type"]
    assert alert.resource == peer["compromised_entity"]
    assert alert.tactics == (peer["intent"],)
    assert alert.event_ms == _base.millis(_base.moment(peer["time_generated"]))
    assert alert.start_ms == _base.millis(_base.moment(peer["event.start"]))
    assert alert.resource_ids[0] == peer["azure_resource_id"]
    assert alert.subscription_id == peer["azure_resource_id"].split("/")[2].lower()
    assert alert.subscription_id != peer["workspace.subscription_id"]


def test_a_sentinel_alert_as_elastic_reads_it(shared: Path) -> None:
    (alert,) = alerts(shared / "samples" / SENTINEL)
    (peer,) = expected(shared, "elastic/microsoft_sentinel__event__KEYFIELDS.json")
    assert alert.kind == "security_alert"
    assert alert.entity == peer["event.id"]
    assert alert.severity_original == peer["alert.severity"]
    assert alert.status_original == peer["status"]
    assert alert.product == peer["observer.product"]
    assert peer["item_id"] in alert.version
    assert alert.event_ms == _base.millis(_base.moment(peer["@timestamp"]))
    assert alert.start_ms == _base.millis(_base.moment(peer["event.start"]))
    assert alert.end_ms == _base.millis(_base.moment(peer["event.end"]))
    assert set(alert.tactics) == set(peer["tactics"]) - {"Unknown"}
    assert alert.subscription_id == ""


def test_a_security_alert_of_defender(shared: Path) -> None:
    (alert,) = alerts(shared / f"samples/la_securityalert/{STIX}_SecurityAlert_1.json")
    assert (alert.kind, alert.severity, alert.resource) == ("security_alert", "high", "Sample-VM")
    assert alert.subscription_id == "083de1fb-cd2d-4b7c-895a-2b5af1d091e8"
    assert alert.tactics == ("Execution",)
    assert alert.event_ms == 1679470076188


def test_a_security_incident(shared: Path) -> None:
    (alert,) = alerts(shared / f"samples/la_securityincident/{STIX}_SecurityIncident_1.json")
    assert (alert.kind, alert.severity, alert.status) == ("security_incident", "low", "new")
    assert alert.entity.endswith("/7f788595-0fcf-4cb2-a669-07a4b5e8de99")
    assert alert.subscription_id == "083de1fb-cd2d-4b7c-895a-2b5af1d091e8"
    assert alert.tactics == ("PreAttack",)
    assert alert.event_ms == 1679183529956
    assert alert.product == "Azure Sentinel"


@pytest.mark.parametrize(
    ("file", "records"),
    [
        ("graph_entra/wazuh__graph_events.json", 2),
        ("diagnostic_logs/dynatrace__events.json", 5),
        ("activity_log/azure_monitor_docs__eventhub_record.json", 1),
    ],
)
def test_real_wrappers(shared: Path, file: str, records: int) -> None:
    assert len(alerts(shared / "samples" / file)) == records
