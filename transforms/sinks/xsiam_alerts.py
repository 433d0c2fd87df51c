"""Palo Alto Networks Cortex XSIAM and XDR: alerts, through the API that takes those of others.

Contract: "Insert Parsed Alerts" (docs-cortex.paloaltonetworks.com, Cortex XDR REST API): 60 alerts
a request, 600 a minute; the answer is about the request as a whole. Whether the tenant is there and
takes the key is asked of "System Health Check". No alert can be changed once it is there: a status
update is an alert of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from pydantic import Field, field_validator

from schemas.alert import Alert
from schemas.formats._sides import address
from schemas.formats.xsiam_alert import xsiam_alert
from transforms.delivery.cortex import Cortex, CortexSettings, decoded
from transforms.delivery.http import judge
from transforms.sinks.base import Connection, Limits, Rate, Sink, Stop, Verdict

__all__ = ["XsiamAlerts", "XsiamAlertsSettings"]

_PATH = "/public_api/v1/alerts/insert_parsed_alerts"
_HEALTH = "/public_api/v1/healthcheck"
_BEFORE, _AFTER = b'{"request_data":{"alerts":[', b"]}}"
_MOST, _MOST_ALERTS = 2_000_000, 60  # bytes: not documented; alerts: documented
_A_SECOND = 10  # alerts: 600 a minute
_ADVICE = {
    402: "the tenant's license does not have this API",
    403: "the key's role needs the permission External Alerts Mapping (External Issues Mapping)",
    404: "this is not the address of the API: https://api-…",
}


class XsiamAlertsSettings(CortexSettings):
    """Palo Alto Networks Cortex XSIAM or XDR, as alerts, through Insert Parsed Alerts."""

    unknown_address: str = Field(
        "",
        description="What is said for an address that an alert does not name. The API wants the "
        "fields and does not say what stands in them then; for a tenant that shows no alerts "
        "without addresses: 0.0.0.0.",
    )

    @field_validator("unknown_address")
    @classmethod
    def _check_address(cls, text: str) -> str:
        if text and address(text) != (4, text):
            raise ValueError("this is no IPv4 address")
        return text


class XsiamAlerts(Sink[XsiamAlertsSettings]):
    """One tenant."""

    kind = "xsiam_alerts"
    Settings = XsiamAlertsSettings
    example: ClassVar = {
        "url": "https://api-contoso.xdr.eu.paloaltonetworks.com",
        "key": "env:XSIAM_API_KEY",
        "key_id": "7",
    }

    @property
    def limits(self) -> Limits:
        return Limits(
            _MOST - len(_BEFORE) - len(_AFTER),
            _MOST_ALERTS,
            rate=Rate.model_validate({"records": _A_SECOND}),
        )

    def encode(self, alert: Alert, source: str, partition: str) -> bytes:
        return xsiam_alert(alert, unknown=self.settings.unknown_address)

    def shrink(self, alert: Alert, source: str, partition: str, most: int) -> bytes | None:
        if len(self.encode(alert, source, partition)) <= most:
            return None  # it is short already
        room = most
        while room > 0:
            said = xsiam_alert(alert, unknown=self.settings.unknown_address, most=room)
            if len(said) <= most:
                return said
            room = room * 3 // 4
        return None

    def connect(self) -> Connection:
        return _Tenant(self.settings)

    def probe(self, timeout: float) -> None:
        tenant = _Tenant(self.settings)
        try:
            tenant.check_health(timeout)
        finally:
            tenant.close()

    def check(self, timeout: float) -> str:
        self.probe(timeout)
        return (
            "the tenant is well, and takes the key; whether the key's role may insert alerts it "
            f"tells only of one: alertbeam sinks test {self.name}"
        )

    def find(self, event_id: str) -> str:
        return f'in the table of alerts: Description contains "{event_id}"'


class _Tenant(Connection):
    def __init__(self, settings: XsiamAlertsSettings) -> None:
        advanced = settings.key_type == "advanced"
        self._cortex = Cortex(
            settings.url, settings, settings.key, settings.key_id, advanced=advanced
        )

    def send(self, payloads: Sequence[bytes], timeout: float) -> Verdict:
        body = _BEFORE + b",".join(payloads) + _AFTER
        response = self._cortex.ask("POST", _PATH, body, timeout)
        said = self._cortex.say(response, _ADVICE.get(response.status, ""))
        if 200 <= response.status < 300 and not _is_taken(decoded(response)):
            return Stop(f"{said}: it does not say that it took the alerts")
        return judge(response, said)

    def check_health(self, timeout: float) -> None:
        """Raises OSError unless the tenant answers, and takes the key; what its role may not ask
        does not matter."""
        response = self._cortex.ask("GET", _HEALTH, b"", timeout)
        answer = decoded(response)
        known = response.status in (200, 403) and isinstance(answer, Mapping)
        if not known:
            raise ConnectionError(self._cortex.say(response, _ADVICE.get(response.status, "")))

    def close(self) -> None:
        self._cortex.close()


def _is_taken(answer: Any) -> bool:
    """`{"reply": true}`, as it is, or `true`, as an edition of the documentation has it."""
    if answer is True:
        return True
    reply = answer.get("reply") if isinstance(answer, Mapping) else None
    return bool(reply) and not (isinstance(reply, Mapping) and "err_code" in reply)
