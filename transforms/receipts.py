"""The receipts of a sink and partition, kept: how the records of each range of events ended.

    receipts/<sink>/<source>/<partition>/<first>.json   up to 2,000 spans, in order

The youngest lie in the account, beside the position. When they are many, the older ones move to
the youngest segment here, which is written before the account forgets them: after a crash between
the two they lie in both, word for word, and a row holds them once. Only what the stored account
says moves, and of that never the last span, which still grows.

Time makes them coarser: a week later by hours, a quarter later by days.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from schemas.ledger import Span
from transforms.state_store import StateStore, place

__all__ = ["row", "segments", "spill"]

_MOST_SPANS = 64  # in an account, which is written several times a second
_LEFT = 8  # of them, when the others move
_SEGMENT = 2_000
_HOUR_MS = 3_600_000
_DAY_MS = 24 * _HOUR_MS
_GRAINS = ((91 * _DAY_MS, _DAY_MS), (7 * _DAY_MS, _HOUR_MS))  # older than, by

_SPANS = msgspec.json.Decoder(list[Span])


def spill(
    store: StateStore, sink: str, source: str, partition: str, spans: list[Span]
) -> list[Span]:
    """Move older spans of the stored account to segments, if there are many; those that it keeps.

    Saying it again changes nothing. One at a time for a sink and partition.
    """
    if len(spans) <= _MOST_SPANS:
        return spans
    old, left = spans[:-_LEFT], spans[-_LEFT:]
    folder = _folder(sink, source, partition)
    paths = [*store.list(folder)]
    path = paths[-1] if paths else ""
    segment = _SPANS.decode(store.get(path) or b"[]") if path else []
    fresh = row(segment, old)[len(segment) :]
    begun = False
    while fresh:
        room = _SEGMENT - len(segment)
        if not path or room <= 0:
            path, segment, room, begun = _path(folder, fresh[0]), [], _SEGMENT, True
        segment, fresh = [*segment, *fresh[:room]], fresh[room:]
        store.put(path, msgspec.json.encode(segment))
    if begun:
        _compact(store, folder, max(span.until_ms for span in segment))
    return left


def segments(store: StateStore, sink: str, source: str, partition: str) -> list[Span] | None:
    """The spans in all segments, in order; None if one went while they were read."""
    found: list[Span] = []
    for path in store.list(_folder(sink, source, partition)):
        data = store.get(path)
        if data is None:
            return None
        found = row(found, _SPANS.decode(data))
    return found


def row(spans: Iterable[Span], more: Iterable[Span]) -> list[Span]:
    """Both, in order, without what a crash left in both. Holes and spans that only overlap stay as
    they are: they are faults."""
    found = [*spans]
    reached = max((span.last for span in found), default=-1)
    for span in more:
        if span.last > reached:
            found.append(span)
            reached = span.last
    return found


def _compact(store: StateStore, folder: str, at_ms: int) -> None:
    """Make what is old coarser, and few segments of it; the youngest segment stays as it is."""
    groups: list[tuple[list[str], bytes, list[Span]]] = []  # what becomes one segment
    for path in [*store.list(folder)][:-1]:
        data = store.get(path) or b"[]"
        spans = _SPANS.decode(data)
        if groups:
            paths, before, held = groups[-1]
            spans = row(held, spans)[len(held) :]
            both = _coarser([*held, *spans], at_ms)
            if len(both) <= _SEGMENT:
                groups[-1] = [*paths, path], before, both
                continue
        groups.append(([path], data, _coarser(spans, at_ms)))
    for (path, *gone), before, spans in groups:
        data = msgspec.json.encode(spans)
        if data != before:
            store.put(path, data)
        for other in gone:
            store.delete(other)


def _coarser(spans: Iterable[Span], at_ms: int) -> list[Span]:
    found: list[Span] = []
    for span in spans:
        last = found[-1] if found else None
        grain = next((grain for age, grain in _GRAINS if at_ms - span.until_ms > age), 0)
        if (
            last is not None
            and grain
            and span.first == last.last + 1
            and (not span.since_ms or span.since_ms // grain == last.since_ms // grain)
        ):
            found[-1] = Span(
                last.first,
                span.last,
                last.records + span.records,
                last.outcomes + span.outcomes,
                last.since_ms,
                max(last.until_ms, span.until_ms),
            )
        else:
            found.append(span)
    return found


def _folder(sink: str, source: str, partition: str) -> str:
    return place("receipts", sink, *source.split("/"), partition)


def _path(folder: str, span: Span) -> str:
    return f"{folder}/{span.first:020d}.json"
