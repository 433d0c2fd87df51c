"""An event as every sink sees it, whatever kind it came as."""

from __future__ import annotations

import functools

import msgspec

__all__ = ["SEVERITIES", "STATUSES", "Alert", "Subscription"]

SEVERITIES = ("unknown", "informational", "low", "medium", "high", "critical")
"""The one severity scale, least first; the original word is kept in `severity_original`."""

STATUSES = ("unknown", "new", "in_progress", "resolved", "dismissed")
"""The one status scale; the original word is kept in `status_original`."""


class Subscription(msgspec.Struct, frozen=True, gc=False):
    """What the subscriptions file says of an Azure subscription; `known` is False if nothing."""

    id: str
    name: str = ""
    owner: str = ""
    environment: str = ""
    management_group: str = ""
    tags: dict[str, str] = {}
    known: bool = True

    @staticmethod
    @functools.lru_cache(4096)
    def bare(name: str) -> Subscription:
        """One that nothing is known of: the same each time, as most alerts may have one."""
        return Subscription(name, known=False)


class Alert(msgspec.Struct, omit_defaults=True, gc=False):
    """One record, understood.

    Times are milliseconds since the epoch, UTC; 0 where the event has none (`event_ms` then is
    the enqueued time). `raw` is the record's own JSON object, byte for byte as it arrived; where
    it had to be repaired, or holds a secret that was masked, `original` is what arrived.
    """

    kind: str  # the kind's file name: "defender_alert", "security_incident", "unknown", …
    key: bytes  # 16 bytes; equal for exact repeats, different for a status update
    entity: str  # what it is about through all its updates: "SystemAlertId", incident name, …
    version: str = ""  # which of the entity's updates this is
    title: str = ""
    description: str = ""
    severity: str = "unknown"
    severity_original: str = ""
    status: str = "unknown"
    status_original: str = ""
    event_ms: int = 0
    start_ms: int = 0
    end_ms: int = 0
    subscription_id: str = ""  # lower case
    resource_ids: tuple[str, ...] = ()
    resource: str = ""  # the compromised entity's or resource's short name
    tactics: tuple[str, ...] = ()
    techniques: tuple[str, ...] = ()
    vendor: str = "Microsoft"
    product: str = ""
    alert_type: str = ""
    link: str = ""
    raw: bytes = b""
    original: bytes = b""  # empty where it equals `raw`
    repairs: tuple[str, ...] = ()  # by name: `schemas.wrappers`
    masked: int = 0  # how many secrets were masked in `raw`
    sequence: int = 0
    index: int = 0
    enqueued_ms: int = 0
    subscription: Subscription | None = None  # set by Enrich
    counted: bool = False  # digests have counted it, or a copy: it comes again after a crash
    replay: str = ""  # the name of the replay that it comes from; empty: it came live

    @property
    def event_id(self) -> str:
        """A stable id for this exact version (32 hex digits): sinks de-duplicate by it."""
        return self.key.hex()
