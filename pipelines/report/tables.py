"""The state store's accounts as tables for a terminal."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import datetime, timezone

from rich.table import Table
from rich.text import Text

from pipelines.report.accounts import SinkAccount, standings
from pipelines.tables import shown, table
from transforms.dead_letters import read_dead_letters
from transforms.drift import ONE_IN, Seen
from transforms.state_store import StateStore
from transforms.steps import LATER_SUBSCRIPTION, MASKED, REPAIRED, UNKNOWN_SUBSCRIPTION

__all__ = [
    "OWED",
    "counts_line",
    "dead_table",
    "drift_table",
    "lasting",
    "owed_table",
    "partitions_table",
    "sinks_table",
]

OWED = (
    "Owed is what a sink did not take in time. While `alertbeam run` runs, it is read again and "
    "paid by itself, the oldest first; `alertbeam redeliver` pays by hand."
)

_MOST_CHANGES = 30


def dead_table(store: StateStore) -> Table:
    """Dead letters by step and reason, the most frequent first."""
    rows = table("dead letters")
    rows.add_column("step", style="bold")
    rows.add_column("records", justify="right")
    rows.add_column("reason", overflow="fold")
    found = Counter((letter.step, letter.reason) for letter in read_dead_letters(store))
    for (step, reason), count in found.most_common(20):
        rows.add_row(shown(step), f"{count:,}", shown(reason))
    if len(found) > 20:
        rows.add_row("", f"{sum(found.values()) - sum(c for _, c in found.most_common(20)):,}", "…")
    return rows


def counts_line(counts: Mapping[str, int]) -> str:
    """What kinds of alerts there were; and, where there were any, how many were of subscriptions
    that are not known, had to be repaired, or held secrets that were masked."""
    kinds = dict(counts)
    unknown, masked = kinds.pop(UNKNOWN_SUBSCRIPTION, 0), kinds.pop(MASKED, 0)
    later = kinds.pop(LATER_SUBSCRIPTION, 0)
    repaired = {
        name.removeprefix(REPAIRED): kinds.pop(name) for name in counts if name.startswith(REPAIRED)
    }
    line = "kinds: " + (_most_first(kinds) or "none")
    if unknown:
        line += f"; {unknown:,} of unknown subscriptions"
    if later:
        line += f"; {later:,} enriched with what was known of subscriptions only later"
    if repaired:
        line += f"; repaired: {_most_first(repaired)}"
    if masked:
        line += f"; masked: {masked:,} secrets"
    return line


def _most_first(counts: Mapping[str, int]) -> str:
    found = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{count:,} {name}" for name, count in found)


def drift_table(found: Iterable[Seen], since_ms: int = 0) -> Table:
    """How records changed their shape, the latest first; those that were seen since then."""
    rows = table(f"shapes that changed (one record in {ONE_IN} is looked at)")
    rows.add_column("kind", style="bold", overflow="fold")
    rows.add_column("change", overflow="fold")
    rows.add_column("records", justify="right")
    rows.add_column("since")
    recent = [seen for seen in found if seen.last_ms >= since_ms]
    for seen in recent[:_MOST_CHANGES]:
        since = datetime.fromtimestamp(seen.first_ms / 1000, tz=timezone.utc)
        what = str(seen.change).removeprefix(f"{seen.change.shape}: ")
        rows.add_row(
            shown(seen.change.shape), shown(what), f"{seen.records:,}", f"{since:%Y-%m-%d %H:%M}"
        )
    if len(recent) > _MOST_CHANGES:
        rows.add_row("", f"… and {len(recent) - _MOST_CHANGES:,} more")
    return rows


def sinks_table(
    accounts: Iterable[SinkAccount],
    circuits: bool = False,
    arrived: Mapping[str, int] | None = None,
) -> Table:
    """in = delivered + not routed + repeat + dead + owed, a row a sink.

    arrived: what the receivers themselves counted, where somebody asked them.
    """
    rows = table("in = delivered + not routed + repeat + dead + owed")
    rows.add_column("sink", style="bold")
    for column in ("in", "delivered", "not routed", "repeat", "dead", "owed"):
        rows.add_column(column, justify="right")
    rows.add_column("sum")
    if arrived is not None:
        rows.add_column("arrived", justify="right")
    if circuits:
        rows.add_column("circuit")
    for account in accounts:
        o = account.outcomes
        cells = [f"{n:,}" for n in (account.records, o.delivered, o.not_routed, o.repeat)]
        cells.append(f"[yellow]{o.dead:,}[/]" if o.dead else "0")
        cells.append(f"[red]{o.owed:,}[/]" if o.owed else "0")
        cells.append("[green]holds[/]" if account.holds else "[bold red]DOES NOT HOLD[/]")
        if arrived is not None:
            cells.append(f"{arrived.get(account.name, 0):,}")
        if circuits:
            circuit = account.circuit or "-"
            cells.append(circuit if circuit in ("-", "closed") else f"[red]{circuit}[/]")
        rows.add_row(shown(account.name), *cells)
    return rows


def owed_table(accounts: Iterable[SinkAccount], running: bool) -> Table:
    """What sinks are owed, since when, and how paying goes; those that are owed something."""
    rows = table("owed")
    rows.add_column("sink", style="bold")
    rows.add_column("records", justify="right")
    for column in ("since", "paid now", "time left"):
        rows.add_column(column)
    for account in accounts:
        if account.outcomes.owed:
            paying, left = _paying(account, running)
            rows.add_row(
                shown(account.name), f"{account.outcomes.owed:,}", _since(account), paying, left
            )
    return rows


def _since(account: SinkAccount) -> str:
    if not account.since_ms:
        return "-"
    at = datetime.fromtimestamp(account.since_ms / 1000, tz=timezone.utc)
    return f"{at:%m-%d %H:%M}, {lasting(time.time() - at.timestamp())}"


def _paying(account: SinkAccount, running: bool) -> tuple[str | Text, str]:
    """How fast a sink is paid, or why it is not; and how long that will take."""
    if not running:
        return "no, nothing runs", "-"
    if account.circuit not in ("", "closed"):
        return shown(f"no, circuit {account.circuit}"), "-"
    if account.paying <= 0:
        return "not yet", "-"
    left = lasting(account.outcomes.owed / account.paying)
    if account.behind:
        return f"{account.paying:,.0f}/s, but more comes", f"over {left}"
    return f"{account.paying:,.0f}/s", f"about {left}"


def lasting(seconds: float) -> str:
    """About how long, in the largest unit that says it."""
    for unit, most in (("s", 120), ("min", 120), ("h", 48)):
        if seconds < most:
            return f"{max(0.0, seconds):.0f} {unit}"
        seconds /= 24 if unit == "h" else 60
    return f"{seconds:,.0f} days"


def partitions_table(store: StateStore, sinks: Iterable[str]) -> Table:
    """Per partition: what was read, what every sink has settled, and the lag."""
    rows = table("partitions")
    rows.add_column("source", overflow="fold")
    rows.add_column("partition")
    for column in ("read", "settled", "lag (events)", "lag (s)"):
        rows.add_column(column, justify="right")
    rows.add_column("")
    for at in standings(store, sinks):
        rows.add_row(
            shown(at.source),
            shown(at.partition),
            *("-" if n is None else f"{n:,}" for n in (at.read, at.settled, at.lag_events)),
            "-" if at.lag_seconds is None else f"{at.lag_seconds:.1f}",
            shown(at.error, "red"),
        )
    return rows
