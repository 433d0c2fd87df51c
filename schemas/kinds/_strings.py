"""Objects and lists that stand in a string, as Azure's services write them.

Most are JSON. Some are what Python's `repr` or JavaScript makes of an object, some have quotes in
their values that nobody escaped, some were cut off at the greatest length of a column.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

__all__ = ["loads_loosely"]

_MOST = 1 << 20  # characters; no event is longer
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
_QUOTE = {mark: re.compile(rf"\\.|{mark}", re.DOTALL) for mark in "\"'"}
# What follows a string that is a key, a value in an object, an item of a list.
_AFTER = {
    ":": re.compile(r"\s*:"),
    "{": re.compile(r"""\s*(?:,\s*(["'])[^"']{0,256}\1\s*:|}\s*(?:[,}\]]|\Z))"""),
    "[": re.compile(r"\s*[,\]]"),
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
    whole = ""
    nearly = "single_quotes" if _SINGLE.match(text) else "sloppy_json"
    for name, ends in ((nearly, {}), ("unescaped_quotes", _AFTER)):
        try:
            return _decode(_as_json(text, ends)), name
        except _CutOff as error:
            whole = whole or str(error)
        except (ValueError, RecursionError):
            pass
    try:
        found = _decode(whole)
    except (ValueError, RecursionError):
        found = None
    return (found, "cut_off") if found else (None, "")


def _as_json(text: str, ends: dict[str, re.Pattern[str]]) -> str:
    """The text with JSON's quotes, words and commas. What else is wrong with it stays wrong.

    ends: what has to follow a string's last quote; without, its first quote is its last.
    """
    out: list[str] = []
    nest: list[str] = []
    whole = 0  # how much of `out` is members that have ended
    is_key = False
    at = 0
    while token := _TOKEN.match(text, at):
        opened, closed, mark, quote, word = token.groups()
        at = token.end()
        if quote:
            last = _last_quote(text, at, quote, ends.get(":" if is_key else nest[-1]))
            if last < 0:
                break
            out.append(f'"{_NOT_JSON.sub(_escaped, text[at:last])}"')
            at = last + 1
            whole = whole if is_key else len(out)
        elif word:
            out.append(_WORDS.get(word, word))
        elif mark:
            whole = len(out) if mark == "," else whole
            out.append(mark)
            is_key = mark == "," and nest[-1] == "{"
        elif opened:
            out.append(opened)
            nest.append(opened)
            whole = len(out)
            is_key = opened == "{"
        else:
            if out[-1] == ",":
                out.pop()
            out.append(closed)
            nest.pop()
            whole = len(out)
            if not nest:
                return "".join(out) + text[at:]
    raise _CutOff("".join(out[:whole]) + "".join("}" if o == "{" else "]" for o in nest[::-1]))


def _last_quote(text: str, start: int, quote: str, after: re.Pattern[str] | None) -> int:
    """Where the string ends that begins there; -1 if it does not."""
    for found in _QUOTE[quote].finditer(text, start):
        if found[0] == quote and (after is None or after.match(text, found.end())):
            return found.start()
    return -1


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
