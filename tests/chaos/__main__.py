"""`python -m tests.chaos`: play plans, a line each, and say at the end what went wrong."""

from __future__ import annotations

import itertools
import json
import math
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from pipelines.tables import table
from tests.chaos.ground import SINKS
from tests.chaos.plan import KINDS, plan
from tests.chaos.play import Nursery, Result, play

__all__ = ["line", "summary"]


def line(result: Result) -> str:
    """One plan, told."""
    faults = sum(result.faults.values())
    twice = " ".join(f"{sink} {count}" for sink, count in result.twice.items() if count)
    passed = max(result.passed.values(), default=0)
    recovered = max(result.recovered.values(), default=0.0)
    told = (
        f"{result.kind} {result.seed}: {'WRONG' if result.wrong else 'well'}, "
        f"{result.seconds:.1f} s, {faults} faults, {result.alerts:,} records, "
        f"again after {recovered:.1f} s, through after {result.caught_up:.1f} s"
    )
    told += f", twice: {twice}" if twice else ""
    return told + (f", repeats passed: {passed}" if passed else "")


def summary(results: list[Result]) -> list[Table]:
    """By kind what came of the plans, and how many of each fault there were."""
    kinds = _table("plans", "kind", "plans", "wrong", "records", "s a plan", "again after", "most")
    for kind in dict.fromkeys(result.kind for result in results):
        found = [result for result in results if result.kind == kind]
        again = sorted(max(r.recovered.values(), default=0.0) for r in found)
        kinds.add_row(
            kind,
            str(len(found)),
            str(sum(bool(r.wrong) for r in found)),
            f"{sum(r.alerts for r in found):,}",
            f"{sum(r.seconds for r in found) / len(found):.1f}",
            f"{again[len(again) // 2]:.1f} s",
            f"{again[-1]:.1f} s",
        )
    sinks = _table("sinks", "sink", "lost", "twice", "in a plan at most", "repeats passed")
    for sink in SINKS:
        twice = [result.twice.get(sink, 0) for result in results]
        lost = sum(f"{sink}: " in w and " lost: " in w for r in results for w in r.wrong)
        passed = sum(result.passed.get(sink, 0) for result in results)
        sinks.add_row(
            sink, f"in {lost} plans" if lost else "0", f"{sum(twice):,}",
            f"{max(twice, default=0):,}", f"{passed:,}",
        )  # fmt: skip
    faults = _table("faults", "fault", "times")
    total: Counter[str] = Counter()
    for result in results:
        total.update(result.faults)
    for name, count in sorted(total.items()):
        if count:
            faults.add_row(name, str(count))
    return [kinds, sinks, faults]


def _table(title: str, first: str, *others: str) -> Table:
    rows = table(title)
    rows.add_column(first, style="bold")
    for name in others:
        rows.add_column(name, justify="right")
    return rows


def chaos(
    kind: Annotated[
        list[str] | None,
        typer.Option(help=f"What goes wrong: {', '.join(KINDS)}. May be said again."),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Of the first plan. Without: a new one, printed.")
    ] = None,
    plans: Annotated[int, typer.Option(min=1, help="How many of each kind, one seed a plan.")] = 1,
    minutes: Annotated[
        float | None, typer.Option(help="Instead of --plans: as many as begin in this time.")
    ] = None,
    folder: Annotated[
        Path | None, typer.Option(help="Where plans are played; those that fail stay.")
    ] = None,
    results: Annotated[Path | None, typer.Option(help="A file for the results, as JSON.")] = None,
    show: Annotated[bool, typer.Option("--show", help="Print the plans, and play none.")] = False,
) -> None:
    """Play seeded plans of faults against real processes on this machine, and
    judge by the receivers' own records: nothing lost, what may come twice
    only twice, and an account that agrees.

    A plan that fails prints its seed and keeps its folder. The same kind and
    seed make the same plan again.

    [dim]$ python -m tests.chaos --kind kill --plans 200[/dim]
    [dim]$ python -m tests.chaos --kind hub --seed 17[/dim]
    [dim]$ python -m tests.chaos --minutes 10[/dim]
    """
    console = Console()
    kinds = kind or list(KINDS)
    if unknown := [name for name in kinds if name not in KINDS]:
        raise typer.BadParameter(f"{unknown[0]} is none of {', '.join(KINDS)}")
    first = seed if seed is not None else int(time.time()) % 1_000_000
    seeds = itertools.count(first) if minutes else range(first, first + plans)
    chosen = (plan(name, number) for number in seeds for name in kinds)
    if show:
        for each in itertools.islice(chosen, plans * len(kinds)):
            console.print_json(json.dumps(each.as_dict()))
        return
    console.print(f"seed {first}")
    where = folder or Path(tempfile.mkdtemp(prefix="chaos-"))
    done: list[Result] = []
    until = time.monotonic() + (minutes * 60 if minutes else math.inf)
    with Nursery() as nursery:
        for each in itertools.takewhile(lambda _: time.monotonic() < until, chosen):
            result = play(each, nursery, where / f"{each.kind}-{each.seed}")
            done.append(result)
            console.print(line(result), markup=False, highlight=False, soft_wrap=True)
            for told in result.wrong:
                console.print(f"    {told}", markup=False, highlight=False, soft_wrap=True)
            if result.wrong:
                console.print(f"    see {result.folder}", markup=False, soft_wrap=True)
            if results:
                results.write_text(json.dumps([_plain(r) for r in done], indent=1))
    for rows in summary(done):
        console.print(rows)
    if wrong := [result for result in done if result.wrong]:
        for result in wrong:
            console.print(f"wrong: --kind {result.kind} --seed {result.seed}, {result.folder}")
    raise typer.Exit(1 if any(result.wrong for result in done) else 0)


def _plain(result: Result) -> dict[str, Any]:
    return {**vars(result), "faults": {name: n for name, n in result.faults.items() if n}}


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, rich_markup_mode="rich")
    app.command()(chaos)
    app()
