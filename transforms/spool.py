"""Receipts on their way from a cluster's workers to the accounts, where what runs is bounded.

    replays/<name>/spool/<lane>/<sink>/<token>   one worker's, of the last second or so
    replays/<name>/rests.json                    `Known.rests` of those that were entered

A bounded runner gives keyed state nothing before all that comes in front of it has ended, and a
stage whose output it keeps it may run again when that is lost. So the forwarding stage has no
output there: workers spool what sinks did, and whoever runs the replay, the one writer of its
accounts, enters it as soon as it follows what was entered before. What is spooled is done: a task
that is tried again, or the next job, reads on behind it.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import apache_beam as beam
import msgspec

from schemas.batch import Origin
from schemas.receipt import Receipt
from transforms import coders
from transforms.account import Settled, settled
from transforms.hand_over import Events, hull
from transforms.known import Known
from transforms.read.plan import folder, origin
from transforms.state_store import StateStore, place

__all__ = ["Done", "Spool", "SpoolReceipts"]

_SECONDS = 1.0
_alone = threading.Lock()  # what a sink was passed over for is on disk before its receipts are


class _Spooled(msgspec.Struct, array_like=True):
    receipts: list[Receipt]
    rests: dict[str, Events] = {}


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Spooled).decode


class _Spool(beam.DoFn):
    def __init__(self, name: str, store: StateStore, known: Known | None) -> None:
        self._name = name
        self._store = store
        self._known = known

    def start_bundle(self) -> None:
        self._receipts: list[Receipt] = []
        self._written = time.monotonic()

    def process(self, receipt: Receipt) -> None:
        self._receipts.append(receipt)
        if time.monotonic() - self._written > _SECONDS:
            self.finish_bundle()

    def finish_bundle(self) -> None:
        lanes: dict[str, list[Receipt]] = {}
        for receipt in self._receipts:
            lanes.setdefault(receipt.partition, []).append(receipt)
        with _alone:
            rests = self._known.rests() if self._known and lanes else {}
            for lane, receipts in lanes.items():
                path = place(lane, receipts[0].sink, uuid.uuid4().hex)
                self._store.put(f"{_folder(self._name)}/{path}", _encode(_Spooled(receipts, rests)))
        self._receipts, self._written = [], time.monotonic()


class SpoolReceipts(beam.PTransform):
    """`PCollection[Receipt]` of one sink → nothing; they wait in the store for the accounts.

    name: the replay's. known: what its sinks had.
    """

    def __init__(self, name: str, store: StateStore, known: Known | None) -> None:
        super().__init__()
        self._spool = _Spool(name, store, known)

    def expand(self, receipts: Any) -> Any:
        return receipts | "Put down" >> beam.ParDo(self._spool)


class Spool:
    """What is spooled of a replay, and not dropped yet."""

    def __init__(self, store: StateStore, name: str) -> None:
        self._store = store
        self._name = name
        self._files: dict[str, tuple[str, Origin, int]] = {}  # by path: what its last receipt is of
        self._rows: dict[tuple[str, Origin], dict[int, Receipt]] = {}  # by the first event
        self._records: Counter[str] = Counter()  # by sink, of this run
        data = store.get(_rests(name))
        self.rests: dict[str, Events] = (
            msgspec.json.decode(data, type=dict[str, Events]) if data else {}
        )

    def load(self) -> None:
        """Take note of what is new."""
        for path in self._store.list(_folder(self._name)):
            if path in self._files or (data := self._store.get(path)) is None:
                continue
            spooled = _decode(data)
            for receipt in spooled.receipts:
                at = Origin(receipt.source, receipt.partition)
                # What was done twice was cut alike; what was not never follows, and is dropped.
                row = self._rows.setdefault((receipt.sink, at), {})
                if receipt.first not in row:
                    row[receipt.first] = receipt
                    self._records[receipt.sink] += receipt.size
                self._files[path] = receipt.sink, at, receipt.last
            for sink, events in spooled.rests.items():
                self.rests[sink] = hull((self.rests.get(sink, {}), events))

    def following(self, sink: str, at: Origin, position: int) -> Iterator[Receipt]:
        """A sink's receipts of a lane behind this event, as far as none is missing."""
        row = self._rows.get((sink, at), {})
        while receipt := row.get(position + 1):
            yield receipt
            position = receipt.last

    @property
    def entered(self) -> int:
        """How much has come by now."""
        return self._records.total()

    def least(self, sinks: Iterable[str]) -> int:
        """How many records every sink is through with, as far as this has seen them."""
        return min((self._records[sink] for sink in sinks), default=0)

    def drop(self, sink: str, at: Origin, position: int) -> None:
        """Forget what the account has, which is up to this event."""
        row = self._rows.get((sink, at), {})
        for first in [first for first in row if first <= position]:
            del row[first]
        gone = [
            path
            for path, (name, lane, last) in self._files.items()
            if (name, lane) == (sink, at) and last <= position
        ]
        if gone and self.rests:
            self._store.put(_rests(self._name), msgspec.json.encode(self.rests))
        for path in gone:
            self._store.delete(path, sync=False)
            del self._files[path]

    def clear(self) -> None:
        """Forget all of it: what was to be entered is."""
        for path in [*self._store.list(_folder(self._name)), _rests(self._name)]:
            self._store.delete(path, sync=False)
        self._files, self._rows, self.rests = {}, {}, {}


class Done:
    """What every sink has settled of a replay, as a worker finds it that begins."""

    def __init__(self, store: StateStore, name: str, sinks: Iterable[str]) -> None:
        self._spool = Spool(store, name)
        self._spool.load()  # first: what is dropped meanwhile is in the accounts
        self._settled = {sink: settled(store, sink) for sink in sinks}
        self._name = name

    def upto(self, lane: int, first: int, last: int) -> tuple[int, str]:
        """The last of these addresses up to which all is done, and where it lies in its file."""
        at = origin(self._name, lane)
        found = [self._reach(sink, at, first, last) for sink in self._settled]
        return min(found, default=(first - 1, ""))

    def _reach(self, sink: str, at: Origin, first: int, last: int) -> tuple[int, str]:
        account: Settled | None = self._settled[sink].get(at)
        reach, offset = first - 1, ""
        if account and account.position >= first:
            reach, offset = account.position, account.offset
        for receipt in self._spool.following(sink, at, reach):
            if reach >= last:
                break
            reach, offset = receipt.last, receipt.offset
        return reach, offset


def _folder(name: str) -> str:
    return f"{folder(name)}/spool"


def _rests(name: str) -> str:
    return f"{folder(name)}/rests.json"


coders.register()
