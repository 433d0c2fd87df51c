"""A Flink cluster by its REST API: what runs there, how it goes, and stopping it with a savepoint.

Source: Flink 1.19-2.2, "REST API", and the OpenAPI description published with it
(rest_v1_dispatcher.yml). Where that and Flink's answers differ (an overview has `jid`, not
`jobId`), the answers hold. All that is read has a default: versions add and drop fields.
"""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar
from urllib.parse import quote, urlencode, urlsplit

import msgspec
import urllib3

from pipelines.cluster.trouble import explain, root_cause, told
from transforms.delivery.line import printable
from transforms.delivery.network import Tls
from transforms.secrets import SecretRef

__all__ = [
    "Checkpoint",
    "Checkpoints",
    "Failure",
    "Flink",
    "FlinkError",
    "Job",
    "JobDetail",
    "Overview",
    "Vertex",
    "diagnose",
    "wait_until_working",
]

_MOST = 32 * 1024 * 1024  # bytes of an answer: a job's detail holds its plan
_URL = 2_000  # characters of a query: Flink's server takes 4,096 in a request's first line
_LOOK_SECONDS = 0.5
_PATIENCE = 5.0  # seconds without TaskManagers or slots, until that is told

_ENDED = ("FINISHED", "FAILED", "CANCELED", "SUSPENDED")


class FlinkError(Exception):
    """The cluster refuses, fails or is not there; the message says what and what to do.

    status: of the HTTP answer; 0: there was none.
    """

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class Overview(msgspec.Struct):
    """What the cluster has. free: slots that no job holds."""

    taskmanagers: int = 0
    slots: int = msgspec.field(default=0, name="slots-total")
    free: int = msgspec.field(default=0, name="slots-available")
    version: str = msgspec.field(default="", name="flink-version")


class Job(msgspec.Struct):
    """One of the cluster's jobs. Times in ms of the epoch; -1: not yet."""

    id: str = msgspec.field(default="", name="jid")
    name: str = ""
    state: str = ""
    began_ms: int = msgspec.field(default=-1, name="start-time")
    ended_ms: int = msgspec.field(default=-1, name="end-time")

    @property
    def lives(self) -> bool:
        """Whether it runs, or will by itself."""
        return self.state not in _ENDED


class Vertex(msgspec.Struct):
    """Steps that run fused, in so many subtasks. tasks: how many are in which state."""

    id: str = ""
    name: str = ""
    parallelism: int = 0
    status: str = ""
    tasks: dict[str, int] = {}


class JobDetail(Job):
    """A job with its vertices. now_ms: the cluster's clock."""

    now_ms: int = msgspec.field(default=0, name="now")
    timestamps: dict[str, int] = {}
    vertices: list[Vertex] = []

    @property
    def runs(self) -> bool:
        """Whether every subtask runs: the job's own state says so too early."""
        return self.state == "RUNNING" and all(v.status == "RUNNING" for v in self.vertices)


class Checkpoint(msgspec.Struct):
    """A checkpoint, or a savepoint, that is complete, or was restored from. Sizes in bytes."""

    id: int = 0
    at_ms: int = msgspec.field(default=0, name="latest_ack_timestamp")
    size: int = msgspec.field(default=0, name="state_size")
    took_ms: int = msgspec.field(default=0, name="end_to_end_duration")
    external_path: str | None = None
    is_savepoint: bool = False

    @property
    def path(self) -> str:
        """Where a job can be resumed from; empty where it lies in the JobManager's memory."""
        path = self.external_path or ""
        return "" if path.startswith("<") else path  # <checkpoint-not-externally-addressable>


class _Counts(msgspec.Struct):
    completed: int = 0
    failed: int = 0
    restored: int = 0
    in_progress: int = 0


class _Failed(msgspec.Struct):
    at_ms: int = msgspec.field(default=0, name="failure_timestamp")
    message: str | None = msgspec.field(default="", name="failure_message")


class _Latest(msgspec.Struct):
    completed: Checkpoint | None = None
    savepoint: Checkpoint | None = None
    restored: Checkpoint | None = None
    failed: _Failed | None = None


class Checkpoints(msgspec.Struct):
    """What is known of a job's checkpoints since it was submitted."""

    counts: _Counts = msgspec.field(default_factory=_Counts)
    latest: _Latest = msgspec.field(default_factory=_Latest)


class Failure(NamedTuple):
    """An exception that a job met: in a line, and as it was said."""

    at_ms: int
    cause: str
    text: str


class _Entry(msgspec.Struct):
    timestamp: int = 0
    stacktrace: str = ""


class _History(msgspec.Struct):
    entries: list[_Entry] = []


class _Exceptions(msgspec.Struct):
    history: _History = msgspec.field(default_factory=_History, name="exceptionHistory")


class _Jobs(msgspec.Struct):
    jobs: list[Job] = []


class _Slot(msgspec.Struct):
    job: str = msgspec.field(default="", name="jobId")


class _TaskManager(msgspec.Struct):
    id: str = ""
    slots: list[_Slot] = msgspec.field(default_factory=list, name="allocatedSlots")


class _TaskManagers(msgspec.Struct):
    taskmanagers: list[_TaskManager] = []


class _Metric(msgspec.Struct):
    id: str = ""
    value: str | None = None


class _Triggered(msgspec.Struct):
    id: str = msgspec.field(default="", name="request-id")


class _Cause(msgspec.Struct):
    stack: str = msgspec.field(default="", name="stack-trace")


class _Operation(msgspec.Struct):
    location: str | None = None
    cause: _Cause | None = msgspec.field(default=None, name="failure-cause")


class _Status(msgspec.Struct):
    id: str = ""


class _Progress(msgspec.Struct):
    status: _Status = msgspec.field(default_factory=_Status)
    operation: _Operation | None = None


class _Errors(msgspec.Struct):
    errors: list[str] = []


_T = TypeVar("_T")


class Flink:
    """The JobManager at `host:port`, or at a URL (with a path, behind a gateway).

    credentials: `user:password`, or a bearer token, for a gateway that asks. Redirects are not
    followed, and an answer is awaited for `timeout` seconds. Raises FlinkError.
    """

    def __init__(
        self,
        address: str,
        credentials: SecretRef | None = None,
        tls: Tls = Tls(),  # noqa: B008 - frozen
        timeout: float = 20.0,
    ) -> None:
        self.url = _url(address)
        parts = urlsplit(self.url)
        self._base = parts.path
        self._credentials = credentials
        self._pool = urllib3.connection_from_url(
            f"{parts.scheme}://{parts.netloc}",
            timeout=urllib3.Timeout(connect=min(5.0, timeout), read=timeout),
            retries=False,
            **({"ssl_context": tls.context()} if parts.scheme == "https" else {}),
        )

    def overview(self) -> Overview:
        return self._get("/overview", Overview)

    def slots(self, job: str) -> int:
        """How many the job holds. Asks each TaskManager."""
        listed = self._get("/taskmanagers", _TaskManagers).taskmanagers
        paths = (f"/taskmanagers/{quote(each.id, safe='')}" for each in listed)
        return sum(slot.job == job for at in paths for slot in self._get(at, _TaskManager).slots)

    def jobs(self) -> list[Job]:
        """All that it remembers, the newest first."""
        found = self._get("/jobs/overview", _Jobs).jobs
        return sorted(found, key=lambda job: -job.began_ms)

    def named(self, name: str) -> Job:
        """The job of that name, or id (8 characters of it will do), that lives."""
        found = [
            job
            for job in self.jobs()
            if name == job.name or (len(name) >= 8 and job.id.startswith(name))
        ]
        living = [job for job in found if job.lives]
        if len(living) == 1:
            return living[0]
        if living:
            ids = ", ".join(printable(job.id) for job in living)
            raise FlinkError(
                f"{len(living)} jobs have the name {printable(name)}: give an id: {ids}"
            )
        if found:
            raise FlinkError(f"{printable(name)} does not run: it is {printable(found[0].state)}")
        raise FlinkError(f"there is no job {printable(name)} on {self.url}: `alertbeam flink list`")

    def job(self, job: str) -> JobDetail:
        return self._get(f"/jobs/{quote(job, safe='')}", JobDetail)

    def exceptions(self, job: str) -> list[Failure]:
        """What the job met, the latest first. Flink keeps some (web.exception-history-size)."""
        found = self._get(f"/jobs/{quote(job, safe='')}/exceptions", _Exceptions)
        return [
            Failure(entry.timestamp, root_cause(entry.stacktrace), entry.stacktrace)
            for entry in found.history.entries
        ]

    def checkpoints(self, job: str) -> Checkpoints:
        """None at all where checkpoints are off, or the job is initializing."""
        try:
            return self._get(f"/jobs/{quote(job, safe='')}/checkpoints", Checkpoints)
        except FlinkError as error:
            if error.status != 404 and "is initializing" not in str(error):
                raise
            return Checkpoints()

    def job_metrics(self, job: str, names: Sequence[str]) -> dict[str, str]:
        """Those of them that there are, such as `numRestarts`."""
        return self._metrics(f"/jobs/{quote(job, safe='')}/metrics", names)

    def vertex_metrics(self, job: str, vertex: str, names: Sequence[str]) -> dict[str, str]:
        """A subtask's have its number in front: `0.numRecordsOutPerSecond`; an operator's also its
        name. What Beam's counters and gauges are called there: `beam_metrics`."""
        return self._metrics(_vertex(job, vertex), names)

    def beam_metrics(
        self, job: str, vertex: str, namespace: str, starts: Iterable[str] = ("",)
    ) -> dict[tuple[int, str], str]:
        """The values of Beam's own metrics of that namespace, by subtask and name; only of names
        that start so.

        Beam calls them `namespace.name` (its FlinkMetricContainerBase), and Flink's server makes an
        underscore of each ` .:,` in it; Beam's distributions are shown as their `toString()`.
        """
        path = _vertex(job, vertex)
        listed = [metric.id for metric in self._get(path, list[_Metric])]
        some = "|".join(map(re.escape, starts))
        there = re.compile(rf"(\d+)\..*\.{re.escape(namespace)}_((?:{some}).*)", re.DOTALL)
        own = {name: found for name in listed if (found := there.fullmatch(name))}
        values = self._metrics(path, list(own))
        return {(int(own[name][1]), own[name][2]): value for name, value in values.items()}

    def stop(self, job: str, folder: str = "", seconds: float = 600.0) -> str:
        """Stop with a savepoint, and wait until that stands and the job has ended; its path. What
        fails leaves the job running. folder: where to, if it is not the cluster's own
        (state.savepoints.dir)."""
        # Flink's own drain waits for sources to end, and Beam's read for ever.
        body: dict[str, Any] = {"drain": False}
        body |= {"targetDirectory": folder} if folder else {}
        path = self._saved(job, f"/jobs/{quote(job, safe='')}/stop", body, seconds)
        self._until_ended(job, seconds, f"its savepoint {path} is complete, but ")
        return path

    def savepoint(self, job: str, folder: str = "", seconds: float = 600.0) -> str:
        """As `stop`, but the job goes on."""
        body: dict[str, Any] = {"cancel-job": False}
        body |= {"target-directory": folder} if folder else {}
        return self._saved(job, f"/jobs/{quote(job, safe='')}/savepoints", body, seconds)

    def cancel(self, job: str, seconds: float = 60.0) -> None:
        """End it without a savepoint, and wait until it has ended."""
        self._request("PATCH", f"/jobs/{quote(job, safe='')}?mode=cancel")
        self._until_ended(job, seconds)

    def _lives(self, job: str) -> bool:
        """Of one that was told to end. A cluster that is there for one job ends with it."""
        try:
            return self.job(job).lives
        except FlinkError as error:
            if error.status in (0, 404):
                return False
            raise

    def _until_ended(self, job: str, seconds: float, before: str = "") -> None:
        # What Flink shows of a job may be 3 s old (web.refresh-interval).
        until = time.monotonic() + seconds
        while self._lives(job):
            if time.monotonic() > until:
                raise FlinkError(f"{before}it has not ended after {seconds:.0f} s: see {self.url}")
            time.sleep(_LOOK_SECONDS)

    def _saved(self, job: str, path: str, body: Mapping[str, Any], seconds: float) -> str:
        # Our own id: should the answer be lost, the savepoint is found all the same.
        trigger = uuid.uuid4().hex
        answer = self._request("POST", path, dict(body) | {"triggerId": trigger})
        trigger = self._decoded(answer, _Triggered).id or trigger
        until = time.monotonic() + seconds
        lost = 0.0  # since when it does not answer
        while True:
            try:
                at = f"/jobs/{quote(job, safe='')}/savepoints/{quote(trigger, safe='')}"
                progress = self._get(at, _Progress)
                lost = 0.0
            except FlinkError as error:
                lost = lost or time.monotonic()
                if error.status or time.monotonic() - lost > 2 * _PATIENCE:
                    raise
                progress = _Progress()
            if operation := progress.operation:
                if operation.location:
                    return operation.location
                raise FlinkError(
                    f"no savepoint: {told(operation.cause.stack if operation.cause else '')}"
                )
            if time.monotonic() > until:
                raise FlinkError(
                    f"the savepoint is not complete after {seconds:.0f} s; it may still become so: "
                    f"see {self.url}"
                )
            time.sleep(_LOOK_SECONDS)

    def _metrics(self, path: str, names: Sequence[str]) -> dict[str, str]:
        found: dict[str, str] = {}
        for some in _chunks(names):
            asked = urlencode({"get": ",".join(some)})
            for metric in self._get(f"{path}?{asked}", list[_Metric]):
                if metric.value is not None:
                    found[metric.id] = metric.value
        return found

    def _get(self, path: str, kind: type[_T]) -> _T:
        return self._decoded(self._request("GET", path), kind)

    def _decoded(self, body: bytes, kind: type[_T]) -> _T:
        try:
            return msgspec.json.decode(body, type=kind)
        except msgspec.DecodeError as error:
            raise FlinkError(
                f"what answers at {self.url} is not Flink's REST API ({error}): is it the right "
                "port (rest.port, mostly 8081)?"
            ) from None

    def _request(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> bytes:
        headers = {"Accept": "application/json", **self._authorization()}
        if body is not None:
            headers["Content-Type"] = "application/json"
        try:
            answer = self._pool.request(
                method,
                f"{self._base}/v1{path}",
                body=None if body is None else msgspec.json.encode(body),
                headers=headers,
                redirect=False,
                preload_content=False,
            )
            try:
                said = answer.read(_MOST + 1, decode_content=True)
            finally:
                answer.release_conn() if answer.length_remaining == 0 else answer.close()
        except urllib3.exceptions.HTTPError as error:
            raise FlinkError(self._unreachable(error)) from None
        if len(said) > _MOST:
            raise FlinkError(f"{self.url} answers with more than {_MOST >> 20} MB")
        if answer.status in (401, 403):
            raise FlinkError(
                f"{self.url} refuses (HTTP {answer.status}): give --credentials, or others",
                answer.status,
            )
        if not 200 <= answer.status < 300:
            raise FlinkError(self._refused(answer.status, said), answer.status)
        return said

    def _refused(self, status: int, said: bytes) -> str:
        try:
            text = "\n".join(msgspec.json.decode(said, type=_Errors).errors)
        except msgspec.DecodeError:
            text = ""
        return told(text) or f"{self.url} answers with HTTP {status}"

    def _unreachable(self, error: Exception) -> str:
        if isinstance(error, urllib3.exceptions.SSLError):
            return f"{self.url}: {printable(str(error))}"
        reason = "it does not answer in time"
        if not isinstance(error, urllib3.exceptions.ReadTimeoutError):
            reason = printable(re.sub(r"\[Errno -?\d+\] ", "", str(error).rpartition(": ")[2]))
        return (
            f"no Flink at {self.url} ({reason}): is its JobManager up, and is this its REST "
            "address (rest.address, rest.port)?"
        )

    def _authorization(self) -> dict[str, str]:
        if self._credentials is None:
            return {}
        secret = self._credentials.resolve().reveal()
        if ":" in secret:
            return urllib3.make_headers(basic_auth=secret)
        return {"Authorization": f"Bearer {secret}"}


def _url(address: str) -> str:
    """`host:port` as a URL; a URL as it is, without a slash at its end. Raises FlinkError."""
    url = address if "://" in address else f"http://{address}"
    wrong = FlinkError(
        f"{printable(address.rpartition('@')[2])!r} is no address of a cluster: give host:port, or "
        "a URL without user, password and query"
    )
    try:
        parts = urlsplit(url)
        bad = (
            parts.username or parts.password or parts.query or parts.fragment or not parts.hostname
        )
        _ = parts.port
    except ValueError:
        raise wrong from None
    if bad or parts.scheme not in ("http", "https"):
        raise wrong
    return url.rstrip("/")


def _vertex(job: str, vertex: str) -> str:
    return f"/jobs/{quote(job, safe='')}/vertices/{quote(vertex, safe='')}/metrics"


def _chunks(names: Iterable[str]) -> Iterator[list[str]]:
    """As many at once as a URL holds."""
    some: list[str] = []
    length = 0
    for name in names:
        size = len(quote(name, safe="")) + 3
        if some and length + size > _URL:
            yield some
            some, length = [], 0
        some.append(name)
        length += size
    if some:
        yield some


def diagnose(client: Flink, job: JobDetail) -> str:
    """Why a job does not work, in one line; empty if nothing is seen."""
    failures = client.exceptions(job.id)
    if job.lives:
        waiting = sum(vertex.tasks.get("SCHEDULED", 0) for vertex in job.vertices)
        needed = max((vertex.parallelism for vertex in job.vertices), default=0)
        has = client.overview()
        if not has.taskmanagers:
            return "the cluster has no TaskManagers: start some (`bin/taskmanager.sh start`)"
        short = waiting or (failures and "NoResourceAvailableException" in failures[0].text)
        if short and needed > has.free and needed > has.free + client.slots(job.id):
            return (
                f"the job needs {needed} slots, {has.free} of {has.slots} are free: start more "
                "TaskManagers, stop another job, or lower --parallelism"
            )
    if failures:
        return explain(failures[0].text) or failures[0].cause
    failed = client.checkpoints(job.id).latest.failed if job.runs else None
    if failed and failed.message and "Checkpoint Coordinator is suspending" not in failed.message:
        return f"a checkpoint failed: {told(failed.message)}"
    return ""


def wait_until_working(
    client: Flink, job_id: str, say: Callable[[str], None], seconds: float = 180.0
) -> Checkpoint | None:
    """Wait until every subtask runs and the first checkpoint is complete, and return that (None
    where a job ended before it). Says each change, and what hinders it; raises FlinkError with the
    reason where the job ends badly, or does not get there in time.
    """
    began = time.monotonic()
    said: set[str] = set()
    state = hindered = ""

    def tell(line: str) -> None:
        if line and line not in said:
            said.add(line)
            say(line)

    while True:
        waited = time.monotonic() - began
        try:
            job = client.job(job_id)
            checkpoints = client.checkpoints(job_id)
            shown = "RUNNING" if job.runs else "STARTING" if job.state == "RUNNING" else job.state
            if shown != state:
                state = shown
                say(f"{printable(state)} after {waited:.0f} s")
            if job.runs and (first := checkpoints.latest.completed):
                return first
            if not job.lives:
                if job.state == "FINISHED":
                    return checkpoints.latest.completed
                raise _Ended(
                    f"the job is {job.state}: {diagnose(client, job) or 'see ' + client.url}"
                )
            if waited > _PATIENCE or job.state in ("FAILING", "RESTARTING"):
                hindered = diagnose(client, job)
                tell(hindered)
        except _Ended as error:
            raise FlinkError(str(error)) from None
        except FlinkError as error:  # a JobManager that starts anew, or has not yet got the job
            hindered = str(error)
            if waited > _PATIENCE:
                tell(hindered)
        if waited > seconds:
            raise FlinkError(
                f"the job does not work after {seconds:.0f} s: "
                + (hindered or f"it is {state or 'not there'}, without a checkpoint")
                + f". It is left as it is: see {client.url}; `alertbeam flink stop NAME --cancel`"
            )
        time.sleep(_LOOK_SECONDS)


class _Ended(FlinkError):
    """A job that has ended badly: nothing to wait for."""
