"""Which job server is taken, and how it is started and ended: with a double of Java, a script that
listens where the job server would. The real ones: tests/engines.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
import subprocess
import sys
import textwrap
import zipfile
from pathlib import Path

import pytest

from pipelines.cluster.job_server import EMBEDDED, JobServerError, fetch, jar, serving
from tests.engines.children import until

JAVA = """\
#!{python}
import json, os, signal, socket, sys, time
if "-version" in sys.argv:
    sys.exit(print('openjdk version "{version}" 2025-04-15', file=sys.stderr))
with open({told!r}, "w") as file:
    json.dump({{"argv": sys.argv[1:], "pid": os.getpid(), "env": dict(os.environ)}}, file)
print("a line of the job server", flush=True)
{then}
"""
LISTEN = """\
heard = socket.create_server(("127.0.0.1", int(sys.argv[sys.argv.index("--job-port") + 1])))
while True:
    heard.accept()
"""


def job_server_jar(path: Path, engine: str = "flink") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    driver = f"org.apache.beam.runners.{engine}.{engine.capitalize()}JobServerDriver"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("META-INF/MANIFEST.MF", f"Manifest-Version: 1.0\nMain-Class: {driver}\n")
    return path


class Java:
    """A double of `java`: it says a version, and does as it is told."""

    def __init__(self, folder: Path) -> None:
        self.home, self._told = folder / "jdk", folder / "told"
        self.said: list[str] = []

    def is_(self, version: str = "17.0.15", then: str = LISTEN) -> None:
        java = self.home / "bin" / "java"
        java.parent.mkdir(parents=True, exist_ok=True)
        told = str(self._told)
        java.write_text(JAVA.format(python=sys.executable, version=version, told=told, then=then))
        java.chmod(0o755)

    @property
    def told(self) -> dict[str, list[str]]:
        return json.loads(self._told.read_text())


@pytest.fixture
def java(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Java:
    double = Java(tmp_path)
    double.is_()
    monkeypatch.setenv("JAVA_HOME", str(double.home))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for engine in ("FLINK", "SPARK"):
        monkeypatch.delenv(f"ALERTBEAM_{engine}_JOB_SERVER_JAR", raising=False)
    return double


def test_what_is_given_comes_before_the_environment_and_that_before_the_cache(
    java: Java, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache" / "alertbeam" / "job-servers"
    assert jar("flink", None, print) is None
    job_server_jar(cache / "beam-runners-flink-1.19-job-server-2.9.0.jar")
    newer = job_server_jar(cache / "beam-runners-flink-1.19-job-server-2.70.0.jar")
    assert jar("flink", None, print) == newer
    assert jar("flink", None, print, "1.19") == newer
    assert jar("flink", None, print, "2.0") is None
    assert jar("spark", None, print) is None

    named = job_server_jar(tmp_path / "named.jar")
    monkeypatch.setenv("ALERTBEAM_FLINK_JOB_SERVER_JAR", str(named))
    assert jar("flink", None, print) == named
    given = job_server_jar(tmp_path / "given.jar")
    said: list[str] = []
    assert jar("flink", given, said.append) == given
    assert said == [f"job server: {given}"]


def test_what_is_no_job_server_of_this_engine_is_refused_by_name(
    java: Java, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(JobServerError, match=r"gone\.jar \(--job-server-jar\) cannot be read: No"):
        jar("flink", tmp_path / "gone.jar", print)
    page = tmp_path / "page.jar"
    page.write_text("<html>")
    with pytest.raises(JobServerError, match=r"page\.jar .* is not a jar"):
        jar("flink", page, print)
    other = job_server_jar(tmp_path / "other.jar", "spark")
    monkeypatch.setenv("ALERTBEAM_FLINK_JOB_SERVER_JAR", str(other))
    with pytest.raises(
        JobServerError, match=r"\(ALERTBEAM_FLINK_JOB_SERVER_JAR\) is not Beam's .* for Flink"
    ):
        jar("flink", None, print)


def test_a_name_with_control_characters_does_not_reach_the_terminal(tmp_path: Path) -> None:
    with pytest.raises(JobServerError) as refused:
        jar("flink", tmp_path / "\x1b]0;gone.jar", print)
    assert "\x1b" not in str(refused.value)


def test_it_listens_for_as_long_as_the_with_lasts_and_its_log_stays(
    java: Java, tmp_path: Path
) -> None:
    given = job_server_jar(tmp_path / "given.jar")
    with serving("flink", "cluster:8081", given, tmp_path / "own", print) as server:
        told = java.told
        argv = told["argv"]
        assert argv[argv.index("-jar") + 1] == str(given)
        assert argv[argv.index("--flink-master") + 1] == "cluster:8081"
        assert server.endpoint == f"127.0.0.1:{argv[argv.index('--job-port') + 1]}"
        assert argv[argv.index("--job-host") + 1] == "127.0.0.1"
        assert not server.rest
        artifacts = Path(argv[argv.index("--artifacts-dir") + 1])
        assert stat.S_IMODE(artifacts.stat().st_mode) == 0o700
        # Ctrl-C of a terminal goes to a session.
        assert os.getsid(told["pid"]) != os.getsid(0)
    assert not _runs(told["pid"])
    assert not artifacts.exists()
    assert server.log.read_text() == "a line of the job server\n"
    assert stat.S_IMODE(server.log.stat().st_mode) == 0o600


def test_an_embedded_flink_has_its_rest_api_on_this_machine_only(
    java: Java, tmp_path: Path
) -> None:
    given = job_server_jar(tmp_path / "given.jar")
    conf = {"taskmanager.numberOfTaskSlots": "3"}
    with serving("flink", EMBEDDED, given, tmp_path / "own", print, conf) as server:
        folder = Path(java.told["argv"][java.told["argv"].index("--flink-conf-dir") + 1])
        written = (folder / "config.yaml").read_text().splitlines()
    assert server.rest.startswith("127.0.0.1:")
    assert 'rest.bind-address: "127.0.0.1"' in written
    assert f'rest.port: "{server.rest.rpartition(":")[2]}"' in written
    assert 'taskmanager.numberOfTaskSlots: "3"' in written


def test_an_embedded_spark_is_told_its_settings_and_to_stay_on_this_machine(
    java: Java, tmp_path: Path
) -> None:
    given = job_server_jar(tmp_path / "given.jar", "spark")
    conf = {"spark.ui.enabled": "false"}
    with serving("spark", "local[2]", given, tmp_path / "own", print, conf):
        told = java.told
    assert "-Dspark.ui.enabled=false" in told["argv"]
    assert told["argv"][told["argv"].index("--spark-master-url") + 1] == "local[2]"
    assert told["env"]["SPARK_LOCAL_IP"] == "127.0.0.1"


def test_one_that_ends_at_once_is_an_error_that_carries_what_it_said(
    java: Java, tmp_path: Path
) -> None:
    java.is_(then="sys.exit(3)")
    given = job_server_jar(tmp_path / "given.jar")
    with (
        pytest.raises(JobServerError, match=r"ended with 3; what it said: .*job-server\.log") as e,
        serving("flink", "cluster:8081", given, tmp_path / "own", print),
    ):
        pass
    assert e.value.said == "a line of the job server\n"


def test_it_is_ended_when_the_work_fails(java: Java, tmp_path: Path) -> None:
    given = job_server_jar(tmp_path / "given.jar")
    with (
        pytest.raises(ZeroDivisionError),
        serving("flink", "cluster:8081", given, tmp_path / "own", print),
    ):
        raise ZeroDivisionError
    assert not _runs(java.told["pid"])


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux's kernel does so")
def test_it_does_not_outlive_one_that_was_killed(java: Java, tmp_path: Path) -> None:
    given = job_server_jar(tmp_path / "given.jar")
    code = f"""
    import time
    from pathlib import Path
    from pipelines.cluster.job_server import serving
    given, own = Path({str(given)!r}), Path({str(tmp_path / "own")!r})
    with serving("flink", "cluster:8081", given, own, print):
        print("listens", flush=True)
        time.sleep(60)
    """
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, text=True
    ) as starter:
        assert starter.stdout
        assert starter.stdout.readline() == "listens\n"
        pid = java.told["pid"]
        assert _runs(pid)
        starter.kill()
    until(lambda: not _runs(pid), 10, "the job server runs on")


@pytest.mark.parametrize(
    ("version", "says"),
    [("1.8.0_402", "is Java 8"), ("9.0.1", "is Java 9")],
)
def test_a_java_that_is_too_old_is_refused_with_what_to_do(
    java: Java, tmp_path: Path, version: str, says: str
) -> None:
    java.is_(version)
    with (
        pytest.raises(JobServerError, match=f"need Java 17, and .* {says}: set JAVA_HOME"),
        serving("flink", "cluster:8081", job_server_jar(tmp_path / "a.jar"), tmp_path, print),
    ):
        pass


def test_another_java_than_was_tried_is_used_and_said(java: Java, tmp_path: Path) -> None:
    java.is_("21.0.2")
    given = job_server_jar(tmp_path / "given.jar")
    with serving("flink", "cluster:8081", given, tmp_path / "own", java.said.append):
        assert java.said == [f"{java.home}/bin/java is Java 21: tried is 17"]


def test_no_java_at_all_is_said_with_what_to_do(
    java: Java, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = job_server_jar(tmp_path / "given.jar")
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with (
        pytest.raises(JobServerError, match=r"JAVA_HOME=.* has none that runs: install a JRE 17"),
        serving("flink", "cluster:8081", given, tmp_path, print),
    ):
        pass
    monkeypatch.delenv("JAVA_HOME")
    monkeypatch.setenv("PATH", str(tmp_path))
    with (
        pytest.raises(JobServerError, match="there is none: install a JRE 17"),
        serving("flink", "cluster:8081", given, tmp_path, print),
    ):
        pass


def test_what_cannot_be_fetched_says_how_else(
    java: Java, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from apache_beam.utils.subprocess_server import JavaJarServer

    asked: list[str] = []

    def unreachable(url: str) -> str:
        asked.append(url)
        raise RuntimeError("Unable to fetch remote job server jar\nat …")

    monkeypatch.setattr(JavaJarServer, "local_jar", unreachable)
    with pytest.raises(JobServerError, match=r"could not be fetched .* --job-server-jar, or build"):
        fetch("flink", print, "1.20")
    assert "beam-runners-flink-1.20-job-server-" in asked[0]


def _runs(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False
