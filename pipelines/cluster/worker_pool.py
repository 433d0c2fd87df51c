"""The EXTERNAL worker pool: starts Python workers for what runs beside it, a process each.

A TaskManager (or a Spark executor) asks for a worker and says where its services are; the worker
(`worker.py`) asks those for the rest. The pool only starts, watches and ends processes. Whoever may
ask it for a worker can have it run anything, so it listens to this machine alone by default.

Names of workers are unique in a job only. So a worker is known by its name and by the connection
over which it was asked for, which Beam keeps for its end.

Source: `BeamFnExternalWorkerPool` in Beam's `beam_fn_api.proto`, and Beam's own `worker_pool_main`,
which has no end for workers whose pool is killed, and no health.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import grpc
from apache_beam.portability.api import beam_fn_api_pb2, beam_fn_api_pb2_grpc

from transforms import metrics
from transforms.delivery.line import describe, printable

__all__ = ["Address", "WorkerPool", "WorkerPoolError"]

_LOGGER = logging.getLogger(__name__)

_CALLS = 32  # at a time; one that ends a worker takes a while
_BY_ITSELF = 3.0  # seconds in which a worker ends whose control stream was closed
_LOOK_SECONDS = 0.2
_STUCK_SECONDS = 30.0
_OF_GRACE = 0.8  # in which a worker closes what it can
_MOST_ENDED = 100  # that are remembered
_SLOW_CLIENT = 10.0


class WorkerPoolError(Exception):
    """The pool cannot be; the message says why."""


class Address(NamedTuple):
    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


@dataclasses.dataclass(eq=False)
class _Worker:
    """peer: who asked for it. stopping: its end is wanted. told: its end is in the log."""

    name: str
    peer: str
    process: subprocess.Popen[bytes]
    stopping: bool = False
    told: bool = False

    @property
    def runs(self) -> bool:
        return self.process.poll() is None

    def __str__(self) -> str:
        return f"worker {printable(self.name)} (process {self.process.pid})"


class WorkerPool(beam_fn_api_pb2_grpc.BeamFnExternalWorkerPoolServicer):
    """`with WorkerPool(…) as pool: pool.watch()`, until `pool.stop()`.

    port, health, serve: 0 as a port is any free one; None as an address: no such service.
    grace: seconds that a worker has to end by itself after SIGTERM.
    """

    def __init__(
        self,
        listen: Address,
        health: Address | None = None,
        serve: Address | None = None,
        grace: float = 10.0,
    ) -> None:
        self.listen, self.health, self.serve = listen, health, serve
        self._grace = grace
        self._lock = threading.Lock()
        self._workers: list[_Worker] = []
        self.started = self.died = 0
        self.stopped = False
        self._looked = time.monotonic()
        self._folder: Path | None = None
        self._ways_out = contextlib.ExitStack()

    def __enter__(self) -> WorkerPool:
        with contextlib.ExitStack() as opened:
            if self.serve is not None:
                folder = tempfile.mkdtemp(prefix="alertbeam-worker-pool-")  # its owner's alone
                opened.callback(shutil.rmtree, folder, ignore_errors=True)
                self._folder = Path(folder)
                self.serve = opened.enter_context(self._serve_metrics(self.serve))
            if self.health is not None:
                self.health = opened.enter_context(self._serve_health(self.health))
            self.listen = opened.enter_context(self._serve_workers())
            self._ways_out = opened.pop_all()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()
        self._ways_out.close()

    def stop(self) -> None:
        """Let `watch` return; no worker starts any more. May be called by a signal's handler."""
        self.stopped = True

    def watch(self) -> None:
        """See to the workers until it is stopped."""
        while not self.stopped:
            self._look()
            time.sleep(_LOOK_SECONDS)

    @property
    def running(self) -> list[_Worker]:
        with self._lock:
            return [worker for worker in self._workers if worker.runs]

    @property
    def figures(self) -> dict[str, int]:
        return {"workers": len(self.running), "started": self.started, "died": self.died}

    @property
    def alive(self) -> bool:
        return time.monotonic() - self._looked < _STUCK_SECONDS

    # -------------------------------------------------------------------- what a runner asks for

    def StartWorker(self, request: Any, context: Any) -> Any:
        command = [sys.executable, "-m", "pipelines.cluster.worker", f"--id={request.worker_id}"]
        for name in ("provision", "control", "logging", "artifact"):
            endpoint = getattr(request, f"{name}_endpoint").url
            command.append(f"--{name}_endpoint={endpoint}")
        command.append(f"--close_seconds={_OF_GRACE * self._grace:g}")
        environment = {key: value for key, value in os.environ.items() if key != metrics.FOLDER}
        if self._folder is not None:
            environment[metrics.FOLDER] = str(self._folder)
        try:
            with self._lock:
                if self.stopped:
                    raise WorkerPoolError("the worker pool is ending")
                process = subprocess.Popen(  # noqa: S603 - no shell reads it
                    command,
                    stdin=subprocess.PIPE,  # ends with us, however that is
                    stdout=2,
                    env=environment,
                    start_new_session=True,  # Ctrl-C is for the pool
                )
                worker = _Worker(request.worker_id, context.peer(), process)
                self._workers.append(worker)
                self.started += 1
        except (OSError, ValueError, WorkerPoolError) as error:
            _LOGGER.error("a worker could not be started: %s", describe(error))
            return beam_fn_api_pb2.StartWorkerResponse(error=printable(str(error)))
        _LOGGER.info("%s started", worker)
        return beam_fn_api_pb2.StartWorkerResponse()

    def StopWorker(self, request: Any, context: Any) -> Any:
        """Its control stream was closed before, upon which it ends by itself, unless it hangs."""
        if worker := self._asked_for(request.worker_id, context.peer()):
            worker.stopping = True
            try:
                worker.process.wait(_BY_ITSELF)
            except subprocess.TimeoutExpired:
                self._end([worker])
        return beam_fn_api_pb2.StopWorkerResponse()

    def _asked_for(self, name: str, peer: str) -> _Worker | None:
        """The worker that was asked for over this connection; where that was made anew, the only
        one of this name."""
        with self._lock:
            named = [worker for worker in reversed(self._workers) if worker.name == name]
            for worker in named:
                if worker.peer == peer:
                    return worker
            left = [worker for worker in named if worker.runs]
            return left[0] if len(left) == 1 else None

    # ------------------------------------------------------------------------------- processes

    def _look(self) -> None:
        """Say who ended, and how."""
        self._looked = time.monotonic()
        with self._lock:
            gone = [worker for worker in self._workers if not worker.runs]
            ended = [worker for worker in gone if not worker.told]
            for worker in gone[:-_MOST_ENDED]:
                self._workers.remove(worker)
        for worker in ended:
            worker.told = True
            code = worker.process.returncode
            how = f"exit code {code}" if code >= 0 else signal.Signals(-code).name
            if code and not worker.stopping:
                self.died += 1
                _LOGGER.warning("%s died: %s", worker, how)
            else:
                _LOGGER.info("%s ended", worker)
            assert worker.process.stdin is not None, "it is a pipe"
            worker.process.stdin.close()
            if self._folder is not None:
                try:
                    metrics.retire(self._folder, worker.process.pid)
                except OSError as error:
                    _LOGGER.warning("the metrics of %s are lost: %s", worker, describe(error))

    def _end(self, workers: list[_Worker]) -> None:
        """SIGTERM to all, a bounded time, then SIGKILL."""
        for worker in workers:
            worker.stopping = True
            worker.process.terminate()
        until = time.monotonic() + self._grace
        for worker in workers:
            try:
                worker.process.wait(max(0.0, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                _LOGGER.warning("%s did not end in %g s, and is killed", worker, self._grace)
                worker.process.kill()
                worker.process.wait()

    # -------------------------------------------------------------------------------- services

    @contextlib.contextmanager
    def _serve_workers(self) -> Iterator[Address]:
        server = grpc.server(
            ThreadPoolExecutor(_CALLS, thread_name_prefix="pool"),
            options=[
                ("grpc.http2.max_pings_without_data", 0),
                ("grpc.http2.max_ping_strikes", 0),
                ("grpc.so_reuseport", 0),  # else a second pool would take half of the calls
            ],
        )
        beam_fn_api_pb2_grpc.add_BeamFnExternalWorkerPoolServicer_to_server(self, server)
        try:
            socket.create_server(self.listen).close()  # as gRPC does not say what is wrong
            port = server.add_insecure_port(str(self.listen))
        except (OSError, RuntimeError) as error:
            why = getattr(error, "strerror", "") or "gRPC cannot"
            raise WorkerPoolError(f"{self.listen} cannot be listened on: {why}") from None
        server.start()
        try:
            yield Address(self.listen.host, port)
        finally:
            self.stop()
            self._end(self.running)
            self._look()
            server.stop(grace=None).wait()

    @contextlib.contextmanager
    def _serve_health(self, at: Address) -> Iterator[Address]:
        pool = self

        class Handler(BaseHTTPRequestHandler):
            timeout = _SLOW_CLIENT

            def do_GET(self) -> None:
                good = {"/healthz": pool.alive, "/readyz": pool.alive and not pool.stopped}
                status = {True: 200, False: 503, None: 404}[good.get(self.path)]
                body = json.dumps(pool.figures).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        try:
            server = ThreadingHTTPServer(at, Handler)
        except OSError as error:
            raise WorkerPoolError(f"{at} cannot be listened on: {error.strerror}") from None
        serving = threading.Thread(target=server.serve_forever, args=(0.1,), daemon=True)
        serving.start()
        try:
            yield Address(at.host, server.server_port)
        finally:
            server.shutdown()
            server.server_close()
            serving.join()

    @contextlib.contextmanager
    def _serve_metrics(self, at: Address) -> Iterator[Address]:
        from prometheus_client import CollectorRegistry, start_http_server

        registry = CollectorRegistry()
        registry.register(self)
        try:
            server, serving = start_http_server(at.port, at.host, registry)
        except OSError as error:
            raise WorkerPoolError(f"{at} cannot be listened on: {error.strerror}") from None
        try:
            yield Address(at.host, server.server_port)
        finally:
            server.shutdown()
            server.server_close()
            serving.join()

    def collect(self) -> Iterator[Any]:
        """As a collector of Prometheus': the pool's own, and what its workers told."""
        from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily

        assert self._folder is not None, "metrics are served"
        yield GaugeMetricFamily("alertbeam_workers", "Workers that run.", len(self.running))
        yield CounterMetricFamily("alertbeam_worker_starts", "Workers started.", self.started)
        yield CounterMetricFamily("alertbeam_worker_deaths", "Workers that died.", self.died)
        yield from metrics.told(self._folder)
