"""Marks are durable before what they cover is handed on; what was seen outlives shifts in few
files."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.batch import Origin
from transforms import hand_over
from transforms.hand_over import HandedOver, HighWater, discard, load, marks, save, seen_keys
from transforms.state_store import StateStore

ORIGIN = Origin("ns/hub/group", "0")
OTHER = Origin("ns/hub/group", "1")


@pytest.fixture
def store(tmp_path: Path) -> StateStore:
    return StateStore(str(tmp_path))


def key(number: int) -> bytes:
    return number.to_bytes(16, "big")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(hand_over.time, "monotonic", lambda: now[0])
    return now


class TestMarks:
    def test_a_mark_lies_in_the_store_before_what_it_covers_is_handed_on(
        self, store: StateStore
    ) -> None:
        high = HighWater(store)
        for sequence in (0, 7, 120, 5_000):
            high.cover(ORIGIN, sequence)
            assert marks(store)[str(ORIGIN)] >= sequence

    def test_a_stream_is_marked_about_once_a_second_however_fast_it_is(
        self, store: StateStore, clock: list[float], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        high, writes = HighWater(store), []
        put = StateStore.put
        monkeypatch.setattr(
            StateStore, "put", lambda *a, **k: (writes.append(clock[0]), put(*a, **k))[1]
        )
        for step in range(4_000):  # twenty seconds of 10,000 events a second in each partition
            clock[0] += 0.005
            high.cover(ORIGIN, step * 50)
            high.cover(OTHER, step * 50)
        late = [at for at in writes if at > 105]
        assert len(late) <= 2 * 15
        assert marks(store)[str(ORIGIN)] - 4_000 * 50 <= 2 * 10_000, "about a second ahead"

    def test_a_few_events_are_marked_a_little_ahead_only(self, store: StateStore) -> None:
        """A repeat of what lies before a mark may pass after a crash."""
        high = HighWater(store)
        for sequence in range(0, 400, 10):
            for partition in range(8):
                high.cover(Origin("ns/hub/group", str(partition)), sequence)
        assert max(marks(store).values()) <= 400 + 2 * 400

    def test_after_a_crash_a_mark_never_goes_back(self, store: StateStore) -> None:
        HighWater(store).cover(ORIGIN, 9_000)
        again = HighWater(store)
        again.cover(ORIGIN, 10)
        again.cover(OTHER, 10)
        assert marks(store)[str(ORIGIN)] >= 9_000

    def test_after_a_clean_end_marks_are_where_reading_stands(self, store: StateStore) -> None:
        high = HighWater(store)
        high.cover(ORIGIN, 9_000)
        high.settle({str(ORIGIN): 9_000})
        assert marks(store) == {str(ORIGIN): 9_000}
        high.cover(ORIGIN, 9_001)
        assert marks(store)[str(ORIGIN)] <= 9_101


class TestKeys:
    @settings(max_examples=30, deadline=None)
    @given(st.lists(st.lists(st.integers(0, 300), max_size=5), max_size=40))
    def test_many_shifts_are_few_files_and_no_key_is_lost(
        self, tmp_path_factory: pytest.TempPathFactory, shifts: list[list[int]]
    ) -> None:
        store = StateStore(str(tmp_path_factory.mktemp("store")))
        for number, keys in enumerate(shifts):
            save(store, HandedOver(number, 1, {}, generation=7), {7: list(map(key, keys))}, ())
        if handed := load(store):
            found = seen_keys(store, handed)
            assert found is not None
            assert {*found[0].get(7, ())} == {key(n) for keys in shifts for n in keys}
            assert len(handed.files) == len([*store.list("seen")]) <= 17

    def test_generations_before_the_last_two_are_forgotten(self, store: StateStore) -> None:
        for generation in (4, 5, 6):
            handed = HandedOver(generation, 1, {}, generation=generation)
            save(store, handed, {generation: [key(generation)]}, ())
        handed = load(store) or handed
        assert seen_keys(store, handed) == ({5: [key(5)], 6: [key(6)]}, [])
        assert len([*store.list("seen")]) == 2

    @pytest.mark.parametrize("spoilt", [b"", b"short", bytes(64)])
    def test_a_damaged_file_is_told_from_a_good_one(self, store: StateStore, spoilt: bytes) -> None:
        save(store, HandedOver(1, 1, {}, generation=7), {7: [key(1)]}, ())
        (path,) = store.list("seen")
        store.put(path, spoilt)
        handed = load(store)
        assert handed is not None
        assert seen_keys(store, handed) is None
        discard(store, handed)
        assert seen_keys(store, load(store) or handed) == ({}, [])

    def test_weak_keys_are_kept_only_while_something_is_unsettled(self, store: StateStore) -> None:
        unsettled = HandedOver(1, 1, {}, unsettled={str(ORIGIN): 9}, generation=7)
        save(store, unsettled, {7: [key(1), key(2)]}, [key(2)])
        handed = load(store)
        assert handed is not None
        assert seen_keys(store, handed) == ({7: [key(1), key(2)]}, [key(2)])
        save(store, HandedOver(2, 1, {}, generation=7), {}, [key(2)])
        assert (load(store) or handed).weak == ""
