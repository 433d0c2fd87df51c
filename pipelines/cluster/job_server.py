"""Beam's job server: the Java process that makes a Flink or a Spark job of a Beam pipeline.

jar(): which one: what is given, what the environment names, what `make flink-job-server` or `make
spark-job-server` left in the cache; None: the one of Beam's own release, which fetch() gets.
serving(): it runs for as long as a `with` lasts. With an embedded engine that is the engine, too.

Source: Apache Beam, "Using the Apache Flink Runner" and "Using the Apache Spark Runner" (portable);
JobServerDriver of beam-runners-java-job-service.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Literal, NamedTuple

from transforms.delivery.line import printable

__all__ = [
    "EMBEDDED",
    "FLINK",
    "Engine",
    "JobServer",
    "JobServerError",
    "fetch",
    "jar",
    "serving",
    "workers_here",
]

Engine = Literal["flink", "spark"]

FLINK = "1.19"  # the release whose job server is taken where nothing says another
EMBEDDED = "[local]"  # Flink's master of this name runs inside the job server

_JAVA = 17
_START_SECONDS = 120.0
_END_SECONDS = 10.0
_FETCH_SECONDS = 60.0  # without a byte
_STATE_CACHE = 100 << 20  # bytes: Beam's default
_SAID = 4000  # characters of its log that an error carries
# What Flink and Spark reach by reflection; Java gives it to whom the command line names.
_OPENED = """
java.io java.lang java.lang.invoke java.lang.reflect java.net java.nio java.text java.time java.util
java.util.concurrent java.util.concurrent.atomic sun.nio.ch sun.nio.cs sun.security.action
sun.util.calendar
"""


class JobServerError(Exception):
    """There is no job server; the message says why, in a line. said: the end of its log."""

    exit_code = 2

    def __init__(self, message: str, said: str = "") -> None:
        super().__init__(message)
        self.said = said


class JobServer(NamedTuple):
    """A job server that runs.

    endpoint: Beam's `--job_endpoint`. log: what it says. rest: of an embedded Flink, its REST API
    and web UI.
    """

    endpoint: str
    log: Path
    rest: str


def jar(
    engine: Engine, given: Path | None, say: Callable[[str], None], version: str = ""
) -> Path | None:
    """The job server's jar. None: none is here, and Beam has one to be fetched.

    given: `--job-server-jar`. version: Flink's or Spark's (1.19; 3), where the cluster is known.
    Raises JobServerError: what is named is not one.
    """
    variable = f"ALERTBEAM_{engine.upper()}_JOB_SERVER_JAR"
    named = given or (Path(os.environ[variable]) if os.environ.get(variable) else None)
    found = named or _cached(engine, version)
    if found is not None:
        _check(engine, found, "--job-server-jar" if given else variable if named else "the cache")
        say(f"job server: {printable(str(found))}")
    return found


def fetch(engine: Engine, say: Callable[[str], None], version: str = "") -> Path:
    """The job server of Beam's own release, from Maven Central, as Beam does it: once, into Beam's
    own cache. Raises JobServerError."""
    from apache_beam.utils.subprocess_server import JavaJarServer

    target = f":runners:{engine}:{version or _version(engine)}:job-server:shadowJar"
    url = JavaJarServer.path_to_beam_jar(target)
    say(f"job server: {url} (fetched once)")
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_FETCH_SECONDS)
    try:
        return Path(JavaJarServer.local_jar(url))
    except (OSError, RuntimeError) as error:
        raise JobServerError(
            f"the job server could not be fetched ({printable(str(error))[:200]}): "
            f"name one with --job-server-jar, or build it with `make {engine}-job-server`"
        ) from None
    finally:
        socket.setdefaulttimeout(before)


@contextlib.contextmanager
def workers_here() -> Iterator[list[str]]:
    """Beam's options for workers that are threads of this process: an embedded engine's.

    As Beam's LOOPBACK, but that listens on every interface, and runs what anybody asks for.
    """
    import grpc
    from apache_beam.portability.api import beam_fn_api_pb2_grpc
    from apache_beam.runners.worker.worker_pool_main import BeamFnExternalWorkerPoolServicer
    from apache_beam.utils.thread_pool_executor import shared_unbounded_instance

    server = grpc.server(shared_unbounded_instance())
    pool = BeamFnExternalWorkerPoolServicer(state_cache_size=_STATE_CACHE)
    beam_fn_api_pb2_grpc.add_BeamFnExternalWorkerPoolServicer_to_server(pool, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield ["--environment_type=EXTERNAL", f"--environment_config=127.0.0.1:{port}"]
    finally:
        server.stop(None)


@contextlib.contextmanager
def serving(
    engine: Engine,
    master: str,
    jar: Path | None,
    folder: Path,
    say: Callable[[str], None],
    conf: Mapping[str, str] | None = None,
    version: str = "",
) -> Iterator[JobServer]:
    """A job server in front of this master, until the `with` ends.

    master: Flink's host:port or [local], Spark's spark://host:port or local[2]. jar: see there.
    folder: for its log, which stays, and its configuration. conf: the engine's own settings
    (`taskmanager.numberOfTaskSlots`, `spark.executor.memory`).
    Give its endpoint to Beam as `--job_endpoint`; the runner's own `--flink_master` stays away.
    Beam's servers, here and in each TaskManager, listen on every interface, whatever host they are
    told (`ServerFactory`), and do what anybody asks for: keep them behind a firewall.
    Raises JobServerError.
    """
    java = _java(say)
    jar = jar or fetch(engine, say, version)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    port, log = _free(), folder / "job-server.log"
    properties, options, rest = _engine(engine, master, dict(conf or {}), folder)
    environment = dict(os.environ)
    if master.startswith("local"):
        environment.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    with tempfile.TemporaryDirectory(prefix="alertbeam-") as own:
        properties += [f"--add-opens=java.base/{name}=ALL-UNNAMED" for name in _OPENED.split()]
        properties += [f"-Djava.io.tmpdir={own}"]  # what an engine leaves there goes with it
        options += ["--job-host", "127.0.0.1", "--job-port", str(port), "--artifacts-dir", own]
        options += ["--artifact-port", "0", "--expansion-port", "0"]
        with os.fdopen(os.open(log, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "wb") as out:
            # A session of its own: Ctrl-C is for us, and an embedded job has to drain.
            process = subprocess.Popen(  # noqa: S603
                [*_until_we_end(), java, *properties, "-jar", str(jar), *options],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env=environment,
                start_new_session=True,
            )
        try:
            _wait(process, port, log)
            yield JobServer(f"127.0.0.1:{port}", log, rest)
        finally:
            process.terminate()
            try:
                process.wait(_END_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _engine(
    engine: Engine, master: str, conf: dict[str, str], folder: Path
) -> tuple[list[str], list[str], str]:
    """What Java and the job server have to be told, and an embedded Flink's REST API."""
    if engine == "spark":
        return (
            [f"-D{key}={value}" for key, value in conf.items()],
            ["--spark-master-url", master],
            "",
        )
    rest = ""
    if master == EMBEDDED:
        hosts = ("rest.address", "rest.bind-address", "jobmanager.bind-host")
        here = {**dict.fromkeys(hosts, "127.0.0.1"), "rest.port": str(_free())}
        conf = {**here, **conf}
        rest = f"{conf['rest.address']}:{conf['rest.port']}"
    # Flat keys and JSON's strings: YAML for the parser of 1.19, and for that of 2.x.
    lines = (f"{key}: {json.dumps(value)}\n" for key, value in conf.items())
    (folder / "config.yaml").write_text("".join(lines), encoding="utf-8")
    return [], ["--flink-master", master, "--flink-conf-dir", str(folder)], rest


def _wait(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    until = time.monotonic() + _START_SECONDS
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            ended = process.poll() is not None
            if ended or time.monotonic() > until:
                said = log.read_text(encoding="utf-8", errors="replace")[-_SAID:]
                how = f"ended with {process.returncode}" if ended else "does not listen"
                raise JobServerError(
                    f"the job server {how}; what it said: {printable(str(log))}", said
                ) from None
            time.sleep(0.1)


def _cached(engine: Engine, version: str) -> Path | None:
    """The newest one that was built for this version, or for any."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    name = f"beam-runners-{engine}-{version or '*'}-job-server-*.jar"
    found = (cache / "alertbeam" / "job-servers").glob(name)
    return max(found, key=_numbers, default=None)


def _numbers(path: Path) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", path.name)]


def _version(engine: Engine) -> str:
    return FLINK if engine == "flink" else "3"


def _check(engine: Engine, path: Path, named_by: str) -> None:
    """Raises JobServerError unless it is a jar that starts this engine's job server."""
    shown = f"{printable(str(path))} ({named_by})"
    try:
        with zipfile.ZipFile(path) as inside:
            manifest = inside.read("META-INF/MANIFEST.MF").decode(errors="replace")
    except OSError as error:
        raise JobServerError(f"{shown} cannot be read: {error.strerror}") from None
    except (zipfile.BadZipFile, KeyError):
        raise JobServerError(f"{shown} is not a jar") from None
    if f"runners.{engine}.{engine.capitalize()}JobServerDriver" not in manifest:
        raise JobServerError(f"{shown} is not Beam's job server for {engine.capitalize()}")


def _java(say: Callable[[str], None]) -> str:
    """The Java to start it with: JAVA_HOME's, else the PATH's."""
    home = os.environ.get("JAVA_HOME")
    java = str(Path(home) / "bin" / "java") if home else "java"
    needed = f"Flink and Spark need Java {_JAVA}"
    try:
        answer = subprocess.run(  # noqa: S603
            [java, "-version"], capture_output=True, text=True, timeout=60, check=True
        )
    except (OSError, subprocess.SubprocessError):
        where = f"JAVA_HOME={printable(home)} has none that runs" if home else "there is none"
        raise JobServerError(f"{needed}, and {where}: install a JRE {_JAVA}") from None
    said = re.search(r'version "(?:1\.)?(\d+)', answer.stderr + answer.stdout)
    found = int(said[1]) if said else 0
    if 0 < found < 11:
        raise JobServerError(f"{needed}, and {java} is Java {found}: set JAVA_HOME to another")
    if found != _JAVA:
        say(f"{java} is Java {found or 'of an unknown version'}: tried is {_JAVA}")
    return java


def _until_we_end() -> list[str]:
    """What makes Linux end a process whose parent was killed: an embedded engine is no orphan."""
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "TERM", "--"] if setpriv else []


def _free() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])
