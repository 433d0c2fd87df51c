"""What it costs to understand an alert, part by part, and to say it in each format."""

from __future__ import annotations

import os
import random
import statistics
import time
from collections.abc import Callable, Iterable
from datetime import datetime, timezone
from typing import Any

import msgspec

from benchmarks.alerts import batches, bodies
from benchmarks.figures import Figure
from pipelines.local.events import security_alert
from schemas.formats import FORMATS
from schemas.kinds import KINDS, details, recognise, understand
from tests.examples import EXAMPLES, encoded
from transforms.parse import parse_batch

__all__ = ["understanding"]

_ALERTS = 400
_ROUNDS = 25
_REPEATS = 50  # of an example, in a round

Work = Callable[[], object]


def understanding() -> list[Figure]:
    """CPU time on one core; the least of some rounds, interleaved, as noise only adds."""
    everywhere = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(everywhere)})
    try:
        return [*_alerts(), *_told()]
    finally:
        os.sched_setaffinity(0, everywhere)


def _alerts() -> Iterable[Figure]:
    made = bodies(_ALERTS)
    read = batches(made, 200)
    row = KINDS["defender_alert"].strict
    bare = _bare(KINDS["defender_alert"].row)
    alerts = [understand(raw) for raw in made]
    rng = random.Random(1)
    now = datetime.now(timezone.utc)
    rows = [understand(msgspec.json.encode(security_alert(rng, now))) for _ in range(_ALERTS)]
    steps: dict[str, Work] = {
        "bare decode": lambda: _each(bare, made),
        "the row": lambda: _each(row, made),
        "parse": lambda: _each(parse_batch, read),
        "details": lambda: _each(details, alerts),
        "details of a SecurityAlert row": lambda: _each(details, rows),
    }
    for form in FORMATS.values():
        steps[f"format: {form.name}"] = lambda say=form.say: _each(say, alerts)
    took = {what: least / _ALERTS for what, least in _least(steps).items()}
    for what, least in took.items():
        yield Figure(what, least, "µs an alert")
    for what in ("the row", "parse"):
        yield Figure(f"{what} / bare decode", took[what] / took["bare decode"], "")


def _each(work: Callable[[Any], object], given: list[Any]) -> None:
    for each in given:
        work(each)  # nothing is kept: many objects that live cost time of their own


def _bare(row: type[msgspec.Struct]) -> Callable[[bytes], Any]:
    """To a struct of the fields of a row that hold something; nothing in it tells a kind."""
    fields: list[Any] = [
        (field.name, field.type)
        if field.required
        else (field.name, field.type, msgspec.field(default=field.default))
        for field in msgspec.structs.fields(row)
        if field.type is not type(None)
    ]
    bare = msgspec.defstruct("Bare", fields, kw_only=True, gc=False)
    return msgspec.json.Decoder(bare).decode


def _told() -> Iterable[Figure]:
    """Telling an example's kind, after others of each kind: all of understanding it but for its
    kind's own decode and reading of it."""
    records = {name: encoded(example.record()) for name, example in EXAMPLES.items()}
    steps: dict[str, Work] = {}
    for name, raw in records.items():
        kind = KINDS[understand(raw).kind]
        steps[name] = lambda raw=raw: recognise(raw) or understand(raw)
        steps[f"{name}'s own"] = lambda kind=kind, raw=raw: kind.read(kind.strict(raw), raw)
    took = _least(steps, _REPEATS)
    told = {name: took[name] - took[f"{name}'s own"] for name in records}
    yield Figure("telling a kind, median of the examples", statistics.median(told.values()), "µs")
    slowest = max(told, key=lambda name: told[name])
    yield Figure(f"telling a kind, the slowest: {slowest}", told[slowest], "µs")


def _least(steps: dict[str, Work], repeats: int = 1) -> dict[str, float]:
    """Of each step, the CPU time in µs that it took in its best round."""
    least = dict.fromkeys(steps, float("inf"))
    for _ in range(_ROUNDS):
        for what, work in steps.items():
            work()  # caches hold it now, and hints the kind
            began = time.process_time()
            for _ in range(repeats):
                work()
            least[what] = min(least[what], (time.process_time() - began) / repeats * 1e6)
    return least
