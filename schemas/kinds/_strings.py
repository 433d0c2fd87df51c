"""Objects and lists that stand in a string, as Azure's services write them.

Most are JSON. Some are what Python's `repr` or JavaScript makes of an object, some have quotes in
their values that nobody escaped, some were cut off at the greatest length of a column.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

__all__ = ["loads_loosely"]

_MOST = 1 << 16  # characters, where it is not JSON; no column holds more
_TOKEN = re.compile(r"""\s*(?:([{\[])|([}\]])|([,:])|(["'])|([^\s,:{}\[\]"']+))""")
_WORDS = {
    "True": "true",
    "False": "false",
    "None": "null",
    "undefined": "null",
    "NaN": "null",
    "nan": "null",
}
_SINGLE = re.compile(r"[{\[\s]*'")
# What follows a string that is a key, a value in an object, an item of a list.
_AFTER = {
    ":": r"\s*:",
    "{": r"""\s*(?:,\s*(["'])[^"']{0,256}\1\s*:|}\s*(?:[,}\]]|\Z))""",
    "[": r"\s*[,\]]",
    "": "",
}
_LAST_QUOTE = {
    quote + kind: re.compile(rf"(?:\\.)+|{quote}(?={after})", re.DOTALL)
    for quote in "\"'"
    for kind, after in _AFTER.items()
}
_NOT_JSON = re.compile(
    r"""\\(?:(u[0-9a-fA-F]{4}|["\\/bfnrt])|x([0-9a-fA-F]{2})|U([0-9a-fA-F]{8})|'|)|["\0-\x1f]"""
)
_decode = msgspec.json.Decoder().decode


class _CutOff(ValueError):
    """The text ends too early. The argument: JSON of the members that are whole."""


def loads_loosely(text: str) -> tuple[Any, str]:
    """The object or list in a text, and the name of its repair. Linear; never raises.

    json_in_string: it is JSON. single_quotes: as Python or JavaScript write it. sloppy_json: JSON
    but for trailing commas, lone backslashes, control characters, `None`. unescaped_quotes: a
    string ends at the first quote after which its object can go on. cut_off: the text ends too
    early; the members that are whole. Anything else is `(None, "")`.
    """
    text = text.strip()
    if text[:1] not in ("{", "["):
        return None, ""
    try:
        return _decode(text), "json_in_string"
    except (ValueError, RecursionError):  # msgspec's errors are ValueErrors
        pass
    if len(text) > _MOST:
        return None, ""
    try:
        return _decode(_as_json(text, guess=False)), _nearly(text)
    except _CutOff as error:
        return _whole_members(str(error))
    except (ValueError, RecursionError):
        pass
    try:
        return _decode(_as_json(text, guess=True)), "unescaped_quotes"
    except (ValueError, RecursionError):
        return None, ""


def _nearly(text: str) -> str:
    return "single_quotes" if _SINGLE.match(text) else "sloppy_json"


def _whole_members(text: str) -> tuple[Any, str]:
    try:
        found = _decode(text)
    except (ValueError, RecursionError):
        found = None
    return (found, "cut_off") if found else (None, "")


def _as_json(text: str, *, guess: bool) -> str:
    """The text with JSON's quotes, words and commas. What else is wrong with it stays wrong, or
    raises ValueError.

    guess: a string's last quote is the first one that can be; else it is just the first one.
    """
    out: list[str] = []
    nest: list[str] = []
    whole = 0  # how much of `out` is members that have ended
    is_key = False  # whether a key comes next
    ended = ""  # `:` if a key has, `,` if a value has
    at = 0
    while token := _TOKEN.match(text, at):
        opened, closed, mark, quote, word = token.groups("")
        at = token.end()
        if mark != ended and not (closed and ended == ","):
            raise ValueError("something is out of place")
        if mark:
            whole = len(out) if mark == "," else whole
            out.append(mark)
            is_key = mark == "," and nest[-1] == "{"
            ended = ""
        elif opened:
            out.append(opened)
            nest.append(opened)
            whole = len(out)
            is_key = opened == "{"
            ended = ""
        elif quote:
            last = _last_quote(text, at, quote + ((":" if is_key else nest[-1]) if guess else ""))
            if last < 0:
                break
            out.append(f'"{_NOT_JSON.sub(_escaped, text[at:last])}"')
            at = last + 1
            ended = ":" if is_key else ","
            whole = whole if is_key else len(out)
        elif word:
            out.append(_WORDS.get(word, word))
            ended = ","
        else:
            if out[-1] == ",":
                out.pop()
            out.append(closed)
            nest.pop()
            whole = len(out)
            is_key = False
            ended = ","
            if not nest:
                return "".join(out) + text[at:]
    raise _CutOff("".join(out[:whole]) + "".join("}" if o == "{" else "]" for o in nest[::-1]))


def _last_quote(text: str, start: int, kind: str) -> int:
    """Where the string ends that begins there; -1 if it does not."""
    ends = (found for found in _LAST_QUOTE[kind].finditer(text, start) if found[0][0] != "\\")
    found = next(ends, None)
    return found.start() if found else -1


def _escaped(odd: re.Match[str]) -> str:
    known, two, eight = odd.groups()
    if known:
        return odd[0]
    if two:
        return rf"\u00{two}"
    if eight:
        return chr(int(eight, 16))
    if odd[0] == "\\'":
        return "'"
    return rf"\u{ord(odd[0]):04x}"  # a quote, a control character, a backslash that is only that
