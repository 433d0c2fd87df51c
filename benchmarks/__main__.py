"""`python -m benchmarks [NAME…] [--long] [--json FILE]`."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.alerts import bodies
from benchmarks.figures import Figure

_NAMES = (
    "steps",
    "understand",
    "tax",
    "sinks",
    "stream",
    "history",
    "measures",
    "flink",
    "scaling",
)


def _figures(name: str, long: bool) -> Iterable[Figure]:
    if name == "steps":
        from benchmarks.steps import steps

        return steps()
    if name == "understand":
        from benchmarks.understand import understanding

        return understanding()
    if name == "tax":
        from benchmarks.tax import tax

        return tax()
    if name == "sinks":
        from benchmarks.sinks import throughput

        return throughput()
    if name == "measures":
        from benchmarks.measures import measures

        return measures()
    if name == "flink":
        from benchmarks.flink import flink

        return flink()
    if name == "scaling":
        from benchmarks.scaling import scaling

        return scaling()
    if name == "history":
        from benchmarks.history import history

        return history(5_000_000 if long else 1_000_000)
    from benchmarks.stream import stream

    return stream(long)


def _machine() -> dict[str, Any]:
    """What the figures hang on; `json_loads_us` tells machines, and busy hours, apart."""
    body = bodies(1)[0]
    took = []
    for _ in range(2_000):
        began = time.process_time()
        json.loads(body)
        took.append(time.process_time() - began)
    return {
        "cores": len(os.sched_getaffinity(0)),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "load": round(os.getloadavg()[0], 1),
        "alert_bytes": len(body),
        "json_loads_us": round(statistics.median(took) * 1e6, 1),
    }


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(_NAMES)}: all")
    parser.add_argument(
        "--long", action="store_true", help="memory after 5 minutes, not 2; 5 million of history"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    given = parser.parse_args()
    if unknown := set(given.names) - set(_NAMES):
        parser.error(f"there is no {', '.join(sorted(unknown))}; there is {', '.join(_NAMES)}")
    warnings.simplefilter("ignore")
    console = Console()
    machine = _machine()
    console.print(
        "{cores} cores, {machine}, Python {python}, load {load};".format(**machine), end=" "
    )
    console.print(
        "json.loads of an alert of {alert_bytes:,} B: {json_loads_us} µs".format(**machine)
    )
    found: dict[str, list[Figure]] = {}
    for name in _NAMES:
        if given.names and name not in given.names:
            continue
        with console.status(f"measuring {name}"):
            found[name] = list(_figures(name, given.long))
        table = Table(title=name, title_justify="left")
        table.add_column("what")
        table.add_column("figure", justify="right")
        table.add_column("")
        for figure in found[name]:
            table.add_row(figure.what, _number(figure.value), figure.unit)
        console.print(table)
    if given.json:
        report = {"machine": machine} | {
            name: [figure._asdict() for figure in figures] for name, figures in found.items()
        }
        given.json.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
