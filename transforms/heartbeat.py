"""When each run of this process last got on: what the watchdog looks at."""

from __future__ import annotations

import time

__all__ = ["bundles", "end", "progress", "since"]

_moved: dict[str, float] = {}  # monotonic
_bundles: dict[str, int] = {}


def progress(run: str, bundles: int = 0) -> None:
    """The run got on: a bundle begins, or whatever else may take its time has passed."""
    _moved[run] = time.monotonic()
    _bundles[run] = _bundles.get(run, 0) + bundles


def bundles(run: str) -> int:
    """How many have begun."""
    return _bundles.get(run, 0)


def since(run: str) -> float | None:
    """Monotonic seconds of its last progress; None before the first."""
    return _moved.get(run)


def end(run: str) -> None:
    _moved.pop(run, None)
    _bundles.pop(run, None)
