"""A sink that is simply slow catches up by itself, in order, and the others stay live.

`ALERTBEAM_SOAK` (`make soak`) offers 30 seconds of load; without it, it is 6.
"""

from __future__ import annotations

import datetime
import functools
import json
import os
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from pipelines.local.events import defender_alert
from pipelines.local.receivers import Pace
from pipelines.report import accounts_of
from tests.acceptance import load
from tests.acceptance.load import Publisher
from tests.site import TOKEN, Site, alerts, stop, wait_for
from tests.transforms.sinks.doubles.webhook import Endpoint
from transforms.state_store import StateStore

RATE = 1_000  # alerts a second are offered
TAKES = 300  # the slow one takes
SECONDS = 30 if os.environ.get("ALERTBEAM_SOAK") else 6
LIVE = 1.0  # seconds, for 99 of 100 alerts


class _Clocked(Endpoint):
    """Notes when what came."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.came: list[tuple[float, bytes]] = []

    def keep(self, data: bytes, *rest: Any, **more: Any) -> None:
        self.came.append((time.time(), data))
        super().keep(data, *rest, **more)

    def lines_in_order(self) -> list[tuple[float, dict[str, Any]]]:
        return [(at, json.loads(line)) for at, data in self.came for line in data.splitlines()]


def _epoch(text: str) -> float:
    return datetime.datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


@pytest.mark.alone
@pytest.mark.timeout(300)
def test_a_slow_sink_catches_up_in_order_while_the_others_stay_live(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What fills a sink's queue is bytes: with alerts as short as most it would take longer.
    large = functools.partial(defender_alert, Description="x" * 4_000)
    monkeypatch.setattr(load, "defender_alert", large)
    slow = _Clocked(TOKEN.encode(), batch="lines").start()
    live = _Clocked(TOKEN.encode(), batch="lines").start()
    slow.fail(Pace(TAKES))
    with Site(tmp_path) as site:
        sinks = [
            {
                "webhook": {"url": f"{to.url}/hook", "secret": "env:HEC_TOKEN", "batch": "lines"},
                "name": name,
            }
            for name, to in (("slow", slow), ("live", live))
        ]
        site.write(sinks=sinks)
        publisher = Publisher(site, RATE, RATE * SECONDS)
        running = site.run()
        first = alerts(4)
        site.publish(list(first.values()))
        wait_for(lambda: live.received == 4, why="the run delivers")
        live.came.clear()
        publisher.start()
        store = StateStore(str(site.state))
        publisher.join()
        ended = time.monotonic()
        owed = 0

        def through() -> bool:
            nonlocal owed
            found = accounts_of(store, ["slow", "live"])
            owed = max(owed, found[0].outcomes.owed)
            return all(a.outcomes.delivered == RATE * SECONDS + 4 for a in found)

        try:
            wait_for(through, RATE * SECONDS / TAKES * 1.5, "it catches up")
        finally:
            took = time.monotonic() - ended
            output = stop(running)
        assert running.returncode == 0, output
    slow.stop()
    live.stop()
    ages = sorted(at - _epoch(line["enqueued"]) for at, line in live.lines_in_order())
    p99 = ages[len(ages) * 99 // 100]
    behind: defaultdict[str, int] = defaultdict(lambda: -1)
    out_of_order = 0
    for _, line in slow.lines_in_order():
        out_of_order += line["sequence"] < behind[line["partition"]]
        behind[line["partition"]] = max(behind[line["partition"]], line["sequence"])
    print(
        f"\nowed: {owed:,}; caught up in {took:.1f} s, "
        f"{out_of_order} out of order; the other's p99 {p99 * 1000:.0f} ms, last {ages[-1]:.2f} s"
    )
    assert set(slow.ids()) == set(live.ids()) == {*publisher.severity, *first}
    assert owed > 1_000, "it did not fall behind"
    assert out_of_order == 0
    assert p99 < LIVE
