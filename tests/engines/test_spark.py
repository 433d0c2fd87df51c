"""A replay on Spark is the very same replay: what arrives at each sink, and the account."""

from __future__ import annotations

import os
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines.cluster.job_server import _OPENED, jar
from pipelines.local.receivers import HecReceiver, Pace, SyslogReceiver
from pipelines.replay import Asked, Replay
from pipelines.settings import HistorySettings, load
from schemas.receipt import Outcomes
from tests.engines.children import LOOPBACK, Child, free_port, until
from tests.pipelines.test_replay import BEGAN_MS, MINUTE_MS, capture, event
from tests.transforms.sinks.daemons import missing
from transforms.write import _OFTEN as UNDER_WAY

pytestmark = [pytest.mark.engines, pytest.mark.timeout(1200)]

TOKEN = "a-token-for-tests"
ROOT = Path(__file__).parent.parent.parent
ALERTS = 3_000
BATCH = 200
SPARK = ("--runner", "SparkRunner", "--cluster", "local[2]")
FLINK = ("--runner", "FlinkRunner", "--cluster", "local", "--parallelism", "2")


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """3,000 records of 30 files of Capture: every tenth repeats one of a file before, in the other
    partition; and one that nobody understands."""
    found = tmp_path_factory.mktemp("capture")

    def record(n: int) -> bytes:
        number = n - 205 if n > 200 and n % 10 == 5 else n
        at_ms = BEGAN_MS + number // 200 * MINUTE_MS
        return event(number, at_ms, Description="x" * 10_000)

    for minute in range(15):
        for partition in range(2):
            first = 200 * minute + 100 * partition
            capture(found, minute, map(record, range(first, first + 100)), partition)
    capture(found, 20, [b"{broken"])
    return found


class Place:
    """A folder with settings of three sinks, and what they receive."""

    def __init__(self, at: Path, history: Path) -> None:
        at.mkdir()
        self.at, self.history = at, history
        self.children: list[Child] = []
        self.hec = HecReceiver(token=TOKEN, folder=at / "received")
        self.syslog = SyslogReceiver(folder=at / "received")

    def __enter__(self) -> Place:
        self.hec.start()
        self.syslog.start()
        (self.at / "settings.yaml").write_text(
            "sinks:\n"
            f'  - splunk_hec: {{url: "{self.hec.url}", token: env:HEC_TOKEN}}\n'
            "    name: splunk\n"
            f'  - syslog: {{address: "{self.syslog.address}", format: cef}}\n'
            "    name: siem\n"
            "  - file: {folder: archive}\n"
            "    name: archive\n"
            "state: state\n"
        )
        return self

    def __exit__(self, *exc: object) -> None:
        for child in self.children:
            child.close()
        self.syslog.stop()
        self.hec.stop()

    def replay(self, *more: str) -> Child:
        command = [sys.executable, "-m", "pipelines.cli", "replay", str(self.history)]
        env = {"HEC_TOKEN": TOKEN, "PYTHONPATH": str(ROOT), "COLUMNS": "160"}
        log = self.at / f"replay-{len(self.children)}.log"
        child = Child([*command, "--name", "month", *more], log, env, self.at)
        self.children.append(child)
        child.start()
        return child

    @property
    def going(self) -> Replay:
        os.environ["HEC_TOKEN"] = TOKEN
        settings = load(self.at / "settings.yaml", HistorySettings)
        return Replay(settings, Asked((str(self.history),)), "month")

    def arrived(self) -> dict[str, Counter[str]]:
        """By sink, all that came, but for what is another at every sending."""
        archive = [
            line for file in (self.at / "archive").rglob("*.ndjson*") for line in file.open()
        ]
        return {
            "splunk": Counter(self.hec.ids()),
            "siem": Counter(line.decode().partition(" ")[2] for line in self.syslog.lines()),
            "archive": Counter(archive),
        }

    def sums(self) -> dict[str, tuple[int, Outcomes]]:
        return {a.name: (a.records, a.outcomes) for a in self.going.accounts()}


@pytest.fixture
def place(tmp_path: Path, history: Path) -> Iterator[Place]:
    missing("spark")
    with Place(tmp_path / "spark", history) as found:
        yield found


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory, history: Path) -> Iterator[Place]:
    """The same on one machine."""
    with Place(tmp_path_factory.mktemp("here") / "direct", history) as found:
        ended(found.replay(), 0)
        yield found


def ended(child: Child, code: int) -> str:
    process: Any = child._process
    assert process.wait(480) == code, child.said()
    return child.said()


def descendants(pid: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, task.read_text().split()):
            found += [child, *descendants(child)]
    return found


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


@pytest.mark.parametrize("engine", ["spark", "flink"])
def test_the_same_arrives_and_is_accounted_for_as_on_one_machine(
    place: Place, here: Place, engine: str
) -> None:
    missing(engine)
    where = SPARK if engine == "spark" else FLINK
    said = ended(place.replay(*where), 0)
    assert place.arrived() == here.arrived()
    assert place.sums() == here.sums()
    repeats = sum(n % 10 == 5 for n in range(201, ALERTS))
    assert place.sums()["archive"] == (
        ALERTS + 1, Outcomes(delivered=ALERTS - repeats, repeat=repeats, dead=1)
    )  # fmt: skip
    assert "report: " in said
    assert f"{engine.capitalize()} on this machine, 2 readers at once" in said
    again = ended(place.replay(*where), 0)
    assert "nothing is new" in again
    assert place.arrived() == here.arrived()


@pytest.mark.thorough
def test_one_that_is_killed_goes_on_without_loss_and_leaves_nothing_running(
    place: Place, here: Place
) -> None:
    place.hec.fail(Pace(300))
    child = place.replay(*SPARK)
    until(lambda: place.hec.received > 600, 480, child.said)
    family = descendants(child.pid)
    assert any(b"java" in Path(f"/proc/{pid}/cmdline").read_bytes() for pid in family)
    os.kill(child.pid, signal.SIGKILL)
    until(lambda: not any(map(alive, family)), 30, "something runs on")
    place.hec.heal()
    before = place.hec.received
    assert before < ALERTS
    ended(place.replay(*SPARK), 0)
    once, twice = here.arrived(), place.arrived()
    for sink in once:
        assert once[sink].keys() == twice[sink].keys(), "nothing is lost"
    size = sum(map(len, here.hec.lines())) / len(here.hec.ids())
    in_flight = UNDER_WAY[1] / size + BATCH
    assert (twice["splunk"] - once["splunk"]).total() <= 2 * in_flight, "but what was in flight"
    assert place.sums() == here.sums()


@pytest.mark.thorough
def test_a_worker_that_dies_costs_a_job_and_no_record(place: Place, here: Place) -> None:
    place.hec.fail(Pace(300))
    child = place.replay(*SPARK)
    until(lambda: place.hec.received > 600, 480, child.said)
    workers = [
        pid
        for pid in descendants(child.pid)
        if b"pipelines.cluster.worker" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]
    assert workers
    os.kill(workers[0], signal.SIGKILL)
    place.hec.heal()
    ended(child, 0)
    once, twice = here.arrived(), place.arrived()
    for sink in once:
        assert once[sink].keys() == twice[sink].keys(), "nothing is lost"
    assert place.sums() == here.sums()


@pytest.mark.thorough
def test_ctrl_c_ends_it_without_a_repeat_and_the_same_command_goes_on(
    place: Place, here: Place
) -> None:
    child = place.replay(*SPARK, "--rate", "400")
    until(lambda: place.hec.received > 300, 480, child.said)
    os.kill(child.pid, signal.SIGINT)
    assert "the same command goes on" in ended(child, 1)
    assert place.hec.received < ALERTS
    ended(place.replay(*SPARK), 0)
    assert place.arrived() == here.arrived()
    assert place.sums() == here.sums()


class Standing:
    """Spark's own cluster: a master, two workers of a core each, and a pool of Python workers for
    both. All of Spark is in the job server's jar; `SPARK_HOME` is for those who start executors."""

    def __init__(self, at: Path) -> None:
        found = jar("spark", None, print)
        assert found is not None, "it is in the cache"
        (at / "jars").mkdir(parents=True)
        (at / "jars" / "all.jar").symlink_to(found)
        (at / "RELEASE").touch()
        self.port, self.workers_port = free_port(), free_port()
        env = {
            "SPARK_HOME": str(at), "SPARK_SCALA_VERSION": "2.12", "SPARK_LOCAL_IP": LOOPBACK,
            "HEC_TOKEN": TOKEN, "PYTHONPATH": str(ROOT),
        }  # fmt: skip
        opened = [f"--add-opens=java.base/{name}=ALL-UNNAMED" for name in _OPENED.split()]
        java = ["java", "-Xmx256m", *opened, "-cp", str(found)]
        deploy, web = "org.apache.spark.deploy", ["--webui-port", str(free_port())]
        listen = ["--host", LOOPBACK]
        cores = ["--cores", "1", "--memory", "1g"]
        pool = [sys.executable, "-m", "pipelines.cli", "worker-pool", "--port"]
        commands = {
            "master": [*java, f"{deploy}.master.Master", *listen, *web, "--port", str(self.port)],
            "pool": [*pool, str(self.workers_port)],
        }
        for name in ("worker-1", "worker-2"):
            folder = ["--work-dir", str(at / name)]
            web = ["--webui-port", str(free_port())]
            commands[name] = [
                *java, f"{deploy}.worker.Worker", *listen, *web, *cores, *folder,
                f"spark://{LOOPBACK}:{self.port}",
            ]  # fmt: skip
        self.children = {
            name: Child(command, at / f"{name}.log", env, at) for name, command in commands.items()
        }

    def __enter__(self) -> Standing:
        for name, child in self.children.items():
            child.start()
            if name == "master":
                until(lambda: "I have been elected leader" in self.said("master"), 120, self.said)
        until(lambda: self.said("master").count("Registering worker") == 2, 120, self.said)
        return self

    def __exit__(self, *exc: object) -> None:
        for child in self.children.values():
            child.close()

    def said(self, name: str = "master") -> str:
        return self.children[name].said()

    @property
    def options(self) -> tuple[str, ...]:
        where = f"{LOOPBACK}:{self.port}"
        pool = f"--environment_config={LOOPBACK}:{self.workers_port}"
        return ("--runner", "SparkRunner", "--cluster", where, "--parallelism", "2", "--", pool)


@pytest.mark.thorough
def test_a_standing_cluster_that_loses_an_executor_tries_its_task_again_without_loss(
    place: Place, here: Place, tmp_path: Path
) -> None:
    with Standing(tmp_path / "cluster") as cluster:
        place.hec.fail(Pace(300))
        child = place.replay(*cluster.options)
        until(lambda: place.hec.received > 600, 480, child.said)
        (executor,) = (
            pid
            for pid in descendants(cluster.children["worker-1"].pid)
            if b"CoarseGrainedExecutorBackend" in Path(f"/proc/{pid}/cmdline").read_bytes()
        )
        os.kill(executor, signal.SIGKILL)
        place.hec.heal()
        ended(child, 0)
    once, twice = here.arrived(), place.arrived()
    for sink in once:
        assert once[sink].keys() == twice[sink].keys(), "nothing is lost"
    assert place.sums() == here.sums()


def test_a_cluster_that_is_not_there_is_said_in_a_line(place: Place) -> None:
    said = ended(place.replay("--runner", "SparkRunner", "--cluster", "no cluster"), 2)
    assert "'no cluster' is no cluster: say local, local[2], host:port" in said
    assert not place.hec.received
