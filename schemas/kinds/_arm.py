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
from schemas.kinds._base import ABSENT, Fields, Kind
from schemas.kinds._entities import host, scalar
from schemas.kinds._strings import loads_loosely

__all__ = [
    "PRODUCT",
    "Assessed",
    "Enrichment",
    "attributes",
    "empty",
    "inner",
    "items",
    "link",
    "mitre",
    "opened",
    "pairs",
    "parsed",
    "properties",
    "scope",
    "state",
    "thing",
    "value_of",
    "version",
]

PRODUCT = "Microsoft Defender for Cloud"

S = TypeVar("S", bound=msgspec.Struct)
R = TypeVar("R", bound=_base.Row)


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
_TACTICS = {
    name.lower(): name
    for name in (
        *("Reconnaissance", "ResourceDevelopment", "InitialAccess", "Execution", "Persistence"),
        *("PrivilegeEscalation", "DefenseEvasion", "CredentialAccess", "Discovery"),
        *("LateralMovement", "Collection", "CommandAndControl", "Exfiltration", "Impact"),
    )
}
_TECHNIQUE = re.compile(r"\bT\d{4}(?:\.\d{3})?\b")
_NO_WORD = re.compile(r"[^a-z]+")


def empty(wanted: type[S]) -> S:
    """A struct of nothing."""
    return _base.lenient(wanted, Fields(b"{}"))


def parsed(kind: Kind[R], raw: bytes) -> R:
    """The row of a record that was understood before. Never raises."""
    try:
        return kind.strict(raw)
    except (ValueError, RecursionError):  # msgspec's errors are ValueErrors
        pass
    try:
        return _base.lenient(kind.row, Fields(raw))
    except (ValueError, RecursionError):
        return empty(kind.row)


def opened(value: S | str | None, wanted: type[S]) -> tuple[S, tuple[str, ...]]:
    """A record's `properties`; and, where they stood in a string, the name of that repair."""
    if isinstance(value, wanted):
        return value, ()
    fields, repair = _in_text(value if isinstance(value, str) else "")
    return _base.lenient(wanted, fields), (repair,) if repair else ()


def properties(raw: bytes) -> Fields:
    """The same, without a struct for them. Never raises."""
    try:
        value = Fields(raw).get("properties") or ABSENT
        return _in_text(_base.text(value))[0] if bytes(value)[:1] == b'"' else Fields(value)
    except (ValueError, RecursionError):
        return Fields(b"{}")


def _in_text(text: str) -> tuple[Fields, str]:
    found, repair = loads_loosely(text)
    try:
        return Fields(msgspec.json.encode(found)), repair
    except (ValueError, RecursionError):  # no object, for example
        return Fields(b"{}"), ""


def inner(raw: msgspec.Raw, wanted: type[S]) -> S:
    """An object that a record holds, its keys matched case-blind. Never raises."""
    try:
        return _base.lenient(wanted, Fields(raw))
    except (ValueError, RecursionError):
        return empty(wanted)


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
    name = assessed.resourceName or assessed.machineName or _base.short_name(azure_id)
    kind = "/".join(filter(None, (assessed.resourceProvider, assessed.resourceType)))
    kind = kind or azure_id.rpartition("/")[0]
    is_machine = assessed.machineName or kind.lower().endswith("machines")
    known: dict[str, Any] = {
        "id": assessed.vmuuid or azure_id or native,
        "attributes": attributes(
            native_id="" if native.lower() == azure_id.lower() else native,
            connector_id=assessed.connectorId,
            server=assessed.serverName,
            database=assessed.databaseName,
        ),
    }
    return host(name, **known) if is_machine else Entity(type="resource", name=name, **known)


def attributes(**said: Any) -> dict[str, str]:
    """What is said, as text; the items of a list with commas."""
    found = {}
    for name, value in said.items():
        if isinstance(value, msgspec.Raw):
            value = value_of(value)
        found[name] = ", ".join(filter(None, map(scalar, items(value)))) or scalar(value)
    return {name: text for name, text in found.items() if text}


def value_of(raw: msgspec.Raw) -> Any:
    """A value; of a string that holds JSON, what it holds. None where there is nothing."""
    if not raw:
        return None
    found = _base.decoded(raw)
    return _base.text(raw) if found is None else found


def items(value: Any) -> list[Any]:
    """What is in a list, also in one that stands in a string of JSON."""
    if isinstance(value, str) and value[:1] == "[":
        value, _ = loads_loosely(value)
    return list(value) if isinstance(value, list | tuple) else []


def mitre(value: Any) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The tactics (in one word: `InitialAccess`) and the techniques' ids that a value names.

    value: texts in whatever holds them, keys too.
    """
    tactics: list[str | None] = []
    techniques: list[str] = []
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            waiting += [each for pair in reversed(item.items()) for each in reversed(pair)]
        elif isinstance(item, list):
            waiting += reversed(item)
        elif isinstance(item, str):
            techniques += _TECHNIQUE.findall(item)
            for part in re.split(r"[,;|]", item):
                tactics.append(_TACTICS.get(_NO_WORD.sub("", part.lower())))
    return _base.unique(tactics), _base.unique(techniques)
