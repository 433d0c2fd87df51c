"""Reads again what sinks are owed, as batches addressed to one sink, as fast as that sink takes it.

A thread beside the pipeline: it looks what is owed in the state store, reads exactly those records
from the hub (or from what was set aside before the hub forgot it), the oldest first, and leaves
them for the source, which hands them to the pipeline between live batches. `WriteTo` tells how
they ended. What has no end yet is *in hand*, and never read twice.

Before the hub forgets what is owed, its payload is set aside in the state store: one file for all
sinks that miss it, in Capture's layout, until none is owed any of it. What the hub forgot all the
same is written off, a dead letter each.

The same thread carries out what a person orders (`transforms/orders.py`), has dead letters tried
again, whose bytes are in the state store, and pays the digests that are set aside.
"""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from schemas.batch import Batch, Origin, Record
from schemas.dead_letter import DeadLetter
from schemas.runs import Run, addresses, clip, count, intersect, runs, subtract, union
from transforms.capture import read_capture, row, write_capture
from transforms.delivery.engine import Engine
from transforms.delivery.engines import engine_for, engines
from transforms.digests_owed import DigestsOwed
from transforms.orders import carry_out
from transforms.owed import aside_of, debts, drop_aside, letters_of, put_aside, write_off
from transforms.read.access import EventHubsAccess
from transforms.read.reader import HubReader, ReadSession, session
from transforms.read.sdk import HubError, kept_sequences
from transforms.sinks.base import Sink
from transforms.state_store import StateStore, place, unplace

__all__ = ["Debts", "Payer", "close_payer", "payer"]

_LOGGER = logging.getLogger(__name__)

_TICK_SECONDS = 0.1
_LOOK_SECONDS = 0.5  # from one look into the store to the next
_BATCH_EVENTS = 200
_BATCH_BYTES = 1024 * 1024
_SKIM_EVENTS = 5_000
_NEAR_EVENTS = 5_000  # a gap that is read through, as seeking costs a new link
_TURN_MS = 2_000  # of enqueued time that is read of one partition before another, older one
_PREFETCH = 500
_BUFFER_BYTES = 1024 * 1024
_READERS = 4  # sinks that are paid at a time: a hub allows five readers of a partition
_SLICE_SECONDS = 1.5  # then another sink's turn, if one waits
_OPEN = 8  # partitions that one sink's links are open to, side by side
_SILENCE_SECONDS = 3.0  # without an event that the hub should have
_TAKES_NOTHING = 3  # payments one after another that a sink refused, until it is enough by hand
_SEGMENTS = 3  # of what is owed of a partition that are looked at; each is up to 2,000 runs
_UNSEEN = 500  # records in hand where the sink's engine is in another process
_MISSES = 3  # readings without an event that the hub should have, until it is lost
_ASIDE_SHARE = 0.5  # of the hub's retention, after which what is owed is set aside
_ASIDE_BYTES = 4 * 1024 * 1024
_ASIDE_BATCHES = 20  # before it is looked after the sinks again
_ASIDE_LOOK_SECONDS = 30.0
_PARTING_SECONDS = 1.0  # that digests on their way are waited for at the end
_END = 2**62


class Debts(NamedTuple):
    """Whom to pay, and from where: an element of the source, beside its partitions.

    until_paid: end once nothing is owed that can be paid now; otherwise only with the run.
    digests: the sinks that take digests.
    """

    store: StateStore
    sinks: tuple[str, ...]
    access: Mapping[str, EventHubsAccess]  # by source
    until_paid: bool = False
    digests: tuple[Sink[Any], ...] = ()


_Letters = list[tuple[str, list[Run]]]  # dead letters that are tried again: files, and which of it


class _Feed:
    """What of a partition is to be read again, by one reader."""

    def __init__(self) -> None:
        self.owed: list[Run] = []  # and neither in hand nor ended
        self.hand: list[Run] = []
        self.ended: list[Run] = []  # but struck out in the store perhaps only soon
        self.letters: _Letters = []  # what of it does not lie in the hub
        self.missing: list[Run] = []  # it did not come: the hub is to be asked why
        self.misses = 0  # how often, although the hub should have it
        self.beyond: list[Run] = []  # the hub's last event comes before it: it stays owed
        self.at_ms = 0  # enqueued time of what comes next, about
        self.quiet_since = time.monotonic()  # since when the hub brings nothing


class _Course:
    """Reading again for one sink: its feeds, its links, where it stands. Only the payer's thread
    reads; how records ended is told by another."""

    def __init__(self, sink: str, access: Mapping[str, EventHubsAccess], store: StateStore) -> None:
        self.sink = sink
        self.feeds: dict[Origin, _Feed] = {}
        self.refused = 0  # payments that ended owed again, one after another
        self.problem = ""  # why nothing can be read
        self.problem_since = 0.0  # monotonic
        self._lock = threading.Lock()  # guards what the feeds hold
        self.slice_began = 0.0
        self._access = access
        self._store = store
        self._session: ReadSession | None = None
        self._current: Origin | None = None
        self._wait_until = 0.0
        self._aside: tuple[str, dict[int, Record]] = ("", {})
        self._tried: tuple[str, dict[tuple[int, int], DeadLetter]] = ("", {})

    @property
    def reading(self) -> bool:
        return self._session is not None

    @property
    def in_hand(self) -> int:
        with self._lock:
            return sum(count(feed.hand) for feed in self.feeds.values())

    @property
    def owed(self) -> int:
        """Records that are still to be read."""
        with self._lock:
            return sum(count(feed.owed) for feed in self.feeds.values())

    @property
    def missing(self) -> int:
        """Records that did not come, and nobody knows yet why."""
        with self._lock:
            return sum(count(feed.missing) for feed in self.feeds.values())

    @property
    def beyond(self) -> int:
        """Records that a hub cannot have: it has fewer events than that."""
        with self._lock:
            return sum(count(feed.beyond) for feed in self.feeds.values())

    def close(self) -> None:
        if self._session is not None:
            self._session.close()
        self._session = self._current = None

    def owes(
        self,
        found: Mapping[Origin, tuple[list[Run], int]],
        letters: Mapping[Origin, _Letters] = MappingProxyType({}),
    ) -> None:
        """Take over what the store says is owed, by origin, and since when (ms); and what of it
        are dead letters."""
        with self._lock:
            for origin in {*found, *self.feeds}:
                owed, since_ms = found.get(origin, ([], 0))
                feed = self.feeds.setdefault(origin, _Feed())
                feed.ended = intersect(feed.ended, owed)
                feed.letters = letters.get(origin, [])
                known = union(union(feed.hand, feed.ended), union(feed.missing, feed.beyond))
                if not feed.owed:
                    feed.at_ms = since_ms
                feed.owed = subtract(owed, known)
                if not (owed or feed.hand):
                    del self.feeds[origin]

    def done(self, origin: Origin, ended: list[Run], again: list[Run]) -> None:
        """What was in hand ended, or is owed again."""
        with self._lock:
            feed = self.feeds.get(origin)
            if feed is None:
                return
            feed.hand = subtract(feed.hand, ended)
            feed.ended = union(feed.ended, ended)
            self.refused = self.refused + 1 if again and not ended else 0
        if again:
            self.put_back(origin, again)

    def put_back(self, origin: Origin, again: list[Run]) -> None:
        """What was in hand is read again."""
        with self._lock:
            if feed := self.feeds.get(origin):
                feed.hand = subtract(feed.hand, again)
                feed.owed = union(feed.owed, again)
                feed.at_ms = 0  # the oldest there is

    def forget(self) -> None:
        """What is in hand has no end any more, and the end of what ended need not have been
        written: the store is to say what is owed."""
        with self._lock:
            for feed in self.feeds.values():
                feed.owed, feed.hand, feed.ended = [], [], []

    def read(self, most: int) -> Batch | None:
        """The next batch of up to about `most` records, if it is there: of the oldest partition,
        or else of one whose events have come already."""
        now = time.monotonic()
        if now < self._wait_until:
            return None
        waiting = {o: f for o, f in self.feeds.items() if f.owed and self.within_reach(o, f)}
        order = sorted(waiting, key=lambda origin: waiting[origin].at_ms)
        at = self._current
        if at in waiting and waiting[at].at_ms <= waiting[order[0]].at_ms + _TURN_MS:
            order.remove(at)
            order.insert(0, at)
        for at in order[:_OPEN]:
            if batch := self._letters(at, most):
                return batch
            while owed := self._at_hub(at):  # as it is now: what is put back is read another time
                try:
                    records, last = self._records(at, owed, max(1, min(most, _BATCH_EVENTS)))
                except HubError as error:
                    self._trouble(at, str(error))
                    self._wait_until = now + _SILENCE_SECONDS
                    return None
                if last < 0:
                    break
                self._current = at
                if batch := self._batch(at, clip(owed, 0, last), records, last):
                    return batch  # else those were between what is owed
        return None

    def within_reach(self, at: Origin, feed: _Feed) -> bool:
        """Whether it is known where any of it lies."""
        return at.source in self._access or bool(feed.letters)

    def _at_hub(self, at: Origin) -> list[Run]:
        feed = self.feeds[at]
        if at.source not in self._access or not feed.letters:
            return feed.owed if at.source in self._access else []
        return subtract(feed.owed, (run for _, letters in feed.letters for run in letters))

    def _letters(self, at: Origin, most: int) -> Batch | None:
        """Dead letters that are tried again, of one file."""
        feed = self.feeds[at]
        for path, owed in feed.letters:
            wanted = intersect(owed, feed.owed)
            if wanted and self._tried[0] != path:
                self._tried = path, letters_of(self._store, path)
            known = self._tried[1]
            chosen = itertools.islice(addresses(wanted), max(1, min(most, _BATCH_EVENTS)))
            found = [known[each] for each in chosen if each in known]
            if not found:
                continue  # all of it ended by now
            meant = runs((letter.sequence, letter.index) for letter in found)
            with self._lock:
                feed.owed = subtract(feed.owed, meant)
                feed.hand = union(feed.hand, meant)
            records = [Record(e.sequence, e.index, e.enqueued_ms, e.body) for e in found]
            first, last = records[0].sequence, records[-1].sequence
            return Batch(at, first, last, self.sink, records, meant, retried=True)
        return None

    def lost(self) -> tuple[Origin, list[Run], str] | None:
        """What of one partition surely cannot be paid, and why: the hub says so, and it was not
        set aside. It is in hand then. What the hub says it has is read again, some times."""
        now = time.monotonic()
        at = next((origin for origin, feed in self.feeds.items() if feed.missing), None)
        if at is None or now < self._wait_until:
            return None
        try:
            kept = kept_sequences(self._access[at.source], at.partition)
        except HubError as error:
            self._trouble(at, str(error))
            self._wait_until = now + _SILENCE_SECONDS
            return None
        feed = self.feeds[at]
        aside = self._aside_has(at, feed.missing)
        missing = subtract(feed.missing, aside)
        beyond = clip(missing, kept.stop, _END)
        there = clip(missing, kept.start, kept.stop - 1)
        feed.misses += bool(there)
        again = there if feed.misses < _MISSES else []
        gone = subtract(missing, (*beyond, *again))
        with self._lock:
            feed.missing = []
            feed.beyond = union(feed.beyond, beyond)
            feed.owed = union(feed.owed, (*aside, *again))
            feed.hand = union(feed.hand, gone)
        if again:
            self.close()  # by a new link
        if beyond:
            _LOGGER.warning(
                "%s: %d records that sink %s is owed lie beyond the hub's last event, %d: was the "
                "hub made anew? They stay owed until `alertbeam owed drop`",
                at, count(beyond), self.sink, kept.stop - 1,
            )  # fmt: skip
        if not gone:
            return None
        has = f"it has {kept.start} to {kept.stop - 1} now, but not this" if kept else "it is empty"
        return at, gone, f"gone from the hub before it could be paid: {has}"

    def _aside_has(self, at: Origin, owed: list[Run]) -> list[Run]:
        """What of it is set aside."""
        found: set[int] = set()
        for first, last, path in aside_of(self._store, at.source, at.partition):
            if clip(owed, first, last) and (data := self._store.get(path)):
                found.update(record.sequence for record, _ in read_capture(data))
        return runs(each for each in addresses(owed) if each[0] in found) if found else []

    def _trouble(self, at: Origin, problem: str) -> None:
        if not self.problem:
            self.problem_since = time.monotonic()
            _LOGGER.warning("%s: what sink %s is owed cannot be read: %s", at, self.sink, problem)
        self.problem = f"{at.source}: {problem}"

    def _batch(
        self, at: Origin, meant: list[Run], records: list[Record], last: int
    ) -> Batch | None:
        feed = self.feeds[at]
        there = {record.sequence for record in records}
        with self._lock:
            wanted = runs((s, index) for s, index in addresses(meant) if s in there)
            missing = subtract(meant, wanted)
            feed.missing = union(feed.missing, missing)
            feed.misses = feed.misses if missing else 0
            feed.owed = subtract(feed.owed, meant)
            feed.hand = union(feed.hand, wanted)
            feed.at_ms = records[-1].enqueued_ms if records else feed.at_ms
        return Batch(at, records[0].sequence, last, self.sink, records, wanted) if wanted else None

    def _records(self, at: Origin, owed: list[Run], most: int) -> tuple[list[Record], int]:
        """Owed events in order, and up to which sequence number all that there are are in it;
        -1 where nothing came yet."""
        feed = self.feeds[at]
        first = min(run.first for run in owed)
        stop = max(run.last for run in owed) + 1
        for start, end, path in aside_of(self._store, at.source, at.partition):
            if start <= first <= end:
                records, last = self._from_aside(path, owed, end, most)
                if records:
                    return records, last
            elif first < start < stop:
                stop = start  # the hub need not have what lies there
        reader = self._reader(at)
        standing = reader.at(at.partition)
        if standing is None or not standing <= first <= standing + _NEAR_EVENTS:
            reader.seek(at.partition, first)
            feed.quiet_since = time.monotonic()
        # One event of many may be owed: what lies between is skimmed, and counts for nothing.
        near = addresses(clip(owed, first, first + _SKIM_EVENTS))
        enough, _ = next(itertools.islice(near, most - 1, None), (stop - 1, 0))
        events = reader.take(at.partition, enough + 1, _SKIM_EVENTS, _BATCH_BYTES)
        if not events:
            return self._nothing(reader, at, feed, first, stop)
        feed.quiet_since = time.monotonic()
        self.problem = ""
        wanted = {s for s, _ in addresses(clip(owed, 0, events[-1].sequence))}
        records = [
            Record(e.sequence, 0, e.enqueued_ms, e.body) for e in events if e.sequence in wanted
        ]
        return records, events[-1].sequence

    def _nothing(
        self, reader: HubReader, at: Origin, feed: _Feed, first: int, stop: int
    ) -> tuple[list[Record], int]:
        """What it means that no event came."""
        if reader.wait(at.partition, stop, 0) == "past":
            return [], stop - 1
        if problem := reader.status(at.partition).error:
            self._trouble(at, problem)
            feed.quiet_since = time.monotonic()
        if time.monotonic() - feed.quiet_since > _SILENCE_SECONDS:
            feed.quiet_since = time.monotonic()
            kept = kept_sequences(self._access[at.source], at.partition)
            if first < kept.start:
                return [], min(kept.start, stop) - 1
            if first >= kept.stop:
                return [], stop - 1
        return [], -1

    def _from_aside(
        self, path: str, owed: list[Run], end: int, most: int
    ) -> tuple[list[Record], int]:
        """As far as the file has them without a gap: it was written for what was owed then."""
        if self._aside[0] != path:
            data = self._store.get(path)
            kept = [record for record, _ in read_capture(data)] if data else []
            self._aside = path, {record.sequence: record for record in kept}
        found: list[Record] = []
        for sequence in sorted({s for s, _ in addresses(clip(owed, 0, end))}):
            record = self._aside[1].get(sequence)
            if record is None or len(found) == most:
                return found, sequence - 1
            found.append(record)
        return found, end

    def _reader(self, at: Origin) -> HubReader:
        if self._session is None:
            self._session = ReadSession(_BUFFER_BYTES)
            self.slice_began = time.monotonic()
        access = self._access[at.source]
        few = access.model_copy(update={"prefetch": min(access.prefetch, _PREFETCH)})
        return self._session.reader(at.source, few)


class Payer(threading.Thread):
    """Pays the sinks of one run, in this process."""

    def __init__(self, run: str, about: Debts) -> None:
        super().__init__(name="pay what is owed", daemon=True)
        self._run = run
        self._about = about
        self._courses = {sink: _Course(sink, about.access, about.store) for sink in about.sinks}
        self._digests = [DigestsOwed(about.store, sink) for sink in about.digests]
        self._keeper = _Keeper(about, run)
        self.written_off: Counter[str] = Counter()
        self._outbox: deque[Batch] = deque()
        self._wake = threading.Event()
        self._stopped = False
        self._look_at = 0.0
        self._looked = False
        self._keep_at = 0.0

    # ------------------------------------------------------------ what the pipeline calls

    @property
    def waiting(self) -> int:
        """How many batches wait to be handed on."""
        return len(self._outbox)

    def take(self) -> Batch | None:
        """The next batch, if one waits."""
        try:
            batch = self._outbox.popleft()
        except IndexError:
            return None
        self._tell()
        return batch

    def put_back(self) -> None:
        """What waits to be handed on is read again later: the pipeline takes no more."""
        while self._outbox:
            batch = self._outbox.popleft()
            if batch.only is not None and (course := self._courses.get(batch.only)):
                course.put_back(batch.origin, batch.wanted or [])
        self._tell()

    def done(self, sink: str, origin: Origin, ended: list[Run], again: list[Run]) -> None:
        """How records that were in hand ended: for good, or owed again."""
        if course := self._courses.get(sink):
            course.done(origin, ended, again)
            self._wake.set()

    def forget(self) -> None:
        """What is in hand has no end any more (a shift failed): it is read again."""
        self._outbox.clear()
        for course in self._courses.values():
            course.forget()
        self._looked, self._look_at = False, 0.0
        self._tell()

    @property
    def idle(self) -> bool:
        """Nothing is in hand."""
        return not any(course.in_hand for course in self._courses.values())

    @property
    def beyond(self) -> dict[str, int]:
        """How many records that a sink is owed a hub cannot have, by sink. `written_off`: those
        that it had, and has no more."""
        return {name: course.beyond for name, course in self._courses.items() if course.beyond}

    @property
    def problems(self) -> dict[str, str]:
        """Why what a sink is owed cannot be read, by sink."""
        return {name: c.problem for name, c in self._courses.items() if c.problem}

    @property
    def finished(self) -> bool:
        """Nothing is in hand, and nothing more can be paid now."""
        return self._looked and all(
            not course.in_hand and (not (course.owed or course.missing) or self._hopeless(course))
            for course in self._courses.values()
        ) and all(
            not digests.in_hand and (not digests.waiting or self._stuck(digests))
            for digests in self._digests
        )  # fmt: skip

    def stop(self) -> None:
        self._stopped = True
        self._wake.set()
        self.join(timeout=10)

    # ------------------------------------------------------------------------ its thread

    def run(self) -> None:
        while not self._stopped:
            self._wake.wait(_TICK_SECONDS)
            self._wake.clear()
            try:
                self._look()
                self._serve()
                self._bury()
                self._set_aside()
            except Exception:
                # A bug, or a store that fails: but without this thread nothing would be paid.
                _LOGGER.exception("paying what is owed failed; it is tried again")
                time.sleep(_LOOK_SECONDS)
        for course in (*self._courses.values(), self._keeper.course):
            course.close()
        end = time.monotonic() + _PARTING_SECONDS
        while any(each.in_hand for each in self._digests) and time.monotonic() < end:
            time.sleep(_TICK_SECONDS / 10)
            for each in self._digests:
                each.settle()

    def _look(self) -> None:
        """What is ordered, and what is owed by now."""
        if time.monotonic() < self._look_at:
            return
        carry_out(
            self._about.store
        )  # first: one that was cut short is ended before anything is paid
        self._look_at = time.monotonic() + _LOOK_SECONDS
        for course in self._courses.values():
            found: dict[Origin, tuple[list[Run], int]] = {}
            letters: dict[Origin, _Letters] = {}
            for debt in debts(self._about.store, course.sink, _SEGMENTS):
                origin = Origin(debt.source, debt.partition)
                owed, since_ms = found.get(origin, ([], debt.iou.since_ms))
                found[origin] = union(owed, debt.iou.owed), min(since_ms, debt.iou.since_ms)
                if debt.letters:
                    letters.setdefault(origin, []).append((debt.letters, debt.iou.owed))
            course.owes(found, letters)
            if engine := self._engine(course.sink):
                engine.nearly_paid(course.owed + course.in_hand)
        for digests in self._digests:
            digests.pay(engine_for(digests.sink, self._run))
        self._looked = True

    def _serve(self) -> None:
        """Read for every sink that has an appetite, a few at a time."""
        hungry: dict[_Course, int] = {}
        for course in self._courses.values():
            if course.owed and not self._hopeless(course) and (may := self._appetite(course)):
                hungry[course] = may
            elif course.reading:
                course.close()
        reading = [course for course in hungry if course.reading]
        waiting = [course for course in hungry if not course.reading]
        waiting.sort(key=lambda course: course.slice_began)
        for course in reading:
            over = time.monotonic() - course.slice_began > _SLICE_SECONDS
            if waiting and len(reading) >= _READERS and over:
                course.close()
                reading.remove(course)
                break
        for course in reading + waiting[: max(0, _READERS - len(reading))]:
            self._read_for(course, hungry[course])

    def _read_for(self, course: _Course, may: int) -> None:
        while (room := may - course.in_hand) > 0:
            batch = course.read(min(room, may // 2 + 1))  # one is sent while the next one waits
            if batch is None:
                break
            self._outbox.append(batch)
            self._tell()

    def _bury(self) -> None:
        """Write off what is gone for good."""
        for course in self._courses.values():
            if (lost := course.lost()) is None:
                continue
            at, gone, why = lost
            since_ms = course.feeds[at].at_ms or int(time.time() * 1000)
            _LOGGER.warning(
                "%s: %d records that sink %s was owed, of events %d to %d, are %s: written off, "
                "see `alertbeam dead list`",
                at, count(gone), course.sink, min(run.first for run in gone),
                max(run.last for run in gone), why,
            )  # fmt: skip
            try:
                write_off(
                    self._about.store, course.sink, at.source, at.partition, gone, why, since_ms
                )
            except BaseException:
                course.put_back(at, gone)
                raise
            course.done(at, gone, [])
            self.written_off[course.sink] += count(gone)

    def _stuck(self, digests: DigestsOwed) -> bool:
        """Whether it is enough for now, where somebody waits for the end of it."""
        engine = engine_for(digests.sink, self._run)
        return digests.refused >= _TAKES_NOTHING or engine.status().circuit == "open"

    def _appetite(self, course: _Course) -> int:
        engine = self._engine(course.sink)
        return engine.appetite() if engine else _UNSEEN

    def _tell(self) -> None:
        """The source, how much waits here."""
        reading = session(self._run)
        with reading.changed:
            reading.others = len(self._outbox)
            reading.changed.notify_all()

    def _hopeless(self, course: _Course) -> bool:
        """Whether it is enough for now, where somebody waits for the end of it."""
        if not self._about.until_paid:
            return False
        engine = self._engine(course.sink)
        unreadable = not course.missing and not any(
            course.within_reach(origin, feed) for origin, feed in course.feeds.items() if feed.owed
        )
        down = engine is not None and engine.status().circuit == "open"
        silent = course.problem and time.monotonic() - course.problem_since > _SILENCE_SECONDS
        return unreadable or down or bool(silent) or course.refused >= _TAKES_NOTHING

    def _engine(self, sink: str) -> Engine | None:
        return next((e for e in engines(self._run) if e.sink.name == sink), None)

    def _set_aside(self) -> None:
        if time.monotonic() >= self._keep_at:
            self._keep_at = time.monotonic() + (
                _TICK_SECONDS if self._keeper.keep() else self._keeper.pause
            )


class _Keeper:
    """Sets payloads aside before the hub forgets them."""

    def __init__(self, about: Debts, run: str) -> None:
        self._about = about
        self._run = run
        self.course = _Course("", about.access, about.store)
        self._waiting: dict[Origin, list[Record]] = {}
        self._kept = {  # where files may lie
            Origin("/".join(source), partition)
            for path in about.store.list(place("aside", "events"))
            for _, _, *source, partition, _ in [unplace(path)]
        }
        hours = min((access.retention_hours for access in about.access.values()), default=24.0)
        self.pause = min(_ASIDE_LOOK_SECONDS, hours * 3600 / 20)

    def keep(self) -> bool:
        """Set some aside of what has to be by now; whether there is more to do at once."""
        if not self.course.owed:
            self._look()
        for _ in range(_ASIDE_BATCHES):
            batch = self.course.read(_BATCH_EVENTS)
            if batch is None:
                break
            kept = self._waiting.setdefault(batch.origin, [])
            kept.extend(batch.records)
            if sum(len(record.body) for record in kept) >= _ASIDE_BYTES:
                self._write(batch.origin)
        if self.course.owed:
            return True
        for origin in list(self._waiting):
            self._write(origin)
        self.course.close()
        return False

    def _write(self, origin: Origin) -> None:
        records = self._waiting.pop(origin)
        first, last = records[0].sequence, records[-1].sequence
        data = write_capture(map(row, records))
        put_aside(self._about.store, origin.source, origin.partition, first, last, data)
        _LOGGER.warning(
            "%s: events %d to %d, which sinks are owed, are set aside: the hub forgets them soon",
            origin, first, last,
        )  # fmt: skip

    def _look(self) -> None:
        """What is owed and old, and not aside yet; forget what nobody is owed any more."""
        # A hub whose clock is ahead of ours forgets sooner than ours would say.
        told = (status.last_enqueued_ms or 0 for status in session(self._run).status())
        about, now_ms = self._about, max(time.time() * 1000, *told, 0)
        old: dict[Origin, tuple[list[Run], int]] = {}
        for debt in itertools.chain.from_iterable(debts(about.store, each) for each in about.sinks):
            access = about.access.get(debt.source)
            if access is None or debt.letters:
                continue
            if now_ms - debt.iou.since_ms > access.retention_hours * 3_600_000 * _ASIDE_SHARE:
                origin = Origin(debt.source, debt.partition)
                runs_, since_ms = old.get(origin, ([], debt.iou.since_ms))
                old[origin] = union(runs_, debt.iou.owed), min(since_ms, debt.iou.since_ms)
        for origin in {*old, *self._kept}:
            drop_aside(about.store, about.sinks, origin.source, origin.partition)
            files = aside_of(about.store, origin.source, origin.partition)
            self._kept.add(origin) if files else self._kept.discard(origin)
            if origin in old:
                runs_, since_ms = old[origin]
                for first, last, _ in files:
                    runs_ = subtract(runs_, clip(runs_, first, last))
                old[origin] = runs_, since_ms
        self.course.feeds.clear()
        self.course.owes({origin: each for origin, each in old.items() if each[0]})


_PAYERS: dict[str, Payer] = {}
_PAYERS_LOCK = threading.Lock()


def payer(run: str, about: Debts | None = None) -> Payer | None:
    """The run's payer in this process; with `about` it is made and started if there is none."""
    with _PAYERS_LOCK:
        found = _PAYERS.get(run)
        if found is None and about is not None:
            found = _PAYERS[run] = Payer(run, about)
            found.start()
        return found


def close_payer(run: str) -> None:
    """End the run's paying and its links. What was in hand stays owed."""
    with _PAYERS_LOCK:
        found = _PAYERS.pop(run, None)
    if found is not None:
        found.stop()
