"""Marks are durable before what they cover is handed on; what was seen outlives shifts in few
files; and for replays, what sinks have is kept for a month, and never said of what they lack."""

from __future__ import annotations

import random
import tempfile
import threading
import tracemalloc
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.batch import Origin
from schemas.runs import Run
from transforms import hand_over
from transforms.hand_over import (
    DAY_MS,
    KEY_BYTES,
    Events,
    HandedOver,
    HighWater,
    Packed,
    claims,
    discard,
    keys_of,
    lack,
    lacking,
    load,
    marks,
    overlap,
    put,
    read_claim,
    remember,
    save,
    seen_keys,
)
from transforms.state_store import StateStore, StateStoreError

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


def shift(number: int, **fields: object) -> HandedOver:
    """One that read ten events of a partition for sink `a`, a day's each."""
    read: Events = {str(ORIGIN): (number * 10, number * 10 + 9)}
    said = {"generation": number, "sinks": {"a": ""}, "read": read, **fields}
    return HandedOver(number, DAY_MS, {}, **said)  # type: ignore[arg-type]


def claimed(store: StateStore, sink: str = "a") -> dict[bytes, list[Events]]:
    """What the sink is said to have, and of which events."""
    found: dict[bytes, list[Events]] = {}
    for file in claims(store):
        claim, body = read_claim(store, file.path) or pytest.fail("a file that counts is gone")
        if sink in claim.sinks:
            for one in keys_of(body[: claim.sure * KEY_BYTES]):
                found.setdefault(one, []).append(claim.read)
    return found


def kept(store: StateStore) -> list[str]:
    return [*store.list("known/keys")]


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The clock, in s since 1970."""
    at = [100 * DAY_MS / 1000]
    monkeypatch.setattr(hand_over.time, "time", lambda: at[0])
    return at


@pytest.mark.usefixtures("now")
class TestClaims:
    def test_generations_that_are_over_are_kept_with_the_sinks_that_took_part(
        self, store: StateStore
    ) -> None:
        for number in range(90, 99):
            save(store, shift(number), {number: [key(number)]}, ())
        assert {*claimed(store)} == {key(number) for number in range(90, 99)}
        assert claimed(store)[key(93)] == [{str(ORIGIN): (930, 939)}]
        assert len(kept(store)) == 7
        assert claimed(store, "b") == {}

    def test_a_weak_key_is_claimed_of_no_sink_not_even_once_all_are_past_their_marks(
        self, store: StateStore
    ) -> None:
        """It was marked by what is read again for nobody: a new sink never gets that."""
        save(store, shift(90), {90: [key(1), key(2), key(3)]}, [key(2)])
        assert {*claimed(store)} == {key(1), key(3)}
        handed = load(store)
        assert handed is not None
        assert {*(seen_keys(store, handed) or [{}])[0][90]} == {key(1), key(2), key(3)}
        save(store, shift(92), {}, ())
        assert {*claimed(store)} == {key(1), key(3)}

    def test_nor_when_its_file_is_merged_with_others(self, store: StateStore) -> None:
        for number in range(40):
            weak, strong = key(number), key(number + 100)
            handed = shift(number, generation=90)
            save(store, handed, {90: [weak, strong]}, [weak])
        assert {*claimed(store)} == {key(number + 100) for number in range(40)}
        ends = {events[str(ORIGIN)] for found in claimed(store).values() for events in found}
        assert min(first for first, _ in ends) == 0
        assert max(last for _, last in ends) == 399

    def test_what_was_weak_when_it_was_handed_over_does_not_come_to_be_claimed(
        self, store: StateStore
    ) -> None:
        unsettled = {str(ORIGIN): 9}
        save(store, shift(90, unsettled=unsettled), {90: [key(1), key(2)]}, [key(2)])
        save(store, shift(91), {91: [key(3)]}, ())
        save(store, shift(95), {}, ())
        assert {*claimed(store)} == {key(1), key(3)}

    def test_a_shift_of_which_nobody_said_who_took_part_leaves_no_claim(
        self, store: StateStore
    ) -> None:
        save(store, shift(90, sinks={}), {90: [key(1)]}, ())
        save(store, shift(91, read={}), {91: [key(2)]}, ())
        save(store, shift(95), {}, ())
        assert claimed(store) == {}

    @settings(max_examples=30, deadline=None)
    @given(st.lists(st.sampled_from(["a", "ab", "b", "abc"]), min_size=17, max_size=40))
    def test_merging_never_says_more_of_a_sink_than_was_so(
        self, tmp_path_factory: pytest.TempPathFactory, shifts: list[str]
    ) -> None:
        store = StateStore(str(tmp_path_factory.mktemp("store")))
        for number, sinks in enumerate(shifts):
            handed = shift(number, generation=90, sinks=dict.fromkeys(sinks, ""))
            save(store, handed, {90: [key(number)]}, ())
        for _ in range(2):
            for sink in "abc":
                had = {key(number) for number, sinks in enumerate(shifts) if sink in sinks}
                assert {*claimed(store, sink)} == had
            save(store, shift(95), {}, ())  # now they are over

    def test_sinks_of_very_many_settings_are_said_only_where_all_had_them(
        self, store: StateStore
    ) -> None:
        for number in range(60):
            sinks = {"a": "", "b": f"terms {number}"}
            save(store, shift(number, generation=90, sinks=sinks), {90: [key(number)]}, ())
        handed = load(store)
        assert handed is not None
        assert len(handed.files) <= 17
        assert {*claimed(store)} == {key(number) for number in range(60)}
        assert len(claimed(store, "b")) <= 16, "those that are not merged yet"

    def test_what_is_forgotten_as_it_fits_no_horizon_is_kept_for_replays(
        self, store: StateStore
    ) -> None:
        save(store, shift(90), {90: [key(1)]}, ())
        discard(store, load(store) or shift(90))
        assert {*claimed(store)} == {key(1)}

    def test_nothing_is_kept_where_nothing_is_to_be(self, store: StateStore) -> None:
        for number in (90, 95):
            save(store, shift(number, remember_ms=0), {number: [key(number)]}, ())
        assert kept(store) == []

    def test_it_is_forgotten_after_the_time_it_is_to_be_remembered(
        self, store: StateStore, now: list[float]
    ) -> None:
        for number in range(90, 140):
            now[0] = (number + 1) * DAY_MS / 1000
            save(store, shift(number, remember_ms=10 * DAY_MS), {number: [key(number)]}, ())
        assert {*claimed(store)} == {key(number) for number in range(128, 140)}
        assert len(kept(store)) == 10, "each since it was put there, two days after its own"

    def test_what_a_replay_of_last_year_delivered_is_remembered_as_long(
        self, store: StateStore, now: list[float]
    ) -> None:
        said = {"horizon_ms": DAY_MS, "read": {"replay/r/0": (0, 9)}, "keep_ms": 10 * DAY_MS}
        remember(store, {"a": ""}, {3: [key(3)]}, "replay r", **said)  # type: ignore[arg-type]
        assert {*claimed(store)} == {key(3)}
        now[0] += 11 * DAY_MS / 1000
        remember(store, {"a": ""}, {4: [key(4)]}, "another", **said)  # type: ignore[arg-type]
        assert len(kept(store)) == 1, "who writes next sweeps also what others left for too long"

    @pytest.mark.parametrize("spoilt", [b"", b"short", bytes(64), bytes(32)])
    def test_a_damaged_file_claims_nothing(self, store: StateStore, spoilt: bytes) -> None:
        for number in range(90, 94):
            save(store, shift(number), {number: [key(number)]}, ())
        store.put(kept(store)[0], spoilt)
        found = [read_claim(store, file.path) for file in claims(store)]
        assert sum(each is not None and bool(each[0].sinks) for each in found) == 3

    def test_a_file_of_an_older_version_is_read_and_claims_nothing(self, store: StateStore) -> None:
        body = key(1) + key(2)
        store.put("seen/000000000090-1", body + hand_over._digest(body))
        put(store, HandedOver(1, DAY_MS, {}, generation=90, files=["000000000090-1"]))
        handed = load(store)
        assert handed is not None
        assert seen_keys(store, handed) == ({90: [key(1), key(2)]}, [])
        save(store, shift(95), {}, ())
        assert claimed(store) == {}
        assert kept(store) == []

    def test_what_a_crash_left_without_a_name_counts_for_nothing_and_is_swept(
        self, store: StateStore
    ) -> None:
        save(store, shift(90), {90: [key(1)]}, ())
        data = store.get(f"seen/{(load(store) or shift(0)).files[0]}") or b""
        left = "known/keys/live/000007776000000-7862400000-8640000000-1-00-left"
        for path in (left, "seen/000000000090-99"):
            store.put(path, data.replace(b'"a"', b'"z"'))
        assert not any(file.path in (left, "seen/000000000090-99") for file in claims(store))
        save(store, shift(93), {}, ())
        assert left not in kept(store)
        assert len([*store.list("seen")]) == 0

    def test_a_short_horizon_leaves_few_files_and_loses_no_key(self, store: StateStore) -> None:
        minute = 60_000
        for number in range(600):
            generation = 90 * DAY_MS // minute + number
            handed = HandedOver(
                number, minute, {}, generation=generation, sinks={"a": ""},
                read={str(ORIGIN): (number, number)},
            )  # fmt: skip
            save(store, handed, {generation: [key(number)]}, ())
        assert {*claimed(store)} == {key(number) for number in range(600)}
        assert len(kept(store)) <= 16

    def test_a_hand_over_costs_the_same_however_much_is_kept(
        self, store: StateStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for number in range(60, 100):
            save(store, shift(number), {number: [key(number)]}, ())
        assert len(kept(store)) > 30
        touched: Counter[str] = Counter()
        for name in ("get", "put", "list", "delete"):
            real = getattr(StateStore, name)

            def spy(self: StateStore, path: str, *rest: object, real=real, **more: object):  # type: ignore[no-untyped-def]
                touched[path.split("/")[0]] += 1
                return real(self, path, *rest, **more)

            monkeypatch.setattr(StateStore, name, spy)
        save(store, shift(100, generation=99), {99: [key(100)]}, ())
        assert touched["known"] == 0
        assert sum(touched.values()) <= 5

    def test_writers_at_once_lose_nothing_of_each_other(self, store: StateStore) -> None:
        def work(writer: int) -> None:
            for number in range(12):
                at = writer * 100 + number
                remember(
                    store, {"a": ""}, {50 + number: [key(at)]}, f"replay {writer}",
                    horizon_ms=DAY_MS, read={f"replay/{writer}/0": (number, number)},
                )  # fmt: skip

        threads = [threading.Thread(target=work, args=(writer,)) for writer in range(4)]
        for thread in threads:
            thread.start()
        for number in range(90, 99):
            save(store, shift(number), {number: [key(number)]}, ())
        for thread in threads:
            thread.join()
        written = {key(writer * 100 + number) for writer in range(4) for number in range(12)}
        assert {*claimed(store)} == written | {key(number) for number in range(90, 99)}

    @pytest.mark.parametrize("fails", range(14))
    def test_a_crash_at_any_write_leaves_only_what_is_true(
        self, store: StateStore, monkeypatch: pytest.MonkeyPatch, fails: int
    ) -> None:
        for number in (90, 91):
            save(store, shift(number), {number: [key(number)]}, ())
        left = iter(range(fails))

        def until(real):  # type: ignore[no-untyped-def]
            def write(self: StateStore, *given: object, **more: object) -> None:
                if next(left, None) is None:
                    raise StateStoreError("the crash")
                real(self, *given, **more)

            return write

        with monkeypatch.context() as patched:
            patched.setattr(StateStore, "put", until(StateStore.put))
            patched.setattr(StateStore, "delete", until(StateStore.delete))
            try:
                save(store, shift(94), {92: [key(92)], 94: [key(94), key(1)]}, [key(1)])
            except StateStoreError:
                pass
        truth = {key(number) for number in (90, 91, 92, 94)}
        for file in claims(store):
            assert read_claim(store, file.path), "what counts is there"
        assert {key(90), key(91)} <= {*claimed(store)} <= truth
        save(store, shift(97), {}, ())
        assert {key(90), key(91)} <= {*claimed(store)} <= truth
        named = {file.path for file in claims(store)}
        assert {*kept(store), *store.list("seen")} == named


class TestPacked:
    @given(st.lists(st.lists(st.binary(min_size=KEY_BYTES, max_size=KEY_BYTES))))
    def test_it_is_what_a_list_of_the_keys_would_be(self, parts: list[list[bytes]]) -> None:
        packed, again, keys = Packed(), Packed(), [key for part in parts for key in part]
        for part in parts:
            packed.extend(part)
            again.extend(Packed(part))
        assert [*packed] == [*again] == keys
        assert len(packed) == len(keys)

    def test_many_take_little_more_than_their_bytes(self) -> None:
        tracemalloc.start()
        try:
            packed = Packed()
            for number in range(0, 50_000, 50):
                packed.extend([key(each) for each in range(number, number + 50)])
            taken, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert taken < 1.3 * KEY_BYTES * len(packed)


class TestSize:
    """Where there are many keys: files of 256 keys at most, unless a shift had more."""

    MOST = 256

    @pytest.fixture(autouse=True)
    def small(self, monkeypatch: pytest.MonkeyPatch, now: list[float]) -> None:
        monkeypatch.setattr(hand_over, "_MOST_BYTES", self.MOST * KEY_BYTES)

    @pytest.mark.parametrize("span", [1, 40], ids=["short", "long"])
    @pytest.mark.parametrize("most", [20, 150, 600])
    def test_however_many_keys_there_are_files_are_few_and_no_key_is_lost(
        self, store: StateStore, span: int, most: int
    ) -> None:
        rng, had = random.Random(7), {"a": set[bytes](), "b": set[bytes]()}
        count = at = 0
        for number in range(60):
            keys = [key(count + each) for each in range(rng.randint(1, most))]
            unsure = keys[:1]
            count += len(keys)
            sinks = {"a": "", "b": ""} if number % 25 < 15 else {"a": ""}
            at = 36_000 + number // span
            save(store, shift(number, generation=at, sinks=sinks), {at: keys}, unsure)
            for sink in sinks:
                had[sink].update(keys[1:])
            handed = load(store)
            assert handed is not None
            files = Counter(name.partition("-")[0] for name in handed.files)
            assert max(files.values()) <= 17 + 2 * count // self.MOST
        for _ in range(2):
            for sink, keys_had in had.items():
                assert {*claimed(store, sink)} == keys_had
            save(store, shift(61, generation=at + 2), {}, ())  # now they are over
        assert len(kept(store)) <= 2 * 16 * (1 + at - 36_000) + 2 * count // self.MOST

    @pytest.mark.parametrize("span", [1, 1_000], ids=["many generations", "one"])
    def test_a_hand_over_takes_no_more_memory_however_many_keys_are_kept(
        self, store: StateStore, monkeypatch: pytest.MonkeyPatch, span: int
    ) -> None:
        most = 64 * 1024
        monkeypatch.setattr(hand_over, "_MOST_BYTES", most)
        peaks, minute, of_a_shift = [], 60_000, 1_000
        fresh: list[bytes] = []

        def put(number: int, generation: int, keys: list[bytes]) -> None:
            handed = HandedOver(
                number, minute, {}, generation=generation, sinks={"a": ""},
                read={str(ORIGIN): (number, number)},
            )  # fmt: skip
            before, _ = tracemalloc.get_traced_memory()
            tracemalloc.reset_peak()
            save(store, handed, {generation: keys} if keys else {}, ())
            peaks.append(tracemalloc.get_traced_memory()[1] - before)

        tracemalloc.start()
        try:
            for number in range(40):  # ten times what a file may have
                fresh = [key(number * of_a_shift + each) for each in range(of_a_shift)]
                put(number, 50_000 + number // span, fresh)
            put(40, 50_000 + 42, [])
        finally:
            tracemalloc.stop()
        assert max(peaks) <= 7 * most
        assert sum(each.stat().st_size for each in (store.folder / "known").rglob("*-*")) > 9 * most


RANGES = st.tuples(st.integers(0, 9), st.integers(0, 3)).map(lambda at: (at[0], sum(at)))


class TestLacks:
    def test_what_was_written_off_is_held_in_few_ranges(self, store: StateStore) -> None:
        lack(store, "a", ORIGIN.source, ORIGIN.partition, [Run(5, 9, 0), Run(20, 20, 3)])
        lack(store, "a", ORIGIN.source, ORIGIN.partition, [Run(10, 12, 0), Run(7, 8, 1)])
        assert lacking(store, "a") == {str(ORIGIN): [(5, 12), (20, 20)]}
        assert lacking(store, "b") == {}
        many = [Run(n, n, 0) for n in range(0, 5_000, 2)]
        lack(store, "a", ORIGIN.source, ORIGIN.partition, many)
        assert lacking(store, "a") == {str(ORIGIN): [(0, 4_998)]}, "rather more than too many"

    @given(
        st.dictionaries(st.sampled_from("xyz"), RANGES),
        st.dictionaries(st.sampled_from("xyz"), st.lists(RANGES, max_size=4)),
    )
    def test_overlap_is_an_event_in_both(
        self, read: Events, lacks: dict[str, list[tuple[int, int]]]
    ) -> None:
        both = any(
            first <= event <= last and begin <= event <= end
            for name, (first, last) in read.items()
            for begin, end in lacks.get(name, ())
            for event in range(20)
        )
        assert overlap(read, lacks) == both

    @given(st.text(max_size=20), st.text(max_size=20), st.text(max_size=20))
    def test_names_of_any_kind_stay_what_they_are(
        self, sink: str, source: str, partition: str
    ) -> None:
        with tempfile.TemporaryDirectory() as folder:
            store = StateStore(folder)
            lack(store, sink, source, partition, [Run(1, 2, 0)])
            assert lacking(store, sink) == {str(Origin(source, partition)): [(1, 2)]}
