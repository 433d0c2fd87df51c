"""What the records of Azure Monitor have in common: activity, resource and Entra logs.

Sources: "Azure activity log event schema" and "Common and service-specific schemas for Azure
resource logs" (learn.microsoft.com, azure/azure-monitor/platform).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal

from schemas.entities import Entity
from schemas.kinds import _base, _entities
from schemas.kinds._things import address
from schemas.kinds._values import Folded, attributes, first, texts

__all__ = ["level", "outcome", "principals"]

_LEVELS = {
    "0": "informational",
    "1": "critical",
    "2": "medium",
    "3": "low",
    "4": "informational",
    "5": "informational",
    "critical": "critical",
    "error": "medium",
    "warning": "low",
    "verbose": "informational",
}
_SUCCESS = frozenset(
    [
        *("0", "success", "succeeded", "successful", "ok", "created", "true", "allow", "allowed"),
        *("partiallysucceeded", "completed"),
    ]
)
_FAILURE = frozenset(
    [
        *("failure", "failed", "fail", "error", "false", "timeout", "denied", "deny", "block"),
        "blocked",
    ]
)


def level(said: str | None) -> str:
    """A level's word, or number as Windows counts them, on the scale of severities.

    It tells how an operation went, not what it means for security: an error is medium.
    """
    return _LEVELS.get(said.lower()) or _base.severity(said) if said else "unknown"


def outcome(*said: str) -> Literal["", "success", "failure"]:
    """How it went, by the first word or HTTP status that says so."""
    for text in said:
        folded = text.lower()
        if folded in _SUCCESS or (len(folded) == 3 and folded.isdigit() and folded < "400"):
            return "success"
        if folded in _FAILURE or (len(folded) == 3 and folded.isdigit()):
            return "failure"
    return ""


_CLAIMS = "http://schemas.xmlsoap.org/ws/2005/05/identity/claims/"
_NAMES = (f"{_CLAIMS}upn", "upn", "unique_name", f"{_CLAIMS}emailaddress", f"{_CLAIMS}name")
_OBJECT_IDS = ("http://schemas.microsoft.com/identity/claims/objectidentifier", "oid", "objectid")
_GUID = re.compile(r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}")


def principals(claims: Folded, caller: str = "", principal_type: str = "") -> Iterator[Entity]:
    """Who acted, by the claims of the token and by what the record itself calls the caller: a
    principal name, the object id of a user or a service principal, a resource provider."""
    name = first(claims, *_NAMES) or (caller if "@" in caller else "")
    object_id, app = first(claims, *_OBJECT_IDS), first(claims, "appid")
    is_app = principal_type.lower() == "serviceprincipal" or first(claims, "idtyp") == "app"
    if is_app and not name:
        known = {"appId": app} if app else {}
        id = object_id or caller or app
        yield Entity(type="application", id=id, role="actor", attributes=known)
    else:
        yield Entity(type="application", id=app)  # what the user used
        known = attributes(claims, {"name": "displayName"})
        yield _entities.user(name, id=object_id, role="actor", attributes=known)
        if caller.lower() not in (name.lower(), object_id.lower()):
            known_as = "id" if _GUID.fullmatch(caller) else "name"
            yield _entities.user(**{"name": "", known_as: caller}, role="actor")
    for text in texts(claims, "ipaddr"):
        yield from address(text, "source")
