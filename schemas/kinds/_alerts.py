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
from schemas.kinds._base import Fields, Memo
from schemas.kinds._entities import (
    Things,
    alert_ids,
    entities_in,
    file,
    host,
    is_hash,
    last_part,
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
# What a property holds, by its name: in lower case, letters and digits only.
_NAMES = {
    "host": frozenset(
        {
            *("compromisedhost", "machinename", "computername", "hostname", "host"),
            *("attackedhost", "victimhost", "sourcehost", "sourcecomputer", "destinationhost"),
            "clienthostname",
        }
    ),
    "user": frozenset(
        {
            *("username", "usernames", "user", "userprincipalname", "principalname", "account"),
            *("clientprincipalname", "accountname", "accountlist", "suspiciousaccountname"),
            *("attackeduser", "compromiseduser", "loginname", "caller"),
        }
    ),
    "application": frozenset({"application", "applicationname", "clientapplication"}),
    "file": frozenset({"filename", "filepath", "suspiciousfile", "maliciousfile"}),
}
# What it may hold, by a word in its name.
_WORDS = {
    "ip": ("ip", "ips", "address", "addresses"),
    "url": ("url", "urls"),
    "hash": ("hash", "hashes", "md", "sha"),
    "domain": ("domain", "domains"),
}
_COMMANDS = ("suspiciouscommandline", "commandline", "processcommandline")
_IMAGES = ("suspiciousprocess", "processname", "suspiciousprocessname", "processpath")
_PIDS = ("suspiciousprocessid", "processid", "loginprocessid")
_OF_PROCESSES = frozenset({*_COMMANDS, *_IMAGES, "parentprocess"})
_MACHINE = re.compile(r"/(?:virtualmachines|hybridcompute/machines)/[^/]+/?$", re.IGNORECASE)
_WORD = re.compile(r"(?:IP|URL)s(?![a-z])|[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
_ROLES: dict[str, Role] = {
    **dict.fromkeys(("attacker", "source", "src", "client", "remote"), "source"),
    **dict.fromkeys(("victim", "attacked", "destination", "dest", "dst", "target"), "target"),
}
_ADDRESS = re.compile(r"(?<![0-9A-Za-z:.])[0-9A-Fa-f]*[:.][0-9A-Fa-f:.]+")
_LINES = (str, list)
_RESOURCE_IDS = frozenset({"azureresourceid"})
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
    things = Things(entities_in(listed))
    things.add(more)
    commands = {it.command_line for it in things.found}
    # Of a command line that a process has, the properties tell nothing new.
    things.add(it for it in named_in(properties) if it.name or it.command_line not in commands)
    about = _compromised(fields.text("CompromisedEntity"), properties, things.found, otherwise)
    things.add((about,) if about else ())
    ids = {entity.id.lower() for entity in things.found}
    things.add(resource(name) for name in _resources(fields) if name.lower() not in ids)
    own = fields.text("SystemAlertId")
    others = (fields.text("VendorOriginalId"), *alert_ids(listed))
    attributes = {ours: fields.text(theirs) for ours, theirs in _ATTRIBUTES.items()}
    attributes["workspace_id"] = fields.text("WorkspaceId") or fields.text("TenantId")
    attributes["workspace_subscription_id"] = fields.text("WorkspaceSubscriptionId")
    attributes["resource_type"] = scalar(properties.get("resourceType"))
    attributes["remediation"] = _lines(loose(fields, "RemediationSteps"))
    return Details(
        entities=tuple(things.found),
        action=scalar(properties.get("ActionTaken")),
        related=tuple(name for name in _base.unique(others) if name.lower() != own.lower()),
        attributes={
            name: text
            for name, text in attributes.items()
            if text and text.lower() not in _NOTHING and text not in ("false", "False", "0")
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
    plain = {_plain[name]: scalar(value) for name, value in properties.items()}
    for name, value in properties.items():
        if isinstance(value, _LINES):
            yield from _named(name, value[:_MOST], plain)
        elif isinstance(value, dict):
            yield from (it for key, inner in value.items() for it in _named(key, inner, plain))
    if "customdetails" in plain:  # a Sentinel rule's own: lists of texts in a string
        details = loads_loosely(plain["customdetails"])[0]
        for key, inner in details.items() if isinstance(details, dict) else ():
            yield from _named(key, inner, plain)
    if not _OF_PROCESSES.isdisjoint(plain):
        yield from _process(plain)


def _named(name: str, value: Any, plain: dict[str, str]) -> Iterator[Entity]:
    what, role = _meanings[name]
    for text in _texts(value) if what else ():
        if "host" in what:
            yield host(text)
        elif "user" in what:
            domain = plain.get("domainname", "")
            its_id = plain.get("usersid", "") if _plain[name] == "username" else ""
            yield user(text, domain, id=its_id)
        elif "application" in what:
            yield Entity(type="application", name=text)
        elif "file" in what:
            yield file(text)
        elif "ip" in what:
            yield from (Entity(type="ip", name=ip, role=role) for ip in addresses(text))
        elif "url" in what and "://" in text:
            yield Entity(type="url", name=text)
        elif "hash" in what and is_hash(text):
            yield file(plain.get("filename", ""), plain.get("filepath", ""), hashes=(text,))
        elif "domain" in what and "." in text:
            yield Entity(type="domain", name=text)


def _meaning(name: str) -> tuple[frozenset[str], Role]:
    """What a property of this name may hold (of `_NAMES`, else of `_WORDS`), and whose it is."""
    known = folded(name)
    words = {word.lower() for word in _WORD.findall(name)}
    what = {it for it, names in _NAMES.items() if known in names} or {
        it for it, its_words in _WORDS.items() if not words.isdisjoint(its_words)
    }
    if "user" in words:
        what.discard("domain")
    return frozenset(what), next((role for word, role in _ROLES.items() if word in words), "")


def folded(name: str) -> str:
    """A name by which properties are compared: its letters and digits, in lower case."""
    return "".join(filter(str.isalnum, name)).lower()


_plain = Memo(folded)
_meanings = Memo(_meaning)


def addresses(text: str) -> Iterator[str]:
    """The IP addresses in a text, without their ports."""
    for found in _ADDRESS.findall(text):
        for name in (found, found.partition(":")[0], found.rstrip(":.")):
            if _is_address[name]:
                yield name
                break


def _addresses(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


_is_address = Memo(_addresses)


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
    name: str, properties: dict[str, Any], found: list[Entity], otherwise: EntityType
) -> Entity | None:
    """The entity that an alert is about: a machine, an account, a resource, or nobody knows."""
    lower = name.lower()
    if lower in _NOTHING:
        return None
    for it in found:
        if lower == it.name.lower() or lower in (it.id.lower(), it.full_name.lower()):
            return Entity(type=it.type, name=it.name, role="target")
    if _base.subscription_of(name):
        return resource(name, role="target")
    if "@" in name:
        return user(name, role="target")
    if next(addresses(name), "") == name:
        return Entity(type="ip", name=name, role="target")
    kind = scalar(properties.get("resourceType")).lower()
    if "machine" in kind or "server" in kind:
        return host(name, role="target")
    return Entity(type=otherwise, name=name, role="target")


def _resources(fields: Fields) -> Iterator[str]:
    yield fields.text("AzureResourceId") or fields.text("ResourceId")
    identifiers = loose(fields, "ResourceIdentifiers")
    yield from _base.values_of(identifiers, _RESOURCE_IDS)


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
