"""A replay passes over what a sink has, and over nothing that it lacks: against every row of
shifts, crashes, write-offs, changed settings and replays that hypothesis finds."""

from __future__ import annotations

import hashlib
import itertools
import pickle
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import apache_beam as beam
import msgspec
import pytest
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.testing.util import assert_that
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from pipelines import cold_start as cold_start_module
from pipelines.cold_start import clean_end, cold_start
from schemas.alert import Alert, Subscription
from schemas.batch import NOBODY, AlertBatch, Dropped, Origin
from schemas.ledger import Span
from schemas.receipt import Outcome, Outcomes, Run
from tests.stubs import alert, alerts
from tests.transforms.test_deduplicate import Cells
from transforms import hand_over
from transforms.account import Settled
from transforms.deduplicate import Seen, _Deduplicate, deduplicate_batch, forget
from transforms.hand_over import (
    DAY_MS,
    HandedOver,
    claims,
    high_water,
    lack,
    load,
    remember,
    save,
)
from transforms.known import Known, SkipKnown, skip_known, terms
from transforms.owed import account_path, write_off
from transforms.read.event_hubs import Partition
from transforms.route import Where, compile_where
from transforms.state_store import StateStore

LIVE = Origin("ns/hub/group", "0")
DAY = 20_000  # the day that most here happens on, since 1970
HIGH = Where.model_validate({"severity": "high"})
LOW = Where.model_validate({"severity": "low"})
PRODUCTION = Where.model_validate({"not": {"any": [{"environment": "production"}]}})
SUBSCRIBED = {"s": Subscription("s", environment="production")}
runs = itertools.count()


def key(number: int) -> bytes:
    return hashlib.blake2b(b"%d" % number, digest_size=16).digest()


def enqueued(number: int, day: float = DAY, **fields: Any) -> Alert:
    return alert(number, key=key(number), enqueued_ms=int(day * DAY_MS), **fields)


def batch(*made: Alert, only: str | None = None) -> AlertBatch:
    return alerts(0, len(made), made=made, only=only)


def settle(
    store: StateStore,
    numbers: list[int],
    sinks: Mapping[str, str],
    day: int = DAY,
    events: tuple[int, int] = (0, 9),
) -> None:
    """A shift in which these came to these sinks, handed over."""
    handed = HandedOver(
        next(runs), DAY_MS, {}, generation=day, sinks=dict(sinks), read={str(LIVE): events}
    )
    save(store, handed, {day: [key(number) for number in numbers]}, ())


def passed(known: Known, sink: str, *numbers: int, day: float = DAY) -> list[int]:
    out = skip_known(batch(*(enqueued(number, day) for number in numbers)), sink, known)
    return [one.sequence for one in out.alerts]


@pytest.fixture
def store(tmp_path: Path) -> StateStore:
    return StateStore(str(tmp_path))


@pytest.fixture(autouse=True)
def a_clock_of_that_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hand_over.time, "time", lambda: (DAY + 5) * DAY_MS / 1000)


def everything(store: StateStore, *sinks: str) -> Known:
    return Known(store, dict.fromkeys(sinks, (None,)), DAY_MS, {})


# ---------------------------------------------------------------------------------- passing over


def test_what_a_sink_has_becomes_repeats_for_it_alone(store: StateStore) -> None:
    settle(store, [1, 2], {"a": ""})
    known = everything(store, "a", "b")
    whole = batch(*(enqueued(n) for n in (1, 3, 2)))
    whole.dropped.append(Dropped(9, 0, Outcome.DEAD))
    out = skip_known(whole, "a", known)
    assert [one.sequence for one in out.alerts] == [3]
    assert out.dropped == [
        Dropped(9, 0, Outcome.DEAD), Dropped(1, 0, Outcome.REPEAT), Dropped(2, 0, Outcome.REPEAT),
    ]  # fmt: skip
    assert len(whole.alerts) == 3, "other sinks get the same batch"
    assert len(whole.dropped) == 1
    assert skip_known(whole, "b", known) is whole


@pytest.mark.parametrize("only", ["a", NOBODY])
def test_what_is_addressed_passes(store: StateStore, only: str) -> None:
    settle(store, [1], {"a": ""})
    paying = batch(enqueued(1), only=only)
    assert skip_known(paying, "a", everything(store, "a")) is paying


@pytest.mark.parametrize(
    ("day", "has"),
    [(DAY - 2, False), (DAY - 1, True), (DAY, True), (DAY + 1.9, True), (DAY + 2, False)],
)
def test_an_alert_is_looked_for_about_its_time(store: StateStore, day: float, has: bool) -> None:
    settle(store, [1], {"a": ""})
    assert passed(everything(store, "a"), "a", 1, day=day) == ([] if has else [1])


def test_all_days_are_looked_up_and_few_are_in_memory(store: StateStore) -> None:
    for day in range(DAY - 30, DAY + 1):
        settle(store, [day], {"a": ""}, day)
    known = everything(store, "a")
    for day in range(DAY - 30, DAY + 1):
        assert passed(known, "a", day, 1, day=day) == [1]
        held = {key for unit in known._units.values() for keys in unit for key in keys.keys}
        assert len(held) <= 4
    assert passed(known, "a", DAY - 20, day=DAY - 20) == [], "time may also go back"


def test_a_day_is_loaded_once_for_all_sinks_and_while_time_moves_to_and_fro(
    store: StateStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for day in range(DAY - 3, DAY + 2):
        settle(store, [day], {"a": "", "b": ""}, day)
    known = everything(store, "a", "b")
    loaded = []
    real = known._load
    monkeypatch.setattr(known, "_load", lambda unit: (loaded.append(unit), real(unit))[1])
    for _ in range(5):
        for day in (DAY - 1, DAY):
            for sink in ("a", "b"):
                assert passed(known, sink, day, day=day) == []
    assert sorted(loaded) == [DAY - 2, DAY - 1, DAY, DAY + 1]


def test_files_that_are_replaced_meanwhile_are_looked_for_again(
    store: StateStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    settle(store, [1], {"a": ""})
    real = StateStore.get
    moves = [lambda: settle(store, [], {"a": ""}, DAY + 4)]  # the generation is over: it moves

    def get(self: StateStore, path: str) -> bytes | None:
        if path.startswith("seen/") and moves:
            moves.pop()()
        return real(self, path)

    monkeypatch.setattr(StateStore, "get", get)
    assert passed(everything(store, "a"), "a", 1) == []
    assert not moves


def test_a_file_that_is_gone_has_alerts_come_again(store: StateStore) -> None:
    settle(store, [1], {"a": ""})
    store.delete(claims(store)[0].path)
    assert passed(everything(store, "a"), "a", 1) == [1]


def test_one_of_a_name_serves_all_steps_of_a_process(store: StateStore) -> None:
    known = everything(store, "a")
    again = pickle.loads(pickle.dumps(known))
    assert again is known
    data, name = pickle.dumps(known), known._made_of[-1]
    del known, again
    first, second = pickle.loads(data), pickle.loads(data)
    assert first is second
    assert first._made_of[-1] == name


def _two_are_left(found: list[AlertBatch]) -> None:
    assert [[one.sequence for one in each.alerts] for each in found] == [[3, 4]]
    assert [len(each.dropped) for each in found] == [2]


def test_through_the_runner(store: StateStore) -> None:
    settle(store, [1, 2], {"a": ""})
    known = Known(store, {"a": (None, HIGH)}, DAY_MS, SUBSCRIBED)
    whole = batch(*(enqueued(n) for n in (1, 2, 3, 4)))
    with beam.Pipeline(runner=FnApiRunner()) as pipeline:
        out = (
            pipeline
            | beam.Create([whole], reshuffle=False).with_output_types(AlertBatch)
            | SkipKnown("a", known)
        )
        assert_that(out, _two_are_left)


# ----------------------------------------------------------------------------- what sinks wanted


def test_terms_are_equal_only_where_the_same_is_wanted() -> None:
    other = {"s": Subscription("s", environment="test")}
    found = [
        terms(HIGH, {}), terms(LOW, {}), terms(PRODUCTION, {}), terms(PRODUCTION, SUBSCRIBED),
        terms(PRODUCTION, other), terms(PRODUCTION, lambda ms: SUBSCRIBED),
    ]  # fmt: skip
    assert len({*found}) == len(found)
    assert terms(HIGH, SUBSCRIBED) == terms(HIGH, {}), "it does not ask for subscriptions"
    assert terms(None, SUBSCRIBED) == "", "everything"
    assert terms(Where.model_validate({"severity": ["high"]}), {}) == terms(HIGH, {})


def test_what_a_sink_did_not_want_then_comes_now(store: StateStore) -> None:
    settle(store, [1], {"a": terms(HIGH, {})})
    assert passed(everything(store, "a"), "a", 1) == [1]
    assert passed(Known(store, {"a": (LOW,)}, DAY_MS, {}), "a", 1) == [1]
    assert passed(Known(store, {"a": (HIGH,)}, DAY_MS, {}), "a", 1) == []


def test_a_sink_that_took_everything_has_what_it_wants_now(store: StateStore) -> None:
    settle(store, [1], {"a": ""})
    assert passed(Known(store, {"a": (HIGH,)}, DAY_MS, {}), "a", 1) == []


def test_a_replay_that_wants_less_passes_over_what_the_sink_had_by_its_own_condition(
    store: StateStore,
) -> None:
    settle(store, [1], {"a": terms(HIGH, {})})
    assert passed(Known(store, {"a": (HIGH, LOW)}, DAY_MS, {}), "a", 1) == []


def test_another_version_may_have_understood_it_otherwise(
    store: StateStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    settle(store, [1], {"a": terms(HIGH, {})})
    settle(store, [2], {"a": terms(None, {})})
    monkeypatch.setattr("transforms.known._version", lambda: "another")
    assert passed(Known(store, {"a": (HIGH,)}, DAY_MS, {}), "a", 1, 2) == [1]


def test_a_condition_on_subscriptions_hangs_on_what_was_known_of_them(store: StateStore) -> None:
    other = {"s": Subscription("s", environment="test")}
    settle(store, [1], {"a": terms(PRODUCTION, SUBSCRIBED)})
    wants = {"a": (PRODUCTION,)}

    def at(ms: int) -> Mapping[str, Subscription]:
        return SUBSCRIBED if ms < 500 else other

    assert passed(Known(store, wants, DAY_MS, SUBSCRIBED), "a", 1) == []
    assert passed(Known(store, wants, DAY_MS, other), "a", 1) == [1]
    known = Known(store, wants, DAY_MS, at)
    for event_ms, has in ((499, True), (500, False), (499, True)):
        out = skip_known(batch(enqueued(1, event_ms=event_ms)), "a", known)
        assert (not out.alerts) is has


def test_what_a_replay_chose_by_each_alerts_time_holds_for_the_next_that_does(
    store: StateStore,
) -> None:
    def at(ms: int) -> Mapping[str, Subscription]:
        return SUBSCRIBED

    settle(store, [1], {"a": terms(PRODUCTION, at)})
    wants = {"a": (PRODUCTION,)}
    assert passed(Known(store, wants, DAY_MS, at), "a", 1) == []
    assert passed(Known(store, wants, DAY_MS, SUBSCRIBED), "a", 1) == [1]


# ------------------------------------------------------------------------- what was written off


def test_what_was_written_off_comes_by_a_replay(store: StateStore) -> None:
    settle(store, [1, 2], {"a": "", "b": ""}, events=(0, 9))
    settle(store, [3], {"a": "", "b": ""}, DAY + 1, events=(10, 19))
    lack(store, "a", LIVE.source, LIVE.partition, [Run(7, 7, 0)])
    known = everything(store, "a", "b")
    assert passed(known, "a", 1, 2, 3) == [1, 2], "keys have no address: all of that claim is void"
    assert passed(known, "b", 1, 2, 3) == []


def test_so_says_whoever_writes_off(store: StateStore) -> None:
    settle(store, [1], {"a": ""})
    write_off(store, "a", LIVE.source, LIVE.partition, [Run(3, 3, 0)], "gone", 1_000)
    assert passed(everything(store, "a"), "a", 1) == [1]


def test_what_rests_on_a_claim_falls_with_it(store: StateStore) -> None:
    """A replay passes over what the sink was owed, and leaves a claim; then that is written off."""
    settle(store, [1], {"a": "", "b": ""})
    first = everything(store, "a", "b")
    assert passed(first, "a", 1) == []
    said: dict[str, Any] = {"horizon_ms": DAY_MS, "read": {"replay/r/0": (0, 9)}}
    rests = first.rests()
    assert rests == {"a": {str(LIVE): (0, 9)}}
    assert first.rests() == {}, "told once"
    remember(store, {"a": "", "b": ""}, {DAY: [key(1)]}, "r", rests=rests, **said)
    store.delete(f"seen/{(load(store) or pytest.fail('it was handed over')).files[0]}")
    second = everything(store, "a", "b")
    assert passed(second, "a", 1) == [], "by the replay's claim alone"
    remember(store, {"a": "", "b": ""}, {DAY: [key(1)]}, "s", rests=second.rests(), **said)
    lack(store, "a", LIVE.source, LIVE.partition, [Run(7, 7, 0)])
    known = everything(store, "a", "b")
    assert passed(known, "a", 1) == [1]
    assert passed(known, "b", 1) == []


# -------------------------------------------------------------------------------- any row of events

PARTITIONS = ("0", "1")
SINKS = ("a", "b", "c")  # the last one comes later
FIRST = SINKS[:2]
TAKERS = st.sampled_from([SINKS, SINKS, FIRST, ("a", "c"), ("b",)])
HORIZON_MS = DAY_MS
CONDITIONS: tuple[Where | None, ...] = (None, HIGH, LOW)


class History(RuleBasedStateMachine):
    """Copies of few alerts on two partitions, over some days; sinks, which settle at their own
    pace, come, leave and return, and want other alerts by then; what they come to be owed is paid
    or written off; a process ends at any moment; and replays, of which some end in the middle.

    The judge knows only what each sink was given, and what it still is owed.
    """

    def __init__(self) -> None:
        super().__init__()
        self._folder = tempfile.TemporaryDirectory()
        self.store = StateStore(self._folder.name)
        self.day = DAY
        self.log: dict[str, list[tuple[int, int]]] = {p: [] for p in PARTITIONS}  # number, day
        self.got: dict[str, set[int]] = {s: set() for s in SINKS}
        self.owed: dict[str, list[tuple[int, Origin, int]]] = {s: [] for s in SINKS}
        self.wants: dict[str, Where | None] = dict.fromkeys(SINKS)
        self.shift = 0
        self.run = ""
        self.calm = True  # nothing that makes claims void, or unsure
        self.replays = 0
        self._patches = [
            mock.patch.object(cold_start_module, "_kept", lambda partitions: partitions),
            mock.patch.object(hand_over.time, "time", lambda: self.day * DAY_MS / 1000),
            mock.patch.object(hand_over.time, "monotonic", itertools.count(100).__next__),
        ]
        for patch in self._patches:
            patch.start()
        for sink, partition in itertools.product(FIRST, PARTITIONS):
            self._settle_to(sink, partition, -1)

    def teardown(self) -> None:
        if self.run:
            self.hand_over(FIRST, 0)
            self.replay(SINKS, True, 1)
            # Then nobody lacks anything, wherever it was lost.
            for sink in SINKS:
                published = {number for log in self.log.values() for number, _ in log}
                wanted = {n for n in published if self._wanted(sink, n)}
                assert wanted <= self.got[sink] | {number for number, _, _ in self.owed[sink]}
        for patch in self._patches:
            patch.stop()
        self._folder.cleanup()

    def _alert(self, number: int, sequence: int, day: int) -> Alert:
        severity = "high" if number % 2 else "low"
        return alert(
            sequence,
            key=key(number),
            enqueued_ms=day * DAY_MS,
            severity=severity,
            title=str(number),
        )

    def _wanted(self, sink: str, number: int) -> bool:
        return compile_where(self.wants[sink])(self._alert(number, 0, 0))

    def _settle_to(self, sink: str, partition: str, position: int) -> None:
        spans = [Span(0, position, 0, Outcomes(), 1, position + 1)] if position >= 0 else []
        entry = Settled(position, 0, 0, Outcomes(), 0, "", spans)
        self.store.put(account_path(sink, LIVE.source, partition), msgspec.json.encode(entry))

    def _begun(self, sink: str) -> bool:
        return self.store.get(account_path(sink, LIVE.source, "0")) is not None

    def _position(self, sink: str, partition: str) -> int:
        data = self.store.get(account_path(sink, LIVE.source, partition))
        return msgspec.json.decode(data or b"", type=Settled).position

    # ------------------------------------------------------------------------- the live stream

    @initialize(leave=st.booleans())
    def begin(self, leave: bool) -> None:
        self.leave = leave
        self._start(FIRST)

    def _start(self, sinks: tuple[str, ...]) -> None:
        self.sinks = sinks if self.leave else FIRST
        if not self.run:
            self.run = f"history {next(runs)}"
        self.shift += 1
        old = [sink for sink in self.sinks if self._begun(sink)]
        at = {p: min(self._position(sink, p) for sink in old) + 1 for p in PARTITIONS}
        access: Any = None
        partitions = [Partition(LIVE.source, p, access, at[p]) for p in PARTITIONS]
        self.started = cold_start(self.store, self.sinks, partitions, HORIZON_MS)
        self.next = {each.partition: each for each in self.started.partitions}
        for sink, partition in itertools.product(self.sinks, PARTITIONS):
            if sink not in old:  # it begins where the others stand
                self._settle_to(sink, partition, self.next[partition].live - 1)
        self.head = {p: each.start for p, each in self.next.items()}
        self.after = {(s, p): self._position(s, p) for s in self.sinks for p in PARTITIONS}
        self.seen = _Deduplicate(HORIZON_MS, 1, self.run, self.store, self.started.left)
        self.seen.setup()
        self.cells = Cells()
        self.pending: dict[tuple[str, str], list[tuple[int, int | None]]] = {}

    @rule(
        partition=st.sampled_from(PARTITIONS),
        numbers=st.lists(st.integers(0, 5), min_size=1, max_size=4),
        days=st.sampled_from([0, 0, 0, 1, 1, 3]),
        events=st.integers(0, 6),
    )
    def come(self, partition: str, numbers: list[int], days: int, events: int) -> None:
        self.publish(partition, numbers, days)
        self.read(partition, events)

    def publish(self, partition: str, numbers: list[int], days: int = 0) -> None:
        self.day += days
        self.log[partition] += [(number, self.day) for number in numbers]

    @rule(partition=st.sampled_from(PARTITIONS), events=st.integers(1, 4))
    def read(self, partition: str, events: int) -> None:
        first, each = self.head[partition], self.next[partition]
        only, limit = None, len(self.log[partition])
        if first < each.live:
            only, limit = NOBODY, each.live
        elif any(self.head[p] < self.next[p].live for p in PARTITIONS):
            return
        last = min(first + events, limit) - 1
        if last < first:
            return
        origin = Origin(LIVE.source, partition)
        if only is None:
            high_water(self.run, self.store).cover(origin, last)
        log = self.log[partition]
        made = [self._alert(*log[s][:1], s, log[s][1]) for s in range(first, last + 1)]
        whole = AlertBatch(origin, first, last, only, len(made), made, [])
        cells = self.cells
        (out,) = self.seen.process((0, whole), cells.even, cells.odd, cells.stamp)
        self.head[partition] = last + 1
        if only is not None:
            return
        fresh = {one.sequence for one in out.alerts}
        for sink in self.sinks:
            for sequence in range(first, last + 1):
                if sequence > self.after[sink, partition]:
                    number = log[sequence][0]
                    sent = sequence in fresh and self._wanted(sink, number)
                    waiting = self.pending.setdefault((sink, partition), [])
                    waiting.append((sequence, number if sent else None))

    @precondition(lambda self: any(self.pending.values()))
    @rule(which=st.integers(0, 5), records=st.integers(1, 4), owes=st.booleans())
    def settle_some(self, which: int, records: int, owes: bool) -> None:
        found = sorted(at for at, waiting in self.pending.items() if waiting)
        self.settle(*found[which % len(found)], records, owes)

    def settle(self, sink: str, partition: str, records: int, owes: bool) -> None:
        waiting = self.pending.get((sink, partition), [])
        for sequence, number in waiting[:records]:
            if number is not None:
                self._end(sink, number, Origin(LIVE.source, partition), sequence, owes)
            self._settle_to(sink, partition, sequence)
        del waiting[:records]

    def _end(self, sink: str, number: int, origin: Origin, sequence: int, owes: bool) -> None:
        if owes:
            self.owed[sink].append((number, origin, sequence))
        else:
            self.got[sink].add(number)

    @precondition(lambda self: any(self.owed.values()))
    @rule(which=st.integers(0, 2), records=st.integers(1, 3), paid=st.booleans())
    def pay_some(self, which: int, records: int, paid: bool) -> None:
        found = sorted(sink for sink, owed in self.owed.items() if owed)
        self.pay(found[which % len(found)], records, paid)

    def pay(self, sink: str, records: int, paid: bool) -> None:
        for number, origin, sequence in self.owed[sink][:records]:
            if paid:
                self.got[sink].add(number)
            else:
                self.calm = False
                runs = [Run(sequence, sequence, 0)]
                write_off(self.store, sink, origin.source, origin.partition, runs, "gone", 1)
        del self.owed[sink][:records]

    @rule(
        sinks=TAKERS,
        wants=st.sampled_from([0, 0, 0, 1, 2]),
        owes=st.booleans(),
    )
    def hand_over(self, sinks: tuple[str, ...], wants: int, owes: bool = False) -> None:
        for sink, partition in list(self.pending):
            self.settle(sink, partition, 10**6, owes)
        heads = {Origin(LIVE.source, p): head - 1 for p, head in self.head.items()}
        said = {sink: terms(self.wants[sink], {}) for sink in self.sinks}
        assert clean_end(
            self.run, self.store, self.sinks, self.started, heads, self.shift, HORIZON_MS, said
        )
        self._next(sinks, wants)

    @rule(
        sinks=TAKERS,
        wants=st.sampled_from([0, 0, 1, 2]),
        spoilt=st.sampled_from(["", "", "seen", "known/keys"]),
    )
    def crash(self, sinks: tuple[str, ...], wants: int, spoilt: str) -> None:
        self.calm = False
        for path in [*self.store.list(spoilt)] if spoilt and not self.leave else []:
            self.store.put(path, b"spoilt")
        forget(self.run)
        self.run = ""
        self._next(sinks, wants)

    def _next(self, sinks: tuple[str, ...], wants: int) -> None:
        """The next shift; other settings are another process."""
        if self.leave and (sinks != self.sinks or wants):
            self.run = ""
            self.calm = False
        if self.leave and wants:
            self.wants["b"] = CONDITIONS[wants]
        self._start(sinks)

    # --------------------------------------------------------------------------------- replays

    @precondition(lambda self: bool(self.run))
    @rule(
        sinks=st.sampled_from([SINKS, FIRST, ("a",), ("b", "c")]),
        ends=st.booleans(),
        owes=st.integers(0, 3),
    )
    def replay(self, sinks: tuple[str, ...], ends: bool, owes: int) -> None:
        """Of all that was ever published, partition by partition, as its files say."""
        self.replays += 1
        name = f"replay/{self.replays}"
        known = Known(self.store, {sink: (self.wants[sink],) for sink in sinks}, HORIZON_MS, {})
        seen = Seen(HORIZON_MS)
        events = sorted(
            (day, partition, number) for partition, log in self.log.items() for number, day in log
        )
        origin = Origin(name, "0")
        had = {sink: set(self.got[sink]) for sink in sinks}
        due = {sink: {number for number, _, _ in self.owed[sink]} for sink in sinks}
        came: dict[str, set[int]] = {sink: set() for sink in sinks}
        for sequence, (day, _, number) in enumerate(events):
            one = batch(self._alert(number, sequence, day))
            seen.turn(day * DAY_MS)
            fresh, _ = deduplicate_batch(one, seen)
            for sink in sinks:
                if not fresh.alerts or not self._wanted(sink, number):
                    continue
                if skip_known(fresh, sink, known).alerts:
                    came[sink].add(number)
                    owing = owes == 0
                    self._end(sink, number, origin, sequence, owing)
                else:
                    has = had[sink] | due[sink] | came[sink]
                    assert number in has, f"{sink} lacks {number}, and is passed over"
        if ends and events:
            remember(
                self.store, {sink: terms(self.wants[sink], {}) for sink in sinks}, seen.fresh,
                name, horizon_ms=HORIZON_MS, read={str(origin): (0, len(events) - 1)},
                rests=known.rests(),
            )  # fmt: skip
            if self.calm:
                again = Known(
                    self.store, {sink: (self.wants[sink],) for sink in sinks}, HORIZON_MS, {}
                )
                for day, _, number in events:
                    for sink in sinks:
                        left = skip_known(batch(self._alert(number, 0, day)), sink, again)
                        assert not left.alerts, f"{sink} has {number}, and it comes again"


TestHistory = History.TestCase
TestHistory.settings = settings(max_examples=80, stateful_step_count=30, deadline=None)


# ---------------------------------------------------- what chance finds seldom, each in a few steps


@pytest.fixture
def site() -> Iterator[History]:
    """Ends with a replay of everything to everybody, and the judge's word on it."""
    found = History()
    found.begin(leave=True)
    yield found
    found.teardown()


def delivered(site: History, *numbers: int, partition: str = "0", owes: bool = False) -> None:
    """Published, read, and settled by every sink that takes part; the shift goes on."""
    site.publish(partition=partition, numbers=[*numbers])
    site.read(partition=partition, events=len(numbers))
    for sink in site.sinks:
        site.settle(sink=sink, partition=partition, records=len(numbers), owes=owes)


def test_a_new_sink_has_no_part_in_what_is_read_again_for_nobody(site: History) -> None:
    delivered(site, 1, 2)
    site.crash(sinks=SINKS, wants=0, spoilt="")
    site.read(partition="0", events=4)
    site.hand_over(sinks=SINKS, wants=0)
    site.replay(sinks=("c",), ends=True, owes=1)
    assert {1, 2} <= site.got["c"]


def test_nor_a_sink_that_was_away_in_what_the_others_had_meanwhile(site: History) -> None:
    site.hand_over(sinks=("a",), wants=0)
    delivered(site, 1, 2)
    site.hand_over(sinks=("a",), wants=0)
    delivered(site, 3)
    site.crash(sinks=FIRST, wants=0, spoilt="")
    site.replay(sinks=("b",), ends=False, owes=1)
    assert {1, 2, 3} <= site.got["b"]


def test_what_was_owed_in_the_live_stream_and_written_off_comes(site: History) -> None:
    delivered(site, 1, owes=True)
    site.hand_over(sinks=FIRST, wants=0)
    site.replay(sinks=FIRST, ends=True, owes=1)
    assert not site.got["a"], "it will be paid"
    site.pay(sink="a", records=1, paid=False)
    site.replay(sinks=FIRST, ends=True, owes=1)
    assert site.got["a"] == {1}
    assert not site.got["b"]


def test_also_if_it_was_read_again_after_a_crash(site: History) -> None:
    """The hand-over before the crash does not cover it; the claim begins where reading did."""
    delivered(site, 1, 2)
    site.hand_over(sinks=FIRST, wants=0)
    site.publish(partition="0", numbers=[3, 4])
    site.read(partition="0", events=2)
    site.settle(sink="a", partition="0", records=1, owes=True)
    site.settle(sink="b", partition="0", records=1, owes=True)
    site.crash(sinks=FIRST, wants=0, spoilt="")
    site.read(partition="0", events=4)
    site.read(partition="0", events=4)
    for sink in FIRST:
        site.settle(sink=sink, partition="0", records=4, owes=True)
    site.hand_over(sinks=FIRST, wants=0)
    site.pay(sink="a", records=9, paid=False)
    site.replay(sinks=("a",), ends=True, owes=1)
    assert {3, 4} <= site.got["a"]


def test_what_a_replay_came_to_owe_and_is_written_off_comes_by_another(site: History) -> None:
    delivered(site, 1)
    site.hand_over(sinks=FIRST, wants=0)
    site.replay(sinks=("c",), ends=True, owes=0)
    site.replay(sinks=("c",), ends=True, owes=1)
    assert not site.got["c"]
    site.pay(sink="c", records=1, paid=False)
    site.replay(sinks=("c",), ends=True, owes=1)
    assert site.got["c"] == {1}


def test_a_sink_that_wants_more_than_it_did_gets_that(site: History) -> None:
    site.hand_over(sinks=FIRST, wants=1)  # `b`: high, which are odd
    delivered(site, 1, 2)
    site.hand_over(sinks=FIRST, wants=0)
    site.wants["b"] = None
    site.replay(sinks=("b",), ends=True, owes=1)
    assert site.got["b"] == {1, 2}
