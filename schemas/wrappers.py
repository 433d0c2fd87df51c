"""From one hub event's body to the records it holds, each as its own bytes.

A body is a bare object, `{"records": […]}`, `{"value": […]}`, a bare array, or JSON lines. A part
that is no JSON object is refused by itself, with its bytes and the reason; the others go on.
Records are exact slices of the body, but for one repair: a lone surrogate escape (`\\ud800`),
which no Unicode text can hold and receivers choke on, becomes `\\ufffd`.
"""

from __future__ import annotations

import re

import msgspec

__all__ = ["BLANKS", "Refusal", "Repaired", "unwrap"]

BLANKS = b" \t\r\n"
"""What JSON allows between tokens."""

EMPTY = "empty body"
NO_RECORD = "the wrapper holds no record"

# A wrapper's array may have neighbours (paging, counts), but none that tells or names a record.
_TELLING = frozenset(
    [
        "@odata.type",
        "category",
        "displayname",
        "id",
        "name",
        "operationname",
        "properties",
        "resourceid",
        "systemalertid",
        "time",
        "timegenerated",
        "timestamp",
        "title",
        "type",
    ]
)
_MAGIC = {
    b"\xff\xfe": "it looks like UTF-16",
    b"\xfe\xff": "it looks like UTF-16",
    b"\x1f\x8b": "it looks like gzip",
    b"PK\x03\x04": "it looks like a zip file",
    b"Obj\x01": "it looks like Avro",
}
_BOM = b"\xef\xbb\xbf"
_NOUNS = {b'"': "a string", b"[": "an array", b"t": "true", b"f": "false", b"n": "null"}


class Refusal(msgspec.Struct, frozen=True):
    """A part of a body that is no record, and why; the reason quotes nothing of it."""

    body: bytes
    reason: str


class Repaired(msgspec.Struct, frozen=True):
    """A record that was no valid JSON object as it came, and what was done about it, by name."""

    body: bytes
    original: bytes
    repairs: tuple[str, ...]


class _Records(msgspec.Struct, forbid_unknown_fields=True):
    records: list[msgspec.Raw]


_validate = msgspec.json.Decoder(msgspec.Raw).decode
_plain_wrapper = msgspec.json.Decoder(_Records).decode
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_items = msgspec.json.Decoder(list[msgspec.Raw]).decode


def unwrap(body: bytes) -> list[bytes | Repaired | Refusal]:
    """The records in a body, in order, each a valid JSON object; at least one entry, never raises.

    Valid means: UTF-8, RFC 8259, and nested no deeper than the interpreter recurses (some
    hundreds of levels). Where a key stands twice in an object, its last value counts.
    """
    if reason := _not_text(body):
        return [Refusal(body, reason)]
    text = body.strip(BLANKS)
    if not text:
        return [Refusal(body, EMPTY)]
    try:
        return _whole(text)
    except (msgspec.DecodeError, RecursionError) as error:
        reason = _why(text, error)
    try:
        found = _whole(_repaired(text))
        if not any(isinstance(piece, Refusal) for piece in found):
            return found
    except (msgspec.DecodeError, RecursionError):
        pass
    return _lines(text) or _array(text) or [Refusal(body, reason)]


def _not_text(body: bytes) -> str:
    """Why these bytes cannot be JSON text at all; empty if they can."""
    if body.startswith(_BOM):
        return "not plain UTF-8: it begins with a byte order mark"
    if b"\0" in body[:4]:
        return "not UTF-8: it looks like UTF-16 or UTF-32"
    try:
        body.decode()
    except UnicodeDecodeError as error:
        guess = next((guess for magic, guess in _MAGIC.items() if body.startswith(magic)), "")
        place = f"byte 0x{body[error.start]:02x} at {error.start}"
        return f"not UTF-8: {guess or place}"
    return ""


def _why(text: bytes, error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "not read: it is nested too deeply"
    if text[:1] not in b'{["':
        return "not JSON: it begins with neither an object nor an array"
    why = str(error).removeprefix("JSON is malformed: ")
    return f"not JSON: {'it ends too early' if why == 'Input data was truncated' else why}"


def _whole(text: bytes) -> list[bytes | Repaired | Refusal]:
    """A valid body's records. Raises DecodeError or RecursionError."""
    if text.startswith(b'{"records"'):
        try:
            return _judged(_plain_wrapper(text).records, text)
        except msgspec.ValidationError:
            pass
    if text[0] == ord("{"):
        fields = _fields(text)
        wrapped = fields.get("records") or fields.get("value")
        if wrapped is None or any(key.lower() in _TELLING for key in fields):
            return [text]
        inner = bytes(wrapped)
        if inner[:1] != b"[":
            return [text]
        items = _items(inner)
        # "value" is an everyday name: only a list of objects makes a wrapper of it.
        objects = all(bytes(item)[:1] == b"{" for item in items)
        if "records" in fields or (objects and (items or len(fields) == 1)):
            return _judged(items, text)
        return [text]
    if text[0] == ord("["):
        return _judged(_items(text), text)
    _validate(text)
    return [_judge(text)]


def _judged(items: list[msgspec.Raw], text: bytes) -> list[bytes | Repaired | Refusal]:
    return [_judge(bytes(item)) for item in items] or [Refusal(text, NO_RECORD)]


def _judge(item: bytes) -> bytes | Refusal:
    """A valid JSON value, if it is an object."""
    if item[0] == ord("{"):
        return item
    return Refusal(item, f"a record is a JSON object, not {_NOUNS.get(item[:1], 'a number')}")


# What follows serves bodies that are not valid as a whole.

_LONE_SURROGATE = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
    rb"|(u[dD][89a-fA-F][0-9a-fA-F]{2})|.)",
    re.DOTALL,
)
_TOKEN = re.compile(rb'\\.|["{}\[\],]', re.DOTALL)
_FIRST_KEY = re.compile(rb'\s*\{\s*("(?:[^"\\]|\\.)*")', re.DOTALL)
_ARRAY = re.compile(
    rb'(?:\{\s*(?:"(?:@odata\.\w+|nextLink|count)"\s*:\s*(?:"[^"\\]*"|\d+)\s*,\s*)*'
    rb'"(?:records|value)"\s*:\s*)?\['
)


def _repaired(text: bytes) -> bytes:
    """The text with its lone surrogate escapes replaced; of the same length."""
    if b"\\u" not in text:
        return text
    return _LONE_SURROGATE.sub(lambda match: rb"\ufffd" if match[1] else match[0], text)


def _lines(text: bytes) -> list[bytes | Repaired | Refusal]:
    """JSON lines, of which the first or the last one is a whole object. Else nothing."""
    lines = [line for line in text.split(b"\n") if line.strip(BLANKS)]
    first = _is_object(lines[0])
    if len(lines) > 1 and (first or (_is_object(lines[-1]) and not _ARRAY.match(text))):
        return [piece for line in lines for piece in unwrap(line)]
    return []


def _is_object(line: bytes) -> bool:
    try:
        return bytes(_validate(line)).strip(BLANKS)[0] == ord("{")
    except (msgspec.DecodeError, RecursionError):
        return False


def _array(text: bytes) -> list[bytes | Repaired | Refusal]:
    """The items of an array (in a wrapper or bare) of which one or more are broken."""
    head = _ARRAY.match(text)
    if not head:
        return []
    pieces, rest = _split(text[head.end() :])
    found: list[bytes | Repaired | Refusal] = [_try(piece) for piece in pieces]
    if rest and not _is_object(b'{"":0' + rest):  # more than the wrapper's other keys and its end
        found.append(Refusal(rest, "not JSON: it follows the end of the records"))
    return found


def _try(piece: bytes) -> bytes | Refusal:
    try:
        _validate(repaired := _repaired(piece))
    except (msgspec.DecodeError, RecursionError) as error:
        return Refusal(piece, _why(piece, error))
    found = _judge(repaired)
    return Refusal(piece, found.reason) if isinstance(found, Refusal) else found


def _split(text: bytes) -> tuple[list[bytes], bytes]:
    """The items of an array, from behind its bracket; and what follows its end. Linear.

    Stray quotes and missing brackets run an item into the next. So an item also ends where valid
    JSON could not go on: at a comma and an object that begins with the same key as the first
    item, inside a string or directly inside an object.
    """
    first = _FIRST_KEY.match(text)
    sibling = re.compile(rb",\s*\{\s*" + re.escape(first[1]) + rb"\s*:") if first else None
    items: list[bytes] = []
    at = 0
    nest = bytearray()
    inside = False  # a string
    for token in _TOKEN.finditer(text):
        mark = token[0]
        if mark == b",":
            lost = (inside or nest[-1:] == b"{") and sibling and sibling.match(text, token.start())
            if lost or not (inside or nest):
                items.append(text[at : token.start()])
                at = token.end()
                nest.clear()
                inside = False
        elif mark == b'"':
            inside = not inside
        elif inside or len(mark) == 2:
            continue
        elif mark in b"{[":
            nest += mark
        else:
            # A bracket that was forgotten is looked for only so deep, lest this be quadratic.
            opened = nest.rfind(b"{" if mark == b"}" else b"[", max(0, len(nest) - 64))
            if opened >= 0:
                del nest[opened:]
            elif mark == b"]":
                items.append(text[at : token.start()])
                at = token.end()
                break
    else:
        items.append(text[at:])
        at = len(text)
    return [item.strip(BLANKS) for item in items if item.strip(BLANKS)], text[at:].strip(BLANKS)
