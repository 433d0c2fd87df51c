"""`alertbeam explain`: what becomes of these events, and why?"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipelines.commands._log import set_up

if TYPE_CHECKING:
    from rich.console import Console

    from pipelines.explain import Explained

__all__ = ["explain"]

_PREVIEW = 2_000  # characters of what a sink is sent
_FACT = 1_000


def explain(
    file: Annotated[
        Path,
        typer.Argument(
            help="Events: JSON, JSON lines, text, Event Hubs Capture, dead letters; - is stdin.",
            metavar="FILE",
        ),
    ],
    settings: Annotated[
        Path | None,
        typer.Option("--config", "-c", help="Say what each sink of these settings makes of it."),
    ] = None,
    form: Annotated[
        str,
        typer.Option(
            "--as",
            help="Write each record so: ocsf, ecs, cef, leef, … (a wrong one lists all).",
            metavar="FORMAT",
        ),
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a record.")] = False,
    drift: Annotated[
        bool, typer.Option("--drift", help="List what differs from the shapes that are known.")
    ] = False,
) -> None:
    """Show what each event is taken for, and what becomes of it.

    Its kind and why, its identity, times and subscription, what it
    mentions, what was repaired or masked; and with settings, for each
    sink, what it is sent, or why not. Nothing is sent, nothing is stored.

    Exit code 0: every record was understood; 1: some are dead letters.

    [dim]$ alertbeam explain alerts.jsonl[/dim]
    [dim]$ alertbeam explain - -c settings.yaml < alert.json[/dim]
    [dim]$ alertbeam explain alerts.jsonl --as ocsf | jq .[/dim]
    [dim]$ alertbeam explain export.json --drift[/dim]
    """
    set_up()  # before Beam is imported
    from rich.console import Console

    from pipelines import explain as logic
    from schemas.formats import FORMATS

    if form and form not in FORMATS:
        raise typer.BadParameter(f"no format {form!r}: there are {', '.join(FORMATS)}")
    if bool(form) + as_json + drift > 1:
        raise typer.BadParameter("--as, --json and --drift exclude each other")
    loaded = None
    if settings is not None:
        from pipelines.settings import load

        loaded = load(settings)
    data = sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
    explainer = logic.Explainer(loaded)
    console = Console()
    dead = 0
    for body in logic.bodies_in(data):
        for it in explainer.explain(body):
            dead += it.alert is None
            if as_json:
                _line(json.dumps(logic.as_json(it), ensure_ascii=False).encode("utf-8", "replace"))
            elif form:
                _formatted(console, it, form)
            elif not drift:
                _show(console, it)
    if drift:
        _show_drift(console, explainer.drift)
    raise typer.Exit(1 if dead else 0)


def _line(data: bytes) -> None:
    sys.stdout.buffer.write(data + b"\n")
    sys.stdout.buffer.flush()


def _formatted(console: Console, it: Explained, form: str) -> None:
    from schemas.formats import FORMATS

    if it.alert is None:
        typer.echo(f"record {it.number} is a dead letter: {it.reason}", err=True)
        return
    try:
        said = FORMATS[form].say(it.alert)
    except ValueError as error:
        typer.echo(f"record {it.number} cannot be said so: {error}", err=True)
        return
    if console.is_terminal:
        _payload(console, said)
    else:
        _line(said)


def _payload(console: Console, said: bytes, most: int = 0) -> None:
    """A record as a sink gets it: JSON is indented and coloured."""
    from rich.json import JSON

    from pipelines.tables import shown

    text = said.decode("utf-8", "replace")
    try:
        pretty = json.dumps(json.loads(text), indent=2, ensure_ascii=False)
    except ValueError:
        pretty = ""
    if pretty and not (most and len(pretty) > most):
        console.print(JSON.from_data(json.loads(_harmless(pretty)), ensure_ascii=False))
        return
    cut = f" ({len(said):,} bytes)" if most and len(text) > most else ""
    line = shown(text, most=most or len(text))
    console.print(line, cut, sep="", soft_wrap=True, highlight=False)


def _harmless(pretty: str) -> str:
    """JSON whose strings do nothing to a terminal."""
    return "".join(
        each if each == "\n" or each.isprintable() else f"\\u{ord(each):04x}"
        for each in pretty
        if ord(each) < 0x10000 or each.isprintable()
    )


def _show(console: Console, it: Explained) -> None:
    from rich.table import Table

    from pipelines.tables import shown

    alert = it.alert
    if alert is None:
        console.print(f"\n[bold red]{it.number}  dead letter[/]", highlight=False)
        console.print("   ", shown(it.reason), highlight=False)
        console.print("   ", shown(it.raw[:200].decode("utf-8", "replace"), "dim"), soft_wrap=True)
        return
    title = shown(alert.title or "(no title)", "bold")
    console.print(f"\n[bold cyan]{it.number}  {alert.kind}[/]  ", title, sep="", highlight=False)
    rows = Table.grid(padding=(0, 2, 0, 0))
    rows.add_column(style="dim", no_wrap=True, min_width=14)
    rows.add_column(overflow="fold")
    for name, value, style in _facts(it, alert):
        rows.add_row(f"   {name}", shown(value, style, _FACT))
    console.print(rows)
    for fate in it.fates:
        if fate.why:
            why = shown(fate.why)
            console.print(f"   [red]✗[/] [bold]{fate.sink}[/] ({fate.kind}):", why, highlight=False)
        else:
            said = f"   [green]✓[/] [bold]{fate.sink}[/] ({fate.kind}) is sent:"
            console.print(said, highlight=False)
            _payload(console, fate.payload, _PREVIEW)


def _facts(it: Explained, alert: Any) -> list[tuple[str, str, str]]:
    """Name, value and style of everything that is worth telling."""
    from pipelines.explain import rfc3339

    found = it.details
    severities = {"high": "red", "critical": "bold red", "medium": "yellow"}
    times = [rfc3339(ms) or "" for ms in (alert.event_ms, alert.start_ms, alert.end_ms)]
    activity = f" (activity {times[1] or '…'} to {times[2] or '…'})" if times[1] or times[2] else ""
    of = alert.subscription
    known = f" {of.name}, {of.owner or 'no owner'}" if of and of.known else ""
    unknown = " (not in the subscriptions file)" if of and not of.known else ""
    facts = [
        ("told by", it.told_by, ""),
        ("identity", alert.entity, ""),
        ("version", alert.version, ""),
        ("event id", alert.event_id, ""),
        ("time", (times[0] or "none of its own: the enqueued time is taken") + activity, ""),
        (
            "severity",
            _both(alert.severity, alert.severity_original),
            severities.get(alert.severity, ""),
        ),
        ("status", _both(alert.status, alert.status_original), ""),
        ("subscription", (alert.subscription_id or "none") + known + unknown, ""),
        ("resources", "\n".join(alert.resource_ids), ""),
        ("tactics", ", ".join(alert.tactics), ""),
        ("techniques", ", ".join(alert.techniques), ""),
        ("product", f"{alert.product} ({alert.vendor})" if alert.product else "", ""),
        ("alert type", alert.alert_type, ""),
        ("action", " ".join(filter(None, (found.action, found.outcome))), ""),
        *((name, ", ".join(getattr(found, name)), "") for name in _MENTIONED),
        ("related", ", ".join(found.related), ""),
        ("further", ", ".join(f"{name}={value}" for name, value in found.attributes.items()), ""),
        ("link", alert.link, ""),
        ("repaired", ", ".join(alert.repairs), "yellow"),
        ("masked", f"{alert.masked} secrets" if alert.masked else "", "yellow"),
        ("shape", "\n".join(str(change) for change in it.changes), "yellow"),
        (
            "repeat",
            f"of record {it.repeat_of}: sinks get it once" if it.repeat_of else "",
            "yellow",
        ),
        ("dead letter", "\n".join(it.died), "red"),
    ]
    return [
        (name, line, style)
        for name, value, style in facts
        for name, line in _lines(name, value)
        if line
    ]


_MENTIONED = ("hosts", "users", "ips", "urls", "hashes")


def _lines(name: str, value: str) -> list[tuple[str, str]]:
    """A table's row a line: a text of our own may have some, one of an event has none left."""
    return [(name if not at else "", line) for at, line in enumerate(value.split("\n"))]


def _both(ours: str, original: str) -> str:
    return f"{ours} ({original})" if original and original.lower() != ours else ours


def _show_drift(console: Console, found: dict[Any, int]) -> None:
    from pipelines.tables import shown, table

    if not found:
        console.print("nothing differs from the shapes that are known")
        return
    rows = table("differs from the shapes that are known")
    rows.add_column("kind", style="bold", overflow="fold")
    rows.add_column("change", overflow="fold")
    rows.add_column("records", justify="right")
    for change, count in sorted(found.items(), key=lambda item: (-item[1], item[0])):
        rows.add_row(
            shown(change.shape), shown(str(change).removeprefix(f"{change.shape}: ")), f"{count:,}"
        )
    console.print(rows)
