"""The streaming pipeline on a Flink of its own, as its users run it: by the command. Alerts come
all the time; after whatever befalls it nothing is lost, little came twice, the account is exact.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from pipelines.cluster.flink import Flink
from schemas.batch import Origin
from tests.engines.children import until
from tests.engines.flink import Standalone
from tests.site import Site, alerts, stop
from transforms.account import receipts

__all__ = [
    "INTERVAL", "LONG", "MORE", "NAME", "PARTITIONS", "SINKS", "Job", "arrived", "running",
    "settled", "tiled", "told",
]  # fmt: skip

PARTITIONS = 4
SINKS = """\
  - splunk_hec: {{url: "{hec}", token: env:HEC_TOKEN}}
    name: splunk
  - syslog: {{address: "{syslog}", format: cef}}
    name: siem
"""
MORE = "deduplicate: {horizon: 10m}\n"
LONG = 240.0  # seconds that only a failure waits for
INTERVAL = 2 * 100 * (2 + 2) * 4
"""What may come twice: a checkpoint interval of what two sinks take, and as much again for one that
is being made; widely, as the machine may be busy."""

NAME = "faults"


def settled(site: Site, count: int, late: dict[str, set[str]] | None = None) -> Callable[[], bool]:
    """Whether every sink's account holds, over so many records, and none is owed. late: by sink
    what came before that sink was there."""

    def found() -> bool:
        known = site.accounts()
        return all(
            each.holds
            and each.records - each.outcomes.owed == count - len((late or {}).get(name, ()))
            for name, each in known.items()
        )

    return found


def told(site: Site) -> str:
    return f"{site.accounts()}\n{[*site.store.list('workers')]}"


def tiled(site: Site, late: dict[str, set[str]] | None = None) -> None:
    """The receipts of each partition and sink: from its first event to its last, without hole."""
    for sink in site.accounts():
        for partition, position in site.positions(sink).items():
            found = receipts(site.store, sink, Origin(site.source, partition))
            assert found is not None
            at = found[1][0].first if found[1] and sink in (late or {}) else 0
            for span in found[1]:
                assert span.first == at, (sink, partition, found[1])
                at = span.last + 1
            assert at == position + 1


def arrived(site: Site) -> dict[str, Counter[str]]:
    """How often each alert came, by sink."""
    return {sink: found for sink, found in site.arrived().items() if sink in site.accounts()}


class Stream(threading.Thread):
    """A steady few alerts, until it is stopped."""

    def __init__(self, site: Site, seed: int) -> None:
        super().__init__(daemon=True)
        self._site, self._waiting = site, [*alerts(6_000, seed=seed).items()]
        self._ended = threading.Event()
        self.sent: dict[str, bytes] = {}
        self.start()

    def run(self) -> None:
        while self._waiting and not self._ended.wait(0.1):
            some, self._waiting = self._waiting[:10], self._waiting[10:]
            self._site.publish([body for _, body in some])
            self.sent |= dict(some)

    def stop(self) -> dict[str, bytes]:
        self._ended.set()
        self.join()
        return self.sent


class Job:
    """The pipeline on a standing cluster. sent: every alert's body, by its id. late: by sink what
    was sent before that sink was there."""

    def __init__(self, site: Site, cluster: Standalone) -> None:
        self.site, self.cluster = site, cluster
        self.client = Flink(cluster.rest)
        self.said: list[str] = []
        self.sent: dict[str, bytes] = {}
        self.late: dict[str, set[str]] = {}
        self._seed = 10

    @property
    def id(self) -> str:
        return self.client.named(NAME).id

    def start(self) -> None:
        """`alertbeam run`, until it works; Ctrl-C leaves the job on the cluster."""
        process = self.site.run(
            "--runner", "FlinkRunner", "--cluster", self.cluster.rest, "--name", NAME,
            "--", *self.cluster.options,
        )  # fmt: skip
        assert process.stdout
        said = []
        for line in process.stdout:
            said.append(line)
            if line.startswith("it works"):
                break
        else:
            raise AssertionError("".join(said))
        last = stop(process, signal.SIGINT)
        assert process.returncode == 0, "".join(said) + last
        assert f"to stop it: alertbeam flink stop {NAME} --cluster {self.cluster.rest}" in last

    def flink(self, command: str, *options: str, code: int = 0) -> str:
        """`alertbeam flink …` about this job; what it says."""
        given = ["flink", command, NAME, "--cluster", self.cluster.rest]
        found, said = self.site.call(*given, "-c", str(self.site.settings), *options)
        assert found == code, said
        return said

    def resume(self, *options: str, code: int = 0) -> str:
        said = self.flink("resume", *options, "--", *self.cluster.options, code=code)
        self.said.append(said)
        return said

    def through(self, fault: Callable[[], object]) -> int:
        """What befalls it while alerts come; how many of them came twice at a sink."""
        self._seed += 1
        before = arrived(self.site)
        stream = Stream(self.site, self._seed)
        until(lambda: len(stream.sent) > 100, LONG, lambda: "nothing was published")
        fault()
        more = len(stream.sent) + 50
        until(lambda: len(stream.sent) >= min(more, 6_000), LONG, lambda: "nothing more came")
        new = stream.stop()
        self.sent |= new
        until(settled(self.site, len(self.sent), self.late), LONG, self.told)
        tiled(self.site, self.late)
        twice = 0
        for sink, found in arrived(self.site).items():
            expected = self.sent.keys() - self.late.get(sink, set())
            assert found.keys() == expected, f"{sink}: lost, or made up"
            twice += found.total() - before.get(sink, Counter()).total() - len(new)
        name = getattr(fault, "__qualname__", "")
        print(f"{name}: {len(new)} alerts, {twice} twice, {self.restarts} restarts")
        return twice

    @property
    def restarts(self) -> int:
        """Of the job since it was submitted."""

        def said() -> str:
            return self.client.job_metrics(self.id, ["numRestarts"]).get("numRestarts", "")

        return int(until(said, LONG, "Flink does not say how often it was restarted"))

    def told(self) -> str:
        return f"{told(self.site)}\n{self.said}\n{self.cluster.exceptions(self.id)}"


@contextlib.contextmanager
def running(folder: Path, interval: float = 2.0) -> Iterator[Job]:
    """A hub, receivers, a cluster, and the job at work on it. interval: see `Standalone`."""
    with Site(folder, PARTITIONS) as site:
        site.write(sinks=SINKS, more=MORE)
        site.load()  # the pools of workers need the environment
        with Standalone(folder / "cluster", interval=interval) as cluster:
            job = Job(site, cluster)
            job.start()
            yield job
