"""Counts over history however long: of times, days and names, so many of which are kept apart."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime

from schemas.alert import Alert
from transforms.capture import utc

__all__ = ["DAY_MS", "MOST_DAYS", "Span", "by_count", "count", "moment"]

DAY_MS = 86_400_000
MOST_DAYS = 4_000  # apart; of what lies on further ones, records may say any time they like


class Span:
    """The earliest and latest event time, and the days of history."""

    def __init__(self) -> None:
        self.first = self.last = 0
        self.days: set[int] = set()

    def add(self, alerts: Sequence[Alert]) -> None:
        times = [alert.event_ms for alert in alerts if alert.event_ms]
        if times:
            first, last = min(times), max(times)
            self.first = min(self.first or first, first)
            self.last = max(self.last, last)
        if len(self.days) < MOST_DAYS:
            self.days.update({alert.enqueued_ms // DAY_MS for alert in alerts})

    @property
    def times(self) -> tuple[datetime | None, datetime | None]:
        return moment(self.first), moment(self.last)


def moment(ms: int) -> datetime | None:
    """0: it is not known."""
    return utc(ms) if ms else None


def count(counts: Counter[str], name: str, most: int) -> None:
    """One more of that name; of names without end, the later ones together."""
    counts[name if name in counts or len(counts) < most else "(others)"] += 1


def by_count(counts: Mapping[str, int]) -> dict[str, int]:
    """The most frequent first."""
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
