"""Secrets inside what alerts quote (command lines, URLs, connection strings): masked before they
leave, since a SIEM keeps its events for years and shows them to many.

Masked is the secret alone: `sig=` of a shared access signature, keys and passwords of connection
strings and URLs, JSON web tokens, private keys. What is around it stays, so that an analyst
still sees that, and where, there was one.
"""

from __future__ import annotations

import re

__all__ = ["MASK", "mask"]

MASK = b"[masked]"

# What stands before "=": looked at only where there is one, which a search for one byte tells.
_NAMES = (b"sig", b"Sig", b"key", b"Key", b"KEY", b"ord", b"ORD", b"wd", b"WD", b"ret", b"RET")
_MANY = 256  # more "=" than that are looked for by the patterns at once

# In JSON an ampersand is often \u0026. A value ends where its string does, or at a delimiter.
_BEFORE = rb"(?:(?<![A-Za-z0-9_])|(?<=\\u0026)|(?<=%26)|(?<=%3F)|(?<=\\[nrt]))"
_ASSIGNED = re.compile(
    _BEFORE + rb"(sig(?:%3D|=))(?!REDACTED)[A-Za-z0-9%+/=_-]{16,}"
    rb"|" + _BEFORE + rb"((?:Account|SharedAccess|Access|Primary|Secondary|Api|Storage|Function)_?"
    rb"Key\s?=)[A-Za-z0-9%+/=_-]{16,}"
    # Not the PWD=/root of sudo.
    rb"|" + _BEFORE + rb"((?:[a-z]{0,16}_)?(?:password|passwd|pwd(?!=[/~])|client_?secret)=)"
    rb"(?!\[masked\])(?:\\\"[^\"\\]{1,256}|'[^'\"\\]{1,256}|(?:[^\s\"';&\\,|<>]|\\\\){1,256})",
    re.IGNORECASE,
)
_TOKENS = re.compile(
    rb"(?<![A-Za-z0-9_-])()eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}"
    rb"|(-----BEGIN [A-Z ]{0,24}PRIVATE KEY-----)(?:[^\"\\]|\\[nrt/]){16,}"
)


def mask(raw: bytes) -> tuple[bytes, int]:
    """A record without its secrets, and how many were masked; JSON stays JSON.

    raw: one JSON text, or any other.
    """
    count = 0
    if (b"=" in raw and _assigns(raw)) or (b"%" in raw and b"sig%3D" in raw):
        raw, count = _ASSIGNED.subn(_masked, raw)
    # One byte is looked for much faster than many; these are rare.
    if (b"J" in raw and b"eyJ" in raw) or (b"Y" in raw and b"PRIVATE KEY-" in raw):
        raw, more = _TOKENS.subn(_masked, raw)
        count += more
    return raw, count


def _assigns(raw: bytes) -> bool:
    pieces = raw.split(b"=", _MANY)
    return len(pieces) > _MANY or any(piece.endswith(_NAMES) for piece in pieces[:-1])


def _masked(found: re.Match[bytes]) -> bytes:
    return (found[found.lastindex or 0] or b"") + MASK
