"""What the alerts of Defender and Sentinel mention, whichever way they come.

Log Analytics, continuous export and ARM name the same fields, but for their case. The names in
ExtendedProperties are nowhere documented, as each detection has its own: these are from real ones.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from typing import Any

from schemas.entities import Details, Entity, EntityType, Role
from schemas.kinds import _base
from schemas.kinds._base import Fields
from schemas.kinds._entities import (
    alert_ids,
    file,
    host,
    is_hash,
    last_part,
    merged,
    resolve,
    scalar,
    user,
)
from schemas.kinds._strings import loads_loosely

__all__ = [
    "IOT",
    "addresses",
    "folded",
    "is_exported",
    "is_row",
    "loose",
    "mentioned",
    "named_in",
    "resource",
]

IOT = "IoT"
"""In the name of a product or provider: the alert is Defender for IoT's."""


_SIGNS = ("SystemAlertId", "AlertDisplayName", "AlertType")
# Names in lower case, letters and digits only.
_HOSTS = frozenset(
    {
        *("compromisedhost", "machinename", "computername", "hostname", "host", "attackedhost"),
        *("victimhost", "sourcehost", "sourcecomputer", "destinationhost", "clienthostname"),
    }
)
_USERS = frozenset(
    {
        *("username", "usernames", "user", "userprincipalname", "principalname", "account"),
        *("clientprincipalname", "accountname", "accountlist", "suspiciousaccountname"),
        *("attackeduser", "compromiseduser", "loginname", "caller"),
    }
)
_APPLICATIONS = frozenset({"application", "applicationname", "clientapplication"})
_FILES = frozenset({"filename", "filepath", "suspiciousfile", "maliciousfile"})
_COMMANDS = ("suspiciouscommandline", "commandline", "processcommandline")
_IMAGES = ("suspiciousprocess", "processname", "suspiciousprocessname", "processpath")
_PIDS = ("suspiciousprocessid", "processid", "loginprocessid")
_MACHINE = re.compile(r"/(?:virtualmachines|hybridcompute/machines)/[^/]+/?$", re.IGNORECASE)
_WORD = re.compile(r"(?:IP|URL)s(?![a-z])|[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
_ROLES: dict[str, Role] = {
    **dict.fromkeys(("attacker", "source", "src", "client", "remote"), "source"),
    **dict.fromkeys(("victim", "attacked", "destination", "dest", "dst", "target"), "target"),
}
_ADDRESS = re.compile(r"(?<![0-9A-Za-z:.])[0-9A-Fa-f]*[:.][0-9A-Fa-f:.]+")
_NOTHING = frozenset({"", "-", "?", "none", "null", "n/a", "unknown"})
_MOST = 20_000  # characters of a property that are looked through
_ATTRIBUTES = {
    "provider": "ProviderName",
    "component": "ProductComponentName",
    "confidence": "ConfidenceLevel",
    "confidence_score": "ConfidenceScore",
    "correlation_key": "CorrelationKey",
    "provider_status": "ProviderAlertStatus",
    "incident": "IsIncident",
}


def is_row(fields: Fields) -> bool:
    """Whether they are a row of Log Analytics' SecurityAlert table; older ones lack `Type`."""
    if "Type" in fields:
        return fields.text("Type").lower() == "securityalert"
    return "AlertName" in fields and "SystemAlertId" in fields


def is_exported(fields: Fields) -> bool:
    """Whether they are an alert of Defender for Cloud's continuous export: two of the three
    signs, as an alert may lack its id."""
    if "Type" in fields or "AlertName" in fields:
        return False
    return sum(sign in fields for sign in _SIGNS) >= 2


def mentioned(fields: Fields, *more: Entity, otherwise: EntityType = "other") -> Details:
    """What an alert's fields mention.

    more: what its kind knows besides.
    otherwise: what the compromised entity is where nothing says so.
    """
    listed = loose(fields, "Entities")
    properties = loose(fields, "ExtendedProperties")
    properties = properties if isinstance(properties, dict) else {}
    found = (*resolve(listed), *more)
    commands = {it.command_line for it in found}
    # Of a command line that a process has, the properties tell nothing new.
    named = (it for it in named_in(properties) if it.name or it.command_line not in commands)
    found = merged((*found, *named))
    about = _compromised(fields.text("CompromisedEntity"), properties, found, otherwise)
    found = merged((*found, *about))
    ids = {entity.id.lower() for entity in found}
    resources = (resource(name) for name in _resources(fields) if name.lower() not in ids)
    own = fields.text("SystemAlertId")
    others = (fields.text("VendorOriginalId"), *alert_ids(listed))
    attributes = {ours: fields.text(theirs) for ours, theirs in _ATTRIBUTES.items()}
    attributes["workspace_id"] = fields.text("WorkspaceId") or fields.text("TenantId")
    attributes["workspace_subscription_id"] = fields.text("WorkspaceSubscriptionId")
    attributes["resource_type"] = scalar(properties.get("resourceType"))
    attributes["remediation"] = _lines(loose(fields, "RemediationSteps"))
    return Details(
        entities=merged((*found, *resources)),
        action=scalar(properties.get("ActionTaken")),
        related=tuple(name for name in _base.unique(others) if name.lower() != own.lower()),
        attributes={
            name: text
            for name, text in attributes.items()
            if text.lower() not in _NOTHING and text not in ("false", "False", "0")
        },
    )


def resource(name: str, **more: Any) -> Entity:
    """What a resource id names: a host, if that is a virtual or connected machine."""
    entity_type: EntityType = "host" if _MACHINE.search(name) else "resource"
    return Entity(type=entity_type, name=last_part(name), id=name, **more)


def loose(fields: Fields, name: str) -> Any:
    """A field's value; if that is a string that holds JSON, even broken JSON, what it holds."""
    raw = fields.get(name)
    if raw is None:
        return None
    value = _base.decoded(raw)
    if value is None and bytes(raw)[:1] == b'"':
        text = _base.text(raw)
        value = loads_loosely(text)[0] or text
    return value


def named_in(properties: dict[str, Any]) -> Iterator[Entity]:
    """What an alert's ExtendedProperties name: by known names, and addresses, URLs and hashes by
    a word in the name and by their form."""
    plain = {folded(name): scalar(value) for name, value in properties.items()}
    for name, value in properties.items():
        if isinstance(value, str | list):
            yield from _named(name, value[:_MOST], plain)
        elif isinstance(value, dict):
            yield from (it for key, inner in value.items() for it in _named(key, inner, plain))
    if "customdetails" in plain:  # a Sentinel rule's own: lists of texts in a string
        details = loads_loosely(plain["customdetails"])[0]
        for key, inner in details.items() if isinstance(details, dict) else ():
            yield from _named(key, inner, plain)
    yield from _process(plain)


def _named(name: str, value: Any, plain: dict[str, str]) -> Iterator[Entity]:
    known = folded(name)
    words = frozenset(word.lower() for word in _WORD.findall(name))
    role: Role = next((role for word, role in _ROLES.items() if word in words), "")
    for text in _texts(value):
        if known in _HOSTS:
            yield host(text)
        elif known in _USERS:
            domain = plain.get("domainname", "")
            yield user(text, domain, id=plain.get("usersid", "") if known == "username" else "")
        elif known in _APPLICATIONS:
            yield Entity(type="application", name=text)
        elif known in _FILES:
            yield file(text)
        elif not words.isdisjoint(("ip", "ips", "address", "addresses")):
            yield from (Entity(type="ip", name=ip, role=role) for ip in addresses(text))
        elif not words.isdisjoint(("url", "urls")) and "://" in text:
            yield Entity(type="url", name=text)
        elif not words.isdisjoint(("hash", "hashes", "md", "sha")) and is_hash(text):
            yield file(plain.get("filename", ""), plain.get("filepath", ""), hashes=(text,))
        elif not words.isdisjoint(("domain", "domains")) and "." in text and "user" not in words:
            yield Entity(type="domain", name=text)


def addresses(text: str) -> Iterator[str]:
    """The IP addresses in a text, without their ports."""
    for found in _ADDRESS.findall(text):
        for name in (found, found.partition(":")[0], found.rstrip(":.")):
            try:
                ipaddress.ip_address(name)
            except ValueError:
                continue
            yield name
            break


def _process(plain: dict[str, str]) -> Iterator[Entity]:
    command = next(filter(None, map(plain.get, _COMMANDS)), "")
    image = file(next(filter(None, map(plain.get, _IMAGES)), ""))
    if command or image.name:
        yield Entity(
            type="process",
            name=image.name,
            path=image.path,
            command_line=command,
            pid=next(filter(None, map(plain.get, _PIDS)), ""),
            parent_pid=plain.get("parentprocessid", ""),
        )
    if (parent := plain.get("parentprocess", "")) not in _NOTHING:
        image = file(parent)
        yield Entity(
            type="process", name=image.name, path=image.path, pid=plain.get("parentprocessid", "")
        )


def _compromised(
    name: str, properties: dict[str, Any], found: tuple[Entity, ...], otherwise: EntityType
) -> Iterator[Entity]:
    """The entity that an alert is about: a machine, an account, a resource, or nobody knows."""
    lower = name.lower()
    if lower in _NOTHING:
        return
    known = [it for it in found if lower in (it.name.lower(), it.full_name.lower(), it.id.lower())]
    kind = scalar(properties.get("resourceType")).lower()
    if known:
        yield Entity(type=known[0].type, name=known[0].name, role="target")
    elif _base.subscription_of(name):
        yield resource(name, role="target")
    elif "@" in name:
        yield user(name, role="target")
    elif next(addresses(name), "") == name:
        yield Entity(type="ip", name=name, role="target")
    elif "machine" in kind or "server" in kind:
        yield host(name, role="target")
    else:
        yield Entity(type=otherwise, name=name, role="target")


def _resources(fields: Fields) -> Iterator[str]:
    yield fields.text("AzureResourceId") or fields.text("ResourceId")
    identifiers = loose(fields, "ResourceIdentifiers")
    yield from _base.values_of(identifiers, frozenset({"azureresourceid"}))


def _texts(value: Any) -> Iterator[str]:
    """A text's lines, or what a list of texts, or a text that holds one, has in it."""
    if isinstance(value, str):
        listed = loads_loosely(value)[0] if value.lstrip()[:1] == "[" else None
        value = listed if isinstance(listed, list) else value.splitlines()
    for item in value if isinstance(value, list) else (value,):
        if (text := scalar(item)).lower() not in _NOTHING:
            yield text


def _lines(value: Any) -> str:
    return "\n".join(map(scalar, value)) if isinstance(value, list) else scalar(value)


def folded(name: str) -> str:
    """A name by which properties are compared: its letters and digits, in lower case."""
    return "".join(filter(str.isalnum, name)).lower()
