"""Deduplication on a cluster, by the scope that each source has.

`global`: one memory for all workers, in the runner's state, by shard (`transforms.deduplicate`):
each alert crosses to the worker that has its shard. `worker`: what this process has seen since it
began to read; nothing crosses, and copies that two workers read both pass. `off`: all pass.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple

import apache_beam as beam

from schemas.batch import NOBODY, TO_DIGESTS, AlertBatch
from transforms import coders
from transforms.attempts import Attempt, Attempts
from transforms.deduplicate import Deduplicate, Seen, deduplicate_batch, left_by
from transforms.state_store import StateStore

__all__ = ["DeduplicateByScope", "Scope", "Scopes"]

Scope = Literal["global", "worker", "off"]


class Scopes(NamedTuple):
    """one: of sources that have none of their own. own: by source."""

    one: Scope = "global"
    own: Mapping[str, Scope] = {}

    def of(self, source: str) -> Scope:
        return self.own.get(source, self.one)

    def off(self, source: str) -> bool:
        return self.of(source) == "off"


_MARKING = (None, NOBODY, TO_DIGESTS)
_ACROSS = "across"


class _Memory:
    """What this process has seen for a run.

    It goes when a partition is read anew: what was read of it before may not have been accounted
    for, and must not make a repeat of what comes again. A batch of an older attempt, that a worker
    still has in hand, passes without a trace for the same reason.
    """

    def __init__(self, horizon_ms: int, store: StateStore) -> None:
        self._lock = threading.Lock()
        self._seen = Seen(horizon_ms)
        self._attempts = Attempts(store)

    def pass_on(self, batch: AlertBatch) -> AlertBatch:
        with self._lock:
            attempt = self._attempts.of(batch.origin, batch.attempt, self._forget)
            if batch.attempt < attempt.number:
                return batch
            self._seen.turn(max((alert.enqueued_ms for alert in batch.alerts), default=0))
            passed, _ = deduplicate_batch(batch, self._seen, left_by(attempt))
            self._seen.fresh.clear()
            return passed

    def _forget(self, new: Attempt) -> None:
        """All of it: keys have no address."""
        self._seen = Seen(self._seen.horizon_ms)


_memories: dict[str, _Memory] = {}
_lock = threading.Lock()


def _memory(run: str, horizon_ms: int, store: StateStore) -> _Memory:
    with _lock:
        return _memories.setdefault(run, _Memory(horizon_ms, store))


class _Here(beam.DoFn):
    def __init__(
        self,
        scopes: Scopes,
        run: str,
        horizon_ms: int,
        store: StateStore,
    ) -> None:
        self._scopes = scopes
        self._run = run
        self._horizon_ms = horizon_ms
        self._store = store

    def setup(self) -> None:
        self._memory = _memory(self._run, self._horizon_ms, self._store)

    def process(self, batch: AlertBatch) -> Iterator[Any]:
        scope = self._scopes.of(batch.origin.source)
        if batch.only not in _MARKING or scope == "off":
            yield batch  # it pays a debt, in this very process; or any may pass
        elif scope == "worker":
            yield self._memory.pass_on(batch)
        else:
            yield beam.pvalue.TaggedOutput(_ACROSS, batch)


class DeduplicateByScope(beam.PTransform):
    """`PCollection[AlertBatch] → PCollection[AlertBatch]`, repeats among `dropped`.

    horizon_ms, shards: as for `Deduplicate`.
    Where no source's scope is `global`, what comes before and behind is one stage with this.
    """

    def __init__(
        self,
        scopes: Scopes,
        horizon_ms: int,
        shards: int,
        run: str,
        store: StateStore,
    ) -> None:
        super().__init__()
        self._across = "global" in (scopes.one, *scopes.own.values())
        self._here = _Here(scopes, run, horizon_ms, store)
        self._everywhere = Deduplicate(horizon_ms, shards, run, store, recalls=False, lasting=True)

    def expand(self, batches: Any) -> Any:
        here = beam.ParDo(self._here)
        if not self._across:
            return batches | "In this worker" >> here.with_output_types(AlertBatch)
        found = batches | "By scope" >> here.with_outputs(_ACROSS, main="here")
        across = found[_ACROSS] | "Across workers" >> self._everywhere
        return (found.here, across) | beam.Flatten()


coders.register()
