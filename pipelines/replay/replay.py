"""One run of a replay: plans what is new, goes through it in shifts or on a cluster, pays, and says
how it ended.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import apache_beam as beam
import msgspec

from pipelines.forward import Replayed, accounts, both, forward
from pipelines.replay.accounts import Accounts
from pipelines.replay.asked import Asked, ReplayError, with_sinks
from pipelines.replay.cluster import Jobs, enter, file_round
from pipelines.replay.state import STOPPED, Result, State, state_of
from pipelines.report.accounts import SinkAccount
from pipelines.runners import beside, choose
from pipelines.settings import Settings
from schemas.batch import Origin
from schemas.runs import count
from transforms import heartbeat
from transforms.account import wait_until_written
from transforms.deduplicate import forget, leave
from transforms.delivery.engines import close_all, engines
from transforms.delivery.line import printable
from transforms.drift import close as close_watch
from transforms.enrich import load_subscriptions
from transforms.hand_over import Events, remember
from transforms.journal import forget as forget_journal
from transforms.journal import journaled
from transforms.known import Known, terms
from transforms.read.files.base import RECORDS, Unread
from transforms.read.files.json_lines import UNFINISHED
from transforms.read.filesystems import HistoryError, find
from transforms.read.history import (
    Lane,
    Owing,
    Progress,
    ReadHistory,
    StorageError,
    close_reading,
    reading,
)
from transforms.read.listing import Between, Done, lanes, new_since, parts_of
from transforms.read.plan import Plan, folder, length, origin, unread_of
from transforms.replayed import Taken
from transforms.spool import Spool
from transforms.state_store import StateStore
from transforms.subscription_history import History, keep

if TYPE_CHECKING:
    from pipelines.cluster.spark import Cluster

__all__ = ["Replay"]

_LOGGER = logging.getLogger(__name__)

_MOST_BUNDLES = 100  # of a shift: what the runner keeps of each goes with it
_MOST_RECORDS = 500_000  # of a shift: their keys are held until they are filed
_MOST_FAILURES = 5  # shifts that fail one after another


class Replay:
    """One run of a replay: plans what is new, or goes on with what was planned.

    say: called with one line when something is worth telling.
    """

    def __init__(
        self,
        settings: Settings,
        asked: Asked,
        name: str,
        *,
        lane: int | None = None,
        say: Callable[[str], None] = _LOGGER.info,
    ) -> None:
        self.settings = with_sinks(settings, asked.sinks, asked.patience)
        self.asked = asked
        self.name = name
        self.store = StateStore(str(settings.state))
        self.counts: Counter[str] = Counter()
        self.plan: Plan | None = None
        self.todo: list[int] = []  # lanes that are not through
        self.parts = 0  # of this run
        self.bytes = 0
        self.closed: Sequence[tuple[str, str]] = ()  # files and folders that are closed to us, why
        self._began: dict[int, int] = {}  # by lane: the first part of this run
        self._fatal = False
        self.cluster: Cluster | None = None  # where it runs, if not here
        self._lane = lane
        self._journal = f"{folder(name)}/journal" + ("" if lane is None else f"/{lane}")
        self._say = say
        self._run = uuid.uuid4().hex
        self._accounts = Accounts(self.store, name, accounts(self.settings))
        self._stopping = threading.Event()
        self._history = History(self.store, ())
        self._known: Known | None = None

    # ---------------------------------------------------------------- for whoever looks

    @property
    def progress(self) -> Progress:
        return reading(self._run)

    def stop(self) -> None:
        """Drain and end: what was read is delivered or accounted for."""
        self._stopping.set()  # whoever waits for a cluster's job tells its readers

    @property
    def stopped(self) -> bool:
        """Whether it was told to."""
        return self._stopping.is_set()

    def read(self) -> tuple[int, int]:
        """Bytes that were read of those that are to be; of other processes' lanes, what is
        settled."""
        if self.plan is None or (self.progress.bytes and self.cluster is None):
            return min(self.progress.bytes, self.bytes), self.bytes
        return self._settled_bytes(), self.bytes

    # ------------------------------------------------------------------------- planning

    def prepare(self) -> Plan:
        """The plan, with what is new; nothing if an earlier one is not through yet.

        Raises HistoryError, ReplayError.
        """
        plan = Plan.load(self.store, self.name)
        asked = self._said()
        if plan is None:
            between = [self.asked.start_ms, self.asked.stop_ms]
            plan = Plan.begin(self.store, self.name, {**asked, "between": between})
        elif changed := sorted(k for k in asked if plan.asked.get(k) != asked[k]):
            raise ReplayError(
                f"replay {self.name} was begun with other {', '.join(changed)}: give this one "
                "another --name"
            )
        else:
            start_ms, stop_ms = plan.asked["between"]
            self.asked = self.asked._replace(start_ms=start_ms, stop_ms=stop_ms)
        self._enter_journal()
        if self._lane is None:
            self.progress.records = enter(self._accounts, Spool(self.store, self.name))
            if not self._accounts.unfinished(plan):
                file_round(self._accounts, plan, self._leave)
                self._extend(plan)
        self.plan = plan
        self.todo = self._accounts.unfinished(plan)
        for lane in self.todo if self._lane is None else [self._lane]:
            self._measure(plan, lane)
        return plan

    def _said(self) -> dict[str, Any]:
        about = self.asked
        where = about.where.model_dump_json(exclude_none=True) if about.where else ""
        return {
            "paths": [*about.paths], "from": about.said[0], "to": about.said[1], "by": about.by,
            "where": where, "sinks": sorted(self._accounts.sinks),
        }  # fmt: skip

    def _extend(self, plan: Plan) -> None:
        about = self.asked
        between = Between(about.start_ms, about.stop_ms, about.by)
        done = self._done(plan)
        closed: list[tuple[str, str]] = []
        apart: list[str] = []
        found = find(
            about.paths,
            lambda url, why: closed.append((url, why)),
            lambda url, why: apart.append(f"{printable(url)}: {printable(why)}"),
        )
        listed = parts_of(new_since(found, done), between, about.template)
        for url, why in closed:
            self._say(f"{printable(url)}: cannot be read: {printable(why)}")
        self.closed = closed
        for line in listed.says:
            self._say(line)
        if apart:
            self._say(f"passed over on purpose: {len(apart):,} files, as {apart[0]}")
        if listed.parts:
            plan.add(lanes(listed.parts, max(1, about.workers)))

    def _done(self, plan: Plan) -> dict[str, Done]:
        """Each file that was planned, as it was then; one that ended in the middle of a record, up
        to there."""
        found: dict[str, Done] = {}
        for lane in range(plan.lanes):
            for _, part in plan.row(lane):
                found[part.url] = Done(part.size, part.modified_ms)
        for each in unread_of(self.store, self.name):
            done = found.get(each.url)
            if done is None:
                continue
            if each.why != UNFINISHED:  # were it mended, it would be another file
                found[each.url] = done._replace(upto=0)
            elif each.offset + each.size >= done.size:
                found[each.url] = done._replace(upto=each.offset)
        return found

    # -------------------------------------------------------------------------- running

    def run(self) -> Result:
        """Read what is planned, all of it, and pay what sinks are owed. Raises ReplayError."""
        plan = self.plan or self.prepare()
        if self.settings.subscriptions is not None:
            file = self.settings.subscriptions.file
            keep(self.store, load_subscriptions(file), int(time.time() * 1000))
        self._history = History.load(self.store)
        if not self.asked.again:
            also = self.asked.where
            wants = {
                entry.name: (entry.where, also, both(entry.where, also))
                for entry in self.settings.sinks
            }
            self._known = Known(
                self.store, wants, self.settings.deduplicate.horizon_ms, self._history.at, self._run
            )
        todo = self.todo if self._lane is None else [self._lane]
        problem = ""
        try:
            if self.cluster is not None:
                jobs = Jobs(
                    self.cluster, plan, self._accounts, self.settings, self.asked, self._replayed,
                    self._run, self.counts, self._say, self._stopping,
                )  # fmt: skip
                problem, todo = jobs.through(), []
            for lane in todo:
                problem = problem or self._through(plan, lane)
            if self._lane is None and not self._accounts.unfinished(plan):
                file_round(self._accounts, plan, self._leave)
            if not problem:
                problem = self._pay(range(plan.lanes) if self._lane is None else [self._lane])
        finally:
            close_reading(self._run)
            close_all(self._run)
            close_watch(self._run, self.store)
            forget(self._run)
        return self.ended(problem)

    def _measure(self, plan: Plan, lane: int) -> None:
        first = self._accounts.parts_done(plan, lane)
        self._began[lane] = first
        self.parts += plan.parts(lane) - first
        self.bytes += sum(length(part) for _, part in plan.row(lane, first))

    def _through(self, plan: Plan, lane: int) -> str:
        """Shift after shift until a lane is through; else why it is not."""
        at = origin(self.name, lane)
        self._accounts.begin(lane)
        failures = 0
        warm = True
        while not self._stopping.is_set():
            start = self._accounts.position(lane) + 1
            if start >= plan.end(lane):
                return ""
            before = self._before(plan, lane, start) if warm else ()
            place = self._accounts.place(lane)
            element = Lane(self.name, lane, start, plan.end(lane), place, before, self.asked.rate)
            problem = self._shift([element])
            warm = bool(problem)
            if not problem:
                failures = 0
                self._remember(at, start)
                continue
            if self._stopping.is_set():
                break
            failures += 1
            self._say(problem)
            if failures == _MOST_FAILURES or self._fatal:
                return problem
            time.sleep(min(30.0, 2.0**failures))
        return STOPPED

    def _remember(self, at: Origin, start: int) -> None:
        """What a shift has delivered, so that no other replay, nor the next round, sends it."""
        last = self._accounts.position(int(at.partition))
        rests = self._known.rests() if self._known else {}
        self._leave(f"{at}", leave(self._run), {str(at): (start, last)}, rests)

    def _leave(
        self,
        writer: str,
        keys: Mapping[int, Iterable[bytes]],
        read: Events,
        rests: Mapping[str, Events],
    ) -> None:
        wanted = {
            entry.name: terms(both(entry.where, self.asked.where), self._history.at)
            for entry in self.settings.sinks
        }
        remember(
            self.store, wanted, keys, writer,
            horizon_ms=self.settings.deduplicate.horizon_ms, read=read, rests=rests,
        )  # fmt: skip

    def _before(self, plan: Plan, lane: int, start: int) -> tuple[tuple[int, int], ...]:
        """The parts of this round in one horizon before an address: of this lane and of those
        before it. What earlier rounds have delivered is known from what they left."""
        number = start // RECORDS
        since = plan.part(lane, number).at_ms - self.settings.deduplicate.horizon_ms
        found: list[tuple[int, int]] = []
        for each in range(lane, -1, -1):
            stop = plan.parts(each) if each != lane else number + (start % RECORDS > 0)
            for n in range(stop - 1, plan.round(each) - 1, -1):
                if plan.part(each, n).at_ms < since:
                    return tuple(reversed(found))
                found.append((each, n))
        return tuple(reversed(found))

    def _shift(self, elements: Sequence[Lane | Owing]) -> str:
        """One Beam run; why it failed, if it did."""
        progress, patience = self.progress, self.asked.patience
        progress.draining = False
        for engine in engines(self._run):
            engine.draining = False
        pipeline = beam.Pipeline(runner=choose("DirectRunner").runner)
        read = ReadHistory(self._run, elements, self.store, self.settings.deduplicate.horizon_ms)
        forward(pipeline, read, self.settings, {}, self._run, replayed=self._replayed)
        worker, failed = beside(pipeline, "replay", self.counts)
        most = heartbeat.bundles(self._run) + _MOST_BUNDLES
        records = progress.records + _MOST_RECORDS
        held_since = 0.0
        worker.start()
        while worker.is_alive():
            worker.join(0.1)
            now = time.monotonic()
            held_since = (held_since or now) if progress.held else 0.0
            if held_since and now > held_since + patience:
                self._fatal = True
                progress.draining = True
            enough = heartbeat.bundles(self._run) >= most or progress.records >= records
            if enough or self._stopping.is_set():
                progress.draining = True
        wait_until_written()
        self._enter_journal(failed=bool(failed))
        if failed:
            _LOGGER.error("replay %s: %s", self.name, failed[0], exc_info=failed[0])
            close_reading(self._run)
            forget(self._run)
            return _told(failed[0])
        if self._fatal:
            return (
                f"no sink took anything for {patience:.0f} s ({printable(progress.held)}); "
                "the same command goes on"
            )
        return ""

    def _enter_journal(self, failed: bool = True) -> None:
        """What had ended when somebody was killed, or failed, joins the accounts; what is under way
        ends first. Where nobody was, and did, it is there."""
        if failed:
            for engine in engines(self._run):
                engine.settle()
            self._accounts.enter(journaled(self.store, self._journal))
        forget_journal(self.store, self._journal)

    @property
    def _replayed(self) -> Replayed:
        about = self.asked
        taken = Taken(self.name, about.start_ms, about.stop_ms, about.by)
        journal = f"{self._journal}/all" if self._lane is None else self._journal
        return Replayed(taken, about.where, self._history, self._known, journal=journal)

    # --------------------------------------------------------------------------- paying

    def _pay(self, lanes: Sequence[int]) -> str:
        """Pay what sinks are owed, as long as that gets on; else why not."""
        before = -1
        while elements := self._accounts.debts(lanes, self.asked.patience):
            left = sum(count(element.owed) for element in elements)
            if self._stopping.is_set() or left == before:
                return "sinks are owed records that they did not take; the same command goes on"
            before = left
            self._say(f"{left:,} records that sinks did not take in time are read again for them")
            if problem := self._shift(elements):
                return problem
        return ""

    # --------------------------------------------------------------------------- result

    def accounts(self) -> list[SinkAccount]:
        """Each sink's account of this replay alone."""
        return self._accounts.sums()

    def tell(self, result: Result | None = None) -> None:
        """Write down how it goes, for `alertbeam status`."""
        known = state_of(self.store, self.name)
        now_ms = int(time.time() * 1000)
        plan, done = self.plan, self._accounts.parts_done
        self.store.put(
            f"{folder(self.name)}/state.json",
            msgspec.json.encode(
                State(
                    self.name,
                    known.began if known and result else now_ms,
                    now_ms if result else 0,
                    bool(result and result.well),
                    result.problem if result else "",
                    sum(plan.parts(lane) for lane in range(plan.lanes)) if plan else 0,
                    sum(done(plan, lane) for lane in range(plan.lanes)) if plan else 0,
                    result.unread if result else 0,
                    plan.rounds if plan else 0,
                )
            ),
        )

    def ended(self, problem: str = "") -> Result:
        """How it stands now."""
        plan = Plan.load(self.store, self.name)
        if not problem and plan is not None and self._accounts.unfinished(plan):
            problem = "not everything that was planned is through; the same command goes on"
        found = self.accounts()
        return Result(
            self.parts,
            sum(1 for _ in self._unread(plan)) + len(self.closed),
            {account.name: account.outcomes.owed for account in found},
            all(account.holds for account in found),
            problem,
        )

    def _settled_bytes(self) -> int:
        """Of this run's parts, also what other processes do."""
        assert self.plan is not None, "it was prepared"
        found = 0
        for lane, first in self._began.items():
            last = self._accounts.parts_done(self.plan, lane)
            found += sum(length(self.plan.part(lane, n)) for n in range(first, last))
        return found

    def _unread(self, plan: Plan | None) -> Iterator[Unread]:
        """Of the last round: what was mended is read by a later one, the rest is in the report."""
        first = {lane: plan.round(lane) for lane in range(plan.lanes)} if plan else {}
        return unread_of(self.store, self.name, first)

    def unread_lines(self, most: int = 20) -> Iterator[str]:
        """What could not be read, a line each."""
        found = [*self.closed_lines(), *map(_unread_line, self._unread(self.plan))]
        yield from found[:most]
        if len(found) > most:
            yield f"… and {len(found) - most:,} more that could not be read: see the report"

    def closed_lines(self) -> Iterator[str]:
        for url, why in self.closed:
            yield f"not read: {printable(url)}: {printable(why)}"


def _unread_line(unread: Unread) -> str:
    size = f"{unread.size:,} bytes" if unread.size >= 0 else "the rest"
    records = f", {unread.records:,} records" if unread.records >= 0 else ""
    return (
        f"not read: {printable(unread.url)}: {size}{records} from byte {unread.offset:,}: "
        f"{printable(unread.why)}"
    )


def _told(error: BaseException) -> str:
    if isinstance(error, StorageError | HistoryError):
        return str(error)
    lines = str(error).strip().splitlines()
    return printable(lines[-1]) if lines else type(error).__name__
