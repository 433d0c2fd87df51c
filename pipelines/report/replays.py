"""Replays of history as `alertbeam status` shows them: each one's last run, or the one at work."""

from __future__ import annotations

import time
from collections.abc import Iterable
from datetime import datetime, timezone

from rich.table import Table
from rich.text import Text

from pipelines.replay import State, state_of
from pipelines.report.tables import lasting
from pipelines.tables import shown, table
from transforms.lease import held_by
from transforms.owed import debts
from transforms.read.plan import REPLAY, folder, replays
from transforms.state_store import StateStore

__all__ = ["REPLAYS", "replays_table"]

REPLAYS = "The same `alertbeam replay` goes on with what is unfinished, and pays what is owed."


def replays_table(store: StateStore, sinks: Iterable[str]) -> Table:
    """A row a replay: how it stands, parts of files that are done, and what is left undone."""
    rows = table("replays of history")
    rows.add_column("replay", style="bold", overflow="fold")
    rows.add_column("state", overflow="fold")
    rows.add_column("since")
    rows.add_column("parts done", justify="right")
    rows.add_column("not read", justify="right")
    rows.add_column("owed", overflow="fold")
    found = [debt for sink in sinks for debt in debts(store, sink)]
    for name in replays(store):
        state = state_of(store, name)
        if state is None:
            continue
        owed: dict[str, int] = {}
        for debt in found:
            if debt.source == f"{REPLAY}{name}" and debt.iou.count:
                owed[debt.sink] = owed.get(debt.sink, 0) + debt.iou.count
        rows.add_row(
            shown(name),
            _state(state, held_by(store, f"{folder(name)}/lease")),
            _since(state.ended or state.began),
            f"{state.done:,} of {state.parts:,}",
            Text(f"{state.unread:,}", "red" if state.unread else ""),
            shown(", ".join(f"{sink} {count:,}" for sink, count in owed.items()) or "0"),
        )
    return rows


def _state(state: State, holder: str) -> Text:
    if not state.ended:
        return (
            shown(f"running: {holder}", "green")
            if holder
            else Text("killed, or its machine died", "red")
        )
    if state.ok:
        return Text("finished", "green")
    return shown(f"failed: {state.said}" if state.said else "finished, but not all of it", "red")


def _since(ms: int) -> str:
    at = datetime.fromtimestamp(ms / 1000, tz=timezone.utc)
    return f"{at:%m-%d %H:%M}, {lasting(time.time() - at.timestamp())}"
