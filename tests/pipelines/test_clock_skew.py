"""A hub's clock and this machine's differ by an hour, either way: nothing is lost, counted wrongly
or shown as less than nothing."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from schemas.digest import Digest, from_json
from tests.site import HUB, Site, alerts, wait_for

SINKS = """\
  - splunk_hec: {{url: "{hec}", token: env:HEC_TOKEN, patience: 0.3, timeout: 1}}
    name: splunk
  - file: {{folder: archive}}
    name: archive
  - file: {{folder: digests}}
    name: counts
    send: digests
"""
STORMS = (
    "shift: 2s\ndigests:\n  - {name: storms, window: {fixed: 5m}, by: [severity], samples: 0}\n"
)


@pytest.fixture(params=[-3600, 3600], ids=["the hub is behind", "the hub is ahead"])
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    def clock() -> int:
        return int((time.time() + request.param) * 1000)

    with Site(tmp_path, partitions=2, clock=clock) as made:
        made.write(sinks=SINKS, more=STORMS)
        yield made


def counted(site: Site) -> int:
    panes: list[Digest] = [
        from_json(json.dumps(line["raw"]).encode()) for line in site.archived("digests")
    ]
    return sum(pane.total for pane in panes)


def test_what_comes_after_a_pause_is_delivered_and_counted_too(site: Site) -> None:
    """An idle partition must not carry the watermark past what the hub still enqueues."""
    first, second = alerts(20), alerts(20, seed=2)
    with site.running() as run:
        site.publish(list(first.values()), 5)
        wait_for(lambda: len(site.arrived()["splunk"]) == 20)
        time.sleep(2.5)  # as long as a partition takes to be idle, and a shift to end
        site.publish(list(second.values()), 5)
        wait_for(lambda: len(site.arrived()["splunk"]) == 40)
        code, status = site.call("status", "-c", str(site.settings))
        assert code == 0
        assert not re.search(r"\s-\d", status), status
        assert not run.said
    assert set(site.arrived()["splunk"].values()) == {1}
    assert all(account.holds for account in site.accounts().values())
    assert counted(site) == 40
    assert sum(position + 1 for position in site.positions("splunk").values()) == 40


def test_what_is_owed_meanwhile_is_paid_and_nothing_is_set_aside_before_its_time(
    site: Site,
) -> None:
    site.hec.refuse()
    bodies = alerts(20)
    with site.running():
        site.hub.publish(HUB, bodies.values(), 0)
        wait_for(lambda: site.account("splunk").outcomes.owed == 20)
        code, status = site.call("status", "-c", str(site.settings))
        assert code == 0
        assert not re.search(r"\s-\d", status), status
        assert not list(site.store.list("aside"))
        site.hec.accept()
        wait_for(lambda: len(site.arrived()["splunk"]) == 20)
        wait_for(lambda: site.account("splunk").outcomes.owed == 0)
    assert set(site.arrived()["splunk"].values()) == {1}
    assert site.account("splunk").holds
