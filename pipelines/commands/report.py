"""`alertbeam report`: the account of every record, on paper; and recomputed."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipelines.commands._log import set_up

if TYPE_CHECKING:
    from collections import Counter

    from pipelines.report import Report
    from pipelines.report.verify import Arrived

__all__ = ["report"]

_MOST_LISTED = 20
_LOOKS = 5  # beside a run, whose figures move meanwhile


def report(
    settings: Annotated[
        Path, typer.Option("--config", "-c", help="The settings file.", metavar="SETTINGS")
    ] = Path("settings.yaml"),
    json: Annotated[
        str,
        typer.Option("--json", metavar="FILE", help="Write the report as JSON there; - prints it."),
    ] = "",
    html: Annotated[str, typer.Option("--html", metavar="FILE", help="Write the page there.")] = "",
    verify: Annotated[
        bool,
        typer.Option("--verify", help="Recompute all of it from receipts, dead letters and IOUs."),
    ] = False,
    arrived: Annotated[
        list[str] | None,
        typer.Option(
            "--arrived",
            metavar="SINK=FILE",
            help="Compare with what the sink's receiver has: a file of event ids, one a line; - "
            "is standard input. Reads the hub again.",
        ),
    ] = None,
) -> None:
    """Write the account of every record: a page to show to an auditor, and
    the same as JSON. Without FILE, both go to `reports/` in the state folder,
    as at the end of every run.

    With `--verify` no sum is trusted: the receipts must tile every range of
    events and add up, what is dead must lie in dead letters and what is owed
    in IOUs. With `--arrived`, the hub's events are read again and routed as
    the settings say, to find which ids the receiver misses, has without
    reason, or has twice (which at-least-once allows).

    Exit code 0: all of it holds; 1: it does not; 2: the settings, or a file
    of ids, are wrong. Gaps are told loudly, and are no fault of the account.

    [dim]$ alertbeam report -c settings.yaml[/dim]
    [dim]$ alertbeam report --verify --arrived splunk=ids.txt[/dim]
    [dim]$ alertbeam report --json - | jq .holds[/dim]
    """
    set_up()  # before Beam is imported
    from rich.console import Console

    from pipelines.forward import accounts
    from pipelines.report import as_json, keep
    from pipelines.report import report as make
    from pipelines.report.page import page
    from pipelines.settings import HistorySettings, load
    from transforms.state_store import StateStore

    loaded = load(settings, HistorySettings)
    store = StateStore(str(loaded.state))
    console = Console(stderr=json == "-")
    if not any(store.list("accounts")):
        console.print(
            f"never run: the state folder {store.folder} holds no account yet",
            markup=False, soft_wrap=True,
        )  # fmt: skip
        raise typer.Exit(1)
    names = accounts(loaded)
    ids = _ids(arrived or [], names)
    verification = _verified(loaded, store, ids, console) if verify or ids else None
    made = make(loaded, store, verification)
    if json == "-":
        sys.stdout.buffer.write(as_json(made))
    elif json:
        Path(json).write_bytes(as_json(made))
    if html:
        Path(html).write_text(page(made), encoding="utf-8")
    written = [name for name in (json, html) if name not in ("", "-")]
    if not (json or html):
        written = [str(keep(store, made))]
    _tell(made, console)
    for name in written:
        console.print(f"\nwritten: {name}", markup=False, highlight=False, soft_wrap=True)
    raise typer.Exit(0 if made.holds else 1)


def _ids(arrived: list[str], names: tuple[str, ...]) -> dict[str, Counter[bytes]]:
    from pipelines.report.arrived import ArrivedError, read_ids

    found: dict[str, Counter[bytes]] = {}
    for each in arrived:
        sink, equals, file = each.partition("=")
        if not (equals and file):
            raise typer.BadParameter(f"{each!r} is not SINK=FILE", param_hint="--arrived")
        if sink not in names:
            raise typer.BadParameter(
                f"there is no sink {sink!r} that takes alerts; there are: {', '.join(names)}",
                param_hint="--arrived",
            )
        with ExitStack() as opened:
            try:
                lines = sys.stdin.buffer if file == "-" else opened.enter_context(
                    Path(file).open("rb")
                )  # fmt: skip
                found[sink] = read_ids(lines, "standard input" if file == "-" else file)
            except (ArrivedError, OSError) as error:
                raise typer.BadParameter(str(error), param_hint="--arrived") from None
    return found


def _verified(settings: Any, store: Any, ids: dict[str, Counter[bytes]], console: Any) -> Any:
    import time

    from pipelines.forward import accounts
    from pipelines.report import is_running
    from pipelines.report.arrived import verify_arrived
    from pipelines.report.verify import Verification, verify

    for _ in range(_LOOKS):
        checks = verify(store, accounts(settings))
        if not (any(check.faults for check in checks) and is_running(store)):
            break
        time.sleep(0.2)
    found: list[Arrived] = []
    unchecked: list[str] = []
    if ids:
        found, check, unchecked = verify_arrived(
            settings, store, ids, lambda line: console.print(line, markup=False, highlight=False)
        )
        checks.append(check)
    holds = not any(check.faults for check in checks) and all(each.holds for each in found)
    return Verification(holds, checks, found, unchecked)


def _tell(made: Report, console: Any) -> None:
    from pipelines.report.tables import lasting
    from pipelines.tables import shown, table
    from schemas.receipt import Outcomes

    from pipelines.report import SinkAccount, sinks_table  # isort: skip

    def lines(found: list[str], style: str = "") -> None:
        for line in found[:_MOST_LISTED]:
            console.print(shown(line, style, 1_000), soft_wrap=True)
        if len(found) > _MOST_LISTED:
            console.print(f"… and {len(found) - _MOST_LISTED:,} more", style=style)

    rows = [
        SinkAccount(s.name, s.counts.records, Outcomes(*(getattr(s.counts, f) for f in _FIELDS)))
        for s in made.sinks
    ]
    console.print(sinks_table(rows))
    lines(
        [
            f"{sink.name}, {at.source}/{at.partition}: {fault}"
            for sink in made.sinks
            for at in sink.partitions
            for fault in at.faults
        ],
        "bold red",
    )
    if made.gaps:
        console.print(f"\nGAPS: {made.never_read:,} events were never read", style="bold red")
        lines(
            [
                f"{gap.source}/{gap.partition}: events {gap.first:,} to {gap.last:,}: {gap.why}"
                for gap in made.gaps
            ],
            "red",
        )
    else:
        console.print("\nno gaps: every event was read", highlight=False)
    if made.unread:
        console.print("\nNOT READ of history files:", style="bold red")
        lines([f"{each.url} from byte {each.offset:,}: {each.why}" for each in made.unread], "red")
    dead = sum(entry.records for entry in made.dead)
    console.print(f"{dead:,} dead letters", highlight=False)
    margins = [debt.margin_seconds for debt in made.owed if debt.margin_seconds is not None]
    if made.owed_records:
        left = f"; the hub keeps the oldest for another {lasting(min(margins))}" if margins else ""
        if margins and min(margins) <= 0:
            left = "; the hub has deleted the oldest already"
        console.print(f"{made.owed_records:,} records are owed{left}", style="yellow")
    said = made.verification
    if said is None:
        return
    checks = table("verified")
    checks.add_column("statement")
    checks.add_column("checked", justify="right")
    checks.add_column("result")
    for check in said.checks:
        faults = f"[bold red]{len(check.faults):,} FAULTS[/]" if check.faults else "[green]holds[/]"
        checks.add_row(check.what, f"{check.checked:,}", faults)
    console.print(checks)
    lines([fault for check in said.checks for fault in check.faults], "red")
    lines([note for check in said.checks for note in check.notes], "dim")
    if said.arrived:
        ids = table("arrived, by the receivers' own ids")
        ids.add_column("sink", style="bold")
        for column in ("must have", "has", "missing", "unexpected", "twice"):
            ids.add_column(column, justify="right")
        ids.add_column("result")
        for it in said.arrived:
            good = "[green]holds[/]" if it.holds else "[bold red]DOES NOT HOLD[/]"
            counts = (it.expected, it.ids, len(it.missing), len(it.unexpected), it.twice)
            ids.add_row(shown(it.sink), *(f"{n:,}" for n in counts), good)
        console.print(ids)
    for it in said.arrived:
        lines(
            [
                f"{it.sink} misses {one.id}: {one.source}/{one.partition}, event {one.sequence}, "
                f"record {one.index}"
                for one in it.missing
            ],
            "red",
        )
        lines([f"{it.sink} has {one}, which no event accounts for" for one in it.unexpected], "red")
        more = {
            "need not be there: a copy of them is dead or owed": it.excused,
            "are of events outside of the account: not settled yet, or before it began": it.early,
            "cannot be judged: they may be of events that could not be read": it.undecided,
        }
        lines([f"{it.sink}: {n:,} ids {what}" for what, n in more.items() if n], "dim")
    if said.unchecked:
        console.print("\nnot checked:", style="yellow")
        lines(said.unchecked, "yellow")


_FIELDS = ("delivered", "not_routed", "repeat", "dead", "owed")
