"""What truly arrived, against what the hub's own events say must have.

The hub is read once more over the accounts' ranges, over links of its own; the events are parsed
and routed as the settings say. Which record was dropped as a repeat is not kept by address; so
where one copy of an alert is dead or owed, the others may have been its repeats, and it need not
have arrived.
"""

from __future__ import annotations

import time
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import BinaryIO, NamedTuple

from pipelines.report.accounts import owed_of
from pipelines.report.verify import Arrived, Check, Missing, letters, never_read
from pipelines.settings import Settings
from schemas.alert import Subscription
from schemas.batch import AlertBatch, Batch, Origin, Record
from schemas.ledger import Span
from schemas.runs import Run, addresses, clip, union
from transforms.account import receipts, settled
from transforms.enrich import enrich_batch, load_subscriptions
from transforms.parse import parse_batch
from transforms.read.access import EventHubsAccess
from transforms.read.reader import ReadSession
from transforms.read.sdk import HubError, kept_sequences
from transforms.route import Predicate, compile_where
from transforms.state_store import StateStore

__all__ = ["ArrivedError", "read_ids", "verify_arrived"]

_BATCH_EVENTS = 500
_BATCH_BYTES = 4 * 1024 * 1024
_BUFFER_BYTES = 8 * 1024 * 1024
_SILENCE_SECONDS = 30.0  # without an event that the hub should have
_QUIET_SECONDS = 1.0
_SAY_SECONDS = 5.0


class ArrivedError(Exception):
    """A file of ids that is none; the message says which line."""


def read_ids(file: BinaryIO, name: str) -> Counter[bytes]:
    """How often each event id stands in a file: 32 hex digits a line. Raises ArrivedError."""
    found: Counter[bytes] = Counter()
    for number, line in enumerate(file, 1):
        text = line.strip()
        if not text:
            continue
        try:
            key = bytes.fromhex(text.decode())
        except ValueError:
            key = b""
        if len(key) != 16:
            raise ArrivedError(
                f"{name}:{number}: not an event id: a line is 32 hexadecimal digits, as sinks get "
                "them (`event_id`, `id`)"
            )
        found[key] += 1
    return found


class _Ranges:
    """Events, in ranges."""

    def __init__(self, runs: Iterable[Run]) -> None:
        self._runs = union(runs)

    def __contains__(self, sequence: int) -> bool:
        at = bisect_right(self._runs, sequence, key=lambda run: run.first) - 1
        return at >= 0 and sequence <= self._runs[at].last


class _Account(NamedTuple):
    """What one sink had of the events `first..last` of one partition. dead, owed: records that it
    has not. unsure: events that it may have had. spans: what it had every record of."""

    first: int
    last: int
    dead: set[tuple[int, int]]
    owed: list[Run]
    unsure: _Ranges
    spans: list[Span]


class _Sink:
    """One receiver's ids, and what each of them is, as events are read."""

    def __init__(self, name: str, predicate: Predicate, ids: Counter[bytes]) -> None:
        self.name = name
        self.accounts: dict[Origin, _Account] = {}
        self._predicate = predicate
        self._ids = ids
        self._met: set[bytes] = set()
        self._absent: dict[bytes, Missing] = {}
        self._excused: set[bytes] = set()
        self._early: set[bytes] = set()

    def take(self, batch: AlertBatch) -> None:
        """Events of the accounts' ranges."""
        account = self.accounts[batch.origin]
        owed = {*addresses(clip(account.owed, batch.first, batch.last))}
        for alert in batch.alerts:
            at = alert.sequence, alert.index
            if not account.first <= at[0] <= account.last or not self._predicate(alert):
                continue
            if at in account.dead or at in owed or at[0] in account.unsure:
                self._excused.add(alert.key)
            elif alert.key in self._ids:
                self._met.add(alert.key)
            elif alert.key not in self._absent:
                self._absent[alert.key] = Missing(alert.event_id, *_pair(batch.origin), *at)

    def explain(self, batch: AlertBatch) -> None:
        """Events outside of the accounts' ranges."""
        known = {alert.key for alert in batch.alerts} & self._ids.keys()
        self._early |= known - self._met - self._excused

    @property
    def left(self) -> set[bytes]:
        """Ids that no event accounts for yet."""
        return self._ids.keys() - self._met - self._excused - self._early

    def arrived(self, some_unread: bool) -> Arrived:
        missing = [each for key, each in self._absent.items() if key not in self._excused]
        left = sorted(key.hex() for key in self.left)
        return Arrived(
            self.name,
            sum(self._ids.values()),
            len(self._ids),
            len(self._met) + len(missing),
            sum(times > 1 for times in self._ids.values()),
            len(self._excused - self._ids.keys()),
            len(self._early),
            len(left) if some_unread else 0,
            sorted(missing, key=lambda m: (m.source, m.partition, m.sequence, m.index)),
            [] if some_unread else left,
        )


def verify_arrived(
    settings: Settings,
    store: StateStore,
    ids: Mapping[str, Counter[bytes]],
    say: Callable[[str], None] = lambda line: None,
) -> tuple[list[Arrived], Check, list[str]]:
    """What each receiver has, by its sink; whether the hub's events hold what was counted; and
    what could not be checked. say: told now and then how far it is.

    Raises SecretError, SubscriptionsError.
    """
    wheres = {entry.name: entry.where for entry in settings.sinks}
    sinks = [_Sink(name, compile_where(wheres.get(name)), found) for name, found in ids.items()]
    _accounts(store, sinks)
    check = Check("The hub's events hold the records that were counted", faults=[], notes=[])
    unchecked: list[str] = []
    read_all = True
    access = {entry.name: entry.event_hubs for entry in settings.sources}
    beside: list[tuple[Origin, range]] = []
    reading = _Reading(settings, access, say)
    try:
        for origin in sorted({origin for sink in sinks for origin in sink.accounts}):
            having = [sink for sink in sinks if origin in sink.accounts]
            if origin.source not in access:
                unchecked.append(f"{origin}: the settings do not name this source any more")
                read_all = False
                continue
            try:
                first = min(sink.accounts[origin].first for sink in having)
                stop = max(sink.accounts[origin].last for sink in having) + 1
                kept = kept_sequences(access[origin.source], origin.partition)
                if first < stop and first < kept.start:
                    unchecked.append(
                        f"{origin}: events {first:,} to {min(stop, kept.start) - 1:,} are gone "
                        "from the hub, which keeps events only for so long"
                    )
                    read_all = False
                counts = [_Count(sink, origin, kept.start) for sink in having]
                for batch in reading.read(origin, max(first, kept.start), min(stop, kept.stop)):
                    for sink, counted in zip(having, counts, strict=True):
                        sink.take(batch)
                        counted.take(batch)
                for counted in counts:
                    check.checked += 1
                    check.faults += counted.faults()
                beside += [
                    (origin, range(kept.start, min(first, kept.stop))),
                    (origin, range(max(stop, kept.start), kept.stop)),
                ]
            except HubError as error:
                check.faults.append(f"{origin}: the hub cannot be read: {error}")
                read_all = False
        for origin, rest in beside:
            if any(sink.left for sink in sinks):
                for batch in reading.read(origin, rest.start, rest.stop):
                    for sink in sinks:
                        sink.explain(batch)
    except HubError as error:
        unchecked.append(f"events outside of the account: the hub cannot be read: {error}")
        read_all = False
    finally:
        reading.close()
    return [sink.arrived(not read_all) for sink in sinks], check, unchecked


def _accounts(store: StateStore, sinks: Iterable[_Sink]) -> None:
    found = letters(store)
    moved = any(store.list("history"))
    for sink in sinks:
        for origin in settled(store, sink.name):
            row = receipts(store, sink.name, origin)
            if row is None:
                continue
            stored, spans = row
            steps = found.get(origin, {})
            unsure = never_read(store, sink.name, origin)
            if moved and spans and spans[0].records == spans[0].outcomes.owed:
                # What an earlier chapter left owed: the others of these events are that one's.
                unsure.append(Run(spans[0].first, spans[0].last, 0))
                spans = spans[1:]
            sink.accounts[origin] = _Account(
                max(stored.began, 0),
                stored.position,
                {*steps.get("parse", ()), *steps.get(sink.name, ())},
                owed_of(store, sink.name, origin, stored.position).runs,
                _Ranges(unsure),
                spans,
            )


class _Count:
    """The records of a sink's receipts, and those that the hub's events hold, of all receipts
    whose events the hub still has."""

    def __init__(self, sink: _Sink, origin: Origin, kept: int) -> None:
        account = sink.accounts[origin]
        spans = [span for span in account.spans if span.first >= kept]
        self._where = f"{sink.name}, {origin}"
        self._ranges = _Ranges(Run(span.first, span.last, 0) for span in spans)
        self._said = sum(span.records for span in spans)
        self._found = 0

    def take(self, batch: AlertBatch) -> None:
        here = (record.sequence for way in (batch.alerts, batch.dropped) for record in way)
        self._found += sum(sequence in self._ranges for sequence in here)

    def faults(self) -> Iterator[str]:
        if self._found != self._said:
            yield (
                f"{self._where}: the receipts are of {self._said:,} records, and the hub's events "
                f"hold {self._found:,}"
            )


class _Reading:
    """The hubs' events again, parsed and enriched."""

    def __init__(
        self,
        settings: Settings,
        access: Mapping[str, EventHubsAccess],
        say: Callable[[str], None],
    ) -> None:
        self._access = access
        self._masking = settings.mask
        self._subscriptions: Mapping[str, Subscription] = {}
        if settings.subscriptions is not None:
            self._subscriptions = load_subscriptions(settings.subscriptions.file)
        self._session = ReadSession(_BUFFER_BYTES)
        self._say = say
        self._said_at = time.monotonic()
        self._events = 0

    def close(self) -> None:
        self._session.close()

    def read(self, origin: Origin, first: int, stop: int) -> Iterator[AlertBatch]:
        """Events `first..stop-1`, which the hub has. Raises HubError."""
        if first >= stop:
            return
        reader = self._session.reader(origin.source, self._access[origin.source])
        reader.seek(origin.partition, first)
        heard = time.monotonic()
        while first < stop:
            events = reader.take(origin.partition, stop, _BATCH_EVENTS, _BATCH_BYTES)
            if not events:
                if reader.wait(origin.partition, stop, _QUIET_SECONDS) == "past":
                    break
                if time.monotonic() - heard > _SILENCE_SECONDS:
                    problem = reader.status(origin.partition).error
                    raise HubError(problem or f"it is silent, and should have event {stop - 1:,}")
                continue
            heard = time.monotonic()
            last = events[-1].sequence
            records = [Record(e.sequence, 0, e.enqueued_ms, e.body) for e in events]
            parsed, _ = parse_batch(Batch(origin, first, last, None, records), self._masking)
            yield enrich_batch(parsed, self._subscriptions)
            first = last + 1
            self._tell(len(events))
        reader.release(origin.partition)

    def _tell(self, events: int) -> None:
        self._events += events
        if time.monotonic() - self._said_at > _SAY_SECONDS:
            self._said_at = time.monotonic()
            self._say(f"{self._events:,} events are read again")


def _pair(origin: Origin) -> tuple[str, str]:
    return origin.source, origin.partition
