"""Flat rows, as tables hold them: columns found by name, told under the names that all kinds use.

Sources: the naming of ASIM's fields (learn.microsoft.com, azure/sentinel/
normalization-common-fields), of CommonSecurityLog's and of the advanced hunting tables' columns.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from schemas.entities import Entity, EntityType, Role
from schemas.kinds import _entities
from schemas.kinds._values import NOTHING, opened, snake

__all__ = ["Columns", "account", "facts", "read"]

# Kusto's, of columns that several types share in a result; and Log Analytics' of custom columns.
_TYPED = re.compile(
    r"(?i)(?<=.)_(?:string|dynamic|long|int|real|double|bool|datetime|guid|[sdgbt])\Z"
)
_MOST = 96  # facts that nobody asked for by name
_OURS = {
    "aad_tenant_id": "tenant_id",
    "communication_direction": "direction",
    "device_event_category": "category",
    "dst_bytes": "received_bytes",
    "event_result_details": "reason",
    "failure_reason": "reason",
    "http_referrer": "referrer",
    "http_request_method": "http_method",
    "http_status_code": "http_status",
    "http_user_agent": "user_agent",
    "logon_error": "reason",
    "network_direction": "direction",
    "network_protocol": "protocol",
    "organization_id": "tenant_id",
    "request_client_application": "user_agent",
    "request_context": "referrer",
    "request_method": "http_method",
    "response_status_code": "http_status",
    "result_description": "reason",
    "result_signature": "sub_status",
    "src_bytes": "sent_bytes",
    "tenant_id": "workspace_id",  # as Log Analytics calls it
}


class Columns:
    """A row's columns. Names match case-blind, and without the type that some end in.

    What says nothing (null, blank, `-`, `N/A`) is as if it were not there.
    """

    def __init__(self, row: dict[str, Any]) -> None:
        self._found: dict[str, tuple[str, Any]] = {}
        self._taken: set[str] = set()
        typed: list[tuple[str, tuple[str, Any]]] = []
        for name, value in row.items():
            if value is None or (isinstance(value, str) and value.strip().lower() in NOTHING):
                continue
            self._found.setdefault(name.lower(), (name, value))
            if (stem := _TYPED.sub("", name)) != name:
                typed.append((stem.lower(), (name, value)))
        for stem, column in typed:
            self._found.setdefault(stem, column)

    def text(self, *names: str) -> str:
        """The first of these columns that holds a text, number or truth value; else empty."""
        for name in names:
            if said := _entities.scalar(self._take(name)):
                return said
        return ""

    def says(self, *names: str) -> bool:
        """Whether any of these columns holds anything; it does not count as asking for them."""
        return any(name.lower() in self._found for name in names)

    def omit(self, *names: str) -> None:
        """Counts these as asked for."""
        for name in names:
            self._take(name)

    def value(self, name: str) -> Any:
        """What a column holds; of a text that is JSON, what it says."""
        return opened(self._take(name))

    def rest(self, prefix: str = "") -> dict[str, str]:
        """Plain columns that nobody asked for until now, without the prefix of their names."""
        found: dict[str, str] = {}
        for folded, (name, value) in self._found.items():
            if folded.startswith(prefix.lower()) and name.lower() not in self._taken:
                text = _entities.scalar(value)
                if text and len(found) < _MOST:
                    found[name[len(prefix) :] or name] = text
                self._taken.add(name.lower())
        return found

    def _take(self, name: str) -> Any:
        folded = name.lower()
        if folded not in self._found:
            return None
        written, value = self._found[folded]
        self._taken.update((folded, written.lower()))
        return value


def read(raw: bytes) -> Columns:
    """A record's columns; none where it is nested too deeply to be looked into."""
    try:
        row = msgspec.json.decode(raw)
    except (msgspec.DecodeError, RecursionError):
        row = None
    return Columns(row if isinstance(row, dict) else {})


def facts(columns: Columns) -> dict[str, str]:
    """The rest of the plain columns under the names that the attributes of all kinds have."""
    found: dict[str, str] = {}
    for name, text in columns.rest().items():
        found.setdefault(_OURS.get(snake(name), snake(name)), text)
    return found


def account(
    columns: Columns, prefix: str = "", role: Role = "", type: EntityType = "user"
) -> Entity:
    """An account of the columns `…AccountUpn`, `…AccountName`, …: by its principal name, else by
    its name and domain. What else they say are its attributes. Nameless if they say nothing."""
    said = {
        name: columns.text(f"{prefix}Account{name}")
        for name in ("Upn", "Name", "Domain", "ObjectId", "Sid", "Id", "DisplayName")
    }
    upn, name, display = said["Upn"], said["Name"], said["DisplayName"]
    id = said["ObjectId"] or said["Sid"] or said["Id"]
    if not (upn or name or display or id):
        return Entity(type=type)
    found = _entities.user(
        upn or name or display, "" if upn or not name else said["Domain"], id=id, role=role
    )
    known = {text.lower() for text in (found.name, found.domain, found.id, found.full_name)}
    attributes = {f"Account{key}": v for key, v in said.items() if v and v.lower() not in known}
    if type != "user":
        return Entity(type=type, name=found.full_name, id=id, role=role, attributes=attributes)
    return msgspec.structs.replace(found, attributes=attributes)
