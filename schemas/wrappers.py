"""From one hub event's body to the records it holds, each as its own bytes.

A body is a bare object, `{"records": […]}`, `{"value": […]}`, a bare array, JSON lines, or a
query's result, `{"tables": [{"columns": …, "rows": …}]}`. Records are exact slices of it, but
for a result's rows, which become objects, and for what had to be repaired (`schemas.repairs`). A
part that no repair reads is refused by itself, with its bytes and the reason; the others go on.
"""

from __future__ import annotations

import json
import re

import msgspec

from schemas.repairs import Repaired, repaired, text_line, without_lone_surrogates

__all__ = ["BLANKS", "TELLING", "Refusal", "unwrap"]

BLANKS = b" \t\r\n"
"""What JSON allows between tokens."""

EMPTY = "empty body"
NO_RECORD = "the wrapper holds no record"

# A wrapper's array may have neighbours (paging, counts), but none that tells or names a record.
TELLING = frozenset(
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
_MOST_BROKEN = 100  # pieces of one body that no repair reads: then it is no longer tried
_END_OF_EVENT = b"</Event>"
_BOM = b"\xef\xbb\xbf"
_NOUNS = {b'"': "a string", b"[": "an array", b"t": "true", b"f": "false", b"n": "null"}


class Refusal(msgspec.Struct, frozen=True):
    """A part of a body that is no record, and why; the reason quotes nothing of it."""

    body: bytes
    reason: str


class _Records(msgspec.Struct, forbid_unknown_fields=True):
    records: list[msgspec.Raw]


class _Column(msgspec.Struct):
    name: str


class _Table(msgspec.Struct):
    columns: list[_Column]
    rows: list[list[msgspec.Raw]]


_validate = msgspec.json.Decoder(msgspec.Raw).decode
_plain_wrapper = msgspec.json.Decoder(_Records).decode
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_items = msgspec.json.Decoder(list[msgspec.Raw]).decode
_tables = msgspec.json.Decoder(list[_Table]).decode
_string = msgspec.json.Decoder(str).decode
_scan = json.JSONDecoder().raw_decode

Pieces = list[bytes | Repaired | Refusal]


def unwrap(body: bytes) -> Pieces:
    """The records in a body, in order, each a valid JSON object; at least one entry, never raises.

    Valid means: UTF-8, RFC 8259, and nested no deeper than the interpreter recurses (some
    hundreds of levels). Where a key stands twice in an object, its last value counts.
    """
    if body.startswith(_BOM):
        return [_marked(piece, body) for piece in _unmarked(body[len(_BOM) :])]
    return _unmarked(body)


def _unmarked(body: bytes) -> Pieces:
    if reason := _not_text(body):
        return [Refusal(body, reason)]
    text = body.strip(BLANKS)
    if not text:
        return [Refusal(body, EMPTY)]
    try:
        return _whole(text)
    except (msgspec.DecodeError, RecursionError) as error:
        reason = _why(text, error)
    return (
        _surrogates(text)
        or _windows_events(text)
        or _lines_or_objects(text)
        or _array(text)
        or [text_line(text) or repaired(text) or Refusal(body, reason)]
    )


def _marked(piece: bytes | Repaired | Refusal, body: bytes) -> bytes | Repaired | Refusal:
    """A piece of what followed a byte order mark."""
    if isinstance(piece, bytes):
        return Repaired(piece, body if body.endswith(piece) else piece, ("byte_order_mark",))
    if isinstance(piece, Repaired):
        return Repaired(piece.body, piece.original, ("byte_order_mark", *piece.repairs))
    return piece


def _not_text(body: bytes) -> str:
    """Why these bytes cannot be JSON text at all; empty if they can."""
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


def _whole(text: bytes) -> Pieces:
    """A valid body's records. Raises DecodeError or RecursionError."""
    if text.startswith(b'{"records"'):
        try:
            return _judged(_plain_wrapper(text).records, text)
        except msgspec.ValidationError:
            pass
    if text[0] == ord("{"):
        fields = _fields(text)
        wrapped = fields.get("records") or fields.get("value") or fields.get("tables")
        if wrapped is None or any(key.lower() in TELLING for key in fields):
            return [text]
        inner = bytes(wrapped)
        if inner[:1] != b"[":
            return [text]
        items = _items(inner)
        # "value" is an everyday name: only a list of objects makes a wrapper of it.
        objects = "value" in fields and all(bytes(item)[:1] == b"{" for item in items)
        if "records" in fields or (objects and (items or len(fields) == 1)):
            return _judged(items, text)
        if "tables" in fields and "value" not in fields:
            return _rows(inner) or [text]
        return [text]
    if text[0] == ord("["):
        return _judged(_items(text), text)
    _validate(text)
    if text[:1] == b'"' and _is_object(quoted := _string(text).encode().strip(BLANKS)):
        return [Repaired(quoted, text, ("json_in_string",))]
    return [_judge(text)]


def _judged(items: list[msgspec.Raw], text: bytes) -> Pieces:
    return [_judge(bytes(item)) for item in items] or [Refusal(text, NO_RECORD)]


def _judge(item: bytes) -> bytes | Refusal:
    """A valid JSON value, if it is an object."""
    if item[0] == ord("{"):
        return item
    return Refusal(item, f"a record is a JSON object, not {_NOUNS.get(item[:1], 'a number')}")


def _rows(tables: bytes) -> Pieces:
    """The rows of a query's result as objects; nothing if it is none."""
    try:
        found = _tables(tables)
    except msgspec.ValidationError:
        return []
    pieces: Pieces = []
    for table in found:
        names = [column.name for column in table.columns]
        for row in table.rows:
            if len(row) == len(names):
                pieces.append(msgspec.json.encode(dict(zip(names, row, strict=True))))
            else:
                wrong = f"a row of {len(row)} values in a table of {len(names)} columns"
                pieces.append(Refusal(msgspec.json.encode(row), wrong))
    return pieces or [Refusal(tables, NO_RECORD)]


# What follows serves bodies that are not valid as a whole.

_TOKEN = re.compile(rb'\\.|["{}\[\],]', re.DOTALL)
_BLANK = re.compile(r"[ \t\r\n]*")
_FIRST_KEY = re.compile(rb'\s*\{\s*("(?:[^"\\]|\\.)*")', re.DOTALL)
_ARRAY = re.compile(
    rb'(?:\{\s*(?:"(?:@odata\.\w+|nextLink|count)"\s*:\s*(?:"[^"\\]*"|\d+)\s*,\s*)*'
    rb'"(?:records|value)"\s*:\s*)?\['
)


def _surrogates(text: bytes) -> Pieces:
    """A body that is valid once its lone surrogates are replaced. Else nothing."""
    body = without_lone_surrogates(text)
    if body == text:
        return []
    try:
        found = _whole(body)
    except (msgspec.DecodeError, RecursionError):
        return []
    pieces: Pieces = []
    at = 0
    for piece in found:
        if not isinstance(piece, bytes):
            return []
        # Of the same length: what came stands at the same place.
        at = body.find(piece, at)
        came = text[at : at + len(piece)]
        pieces.append(piece if came == piece else Repaired(piece, came, ("lone_surrogate",)))
        at += len(piece)
    return pieces


def _windows_events(text: bytes) -> Pieces:
    """Windows events in XML behind each other, whose values may hold line breaks. Else nothing."""
    if not text.startswith((b"<Event>", b"<Event ")) or not text.endswith(_END_OF_EVENT):
        return []
    events = [event.strip(BLANKS) + _END_OF_EVENT for event in text.split(_END_OF_EVENT)[:-1]]
    return [
        text_line(event) or Refusal(event, "not XML: it follows a Windows event")
        for event in events
    ]


def _lines_or_objects(text: bytes) -> Pieces:
    """What stands under each other, or behind each other. Else nothing."""
    lines = _lines(text)
    if lines and not any(isinstance(piece, Refusal) for piece in lines):
        return lines
    objects = _concatenated(text)  # which may have line breaks in them
    if lines and any(isinstance(piece, Refusal) for piece in objects):
        return lines
    return objects or lines


def _lines(text: bytes) -> Pieces:
    """JSON lines, or lines of text, of which the first or the last one is whole. Else nothing."""
    lines = [line for line in text.split(b"\n") if line.strip(BLANKS)]
    first = _is_object(lines[0]) or text_line(lines[0]) is not None
    if len(lines) > 1 and (first or (_is_object(lines[-1]) and not _ARRAY.match(text))):
        return [piece for line in lines for piece in unwrap(line)]
    return []


def _is_object(line: bytes) -> bool:
    try:
        return bytes(_validate(line)).strip(BLANKS)[0] == ord("{")
    except (msgspec.DecodeError, RecursionError):
        return False


def _array(text: bytes) -> Pieces:
    """The items of an array (in a wrapper or bare) of which one or more are broken."""
    head = _ARRAY.match(text)
    if not head:
        return []
    pieces, rest = _split(text[head.end() :])
    found: Pieces = []
    broken = 0
    for piece in pieces:
        found.append(_try(piece, repair=broken < _MOST_BROKEN))
        broken += isinstance(found[-1], Refusal)
    if rest and not _is_object(b'{"":0' + rest):  # more than the wrapper's other keys and its end
        found.append(Refusal(rest, "not JSON: it follows the end of the records"))
    return found


def _concatenated(text: bytes) -> Pieces:
    """Objects that follow each other with nothing but blanks between them. Else nothing."""
    if text[:1] != b"{" or b"}" not in text:
        return []
    whole = text.decode()
    found: list[str] = []
    at = 0
    try:
        while at < len(whole):
            _, end = _scan(whole, at)
            found.append(whole[at:end])
            at = _BLANK.match(whole, end).end()  # type: ignore[union-attr]
    except (ValueError, RecursionError):
        pass
    if len(found) < 2 and not (found and whole[at : at + 1] == "{"):
        return []
    pieces: Pieces = []
    for each in found:
        piece = _try(each.encode())
        if isinstance(piece, bytes):
            piece = Repaired(piece, piece, ("concatenated_objects",))
        pieces.append(piece)
    if rest := whole[at:].encode():
        pieces.append(repaired(rest) or Refusal(rest, "not JSON: it follows the end of an object"))
    return pieces


def _try(piece: bytes, repair: bool = True) -> bytes | Repaired | Refusal:
    try:
        _validate(piece)
    except (msgspec.DecodeError, RecursionError) as error:
        return (repaired(piece) if repair else None) or Refusal(piece, _why(piece, error))
    return _judge(piece)


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
