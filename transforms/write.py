"""Writing to one sink: encode, hand to its delivery engine, and say how each record ended.

Sinks send side by side. At the end of a bundle each is waited for: where the state store is the
authority (the local runner), only for a moment; a batch that has not ended by then is said to
have in a later bundle, so a sink that is slow or hangs holds up nobody. Where the runner's own
state is the authority, everything must have ended, within the sink's patience. With a journal, what
ended is also put down there at once.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator
from typing import Any, NamedTuple

import apache_beam as beam
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.timestamp import MIN_TIMESTAMP
from apache_beam.utils.windowed_value import WindowedValue

from schemas.alert import Alert
from schemas.batch import AlertBatch, Origin
from schemas.dead_letter import DeadLetter
from schemas.receipt import Outcome, Outcomes, Receipt
from schemas.runs import Run, runs, subtract
from transforms import coders, metrics
from transforms.account import settled
from transforms.attempts import Attempts
from transforms.dead_letters import write_dead_letters
from transforms.delivery.engine import Engine
from transforms.delivery.engines import engine_for
from transforms.delivery.line import printable
from transforms.delivery.parcel import Parcel
from transforms.journal import Journal
from transforms.read.payer import payer
from transforms.read.reader import session
from transforms.sinks.base import Sink
from transforms.state_store import StateStore, place

__all__ = ["DigestsOnly", "WriteDigests", "WriteTo", "parcels", "receipt"]


_DIGESTS = Origin("digests", "0")
_HOLD = 0.25  # seconds that a sink may hold up the others, once; old alerts can wait longer:
_OLD_HOLD = (0.1, 2.0)  # a part of their age, and at most so many seconds
_OFTEN = (0.5, 8 * 1024 * 1024)  # seconds, and bytes that are under way
_BRIEF = 0.02  # seconds, as long as it has not made good what it was waited for


def parcels(sink: Sink[Any], batch: AlertBatch, after: int) -> list[Parcel]:
    """The batch's alerts with a sequence number above `after`, encoded; what cannot be encoded
    is dead already."""
    origin = batch.origin
    return [_parcel(sink, alert, origin) for alert in batch.alerts if alert.sequence > after]


def _parcel(sink: Sink[Any], alert: Alert, origin: Origin) -> Parcel:
    try:
        payload, dead = sink.encode(alert, origin.source, origin.partition), ""
    except ValueError as error:
        payload, dead = b"", printable(f"cannot be encoded: {error}")
    except Exception as error:  # noqa: BLE001 - its bug must not stop the partition
        payload, dead = b"", f"the encoder failed: {type(error).__name__}"
    outcome = Outcome.DEAD if dead else None
    return Parcel(alert.sequence, alert.index, payload, alert, outcome, dead, origin)


def receipt(sink: str, batch: AlertBatch, sent: list[Parcel], after: int) -> Receipt:
    """How every record of the batch, or of a part of it, ended for this sink. Each parcel has its
    outcome by now."""
    counts = [0] * len(Outcome)
    for dropped in batch.dropped:
        if dropped.sequence > after:
            counts[dropped.outcome] += 1
    for parcel in sent:
        assert parcel.outcome is not None, "the engine left a record without an outcome"
        counts[parcel.outcome] += 1

    def ended(outcome: Outcome) -> list[Run]:
        if not counts[outcome]:
            return []
        ways = (sent, batch.dropped)
        return runs((r.sequence, r.index) for way in ways for r in way if r.outcome is outcome)

    paying = batch.only is not None
    owed, dead = ended(Outcome.OWED), ended(Outcome.DEAD) if paying else []
    delivered = ended(Outcome.DELIVERED) if paying else []
    if batch.retried:  # records of one letter share its address: it ends as the worst of them
        dead = subtract(dead, owed)
        delivered = subtract(subtract(delivered, owed), dead)
    outcomes = Outcomes(*counts)
    if after >= batch.first:  # not from `size`: that is the whole batch's, and this may be a part
        outcomes.earlier = sum(alert.sequence <= after for alert in batch.alerts)
        outcomes.earlier += sum(dropped.sequence <= after for dropped in batch.dropped)
    return Receipt(
        batch.origin.source,
        batch.origin.partition,
        sink,
        batch.first,
        batch.last,
        batch.size,
        outcomes,
        owed,
        max((alert.enqueued_ms for alert in batch.alerts), default=0),
        batch.only,
        delivered,
        dead,
        min((p.alert.enqueued_ms for p in sent if p.alert and p.outcome is Outcome.OWED), default=0)
        if outcomes.owed
        else 0,
        batch.offset,
        subtract(ended(Outcome.NOT_ROUTED), (*owed, *dead, *delivered)) if batch.retried else [],
        batch.attempt,
    )


class _ToSink(beam.DoFn):
    """What hands records to one sink's engine."""

    def __init__(self, sink: Sink[Any], run: str, store: StateStore) -> None:
        self._sink = sink
        self._run = run
        self._store = store

    def setup(self) -> None:
        self._engine: Engine = engine_for(self._sink, self._run)


class _Sent(NamedTuple):
    """A batch whose records are on their way."""

    batch: AlertBatch
    parcels: list[Parcel]
    after: int

    @property
    def ended(self) -> bool:
        return all(parcel.outcome is not None for parcel in self.parcels)


class _Write(_ToSink):
    def __init__(
        self,
        sink: Sink[Any],
        run: str,
        store: StateStore,
        carry: bool = False,
        often: bool = False,
        journal: str = "",
    ) -> None:
        super().__init__(sink, run, store)
        self._carry = carry
        self._often = often
        self._folder = journal

    def setup(self) -> None:
        super().setup()
        # After a crash the partition is read again from the least position of all sinks; what
        # this sink had settled beyond it is not sent twice.
        accounts = settled(self._store, self._sink.name)
        self._settled = {origin: entry.position for origin, entry in accounts.items()}
        self._attempts = Attempts(self._store)
        self._alone = threading.Lock()  # of the following four: senders end batches, too
        self._sent: deque[_Sent] = deque()
        self._said: list[tuple[Origin, Receipt]] = []  # of what has ended
        self._letters: list[DeadLetter] = []
        self._later: list[Receipt] = []  # to be put down when their letters are
        self._journal: Journal | None = None
        self._lagging = False  # it was waited for in vain
        if self._carry:
            self._engine.ended = self._nudge
        elif self._folder:
            self._journal = Journal(self._store, self._folder, self._sink.name)
            self._engine.ended = self._end_what_is_first

    def start_bundle(self) -> None:
        self._may_wait = _BRIEF if self._lagging else _HOLD
        self._waited = 0.0
        self._bytes, self._said_at = 0, time.monotonic()

    def process(self, batch: AlertBatch) -> list[Receipt]:
        after = -1
        if batch.only is None and batch.attempt:
            after = self._attempts.of(batch.origin, batch.attempt).settled.get(self._sink.name, -1)
        elif batch.only is None:
            after = self._settled.get(batch.origin, -1)
        sent = parcels(self._sink, batch, after)
        fresh = [parcel for parcel in sent if parcel.outcome is None]
        with self._alone:
            self._sent.append(_Sent(batch, sent, after))
        if batch.only is not None:
            self._engine.submit_arrears(fresh)
        else:
            if self._carry and not self._lagging and batch.alerts:
                part, most = _OLD_HOLD
                age = time.time() - batch.alerts[-1].enqueued_ms / 1000
                self._may_wait = max(self._may_wait, min(part * age, most))
            began = time.monotonic()
            left = max(0.0, self._may_wait - self._waited)
            self._engine.submit(fresh, left if self._carry else None)
            self._waited += time.monotonic() - began
        self._end_what_is_first()
        return self._meanwhile(sent) if self._often else []

    def _meanwhile(self, sent: list[Parcel]) -> list[Receipt]:
        """What has ended, now and then; all of it where much has not."""
        seconds, most = _OFTEN
        self._bytes += sum(len(parcel.payload) for parcel in sent)
        if self._bytes < most and time.monotonic() < self._said_at + seconds:
            return []
        self._engine.settle(None if self._bytes >= most else 0.0)
        receipts = [said.value for said in self._ended()]
        self._bytes = sum(len(p.payload) for each in [*self._sent] for p in each.parcels)
        self._said_at = time.monotonic()
        return receipts

    def finish_bundle(self) -> Iterator[WindowedValue]:
        if self._carry and not session(self._run).draining:
            left = max(_BRIEF, self._may_wait - self._waited)
            self._lagging = not self._engine.settle(left)
        else:
            self._engine.settle()
        yield from self._ended()

    def _ended(self) -> Iterator[WindowedValue]:
        with self._alone:
            going: deque[_Sent] = deque()
            for sent in self._sent:  # asked once each: a sender may end it at any moment
                if sent.ended:
                    self._end(sent)
                else:
                    going.append(sent)
            said, self._said = self._said, []
            letters, self._letters = self._letters, []
            later, self._later = self._later, []
            self._sent = going
        if letters:
            write_dead_letters(self._store, letters)
            metrics.DEAD.add(len(letters), self._sink.name)
        if later and self._journal:
            with self._alone:
                for each in later:
                    self._journal.add(each)
        if metrics.on():
            metrics.stand((), {self._sink.name: self._engine.status()})
        for origin, each in said:
            if each.only is not None and (paying := payer(self._run)):
                ended_now = each.delivered + each.dead + each.not_routed
                paying.done(each.only, origin, ended_now, each.owed)
            yield WindowedValue(each, MIN_TIMESTAMP, [GlobalWindow()])

    def _nudge(self) -> None:
        """Ask for a bundle: a receipt wants one."""
        if not self._engine.waited_for:
            session(self._run).nudge()

    def _end_what_is_first(self) -> None:
        """From senders, too, with their engine's lock: nothing here may ask for that, or wait."""
        with self._alone:
            while self._sent and self._sent[0].ended:
                self._end(self._sent[0])
                self._sent.popleft()

    def _end(self, sent: _Sent) -> None:
        """Keep what is to be said of a batch, and let go of its records: a bundle may have many,
        and to hold on to all costs more than their memory."""
        said = receipt(self._sink.name, *sent)
        if metrics.on():
            self._measure(said, sent.parcels)
        self._said.append((sent.batch.origin, said))
        letters = [
            _letter(self._sink.name, sent.batch.origin, parcel)
            for parcel in sent.parcels
            if parcel.outcome is Outcome.DEAD
        ]
        self._letters += letters
        if self._journal and letters:
            self._later.append(said)
        elif self._journal:
            self._journal.add(said)

    @staticmethod
    def _measure(said: Receipt, parcels: list[Parcel]) -> None:
        """What is owed still, when paying it failed, is no more than was said before."""
        for outcome in Outcome:
            if said.only is None or outcome is not Outcome.OWED:
                count = getattr(said.outcomes, outcome.name.lower())
                metrics.SENT.add(count, said.sink, outcome.name.lower())
        took = [
            max(0, parcel.ended_ms - parcel.alert.enqueued_ms) / 1000
            for parcel in parcels
            if parcel.outcome is Outcome.DELIVERED and parcel.alert is not None
        ]
        metrics.DELIVERY.observe(took, said.sink)


def _letter(sink: str, origin: Origin, parcel: Parcel) -> DeadLetter:
    alert = parcel.alert
    assert alert is not None, "every parcel here was made from an alert"
    return DeadLetter(
        origin.source,
        origin.partition,
        parcel.sequence,
        parcel.index,
        alert.enqueued_ms,
        sink,
        parcel.reason,
        alert.original or alert.raw,
    )


class WriteTo(beam.PTransform):
    """`PCollection[AlertBatch]`, routed for this sink → `PCollection[Receipt]`.

    carry: whether a batch may end in a later bundle than it came in. often: whether batches end
        within a bundle, too, as it may be very long. journal: the folder in the store of what ended
        and is in no account yet (transforms/journal.py); "": there is none.
    """

    def __init__(
        self,
        sink: Sink[Any],
        run: str,
        store: StateStore,
        carry: bool = False,
        often: bool = False,
        journal: str = "",
    ) -> None:
        super().__init__()
        self._write = _Write(sink, run, store, carry, often, journal)

    def expand(self, batches: Any) -> Any:
        return batches | "Send" >> beam.ParDo(self._write).with_output_types(Receipt)


class _WriteDigests(_ToSink):
    def start_bundle(self) -> None:
        self._sent: list[Parcel] = []

    def process(self, alert: Alert) -> None:
        parcel = _parcel(self._sink, alert, _DIGESTS)
        if parcel.outcome is None:
            self._engine.submit([parcel])
        self._sent.append(parcel)

    def finish_bundle(self) -> None:
        self._engine.settle()
        for parcel in self._sent:
            if parcel.outcome is not Outcome.DELIVERED and parcel.alert is not None:
                # Small, and not to be had again from the hub: set aside whole, paid later.
                name = f"{parcel.alert.event_id}.json"
                self._store.put(place("aside", "digests", self._sink.name, name), parcel.alert.raw)
        self._sent = []


class WriteDigests(beam.PTransform):
    """`PCollection[Alert]` (digests) → nothing. What the sink refuses is set aside."""

    def __init__(self, sink: Sink[Any], run: str, store: StateStore) -> None:
        super().__init__()
        self._write = _WriteDigests(sink, run, store)

    def expand(self, digests: Any) -> Any:
        return digests | "Send" >> beam.ParDo(self._write)


class DigestsOnly(beam.PTransform):
    """`PCollection[AlertBatch] → PCollection[Receipt]` where no sink takes alerts: every alert
    is delivered by being counted, so that positions move. name: the account's."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name

    def expand(self, batches: Any) -> Any:
        return batches | "Counted" >> beam.FlatMap(_counted, self._name).with_output_types(Receipt)


def _counted(batch: AlertBatch, name: str) -> Iterator[Receipt]:
    if batch.only is not None:
        return
    sent = [Parcel(a.sequence, a.index, b"", a, Outcome.DELIVERED) for a in batch.alerts]
    yield receipt(name, batch, sent, -1)


coders.register()
