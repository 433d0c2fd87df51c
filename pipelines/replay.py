"""Replays history: files of any export, through the same graph, into the same sinks and accounts.

A replay is a row of rounds; each plans what is new since the last one, and goes through it in
shifts, as the live stream does. Where it was killed, the accounts say, and the next run of the same
command goes on there. What sinks come to be owed is read again, and paid, at the end.
"""

from __future__ import annotations

import hashlib
import logging
import re
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple

import apache_beam as beam
import msgspec

from pipelines.forward import Replayed, accounts, both, forward
from pipelines.report.accounts import SinkAccount, owed_of
from pipelines.runners import Choice, beside, choose
from pipelines.settings import Settings
from schemas.alert import Alert
from schemas.batch import AlertBatch, Batch, Origin
from schemas.receipt import Outcomes
from schemas.runs import clip, count
from transforms import heartbeat
from transforms.account import begin, settled, wait_until_written
from transforms.deduplicate import forget, leave
from transforms.delivery.engines import close_all, engines
from transforms.delivery.line import printable
from transforms.delivery.parcel import Status
from transforms.drift import close as close_watch
from transforms.enrich import enrich_batch, enrich_batch_at, load_subscriptions
from transforms.hand_over import remember
from transforms.known import Known, skip_known, terms
from transforms.owed import debts
from transforms.read.files.base import RECORDS, Unread
from transforms.read.files.json_lines import UNFINISHED
from transforms.read.filesystems import HistoryError, find
from transforms.read.history import (
    Lane,
    Owing,
    Progress,
    ReadHistory,
    StorageError,
    batches,
    close_reading,
    reading,
)
from transforms.read.listing import Between, Done, lanes, new_since, parts_of
from transforms.read.plan import Plan, folder, length, origin, unread_of
from transforms.replayed import Taken, taken
from transforms.route import Where
from transforms.state_store import StateStore
from transforms.subscription_history import History, keep

__all__ = [
    "Asked",
    "Rehearsal",
    "Replay",
    "ReplayError",
    "Result",
    "State",
    "anew",
    "default_name",
    "state_of",
    "with_sinks",
]

_LOGGER = logging.getLogger(__name__)

_MOST_BUNDLES = 100  # of a shift: what the runner keeps of each goes with it
_MOST_RECORDS = 500_000  # of a shift: their keys are held until they are filed
_MOST_FAILURES = 5  # shifts that fail one after another
_LEAST_PATIENCE = 60.0  # seconds: history can wait, and so do sinks that are slow


class ReplayError(Exception):
    """The replay cannot begin; the message says why, and what to do."""

    exit_code = 2


class Asked(NamedTuple):
    """What is to be replayed.

    where, sinks, again: which alerts, and to whom; also those that a sink has. rate: records a
    second at most. patience: seconds that sinks may take nothing at all. said: the times in the
    user's words, which mean the same when the command is given again.
    """

    paths: tuple[str, ...]
    start_ms: int | None = None
    stop_ms: int | None = None
    by: Literal["event", "enqueued"] = "event"
    where: Where | None = None
    sinks: tuple[str, ...] = ()
    again: bool = False
    template: str = ""
    rate: float = 0.0
    workers: int = 1
    patience: float = 600.0
    said: tuple[str, str] = ("", "")


class Result(NamedTuple):
    """How a run of a replay ended. parts: of this run. owed: by sink, records that are still owed.
    problem: why it ended before it was through; "": it is."""

    parts: int
    unread: int
    owed: Mapping[str, int]
    holds: bool
    problem: str = ""

    @property
    def well(self) -> bool:
        return self.holds and not (self.problem or self.unread or any(self.owed.values()))


class State(msgspec.Struct):
    """How a replay's last run went, or goes. Times in ms; ended 0: it has not (it works, or was
    killed). parts, done: of all rounds."""

    name: str
    began: int
    ended: int
    ok: bool
    said: str
    parts: int
    done: int
    unread: int
    rounds: int


def state_of(store: StateStore, name: str) -> State | None:
    """What the replay of that name last told of itself."""
    data = store.get(f"{folder(name)}/state.json")
    return msgspec.json.decode(data, type=State) if data else None


def default_name(asked: Asked) -> str:
    """A name that the same command gives again."""
    said = repr((asked.paths, asked.said, asked.by, asked.where, asked.sinks))
    tail = re.sub(r"[^A-Za-z0-9]+", "-", asked.paths[0].rstrip("/").rpartition("/")[2]).strip("-")
    return f"{tail[:32] or 'history'}-{hashlib.blake2b(said.encode(), digest_size=4).hexdigest()}"


def anew(store: StateStore, name: str) -> str:
    """What a replay that begins anew is called: the name with a number behind it; where such a
    one is not through yet, that one."""
    number, last = 2, name
    while store.get(f"{folder(last)}/plan.json") is not None:
        state = state_of(store, last)
        if number > 2 and (state is None or not state.ended or state.done < state.parts):
            return last
        last, number = f"{name}-{number}", number + 1
    return last


def with_sinks(
    settings: Settings, names: Sequence[str], patience: float, digests: bool = False
) -> Settings:
    """The settings with these sinks only (none named: all that take alerts), which wait longer for
    a system than in the live stream, where others wait for them. Raises ReplayError.

    digests: keep them, and the sinks that take them.
    """
    takers = {entry.name: entry for entry in settings.sinks if entry.send == "alerts"}
    if unknown := [name for name in names if name not in takers]:
        raise ReplayError(
            f"there is no sink {unknown[0]!r} that takes alerts; there are: {', '.join(takers)}"
        )
    if not takers:
        raise ReplayError("the settings have no sink that takes alerts")
    chosen = [takers[name] for name in (names or takers)]
    patient = []
    for entry in chosen:
        longer = max(entry.settings.patience, min(_LEAST_PATIENCE, patience))
        own = entry.settings.model_copy(update={"patience": longer})
        patient.append(entry.model_copy(update={entry.kind: own}))
    if digests:
        others = (entry for entry in settings.sinks if entry.send == "digests")
        return settings.model_copy(update={"sinks": (*patient, *others)})
    return settings.model_copy(update={"sinks": tuple(patient), "digests": ()})


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
        runner: str = "DirectRunner",
        lane: int | None = None,
        say: Callable[[str], None] = _LOGGER.info,
    ) -> None:
        self.settings = with_sinks(settings, asked.sinks, asked.patience)
        self.asked = asked
        self.name = name
        self.store = StateStore(str(settings.state))
        self.runner: Choice = choose(runner)
        self.counts: Counter[str] = Counter()
        self.plan: Plan | None = None
        self.todo: list[int] = []  # lanes that are not through
        self.parts = 0  # of this run
        self.bytes = 0
        self.closed: Sequence[tuple[str, str]] = ()  # files and folders that are closed to us, why
        self._began: dict[int, int] = {}  # by lane: the first part of this run
        self._fatal = False
        self._lane = lane
        self._say = say
        self._run = uuid.uuid4().hex
        self._sinks = accounts(self.settings)
        self._stopping = threading.Event()
        self._history = History(self.store, ())
        self._known: Known | None = None

    # ---------------------------------------------------------------- for whoever looks

    @property
    def progress(self) -> Progress:
        return reading(self._run)

    def status(self) -> dict[str, Status]:
        return {engine.sink.name: engine.status() for engine in engines(self._run)}

    def stop(self) -> None:
        """Drain and end: what was read is delivered or accounted for."""
        self._stopping.set()

    @property
    def stopped(self) -> bool:
        """Whether it was told to."""
        return self._stopping.is_set()

    def read(self) -> tuple[int, int]:
        """Bytes that were read of those that are to be; of other processes' lanes, what is
        settled."""
        if self.progress.bytes or self.plan is None:
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
        if self._lane is None and not self._unfinished(plan):
            self._extend(plan)
        self.plan = plan
        self.todo = self._unfinished(plan)
        for lane in self.todo if self._lane is None else [self._lane]:
            self._measure(plan, lane)
        return plan

    def _said(self) -> dict[str, Any]:
        about = self.asked
        where = about.where.model_dump_json(exclude_none=True) if about.where else ""
        return {
            "paths": [*about.paths], "from": about.said[0], "to": about.said[1], "by": about.by,
            "where": where, "sinks": sorted(self._sinks),
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

    def _unfinished(self, plan: Plan) -> list[int]:
        return [
            lane for lane in range(plan.lanes) if self._position(lane) + 1 < plan.end(lane)
        ]  # fmt: skip

    def _position(self, lane: int) -> int:
        """The last address of a lane that every sink has settled."""
        at = origin(self.name, lane)
        found = [settled(self.store, sink).get(at) for sink in self._sinks]
        return min((entry.position if entry else -1 for entry in found), default=-1)

    # -------------------------------------------------------------------------- running

    def run(self) -> Result:
        """Read what is planned, all of it, and pay what sinks are owed. Raises ReplayError."""
        plan = self.plan or self.prepare()
        if self.settings.subscriptions is not None:
            file = self.settings.subscriptions.file
            keep(self.store, load_subscriptions(file), int(time.time() * 1000))
        self._history = History.load(self.store)
        horizon_ms = int(self.settings.deduplicate.horizon * 1000)
        if not self.asked.again:
            also = self.asked.where
            wants = {
                entry.name: (entry.where, also, both(entry.where, also))
                for entry in self.settings.sinks
            }
            self._known = Known(self.store, wants, horizon_ms, self._history.at, self._run)
        todo = self.todo if self._lane is None else [self._lane]
        problem = ""
        try:
            for lane in todo:
                problem = problem or self._through(plan, lane)
            if not problem:
                problem = self._pay(range(plan.lanes) if self._lane is None else [self._lane])
        finally:
            close_reading(self._run)
            close_all(self._run)
            close_watch(self._run, self.store)
            forget(self._run)
        return self.ended(problem)

    def _measure(self, plan: Plan, lane: int) -> None:
        first = (self._position(lane) + 1) // RECORDS
        self._began[lane] = first
        self.parts += plan.parts(lane) - first
        self.bytes += sum(length(part) for _, part in plan.row(lane, first))

    def _through(self, plan: Plan, lane: int) -> str:
        """Shift after shift until a lane is through; else why it is not."""
        at = origin(self.name, lane)
        begin(self.store, self._sinks, at, -1)
        failures = 0
        warm = True
        while not self._stopping.is_set():
            start = self._position(lane) + 1
            if start >= plan.end(lane):
                return ""
            before = self._before(plan, lane, start) if warm else ()
            element = Lane(
                self.name, lane, start, plan.end(lane), self._place(at), before, self.asked.rate
            )
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
        return "it was stopped; the same command goes on"

    def _remember(self, at: Origin, start: int) -> None:
        """What a shift has delivered, so that no other replay, nor the next round, sends it."""
        last = self._position(int(at.partition))
        wanted = {
            entry.name: terms(both(entry.where, self.asked.where), self._history.at)
            for entry in self.settings.sinks
        }
        remember(
            self.store, wanted, leave(self._run), f"{at}",
            horizon_ms=int(self.settings.deduplicate.horizon * 1000),
            read={str(at): (start, last)},
            rests=self._known.rests() if self._known else {},
        )  # fmt: skip

    def _place(self, at: Origin) -> str:
        """Where the part of the least position can be read on from."""
        entries = [settled(self.store, sink).get(at) for sink in self._sinks]
        known = [entry for entry in entries if entry is not None]
        return min(known, key=lambda entry: entry.position).offset if known else ""

    def _before(self, plan: Plan, lane: int, start: int) -> tuple[tuple[int, int], ...]:
        """The parts of this round in one horizon before an address: of this lane and of those
        before it. What earlier rounds have delivered is known from what they left."""
        number = start // RECORDS
        since = plan.part(lane, number).at_ms - int(self.settings.deduplicate.horizon * 1000)
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
        progress = self.progress
        progress.draining = False
        for engine in engines(self._run):
            engine.draining = False
        pipeline = beam.Pipeline(runner=self.runner.runner)
        about = self.asked
        what = Taken(self.name, about.start_ms, about.stop_ms, about.by)
        forward(
            pipeline, ReadHistory(self._run, elements, self.store), self.settings,
            {}, self._run,
            replayed=Replayed(what, about.where, self._history, self._known),
        )  # fmt: skip
        worker, failed = beside(pipeline, "replay", self.counts)
        most = heartbeat.bundles(self._run) + _MOST_BUNDLES
        records = progress.records + _MOST_RECORDS
        held_since = 0.0
        worker.start()
        while worker.is_alive():
            worker.join(0.1)
            now = time.monotonic()
            held_since = (held_since or now) if progress.held else 0.0
            if held_since and now > held_since + about.patience:
                self._fatal = True
                progress.draining = True
            enough = heartbeat.bundles(self._run) >= most or progress.records >= records
            if enough or self._stopping.is_set():
                progress.draining = True
        wait_until_written()
        if failed:
            _LOGGER.error("replay %s: %s", self.name, failed[0], exc_info=failed[0])
            close_reading(self._run)
            forget(self._run)
            return _told(failed[0])
        if self._fatal:
            return (
                f"no sink took anything for {about.patience:.0f} s ({printable(progress.held)}); "
                "the same command goes on"
            )
        return ""

    # --------------------------------------------------------------------------- paying

    def _debts(self, lanes: Sequence[int]) -> list[Owing]:
        found = []
        for lane in lanes:
            at = origin(self.name, lane)
            for sink in self._sinks:
                runs = [
                    run
                    for debt in debts(self.store, sink)
                    if (debt.source, debt.partition) == (at.source, at.partition)
                    for run in debt.iou.owed
                ]
                if runs := clip(runs, 0, self._position(lane)):
                    owing = Owing(self.name, lane, sink, tuple(runs), self.asked.patience)
                    found.append(owing)
        return found

    def _pay(self, lanes: Sequence[int]) -> str:
        """Pay what sinks are owed, as long as that gets on; else why not."""
        before = -1
        while elements := self._debts(lanes):
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
        found = []
        for sink in self._sinks:
            records, outcomes = 0, Outcomes()
            for at, entry in settled(self.store, sink).items():
                if at.source == _source(self.name):
                    records += entry.records
                    outcomes += entry.outcomes
                    paid = owed_of(self.store, sink, at, entry.position)
                    outcomes += Outcomes(
                        paid.delivered, paid.not_routed, 0, paid.dead,
                        -(paid.delivered + paid.not_routed + paid.dead),
                    )  # fmt: skip
            found.append(SinkAccount(sink, records, outcomes))
        return found

    def tell(self, result: Result | None = None) -> None:
        """Write down how it goes, for `alertbeam status`."""
        known = state_of(self.store, self.name)
        now_ms = int(time.time() * 1000)
        plan = self.plan
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
                    sum(self._parts_done(plan, lane) for lane in range(plan.lanes)) if plan else 0,
                    result.unread if result else 0,
                    plan.rounds if plan else 0,
                )
            ),
        )

    def _parts_done(self, plan: Plan, lane: int) -> int:
        return min((self._position(lane) + 1) // RECORDS, plan.parts(lane))

    def ended(self, problem: str = "") -> Result:
        """How it stands now."""
        plan = Plan.load(self.store, self.name)
        if not problem and plan is not None and self._unfinished(plan):
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
            last = min((self._position(lane) + 1) // RECORDS, self.plan.parts(lane))
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


def _source(name: str) -> str:
    return origin(name, 0).source


class Rehearsal:
    """A replay that sends nothing, and writes nothing down: what `pipelines.what_if` asks for.

    unread: what could not be read, as far as reading is.
    """

    def __init__(self, settings: Settings, asked: Asked, say: Callable[[str], None]) -> None:
        chosen = with_sinks(settings, asked.sinks, 0.0)
        store = StateStore(str(settings.state))
        self.progress = Progress()
        self.unread: list[Unread] = []
        self.bytes = 0
        self._asked = asked
        self._say = say
        self._taken = Taken("", asked.start_ms, asked.stop_ms, asked.by)
        history = History.load(store)
        given = settings.subscriptions
        known = load_subscriptions(given.file) if given else {}
        self.enrich: Callable[[AlertBatch], AlertBatch] = (
            partial(enrich_batch_at, history=history)
            if history
            else partial(enrich_batch, subscriptions=known)
        )
        wants = {entry.name: (entry.where, asked.where) for entry in chosen.sinks}
        horizon_ms = int(settings.deduplicate.horizon * 1000)
        has = Known(store, wants, horizon_ms, history.at if history else known)
        self.skip = None if asked.again else partial(skip_known, known=has)

    def taken(self, alert: Alert) -> bool:
        """Whether the replay would be about this alert."""
        return taken(alert, self._taken)

    def batches(self) -> Iterator[Batch]:
        """All records of the files, in order."""
        about = self._asked
        found = find(about.paths, lambda url, why: self.unread.append(Unread(url, 0, -1, why)))
        listed = parts_of(found, Between(about.start_ms, about.stop_ms, about.by), about.template)
        for line in listed.says:
            self._say(line)
        self.bytes = listed.bytes
        return batches(
            enumerate(listed.parts), origin("", 0),
            lambda part, unread: self.unread.extend(unread), self.progress,
        )  # fmt: skip


def _told(error: BaseException) -> str:
    if isinstance(error, StorageError | HistoryError):
        return str(error)
    lines = str(error).strip().splitlines()
    return printable(lines[-1]) if lines else type(error).__name__
