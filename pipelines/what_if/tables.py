"""A dry run and a comparison as tables for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from pipelines.report.tables import lasting
from pipelines.tables import shown, table
from pipelines.what_if.found import Comparison, DryRun, Field, Ingest
from schemas.alert import SEVERITIES

__all__ = ["changes", "comparison_tables", "dry_run_tables", "gb", "size"]

_LISTED = 20


def dry_run_tables(found: DryRun) -> list[Table]:
    """What would go where, for a terminal."""
    flow = found.flow
    came = _columns(table("in history"), "records", "dead letters", "not chosen", "repeats")
    _columns(came, "alerts", "earliest", "latest")
    came.add_row(
        *(f"{n:,}" for n in (flow.records, flow.dead, flow.not_chosen, flow.repeats, flow.alerts)),
        *(f"{at:%Y-%m-%d %H:%M}" if at else "-" for at in (found.earliest, found.latest)),
    )
    rows = _by(
        "sink", f"what would go where, in at least {lasting(found.seconds)} (nothing was sent)"
    )
    _columns(rows, "alerts", "not routed", "has already", "dead", "encoded", "requests", "at least")
    _columns(rows, "because of", right=False)
    for it in found.sinks:
        if it.note:
            rows.add_row(shown(it.name), *["-"] * 7, shown(it.note))
        else:
            rows.add_row(
                shown(it.name),
                *(f"{n:,}" for n in (it.alerts, it.not_routed, it.already)),
                f"[yellow]{it.dead:,}[/]" if it.dead else "0",
                size(it.bytes), f"{it.requests:,}", lasting(it.seconds), shown(it.bound),
            )  # fmt: skip
    made = [came, rows]
    loads = [it for it in found.sinks if it.alerts]
    if loads:
        ways = _by("sink", "by severity")
        _columns(ways, *SEVERITIES[::-1])
        for it in loads:
            counts = (it.by_severity.get(name, 0) for name in SEVERITIES[::-1])
            ways.add_row(shown(it.name), *(f"{n:,}" for n in counts))
        kinds = _by("kind", "by kind")
        _columns(kinds, "history", *(it.name for it in loads))
        for kind, count in found.by_kind.items():
            counts = (it.by_kind.get(kind, 0) for it in loads)
            kinds.add_row(kind, f"{count:,}", *(f"{n:,}" for n in counts))
        made += [ways, kinds]
    ingests = [(it.name, it.ingest) for it in found.sinks if it.ingest]
    if ingests:
        made.append(_ingest_table(ingests))
    reasons = [("parse", *each) for each in found.dead_reasons.items()]
    reasons += [(it.name, *each) for it in found.sinks for each in it.reasons.items()]
    if reasons:
        dead = table("would be dead letters")
        dead.add_column("step", style="bold")
        _columns(dead, "records")
        _columns(dead, "reason", right=False)
        for step, reason, count in reasons[:_LISTED]:
            dead.add_row(shown(step), f"{count:,}", shown(reason))
        made.append(dead)
    return made + _unread_table(found)


def _ingest_table(ingests: Sequence[tuple[str, Ingest]]) -> Table:
    rows = _by("sink", "ingest, which counts on the day of the replay")
    _columns(rows, "GB in all", "a day of history", "largest day")
    _columns(rows, "on", "of", right=False)
    for name, it in ingests:
        figures = (gb(n) for n in (it.gb, it.gb_a_day, it.largest_day_gb))
        rows.add_row(shown(name), *figures, it.largest_day, it.of)
    return rows


def _unread_table(found: DryRun | Comparison) -> list[Table]:
    if not found.unread_places:
        return []
    rows = table(f"could not be read: {found.unread_places:,}")
    _columns(rows, "file", right=False)
    _columns(rows, "at byte", "bytes")
    _columns(rows, "why", right=False)
    for it in found.unread[:_LISTED]:
        amount = f"{it.bytes:,}" if it.bytes >= 0 else "not known"
        rows.add_row(shown(it.file), f"{it.offset:,}", amount, shown(it.why, "red"))
    if found.unread_places > _LISTED:
        rows.add_row("…", "", "", f"and {found.unread_places - _LISTED:,} more")
    return [rows]


def changes(names: tuple[str, str]) -> dict[str, str]:
    """What becomes of an alert, in words."""
    return {
        "same": "unchanged",
        "different": "otherwise",
        "only_a": f"only by {names[0]}",
        "only_b": f"only by {names[1]}",
    }


def comparison_tables(found: Comparison) -> list[Table]:
    """What would change, for a terminal."""
    names = changes(found.names)
    rows = _by("sink", "what each sink gets")
    _columns(rows, *names.values(), f"bytes by {found.names[0]}", f"by {found.names[1]}")
    for it in found.sinks:
        counts = [it.same, it.different, it.only_a, it.only_b]
        cells = [f"[yellow]{n:,}[/]" if n and at else f"{n:,}" for at, n in enumerate(counts)]
        rows.add_row(shown(it.name), *cells, size(it.bytes_a), size(it.bytes_b))
    made = [rows]
    settings = [("", each) for each in found.settings]
    settings += [(it.name, each) for it in found.sinks for each in it.settings]
    if settings:
        made.append(_fields_table("settings that differ", "sink", settings, found.names))
    if found.groups:
        groups = _by("sink", "why, and which")
        _columns(groups, "delivered", "because of", "kind", right=False)
        _columns(groups, "alerts")
        _columns(groups, "for example", right=False)
        for group in found.groups[:_LISTED]:
            example = group.examples[0] if group.examples else None
            why = example.why if example and example.why != group.rule else ""
            said = f"{example.title} ({why or example.event_id})" if example else ""
            groups.add_row(
                shown(group.sink), shown(names[group.change]), shown(group.rule), group.kind,
                f"{group.alerts:,}", shown(said),
            )  # fmt: skip
        if len(found.groups) > _LISTED:
            rest = sum(group.alerts for group in found.groups[_LISTED:])
            groups.add_row("…", "", "", "", f"{rest:,}", "in the page and the JSON")
        made.append(groups)
    examples = [
        (f"{group.sink}, {group.kind}", each)
        for group in found.groups
        if group.change == "different" and group.examples
        for each in group.examples[0].fields
    ]
    if examples:
        made.append(_fields_table("said otherwise", "for example", examples, found.names))
    return made + _unread_table(found)


def _fields_table(
    title: str, of: str, fields: Sequence[tuple[str, Field]], names: tuple[str, str]
) -> Table:
    rows = _by(of, title)
    _columns(rows, "name", *names, right=False)
    for name, it in fields[:_LISTED]:
        values = ("not there" if text is None else text for text in (it.a, it.b))
        rows.add_row(shown(name), shown(it.name), *map(shown, values))
    if len(fields) > _LISTED:
        rows.add_row("…", f"{len(fields) - _LISTED:,} more", "", "")
    return rows


def size(count: int) -> str:
    left = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if left < 1000:
            return f"{left:,.0f} B" if unit == "B" else f"{left:,.1f} {unit}"
        left /= 1000
    return f"{left:,.1f} TB"


def gb(value: float) -> str:
    return f"{value:,.2f}" if value >= 0.01 or not value else "< 0.01"


def _by(of: str, title: str) -> Table:
    """A row for each of something."""
    rows = table(title)
    rows.add_column(of, style="bold", overflow="fold")
    return rows


def _columns(rows: Table, *names: str, right: bool = True) -> Table:
    for name in names:
        rows.add_column(shown(name), justify="right" if right else "left", overflow="fold")
    return rows
