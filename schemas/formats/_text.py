"""What more than one format does to text that nobody can trust."""

from __future__ import annotations

__all__ = ["HARMLESS", "OF_TEN", "cut", "fitted"]

HARMLESS: dict[int, str | None] = {
    **dict.fromkeys((*range(0x20), *range(0x7F, 0xA0))),
    **dict.fromkeys(map(ord, "\t\n\r\u0085\u2028\u2029"), " "),
}
"""For `str.translate`: what some receiver takes for the end of a line becomes a blank; terminal
and other control characters go."""

OF_TEN = {"unknown": 3, "informational": 1, "low": 3, "medium": 6, "high": 8, "critical": 10}
"""Severities on the scale of CEF and LEEF."""


def cut(text: str, room: int) -> str:
    """As much of the text as fits into `room` bytes of UTF-8, in whole code points."""
    return text.encode("utf-8", "replace")[: max(room, 0)].decode("utf-8", "ignore")


def fitted(
    head: str, separator: str, required: list[str], optional: list[str], last: str, max_bytes: int
) -> bytes:
    """A line of `key=value` fields, at most `max_bytes` long, in UTF-8.

    Where it is too long optional fields go, the later ones first; then the last one is cut, at a
    code point and not after an odd backslash, which would be half an escape. What is empty is left
    out. Raises ValueError where not even the required fields fit.
    """
    fields = [*required, *optional]
    while len(line := _joined(head, separator, [*fields, last])) > max_bytes:
        if len(fields) == len(required):
            break
        fields.pop()
    else:
        return line
    room = max_bytes - len(_joined(head, separator, required))
    if room < 0:
        name = head.partition(":")[0]
        raise ValueError(f"{name} needs {max_bytes - room} bytes for this alert, not {max_bytes}")
    kept = cut(last, room - len(separator))
    if (len(kept) - len(kept.rstrip("\\"))) % 2:
        kept = kept[:-1]
    return _joined(head, separator, [*required, kept if kept.partition("=")[2] else ""])


def _joined(head: str, separator: str, fields: list[str]) -> bytes:
    return (head + separator.join(filter(None, fields))).encode("utf-8", "replace")
