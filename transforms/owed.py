"""What sinks are owed, in the state store: one small object a range, struck out as it is paid.

A range's object is written before the position moves over the range and only then, so after a
crash an object beyond the position is void: its records are read again anyway.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import msgspec

from schemas.ledger import IOU
from schemas.receipt import Run
from transforms.state_store import StateStore, place, unplace

__all__ = ["Debt", "debts", "forget_beyond", "owe", "pay"]

_DECODER = msgspec.json.Decoder(IOU)


class Debt(NamedTuple):
    """An IOU and where it lies. `first..last` is the range that it was written for."""

    path: str
    sink: str
    source: str
    partition: str
    first: int
    last: int
    iou: IOU


def owe(
    store: StateStore,
    sink: str,
    source: str,
    partition: str,
    first: int,
    last: int,
    owed: list[Run],
) -> None:
    """Write the IOU of a range, before the sink's position moves to `last`."""
    path = f"{_folder(sink, source, partition)}/{first:020d}-{last:020d}.json"
    store.put(path, msgspec.json.encode(IOU(owed)))


def debts(
    store: StateStore,
    sink: str | None = None,
    source: str | None = None,
    partition: str | None = None,
    within: tuple[int, int] | None = None,
) -> Iterator[Debt]:
    """IOUs, paid ones included, oldest range first within a partition.

    within: only those whose range meets this one, of sequence numbers.
    """
    prefix = "owed"
    if sink is not None:
        prefix = place("owed", sink)
        if source is not None and partition is not None:
            prefix = _folder(sink, source, partition)
    for path in store.list(prefix):
        _, name, *names, part, file = unplace(path)
        first, last = map(int, file.removesuffix(".json").split("-"))
        if within is not None and (last < within[0] or first > within[1]):
            continue
        data = store.get(path)
        if data is not None:
            yield Debt(path, name, "/".join(names), part, first, last, _DECODER.decode(data))


def pay(
    store: StateStore, sink: str, source: str, partition: str, delivered: list[Run], dead: list[Run]
) -> None:
    """Strike out records that were delivered, or refused for good, now."""
    if not (delivered or dead):
        return
    low = min(run.first for run in (*delivered, *dead))
    high = max(run.last for run in (*delivered, *dead))
    for debt in debts(store, sink, source, partition, within=(low, high)):
        before = debt.iou.count
        debt.iou.pay(delivered, dead)
        if debt.iou.count != before:
            store.put(debt.path, msgspec.json.encode(debt.iou))


def forget_beyond(store: StateStore, sink: str, source: str, partition: str, position: int) -> None:
    """Remove IOUs that a crash left beyond the position: their records are read again."""
    for debt in debts(store, sink, source, partition):
        if debt.last > position:
            store.delete(debt.path)


def _folder(sink: str, source: str, partition: str) -> str:
    return place("owed", sink, *source.split("/"), partition)
