"""How a cluster is named, and what is said of a job that failed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pipelines.cluster.spark import ClusterError, explained, master, trouble
from tests.site import call


@pytest.mark.parametrize(
    ("engine", "said", "meant"),
    [
        ("spark", "local", "local[*]"),
        ("spark", "local[2]", "local[2]"),
        ("spark", "spark-master:7077", "spark://spark-master:7077"),
        ("spark", "spark://a:7077,b:7077", "spark://a:7077,b:7077"),
        ("flink", "local", "[local]"),
        ("flink", "jobmanager:8081", "jobmanager:8081"),
    ],
)
def test_a_cluster_is_called_as_people_do(engine: str, said: str, meant: str) -> None:
    assert master(engine, said) == meant  # type: ignore[arg-type]


@pytest.mark.parametrize("said", ["", "spark-master", "yarn", "local[x]", "a b:7077", "x:7077/y"])
def test_what_is_no_cluster_is_refused(said: str) -> None:
    with pytest.raises(ClusterError, match=r"say local, local\[2\], host:port"):
        master("spark", said)


# What Beam 2.77 says of a job on Spark 3.5 whose worker raised, shortened.
FAILED = """\
java.util.concurrent.ExecutionException: java.lang.RuntimeException: Error received from SDK \
harness for instruction 4: Traceback (most recent call last):
  File "apache_beam/runners/common.py", line 1512, in apache_beam.runners.common.DoFnRunner.process
  File "/app/transforms/read/history.py", line 660, in process
    yield from self._stretch(plan, share, done, *stretch)
{raised}

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "/app/apache_beam/runners/worker/sdk_worker.py", line 311, in _execute
    response = task()
{raised} [while running 'Read events/Read']

	at org.apache.spark.scheduler.Task.run(Task.scala:141)
Caused by: java.lang.RuntimeException: Error received from SDK harness
	... 12 more
"""


@pytest.mark.parametrize(
    ("raised", "said"),
    [
        (
            "transforms.read.history.StorageError: azfs://a/b.avro: timed out",
            "azfs://a/b.avro: timed out",
        ),
        (
            "transforms.read.history.SinksShutError: no sink took anything for 600 s (refused)",
            "no sink took anything for 600 s (refused)",
        ),
        (
            "ModuleNotFoundError: No module named 'transforms'",
            "the workers lack alertbeam itself (transforms): install the same wheel in the worker "
            "pools' environment, and start them anew",
        ),
        ("ValueError: \x1b[2Jcleared", "ValueError:  [2Jcleared"),
    ],
)
def test_a_job_that_failed_says_what_a_worker_raised_in_one_line(raised: str, said: str) -> None:
    assert explained(RuntimeError(FAILED.format(raised=raised))) == said


def test_a_job_that_failed_otherwise_says_something() -> None:
    assert "job-7 failed" in explained(RuntimeError("Pipeline job-7 failed in state FAILED"))
    assert explained(TimeoutError()) == "TimeoutError"
    said = explained(RuntimeError("java.lang.InterruptedException"), Path("state/spark/log"))
    assert said == "InterruptedException; what the job server said: state/spark/log"


def test_what_spark_says_in_its_log_is_told_first(tmp_path: Path) -> None:
    log = tmp_path / "job-server.log"
    assert trouble(log) == ""
    log.write_text("INFO SparkContext: Running Spark version 3.5.0\n")
    assert trouble(log) == ""
    with log.open("a") as file:
        file.write(
            "ERROR StandaloneSchedulerBackend: Application has been killed. "
            "Reason: All masters are unresponsive! Giving up.\n"
        )
    assert "no Spark master answers there" in trouble(log)
    stopped = RuntimeError("IllegalStateException: Cannot call methods on a stopped SparkContext")
    assert explained(stopped, log) == trouble(log)


PAGE = Path(__file__).parent.parent.parent / "docs" / "run-on-spark.md"
SHOWN = re.findall(r"(?m)^\$ alertbeam (.+)$", PAGE.read_text(encoding="utf-8"))


def test_the_page_shows_how_it_is_done_here_and_on_a_cluster() -> None:
    assert [shown.split()[0] for shown in SHOWN] == ["replay", "worker-pool", "replay"]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--runner", "SparkRunner", "--dry-run"), "are for this machine"),
        (("--runner", "SparkRunner", "--then-live"), "are for this machine"),
        (("--", "--sdk_worker_parallelism=2"), "are for --runner SparkRunner"),
        (("--runner", "PrismRunner"), "'PrismRunner' is not one of"),
    ],
)
def test_what_a_cluster_cannot_do_is_said_before_anything_is_read(
    more: tuple[str, ...], said: str, tmp_path: object
) -> None:
    code, output = call(tmp_path, "replay", "history/", *more)  # type: ignore[arg-type]
    assert code == 2
    assert said in " ".join(output.replace("│", " ").split())
