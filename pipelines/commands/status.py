"""`alertbeam status`: where everything stands."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipelines.commands._log import set_up

__all__ = ["status"]


def status(
    settings: Annotated[
        Path, typer.Option("--config", "-c", help="The settings file.", metavar="SETTINGS")
    ] = Path("settings.yaml"),
) -> None:
    """Show each partition's position and lag, each sink's account and circuit,
    what sinks are owed and how paying it goes; and each replay of history.

    Looks only at the state folder, so it works beside a run, and after one.

    [dim]$ alertbeam status -c settings.yaml[/dim]
    """
    set_up()  # before Beam is imported
    import time

    from rich.console import Console

    from pipelines.forward import accounts
    from pipelines.report import (
        OWED,
        accounts_of,
        dead_table,
        drift_table,
        owed_table,
        partitions_table,
        read_status,
        sinks_table,
        works,
    )
    from pipelines.report.replays import REPLAYS, replays_table
    from pipelines.settings import HistorySettings, load
    from pipelines.tables import shown
    from transforms.drift import drift_of
    from transforms.state_store import StateStore

    loaded = load(settings, HistorySettings)
    store = StateStore(str(loaded.state))
    console = Console()
    names = accounts(loaded)
    known = read_status(store)
    replays = replays_table(store, names)
    if not known and replays.row_count:
        console.print(replays, sinks_table(accounts_of(store, names)))
        console.print(REPLAYS, style="dim")
        return
    if not known:
        console.print("never run: there is no status in this state folder yet")
        return
    running = works(known)
    age = time.time() - known["at_ms"] / 1000
    where = f"as process {known['pid']}"
    if known.get("host"):
        where = (
            f"on {shown(known['runner'])}; process {known['pid']} on {shown(known['host'])} says so"
        )
    now = f"running, {where}" if running else "not running"
    for partition in known.get("unread", ()):
        console.print(f"nobody reads {shown(partition)}", style="red")
    console.print(f"{now}; last seen {age:.0f} s ago", highlight=False)
    console.print(partitions_table(store, names))
    found = accounts_of(store, names)
    console.print(sinks_table(found, circuits=True))
    owed = owed_table(found, running)
    if owed.row_count:
        console.print(owed)
        console.print(OWED, style="dim")
    if replays.row_count:
        console.print(replays)
        console.print(REPLAYS, style="dim")
    dead = dead_table(store)
    if dead.row_count:
        console.print(dead)
    drift = drift_table(drift_of(store))
    if drift.row_count:
        console.print(drift)
