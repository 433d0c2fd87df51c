"""What happens to a record before it would be sent: `Front`, which all sinks share, and then a
`Lane` a sink.

Nothing here counts deliveries, and nothing is sent: what would be is handed back.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Literal

import msgspec

from pipelines.settings import Settings, SinkEntry
from pipelines.what_if.found import Flow
from schemas.alert import Alert, Subscription
from schemas.batch import AlertBatch, Batch
from schemas.receipt import Outcome
from transforms.deduplicate import Seen, deduplicate_batch
from transforms.delivery.parcel import Parcel
from transforms.delivery.rate import least
from transforms.enrich import enrich_batch, load_subscriptions
from transforms.route import Predicate, Where, compile_where, route_batch
from transforms.write import parcels

__all__ = [
    "Enrich",
    "Front",
    "Lane",
    "Skip",
    "alert_of",
    "enriching",
    "entries",
    "everything",
    "lanes",
    "subscriptions_of",
    "unheard",
]

Enrich = Callable[[AlertBatch], AlertBatch]
Skip = Callable[[AlertBatch, str], AlertBatch]


class Front:
    """What comes before the sinks."""

    def __init__(
        self,
        settings: Settings,
        choose: Predicate,
        where: Where | None,
        name: str,
        enrich: Enrich,
    ) -> None:
        self.flow = Flow()
        self._choose = choose
        self._where = None if where is None else compile_where(where)
        self._name = name
        self._enrich = enrich
        self._seen = Seen(settings.deduplicate.horizon_ms)

    def fresh(self, parsed: AlertBatch, dead: int) -> AlertBatch:
        """The alerts that are chosen and no repeats, enriched."""
        flow, seen = self.flow, self._seen
        chosen = [*filter(self._choose, parsed.alerts)]
        for alert in chosen:
            alert.replay = self._name
            flow.masked += alert.masked
        seen.turn(max((alert.enqueued_ms for alert in chosen), default=0))
        batch = msgspec.structs.replace(parsed, alerts=chosen)
        fresh, _ = deduplicate_batch(batch, seen)
        seen.fresh.clear()  # nobody is handed it over
        enriched = self._enrich(msgspec.structs.replace(fresh, dropped=[]))
        found = enriched.alerts
        if self._where is not None:
            found = [*filter(self._where, found)]
            enriched = msgspec.structs.replace(enriched, alerts=found)
        flow.records += len(parsed.alerts) + dead
        flow.dead += dead
        flow.repeats += len(chosen) - len(fresh.alerts)
        flow.not_chosen += len(parsed.alerts) - len(chosen) + len(fresh.alerts) - len(found)
        flow.alerts += len(found)
        return enriched


def subscriptions_of(settings: Settings) -> Mapping[str, Subscription]:
    """What the file says of them now."""
    given = settings.subscriptions
    return load_subscriptions(given.file) if given else {}


def enriching(known: Mapping[str, Subscription]) -> Enrich:
    """As a run does it."""
    return lambda batch: enrich_batch(batch, known)


class Lane:
    """One sink, which is sent nothing."""

    def __init__(self, entry: SinkEntry) -> None:
        self.entry = entry
        self.name = entry.name
        self.sink = entry.build()
        self.rate = least(entry.settings.rate, self.sink.limits.rate)
        self.separator = self.sink.separator_bytes
        self._most = self.sink.limits.max_record_bytes
        self._wanted = compile_where(entry.where)

    def route(self, batch: AlertBatch) -> AlertBatch:
        routed = route_batch(batch, self.name, self._wanted)
        assert routed is not None, "it is addressed to all"
        return routed

    def encode(self, batch: AlertBatch) -> list[Parcel]:
        """What would be sent, and what cannot be; as the delivery engine makes it fit."""
        said = parcels(self.sink, batch, -1)
        if self._most is not None:
            for parcel in said:
                if parcel.outcome is None and len(parcel.payload) + self.separator > self._most:
                    self._shorten(parcel, self._most - self.separator)
        return said

    def _shorten(self, parcel: Parcel, most: int) -> None:
        at = parcel.origin
        assert parcel.alert is not None and at is not None, "it was made from an alert"
        try:
            said = self.sink.shrink(parcel.alert, at.source, at.partition, most)
        except Exception:  # noqa: BLE001 - as in the engine
            said = None
        if said is None or len(said) > most:
            parcel.outcome = Outcome.DEAD
            parcel.reason = f"larger than the {most:,} bytes that the sink takes of a record"
        else:
            parcel.payload, parcel.shortened = said, True


def entries(
    settings: Settings, send: Literal["alerts", "digests"], only: Collection[str] | None
) -> list[SinkEntry]:
    """The sinks that get these; only: of those that are named so, if anything is."""
    return [
        entry
        for entry in settings.sinks
        if entry.send == send and (only is None or entry.name in only)
    ]


def lanes(settings: Settings, only: Collection[str] | None) -> dict[str, Lane]:
    return {entry.name: Lane(entry) for entry in entries(settings, "alerts", only)}


def alert_of(parcel: Parcel) -> Alert:
    assert parcel.alert is not None, "every parcel here was made from an alert"
    return parcel.alert


def everything(alert: Alert) -> bool:
    return True


def unheard(batch: Batch) -> None:
    pass
