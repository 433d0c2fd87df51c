"""What a person orders to be done with IOUs and dead letters, and whoever does it.

Only one process may write what is owed: the one that holds the state folder. So an order is left
in the store, under `orders/`, and carried out by that one: the run that works there (its payer
looks twice a second), or the command itself if none does. An order that a crash cut short is
carried out again, to its end, before anything is paid; doing a part of it twice changes nothing.
"""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from typing import TypeAlias

import msgspec

from schemas.batch import Batch, Origin, Record
from schemas.dead_letter import DeadLetter
from schemas.runs import clip, count
from transforms import owed
from transforms.account import Settled, settled
from transforms.dead_letters import amend, read_dead_letters, strike
from transforms.digests_owed import DIGESTS, put_back
from transforms.parse import parse_batch
from transforms.restart import resume
from transforms.state_store import StateStore, StateStoreError

__all__ = ["Answer", "Drop", "Order", "OrderError", "Retry", "carry_out", "give", "matching"]

_OPEN = "orders/open"
_ANSWERED = "orders/answered"
_PARSE = "parse"
_AT_ONCE = 1_000  # letters, and bytes, that are held in memory
_BYTES_AT_ONCE = 16 * 1024 * 1024
_ASK_SECONDS = 0.1


class OrderError(Exception):
    """The order could not be carried out; the message says why and what to do."""


class Drop(msgspec.Struct, tag=True):
    """Cancel what a sink is owed of the events `first..last`; of all partitions, or of one."""

    sink: str
    why: str
    partition: str | None = None
    first: int = 0
    last: int = 2**62


class Retry(msgspec.Struct, tag=True):
    """Try dead letters again: those that agree with all that is said.

    sinks: all that have accounts. step: `parse` or a sink; reason: a part of it.
    """

    sinks: list[str] = []
    ids: list[str] = []
    step: str | None = None
    reason: str = ""


Order: TypeAlias = Drop | Retry


class Answer(msgspec.Struct):
    """What came of an order. records: dropped, or owed again now; said: what else there is to
    tell, one sentence each."""

    records: int = 0
    said: list[str] = []


_ORDER: msgspec.json.Decoder[Order] = msgspec.json.Decoder(Order)
_ANSWER = msgspec.json.Decoder(Answer)


def give(
    store: StateStore,
    order: Order,
    say: Callable[[str], None],
    patience: float = 30.0,
) -> Answer:
    """Have an order carried out: by the run that works in the state folder, or else here.

    Raises OrderError if the run does not take it within so many seconds; it is withdrawn then.
    """
    store.prepare()
    name = f"{time.time_ns():020d}-{uuid.uuid4().hex}.json"
    store.put(f"{_OPEN}/{name}", msgspec.json.encode(order))
    end = time.monotonic() + patience
    told = False
    while (data := store.get(f"{_ANSWERED}/{name}")) is None:
        with contextlib.ExitStack() as held:
            try:
                held.enter_context(store.lock("run"))
            except StateStoreError as error:
                if error.errno is not None:
                    raise  # else it is held
            else:
                resume(store)
                carry_out(store)
                continue
        if not told:
            say("a run works in this state folder: the order is left for it")
            told = True
        if time.monotonic() >= end:
            store.delete(f"{_OPEN}/{name}")
            raise OrderError(
                f"the run did not take the order within {patience:.0f} s, so it is withdrawn. "
                "A run takes orders while it pays what is owed: not while it starts, and one with "
                "--until-caught-up only at its end. Try again, or stop the run first"
            )
        time.sleep(_ASK_SECONDS)
    store.delete(f"{_ANSWERED}/{name}")
    return _ANSWER.decode(data)


def carry_out(store: StateStore) -> None:
    """Do what is ordered, the oldest first. Whoever calls holds the state folder."""
    for path in store.list(_OPEN):
        data = store.get(path)
        if data is None:
            continue
        try:
            order = _ORDER.decode(data)
        except msgspec.DecodeError:
            answer = Answer(said=["another version of alertbeam works here, which knows no such"])
        else:
            answer = _drop(store, order) if isinstance(order, Drop) else _retry(store, order)
        store.put(f"{_ANSWERED}/{path.rpartition('/')[2]}", msgspec.json.encode(answer))
        store.delete(path)


def _drop(store: StateStore, order: Drop) -> Answer:
    answer = Answer()
    for debt in owed.debts(store, order.sink):
        runs = clip(debt.iou.owed, order.first, order.last)
        if runs and order.partition in (None, debt.partition):
            owed.write_off(
                store, debt.sink, debt.source, debt.partition, runs,
                f"cancelled by hand: {order.why}", debt.iou.since_ms,
            )  # fmt: skip
            answer.records += count(runs)
    return answer


# ------------------------------------------------------------------------------------- again


def matching(store: StateStore, order: Retry) -> Iterator[DeadLetter]:
    """The dead letters that an order means."""
    for letter in read_dead_letters(store):
        if (
            (not order.ids or letter.id in order.ids)
            and order.step in (None, letter.step)
            and order.reason in letter.reason
        ):
            yield letter


class _Retrial:
    """Sorts letters into those that can be tried again, and reasons why others cannot."""

    def __init__(self, store: StateStore, sinks: Iterable[str]) -> None:
        self._store = store
        self._accounts = {sink: settled(store, sink) for sink in sinks}
        self._refused: dict[str, int] = {}
        self.records = 0

    @property
    def said(self) -> list[str]:
        return [f"{count:,} {why}" for why, count in self._refused.items()]

    def of(self, letters: list[DeadLetter]) -> None:
        """Let these be owed again to the sinks that miss them."""
        chosen: dict[tuple[str, ...], list[DeadLetter]] = {}
        for letter in letters:
            if takers := self._takers(letter):
                chosen.setdefault(takers, []).append(letter)
        for takers, found in chosen.items():
            with owed.alone:
                for sink in takers:
                    owed.try_again(self._store, sink, found)
            strike(self._store, found)  # only now: until then they are all that there is
            for sink in takers:
                owed.changed(self._store, sink)
            self.records += len(found)

    def _takers(self, letter: DeadLetter) -> tuple[str, ...]:
        """The sinks that miss it; none if it cannot be tried again."""
        if not letter.body:
            return self._not("have no bytes any more: they were written off")
        if letter.source == DIGESTS.source:
            if not put_back(self._store, letter):
                return self._not("cannot be understood by this version either")
            strike(self._store, [letter])
            self.records += 1
            return ()
        if letter.step != _PARSE and letter.step not in self._accounts:
            return self._not(f"are of {letter.step!r}: no sink of that name takes alerts any more")
        names = self._accounts if letter.step == _PARSE else (letter.step,)
        origin = Origin(letter.source, letter.partition)
        stands = {name: self._accounts[name].get(origin) for name in names}
        if any(at is None or at.position < letter.sequence for at in stands.values()):
            return self._not("are not settled yet: they lie beyond a position that is in the store")
        takers = tuple(name for name, at in stands.items() if at and _counted(at, letter))
        if not takers:
            return self._not("were never counted by an account that is kept now")
        if letter.step == _PARSE and not self._understood(letter):
            return self._not("cannot be understood by this version either")
        return takers

    def _not(self, why: str) -> tuple[str, ...]:
        self._refused[why] = self._refused.get(why, 0) + 1
        return ()

    def _understood(self, letter: DeadLetter) -> bool:
        """Whether there is an alert in it by now; if not, that is written down."""
        origin = Origin(letter.source, letter.partition)
        record = Record(letter.sequence, letter.index, letter.enqueued_ms, letter.body)
        batch = Batch(origin, letter.sequence, letter.sequence, None, [record])
        parsed, refused = parse_batch(batch)
        if not parsed.alerts:
            again = {"reason": refused[0].reason, "attempts": letter.attempts + 1}
            amend(self._store, [msgspec.structs.replace(letter, **again)])
        return bool(parsed.alerts)


def _counted(account: Settled, letter: DeadLetter) -> bool:
    return account.began <= letter.sequence


def _retry(store: StateStore, order: Retry) -> Answer:
    trial = _Retrial(store, order.sinks)
    held: list[DeadLetter] = []
    size = 0
    for letter in matching(store, order):
        held.append(letter)
        size += len(letter.body)
        if len(held) >= _AT_ONCE or size >= _BYTES_AT_ONCE:
            trial.of(held)
            held, size = [], 0
    trial.of(held)
    return Answer(trial.records, trial.said)
