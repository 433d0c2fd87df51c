"""When to leave a failing system alone, and how to find out that it is back."""

from __future__ import annotations

import enum
import random
import time

__all__ = ["Circuit", "CircuitState", "backoff"]

_LONGEST_CLOSURE = 3600.0  # what a system may ask for by Retry-After, at most


class CircuitState(str, enum.Enum):
    """`half_open`: a probe succeeded, and one real request decides."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


def backoff(attempt: int, *, first: float = 0.1, longest: float) -> float:
    """Seconds before retry `attempt` (0, 1, …): full jitter, so that senders spread out.

    Source: "Exponential Backoff And Jitter", AWS Architecture Blog.
    """
    return random.uniform(0, min(longest, first * 2 ** min(attempt, 30)))


class Circuit:
    """A circuit breaker without threads: it only knows its state and when to probe.

    cool_down: the first and the longest time, in seconds, between opening and probing; it
        doubles from one opening to the next until the circuit closes.
    """

    def __init__(self, cool_down: tuple[float, float]) -> None:
        self.state = CircuitState.CLOSED
        self.since = time.time()  # epoch seconds
        self.reason = ""  # why it opened last
        self.openings = 0
        self.probe_at = 0.0  # monotonic seconds; while open
        self._cool_down = cool_down
        self.failures = 0  # to come back, since it was closed

    @property
    def open(self) -> bool:
        return self.state is CircuitState.OPEN

    def trip(self, reason: str, after: float = 0.0) -> bool:
        """Open it, or keep it open, for `after` seconds at least. True if it had been closed."""
        first, longest = self._cool_down
        pause = min(longest, first * 2 ** min(self.failures, 30)) * random.uniform(0.5, 1)
        self.probe_at = time.monotonic() + max(pause, min(after, _LONGEST_CLOSURE))
        self.failures += 1
        self.reason = reason
        self.openings += not self.open
        return self._move(CircuitState.OPEN) is CircuitState.CLOSED

    def try_again(self) -> None:
        """A probe succeeded."""
        self._move(CircuitState.HALF_OPEN)

    def close(self) -> None:
        """A real request succeeded."""
        self.failures = 0
        self._move(CircuitState.CLOSED)

    def _move(self, state: CircuitState) -> CircuitState:
        before, self.state = self.state, state
        if before is not state:
            self.since = time.time()
        return before
