"""The delivery engine: packs, sends, retries, and says of every record how it ended.

One engine a sink and process. It outlives bundles and pipeline runs, and so do its connections
and its circuit. Callers (`WriteTo`) submit parcels, and settle at the end of a bundle; the sink's
own sender threads do the rest.

Inside, a *chunk* is what one request carries, and a *piece* is the part of a chunk that still
has to be sent: the whole, a half of it, or what is left when the refused records are out. Pieces
wait in one of two queues: what comes live, and *arrears*, which the sink was owed. Live goes
first. A sink that is up but slower than the stream falls *behind*: then what comes live is owed
at once and its whole pace goes into arrears, oldest first, until it has caught up.
"""

from __future__ import annotations

import itertools
import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from typing import Any, Literal

from schemas.receipt import Outcome
from transforms.delivery.circuit import Circuit, CircuitState, backoff
from transforms.delivery.line import Line, describe, printable
from transforms.delivery.parcel import Chunk, Parcel, Status
from transforms.delivery.rate import Bucket, Pace, least
from transforms.sinks.base import (
    Accepted,
    Pending,
    Refresh,
    RejectItems,
    Retry,
    Shrink,
    Sink,
    Split,
    Stop,
    Verdict,
)

__all__ = ["Engine"]

logger = logging.getLogger(__name__)

_TRIAL = 2.0  # seconds that the first request of a half-open circuit may take
_TRIAL_RECORDS = 50  # of arrears, where nothing comes live that could be the trial
_PARTING = 5.0  # seconds that closing waits for the threads
_CONFIRM = 0.25  # seconds from asking about what is pending to asking again
_QUEUE_BYTES = 16 * 1024 * 1024  # some seconds of a busy stream
_PENDING_BYTES = 64 * 1024 * 1024
_GUESS = 500.0  # records a second, before any was sent
_ARREARS = (2.0, 2_000)  # seconds of its pace, and records, that wait in arrears at most
_WAITING = 4  # times the usual queue that may wait for the last of the arrears
_IN_STORE = 1.5  # seconds until what was owed last is surely seen in the state store
_SEAM = 4.0  # seconds that what comes live waits for the last of the arrears, at most
_HANDED_BACK = 1.0  # seconds of sending that may wait when a shift ends
_SHORT = 16 * 1024  # bytes of a record that is said shorter because the system refused its length
_OVERDUE = 10.0  # seconds after its timeout: a call that is not back then never is
_MOST_REPLACED = 8  # senders of a sink that never came back
_SLOWER = "the sink is slower than the stream: it gets this in its turn"


_Piece = tuple[Chunk, list[Parcel]]
_Task = tuple[Chunk, list[Parcel], float] | Literal["probe", "confirm", "idle", "end"]


class Engine:
    """Delivers parcels to one sink. Thread-safe; threads start with the first parcel.

    queue_bytes: parcels that may wait or be in flight, in encoded bytes, before submit waits;
        default: enough to keep every sender busy, and for bursts.
    linger: seconds that a chunk may wait to be filled. It goes earlier when it is full or
        settled; without it, a sink would wait for another one's settling.
    cool_down: the first and longest pause, in seconds, before an open circuit is probed.
    """

    def __init__(
        self,
        sink: Sink[Any],
        *,
        queue_bytes: int | None = None,
        linger: float = 0.05,
        cool_down: tuple[float, float] = (1.0, 60.0),
    ) -> None:
        self.sink = sink
        settings, limits = sink.settings, sink.limits
        rate = least(settings.rate, limits.rate)
        # No request is more than what may go in a second.
        self._max_bytes = int(max(1, min(limits.max_bytes, rate.bytes or math.inf)))
        self._max_records = int(max(1, min(limits.max_records, rate.records or math.inf)))
        self._max_record = limits.max_record_bytes or math.inf
        self._separator = sink.separator_bytes
        self._patience, self._timeout = settings.patience, settings.timeout
        self._senders = settings.concurrency
        full = (settings.concurrency + 2) * limits.max_bytes
        self._queue_bytes = queue_bytes or max(full, _QUEUE_BYTES)

        self._lock = threading.RLock()
        self._work = threading.Condition(self._lock)  # senders wait: something to do
        self._progress = threading.Condition(self._lock)  # callers wait: something is done
        self._circuit = Circuit(cool_down)
        self._bucket = Bucket(rate, time.monotonic())
        self._pace = Pace(_GUESS)
        self._busy = False  # there was something to send when a sender last looked
        self._threads: list[threading.Thread] = []
        self._back_by: dict[threading.Thread, float] = {}  # monotonic: its call to the sink
        self._unconfirmed: dict[threading.Thread, dict[Hashable, _Piece]] = {}
        self._prober: threading.Thread | None = None
        self._replaced = 0
        self._closed = False
        self._shut = ""  # why nothing is taken now; empty: it is
        self._behind = False  # what comes live is owed
        self._catching_up = False  # what comes live waits for the last of the arrears
        self._little_since = math.inf  # monotonic: since when little is owed, while it is behind
        self._admitted = 0.0  # monotonic: since when what comes live is taken again
        self.draining = False  # a shift ends: nothing must be left in flight
        self.ended: Callable[[], None] | None = None  # called when a chunk did, locked
        self._waiting = 0  # callers that wait
        self._awaited = 0  # of those, who wait for what is pending too

        self._partial: list[Parcel] = []  # the chunk that is being filled
        self._partial_bytes = 0
        self._partial_due = 0.0  # monotonic seconds
        self._linger = linger
        self._numbers = itertools.count()
        self._newest = -1
        self._live: deque[_Piece] = deque()
        self._arrears: deque[_Piece] = deque()
        self._unsettled: dict[Chunk, None] = {}  # in order; a handful
        self._unsettled_bytes = 0
        self._pending_bytes = 0
        self._pause_until = 0.0  # monotonic; the system asked for it, or just failed
        self._trying = False  # a half-open circuit's one request is under way
        self._failed_trials = 0  # since the circuit was closed
        self._probing = False

        self._outcomes = dict.fromkeys((Outcome.DELIVERED, Outcome.DEAD, Outcome.OWED), 0)
        self._submitted = self._requests = self._retries = self._bytes_sent = 0
        self._warnings = self._late = self._paid = self._shortened = 0
        self._last_warning = ""

    # ------------------------------------------------------------------ what callers use

    def submit(self, parcels: Sequence[Parcel], within: float | None = None) -> None:
        """Take parcels over. Waits for room in the queue, never longer than the patience.

        within: seconds that it may wait instead; a sink that has no room by then is behind, and
            owed what comes until it has caught up.
        """
        until = time.monotonic() + (self._patience if within is None else within)
        with self._lock:
            self._submitted += len(parcels)
            self._make_room(until, give_up=within is None)
            for parcel in parcels:
                size = len(parcel.payload) + self._separator
                if size > self._max_record:
                    size = self._fitted(parcel)
                if parcel.outcome is not None:
                    continue
                if self._partial and (
                    self._partial_bytes + size > self._max_bytes
                    or len(self._partial) >= self._max_records
                ):
                    self._pack()
                    self._make_room(until, give_up=within is None)
                if self._shut or self._behind:
                    parcel.outcome, parcel.reason = Outcome.OWED, self._shut or _SLOWER
                    self._outcomes[Outcome.OWED] += 1
                    continue
                if not self._partial:
                    self._partial_due = time.monotonic() + self._linger
                    self._call_sender()
                self._partial.append(parcel)
                self._partial_bytes += size

    def submit_arrears(self, parcels: Sequence[Parcel]) -> None:
        """Take over what the sink was owed. Never waits: `appetite` says how much is welcome."""
        with self._lock:
            self._submitted += len(parcels)
            chunk: list[Parcel] = []
            filled = 0
            for parcel in parcels:
                size = len(parcel.payload) + self._separator
                if size > self._max_record:
                    size = self._fitted(parcel)
                if parcel.outcome is not None:
                    continue
                if chunk and (filled + size > self._max_bytes or len(chunk) >= self._max_records):
                    self._queue_up(chunk, filled, arrears=True)
                    chunk, filled = [], 0
                chunk.append(parcel)
                filled += size
            if chunk:
                self._queue_up(chunk, filled, arrears=True)

    def settle(self, within: float | None = None) -> bool:
        """Wait until everything submitted has an outcome, never longer than the patience.

        within: seconds that it may wait at most for what came live; what has no outcome then, or
            only waits to be confirmed, goes on. Returns whether everything has an outcome.
        """
        with self._lock:
            self._pack()
            last = self._newest
            if within is None:
                self._catching_up = False
                if self.draining:
                    waiting = sum(len(parcels) for _, parcels in self._live)
                    if self._behind or waiting > self._pace.per_second * _HANDED_BACK:
                        self._hand_back(_SLOWER)

            def settled() -> bool:
                for chunk in self._unsettled:
                    if chunk.number > last:
                        break
                    if within is None or not (chunk.arrears or chunk.pending == chunk.left):
                        return False
                return True

            until = time.monotonic() + (self._patience if within is None else within)
            if within is None or not (self._catching_up or self._pause_until > until):
                self._awaited += within is None
                try:
                    self._wait(settled, until, give_up=within is None)
                finally:
                    self._awaited -= within is None
            return not self._unsettled or next(iter(self._unsettled)).number > last

    def appetite(self) -> int:
        """How many records of what it is owed may be on their way to the sink now, in all."""
        with self._lock:
            if self._shut or self.draining or self._closed:
                return 0
            if self._circuit.state is CircuitState.HALF_OPEN:
                return _TRIAL_RECORDS
            if self._pending_bytes > _PENDING_BYTES:
                return 0
            seconds, most = _ARREARS
            pending = sum(chunk.pending for chunk in self._unsettled if chunk.arrears)
            return pending + int(min(max(1.0, self._pace.per_second * seconds), most))

    def nearly_paid(self, left: int) -> None:
        """So many records are still owed, as the state store says now: if that has been little for
        its pace for a while, what comes live is taken again; it waits for the last of the arrears,
        though not for long, so that the sink gets all in order."""
        now = time.monotonic()
        with self._lock:
            self._replace_the_hung(now)
            if self._behind:
                little = not self._live and left <= self._pace.per_second
                self._little_since = min(self._little_since, now) if little else math.inf
                if now >= self._little_since + _IN_STORE:
                    self._behind, self._catching_up, self._admitted = False, True, now
                    self._work.notify_all()
            elif self._catching_up:
                paid = not left and now >= self._admitted + _IN_STORE
                if paid or now >= self._admitted + _SEAM:
                    self._catching_up = False
                    self._work.notify_all()
                    logger.warning("sink %s: it has caught up with the stream", self.sink.name)

    def close(self) -> None:
        """Settle, then let go of threads and connections. What comes later is owed."""
        self.settle()
        with self._lock:
            self._closed = True
            self._shut_down("the sink was closed")
        until = time.monotonic() + _PARTING
        for thread in self._threads:
            # One that hangs in a system call is left behind; it is a daemon.
            thread.join(max(0.0, until - time.monotonic()))

    @property
    def waited_for(self) -> bool:
        """Whether a caller waits for what is under way."""
        return self._waiting > 0

    def status(self) -> Status:
        """The figures now."""
        with self._lock:
            return Status(
                circuit=self._circuit.state.value,
                since=self._circuit.since,
                reason=self._circuit.reason,
                openings=self._circuit.openings,
                delivered=self._outcomes[Outcome.DELIVERED],
                dead=self._outcomes[Outcome.DEAD],
                owed=self._outcomes[Outcome.OWED],
                in_flight=self._submitted - sum(self._outcomes.values()),
                pending=sum(chunk.pending for chunk in self._unsettled),
                requests=self._requests,
                retries=self._retries,
                bytes_sent=self._bytes_sent,
                warnings=self._warnings,
                shortened=self._shortened,
                late=self._late,
                behind=self._behind or self._catching_up,
                paid=self._paid,
                per_second=self._pace.per_second,
            )

    # ------------------------------------------- bookkeeping; the lock is held in all of it

    def _pack(self) -> None:
        """Queue the partial chunk, together with one that still waits if both fit in a request."""
        parcels, size = self._partial, self._partial_bytes
        if not parcels:
            return
        self._partial, self._partial_bytes = [], 0
        if self._live:
            chunk, piece = self._live[-1]
            if (
                piece is chunk.parcels
                and not chunk.attempts
                and chunk.size + size <= self._max_bytes
                and len(piece) + len(parcels) <= self._max_records
            ):
                piece.extend(parcels)
                chunk.size += size
                chunk.left += len(parcels)
                self._unsettled_bytes += size
                return
        self._queue_up(parcels, size, arrears=False)

    def _queue_up(self, parcels: list[Parcel], size: int, arrears: bool) -> None:
        chunk = Chunk(next(self._numbers), parcels, size, arrears)
        self._unsettled[chunk] = None
        self._unsettled_bytes += size
        if self._shut:
            self._finish(chunk, parcels, Outcome.OWED, self._shut)
            return
        self._newest = chunk.number
        (self._arrears if arrears else self._live).append((chunk, parcels))
        self._call_sender()

    def _make_room(self, until: float, give_up: bool) -> None:
        if not self._has_room() and not self._wait(self._has_room, until, give_up):
            self._fall_behind()

    def _has_room(self) -> bool:
        waiting = self._unsettled_bytes - self._pending_bytes
        most = self._queue_bytes * (_WAITING if self._catching_up else 1)
        return bool(self._shut or self._behind) or (
            waiting <= most and self._pending_bytes <= _PENDING_BYTES
        )

    def _size(self, parcels: Sequence[Parcel]) -> int:
        return sum(len(parcel.payload) for parcel in parcels) + self._separator * len(parcels)

    def _call_sender(self) -> None:
        """Wake the senders that wait, and start one more while there may be."""
        if len(self._threads) < self._senders and not self._closed:
            name = f"{self.sink.name} sender {len(self._threads)}"
            thread = threading.Thread(target=self._serve, name=name, daemon=True)
            thread.start()
            self._threads.append(thread)
        self._work.notify_all()

    def _replace_the_hung(self, now: float) -> None:
        """A sink's bug may keep a sender for ever: another one takes its place, a few times."""
        for thread, back_by in list(self._back_by.items()):
            if now < back_by or self._replaced == _MOST_REPLACED:
                continue
            self._replaced += 1
            name = self.sink.name
            logger.warning("sink %s: a call never came back; its sender is replaced", name)
            self._threads.remove(thread)
            del self._back_by[thread]
            if self._prober is thread:
                self._probing, self._prober = False, None
            for chunk, parcels in self._unconfirmed.pop(thread, {}).values():
                self._confirmed(chunk, parcels, Retry("the sender of this never came back"))
            self._call_sender()

    def _wait(self, done: Callable[[], bool], until: float, give_up: bool) -> bool:
        """Wait until `done`, at most until then; whether it is. What is overdue is given up, and
        with `give_up` so is what is left."""
        self._waiting += 1
        try:
            return self._waited(done, until, give_up)
        finally:
            self._waiting -= 1

    def _waited(self, done: Callable[[], bool], until: float, give_up: bool) -> bool:
        while self._unsettled and not done():
            now = time.monotonic()
            end = min(until, *(chunk.deadline for chunk in self._unsettled))
            if now < end:
                self._progress.wait(end - now)
            elif overdue := [c for c in self._unsettled if c.deadline <= now]:
                self._give_up(overdue)
            elif not give_up:
                return False
            elif self.draining:
                self._hand_back(_SLOWER, under_way=True)
            else:
                self._give_up(list(self._unsettled))
        return True

    def _give_up(self, chunks: list[Chunk], reason: str = "") -> None:
        """Open the circuit, and owe these chunks, under way or not: their results are too late."""
        reason = reason or f"not through within {self._patience:g} s"
        self._trip(reason)
        for chunk in chunks:
            left = [parcel for parcel in chunk.parcels if parcel.outcome is None]
            self._finish(chunk, left, Outcome.OWED, reason)

    def _hand_back(self, reason: str, under_way: bool = False) -> None:
        """Owe what waits, and what is under way, while the circuit stays as it is."""
        for queue in (self._live, self._arrears):
            while queue:
                self._finish(*queue.popleft(), Outcome.OWED, reason)
        for chunk in list(self._unsettled) if under_way else ():
            left = [parcel for parcel in chunk.parcels if parcel.outcome is None]
            self._finish(chunk, left, Outcome.OWED, reason)

    def _fall_behind(self) -> None:
        if not (self._shut or self._behind):
            if self._catching_up:  # what waits is younger than the arrears
                while self._live:
                    self._finish(*self._live.popleft(), Outcome.OWED, _SLOWER)
            self._behind, self._catching_up = True, False
            self._little_since = math.inf
            if self._pause_until > time.monotonic():
                return  # it fails, and its circuit will tell
            logger.warning(
                "sink %s: slower than the stream, at %.0f records/s: it gets what comes now in "
                "its turn",
                self.sink.name, self._pace.per_second,
            )  # fmt: skip

    def _trip(self, reason: str, after: float = 0.0) -> None:
        """Open the circuit: everything is owed but what is under way right now."""
        if not self._circuit.open:
            self._trying = False
            self._failed_trials += self._circuit.state is CircuitState.HALF_OPEN
            if self._circuit.trip(reason, after):
                logger.warning("sink %s: circuit opened: %s", self.sink.name, reason)
            self._shut_down(reason)

    def _shut_down(self, reason: str) -> None:
        self._pack()
        self._shut = reason
        self._behind = self._catching_up = False
        self._hand_back(reason)
        self._progress.notify_all()
        self._work.notify_all()

    def _finish(
        self, chunk: Chunk, parcels: Sequence[Parcel], outcome: Outcome, reason: str = ""
    ) -> None:
        now_ms = int(time.time() * 1000)
        for parcel in parcels:
            parcel.outcome = outcome
            parcel.reason = reason
            parcel.ended_ms = now_ms
        self._outcomes[outcome] += len(parcels)
        if chunk.arrears and outcome is not Outcome.OWED:
            self._paid += len(parcels)
        chunk.left -= len(parcels)
        if not chunk.left and chunk in self._unsettled:
            del self._unsettled[chunk]
            self._unsettled_bytes -= chunk.size
            self._progress.notify_all()
            if self.ended is not None:
                self.ended()

    def _requeue(self, chunk: Chunk, *pieces: list[Parcel]) -> None:
        """Put what is still to be sent in front, unless nothing is sent any more."""
        for parcels in reversed(pieces):
            if self._shut:
                self._finish(chunk, parcels, Outcome.OWED, self._shut)
            elif parcels:
                (self._arrears if chunk.arrears else self._live).appendleft((chunk, parcels))
        self._work.notify_all()

    def _fitted(self, parcel: Parcel) -> int:
        """Say a record shorter that is surely too large; its size, or 0: it is dead."""
        most = int(self._max_record) - self._separator
        if not self._say_shorter(parcel, most):
            parcel.outcome = Outcome.DEAD
            parcel.reason = f"larger than the {most:,} bytes that the sink takes of a record"
            self._outcomes[Outcome.DEAD] += 1
            return 0
        return len(parcel.payload) + self._separator

    def _say_shorter(self, parcel: Parcel, most: int) -> bool:
        """Whether the record could be said within `most` bytes, and is now."""
        if parcel.shortened or parcel.alert is None or parcel.origin is None:
            return False
        source, partition = parcel.origin.source, parcel.origin.partition
        try:
            said = self.sink.shrink(parcel.alert, source, partition, most)
        except Exception as error:  # noqa: BLE001 - a sink's bug costs the record, not the rest
            logger.warning("sink %s: shortening failed: %s", self.sink.name, describe(error))
            return False
        if said is None or len(said) > most:
            return False
        parcel.payload, parcel.shortened = said, True
        self._shortened += 1
        return True

    # ---------------------------------------------------------------- the sender threads

    def _serve(self) -> None:
        """One sender's life. The connection is its own, and never leaves the thread."""
        line = Line(self.sink)
        me = threading.current_thread()
        pending = self._unconfirmed.setdefault(me, {})
        idle_at: float | None = None
        confirm_at: float | None = None
        while (task := self._next(idle_at, confirm_at)) != "end":
            self._back_by[me] = time.monotonic() + self._timeout + _OVERDUE
            if task == "idle":
                after = line.idle()
                idle_at = None if after is None else time.monotonic() + after
            elif task == "probe":
                self._probe()
            elif task == "confirm":
                verdicts = line.confirm(self._timeout, self._awaited > 0)
                if self._was_replaced(me):
                    break
                for handle, verdict in verdicts.items():
                    if handle in pending and not isinstance(verdict, Pending):
                        self._confirmed(*pending.pop(handle), verdict)
                confirm_at = time.monotonic() + _CONFIRM
            else:
                chunk, parcels, timeout = task
                verdict = line.send([parcel.payload for parcel in parcels], timeout)
                if self._was_replaced(me):
                    self._judge_safely(chunk, parcels, verdict)  # late, if it says anything
                    break
                idle_at = time.monotonic()
                if isinstance(verdict, Pending) and verdict.handle not in pending:
                    pending[verdict.handle] = chunk, parcels
                    confirm_at = confirm_at or time.monotonic() + _CONFIRM
                    self._taken_for_now(chunk, parcels)
                else:
                    self._judge_safely(chunk, parcels, verdict)
            if self._was_replaced(me):
                break
            if not line.open:
                for chunk, parcels in pending.values():
                    lost = Retry("the connection ended before this was confirmed")
                    self._confirmed(chunk, parcels, lost)
                pending.clear()
            if not pending:
                confirm_at = None
        line.close()

    def _was_replaced(self, thread: threading.Thread) -> bool:
        with self._lock:
            self._back_by.pop(thread, None)
            return thread not in self._threads

    def _next(self, idle_at: float | None, confirm_at: float | None) -> _Task:
        """What to do now; waits for it without spinning."""
        with self._lock:
            while True:
                if self._closed:
                    return "end"
                now = time.monotonic()
                if confirm_at is not None and now >= confirm_at:
                    return "confirm"
                wake = _earliest(idle_at, confirm_at)
                if self._circuit.open:
                    if not self._probing:
                        if now >= self._circuit.probe_at:
                            self._probing, self._prober = True, threading.current_thread()
                            return "probe"
                        wake = _earliest(wake, self._circuit.probe_at)
                else:
                    ready_at = self._ready_at(now)
                    if ready_at is not None and now >= ready_at:
                        return self._take(now)
                    wake = _earliest(wake, ready_at)
                if idle_at is not None and now >= idle_at:
                    return "idle"
                self._work.wait(None if wake is None else wake - now)

    def _ready_at(self, now: float) -> float | None:
        """When the next request may go; None while there is nothing to send."""
        if self._trying:
            return None
        live = not self._catching_up and (self._live or self._partial)
        if not (self._arrears or live):
            self._busy = False
            return None
        ready_at = max(self._pause_until, self._bucket.ready_at(now))
        if not (self._arrears or self._live):
            ready_at = max(ready_at, self._partial_due)
        return ready_at

    def _take(self, now: float) -> _Task:
        if not self._live and not self._catching_up and now >= self._partial_due:
            self._pack()
        first = self._live if self._live and not self._catching_up else self._arrears
        chunk, parcels = first.popleft()
        if not self._busy:
            self._busy = True
            self._pace.busy(now)
        if chunk.deadline == math.inf:
            patience = self._patience
            if self._circuit.state is CircuitState.HALF_OPEN:
                # Short, so that a system that only seems to be back delays nobody much; longer
                # from one time to the next, so that one that has become slow comes back at all.
                patience = min(patience, _TRIAL * 2 ** min(self._failed_trials, 9))
                self._progress.notify_all()  # who waits has reckoned with the whole patience
            chunk.deadline = now + patience
        self._trying = self._circuit.state is CircuitState.HALF_OPEN
        size = self._size(parcels)
        self._bucket.take(now, len(parcels), size)
        self._requests += 1
        self._bytes_sent += size
        return chunk, parcels, min(self._timeout, max(chunk.deadline - now, 0.001))

    def _probe(self) -> None:
        reason = None
        try:
            self.sink.probe(self._timeout)
        except Exception as error:  # noqa: BLE001 - whatever a sink raises, it is not back
            reason = describe(error)
        with self._lock:
            if self._prober is not threading.current_thread():
                return  # it came back, but was replaced
            self._probing = False
            if reason is not None:
                self._circuit.trip(reason)
            elif not self._closed:
                self._circuit.try_again()
                self._shut = ""
            self._work.notify_all()

    def _taken_for_now(self, chunk: Chunk, parcels: list[Parcel]) -> None:
        """The system has these, and will say whether it keeps them."""
        with self._lock:
            chunk.pending += len(parcels)
            chunk.deadline = math.inf  # the connection knows how long to wait
            self._pending_bytes += self._size(parcels)
            self._pace.note(len(parcels), time.monotonic())
            self._answered(chunk)
            self._progress.notify_all()

    def _confirmed(self, chunk: Chunk, parcels: list[Parcel], verdict: Verdict) -> None:
        with self._lock:
            chunk.pending -= len(parcels)
            self._pending_bytes -= self._size(parcels)
        self._judge_safely(chunk, parcels, verdict)

    def _judge_safely(self, chunk: Chunk, parcels: list[Parcel], verdict: Verdict) -> None:
        with self._lock:
            try:
                self._judge(chunk, parcels, verdict)
            except Exception as error:  # noqa: BLE001 - a verdict that is malformed
                self._give_up([chunk], describe(error))

    def _judge(self, chunk: Chunk, parcels: list[Parcel], verdict: Verdict) -> None:
        """Act on what the system said of these parcels; the lock is held."""
        if not chunk.left:
            self._late += 1
            return
        if isinstance(verdict, Refresh) and not chunk.refreshed:
            chunk.refreshed = True
            self._trying = False
            self._requeue(chunk, parcels)
        elif isinstance(verdict, Stop | Refresh | Pending):
            reason = verdict.handle if isinstance(verdict, Pending) else verdict.reason
            self._trip(printable(str(reason)))
            self._finish(chunk, parcels, Outcome.OWED, self._circuit.reason)
        elif isinstance(verdict, Retry):
            self._retry(chunk, parcels, printable(verdict.reason), verdict.after)
        else:
            attempts = chunk.attempts
            self._answered(chunk)
            if isinstance(verdict, Accepted):
                self._deliver(chunk, parcels)
                if verdict.warning:
                    self._warn(printable(verdict.warning))
            elif isinstance(verdict, RejectItems):
                self._reject(chunk, parcels, verdict, attempts)
            else:
                self._split(chunk, parcels, verdict)
            self._work.notify_all()

    def _answered(self, chunk: Chunk) -> None:
        """The system spoke about the records: it is up."""
        chunk.attempts = 0
        self._trying = False
        if self._circuit.state is CircuitState.HALF_OPEN:
            self._resume()

    def _deliver(self, chunk: Chunk, parcels: list[Parcel]) -> None:
        self._pace.note(len(parcels), time.monotonic())
        self._finish(chunk, parcels, Outcome.DELIVERED)

    def _retry(self, chunk: Chunk, parcels: list[Parcel], reason: str, after: float | None) -> None:
        # No pause is a large part of the patience: else chance would decide how long it really is.
        pause = after or backoff(chunk.attempts, longest=min(5.0, self._patience / 4))
        again_at = time.monotonic() + pause
        chunk.attempts += 1
        if self._circuit.state is CircuitState.HALF_OPEN or again_at >= chunk.deadline:
            self._trip(reason, after or 0.0)
        elif not self._shut:
            self._retries += 1
            self._pause_until = max(self._pause_until, again_at)
        self._requeue(chunk, parcels)

    def _resume(self) -> None:
        """The half-open circuit's request succeeded: everything has its full patience again."""
        for chunk in self._unsettled:
            if chunk.deadline != math.inf:
                chunk.deadline = max(chunk.deadline, time.monotonic() + self._patience)
        self._failed_trials = 0
        self._circuit.close()
        logger.warning("sink %s: circuit closed", self.sink.name)

    def _reject(
        self, chunk: Chunk, parcels: list[Parcel], verdict: RejectItems, attempts: int
    ) -> None:
        sent = range(len(parcels))
        refused = {at: why for at, why in verdict.reasons.items() if at in sent}
        again = {at for at in verdict.again if at in sent and at not in refused}
        if not (refused or again or verdict.taken):
            # Records were refused, but none that were sent: look for them.
            self._split(chunk, parcels, Split("records were refused without saying which"))
            return
        for at, why in refused.items():
            self._finish(chunk, [parcels[at]], Outcome.DEAD, printable(why))
        rest = [parcels[at] for at in sent if at not in refused and at not in again]
        later = [parcels[at] for at in sorted(again)]
        if not verdict.taken and not later:
            self._requeue(chunk, rest)
            return
        if not verdict.taken:
            later = [parcels[at] for at in sent if at not in refused]
        elif rest:
            self._deliver(chunk, rest)
            chunk.deadline = time.monotonic() + self._patience  # it gets on
        else:
            chunk.attempts = attempts
        if later:
            self._retry(chunk, later, "the system took only a part for now", None)

    def _split(self, chunk: Chunk, parcels: list[Parcel], verdict: Split | Shrink) -> None:
        if len(parcels) > 1:
            middle = len(parcels) // 2
            self._requeue(chunk, parcels[:middle], parcels[middle:])
            return
        most = min(len(parcels[0].payload) - 1, _SHORT)
        if isinstance(verdict, Shrink) and self._say_shorter(parcels[0], most):
            self._requeue(chunk, parcels)
        else:
            self._finish(chunk, parcels, Outcome.DEAD, printable(verdict.reason))

    def _warn(self, warning: str) -> None:
        self._warnings += 1
        if warning != self._last_warning:
            self._last_warning = warning
            logger.warning("sink %s: accepted, with a warning: %s", self.sink.name, warning)


def _earliest(one: float | None, other: float | None) -> float | None:
    return other if one is None else one if other is None else min(one, other)
