"""What a replay would do, by these settings: which sink would get what, how much, and how long it
would take at least."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence

from pipelines.settings import Settings
from pipelines.what_if.counts import Span, by_count, count
from pipelines.what_if.found import DryRun, Load, not_read
from pipelines.what_if.ingest import volume_of
from pipelines.what_if.way import (
    Enrich,
    Front,
    Lane,
    Skip,
    alert_of,
    enriching,
    entries,
    everything,
    lanes,
    subscriptions_of,
    unheard,
)
from schemas.alert import SEVERITIES
from schemas.batch import Batch
from transforms.delivery.line import printable
from transforms.delivery.parcel import Parcel
from transforms.parse import parse_batch
from transforms.read.files.base import Unread
from transforms.route import Predicate, Where

__all__ = ["dry_run"]

_MOST_REASONS = 20


class _Weighed:
    """A lane's figures."""

    def __init__(self, lane: Lane) -> None:
        limits, rate = lane.sink.limits, lane.rate
        self.load = Load(lane.name, lane.entry.kind)
        self._lane = lane
        self._volume = volume_of(lane.entry.kind)
        self._kinds: Counter[str] = Counter()
        self._severities: Counter[str] = Counter()
        self._reasons: Counter[str] = Counter()
        self._span = Span()
        # Requests as the engine packs them when there is always something to send.
        self._max_bytes = min(limits.max_bytes, rate.bytes or limits.max_bytes)
        self._max_records = max(1, int(min(limits.max_records, rate.records or limits.max_records)))
        self._bytes = self._records = 0  # of the request that is being filled
        self._sent_bytes = 0

    def add(self, said: list[Parcel]) -> None:
        load = self.load
        for parcel in said:
            if parcel.outcome is not None:
                count(self._reasons, parcel.reason, _MOST_REASONS)
        going = [parcel for parcel in said if parcel.outcome is None]
        for parcel in going:
            load.bytes += len(parcel.payload)
            load.shortened += parcel.shortened
            size = len(parcel.payload) + self._lane.separator
            self._sent_bytes += size
            full = self._bytes + size > self._max_bytes or self._records == self._max_records
            if full or not self._records:
                load.requests += 1
                self._bytes = self._records = 0
            self._bytes += size
            self._records += 1
        if self._volume is not None:
            self._volume.add(going)
        sent = [alert_of(parcel) for parcel in going]
        load.alerts += len(sent)
        load.dead += len(said) - len(sent)
        self._kinds.update([alert.kind for alert in sent])
        self._severities.update([alert.severity for alert in sent])
        self._span.add(sent)

    def done(self, floor: tuple[float, str], days: int) -> Load:
        """floor: how long reading takes at least, and why."""
        load, rate = self.load, self._lane.rate
        load.by_kind = by_count(self._kinds)
        load.by_severity = {name: n for name in SEVERITIES[::-1] if (n := self._severities[name])}
        load.reasons = by_count(self._reasons)
        load.earliest, load.latest = self._span.times
        if self._volume is not None:
            load.ingest = self._volume.ingest(days)
        ways = [floor]
        for amount, most, unit in (
            (load.alerts, rate.records, "records"),
            (load.requests, rate.requests, "requests"),
            (self._sent_bytes, rate.bytes, "bytes"),
        ):
            if most is not None:
                ways.append((amount / most, f"{most:,.4g} {unit}/s, its limit"))
        load.seconds, load.bound = max(ways, key=lambda way: way[0])
        return load


def dry_run(
    batches: Iterable[Batch],
    settings: Settings,
    choose: Predicate = everything,
    where: Where | None = None,
    *,
    name: str = "",
    sinks: Collection[str] | None = None,
    enrich: Enrich | None = None,
    skip: Skip | None = None,
    rate: float = 0.0,
    unread: Sequence[Unread] = (),
    progress: Callable[[Batch], object] = unheard,
    clock: Callable[[], float] = time.monotonic,
) -> DryRun:
    """What a replay of these batches would do.

    choose: which alerts it takes, of what time. where: and of those, once they are enriched. name:
    the replay's, which marks its alerts. sinks: only these. enrich: how; without it, from the
    settings' file. skip: the batch without what a sink has already. rate: records a second that
    are read, at most; 0: any. unread: what could not be read of the files; looked at in the end,
    so that reading may add to it. progress: called with each batch that is through.
    """
    front = Front(settings, choose, where, name, enrich or enriching(subscriptions_of(settings)))
    weighed = [(lane, _Weighed(lane)) for lane in lanes(settings, sinks).values()]
    span, events = Span(), 0
    kinds: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    began = clock()
    for batch in batches:
        events += len(batch.records)
        parsed, letters = parse_batch(batch, settings.mask)
        for letter in letters:
            count(reasons, printable(letter.reason), _MOST_REASONS)
        fresh = front.fresh(parsed, len(letters))
        span.add(fresh.alerts)
        kinds.update([alert.kind for alert in fresh.alerts])
        for lane, figures in weighed:
            routed = lane.route(fresh)
            left = skip(routed, lane.name) if skip else routed
            figures.load.not_routed += len(fresh.alerts) - len(routed.alerts)
            figures.load.already += len(routed.alerts) - len(left.alerts)
            figures.add(lane.encode(left))
        progress(batch)
    took = clock() - began
    floor = took, "the speed of this machine"
    if rate and front.flow.records / rate > took:
        floor = front.flow.records / rate, f"{rate:,.4g} records/s, as asked for"
    loads = [figures.done(floor, len(span.days)) for _, figures in weighed]
    for entry in entries(settings, "digests", sinks):
        loads.append(Load(entry.name, entry.kind, note="it gets digests, which are not counted"))
    return DryRun(
        events, front.flow, by_count(kinds), by_count(reasons), *span.times, len(span.days), took,
        max([floor[0], *(load.seconds for load in loads)]), loads, *not_read(unread),
    )  # fmt: skip
