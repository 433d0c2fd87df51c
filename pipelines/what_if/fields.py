"""How two encoded forms of an alert differ, field by field, whatever language they are in: JSON,
CEF, LEEF, syslog's parameters; what is in none of them is one text."""

from __future__ import annotations

import json
import re

from pipelines.what_if.differences import differences, leaves
from pipelines.what_if.found import Field

__all__ = ["differing", "fields_of"]

_HEADERS = {
    "CEF": ("version", "vendor", "product", "product version", "class", "name", "severity"),
    "LEEF": ("version", "vendor", "product", "product version", "event id", "delimiter"),
}
_HEADER = re.compile(r"(CEF|LEEF):[\d.]+\|")
_CEF_KEY = re.compile(r"(?:^|(?<= ))([A-Za-z0-9_.-]+)=")
_PARAM = re.compile(r'([^\s="\[\]]{1,64})="((?:[^"\\]|\\.)*)"')
_PARAMS = re.compile(rf"(?:{_PARAM.pattern}[ \]]*)+")


def differing(a: bytes, b: bytes) -> list[Field]:
    """Of two payloads that are not the same."""
    sizes = (f"{len(each):,} bytes" for each in (a, b))
    return differences(fields_of(a), fields_of(b)) or [Field("(how it is spelt)", *sizes)]


def fields_of(payload: bytes) -> dict[str, str]:
    """What a system is sent, by field, as far as its language is known here; else as one text."""
    text = payload.decode("utf-8", "replace")
    try:
        header = _HEADER.search(text)
        if header and "{" not in text[: header.start()]:  # else it is in a text
            return _of_header(text, header)
        params = _PARAMS.search(text) if re.match(r"<\d{1,3}>", text) else None
        if params is None:
            return _of_json(text)
        message = _of_json(text[params.end() :])
        return {
            "syslog header": text[: params.start()],
            **dict(_PARAM.findall(params[0])),
            **{f"message.{name}": value for name, value in message.items()},
        }
    except RecursionError:
        return {"text": text}


def _of_header(text: str, found: re.Match[str]) -> dict[str, str]:
    names = _HEADERS[found[1]]
    cells = re.split(r"(?<!\\)\|", text[found.start() :], maxsplit=len(names))
    fields = {"syslog header": text[: found.start()]} if found.start() else {}
    fields |= dict(zip(names, cells, strict=False))
    rest = cells[len(names)] if len(cells) > len(names) else ""
    if found[1] == "LEEF":
        pairs = [pair.partition("=") for pair in rest.split("\t")]
        return fields | {key: value for key, _, value in pairs if key}
    keys = [*_CEF_KEY.finditer(rest)]
    starts = [*(key.start() for key in keys), len(rest)]
    if before := rest[: starts[0]].strip():
        fields["text"] = before
    return fields | {
        key[1]: rest[key.end() : end].rstrip(" ") for key, end in zip(keys, starts[1:], strict=True)
    }


_scan = json.JSONDecoder().raw_decode


def _of_json(text: str) -> dict[str, str]:
    """The objects in a text; what stands between them counts as a field too."""
    fields: dict[str, str] = {}
    between, at, number = "", 0, 0
    while (start := text.find("{", at)) >= 0:
        try:
            value, end = _scan(text, start)
        except ValueError:
            break
        between += text[at:start]
        fields |= dict(leaves(value, path=f"({number + 1})" if number else ""))
        at, number = end, number + 1
    between += text[at:]
    return fields | ({"text": between} if between.strip() else {})
