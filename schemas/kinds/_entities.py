"""Microsoft's security entities and Graph's evidence, as alerts list them, as ours.

An entity has an `$id`; another one names it by `{"$ref": "…"}`, or holds it. Real lists were put
together from several: an `$id` stands there twice, or nowhere. Log Analytics and Defender write
PascalCase, ARM and Graph camelCase.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, NamedTuple

import msgspec

from schemas.entities import Entity, EntityType, Role
from schemas.kinds._base import Memo, by_lower_case, length_together
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
    "Things",
    "alert_ids",
    "entities_in",
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

_NUMBERS = (int, float)
_NESTED = frozenset({list, dict})
_MOST_ATTRIBUTES = 64
_MOST_ALIKE = 8
_PID = 4  # its place among `_facts`
_HASHES = ("md5", "sha1", "sha256")
_HASH = re.compile(r"[0-9a-fA-F]{32,128}")
_AUTHENTICODE = "SHA256AC"  # of 64 digits too, but no SHA-256 of the file
_Facts = tuple[str, ...]
_FULL_NAME = re.compile(r"(?=.*[A-Za-z])([\w-]+)\.([\w-]+(?:\.[\w-]+)+)\.?")


def resolve(value: Any) -> tuple[Entity, ...]:
    """The entities that a list of Microsoft's names, each once, in its order (`entities_in`)."""
    return merged(entities_in(value))


def entities_in(value: Any) -> Iterator[Entity]:
    """The entities that a list of Microsoft's names, in its order and as often as it does.

    value: the list, or a string of JSON that holds it, also one that was cut off; of anything
        else there are none. Never raises. What an entity refers to is told with it: a file's
        hashes, a process's image, parent and account. Alerts are no entities.
    """
    if isinstance(value, str):
        value = loads_loosely(value)[0]
    if isinstance(value, dict):
        value = [value]
    return _entities(_Graph(value)) if isinstance(value, list) else iter(())


def alert_ids(value: Any) -> Iterator[str]:
    """The ids of alerts that an incident's entities (a list) name."""
    for item in value if isinstance(value, list) else ():
        if isinstance(item, dict) and _layouts[tuple(item)].lists_alerts:
            node = _Node(*_laid_out(item), 0, "")
            if node.type in ALERTS:
                listed = node.get("systemalertids") or node.get("systemalertid")
                yield from map(scalar, listed if isinstance(listed, list) else (listed,))


def merged(entities: Iterable[Entity]) -> tuple[Entity, ...]:
    """Each thing once, in the order of first mention (see `Things`)."""
    return tuple(Things(entities).found)


class Things:
    """Each thing once, in the order of first mention: `found`.

    Two of one type and name (case-blind) are the same thing if what is known of one says nothing
    against the other. What nobody could find anything by is left out.
    """

    def __init__(self, entities: Iterable[Entity] = ()) -> None:
        self.found: list[Entity] = []
        self._first: dict[tuple[str, str], int] = {}
        self._alike: dict[tuple[str, str], _Alike] = {}
        self.add(entities)

    def add(self, entities: Iterable[Entity]) -> None:
        found, first = self.found, self._first
        for it in entities:
            if not (it.name or it.id or it.path or it.hashes or it.command_line):
                continue
            name = (it.type, it.name.lower())
            place = first.setdefault(name, len(found))
            if place < len(found) and any(facts := _facts(it)):  # else it is the first one
                alike = self._alike.get(name)
                if alike is None:
                    alike = self._alike[name] = _Alike(place, _facts(found[place]))
                place = alike.place(facts, len(found))
            if place < len(found):
                found[place] = _joined(found[place], it)
            else:
                found.append(it)


class _Alike:
    """Things of one type and name, and what tells them apart."""

    def __init__(self, place: int, facts: _Facts) -> None:
        self._known = {place: facts}
        self._places = {facts: place}

    def place(self, said: _Facts, new: int) -> int:
        """Of the thing of which this is said; `new` if it is none of them."""
        place = self._places.get(said)
        if place is None:
            few = islice(self._known.items(), _MOST_ALIKE)  # in a hostile list all are alike
            place = next((at for at, facts in few if _agree(facts, said)), new)
        facts = tuple(a or b for a, b in zip(self._known.get(place, said), said, strict=True))
        self._known[place] = facts
        self._places[said] = self._places[facts] = place
        return place


def _facts(entity: Entity) -> _Facts:
    return (
        entity.domain.lower(),
        entity.id.lower(),
        entity.path.lower(),
        entity.command_line,
        entity.pid,
        entity.port,
        " ".join(entity.hashes).lower(),
    )


def _agree(one: _Facts, other: _Facts) -> bool:
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
    if "\\" in name:
        before, _, after = name.partition("\\")
        if before and after:
            name, domain = after, domain or before
    if "@" in name:
        before, _, after = name.rpartition("@")
        if before and "." in after:
            name, domain = before, after
    return Entity(type="user", name=name, domain=domain, **more)


def host(name: str, domain: str = "", **more: Any) -> Entity:
    """A machine; a full domain name is taken apart."""
    if "." in name and (found := _FULL_NAME.fullmatch(name)):
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
    return str(value) if isinstance(value, _NUMBERS) else ""


def last_part(resource: str) -> str:
    """Of a resource's id."""
    return resource.rstrip("/").rpartition("/")[2]


class _Plan(NamedTuple):
    """Which of the keys of an object say what of an entity of some type."""

    type: EntityType
    name: tuple[str, ...]
    id: tuple[str, ...]
    domain: tuple[str, ...]
    path: tuple[str, ...]
    roles: tuple[str, ...]
    full: tuple[str, ...]  # names with their domain
    attributes: tuple[tuple[str, str, bool], ...]  # key, in lower case, whether it may name it
    held: tuple[tuple[str, str], ...]  # key, in lower case: of entities of another type


class _Layout:
    """What the keys of an object say; a service writes the same ones in the same order, mostly.

    names: the keys by their lower case.
    alike: whether some of them differ only in case.
    types: those that may say its type, the best first.
    """

    def __init__(self, keys: tuple[str, ...]) -> None:
        self.names = by_lower_case(keys)
        self.alike = len(self.names) < len(keys)
        self.ref, self.id = self.names.get("$ref"), self.names.get("$id")
        self.types = self._those(("@odata.type", "type"))
        self.lists_alerts = bool(self._those(("systemalertids", "systemalertid")))
        self.plans = Memo(self._plan, most=4)

    def _those(self, wanted: Iterable[str]) -> tuple[str, ...]:
        return tuple(self.names[name] for name in wanted if name in self.names)

    def _plan(self, kind: str) -> _Plan:
        form = shape(kind)
        naming = {*form.name, *form.id, *form.domain, *form.path}
        those = self._those
        return _Plan(
            form.type,
            those(form.name),
            those(form.id),
            those(form.domain),
            those(form.path),
            those(("roles", "role")),
            those(("fqdn", "fullname")),
            tuple((key, it, it in naming) for it, key in self.names.items() if it not in UNTOLD),
            tuple((key, it) for it, key in self.names.items() if HELD.get(it, kind) != kind),
        )


_layouts = Memo(_Layout, most=512, longest=768, size=length_together)
_types = Memo(known)


class _Node:
    """An entity as it came: its place in the list, type, and fields, as its layout names them.

    key: what it stands under in another entity, in lower case.
    bare: what names it, once that was asked for (`_bare`).
    """

    __slots__ = ("bare", "fields", "key", "layout", "place", "plan", "type")

    def __init__(self, fields: dict[str, Any], layout: _Layout, place: int, key: str) -> None:
        self.place = place
        self.key = key
        self.fields = fields
        self.layout = layout
        self.bare: Entity | None = None
        for each in layout.types:
            if found := _types[scalar(fields[each])]:
                self.type = found
                break
        else:
            self.type = HELD.get(key, "")
        if self.type in INSIDE and isinstance(inside := self.get(INSIDE[self.type]), dict):
            self.fields, self.layout = _laid_out(_first_of(fields, inside))
        self.plan = self.layout.plans[self.type]

    def get(self, name: str) -> Any:
        key = self.layout.names.get(name)
        return None if key is None else self.fields[key]

    def text(self, *names: str) -> str:
        for name in names:
            if found := scalar(self.get(name)):
                return found
        return ""

    def first(self, keys: tuple[str, ...]) -> str:
        """Of keys in the object's own spelling."""
        for key in keys:
            if found := scalar(self.fields[key]):
                return found
        return ""


def _laid_out(fields: dict[str, Any]) -> tuple[dict[str, Any], _Layout]:
    """An object and its layout; no two keys of it differ only in case."""
    layout = _layouts[tuple(fields)]
    if layout.alike:
        fields = _first_of(fields)
        layout = _layouts[tuple(fields)]
    return fields, layout


def _first_of(*objects: dict[str, Any]) -> dict[str, Any]:
    """Their fields; of keys that differ only in case the first with a value."""
    fields: dict[str, Any] = {}
    names = set()
    for each in objects:
        for name, value in each.items():
            if value is not None and (folded := name.lower()) not in names:
                names.add(folded)
                fields[name] = value
    return fields


class _Graph:
    """All entities of a list, those inside others too, and what their ids mean."""

    def __init__(self, listed: list[Any]) -> None:
        self.nodes: list[_Node] = []
        # By the identity of the object that it came as.
        self._of: dict[int, _Node] = {}
        self._refs: dict[int, str] = {}
        self._places: dict[tuple[str, str], list[int]] | None = None
        waiting: list[tuple[list[Any] | dict[str, Any], str]] = [(listed, "")]
        while waiting:  # not by recursion: they nest without bound
            item, key = waiting.pop()
            if isinstance(item, list):
                waiting += [(value, key) for value in reversed(item) if value.__class__ in _NESTED]
                continue
            fields, layout = _laid_out(item)
            if layout.ref and fields[layout.ref] is not None:
                self._refs[id(item)] = scalar(fields[layout.ref])
            elif layout.types or key in HELD:
                node = self._of[id(item)] = _Node(fields, layout, len(self.nodes), key)
                self.nodes.append(node)
            for name, value in reversed(item.items()):
                if value.__class__ in _NESTED:
                    waiting.append((value, name.lower()))

    def held(self, by: _Node, name: str, wanted: str = "") -> list[_Node]:
        """The entities under a key of another one, given in lower case."""
        value = by.get(name)
        if value is None:
            return []
        items = value if isinstance(value, list) else (value,)
        found = (self.meant(item, by, wanted) for item in items)
        return [node for node in found if node is not None]

    def meant(self, item: Any, by: _Node, wanted: str = "") -> _Node | None:
        """The entity that an object in another one is, or names."""
        node = self._of.get(id(item))
        if node is None and (name := self._refs.get(id(item))):
            node = self._called(name, by.place, wanted)
        if node is None or node is by or not node.type or wanted not in ("", node.type):
            return None
        return node

    def _called(self, name: str, place: int, wanted: str) -> _Node | None:
        """Of several entities with this id the last before the place, else the first after."""
        if self._places is None:
            self._places = self._by_id()
        places = self._places.get((name, wanted))
        if not places:
            return None
        return self.nodes[places[max(bisect_left(places, place) - 1, 0)]]

    def _by_id(self) -> dict[tuple[str, str], list[int]]:
        """Of the entities with an id, and a type or any."""
        places: dict[tuple[str, str], list[int]] = {}
        for node in self.nodes:
            if node.layout.id and node.type and (name := scalar(node.fields[node.layout.id])):
                places.setdefault((name, node.type), []).append(node.place)
                places.setdefault((name, ""), []).append(node.place)
        return places


def _entities(graph: _Graph) -> Iterator[Entity]:
    connected = dict(_connections(graph))
    in_files = {
        each.place
        for node in graph.nodes
        if "filehashes" in node.layout.names
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
            if node.plan.held:
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
    for key, name in node.plan.held:
        held_as, value = HELD[name], node.fields[key]
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
    if node.bare is None:
        node.bare = _named(node)
    return node.bare


def _named(node: _Node) -> Entity:
    plan, fields = node.plan, node.fields
    name, its_id = node.first(plan.name), node.first(plan.id)
    domain, path = node.first(plan.domain), node.first(plan.path)
    part = ROLES.get(node.key, "")
    if plan.roles:
        part = role(next(filter(None, map(fields.get, plan.roles)), None)) or part
    if plan.type == "user":
        return user(name, domain, id=its_id, role=part)
    if plan.type == "host":
        for key in plan.full:
            full = scalar(fields[key])
            if full.lower().startswith(f"{name.lower()}."):
                name = full
        return host(name, domain, id=its_id, role=part)
    if plan.type == "file":
        return file(name, path, role=part)
    if plan.type == "registry":
        path = "\\".join(filter(None, (node.text("hive", "registryhive"), path)))
    if plan.type == "resource":
        name = name or last_part(its_id)
    return Entity(type=plan.type, name=name, domain=domain, path=path, id=its_id, role=part)


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
    if not attributes and not more:
        return bare
    return msgspec.structs.replace(bare, attributes=attributes, **more)


def _hashes(node: _Node, graph: _Graph, others: dict[str, str]) -> tuple[str, ...]:
    """A file's; what stands in a hash's place, and hashes of another kind, go to `others`."""
    said = filter(None, map(node.text, _HASHES))
    found = {value: None for value in said if is_hash(value)}
    for each in graph.held(node, "filehashes", "filehash"):
        value, algorithm = each.text("value"), each.text("algorithm")
        if is_hash(value) and algorithm.upper() != _AUTHENTICODE:
            found[value] = None
        elif value:
            others[algorithm or "FileHash"] = value
    return tuple(found)


def _attributes(node: _Node, graph: _Graph, bare: Entity) -> dict[str, str]:
    """What names it not: plain values, those of plain objects in it, what it refers to."""
    fields = node.fields
    found: dict[str, str] = {}
    for key, name, naming in node.plan.attributes:
        value = fields[key]
        text = scalar(value)
        if value is None or (naming and _names(text, node, bare)):
            continue
        if value.__class__ is dict:
            referred = graph.meant(value, node, HELD.get(name, ""))
            if referred is not None:
                entity = _bare(referred)
                text = entity.full_name or entity.path or entity.id
            elif "$ref" not in value:
                inside = ((own, scalar(inner)) for own, inner in value.items())
                found |= {own: said for own, said in inside if said and own[:1] not in "@$"}
        elif value.__class__ is list and name not in HELD:
            text = ", ".join(filter(None, map(scalar, value)))
        if text:
            found[key] = text
        if len(found) >= _MOST_ATTRIBUTES:
            break
    return found


def _names(text: str, node: _Node, bare: Entity) -> bool:
    """Whether it stands in the entity's own fields already."""
    return (
        text in (bare.name, bare.id, bare.domain, bare.path)
        or text == bare.full_name
        or text == node.first(node.plan.path)
    )
