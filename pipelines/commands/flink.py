"""`alertbeam flink`: the jobs on a Flink cluster, stopping and resuming them, and a jar of one."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.commands._log import set_up

if TYPE_CHECKING:
    from pipelines.cluster.flink import Flink
    from transforms.state_store import StateStore

__all__ = ["flink"]

_SETTINGS = Path("settings.yaml")
_CLUSTER = "localhost:8081"

_Config = Annotated[
    Path, typer.Option("--config", "-c", help="The settings file.", metavar="SETTINGS")
]
_Cluster = Annotated[
    str,
    typer.Option(
        help="The JobManager's REST address.", metavar="HOST:PORT", envvar="ALERTBEAM_FLINK"
    ),
]
_Credentials = Annotated[
    str,
    typer.Option(
        help="user:password or a token, for a gateway that asks: env:NAME or file:/path.",
        metavar="REFERENCE",
    ),
]
_Name = Annotated[str, typer.Argument(help="The job's name, or its id in the list.")]
_Parallelism = Annotated[
    int | None, typer.Option("--parallelism", "-p", min=1, help="Subtasks a step.", metavar="N")
]
_JobServer = Annotated[
    Path | None,
    typer.Option(
        "--job-server-jar", help="Beam's job server, if it is not to be fetched.", metavar="JAR"
    ),
]
_Options = Annotated[
    list[str] | None,
    typer.Argument(help="After --: options of Beam and of its Flink runner.", metavar="-- OPTIONS"),
]
_Seconds = Annotated[float, typer.Option(min=1, help="How long to wait.", metavar="SECONDS")]

flink = typer.Typer(
    no_args_is_help=True,
    help="""Look after jobs on a Flink cluster: list them, watch one, stop it with
    a savepoint, resume it, write it as a jar.

    `alertbeam run --runner FlinkRunner --cluster HOST:PORT` starts one.

    [dim]$ alertbeam flink list --cluster jobmanager:8081[/dim]
    [dim]$ alertbeam flink stop alertbeam --cluster jobmanager:8081[/dim]
    [dim]$ alertbeam flink resume alertbeam --cluster jobmanager:8081[/dim]
    """,
)


@flink.command("list")
def list_(
    cluster: _Cluster = _CLUSTER,
    credentials: _Credentials = "",
    settings: _Config = _SETTINGS,
) -> None:
    """Show the cluster and its jobs: state, since when, restarts, the last
    checkpoint, and what each can be resumed from.

    [dim]$ alertbeam flink list --cluster jobmanager:8081[/dim]
    """
    set_up()  # before Beam is imported
    import time
    from datetime import datetime, timezone

    from rich.console import Console

    from pipelines.cluster.flink import FlinkError
    from pipelines.cluster.savepoints import newest
    from pipelines.replay_monitor import size
    from pipelines.report.tables import lasting
    from pipelines.tables import shown, table

    client = _client(cluster, credentials)
    store = _store(settings)
    console = Console()
    has = client.overview()
    console.print(
        f"Flink {shown(has.version)} at {client.url}: {has.taskmanagers} TaskManagers, "
        f"{has.free} of {has.slots} slots free",
        markup=False, highlight=False, soft_wrap=True,
    )  # fmt: skip
    jobs = client.jobs()
    if not jobs:
        console.print("no jobs")
        return
    rows = table("jobs")
    for column in ("name", "state", "since", "restarts", "last checkpoint", "savepoint", "id"):
        rows.add_column(
            column, overflow="fold", justify="right" if column == "restarts" else "left"
        )
    now = time.time()
    from_: dict[str, str] = {}
    for job in sorted(jobs, key=lambda job: not job.lives):
        restarts, checkpoint, savepoint = "-", "-", "-"
        try:
            restarts = client.job_metrics(job.id, ["numRestarts"]).get("numRestarts", "-")
            latest = client.checkpoints(job.id).latest
            if last := latest.completed:
                checkpoint = f"{lasting(now - last.at_ms / 1000)} ago, {size(last.size)}"
            if saved := latest.savepoint:
                savepoint = f"{lasting(now - saved.at_ms / 1000)} ago, {size(saved.size)}"
        except FlinkError:
            pass  # it ends, or begins, at this moment
        at_ms = job.began_ms if job.lives else job.ended_ms
        at = datetime.fromtimestamp(max(0, at_ms) / 1000, tz=timezone.utc)
        rows.add_row(
            shown(job.name), shown(job.state, "" if job.state == "RUNNING" else "yellow"),
            f"{at:%m-%d %H:%M}, {lasting(now - at.timestamp())}",
            shown(restarts), checkpoint, savepoint, shown(job.id[:8]),
        )  # fmt: skip
        if store is not None and not job.lives and job.name not in from_:
            found = newest(store, job.name, client)
            from_[job.name] = found.path if found else ""
    console.print(rows)
    living = {job.name for job in jobs if job.lives}
    for name, path in from_.items():
        if path and name not in living:
            console.print(
                f"{shown(name)} can be resumed from {shown(path)}",
                markup=False, highlight=False, soft_wrap=True,
            )  # fmt: skip


@flink.command()
def watch(
    name: _Name,
    cluster: _Cluster = _CLUSTER,
    credentials: _Credentials = "",
    settings: _Config = _SETTINGS,
) -> None:
    """Show how a job goes, until Ctrl-C: that leaves it running.

    Exit code 1: the job has ended, and not by being stopped.

    [dim]$ alertbeam flink watch alertbeam --cluster jobmanager:8081[/dim]
    """
    set_up()
    from rich.console import Console

    from pipelines.cluster.monitor import watch
    from pipelines.forward import accounts
    from pipelines.settings import load

    client = _client(cluster, credentials)
    store = _store(settings)
    sinks = accounts(load(settings)) if store is not None else ()
    job = client.named(name)
    state = watch(client, job.id, job.name, Console(), store=store, sinks=sinks)
    if state:
        typer.echo(f"{job.name} has ended: {state}")
        raise typer.Exit(0 if state == "FINISHED" else 1)
    typer.echo(f"{job.name} goes on; to stop it: {_again('stop', job.name, cluster, settings)}")


@flink.command()
def stop(
    name: _Name,
    cluster: _Cluster = _CLUSTER,
    credentials: _Credentials = "",
    settings: _Config = _SETTINGS,
    savepoints: Annotated[
        str,
        typer.Option(help="Where the savepoint goes, if not to Flink's own.", metavar="FOLDER"),
    ] = "",
    drain: Annotated[
        bool,
        typer.Option(
            "--drain", help="Fire all windows first. For the end of a job: it is not resumed then."
        ),
    ] = False,
    cancel: Annotated[
        bool,
        typer.Option("--cancel", help="Without a savepoint, for a job that cannot make one."),
    ] = False,
    seconds: _Seconds = 600.0,
) -> None:
    """Stop a job with a savepoint, and say how it is resumed.

    Nothing is lost either way. With a savepoint nothing comes twice; after
    --cancel what came since the last checkpoint is read again, and what
    sinks had settled of it is not sent again.

    Exit code 1: it was not stopped; it goes on.

    [dim]$ alertbeam flink stop alertbeam --cluster jobmanager:8081[/dim]
    """
    set_up()
    import time

    from pipelines.cluster.flink import FlinkError
    from pipelines.cluster.savepoints import Saved, learn, stopped
    from pipelines.replay_monitor import size
    from transforms.delivery.line import printable

    if drain and (cancel or savepoints):
        raise typer.BadParameter("--drain goes with neither --cancel nor --savepoints")
    client = _client(cluster, credentials)
    store = _store(settings)
    job = client.named(name)
    latest = client.checkpoints(job.id).latest.completed
    if store is not None:
        learn(store, job.name, latest)
    shown = printable(job.name)
    resume = _again("resume", job.name, cluster, settings)
    if cancel:
        client.cancel(job.id, seconds)
        typer.echo(f"{shown} is cancelled, without a savepoint.")
        if latest is None or not latest.path:
            typer.echo(
                "It has no checkpoint to be resumed from: `alertbeam run` goes on at what is "
                "settled in the state folder, without loss."
            )
            return
        age = time.time() - latest.at_ms / 1000
        typer.echo(
            f"Its last checkpoint, of {age:.0f} s ago, is {printable(latest.path, 1000)}: what "
            f"came since is read again. To resume from it, as long as it is retained:\n{resume}"
        )
        return
    began = time.monotonic()
    try:
        if drain:
            path = _drained(client, job.id, store, seconds)
        else:
            path = client.stop(job.id, savepoints, seconds=seconds)
    except FlinkError as error:
        raise FlinkError(
            f"{shown} is not stopped, it goes on: {error}. Where a savepoint cannot be made at "
            f"all: {_again('stop', job.name, cluster, settings)} --cancel"
        ) from None
    took = time.monotonic() - began
    try:
        saved = client.checkpoints(job.id).latest.savepoint
    except FlinkError:
        saved = None  # a cluster that is there for one job ends with it
    large = saved.size if saved and saved.external_path == path else 0
    typer.echo(
        f"{shown} is stopped, after {took:.1f} s; its savepoint"
        + (f" of {size(large)}" if large else "")
        + f":\n{printable(path, 1000)}"
    )
    if drain:
        typer.echo(
            "It was drained: its windows have fired, so it is not resumed from that. "
            "`alertbeam run` goes on at what is settled in the state folder, without loss."
        )
        return
    if store is not None:
        stopped(store, job.name, Saved(path, int(time.time() * 1000), large))
        typer.echo(f"To resume it:\n{resume}")
    else:
        typer.echo(
            f"To resume it (there are no settings here to keep that with):\n{resume} "
            f"--from {shlex.quote(printable(path, 1000))}"
        )


@flink.command()
def resume(
    name: Annotated[str, typer.Argument(help="The job's name.")],
    options: _Options = None,
    cluster: _Cluster = _CLUSTER,
    credentials: _Credentials = "",
    settings: _Config = _SETTINGS,
    from_: Annotated[
        str,
        typer.Option(
            "--from", help="A savepoint or checkpoint; default: the newest.", metavar="PATH"
        ),
    ] = "",
    allow_non_restored: Annotated[
        bool,
        typer.Option(
            "--allow-non-restored", help="Drop the state of steps that are no more (a sink)."
        ),
    ] = False,
    parallelism: _Parallelism = None,
    job_server_jar: _JobServer = None,
    seconds: _Seconds = 180.0,
) -> None:
    """Submit a job again, with the state of its newest savepoint or
    checkpoint, and wait until it works.

    Settings may have changed meanwhile: sinks that are new begin where the
    savepoint stands, for those that are gone give --allow-non-restored.

    [dim]$ alertbeam flink resume alertbeam --cluster jobmanager:8081[/dim]
    """
    set_up()
    import time

    from pipelines.cluster.flink import FlinkError, wait_until_working
    from pipelines.cluster.savepoints import learn, newest, submitted
    from pipelines.cluster.submit import prepare, submit
    from pipelines.settings import load
    from transforms.delivery.line import printable
    from transforms.state_store import StateStore

    loaded = load(settings)
    store = StateStore(str(loaded.state))
    client = _client(cluster, credentials)
    shown = printable(name)
    for job in client.jobs():
        if job.name == name and job.lives:
            raise FlinkError(
                f"{shown} is {printable(job.state)} already: two would deliver everything twice. "
                f"Stop it first: {_again('stop', name, cluster, settings)}"
            )
    path = from_
    if not path:
        found = newest(store, name, client)
        if found is None:
            raise FlinkError(
                f"no savepoint of {shown} is known: give one with --from, or start cold with "
                "`alertbeam run`: that goes on at what is settled in the state folder, without loss"
            )
        path = found.path
        typer.echo(f"from {printable(path, 1000)}, {time.time() - found.at_ms / 1000:,.0f} s old")
    prepare(loaded, say=typer.echo)
    given = submit(
        loaded, settings, cluster=cluster, name=name, parallelism=parallelism, savepoint=path,
        allow_non_restored=allow_non_restored, job_server_jar=job_server_jar,
        options=options or (), say=typer.echo,
    )  # fmt: skip
    submitted(store, name, cluster, given.job_id, int(time.time() * 1000))
    learn(store, name, wait_until_working(client, given.job_id, typer.echo, seconds))
    restored = client.checkpoints(given.job_id).latest.restored
    if restored is None:
        raise FlinkError(
            f"{shown} runs, but began without the savepoint: its state was not restored. What is "
            "settled in the state folder is not sent again; windows and deduplication begin anew"
        )
    typer.echo(f"{shown} works, with the state of {printable(restored.path or path, 1000)}")
    typer.echo(f"To see how it goes: {_again('watch', name, cluster, settings)}")


@flink.command()
def jar(
    options: _Options = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Where to write it.", metavar="JAR")
    ] = Path("app.jar"),
    settings: _Config = _SETTINGS,
    name: Annotated[str, typer.Option(help="What the job is called.")] = "alertbeam",
    parallelism: _Parallelism = None,
    job_server_jar: _JobServer = None,
) -> None:
    """Write one jar that holds the whole job, for `flink run` and for the
    Kubernetes operator. Secrets stay references in it.

    [dim]$ alertbeam flink jar -c settings.yaml -o app.jar -p 2[/dim]
    [dim]$ flink run -d -p 2 app.jar[/dim]
    """
    set_up()
    from pipelines.cluster.submit import submit
    from pipelines.replay_monitor import size
    from pipelines.settings import load

    submit(
        load(settings), settings, cluster="[auto]", name=name, parallelism=parallelism,
        job_server_jar=job_server_jar, options=options or (), output_jar=output, say=typer.echo,
    )  # fmt: skip
    flags = f"-d -p {parallelism}" if parallelism else "-d"
    shown = shlex.quote(str(output))
    typer.echo(
        f"{output}: {size(output.stat().st_size)}\n"
        f"To start it:   flink run {flags} {shown}\n"
        f"To resume it:  flink run {flags} -s SAVEPOINT {shown}"
    )


def _drained(client: Flink, job: str, store: StateStore | None, seconds: float) -> str:
    """Stop the job that tells of itself in the store, once it reads no more."""
    from pipelines.cluster.flink import FlinkError
    from pipelines.cluster.submit import stop_drained
    from pipelines.report import read_status, works

    status = read_status(store) if store is not None else {}
    if store is None or not works(status) or not status.get("run"):
        raise FlinkError(
            "no job on a cluster tells of itself in the state folder, so that none can be told to "
            "read no further: are these its settings, and does it run?"
        )
    return stop_drained(client, job, store, status["run"], seconds)


def _client(cluster: str, credentials: str) -> Flink:
    from pipelines.cluster.flink import Flink
    from transforms.secrets import SecretRef

    try:
        return Flink(cluster, SecretRef.checked(credentials) if credentials else None)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def _store(settings: Path) -> StateStore | None:
    """The settings' state folder; None where there are no settings, and none were asked for."""
    from pipelines.settings import load
    from transforms.state_store import StateStore

    if settings == _SETTINGS and not settings.exists():
        return None
    return StateStore(str(load(settings).state))


def _again(what: str, name: str, cluster: str, settings: Path) -> str:
    """The command that does the next thing."""
    from transforms.delivery.line import printable

    parts = ["alertbeam", "flink", what, printable(name), "--cluster", cluster]
    if settings.exists():
        parts += ["-c", str(settings)]
    return shlex.join(parts)
