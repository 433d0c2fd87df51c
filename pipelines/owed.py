"""What sinks are owed, as tables: how much, since when, how long the hub keeps it; and exactly."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from datetime import datetime, timezone

import msgspec
from rich.table import Table

from pipelines.tables import shown, table
from schemas.runs import Run, clip, count, subtract, union
from transforms.digests_owed import digests_aside
from transforms.owed import aside_of, debts
from transforms.state_store import StateStore

__all__ = ["Owed", "digests_table", "owed_by_partition", "owed_table", "runs_table"]

_MOST_RUNS = 200


class Owed(msgspec.Struct):
    """What a sink is owed of a partition. since_ms: about when the oldest record was enqueued.
    letters: what of it are dead letters that are tried again; aside: events that are set aside."""

    sink: str
    source: str
    partition: str
    runs: list[Run]
    since_ms: int
    letters: list[Run]
    aside: list[Run]

    @property
    def records(self) -> int:
        return count(self.runs)


def owed_by_partition(store: StateStore, sinks: Iterable[str]) -> list[Owed]:
    """By sink and partition, in that order."""
    found: dict[tuple[str, str, str], Owed] = {}
    for sink in sinks:
        for debt in debts(store, sink):
            key = sink, debt.source, debt.partition
            if key not in found:
                found[key] = Owed(*key, [], debt.iou.since_ms, [], [])
            owed = found[key]
            owed.runs = union(owed.runs, debt.iou.owed)
            owed.since_ms = min(owed.since_ms, debt.iou.since_ms)
            if debt.letters:
                owed.letters = union(owed.letters, debt.iou.owed)
    for owed in found.values():
        at_hub = subtract(owed.runs, owed.letters)
        for file in aside_of(store, owed.source, owed.partition):
            owed.aside = union(owed.aside, clip(at_hub, file.first, file.last))
    return sorted(found.values(), key=lambda o: (o.sink, o.source, len(o.partition), o.partition))


def owed_table(found: Iterable[Owed], retention_hours: Mapping[str, float]) -> Table:
    """A row a sink and partition. retention_hours: by source."""
    rows = table("owed")
    rows.add_column("sink", style="bold", overflow="fold")
    rows.add_column("partition", overflow="fold")
    rows.add_column("records", justify="right")
    rows.add_column("since")
    rows.add_column("the hub keeps it")
    rows.add_column("set aside")
    for owed in found:
        at = datetime.fromtimestamp(owed.since_ms / 1000, tz=timezone.utc)
        since = f"{at:%m-%d %H:%M}" if owed.since_ms else "-"
        rows.add_row(
            shown(owed.sink),
            shown("/".join((*owed.source.split("/")[1:2], owed.partition))),
            f"{owed.records:,}",
            since,
            _margin(owed, retention_hours.get(owed.source)),
            _aside(owed),
        )
    return rows


def _margin(owed: Owed, hours: float | None) -> str:
    """How long the oldest of it is still in the hub."""
    if owed.letters == owed.runs:
        return "dead letters, again"
    if hours is None:
        return "not in the settings"
    left = owed.since_ms / 3_600_000 + hours - time.time() / 3600
    if not owed.since_ms:
        return "not known"
    if left <= 0:
        return "perhaps gone"
    return f"{left:,.0f} h more" if left >= 2 else f"{left * 60:.0f} min more"


def _aside(owed: Owed) -> str:
    if owed.letters == owed.runs or owed.aside == subtract(owed.runs, owed.letters):
        return "yes"
    return f"{count(owed.aside):,}" if owed.aside else "no"


def runs_table(owed: Owed) -> Table:
    """Exactly which records, by events."""
    rows = table("")
    rows.title = None
    for column in ("events", "record", "records"):
        rows.add_column(column, justify="right")
    rows.add_column("")
    listed = sorted(owed.runs)
    for run in listed[:_MOST_RUNS]:
        letters = [each for each in owed.letters if each.index == run.index]
        what = "dead letters, tried again" if clip(letters, run.first, run.last) else ""
        which = f"{run.first}" if len(run) == 1 else f"{run.first} to {run.last}"
        rows.add_row(which, f"{run.index}", f"{len(run):,}", what)
    if len(listed) > _MOST_RUNS:
        rest = listed[_MOST_RUNS:]
        rows.add_row("…", "", f"{count(rest):,}", f"{len(rest):,} more; --json has all")
    return rows


def digests_table(store: StateStore, sinks: Iterable[str]) -> Table:
    """Digests that are set aside: those sinks that have any."""
    rows = table("digests set aside")
    rows.add_column("sink", style="bold", overflow="fold")
    rows.add_column("digests", justify="right")
    for sink in sinks:
        if found := len(digests_aside(store, sink)):
            rows.add_row(shown(sink), f"{found:,}")
    return rows
