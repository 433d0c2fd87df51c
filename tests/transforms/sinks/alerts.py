"""Alerts to send, tame and hostile."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from schemas.alert import Alert
from schemas.batch import Origin
from transforms.delivery.parcel import Parcel
from transforms.sinks.base import Sink

SOURCE, PARTITION = "contoso.servicebus.windows.net/defender/$Default", "0"

HOSTILE = (
    "line\nbreak\r\n<13>1 2026-01-01T00:00:00Z evil evil - - - forged\n"
    "CEF:0|Evil|Forged|1|1|forged|10|externalId=00000000000000000000000000000000 "
    'pipe | equals = backslash \\ quote " bracket ] brace }\n{"event":"forged"} '
    "12 <13>forged \x1b[31mred\x07 \x00nul \u2028separator\u2029 \x85next \u202eoverride "
    "<script>alert(1)</script> ünïcödé 警报 🚨"
)


def alert(number: int = 0, *, text: str = "Suspicious sign-in", **fields: Any) -> Alert:
    """Alert `number`: its id is `identity(number)`."""
    key = hashlib.blake2b(b"%d" % number, digest_size=16).digest()
    raw = {"SystemAlertId": key.hex(), "AlertDisplayName": text, "Description": text}
    return Alert(
        **{
            "kind": "defender_alert",
            "key": key,
            "entity": f"entity-{number}",
            "title": text,
            "description": text,
            "severity": "high",
            "status": "new",
            "event_ms": 1_790_000_000_000 + number,
            "subscription_id": "11111111-2222-3333-4444-555555555555",
            "resource": "vm-1",
            "product": "Microsoft Defender for Cloud",
            "alert_type": "VM_SuspectSignIn",
            "raw": json.dumps(raw, ensure_ascii=False).encode("utf-8", "surrogatepass"),
            "sequence": number,
            "enqueued_ms": 1_790_000_000_500 + number,
            **fields,
        }
    )


def identity(number: int) -> str:
    return alert(number).event_id


def parcel(sink: Sink[Any], alert: Alert, number: int | None = None) -> Parcel:
    """An alert as it is handed to the sink's engine."""
    sequence = alert.sequence if number is None else number
    payload = sink.encode(alert, SOURCE, PARTITION)
    return Parcel(sequence, 0, payload, alert, origin=Origin(SOURCE, PARTITION))


def parcels(sink: Sink[Any], numbers: range, text: str = "Suspicious sign-in") -> list[Parcel]:
    """Alerts of these numbers, as they are handed to the sink's engine."""
    return [parcel(sink, alert(number, text=text)) for number in numbers]
