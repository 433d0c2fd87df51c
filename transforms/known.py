"""What sinks have already, from the live stream and from earlier replays: a replay passes over it.

The live stream and each replay leave the keys of what they settled, with the sinks that took part
(transforms/hand_over.py has the argument). Here they are looked up by key and enqueued time, a few
days' at once. What is not found there comes to the sink again; never the other way round.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import threading
import uuid
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import apache_beam as beam
import msgspec

from schemas.alert import Subscription
from schemas.batch import AlertBatch, Dropped
from schemas.receipt import Outcome
from transforms import coders
from transforms.hand_over import (
    DAY_MS,
    KEY_BYTES,
    Claim,
    Events,
    claims,
    hull,
    keys_of,
    lacking,
    overlap,
    read_claim,
)
from transforms.route import Where
from transforms.state_store import StateStore

__all__ = ["Known", "SkipKnown", "Subscriptions", "skip_known", "terms"]

Subscriptions = Mapping[str, Subscription] | Callable[[int], Mapping[str, Subscription]]
"""What is known of them, or what was at a time in ms (`subscription_history.History.at`)."""

_MOST_UNITS = 4  # before, same and after a time, and one more where it moves on
_LOOKS = 3  # for files that the live stream replaces meanwhile
_MOST_TOLD = 16
_AT_ITS_TIME = "as at its time"

_encode = msgspec.json.Encoder(order="sorted").encode


# ------------------------------------------------------------------------------- what sinks want


def terms(where: Where | None, subscriptions: Subscriptions) -> str:
    """What a sink with this condition wants, in a text that is equal only where that surely is;
    empty: everything.

    In it are the version, as another one may understand an alert otherwise, and where the condition
    asks for the subscription, what is known of them, too.
    """
    base = _base(where)
    if where is None or not _asks(where):
        return base
    return _on(base, _AT_ITS_TIME if callable(subscriptions) else _told(subscriptions))


def _base(where: Where | None) -> str:
    if where is None:
        return ""
    said = where.model_dump_json(by_alias=True, exclude_none=True)
    return _digest(f"{_version()} {said}".encode())


def _asks(where: Where) -> bool:
    """Whether it may hang on what is known of the subscription."""
    inner = (*(where.any_ or ()), *(where.all_ or ()), *((where.not_,) if where.not_ else ()))
    return bool(where.subscription or where.environment or where.tag) or any(map(_asks, inner))


def _on(base: str, told: str) -> str:
    return f"{base}, {told}"


def _told(subscriptions: Mapping[str, Subscription]) -> str:
    return _digest(_encode(sorted(subscriptions.values(), key=lambda each: each.id)))


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()


@functools.cache
def _version() -> str:
    try:
        return importlib.metadata.version("alertbeam")
    except importlib.metadata.PackageNotFoundError:
        return ""


class _Wish:
    """What a sink is to get: alerts that meet all of these conditions. Whatever had by the terms
    of any of them to be routed to it was, if it came."""

    def __init__(self, conditions: Sequence[Where | None], subscriptions: Subscriptions) -> None:
        asking = [each for each in conditions if each is not None and _asks(each)]
        self._fixed = {"", *(_base(each) for each in conditions if each not in asking)}
        self._asking = tuple(map(_base, asking))
        self._subscriptions = subscriptions
        self._tellings: dict[int, tuple[Mapping[str, Subscription], str]] = {}

    def may_hold(self, terms: str) -> bool:
        """Whether there are alerts for which they do."""
        return terms in self._fixed or any(terms.startswith(f"{base}, ") for base in self._asking)

    def holds(self, terms: str, event_ms: int) -> bool:
        """Whether what is to come to the sink now had to by these terms."""
        if terms in self._fixed:
            return True
        accepted = [_on(base, self._telling(event_ms)) for base in self._asking]
        if callable(self._subscriptions):
            accepted += [_on(base, _AT_ITS_TIME) for base in self._asking]
        return terms in accepted

    def _telling(self, event_ms: int) -> str:
        said = self._subscriptions
        now = said(event_ms) if callable(said) else said
        known = self._tellings.get(id(now))
        if known is None:
            if len(self._tellings) >= _MOST_TOLD:
                self._tellings.clear()
            known = self._tellings[id(now)] = now, _told(now)  # held, so that its id stays its own
        return known[1]


# --------------------------------------------------------------------------------- what they have


class _Keys:
    """Keys of records that these sinks have. events: by sink, those that this is known of."""

    __slots__ = ("events", "keys", "sinks")

    def __init__(self, sinks: dict[str, str]) -> None:
        self.sinks = sinks
        self.keys: set[bytes] = set()
        self.events: dict[str, Events] = {sink: {} for sink in sinks}

    def add(self, claim: Claim, body: bytes) -> None:
        self.keys.update(keys_of(body[: claim.sure * KEY_BYTES]))
        for sink in self.sinks:
            of = self.events[sink], claim.read, claim.rests.get(sink, {})
            self.events[sink] = hull(of)


class Known:
    """Which of these sinks have an alert, as the store said when that time was first asked for.

    wants: by sink, the conditions that all hold for what it is to get: its own, and if the replay
        has one, that together with its own. horizon_ms: the deduplication's.

    An alert is looked for about its enqueued time: a day (or a horizon) before it, the same, and
    the one after. An export's time is the event's, and a copy's original came before it. So the
    keys of four days at the most are in memory, whatever the length of history, as long as it is
    read in order of time. Shared by all steps of a process, also where they are pickled.
    """

    def __init__(
        self,
        store: StateStore,
        wants: Mapping[str, Sequence[Where | None]],
        horizon_ms: int,
        subscriptions: Subscriptions,
        name: str = "",
    ) -> None:
        self._made_of = store, wants, horizon_ms, subscriptions, name or uuid.uuid4().hex
        self._store = store
        self._wishes = {sink: _Wish(wanted, subscriptions) for sink, wanted in wants.items()}
        self.unit_ms = max(DAY_MS, horizon_ms)
        self._units: OrderedDict[int, list[_Keys]] = OrderedDict()
        self._near: dict[tuple[str, int], tuple[_Keys, ...]] = {}
        self._rests: dict[str, Events] = {}
        self._lock = threading.Lock()
        _shared_ones[self._made_of[-1]] = self

    def __reduce__(self) -> Any:
        return _shared, self._made_of

    def near(self, sink: str, unit: int) -> tuple[_Keys, ...]:
        """The keys that the sink may have of alerts that were enqueued in this unit of time."""
        found = self._near.get((sink, unit))
        if found is None:
            with self._lock:
                wish = self._wishes[sink]
                found = self._near[sink, unit] = tuple(
                    keys
                    for each in (unit, unit - 1, unit + 1)
                    for keys in self._unit(each)
                    if sink in keys.sinks and wish.may_hold(keys.sinks[sink])
                )
        return found

    def holds(self, keys: _Keys, sink: str, event_ms: int) -> bool:
        """Whether the sink has what is among these keys, if it wants that now."""
        return self._wishes[sink].holds(keys.sinks[sink], event_ms)

    def rest(self, sink: str, of: Iterator[_Keys]) -> None:
        """Remember because of which claims the sink was passed over."""
        with self._lock:
            before = self._rests.get(sink, {})
            self._rests[sink] = hull((before, *(keys.events[sink] for keys in of)))

    def rests(self) -> dict[str, Events]:
        """Of which events the claims are, by sink, because of which it was passed over since this
        was asked last: for `hand_over.remember`."""
        with self._lock:
            found, self._rests = self._rests, {}
        return found

    def _unit(self, unit: int) -> list[_Keys]:
        if unit in self._units:
            self._units.move_to_end(unit)
            return self._units[unit]
        while len(self._units) >= _MOST_UNITS:
            self._units.popitem(last=False)
            self._near.clear()
        self._units[unit] = found = self._load(unit)
        return found

    def _load(self, unit: int) -> list[_Keys]:
        read: list[tuple[Claim, bytes] | None] = []
        for _ in range(_LOOKS):
            files = [each for each in claims(self._store) if each.begin_ms // self.unit_ms == unit]
            read = [read_claim(self._store, each.path) for each in files]
            if None not in read:
                break
        lacks = {sink: lacking(self._store, sink) for sink in self._wishes} if read else {}
        found: dict[tuple[tuple[str, str], ...], _Keys] = {}
        for claim, body in filter(None, read):
            sinks = {
                sink: said
                for sink, said in sorted(claim.sinks.items())
                if sink in self._wishes
                and not overlap(claim.read, lacks[sink])
                and not overlap(claim.rests.get(sink, {}), lacks[sink])
            }
            if sinks and claim.sure:
                found.setdefault((*sinks.items(),), _Keys(sinks)).add(claim, body)
        return [*found.values()]


_shared_ones: weakref.WeakValueDictionary[str, Known] = weakref.WeakValueDictionary()
_sharing = threading.Lock()


def _shared(*made_of: Any) -> Known:
    """The process's own, as it was pickled elsewhere, or here."""
    with _sharing:
        return _shared_ones.get(made_of[-1]) or Known(*made_of)


def skip_known(batch: AlertBatch, sink: str, known: Known) -> AlertBatch:
    """The batch without what the sink has, which becomes repeats. One that pays a debt, or goes to
    nobody, passes. `batch` itself is left as it is."""
    if batch.only is not None:
        return batch
    unit_ms, unit = known.unit_ms, None
    near: tuple[_Keys, ...] = ()
    gone: dict[int, _Keys] = {}  # by place in the batch
    for place, alert in enumerate(batch.alerts):
        at = alert.enqueued_ms // unit_ms
        if at != unit:
            unit, near = at, known.near(sink, at)
        for keys in near:
            if alert.key in keys.keys and known.holds(keys, sink, alert.event_ms):
                gone[place] = keys
                break
    if not gone:
        return batch
    known.rest(sink, iter({id(keys): keys for keys in gone.values()}.values()))
    alerts = [alert for place, alert in enumerate(batch.alerts) if place not in gone]
    repeats = [
        Dropped(batch.alerts[place].sequence, batch.alerts[place].index, Outcome.REPEAT)
        for place in gone
    ]
    return msgspec.structs.replace(batch, alerts=alerts, dropped=batch.dropped + repeats)


class _Skip(beam.DoFn):
    def __init__(self, sink: str, known: Known) -> None:
        self._sink = sink
        self._known = known

    def process(self, batch: AlertBatch) -> Iterator[AlertBatch]:
        yield skip_known(batch, self._sink, self._known)


class SkipKnown(beam.PTransform):
    """`PCollection[AlertBatch]`, routed for this sink → the same without what the sink has."""

    def __init__(self, sink: str, known: Known) -> None:
        super().__init__()
        self._skip = _Skip(sink, known)

    def expand(self, batches: Any) -> Any:
        return batches | "Pass over" >> beam.ParDo(self._skip).with_output_types(AlertBatch)


coders.register()
