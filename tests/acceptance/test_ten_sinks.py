"""Ten sinks at once, each with a trouble of its own at its own time; and one that is slow.

`ALERTBEAM_SOAK=300` (`make soak`) runs for so many seconds instead of forty, and looks at the
memory after the first minute too.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import json
import os
import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines.local.receivers import (
    Answer,
    HalfClose,
    HecReceiver,
    Pace,
    Silence,
    SyslogReceiver,
    certificate,
)
from pipelines.report import accounts_of, read_status
from tests.acceptance.load import Publisher, Watch
from tests.site import TOKEN, Site, alerts, stop, wait_for
from tests.transforms.sinks.doubles.elasticsearch import ElasticsearchReceiver
from tests.transforms.sinks.doubles.webhook import Endpoint
from transforms.state_store import StateStore

RATE = 1_000
SECONDS = int(os.environ.get("ALERTBEAM_SOAK") or 40)
PATIENCE = 2.0
RECOVERY = 6.0  # seconds after its trouble in which a sink may still get nothing: probes
FLAT = 0.1


@dataclasses.dataclass
class Player:
    """A sink, what it has, and its trouble: from `at` on, as a share of the run, for `seconds`."""

    settings: dict[str, Any]
    received: Callable[[], int]
    ids: Callable[[], list[str]]
    at: float
    seconds: float
    begin: Callable[[], None]
    end: Callable[[], None]


def _files(folder: Path) -> list[str]:
    lines = (line for path in folder.glob("*.ndjson*") for line in path.open("rb"))
    return [json.loads(line)["id"] for line in lines if line.endswith(b"\n")]


def _size(folder: Path) -> int:
    size = 0
    for path in folder.glob("*.ndjson*"):
        with contextlib.suppress(OSError):  # it is being renamed, or the folder away
            size += path.stat().st_size
    return size


def _players(folder: Path) -> tuple[dict[str, Player], list[Any]]:
    token = {"token": "env:HEC_TOKEN", "patience": PATIENCE, "timeout": PATIENCE}
    patient = {"patience": PATIENCE, "timeout": PATIENCE}
    cert, key = certificate(folder / "tls")
    received = folder / "received"
    hec = HecReceiver(token=TOKEN, folder=received).start()
    acked = HecReceiver(token=TOKEN, folder=received, acknowledge=True).start()
    acked.ack_after = 0.3
    plain = SyslogReceiver(folder=received).start()
    secure = SyslogReceiver(folder=received, tls=(cert, key)).start()
    one, two = ElasticsearchReceiver().start(), ElasticsearchReceiver().start()
    one.keeps = two.keeps = False  # there are many
    lines = Endpoint(TOKEN.encode(), batch="lines", folder=received).start()
    array = Endpoint(TOKEN.encode(), batch="array", folder=received).start()
    lost, slow = folder / "files-a", folder / "files-b"

    def lose() -> None:
        acked.lose_next(3)
        acked.fail(Answer(503, 9, "Server is busy"))

    def occupy() -> None:
        lost.rename(folder / "away")
        lost.write_text("")

    def vacate() -> None:
        lost.unlink()
        (folder / "away").rename(lost)

    def http(receiver: Any) -> dict[str, Any]:
        return {"url": receiver.url, **patient}

    def hook(receiver: Any, batch: str) -> dict[str, Any]:
        url = f"{receiver.url}/hook"
        return {"url": url, "secret": "env:HEC_TOKEN", "batch": batch, **patient}

    def player(
        kind: str, settings: dict[str, Any], receiver: Any, at: float, seconds: float, fault: Any
    ) -> Player:
        begin = fault if callable(fault) else lambda: receiver.fail(fault)
        return Player(
            {kind: settings}, lambda: int(receiver.received), receiver.ids, at, seconds,
            begin, lambda: (receiver.heal(), receiver.accept())[0],
        )  # fmt: skip

    tls = {"ca": f"file:{cert}"}
    players = {
        "hec": player("splunk_hec", {"url": hec.url, **token}, hec, 0.15, 8, hec.refuse),
        "hec-acknowledged": player(
            "splunk_hec",
            {"url": acked.url, **token, "acknowledge": True, "acknowledge_timeout": 3},
            acked, 0.2, 5, lose,
        ),
        "syslog": player(
            "syslog", {"address": plain.address, "format": "cef", **patient},
            plain, 0.3, 6, plain.refuse,
        ),
        "syslog-tls": player(
            "syslog", {"address": secure.address, "tls": tls, **patient}, secure, 0.4, 6, Silence()
        ),
        "files": Player(
            {"file": {"folder": str(lost), **patient}},
            lambda: _size(lost), lambda: _files(lost), 0.25, 6, occupy, vacate,
        ),
        "files-limited": Player(
            {"file": {"folder": str(slow), "rate": {"records": 0.9 * RATE}, **patient}},
            lambda: _size(slow), lambda: _files(slow), 0.0, 0, lambda: None, lambda: None,
        ),
        "elasticsearch": player(
            "elasticsearch",
            {**http(one), "format": "ndjson", "index": "alerts"},
            one, 0.5, 5, Answer(429, headers=(("Retry-After", "1"),))
        ),
        "opensearch": player("elasticsearch", http(two), two, 0.35, 6, Answer(401)),
        "webhook": player("webhook", hook(lines, "lines"), lines, 0.45, 5, HalfClose()),
        "webhook-slow": player("webhook", hook(array, "array"), array, 0.1, 8, Pace(300)),
    }  # fmt: skip
    return players, [hec, acked, plain, secure, one, two, lines, array]


class _Troubles(threading.Thread):
    """Begins and ends every player's trouble at its time."""

    def __init__(
        self, players: dict[str, Player], watches: dict[str, Watch], publisher: Publisher
    ) -> None:
        super().__init__(daemon=True)
        self.steps: list[tuple[float, Callable[[], object]]] = []
        for name, player in players.items():
            if player.seconds:
                begin = player.at * SECONDS
                end = begin + player.seconds
                trouble = watches[name].trouble
                self.steps += [
                    (begin, trouble.set),
                    (begin + 0.05, player.begin),
                    (end, player.end),
                    (end + RECOVERY, trouble.clear),
                ]
        self.publisher = publisher

    def run(self) -> None:
        for second, step in sorted(self.steps, key=lambda each: each[0]):
            self.publisher.at(second)
            step()


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """Hub and receivers live in this process, with millions of objects: looking through them all
    would stop every one of them for seconds."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _resident(pid: int) -> float:
    """MiB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


@pytest.mark.alone
@pytest.mark.timeout(SECONDS + 600)
def test_ten_sinks_each_in_trouble_at_its_own_time_all_get_everything_without_anyones_hand(
    tmp_path: Path,
) -> None:
    players, receivers = _players(tmp_path)
    with _no_collection(), Site(tmp_path) as site:
        entries = [{**player.settings, "name": name} for name, player in players.items()]
        site.write(sinks=entries, more="deduplicate: {horizon: 15s}\n")
        publisher = Publisher(site, RATE, RATE * SECONDS)
        count = RATE * SECONDS + 4
        running = site.run()
        first = alerts(4)
        site.publish(list(first.values()))
        wait_for(lambda: all(p.received() > 0 for p in players.values()), why="all get something")
        publisher.start()

        def status(name: str) -> Callable[[], dict[str, Any]]:
            return lambda: read_status(site.store).get("sinks", {}).get(name, {})

        watches = {n: Watch(player.received, status(n)) for n, player in players.items()}
        troubles = _Troubles(players, watches, publisher)
        for thread in (*watches.values(), troubles):
            thread.start()
        memory = []
        while publisher.is_alive():
            publisher.join(1.0)
            if time.monotonic() - publisher.began > 60:
                memory.append(_resident(running.pid))
        troubles.join()
        for watch in watches.values():
            watch.ended.set()
            watch.join()

        def owed() -> dict[str, int]:
            found = accounts_of(StateStore(str(site.state)), players)
            return {each.name: each.outcomes.owed for each in found if each.outcomes.owed}

        def through() -> bool:
            found = accounts_of(StateStore(str(site.state)), players)
            return all(a.outcomes.delivered == count for a in found)

        began = time.monotonic()
        try:
            wait_for(through, 120, "what is owed is paid")
        finally:
            print(f"\npaid {time.monotonic() - began:.1f} s after the load; owed: {owed()}")
            output = stop(running)
            print("\n".join(line for line in output.splitlines() if "WARNING" in line))
        assert running.returncode == 0, output
        found = {a.name: a for a in accounts_of(StateStore(str(site.state)), players)}
        arrived = {name: Counter(player.ids()) for name, player in players.items()}
    for receiver in receivers:
        receiver.stop()
    twice = {name: sum(ids.values()) - len(ids) for name, ids in arrived.items()}
    longest = {name: round(watch.longest, 2) for name, watch in watches.items()}
    print(f"twice: {twice}\nlongest wait: {longest}")
    for name, ids in arrived.items():
        assert set(ids) == {*publisher.severity, *first}, f"{name} lacks alerts, or has others"
        assert found[name].holds, name
        assert found[name].outcomes.delivered == count, name
        assert longest[name] < PATIENCE, f"{name} waited for another"
    assert twice["elasticsearch"] == twice["opensearch"] == 0, "there, ids tell a repeat"
    if memory:
        usual = statistics.median(memory)
        print(
            f"memory after the first minute: {min(memory):.0f}-{max(memory):.0f} MiB; {usual:.0f}"
        )
        # What sinks in trouble have in hand comes and goes within seconds: that is no growth.
        halves = [statistics.median(memory[at : at + 30]) for at in range(0, len(memory) - 29, 30)]
        print(f"medians of half-minutes: {', '.join(f'{each:.0f}' for each in halves)} MiB")
        assert all(abs(each - usual) <= FLAT * usual for each in halves), halves
