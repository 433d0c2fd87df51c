"""What more than one format does to text that nobody can trust."""

from __future__ import annotations

__all__ = ["HARMLESS", "cut"]

HARMLESS: dict[int, str | None] = {
    **dict.fromkeys((*range(0x20), *range(0x7F, 0xA0))),
    **dict.fromkeys(map(ord, "\t\n\r\u0085\u2028\u2029"), " "),
}
"""For `str.translate`: what some receiver takes for the end of a line becomes a blank; terminal
and other control characters go."""


def cut(text: str, room: int) -> str:
    """As much of the text as fits into `room` bytes of UTF-8, in whole code points."""
    return text.encode("utf-8", "replace")[: max(room, 0)].decode("utf-8", "ignore")
