"""What Graph's alerts and incidents have in common: products, tactics, resources in evidence."""

from __future__ import annotations

import re
from collections.abc import Iterable

import msgspec

from schemas.kinds import _base
from schemas.kinds._base import Fields
from schemas.kinds._entities import scalar

__all__ = ["attributes", "product", "resources", "tactics", "texts"]

# Members of `serviceSource` whose name is not what it says.
_PRODUCTS = {
    "azureadidentityprotection": "Microsoft Entra ID Protection",
    "datalossprevention": "Microsoft Purview Data Loss Prevention",
    "microsoftappgovernance": "Microsoft App Governance",
    "microsoftdefenderforoffice365": "Microsoft Defender for Office 365",
    "microsoft365defender": "Microsoft Defender XDR",
    "unknown": "",
    "unknownfuturevalue": "",
}
_ID = b'"/subscriptions/'
_KEY = re.compile(rb'"resourceid"\s*:\s*\Z')
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"')
_TACTICS = {
    tactic.lower(): tactic
    for tactic in (
        *("PreAttack", "Reconnaissance", "ResourceDevelopment", "InitialAccess", "Execution"),
        *("Persistence", "PrivilegeEscalation", "DefenseEvasion", "CredentialAccess"),
        *("Discovery", "LateralMovement", "Collection", "CommandAndControl", "Exfiltration"),
        *("Impact", "Evasion", "InhibitResponseFunction", "ImpairProcessControl"),
    )
}


def product(source: str | None) -> str:
    """`microsoftDefenderForEndpoint` → "Microsoft Defender for Endpoint"; "" for none."""
    if not source:
        return ""
    known = _PRODUCTS.get(source.lower())
    if known is not None:
        return known
    words = "".join(f" {letter}" if letter.isupper() else letter for letter in source)
    return (words[:1].upper() + words[1:]).replace(" For ", " for ").replace("Io T", "IoT")


def tactics(categories: Iterable[str | None]) -> tuple[str, ...]:
    """Those categories that are tactics; others are kinds of threats: "Malware", "Ransomware"."""
    words = ((word or "").replace(" ", "").lower() for word in categories)
    return _base.unique(_TACTICS.get(word) for word in words)


def resources(evidence: msgspec.Raw) -> tuple[str, ...]:
    """The Azure resources anywhere in evidence, found without decoding it."""
    raw = bytes(evidence)
    folded = raw.lower()
    found: list[str] = []
    at = folded.find(_ID)
    while at >= 0:
        if _KEY.search(folded, max(at - 32, 0), at) and (text := _STRING.match(raw, at)):
            found.append(_base.text(msgspec.Raw(text[0])))
        at = folded.find(_ID, at + 1)
    return _base.unique(found)


def texts(value: msgspec.Raw | None) -> tuple[str, ...]:
    """A list's texts, or the one text that is there instead; none of them twice."""
    found = None if value is None else _base.decoded(value)
    if found is None and value is not None and bytes(value)[:1] == b'"':
        found = _base.text(value)
    return _base.unique(map(scalar, found if isinstance(found, list) else (found,)))


def attributes(fields: Fields, names: dict[str, str]) -> dict[str, str]:
    """The fields that say something, under our names (ours: theirs)."""
    found = {
        ours: ("\n" if ours == "remediation" else ", ").join(texts(fields.get(theirs)))
        for ours, theirs in names.items()
    }
    return {
        name: text
        for name, text in found.items()
        if text and text not in ("unknown", "unknownFutureValue")
    }
