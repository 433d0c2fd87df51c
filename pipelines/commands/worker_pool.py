"""`alertbeam worker-pool`: Python workers for a TaskManager beside it."""

from __future__ import annotations

import logging
import signal
from typing import Annotated

import typer

from pipelines.commands._log import set_up

__all__ = ["worker_pool"]

_PORT = 50_000


def worker_pool(
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Where workers are asked for. 0: any free one.")
    ] = _PORT,
    listen: Annotated[
        str, typer.Option(help="The address for that. Whoever reaches it can run anything here.")
    ] = "127.0.0.1",
    health: Annotated[
        str | None,
        typer.Option(help="Answer /healthz and /readyz there.", metavar="[ADDRESS:]PORT"),
    ] = None,
    metrics: Annotated[
        str | None,
        typer.Option(help="Serve the workers' metrics there.", metavar="[ADDRESS:]PORT"),
    ] = None,
    grace: Annotated[
        float, typer.Option(min=0.1, help="Seconds that workers have to end, when it ends.")
    ] = 10.0,
) -> None:
    """Start Python workers for Flink or Spark, until Ctrl-C or SIGTERM.

    One beside each TaskManager (Spark: each executor), on the same machine
    or in the same pod: that asks it for workers, and they run in this very
    environment. So install here what the pipeline needs, and set the
    variables here that its settings name (env:SPLUNK_TOKEN): no secret
    travels with a job.

    [dim]$ alertbeam worker-pool --health 8090 --metrics 9100[/dim]
    [dim]$ alertbeam run --runner FlinkRunner --cluster localhost:8081[/dim]

    /healthz answers 200 while the pool works, /readyz while it takes
    workers; both say how many run. /metrics is in Prometheus' format, of
    all workers together. Where probes and scrapers come from elsewhere:
    --health 0.0.0.0:8090; leave --listen as it is.

    A worker ends with its job, and with the pool, however that ends. One
    that died is in the log, and Flink goes on at the last checkpoint.

    Exit code 0: ended by a signal; 1: an address is taken.
    """
    set_up()
    from pipelines.cluster.worker_pool import Address, WorkerPool

    def address(text: str | None) -> Address | None:
        if text is None:
            return None
        host, _, number = text.rpartition(":")
        if not number.isdecimal() or int(number) > 65535:
            raise typer.BadParameter(f"{text!r} is no port, and no address with one")
        return Address(host.strip("[]") or "127.0.0.1", int(number))

    logging.getLogger("pipelines.cluster").setLevel(logging.INFO)
    pool = WorkerPool(Address(listen, port), address(health), address(metrics), grace)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: pool.stop())
    with pool:
        also = [f"{name} on {at}" for name, at in (("health", pool.health), ("metrics", pool.serve))
                if at is not None]  # fmt: skip
        typer.echo("; ".join([f"worker pool on {pool.listen}", *also]))
        pool.watch()
