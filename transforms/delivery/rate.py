"""How fast a sink is sent to, and how fast it takes."""

from __future__ import annotations

from transforms.sinks.base import Rate

__all__ = ["Bucket", "Pace", "least"]


def least(one: Rate, other: Rate) -> Rate:
    """What both allow."""

    def low(a: float | None, b: float | None) -> float | None:
        return b if a is None else a if b is None else min(a, b)

    return Rate(
        records=low(one.records, other.records),
        requests=low(one.requests, other.requests),
        bytes=low(one.bytes, other.bytes),
    )


class Bucket:
    """Token buckets for records, requests and bytes, each of one second. Times are monotonic.

    A request may go when every bucket holds something, and takes what it needs even so: a bucket
    may then owe, and the next request waits for it. So the mean holds whatever the requests' size.
    """

    def __init__(self, rate: Rate, now: float) -> None:
        given = (rate.records, rate.requests, rate.bytes)
        self._rates = [each or 0.0 for each in given]
        self._held = [max(each, 1.0) for each in self._rates]
        self._at = now

    def ready_at(self, now: float) -> float:
        """When a request may go."""
        self._fill(now)
        waits = [
            (1.0 - held) / rate
            for rate, held in zip(self._rates, self._held, strict=True)
            if rate and held < 1.0
        ]
        return now + max(waits, default=0.0)

    def take(self, now: float, records: int, size: int) -> None:
        """A request with so many records and bytes goes."""
        self._fill(now)
        for at, cost in enumerate((records, 1, size)):
            self._held[at] -= cost

    def _fill(self, now: float) -> None:
        passed, self._at = now - self._at, now
        for at, rate in enumerate(self._rates):
            self._held[at] = min(self._held[at] + passed * rate, max(rate, 1.0))


class Pace:
    """Records a second that a system takes while there is something to send: a moving mean."""

    _WEIGHT = 0.3

    def __init__(self, guess: float) -> None:
        self.per_second = guess
        self._since = 0.0  # the last that was noted, or since when there was something to send

    def busy(self, now: float) -> None:
        """There is something to send, after a while in which there was nothing."""
        self._since = now

    def note(self, records: int, now: float) -> None:
        """So many were taken."""
        measured = records / max(now - self._since, 0.001)
        self.per_second += self._WEIGHT * (measured - self.per_second)
        self._since = now
