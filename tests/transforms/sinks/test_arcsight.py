"""What only ArcSight has: CEF's own prefix, its profiles, its lengths."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from pydantic import ValidationError

from schemas.alert import Alert
from tests.strategies import alerts
from tests.transforms.sinks.alerts import PARTITION, SOURCE, alert, identity
from tests.transforms.sinks.doubles.arcsight import cef_id, message_id, rfc5424_id
from transforms.sinks.arcsight import Arcsight, ArcsightSettings


def sink(**options: Any) -> Arcsight:
    return Arcsight("arcsight", ArcsightSettings(address="connector:6514", **options))


def encode(made: Alert, **options: Any) -> bytes:
    return sink(**options).encode(made, SOURCE, PARTITION)


def test_it_is_tls_and_lines_unless_told_otherwise() -> None:
    assert (sink().settings.protocol, sink().settings.framing) == ("tls", "lf")
    with pytest.raises(ValidationError, match="knows no `tls`"):
        sink(protocol="tcp", tls={})


def test_the_prefix_is_that_of_cefs_document() -> None:
    said = encode(alert(1), hostname="beam-1.example.com", facility="auth").decode()
    assert said.startswith("<35>Sep 21 14:13:20 beam-1 CEF:0|Microsoft|Microsoft Defender for ")


def test_or_that_of_rfc5424() -> None:
    said = encode(alert(1), hostname="beam-1.example.com", header="rfc5424").decode()
    assert said.startswith("<131>1 2026-09-21T14:13:20.001Z beam-1.example.com alertbeam - ")
    assert " - CEF:0|Microsoft|" in said


def test_the_profile_says_alerts_of_defender_for_iot_as_its_sensors_do() -> None:
    made = alert(1, kind="iot_alert")
    assert "|Microsoft Defender for IoT Alert|" in encode(made, profile="iot_compat").decode()
    assert "|Microsoft Defender for IoT Alert|" not in encode(made).decode()
    assert encode(alert(1), profile="iot_compat") == encode(alert(1))


@pytest.mark.parametrize("profile", ["dictionary", "iot_compat"])
@pytest.mark.parametrize("kind", ["defender_alert", "iot_alert"])
def test_every_version_is_found_by_its_external_id(profile: str, kind: str) -> None:
    """The UUID of Defender for IoT is that of all versions."""
    said = encode(alert(1, kind=kind), profile=profile).decode()
    assert f"|externalId={identity(1)} " in said
    assert f"External ID = {identity(1)}" in sink(profile=profile).find(identity(1))


@pytest.mark.parametrize("header", ["rfc3164", "rfc5424"])
def test_a_message_keeps_to_its_cap(header: str) -> None:
    made = alert(1, text="long \\|= " * 5000)
    for most in (1000, 2000, 8000):
        assert len(encode(made, max_bytes=most, header=header)) <= most


def test_what_a_record_mentions_can_be_left_out() -> None:
    record = {"Entities": [{"$id": "1", "Address": "203.0.113.7", "Type": "ip"}]}
    made = alert(1, raw=msgspec.json.encode(record))
    assert b" src=203.0.113.7 " in encode(made)
    assert b"203.0.113.7" not in encode(made, entities=False)


@given(alerts())
def test_any_alert_parses_in_every_form(made: Alert) -> None:
    assert message_id(encode(made)) == made.event_id
    for kind in (made.kind, "iot_alert"):
        one = msgspec.structs.replace(made, kind=kind)
        said = encode(one, profile="iot_compat", header="rfc5424")
        assert rfc5424_id(said) == one.event_id


@pytest.mark.parametrize(
    "forged",
    [
        "CEF:0|a|b|c|d|e|8",
        "CEF:0|a|b|c|d|e|11|externalId=" + "0" * 32,
        "CEF:0|a|b|c|d|e|8|externalId=" + "0" * 32 + " act=" + "x" * 64,
        "CEF:0|a|b|c|d|e|8|externalId=" + "0" * 32 + " src=2001:db8::1",
        "CEF:0|a|b|c|d|e|8|externalId=" + "0" * 32 + " msg=a=b",
        "CEF:0|a|b|c|d|e|8|externalId=" + "0" * 32 + " msg=a\nb",
        "CEF:0|a|b|c|d|e|8|externalId=" + "0" * 32 + " cs1=x",
        "CEF:0|a|b|c|d|e|8|externalId=" + "0" * 32 + " evil=x",
        "CEF:0|a|b|c|d|e|8|externalId=" + "0" * 32 + " externalId=" + "1" * 32,
        "CEF:0|" + "a" * 64 + "|b|c|d|e|8|externalId=" + "0" * 32,
    ],
)
def test_the_double_refuses_what_a_connector_would(forged: str) -> None:
    with pytest.raises((ValueError, KeyError)):
        cef_id(forged)
