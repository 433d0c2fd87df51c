"""A double of Flink's JobManager: the part of its REST API that the client uses, over HTTP.

Written from the OpenAPI description of Flink (rest_v1_dispatcher.yml) and from answers of Flink
1.19.3 itself, which differ from it in places (`jid`, `stack-trace`). It runs nothing: a test says
what a job does. That the client works with Flink itself is shown by the tests marked `engines`.
"""

from __future__ import annotations

import dataclasses
import http.server
import json
import re
import threading
import time
import uuid
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

FIRST_LINE = 4096  # what Flink's server (netty's HttpServerCodec) takes


@dataclasses.dataclass
class DoubleJob:
    """What a job is at the moment; tests change it."""

    name: str = "alertbeam"
    id: str = dataclasses.field(default_factory=lambda: uuid.uuid4().hex)
    state: str = "RUNNING"
    began_ms: int = dataclasses.field(default_factory=lambda: int(time.time() * 1000) - 60_000)
    ended_ms: int = -1
    vertices: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    completed: dict[str, Any] | None = None
    savepoint: dict[str, Any] | None = None
    restored: dict[str, Any] | None = None
    failed: dict[str, Any] | None = None
    failures: list[str] = dataclasses.field(default_factory=list)  # the latest first
    metrics: dict[str, str] = dataclasses.field(default_factory=lambda: {"numRestarts": "0"})
    checkpointing: bool = True
    slots: int = 0
    stopping: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    """What polling for a savepoint is answered, one after the other; the last one stays."""
    stale: int = 0
    """How many looks at a job that has ended still find it running (web.refresh-interval)."""

    def vertex(self, name: str, parallelism: int = 2, status: str = "RUNNING") -> dict[str, Any]:
        made = {
            "id": uuid.uuid4().hex,
            "name": name,
            "maxParallelism": 128,
            "parallelism": parallelism,
            "status": status,
            "start-time": self.began_ms,
            "end-time": -1,
            "duration": 1,
            "tasks": {"SCHEDULED": 0, "RUNNING": 0, status: parallelism},
            "metrics": {"read-bytes": 0, "accumulated-busy-time": "NaN"},
            "values": {},  # its metrics: the double's own, not Flink's
        }
        self.vertices.append(made)
        return made


def checkpoint(number: int, path: str = "", age: float = 1.0, **more: Any) -> dict[str, Any]:
    at_ms = int((time.time() - age) * 1000)
    return {
        "className": "completed",
        "id": number,
        "status": "COMPLETED",
        "is_savepoint": False,
        "savepointFormat": None,
        "trigger_timestamp": at_ms - 300,
        "latest_ack_timestamp": at_ms,
        "checkpointed_size": 1_234_567,
        "state_size": 1_234_567,
        "end_to_end_duration": 300,
        "external_path": path or f"file:/checkpoints/x/chk-{number}",
        "discarded": False,
        **more,
    }


class FlinkDouble:
    """`with FlinkDouble() as flink:`"""

    def __init__(self) -> None:
        self.jobs: list[DoubleJob] = []
        self.taskmanagers, self.slots, self.free = 2, 4, 2
        self.taskmanager = "127.0.0.1:1-a"
        self.asked: list[tuple[str, str, Any]] = []  # method, path, body
        self.headers: list[dict[str, str]] = []
        self.override: Callable[[str, str], tuple[int, bytes] | None] = lambda method, path: None
        self.hang = threading.Event()
        self.hang.set()
        double = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _serve(self) -> None:
                double.hang.wait(30)
                length = int(self.headers.get("Content-Length") or 0)
                body = json.loads(self.rfile.read(length)) if length else None
                double.headers.append({k.lower(): v for k, v in self.headers.items()})
                double.asked.append((self.command, self.path, body))
                status, answer = double._answer(self.command, self.path, body)
                if len(self.requestline) + 2 > FIRST_LINE:
                    status, answer = 414, b""
                self.send_response(status)
                if 300 <= status < 400:
                    self.send_header("Location", answer.decode())
                    answer = b""
                self.send_header("Content-Type", "application/json; charset=UTF-8")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            do_GET = do_POST = do_PATCH = _serve

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.handle_error = lambda *_: None  # type: ignore[method-assign]  # a client left
        self.address = f"127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        )

    def __enter__(self) -> FlinkDouble:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.hang.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def add(self, **fields: Any) -> DoubleJob:
        job = DoubleJob(**fields)
        self.jobs.append(job)
        return job

    def _answer(self, method: str, path: str, body: Any) -> tuple[int, bytes]:
        if found := self.override(method, path):
            return found
        try:
            status, answer = self._route(method, path, body)
        except LookupError as error:
            status, answer = 404, refusal(str(error))
        except NotImplementedError as error:
            status, answer = 500, refusal(str(error))
        return status, answer if isinstance(answer, bytes) else json.dumps(answer).encode()

    def _route(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        parts = urlsplit(path)
        names = [unquote(each) for each in parts.path.split("/")[1:]]
        query = parse_qs(parts.query)
        if names[0] != "v1":
            raise LookupError("Not found: " + path)
        match method, names[1:]:
            case "GET", ["overview"]:
                return 200, {
                    "taskmanagers": self.taskmanagers, "slots-total": self.slots,
                    "slots-available": self.free, "jobs-running": 1, "jobs-finished": 0,
                    "jobs-cancelled": 0, "jobs-failed": 0, "flink-version": "1.19.3",
                    "flink-commit": "37d9a39",
                }  # fmt: skip
            case "GET", ["taskmanagers"]:
                return 200, {"taskmanagers": [{"id": self.taskmanager, "slotsNumber": self.slots}]}
            case "GET", ["taskmanagers", self.taskmanager]:
                return 200, {
                    "id": self.taskmanager,
                    "allocatedSlots": [
                        {"jobId": job.id, "resource": {"cpuCores": 1.0}}
                        for job in self.jobs
                        for _ in range(job.slots)
                    ],
                }  # fmt: skip
            case "GET", ["jobs", "overview"]:
                return 200, {"jobs": [self._overview(job) for job in self.jobs]}
            case "GET", ["jobs", job]:
                answer = self._detail(self._job(job))
                if self._job(job).state != "RUNNING" and self._job(job).stale:
                    self._job(job).stale -= 1
                    answer["state"] = "RUNNING"
                return 200, answer
            case "PATCH", ["jobs", job]:
                assert query["mode"] == ["cancel"]
                self._job(job).state = "CANCELED"
                return 202, {}
            case "GET", ["jobs", job, "exceptions"]:
                return 200, self._exceptions(self._job(job))
            case "GET", ["jobs", job, "checkpoints"]:
                return 200, self._checkpoints(self._job(job))
            case "GET", ["jobs", job, "metrics"]:
                return 200, _metrics(self._job(job).metrics, query)
            case "GET", ["jobs", job, "vertices", vertex, "metrics"]:
                found = {each["id"]: each for each in self._job(job).vertices}
                return 200, _metrics(found[vertex]["values"], query)
            case "POST", ["jobs", job, "stop" | "savepoints"]:
                self._job(job)
                return 202, {"request-id": body["triggerId"]}
            case "GET", ["jobs", job, "savepoints", _]:
                told = self._job(job).stopping
                answer = told.pop(0) if len(told) > 1 else told[0]
                if "location" in (answer["operation"] or {}):
                    self._job(job).state = "FINISHED"
                return 200, answer
        raise LookupError(f"Not found: {method} {path}")

    def _job(self, job: str) -> DoubleJob:
        for each in self.jobs:
            if each.id == job:
                return each
        raise LookupError(
            "org.apache.flink.runtime.rest.NotFoundException: Job " + job + " not found\n"
            "\tat org.apache.flink.runtime.rest.handler.job.AbstractExecutionGraphHandler.lambda"
        )

    def _overview(self, job: DoubleJob) -> dict[str, Any]:
        return {
            "jid": job.id, "name": job.name, "start-time": job.began_ms, "end-time": job.ended_ms,
            "duration": 1, "state": job.state, "last-modification": job.began_ms,
            "tasks": {"running": 2, "total": 2},
        }  # fmt: skip

    def _detail(self, job: DoubleJob) -> dict[str, Any]:
        now = int(time.time() * 1000)
        return {
            "jid": job.id, "name": job.name, "isStoppable": False, "state": job.state,
            "start-time": job.began_ms, "end-time": job.ended_ms,
            "duration": now - job.began_ms, "maxParallelism": 128, "now": now,
            "timestamps": {"CREATED": job.began_ms, "RUNNING": job.began_ms, "FAILED": 0},
            "vertices": [{k: v for k, v in each.items() if k != "values"} for each in job.vertices],
            "status-counts": {"RUNNING": 2}, "plan": {"jid": job.id, "nodes": []},
        }  # fmt: skip

    def _exceptions(self, job: DoubleJob) -> dict[str, Any]:
        entries = [
            {
                "exceptionName": text.partition(":")[0], "stacktrace": text,
                "timestamp": 1_700_000_000_000, "failureLabels": {}, "taskName": "x (1/2)",
                "endpoint": "127.0.0.1:1", "taskManagerId": "127.0.0.1:1-a",
                "concurrentExceptions": [],
            }
            for text in job.failures
        ]  # fmt: skip
        return {
            "root-exception": job.failures[0] if job.failures else None, "timestamp": None,
            "all-exceptions": [], "truncated": False,
            "exceptionHistory": {"entries": entries, "truncated": False},
        }  # fmt: skip

    def _checkpoints(self, job: DoubleJob) -> dict[str, Any]:
        if job.state == "INITIALIZING":
            raise NotImplementedError(
                "Internal server error.\n<Exception on server side:\norg.apache.flink.runtime."
                "dispatcher.UnavailableDispatcherOperationException: Unable to get "
                "JobMasterGateway for initializing job. The requested operation is not available "
                "while the JobManager is initializing.\n\tat org.apache.flink.A.b(A.java:1)\n"
            )
        if not job.checkpointing:
            raise LookupError(
                "org.apache.flink.runtime.rest.NotFoundException: "
                "Checkpointing has not been enabled."
            )
        return {
            "counts": {
                "restored": int(bool(job.restored)), "total": 1, "in_progress": 0,
                "completed": int(bool(job.completed)), "failed": int(bool(job.failed)),
            },
            "summary": {},
            "latest": {
                "completed": job.completed, "savepoint": job.savepoint, "failed": job.failed,
                "restored": job.restored,
            },
            "history": [],
        }  # fmt: skip


def _metrics(values: dict[str, str], query: dict[str, list[str]]) -> list[dict[str, str]]:
    if "get" not in query:
        return [{"id": name} for name in values]
    asked = query["get"][0].split(",")
    return [{"id": name, "value": values[name]} for name in asked if name in values]


def refusal(text: str) -> bytes:
    return json.dumps({"errors": [text]}).encode()


def saved(location: str) -> dict[str, Any]:
    return {"status": {"id": "COMPLETED"}, "operation": {"location": location}}


def unsaved(stack: str) -> dict[str, Any]:
    name = re.split(r"[:\n]", stack)[0]
    cause = {"class": name, "stack-trace": stack, "serialized-throwable": "rO0ABXNy"}
    return {"status": {"id": "COMPLETED"}, "operation": {"failure-cause": cause}}


IN_PROGRESS = {"status": {"id": "IN_PROGRESS"}, "operation": None}
