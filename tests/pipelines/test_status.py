"""`alertbeam status`: beside a run, after one, and where there never was one."""

from __future__ import annotations

import itertools
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.local.receivers import InvalidEvent
from pipelines.report import read_status
from tests.site import HUB, Site, alerts, wait_for


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with Site(tmp_path, partitions=2) as made:
        made.write()
        yield made


def status(site: Site) -> str:
    code, output = site.call("status", "-c", str(site.settings))
    assert code == 0
    return output


def rows(output: str, title: str) -> list[list[str]]:
    """The cells of the table with this title."""
    below = output[output.index(title) :].lstrip().splitlines()[2:]  # the title, the header
    found = itertools.takewhile(lambda line: line[:1].strip(), below)
    return [re.split(r" {2,}", line.strip()) for line in found]


def test_before_any_run_it_says_so(site: Site) -> None:
    assert status(site) == "never run: there is no status in this state folder yet\n"


def test_beside_a_run_it_shows_positions_lag_and_accounts(site: Site) -> None:
    site.hub.publish(HUB, alerts(30).values(), partition=0)
    with site.running() as run:
        wait_for(lambda: site.accounts()["archive"].records == 30)
        wait_for(lambda: (read_status(site.store).get("partitions") or [{}])[0].get("taken"))
        code, output = site.command("status", "-c", str(site.settings))
        assert code == 0
        assert output.startswith(f"running, as process {os.getpid()}; last seen ")
        assert rows(output, "partitions") == [
            [site.source, "0", "29", "29", "0", "0.0"],
            [site.source, "1", "-", "-", "-", "-"],
        ]
        assert rows(output, "in = delivered") == [
            [sink, "30", "30", "0", "0", "0", "0", "holds", "closed"]
            for sink in ("splunk", "siem", "archive")
        ]
        assert not run.said


def test_after_a_run_it_shows_the_same_and_the_dead_letters(site: Site) -> None:
    site.hub.publish(HUB, [*alerts(10).values(), b"not JSON", b""], partition=0)
    site.hec.fail(InvalidEvent(3), times=1)
    code, _ = site.call("run", "-c", str(site.settings), "--until-caught-up", "--quiet")
    assert code == 0
    output = status(site)
    assert re.match(r"not running; last seen \d s ago\n", output)
    assert rows(output, "partitions")[0][1:6] == ["0", "11", "11", "0", "0.0"]
    splunk, siem, _ = rows(output, "in = delivered")
    assert splunk[:8] == ["splunk", "12", "9", "0", "0", "3", "0", "holds"]
    assert siem[:8] == ["siem", "12", "10", "0", "0", "2", "0", "holds"]
    assert sorted(row[0] for row in rows(output, "dead letters")) == ["parse", "parse", "splunk"]


def test_what_is_owed_is_told_with_what_happens_next(site: Site) -> None:
    site.write(patience=0.3)
    site.hec.refuse()
    site.hub.publish(HUB, alerts(10).values(), partition=0)
    site.call("run", "-c", str(site.settings), "--until-caught-up", "--quiet")
    output = status(site)
    sink, records, since, *paying = rows(output, "\nowed ")[0]
    assert (sink, records, paying) == ("splunk", "10", ["no, nothing runs", "-"])
    assert re.fullmatch(r"\d\d-\d\d \d\d:\d\d, \d+ s", since)
    assert "`alertbeam redeliver`" in output


def test_a_process_that_is_gone_is_not_running(site: Site) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    site.store.prepare()
    known = {"pid": gone.pid, "running": True, "at_ms": 0, "partitions": [], "sinks": {}}
    site.store.put("status.json", json.dumps(known).encode())
    assert re.match(r"not running; last seen \d+ s ago\n", status(site))
