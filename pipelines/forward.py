"""The forwarding graph: from batches of events to every sink and its account."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import apache_beam as beam
from apache_beam.transforms import window

from pipelines.settings import Settings, Window
from schemas.alert import Subscription
from schemas.batch import Origin
from transforms.account import Account
from transforms.deduplicate import Deduplicate, Unsettled
from transforms.deduplicate_by_scope import DeduplicateByScope, Scopes
from transforms.known import Known, SkipKnown
from transforms.replayed import Taken, TakeReplayed
from transforms.route import Where
from transforms.spool import SpoolReceipts
from transforms.state_store import StateStore
from transforms.steps import Digests, Enrich, Parse, Route, Shift
from transforms.subscription_history import History
from transforms.survey import DropTold, Told
from transforms.write import DigestsOnly, WriteDigests, WriteTo

__all__ = ["DIGESTS", "Bounded", "Cluster", "Replayed", "accounts", "both", "forward"]

DIGESTS = "digests"
"""The account's name where no sink takes alerts: what the digests have counted."""


class Bounded(NamedTuple):
    """What is different where history is forwarded by a bounded runner on many workers: nothing
    waits for keyed state. name: the replay's. told: what is a repeat; None: nothing is."""

    name: str
    told: Told | None


class Replayed(NamedTuple):
    """What is different where history is forwarded. where: which alerts, beside what each sink
    wants. subscriptions: as they were at a time. known: what sinks have already, and do not get
    again; None: all of it comes again. bounded: set on a cluster. journal: of `WriteTo`; elsewhere.
    """

    taken: Taken
    where: Where | None
    subscriptions: History
    known: Known | None
    bounded: Bounded | None = None
    journal: str = ""


class Cluster(NamedTuple):
    """What is different where workers are many, and the runner's state outlasts them. shards: of
    the deduplication, where the settings leave it open."""

    shards: int


def accounts(settings: Settings) -> tuple[str, ...]:
    """The accounts that the settings' graph keeps: one a sink that takes alerts."""
    return tuple(s.name for s in settings.sinks if s.send == "alerts") or (DIGESTS,)


def forward(
    pipeline: beam.Pipeline,
    read: beam.PTransform,
    settings: Settings,
    subscriptions: Mapping[str, Subscription],
    run: str,
    shift: Shift | None = None,
    carry: bool = False,
    left: Mapping[Origin, Unsettled] = {},
    replayed: Replayed | None = None,
    cluster: Cluster | None = None,
) -> None:
    """Add the graph to `pipeline`. Nothing on the way to a sink needs a timer, a GroupByKey or a
    Flatten: there, all of it fuses into one stage on the local runner (a test reads that). On a
    cluster, a deduplication across workers does.

    read: `PBegin → PCollection[Batch]`. run: names what this process keeps for the run (links,
    engines). shift: set on the local runner, where windows fire when a shift ends. carry: whether
    a batch may end at a sink in a later bundle, so that no sink holds up another: where the state
    store says what is settled, and whoever runs this drains it (docs/adr/0010). left: what a crash
    left unsettled (docs/adr/0011). replayed: set where `read` gives history. cluster: set where it
    runs on one.
    """
    store = StateStore(str(settings.state))
    kept = accounts(settings)

    # 1. Events come in batches of one partition.
    batches = pipeline | "Read events" >> read

    # 2. The only decode. Secrets are masked; what cannot be understood is a dead letter.
    bounded = replayed.bounded if replayed else None
    journal = replayed.journal if replayed else ""
    at_once = bounded is not None or bool(journal)
    parsed = batches | "Parse" >> Parse(store, run, settings.mask, at_once=at_once)

    if replayed is not None:
        parsed = parsed | "Take what is replayed" >> TakeReplayed(replayed.taken)

    # 3. Exact repeats end here; status updates pass.
    horizon_ms = settings.deduplicate.horizon_ms
    rule = settings.deduplicate
    own = {e.name: e.deduplicate.scope for e in settings.sources if e.deduplicate is not None}
    scopes = Scopes(rule.scope, own)
    if bounded is not None:
        drop: beam.PTransform = DropTold(bounded.told)
    elif cluster is not None:
        shards = rule.shards if rule.shards > 1 else cluster.shards
        drop = DeduplicateByScope(scopes, horizon_ms, shards, run, store)
    else:
        drop = Deduplicate(
            horizon_ms, rule.shards, run, store, left, recalls=replayed is None, off=scopes.off
        )
    fresh = parsed | "Drop exact repeats" >> drop

    # 4. Who owns the subscription, and what it is for.
    told = replayed.subscriptions if replayed else subscriptions
    alerts = fresh | "Enrich with subscriptions" >> Enrich(told)

    # 5. To every sink in parallel, each with an account of its own.
    for entry in settings.sinks:
        if entry.send == "alerts":
            where = both(entry.where, replayed.where) if replayed else entry.where
            routed = alerts | f"Route to {entry.name}" >> Route(entry.name, where)
            if replayed and replayed.known:
                known = SkipKnown(entry.name, replayed.known)
                routed = routed | f"Pass over what {entry.name} has" >> known
            write = WriteTo(entry.build(), run, store, carry, bounded is not None, journal)
            receipts = routed | f"Write to {entry.name}" >> write
            account: beam.PTransform = Account(entry.name, kept, store, at_once=cluster is not None)
            if replayed and bounded:
                account = SpoolReceipts(bounded.name, store, replayed.known)
            _ = receipts | f"Account for {entry.name}" >> account
    if kept == (DIGESTS,):
        _ = (
            alerts
            | "Only digests are wanted" >> DigestsOnly(DIGESTS)
            | "Account for digests" >> Account(DIGESTS, kept, store, at_once=cluster is not None)
        )

    # 6. Beside that way: what happened, counted in windows.
    takers: list[Any] = [entry.build() for entry in settings.sinks if entry.send == "digests"]
    for spec in settings.digests:
        panes = alerts | f"Digest {spec.name}" >> Digests(
            spec.name,
            _windows(spec.window),
            tuple(spec.by),
            early=spec.early,
            lateness=spec.lateness,
            samples=spec.samples,
            shift=shift,
        )
        for sink in takers:
            _ = panes | f"Write {spec.name} to {sink.name}" >> WriteDigests(sink, run, store)


def both(one: Where | None, other: Where | None) -> Where | None:
    """Alerts for which both hold."""
    if one is None or other is None:
        return one or other
    return Where.model_validate({"all": (one, other)})


def _windows(cut: Window) -> Any:
    if cut.fixed is not None:
        return window.FixedWindows(cut.fixed)
    if cut.sliding is not None:
        return window.SlidingWindows(cut.sliding.size, cut.sliding.every)
    return window.Sessions(cut.session)
