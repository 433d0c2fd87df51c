"""Objects of OCSF 1.5.0, from what an alert mentions.

Source: schema.ocsf.io/1.5.0/objects. An object that would lack what the schema requires of it is
None. A value that its type refuses (`ip_t`, `email_t`, `mac_t`, `file_hash_t`, `port_t`) stays out
of the field: an address that is none is no `ip`.
"""

from __future__ import annotations

import functools
import ipaddress
import re
from typing import Any

from schemas.alert import Alert
from schemas.entities import Details, Entity
from schemas.formats._mitre import tactic

__all__ = [
    "Object",
    "attacks",
    "device",
    "email_address",
    "endpoint",
    "evidence",
    "file",
    "fingerprints",
    "integer",
    "named",
    "observables",
    "process",
    "registry_key",
    "registry_value",
    "resource",
    "said",
    "url",
    "user",
    "without_blanks",
]

Object = dict[str, Any]

_EMAIL = re.compile(r"[a-zA-Z0-9!#$%&'*+\-/=?^_`{|}~.]+@[a-zA-Z0-9-]+\.[a-zA-Z0-9.-]+")
_MAC = re.compile(r"(?:[0-9A-Fa-f]{2}[:-]){5}[0-9A-Fa-f]{2}")
_HEX = re.compile(r"[0-9A-Fa-f]+")
_TECHNIQUE = re.compile(r"(T\d{4,5})(\.\d{3})?")
_HASHES = {32: (1, "MD5"), 40: (2, "SHA-1"), 64: (3, "SHA-256"), 128: (4, "SHA-512")}
_UNKNOWN = {"type_id": 0, "type": "Unknown"}
_LONGEST = 1024  # of what is remembered
_MACHINE = "/virtualmachines/"


def without_blanks(**fields: Any) -> Object:
    return {name: value for name, value in fields.items() if value}


def named(name: str, known: tuple[int, str] | None, word: str) -> Object:
    """An id and its caption; of a word that the schema lacks 99 and the word."""
    if known is None:
        known = (99, word) if word and word.lower() != "unknown" else (0, "Unknown")
    return {f"{name}_id": known[0], name: known[1]}


def said(entity: Entity, *names: str) -> str:
    """The first of these attributes that the entity has; names in lower case."""
    for name, value in entity.attributes.items():
        if value and name.lower() in names:
            return value
    return ""


def ip_address(text: str) -> str:
    """The address, without a zone, if it is one; else empty."""
    text = text.strip().partition("%")[0]
    return text if len(text) <= 45 and _is_address(text) else ""


@functools.lru_cache(8192)
def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def email_address(text: str) -> str:
    return text if _EMAIL.fullmatch(text) else ""


def integer(text: str, most: int = 2**31 - 1) -> int | None:
    """A number as logs write it: `8000`, `0x1f40`. None for anything else, or for one that is too
    great: `integer_t` has 32 bits, `long_t` 64."""
    text = text.strip()
    if not text.isascii() or len(text) > 20:
        return None
    try:
        number = int(text, 16 if text[:2].lower() == "0x" else 10)
    except ValueError:
        return None
    return number if 0 <= number <= most else None


def user(entity: Entity) -> Object | None:
    name = entity.name or entity.id
    if not name:
        return None
    return without_blanks(
        name=name,
        uid=entity.id,
        domain=entity.domain,
        email_addr=email_address(entity.full_name),
        full_name=said(entity, "displayname", "fullname", "accountdisplayname"),
    )


def device(entity: Entity) -> Object | None:
    """A host, or a thing of OT or IoT."""
    if entity.type == "host" and entity.name:
        found: Object = {"hostname": entity.full_name, "name": entity.name}
    elif entity.name:
        found = {"name": entity.name}
    else:
        found = {}
    if entity.id:
        found["uid"] = entity.id
    if not found:
        return None
    if entity.type == "device":
        found |= {"type_id": 7, "type": "IOT"}
    elif _MACHINE in entity.id.lower():
        found |= {"type_id": 6, "type": "Virtual"}
    else:
        found |= _UNKNOWN
    if entity.domain:
        found["domain"] = entity.domain
    if entity.attributes:
        address = ip_address(said(entity, "ipaddress", "ip", "lastipaddress", "publicip"))
        mac = said(entity, "macaddress", "mac")
        found |= without_blanks(
            ip=address,
            mac=mac if _MAC.fullmatch(mac) else "",
            model=said(entity, "model"),
            vendor_name=said(entity, "manufacturer", "vendor"),
            os=_system(said(entity, "osfamily", "osplatform", "os")[:80]),
        )
    return found


@functools.lru_cache(256)
def _system(name: str) -> Object | None:
    if not name:
        return None
    folded = name.lower()
    for word, number in (("windows", 100), ("linux", 200), ("android", 201), ("mac", 300)):
        if word in folded:
            return {"name": name, "type_id": number}
    return {"name": name, "type_id": 99, "type": name}


def endpoint(entity: Entity) -> Object | None:
    """One end of a connection: an address, a host, a device, a domain."""
    if entity.type == "ip":
        address = ip_address(entity.name)
        found: Object = {"ip": address} if address else without_blanks(name=entity.name)
    elif entity.type == "domain":
        found = without_blanks(hostname=entity.name)
    elif entity.type == "device":
        found = without_blanks(name=entity.name, uid=entity.id)
    else:
        found = without_blanks(hostname=entity.full_name, uid=entity.id)
    if not found:
        return None
    if entity.port and (port := integer(entity.port, 65535)) is not None:
        found["port"] = port
    if entity.attributes:
        mac = said(entity, "macaddress", "mac")
        place = without_blanks(
            city=said(entity, "city"),
            region=said(entity, "state"),
            country=said(entity, "country", "countrycode"),
        )
        found |= without_blanks(mac=mac if _MAC.fullmatch(mac) else "", location=place)
    return found


def fingerprints(hashes: tuple[str, ...]) -> list[Object]:
    found = []
    for value in hashes:
        if _HEX.fullmatch(value):
            number, name = _HASHES.get(len(value), (0, "Unknown"))
            found.append({"algorithm_id": number, "algorithm": name, "value": value})
    return found


def file(entity: Entity) -> Object | None:
    """A file, or a process's image. One that only its hash is known of goes by that."""
    path = entity.full_name if entity.path and entity.name else entity.path
    name = entity.name or re.split(r"[\\/]", path)[-1] or path or "".join(entity.hashes[:1])
    if not name:
        return None
    found: Object = {"name": name, "type_id": 1, "type": "Regular File"}
    if path:
        found["path"] = path
    if entity.hashes and (hashes := fingerprints(entity.hashes)):
        found["hashes"] = hashes
    return found


def process(entity: Entity) -> Object | None:
    """None without a process id: the schema requires one, or the producer's own."""
    found: Object = {}
    if (pid := integer(entity.pid)) is not None:
        found["pid"] = pid
    if entity.id:
        found["uid"] = entity.id
    if not found:
        return None
    if entity.name:
        found["name"] = entity.name
    if entity.command_line:
        found["cmd_line"] = entity.command_line
    if (entity.name or entity.path or entity.hashes) and (image := file(entity)):
        found["file"] = image
    if (parent := integer(entity.parent_pid)) is not None:
        found["parent_process"] = {"pid": parent}
    return found


def url(entity: Entity) -> Object | None:
    return {"url_string": entity.name} if entity.name else None


def registry_key(entity: Entity) -> Object | None:
    return {"path": entity.path} if entity.path else None


def registry_value(entity: Entity) -> Object | None:
    if not (entity.path and entity.name):
        return None
    data = said(entity, "value", "registryvaluedata", "valuedata", "data")
    return without_blanks(
        path=entity.path,
        name=entity.name,
        data=data,
        type=said(entity, "valuetype", "registryvaluetype"),
    )


@functools.lru_cache(8192)
def _azure(resource_id: str) -> Object:
    """Name, type (`Microsoft.Compute/virtualMachines`) and group in an Azure resource id."""
    parts = resource_id.strip("/").split("/")
    folded = [part.lower() for part in parts]
    found: Object = {"uid": resource_id, "name": parts[-1] or resource_id}
    if "resourcegroups" in folded[:-1]:
        found["group"] = {"name": parts[folded.index("resourcegroups") + 1]}
    if "providers" in folded:
        at = len(folded) - 1 - folded[::-1].index("providers")
        if kind := "/".join((*parts[at + 1 : at + 2], *parts[at + 2 :: 2])):
            found["type"] = kind
    return found


def resource(name: str, uid: str = "", type: str = "") -> Object | None:
    """A resource by its name or id; of an Azure resource id also what it says."""
    uid = uid or name
    if not uid:
        return None
    if uid[:15].lower() == "/subscriptions/" and len(uid) <= _LONGEST:
        return _azure(uid)
    return without_blanks(uid=uid, name=name or uid, type=type)


def evidence(entity: Entity) -> Object | None:
    """What the schema has no artifact for is `data`."""
    made: Object | None = None
    kind = entity.type
    if kind == "process":
        if made := process(entity):
            return {"process": made}
        if entity.name or entity.path:
            made = file(entity)
            found: Object = {"file": made} if made else {}
            if entity.command_line:
                found["data"] = {"command_line": entity.command_line}
            return found or None
    elif kind == "file":
        if made := file(entity):
            return {"file": made}
    elif kind in ("user", "mailbox"):
        if made := user(entity):
            return {"user": made}
    elif kind in ("ip", "domain", "host", "device"):
        if made := endpoint(entity):
            from_there = entity.role in ("actor", "source") or (kind == "ip" and not entity.role)
            return {"src_endpoint" if from_there else "dst_endpoint": made}
    elif kind == "url":
        if made := url(entity):
            return {"url": made}
    elif kind == "application":
        if made := without_blanks(app_name=entity.name, app_uid=entity.id):
            return {"actor": made}
    elif kind == "registry":
        if made := registry_value(entity):
            return {"reg_value": made}
        if made := registry_key(entity):
            return {"reg_key": made}
    name = entity.name or entity.id
    data = without_blanks(
        name=entity.name, id=entity.id, command_line=entity.command_line, path=entity.path
    )
    data |= entity.attributes
    return {"name": name or kind, "data": {"type": kind, **data}} if data else None


def attacks(alert: Alert) -> list[Object]:
    """An alert does not say which technique served which tactic: each stands for itself."""
    found: list[Object] = []
    for word in filter(None, alert.tactics):
        uid, name = tactic(word) if len(word) <= _LONGEST else ("", word)
        found.append({"tactic": {"uid": uid, "name": name} if uid else {"name": name}})
    for word in filter(None, alert.techniques):
        told = _TECHNIQUE.fullmatch(word.upper())
        main = told[1] if told else word
        attack: Object = {"technique": {"uid": main, "name": main}}
        if told and told[2]:
            attack["sub_technique"] = {"uid": told[0]}
        found.append(attack)
    return found


_OBSERVED = {
    "hostname": (1, "Hostname"),
    "ip": (2, "IP Address"),
    "mac": (3, "MAC Address"),
    "email_addr": (5, "Email Address"),
    "url_string": (6, "URL String"),
    "user.name": (4, "User Name"),
    "file.name": (7, "File Name"),
    "process.name": (9, "Process Name"),
    "hashes.value": (8, "Hash"),
    "resources.uid": (10, "Resource UID"),
}
_OBSERVED_TYPES = {
    "host": "hostname",
    "ip": "ip",
    "user": "user.name",
    "mailbox": "user.name",
    "url": "url_string",
    "file": "file.name",
    "process": "process.name",
    "resource": "resources.uid",
}
_AMBIGUOUS = frozenset({"name", "uid", "value"})
_NOT_OBSERVED = frozenset(
    {
        *("metadata", "cloud", "unmapped", "enrichments", "data", "assignee", "finding_info"),
        *("finding_info_list", "attacks"),
    }
)


def observables(event: Object, mentioned: Details) -> list[Object]:
    """What can be searched for across events: each value once, and where it stands first; of what
    the class has no place for, that is `raw_data`."""
    found: dict[tuple[int, str], Object] = {}
    _observe(event, "", "", found)
    for entity in mentioned.entities:
        key = _OBSERVED_TYPES.get(entity.type, "")
        value = entity.id if key == "resources.uid" else entity.name
        if key == "hostname":
            value = entity.full_name
        if key:
            _put(found, _OBSERVED[key], value, "raw_data")
        for value in entity.hashes:
            _put(found, _OBSERVED["hashes.value"], value, "raw_data")
    return list(found.values())


def _observe(place: Object, path: str, parent: str, found: dict[tuple[int, str], Object]) -> None:
    for key, value in place.items():
        if isinstance(value, str):
            kind = _OBSERVED.get(f"{parent}.{key}" if key in _AMBIGUOUS else key)
            if kind:
                _put(found, kind, value, path + key)
        elif key in _NOT_OBSERVED:
            continue
        elif isinstance(value, dict):
            _observe(value, f"{path}{key}.", key, found)
        elif isinstance(value, list):
            for item in value:
                if isinstance(item, dict):
                    _observe(item, f"{path}{key}[].", key, found)


def _put(
    found: dict[tuple[int, str], Object], kind: tuple[int, str], value: str, place: str
) -> None:
    number, caption = kind
    if value and (number, folded := value.lower()) not in found:
        found[number, folded] = {
            "name": place,
            "type_id": number,
            "type": caption,
            "value": value,
        }
