"""A worker of the pool: what a container's boot program does, without a container.

Asks the runner's provision service for the job's options and the runner's endpoints, then becomes
Beam's SDK harness, in the environment that the pool has: nothing is staged or installed.

It ends when the runner closes its control stream (the job ended, or the TaskManager did), at
SIGTERM, or when its standard input does: the pool holds the other end, so also by `kill -9` of the
pool. What is open (engines, links to hubs) is closed then, within a bounded time.

Source: Beam's "SDK harness container contract"; `beam_provision_api.proto`.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import re
import select
import signal
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any, NoReturn

from transforms.delivery.line import describe, printable

__all__ = ["OneLine", "main"]

_LOGGER = logging.getLogger(__name__)

_PROVISION_SECONDS = 30.0
_USUAL = (  # Beam's: nothing is wrong, or it is said here
    "No session file found", "No semi_persistent_directory", "Python sdk harness failed",
    "Not setting flag with value None", "Discarding unparseable args", "apitools not found",
)  # fmt: skip
_ERROR = re.compile(r"Traceback \(most recent call last\):\n(?:[ \t].*\n)+(([\w.]+).*)")
_STEP = re.compile(r" \[while running '[^'\n]*'\]")
_EXPECTED = {"submission_environment_dependencies.txt", "pickled_main_session"}


class OneLine(logging.Formatter):
    """A record is a line. Of a traceback in its text, only its error's type is kept, and the step:
    the message may quote a payload, unless the error is one of ours."""

    def format(self, record: logging.LogRecord) -> str:
        error = record.exc_info[1] if record.exc_info else None
        said = record.getMessage().strip()
        if error is not None and str(error):
            said = said.replace(str(error), "…").strip()
        first, more, _ = said.partition("\n")
        text = f"{printable(first)} …" if more else printable(first)
        if found := _ERROR.search(said):
            whole, kind = found.groups()
            ours = kind.startswith(("transforms.", "pipelines."))
            step = "" if ours else "".join(_STEP.findall(said)[-1:])
            text = f"{text} {printable(whole if ours else kind)}{printable(step)}"
        if isinstance(error, Exception):
            text = f"{text}: {describe(error)}"
        record = logging.makeLogRecord(
            {**record.__dict__, "msg": text, "args": None, "exc_info": None, "exc_text": None,
             "stack_info": None}
        )  # fmt: skip
        return super().format(record)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    given = _arguments(arguments)
    _log(given.id)
    leave = _Leave(given.close_seconds)
    _wait_for_the_end(leave)
    import grpc

    try:
        os.environ.update(_provisioned(given))
        from apache_beam.runners.worker import sdk_worker_main

        from pipelines.runners import sample_often
        from transforms import metrics

        sample_often()
        metrics.start()
        sdk_worker_main.main([])
    except grpc.RpcError as error:
        _LOGGER.warning("its runner is gone, or not there: %s", _code(error))
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - Beam interrupts what hangs
        _LOGGER.error("it cannot go on: %s", _said(error))
        leave(1)
    leave(0)


def _arguments(given: Sequence[str] | None) -> argparse.Namespace:
    """As the contract names them. What the provision service says, too, it says better."""
    parser = argparse.ArgumentParser(prog="python -m pipelines.cluster.worker")
    for name in ("id", "provision_endpoint"):
        parser.add_argument(f"--{name}", required=True)
    for name in ("control_endpoint", "logging_endpoint", "artifact_endpoint"):
        parser.add_argument(f"--{name}", default="")
    parser.add_argument("--close_seconds", type=float, default=8.0)
    return parser.parse_args(given)


def _log(worker: str) -> None:
    """Warnings to the pool's standard error, beside what Beam sends to the runner."""
    handler = logging.StreamHandler(os.fdopen(os.dup(2), "w", buffering=1, errors="replace"))
    handler.setFormatter(
        OneLine(f"%(asctime)s %(levelname)s worker {printable(worker)} %(message)s")
    )
    handler.setLevel(logging.WARNING)
    handler.addFilter(lambda record: not str(record.msg).startswith(_USUAL))
    logging.getLogger().addHandler(handler)
    logging.getLogger("azure").setLevel(logging.CRITICAL)
    # Beam prints tracebacks besides logging them.
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115, PTH123
    threading.excepthook = lambda died: _LOGGER.error(
        "a thread ended: %s", _said(died.exc_value or died.exc_type())
    )


def _said(error: BaseException) -> str:
    return describe(error) if isinstance(error, Exception) else type(error).__name__


def _code(error: Any) -> str:
    return str(error.code().name) if hasattr(error, "code") else type(error).__name__


def _provisioned(given: argparse.Namespace) -> dict[str, str]:
    """The environment that Beam's harness expects."""
    from apache_beam.portability.api import (
        beam_provision_api_pb2,
        beam_provision_api_pb2_grpc,
        endpoints_pb2,
    )
    from apache_beam.runners.worker.channel_factory import GRPCChannelFactory
    from google.protobuf import json_format, text_format

    with GRPCChannelFactory.insecure_channel(given.provision_endpoint) as channel:
        info = (
            beam_provision_api_pb2_grpc.ProvisionServiceStub(channel)
            .GetProvisionInfo(
                beam_provision_api_pb2.GetProvisionInfoRequest(),
                metadata=[("worker_id", given.id)],
                timeout=_PROVISION_SECONDS,
                wait_for_ready=True,
            )
            .info
        )
    staged = {_name(each) for each in info.dependencies} - _EXPECTED
    if staged:
        _LOGGER.warning(
            "%s came with the job and is not installed: workers run what is installed here",
            printable(", ".join(sorted(staged))),
        )

    def endpoint(told: Any, url: str) -> str:
        given_here = endpoints_pb2.ApiServiceDescriptor(url=url)
        return str(text_format.MessageToString(told if told.url else given_here))

    environment = {
        "WORKER_ID": given.id,
        "PIPELINE_OPTIONS": json.dumps(json_format.MessageToDict(info.pipeline_options)),
        "RUNNER_CAPABILITIES": " ".join(info.runner_capabilities),
        "CONTROL_API_SERVICE_DESCRIPTOR": endpoint(info.control_endpoint, given.control_endpoint),
        "LOGGING_API_SERVICE_DESCRIPTOR": endpoint(info.logging_endpoint, given.logging_endpoint),
    }
    if info.status_endpoint.url:
        environment["STATUS_API_SERVICE_DESCRIPTOR"] = endpoint(info.status_endpoint, "")
    return environment


def _name(artifact: Any) -> str:
    """What an artifact is staged as."""
    from apache_beam.portability.api import beam_runner_api_pb2

    payload = beam_runner_api_pb2.ArtifactStagingToRolePayload.FromString(artifact.role_payload)
    return str(payload.staged_name) or str(artifact.role_urn)


# --------------------------------------------------------------------------------- its end


class _Leave:
    """Closes what is open, and ends: threads that hang, as in a system call, keep nobody."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._leaving = threading.Lock()

    def __call__(self, code: int) -> NoReturn:
        self._leaving.acquire()  # for good: whoever comes second waits until all is over
        closing = [threading.Thread(target=each, daemon=True) for each in (_close, _stop_reading)]
        for thread in closing:
            thread.start()
        until = time.monotonic() + self._seconds
        for thread in closing:
            thread.join(max(0.0, until - time.monotonic()))
        os._exit(code)


def _wait_for_the_end(leave: _Leave) -> None:
    """Beside the harness: of a signal, or of the pool, which holds our standard input open."""
    ours, signalled = os.pipe()
    os.set_blocking(signalled, False)
    signal.set_wakeup_fd(signalled, warn_on_full_buffer=False)
    signal.signal(signal.SIGTERM, lambda *_: None)
    threading.Thread(target=_wait, args=(ours, leave), name="end", daemon=True).start()


def _wait(signals: int, leave: _Leave) -> None:
    while True:
        ready, _, _ = select.select([0, signals], [], [])
        if signals in ready and signal.SIGTERM in os.read(signals, 64):
            leave(0)
        if 0 in ready and not os.read(0, 64):
            _LOGGER.warning("its pool is gone")
            leave(1)


def _close() -> None:
    if "transforms.delivery.engines" in sys.modules:  # else nothing was opened
        from transforms.delivery.engines import close_all

        close_all()


def _stop_reading() -> None:
    if "transforms.read.reader" in sys.modules:
        from transforms.read.reader import close_session

        close_session()


if __name__ == "__main__":
    main()
