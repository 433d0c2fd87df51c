from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from schemas.alert import SEVERITIES, Alert
from schemas.entities import Details, Entity
from schemas.formats import rfc5424
from schemas.kinds import _syslog, details, understand
from tests.examples import encoded
from tests.examples._base import RESOURCE, SUBSCRIPTION
from tests.examples.syslog import MESSAGE, record
from tests.fidelity.measure import parsed
from tests.schemas.kinds import told


def read(**overrides: Any) -> Alert:
    return understand(encoded(record(**overrides)))


def test_every_field() -> None:
    assert told(read()) == {
        "kind": "syslog",
        "entity": "ffffffff-1111-4222-8333-444455556666",
        "title": f"sshd: {MESSAGE}",
        "description": MESSAGE,
        "severity": "low",
        "severity_original": "notice",
        "event_ms": 1772619600000,
        "subscription_id": SUBSCRIPTION,
        "resource_ids": (RESOURCE,),
        "resource": "shop-vm-1",
        "vendor": "",
        "product": "sshd",
        "alert_type": "authpriv/sshd",
    }


def test_what_it_mentions() -> None:
    assert details(read()) == Details(
        entities=(
            Entity(type="host", name="shop-vm-1", id=RESOURCE),
            Entity(type="ip", name="10.1.0.5"),
            Entity(type="process", name="sshd", pid="2117"),
            Entity(type="user", name="mallory", role="target"),
            Entity(type="ip", name="203.0.113.30", port="40022", role="source"),
        ),
        action="Failed password",
        outcome="failure",
        attributes={"facility": "authpriv"},
    )


def test_time() -> None:
    assert read(EventTime=None).event_ms == 1772619603500
    assert read(EventTime="3/4/2026 10:20").event_ms == 1772619600000
    assert read(EventTime=None, TimeGenerated=None).event_ms == 0


def test_without_a_row_s_id_the_content_is_the_identity() -> None:
    assert len(read(_ItemId=None).entity) == 32
    assert read(_ItemId=None).key == read(_ItemId=None).key
    assert read(_ItemId=None).key != read(_ItemId=None, ProcessID="2").key


@pytest.mark.parametrize(
    ("word", "severity"),
    [
        ("emerg", "critical"),
        ("crit", "critical"),
        ("err", "high"),
        ("Error", "high"),
        ("warning", "medium"),
        ("warn", "medium"),
        ("notice", "low"),
        ("info", "informational"),
        ("debug", "informational"),
        ("odd", "unknown"),
        ("", "unknown"),
    ],
)
def test_severity(word: str, severity: str) -> None:
    assert read(SeverityLevel=word).severity == severity
    assert read(SeverityLevel=word).severity_original == word


@pytest.mark.parametrize("severity", sorted(set(SEVERITIES) - {"unknown"}))
def test_severity_is_the_inverse_of_what_is_sent(severity: str) -> None:
    word = _syslog.SEVERITIES[rfc5424._SEVERITIES[severity]]
    assert _syslog.severity(word) == severity


def test_a_message_in_cef_stays_a_message() -> None:
    message = "CEF:0|Vendor|Product|1.0|7|Name|5|src=203.0.113.30 suser=mallory"
    alert = read(SyslogMessage=message, ProcessName="CEF")
    assert (alert.kind, alert.description) == ("syslog", message)
    assert details(alert).users == ()


def test_a_machine_without_a_host_name() -> None:
    alert = read(HostName="", HostIP="odd")
    assert alert.resource == "shop-vm-1"
    assert details(alert).hosts == ("shop-vm-1",)
    assert details(alert).ips == ("203.0.113.30",)


def test_real_rows(shared: Path) -> None:
    file = shared / "samples/la_syslog/msticpy__syslog_data.converted.jsonl"
    alerts, dead = parsed(file.read_bytes())
    assert (len(alerts), dead) == (67, 0)
    assert {alert.kind for alert in alerts} == {"syslog"}
    assert all(alert.event_ms and alert.subscription_id for alert in alerts)
    found = [details(alert) for alert in alerts]
    assert all(it.outcome == "success" and it.ips == ("10.0.6.5",) for it in found)
    assert found[0].users == ("omsagent", "root")
    assert {it.action for it in found} == {"sudo", "session opened", "session closed"}
