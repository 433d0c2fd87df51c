"""Real events, beside the repository: none is fatal, and the known kinds read what peers do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from schemas.alert import Alert
from schemas.formats.cef import cef
from schemas.formats.hec import hec
from schemas.formats.ndjson import ndjson
from schemas.formats.rfc5424 import header, rfc5424
from schemas.kinds import _base
from tests.fidelity.measure import parsed

ELASTIC = "elastic_integrations__microsoft"
DEFENDER = f"mdc_continuous_export/{ELASTIC}_defender_cloud__event__test-alert.log"
SENTINEL = f"la_securityalert/{ELASTIC}_sentinel__event__test-event.log"
STIX = "stixshifter__transmission_"

# The kind of a folder's records.
KINDS = {
    "activity_log": "activity_log",
    "arm_alert_api": "arm_alert",
    "arm_incident_api": "arm_incident",
    "diagnostic_logs": "resource_log",
    "entra_logs": "entra_log",
    "graph_alert_v1": "graph_alert_v1",
    "graph_alert_v2": "graph_alert",
    "graph_entra": "graph_entra",
    "graph_incident": "graph_incident",
    "la_auditlogs": "entra_log",
    "la_officeactivity": "office_activity",
    "la_securityalert": "security_alert",
    "la_securityincident": "security_incident",
    "la_syslog": "syslog",
    "la_windows_rows": "security_event",
    "mdc_continuous_export": "defender_alert",
    "office365_mgmt": "office_activity",
    "raw_syslog": "syslog_line",
    "raw_windows_xml": "windows_xml",
    "sentinel_incident_sdk": "arm_incident",
    "windows_event_diag": "windows_event",
    "xdr_hunting_rows": "xdr",
    "xdr_streaming": "xdr",
}
PANTHER = "activity_log/panther__azure_activity_rules.jsonl"
WINDOWS_XML = "raw_windows_xml/splunk_security_content__windows.xml.txt"
# `file:number` → its kind, where a record lies in another kind's folder.
ELSEWHERE = {
    f"{DEFENDER}:0": "regulatory_compliance",
    f"{DEFENDER}:1": "assessment",
    f"{DEFENDER}:2": "secure_score",
    f"{DEFENDER}:3": "sub_assessment",
    # Rules about storage: resource logs of the data plane, some without their category.
    **{f"{PANTHER}:{n}": "resource_log" for n in (*range(108, 116), 119, 120, *range(130, 134))},
    f"{WINDOWS_XML}:0": "xdr",  # Splunk's example of Defender's alerts: a row of AlertEvidence
}
# file → how many of its events are no record.
DEAD = {
    WINDOWS_XML: 5,  # the first lines, a date, of texts that were cut off after it
}
# Kinds that have no time: Parse gives them the enqueued time.
TIMELESS = {
    *("regulatory_compliance", "secure_score", "attack_path"),  # states: Azure writes none
    "syslog_line",  # that of an RFC 3164 line, as these are, has no year
}
# `file:number` of records whose time cannot be read.
UNDATED = {
    "office365_mgmt/splunk_security_content__data_sources.jsonl:17",  # 17:08:65
}

# Files whose publishers changed copies of one record, or made several rows of one.
COPIES = {
    PANTHER,
    "entra_logs/panther__azure_signin_rules.jsonl",
    "la_auditlogs/otrf_goldensaml__AADAuditEvents.jsonl",
}


def alerts(file: Path) -> list[Alert]:
    return parsed(file.read_bytes())[0]


def expected(shared: Path, peer: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((shared / "expected" / peer).read_text())["expected"]
    return found


def index(shared: Path) -> dict[str, int]:
    """`folder/name` → how many events the file holds, by samples/INDEX.md."""
    lines = (shared / "samples/INDEX.md").read_text().splitlines()
    rows = [[cell.strip() for cell in line.split("|")] for line in lines if line.count("|") > 3]
    return {row[1]: int(row[2]) for row in rows if row[2].isdigit()}


def test_every_folder_of_samples_is_expected_something_of(shared: Path) -> None:
    assert {file.partition("/")[0] for file in index(shared)} == set(KINDS)
    assert set(index(shared)) == {
        f"{file.parent.name}/{file.name}" for file in (shared / "samples").glob("*/*")
    }


@pytest.mark.parametrize("folder", KINDS)
def test_every_sample_is_told_identified_and_dated(shared: Path, folder: str) -> None:
    wrong: list[str] = []
    undated: set[str] = set()
    for file, events in index(shared).items():
        if file.partition("/")[0] != folder:
            continue
        found, dead = parsed((shared / "samples" / file).read_bytes())
        if (len(found), dead) != (events - DEAD.get(file, 0), DEAD.get(file, 0)):
            wrong.append(f"{file}: {len(found)} records and {dead} dead of {events}")
        for number, alert in enumerate(found):
            name = f"{file}:{number}"
            if alert.kind != ELSEWHERE.get(name, KINDS[folder]):
                wrong.append(f"{name} is {alert.kind}")
            if not (alert.entity and alert.title and len(alert.key) == 16):
                wrong.append(f"{name} is {alert.entity!r}, {alert.title!r}")
            if not alert.event_ms and alert.kind not in TIMELESS:
                undated.add(name)
    assert not wrong, "\n".join(wrong[:20])
    assert undated == {name for name in UNDATED if name.partition("/")[0] == folder}


def test_only_exact_repeats_share_a_key(shared: Path) -> None:
    for file in sorted(set(index(shared)) - COPIES):
        found, _ = parsed((shared / "samples" / file).read_bytes())
        assert len({alert.key for alert in found}) == len({alert.raw for alert in found}), file


@pytest.mark.parametrize("folder", KINDS)
def test_every_sample_can_be_said(shared: Path, folder: str) -> None:
    for file in sorted((shared / "samples" / folder).iterdir()):
        for alert in alerts(file):
            json.loads(hec(alert))
            json.loads(ndjson(alert, source="s", partition="0"))
            assert len(rfc5424(cef(alert), header(alert)).decode().splitlines()) == 1


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
