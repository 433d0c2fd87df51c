"""The main job on one machine: an embedded hub, local receivers, thousands of varied events, the
real pipeline between them, and the account of every record at the end."""

from __future__ import annotations

import contextlib
import datetime
import itertools
import json
import secrets
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipelines.forward import accounts
from pipelines.local.events import SUBSCRIPTIONS, Made, varied
from pipelines.local.files import MOST_BYTES, TooLargeError, events_in, files_in
from pipelines.local.hub import EmbeddedHub
from pipelines.local.receivers import HecReceiver, SyslogReceiver
from pipelines.monitor import Monitor
from pipelines.report import (
    SinkAccount,
    accounts_of,
    counts_line,
    dead_table,
    drift_table,
    sinks_table,
    write_reports,
)
from pipelines.run import Run
from pipelines.settings import load
from pipelines.tables import shown, table
from transforms.drift import drift_of

__all__ = ["demo"]

_HUB = "defender"
_PARTITIONS = 4
_AT_ONCE = 100
_MOST_ROWS = 12

_SETTINGS = """\
# Written by `alertbeam demo`; `alertbeam validate` and `alertbeam status` read it too.
sources:
  - event_hubs: {{hub: defender, connection_string: "file:secrets/hub"}}
subscriptions: {{file: subscriptions.yaml}}
deduplicate: {{horizon: 24h}}
digests:
  - {{name: storms, window: {{fixed: 5m}}, by: [environment, severity], early: 30s}}
sinks:
  - splunk_hec: {{url: "{hec}", token: "file:secrets/hec"}}
    name: splunk
    where: {{severity: {{at_least: low}}}}
  - syslog: {{address: "{syslog}", format: cef}}
    name: arcsight
    where: {{severity: [high, medium]}}
  - file: {{folder: archive}}
    name: archive
  - file: {{folder: digests}}
    name: digest-file
    send: digests
state: state
"""


def demo(out: Path, events: Path | None, count: int, console: Console) -> int:
    """Run it all in a new folder below `out`; the exit code: 0 only if every sum holds.

    events: the user's own files instead of made-up ones. Raises FileNotFoundError, TooLargeError.
    """
    if events is not None and not any(files_in([events])):
        console.print(shown(f"no files in {events}", "red"))
        return 2
    folder = _new_folder(out)
    with contextlib.ExitStack() as stack:
        hub = stack.enter_context(EmbeddedHub(folder / "hub", {_HUB: _PARTITIONS}))
        token = secrets.token_hex(16)
        hec = stack.enter_context(HecReceiver(token=token, folder=folder / "received"))
        syslog = stack.enter_context(SyslogReceiver(folder=folder / "received"))
        _write(folder / "secrets" / "hub", hub.connection_string(_HUB))
        _write(folder / "secrets" / "hec", token)
        _write(folder / "subscriptions.yaml", _subscriptions())
        _write(
            folder / "settings.yaml",
            _SETTINGS.format(hec=hec.url, syslog=syslog.address),
        )
        console.print(
            f"hub [bold]{_HUB}[/] ({_PARTITIONS} partitions) on 127.0.0.1:{hub.port}, Splunk HEC "
            f"receiver on {hec.address}, syslog receiver on {syslog.address}",
            highlight=False,
        )
        published = _publish(hub, events, count)
        total = sum(published.values())
        if not total:
            console.print(shown(f"no events in {events}", "red"))
            return 2
        what_came = table(f"{total:,} events published")
        what_came.add_column("events", justify="right")
        what_came.add_column("what")
        for what, number in published.most_common(_MOST_ROWS):
            what_came.add_row(f"{number:,}", shown(what))
        if len(published) > _MOST_ROWS:
            rest = published.most_common()[_MOST_ROWS:]
            what_came.add_row(f"{sum(n for _, n in rest):,}", f"… {len(rest)} more")
        console.print(what_came)

        settings = load(folder / "settings.yaml")
        run = Run(
            settings,
            until_caught_up=True,
            say=lambda line: console.print(line, markup=False, soft_wrap=True),
        )
        with Monitor(run, console):
            run.run()

        found = accounts_of(run.store, accounts(settings))
        arrived = {
            "splunk": hec.received,
            "arcsight": syslog.received,
            "archive": sum(1 for _ in _lines(folder / "archive")),
        }
    _show(console, folder, run, found, arrived)
    good = all(a.holds and a.outcomes.delivered == arrived[a.name] for a in found)
    if not good:
        console.print("[bold red]the account does not hold: please report this[/]")
    return 0 if good else 1


def _new_folder(out: Path) -> Path:
    """A folder of this demo's own, also where another began in the same second."""
    name = f"demo-{datetime.datetime.now():%Y%m%d-%H%M%S}"
    for number in itertools.count(2):
        folder = (out / name).absolute()
        try:
            folder.mkdir(mode=0o700, parents=True)
        except FileExistsError:
            name = f"{name.partition('_')[0]}_{number}"
        else:
            break
    (folder / "secrets").mkdir(mode=0o700)
    return folder


def _write(path: Path, text: str) -> None:
    path.touch(mode=0o600)
    path.write_text(text, encoding="utf-8")


def _subscriptions() -> str:
    return "".join(
        f"- {{id: {key}, name: {name}, owner: {owner}, environment: {environment}, "
        f"tags: {{team: {owner}}}, management_group: contoso}}\n"
        for key, (name, owner, environment) in SUBSCRIPTIONS.items()
    )


def _publish(hub: EmbeddedHub, events: Path | None, count: int) -> Counter[str]:
    """Put the events on the hub, over all partitions; how many of what there were."""
    published: Counter[str] = Counter()
    waiting: list[bytes] = []
    size = 0
    for made in varied(count) if events is None else _own(events, hub.max_message_size):
        if waiting and (len(waiting) >= _AT_ONCE or size + len(made.body) > MOST_BYTES):
            hub.publish(_HUB, waiting)
            waiting, size = [], 0
        waiting.append(made.body)
        size += len(made.body)
        published[made.what] += 1
    if waiting:
        hub.publish(_HUB, waiting)
    return published


def _own(events: Path, most: int) -> Iterator[Made]:
    for path in files_in([events]):
        for number, body in enumerate(events_in(path), 1):
            if len(body) > most:
                raise TooLargeError(path, number, len(body))
            yield Made(body, str(path.relative_to(events) if events.is_dir() else path.name))


def _lines(folder: Path) -> Iterator[bytes]:
    for path in sorted(folder.glob("*.ndjson*")):
        with path.open("rb") as file:
            yield from file


def _show(
    console: Console,
    folder: Path,
    run: Run,
    found: list[SinkAccount],
    arrived: dict[str, int],
) -> None:
    console.print()
    console.print(sinks_table(found, arrived=arrived))
    console.print(counts_line(run.counts), highlight=False)
    dead = dead_table(run.store)
    if dead.row_count:
        console.print(dead)
    drift = drift_table(drift_of(run.store))
    if drift.row_count:
        console.print(drift)
    digests = table("digests: storms, 5 minutes by environment and severity")
    for column in ("window", "environment", "severity"):
        digests.add_column(column, no_wrap=True)
    digests.add_column("alerts", justify="right", no_wrap=True)
    digests.add_column("pane", no_wrap=True)
    digests.add_column("for example")
    rows = [json.loads(line)["raw"] for line in _lines(folder / "digests")]
    rows.sort(key=lambda row: (-row["total"], row["start_ms"]))
    for row in rows[:_MOST_ROWS]:
        start, end = (
            datetime.datetime.fromtimestamp(row[name] / 1000, datetime.timezone.utc)
            for name in ("start_ms", "end_ms")
        )
        digests.add_row(
            f"{start:%m-%d %H:%M}-{end:%H:%M}",
            shown(row["key"]["environment"] or "-"),
            row["key"]["severity"],
            f"{row['total']:,}",
            row["timing"],
            shown(row["samples"][0]["title"][:32]) if row["samples"] else "",
        )
    console.print(digests)
    if len(rows) > _MOST_ROWS:
        console.print(f"… and {len(rows) - _MOST_ROWS} more")
    # The folder on a line of its own: a table would break it where the terminal is narrow.
    page = write_reports(run.settings, run.store)
    console.print(Text(f"\nwhere it lies: {folder}"), soft_wrap=True)
    where = Table(show_header=False, box=None)
    for path, what in (
        ("settings.yaml", "the settings of this run"),
        ("received/", "what the Splunk and syslog receivers got"),
        ("archive/", "every alert, as NDJSON"),
        ("digests/", "the digests"),
        ("state/", "accounts, checkpoints, dead letters with their original bytes"),
        (str(page.relative_to(folder)), "the account as a page"),
    ):
        where.add_row(path, what)
    console.print(where)
