"""Digests that their sink refused: they lie in the state store whole, and are paid from there.

`aside/digests/<sink>/<id>.json`. No account counts them: their alerts were counted when they came.
A digest may come twice after a crash, with the same id.
"""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

from schemas.batch import Origin
from schemas.dead_letter import DeadLetter
from schemas.digest import Digest, from_json, to_alert
from schemas.receipt import Outcome
from transforms.dead_letters import write_dead_letters
from transforms.delivery.engine import Engine
from transforms.delivery.line import printable
from transforms.delivery.parcel import Parcel
from transforms.sinks.base import Sink
from transforms.state_store import StateStore, place

__all__ = ["DIGESTS", "DigestsOwed", "digests_aside", "put_back"]

DIGESTS = Origin("digests", "0")
"""Where digests come from, as far as sinks and dead letters want to know."""


def digests_aside(store: StateStore, sink: str) -> list[str]:
    """The paths of what is set aside for a sink, in no order."""
    return [*store.list(place("aside", "digests", sink))]


def put_back(store: StateStore, letter: DeadLetter) -> bool:
    """Set a digest's dead letter aside again, to be paid; whether it is one."""
    try:
        digest = from_json(letter.body)
    except msgspec.DecodeError:
        return False
    store.put(place("aside", "digests", letter.step, f"{digest.id}.json"), letter.body)
    return True


class DigestsOwed:
    """Pays one sink the digests that are set aside for it. One thread calls it, now and then."""

    def __init__(self, store: StateStore, sink: Sink[Any]) -> None:
        self._store = store
        self.sink = sink
        self._hand: dict[str, Parcel] = {}  # by path
        self._ends: dict[str, int] = {}  # when each window ended, ms: their order
        self.refused = 0  # that ended owed again, one after another

    @property
    def waiting(self) -> int:
        """How many are set aside, on their way or not."""
        return len(digests_aside(self._store, self.sink.name))

    @property
    def in_hand(self) -> int:
        return len(self._hand)

    def pay(self, engine: Engine) -> None:
        """Note how those on their way ended; send as many more as the sink takes, oldest first."""
        self.settle()
        room = engine.appetite() - len(self._hand)
        paths = digests_aside(self._store, self.sink.name) if room > 0 else []
        self._ends = {path: end for path in paths if (end := self._end_of(path)) is not None}
        fresh = sorted((end, path) for path, end in self._ends.items() if path not in self._hand)
        parcels = []
        for _, path in fresh[: max(room, 0)]:
            if data := self._store.get(path):
                parcel = self._hand[path] = self._parcel(from_json(data))
                parcels.append(parcel)
        engine.submit_arrears([parcel for parcel in parcels if parcel.outcome is None])

    def settle(self) -> None:
        """Forget those that ended, in the store too; what is owed again stays there."""
        for path, parcel in [*self._hand.items()]:
            if parcel.outcome is None:
                continue
            if parcel.outcome is Outcome.DEAD:
                self._bury(path, parcel.reason)
            if parcel.outcome is Outcome.OWED:
                self.refused += 1
            else:
                self.refused = 0
                self._store.delete(path)
            del self._hand[path]

    def _end_of(self, path: str) -> int | None:
        if path in self._ends:
            return self._ends[path]
        data = self._store.get(path)
        if data is None:
            return None
        try:
            return from_json(data).end_ms
        except msgspec.DecodeError:
            self._bury(path, "it is no digest as this version writes them")
            self._store.delete(path)
            return None

    def _parcel(self, digest: Digest) -> Parcel:
        alert = to_alert(digest)
        payload, dead = b"", ""
        try:
            payload = self.sink.encode(alert, DIGESTS.source, DIGESTS.partition)
        except ValueError as error:
            dead = printable(f"cannot be encoded: {error}")
        except Exception as error:  # noqa: BLE001 - its bug must not keep up the others
            dead = f"the encoder failed: {type(error).__name__}"
        outcome = Outcome.DEAD if dead else None
        return Parcel(alert.sequence, alert.index, payload, alert, outcome, dead, DIGESTS)

    def _bury(self, path: str, reason: str) -> None:
        data = self._store.get(path)
        if data is None:
            return
        which = hashlib.blake2b(path.encode(), digest_size=7).digest()
        number = int.from_bytes(which, "big")  # tells it from the others
        letter = DeadLetter(
            DIGESTS.source, DIGESTS.partition, number, 0, self._ends.get(path, 0),
            self.sink.name, reason, data,
        )  # fmt: skip
        write_dead_letters(self._store, [letter])
