"""`alertbeam replay`: history through the same graph, into the same sinks."""

from __future__ import annotations

import contextlib
import gc
import os
import re
import signal
import subprocess
import sys
import threading
import time
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from pipelines.commands._log import set_up
from pipelines.memory import stay_small

__all__ = ["replay"]

_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"


def replay(
    paths: Annotated[
        list[str],
        typer.Argument(
            help="Folders, files or patterns: local, azfs://, s3://, gs://.", metavar="PATH…"
        ),
    ],
    settings: Annotated[
        Path, typer.Option("--config", "-c", help="The settings file.", metavar="SETTINGS")
    ] = Path("settings.yaml"),
    start: Annotated[
        str, typer.Option("--from", help="Only alerts from this time on.", metavar="TIME")
    ] = "",
    stop: Annotated[
        str, typer.Option("--to", help="Only alerts before this time.", metavar="TIME")
    ] = "",
    by: Annotated[
        Literal["event", "enqueued"], typer.Option(help="Which time `--from` and `--to` mean.")
    ] = "event",
    where: Annotated[
        list[str] | None,
        typer.Option(
            help="Only alerts with this: severity=high,medium, kind=defender_*, tag.team=red, …",
            metavar="KEY=VALUE",
        ),
    ] = None,
    sink: Annotated[
        list[str] | None, typer.Option(help="Only into this sink; may be repeated.", metavar="NAME")
    ] = None,
    name: Annotated[
        str, typer.Option(help="What the replay is called; else made from the rest.")
    ] = "",
    template: Annotated[
        str, typer.Option(help="Event Hubs Capture's own path template, if it is not the default.")
    ] = "",
    rate: Annotated[
        float, typer.Option(help="Alerts a second, at most.", min=0, metavar="N")
    ] = 0.0,
    workers: Annotated[
        int, typer.Option(help="Processes that share the files.", min=1, max=64, metavar="N")
    ] = 1,
    patience: Annotated[
        str,
        typer.Option(help="How long sinks may take nothing at all.", metavar="DURATION"),
    ] = "10m",
    again: Annotated[
        bool, typer.Option("--again", help="Begin anew, and also send what sinks have already.")
    ] = False,
    since_last: Annotated[
        bool, typer.Option("--since-last", help="For schedules: only what is new; nothing is fine.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Send nothing: say what would go where.")
    ] = False,
    compare: Annotated[
        Path | None,
        typer.Option(
            help="Send nothing: say what other settings would change.", metavar="SETTINGS"
        ),
    ] = None,
    page: Annotated[
        Path | None, typer.Option(help="Write the comparison as a page.", metavar="FILE")
    ] = None,
    then_live: Annotated[
        bool,
        typer.Option(
            "--then-live", help="Capture up to what the hub has, then the hub, without a gap."
        ),
    ] = False,
    runner: Annotated[
        Literal["DirectRunner", "SparkRunner", "FlinkRunner"],
        typer.Option(help="Where it runs: on this machine, or on a cluster."),
    ] = "DirectRunner",
    cluster: Annotated[
        str,
        typer.Option(help="local, local[4], or the master's address.", metavar="HOST:PORT"),
    ] = "local",
    parallelism: Annotated[
        int | None, typer.Option(help="On a cluster: readers at once.", min=1, max=1024)
    ] = None,
    job_server_jar: Annotated[
        Path | None,
        typer.Option(help="Beam's job server, if not the usual one.", metavar="JAR"),
    ] = None,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Show only problems and the result.")
    ] = False,
    lane: Annotated[int | None, typer.Option(hidden=True)] = None,
) -> None:
    """Send history, through the same steps, to the same sinks: files of
    Event Hubs Capture, Log Analytics exports, diagnostic settings,
    Defender's and Sentinel's downloads, Graph pages; plain, gzip or zip.

    It may be stopped at any moment: the same command goes on where it was.
    Once it is through, the same command sends what is new since. What a
    sink has already is not sent to it twice, unless `--again`.

    Times: 2026-03-04, 2026-03-04T10:00:00Z, or how long ago: 7d, 12h.

    Exit code 0: every record is accounted for; 1: some files could not be
    read, or a sink is still owed something; 2: the settings or arguments
    are wrong; 3: another one of this name runs.

    [dim]$ alertbeam replay capture/ --sink new_siem --from 31d --dry-run[/dim]
    [dim]$ alertbeam replay capture/ --sink new_siem --from 31d[/dim]
    [dim]$ alertbeam replay azfs://account/insights-logs/ --since-last[/dim]
    [dim]$ alertbeam replay capture/ --compare changed.yaml --page what-if.html[/dim]
    [dim]$ alertbeam replay capture/ --then-live[/dim]
    [dim]$ alertbeam replay /mnt/capture/ --runner SparkRunner --cluster spark:7077[/dim]

    What comes behind `--` are Beam's own options, for a cluster.
    """
    stay_small()
    set_up()  # before Beam is imported
    from pipelines.replay import Asked, anew, default_name
    from pipelines.settings import HistorySettings, Settings, load
    from transforms.state_store import StateStore

    now_ms = int(time.time() * 1000)
    options = [path for path in paths if path.startswith("--")]
    paths = [path for path in paths if not path.startswith("--")]
    elsewhere = runner != "DirectRunner"
    if elsewhere and (dry_run or compare is not None or then_live):
        raise typer.BadParameter(
            "--dry-run, --compare and --then-live are for this machine", param_hint="--runner"
        )
    if options and not elsewhere:
        raise typer.BadParameter(f"{options[0]}: Beam's options are for --runner SparkRunner")
    if name and not re.fullmatch(_NAME, name):
        raise typer.BadParameter("up to 64 letters, digits, -, _ and .", param_hint="--name")
    asked = Asked(
        tuple(paths), _time(start, now_ms, "--from"), _time(stop, now_ms, "--to"), by,
        _where(where or []), tuple(sink or ()), again, template, rate / workers, workers,
        _seconds(patience), (start, stop),
    )  # fmt: skip
    loaded = load(settings, Settings if then_live else HistorySettings)
    if dry_run or compare is not None:
        raise typer.Exit(_what_if(settings, loaded, asked, compare, page, quiet))
    if then_live:
        raise typer.Exit(_join(loaded, asked, quiet))
    name = name or default_name(asked)
    if again and lane is None:
        name = anew(StateStore(str(loaded.state)), name)
    place = partial(_cluster, runner, cluster, job_server_jar, parallelism, options)
    raise typer.Exit(
        _replay(loaded, asked, name, since_last, quiet, lane, place if elsewhere else None)
    )


def _cluster(
    runner: str,
    cluster: str,
    jar: Path | None,
    parallelism: int | None,
    options: list[str],
    going: Any,
    say: Any,
) -> Any:
    from pipelines.cluster.spark import bounded

    return bounded(
        runner, cluster, going.store.folder, name=going.name, job_server_jar=jar,
        parallelism=parallelism, options=options, say=say,
    )  # fmt: skip


def _time(text: str, now_ms: int, option: str) -> int | None:
    """Milliseconds since 1970; None where nothing was said."""
    from pipelines.positions import From, FromError

    if not text:
        return None
    if re.fullmatch(r"\d{4}-\d{2}-\d{2}", text):
        text += "T00:00:00Z"
    try:
        found = From.parse(text, now_ms).items[0][1]
    except FromError:
        found = None
    if found is None or found.kind != "time":
        raise typer.BadParameter(
            f"{text!r} is no time: say 2026-03-04, 2026-03-04T10:00:00Z, or how long ago: 7d, 12h",
            param_hint=option,
        )
    return found.value


def _seconds(text: str) -> float:
    found = re.fullmatch(r"(\d{1,6})([smhd]?)", text)
    if found is None:
        raise typer.BadParameter(f"{text!r} is no duration, as 90s, 10m or 2h are")
    return float(found[1]) * {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}[found[2]]


def _where(said: list[str]) -> Any:
    """The condition that `KEY=VALUE…` come to."""
    from pydantic import ValidationError

    from transforms.route import Where

    conditions: dict[str, Any] = {}
    for each in said:
        key, equals, values = each.partition("=")
        if not (equals and values):
            raise typer.BadParameter(f"{each!r}: say KEY=VALUE", param_hint="--where")
        words = [word.strip() for word in values.split(",")]
        if key == "severity" and values.endswith("+"):
            conditions[key] = {"at_least": values[:-1]}
        elif key.startswith("tag."):
            conditions.setdefault("tag", {})[key[4:]] = words
        else:
            conditions[key] = words
    try:
        return Where.model_validate(conditions) if conditions else None
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"][:1])
        choices = ", ".join(n for n in Where.model_fields if not n.endswith("_"))
        raise typer.BadParameter(
            f"{place}: {first['msg']}; keys: {choices}, tag.NAME; severity=medium+ is at least",
            param_hint="--where",
        ) from None


def _replay(
    loaded: Any,
    asked: Any,
    name: str,
    since_last: bool,
    quiet: bool,
    lane: int | None,
    cluster: Any = None,
) -> int:
    """cluster: gives one for it, as a context manager."""
    from rich.console import Console

    from pipelines.replay import Replay
    from pipelines.replay_monitor import Shown, size
    from pipelines.report import counts_line, sinks_table, write_reports
    from transforms.lease import lease
    from transforms.read.plan import folder
    from transforms.state_store import StateStoreError

    console = Console()

    def say(line: str) -> None:
        with contextlib.suppress(OSError, SystemExit):  # whoever read may be gone
            console.print(line, markup=False, soft_wrap=True)

    going = Replay(loaded, asked, name, lane=lane, say=say)
    children: list[subprocess.Popen[bytes]] = []

    def on_signal(number: int, frame: Any) -> None:
        if going.stopped:
            os._exit(128 + number)
        os.write(2, b"\nending: what was read is being delivered (again: stop at once)\n")
        going.stop()
        for child in children:
            with contextlib.suppress(OSError):
                child.send_signal(signal.SIGTERM)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, on_signal)
    gc.freeze()  # as `run` does
    if lane is not None:  # a worker: whoever started it holds the lease, and tells the result
        threading.Thread(target=_end_with_it, name="end with it", daemon=True).start()
        return 0 if not going.run().problem else 1
    going.store.prepare()

    def lost() -> None:
        os.write(2, b"ended at once: its lease was not renewed in time, or taken over\n")
        os._exit(3)

    with (
        lease(going.store, f"{folder(name)}/lease", say=say, on_lost=lost),
        contextlib.ExitStack() as held,
    ):
        going.prepare()
        if not going.todo:
            say(
                f"replay {name}: nothing is new"
                + ("" if since_last else "; --again sends all of it")
            )
        elif not quiet:
            say(f"replay {name}: {going.parts:,} parts of files, {size(going.bytes)}")
        going.tell()
        if cluster is not None and going.todo:
            going.cluster = held.enter_context(cluster(going, say))
            say(going.cluster.says)
        with Shown(going, console, quiet):
            apart = len(going.todo) > 1 and cluster is None
            result = _together(going, children) if apart else going.run()
        going.tell(result)
    console.print(sinks_table(going.accounts()))
    if going.counts:
        say(counts_line(going.counts))
    for line in going.unread_lines():
        say(line)
    try:
        say(f"report: {write_reports(loaded, going.store)}")
    except StateStoreError as error:
        say(f"no report was written: {error}")
    if result.problem:
        say(f"replay {name}: {result.problem}")
    return 0 if result.well else 1


def _together(going: Any, children: list[subprocess.Popen[bytes]]) -> Any:
    """Each lane in a process of its own: this very command, told which lane is its."""
    arguments = [sys.executable, "-m", "pipelines.cli", *sys.argv[1:], "--name", going.name]
    for lane in going.todo:
        command = [*arguments, "--lane", str(lane)]
        children.append(subprocess.Popen(command, stdin=subprocess.PIPE))  # noqa: S603
    for child in children:
        child.wait()
    return going.ended()


def _end_with_it() -> None:
    """End at once when whoever started this does, however: the lease goes with it. Until then
    nothing comes from there."""
    while os.read(0, 1):
        pass
    os._exit(3)


def _what_if(
    settings: Path, loaded: Any, asked: Any, compare: Path | None, page: Path | None, quiet: bool
) -> int:
    """Nothing is sent, nor written down."""
    from rich.console import Console

    from pipelines import what_if
    from pipelines.replay import Rehearsal
    from pipelines.replay_monitor import Read
    from pipelines.settings import HistorySettings, load

    console = Console()
    dry = None
    rehearsal = Rehearsal(loaded, asked, lambda line: console.print(line, markup=False))
    with Read(rehearsal, console, quiet):
        if compare is None:
            dry = what_if.dry_run(
                rehearsal.batches(), loaded, rehearsal.taken, where=asked.where,
                sinks=asked.sinks or None, enrich=rehearsal.enrich, skip=rehearsal.skip,
                rate=asked.rate, unread=rehearsal.unread,
            )  # fmt: skip
        else:
            other = load(compare, HistorySettings)
            found = what_if.compare(
                rehearsal.batches(), loaded, other, rehearsal.taken, where=asked.where,
                names=(settings.name, compare.name), sinks=asked.sinks or None,
                unread=rehearsal.unread,
            )  # fmt: skip
    for table in what_if.dry_run_tables(dry) if dry else what_if.comparison_tables(found):
        console.print(table)
    if compare is not None and page is not None:
        text = what_if.page(found, datetime.now(timezone.utc))
        with os.fdopen(os.open(page, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(text.encode(errors="replace"))
        console.print(f"page: {page}", markup=False, soft_wrap=True)
    return 1 if rehearsal.unread else 0


def _join(loaded: Any, asked: Any, quiet: bool) -> int:
    """History and then the hub, until it is told to end."""
    from pipelines.commands.run import streaming
    from pipelines.join import Join, listing
    from pipelines.replay import with_sinks

    if asked.where or asked.stop_ms is not None or asked.again:
        raise typer.BadParameter(
            "--then-live takes all of history from --from on: --where, --to and --again are not "
            "for it",
            param_hint="--then-live",
        )
    chosen = with_sinks(loaded, asked.sinks, 0.0, digests=True)

    def join(say: Any) -> Any:
        found = listing(chosen.sources, asked.paths, asked.template, asked.start_ms, say)
        return Join(chosen, found, whole=asked.start_ms is None, say=say)

    return streaming(chosen, "DirectRunner", False, quiet, join=join)
