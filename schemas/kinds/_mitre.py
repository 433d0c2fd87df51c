"""Tactics and techniques of MITRE ATT&CK among the words of a record.

Source: attack.mitre.org: tactics of Enterprise and of ICS; `PreAttack` is Microsoft's own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from schemas.kinds import _base

__all__ = ["mitre", "tactics", "techniques"]

_TACTICS = {
    tactic.lower(): tactic
    for tactic in (
        *("PreAttack", "Reconnaissance", "ResourceDevelopment", "InitialAccess", "Execution"),
        *("Persistence", "PrivilegeEscalation", "DefenseEvasion", "CredentialAccess"),
        *("Discovery", "LateralMovement", "Collection", "CommandAndControl", "Exfiltration"),
        *("Impact", "Evasion", "InhibitResponseFunction", "ImpairProcessControl"),
    )
}
_TECHNIQUE = re.compile(r"\bT\d{4}(?:\.\d{3})?\b")
_NO_LETTER = re.compile(r"[^a-z]+")


def tactics(words: Iterable[str | None]) -> tuple[str, ...]:
    """The tactics among them, in one word (`InitialAccess`). Other categories are kinds of
    threats: "Malware", "Ransomware"."""
    folded = (_NO_LETTER.sub("", word.lower()) for word in words if word)
    return _base.unique(map(_TACTICS.get, folded))


def techniques(text: str) -> list[str]:
    """The ids of techniques in a text: `T1110`, `T1110.001`."""
    return _TECHNIQUE.findall(text)


def mitre(value: Any) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The tactics and the techniques' ids that a value names.

    value: texts in whatever holds them, keys too.
    """
    words: list[str] = []
    ids: list[str] = []
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            waiting += [each for pair in reversed(item.items()) for each in reversed(pair)]
        elif isinstance(item, list):
            waiting += reversed(item)
        elif isinstance(item, str):
            ids += techniques(item)
            words += re.split(r"[,;|]", item)
    return tactics(words), _base.unique(ids)
