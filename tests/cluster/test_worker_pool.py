"""The worker pool as a process, with workers that Beam's own runner asks it for over gRPC."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from apache_beam.portability.api import beam_fn_api_pb2, beam_fn_api_pb2_grpc

from pipelines.cluster.worker import OneLine
from tests.cluster import pooled
from tests.cluster.pool import Pool, eventually, gone
from transforms import metrics

LINE = re.compile(r"\d{4}-\d\d-\d\d [\d:,]{12} (INFO|WARNING|ERROR) \S.*")


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Pool]]:
    pools: list[Pool] = []

    def started(*arguments: str) -> Pool:
        (folder := tmp_path / f"{len(pools)}").mkdir()
        pools.append(Pool(folder, *arguments))
        return pools[-1]

    yield started
    for pool in pools:
        pool.kill()


@contextlib.contextmanager
def asking(pool: Pool) -> Iterator[Any]:
    """One client's connection."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    with grpc.insecure_channel(pool.address, options=options) as channel:
        yield beam_fn_api_pb2_grpc.BeamFnExternalWorkerPoolStub(channel)


@pytest.fixture
def silent() -> Iterator[str]:
    """A runner's address where nobody ever answers: a worker waits there."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


def wanted(name: str, address: str) -> beam_fn_api_pb2.StartWorkerRequest:
    asked = beam_fn_api_pb2.StartWorkerRequest(worker_id=name)
    for service in ("provision", "control", "logging", "artifact"):
        getattr(asked, f"{service}_endpoint").url = address
    return asked


def test_a_pipeline_runs_in_a_process_of_the_pool_which_ends_with_it(
    start: Callable[..., Pool],
) -> None:
    pool = start("--health", "0")
    with pool.runs("hold") as pipeline:
        worker = pool.holding()
        assert [worker] == pool.started()
        parent = int(Path(f"/proc/{worker}/stat").read_text().rpartition(")")[2].split()[1])
        assert parent == pool.process.pid
        assert pool.figures == {"workers": 1, "started": 1, "died": 0}
        (pool.folder / "go").touch()
        output, _ = pipeline.communicate(timeout=60)
        assert pipeline.returncode == 0, output
        eventually(lambda: gone(worker))
    assert (pool.folder / "closed").exists(), "its engine was not closed"
    eventually(lambda: pool.figures == {"workers": 0, "started": 1, "died": 0})


def test_a_worker_ends_when_its_runner_is_killed(start: Callable[..., Pool]) -> None:
    pool = start("--health", "0")
    with pool.runs("hold") as pipeline:
        worker = pool.holding()
        pipeline.kill()
        eventually(lambda: gone(worker))
    assert (pool.folder / "closed").exists(), "its engine was not closed"
    eventually(lambda: "its runner is gone" in pool.log.read_text())
    assert pool.figures["died"] == 0, "it ended well"


def test_no_worker_outlives_a_pool_that_is_killed(start: Callable[..., Pool]) -> None:
    pool = start()
    with pool.runs("hold"):
        worker = pool.holding()
        pool.process.kill()
        pool.process.wait(10)
        eventually(lambda: gone(worker))
    assert (pool.folder / "closed").exists(), "its engine was not closed"
    assert "its pool is gone" in pool.log.read_text()


def test_sigterm_ends_the_workers_and_closes_what_is_open_in_them(
    start: Callable[..., Pool],
) -> None:
    pool = start("--health", "0", "--metrics", "0")
    with pool.runs("hold"):
        worker = pool.holding()
        pool.process.send_signal(signal.SIGTERM)
        pool.process.wait(20)
        assert gone(worker)
    assert pool.process.returncode == 0
    assert (pool.folder / "closed").exists(), "its engine was not closed"
    log = pool.log.read_text()
    assert f"(process {worker}) ended" in log and "died" not in log and "killed" not in log


def test_a_worker_whose_sink_hangs_ends_within_the_grace(start: Callable[..., Pool]) -> None:
    pool = start("--grace", "5")
    with pool.runs("stuck"):
        worker = pool.holding()
        pool.process.send_signal(signal.SIGTERM)
        pool.process.wait(20)
        assert gone(worker)
    assert pool.process.returncode == 0
    log = pool.log.read_text()
    assert f"(process {worker}) ended" in log and "is killed" not in log


def test_a_worker_that_takes_no_signal_is_killed_after_the_grace(
    start: Callable[..., Pool], silent: str
) -> None:
    pool = start("--grace", "1")
    with asking(pool) as runner:
        runner.StartWorker(wanted("1", silent))
    (worker,) = pool.started()
    os.kill(worker, signal.SIGSTOP)
    began = time.monotonic()
    pool.process.send_signal(signal.SIGTERM)
    pool.process.wait(20)
    assert gone(worker) and time.monotonic() - began >= 1
    assert pool.process.returncode == 0
    assert f"(process {worker}) did not end in 1 s, and is killed" in pool.log.read_text()


def test_a_worker_that_died_is_told(start: Callable[..., Pool]) -> None:
    pool = start("--health", "0", "--metrics", "0")
    with pool.runs("hold"):
        worker = pool.holding()
        os.kill(worker, signal.SIGKILL)
        eventually(lambda: pool.figures == {"workers": 0, "started": 1, "died": 1})
    assert f"(process {worker}) died: SIGKILL" in pool.log.read_text()
    assert pool.scraped()["alertbeam_worker_deaths_total", ()] == 1


def test_a_worker_is_stopped_over_the_connection_that_asked_for_it(
    start: Callable[..., Pool], silent: str
) -> None:
    pool = start("--health", "0", "--grace", "5")
    with asking(pool) as one, asking(pool) as other:
        for jobs in (one, other):
            assert not jobs.StartWorker(wanted("1-1", silent)).error
        first, second = pool.started("1-1")
        stop = beam_fn_api_pb2.StopWorkerRequest(worker_id="1-1")
        other.StopWorker(stop, timeout=20)
        assert gone(second) and not gone(first)
        other.StopWorker(stop, timeout=20)  # again: it is not taken for the other one
        assert not gone(first)
        one.StopWorker(stop, timeout=20)
        assert gone(first)
        one.StopWorker(beam_fn_api_pb2.StopWorkerRequest(worker_id="unknown"), timeout=20)
    assert pool.figures == {"workers": 0, "started": 2, "died": 0}


def test_a_worker_is_stopped_also_after_a_reconnection(
    start: Callable[..., Pool], silent: str
) -> None:
    pool = start("--grace", "5")
    with asking(pool) as before:
        before.StartWorker(wanted("1-1", silent))
    with asking(pool) as after:
        after.StopWorker(beam_fn_api_pb2.StopWorkerRequest(worker_id="1-1"), timeout=20)
    (worker,) = pool.started()
    assert gone(worker)


def test_health_says_how_many_workers_run(start: Callable[..., Pool], silent: str) -> None:
    pool = start("--health", "127.0.0.1:0")
    with asking(pool) as runner:
        for path in ("/healthz", "/readyz"):
            assert pool.get("health", path) == (200, '{"workers": 0, "started": 0, "died": 0}')
        runner.StartWorker(wanted("a", silent))
        runner.StartWorker(wanted("b", silent))
        assert pool.get("health", "/readyz") == (200, '{"workers": 2, "started": 2, "died": 0}')
    assert pool.get("health", "/other")[0] == 404


def test_what_is_scraped_is_what_the_workers_counted_also_after_they_ended(
    start: Callable[..., Pool],
) -> None:
    pool = start("--health", "0", "--metrics", "0")
    for ran in (1, 2):
        pooled.run(pool.address, pooled.count, "")
        eventually(lambda ran=ran: pool.log.read_text().count(") ended") == ran)
    assert pool.figures == {"workers": 0, "started": 2, "died": 0}
    seen = pool.scraped()
    numbers = [*range(1, pooled.ROUNDS + 1)] * 2
    sent = (("outcome", "delivered"), ("sink", "siem"))
    assert seen["alertbeam_sink_records_total", sent] == sum(numbers)
    for partition in range(4):
        where = (("partition", str(partition)), ("source", pooled.SOURCE.replace("\n", " ")))
        mine = [n for n in numbers if n % 4 == partition]
        assert seen["alertbeam_read_events_total", where] == sum(mine)
        assert seen["alertbeam_read_timestamp_seconds", where] == 1_700_000_000 + max(mine)
    siem = (("sink", "siem"),)
    assert seen["alertbeam_delivery_seconds_count", siem] == sum(numbers)
    assert seen["alertbeam_delivery_seconds_sum", siem] == pytest.approx(
        sum(0.1 * n * n for n in numbers)
    )
    within = (("le", "1.0"), ("sink", "siem"))
    assert seen["alertbeam_delivery_seconds_bucket", within] == 2 * sum(range(1, 11))


def test_a_pool_is_found_to_be_without_metrics_where_nobody_asked_for_them(
    start: Callable[..., Pool], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (files := tmp_path / "files").mkdir()
    monkeypatch.setenv(metrics.FOLDER, str(files))  # another's: it is not to be written to
    pool = start()
    assert "metrics" not in pool.says
    pooled.run(pool.address, pooled.count, "")
    assert not [path for path in files.iterdir() if path.name.startswith("counter")]


def test_the_log_is_of_lines_and_quotes_no_payload(start: Callable[..., Pool], silent: str) -> None:
    pool = start()
    with pytest.raises(RuntimeError, match=pooled.SECRET):  # the runner is told all
        pooled.run(pool.address, pooled.fail, "")
    with asking(pool) as runner:
        runner.StartWorker(wanted("1\n2026-01-01 forged", silent))
    log = pool.log.read_text()
    assert pooled.SECRET not in log and "and more of it" not in log
    assert "ERROR worker" in log and "ValueError [while running 'ParDo(Fail)']" in log
    assert all(LINE.fullmatch(line) for line in log.splitlines()), log


TRACEBACK = """Error processing 7. Original traceback is
Traceback (most recent call last):
  File "a.py", line 1, in f
    g()
{}

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "b.py", line 2, in g
{} [while running 'Parse/Decode']
"""


@pytest.mark.parametrize(
    ("error", "line"),
    [
        ("KeyError: 'card 4111'", "KeyError [while running 'Parse/Decode']"),
        ("ValueError: 4111\n  and 4112\nDelta: 4113", "ValueError [while running 'Parse/Decode']"),
        ("TypeError", "TypeError [while running 'Parse/Decode']"),
        (
            "transforms.state_store.StateStoreError: /state is full",
            "transforms.state_store.StateStoreError: /state is full",
        ),
    ],
)
def test_of_an_error_the_log_has_the_type_and_of_ours_the_words(error: str, line: str) -> None:
    made = OneLine("%(message)s").format(_record(TRACEBACK.format(error, error)))
    assert made == f"Error processing 7. Original traceback is … {line}"


def test_an_exception_that_is_logged_is_a_line() -> None:
    try:
        raise ValueError("card\n4111")
    except ValueError:
        text = "a card\n4111\nb"
        record = logging.LogRecord("x", logging.ERROR, "", 0, text, None, sys.exc_info())
    assert OneLine("%(message)s").format(record).startswith("a … …: ValueError at test_worker_pool")


def _record(text: str) -> Any:
    return logging.LogRecord("beam", logging.ERROR, "", 0, text, None, None)


@pytest.mark.parametrize("what", ["--port", "--health", "--metrics"])
def test_an_address_that_is_taken_is_told_in_a_line(
    start: Callable[..., Pool], silent: str, what: str
) -> None:
    port = silent.rpartition(":")[2]
    pool = start(what, port)
    pool.process.wait(30)
    said = pool.log.read_text().strip().splitlines()
    assert pool.process.returncode == 1
    assert len(said) == 1 and f"127.0.0.1:{port} cannot be listened on" in said[0]


def test_it_listens_on_this_machine_alone(start: Callable[..., Pool]) -> None:
    pool = start("--health", "0", "--metrics", "0")
    ports = {int(port) for port in re.findall(r":(\d+)", pool.says)}
    assert len(ports) == 3
    local = {"0100007F", "0000000000000000FFFF00000100007F"}  # 127.0.0.1, also as IPv6 has it
    listening = {
        (address, int(port, 16))
        for table in ("tcp", "tcp6")
        for line in Path(f"/proc/{pool.process.pid}/net/{table}").read_text().splitlines()[1:]
        for address, port in [line.split()[1].split(":")]
        if line.split()[3] == "0A"
    }
    assert {address for address, port in listening if port in ports} <= local
    assert len([port for _, port in listening if port in ports]) == 3
