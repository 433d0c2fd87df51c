"""What records in the form of an Azure resource share: `id`, `name`, `type`, `properties`; and
what Defender for Cloud's posture records do: their envelope, states, resources, MITRE.

Source: real continuous exports; REST reference of Microsoft.Security (Assessments 2025-05-04,
SubAssessments 2019-01-01-preview).
"""

from __future__ import annotations

import re
from typing import Any, TypeVar

import msgspec

from schemas.entities import Entity
from schemas.kinds import _base
from schemas.kinds._base import ABSENT, Fields
from schemas.kinds._entities import host
from schemas.kinds._values import leniently, object_in, plain, unquoted

__all__ = [
    "PRODUCT",
    "Assessed",
    "Enrichment",
    "empty",
    "link",
    "pairs",
    "properties",
    "property_fields",
    "scope",
    "state",
    "thing",
    "version",
]

PRODUCT = "Microsoft Defender for Cloud"

S = TypeVar("S", bound=msgspec.Struct)


class Enrichment(msgspec.Struct, gc=False):
    """action: Insert, Write or Delete. isSnapshot: of the weekly snapshot, not a change."""

    action: str | None
    isSnapshot: bool | None = None


class Assessed(msgspec.Struct, gc=False):
    """The resource that was assessed. source: Azure, AWS, GCP, OnPremise, OnPremiseSql."""

    source: str | None
    id: str | None = None
    azureResourceId: str | None = None  # so for AWS and GCP by older connectors
    resourceName: str | None = None
    resourceType: str | None = None
    resourceProvider: str | None = None
    nativeResourceId: str | None = None  # an ARN, for example
    awsResourceId: str | None = None
    gcpResourceId: str | None = None
    connectorId: str | None = None
    # A machine outside.
    machineName: str | None = None
    vmuuid: str | None = None
    serverName: str | None = None
    databaseName: str | None = None

    @property
    def azure_id(self) -> str:
        """Its ARM resource id, without the finding's own; empty if there is none."""
        return next(filter(None, map(scope, (self.id, self.azureResourceId))), "")

    @property
    def name(self) -> str:
        return self.resourceName or self.machineName or ""

    @property
    def cloud(self) -> str:
        source = self.source or ""
        return _CLOUDS.get(source.lower(), source)


_CLOUDS = {"azure": "Azure", "aws": "AWS", "gcp": "GCP"}
_STATES = {
    "unhealthy": "new",
    "failed": "new",
    "healthy": "resolved",
    "passed": "resolved",
    "notapplicable": "dismissed",
    "offbypolicy": "dismissed",
    "skipped": "dismissed",
    "unsupported": "dismissed",
}
_OWN = re.compile(
    r"/providers/Microsoft\.Security/"
    r"(?:assessments|secureScores|regulatoryComplianceStandards|attackPaths)(?=/|$)",
    re.IGNORECASE,
)


def empty(wanted: type[S]) -> S:
    """A struct of nothing."""
    return leniently(wanted, b"{}")


def properties(value: S | str | None, wanted: type[S]) -> tuple[S, tuple[str, ...]]:
    """A record's `properties`; and, where they stood in a string, the name of that repair."""
    if isinstance(value, wanted):
        return value, ()
    raw, repair = unquoted(value) if isinstance(value, str) else (b"", "")
    return leniently(wanted, raw), (repair,) if repair else ()


def property_fields(raw: bytes) -> Fields:
    """The same, without a struct for them. Never raises."""
    try:
        return Fields(object_in(Fields(raw).get("properties") or ABSENT)[0])
    except (ValueError, RecursionError):  # msgspec's errors are ValueErrors
        return Fields(b"{}")


def version(enrichment: Enrichment | None, *parts: str | None) -> str:
    """Which of an entity's updates: what happened to it, and what it says since."""
    action, snapshot = (enrichment.action, enrichment.isSnapshot) if enrichment else ("", False)
    return " ".join(filter(None, (action, "snapshot" if snapshot else "", *parts)))


def pairs(numbers: dict[str, str]) -> list[str]:
    """Numbers as parts of a version."""
    return [f"{name}={number}" for name, number in numbers.items()]


def state(word: str | None, enrichment: Enrichment | None) -> str:
    """A code or state on the scale of `schemas.alert.STATUSES`. What was deleted is resolved: the
    resource, the recommendation or the finding is no more."""
    if enrichment and enrichment.action and enrichment.action.lower() == "delete":
        return "resolved"
    return _STATES.get(word.lower(), "unknown") if word else "unknown"


def scope(resource_id: str | None) -> str:
    """What a posture record is about: the ARM id up to the record's own part; else empty."""
    return _OWN.split(resource_id, 1)[0] if resource_id and resource_id[0] == "/" else ""


def link(url: str | None) -> str:
    """Assessments write theirs without `https://`."""
    return f"https://{url}" if url and url.lower().startswith("portal.azure") else url or ""


def thing(assessed: Assessed, azure_id: str) -> Entity:
    """The assessed resource: a host, where it is a machine."""
    native = assessed.nativeResourceId or assessed.awsResourceId or assessed.gcpResourceId or ""
    name = assessed.name or _base.short_name(azure_id)
    kind = "/".join(filter(None, (assessed.resourceProvider, assessed.resourceType)))
    kind = kind or azure_id.rpartition("/")[0]
    is_machine = assessed.machineName or kind.lower().endswith("machines")
    known: dict[str, Any] = {
        "id": assessed.vmuuid or azure_id or native,
        "attributes": plain(
            native_id="" if native.lower() == azure_id.lower() else native,
            connector_id=assessed.connectorId,
            server=assessed.serverName,
            database=assessed.databaseName,
        ),
    }
    return host(name, **known) if is_machine else Entity(type="resource", name=name, **known)
