"""Where a runner goes back to its checkpoint, nothing is lost and the account is exact: whatever
sinks had settled by then, wherever a batch was, and however often it happens.

The real deduplication, fences and accounts, with a runner of a few lines in between: queues from
step to step, state by key, and checkpoints of all of it while nothing is on its way, as aligned
barriers make them.
"""

from __future__ import annotations

import copy
import hashlib
import tempfile
from collections import defaultdict, deque
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from schemas.batch import NOBODY, AlertBatch, Origin
from schemas.receipt import Outcome, Receipt
from tests.stubs import alert
from tests.transforms.test_deduplicate import Bag, Cell
from transforms.account import _Account, begin, checkpoint, receipts
from transforms.attempts import NO_ATTEMPT, Attempt, Attempts, attempt
from transforms.attempts import begin as begin_attempt
from transforms.deduplicate import _Deduplicate, shard_batch
from transforms.deduplicate_by_scope import _Memory
from transforms.delivery.parcel import Parcel
from transforms.state_store import StateStore
from transforms.write import receipt

SINKS = ("one", "two")
PARTITIONS = [Origin("hub", str(n)) for n in range(2)]
SHARDS = 2
HORIZON_MS = 10_000_000


class State:
    """What the runner's checkpoint holds."""

    def __init__(self) -> None:
        self.following = dict.fromkeys(PARTITIONS, 0)
        self.bags = {shard: (Bag(), Bag(), Bag(), Cell()) for shard in range(SHARDS)}
        self.ledgers = {(sink, each): Cell() for sink in SINKS for each in PARTITIONS}


class Job:
    """scope: of the deduplication, `across` workers, or `here`."""

    def __init__(self, scope: str, store: StateStore) -> None:
        self.scope = scope
        self.store = store
        self.hub: dict[Origin, list[int]] = {each: [] for each in PARTITIONS}
        self.got: dict[str, set[int]] = {sink: set() for sink in SINKS}
        self.kept: State | None = None
        self.state = State()
        self._start()

    # the runner

    def _start(self, again: bool = False) -> None:
        """The job begins, with the state there is. again: in the same workers."""
        self.parsed: dict[Origin, deque[AlertBatch]] = defaultdict(deque)
        self.routed: dict[tuple[str, Origin], deque[AlertBatch]] = defaultdict(deque)
        self.told: dict[str, deque[Receipt]] = defaultdict(deque)
        self.reading: dict[Origin, Attempt] = {}
        if again:
            return
        self.drop = _Deduplicate(HORIZON_MS, SHARDS, "run", self.store, {}, False, True)
        self.drop.setup()
        self.memory = _Memory(HORIZON_MS, self.store)
        self.known = {sink: Attempts(self.store) for sink in SINKS}
        self.accounts = {}
        for sink in SINKS:
            self.accounts[sink] = account = _Account(sink, SINKS, self.store, True)
            account.setup()

    def _read(self, origin: Origin, most: int) -> None:
        events, first = self.hub[origin], self.state.following[origin]
        if first >= len(events):
            return
        if origin not in self.reading:
            begin(self.store, SINKS, origin, first - 1)
            stands = {sink: checkpoint(self.store, [sink], origin) for sink in SINKS}
            self.reading[origin] = begin_attempt(self.store, origin, stands, len(events) - 1)  # type: ignore[arg-type]
        now = self.reading[origin]
        stop = now.until(first, min(len(events), first + most))
        self.parsed[origin].append(self._batch(origin, first, stop, now.number))
        self.state.following[origin] = stop

    def _batch(
        self, origin: Origin, first: int, stop: int, number: int, only: str | None = None
    ) -> AlertBatch:
        made = [
            alert(
                n, enqueued_ms=n + 1,
                key=hashlib.blake2b(b"%d" % self.hub[origin][n], digest_size=16).digest(),
            )
            for n in range(first, stop)
        ]  # fmt: skip
        return AlertBatch(
            origin, first, stop - 1, only, len(made), made, [], attempt=number
        )  # fmt: skip

    def _deduplicate(self, origin: Origin) -> None:
        batch = self.parsed[origin].popleft()
        if self.scope == "here":
            parts = [self.memory.pass_on(batch)]
        else:
            parts = []
            for shard, part in shard_batch(batch, SHARDS):
                even, odd, weak, stamp = self.state.bags[shard]
                parts += self.drop.process((shard, part), even, odd, stamp, weak)
        for part in parts:
            for sink in SINKS:
                if part.only is None:
                    self.routed[sink, origin].append(part)

    def _send(self, sink: str, origin: Origin) -> None:
        batch = self.routed[sink, origin].popleft()
        stands = self.known[sink].of(origin, batch.attempt).settled[sink]
        sent = []
        for each in batch.alerts:
            if each.sequence > stands:
                self.got[sink].add(self.hub[origin][each.sequence])
                sent.append(Parcel(each.sequence, 0, b"", each, Outcome.DELIVERED))
        self.told[sink].append(receipt(sink, batch, sent, stands))

    def _account(self, sink: str) -> None:
        said = self.told[sink].popleft()
        origin = Origin(said.source, said.partition)
        self.accounts[sink].process(("", said), self.state.ledgers[sink, origin])
        self.accounts[sink].finish_bundle()

    def _drain(self) -> None:
        for origin in PARTITIONS:
            while self.parsed[origin]:
                self._deduplicate(origin)
        for (sink, origin), waiting in self.routed.items():
            while waiting:
                self._send(sink, origin)
        for sink in SINKS:
            while self.told[sink]:
                self._account(sink)

    # what happens

    def do(self, step: tuple[Any, ...]) -> None:
        getattr(self, step[0])(*step[1:])

    def publish(self, origins: list[Origin], names: list[int]) -> None:
        for origin in origins:
            self.hub[origin] += names

    def read(self, origins: list[Origin], most: int) -> None:
        for origin in origins:
            self._read(origin, most)

    def deduplicate(self, origins: list[Origin]) -> None:
        for origin in origins:
            if self.parsed[origin]:
                self._deduplicate(origin)

    def settle(self, origins: list[Origin], sinks: list[str]) -> None:
        """What is on its way of these partitions ends at these sinks."""
        for origin in origins:
            while self.parsed[origin]:
                self._deduplicate(origin)
            for sink in sinks:
                while self.routed[sink, origin]:
                    self._send(sink, origin)
        for sink in sinks:
            while self.told[sink]:
                self._account(sink)

    def checkpoint(self) -> None:
        self._drain()
        self.kept = copy.deepcopy(self.state)

    def go_back(self, again: bool) -> None:
        self.state = copy.deepcopy(self.kept) if self.kept else State()
        self._start(again)

    def lose_all_state(self) -> None:
        """The job begins anew, where every sink stands; what came before is marked."""
        self.kept, self.state = None, State()
        self._start()
        for origin in PARTITIONS:
            position = checkpoint(self.store, SINKS, origin)
            live = 0 if position is None else position + 1
            self.state.following[origin] = live
            if live:
                stands = {s: checkpoint(self.store, [s], origin) for s in SINKS}
                now = begin_attempt(self.store, origin, stands, len(self.hub[origin]) - 1)  # type: ignore[arg-type]
                self.reading[origin] = now
                self.parsed[origin].append(self._batch(origin, 0, live, now.number, NOBODY))

    def end(self, order: list[Origin]) -> None:
        for origin in order:
            while self.state.following[origin] < len(self.hub[origin]):
                self._read(origin, 3)
            self.settle([origin], [*SINKS])
        self._drain()
        everything = {name for names in self.hub.values() for name in names}
        for sink in SINKS:
            assert self.got[sink] == everything, "nothing is lost"
            for origin, names in self.hub.items():
                if names:
                    found = receipts(self.store, sink, origin)
                    assert found is not None
                    entry, spans = found
                    assert entry.position == len(names) - 1
                    assert entry.records == entry.outcomes.total == len(names)
                    assert sum(span.records for span in spans) == len(names)
                    at = 0
                    for span in spans:  # the receipts tile the partition
                        assert span.first == at
                        at = span.last + 1


_ORIGINS = st.lists(st.sampled_from(PARTITIONS), min_size=1, max_size=3, unique=True)
_STEPS = st.one_of(
    st.tuples(
        st.just("publish"),
        _ORIGINS,
        st.lists(st.integers(0, 3), min_size=1, max_size=3),
    ),
    st.tuples(st.just("read"), _ORIGINS, st.integers(1, 3)),
    st.tuples(st.just("deduplicate"), _ORIGINS),
    st.tuples(
        st.just("settle"),
        _ORIGINS,
        st.lists(st.sampled_from(SINKS), min_size=1, max_size=2, unique=True),
    ),
    st.tuples(st.just("checkpoint")),
    st.tuples(st.just("go_back"), st.booleans()),
    st.tuples(st.just("lose_all_state")),
)


ORDER = [*PARTITIONS]
SETTLED_AS_A_REPEAT = [  # of what is not settled, and was not in any checkpoint
    ("publish", ORDER, [1]),
    ("read", ORDER, 1),
    ("deduplicate", ORDER[:1]),
    ("settle", ORDER[1:], [*SINKS]),
]


@pytest.mark.parametrize("scope", ["across", "here"])
@settings(max_examples=400, deadline=None)
@given(steps=st.lists(_STEPS, min_size=6, max_size=30), order=st.sampled_from([ORDER, ORDER[::-1]]))
@example(steps=[*SETTLED_AS_A_REPEAT, ("go_back", False)], order=ORDER[::-1])
@example(steps=[*SETTLED_AS_A_REPEAT, ("go_back", True)], order=ORDER[::-1])
@example(
    steps=[
        *SETTLED_AS_A_REPEAT, ("go_back", False), ("read", [ORDER[1]], 1), ("checkpoint",),
        ("go_back", False),
    ],
    order=ORDER,
)  # fmt: skip
@example(
    steps=[
        ("publish", [ORDER[0]], [1, 2, 3]), ("read", [ORDER[0]], 1), ("checkpoint",),
        ("read", [ORDER[0]], 1), ("settle", [ORDER[0]], [SINKS[0]]), ("go_back", False),
    ],
    order=ORDER,
)  # fmt: skip
def test_whatever_happens_nothing_is_lost_and_the_account_is_exact(
    scope: str, steps: list[tuple[Any, ...]], order: list[Origin]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        job = Job(scope, StateStore(folder))
        for step in steps:
            job.do(step)
        job.end(order)


@pytest.fixture
def store(tmp_path: Any) -> StateStore:
    return StateStore(str(tmp_path))


def test_attempts_of_a_partition_grow(store: StateStore) -> None:
    numbers = [begin_attempt(store, PARTITIONS[0], {}, 0).number for _ in range(20)]
    assert numbers == sorted({*numbers})
    assert attempt(store, PARTITIONS[0]).number == numbers[-1]
    assert attempt(store, PARTITIONS[1]) == NO_ATTEMPT


@given(
    stands=st.dictionaries(st.text(max_size=3), st.integers(-1, 50)),
    first=st.integers(0, 50),
    length=st.integers(1, 50),
)
def test_no_batch_lies_across_a_position(stands: dict[str, int], first: int, length: int) -> None:
    stop = Attempt(1, stands).until(first, first + length)
    assert first < stop <= first + length
    assert not any(first <= position < stop - 1 for position in stands.values())
    if stop < first + length:
        assert stop - 1 in stands.values(), "it is no shorter than it has to be"


def test_the_account_of_an_attempt_that_is_over_is_not_written(store: StateStore) -> None:
    origin = PARTITIONS[0]
    old = begin_attempt(store, origin, {"one": -1}, 10)
    account = _Account("one", ("one",), store, True)
    account.setup()
    sent = [Parcel(0, 0, b"", alert(0), Outcome.DELIVERED)]
    batch = AlertBatch(origin, 0, 0, None, 1, [alert(0)], [], attempt=old.number)
    account.process(("", receipt("one", batch, sent, -1)), Cell())
    begin_attempt(store, origin, {"one": -1}, 10)
    account.finish_bundle()
    assert checkpoint(store, ["one"], origin) == -1
