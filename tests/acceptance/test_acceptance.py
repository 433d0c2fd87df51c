"""The run that the product promises, from outside: load, an outage, a kill, and the account."""

from __future__ import annotations

import datetime
import json
import random
import signal
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from pipelines.local.events import defender_alert
from pipelines.report import SinkAccount, accounts_of
from schemas.kinds import understand
from tests.site import HUB, Site, stop, wait_for
from transforms.state_store import StateStore

RATE = 2_000  # alerts a second
SECONDS = 120
OUTAGE = (40.0, 60.0)  # of the HEC receiver
KILL = 80.0
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


class _Publisher(threading.Thread):
    """RATE unique alerts a second for SECONDS; remembers each one's stable id and severity."""

    def __init__(self, site: Site) -> None:
        super().__init__(daemon=True)
        self.site = site
        self.severity: dict[str, str] = {}
        self.began = 0.0

    def run(self) -> None:
        rng = random.Random(7)
        now = datetime.datetime.now(datetime.timezone.utc)
        shapes = [defender_alert(rng, now) for _ in range(200)]
        bodies = [json.dumps(shape, separators=(",", ":")).encode() for shape in shapes]
        self.began = time.monotonic()
        for number in range(RATE * SECONDS // 20):
            batch = []
            for at in range(20):
                which = (number * 20 + at) % len(shapes)
                identity = shapes[which]["SystemAlertId"].encode()
                body = bodies[which].replace(identity, b"%s-%06d" % (identity, number * 20 + at))
                alert = understand(body)
                self.severity[alert.event_id] = alert.severity
                batch.append(body)
            self.site.hub.publish(HUB, batch)
            ahead = self.began + (number + 1) * 20 / RATE - time.monotonic()
            if ahead > 0:
                time.sleep(ahead)


class _Watch(threading.Thread):
    """The longest time in which nothing came to the syslog receiver."""

    def __init__(self, site: Site) -> None:
        super().__init__(daemon=True)
        self.site = site
        self.longest = 0.0
        self.ended = threading.Event()

    def run(self) -> None:
        count, since = self.site.syslog.received, time.monotonic()
        while not self.ended.wait(0.02):
            now = time.monotonic()
            if self.site.syslog.received != count:
                count, since = self.site.syslog.received, now
            self.longest = max(self.longest, now - since)


@pytest.mark.timeout(400)
def test_every_alert_arrives_through_an_outage_and_a_kill_and_the_account_holds(
    tmp_path: Path,
) -> None:
    with Site(tmp_path) as site:
        settings = site.write(sinks=SINKS, patience=PATIENCE)
        publisher = _Publisher(site)

        def at(second: float) -> None:
            time.sleep(max(0.0, publisher.began + second - time.monotonic()))

        running = site.run()
        publisher.start()
        wait_for(lambda: site.syslog.received > RATE, why="the run delivers")
        watch = _Watch(site)
        watch.start()
        at(OUTAGE[0])
        site.hec.refuse()
        at(OUTAGE[1])
        site.hec.accept()
        at(KILL)
        watch.ended.set()
        watch.join()
        running.send_signal(signal.SIGKILL)
        running.communicate()
        running = site.run()
        publisher.join()
        wait_for(lambda: len(site.syslog.ids()) >= RATE * SECONDS, 60, "the run caught up")
        time.sleep(1)
        output = stop(running)
        assert running.returncode == 0, output
        owed = _accounts(site)["splunk"].outcomes.owed
        code, paid = site.command("redeliver", "-c", str(settings), timeout=120)
        assert code == 0, paid
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
    assert owed > RATE * 10, "the outage left less owed than it must have"
    assert watch.longest < PATIENCE + 1, "the syslog sink waited for the HEC sink"
    for sink, entry in account.items():
        assert entry.holds, sink
        assert entry.records == RATE * SECONDS
        assert entry.outcomes.owed == entry.outcomes.dead == entry.outcomes.repeat == 0
        assert entry.outcomes.delivered == len(expected[sink])


def _accounts(site: Site) -> dict[str, SinkAccount]:
    found = accounts_of(StateStore(str(site.state)), ("splunk", "siem", "archive"))
    return {account.name: account for account in found}
