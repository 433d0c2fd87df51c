from __future__ import annotations

from schemas.kinds._mitre import mitre, tactics, techniques


def test_only_tactics_are_tactics() -> None:
    assert tactics(["Initial Access", None, "Malware", "credential_access", "InitialAccess"]) == (
        *("InitialAccess", "CredentialAccess"),
    )


def test_techniques_are_found_by_their_ids() -> None:
    assert techniques('["Brute Force (T1110)", "T1110.001", "T11100"]') == ["T1110", "T1110.001"]


def test_whatever_holds_them() -> None:
    value = {"Persistence": ["T1098"], "steps": [{"tactic": "Impact; Discovery"}, 7, None]}
    assert mitre(value) == (("Persistence", "Impact", "Discovery"), ("T1098",))
    assert mitre(None) == ((), ())
