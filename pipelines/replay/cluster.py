"""A round of a replay on a cluster, where it is two jobs for all of it: one tells repeats
(transforms/survey.py), one sends.

The accounts are kept here all the same, from what workers spool (transforms/spool.py).
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import apache_beam as beam

from pipelines.forward import Bounded, Replayed, forward
from pipelines.replay.accounts import Accounts
from pipelines.replay.asked import Asked
from pipelines.replay.state import STOPPED
from pipelines.runners import beside
from pipelines.settings import Settings
from transforms.hand_over import Events, Keys
from transforms.metrics import MEASURES
from transforms.read.files.base import RECORDS
from transforms.read.history import ReadShares, Share, admit, admitted, dismiss, reading
from transforms.read.plan import Plan, length, origin
from transforms.spool import Spool
from transforms.survey import Survey, Told

if TYPE_CHECKING:
    from pipelines.cluster.spark import Cluster

__all__ = ["Jobs", "enter", "file_round"]

_LOGGER = logging.getLogger(__name__)

_ENTER_SECONDS = 2.0  # from one look at what is spooled to the next
_SHARD_BYTES = 64 * 1024 * 1024  # of files, whose keys are put in order at once
_MOST_SHARDS = 1024

Leave = Callable[[str, Keys, Events, Mapping[str, Events]], None]
"""Writes down what was delivered: by whom, its keys, what was read, and `Known.rests`."""


class Jobs(NamedTuple):
    """A round on a cluster, job after job.

    run: names what this process keeps for it. counts: what the jobs' steps count is added to them.
    stopping: is set when it is told to end.
    """

    cluster: Cluster
    plan: Plan
    accounts: Accounts
    settings: Settings
    asked: Asked
    replayed: Replayed
    run: str
    counts: Counter[str]
    say: Callable[[str], None]
    stopping: threading.Event

    def through(self) -> str:
        """Until all lanes are through; else why they are not."""
        plan, accounts, stopping = self.plan, self.accounts, self.stopping
        for lane in range(plan.lanes):
            accounts.begin(lane)
        spool = Spool(accounts.store, accounts.name)
        told = Told(accounts.store, accounts.name, plan.rounds)
        off = self.settings.deduplicate.scope == "off"
        self._enter(spool)
        while accounts.unfinished(plan):
            before = spool.entered
            problem = "" if told.whole or off else self._survey(told)
            if not problem and not stopping.is_set():
                problem = self._send(None if off else told, spool)
            if accounts.unfinished(plan):
                if stopping.is_set():
                    return problem or STOPPED
                if spool.entered == before:
                    return problem or "the job ended, though not everything is through"
            if problem:
                self.say(problem)
                stopping.wait(2.0)
        return ""

    def _survey(self, told: Told) -> str:
        """Have a job tell what is a repeat; why it could not."""
        told.forget()  # what one that failed has left
        plan = self.plan
        parts = (part for n in range(plan.lanes) for _, part in plan.row(n, plan.round(n)))
        every = sum(map(length, parts))
        shards = min(_MOST_SHARDS, max(self.cluster.readers, every // _SHARD_BYTES))
        pipeline, job = self.cluster.pipeline(), uuid.uuid4().hex
        taken, masking = self.replayed.taken, self.settings.mask
        survey = Survey(told, taken, masking, self.settings.deduplicate.horizon_ms, shards)
        _ = pipeline | "Read for keys" >> self._read(job, None) | "Survey" >> survey
        if problem := self._job(pipeline, job, Counter(), lambda: None):
            return problem
        if not self.stopping.is_set():
            told.end()
        return ""

    def _send(self, told: Told | None, spool: Spool) -> str:
        """Have a job send what is left; why it could not."""
        replayed = self.replayed._replace(bounded=Bounded(self.accounts.name, told), journal="")
        pipeline, job = self.cluster.pipeline(), uuid.uuid4().hex
        read = self._read(job, self.accounts.sinks)
        forward(pipeline, read, self.settings, {}, self.run, replayed=replayed)
        counts: Counter[str] = Counter()
        problem = self._job(pipeline, job, counts, partial(self._enter, spool))
        measured = MEASURES.keys()
        self.counts.update({k: n for k, n in counts.items() if k.partition(":")[0] not in measured})
        return problem

    def _read(self, job: str, sinks: tuple[str, ...] | None) -> ReadShares:
        of, about, name = self.cluster.readers, self.asked, self.accounts.name
        # `rate` is that of a worker, of which a replay here has as many as were asked for.
        rate = about.rate * about.workers / of
        shares = [Share(name, n, of, job, rate, about.patience) for n in range(of)]
        return ReadShares(
            self.run, shares, self.accounts.store, self.settings.deduplicate.horizon_ms, sinks
        )

    def _job(
        self, pipeline: beam.Pipeline, job: str, counts: Counter[str], look: Callable[[], None]
    ) -> str:
        """Run it to its end; why it failed."""
        from pipelines.cluster.spark import explained, trouble

        store, name, log = self.accounts.store, self.accounts.name, self.cluster.log
        admit(store, name, job)
        worker, failed = beside(pipeline, "replay", counts)
        worker.start()
        looked = time.monotonic()
        dismissed = warned = False
        while worker.is_alive():
            worker.join(0.1)
            if self.stopping.is_set() and not dismissed:
                dismiss(store, name)
                dismissed = True
            if time.monotonic() > looked + _ENTER_SECONDS:
                look()
                looked = time.monotonic()
                if not warned and (wrong := trouble(log)):
                    self.say(wrong)
                    warned = True
        look()
        ours = dismissed or admitted(store, name, job)
        if ours:
            dismiss(store, name)
        if failed:
            _LOGGER.debug("replay %s: %s", name, failed[0], exc_info=failed[0])
            return explained(failed[0], log)
        return "" if ours else "another process replays by this name"

    def _enter(self, spool: Spool) -> None:
        reading(self.run).records = enter(self.accounts, spool)


def enter(accounts: Accounts, spool: Spool) -> int:
    """Enter in the accounts what workers have spooled, as far as nothing is missing; how many
    records every sink is through with."""
    spool.load()
    following = {
        sink: [
            receipt
            for at, entry in accounts.lanes(sink)
            for receipt in spool.following(sink, at, entry.position)
        ]
        for sink in accounts.sinks
    }
    accounts.enter(following)
    for sink in accounts.sinks:
        for at, entry in accounts.lanes(sink):
            spool.drop(sink, at, entry.position)
    return spool.least(accounts.sinks)


def file_round(accounts: Accounts, plan: Plan, leave: Leave) -> None:
    """What a round on a cluster has delivered, so that nobody sends it again."""
    store, name = accounts.store, accounts.name
    told, spool = Told(store, name, plan.rounds), Spool(store, name)
    if told.whole:
        read = {
            str(origin(name, lane)): (plan.round(lane) * RECORDS, plan.end(lane) - 1)
            for lane in range(plan.lanes)
        }
        for keys in told.passed():
            leave(str(origin(name, 0)), keys, read, spool.rests)
        told.forget()
    spool.clear()
