"""Orders: whatever is tried again, paid, refused, dropped, or cut short, the account holds."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from schemas.batch import Origin
from schemas.dead_letter import DeadLetter
from schemas.ledger import Owing, Payment
from schemas.receipt import Outcomes
from schemas.runs import addresses, runs
from transforms import orders, owed
from transforms.account import Settled
from transforms.dead_letters import read_dead_letters, write_dead_letters
from transforms.digests_owed import DIGESTS, digests_aside
from transforms.orders import Answer, Drop, OrderError, Retry, carry_out, give
from transforms.owed import account_path
from transforms.state_store import StateStore

SOURCE = "ns.servicebus.windows.net/hub/$Default"
SINKS = ["siem", "splunk"]
BODY = b'{"records": [{"a": 1}, {"b": 2}]}'
OUTCOMES = ("delivered", "dead", "owed", "parse")

Address = tuple[int, int]


class Killed(BaseException):
    """The process is gone in the middle of a write to the store."""


def letter(sequence: int = 1, step: str = "siem", body: bytes = BODY, **fields: Any) -> DeadLetter:
    fields = {"source": SOURCE, "partition": "3", "index": 0, **fields}
    return DeadLetter(
        sequence=sequence, enqueued_ms=1_000 * sequence, step=step, reason="no", body=body, **fields
    )


def settle(store: StateStore, sink: str, position: int, **counts: int) -> None:
    stored = Settled(position, sum(counts.values()), 0, Outcomes(**counts), 0)
    store.put(account_path(sink, SOURCE, "3"), msgspec.json.encode(stored))
    owed.changed(store, sink)


class InMemory(StateStore):
    """A store that is fast, and whose process can be killed."""

    def __init__(self) -> None:
        super().__init__("in-memory")
        self.objects: dict[str, bytes] = {}
        self.left = 10**9  # writes until it is

    def put(self, path: str, data: bytes, *, sync: bool = True) -> None:
        self._write()
        self.objects[path] = data

    def delete(self, path: str, *, sync: bool = True) -> None:
        self._write()
        self.objects.pop(path, None)

    def _write(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise Killed

    def get(self, path: str) -> bytes | None:
        return self.objects.get(path)

    def list(self, prefix: str) -> Iterator[str]:
        return iter(sorted(path for path in self.objects if path.startswith(f"{prefix}/")))


class Lives(RuleBasedStateMachine):
    """Addresses of one partition through all that can become of them at two sinks.

    The model is a word an address and sink. A crash may come at any write; then an order that was
    open is carried out again before anything else, as the payer does.
    """

    def __init__(self) -> None:
        super().__init__()
        owed._answers.clear()
        self.store = InMemory()
        self.following = 0
        self.counts = {sink: Counter[str]() for sink in SINKS}  # as the receipts had it
        self.ends: dict[str, dict[Address, str]] = {sink: {} for sink in SINKS}

    @contextmanager
    def dying(self, after: int | None) -> Iterator[None]:
        """A process that ends before its write number `after`; then another one begins."""
        self.store.left = 10**9 if after is None else after
        with suppress(Killed):
            yield
        self.store.left = 10**9
        owed._answers.clear()
        owed.void_letters(self.store, SINKS)

    def owes(self, sink: str) -> set[Address]:
        return {at for debt in owed.debts(self.store, sink) for at in addresses(debt.iou.owed)}

    def learn(self, sink: str, meant: dict[Address, str]) -> None:
        """After what may have been cut short: what is owed no more ended as it was meant to."""
        left = self.owes(sink)
        for at, how in meant.items():
            if at not in left:
                self.ends[sink][at] = how

    @rule(batch=st.lists(st.tuples(*[st.sampled_from(OUTCOMES)] * 2), min_size=1, max_size=6))
    def come(self, batch: list[tuple[str, str]]) -> None:
        """Events that end at each sink in a way of their own, or for all at parsing."""
        first, self.following = self.following, self.following + len(batch)
        for n, ways in enumerate(batch, first):
            if "parse" in ways:
                write_dead_letters(self.store, [letter(n, "parse")])
            for sink, way in zip(SINKS, ways, strict=True):
                how = "dead" if "parse" in ways else way
                self.ends[sink][n, 0] = how
                self.counts[sink][how] += 1
                if how == "dead" and "parse" not in ways:
                    write_dead_letters(self.store, [letter(n, sink)])
        last = self.following - 1
        for sink in SINKS:
            mine = [n for n in range(first, last + 1) if self.ends[sink][n, 0] == "owed"]
            with owed.alone:
                owing = [Owing(last, runs((n, 0) for n in mine), 1)] if mine else []
                owed.write(self.store, sink, SOURCE, "3", owing)
            settle(self.store, sink, last, **self.counts[sink])

    @rule(die=st.none() | st.integers(0, 12), step=st.sampled_from([None, "parse", *SINKS]))
    def retry(self, die: int | None, step: str | None) -> None:
        tried = [each for each in read_dead_letters(self.store) if step in (None, each.step)]
        self.store.put("orders/open/1.json", msgspec.json.encode(Retry(SINKS, [], step)))
        with self.dying(die):
            carry_out(self.store)
        carry_out(self.store)
        for each in tried:
            for sink in SINKS if each.step == "parse" else [each.step]:
                if each.body:
                    self.ends[sink][each.sequence, each.index] = "owed"

    @rule(
        sink=st.sampled_from(SINKS),
        how=st.sampled_from(["delivered", "dead", "not_routed"]),
        share=st.integers(1, 3),
        die=st.none() | st.integers(0, 8),
    )
    def pay(self, sink: str, how: str, share: int, die: int | None) -> None:
        tries = {
            at: path
            for debt in owed.debts(self.store, sink)
            for at in addresses(debt.iou.owed)
            if (path := debt.letters) or how != "not_routed"
        }
        paid = {at: path for n, (at, path) in enumerate(sorted(tries.items())) if n % share == 0}
        with self.dying(die):
            if how == "dead":  # the pipeline's; of an event that it unwrapped, perhaps of a piece
                refused = [
                    letter(s, sink, b"a piece" if paid[s, index] else BODY) for s, index in paid
                ]
                write_dead_letters(self.store, refused)
            with owed.alone:
                payment = Payment(**{how: runs(paid)}, last=10**6)
                owed.write(self.store, sink, SOURCE, "3", (), payment)
            owed.changed(self.store, sink)
        self.learn(sink, dict.fromkeys(paid, how))
        for one in read_dead_letters(self.store):
            at = one.sequence, one.index
            if one.step == sink and paid.get(at) and at not in self.owes(sink):
                assert (one.body, one.attempts > 0) == (BODY, True), "not the letter that it was"

    @rule(
        sink=st.sampled_from(SINKS),
        first=st.integers(0, 9),
        length=st.integers(0, 20),
        die=st.none() | st.integers(0, 8),
    )
    def drop(self, sink: str, first: int, length: int, die: int | None) -> None:
        last = first + length
        meant = {at: "dead" for at in self.owes(sink) if first <= at[0] <= last}
        order = Drop(sink, "a test", "3", first, last)
        self.store.put("orders/open/1.json", msgspec.json.encode(order))
        with self.dying(die):
            carry_out(self.store)
        carry_out(self.store)
        self.ends[sink].update(meant)

    @invariant()
    def the_account_holds_and_says_what_became_of_each(self) -> None:
        letters = [*read_dead_letters(self.store)]
        assert len({one.key for one in letters}) == len(letters)
        for sink in SINKS:
            paid, began = owed.sums(self.store, sink), self.counts[sink]
            found = {
                "delivered": began["delivered"] + paid.delivered,
                "not_routed": paid.not_routed,
                "dead": began["dead"] + paid.dead,
                "owed": began["owed"] - paid.delivered - paid.dead - paid.not_routed,
            }
            model = Counter(self.ends[sink].values())
            assert found == {how: model[how] for how in found}
            assert self.owes(sink) == {at for at, how in self.ends[sink].items() if how == "owed"}
            mine = {(one.sequence, one.index) for one in letters if one.step in ("parse", sink)}
            dead = {at for at, how in self.ends[sink].items() if how == "dead"}
            assert mine - self.owes(sink) == dead, "a letter too many, or none"

    @invariant()
    def what_is_tried_again_has_its_bytes(self) -> None:
        for sink in SINKS:
            for debt in owed.debts(self.store, sink):
                if debt.letters:
                    found = owed.letters_of(self.store, debt.letters)
                    assert {*addresses(debt.iou.owed)} <= found.keys()

    def teardown(self) -> None:
        """What a crash left goes when the next process begins; nothing else stays."""
        for sink in SINKS:
            with owed.alone:
                owed.trim(self.store, sink, SOURCE, "3", self.following - 1)
            if not self.owes(sink):
                assert not [*self.store.list(f"owed/{sink}")]
                assert not [*self.store.list(f"tried/{sink}")]


TestLives = Lives.TestCase
TestLives.settings = settings(max_examples=60, stateful_step_count=20, deadline=None)


@pytest.fixture
def store(tmp_path: Path) -> StateStore:
    found = StateStore(str(tmp_path))
    found.prepare()
    return found


def quiet(_: str) -> None:
    pass


def test_an_order_is_carried_out_here_where_no_run_works(store: StateStore) -> None:
    settle(store, "siem", 9, dead=1, delivered=9)
    write_dead_letters(store, [letter()])
    assert give(store, Retry(["siem"]), quiet) == Answer(1)
    (debt,) = owed.debts(store, "siem")
    assert [*addresses(debt.iou.owed)] == [(1, 0)]
    assert not [*store.list("orders")]


def test_an_order_is_left_for_the_run_that_works_there(store: StateStore) -> None:
    settle(store, "siem", 9, dead=1, delivered=9)
    write_dead_letters(store, [letter()])
    said: list[str] = []
    answers: list[Answer] = []
    with store.lock("run"):
        asking = threading.Thread(
            target=lambda: answers.append(give(store, Retry(["siem"]), said.append))
        )
        asking.start()
        while not said:
            asking.join(0.01)
        assert len([*store.list("orders/open")]) == 1
        assert not owed.debts(store, "siem")
        carry_out(store)
        asking.join(5)
    assert answers == [Answer(1)]
    assert said == ["a run works in this state folder: the order is left for it"]


def test_an_order_that_no_run_takes_is_withdrawn(store: StateStore) -> None:
    with store.lock("run"), pytest.raises(OrderError, match="withdrawn"):
        give(store, Drop("siem", "x"), quiet, patience=0.2)
    assert not [*store.list("orders")]


def test_when_the_run_ends_before_it_took_it_the_command_does_it(store: StateStore) -> None:
    held = threading.Event()
    over = threading.Event()

    def run() -> None:
        with store.lock("run"):
            held.set()
            over.wait(5)

    running = threading.Thread(target=run)
    running.start()
    held.wait(5)
    assert give(store, Retry([]), lambda _: over.set()) == Answer()
    running.join()


def test_an_order_that_this_version_does_not_know_is_answered(store: StateStore) -> None:
    store.put("orders/open/1.json", b'{"type":"Frobnicate"}')
    carry_out(store)
    assert not [*store.list("orders/open")]
    (path,) = store.list("orders/answered")
    assert b"another version" in (store.get(path) or b"")


def test_thousands_of_letters_are_tried_again_in_several_segments(
    store: StateStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owed, "_MOST_LETTERS", 20)
    monkeypatch.setattr(orders, "_AT_ONCE", 70)
    settle(store, "siem", 999, dead=500, delivered=500)
    write_dead_letters(store, [letter(n) for n in range(500)])
    assert give(store, Retry(["siem"]), quiet).records == 500
    found = owed.debts(store, "siem")
    assert len(found) >= 25
    assert sorted(at for debt in found for at in addresses(debt.iou.owed)) == [
        (n, 0) for n in range(500)
    ]
    assert not [*read_dead_letters(store)]


def test_a_dead_digest_is_set_aside_again(store: StateStore) -> None:
    from schemas.digest import to_json
    from tests.transforms.test_digests_owed import digest

    body = to_json(digest(1))
    buried = letter(7, "counts", body, source=DIGESTS.source, partition=DIGESTS.partition)
    spoiled = letter(8, "counts", b"{}", source=DIGESTS.source, partition=DIGESTS.partition)
    write_dead_letters(store, [buried, spoiled])
    answer = give(store, Retry([]), quiet)
    assert answer.records == 1
    assert [store.get(path) for path in digests_aside(store, "counts")] == [body]
    assert [*read_dead_letters(store)] == [spoiled]


def test_only_what_the_order_means_is_dropped(store: StateStore) -> None:
    for partition in ("0", "1"):
        owing = [Owing(29, runs((n, 0) for n in range(30)), 1)]
        with owed.alone:
            owed.write(store, "siem", SOURCE, partition, owing)
        stored = msgspec.json.encode(Settled(29, 30, 0, Outcomes(owed=30), 0))
        store.put(account_path("siem", SOURCE, partition), stored)
    owed.changed(store, "siem")
    answer = give(store, Drop("siem", "ticket 4711", "1", 5, 9), quiet)
    assert answer == Answer(5)
    left = {debt.partition: debt.iou.count for debt in owed.debts(store, "siem")}
    assert left == {"0": 30, "1": 25}
    found = [(one.sequence, one.step, one.reason, one.body) for one in read_dead_letters(store)]
    assert found == [(n, "siem", "cancelled by hand: ticket 4711", b"") for n in range(5, 10)]
    assert owed.sums(store, "siem").dead == 5
    assert Origin(SOURCE, "1") == Origin(*next(iter(read_dead_letters(store))).key[:2])
