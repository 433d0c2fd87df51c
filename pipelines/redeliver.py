"""Pays by hand what sinks are owed: what a run does by itself, until nothing more can be paid.

The same graph as forwarding, and the same source without its partitions: batches addressed to one
sink, which pass the deduplication and go to no other (docs/adr/0001).
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import apache_beam as beam

from pipelines.forward import DIGESTS, accounts, forward
from pipelines.runners import Choice, choose
from pipelines.settings import Settings
from schemas.alert import Subscription
from transforms.delivery.engines import close_all
from transforms.digests_owed import digests_aside
from transforms.enrich import load_subscriptions
from transforms.orders import carry_out
from transforms.owed import debts, sums, void_letters
from transforms.read.event_hubs import ReadEventHubs
from transforms.read.payer import Debts, close_payer, payer
from transforms.read.reader import close_session
from transforms.restart import resume
from transforms.sinks.base import Sink
from transforms.state_store import StateStore, StateStoreError

__all__ = ["Paid", "RedeliverError", "owed_to", "pay", "redeliver"]

_SAY_SECONDS = 5.0


class RedeliverError(Exception):
    """Nothing can be paid now; the message says why."""


class Paid(NamedTuple):
    """What became of the debts to one sink, in records. paid: delivered; others are dead."""

    sink: str
    owed: int
    left: int
    paid: int


def owed_to(settings: Settings, sinks: Iterable[str], until_paid: bool = False) -> Debts:
    """Whom of the settings' sinks to pay, and how their sources are reached."""
    access = {entry.name: entry.event_hubs for entry in settings.sources}
    names = tuple(sink for sink in sinks if sink != DIGESTS)
    digests: tuple[Sink[Any], ...] = tuple(s.build() for s in settings.sinks if s.send == "digests")
    return Debts(StateStore(str(settings.state)), names, access, until_paid, digests)


def pay(
    settings: Settings,
    run: str,
    sinks: Iterable[str],
    subscriptions: Mapping[str, Subscription],
    runner: Choice,
    say: Callable[[str], None],
) -> None:
    """Pay these sinks, until nothing is owed that can be paid now. Says what cannot: it stays
    owed, unless the hub has it no more."""
    about = owed_to(settings, sinks, until_paid=True)
    void_letters(about.store, about.sinks)
    carry_out(about.store)  # what was ordered, and not done
    if not any(_left(about.store, sink) for sink in about.sinks) and not any(
        digests_aside(about.store, sink.name) for sink in about.digests
    ):
        return
    pipeline = beam.Pipeline(runner=runner.runner)
    forward(pipeline, ReadEventHubs(run, [], about), settings, subscriptions, run)
    try:
        pipeline.run().wait_until_finish()
        if paying := payer(run):
            for name, problem in paying.problems.items():
                say(f"{name}: {problem}")
            for name, count in paying.written_off.items():
                say(
                    f"{name}: {count:,} records are gone from the hub, which keeps events only "
                    "for so long: they are written off, see `alertbeam dead list`"
                )
            for name, count in paying.beyond.items():
                say(
                    f"{name}: {count:,} records lie beyond the hub's last event: was it made anew? "
                    f"They stay owed until `alertbeam owed drop {name}`"
                )
    finally:
        close_payer(run)
        for sink in about.digests:
            if left := len(digests_aside(about.store, sink.name)):
                say(f"{sink.name}: {left:,} digests are still set aside")


def redeliver(
    settings: Settings, sink: str | None, say: Callable[[str], None], runner: str = "DirectRunner"
) -> list[Paid]:
    """Pay all debts to `sink` (None: to every sink of the settings), oldest first.

    Stops with a sink that takes nothing; what is not paid stays owed, exactly. Raises
    RedeliverError while a run works in the state folder: that pays by itself.
    """
    store = StateStore(str(settings.state))
    store.prepare()
    subscriptions = (
        load_subscriptions(settings.subscriptions.file) if settings.subscriptions else {}
    )
    names = [name for name in accounts(settings) if sink in (None, name)]
    run = uuid.uuid4().hex
    try:
        with store.lock("run"):
            resume(store)
            owed = {name: _left(store, name) for name in names}
            before = {name: sums(store, name).delivered for name in names}
            _say_what_has_no_source(settings, names, say)
            over = threading.Event()
            teller = threading.Thread(target=_tell, args=(store, owed, say, over), daemon=True)
            teller.start()
            try:
                pay(settings, run, names, subscriptions, choose(runner), say)
            finally:
                over.set()
                teller.join()
                close_session(run)
                close_all(run)
    except StateStoreError as error:
        raise RedeliverError(
            "`alertbeam run` works in this state folder, and pays what is owed by itself as soon "
            "as the sink takes it: `alertbeam status` shows how that goes"
        ) from error
    return [
        Paid(name, owed[name], _left(store, name), sums(store, name).delivered - before[name])
        for name in names
    ]


def _left(store: StateStore, sink: str) -> int:
    return sum(debt.iou.count for debt in debts(store, sink))


def _say_what_has_no_source(
    settings: Settings, names: Iterable[str], say: Callable[[str], None]
) -> None:
    sources = {entry.name for entry in settings.sources}
    store = StateStore(str(settings.state))
    for name in names:
        for source in sorted({debt.source for debt in debts(store, name)} - sources):
            say(
                f"{name}: {source}: it is owed from there, but the settings do not name it any more"
            )


def _tell(
    store: StateStore, owed: Mapping[str, int], say: Callable[[str], None], over: threading.Event
) -> None:
    """How it goes, now and then."""
    before = dict(owed)
    while not over.wait(_SAY_SECONDS):
        for name, all_of_it in owed.items():
            left = _left(store, name)
            if left != before[name]:
                before[name] = left
                say(f"{name}: {all_of_it - left:,} of {all_of_it:,} paid")
