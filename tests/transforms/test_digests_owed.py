"""Digests that were set aside: paid oldest first, once, and gone when they are."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from schemas.digest import Digest, from_json, to_json
from tests import stubs
from tests.stubs import StubSettings, StubSink
from tests.transforms.read.conftest import until
from transforms.dead_letters import read_dead_letters
from transforms.delivery.engine import Engine
from transforms.digests_owed import DIGESTS, DigestsOwed, digests_aside
from transforms.sinks.base import Accepted, RejectItems, Stop, Verdict
from transforms.state_store import StateStore, place

names = (f"counts{n}" for n in itertools.count())


@pytest.fixture
def store(tmp_path: Path) -> StateStore:
    return StateStore(str(tmp_path))


@pytest.fixture
def engine() -> Iterator[Engine]:
    sink = StubSink(next(names), StubSettings(patience=0.3))
    made = Engine(sink, linger=0, cool_down=(0.05, 0.1))
    yield made
    made.close()


def digest(end: int, pane: int = 0) -> Digest:
    return Digest(
        name="storms", key={"severity": "high"}, start_ms=end - 1, end_ms=end, pane=pane,
        timing="on_time", total=3, severities={"high": 3}, statuses={}, kinds={}, first_ms=1,
        last_ms=2, samples=[],
    )  # fmt: skip


def aside(store: StateStore, sink: str, *digests: Digest) -> None:
    for each in digests:
        store.put(place("aside", "digests", sink, f"{each.id}.json"), to_json(each))


def paid(owes: DigestsOwed, engine: Engine) -> bool:
    owes.pay(engine)
    return not owes.waiting and not owes.in_hand


def test_they_are_sent_oldest_first_and_deleted_once_delivered(
    store: StateStore, engine: Engine
) -> None:
    name = engine.sink.name
    made = [digest(n) for n in (50, 7, 900, 13)]
    aside(store, name, *made)
    owes = DigestsOwed(store, engine.sink)
    until(lambda: paid(owes, engine))
    in_order = sorted(made, key=lambda one: one.end_ms)
    assert stubs.TAKEN[name] == [to_json(one) for one in in_order]
    owes.pay(engine)
    assert len(stubs.TAKEN[name]) == 4
    assert not [*read_dead_letters(store)]


def test_what_is_on_its_way_is_not_sent_twice(store: StateStore, engine: Engine) -> None:
    aside(store, engine.sink.name, digest(1))
    owes = DigestsOwed(store, engine.sink)
    engine.submit_arrears = lambda parcels: sent.append(len(parcels))  # type: ignore[method-assign]
    sent: list[int] = []
    owes.pay(engine)
    owes.pay(engine)
    assert (sent, owes.in_hand, owes.waiting) == ([1, 0], 1, 1)


def test_while_the_sink_takes_nothing_they_stay(store: StateStore, engine: Engine) -> None:
    name = engine.sink.name
    stubs.ANSWERS[name] = lambda _: Stop("it is shut")
    aside(store, name, digest(1), digest(2))
    owes = DigestsOwed(store, engine.sink)

    def refused() -> bool:
        owes.pay(engine)
        return owes.refused >= 1 and not owes.in_hand

    until(refused)
    assert owes.waiting == 2
    engine.sink.probe = lambda timeout: None  # type: ignore[method-assign]
    stubs.ANSWERS[name] = lambda _: Accepted()
    until(lambda: paid(owes, engine))
    assert owes.refused == 0


def test_one_that_is_refused_for_good_is_a_dead_letter_of_its_own(
    store: StateStore, engine: Engine
) -> None:
    name = engine.sink.name
    bad = [digest(1), digest(2)]

    def answer(payloads: Sequence[bytes]) -> Verdict:
        reasons = {n: "no" for n, one in enumerate(payloads) if from_json(one) in bad}
        return RejectItems(reasons, taken=False) if reasons else Accepted()

    stubs.ANSWERS[name] = answer
    aside(store, name, *bad, digest(3))
    owes = DigestsOwed(store, engine.sink)
    until(lambda: paid(owes, engine))
    letters = [*read_dead_letters(store)]
    assert {one.body for one in letters} == {*map(to_json, bad)}
    assert {(one.source, one.step, one.reason) for one in letters} == {(DIGESTS.source, name, "no")}


def test_what_is_no_digest_is_a_dead_letter_and_keeps_nobody_up(
    store: StateStore, engine: Engine
) -> None:
    name = engine.sink.name
    store.put(place("aside", "digests", name, "x.json"), b'{"of": "another version"}')
    aside(store, name, digest(1))
    owes = DigestsOwed(store, engine.sink)
    until(lambda: paid(owes, engine))
    assert stubs.TAKEN[name] == [to_json(digest(1))]
    (letter,) = read_dead_letters(store)
    assert letter.body == b'{"of": "another version"}'
    assert not digests_aside(store, name)
