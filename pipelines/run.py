"""Runs the forwarding pipeline: lists partitions, works in shifts, drains, hands over.

On the local runner windows fire only when a run drains, and its memory grows with every bundle.
So a live run is a row of shifts: each drains at a window boundary, and the next goes on at the
checkpoint in the same process, with the same links, connections and circuits (docs/adr/0003).
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from apache_beam import Pipeline
from apache_beam.metrics.metric import MetricResults

from pipelines.forward import accounts, forward
from pipelines.redeliver import owed_to, pay
from pipelines.runners import Choice, choose
from pipelines.settings import Settings, SourceEntry
from schemas.alert import Subscription
from schemas.batch import Origin
from transforms.account import begin, checkpoint, settled
from transforms.deduplicate import forget, hand_over
from transforms.delivery.engines import close_all, engines
from transforms.delivery.line import printable
from transforms.delivery.parcel import Status
from transforms.drift import close as close_watch
from transforms.enrich import load_subscriptions
from transforms.read.access import EventHubsAccess
from transforms.read.event_hubs import END, Partition, ReadEventHubs
from transforms.read.payer import close_payer, payer
from transforms.read.reader import PartitionStatus, close_session, session
from transforms.read.sdk import HubError, kept_sequences, partition_ids
from transforms.secrets import SecretError
from transforms.state_store import StateStore
from transforms.steps import Shift

__all__ = ["Run", "RunError"]

_LOGGER = logging.getLogger(__name__)

_LONGEST_SHIFT = 300.0
_SHORTEST_SHIFT = 1.0
_LEAST_WORK = 4  # times as long as its graph took to build, a shift works
_LISTING_SECONDS = 30.0
_RETRY_SECONDS = (1.0, 60.0)  # after a shift that failed
_MOST_FAILURES = 5
_ASK_SECONDS = 1.0
_LISTERS = 8


class RunError(Exception):
    """The run cannot start, or go on; the message says what to do."""


class _Limits(NamedTuple):
    """Where a partition without a checkpoint begins, and where reading ends.

    empty: all that was in it is gone: nothing below `stop` will ever come.
    """

    start: int
    stop: int
    empty: bool = False


class _Known(NamedTuple):
    """What was learned of a hub: its partitions, and where each begins and (perhaps) ends."""

    entry: SourceEntry
    partitions: dict[str, _Limits]


class Run:
    """One run, from `start` to the end of its last shift.

    began: whether the state folder is this run's: no other run works in it.
    counts: alerts by kind, repairs, masked secrets, … in this process: `transforms.steps`.
    until_caught_up: end when every partition is read up to what was in it at the start.
    say: called with one line when something is worth telling.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        runner: str = "DirectRunner",
        until_caught_up: bool = False,
        say: Callable[[str], None] = _LOGGER.info,
    ) -> None:
        self.settings = settings
        self.name = uuid.uuid4().hex
        self.store = StateStore(str(settings.state))
        self.runner: Choice = choose(runner)
        self._until_caught_up = until_caught_up
        self._say = say
        self._sinks = accounts(settings)
        self._known: dict[str, _Known] = {}
        self._stopping = threading.Event()
        self.counts: Counter[str] = Counter()
        self.began = False
        self._ended = threading.Event()
        self._last: tuple[list[PartitionStatus], dict[str, Status]] | None = None
        self._unread: list[str] = []
        self._ask_again = 0.0
        self._number = 0
        self._drained_ms = 0
        self._added = threading.Event()

    def stop(self) -> None:
        """Drain and end: what was read is delivered or accounted for. Safe in a signal handler:
        the thread that it interrupts only ever looks at the flag, and so never holds its lock."""
        self._stopping.set()

    def run(self) -> None:
        """All shifts, until stopped or caught up. Raises RunError."""
        subscriptions: Mapping[str, Subscription] = {}
        if self.settings.subscriptions is not None:
            subscriptions = load_subscriptions(self.settings.subscriptions.file)
        self.store.prepare()
        with self.store.lock("run"):
            self.began = True
            self._run(subscriptions)

    def _run(self, subscriptions: Mapping[str, Subscription]) -> None:
        self._number = self._next_number()
        try:
            self._list_hubs(first=True)
            if not self._until_caught_up:
                threading.Thread(target=self._keep_listing, daemon=True).start()
            failures = 0
            while not self._stopping.is_set():
                if self._shift(subscriptions):
                    failures = 0
                    if self._until_caught_up:
                        if self._unread:
                            raise RunError(
                                "not everything was read:\n  " + "\n  ".join(self._unread)
                            )
                        pay(
                            self.settings, self.name, self._sinks, subscriptions, self.runner,
                            self._say,
                        )  # fmt: skip
                        break
                else:
                    failures += 1
                    if self._until_caught_up and failures == _MOST_FAILURES:
                        raise RunError(f"{failures} shifts failed, one after another; see above")
                    self._pause(min(_RETRY_SECONDS[1], _RETRY_SECONDS[0] * 2**failures))
            if failures:
                raise RunError("the last shift failed, see above; the next run does its work again")
        finally:
            self._ended.set()
            self._last = self.status()
            close_payer(self.name)
            close_session(self.name)
            close_all(self.name)
            close_watch(self.name, self.store)

    def _pause(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end and not self._stopping.is_set():
            time.sleep(0.1)

    def status(self) -> tuple[list[PartitionStatus], dict[str, Status]]:
        """Where reading stands, and each sink by name; as it was at the end, once it has ended."""
        if self._last is not None:
            return self._last
        found = {engine.sink.name: engine.status() for engine in engines(self.name)}
        return session(self.name).status(), found

    def _shift(self, subscriptions: Mapping[str, Subscription]) -> bool:
        """One Beam run from the checkpoint to a drain; whether it went well."""
        self._draining(self._stopping.is_set())
        self._added.clear()
        self._number += 1
        self.store.put("shift", str(self._number).encode())
        asked = time.time()
        shift = Shift(self._number, self._drained_ms)
        pipeline = Pipeline(runner=self.runner.runner)
        partitions = self._partitions()
        owed = None if self._until_caught_up else owed_to(self.settings, self._sinks)
        forward(
            pipeline, ReadEventHubs(self.name, partitions, owed, self.store), self.settings,
            subscriptions, self.name, shift, carry=not self._until_caught_up,
        )  # fmt: skip
        failed: list[BaseException] = []

        def work() -> None:
            try:
                result = pipeline.run()
                result.wait_until_finish()
                counters = result.metrics().query()[MetricResults.COUNTERS]
                self.counts.update({c.key.metric.name: c.result or 0 for c in counters})
            except BaseException as error:  # noqa: BLE001 - told below, in the right thread
                failed.append(error)

        worker = threading.Thread(target=work, name=f"shift {self._number}", daemon=True)
        worker.start()
        end = self._end_of_shift(time.time() - asked)
        beyond = ""
        while worker.is_alive():
            worker.join(0.1)
            beyond = beyond or self._beyond()
            if beyond or time.time() >= end or self._added.is_set() or self._stopping.is_set():
                self._draining(True)
                worker.join()
        if beyond:
            raise RunError(beyond)
        drained_ms = int(time.time() * 1000)
        if failed:
            _LOGGER.error("shift %d failed: %s", self._number, failed[0], exc_info=failed[0])
            self._say(f"shift {self._number} failed, its work is done again: {_brief(failed[0])}")
            forget(self.name)
            if paying := payer(self.name):
                paying.forget()
            return False
        self._drained_ms = drained_ms
        hand_over(self.name, self.store)
        return True

    def _beyond(self) -> str:
        """What to say if a hub refuses a position because it has fewer events than that: read on
        later, it would seem well, and its first events would never have been read."""
        if time.monotonic() < self._ask_again:
            return ""
        self._ask_again = time.monotonic() + _ASK_SECONDS
        for status in session(self.name).status():
            if "argument-error" in status.error and status.source in self._known:
                access = self._known[status.source].entry.event_hubs
                try:
                    following = kept_sequences(access, status.partition).stop
                except HubError:
                    continue
                if status.next > following:
                    place = f"{status.source}/{status.partition}"
                    return _made_anew(place, status.next, following)
        return ""

    def _draining(self, now: bool) -> None:
        """Sinks first: the bundle that sees the reading end must find nothing left in flight."""
        for engine in engines(self.name):
            engine.draining = now
        session(self.name).draining = now

    def _end_of_shift(self, building: float) -> float:
        """When to drain, epoch seconds: at the next window boundary, an early pane's time, or
        before memory has grown.

        building: seconds that went into the graph. Whatever the settings and however slow the
            machine, a shift reads for longer than that, or nothing would ever get through.
        """
        if self._until_caught_up:
            return float("inf")
        began = time.time()
        ends = [began + (self.settings.shift or _LONGEST_SHIFT)]
        for digest in self.settings.digests:
            window = digest.window
            if digest.early:
                ends.append(began + digest.early)
            if window.session:
                ends.append(began + window.session)
            else:
                step = window.fixed or (window.sliding.every if window.sliding else 0)
                ends.append((began + _SHORTEST_SHIFT) // step * step + step)
        return max(began + max(_SHORTEST_SHIFT, _LEAST_WORK * building), min(ends))

    def _partitions(self) -> list[Partition]:
        """Every partition of every hub, from its checkpoint on."""
        found = []
        for source, known in self._known.items():
            for partition, (start, stop, empty) in sorted(known.partitions.items()):
                at = checkpoint(self.store, self._sinks, Origin(source, partition))
                first = start if at is None else at + 1
                if first > stop:
                    raise RunError(_made_anew(f"{source}/{partition}", first, stop))
                if empty:
                    first = stop
                # The first receipt to come need not be the first batch's: an account that began
                # there would never count what lies before.
                begin(self.store, self._sinks, Origin(source, partition), first - 1)
                found.append(Partition(source, partition, known.entry.event_hubs, first, stop))
        return found

    def _keep_listing(self) -> None:
        """Partitions that are added to a hub are read from the next shift on, which comes now."""
        while not self._ended.wait(_LISTING_SECONDS):
            try:
                if self._list_hubs():
                    self._added.set()
            except (OSError, SecretError) as error:
                self._say(f"partitions could not be listed: {error}")

    def _list_hubs(self, first: bool = False) -> bool:
        """Ask all hubs for partitions that are not known yet; whether there are any.

        A hub that does not answer is left for the next time: it must not stop the others.
        Raises RunError if the first time none answers.
        """
        added = False
        problems = []
        with ThreadPoolExecutor(_LISTERS, thread_name_prefix="list partitions") as pool:
            asked = [
                (entry, pool.submit(partition_ids, entry.event_hubs))
                for entry in self.settings.sources
            ]
            for entry, answer in asked:
                source = entry.name
                known = self._known.get(source, _Known(entry, {}))
                try:
                    new = [p for p in answer.result() if p not in known.partitions]
                    limits = list(pool.map(self._limits, [entry] * len(new), new))
                except HubError as error:
                    problems.append(f"{source}: {error}")
                    continue
                if entry.event_hubs.start == "latest":
                    if not self._is_new(source):
                        limits = [each._replace(start=0) for each in limits]
                    for partition, each in zip(new, limits, strict=True):
                        begin(self.store, self._sinks, Origin(source, partition), each.start - 1)
                both = known.partitions | dict(zip(new, limits, strict=True))
                self._known = {**self._known, source: _Known(entry, both)}
                added = added or bool(new)
        if first and len(problems) == len(self.settings.sources):
            told = problems if len(problems) == 1 else ["", *problems]
            raise RunError("no hub can be read: " + "\n  ".join(told))
        self._unread = problems
        for problem in problems:
            self._say(f"not read for now: {problem}")
        return added

    def _limits(self, entry: SourceEntry, partition: str) -> _Limits:
        access: EventHubsAccess = entry.event_hubs
        if access.start == "earliest" and not self._until_caught_up:
            return _Limits(0, END)
        kept = kept_sequences(access, partition)
        start = 0 if access.start == "earliest" else kept.stop
        return _Limits(start, kept.stop, not kept) if self._until_caught_up else _Limits(start, END)

    def _is_new(self, source: str) -> bool:
        """Whether nothing of a hub was ever read: what comes to a partition that is added later
        came after the start, wherever that was."""
        sinks = (settled(self.store, sink) for sink in self._sinks)
        return not any(origin.source == source for found in sinks for origin in found)

    def _next_number(self) -> int:
        """Shifts are numbered through restarts, so that the panes of one window are."""
        data = self.store.get("shift")
        return int(data) if data else 0


def _made_anew(place: str, following: int, end: int) -> str:
    return (
        f"{place}: the checkpoint is event {following - 1}, but the hub's last one is {end - 1}: "
        "was the hub made anew? Then give this run a new state folder"
    )


def _brief(error: BaseException) -> str:
    """One line of what may be a worker's whole traceback: the last says what it was."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {printable(lines[-1])}" if lines else type(error).__name__
