"""A real Flink for tests: standalone, one JobManager and some TaskManagers, each with a worker pool
of its own, all on this machine; from the jars that `.ci/receivers flink` puts in place.

A pod's TaskManager finds its worker pool at one address, which is the same in all pods. So here:
the name `worker-pool` is 127.0.0.2 to the first TaskManager's Java, 127.0.0.3 to the second's.
Linux listens on all of them.

Source: Apache Flink 1.19, "Configuration" and "Deployment: Standalone".
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.engines.children import LOOPBACK, Child, free_port, until
from tests.transforms.sinks.daemons import UNPACKED, missing

__all__ = ["Standalone"]

ROOT = Path(__file__).parent.parent.parent
HOME = UNPACKED / "flink"

_RUNTIME = "org.apache.flink.runtime"
_JOBMANAGER = f"{_RUNTIME}.entrypoint.StandaloneSessionClusterEntrypoint"
_TASKMANAGER = f"{_RUNTIME}.taskexecutor.TaskManagerRunner"
# What many JVMs on few cores need: little.
_SMALL = ["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:MaxMetaspaceSize=256m", "-Xss512k"]
_LOG = """
rootLogger.level = INFO
rootLogger.appenderRef.console.ref = console
appender.console.name = console
appender.console.type = CONSOLE
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %d{HH:mm:ss,SSS} %-5p %c{1} %m%n
"""


class Standalone:
    """A cluster, for as long as a `with` lasts.

    Its processes have names: jobmanager; taskmanager-1, pool-1; taskmanager-2, pool-2; and so on.
    rest: host:port of its REST API. options: what Beam has to be told to submit to it. checkpoints,
    savepoints: folders. conf: more of Flink's configuration. interval: seconds between checkpoints.
    """

    def __init__(
        self,
        folder: Path,
        taskmanagers: int = 2,
        slots: int = 2,
        conf: Mapping[str, str] | None = None,
        pools: bool = True,
        interval: float = 2.0,
    ) -> None:
        missing("flink")
        self.folder, self.slots, self._interval = folder, slots, interval
        self.checkpoints, self.savepoints = folder / "checkpoints", folder / "savepoints"
        self.rest = f"{LOOPBACK}:{free_port()}"
        self._pool_port = free_port()
        self._settings = self._conf() | dict(conf or {})
        self._env = {
            "FLINK_CONF_DIR": str(folder / "conf"),
            "FLINK_LOG_DIR": str(folder / "logs"),
            "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
        }
        self.addresses = {n: f"127.0.0.{1 + n}" for n in range(1, taskmanagers + 1)}
        self.children: dict[str, Child] = {}
        for number, address in self.addresses.items() if pools else ():
            self.children[f"pool-{number}"] = self._pool(f"pool-{number}", address)
        self.children["jobmanager"] = self._java("jobmanager", _JOBMANAGER, 384)
        for number in self.addresses:
            name = f"taskmanager-{number}"
            found = f"-Djdk.net.hosts.file={folder / 'conf' / name}.hosts"
            own = ["-D", f"taskmanager.resource-id={name}"]
            self.children[name] = self._java(name, _TASKMANAGER, 512, [found], own)

    @property
    def options(self) -> list[str]:
        """Beam's: environment, checkpoints as they should be."""
        return [
            "--environment_type=EXTERNAL",
            f"--environment_config=worker-pool:{self._pool_port}",
            f"--parallelism={self.slots * len(self.addresses)}",
            "--max_parallelism=128",
            f"--checkpointing_interval={self._interval * 1000:.0f}",
            "--finish_bundle_before_checkpointing",
            "--max_bundle_time_mills=100",
            "--externalized_checkpoints_enabled",
            "--retain_externalized_checkpoints_on_cancellation",
        ]

    def __enter__(self) -> Standalone:
        conf = self.folder / "conf"
        shutil.copytree(HOME / "conf", conf)
        for folder in ("checkpoints", "savepoints", "logs", "tmp"):
            (self.folder / folder).mkdir()
        lines = [f"{key}: {json.dumps(value)}\n" for key, value in self._settings.items()]
        (conf / "config.yaml").write_text("".join(lines))
        (conf / "log4j-console.properties").write_text(_LOG)
        for number, address in self.addresses.items():
            known = f"{LOOPBACK} localhost {socket.gethostname()}\n{address} worker-pool\n"
            (conf / f"taskmanager-{number}.hosts").write_text(known)
        try:
            for name in self.children:
                self.start(name)
            self.wait()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for name, child in reversed(self.children.items()):
            child.stop() if name.startswith("pool") else child.kill()
            child.close()

    def start(self, name: str) -> None:
        """One of its processes, again."""
        self.children[name].start()
        if name.startswith("pool"):
            address = self.addresses[int(name.removeprefix("pool-"))], self._pool_port
            until(lambda: self._listens(name, address), 60, self.children[name].said)

    def kill(self, name: str) -> None:
        """kill -9."""
        self.children[name].kill()

    def wait(self, seconds: float = 120) -> None:
        """Until every TaskManager that runs offers its slots."""
        names = [name for name, child in self.children.items() if child.running]
        slots = self.slots * sum(name.startswith("taskmanager") for name in names)

        def offered() -> bool:
            assert all(self.children[name].pid for name in names)
            with contextlib.suppress(OSError):
                return bool(self.get("/overview")["slots-total"] == slots)
            return False

        until(offered, seconds, lambda: "\n".join(self.children[n].said()[-2000:] for n in names))

    def get(self, path: str) -> Any:
        """What its REST API answers. Raises OSError."""
        with urllib.request.urlopen(f"http://{self.rest}{path}", timeout=10) as answer:
            return json.load(answer)

    def patch(self, path: str) -> None:
        asked = urllib.request.Request(f"http://{self.rest}{path}", method="PATCH")
        urllib.request.urlopen(asked, timeout=10).close()

    def jobs(self) -> dict[str, str]:
        """Id and state."""
        return {job["jid"]: job["state"] for job in self.get("/jobs/overview")["jobs"]}

    def checkpoint(self, job: str, seconds: float = 60, after: int = 0) -> Path:
        """Its newest completed checkpoint, once there is one with a greater number than `after`."""

        def newest() -> Path | None:
            with contextlib.suppress(OSError):
                done = self.get(f"/jobs/{job}/checkpoints")["latest"]["completed"]
                if done and done["id"] > after:
                    return Path(done["external_path"].removeprefix("file:"))
            return None

        return until(newest, seconds, lambda: f"no checkpoint: {self.exceptions(job)}")

    def exceptions(self, job: str) -> str:
        """Why it was restarted last."""
        found = self.get(f"/jobs/{job}/exceptions")["exceptionHistory"]["entries"]
        return str(found[0]["stacktrace"])[:4000] if found else "no exception"

    def flink(self, *arguments: str, seconds: float = 300) -> str:
        """The command `flink`; what it says. Raises AssertionError: it failed."""
        command = [str(HOME / "bin" / "flink"), *arguments]  # conf/ says where the JobManager is
        env = {**os.environ, **self._env, "JVM_ARGS": " ".join(_SMALL)}
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=seconds)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def workers(self, pool: str = "pool-1") -> list[int]:
        """The processes that this pool has started."""
        own = Path(f"/proc/{self.children[pool].pid}/task")
        return [
            int(pid) for task in own.iterdir() for pid in (task / "children").read_text().split()
        ]

    def _listens(self, name: str, address: tuple[str, int]) -> bool:
        assert self.children[name].pid
        with contextlib.suppress(OSError):
            socket.create_connection(address, 1).close()
            return True
        return False

    def _java(
        self, name: str, main: str, heap: int, java: Sequence[str] = (), flink: Sequence[str] = ()
    ) -> Child:
        """Without Flink's own scripts, which ask three more JVMs how to start this one."""
        conf = self.folder / "conf"
        opened = re.search(r"^ *all: (.*)$", (HOME / "conf" / "config.yaml").read_text(), re.M)
        assert opened
        command = ["java", *_SMALL, f"-Xmx{heap}m", *opened[1].split(), *java]
        command += [f"-Dlog4j.configurationFile={conf / 'log4j-console.properties'}"]
        command += ["-cp", f"{HOME / 'lib'}/*", main, "--configDir", str(conf), *flink]
        return Child(command, self.folder / f"{name}.log", self._env, self.folder)

    def _pool(self, name: str, address: str) -> Child:
        command = [sys.executable, "-m", "pipelines.cli", "worker-pool", "--listen", address]
        command += ["--port", str(self._pool_port)]
        return Child(command, self.folder / f"{name}.log", self._env, ROOT)

    def _conf(self) -> dict[str, str]:
        rest = self.rest.rpartition(":")[2]
        return {
            "jobmanager.rpc.address": LOOPBACK,
            "jobmanager.rpc.port": str(free_port()),
            "jobmanager.bind-host": LOOPBACK,
            "rest.address": LOOPBACK,
            "rest.bind-address": LOOPBACK,
            "rest.port": rest,
            "taskmanager.host": LOOPBACK,
            "taskmanager.bind-host": LOOPBACK,
            "taskmanager.numberOfTaskSlots": str(self.slots),
            "taskmanager.cpu.cores": "1.0",
            "taskmanager.memory.framework.heap.size": "128m",
            "taskmanager.memory.framework.off-heap.size": "64m",
            "taskmanager.memory.jvm-metaspace.size": "256m",
            "taskmanager.memory.jvm-overhead.min": "64m",
            "taskmanager.memory.jvm-overhead.max": "64m",
            "taskmanager.memory.task.heap.size": "384m",
            "taskmanager.memory.task.off-heap.size": "64m",
            "taskmanager.memory.network.min": "64m",
            "taskmanager.memory.network.max": "64m",
            "taskmanager.memory.managed.size": "128m",
            "state.backend.type": "rocksdb",
            "state.backend.incremental": "true",
            "state.checkpoints.dir": self.checkpoints.as_uri(),
            "state.savepoints.dir": self.savepoints.as_uri(),
            "state.checkpoints.num-retained": "3",
            "execution.checkpointing.externalized-checkpoint-retention": "RETAIN_ON_CANCELLATION",
            "restart-strategy.type": "fixed-delay",
            "restart-strategy.fixed-delay.attempts": str(2**31 - 1),
            "restart-strategy.fixed-delay.delay": "1 s",
            "heartbeat.interval": "2000",
            "heartbeat.timeout": "15000",  # a busy machine pauses
            "io.tmp.dirs": str(self.folder / "tmp"),
            "web.upload.dir": str(self.folder / "tmp"),
        }
