"""The delivery engine: packs, sends, retries, and says of every record how it ended.

One engine a sink and process. It outlives bundles and pipeline runs, and so do its connections
and its circuit. Callers (`WriteTo`) submit parcels and settle at the end of a bundle; the sink's
own sender threads do the rest, so that a sink can hold back nobody for longer than its patience.

Inside, a *chunk* is what one request carries, and a *piece* is the part of a chunk that still
has to be sent: the whole, a half of it, or what is left when the refused records are out. The
queue holds pieces; whatever has to wait waits there, and the senders wait for the queue.
"""

from __future__ import annotations

import dataclasses
import itertools
import logging
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec

from schemas.alert import Alert
from schemas.receipt import Outcome
from transforms.delivery.circuit import Circuit, CircuitState, backoff
from transforms.secrets import SecretError
from transforms.sinks.base import (
    Accepted,
    Connection,
    RejectItems,
    Retry,
    Sink,
    Stop,
    Verdict,
)

__all__ = ["Engine", "Parcel", "Status", "close_all", "engine_for", "engines", "printable"]

logger = logging.getLogger(__name__)

_TRIAL = 2.0  # seconds that the first request of a half-open circuit may take
_PARTING = 5.0  # seconds that closing waits for the threads
_REASON = 300  # characters of a reason that are kept


class Parcel(msgspec.Struct, gc=False, eq=False):
    """One encoded record on its way; `outcome` is DELIVERED, DEAD or OWED once it is settled.

    sequence, index: the record's address in its partition.
    reason: why it is dead or owed; one line, safe to log.
    """

    sequence: int
    index: int
    payload: bytes
    alert: Alert | None = None
    outcome: Outcome | None = None
    reason: str = ""


@dataclasses.dataclass(frozen=True)
class Status:
    """What an engine has done since it was made.

    since: when the circuit came into its state, epoch seconds. reason: why it opened last.
    in_flight: parcels without an outcome. bytes_sent: encoded, before compression, retries too.
    late: results that came after their parcels had been given up.
    """

    circuit: str
    since: float
    reason: str
    openings: int
    delivered: int
    dead: int
    owed: int
    in_flight: int
    requests: int
    retries: int
    bytes_sent: int
    warnings: int
    late: int


class _Chunk:
    """Parcels that were packed together: they have one deadline, and one share of the queue."""

    __slots__ = ("attempts", "deadline", "left", "number", "parcels", "size")

    def __init__(self, number: int, parcels: list[Parcel], size: int, patience: float) -> None:
        self.number = number
        self.parcels = parcels
        self.size = size
        self.left = len(parcels)  # without an outcome
        self.deadline = time.monotonic() + patience
        self.attempts = 0  # failed, one after another


_Piece = tuple[_Chunk, list[Parcel]]
_Task = tuple[_Chunk, list[Parcel], float] | Literal["probe", "idle", "end"]


class Engine:
    """Delivers parcels to one sink. Thread-safe; threads start with the first parcel.

    queue_bytes: parcels that may wait or be in flight, in encoded bytes, before submit waits;
        default: enough to keep every sender busy.
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
        self._max_bytes, self._max_records = limits.max_bytes, limits.max_records
        self._separator = sink.separator_bytes
        self._patience, self._timeout = settings.patience, settings.timeout
        self._senders = settings.concurrency
        self._queue_bytes = queue_bytes or (settings.concurrency + 2) * limits.max_bytes

        self._lock = threading.RLock()
        self._work = threading.Condition(self._lock)  # senders wait: something to do
        self._progress = threading.Condition(self._lock)  # callers wait: something is done
        self._circuit = Circuit(cool_down)
        self._threads: list[threading.Thread] = []
        self._closed = False
        self._shut = ""  # why nothing is taken now; empty: it is

        self._partial: list[Parcel] = []  # the chunk that is being filled
        self._partial_bytes = 0
        self._partial_due = 0.0  # monotonic seconds
        self._linger = linger
        self._numbers = itertools.count()
        self._newest = -1
        self._queue: deque[_Piece] = deque()
        self._unsettled: dict[_Chunk, None] = {}  # in order; a handful
        self._unsettled_bytes = 0
        self._pause_until = 0.0  # monotonic; the system asked for it, or just failed
        self._trying = False  # a half-open circuit's one request is under way
        self._failed_trials = 0  # since the circuit was closed
        self._probing = False

        self._outcomes = dict.fromkeys((Outcome.DELIVERED, Outcome.DEAD, Outcome.OWED), 0)
        self._submitted = self._requests = self._retries = self._bytes_sent = 0
        self._warnings = self._late = 0
        self._last_warning = ""

    # ------------------------------------------------------------------ what callers use

    def submit(self, parcels: Sequence[Parcel]) -> None:
        """Take parcels over. Waits for room in the queue, never longer than the patience."""
        until = time.monotonic() + self._patience
        with self._lock:
            self._submitted += len(parcels)
            for parcel in parcels:
                size = len(parcel.payload) + self._separator
                if self._partial and (
                    self._partial_bytes + size > self._max_bytes
                    or len(self._partial) >= self._max_records
                ):
                    self._pack()
                    self._wait(self._has_room, until)
                if self._shut:
                    parcel.outcome, parcel.reason = Outcome.OWED, self._shut
                    self._outcomes[Outcome.OWED] += 1
                    continue
                if not self._partial:
                    self._partial_due = time.monotonic() + self._linger
                    self._call_sender()
                self._partial.append(parcel)
                self._partial_bytes += size

    def settle(self) -> None:
        """Wait until everything submitted has an outcome, never longer than the patience."""
        with self._lock:
            self._pack()
            last = self._newest
            until = time.monotonic() + self._patience
            self._wait(lambda: next(iter(self._unsettled)).number > last, until)

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
                requests=self._requests,
                retries=self._retries,
                bytes_sent=self._bytes_sent,
                warnings=self._warnings,
                late=self._late,
            )

    # ------------------------------------------- bookkeeping; the lock is held in all of it

    def _pack(self) -> None:
        """Queue the partial chunk."""
        if not self._partial:
            return
        self._newest = next(self._numbers)
        patience = self._patience
        if self._circuit.state is CircuitState.HALF_OPEN:
            # Short, so that a system that only seems to be back delays nobody much; longer from
            # one time to the next, so that one that has become slow comes back at all.
            patience = min(patience, _TRIAL * 2 ** min(self._failed_trials, 9))
        chunk = _Chunk(self._newest, self._partial, self._partial_bytes, patience)
        self._partial, self._partial_bytes = [], 0
        self._unsettled[chunk] = None
        self._unsettled_bytes += chunk.size
        self._queue.append((chunk, chunk.parcels))
        self._call_sender()

    def _has_room(self) -> bool:
        return bool(self._shut) or self._unsettled_bytes <= self._queue_bytes

    def _call_sender(self) -> None:
        """Wake the senders that wait, and start one more while there may be."""
        if len(self._threads) < self._senders and not self._closed:
            name = f"{self.sink.name} sender {len(self._threads)}"
            thread = threading.Thread(target=self._serve, name=name, daemon=True)
            thread.start()
            self._threads.append(thread)
        self._work.notify_all()

    def _wait(self, done: Callable[[], bool], until: float) -> None:
        """Wait until `done`; what is overdue, or is left at `until`, is given up."""
        while self._unsettled and not done():
            now = time.monotonic()
            end = min(until, *(chunk.deadline for chunk in self._unsettled))
            if now < end:
                self._progress.wait(end - now)
            else:
                overdue = [c for c in self._unsettled if min(c.deadline, until) <= now]
                self._give_up(overdue, f"not through within {self._patience:g} s")

    def _give_up(self, chunks: list[_Chunk], reason: str) -> None:
        """Owe the queue, and these chunks, under way or not: their results come too late."""
        self._trip(reason)
        for chunk in chunks:
            left = [parcel for parcel in chunk.parcels if parcel.outcome is None]
            self._finish(chunk, left, Outcome.OWED, reason)

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
        while self._queue:
            self._finish(*self._queue.popleft(), Outcome.OWED, reason)
        self._progress.notify_all()
        self._work.notify_all()

    def _finish(
        self, chunk: _Chunk, parcels: Sequence[Parcel], outcome: Outcome, reason: str = ""
    ) -> None:
        for parcel in parcels:
            parcel.outcome = outcome
            parcel.reason = reason
        self._outcomes[outcome] += len(parcels)
        chunk.left -= len(parcels)
        if not chunk.left and chunk in self._unsettled:
            del self._unsettled[chunk]
            self._unsettled_bytes -= chunk.size
            self._progress.notify_all()

    def _requeue(self, chunk: _Chunk, *pieces: list[Parcel]) -> None:
        """Put what is still to be sent in front, unless nothing is sent any more."""
        for parcels in reversed(pieces):
            if self._shut:
                self._finish(chunk, parcels, Outcome.OWED, self._shut)
            elif parcels:
                self._queue.appendleft((chunk, parcels))
        self._work.notify_all()

    # ---------------------------------------------------------------- the sender threads

    def _serve(self) -> None:
        """One sender's life. The connection is its own, and never leaves the thread."""
        line = _Line(self.sink)
        idle_after: float | None = None
        while (task := self._next(idle_after)) != "end":
            if task == "idle":
                idle_after = line.idle()
            elif task == "probe":
                self._probe()
            else:
                chunk, parcels, timeout = task
                verdict = line.send(parcels, timeout)
                idle_after = 0.0
                with self._lock:
                    try:
                        self._judge(chunk, parcels, verdict)
                    except Exception as error:  # noqa: BLE001 - a verdict that is malformed
                        self._give_up([chunk], _describe(error))
        line.close()

    def _next(self, idle_after: float | None) -> _Task:
        """What to do now; waits for it without spinning."""
        with self._lock:
            idle_at = None if idle_after is None else time.monotonic() + idle_after
            while True:
                if self._closed:
                    return "end"
                now = time.monotonic()
                wake = idle_at
                if self._circuit.open and not self._probing:
                    if now >= self._circuit.probe_at:
                        self._probing = True
                        return "probe"
                    wake = _earliest(wake, self._circuit.probe_at)
                elif (self._queue or self._partial) and not self._trying:
                    ready_at = self._pause_until
                    if not self._queue:
                        ready_at = max(ready_at, self._partial_due)
                    if now >= ready_at:
                        if not self._queue:
                            self._pack()
                        return self._take(now)
                    wake = _earliest(wake, ready_at)
                if idle_at is not None and now >= idle_at:
                    return "idle"
                self._work.wait(None if wake is None else wake - now)

    def _take(self, now: float) -> _Task:
        chunk, parcels = self._queue.popleft()
        self._trying = self._circuit.state is CircuitState.HALF_OPEN
        self._requests += 1
        self._bytes_sent += sum(len(parcel.payload) for parcel in parcels)
        return chunk, parcels, min(self._timeout, max(chunk.deadline - now, 0.001))

    def _probe(self) -> None:
        reason = None
        try:
            self.sink.probe(self._timeout)
        except Exception as error:  # noqa: BLE001 - whatever a sink raises, it is not back
            reason = _describe(error)
        with self._lock:
            self._probing = False
            if reason is not None:
                self._circuit.trip(reason)
            elif not self._closed:
                self._circuit.try_again()
                self._shut = ""
            self._work.notify_all()

    def _judge(self, chunk: _Chunk, parcels: list[Parcel], verdict: Verdict) -> None:
        """Act on what the system said of these parcels; the lock is held."""
        if not chunk.left:
            self._late += 1
            return
        if isinstance(verdict, Stop):
            self._trip(printable(verdict.reason))
            self._finish(chunk, parcels, Outcome.OWED, self._circuit.reason)
        elif isinstance(verdict, Retry):
            self._retry(chunk, parcels, printable(verdict.reason), verdict.after)
        else:
            # The system answered, and spoke about the records: it is up.
            chunk.attempts = 0
            self._trying = False
            if self._circuit.state is CircuitState.HALF_OPEN:
                self._resume()
            if isinstance(verdict, Accepted):
                self._finish(chunk, parcels, Outcome.DELIVERED)
                if verdict.warning:
                    self._warn(printable(verdict.warning))
            elif isinstance(verdict, RejectItems):
                self._reject(chunk, parcels, verdict)
            else:
                self._split(chunk, parcels, printable(verdict.reason))
            self._work.notify_all()

    def _retry(
        self, chunk: _Chunk, parcels: list[Parcel], reason: str, after: float | None
    ) -> None:
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
            chunk.deadline = max(chunk.deadline, time.monotonic() + self._patience)
        self._failed_trials = 0
        self._circuit.close()
        logger.warning("sink %s: circuit closed", self.sink.name)

    def _reject(self, chunk: _Chunk, parcels: list[Parcel], verdict: RejectItems) -> None:
        refused = {at: why for at, why in verdict.reasons.items() if 0 <= at < len(parcels)}
        if not refused and not verdict.taken:
            # Records were refused, but none that were sent: look for them.
            self._split(chunk, parcels, "records were refused without saying which")
            return
        for at, why in refused.items():
            self._finish(chunk, [parcels[at]], Outcome.DEAD, printable(why))
        rest = [parcel for at, parcel in enumerate(parcels) if at not in refused]
        if verdict.taken:
            self._finish(chunk, rest, Outcome.DELIVERED)
        else:
            self._requeue(chunk, rest)

    def _split(self, chunk: _Chunk, parcels: list[Parcel], reason: str) -> None:
        if len(parcels) == 1:
            self._finish(chunk, parcels, Outcome.DEAD, reason)
        else:
            middle = len(parcels) // 2
            self._requeue(chunk, parcels[:middle], parcels[middle:])

    def _warn(self, warning: str) -> None:
        self._warnings += 1
        if warning != self._last_warning:
            self._last_warning = warning
            logger.warning("sink %s: accepted, with a warning: %s", self.sink.name, warning)


class _Line:
    """A sender's connection: opened when needed, let go of when it fails; nothing escapes it."""

    def __init__(self, sink: Sink[Any]) -> None:
        self._sink = sink
        self._connection: Connection | None = None

    def send(self, parcels: Sequence[Parcel], timeout: float) -> Verdict:
        try:
            if self._connection is None:
                self._connection = self._sink.connect()
            verdict = self._connection.send([parcel.payload for parcel in parcels], timeout)
            if not isinstance(verdict, Verdict):
                raise TypeError(verdict)
        except ssl.SSLCertVerificationError as error:
            verdict = Stop(_describe(error))  # no retry makes a certificate good
        except OSError as error:
            self.close()
            return Retry(_describe(error))
        except Exception as error:  # noqa: BLE001 - a sink's bug must cost nobody a record
            verdict = Stop(_describe(error))
        if isinstance(verdict, Stop):
            self.close()  # secrets and settings are read anew with the next connection
        return verdict

    def idle(self) -> float | None:
        """Let the connection tidy up; seconds until it wants to again, if it does."""
        try:
            after = None if self._connection is None else self._connection.idle()
            return None if after is None else max(after, 0.1)
        except Exception:  # noqa: BLE001 - as in send
            self.close()
            return None

    def close(self) -> None:
        connection, self._connection = self._connection, None
        try:
            if connection is not None:
                connection.close()
        except Exception as error:  # noqa: BLE001 - as in send
            logger.warning("sink %s: closing failed: %s", self._sink.name, _describe(error))


def printable(text: str, most: int = _REASON) -> str:
    """One line that is safe to log, whoever wrote it: no control characters, no end of it."""
    cut = text[:most] + ("…" if len(text) > most else "")
    return "".join(c if c.isprintable() else " " for c in cut)


def _describe(error: Exception) -> str:
    """An error in one line. Only those whose text is known to hold no payload are quoted."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the certificate was refused: {error.verify_message}"
    if isinstance(error, OSError | SecretError):
        return printable(str(error) or type(error).__name__)
    at = error.__traceback__
    while at and at.tb_next:
        at = at.tb_next
    where = f" at {Path(at.tb_frame.f_code.co_filename).name}:{at.tb_lineno}" if at else ""
    return f"{type(error).__name__}{where}"


def _earliest(one: float | None, other: float) -> float:
    return other if one is None else min(one, other)


_engines: dict[tuple[str, str], Engine] = {}
_engines_lock = threading.Lock()


def engine_for(sink: Sink[Any], token: str) -> Engine:
    """The process's engine of this sink in the run `token`; made when it is first asked for."""
    with _engines_lock:
        engine = _engines.get((token, sink.name))
        if engine is None:
            engine = _engines[token, sink.name] = Engine(sink)
        return engine


def engines(token: str) -> list[Engine]:
    """The run's engines, in no order."""
    with _engines_lock:
        return [engine for (run, _), engine in _engines.items() if run == token]


def close_all(token: str) -> None:
    """Close the run's engines, and forget them. Sinks that hang do not add up."""
    closing = [threading.Thread(target=engine.close, daemon=True) for engine in engines(token)]
    for thread in closing:
        thread.start()
    for thread in closing:
        thread.join()
    with _engines_lock:
        for key in [key for key in _engines if key[0] == token]:
            del _engines[key]
