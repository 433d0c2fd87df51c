"""Windows events, however they come: as XML, in a row's columns, or as text that was rendered.

Sources, at learn.microsoft.com: Windows "Event Schema" (windows/win32/wes/eventschema-schema: the
elements; winmeta.xml: levels and audit keywords); names of data: as `_windows_names`.

An event's data goes by its names in lower case with underscores: `SubjectUserName` and `Subject
User Name` are `subject_user_name`. What becomes no entity is an attribute under that name.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import msgspec

from schemas.entities import Details, Entity, Role
from schemas.kinds import _entities
from schemas.kinds._things import numeric, process
from schemas.kinds._values import snake
from schemas.kinds._windows_names import ABOUT_GROUPS, EVENTS, LOGON_TYPES, REASONS, WITH_REASON

__all__ = [
    "Event",
    "details",
    "facts",
    "lines",
    "outcome",
    "parse",
    "severity",
    "title",
    "values",
]

_MOST = 1 << 18  # characters of XML; Windows writes no more than a quarter
_MOST_OF_SYSTEM = 1 << 13
_MOST_VALUES = 512


class Event(msgspec.Struct, kw_only=True):
    """An event's `System` part as it stands there, its data, and its text if it was rendered."""

    provider: str = ""
    event_id: str = ""
    level: str = ""
    keywords: str = ""
    channel: str = ""
    computer: str = ""
    record_id: str = ""
    time: str = ""
    user_id: str = ""
    message: str = ""
    facts: dict[str, str] = {}
    data: dict[str, str] = {}


# XML, without a parser's strictness: forwarders cut events, and Windows writes characters that XML
# does not allow. There are no entities but the five and numbers, so nothing expands.

_SYSTEM = re.compile(
    r"<(?:\w{1,16}:)?(Provider|EventID|Level|Task|Opcode|Keywords|TimeCreated|EventRecordID"
    r"|Correlation|Execution|Channel|Computer|Security)\b([^<>]*)>([^<]*)"
)
_MESSAGE = re.compile(r"<(?:\w{1,16}:)?Message>([^<]*)")
_TAG = re.compile(r"<([^<>]{1,8192})>([^<]*)")
_ATTRIBUTE = re.compile(r"""(?<![\w:])(\w{1,64})\s{0,8}=\s{0,8}(?:'([^']*)'|"([^"]*)")""")
_ENTITY = re.compile(r"&(?:(lt|gt|amp|quot|apos)|#(\d{1,7})|#x([0-9a-fA-F]{1,6}));")
_CHARACTERS = {"lt": "<", "gt": ">", "amp": "&", "quot": '"', "apos": "'"}


def parse(xml: str, whole: bool = True) -> Event:
    """The event in an `<Event>` element; of one that was cut, what is there. Linear, never raises.

    whole: without, its data and further facts are left out.
    """
    head, _, rest = xml[:_MOST].partition("</System>")
    said = {name: (its, text) for name, its, text in _SYSTEM.findall(head[:_MOST_OF_SYSTEM])}

    def text(name: str) -> str:
        return _unescaped(said[name][1]).strip() if name in said else ""

    def attribute(name: str, of: str) -> str:
        return _attributes(said[of][0]).get(name, "") if of in said else ""

    data, rendering, rendered = rest.partition("<RenderingInfo")
    message = _MESSAGE.search(rendered) if rendering else None
    event = Event(
        provider=attribute("Name", "Provider"),
        event_id=text("EventID"),
        level=text("Level"),
        keywords=text("Keywords"),
        channel=text("Channel"),
        computer=text("Computer"),
        record_id=text("EventRecordID"),
        time=attribute("SystemTime", "TimeCreated"),
        message=_unescaped(message[1]).strip() if message else "",
    )
    if whole:
        event.user_id = attribute("UserID", "Security")
        event.data = values(data)
        event.facts = {
            "task": text("Task"),
            "opcode": text("Opcode"),
            "provider_guid": attribute("Guid", "Provider").strip("{}"),
            "activity_id": attribute("ActivityID", "Correlation").strip("{}"),
            "execution_process_id": attribute("ProcessID", "Execution"),
            "execution_thread_id": attribute("ThreadID", "Execution"),
        }
    return event


def values(xml: str) -> dict[str, str]:
    """The values in `EventData` or `UserData`; those without a name are `param1`, `param2`, …"""
    found: dict[str, str] = {}
    unnamed = itertools.count(1)
    for name, attributes, text in itertools.islice(_leaves(xml[:_MOST]), _MOST_VALUES):
        if name in ("Data", "Param"):
            name = _attributes(attributes).get("Name") or f"param{next(unnamed)}"
        _put(found, name, _unescaped(text))
    return found


def _leaves(xml: str) -> Iterator[tuple[str, str, str]]:
    """The elements without elements in them: name, attributes as they stand there, text."""
    opened: tuple[str, str, str] | None = None
    for tag in _TAG.finditer(_without_cdata(xml)):
        body, text = tag.groups()
        words = body.strip("/").split(None, 1) or [""]
        name = words[0].rpartition(":")[2]
        if body[0] == "/":
            if opened and opened[0] == name:
                yield opened
            opened = None
        elif body[0] not in "?!":
            opened = (name, words[1] if len(words) > 1 else "", text)
            if body[-1] == "/":
                yield (*opened[:2], "")
                opened = None


def _without_cdata(xml: str) -> str:
    first, *others = xml.split("<![CDATA[")
    for other in others:
        text, _, after = other.partition("]]>")
        first += text.replace("&", "&amp;").replace("<", "&lt;") + after
    return first


def _attributes(text: str) -> dict[str, str]:
    return {name: _unescaped(one or two) for name, one, two in _ATTRIBUTE.findall(text)}


def _unescaped(text: str) -> str:
    return _ENTITY.sub(_character, text) if "&" in text else text


def _character(found: re.Match[str]) -> str:
    name, decimal, hexadecimal = found.groups()
    if name:
        return _CHARACTERS[name]
    code = int(decimal) if decimal else int(hexadecimal, 16)
    return chr(code) if code < 0xD800 or 0xDFFF < code < 0x110000 else "\ufffd"


# Names and values

_BLANK = frozenset({"", "-", "-\\-", "n/a", "null", "null sid", "s-1-0-0", "(unknown user)"})
_LINE = re.compile(r"([A-Za-z]\w{0,63}): ?(.*)")


def _put(data: dict[str, str], name: str, value: str) -> None:
    value = value.strip()
    if value.lower() not in _BLANK:
        data.setdefault(snake(name[:128]), value)


def facts(pairs: Mapping[str, Any]) -> dict[str, str]:
    """The values of an object that say something, as text, by their names; no lists or objects."""
    found: dict[str, str] = {}
    for name, value in itertools.islice(pairs.items(), _MOST_VALUES):
        _put(found, name, _entities.scalar(value))
    return found


def lines(text: str) -> dict[str, str]:
    """The `Key: value` lines of a rendered text, as Sysmon writes them."""
    found: dict[str, str] = {}
    for line in text[:_MOST].splitlines()[1:_MOST_VALUES]:
        if match := _LINE.match(line):
            _put(found, match[1], match[2])
    return found


# Severity, outcome, names

_LEVELS = {
    **dict.fromkeys(("0", "logalways"), "informational"),
    **dict.fromkeys(("1", "critical"), "critical"),
    **dict.fromkeys(("2", "error"), "high"),
    **dict.fromkeys(("3", "warning"), "medium"),
    **dict.fromkeys(("4", "information", "informational"), "informational"),
    **dict.fromkeys(("5", "verbose"), "informational"),
    **dict.fromkeys(("8", "success audit"), "informational"),  # of the Windows before Vista
}
_FAILURE, _SUCCESS = 1 << 52, 1 << 53  # winmeta's keywords


def outcome(level: str, keywords: str) -> Literal["", "success", "failure"]:
    """What an audit says: by its keywords; a row of Log Analytics has 8 or 16 as its level."""
    try:
        bits = int(keywords, 0) if len(keywords) <= 20 else 0
    except ValueError:
        bits = 0
    if bits & _FAILURE or level == "16" or "audit failure" in keywords.lower():
        return "failure"
    if bits & _SUCCESS or level == "8" or "audit success" in keywords.lower():
        return "success"
    return ""


def severity(level: str, keywords: str) -> tuple[str, str]:
    """On our scale, and the original word: a failed audit is medium, else the level tells."""
    if outcome(level, keywords) == "failure":
        return "medium", "Audit Failure"
    return _LEVELS.get(level.lower(), "unknown"), level


def name_of(provider: str, event_id: str) -> str:
    """What its provider's documentation calls the event; empty where it is not a common one."""
    return EVENTS.get(provider.lower(), {}).get(event_id, "")


def title(provider: str, event_id: str, text: str = "") -> str:
    """`4624 - An account was successfully logged on`. text: what the record says of itself."""
    if not (name := name_of(provider, event_id)):
        first = text[:512].strip().partition("\n")[0].strip().removeprefix(event_id)
        name = first.removeprefix(" - ").strip().rstrip(":.")[:160] or provider
    return " - ".join(filter(None, (event_id, name)))


# Entities


def details(event: Event, resource_id: str = "") -> Details:
    """What an event mentions. resource_id: of the computer, where the record says it."""
    data = dict(event.data)
    found = [
        _entities.host(event.computer, id=resource_id),
        *_users(event, data),
        *_hosts(data),
        *_addresses(data),
        *_processes(data),
        *_things(event, data),
    ]
    if (logon := data.get("logon_type", "")) in LOGON_TYPES:
        data["logon_type_name"] = LOGON_TYPES[logon]
    reason = data.pop("failure_reason", "")
    if event.event_id in WITH_REASON:
        codes = (data.get("sub_status", ""), data.get("status", ""))
        reason = next(filter(None, (REASONS.get(_integer(code)) for code in codes)), reason)
    if reason:
        data["reason"] = reason
    said = {
        "event_id": event.event_id,
        "channel": event.channel,
        "provider": event.provider,
        "record_id": event.record_id,
        **event.facts,
    }
    return Details(
        entities=_entities.merged(found),
        action=name_of(event.provider, event.event_id) or event.event_id,
        outcome=outcome(event.level, event.keywords),
        attributes={f"data_{name}" if name in said else name: value for name, value in data.items()}
        | {name: value for name, value in said.items() if value},
    )


def _users(event: Event, data: dict[str, str]) -> Iterator[Entity]:
    """Each account once; the actor's own before those that it acts on."""
    seen: set[tuple[str, str]] = set()
    for make in (_pairs, _single_users):
        for user in make(event, data):
            key = (user.name.lower() or user.id.lower(), user.domain.lower())
            if key[0] and key not in seen:
                seen.add(key)
                yield user
    # Sysmon writes all of its events as SYSTEM.
    if not seen and event.user_id.startswith("S-1-") and "sysmon" not in event.provider.lower():
        yield Entity(type="user", id=event.user_id, role="actor")


def _pairs(event: Event, data: dict[str, str]) -> Iterator[Entity]:
    """Accounts in several values: name, domain and SID."""
    domain = data.get("target_domain_name", "")
    roles: dict[str, Role] = {
        "subject": "actor",
        "target": "target",
        "target_outbound": "target",
        "old_target": "target",
        "new_target": "target",
    }
    for prefix, role in roles.items():
        name = data.pop(f"{prefix}_user_name", "")
        its = data.pop(f"{prefix}_domain_name", "") or (domain if "_target" in prefix else "")
        sids = (data.pop(f"{prefix}_user_sid", ""), data.pop(f"{prefix}_sid", ""))
        user = _user(name, its, next(filter(None, sids), ""), role)
        is_group = prefix == "target" and event.event_id in ABOUT_GROUPS
        yield msgspec.structs.replace(user, type="group") if is_group else user
    name = data.pop("member_name", "")  # a distinguished name
    if common := re.match(r"CN=((?:[^,\\]|\\.){1,256})", name, re.IGNORECASE):
        name = re.sub(r"\\(.)", r"\1", common[1])
    yield Entity(type="user", name=name, id=data.pop("member_sid", ""), role="target")


def _single_users(event: Event, data: dict[str, str]) -> Iterator[Entity]:
    """Accounts in one value: `DOMAIN\\name`, a principal name, or a SID."""
    roles: dict[str, Role] = {
        "user": "actor",  # Sysmon, Defender
        "parent_user": "",
        "source_user": "actor",
        "target_user": "target",
        "detection_user": "actor",
        "requester": "actor",
        "account_name": "target",
        "service_account": "target",
        "user_principal_name": "target",
        "claims_name": "actor",  # AD FS
        # Log Analytics puts some of the above together.
        "subject_account": "actor",
        "target_account": "target",
        "account": "actor",
        "user_name": "actor",
    }
    for name, role in roles.items():
        yield _user(data.pop(name, ""), "", "", role)


def _user(name: str, domain: str, sid: str, role: Role) -> Entity:
    if not sid.startswith("S-1-"):
        name, sid = name or sid, ""  # forwarders may resolve it
    if name.startswith("S-1-"):
        name, sid = "", sid or name
    return _entities.user(name.lstrip("\\"), domain, id=sid, role=role)


def _hosts(data: dict[str, str]) -> Iterator[Entity]:
    roles: dict[str, Role] = {
        "workstation_name": "source",
        "workstation": "source",
        "client_name": "source",
        "source_hostname": "source",
        "destination_hostname": "target",
        "target_server_name": "target",
    }
    for name, role in roles.items():
        called = data.pop(name, "").lstrip("\\")
        if ip := numeric(called):
            yield Entity(type="ip", name=ip, role=role)
        elif called and called.lower() != "localhost":
            yield _entities.host(called, role=role)
    if query := data.pop("query_name", ""):
        yield Entity(type="domain", name=query)


def _addresses(data: dict[str, str]) -> Iterator[Entity]:
    places: tuple[tuple[str, str, Role], ...] = (
        ("ip_address", "ip_port", "source"),
        ("client_address", "client_port", "source"),
        ("client_ip_address", "", "source"),
        ("source_address", "source_port", "source"),
        ("source_ip", "source_port", "source"),
        ("dest_address", "dest_port", "target"),
        ("destination_ip", "destination_port", "target"),
        ("remote_ip_address", "remote_port", ""),
        ("address", "", "source"),
    )
    for name, port, role in places:
        if ip := numeric(data.get(name, "")):
            del data[name]
            number = data.pop(port, "")
            yield Entity(type="ip", name=ip, port="" if number == "0" else number, role=role)
    for result in data.get("query_results", "").split(";")[:256]:  # Sysmon's DNS query
        if ip := numeric(result):
            yield Entity(type="ip", name=ip)


def _processes(data: dict[str, str]) -> Iterator[Entity]:
    take = functools.partial(_take, data)
    hashes = _hashes(data.pop("hashes", "") or data.pop("hash", ""), data)
    owner = next((it for it in ("image_loaded", "target_filename") if it in data), "image")
    if created := take("new_process_name"):  # 4688
        creator = _pid(take("process_id"))
        yield process(
            created,
            pid=_pid(take("new_process_id")),
            parent_pid=creator,
            command_line=take("command_line"),
            role="target",
        )
        if parent := take("parent_process_name"):
            yield process(parent, pid=creator, role="actor")
    elif image := take("image"):  # Sysmon
        parent, parent_pid = take("parent_image"), _pid(take("parent_process_id"))
        yield process(
            image,
            pid=_pid(take("process_id")),
            parent_pid=parent_pid,
            command_line=take("command_line"),
            hashes=hashes if owner == "image" else (),
            role="target" if parent else "actor",
        )
        command = take("parent_command_line")
        yield process(parent, pid=parent_pid, command_line=command, role="actor")
    names: tuple[tuple[str, str, str, Role], ...] = (
        ("source_image", "source_process_id", "", "actor"),
        ("target_image", "target_process_id", "", "target"),
        ("process_name", "process_id", "command_line", "actor"),
        ("caller_process_name", "caller_process_id", "", "actor"),
        ("application", "process_id", "", "actor"),
    )
    for name, pid, command, role in names:
        if path := take(name):
            said = take(command)
            yield process(path, pid=_pid(take(pid)), command_line=said, role=role)
    if owner != "image":
        yield _entities.file(data.pop(owner), hashes=hashes, role="target")


def _take(data: dict[str, str], name: str) -> str:
    return data.pop(name, "")


def _hashes(listed: str, data: dict[str, str]) -> tuple[str, ...]:
    """`MD5=…,SHA256=…,IMPHASH=…`: an import hash has the length of an MD5, but is none."""
    found: list[str] = []
    for item in listed[:4096].split(","):
        algorithm, sign, value = item.strip().rpartition("=")
        if sign and algorithm.lower() == "imphash":
            data["imphash"] = value
        elif _entities.is_hash(value):
            found.append(value)
    return tuple(found)


def _things(event: Event, data: dict[str, str]) -> Iterator[Entity]:
    """Files, registry keys, services, malware, directory objects."""
    take = functools.partial(_take, data)
    digest = take("file_hash")
    yield _entities.file(
        take("file_path"), hashes=(digest,) if _entities.is_hash(digest) else (), role="target"
    )
    for path in take("path").split(";")[:64]:  # Defender: "file:_C:\x.exe; containerfile:_…"
        yield _entities.file((path.partition(":_")[2] or path).strip(), role="target")
    yield Entity(type="malware", name=take("threat_name"))
    if target := take("target_object"):
        names_value = event.event_id == "13"
        key, _, value = target.rpartition("\\") if names_value else (target, "", "")
        yield Entity(type="registry", path=key, name=value, role="target")
    kind, name = data.get("object_type", "").lower(), take("object_name")
    if kind == "file":
        yield _entities.file(name, role="target")
    elif kind == "key" or event.event_id == "4657":
        yield Entity(type="registry", path=name, name=take("object_value_name"), role="target")
    else:
        yield Entity(type="other", name=name, role="target")
    yield Entity(type="other", name=take("object_dn"), role="target")
    command = take("service_file_name") or take("image_path")  # 4697, 7045
    if command:
        yield Entity(type="other", name=data.get("service_name", ""), command_line=command)
    if relative := take("relative_target_name"):  # 5145
        yield _entities.file(f"{data.get('share_name', '')}\\{relative}", role="target")
    if (url := data.get("url", "")) and "://" in url:  # BITS
        yield Entity(type="url", name=take("url"))


def _pid(text: str) -> str:
    """As a decimal number; the Security log writes hexadecimal ones."""
    number = _integer(text)
    return str(number) if number > 0 else ""


def _integer(text: str) -> int:
    try:
        return int(text[:20], 0)
    except ValueError:
        return 0
