"""What a sink carries on one core, against a bare loop that only encodes and writes to the socket.

Both have the same process, core, alerts, encoder and receiver, and fill requests to the same
limits. What the receiver counts has to be what was sent; else the case is void.
"""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import os
import socket
import ssl
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple
from urllib.parse import urlsplit

from benchmarks.alerts import ORIGIN, SUBSCRIBED, batches, bodies
from benchmarks.figures import Figure
from pipelines.local.receivers import (
    HecReceiver,
    HttpReceiver,
    Receiver,
    Reply,
    Request,
    SyslogReceiver,
    certificate,
)
from schemas.batch import AlertBatch
from schemas.receipt import Outcome
from transforms.delivery.engine import Engine
from transforms.delivery.http import compress
from transforms.delivery.parcel import Parcel
from transforms.enrich import enrich_batch
from transforms.parse import parse_batch
from transforms.sinks.base import Sink, sinks
from transforms.write import parcels

__all__ = ["CASES", "measure", "throughput"]

_ALERTS = 20_000
_ROUNDS = 5
_BATCH = 200
_SETTLED_AT = 10  # batches, as a bundle has them
_ARRIVAL = 10.0  # seconds that what was sent may take to be counted
_MOST = 64 << 20  # bytes of a request
_FREED = 16 << 20  # bytes
_SECRET = "a-secret-for-benchmarks"

Side = Literal["bare", "engine"]
Write = Callable[[bytes], None]


class Case(NamedTuple):
    """A sink's settings, and what receives.

    receiver: empty for files, whose lines are counted. share: of the alerts, where a format takes
    long.
    """

    what: str
    kind: str
    settings: Mapping[str, Any]
    receiver: str = ""
    share: float = 1.0


_CEF = {"format": "cef", "entities": False}
CASES = [
    Case("HEC, gzip", "splunk_hec", {}, "hec"),
    Case("HEC", "splunk_hec", {"gzip": False}, "hec"),
    Case("syslog/TLS, CEF", "syslog", {**_CEF, "protocol": "tls"}, "syslog/tls"),
    Case("syslog/TCP, CEF", "syslog", _CEF, "syslog"),
    Case("syslog/TLS, RFC 5424", "syslog", {"protocol": "tls"}, "syslog/tls"),
    Case("syslog/TCP, RFC 5424", "syslog", {}, "syslog"),
    Case("file, synced", "file", {}),
    Case("file", "file", {"sync": False}),
    Case("Elasticsearch, raw", "elasticsearch", {"format": "raw"}, "bulk"),
    Case("Elasticsearch, ECS", "elasticsearch", {}, "bulk", 0.2),
    Case("webhook, signed lines", "webhook", {"batch": "lines"}, "lines"),
]


class Run(NamedTuple):
    """One round: so many alerts took so many seconds by the clock and of the processor.

    sent: with those before the clock began; arrived: as the receiver counted them.
    """

    alerts: int
    seconds: float
    cpu: float
    sent: int
    arrived: int = 0


def throughput() -> Iterator[Figure]:
    """Medians of interleaved rounds."""
    for case in CASES:
        yield from _figures(case.what, measure(case, _ALERTS, _ROUNDS))


def _figures(what: str, rounds: list[tuple[Run, Run]]) -> Iterator[Figure]:
    runs = [run for pair in rounds for run in pair]
    void = any(run.arrived != run.sent for run in runs)
    if not void:
        rate = statistics.median(engine.alerts / engine.seconds for _, engine in rounds)
        ratio = statistics.median(bare.seconds / engine.seconds for bare, engine in rounds)
        cpu, bare_cpu = (
            statistics.median(run.cpu / run.alerts * 1e6 for run in side)
            for side in ([engine for _, engine in rounds], [bare for bare, _ in rounds])
        )
        yield Figure(f"{what}: rate", rate, "alerts/s")
        yield Figure(f"{what}: of the bare loop's rate", ratio, "")
        yield Figure(f"{what}: CPU", cpu, "µs an alert")
        yield Figure(f"{what}: the bare loop's CPU", bare_cpu, "µs an alert")
    sent, arrived = sum(run.sent for run in runs), sum(run.arrived for run in runs)
    yield Figure(f"{what}: {'VOID, ' if void else ''}arrived of {sent:,}", arrived, "alerts")


def measure(case: Case, count: int, rounds: int) -> list[tuple[Run, Run]]:
    """The bare loop's and the engine's run of each round; sender and receiver have a core each."""
    cores = sorted(os.sched_getaffinity(0))
    found = []
    with (
        tempfile.TemporaryDirectory() as folder,
        _process(cores[-1]) as sender,
        _process(cores[0]) as receiver,
    ):
        target = receiver.submit(_receive, case.receiver, folder).result()
        sender.submit(_load, round(count * case.share)).result()

        def run(side: Side) -> Run:
            done = sender.submit(_timed, side, case, target, folder).result()
            return done._replace(arrived=receiver.submit(_arrived, done.sent, folder).result())

        for number in range(rounds + 1):
            pair = run("bare"), run("engine")
            if number:  # the first is for what it loads
                found.append(pair)
        receiver.submit(_stop).result()
    return found


@contextlib.contextmanager
def _process(core: int) -> Iterator[ProcessPoolExecutor]:
    """A process of its own, on one core."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context, os.sched_setaffinity, (0, {core})) as process:
        yield process


# ------------------------------------------------------------------ in the receiver's process


class _Counting(Receiver):
    """Counts records, and forgets them."""

    def keep(self, data: bytes, records: int = 0) -> None:
        with self._lock:
            self.received += records


class _Hec(_Counting, HecReceiver):
    pass


class _Syslog(_Counting, SyslogReceiver):
    pass


class _Http(_Counting, HttpReceiver):
    """Says that all is well, whatever comes; its records are lines."""

    lines_each = 1

    def respond(self, request: Request) -> Reply:
        count = request.body.count(b"\n") // self.lines_each
        self.keep(b"", count)
        return Reply(200, self.success(count))

    def success(self, count: int) -> bytes:
        return b""


class _Bulk(_Http):
    lines_each = 2

    def success(self, count: int) -> bytes:
        return b'{"errors":false,"items":[%b]}' % b",".join([b'{"create":{"status":201}}'] * count)


_receiver: Any = None
_counted = 0


def _receive(kind: str, folder: str) -> str:
    """Start it; where it is: a URL, an address, a folder."""
    global _receiver, _counted
    _receiver, _counted = None, 0
    if not kind:
        return str(Path(folder, "lines"))
    if kind == "hec":
        _receiver = _Hec(token=_SECRET)
    elif kind == "syslog":
        _receiver = _Syslog()
    elif kind == "syslog/tls":
        _receiver = _Syslog(tls=certificate(Path(folder)))
    else:
        _receiver = {"bulk": _Bulk, "lines": _Http}[kind](max_bytes=_MOST)
    _receiver.start()
    return str(_receiver.address if kind.startswith("syslog") else _receiver.url)


def _arrived(sent: int, folder: str) -> int:
    """What has come since this was asked last; waits for so many, and a little for more."""
    global _counted
    if _receiver is None:
        count = 0
        for path in Path(folder, "lines").iterdir():
            count += path.read_bytes().count(b"\n")
            path.unlink()
        return count
    end = time.monotonic() + _ARRIVAL
    while _receiver.received - _counted < sent and time.monotonic() < end:
        time.sleep(0.01)
    time.sleep(0.05)
    found, _counted = _receiver.received - _counted, _receiver.received
    return int(found)


def _stop() -> None:
    if _receiver is not None:
        _receiver.stop()


# -------------------------------------------------------------------- in the sender's process

_loaded: list[AlertBatch] = []


def _load(count: int) -> None:
    os.environ["BENCHMARKED"] = _SECRET
    read = batches(bodies(count, repeats=0), _BATCH)
    _loaded[:] = [enrich_batch(parse_batch(batch)[0], SUBSCRIBED) for batch in read]
    gc.collect()
    gc.freeze()  # what only lies here to be sent would be walked through again and again
    # glibc keeps freed memory up to twice the largest block that was freed; a pipeline's process
    # has freed such long ago, and then asks the system for little.
    bytearray(_FREED)


def _timed(side: Side, case: Case, target: str, folder: str) -> Run:
    sink = _sink(case, target, folder)
    work = _bare(case, sink, target, folder) if side == "bare" else _through_engine(sink)
    first = next(work)  # connected by now: TCP and TLS begin slowly, and that is another matter
    gc.collect()
    began, cpu = time.perf_counter(), time.process_time()
    alerts = next(work)
    took = time.perf_counter() - began, time.process_time() - cpu
    next(work, None)  # closes
    return Run(alerts, *took, first + alerts)


def _sink(case: Case, target: str, folder: str) -> Sink[Any]:
    secret = "env:BENCHMARKED"
    given: dict[str, Any] = {
        "splunk_hec": {"url": target, "token": secret},
        "syslog": {"address": target},
        "file": {"folder": target},
        "elasticsearch": {"url": target},
        "webhook": {"url": target, "secret": secret},
    }[case.kind]
    if case.receiver == "syslog/tls":
        given["tls"] = {"ca": _authority(folder)}
    kind = sinks()[case.kind]
    return kind(case.kind, kind.Settings.model_validate({**given, **case.settings}))


def _through_engine(sink: Sink[Any]) -> Iterator[int]:
    """As the pipeline does: batch by batch, settled at the end of a bundle.

    Yields how many were sent: of the first batch, then of all of them.
    """
    engine = Engine(sink)
    for load in (_loaded[:1], _loaded):
        count = 0
        for at in range(0, len(load), _SETTLED_AT):
            sent: list[Parcel] = []
            for batch in load[at : at + _SETTLED_AT]:
                made = parcels(sink, batch, -1)
                engine.submit(made)
                sent += made
            engine.settle()
            assert all(parcel.outcome is Outcome.DELIVERED for parcel in sent), engine.status()
            count += len(sent)
        yield count
    engine.close()


def _bare(case: Case, sink: Sink[Any], target: str, folder: str) -> Iterator[int]:
    """As little as can be: encode, put together what goes in a request, write it."""
    encode, join = sink.encode, _JOINS.get(case.kind, _lines)
    most, records, separator = sink.limits.max_bytes, sink.limits.max_records, sink.separator_bytes
    source, partition = ORIGIN.source, ORIGIN.partition
    with _written(case, sink, target, folder) as write:
        for load in (_loaded[:1], _loaded):
            payloads: list[bytes] = []
            size = 0
            for batch in load:
                for alert in batch.alerts:
                    payload = encode(alert, source, partition)
                    size += len(payload) + separator
                    if size > most or len(payloads) == records:
                        write(join(payloads))
                        payloads, size = [], len(payload) + separator
                    payloads.append(payload)
            write(join(payloads))
            yield sum(len(batch.alerts) for batch in load)


def _lines(payloads: Sequence[bytes]) -> bytes:
    return b"\n".join(payloads) + b"\n"


def _octets(payloads: Sequence[bytes]) -> bytes:
    return b"".join([b"%d %b" % (len(payload), payload) for payload in payloads])


_JOINS: dict[str, Callable[[Sequence[bytes]], bytes]] = {
    "splunk_hec": b"\n".join,
    "syslog": _octets,
}


@contextlib.contextmanager
def _written(case: Case, sink: Sink[Any], target: str, folder: str) -> Iterator[Write]:
    """What writes a request's bytes."""
    if case.kind == "file":
        path = Path(target, "bare")
        path.parent.mkdir(exist_ok=True)
        with path.open("ab", buffering=0) as file:

            def append(data: bytes) -> None:
                file.write(data)
                if sink.settings.sync:
                    os.fsync(file.fileno())

            yield append
        return
    parts = urlsplit(target if "://" in target else f"//{target}")
    sock = socket.create_connection((parts.hostname, parts.port))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if case.receiver == "syslog/tls":
        context = ssl.create_default_context(cafile=_authority(folder))
        sock = context.wrap_socket(sock, server_hostname=parts.hostname)
    with sock:
        yield sock.sendall if case.kind == "syslog" else _posting(sock, sink.settings.gzip)
        # Closing with something unread would reset it, and lose what the receiver has not read.
        sock.shutdown(socket.SHUT_WR)
        while sock.recv(65536):
            pass


def _posting(sock: socket.socket, packed: bool) -> Write:
    """What sends a body in a request, and waits for the answer."""
    fields = ["Host: it", f"Authorization: Splunk {_SECRET}", "Content-Length: %d"]
    if packed:
        fields.append("Content-Encoding: gzip")
    head = "\r\n".join(["POST /services/collector/event HTTP/1.1", *fields, "", ""]).encode()
    answers = sock.makefile("rb")

    def post(body: bytes) -> None:
        if packed:
            body = compress(body)
        sock.sendall(head % len(body) + body)
        _read_answer(answers)

    return post


def _read_answer(answers: BinaryIO) -> None:
    said = answers.readline()
    assert said.startswith(b"HTTP/1.1 200 "), said
    length = 0
    while field := answers.readline().strip():
        if field.lower().startswith(b"content-length:"):
            length = int(field.partition(b":")[2])
    answers.read(length)


def _authority(folder: str) -> str:
    return str(Path(folder, "localhost.pem"))
