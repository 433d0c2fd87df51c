"""What a replay would do, and what other settings would change: `--dry-run` and `--compare`.

History goes through the very functions that a run uses (parse, drop repeats, enrich, route,
encode) in a plain loop: nothing is sent, and nothing is written to the state store. What is kept
are counts and a few examples, however much history there is, and the keys that a run keeps too.

What vendors charge for is not what is sent to them:

    Splunk     the event as it is indexed (`_raw`), uncompressed; not `time`, `source` and the like
               ("About the Splunk Enterprise license usage report view", whose GB are 2^30 bytes)
    Sentinel   the text of a row's columns without their names, in GB of 10^9 bytes ("Azure Monitor
               Logs cost calculations and options")
"""

from __future__ import annotations

import copy
import functools
import json
import re
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from pydantic import BaseModel
from rich.table import Table

from pipelines.report.tables import lasting
from pipelines.settings import Settings, SinkEntry
from pipelines.tables import shown, table
from schemas.alert import SEVERITIES, Alert
from schemas.batch import AlertBatch, Batch
from schemas.masking import mask
from schemas.receipt import Outcome
from transforms.capture import utc
from transforms.deduplicate import Seen, deduplicate_batch
from transforms.delivery.line import printable
from transforms.delivery.parcel import Parcel
from transforms.delivery.rate import least
from transforms.enrich import enrich_batch, load_subscriptions
from transforms.parse import parse_batch
from transforms.read.files.base import Unread
from transforms.route import Predicate, Where, compile_where, route_batch, why_not
from transforms.secrets import SecretRef
from transforms.sinks import base
from transforms.write import parcels

__all__ = [
    "Comparison",
    "DryRun",
    "as_json",
    "compare",
    "comparison_tables",
    "dry_run",
    "dry_run_tables",
    "page",
]

Enrich = Callable[[AlertBatch], AlertBatch]
Skip = Callable[[AlertBatch, str], AlertBatch]
Change = Literal["only_a", "only_b", "different"]

_DAY_MS = 86_400_000
_MOST_DAYS = 4_000  # apart; of what lies on further ones, records may say any time they like
_MOST_REASONS = 20
_MOST_FIELDS = 200
_MOST_UNREAD = 1_000  # in the JSON; of others only how many
_LISTED = 20  # in a terminal
_DIFFED = 100  # alerts of a kind whose fields are compared; of further ones, one in 256
_SHOWN = 200  # characters of a value


# ------------------------------------------------------------------------- what is found


class Ingest(msgspec.Struct):
    """What a vendor counts. `gb` in the vendor's own: `gb_bytes` each. A day is one of history, in
    UTC, by when the hub took it; what is replayed counts when it is replayed."""

    of: str
    bytes: int
    gb_bytes: int
    gb: float
    days: int
    gb_a_day: float
    largest_day: str
    largest_day_gb: float


class NotRead(msgspec.Struct):
    """Bytes of a file that could not be read; bytes, records -1: how many is not known."""

    file: str
    offset: int
    bytes: int
    records: int
    why: str


class Load(msgspec.Struct):
    """What one sink would get. alerts + not_routed + already + dead: all that are no repeats.

    already: it has them. bytes: as encoded, before compression. requests, seconds: at least.
    bound: what the seconds come from. note: why it would get nothing.
    """

    name: str
    kind: str
    alerts: int = 0
    not_routed: int = 0
    already: int = 0
    dead: int = 0
    shortened: int = 0
    by_kind: dict[str, int] = {}
    by_severity: dict[str, int] = {}
    reasons: dict[str, int] = {}
    bytes: int = 0
    requests: int = 0
    seconds: float = 0.0
    bound: str = ""
    earliest: datetime | None = None
    latest: datetime | None = None
    ingest: Ingest | None = None
    note: str = ""


class Flow(msgspec.Struct):
    """What came of the records before any sink: records = dead + not_chosen + repeats + alerts.

    masked: secrets, in those of the time that was asked for."""

    records: int = 0
    dead: int = 0
    not_chosen: int = 0
    repeats: int = 0
    alerts: int = 0
    masked: int = 0


class DryRun(msgspec.Struct):
    """events: as a hub counts; one holds one or more records. seconds: of the whole replay, at
    least. earliest, latest: event times of the alerts. took: seconds, of the dry run."""

    events: int
    flow: Flow
    by_kind: dict[str, int]
    dead_reasons: dict[str, int]
    earliest: datetime | None
    latest: datetime | None
    days: int
    took: float
    seconds: float
    sinks: list[Load]
    unread: list[NotRead]
    unread_places: int


class Field(msgspec.Struct):
    """A field whose value differs; None: it is not there."""

    name: str
    a: str | None
    b: str | None


class Example(msgspec.Struct):
    """why: why one of the two does not deliver it. fields: what differs where both do."""

    event_id: str
    title: str
    kind: str
    severity: str
    time: datetime | None
    why: str = ""
    fields: list[Field] = []


class Group(msgspec.Struct):
    """Alerts that change alike. rule: what makes it so, as the settings have it."""

    sink: str
    change: Change
    rule: str
    kind: str
    alerts: int = 0
    examples: list[Example] = []


class SinkChange(msgspec.Struct):
    """same + different + only_a: alerts that the first settings deliver; same + different + only_b
    the second. system_a, system_b: "": the sink does not exist there.

    fields: in how many of the `compared` alerts a field differs.
    """

    name: str
    system_a: str
    system_b: str
    same: int = 0
    different: int = 0
    only_a: int = 0
    only_b: int = 0
    bytes_a: int = 0
    bytes_b: int = 0
    ingest_a: Ingest | None = None
    ingest_b: Ingest | None = None
    settings: list[Field] = []
    compared: int = 0
    fields: dict[str, int] = {}

    @property
    def changed(self) -> int:
        return self.different + self.only_a + self.only_b

    @property
    def measured(self) -> bool:
        return self.ingest_a is not None or self.ingest_b is not None


class Comparison(msgspec.Struct):
    """names: what the two settings are called. settings: what differs in them beside the sinks."""

    names: tuple[str, str]
    events: int
    flow_a: Flow
    flow_b: Flow
    earliest: datetime | None
    latest: datetime | None
    settings: list[Field]
    sinks: list[SinkChange]
    groups: list[Group]
    unread: list[NotRead]
    unread_places: int

    @property
    def changed(self) -> int:
        """How many deliveries change."""
        return sum(sink.changed for sink in self.sinks)


def as_json(found: DryRun | Comparison) -> bytes:
    """Indented, with a line's end."""
    return msgspec.json.format(msgspec.json.encode(found), indent=2) + b"\n"


# ------------------------------------------------------------------------ counting


class _Span:
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
        if len(self.days) < _MOST_DAYS:
            self.days.update({alert.enqueued_ms // _DAY_MS for alert in alerts})

    @property
    def times(self) -> tuple[datetime | None, datetime | None]:
        return _time(self.first), _time(self.last)


def _time(ms: int) -> datetime | None:
    return utc(ms) if ms else None


class _Event(msgspec.Struct):
    event: msgspec.Raw = msgspec.Raw(b"")


_hec = msgspec.json.Decoder(_Event).decode
_row = msgspec.json.Decoder(dict[str, Any]).decode


def _splunk(payload: bytes) -> int:
    return len(_hec(payload).event)


def _sentinel(payload: bytes) -> int:
    return sum(
        len(value.encode() if isinstance(value, str) else msgspec.json.encode(value))
        for value in _row(payload).values()
        if value is not None
    )


class _Vendor(NamedTuple):
    of: str
    gb_bytes: int
    count: Callable[[bytes], int]


_VENDORS = {
    "splunk_hec": _Vendor("events as indexed (_raw), uncompressed; GB of 2^30", 2**30, _splunk),
    "sentinel": _Vendor("text of the columns that are sent; GB of 10^9", 10**9, _sentinel),
}


class _Volume:
    """What a vendor would count, by day."""

    def __init__(self, vendor: _Vendor) -> None:
        self._vendor = vendor
        self._days: Counter[int] = Counter()

    def add(self, sent: Iterable[Parcel]) -> None:
        for parcel in sent:
            day = _of(parcel).enqueued_ms // _DAY_MS
            if day not in self._days and len(self._days) >= _MOST_DAYS:
                day = max(self._days)
            self._days[day] += self._vendor.count(parcel.payload)

    def ingest(self, days: int) -> Ingest:
        of, unit, _ = self._vendor
        total = sum(self._days.values())
        largest = max(self._days, key=lambda day: (self._days[day], -day), default=0)
        return Ingest(
            of, total, unit, total / unit, days, total / unit / max(days, 1),
            f"{utc(largest * _DAY_MS):%Y-%m-%d}" if total else "", self._days[largest] / unit,
        )  # fmt: skip


def _count(counts: Counter[str], name: str, most: int) -> None:
    """One more of that name; of names without end, the later ones together."""
    counts[name if name in counts or len(counts) < most else "(others)"] += 1


def _by_count(counts: Mapping[str, int]) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


# ------------------------------------------------------------------------ the way of a record


class _Front:
    """What comes before the sinks."""

    def __init__(
        self,
        settings: Settings,
        choose: Predicate,
        where: Where | None,
        name: str,
        enrich: Enrich,
    ) -> None:
        self.masking = settings.mask
        self.flow = Flow()
        self._choose = choose
        self._where = None if where is None else compile_where(where)
        self._name = name
        self._enrich = enrich
        self._seen = Seen(int(settings.deduplicate.horizon * 1000))

    def fresh(self, parsed: AlertBatch, dead: int) -> AlertBatch:
        """The alerts that are chosen and no repeats, enriched."""
        flow, seen = self.flow, self._seen
        chosen = [*filter(self._choose, parsed.alerts)]
        for alert in chosen:
            alert.replay = self._name
            flow.masked += alert.masked
        seen.turn(max((alert.enqueued_ms for alert in chosen), default=0))
        batch = msgspec.structs.replace(parsed, alerts=chosen, dropped=[])
        fresh, _ = deduplicate_batch(batch, seen)
        seen.fresh.clear()  # nobody is handed it over
        enriched = self._enrich(msgspec.structs.replace(fresh, dropped=[]))
        found = enriched.alerts
        if self._where is not None:
            found = [*filter(self._where, found)]
            enriched = msgspec.structs.replace(enriched, alerts=found)
        flow.records += len(parsed.alerts) + dead
        flow.dead += dead
        flow.repeats += len(chosen) - len(fresh.alerts)
        flow.not_chosen += len(parsed.alerts) - len(chosen) + len(fresh.alerts) - len(found)
        flow.alerts += len(found)
        return enriched


def _enriching(settings: Settings) -> Enrich:
    """As a run does it: with what the file says now."""
    given = settings.subscriptions
    known = load_subscriptions(given.file) if given else {}
    return lambda batch: enrich_batch(batch, known)


class _Lane:
    """One sink, which is sent nothing."""

    def __init__(self, entry: SinkEntry) -> None:
        self.entry = entry
        self.name = entry.name
        self.sink = entry.build()
        self.rate = least(entry.settings.rate, self.sink.limits.rate)
        self._separator = self.sink.separator_bytes
        self._most = self.sink.limits.max_record_bytes
        self._wanted = compile_where(entry.where)
        vendor = _VENDORS.get(entry.kind)
        self.volume = _Volume(vendor) if vendor else None

    def route(self, batch: AlertBatch) -> AlertBatch:
        routed = route_batch(batch, self.name, self._wanted)
        assert routed is not None, "it is addressed to all"
        return routed

    def encode(self, batch: AlertBatch) -> list[Parcel]:
        """What would be sent, and what cannot be; as the delivery engine makes it fit."""
        said = parcels(self.sink, batch, -1)
        if self._most is not None:
            for parcel in said:
                if parcel.outcome is None and len(parcel.payload) + self._separator > self._most:
                    self._shorten(parcel, self._most - self._separator)
        return said

    def _shorten(self, parcel: Parcel, most: int) -> None:
        at = parcel.origin
        assert parcel.alert is not None and at is not None, "it was made from an alert"
        try:
            said = self.sink.shrink(parcel.alert, at.source, at.partition, most)
        except Exception:  # noqa: BLE001 - as in the engine
            said = None
        if said is None or len(said) > most:
            parcel.outcome = Outcome.DEAD
            parcel.reason = f"larger than the {most:,} bytes that the sink takes of a record"
        else:
            parcel.payload, parcel.shortened = said, True


def _lanes(settings: Settings, only: Collection[str] | None = None) -> dict[str, _Lane]:
    return {
        entry.name: _Lane(entry)
        for entry in settings.sinks
        if entry.send == "alerts" and (only is None or entry.name in only)
    }


def _everything(alert: Alert) -> bool:
    return True


def _unheard(batch: Batch) -> None:
    pass


# ------------------------------------------------------------------------ a dry run


class _Weighed:
    """A lane's figures."""

    def __init__(self, lane: _Lane) -> None:
        limits, rate = lane.sink.limits, lane.rate
        self.load = Load(lane.name, lane.entry.kind)
        self._lane = lane
        self._kinds: Counter[str] = Counter()
        self._severities: Counter[str] = Counter()
        self._reasons: Counter[str] = Counter()
        self._span = _Span()
        # Requests as the engine packs them when there is always something to send.
        self._max_bytes = min(limits.max_bytes, rate.bytes or limits.max_bytes)
        self._max_records = max(1, int(min(limits.max_records, rate.records or limits.max_records)))
        self._separator = lane.sink.separator_bytes
        self._bytes = self._records = 0  # of the request that is being filled
        self._sent_bytes = 0

    def add(self, said: list[Parcel]) -> None:
        load, volume = self.load, self._lane.volume
        for parcel in said:
            if parcel.outcome is not None:
                _count(self._reasons, parcel.reason, _MOST_REASONS)
        going = [parcel for parcel in said if parcel.outcome is None]
        for parcel in going:
            load.bytes += len(parcel.payload)
            load.shortened += parcel.shortened
            size = len(parcel.payload) + self._separator
            self._sent_bytes += size
            full = self._bytes + size > self._max_bytes or self._records == self._max_records
            if full or not self._records:
                load.requests += 1
                self._bytes = self._records = 0
            self._bytes += size
            self._records += 1
        if volume is not None:
            volume.add(going)
        sent = [_of(parcel) for parcel in going]
        load.alerts += len(sent)
        load.dead += len(said) - len(sent)
        self._kinds.update([alert.kind for alert in sent])
        self._severities.update([alert.severity for alert in sent])
        self._span.add(sent)

    def done(self, floor: tuple[float, str], days: int) -> Load:
        """floor: how long reading takes at least, and why."""
        load, rate = self.load, self._lane.rate
        load.by_kind = _by_count(self._kinds)
        load.by_severity = {name: n for name in SEVERITIES[::-1] if (n := self._severities[name])}
        load.reasons = _by_count(self._reasons)
        load.earliest, load.latest = self._span.times
        if self._lane.volume is not None:
            load.ingest = self._lane.volume.ingest(days)
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
    choose: Predicate = _everything,
    where: Where | None = None,
    *,
    name: str = "",
    sinks: Collection[str] | None = None,
    enrich: Enrich | None = None,
    skip: Skip | None = None,
    rate: float = 0.0,
    unread: Sequence[Unread] = (),
    progress: Callable[[Batch], object] = _unheard,
    clock: Callable[[], float] = time.monotonic,
) -> DryRun:
    """What a replay of these batches would do.

    choose: which alerts it takes, of what time. where: and of those, once they are enriched. name:
    the replay's, which marks its alerts. sinks: only these. enrich: how; without it, from the
    settings' file. skip: the batch without what a sink has already. rate: records a second that
    are read, at most; 0: any. unread: what could not be read of the files; looked at in the end,
    so that reading may add to it. progress: called with each batch that is through.
    """
    front = _Front(settings, choose, where, name, enrich or _enriching(settings))
    weighed = [(lane, _Weighed(lane)) for lane in _lanes(settings, sinks).values()]
    span, events = _Span(), 0
    kinds: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    began = clock()
    for batch in batches:
        events += len(batch.records)
        parsed, letters = parse_batch(batch, front.masking)
        for letter in letters:
            _count(reasons, printable(letter.reason), _MOST_REASONS)
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
    for entry in settings.sinks:
        if entry.send == "digests" and (sinks is None or entry.name in sinks):
            loads.append(
                Load(entry.name, entry.kind, note="it gets digests, which are not counted")
            )
    return DryRun(
        events, front.flow, _by_count(kinds), _by_count(reasons), *span.times, len(span.days), took,
        max([floor[0], *(load.seconds for load in loads)]), loads, *_unread(unread),
    )  # fmt: skip


def _unread(found: Sequence[Unread]) -> tuple[list[NotRead], int]:
    listed = [
        NotRead(printable(it.url, 1_000), it.offset, it.size, it.records, printable(it.why))
        for it in found[:_MOST_UNREAD]
    ]
    return listed, len(found)


# ------------------------------------------------------------------------ comparing


_At = tuple[int, int]


class _Pair:
    """A sink in both settings, or in one.

    shared: what differs before the sinks, so that alerts themselves do. as_one: both are given the
    very same batches. most: examples of a group.
    """

    def __init__(
        self, name: str, a: _Lane | None, b: _Lane | None, shared: str, as_one: bool, most: int
    ) -> None:
        self.found = SinkChange(name, a.entry.kind if a else "", b.entry.kind if b else "")
        self.groups: dict[tuple[Change, str, str], Group] = {}
        self._lanes = a, b
        self._clauses = [_clauses(lane.entry.where) if lane else [] for lane in (a, b)]
        self._most = most
        self._fields: Counter[str] = Counter()
        self._compared: Counter[str] = Counter()
        self._cause = shared
        self._says_alike = self._alike = False
        if a and b:
            one, two = a.entry, b.entry
            self.found.settings = _differences(_settings_of(one), _settings_of(two))
            as_set = one.kind == two.kind and one.settings == two.settings
            self._says_alike = as_set and not shared
            self._alike = self._says_alike and as_one and one.where == two.where
            if not as_set:
                names = (field.name for field in self.found.settings if field.name != "where")
                self._cause = printable("; ".join(filter(None, (", ".join(names), shared))), _SHOWN)

    def add(self, left: AlertBatch, right: AlertBatch) -> None:
        """What the sink gets of a batch by the one settings, and by the other."""
        a, b = self._lanes
        one = _said(a, left, {})
        two = one if self._alike else _said(b, right, one if self._says_alike else {})
        sent_a, sent_b = ([p for p in said.values() if p.outcome is None] for said in (one, two))
        found = self.found
        found.bytes_a += sum([len(parcel.payload) for parcel in sent_a])
        found.bytes_b += sum([len(parcel.payload) for parcel in sent_b])
        for lane, sent in ((a, sent_a), (b, sent_b)):
            if lane and lane.volume:
                lane.volume.add(sent)
        if self._alike:
            found.same += len(sent_a)
            return
        for parcel in sent_a:
            other = two.get((parcel.sequence, parcel.index))
            if other is None or other.outcome is not None:
                continue
            if other.payload == parcel.payload:
                found.same += 1
            else:
                found.different += 1
                self._otherwise(parcel, other)
        found.only_a += self._only("only_a", sent_a, two, 1, right)
        found.only_b += self._only("only_b", sent_b, one, 0, left)

    def done(self, days: int) -> SinkChange:
        a, b = self._lanes
        self.found.fields = _by_count(self._fields)
        self.found.ingest_a = a.volume.ingest(days) if a and a.volume else None
        self.found.ingest_b = b.volume.ingest(days) if b and b.volume else None
        return self.found

    def _group(self, change: Change, rule: str, alert: Alert) -> Group:
        place = change, rule, alert.kind
        if place not in self.groups:
            self.groups[place] = Group(self.found.name, *place)
        self.groups[place].alerts += 1
        return self.groups[place]

    def _only(
        self,
        change: Change,
        sent: list[Parcel],
        others: Mapping[_At, Parcel],
        side: int,
        batch: AlertBatch,
    ) -> int:
        """How many of what one of the two sends the other side does not; batch: as it has it."""
        missing = [
            parcel
            for parcel in sent
            if (other := others.get((parcel.sequence, parcel.index))) is None
            or other.outcome is not None
        ]
        known = {(alert.sequence, alert.index): alert for alert in batch.alerts} if missing else {}
        lane = self._lanes[side]
        for parcel in missing:
            at = parcel.sequence, parcel.index
            alert, other, why = known.get(at), others.get(at), ""
            if lane is None:
                rule = why = "no such sink takes alerts"
            elif other is not None:
                rule, why = "it cannot be encoded", other.reason
            elif alert is None:
                rule = why = "deduplicate: it is an exact repeat"
            else:
                rule = next((said for said, met in self._clauses[side] if not met(alert)), "where")
            group = self._group(change, rule, _of(parcel))
            if len(group.examples) < self._most:
                if not why and lane and alert:
                    why = why_not(lane.entry.where, alert)
                group.examples.append(_example(_of(parcel), why))
        return len(missing)

    def _otherwise(self, one: Parcel, two: Parcel) -> None:
        alert = _of(one)
        group = self._group("different", self._cause, alert)
        wanted = len(group.examples) < self._most
        self._compared[alert.kind] += 1
        if not (wanted or self._compared[alert.kind] <= _DIFFED or not alert.key[0]):
            return
        fields = _differences(_fields(one.payload), _fields(two.payload))
        if not fields:
            sizes = (f"{len(each.payload):,} bytes" for each in (one, two))
            fields = [Field("(how it is spelt)", *sizes)]
        self.found.compared += 1
        for name in {re.sub(r"\[\d+\]", "[]", field.name) for field in fields}:
            _count(self._fields, name, _MOST_FIELDS)
        if wanted:
            group.examples.append(_example(alert, "", fields[:_LISTED]))


def _clauses(where: Where | None) -> list[tuple[str, Predicate]]:
    """The conditions that must hold, each in words and as a predicate, in the order in which
    `why_not` looks at them."""
    found: list[tuple[str, Predicate]] = []
    for name, field in type(where).model_fields.items() if where else ():
        value = getattr(where, name)
        if name == "all_":
            for each in value or ():
                found += _clauses(each)
        elif value is not None:
            key = field.alias or name
            only = Where.model_validate({key: value})
            said = only.model_dump(mode="json", by_alias=True, exclude_none=True)[key]
            words = json.dumps(said, ensure_ascii=False).replace('"', "")
            found.append((printable(f"where {key}: {words}", _SHOWN), compile_where(only)))
    return found


def compare(
    batches: Iterable[Batch],
    a: Settings,
    b: Settings,
    choose: Predicate = _everything,
    where: Where | None = None,
    *,
    names: tuple[str, str] = ("now", "then"),
    name: str = "",
    sinks: Collection[str] | None = None,
    enrich: tuple[Enrich, Enrich] | None = None,
    examples: int = 3,
    unread: Sequence[Unread] = (),
    progress: Callable[[Batch], object] = _unheard,
) -> Comparison:
    """What settings `b` would make of these batches that `a` does not.

    names: what the two are called. enrich: how each does; without it, from its settings' file.
    examples: at most so many of each group. Otherwise as `dry_run`. Same batches, same result.
    """
    ways = enrich or (_enriching(a), _enriching(b))
    fronts = [_Front(it, choose, where, name, way) for it, way in zip((a, b), ways, strict=True)]
    alike_known = ways[0] is ways[1] or (enrich is None and _subscriptions(a) == _subscriptions(b))
    masks_alike = a.mask == b.mask
    as_one = masks_alike and alike_known and a.deduplicate.horizon == b.deduplicate.horizon
    if as_one:
        fronts[1].flow = fronts[0].flow
    shared = [
        said for said, alike in (("mask", masks_alike), ("subscriptions", alike_known)) if not alike
    ]
    lanes = [_lanes(it, sinks) for it in (a, b)]
    pairs = [
        _Pair(each, lanes[0].get(each), lanes[1].get(each), ", ".join(shared), as_one, examples)
        for each in lanes[0] | lanes[1]
    ]
    span, events = _Span(), 0
    for batch in batches:
        events += len(batch.records)
        parsed, letters = parse_batch(batch, a.mask)
        if as_one:
            left = right = fronts[0].fresh(parsed, len(letters))
        else:
            again, refused = parsed, letters
            if masks_alike:  # enrichment sets fields in place
                again = msgspec.structs.replace(parsed, alerts=[*map(copy.copy, parsed.alerts)])
            else:
                again, refused = parse_batch(batch, b.mask)
            left = fronts[0].fresh(parsed, len(letters))
            right = fronts[1].fresh(again, len(refused))
        span.add(left.alerts)
        for pair in pairs:
            pair.add(left, right)
        progress(batch)
    groups = [group for pair in pairs for group in pair.groups.values()]
    named = printable(names[0], 80), printable(names[1], 80)
    return Comparison(
        named, events, fronts[0].flow, fronts[1].flow, *span.times,
        _differences(_shared_settings(a), _shared_settings(b)),
        [pair.done(len(span.days)) for pair in pairs],
        sorted(groups, key=lambda it: (it.sink, -it.alerts, it.change, it.rule, it.kind)),
        *_unread(unread),
    )  # fmt: skip


def _subscriptions(settings: Settings) -> Any:
    return load_subscriptions(settings.subscriptions.file) if settings.subscriptions else {}


def _said(lane: _Lane | None, batch: AlertBatch, known: Mapping[_At, Parcel]) -> dict[_At, Parcel]:
    """What the sink is said, by address. known: what would be said alike."""
    if lane is None:
        return {}
    routed = lane.route(batch)
    found: dict[_At, Parcel] = {}
    missing: list[Alert] = []
    for alert in routed.alerts:
        parcel = known.get((alert.sequence, alert.index))
        if parcel is None:
            missing.append(alert)
        else:
            found[parcel.sequence, parcel.index] = parcel
    if missing:
        for parcel in lane.encode(msgspec.structs.replace(routed, alerts=missing)):
            found[parcel.sequence, parcel.index] = parcel
    return found


def _of(parcel: Parcel) -> Alert:
    assert parcel.alert is not None, "every parcel here was made from an alert"
    return parcel.alert


def _example(alert: Alert, why: str, fields: Sequence[Field] = ()) -> Example:
    return Example(
        alert.event_id, _safe(alert.title), alert.kind, alert.severity, _time(alert.event_ms),
        _safe(why), [*fields],
    )  # fmt: skip


def _safe(text: str) -> str:
    """One line for people: without what could act, or is secret, whatever the settings say."""
    hidden, _ = mask(text.encode("utf-8", "replace"))
    return printable(hidden.decode("utf-8", "replace"), _SHOWN)


# ------------------------------------------------------------------------ what differs


class _Hidden(str):
    """A text that is compared, and not shown."""

    __slots__ = ()


class _Url(str):
    """A URL, of which the host is shown."""

    __slots__ = ()


def _settings_of(entry: SinkEntry) -> dict[str, str]:
    found = {"system": entry.kind}
    if entry.where is not None:
        where = entry.where.model_dump(mode="json", by_alias=True, exclude_none=True)
        found["where"] = json.dumps(where, ensure_ascii=False).replace('"', "")
    return found | dict(_leaves(entry.settings, _setting))


def _shared_settings(settings: Settings) -> dict[str, str]:
    """But for sinks; where events come from, and are kept, changes nothing here."""
    found = {
        f"{name}{'' if path[:1] in ('', '[') else '.'}{path}": text
        for name in ("subscriptions", "deduplicate", "mask", "digests")
        for path, text in _leaves(getattr(settings, name), _setting)
    }
    return found | {
        f"sinks.{entry.name}": f"{entry.kind}, which gets digests"
        for entry in settings.sinks
        if entry.send == "digests"
    }


def _setting(value: Any) -> str | None:
    if value is None:
        return None
    if isinstance(value, SecretRef):
        return _Hidden(value)
    text = _text(value)
    return _Url(text) if text.startswith(("http://", "https://")) else text


def _text(value: Any) -> str:
    if isinstance(value, str | Path):
        return str(value)
    return json.dumps(value, default=str, ensure_ascii=False)


def _leaves(
    value: Any, told: Callable[[Any], str | None] = _text, path: str = ""
) -> Iterator[tuple[str, str]]:
    """Every value by its dotted path, as text; None: it is none."""
    if isinstance(value, BaseModel):
        value = dict(value)
    if isinstance(value, Mapping) and value:
        for key, each in value.items():
            yield from _leaves(each, told, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list | tuple) and value:
        for number, each in enumerate(value):
            yield from _leaves(each, told, f"{path}[{number}]")
    elif (text := told(value)) is not None:
        yield path, text


def _differences(a: Mapping[str, str], b: Mapping[str, str]) -> list[Field]:
    return [
        Field(printable(name, _SHOWN), *_both(a.get(name), b.get(name)))
        for name in dict.fromkeys((*a, *b))
        if a.get(name) != b.get(name)
    ]


def _both(a: str | None, b: str | None) -> tuple[str | None, str | None]:
    """Two texts that differ, around the place where they do."""
    start = 0
    if a is not None and b is not None and max(len(a), len(b)) > _SHOWN // 2:
        same = next((n for n, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), None)
        start = max(0, (min(len(a), len(b)) if same is None else same) - _SHOWN // 4)
    one, two = (_visible(text, start) for text in (a, b))
    if one == two and one is not None:
        two = f"{two} (another one)"
    return one, two


def _visible(text: str | None, start: int) -> str | None:
    if not text:
        return None if text is None else "(empty)"
    if isinstance(text, _Hidden):
        return "a secret"
    if isinstance(text, _Url):
        return _safe(base.shown(text))
    # Masked before it is cut: a cut may take what tells a secret.
    hidden, count = mask(text.encode("utf-8", "replace"))
    whole = hidden.decode("utf-8", "replace")
    at = min(start, max(0, len(whole) - _SHOWN)) if count else start
    return ("…" if at else "") + printable(whole[at:], _SHOWN)


_HEADERS = {
    "CEF": ("version", "vendor", "product", "product version", "class", "name", "severity"),
    "LEEF": ("version", "vendor", "product", "product version", "event id", "delimiter"),
}
_HEADER = re.compile(r"(CEF|LEEF):[\d.]+\|")
_CEF_KEY = re.compile(r"(?:^|(?<= ))([A-Za-z0-9_.-]+)=")
_PARAM = re.compile(r'([^\s="\[\]]{1,64})="((?:[^"\\]|\\.)*)"')
_PARAMS = re.compile(rf"(?:{_PARAM.pattern}[ \]]*)+")


def _fields(payload: bytes) -> dict[str, str]:
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
        fields |= dict(_leaves(value, path=f"({number + 1})" if number else ""))
        at, number = end, number + 1
    between += text[at:]
    return fields | ({"text": between} if between.strip() else {})


# ------------------------------------------------------------------------ for a terminal


def _size(count: int) -> str:
    size = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:,.0f} B" if unit == "B" else f"{size:,.1f} {unit}"
        size /= 1000
    return f"{size:,.1f} TB"


def _gb(value: float) -> str:
    return f"{value:,.2f}" if value >= 0.01 or not value else "< 0.01"


def _columns(rows: Table, *names: str, right: bool = True) -> Table:
    for name in names:
        rows.add_column(shown(name), justify="right" if right else "left", overflow="fold")
    return rows


def dry_run_tables(found: DryRun) -> list[Table]:
    """What would go where, for a terminal."""
    flow = found.flow
    came = _columns(table("in history"), "records", "dead letters", "not chosen", "repeats")
    _columns(came, "alerts", "earliest", "latest")
    came.add_row(
        *(f"{n:,}" for n in (flow.records, flow.dead, flow.not_chosen, flow.repeats, flow.alerts)),
        *(f"{at:%Y-%m-%d %H:%M}" if at else "-" for at in (found.earliest, found.latest)),
    )
    rows = table(f"what would go where, in at least {lasting(found.seconds)} (nothing was sent)")
    rows.add_column("sink", style="bold", overflow="fold")
    _columns(rows, "alerts", "not routed", "has already", "dead", "encoded", "requests", "at least")
    _columns(rows, "because of", right=False)
    for it in found.sinks:
        if it.note:
            rows.add_row(shown(it.name), *["-"] * 7, shown(it.note))
        else:
            rows.add_row(
                shown(it.name),
                *(f"{n:,}" for n in (it.alerts, it.not_routed, it.already)),
                f"[yellow]{it.dead:,}[/]" if it.dead else "0",
                _size(it.bytes), f"{it.requests:,}", lasting(it.seconds), shown(it.bound),
            )  # fmt: skip
    made = [came, rows]
    loads = [it for it in found.sinks if it.alerts]
    if loads:
        ways = table("by severity")
        ways.add_column("sink", style="bold", overflow="fold")
        _columns(ways, *SEVERITIES[::-1])
        for it in loads:
            counts = (it.by_severity.get(name, 0) for name in SEVERITIES[::-1])
            ways.add_row(shown(it.name), *(f"{n:,}" for n in counts))
        kinds = table("by kind")
        kinds.add_column("kind", style="bold", overflow="fold")
        _columns(kinds, "history", *(it.name for it in loads))
        for kind, count in found.by_kind.items():
            counts = (it.by_kind.get(kind, 0) for it in loads)
            kinds.add_row(kind, f"{count:,}", *(f"{n:,}" for n in counts))
        made += [ways, kinds]
    ingests = [(it.name, it.ingest) for it in found.sinks if it.ingest]
    if ingests:
        made.append(_ingest_table(ingests))
    reasons = [("parse", *each) for each in found.dead_reasons.items()]
    reasons += [(it.name, *each) for it in found.sinks for each in it.reasons.items()]
    if reasons:
        dead = table("would be dead letters")
        dead.add_column("step", style="bold")
        _columns(dead, "records")
        _columns(dead, "reason", right=False)
        for step, reason, count in reasons[:_LISTED]:
            dead.add_row(shown(step), f"{count:,}", shown(reason))
        made.append(dead)
    return made + _unread_table(found)


def _ingest_table(ingests: Sequence[tuple[str, Ingest]]) -> Table:
    rows = table("ingest, which counts on the day of the replay")
    rows.add_column("sink", style="bold", overflow="fold")
    _columns(rows, "GB in all", "a day of history", "largest day")
    _columns(rows, "on", "of", right=False)
    for name, it in ingests:
        figures = (_gb(n) for n in (it.gb, it.gb_a_day, it.largest_day_gb))
        rows.add_row(shown(name), *figures, it.largest_day, it.of)
    return rows


def _unread_table(found: DryRun | Comparison) -> list[Table]:
    if not found.unread_places:
        return []
    rows = table(f"could not be read: {found.unread_places:,}")
    _columns(rows, "file", right=False)
    _columns(rows, "at byte", "bytes")
    _columns(rows, "why", right=False)
    for it in found.unread[:_LISTED]:
        size = f"{it.bytes:,}" if it.bytes >= 0 else "not known"
        rows.add_row(shown(it.file), f"{it.offset:,}", size, shown(it.why, "red"))
    if found.unread_places > _LISTED:
        rows.add_row("…", "", "", f"and {found.unread_places - _LISTED:,} more")
    return [rows]


def _changes(names: tuple[str, str]) -> dict[str, str]:
    return {
        "same": "unchanged",
        "different": "otherwise",
        "only_a": f"only by {names[0]}",
        "only_b": f"only by {names[1]}",
    }


def comparison_tables(found: Comparison) -> list[Table]:
    """What would change, for a terminal."""
    names = _changes(found.names)
    rows = table("what each sink gets")
    rows.add_column("sink", style="bold", overflow="fold")
    _columns(rows, *names.values(), f"bytes by {found.names[0]}", f"by {found.names[1]}")
    for it in found.sinks:
        counts = [it.same, it.different, it.only_a, it.only_b]
        cells = [f"[yellow]{n:,}[/]" if n and at else f"{n:,}" for at, n in enumerate(counts)]
        rows.add_row(shown(it.name), *cells, _size(it.bytes_a), _size(it.bytes_b))
    made = [rows]
    settings = [("", each) for each in found.settings]
    settings += [(it.name, each) for it in found.sinks for each in it.settings]
    if settings:
        made.append(_fields_table("settings that differ", "sink", settings, found.names))
    if found.groups:
        groups = table("why, and which")
        groups.add_column("sink", style="bold", overflow="fold")
        _columns(groups, "delivered", "because of", "kind", right=False)
        _columns(groups, "alerts")
        _columns(groups, "for example", right=False)
        for group in found.groups[:_LISTED]:
            example = group.examples[0] if group.examples else None
            why = example.why if example and example.why != group.rule else ""
            said = f"{example.title} ({why or example.event_id})" if example else ""
            groups.add_row(
                shown(group.sink), shown(names[group.change]), shown(group.rule), group.kind,
                f"{group.alerts:,}", shown(said),
            )  # fmt: skip
        if len(found.groups) > _LISTED:
            rest = sum(group.alerts for group in found.groups[_LISTED:])
            groups.add_row("…", "", "", "", f"{rest:,}", "in the page and the JSON")
        made.append(groups)
    examples = [
        (f"{group.sink}, {group.kind}", each)
        for group in found.groups
        if group.change == "different" and group.examples
        for each in group.examples[0].fields
    ]
    if examples:
        made.append(_fields_table("said otherwise", "for example", examples, found.names))
    return made + _unread_table(found)


def _fields_table(
    title: str, of: str, fields: Sequence[tuple[str, Field]], names: tuple[str, str]
) -> Table:
    rows = table(title)
    rows.add_column(of, style="bold", overflow="fold")
    _columns(rows, "name", *names, right=False)
    for name, it in fields[:_LISTED]:
        values = ("not there" if text is None else text for text in (it.a, it.b))
        rows.add_row(shown(name), shown(it.name), *map(shown, values))
    if len(fields) > _LISTED:
        rows.add_row("…", f"{len(fields) - _LISTED:,} more", "", "")
    return rows


# ------------------------------------------------------------------------ as a page


def page(found: Comparison, made: datetime | None = None) -> str:
    """A whole document that needs nothing else: no script, no file, no network.

    made: when, if that shall be told. It holds titles and values of alerts, so it is as
    confidential as they are.
    """
    return _template().render(
        found=found,
        made=made,
        changes=_changes(found.names),
        bars={it.name: _bar(it) for it in found.sinks},
        most_listed=_LISTED * 10,
    )


@functools.cache
def _template() -> Template:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "report"),
        autoescape=True,
        finalize=_plain,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        number=lambda n: f"{n:,}",
        time=lambda at: "–" if at is None else f"{at:%Y-%m-%d %H:%M:%S}",
        line=lambda text: printable(text, 500),
        size=_size,
        gb=_gb,
    )
    return environment.get_template("what_if.html")


def _plain(value: Any) -> Any:
    """Text without control characters; markup, which the template made, is of another type."""
    return printable(value, len(value)) if type(value) is str else value


_WIDTH, _LEAST = 1000.0, 6.0  # of a bar, in its own units; what is there is seen


def _bar(it: SinkChange) -> list[tuple[str, float, float]]:
    """What changes, where it begins, and how wide it is."""
    counts = {"same": it.same, "different": it.different, "only_a": it.only_a, "only_b": it.only_b}
    total = sum(counts.values())
    wide = [(name, max(_LEAST, n / total * _WIDTH)) for name, n in counts.items() if n]
    scale = _WIDTH / sum(width for _, width in wide) if wide else 1.0
    made, at = [], 0.0
    for name, width in wide:
        made.append((name, round(at, 2), round(width * scale, 2)))
        at += width * scale
    return made
