"""The run that the product promises, from outside: load, an outage, a kill, and the account.

`ALERTBEAM_SOAK` (`make soak`) lasts two minutes; without it, it is 40 seconds.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections import Counter
from pathlib import Path

import pytest

from pipelines.report import SinkAccount, accounts_of
from tests.acceptance.load import Publisher, Watch
from tests.site import Site, stop, wait_for
from transforms.state_store import StateStore

RATE = 2_000  # alerts a second
SECONDS = 120 if os.environ.get("ALERTBEAM_SOAK") else 40
OUTAGE = (0.3 * SECONDS, 0.5 * SECONDS)  # of the HEC receiver
KILL = 0.7 * SECONDS
PATIENCE = 2.0

SINKS = """\
  - splunk_hec: {{url: "{hec}", token: env:HEC_TOKEN, patience: {patience}, timeout: {patience}}}
    name: splunk
    where: {{severity: {{at_least: low}}}}
  - syslog: {{address: "{syslog}", format: cef, patience: {patience}}}
    name: siem
  - file: {{folder: archive}}
    name: archive
"""


@pytest.mark.alone
@pytest.mark.timeout(400)
def test_every_alert_arrives_through_an_outage_and_a_kill_and_the_account_holds(
    tmp_path: Path,
) -> None:
    with Site(tmp_path) as site:
        site.write(sinks=SINKS, patience=PATIENCE)
        publisher = Publisher(site, RATE, RATE * SECONDS)
        at = publisher.at

        running = site.run()
        publisher.start()
        wait_for(lambda: site.syslog.received > RATE, why="the run delivers")
        watch = Watch(lambda: site.syslog.received, dict)
        watch.start()
        at(OUTAGE[0])
        site.hec.refuse()
        at(OUTAGE[1])
        owed = _accounts(site)["splunk"].outcomes.owed
        site.hec.accept()
        at(KILL)
        watch.ended.set()
        watch.join()
        running.send_signal(signal.SIGKILL)
        running.communicate()
        running = site.run()
        publisher.join()
        wait_for(lambda: len({*site.syslog.ids()}) >= RATE * SECONDS, 60, "the run caught up")
        wait_for(lambda: not _accounts(site)["splunk"].outcomes.owed, 60, "what is owed is paid")
        time.sleep(1)
        output = stop(running)
        assert running.returncode == 0, output
        account = _accounts(site)
        archive = [
            json.loads(line)["id"]
            for path in sorted((tmp_path / "archive").iterdir())
            for line in path.read_bytes().splitlines()
        ]
        arrived = {
            "splunk": Counter(site.hec.ids()),
            "siem": Counter(site.syslog.ids()),
            "archive": Counter(archive),
        }

    expected = {
        "splunk": {i for i, severity in publisher.severity.items() if severity != "informational"},
        "siem": set(publisher.severity),
        "archive": set(publisher.severity),
    }
    twice = {}
    for sink, found in arrived.items():
        assert set(found) == expected[sink], f"{sink} lacks alerts, or has others"
        assert max(found.values()) <= 2, f"{sink} got an alert more than twice"
        twice[sink] = sum(count - 1 for count in found.values())
    print(f"\ntwice: {twice}; owed and paid: {owed:,}; longest wait: {watch.longest:.2f} s")
    # Of a request that timed out nobody knows whether it arrived: on a slow machine that is more
    # than what a kill leaves in flight.
    assert twice["splunk"] <= RATE * 10, "more arrived twice than can have been in flight"
    assert max(twice["siem"], twice["archive"]) <= RATE * 3
    assert owed > RATE * (OUTAGE[1] - OUTAGE[0]) / 2, "the outage left less owed than it must have"
    assert watch.longest < PATIENCE + 1, "the syslog sink waited for the HEC sink"
    for sink, entry in account.items():
        assert entry.holds, sink
        assert entry.records == RATE * SECONDS
        assert entry.outcomes.owed == entry.outcomes.dead == entry.outcomes.repeat == 0
        assert entry.outcomes.delivered == len(expected[sink])


def _accounts(site: Site) -> dict[str, SinkAccount]:
    found = accounts_of(StateStore(str(site.state)), ("splunk", "siem", "archive"))
    return {account.name: account for account in found}
