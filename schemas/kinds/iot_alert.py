"""Defender for IoT: an alert of an OT sensor or of an agent on a device.

It comes as a row of the SecurityAlert table, once for each update, or through continuous export.
Sources: "Connect Microsoft Defender for IoT with Microsoft Sentinel" (learn.microsoft.com,
azure/defender-for-iot/organizations/iot-solution), "Access your security data" (…/device-builders/
how-to-security-data-access), Sentinel's solution for Defender for IoT: its rules. No real record
was seen.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime
from typing import Annotated, Literal

import msgspec

from schemas.alert import Alert
from schemas.entities import Details, Entity, Role
from schemas.kinds import _alerts, _base
from schemas.kinds._base import ABSENT, Fields, Kind
from schemas.kinds._entities import merged, scalar

__all__ = ["KIND", "understood"]

NAME = "iot_alert"
_MAC = re.compile(r"(?:[0-9A-Fa-f]{2}[:-]){5}[0-9A-Fa-f]{2}")
_SIDES: tuple[tuple[str, Role], ...] = (("source", "source"), ("destination", "target"))
# Ours: as ExtendedProperties name it (folded), the best first; as a device entity does.
_PROPERTIES: dict[str, tuple[tuple[str, ...], str]] = {
    "sensor": (("sensorid", "sensorname", "sensor"), "Sensor"),
    "zone": (("zone", "zonename", "zonedisplayname"), "Zone"),
    "site": (("site", "sitename", "sitedisplayname"), "Site"),
    "protocol": (("protocol",), "Protocols"),
    "port": (("port",), ""),
    "source_device": (("sourcedevice", "sourcedevicename"), ""),
    "destination_device": (("destinationdevice", "destinationdevicename"), ""),
    "device_id": (("deviceid",), ""),
    "category": (("category",), ""),
    "is_new": (("isnew",), ""),
    "ioc": (("ioc",), ""),
    "information": (("additionalinformation",), ""),
    "management_uri": (("alertmanagementuri",), ""),
}


class Row(_base.Row, kw_only=True, gc=False):
    Type: Literal["SecurityAlert"] | None = None
    item_id: str | None = msgspec.field(name="_ItemId", default=None)
    SystemAlertId: str
    AlertType: str
    ProductName: Annotated[str, msgspec.Meta(pattern=_alerts.IOT)]
    ProviderName: str | None = None
    VendorName: str | None = None
    Status: str | None = None
    TimeGenerated: datetime | None = None
    ProcessingEndTime: str | None = None
    Description: str | None = None
    CompromisedEntity: str | None = None
    Techniques: str | None = None
    ExtendedProperties: msgspec.Raw = ABSENT
    # As a row names it; as continuous export, and older rows, do.
    DisplayName: str | None = None
    AlertName: str | None = None
    AlertDisplayName: str | None = None
    AlertSeverity: str | None = None
    Severity: str | None = None
    StartTime: datetime | None = None
    StartTimeUtc: datetime | None = None
    EndTime: datetime | None = None
    EndTimeUtc: datetime | None = None
    ResourceId: str | None = None
    AzureResourceId: str | None = None
    Tactics: str | None = None
    Intent: str | None = None
    AlertLink: str | None = None
    AlertUri: str | None = None


def tells(fields: Fields) -> bool:
    product = fields.text("ProductName")
    if _alerts.IOT in product:
        return _alerts.is_row(fields) or _alerts.is_exported(fields)
    return _alerts.IOT in fields.text("ProviderName") and _alerts.is_row(fields)


def understood(raw: bytes) -> Alert:
    """For the kinds whose rows take these records too: the alert in a record of this kind."""
    try:
        row = KIND.strict(raw)
    except msgspec.DecodeError:
        row = _base.lenient(Row, Fields(raw))
    return read(row, raw)


def read(row: Row, raw: bytes) -> Alert:
    entity = row.SystemAlertId or _base.body_hash(raw)
    last = row.item_id or _base.body_hash(raw)
    version = f"{row.Status or ''} {row.ProcessingEndTime or ''} {last}"
    word = row.AlertSeverity or row.Severity
    main = row.ResourceId or row.AzureResourceId
    link = row.AlertLink or row.AlertUri
    subscription = _base.subscription_of(main)
    return Alert(
        kind=NAME,
        key=_base.key(NAME, entity, version),
        entity=entity,
        version=version,
        title=row.DisplayName or row.AlertDisplayName or row.AlertName or row.AlertType or "",
        description=row.Description or "",
        severity=_base.severity(word),
        severity_original=word or "",
        status=_base.status(row.Status),
        status_original=row.Status or "",
        event_ms=_base.millis(row.TimeGenerated),
        start_ms=_base.millis(row.StartTime or row.StartTimeUtc),
        end_ms=_base.millis(row.EndTime or row.EndTimeUtc),
        subscription_id=subscription
        or _base.effective_subscription(row.ExtendedProperties)
        or _base.subscription_in(link),
        resource_ids=_base.unique((main,)),
        resource=_base.short_name(row.CompromisedEntity or main),
        tactics=_base.words(row.Tactics or row.Intent),
        techniques=_base.words(row.Techniques),
        vendor=row.VendorName or "Microsoft",
        product=row.ProductName or "Microsoft Defender for IoT",
        alert_type=row.AlertType or "",
        link=link or "",
        raw=raw,
    )


def details(raw: bytes) -> Details:
    fields = Fields(raw)
    found = _alerts.mentioned(fields, otherwise="device")
    properties = _alerts.loose(fields, "ExtendedProperties")
    plain = {}
    if isinstance(properties, dict):
        plain = {_alerts.folded(name): scalar(value) for name, value in properties.items()}
    devices = list(found.of("device"))
    attributes = dict(found.attributes)
    for ours, (names, theirs) in _PROPERTIES.items():
        said = next(filter(None, map(plain.get, names)), "")
        attributes[ours] = said or next(
            (each.attributes[theirs] for each in devices if theirs in each.attributes), ""
        )
    sides: list[Entity] = []
    for side, role in _SIDES:
        address = plain.get(f"{side}deviceaddress", "")
        name = attributes[f"{side}_device"]
        kind = "mac" if _MAC.fullmatch(address) else "ip"
        attributes[f"{side}_{kind}"] = address
        sides += _side(role, name, address, kind, devices)
    return msgspec.structs.replace(
        found,
        entities=merged((*found.entities, *sides)),
        attributes={name: text for name, text in attributes.items() if text},
    )


def _side(
    role: Role, name: str, address: str, kind: str, devices: list[Entity]
) -> Iterator[Entity]:
    """The device at one end of what was seen: a known one, if its address is known."""
    its = {"MacAddress" if kind == "mac" else "IpAddress": address} if address else {}
    if address:
        same = (each for each in devices if its.items() <= each.attributes.items())
        known = next(same, None)
        if known is not None:
            name = known.name
    if (name and name != address) or kind == "mac":
        yield Entity(type="device", name=name or address, role=role, attributes=its)
    if kind == "ip":
        yield from (Entity(type="ip", name=ip, role=role) for ip in _alerts.addresses(address))


KIND = Kind(
    NAME,
    Row,
    tells,
    read,
    details,
    told_by="as `security_alert`, and `ProductName` or `ProviderName` contains `IoT`; or as"
    " `defender_alert`, and `ProductName` does",
)
