"""Who may use what: shared access signatures, checked against the hub's one key."""

from __future__ import annotations

import base64
import hashlib
import hmac
import time
from collections.abc import Mapping
from urllib.parse import unquote_plus

__all__ = ["Denied", "allowed", "check_token"]


class Denied(Exception):
    """A request to $cbs or $management refused: status code and description."""


def check_token(key: str | None, token: object) -> tuple[str, float]:
    """The path that a token grants, and until when (seconds since 1970)."""
    if key is None:
        return "", float("inf")
    scheme, _, rest = str(token).partition(" ")
    parts = dict(part.partition("=")[::2] for part in rest.split("&"))
    if scheme != "SharedAccessSignature" or not {"sr", "sig", "se"} <= parts.keys():
        raise Denied(401, "MalformedToken: The token is not a shared access signature.")
    # Signed is the text as the token gives it: clients quote in upper or lower case.
    signed = f"{parts['sr']}\n{parts['se']}".encode()
    digest = hmac.new(key.encode(), signed, hashlib.sha256).digest()
    given = unquote_plus(parts["sig"]).encode()
    if not hmac.compare_digest(base64.b64encode(digest), given):
        raise Denied(401, "InvalidSignature: The token has an invalid signature.")
    until = float(parts["se"])
    if until <= time.time():
        when = time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(until))
        raise Denied(401, f"ExpiredToken: The token is expired. Expiration time: '{when}'")
    resource = unquote_plus(parts["sr"]).lower()
    return resource.partition("://")[2].partition("/")[2].strip("/"), until


def allowed(path: str, granted: Mapping[str, float]) -> bool:
    """Whether one of the granted paths, each with the time it ends, is `path` or above it."""
    path, now = path.lower() + "/", time.time()
    current = [p for p, until in granted.items() if now < until]
    return any(not p or path.startswith(p + "/") for p in current)  # "" is the namespace
