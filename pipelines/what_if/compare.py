"""What other settings would make of the same history: who would get what, and in which form."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterable, Sequence

import msgspec

from pipelines.settings import Settings
from pipelines.what_if.counts import Span
from pipelines.what_if.differences import differences
from pipelines.what_if.found import Comparison, not_read
from pipelines.what_if.pair import Pair
from pipelines.what_if.settings import shared_settings
from pipelines.what_if.way import (
    Enrich,
    Front,
    enriching,
    everything,
    lanes,
    subscriptions_of,
    unheard,
)
from schemas.batch import Batch
from transforms.delivery.line import printable
from transforms.parse import parse_batch
from transforms.read.files.base import Unread
from transforms.route import Predicate, Where

__all__ = ["compare"]


def compare(
    batches: Iterable[Batch],
    a: Settings,
    b: Settings,
    choose: Predicate = everything,
    where: Where | None = None,
    *,
    names: tuple[str, str] = ("now", "then"),
    name: str = "",
    sinks: Collection[str] | None = None,
    enrich: tuple[Enrich, Enrich] | None = None,
    examples: int = 3,
    unread: Sequence[Unread] = (),
    progress: Callable[[Batch], object] = unheard,
) -> Comparison:
    """What settings `b` would make of these batches that `a` does not.

    names: what the two are called. enrich: how each does; without it, from its settings' file.
    examples: at most so many of each group. Otherwise as `dry_run`. Same batches, same result.
    """
    if enrich is None:
        known = subscriptions_of(a), subscriptions_of(b)
        ways, alike_known = (enriching(known[0]), enriching(known[1])), known[0] == known[1]
    else:
        ways, alike_known = enrich, enrich[0] is enrich[1]
    fronts = [Front(it, choose, where, name, way) for it, way in zip((a, b), ways, strict=True)]
    masks_alike = a.mask == b.mask
    as_one = masks_alike and alike_known and a.deduplicate.horizon == b.deduplicate.horizon
    if as_one:
        fronts[1].flow = fronts[0].flow
    shared = [
        said for said, alike in (("mask", masks_alike), ("subscriptions", alike_known)) if not alike
    ]
    ours, theirs = lanes(a, sinks), lanes(b, sinks)
    pairs = [
        Pair(each, ours.get(each), theirs.get(each), ", ".join(shared), as_one, examples)
        for each in ours | theirs
    ]
    span, events = Span(), 0
    for batch in batches:
        events += len(batch.records)
        parsed, letters = parse_batch(batch, a.mask)
        if as_one:
            left = right = fronts[0].fresh(parsed, len(letters))
        else:
            again, refused = parsed, letters
            if masks_alike:  # enrichment sets fields in place
                again = msgspec.structs.replace(parsed, alerts=[*map(copy.copy, parsed.alerts)])
            else:
                again, refused = parse_batch(batch, b.mask)
            left = fronts[0].fresh(parsed, len(letters))
            right = fronts[1].fresh(again, len(refused))
        span.add(left.alerts)
        for pair in pairs:
            pair.add(left, right)
        progress(batch)
    groups = [group for pair in pairs for group in pair.groups.values()]
    named = printable(names[0], 80), printable(names[1], 80)
    return Comparison(
        named, events, fronts[0].flow, fronts[1].flow, *span.times,
        differences(shared_settings(a), shared_settings(b)),
        [pair.done(len(span.days)) for pair in pairs],
        sorted(groups, key=lambda it: (it.sink, -it.alerts, it.change, it.rule, it.kind)),
        *not_read(unread),
    )  # fmt: skip
