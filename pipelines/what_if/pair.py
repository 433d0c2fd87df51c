"""One sink by two settings: which alerts it gets by both, or by one, in which form, and why."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence

import msgspec

from pipelines.what_if.counts import by_count, count, moment
from pipelines.what_if.differences import SHOWN, differences, safe
from pipelines.what_if.fields import differing
from pipelines.what_if.found import Change, Example, Field, Group, SinkChange
from pipelines.what_if.ingest import volume_of
from pipelines.what_if.settings import clauses, sink_settings
from pipelines.what_if.way import Lane, alert_of
from schemas.alert import Alert
from schemas.batch import AlertBatch
from transforms.delivery.line import printable
from transforms.delivery.parcel import Parcel
from transforms.route import why_not

__all__ = ["Pair"]

_MOST_FIELDS = 200
_MOST_EXAMPLE_FIELDS = 20
_DIFFED = 100  # alerts of a kind whose fields are compared; of further ones, one in 256

_At = tuple[int, int]


class Pair:
    """A sink in both settings, or in one.

    shared: what differs before the sinks, so that alerts themselves do. as_one: both are given the
    very same batches. most: examples of a group.
    """

    def __init__(
        self, name: str, a: Lane | None, b: Lane | None, shared: str, as_one: bool, most: int
    ) -> None:
        self._found = SinkChange(name, a.entry.kind if a else "", b.entry.kind if b else "")
        self.groups: dict[tuple[Change, str, str], Group] = {}
        self._lanes = a, b
        self._clauses = [clauses(lane.entry.where) if lane else [] for lane in (a, b)]
        self._volumes = [volume_of(lane.entry.kind) if lane else None for lane in (a, b)]
        self._most = most
        self._fields: Counter[str] = Counter()
        self._compared: Counter[str] = Counter()
        self._cause = shared
        self._says_alike = self._alike = False
        if a and b:
            one, two = a.entry, b.entry
            self._found.settings = differences(sink_settings(one), sink_settings(two))
            as_set = one.kind == two.kind and one.settings == two.settings
            self._says_alike = as_set and not shared
            self._alike = self._says_alike and as_one and one.where == two.where
            if not as_set:
                names = (field.name for field in self._found.settings if field.name != "where")
                self._cause = printable("; ".join(filter(None, (", ".join(names), shared))), SHOWN)

    def add(self, left: AlertBatch, right: AlertBatch) -> None:
        """What the sink gets of a batch by the one settings, and by the other."""
        a, b = self._lanes
        one = _said(a, left, {})
        two = one if self._alike else _said(b, right, one if self._says_alike else {})
        gets_a, gets_b = _going(one), _going(two)
        found = self._found
        found.bytes_a += sum([len(parcel.payload) for parcel in gets_a.values()])
        found.bytes_b += sum([len(parcel.payload) for parcel in gets_b.values()])
        for volume, gets in zip(self._volumes, (gets_a, gets_b), strict=True):
            if volume is not None:
                volume.add(gets.values())
        if self._alike:
            found.same += len(gets_a)
            return
        for at, parcel in gets_a.items():
            other = gets_b.get(at)
            if other is None:
                continue
            if other.payload == parcel.payload:
                found.same += 1
            else:
                found.different += 1
                self._otherwise(parcel, other)
        only_a = {at: parcel for at, parcel in gets_a.items() if at not in gets_b}
        only_b = {at: parcel for at, parcel in gets_b.items() if at not in gets_a}
        found.only_a += len(only_a)
        found.only_b += len(only_b)
        self._only("only_a", only_a, 1, two, right)
        self._only("only_b", only_b, 0, one, left)

    def done(self, days: int) -> SinkChange:
        found = self._found
        found.fields = by_count(self._fields)
        found.ingest_a, found.ingest_b = (
            volume.ingest(days) if volume else None for volume in self._volumes
        )
        return found

    def _group(self, change: Change, rule: str, alert: Alert) -> Group:
        place = change, rule, alert.kind
        if place not in self.groups:
            self.groups[place] = Group(self._found.name, *place)
        self.groups[place].alerts += 1
        return self.groups[place]

    def _only(
        self,
        change: Change,
        missing: Mapping[_At, Parcel],
        side: int,
        others: Mapping[_At, Parcel],
        batch: AlertBatch,
    ) -> None:
        """Why this side does not send what the other does; others, batch: what it has instead."""
        known = {(alert.sequence, alert.index): alert for alert in batch.alerts} if missing else {}
        lane = self._lanes[side]
        for at, parcel in missing.items():
            alert, other, why = known.get(at), others.get(at), ""
            if lane is None:
                rule = why = "no such sink takes alerts"
            elif other is not None:
                rule, why = "it cannot be encoded", other.reason
            elif alert is None:
                rule = why = "deduplicate: it is an exact repeat"
            else:
                rule = next((said for said, met in self._clauses[side] if not met(alert)), "where")
            group = self._group(change, rule, alert_of(parcel))
            if len(group.examples) < self._most:
                if not why and lane and alert:
                    why = why_not(lane.entry.where, alert)
                group.examples.append(_example(alert_of(parcel), why))

    def _otherwise(self, one: Parcel, two: Parcel) -> None:
        alert = alert_of(one)
        group = self._group("different", self._cause, alert)
        wanted = len(group.examples) < self._most
        self._compared[alert.kind] += 1
        if not (wanted or self._compared[alert.kind] <= _DIFFED or not alert.key[0]):
            return
        fields = differing(one.payload, two.payload)
        self._found.compared += 1
        for name in {re.sub(r"\[\d+\]", "[]", field.name) for field in fields}:
            count(self._fields, name, _MOST_FIELDS)
        if wanted:
            group.examples.append(_example(alert, "", fields[:_MOST_EXAMPLE_FIELDS]))


def _said(lane: Lane | None, batch: AlertBatch, known: Mapping[_At, Parcel]) -> dict[_At, Parcel]:
    """What the sink is said, by address. known: what would be said alike."""
    if lane is None:
        return {}
    routed = lane.route(batch)
    found: dict[_At, Parcel] = {}
    missing: list[Alert] = []
    for alert in routed.alerts:
        parcel = known.get((alert.sequence, alert.index))
        if parcel is None:
            missing.append(alert)
        else:
            found[parcel.sequence, parcel.index] = parcel
    if missing:
        for parcel in lane.encode(msgspec.structs.replace(routed, alerts=missing)):
            found[parcel.sequence, parcel.index] = parcel
    return found


def _going(said: Mapping[_At, Parcel]) -> dict[_At, Parcel]:
    """Without what cannot be encoded."""
    return {at: parcel for at, parcel in said.items() if parcel.outcome is None}


def _example(alert: Alert, why: str, fields: Sequence[Field] = ()) -> Example:
    return Example(
        alert.event_id, safe(alert.title), alert.kind, alert.severity, moment(alert.event_ms),
        safe(why), [*fields],
    )  # fmt: skip
