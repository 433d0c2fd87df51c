"""What formats that are made of objects or columns share: what a record is, its times, its main
entities."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Literal

from schemas.alert import Alert
from schemas.entities import Details, Entity, EntityType, Role
from schemas.formats._ocsf_classes import Event
from schemas.formats._ocsf_findings import (
    alerted,
    at_risk,
    compliance,
    detection,
    incident,
    secured,
    serious,
)
from schemas.formats.ocsf import CLASSES

__all__ = ["Nature", "digests", "nature", "preferred", "rfc3339", "username"]

Nature = Literal["alert", "incident", "state", "event"]
"""`state`: the posture of a resource, as it is now. `event`: a log's line, a row of telemetry."""

_EPOCH = datetime(1970, 1, 1)
_HEX = re.compile(r"[0-9A-Fa-f]+")
_DIGESTS = {32: "md5", 40: "sha1", 64: "sha256", 128: "sha512"}
_NATURES: dict[Callable[[Alert, Details], Event | None], Nature] = {
    detection: "alert",
    incident: "incident",
    compliance: "state",
}
_ALWAYS: dict[str, Nature] = {
    kind: _NATURES[maker]
    for kind, makers in CLASSES.items()
    for maker in makers
    if maker in _NATURES
} | {"attack_path": "state"}
_SOMETIMES = (alerted, at_risk, secured, serious)


def nature(alert: Alert, found: Details) -> Nature:
    """What a record is, by the OCSF classes of its kind: Detection Finding is an alert, but for an
    attack path, which is posture as Compliance and Vulnerability Finding are."""
    if known := _ALWAYS.get(alert.kind):
        return known
    makers = CLASSES.get(alert.kind)
    if makers is None:
        return "alert" if alert.title and alert.severity != "unknown" else "event"
    finding = any(maker in _SOMETIMES and maker(alert, found) for maker in makers)
    return "alert" if finding else "event"


def rfc3339(millis: int) -> str:
    """`2026-03-04T10:13:14.987Z`; empty for 0."""
    if not millis:
        return ""
    return (_EPOCH + timedelta(milliseconds=millis)).isoformat(timespec="milliseconds") + "Z"


def preferred(found: Details, types: tuple[EntityType, ...], *roles: Role) -> Entity | None:
    """The first thing of these types in the first of these roles that there is."""
    listed = [it for it in found.entities if it.type in types]
    return next((it for role in roles for it in listed if it.role == role), None)


def digests(entity: Entity) -> dict[str, str]:
    """An entity's hashes by algorithm: `md5`, `sha1`, `sha256`, `sha512`."""
    return {
        name: it for it in entity.hashes if (name := _DIGESTS.get(len(it))) and _HEX.fullmatch(it)
    }


def username(entity: Entity) -> str:
    """The name by which an account is found; its id where it has none."""
    return entity.full_name or entity.id
