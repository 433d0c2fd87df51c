"""What Graph's alerts and incidents have in common: products, resources in evidence, comments.

Source: "alert resource type", values of `serviceSource` (learn.microsoft.com,
graph/api/resources/security-alert).
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

from schemas.kinds import _base, _values
from schemas.kinds._entities import scalar
from schemas.kinds._values import Folded, listed

__all__ = ["attributes", "product", "resources"]

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
_UNKNOWN = ("unknown", "unknownFutureValue")


def product(source: str | None) -> str:
    """`microsoftDefenderForEndpoint` → "Microsoft Defender for Endpoint"; "" for none."""
    if not source:
        return ""
    known = _PRODUCTS.get(source.lower())
    if known is not None:
        return known
    words = "".join(f" {letter}" if letter.isupper() else letter for letter in source)
    return (words[:1].upper() + words[1:]).replace(" For ", " for ").replace("Io T", "IoT")


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


def attributes(fields: Folded, names: Mapping[str, str]) -> dict[str, str]:
    """The fields that say something under our names, each step of a remediation on its own line,
    and the number of comments."""
    found = _values.attributes(fields, names)
    steps = map(scalar, listed(fields.get("recommendedactions")))
    found |= _values.plain(remediation="\n".join(steps))
    if "comments" in fields:
        found["comments"] = str(len(listed(fields["comments"])))
    return {name: text for name, text in found.items() if text not in _UNKNOWN}
