"""The site of a plan: a hub, a receiver for each of five sinks, settings; and what each has."""

from __future__ import annotations

import contextlib
import dataclasses
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipelines.local.receivers import (
    Answer,
    HecReceiver,
    Reply,
    Request,
    Reset,
    Silence,
)
from pipelines.local.receivers.base import break_off
from tests.site import HUB, TOKEN, Site
from tests.transforms.sinks.doubles.elasticsearch import ElasticsearchReceiver
from tests.transforms.sinks.doubles.webhook import Endpoint

__all__ = ["SINKS", "TROUBLES", "Ground"]

PARTITIONS = 4

SINKS: dict[str, Callable[[str], bool]] = {
    "splunk": lambda severity: severity != "informational",
    "siem": lambda severity: severity in ("high", "medium"),
    "archive": lambda severity: True,
    "elastic": lambda severity: True,
    "hook": lambda severity: True,
}
"""Each sink's name, and which severities it is to have."""

_WHERE: dict[str, Any] = {
    "splunk": {"where": {"severity": {"at_least": "low"}}},
    "siem": {"where": {"severity": ["high", "medium"]}},
}

_MORE = """\
shift: 2s
deduplicate: {horizon: 1h}
digests:
  - {name: storms, window: {fixed: 1h}, by: [severity]}
"""

_NOISE = (
    b"\x00\x01garbage\r\n\r\n",
    b"HTTP/9.9 -1 ?\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{",
    b"SSH-2.0-OpenSSH_9.6\r\n",
)


@dataclasses.dataclass(frozen=True)
class _Garbage:
    """Answer with what is no answer; `taken`: having taken the request."""

    noise: bytes
    taken: bool


class _Garbled:
    """A receiver of HTTP that knows `_Garbage`."""

    def failed(self, request: Request, fault: Any) -> Reply | None:
        if isinstance(fault, _Garbage):
            if fault.taken:
                self.respond(request)  # type: ignore[attr-defined]
            return Reply(599, fault.noise)
        return super().failed(request, fault)  # type: ignore[misc,no-any-return]

    def _send(self, sock: socket.socket, method: str, reply: Reply, **more: Any) -> None:
        if reply.status == 599 and isinstance(reply.body, bytes):
            sock.sendall(reply.body)
            break_off(sock)
        else:
            super()._send(sock, method, reply, **more)  # type: ignore[misc]


class _Hec(_Garbled, HecReceiver):
    pass


class _Elastic(_Garbled, ElasticsearchReceiver):
    pass


class _Hook(_Garbled, Endpoint):
    pass


class Ground(Site):
    """`tests.site.Site` with five sinks, each with a receiver that fails on demand.

    patience: seconds, of every sink.
    """

    def __init__(self, folder: Path, patience: float) -> None:
        super().__init__(folder, PARTITIONS)
        received = folder / "received"
        self.hec = _Hec(token=TOKEN, folder=received)
        self.elastic = _Elastic()
        self.hook = _Hook(TOKEN.encode(), batch="lines", folder=received)
        self.archive = folder / "archive"
        self.receivers = {
            "splunk": self.hec, "siem": self.syslog, "elastic": self.elastic, "hook": self.hook
        }  # fmt: skip
        self._patience = patience
        self._times: list[tuple[float, dict[str, int]]] = []
        self._over = threading.Event()
        self._watch = threading.Thread(target=self._look, daemon=True, name="arrivals")

    def __enter__(self) -> Ground:
        super().__enter__()
        self.elastic.start()
        self.hook.start()
        patient = {"patience": self._patience, "timeout": self._patience}
        entries: list[dict[str, Any]] = [
            {"splunk_hec": {"url": self.hec.url, "token": "env:HEC_TOKEN", **patient}},
            {"syslog": {"address": self.syslog.address, "format": "cef", **patient}},
            {"file": {"folder": "archive", **patient}},
            {"elasticsearch": {
                "url": self.elastic.url, "format": "ndjson", "index": "alerts", **patient,
            }},
            {"webhook": {
                "url": f"{self.hook.url}/hook", "secret": "env:HEC_TOKEN", "batch": "lines",
                **patient,
            }},
        ]  # fmt: skip
        for entry, name in zip(entries, SINKS, strict=True):
            entry.update(name=name, **_WHERE.get(name, {}))
        entries.append({"file": {"folder": "digests"}, "name": "counts", "send": "digests"})
        self.write(sinks=entries, more=_MORE)
        self._watch.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._over.set()
        self._watch.join()
        self.hook.stop()
        self.elastic.stop()
        super().__exit__(*exc)

    def ids(self) -> dict[str, Counter[str]]:
        """How often each alert is at each sink, as the receivers have it."""
        found = {name: Counter(receiver.ids()) for name, receiver in self.receivers.items()}
        return {**found, "archive": Counter(line["id"] for line in self.archived())}

    def digests(self) -> list[dict[str, Any]]:
        """The panes that were told, each once."""
        found = {line["id"]: line["raw"] for line in self.archived("digests")}
        return list(found.values())

    def recovery(self, since: float, until: float) -> dict[str, float]:
        """Seconds from `since` (monotonic) to each sink's first new arrival, if it is before
        `until`."""
        found: dict[str, float] = {}
        before: dict[str, int] | None = None
        for at, counts in self._times:
            if at < since or before is None:
                before = counts
            elif at >= until:
                break
            else:
                for name, count in counts.items():
                    if name not in found and count > before[name]:
                        found[name] = at - since
        return found

    def _look(self) -> None:
        while not self._over.wait(0.05):
            counts = {name: int(receiver.received) for name, receiver in self.receivers.items()}
            size = 0
            for path in self.archive.glob("*.ndjson*"):
                with contextlib.suppress(OSError):  # it is being renamed
                    size += path.stat().st_size
            self._times.append((time.monotonic(), {**counts, "archive": size}))


# --------------------------------------------------------------------- what can be done to it

Trouble = Callable[[Ground, random.Random, str], Callable[[], object]]
"""Begins a trouble, of a sink where it is one's; what it gives ends it."""


def _nothing() -> None:
    pass


def _partition(rng: random.Random) -> int:
    return rng.randrange(PARTITIONS)


def _drop(ground: Ground, rng: random.Random, sink: str) -> Callable[[], object]:
    ground.hub.drop_connections()
    return _nothing


def _detach(ground: Ground, rng: random.Random, sink: str) -> Callable[[], object]:
    ground.hub.detach_links(HUB, rng.choice((None, _partition(rng))))
    return _nothing


def _refuse_hub(ground: Ground, rng: random.Random, sink: str) -> Callable[[], object]:
    ground.hub.refuse_hub(HUB)
    return lambda: ground.hub.accept_hub(HUB)


def _refuse_attaches(ground: Ground, rng: random.Random, sink: str) -> Callable[[], object]:
    ground.hub.refuse_attaches(rng.randint(1, 8))
    ground.hub.drop_connections()
    return ground.hub.heal


def _cut(ground: Ground, rng: random.Random, sink: str) -> Callable[[], object]:
    ground.hub.cut_frame(HUB, _partition(rng))
    return _nothing


def _step_back(ground: Ground, rng: random.Random, sink: str) -> Callable[[], object]:
    """Deliver some hundred events again, over the same link."""

    partition, back = _partition(rng), rng.randint(1, 300)

    def act() -> None:
        for reader in list(ground.hub.readers[HUB, "$default", str(partition)]):
            reader.next = max(reader.log.first, reader.next - back)
            reader.pump()

    ground.hub._in_loop(act)
    return _nothing


def _stall(ground: Ground, rng: random.Random, sink: str) -> Callable[[], object]:
    ground.hub.stall(HUB, rng.choice((None, _partition(rng))))
    return ground.hub.heal


def _steal(ground: Ground, rng: random.Random, sink: str) -> Callable[[], object]:
    """A reader with an epoch has a partition for a while: as the service says so."""
    partition = _partition(rng)
    ground.hub.refuse_attaches(rng.randint(2, 6), "amqp:link:stolen")
    text = "New receiver 'nil' with higher epoch of '1' is created"
    ground.hub.detach_links(HUB, partition, "amqp:link:stolen", text)
    return ground.hub.heal


def _slow_hub(ground: Ground, rng: random.Random, sink: str) -> Callable[[], object]:
    ground.hub.slow_down(0.02)
    return ground.hub.heal


def _receiver(fault: Callable[[random.Random], Any]) -> Trouble:
    def begin(ground: Ground, rng: random.Random, sink: str) -> Callable[[], object]:
        receiver = ground.receivers[sink]
        receiver.fail(fault(rng))
        return receiver.heal

    return begin


def _refuse(ground: Ground, rng: random.Random, sink: str) -> Callable[[], object]:
    receiver = ground.receivers[sink]
    receiver.refuse()
    return receiver.accept


def _no_folder(ground: Ground, rng: random.Random, sink: str) -> Callable[[], object]:
    """The archive's folder is away, and something else stands there."""
    away = ground.folder / "away"
    ground.archive.mkdir(exist_ok=True)
    ground.archive.rename(away)
    ground.archive.write_text("")

    def end() -> None:
        ground.archive.unlink()
        away.rename(ground.archive)

    return end


TROUBLES: dict[str, Trouble] = {
    "hub drops": _drop,
    "hub detaches": _detach,
    "hub refuses": _refuse_hub,
    "hub refuses links": _refuse_attaches,
    "hub cuts a frame": _cut,
    "hub steps back": _step_back,
    "hub stalls": _stall,
    "hub steals": _steal,
    "hub slow": _slow_hub,
    "receiver refuses": _refuse,
    "receiver hangs": _receiver(lambda rng: Silence()),
    "receiver resets": _receiver(lambda rng: Reset()),
    "receiver takes and resets": _receiver(lambda rng: Reset(taken=True)),
    "receiver busy": _receiver(lambda rng: Answer(503)),
    "receiver garbage": _receiver(lambda rng: _Garbage(rng.choice(_NOISE), False)),
    "receiver takes, garbage": _receiver(lambda rng: _Garbage(rng.choice(_NOISE), True)),
    "folder away": _no_folder,
}
"""What goes wrong outside the pipeline, by name."""
