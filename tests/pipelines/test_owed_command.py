"""`alertbeam owed`: what is owed is shown to the record, and cancelled by hand for good."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from schemas.digest import to_json
from tests.site import HUB, SINKS, SOURCES, Site, alerts, wait_for
from tests.transforms.test_digests_owed import digest
from transforms.capture import write_capture
from transforms.dead_letters import read_dead_letters
from transforms.owed import debts, put_aside


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with Site(tmp_path, partitions=2) as made:
        made.write(patience=0.4, sources=SOURCES.replace("}", ", retention_hours: 10}"))
        yield made


def owed(site: Site, *arguments: str) -> tuple[int, str]:
    command, *rest = arguments
    return site.call("owed", command, "-c", str(site.settings), *rest)


def an_outage(site: Site) -> list[str]:
    """Splunk is owed five events of partition 0 and three of partition 1."""
    site.hec.refuse()
    sent = alerts(8)
    site.hub.publish(HUB, [*sent.values()][:5], partition=0)
    site.hub.publish(HUB, [*sent.values()][5:], partition=1)
    site.catch_up()
    return [*sent]


def left(site: Site) -> dict[str, int]:
    return {debt.partition: debt.iou.count for debt in debts(site.store, "splunk")}


class TestLooking:
    def test_where_nothing_is_owed_it_says_so(self, site: Site) -> None:
        assert owed(site, "list") == (0, "no sink is owed anything\n")
        assert owed(site, "show", "splunk") == (0, "splunk is owed nothing\n")

    def test_the_list_has_a_row_a_sink_and_partition(self, site: Site) -> None:
        an_outage(site)
        put_aside(site.store, site.source, "1", 0, 9, write_capture([]))
        code, output = owed(site, "list")
        assert code == 0
        rows = [line.split() for line in output.splitlines() if line.startswith("splunk")]
        today = time.strftime("%m-%d", time.gmtime())
        assert [row[:4] for row in rows] == [
            ["splunk", "defender/0", "5", today],
            ["splunk", "defender/1", "3", today],
        ]
        assert "10 h more" in output
        assert [row[-1] for row in rows] == ["no", "yes"]

    def test_digests_that_are_set_aside_are_listed(self, site: Site) -> None:
        more = "digests:\n  - {name: a, window: {fixed: 1d}, early: 30}\n"
        sinks = SINKS + "  - file: {{folder: digests}}\n    name: counts\n    send: digests\n"
        site.write(sinks=sinks, more=more)
        site.store.put("aside/digests/counts/x.json", to_json(digest(1)))
        _, output = owed(site, "list")
        assert [line.split() for line in output.splitlines()][-1] == ["counts", "1"]

    def test_it_is_shown_to_the_record(self, site: Site) -> None:
        an_outage(site)
        code, output = owed(site, "show", "splunk")
        assert code == 0
        assert f"{site.source}, partition 0: 5 records" in output.splitlines()
        assert f"{site.source}, partition 1: 3 records" in output.splitlines()
        assert "0 to 4" in output
        _, output = owed(site, "show", "splunk", "1", "--json")
        assert [json.loads(line) for line in output.splitlines()] == [
            {"source": site.source, "partition": "1", "first": 0, "last": 2, "index": 0}
        ]

    def test_a_sink_that_does_not_exist_is_refused(self, site: Site) -> None:
        code, output = owed(site, "show", "splonk")
        assert code == 2 and "there are: splunk, siem, archive" in output


class TestDropping:
    def test_it_is_dead_with_the_reason_and_never_paid(self, site: Site) -> None:
        sent = an_outage(site)
        code, output = owed(
            site, "drop", "splunk", "--partition", "0", "--range", "1-3", "--yes", "--why", "4711"
        )
        assert code == 0, output
        assert "splunk: 3 records are cancelled" in output
        assert left(site) == {"0": 2, "1": 3}
        assert [
            (one.partition, one.sequence, one.step, one.reason, one.body)
            for one in read_dead_letters(site.store)
        ] == [("0", n, "splunk", "cancelled by hand: 4711", b"") for n in (1, 2, 3)]
        site.hec.accept()
        assert site.call("redeliver", "-c", str(site.settings))[0] == 0
        assert set(site.hec.ids()) == {*sent[:1], *sent[4:]}
        account = site.accounts()["splunk"]
        assert account.holds
        assert (account.outcomes.delivered, account.outcomes.dead) == (5, 3)
        assert site.accounts()["siem"].outcomes.dead == 0

    def test_it_asks_first(self, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
        an_outage(site)
        monkeypatch.setattr("typer.confirm", lambda text, abort: asked.append(text))
        asked: list[str] = []
        assert owed(site, "drop", "splunk", "--why", "x")[0] == 0
        assert asked == ["splunk will never get 8 records that it is owed. Go on?"]
        assert left(site) == {}

    @pytest.mark.parametrize("text", ["5-1", "x", "1-", "-3", "1-2-3", "9" * 30])
    def test_a_range_that_is_none_is_refused(self, site: Site, text: str) -> None:
        an_outage(site)
        code, output = owed(site, "drop", "splunk", f"--range={text}", "--why", "x", "--yes")
        assert code == 2 and "is no range of event numbers" in output
        assert left(site) == {"0": 5, "1": 3}

    def test_without_a_reason_it_is_refused(self, site: Site) -> None:
        code, output = owed(site, "drop", "splunk", "--why", " ", "--yes")
        assert code == 2 and "say why" in output

    def test_where_nothing_is_owed_there_is_nothing_to_do(self, site: Site) -> None:
        code, output = owed(site, "drop", "splunk", "--why", "x")
        assert (code, output) == (0, "splunk is owed nothing there\n")

    def test_beside_a_run_the_run_does_it(self, site: Site) -> None:
        site.hec.refuse()
        with site.running():
            site.hub.publish(HUB, alerts(6).values(), partition=0)
            wait_for(lambda: left(site) == {"0": 6})
            code, output = owed(site, "drop", "splunk", "--range", "0-3", "--yes", "--why", "x")
            assert code == 0, output
            assert "a run works in this state folder" in output
            assert left(site) == {"0": 2}
            site.hec.accept()
            wait_for(lambda: not left(site))
            wait_for(lambda: site.accounts()["splunk"].outcomes.delivered == 2)
        assert site.hec.received == 2
        assert site.accounts()["splunk"].holds
