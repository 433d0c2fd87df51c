"""What was known of subscriptions at any time: kept once, found again, whatever happens to it."""

from __future__ import annotations

import json
import multiprocessing
import pickle
import stat
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.alert import Subscription
from transforms import subscription_history
from transforms.state_store import StateStore
from transforms.subscription_history import History, keep

ONE = "11111111-1111-1111-1111-111111111111"
TWO = "22222222-2222-2222-2222-22222222abcd"
NOON = 1_772_625_600_123  # 2026-03-04T12:00:00.123Z
HOUR = 3_600_000


@pytest.fixture
def store(tmp_path: Path) -> StateStore:
    return StateStore(str(tmp_path))


def known(name: str, **more: str) -> dict[str, Subscription]:
    return {ONE: Subscription(ONE, name=name, tags=more), TWO: Subscription(TWO, name="Sandbox")}


def names(store: StateStore) -> list[str]:
    """What each snapshot calls the first subscription."""
    return [json.loads(store.get(path) or b"")[0]["name"] for path in store.list("subscriptions")]


def test_a_snapshot_is_named_after_its_time_and_private(store: StateStore) -> None:
    assert keep(store, known("Shop"), NOON)
    assert [*store.list("subscriptions")] == ["subscriptions/2026-03-04T12-00-00.123Z.json"]
    file = store.folder / "subscriptions/2026-03-04T12-00-00.123Z.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert History.load(store).at(NOON) == known("Shop")


def test_what_says_the_same_is_kept_once_in_whatever_order(store: StateStore) -> None:
    assert keep(store, known("Shop", team="red", cost="42"), NOON)
    same = dict(reversed(known("Shop", cost="42", team="red").items()))
    assert not keep(store, same, NOON + HOUR)
    assert keep(store, known("Shop", team="blue"), NOON + 2 * HOUR)
    assert not keep(store, known("Shop", team="blue"), NOON + 3 * HOUR)
    assert keep(store, known("Shop", team="red", cost="42"), NOON + 4 * HOUR)
    assert names(store) == ["Shop"] * 3


def test_a_file_that_says_nothing_is_kept_only_if_it_said_something(store: StateStore) -> None:
    assert not keep(store, {}, NOON)
    assert keep(store, known("Shop"), NOON)
    assert keep(store, {}, NOON + HOUR)
    assert History.load(store).at(NOON + HOUR) == {}
    assert History.load(store).at(NOON + HOUR - 1) == known("Shop")


def test_a_clock_that_was_set_back_does_not_change_the_order(store: StateStore) -> None:
    for at, name in ((NOON, "a"), (NOON - 30 * HOUR, "b"), (0, "c"), (NOON + 1, "d")):
        assert keep(store, known(name), at)
        assert not keep(store, known(name), at)
    assert names(store) == ["a", "b", "c", "d"]
    assert History.load(store).at(NOON + 3) == known("d")


def test_before_the_first_snapshot_it_holds_and_is_marked_as_later(store: StateStore) -> None:
    keep(store, known("Shop"), NOON)
    keep(store, known("Market"), NOON + HOUR)
    history = History.load(store)
    early, first, last = (history.span(NOON + each) for each in (-1, 0, HOUR))
    assert early.subscriptions == first.subscriptions == known("Shop")
    assert [early.later, first.later, last.later] == [True, False, False]
    assert early.stop == first.start == NOON
    assert first.stop == last.start == NOON + HOUR
    assert history.at(-(10**15)) == known("Shop")
    assert history.at(10**15) == known("Market")


def test_without_snapshots_nothing_is_known(store: StateStore) -> None:
    assert History.load(store).at(NOON) == {}
    assert not History.load(store).span(NOON).later
    assert not History.load(store)
    keep(store, known("Shop"), NOON)
    assert History.load(store)


@settings(max_examples=30)  # each writes to the disk
@given(
    kept=st.lists(st.tuples(st.integers(0, 60), st.sampled_from("abc")), max_size=12),
    asked=st.lists(st.integers(-5, 80), max_size=30),
)
def test_what_held_at_a_time_is_what_was_kept_last_by_then(
    tmp_path_factory: pytest.TempPathFactory,
    kept: list[tuple[int, str]],
    asked: list[int],
) -> None:
    store = StateStore(str(tmp_path_factory.mktemp("store")))
    kept.sort(key=lambda each: each[0])
    said: list[tuple[int, Mapping[str, Subscription]]] = []
    for minute, name in kept:
        at = max(NOON + minute * 60_000, said[-1][0] + 1 if said else 0)
        if keep(store, known(name), NOON + minute * 60_000):
            said.append((at, known(name)))
    history = History.load(store)
    for minute in asked:
        ms = NOON + minute * 60_000 + 30_000
        by_then = [each for at, each in said if at <= ms] or [each for _, each in said[:1]]
        span = history.span(ms)
        assert span.subscriptions == (by_then[-1] if by_then else {})
        assert span.start <= ms < span.stop
        assert span.later == bool(said and ms < said[0][0])


def test_nearby_times_are_answered_without_the_store(
    store: StateStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(4):
        keep(store, known(str(number)), NOON + number * HOUR)
    history = History.load(store)
    reads: list[str] = []
    get = StateStore.get

    def counted(self: StateStore, path: str) -> bytes | None:
        reads.append(path)
        return get(self, path)

    monkeypatch.setattr(StateStore, "get", counted)
    for _ in range(3):
        for number in range(4):
            for ms in range(50):
                assert history.at(NOON + number * HOUR + ms) == known(str(number))
    assert len(reads) == 4


def test_only_so_much_is_in_memory_and_what_stayed_the_same_once(
    store: StateStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subscription_history, "_HELD", 10)
    for number in range(20):
        keep(store, known(str(number)), NOON + number)
    history = History.load(store)
    told = [history.at(NOON + number) for number in [*range(20), 3]]
    assert told == [known(str(number)) for number in [*range(20), 3]]
    assert [*history._held] == [NOON + number for number in (16, 17, 18, 19, 3)]
    assert len({id(each[TWO]) for each in told}) == 1
    monkeypatch.setattr(subscription_history, "_HELD", 1)
    assert history.at(NOON + 7) == known("7")
    assert [*history._held] == [NOON + 7], "one that is larger alone"


def test_it_crosses_to_another_process(store: StateStore) -> None:
    keep(store, known("Shop"), NOON)
    history = History.load(store)
    history.at(NOON)
    assert pickle.loads(pickle.dumps(history)).at(NOON + 1) == known("Shop")


@pytest.mark.parametrize("broken", [b"", b"{", b'[{"name": "no id"}]', b"\xff\xfe", None])
def test_a_snapshot_that_cannot_be_read_is_said_and_passed_over(
    store: StateStore, broken: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(3):
        keep(store, known(str(number)), NOON + number * HOUR)
    history = History.load(store)
    middle = [*store.list("subscriptions")][1]
    if broken is None:  # thinned out since
        store.delete(middle)
    else:
        store.put(middle, broken)
    assert history.at(NOON + HOUR) == known("0")
    assert history.span(NOON + HOUR).stop == NOON + 2 * HOUR
    assert "2026-03-04T13-00-00.123Z.json cannot be read" in caplog.text
    assert history.at(NOON + 2 * HOUR) == known("2")


def test_where_none_can_be_read_nothing_is_known(store: StateStore) -> None:
    keep(store, known("Shop"), NOON)
    store.put(next(iter(store.list("subscriptions"))), b"[")
    assert History.load(store).at(NOON) == {}
    assert keep(store, known("Shop"), NOON + HOUR), "the broken one says nothing"
    assert History.load(store).at(NOON) == known("Shop")


def test_other_files_in_the_folder_are_left_alone(store: StateStore) -> None:
    for name in ("notes.txt", "2026.json", "2026-03-04T12-00-00.5Z.json", "a/b.json"):
        store.put(f"subscriptions/{name}", b"mine")
    keep(store, known("Shop"), NOON)
    assert History.load(store).at(0) == known("Shop")
    assert len([*store.list("subscriptions")]) == 5


def test_too_many_are_thinned_out_and_the_first_and_the_last_stay(
    store: StateStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subscription_history, "_MOST", 10)
    for number in range(60):
        keep(store, known(str(number)), NOON + number * HOUR)
    kept = [int(name) for name in names(store)]
    assert len(kept) == 10
    assert kept[0] == 0
    assert kept[-1] == 59
    gaps = [after - before for before, after in pairwise(kept)]
    assert max(gaps) <= 3 * 60 / 10, "they lie evenly"
    history = History.load(store)
    assert history.at(NOON + 59 * HOUR) == known("59")
    assert history.at(NOON) == known("0")


def test_a_burst_of_changes_drives_out_none_that_held_long(
    store: StateStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subscription_history, "_MOST", 10)
    for number in range(8):
        keep(store, known(str(number)), NOON + number * 24 * HOUR)
    for number in range(100, 140):
        keep(store, known(str(number)), NOON + 8 * 24 * HOUR + number * 1000)
    assert [*map(int, names(store))][:8] == [*range(8)]


def _keep_often(folder: str, barrier: Barrier) -> None:
    store = StateStore(folder)
    barrier.wait()
    for minute in range(20):
        keep(store, known(str(minute)), NOON + minute * 60_000)


def test_two_processes_at_once_spoil_nothing(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(2)
    running = [context.Process(target=_keep_often, args=(str(tmp_path), barrier)) for _ in range(2)]
    for process in running:
        process.start()
    for process in running:
        process.join(60)
        assert process.exitcode == 0
    store = StateStore(str(tmp_path))
    history = History.load(store)
    assert history.at(10**15) == known("19")
    assert names(store)[-1] == "19"


def test_threads_may_ask_at_once(store: StateStore) -> None:
    for number in range(20):
        keep(store, known(str(number)), NOON + number)
    history = History.load(store)

    def ask(offset: int) -> bool:
        asked = [(offset * 7 + n * 3) % 20 for n in range(300)]
        return all(history.at(NOON + number) == known(str(number)) for number in asked)

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(ask, range(8)))
