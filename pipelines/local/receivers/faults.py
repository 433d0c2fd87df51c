"""What a receiver can be told to do wrong: `receiver.fail(fault, times)`."""

from __future__ import annotations

import dataclasses

__all__ = [
    "Answer",
    "Drip",
    "Fault",
    "HalfClose",
    "InvalidEvent",
    "Pace",
    "Poison",
    "Reset",
    "Silence",
    "Slow",
]


@dataclasses.dataclass(frozen=True)
class Answer:
    """Take nothing, answer this (HTTP): 503 busy, 429 with Retry-After, 401, 403, 413, …

    code: the system's own number for it; None: none, or the one that goes with the status.
    """

    status: int
    code: int | None = None
    text: str = ""
    headers: tuple[tuple[str, str], ...] = ()


@dataclasses.dataclass(frozen=True)
class InvalidEvent:
    """Refuse the event at this position: those before it are taken, as Splunk does it (HEC)."""

    number: int


@dataclasses.dataclass(frozen=True)
class Poison:
    """Refuse every request that holds the marker, as a 400 (HTTP); `numbered`: take the events
    before, and say which event it is (HEC)."""

    marker: bytes
    numbered: bool = False


@dataclasses.dataclass(frozen=True)
class Silence:
    """HTTP: take nothing, never answer. Syslog: read nothing. Until healed."""


@dataclasses.dataclass(frozen=True)
class Slow:
    """Take everything, `seconds` late."""

    seconds: float


@dataclasses.dataclass(frozen=True)
class Pace:
    """Take everything, but only so fast, over all connections: HTTP answers late, in proportion
    to what it took; syslog reads slowly."""

    records_per_second: float


@dataclasses.dataclass(frozen=True)
class Drip:
    """Take everything, answer one byte every `seconds` (HTTP)."""

    seconds: float


@dataclasses.dataclass(frozen=True)
class Reset:
    """Break the connection: before anything is read to its end, or after it was all `taken`."""

    taken: bool = False


@dataclasses.dataclass(frozen=True)
class HalfClose:
    """Say that nothing more will be said, without an answer; take nothing, stay connected."""


Fault = Answer | InvalidEvent | Poison | Silence | Slow | Pace | Drip | Reset | HalfClose
