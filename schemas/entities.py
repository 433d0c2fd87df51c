"""What an event mentions beyond its own main fields: machines, people, addresses, files, …

Read from the record's JSON on demand (`schemas.kinds.details`), since most records are forwarded
without anybody asking.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal

import msgspec

__all__ = ["Details", "Entity", "EntityType", "Role"]

EntityType = Literal[
    "host",
    "user",
    "group",
    "ip",
    "domain",
    "url",
    "file",
    "process",
    "registry",
    "mailbox",
    "message",
    "application",
    "resource",
    "malware",
    "device",
    "other",
]
"""`device` is a thing of OT or IoT; `application` a cloud or registered one; `resource` Azure's,
or another cloud's; `message` an e-mail."""

Role = Literal["", "actor", "source", "target"]
"""Its part, where the event says so: who acts, where it comes from, what it is done to."""


class Entity(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One thing. What does not apply, or is not said, is empty.

    name: what people call it: host or account name, address, URL, file name, image name.
    id: what its directory calls it: object id, SID, device id, ARM resource id, message id.
    domain: a DNS or NT domain, or the suffix of a principal name.
    path: the folder of a file or image; a registry key.
    hashes: hexadecimal; the length tells the algorithm (32 MD5, 40 SHA-1, 64 SHA-256).
    attributes: what else its kind says of it, under the kind's own names.
    """

    type: EntityType
    name: str = ""
    id: str = ""
    domain: str = ""
    role: Role = ""
    path: str = ""
    command_line: str = ""
    pid: str = ""
    parent_pid: str = ""
    port: str = ""
    hashes: tuple[str, ...] = ()
    attributes: dict[str, str] = {}

    @property
    def full_name(self) -> str:
        """`name@example.com`, `NT\\name`, `host.example.com`, `folder/file`; else the name."""
        name, domain = self.name, self.domain
        if self.type in ("file", "process") and self.path and name:
            is_windows = "\\" in self.path or self.path[1:2] == ":"
            return self.path.rstrip("\\/") + ("\\" if is_windows else "/") + name
        if not name or not domain or "@" in name or "\\" in name:
            return name
        if self.type == "host":
            return name if "." in name or "." not in domain else f"{name}.{domain}"
        if self.type in ("user", "group", "mailbox"):
            return f"{name}@{domain}" if "." in domain else f"{domain}\\{name}"
        return name


class Details(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Everything that a record mentions, each thing once, in the record's order.

    action: what was done, in the record's own word: an operation, an event id, an action type.
    outcome: how it went.
    related: ids of other events that it names: an incident's alerts, the vendor's own alert id.
    attributes: further facts under stable names in lower case: OT `sensor`, `zone`, `protocol`;
        `event_id`, `logon_type`, `correlation_id`, `classification`, …
    """

    entities: tuple[Entity, ...] = ()
    action: str = ""
    outcome: Literal["", "success", "failure"] = ""
    related: tuple[str, ...] = ()
    attributes: dict[str, str] = {}

    def of(self, *types: EntityType) -> Iterator[Entity]:
        return (entity for entity in self.entities if entity.type in types)

    @property
    def hosts(self) -> tuple[str, ...]:
        """Names of machines, OT devices among them; with their domain where it is known."""
        return _unique(entity.full_name for entity in self.of("host", "device"))

    @property
    def users(self) -> tuple[str, ...]:
        """Accounts, by principal name (or `DOMAIN\\name`) where the domain is known."""
        return _unique(entity.full_name for entity in self.of("user", "mailbox"))

    @property
    def ips(self) -> tuple[str, ...]:
        return _unique(entity.name for entity in self.of("ip"))

    @property
    def urls(self) -> tuple[str, ...]:
        return _unique(entity.name for entity in self.of("url"))

    @property
    def hashes(self) -> tuple[str, ...]:
        return _unique(each for entity in self.entities for each in entity.hashes)


def _unique(names: Iterable[str]) -> tuple[str, ...]:
    """Without blanks and without those that differ only in case from an earlier one."""
    found: dict[str, str] = {}
    for name in names:
        if name:
            found.setdefault(name.lower(), name)
    return tuple(found.values())
