"""The account of everything, as one value: JSON for machines, the page for people.

Nothing in it is a secret or a payload. Texts that came with events (reasons of dead letters) are
one printable line each.
"""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timezone
from importlib.metadata import version

import msgspec

from pipelines.forward import accounts
from pipelines.report.accounts import Owed, Standing, is_running, owed_of, standings
from pipelines.report.verify import Verification, never_read, receipt_faults
from pipelines.settings import Settings, SourceEntry
from schemas.batch import Origin
from schemas.ledger import Span
from schemas.receipt import Outcomes
from schemas.runs import Run, clip, count, subtract
from transforms.account import Settled, receipts, settled
from transforms.capture import utc
from transforms.dead_letters import read_dead_letters
from transforms.delivery.line import printable
from transforms.gaps import gaps
from transforms.owed import aside_of
from transforms.read.access import EventHubsAccess
from transforms.read.plan import REPLAY, replays, unread_of
from transforms.secrets import SecretError
from transforms.state_store import StateStore, unplace

__all__ = [
    "Bucket",
    "Counts",
    "DeadReason",
    "Debt",
    "Example",
    "MissingEvents",
    "PartitionAccount",
    "Report",
    "SinkReport",
    "Timeline",
    "UnreadBytes",
    "report",
]

_LAYOUT = 1
_MOST_BUCKETS = 200
_MOST_REASONS = 100
_EXAMPLES = 5
_MINUTE_MS = 60_000
_WIDTHS = [  # of a bucket, in minutes
    *(1, 2, 5, 10, 15, 30, 60, 120, 180, 360, 720),
    *(1440 * days for days in (1, 2, 7, 14, 28, 91, 182, 364)),
]


class Counts(msgspec.Struct, rename={"records": "in"}):
    """Records: in = delivered + not routed + repeat + dead + owed."""

    records: int
    delivered: int
    not_routed: int
    repeat: int
    dead: int
    owed: int

    @classmethod
    def of(cls, records: int, o: Outcomes) -> Counts:
        return cls(records, o.delivered, o.not_routed, o.repeat, o.dead, o.owed)

    @property
    def unaccounted(self) -> int:
        """Records without an outcome; below zero: outcomes without a record."""
        ended = self.delivered + self.not_routed + self.repeat + self.dead + self.owed
        return self.records - ended


class PartitionAccount(msgspec.Struct):
    """What one sink had of the events `first..last` of a partition.

    first: None where an older version, which did not write it down, began the account.
    events: how many of these sequence numbers were read (of a replay, where they are places in
        files: how many records); never_read: how many were not (`gaps`).
    faults: what is wrong with the sum, or with the receipts behind it; each is one sentence.
    """

    source: str
    partition: str
    first: int | None
    last: int
    events: int
    never_read: int
    counts: Counts
    faults: list[str]


class SinkReport(msgspec.Struct):
    """One sink. configured: whether the settings still name it. kind: "" if they do not."""

    name: str
    kind: str
    configured: bool
    counts: Counts
    holds: bool
    partitions: list[PartitionAccount]


class Bucket(msgspec.Struct):
    """Records of events that were enqueued from `at` on, by how they first ended: what was owed
    then may have been paid since."""

    at: datetime
    counts: Counts


class Timeline(msgspec.Struct):
    """By sink; buckets with nothing in them are left out."""

    bucket_seconds: int
    sinks: dict[str, list[Bucket]]


class MissingEvents(msgspec.Struct):
    """Events that were never read; sinks: at whom alone they are missing, none: at all."""

    source: str
    partition: str
    first: int
    last: int
    events: int
    found: datetime
    why: str
    sinks: tuple[str, ...] = ()


class Example(msgspec.Struct):
    """Where a record is: the hub event's sequence number, and its place in that event."""

    source: str
    partition: str
    sequence: int
    index: int
    enqueued: datetime


class DeadReason(msgspec.Struct):
    """Dead letters of one step for one reason; `reason` is "" for all the rarer ones together."""

    step: str
    reason: str
    records: int
    examples: list[Example]


class Debt(msgspec.Struct):
    """What a sink is owed of a partition.

    since: when the oldest record was enqueued, about. forgotten: when the hub will have deleted
    it, by the settings' `retention_hours`. aside: records whose payload the state store keeps.
    """

    sink: str
    source: str
    partition: str
    records: int
    since: datetime | None
    forgotten: datetime | None
    margin_seconds: float | None
    aside: int


class UnreadBytes(msgspec.Struct):
    """Bytes of a history file that could not be read. size, records: None: not known."""

    replay: str
    url: str
    offset: int
    size: int | None
    records: int | None
    why: str


class Report(msgspec.Struct):
    """Times are RFC 3339, in UTC.

    running: whether a pipeline worked meanwhile; then the figures are some moment's each.
    holds: whether every sum does, and the receipts behind it, and what was verified.
    digests_aside: digests that a sink refused, by sink.
    """

    layout: int
    made: datetime
    versions: dict[str, str]
    running: bool
    holds: bool
    sources: list[str]
    digests: list[str]
    sinks: list[SinkReport]
    gaps: list[MissingEvents]
    owed: list[Debt]
    dead: list[DeadReason]
    timeline: Timeline
    positions: list[Standing]
    digests_aside: dict[str, int]
    verification: Verification | None = None
    unread: list[UnreadBytes] = []

    @property
    def never_read(self) -> int:
        """Events in gaps."""
        return sum(gap.events for gap in self.gaps)

    @property
    def owed_records(self) -> int:
        return sum(sink.counts.owed for sink in self.sinks)


_Minutes = dict[int, list[int]]
"""Records in, and by outcome, by the minute in which the hub took them."""


def report(
    settings: Settings, store: StateStore, verification: Verification | None = None
) -> Report:
    """What the state store says now; with what was verified, if anything was."""
    now = datetime.now(timezone.utc)
    access = {name: entry.event_hubs for entry in settings.sources if (name := _source(entry))}
    configured = accounts(settings)
    kinds = {entry.name: entry.kind for entry in settings.sinks}
    sinks, owed, origins = [], [], set[Origin]()
    minutes: dict[str, _Minutes] = {}
    for name in _names(store, configured):
        minutes[name] = {}
        partitions = []
        for origin, stored, spans in _rows(store, name):
            origins.add(origin)
            _count(spans, minutes[name])
            paid = owed_of(store, name, origin, stored.position)
            partitions.append(_partition(store, name, origin, stored, spans, paid))
            if paid.runs:
                owed.append(_debt(store, name, origin, paid.runs, paid.since_ms, access, now))
        sinks.append(_sink(name, kinds.get(name, ""), name in configured, partitions))
    verified = verification is None or verification.holds
    return Report(
        _LAYOUT,
        now,
        {
            "alertbeam": version("alertbeam"),
            "apache-beam": version("apache-beam"),
            "python": platform.python_version(),
        },
        is_running(store),
        verified and all(sink.holds for sink in sinks),
        [_source(entry) or entry.event_hubs.hub for entry in settings.sources],
        [spec.name for spec in settings.digests],
        sinks,
        [missing for origin in sorted(origins, key=_order) for missing in _missing(store, origin)],
        owed,
        _dead(store),
        _timeline(minutes),
        [_printable(each) for each in standings(store, configured)],
        dict(Counter(unplace(path)[2] for path in store.list("aside/digests"))),
        verification,
        [*_unread(store)],
    )


def _source(entry: SourceEntry) -> str:
    """ "" where its connection string cannot be had here and now."""
    try:
        return entry.name
    except SecretError:
        return ""


def _names(store: StateStore, configured: Iterable[str]) -> list[str]:
    """The settings' sinks, and others that the store has an account of."""
    stored = {unplace(path)[1] for path in store.list("accounts")}
    return [*configured, *sorted(stored - {*configured})]


def _rows(store: StateStore, sink: str) -> Iterator[tuple[Origin, Settled, list[Span]]]:
    for origin in sorted(settled(store, sink), key=_order):
        row = receipts(store, sink, origin)
        if row is not None:
            yield origin, *row


def _order(origin: Origin) -> tuple[str, int, str]:
    return origin.source, len(origin.partition), origin.partition


def _partition(
    store: StateStore,
    sink: str,
    origin: Origin,
    stored: Settled,
    spans: list[Span],
    paid: Owed,
) -> PartitionAccount:
    missing = never_read(store, sink, origin)
    counts = Counts.of(stored.records, stored.outcomes)
    counts.delivered += paid.delivered
    counts.not_routed += paid.not_routed
    counts.dead += paid.dead
    counts.owed -= paid.delivered + paid.dead + paid.not_routed
    faults = receipt_faults(stored, spans, missing)
    if counts.unaccounted:
        faults.insert(0, _unaccounted(counts.unaccounted))
    known = stored.began >= 0
    first = stored.began if known else min((s.first for s in spans), default=stored.position + 1)
    gone = count(clip(missing, first, stored.position))
    history = origin.source.startswith(REPLAY)
    return PartitionAccount(
        origin.source,
        origin.partition,
        stored.began if known else None,
        stored.position,
        counts.records if history else stored.position - first + 1 - gone,
        gone,
        counts,
        faults,
    )


def _unaccounted(records: int) -> str:
    if records > 0:
        return f"{records:,} records have no outcome"
    return f"{-records:,} outcomes are of no record"


def _sink(name: str, kind: str, configured: bool, partitions: list[PartitionAccount]) -> SinkReport:
    total = Counts(0, 0, 0, 0, 0, 0)
    for each in partitions:
        for field in Counts.__struct_fields__:
            setattr(total, field, getattr(total, field) + getattr(each.counts, field))
    holds = not any(each.faults for each in partitions)
    return SinkReport(name, kind, configured, total, holds, partitions)


def _unread(store: StateStore) -> Iterator[UnreadBytes]:
    for name in replays(store):
        for each in unread_of(store, name):
            yield UnreadBytes(
                name,
                printable(each.url, 500),
                each.offset,
                each.size if each.size >= 0 else None,
                each.records if each.records >= 0 else None,
                printable(each.why),
            )


def _missing(store: StateStore, origin: Origin) -> Iterator[MissingEvents]:
    for gap in gaps(store, origin):
        yield MissingEvents(
            origin.source,
            origin.partition,
            gap.first,
            gap.last,
            gap.last - gap.first + 1,
            utc(gap.found_ms),
            printable(gap.why),
            gap.sinks,
        )


def _debt(
    store: StateStore,
    sink: str,
    origin: Origin,
    runs: list[Run],
    since_ms: int,
    access: Mapping[str, EventHubsAccess],
    now: datetime,
) -> Debt:
    left = runs
    for file in aside_of(store, origin.source, origin.partition):
        left = subtract(left, clip(left, file.first, file.last))
    hours = access[origin.source].retention_hours if origin.source in access else None
    forgotten = utc(since_ms + int(hours * 3_600_000)) if hours and since_ms else None
    return Debt(
        sink,
        origin.source,
        origin.partition,
        count(runs),
        utc(since_ms) if since_ms else None,
        forgotten,
        (forgotten - now).total_seconds() if forgotten else None,
        count(runs) - count(left),
    )


def _dead(store: StateStore) -> list[DeadReason]:
    """The most frequent first; what is rarer is one entry a step."""
    found: dict[tuple[str, str], DeadReason] = {}
    for letter in read_dead_letters(store):
        step, reason = printable(letter.step), printable(letter.reason)
        entry = found.setdefault((step, reason), DeadReason(step, reason, 0, []))
        entry.records += 1
        if len(entry.examples) < _EXAMPLES:
            entry.examples.append(
                Example(
                    letter.source,
                    letter.partition,
                    letter.sequence,
                    letter.index,
                    utc(letter.enqueued_ms),
                )
            )
    by_number = sorted(found.values(), key=lambda each: (-each.records, each.step, each.reason))
    rare: dict[str, DeadReason] = {}
    for entry in by_number[_MOST_REASONS:]:
        rest = rare.setdefault(entry.step, DeadReason(entry.step, "", 0, []))
        rest.records += entry.records
        rest.examples = (rest.examples + entry.examples)[:_EXAMPLES]
    return [*by_number[:_MOST_REASONS], *rare.values()]


def _count(spans: list[Span], minutes: _Minutes) -> None:
    """Add a partition's receipts; those without any alert are of the time of what came before,
    or of none (0)."""
    at_ms = next((span.since_ms for span in spans if span.since_ms), 0)
    for span in spans:
        at_ms = span.since_ms or at_ms
        row = minutes.setdefault(at_ms // _MINUTE_MS, [0] * 6)
        o = span.outcomes
        row[0] += span.records
        row[1] += o.delivered
        row[2] += o.not_routed
        row[3] += o.repeat
        row[4] += o.dead
        row[5] += o.owed


def _timeline(minutes: Mapping[str, _Minutes]) -> Timeline:
    times = {minute for found in minutes.values() for minute in found} - {0}
    first, last = min(times, default=0), max(times, default=0)
    width = next((w for w in _WIDTHS if last // w - first // w < _MOST_BUCKETS), _WIDTHS[-1])
    sinks = {}
    for sink, found in minutes.items():
        buckets: _Minutes = {}
        for minute, row in found.items():
            bucket = buckets.setdefault((minute or first) // width, [0] * 6)
            for at, value in enumerate(row):
                bucket[at] += value
        sinks[sink] = [
            Bucket(utc(n * width * _MINUTE_MS), Counts(*row)) for n, row in sorted(buckets.items())
        ]
    return Timeline(width * 60, sinks)


def _printable(at: Standing) -> Standing:
    return msgspec.structs.replace(at, error=printable(at.error))
