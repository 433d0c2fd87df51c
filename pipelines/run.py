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

from apache_beam import Pipeline

from pipelines.cold_start import clean_end, cold_start, firing
from pipelines.forward import accounts, forward
from pipelines.hubs import Hubs, RunError
from pipelines.memory import give_back
from pipelines.positions import From
from pipelines.redeliver import owed_to, pay
from pipelines.runners import Choice, beside, choose
from pipelines.settings import Settings
from schemas.alert import Subscription
from schemas.batch import Origin
from transforms import heartbeat
from transforms.account import wait_until_written
from transforms.checkpoints import publishing
from transforms.deduplicate import forget
from transforms.delivery.engines import close_all, engines
from transforms.delivery.line import printable
from transforms.delivery.parcel import Status
from transforms.drift import close as close_watch
from transforms.enrich import load_subscriptions
from transforms.known import terms
from transforms.owed import void_letters
from transforms.read.event_hubs import ReadEventHubs, warm_up, warming
from transforms.read.payer import close_payer, payer
from transforms.read.reader import PartitionStatus, close_session, session
from transforms.secrets import SecretError
from transforms.state_store import StateStore, StateStoreError
from transforms.steps import Shift
from transforms.subscription_history import keep

__all__ = ["Run", "RunError"]

_LOGGER = logging.getLogger(__name__)

_LONGEST_SHIFT = 300.0
_MOST_BUNDLES = 800  # of a shift: what the runner keeps of each (some 25 KB) goes with it
_SHORTEST_SHIFT = 1.0
_LEAST_WORK = 4  # times as long as its graph took to build, a shift works
_LISTING_SECONDS = 30.0
_RETRY_SECONDS = (1.0, 60.0)  # after a shift that failed
_MOST_FAILURES = 5


class Run:
    """One run, from `start` to the end of its last shift.

    began: whether the state folder is this run's: no other run works in it.
    counts: alerts by kind, repairs, masked secrets, … in this process: `transforms.steps`.
    until_caught_up: end when every partition is read up to what was in it at the start.
    start: where `--from` says to begin; None: at the checkpoint.
    say: called with one line when something is worth telling.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        runner: str = "DirectRunner",
        until_caught_up: bool = False,
        start: From | None = None,
        say: Callable[[str], None] = _LOGGER.info,
    ) -> None:
        self.settings = settings
        self.name = uuid.uuid4().hex
        self.store = StateStore(str(settings.state))
        self.runner: Choice = choose(runner)
        self._until_caught_up = until_caught_up
        self._say = say
        self._sinks = accounts(settings)
        self._hubs = Hubs(
            settings.sources, self.store, self._sinks,
            until_caught_up=until_caught_up, start=start, say=say,
        )  # fmt: skip
        self._moved = start is not None
        self._stopping = threading.Event()
        self.counts: Counter[str] = Counter()
        self.began = False
        self._ended = threading.Event()
        self._last: tuple[list[PartitionStatus], dict[str, Status]] | None = None
        self._number = 0
        self._drained_ms = 0
        self._remembered = False
        self._added = threading.Event()
        self._unwritten = ""  # why the shift cannot end

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
            if self.settings.subscriptions is not None:
                keep(self.store, subscriptions, int(time.time() * 1000))
            self._run(subscriptions)

    def _run(self, subscriptions: Mapping[str, Subscription]) -> None:
        self._number = self._next_number()
        try:
            self._hubs.look(first=True)
            void_letters(self.store, self._sinks)
            if not self._until_caught_up:
                threading.Thread(target=self._keep_listing, daemon=True).start()
            hubs = {entry.name: entry.event_hubs for entry in self.settings.sources}
            with publishing(hubs, self.store, self._sinks, self._say, explicit=self._moved):
                self._shifts(subscriptions)
        finally:
            self._ended.set()
            self._last = self.status()
            close_payer(self.name)
            close_session(self.name)
            close_all(self.name)
            close_watch(self.name, self.store)

    def _shifts(self, subscriptions: Mapping[str, Subscription]) -> None:
        failures = 0
        while not self._stopping.is_set():
            try:
                well = self._shift(subscriptions)
            except StateStoreError as error:
                self._say(f"shift {self._number} failed: {error}")
                self._forget()
                well = False
            if well:
                failures = 0
                if self._until_caught_up:
                    if unread := self._hubs.unread:
                        raise RunError("not everything was read:\n  " + "\n  ".join(unread))
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

    def _pause(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end and not self._stopping.is_set():
            heartbeat.progress(self.name)
            time.sleep(0.1)

    def status(self) -> tuple[list[PartitionStatus], dict[str, Status]]:
        """Where reading stands, and each sink by name; as it was at the end, once it has ended."""
        if self._last is not None:
            return self._last
        found = {engine.sink.name: engine.status() for engine in engines(self.name)}
        return session(self.name).status(), found

    def _shift(self, subscriptions: Mapping[str, Subscription]) -> bool:
        """One Beam run from the checkpoint to a drain; whether it went well. Raises
        StateStoreError."""
        heartbeat.progress(self.name)
        self._draining(self._stopping.is_set())
        self._added.clear()
        self._number += 1
        self.store.put("shift", str(self._number).encode())
        asked = time.monotonic()
        horizon_ms = self.settings.deduplicate.horizon_ms
        started = cold_start(
            self.store, self._sinks, self._hubs.partitions(), horizon_ms, self._remembered
        )
        if started.again:
            self._say(
                f"{started.again:,} events are read again first, to know what was seen and counted"
            )
        warm_up(self.name, started.warming)
        if self.settings.digests and self._until_caught_up:
            firing(self.store, self._number)  # nobody tells such a shift to drain
        shift = Shift(self._number, self._drained_ms, started.recounts)
        pipeline = Pipeline(runner=self.runner.runner)
        owed = None if self._until_caught_up else owed_to(self.settings, self._sinks)
        forward(
            pipeline, ReadEventHubs(self.name, started.partitions, owed, self.store), self.settings,
            subscriptions, self.name, shift, not self._until_caught_up, started.left,
        )  # fmt: skip
        worker, failed = beside(pipeline, f"shift {self._number}", self.counts)
        worker.start()
        end = self._end_of_shift(time.monotonic() - asked)
        most = self._most_bundles()
        beyond = ""
        while worker.is_alive():
            worker.join(0.1)
            beyond = beyond or self._hubs.beyond(session(self.name).status())
            if warming(self.name):
                end, most = self._end_of_shift(0.0), self._most_bundles()  # nothing was live yet
            over = time.monotonic() >= end or heartbeat.bundles(self.name) >= most
            due = beyond or over or self._added.is_set() or self._stopping.is_set()
            if due and self._may_fire():
                self._draining(True)
                worker.join()
        if beyond:
            raise RunError(beyond)
        drained_ms = int(time.time() * 1000)
        if failed:
            _LOGGER.error("shift %d failed: %s", self._number, failed[0], exc_info=failed[0])
            self._say(f"shift {self._number} failed, its work is done again: {_brief(failed[0])}")
            self._forget()
            return False
        self._drained_ms = drained_ms
        heads = {Origin(p.source, p.partition): p.next - 1 for p in session(self.name).status()}
        takers = (entry for entry in self.settings.sinks if entry.send == "alerts")
        wanted = {entry.name: terms(entry.where, subscriptions) for entry in takers}
        self._remembered = clean_end(
            self.name, self.store, self._sinks, started, heads, self._number, horizon_ms, wanted
        )
        give_back()
        if not self._remembered:  # an account could not be written: Beam only logs why
            self._say(f"shift {self._number} left something unsettled: it is read again")
            self._forget()
        return self._remembered

    def _may_fire(self) -> bool:
        """Whether it is written down that the shift's panes fire now. Where it cannot be, the shift
        goes on: panes that are told, and told again after a crash, would seem to be others."""
        try:
            if self.settings.digests:
                firing(self.store, self._number)
        except StateStoreError as error:
            if str(error) != self._unwritten:
                self._unwritten = str(error)
                self._say(f"shift {self._number} cannot end yet: {error}")
            return False
        self._unwritten = ""
        return True

    def _forget(self) -> None:
        """After a shift that failed: what it had in hand has no end, and is read again."""
        self._remembered = False
        wait_until_written()
        forget(self.name)
        if paying := payer(self.name):
            paying.forget()

    def _draining(self, now: bool) -> None:
        """Sinks first: the bundle that sees the reading end must find nothing left in flight."""
        for engine in engines(self.name):
            engine.draining = now
        session(self.name).draining = now

    def _end_of_shift(self, building: float) -> float:
        """When to drain, monotonic seconds: at the next window boundary, an early pane's time, or
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
        lasts = max(_SHORTEST_SHIFT, _LEAST_WORK * building, min(ends) - began)
        return time.monotonic() + lasts

    def _keep_listing(self) -> None:
        """Partitions that are added to a hub are read from the next shift on, which comes now."""
        while not self._ended.wait(_LISTING_SECONDS):
            try:
                if self._hubs.look():
                    self._added.set()
            except (OSError, SecretError, StateStoreError) as error:
                self._say(f"partitions could not be listed: {error}")

    def _most_bundles(self) -> float:
        """At how many to drain."""
        if self._until_caught_up:
            return float("inf")
        return heartbeat.bundles(self.name) + _MOST_BUNDLES

    def _next_number(self) -> int:
        """Shifts are numbered through restarts, so that the panes of one window are."""
        data = self.store.get("shift")
        return int(data) if data else 0


def _brief(error: BaseException) -> str:
    """One line of what may be a worker's whole traceback: the last says what it was."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {printable(lines[-1])}" if lines else type(error).__name__
