"""Splunk HTTP Event Collector: one event object, as `/services/collector/event` takes it.

Source: Splunk's "Format events for HTTP Event Collector", and what the Splunk Add-on for Microsoft
Cloud Services writes for an event hub (its event hub input, 5.0): shape `raw`, the record alone,
where its event format flags are 0, and `body_wrapped` where they ask for system properties. Its
own field mapping (`mscs:azure:security:alert`) reads `raw`.

Shape `cim` puts before the record, which stays under `body`, the fields of the Alerts data model.
Source: "Alerts", Splunk Common Information Model Add-on Manual. What is empty is left out.

    id, type         what it is about; `alert`, or `event` where the record is none
    signature        title                  signature_id   alert type, else the kind
    severity         critical, high, medium, low, informational, unknown
    severity_id      the source's own word for it
    app              product                description    description
    src, dest        who or what acts, and what it is done to: a name, else an address
    dest_type        the resource's type    user           who acts, else whom it concerns
    vendor_account   subscription           mitre_technique_id   under `fields`, as a list

Nothing is dropped and nothing is shortened: the record is spliced in as it came. `time` is the
event time in seconds. `fields` (indexed) hold `event_id`, stable for this version of the alert,
and what is known of its subscription.

A replayed alert has `alertbeam_replay`, the replay's name: before the record, since Splunk extracts
fields from the first 5,000 bytes, and in the event, since a search for `name=value` finds an
indexed field only where fields.conf names it. In shape `raw`, whose event is the record alone, it
is such a field: `alertbeam_replay::NAME`.
"""

from __future__ import annotations

import functools
import re
from typing import Literal

import msgspec

from schemas.alert import Alert
from schemas.formats._base import Format
from schemas.formats._sides import first, sides
from schemas.kinds import details

__all__ = ["FORMATS", "Shape", "hec", "hub_source"]

Shape = Literal["body_wrapped", "raw", "cim"]

_encode = msgspec.json.Encoder().encode
_TYPE = re.compile(r".*/providers/([^/]+/[^/]+)/[^/]+", re.IGNORECASE | re.DOTALL)


def hec(
    alert: Alert,
    *,
    shape: Shape = "body_wrapped",
    source: str = "",
    index: str = "",
    sourcetype: str = "mscs:azure:eventhub",
    host: str = "",
) -> bytes:
    """The alert as one JSON object. What is empty is left to the token's own defaults.

    Raises ValueError when `alert.raw` is no JSON object.
    """
    raw = alert.raw
    if not (raw.startswith(b"{") and raw.endswith(b"}")):
        raise ValueError("the record is not a JSON object")
    head = _head(source, index, sourcetype, host)
    if alert.event_ms:
        head += b'"time":%d.%03d,' % divmod(alert.event_ms, 1000)
    mark = b'"alertbeam_replay":%b' % _encode(alert.replay) if alert.replay else b""
    if shape == "body_wrapped":
        head += b'"event":{%b,"body":' % mark if mark else b'"event":{"body":'
        position = b',"x-opt-sequence-number":%d,"x-opt-enqueued-time":%d}' % (
            alert.sequence,
            alert.enqueued_ms,
        )
    elif shape == "cim":
        head += b'"event":%b,"body":' % _encode(_alerts_fields(alert))[:-1]
        position = b"}"
    else:
        head += b'"event":'
        position = b""
    more = b""
    if it := alert.subscription:
        more = _fields(it.id, it.name, it.owner, it.environment, it.management_group, it.known)
    if mark and shape == "raw":
        more += b"," + mark
    if shape == "cim" and alert.techniques:
        more += b',"mitre_technique_id":%b' % _encode(alert.techniques)
    identity = alert.event_id.encode()
    return b'%b%b%b,"fields":{"event_id":"%b"%b}}' % (head, raw, position, identity, more)


def _alerts_fields(alert: Alert) -> dict[str, str]:
    known = details(alert)
    source, target = sides(known)
    resource = _TYPE.fullmatch(alert.resource_ids[0]) if alert.resource_ids else None
    fields = {
        "alertbeam_replay": alert.replay,
        "id": alert.entity,
        "type": "alert" if "alert" in alert.kind or "incident" in alert.kind else "event",
        "signature": alert.title,
        "signature_id": alert.alert_type or alert.kind,
        "severity": alert.severity,
        "severity_id": alert.severity_original,
        "app": alert.product or alert.vendor,
        "description": alert.description,
        "src": first(source, "host", "device").full_name or first(source, "ip").name,
        "dest": alert.resource
        or first(target, "host", "device").full_name
        or first(target, "ip").name,
        "dest_type": resource[1] if resource else "",
        "user": first((*source, *target), "user", "mailbox").full_name,
        "vendor_account": alert.subscription_id,
    }
    return {name: text for name, text in fields.items() if text}


@functools.lru_cache(1024)
def hub_source(source: str) -> str:
    """The add-on's `source`, `eventhub://namespace/hub;`, from an origin's
    `namespace/hub/consumer_group`."""
    return f"eventhub://{'/'.join(source.split('/')[:2])};" if "://" not in source else source


@functools.lru_cache(1024)
def _head(source: str, index: str, sourcetype: str, host: str) -> bytes:
    named = {"source": source, "sourcetype": sourcetype, "index": index, "host": host}
    said = _encode({name: text for name, text in named.items() if text})
    return said[:-1] + b"," if len(said) > 2 else b"{"


@functools.lru_cache(4096)
def _fields(
    id: str, name: str, owner: str, environment: str, management_group: str, known: bool
) -> bytes:
    """What is known of a subscription, as the rest of an object."""
    named = {
        "subscription_id": id,
        "subscription_name": name,
        "subscription_owner": owner,
        "subscription_environment": environment,
        "subscription_management_group": management_group,
        "subscription_known": "" if known else "false",
    }
    said = _encode({name: text for name, text in named.items() if text})
    return said[1:-1] and b"," + said[1:-1]


FORMATS = (
    Format(
        "hec",
        hec,
        media_type="application/json",
        standard="Splunk: Format events for HTTP Event Collector",
        drops="nothing: the record is in it as it came",
        shortens="never",
    ),
    Format(
        "hec_cim",
        lambda alert: hec(alert, shape="cim"),
        media_type="application/json",
        standard="Splunk: Format events for HTTP Event Collector; Common Information Model: Alerts",
        drops="nothing: the record is in it as it came, beside the data model's fields",
        shortens="never",
    ),
)
