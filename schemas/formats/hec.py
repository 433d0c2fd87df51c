"""Splunk HTTP Event Collector: one event object, as `/services/collector/event` takes it.

Source: Splunk's "Format events for HTTP Event Collector". Shape `body_wrapped` is what the Splunk
Add-on for Microsoft Cloud Services writes for an event hub (sourcetype `mscs:azure:eventhub`), so
that its searches go on working; `raw` is the record alone.

Nothing is dropped and nothing is shortened: the record is spliced in as it came. `time` is the
event time in seconds. `fields` (indexed) hold `event_id`, stable for this version of the alert,
and what is known of its subscription.
"""

from __future__ import annotations

import functools
from typing import Literal

import msgspec

from schemas.alert import Alert
from schemas.formats._base import Format

__all__ = ["FORMATS", "Shape", "hec", "hub_source"]

Shape = Literal["body_wrapped", "raw"]


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
    if shape == "body_wrapped":
        head += b'"event":{"body":'
        position = b',"x-opt-sequence-number":%d,"x-opt-enqueued-time":%d}' % (
            alert.sequence,
            alert.enqueued_ms,
        )
    else:
        head += b'"event":'
        position = b""
    more = b""
    if it := alert.subscription:
        more = _fields(it.id, it.name, it.owner, it.environment, it.management_group, it.known)
    identity = alert.event_id.encode()
    return b'%b%b%b,"fields":{"event_id":"%b"%b}}' % (head, raw, position, identity, more)


@functools.lru_cache(1024)
def hub_source(source: str) -> str:
    """`namespace/hub;`, the add-on's `source`, from an origin's `namespace/hub/consumer_group`."""
    return "/".join(source.split("/")[:2]) + ";" if "://" not in source else source


@functools.lru_cache(1024)
def _head(source: str, index: str, sourcetype: str, host: str) -> bytes:
    named = {"source": source, "sourcetype": sourcetype, "index": index, "host": host}
    said = msgspec.json.encode({name: text for name, text in named.items() if text})
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
    said = msgspec.json.encode({name: text for name, text in named.items() if text})
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
)
