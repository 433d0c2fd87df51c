"""What the subscriptions file said, and when: snapshots in the state store.

    subscriptions/<UTC time>.json     all that it said, from then until the next one

So an alert that is replayed can be told its subscription as it was when the alert happened, and
not as it is now.
"""

from __future__ import annotations

import bisect
import logging
import threading
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import msgspec

from schemas.alert import Subscription
from transforms.state_store import StateStore

__all__ = ["History", "Span", "keep"]

_LOGGER = logging.getLogger(__name__)

_FOLDER = "subscriptions"
_MOST = 500  # snapshots that are kept
_HELD = 200_000  # subscriptions that a `History` has in memory, in all snapshots
_ENDS = (-(2**63), 2**63)  # ms: before and after all times
_EPOCH = datetime(1970, 1, 1)
_NAME = "%Y-%m-%dT%H-%M-%S.%fZ"
_encode = msgspec.json.Encoder(order="sorted").encode
_decode = msgspec.json.Decoder(list[Subscription]).decode


def keep(store: StateStore, subscriptions: Mapping[str, Subscription], now_ms: int) -> bool:
    """Write down what the file says, if that is not what it said last; whether it was written.

    Two processes that do so at once leave two snapshots that say the same. A clock that was set
    back puts one right behind the youngest, so that their order is that of writing.
    """
    data = _encode(sorted(subscriptions.values(), key=lambda each: each.id))
    times = _times(store)
    if store.get(_path(times[-1])) == data if times else not subscriptions:
        return False
    times.append(max(now_ms, times[-1] + 1) if times else now_ms)
    store.put(_path(times[-1]), data)
    for at in _crowded(times):
        store.delete(_path(at))
    return True


def _crowded(times: list[int]) -> Iterable[int]:
    """What is too many, but neither the first nor the youngest: those whose neighbours lie nearest
    to each other. The one before holds in their place, so that no time is without, and a file that
    changes by the minute does not drive out last month's."""
    times = [*times]
    while len(times) > _MOST:
        number = min(range(1, len(times) - 1), key=lambda n: times[n + 1] - times[n - 1])
        yield times.pop(number)


class Span(NamedTuple):
    """What was known from `start` on and before `stop`, in ms. later: it is from after that."""

    start: int
    stop: int
    subscriptions: Mapping[str, Subscription]
    later: bool


class History:
    """The snapshots of a store, as they were when it was loaded. Several threads may ask it, and
    it can be pickled. A snapshot that cannot be read is passed over: the one before holds on."""

    def __init__(self, store: StateStore, times: Iterable[int]) -> None:
        self._store = store
        self._times = sorted(times)
        self._held: dict[int, Mapping[str, Subscription]] = {}
        self._lock = threading.Lock()
        self._last = Span(0, 0, {}, later=False)

    @classmethod
    def load(cls, store: StateStore) -> History:
        return cls(store, _times(store))

    def __bool__(self) -> bool:
        return bool(self._times)

    def __reduce__(self) -> Any:
        return History, (self._store, self._times)

    def at(self, ms: int) -> Mapping[str, Subscription]:
        """By id, what was known of the subscriptions at a time; before the first snapshot, what
        that one says."""
        return self.span(ms).subscriptions

    def span(self, ms: int) -> Span:
        """The same, and how long it held: who asks for many times that are near to each other
        need not ask again for those within."""
        last = self._last
        if last.start <= ms < last.stop:
            return last
        with self._lock:
            self._last = last = self._find(ms)
        return last

    def _find(self, ms: int) -> Span:
        begin, end = _ENDS
        while times := self._times:
            number = bisect.bisect_right(times, ms) - 1
            at = times[max(number, 0)]
            known = self._open(at)
            if known is not None:
                start = at if number >= 0 else begin
                stop = times[number + 1] if number + 1 < len(times) else end
                return Span(start, stop, known, later=number < 0)
            self._times = [each for each in times if each != at]
        return Span(begin, end, {}, later=False)

    def _open(self, at: int) -> Mapping[str, Subscription] | None:
        if at in self._held:
            known = self._held[at] = self._held.pop(at)  # the last is what was asked for last
            return known
        try:
            found = _decode(self._store.get(_path(at)) or b"")
        except (msgspec.DecodeError, UnicodeDecodeError):
            _LOGGER.warning("the snapshot %s cannot be read: it is passed over", _path(at))
            return None
        near = self._last.subscriptions  # most say the same: it is in memory once
        known = {each.id: old if (old := near.get(each.id)) == each else each for each in found}
        self._held[at] = known
        while len(self._held) > 1 and sum(map(len, self._held.values())) > _HELD:
            del self._held[next(iter(self._held))]
        return known


def _path(ms: int) -> str:
    at = _EPOCH + timedelta(milliseconds=ms)
    return f"{_FOLDER}/{at:%Y-%m-%dT%H-%M-%S}.{at.microsecond // 1000:03d}Z.json"


def _times(store: StateStore) -> list[int]:
    """When the snapshots were made, the first first. What is not named as one is none."""
    found = []
    for path in store.list(_FOLDER):
        try:
            at = datetime.strptime(path, f"{_FOLDER}/{_NAME}.json")
        except ValueError:
            continue
        ms = (at - _EPOCH) // timedelta(milliseconds=1)
        if _path(ms) == path:
            found.append(ms)
    return sorted(found)
