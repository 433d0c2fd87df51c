"""The command `alertbeam`: which commands there are, in the order that its help lists them."""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Sequence
from typing import Annotated, NoReturn

import typer

from pipelines.commands.dead import dead
from pipelines.commands.demo import demo
from pipelines.commands.explain import explain
from pipelines.commands.flink import flink
from pipelines.commands.hub import hub, publish
from pipelines.commands.owed import owed
from pipelines.commands.redeliver import redeliver
from pipelines.commands.replay import replay
from pipelines.commands.report import report
from pipelines.commands.run import run
from pipelines.commands.schema import schema
from pipelines.commands.sinks import sinks
from pipelines.commands.status import status
from pipelines.commands.validate import validate
from pipelines.commands.worker_pool import worker_pool

__all__ = ["app", "main"]

_RUN = "Run"
_LOOK = "Look"
_CLUSTER = "On a cluster"
_SETTINGS = "Settings"
_LOCAL = "On this machine, without Azure"

app = typer.Typer(
    name="alertbeam",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Each command explains itself: alertbeam COMMAND --help",
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"alertbeam {importlib.metadata.version('alertbeam')}")
        raise typer.Exit


@app.callback()
def alertbeam(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Carry Microsoft security alerts from Azure Event Hubs into every SIEM
    that should have them, and account for each one: delivered, not routed,
    a repeat, dead, or owed.

    Where alerts come from, and where they go, stands in one YAML file:

    [dim]sources:[/dim]
    [dim]  - event_hubs: {namespace: contoso.servicebus.windows.net, hub: defender}[/dim]
    [dim]sinks:[/dim]
    [dim]  - splunk_hec: {url: https://splunk:8088, token: env:SPLUNK_TOKEN}[/dim]
    [dim]    where: {severity: {at_least: medium}}[/dim]
    [dim]state: ./state[/dim]

    [dim]$ alertbeam validate --connect settings.yaml[/dim]
    """


app.command(rich_help_panel=_RUN)(run)
app.command(rich_help_panel=_RUN)(replay)
app.command(rich_help_panel=_RUN)(redeliver)
app.command(rich_help_panel=_LOOK)(status)
app.command(rich_help_panel=_LOOK)(report)
app.add_typer(owed, name="owed", rich_help_panel=_LOOK)
app.add_typer(dead, name="dead", rich_help_panel=_LOOK)
app.command(rich_help_panel=_LOOK)(explain)
app.add_typer(flink, name="flink", rich_help_panel=_CLUSTER)
app.command(rich_help_panel=_CLUSTER)(worker_pool)
app.command(rich_help_panel=_SETTINGS)(validate)
app.add_typer(sinks, name="sinks", rich_help_panel=_SETTINGS)
app.command(rich_help_panel=_SETTINGS)(schema)
app.command(rich_help_panel=_LOCAL)(demo)
app.command(rich_help_panel=_LOCAL)(hub)
app.command(rich_help_panel=_LOCAL)(publish)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run a command and exit: 0 for success, 2 for settings or arguments that are wrong, else 1.

    An exception of our own, or of the machine's, is told in its message; any other is a fault of
    ours and shows where.
    """
    try:
        app(arguments)
    except Exception as error:
        message = _told(error)
        if not message:
            raise
        typer.echo(message, err=True)
        sys.exit(getattr(error, "exit_code", 1))
    sys.exit(0)


def _told(error: Exception) -> str:
    if type(error).__module__.partition(".")[0] in ("pipelines", "transforms"):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return ""


if __name__ == "__main__":
    main()
