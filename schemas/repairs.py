"""Named repairs of records that are no valid JSON object as they came, although one can be read.

Each changes as little as it can, and is counted under its name; the bytes that came are kept.

    byte_order_mark       the UTF-8 mark in front of the body is taken away
    lone_surrogate        an escape (`\\ud800`) that no Unicode text can hold becomes `\\ufffd`
    control_character     a raw control character in a string (a line break, a tab) is escaped
    single_quotes         an object as Python or JavaScript print it is written as JSON
    unescaped_quotes      quotes inside a string are escaped
    sloppy_json           commas too many, words such as NaN, backslashes that escape nothing
    concatenated_objects  objects that follow each other without anything between are told apart
    text_line             a line of syslog, or a Windows event in XML, becomes {"message": …}
    json_in_string        an object that stands in a string of JSON is taken out of it
"""

from __future__ import annotations

import json
import re
from typing import Any

import msgspec

from schemas.kinds._strings import loads_loosely

__all__ = ["Repaired", "repaired", "text_line", "without_lone_surrogates"]

_MOST_BYTES = 64 * 1024  # what is longer by itself was never seen, and would take long
_WHOLE = {"single_quotes", "sloppy_json", "unescaped_quotes"}  # not "cut_off"


class Repaired(msgspec.Struct, frozen=True):
    """A record that was no valid JSON object as it came, and what was done about it, by name."""

    body: bytes
    original: bytes
    repairs: tuple[str, ...]


_validate = msgspec.json.Decoder(msgspec.Raw).decode
_encode = msgspec.json.encode

_LONE_SURROGATE = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
    rb"|(u[dD][89a-fA-F][0-9a-fA-F]{2})|.)",
    re.DOTALL,
)


def without_lone_surrogates(text: bytes) -> bytes:
    """The text with its lone surrogate escapes replaced; of the same length."""
    if b"\\u" not in text:
        return text
    return _LONE_SURROGATE.sub(lambda match: rb"\ufffd" if match[1] else match[0], text)


def repaired(piece: bytes) -> Repaired | None:
    """One object that does not decode, put right; None where no repair reads it. Never raises."""
    if len(piece) > _MOST_BYTES:
        return None
    body = without_lone_surrogates(piece)
    repairs = () if body == piece else ("lone_surrogate",)
    if repairs and _is_object(body):
        return Repaired(body, piece, repairs)
    for name, value in (("control_character", _with_controls(body)), _loosely(body)):
        if isinstance(value, dict):
            try:
                found = _encode(value)
                _validate(found)
            except (ValueError, TypeError, RecursionError, msgspec.MsgspecError):
                continue
            return Repaired(found, piece, (*repairs, name))
    return None


def _is_object(body: bytes) -> bool:
    try:
        return bytes(_validate(body)).lstrip()[:1] == b"{"
    except (msgspec.DecodeError, RecursionError):
        return False


def _with_controls(body: bytes) -> Any:
    """What Python reads where it lets raw control characters stand in strings."""
    try:
        return json.loads(body.decode(), strict=False, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return None


def _refuse(constant: str) -> Any:
    raise ValueError(constant)  # NaN is no JSON, and nothing that JSON has says it


def _loosely(body: bytes) -> tuple[str, Any]:
    value, name = loads_loosely(body.decode())
    return name, value if name in _WHOLE else None


# Lines that were never JSON. What they begin with is enough: their kinds look closer.

_TEXT = re.compile(
    rb"<\d{1,3}>[^\s<]"  # a priority
    rb"|(?:1 (?:\d{4}-\d\d-\d\dT|- )"  # RFC 5424
    rb"|[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d \S"  # RFC 3164
    rb"|\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\S* \S+ [\w./-]+(?:\[\d+\])?:)"  # rsyslog's own format
    rb"|<Event[\s>]"
)


def text_line(line: bytes) -> Repaired | None:
    """A line of syslog, or a Windows event in XML, as the record `{"message": line}`."""
    if not _TEXT.match(line):
        return None
    return Repaired(_encode({"message": line.decode()}), line, ("text_line",))
