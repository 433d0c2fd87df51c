"""Receipts of a replay on this machine, put down as batches end.

    replays/<name>/journal/<lane>/<sink>/<token>   a line each, as JSON; the lane is `all` where one
                                                   process reads every lane

The accounts follow at the end of bundles, and somewhat later: without this, a kill would make come
twice all that had been sent since. Whoever goes on enters what lies here, and forgets it. Nothing
hangs on a line that is missing or torn: what it spoke of comes twice.
"""

from __future__ import annotations

import itertools
import logging
import uuid
from collections.abc import Iterator
from operator import attrgetter

import msgspec

from schemas.receipt import Receipt
from transforms.state_store import StateStore, StateStoreError, place

__all__ = ["Journal", "forget", "journaled"]

_LOGGER = logging.getLogger(__name__)

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Receipt).decode


class Journal:
    """One writer's. Where it cannot be written, it ends with a warning: the replay goes on."""

    def __init__(self, store: StateStore, folder: str, sink: str) -> None:
        self._store = store
        self._path = f"{folder}/{place(sink, uuid.uuid4().hex)}"
        self._ended = False

    def add(self, receipt: Receipt) -> None:
        """To be said once the receipt's dead letters are on disk."""
        if self._ended:
            return
        try:
            self._store.append(self._path, _encode(receipt) + b"\n")
        except StateStoreError as error:
            _LOGGER.warning("a kill now would make more come twice: no journal: %s", error)
            self._ended = True


def journaled(store: StateStore, folder: str) -> dict[str, list[Receipt]]:
    """The receipts under a folder, by sink, in the order of their events."""
    found: dict[str, list[Receipt]] = {}
    for path in store.list(folder):
        for receipt in _receipts(store.get(path) or b""):
            found.setdefault(receipt.sink, []).append(receipt)
    for receipts in found.values():
        receipts.sort(key=attrgetter("source", "partition", "first"))
    return found


def _receipts(data: bytes) -> Iterator[Receipt]:
    """Those before the first line that is torn; a power failure may leave anything behind it."""
    for line in itertools.takewhile(lambda each: each.endswith(b"\n"), data.splitlines(True)):
        try:
            yield _decode(line)
        except msgspec.MsgspecError:
            return


def forget(store: StateStore, folder: str) -> None:
    """What was to be entered is."""
    for path in store.list(folder):
        store.delete(path, sync=False)
