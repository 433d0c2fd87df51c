"""An outage of one sink: what it is owed is exact to the record, and is paid to it alone."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from pipelines.local.hub import Retention
from pipelines.local.receivers import Poison, Slow
from pipelines.report import read_status
from schemas.kinds import understand
from tests.site import HUB, SINKS, SOURCES, Site, alerts, wait_for
from transforms.dead_letters import read_dead_letters
from transforms.owed import aside_of, debts
from transforms.read import payer as payer_module

WHERE = SINKS.replace("name: splunk", "name: splunk\n    where: {{severity: [high, medium]}}")
ALL = ("splunk", "siem", "archive")

Address = tuple[str, int, int]  # partition, sequence number, index


class Sent(NamedTuple):
    """What was published: the stable id at each address, and which of them Splunk should get."""

    at: dict[Address, str]
    wanted: set[str]

    def addresses(self, identities: set[str]) -> set[Address]:
        return {address for address, identity in self.at.items() if identity in identities}


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with Site(tmp_path, partitions=2) as made:
        made.write(sinks=WHERE, patience=0.4)
        yield made


def publish(site: Site, count: int, seed: int) -> Sent:
    """Bare alerts, alerts in wrappers with a bad record between, what is no JSON, and repeats."""
    bodies = [*alerts(count, seed=seed).values()]
    at: dict[Address, str] = {}
    wanted = set()
    for number in range(0, count, 4):
        one, two, three, four = bodies[number : number + 4]
        wrapped = b'{"records": [%s, 17, %s]}' % (two, three)
        events = [one, wrapped, b"not JSON", one, four]
        found = site.hub.publish(HUB, events, partition=number // 4 % 2)
        for offset, index, body in ((0, 0, one), (1, 0, two), (1, 2, three), (4, 0, four)):
            alert = understand(body)
            at[found.partition, found.first + offset, index] = alert.event_id
            if alert.severity in ("high", "medium"):
                wanted.add(alert.event_id)
    return Sent(at, wanted)


def owed(site: Site, sink: str = "splunk") -> set[Address]:
    return {
        (debt.partition, sequence, run.index)
        for debt in debts(site.store, sink)
        for run in debt.iou.owed
        for sequence in range(run.first, run.last + 1)
    }


def redeliver(site: Site, *arguments: str) -> tuple[int, str]:
    return site.call("redeliver", "-c", str(site.settings), *arguments)


def an_outage(site: Site, count: int = 80) -> Sent:
    site.hec.refuse()
    sent = publish(site, count, seed=1)
    site.catch_up()
    return sent


class TestAnOutage:
    def test_it_leaves_exact_debts_that_the_run_pays_by_itself_to_that_sink_alone(
        self, site: Site
    ) -> None:
        with site.running() as run:
            before = publish(site, 40, seed=1)
            wait_for(lambda: set(site.hec.ids()) == before.wanted)
            wait_for(lambda: set(site.syslog.ids()) == {*before.at.values()})
            site.hec.refuse()
            during = publish(site, 200, seed=2)
            wait_for(lambda: set(site.syslog.ids()) == {*before.at.values(), *during.at.values()})
            wait_for(lambda: len(owed(site)) == len(during.wanted), why="the debts are written")

            assert owed(site) == during.addresses(during.wanted - {*site.hec.ids()})
            wait_for(lambda: read_status(site.store)["sinks"]["splunk"]["circuit"] == "open")
            _, status = site.call("status", "-c", str(site.settings))
            row = next(line for line in status.splitlines() if line.startswith("splunk "))
            assert "open" in row and f" {len(during.wanted)} " in row and "holds" in row
            assert site.accounts()["splunk"].outcomes.owed == len(during.wanted)
            assert site.accounts()["siem"].outcomes.owed == 0
            code, output = redeliver(site)
            assert code == 1 and "pays what is owed by itself" in output

            others = site.arrived()
            site.hec.accept()
            wait_for(lambda: not owed(site), why="the debts are paid")
            after = publish(site, 40, seed=3)
            wait_for(lambda: after.wanted <= {*site.hec.ids()})
        arrived = site.arrived()
        wanted = [*before.wanted, *during.wanted, *after.wanted]
        assert arrived["splunk"] == Counter(wanted)
        others = {name: others[name] + Counter(after.at.values()) for name in ("siem", "archive")}
        assert (arrived["siem"], arrived["archive"]) == (others["siem"], others["archive"])
        for name, account in site.accounts().items():
            outcomes = account.outcomes
            assert account.holds and outcomes.owed == 0, name
            assert (outcomes.dead, outcomes.repeat) == (140, 70), name
        assert site.accounts()["splunk"].outcomes.delivered == len(wanted)
        assert run.counts["defender_alert"] == 280 * 5 // 4, "what is paid is not counted again"
        assert redeliver(site)[0] == 0
        assert site.arrived()["splunk"].total() == len(wanted)

    def test_a_second_outage_while_it_is_paid_loses_and_doubles_nothing(self, site: Site) -> None:
        sent = an_outage(site, 400)
        site.hec.accept()
        site.hec.fail(Slow(0.05))
        site.write(sinks=WHERE.replace("env:HEC_TOKEN,", "env:HEC_TOKEN, max_bytes: 20000,"))
        with site.running():
            wait_for(lambda: site.hec.received >= 20)
            site.hec.refuse()
            wait_for(lambda: read_status(site.store)["sinks"]["splunk"]["circuit"] == "open")
            assert owed(site)
            site.hec.accept()
            site.hec.heal()
            wait_for(lambda: not owed(site), why="the rest is paid")
        assert set(site.hec.ids()) == sent.wanted
        account = site.accounts()["splunk"]
        assert account.holds and account.outcomes.delivered == len(sent.wanted)

    def test_a_run_that_ends_while_it_pays_leaves_the_rest_owed_exactly(self, site: Site) -> None:
        sent = an_outage(site, 400)
        site.hec.accept()
        site.hec.fail(Slow(0.05))
        sinks = WHERE.replace("env:HEC_TOKEN,", "env:HEC_TOKEN, max_bytes: 20000,")
        site.write(sinks=sinks, patience=10)  # what is under way at the end must get through
        with site.running():
            wait_for(lambda: site.hec.received >= 20)
        assert owed(site) == sent.addresses(sent.wanted - {*site.hec.ids()})
        site.hec.heal()
        assert redeliver(site)[0] == 0
        assert Counter(site.hec.ids()) == Counter([*sent.wanted])

    def test_while_it_lasts_everything_stays_owed(self, site: Site) -> None:
        sent = an_outage(site)
        code, output = redeliver(site)
        assert code == 1
        count = len(sent.wanted)
        assert f"splunk: {count} of {count} records are still owed" in output.splitlines()
        assert owed(site) == sent.addresses(sent.wanted)
        assert site.accounts()["splunk"].outcomes.owed == count
        assert site.hec.received == 0

    def test_payment_in_many_small_batches_with_gaps_is_as_exact(
        self, site: Site, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        sent = an_outage(site)
        monkeypatch.setattr(payer_module, "_NEAR_EVENTS", 2)
        monkeypatch.setattr(payer_module, "_BATCH_EVENTS", 3)
        monkeypatch.setattr(payer_module, "_TURN_MS", 0)
        site.hec.accept()
        code, output = redeliver(site)
        assert code == 0, output
        assert Counter(site.hec.ids()) == Counter([*sent.wanted])

    def test_a_payment_that_is_killed_is_taken_up_again(self, site: Site) -> None:
        sent = an_outage(site, 400)
        site.hec.accept()
        site.hec.fail(Slow(0.1))
        site.write(sinks=WHERE.replace("env:HEC_TOKEN,", "env:HEC_TOKEN, max_bytes: 20000,"))
        process = site.start("redeliver", "-c", str(site.settings))
        wait_for(lambda: site.hec.received >= 20)
        process.kill()
        process.communicate()
        site.hec.heal()
        site.wait_for_quiet()
        first = site.hec.received
        code, output = redeliver(site)
        assert code == 0, output
        arrived = Counter(site.hec.ids())
        assert set(arrived) == sent.wanted
        assert arrived.total() <= len(sent.wanted) + first
        account = site.accounts()["splunk"]
        assert account.holds and account.outcomes.owed == 0
        assert account.outcomes.delivered == len(sent.wanted)

    def test_what_the_sink_refuses_for_good_is_dead_and_owed_no_more(self, site: Site) -> None:
        sent = an_outage(site)
        poisoned = sorted(sent.wanted)[0]
        site.hec.accept()
        site.hec.fail(Poison(f'"event_id":"{poisoned}"'.encode(), numbered=True))
        code, output = redeliver(site)
        assert code == 0, output
        assert set(site.hec.ids()) == sent.wanted - {poisoned}
        outcomes = site.accounts()["splunk"].outcomes
        assert (outcomes.owed, outcomes.delivered) == (0, len(sent.wanted) - 1)
        assert outcomes.dead == site.accounts()["siem"].outcomes.dead + 1


class TestOneSinkOfSeveral:
    def test_only_the_sink_that_is_named_is_paid(self, site: Site) -> None:
        site.syslog.refuse()
        sent = an_outage(site, 40)
        site.hec.accept()
        site.syslog.accept()
        code, output = redeliver(site, "--sink", "siem")
        assert code == 0, output
        assert set(site.syslog.ids()) == {*sent.at.values()}
        assert site.hec.received == 0
        assert owed(site, "siem") == set()
        assert owed(site) == sent.addresses(sent.wanted)

    def test_a_sink_that_does_not_exist_is_refused(self, site: Site) -> None:
        code, output = redeliver(site, "--sink", "splonk")
        assert code == 2
        assert "there is no sink 'splonk'" in output and "splunk, siem, archive" in output

    def test_where_nothing_is_owed_it_says_so(self, site: Site) -> None:
        code, output = redeliver(site)
        assert code == 0
        assert output.splitlines() == [
            f"{sink}: nothing is owed; 0 records were paid now" for sink in ALL
        ]


class TestWhatCannotBePaid:
    def test_what_retention_has_ended_is_written_off(self, tmp_path: Path) -> None:
        now = [1_700_000_000_000]
        with Site(
            tmp_path, partitions=2, retention=Retention(seconds=60), clock=lambda: now[0]
        ) as site:
            long = SOURCES.replace("}", ", retention_hours: 1000000}")  # nothing is set aside
            site.write(patience=0.4, sources=long)
            site.hec.refuse()
            gone, kept = alerts(10), alerts(7, seed=2)
            site.hub.publish(HUB, [*gone.values()][:4], partition=0)
            site.hub.publish(HUB, [*gone.values()][4:], partition=1)
            site.catch_up()
            now[0] += 50_000
            site.hub.publish(HUB, kept.values(), partition=0)
            site.catch_up()
            now[0] += 20_000
            site.hec.accept()
            began = time.monotonic()
            code, output = redeliver(site)
            assert code == 0
            assert time.monotonic() - began < 10, "it waited for what cannot come"
            told = output.splitlines()
            assert (
                "splunk: 10 records are gone from the hub, which keeps events only for so long: "
                "they are written off, see `alertbeam dead list`"
            ) in told
            assert "splunk: nothing is owed; 7 records were paid now" in told
            assert Counter(site.hec.ids()) == Counter([*kept])
            outcomes = site.accounts()["splunk"].outcomes
            assert (outcomes.owed, outcomes.dead, outcomes.delivered) == (0, 10, 7)
            assert site.accounts()["splunk"].holds
            letters = [*read_dead_letters(site.store)]
            assert {(one.partition, one.sequence) for one in letters} == {
                *(("0", n) for n in range(4)), *(("1", n) for n in range(6))
            }  # fmt: skip
            assert {(one.step, one.body) for one in letters} == {("splunk", b"")}
            assert redeliver(site)[0] == 0
            assert site.accounts()["splunk"].outcomes == outcomes

    def test_what_is_set_aside_before_the_hub_forgets_it_is_paid_from_there(
        self, tmp_path: Path
    ) -> None:
        now = [int(time.time() * 1000) - 40_000]
        with Site(
            tmp_path, partitions=2, retention=Retention(seconds=60), clock=lambda: now[0]
        ) as site:
            short = SOURCES.replace("}", f", retention_hours: {60 / 3600}}}")
            site.write(sinks=WHERE, sources=short, patience=0.4)
            site.hec.refuse()
            sent = publish(site, 80, seed=1)
            with site.running():
                wait_for(lambda: len(owed(site)) == len(sent.wanted), why="the debts are written")
                source = site.source
                wait_for(
                    lambda: all(aside_of(site.store, source, each) for each in ("0", "1")),
                    why="it is set aside",
                )
            now[0] += 3_600_000  # all of it is gone from the hub
            site.hec.accept()
            code, output = redeliver(site)
            assert code == 0, output
            assert Counter(site.hec.ids()) == Counter([*sent.wanted])
            with site.running():
                wait_for(lambda: not aside_of(site.store, source, "0"), why="it is needed no more")

    def test_a_hub_that_does_not_answer_is_told(self, site: Site) -> None:
        sent = an_outage(site, 20)
        site.hec.accept()
        site.hub.refuse_hub(HUB)
        code, output = redeliver(site)
        assert code == 1
        assert f"splunk: {site.source}: " in output
        assert "Traceback" not in output
        assert owed(site) == sent.addresses(sent.wanted)

    def test_a_source_that_the_settings_lost_is_told(self, site: Site) -> None:
        an_outage(site, 20)
        site.hec.accept()
        site.write(sinks=WHERE, sources=SOURCES.replace("}", ", consumer_group: another}"))
        code, output = redeliver(site)
        assert code == 1
        assert f"splunk: {site.source}: it is owed from there" in output

    def test_two_at_once_are_refused(self, site: Site) -> None:
        site.store.prepare()
        with site.store.lock("run"):
            code, output = redeliver(site)
        assert code == 1
        assert output.startswith("`alertbeam run` works in this state folder, and pays what is")


def test_digests_do_not_count_what_is_paid(site: Site) -> None:
    site.write(
        sinks=WHERE + "  - file: {{folder: digests}}\n    name: counts\n    send: digests\n",
        more="digests:\n"
        "  - {name: a, window: {fixed: 1d}, early: 30}\n"
        "  - {name: b, window: {session: 60}, early: 30}\n",
        patience=0.4,
    )
    sent = an_outage(site, 40)
    before = site.archived("digests")
    assert sum(json.loads(json.dumps(line["raw"]))["total"] for line in before) == 2 * 40
    site.hec.accept()
    code, output = redeliver(site)
    assert code == 0, output
    assert set(site.hec.ids()) == sent.wanted
    assert site.archived("digests") == before


def test_digests_that_a_sink_refused_are_paid_when_it_takes_them(site: Site) -> None:
    sinks = SINKS.replace("name: splunk", "name: splunk\n    send: digests")
    more = "digests:\n  - {name: a, window: {fixed: 1d}, early: 30}\n"
    site.write(sinks=sinks, more=more, patience=0.4)
    site.hec.refuse()
    site.hub.publish(HUB, alerts(9).values(), partition=0)
    site.catch_up()
    set_aside = len([*site.store.list("aside/digests/splunk")])
    assert set_aside
    code, output = redeliver(site)
    assert f"splunk: {set_aside} digests are still set aside" in output.splitlines()
    site.hec.accept()
    code, output = redeliver(site)
    assert code == 0, output
    assert not [*site.store.list("aside/digests")]
    assert site.hec.received == set_aside
