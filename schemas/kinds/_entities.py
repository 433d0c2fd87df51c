"""Microsoft's security entities and Graph's evidence, as alerts list them, as ours.

An entity has an `$id`; another one names it by `{"$ref": "…"}`, or holds it. Real lists were put
together from several: an `$id` stands there twice, or nowhere. Log Analytics and Defender write
PascalCase, ARM and Graph camelCase.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from schemas.entities import Entity, Role
from schemas.kinds._entity_types import (
    ALERTS,
    HELD,
    INSIDE,
    NO_ENTITIES,
    ROLES,
    SAID_ROLES,
    UNTOLD,
    known,
    shape,
)
from schemas.kinds._strings import loads_loosely

__all__ = [
    "alert_ids",
    "file",
    "host",
    "is_hash",
    "last_part",
    "merged",
    "resolve",
    "role",
    "scalar",
    "user",
]

_MOST_ATTRIBUTES = 64
_MOST_ALIKE = 8
_PID = 4  # its place among `_facts`
_HASHES = ("md5", "sha1", "sha256")
_HASH = re.compile(r"[0-9a-fA-F]{32,128}")
_AUTHENTICODE = "SHA256AC"  # of 64 digits too, but no SHA-256 of the file
_FULL_NAME = re.compile(r"(?=.*[A-Za-z])([\w-]+)\.([\w-]+(?:\.[\w-]+)+)\.?")


def resolve(value: Any) -> tuple[Entity, ...]:
    """The entities that a list of Microsoft's names, each once, in its order.

    value: the list, or a string of JSON that holds it, also one that was cut off; of anything
        else there are none. Never raises. What an entity refers to is told with it: a file's
        hashes, a process's image, parent and account. Alerts are no entities.
    """
    if isinstance(value, str):
        value = loads_loosely(value)[0]
    if isinstance(value, dict):
        value = [value]
    if not isinstance(value, list):
        return ()
    return merged(_entities(_Graph(value)))


def alert_ids(value: Any) -> Iterator[str]:
    """The ids of alerts that an incident's entities (a list) name."""
    for item in value if isinstance(value, list) else ():
        if isinstance(item, dict):
            node = _Node(item, 0, "")
            if node.type in ALERTS:
                listed = node.fields.get("systemalertids") or node.fields.get("systemalertid")
                yield from map(scalar, listed if isinstance(listed, list) else (listed,))


def merged(entities: Iterable[Entity]) -> tuple[Entity, ...]:
    """Each thing once, in the order of first mention.

    Two of one type and name (case-blind) are the same thing if what is known of one says nothing
    against the other. What nobody could find anything by is left out.
    """
    found: list[Entity] = []
    facts: list[tuple[str, ...]] = []
    places: dict[tuple[str, ...], int] = {}
    alike: dict[tuple[str, str], list[int]] = {}
    for entity in entities:
        if not (entity.name or entity.id or entity.path or entity.hashes or entity.command_line):
            continue
        name, said = (entity.type, entity.name.lower()), _facts(entity)
        place = places.get(name + said)
        if place is None:
            near = alike.setdefault(name, [])
            fitting = (at for at in near if _agree(facts[at], said))
            place = next(fitting, None)
            if place is None:
                place = len(found)
                if len(near) < _MOST_ALIKE:  # in a hostile list all are alike
                    near.append(place)
        if place == len(found):
            found.append(entity)
            facts.append(said)
        else:
            found[place] = _joined(found[place], entity)
            facts[place] = tuple(a or b for a, b in zip(facts[place], said, strict=True))
        places[name + said] = places[name + facts[place]] = place
    return tuple(found)


def _facts(entity: Entity) -> tuple[str, ...]:
    return (
        entity.domain.lower(),
        entity.id.lower(),
        entity.path.lower(),
        entity.command_line,
        entity.pid,
        entity.port,
        " ".join(entity.hashes).lower(),
    )


def _agree(one: tuple[str, ...], other: tuple[str, ...]) -> bool:
    if one[_PID] and one[_PID] == other[_PID]:
        return True  # one process, its command line written in two ways
    return all(a == b or not a or not b for a, b in zip(one, other, strict=True))


def _joined(first: Entity, other: Entity) -> Entity:
    attributes = first.attributes
    if len(attributes) < _MOST_ATTRIBUTES:
        attributes = other.attributes | attributes
    return Entity(
        type=first.type,
        name=first.name,
        id=first.id or other.id,
        domain=first.domain or other.domain,
        role=first.role or other.role,
        path=first.path or other.path,
        command_line=first.command_line or other.command_line,
        pid=first.pid or other.pid,
        parent_pid=first.parent_pid or other.parent_pid,
        port=first.port or other.port,
        hashes=first.hashes or other.hashes,
        attributes=attributes,
    )


def user(name: str, domain: str = "", **more: Any) -> Entity:
    """An account; a principal name or `DOMAIN\\name` is taken apart."""
    before, sign, after = name.partition("\\")
    if sign and before and after:
        name, domain = after, domain or before
    before, _, after = name.rpartition("@")
    if before and "." in after:
        name, domain = before, after
    return Entity(type="user", name=name, domain=domain, **more)


def host(name: str, domain: str = "", **more: Any) -> Entity:
    """A machine; a full domain name is taken apart."""
    if found := _FULL_NAME.fullmatch(name):
        name, domain = found[1], found[2]
    return Entity(type="host", name=name, domain=domain, **more)


def file(name: str, path: str = "", **more: Any) -> Entity:
    """A file; a path in its name is taken apart, a name in its path left out."""
    cut = max(name.rfind("\\"), name.rfind("/")) + 1
    if cut and name[cut:]:
        path, name = path or name[:cut].rstrip("\\/") or name[:cut], name[cut:]
    if name and path.endswith(("\\" + name, "/" + name)):
        path = path[: -len(name) - 1]
    return Entity(type="file", name=name, path=path, **more)


def role(said: Any) -> Role:
    """Ours for Microsoft's evidence roles: a word, or a list of them."""
    for word in said if isinstance(said, list) else (said,):
        if isinstance(word, str) and (found := SAID_ROLES.get(word.lower())):
            return found
    return ""


def is_hash(value: str) -> bool:
    """Whether it looks like one, rather than like a word in its place."""
    return _HASH.fullmatch(value) is not None


def scalar(value: Any) -> str:
    """A text, number or truth value as text; empty for anything else."""
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int | float) else ""


def last_part(resource: str) -> str:
    """Of a resource's id."""
    return resource.rstrip("/").rpartition("/")[2]


class _Node:
    """An entity as it came: its place in the list, type, and fields by name in lower case.

    key: what it stands under in another entity, in lower case.
    """

    __slots__ = ("fields", "key", "names", "place", "type")

    def __init__(self, raw: dict[Any, Any], place: int, key: str) -> None:
        self.place = place
        self.key = key
        self.fields: dict[str, Any] = {}
        self.names: dict[str, str] = {}
        self._take(raw)
        if "$ref" in self.fields:
            self.type = ""  # no entity, but the name of one
            return
        self.type = known(self.text("@odata.type")) or known(self.text("type")) or HELD.get(key, "")
        inside = self.fields.get(INSIDE.get(self.type, ""))
        if isinstance(inside, dict):
            self._take(inside)

    def _take(self, raw: dict[Any, Any]) -> None:
        for name, value in raw.items():
            folded = name.lower()
            if value is not None and folded not in self.fields:
                self.fields[folded] = value
                self.names[folded] = name

    def text(self, *names: str) -> str:
        return next(filter(None, (scalar(self.fields.get(name)) for name in names)), "")


class _Graph:
    """All entities of a list, those inside others too, and what their ids mean."""

    def __init__(self, value: list[Any]) -> None:
        self.nodes: list[_Node] = []
        self._of: dict[int, _Node] = {}  # by the identity of the object that it came as
        self._places: dict[tuple[str, str], list[int]] = {}
        waiting: list[tuple[Any, str]] = [(value, "")]
        while waiting:  # not by recursion: they nest without bound
            item, key = waiting.pop()
            if isinstance(item, list):
                waiting += [(inner, key) for inner in reversed(item)]
            elif isinstance(item, dict):
                self._add(item, key)
                for name, inner in reversed(item.items()):
                    if isinstance(inner, list | dict):
                        waiting.append((inner, name.lower()))

    def _add(self, item: dict[str, Any], key: str) -> None:
        node = self._of[id(item)] = _Node(item, len(self.nodes), key)
        self.nodes.append(node)
        if (name := node.text("$id")) and node.type:
            for wanted in ("", node.type):
                self._places.setdefault((name, wanted), []).append(node.place)

    def held(self, by: _Node, name: str, wanted: str = "") -> Iterator[_Node]:
        """The entities under a key of another one."""
        value = by.fields.get(name)
        for item in value if isinstance(value, list) else (value,):
            node = self._of.get(id(item)) if isinstance(item, dict) else None
            if node is not None and "$ref" in node.fields:
                node = self._meant(node.text("$ref"), by.place, wanted)
            if node is None or node is by or not node.type:
                continue
            if wanted in ("", node.type):
                yield node

    def _meant(self, name: str, place: int, wanted: str) -> _Node | None:
        """Of several entities with this id the last before the place, else the first after."""
        places = self._places.get((name, wanted))
        if not places:
            return None
        return self.nodes[places[max(bisect_left(places, place) - 1, 0)]]


def _entities(graph: _Graph) -> Iterator[Entity]:
    connected = dict(_connections(graph))
    in_files = {
        each.place
        for node in graph.nodes
        if "filehashes" in node.fields
        for each in graph.held(node, "filehashes", "filehash")
    }
    for node in graph.nodes:
        if node.type == "filehash":
            if node.place not in in_files:
                yield _lone_hash(node)
        elif node.type and node.type not in NO_ENTITIES:
            entity = _entity(node, graph)
            if node.place in connected:
                role, port, more = connected[node.place]
                entity = msgspec.structs.replace(
                    entity, role=role, port=port, attributes=entity.attributes | more
                )
            yield entity
            yield from _in_texts(node)


def _connections(graph: _Graph) -> Iterator[tuple[int, tuple[Role, str, dict[str, str]]]]:
    """What network connections say of the addresses at their ends."""
    for node in graph.nodes:
        if node.type == "networkconnection":
            more = {"Protocol": protocol} if (protocol := node.text("protocol")) else {}
            for end in ("source", "destination"):
                for address in graph.held(node, f"{end}address", "ip"):
                    yield address.place, (ROLES[f"{end}address"], node.text(f"{end}port"), more)


def _lone_hash(node: _Node) -> Entity:
    value, algorithm = node.text("value"), node.text("algorithm")
    if is_hash(value) and algorithm.upper() != _AUTHENTICODE:
        return Entity(type="file", hashes=(value,))
    return Entity(type="other", name=value, attributes={"Algorithm": algorithm})


def _in_texts(node: _Node) -> Iterator[Entity]:
    """What an entity names in a text, as a mail its sender."""
    for name, value in node.fields.items():
        held_as = HELD.get(name)
        if held_as is None or held_as == node.type:
            continue
        for item in value if isinstance(value, list) else (value,):
            if text := item.strip() if isinstance(item, str) else "":
                if held_as == "azureresource":
                    yield Entity(type="resource", name=last_part(text), id=text)
                elif held_as == "account":
                    yield user(text)
                elif held_as == "host":
                    yield host(text)
                elif held_as in ("ip", "url", "mailbox"):
                    yield Entity(type=shape(held_as).type, name=text, role=ROLES.get(name, ""))


def _bare(node: _Node) -> Entity:
    """An entity by what names it."""
    form = shape(node.type)
    name, domain, path = node.text(*form.name), node.text(*form.domain), node.text(*form.path)
    said = node.fields.get("roles") or node.fields.get("role")
    part = role(said) or ROLES.get(node.key, "")
    its_id = node.text(*form.id)
    if form.type == "user":
        return user(name, domain, id=its_id, role=part)
    if form.type == "host":
        for full in (node.text("fqdn"), node.text("fullname")):
            if full.lower().startswith(f"{name.lower()}."):
                name = full
        return host(name, domain, id=its_id, role=part)
    if form.type == "file":
        return file(name, path, role=part)
    if form.type == "registry":
        path = "\\".join(filter(None, (node.text("hive", "registryhive"), path)))
    if form.type == "resource":
        name = name or last_part(its_id)
    return Entity(type=form.type, name=name, domain=domain, path=path, id=its_id, role=part)


def _entity(node: _Node, graph: _Graph) -> Entity:
    bare = _bare(node)
    attributes = _attributes(node, graph, bare)
    more: dict[str, Any] = {}
    if node.type == "file":
        more["hashes"] = _hashes(node, graph, attributes)
    elif node.type == "process":
        for image in graph.held(node, "imagefile", "file"):
            named = _bare(image)
            more |= {"name": named.name, "path": named.path, "hashes": _hashes(image, graph, {})}
        for parent in graph.held(node, "parentprocess", "process"):
            more["parent_pid"] = parent.text("processid")
        if parent_pid := node.text("parentprocessid"):
            more["parent_pid"] = parent_pid
        more["pid"] = node.text("processid")
        more["command_line"] = node.text("commandline", "processcommandline")
    elif node.type == "registryvalue":
        for key in graph.held(node, "key", "registrykey"):
            more["path"] = _bare(key).path
    elif bare.type == "resource" and not bare.name:
        more["name"] = attributes.get("CloudResource", "")  # a cluster has no name of its own
    return msgspec.structs.replace(bare, attributes=attributes, **more)


def _hashes(node: _Node, graph: _Graph, others: dict[str, str]) -> tuple[str, ...]:
    """A file's; what stands in a hash's place, and hashes of another kind, go to `others`."""
    found = {value: None for name in _HASHES if is_hash(value := node.text(name))}
    for each in graph.held(node, "filehashes", "filehash"):
        value, algorithm = each.text("value"), each.text("algorithm")
        if is_hash(value) and algorithm.upper() != _AUTHENTICODE:
            found[value] = None
        elif value:
            others[algorithm or "FileHash"] = value
    return tuple(found)


def _attributes(node: _Node, graph: _Graph, bare: Entity) -> dict[str, str]:
    """What names it not: plain values, those of plain objects in it, what it refers to."""
    form = shape(node.type)
    names = {*form.name, *form.id, *form.domain, *form.path}
    said = {bare.name, bare.full_name, bare.domain, bare.id, bare.path, node.text(*form.path)}
    found: dict[str, str] = {}
    for folded, value in node.fields.items():
        if len(found) >= _MOST_ATTRIBUTES:
            break
        if folded in UNTOLD or (folded in names and scalar(value) in said):
            continue
        name = node.names[folded]
        if isinstance(value, dict):
            referred = next(graph.held(node, folded, HELD.get(folded, "")), None)
            if referred is not None:
                entity = _bare(referred)
                found[name] = entity.full_name or entity.path or entity.id
            elif "$ref" not in value:
                inside = ((key, scalar(inner)) for key, inner in value.items())
                found |= {key: text for key, text in inside if text and key[:1] not in "@$"}
        elif isinstance(value, list):
            if folded not in HELD:
                found[name] = ", ".join(filter(None, map(scalar, value)))
        else:
            found[name] = scalar(value)
    return {name: text for name, text in found.items() if text}
