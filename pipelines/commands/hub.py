"""`alertbeam hub` and `alertbeam publish`: an Event Hubs on this machine, and events for it."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import Annotated

import typer

from pipelines.commands._log import set_up

__all__ = ["hub", "publish"]

_PORT = 5672


def hub(
    folder: Annotated[Path, typer.Option(help="Where the events are kept.")] = Path("hub"),
    name: Annotated[str, typer.Option(help="The event hub's name.")] = "defender",
    partitions: Annotated[int, typer.Option(min=1, max=100)] = 4,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any free one.")] = _PORT,
    key: Annotated[
        str | None, typer.Option(help="Where a shared access key lies: env:NAME or file:/path.")
    ] = None,
    retention_hours: Annotated[
        float | None, typer.Option(min=0.001, help="Forget events that are older.")
    ] = None,
) -> None:
    """Keep an embedded Event Hubs running on 127.0.0.1, until Ctrl-C.

    Microsoft's own clients talk to it (AMQP 1.0). Its events are on disk
    and survive a restart.

    [dim]$ alertbeam hub --partitions 8[/dim]
    """
    from pipelines.local.hub import EmbeddedHub, Retention
    from transforms.secrets import SecretError, SecretRef

    try:
        secret = SecretRef.checked(key).resolve().reveal() if key else None
        retention = Retention(seconds=retention_hours * 3600) if retention_hours else None
        server = EmbeddedHub(
            folder, {name: partitions}, port=port, key=secret, retention=retention
        ).start()
    except (OSError, ValueError, SecretError) as error:
        typer.echo(f"alertbeam hub: {_plain(error)}", err=True)
        raise typer.Exit(1) from None
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    shown = server.connection_string(name)
    if secret:
        shown = shown.replace(secret, "<the key>")
    typer.echo(
        f"event hub {name} with {partitions} partitions on 127.0.0.1:{server.port}, events in "
        f"{folder}\n\n  export EVENT_HUB_CONNECTION='{shown}'\n\nCtrl-C ends it."
    )
    ended.wait()
    server.stop()


def publish(
    files: Annotated[list[Path], typer.Argument(help="Files, or folders of them.")],
    connection: Annotated[
        str, typer.Option(help="Where the hub's connection string lies: env:NAME or file:/path.")
    ] = "env:EVENT_HUB_CONNECTION",
    name: Annotated[
        str, typer.Option(help="The event hub, if the string names none.")
    ] = "defender",
) -> None:
    """Publish files to an event hub: JSON, JSON lines, text, Event Hubs Capture.

    A file that is one JSON value is one event, else each line is one. They
    are sent as they are: also what no pipeline could read.

    [dim]$ alertbeam publish alerts.jsonl exports/[/dim]
    """
    set_up()
    from azure.eventhub import EventData, EventHubProducerClient
    from azure.eventhub.exceptions import EventHubError

    from pipelines.local.files import TooLargeError, events_in, files_in
    from transforms.secrets import SecretError, SecretRef

    try:
        secret = SecretRef.checked(connection).resolve().reveal()
        producer = EventHubProducerClient.from_connection_string(
            secret,
            retry_total=2,
            retry_backoff_factor=0.1,
            **({} if "EntityPath=" in secret else {"eventhub_name": name}),
        )
        total = 0
        with producer:
            for path in files_in(files):
                count = 0
                batch = producer.create_batch()
                for body in events_in(path):
                    event = EventData(body)
                    try:
                        batch.add(event)
                    except ValueError:  # full
                        producer.send_batch(batch)
                        batch = producer.create_batch()
                        try:
                            batch.add(event)
                        except ValueError:
                            raise TooLargeError(path, count + 1, len(body)) from None
                    count += 1
                if len(batch):
                    producer.send_batch(batch)
                typer.echo(f"{path}: {count:,} events")
                total += count
        typer.echo(f"{total:,} events published")
    except (OSError, ValueError, TooLargeError, SecretError, EventHubError) as error:
        typer.echo(f"alertbeam publish: {_plain(error)}", err=True)
        raise typer.Exit(1) from None


def _plain(error: Exception) -> str:
    """In one line, without error numbers and what the SDK says twice."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    line = " ".join(str(error).split())
    return line.partition(" Error condition:")[0].partition(" Error:")[0]
