"""Tactics of MITRE ATT&CK, as Microsoft writes them.

Source: attack.mitre.org, version 17: enterprise tactics, and those of ICS that it lacks.
"""

from __future__ import annotations

import functools

__all__ = ["tactic"]

_TACTICS = {
    name.replace(" ", "").lower(): (f"TA{number:04}", name)
    for number, name in (
        (1, "Initial Access"),
        (2, "Execution"),
        (3, "Persistence"),
        (4, "Privilege Escalation"),
        (5, "Defense Evasion"),
        (6, "Credential Access"),
        (7, "Discovery"),
        (8, "Lateral Movement"),
        (9, "Collection"),
        (10, "Exfiltration"),
        (11, "Command and Control"),
        (40, "Impact"),
        (42, "Resource Development"),
        (43, "Reconnaissance"),
        (106, "Impair Process Control"),
        (107, "Inhibit Response Function"),
    )
}


@functools.lru_cache(1024)
def tactic(word: str) -> tuple[str, str]:
    """`CredentialAccess` as id and name: `("TA0006", "Credential Access")`; no id and the word
    itself where ATT&CK has no such tactic (`PreAttack`, `Probing`)."""
    folded = "".join(filter(str.isalnum, word)).lower()
    return _TACTICS.get(folded, ("", word))
