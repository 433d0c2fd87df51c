"""`alertbeam run`: it drains, ends by itself, says what is wrong, and outlives `kill -9`."""

from __future__ import annotations

import json
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines import run as run_module
from pipelines.forward import forward
from pipelines.local.hub import EmbeddedHub, Retention
from pipelines.local.receivers import Poison, Silence, Slow
from pipelines.run import Run, RunError
from schemas.alert import Alert
from schemas.digest import Digest, from_json
from tests.site import HUB, SINKS, SOURCES, Site, alerts, stop, wait_for
from transforms.account import _Account as Account
from transforms.dead_letters import read_dead_letters
from transforms.delivery.engines import engines
from transforms.drift import Watch
from transforms.enrich import enrich_batch
from transforms.sinks.base import EncodeError
from transforms.sinks.splunk_hec import SplunkHec
from transforms.state_store import StateStore, StateStoreError, place

DIGESTS = """\
  - file: {{folder: digests}}
    name: counts
    send: digests
"""
STORMS = "digests:\n  - {name: storms, window: {fixed: 1d}, by: [severity], samples: 0}\n"
SINK_NAMES = ("splunk", "siem", "archive")
OTHER = "  - event_hubs: {hub: other, connection_string: env:OTHER}\n"


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with Site(tmp_path, partitions=2) as made:
        made.write()
        yield made


def digests(site: Site) -> list[Digest]:
    return [from_json(json.dumps(line["raw"]).encode()) for line in site.archived("digests")]


def assert_arrived_once(site: Site, expected: set[str] | dict[str, bytes]) -> None:
    for sink, found in site.arrived().items():
        assert found == Counter([*expected]), f"{sink}: lost, made up, or delivered twice"


def settled_events(site: Site, sink: str) -> list[int]:
    """How many events of each partition a sink has settled."""
    return [position + 1 for position in site.positions(sink).values()]


def shift(site: Site) -> int:
    return int(site.store.get("shift") or 0)


class TestDraining:
    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_a_signal_drains_and_nothing_that_was_read_is_left_over(
        self, site: Site, number: int
    ) -> None:
        site.write(sinks=SINKS + DIGESTS, more=STORMS)
        sent = alerts(1_000)
        site.publish([*sent.values()][:400])
        process = site.run()
        wait_for(lambda: site.hec.received >= 400, why="the run delivers")
        site.publish([*sent.values()][400:])
        output = stop(process, number)

        assert process.returncode == 0, output
        assert "draining" in output and "holds" in output
        account = site.accounts()
        read = account["splunk"].records
        assert read >= 400
        for sink in ("splunk", "siem", "archive"):
            assert account[sink].holds
            assert account[sink].outcomes.delivered == account[sink].records == read
            assert sum(p + 1 for p in site.positions(sink).values()) == read
        for partition, position in site.positions("siem").items():
            path = place("checkpoints", *site.source.split("/"), "checkpoint", partition)
            stored = json.loads(site.store.get(path) or b"")
            assert stored["sequencenumber"] == str(position)
        assert sum(digest.total for digest in digests(site)) == read, "the digests did not fire"
        assert not list(site.folder.glob("*/*.open")), "a file was left open"

        site.catch_up()
        assert_arrived_once(site, sent)

    def test_a_second_signal_stops_at_once_and_the_next_run_makes_up_for_it(
        self, site: Site
    ) -> None:
        site.write(patience=60)
        sent = alerts(100)
        site.publish([*sent.values()])
        site.hec.fail(Silence())
        process = site.run("--quiet")
        wait_for(lambda: site.hec.requests and site.syslog.received >= 50, why="the run hangs")
        process.send_signal(signal.SIGTERM)
        assert process.stdout is not None
        while "draining" not in process.stdout.readline():
            assert process.poll() is None
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=10)

        assert time.monotonic() - began < 2
        assert process.returncode == 128 + signal.SIGINT
        assert "the next run goes on at the checkpoint" in output
        site.hec.heal()
        site.catch_up()
        for sink, found in site.arrived().items():
            assert set(found) == set(sent), sink
        assert all(account.holds for account in site.accounts().values())

    def test_a_sink_that_hangs_holds_a_drain_up_no_longer_than_its_patience(
        self, site: Site
    ) -> None:
        site.write(patience=1)
        site.hec.fail(Silence())
        sent = alerts(50)
        site.publish([*sent.values()])
        with site.running():
            wait_for(lambda: site.hec.requests and site.syslog.received == 50)
            began = time.monotonic()
        assert time.monotonic() - began < 3
        account = site.accounts()
        assert account["splunk"].outcomes.owed == account["siem"].outcomes.delivered == 50
        assert all(each.holds for each in account.values())

    def test_it_drains_before_anything_was_read(self, site: Site) -> None:
        with site.running() as run:
            wait_for(lambda: len(run.status()[0]) == 2, why="both partitions are waited for")
        assert site.accounts()["splunk"].records == 0


class TestUntilCaughtUp:
    def test_an_empty_hub_is_caught_up_with(self, site: Site) -> None:
        code, output = site.call("run", "-c", str(site.settings), "--until-caught-up")
        assert code == 0
        assert output.count("holds") == 3

    def test_empty_partitions_hold_nothing_up(self, site: Site) -> None:
        site.hub.add_partitions(HUB, 4)
        sent = alerts(20)
        site.hub.publish(HUB, sent.values(), partition=2)
        code, output = site.call("run", "-c", str(site.settings), "--until-caught-up", "--quiet")
        assert code == 0, output
        assert_arrived_once(site, sent)
        assert site.positions("siem") == {"0": -1, "1": -1, "2": 19, "3": -1}

    def test_it_ends_while_more_is_coming(self, site: Site) -> None:
        first, later = alerts(30), alerts(2_000, seed=2)
        site.publish([*first.values()])
        ended = threading.Event()

        def keep_publishing() -> None:
            for body in later.values():
                if not ended.wait(0.002):
                    site.publish([body])

        publisher = threading.Thread(target=keep_publishing)
        publisher.start()
        try:
            site.catch_up()
        finally:
            ended.set()
            publisher.join()
        there = sum(site.hub.partition_info(HUB, p).last_sequence_number + 1 for p in "01")
        assert 30 <= site.account("siem").records < there

    @pytest.mark.parametrize("known", [False, True], ids=["from the start", "from a checkpoint"])
    def test_a_partition_whose_events_are_gone_is_not_waited_for(
        self, tmp_path: Path, known: bool
    ) -> None:
        now = [1_700_000_000_000]
        with Site(
            tmp_path, partitions=2, retention=Retention(seconds=60), clock=lambda: now[0]
        ) as site:
            site.write()
            kept = alerts(10)
            site.hub.publish(HUB, alerts(5, seed=2).values(), partition=0)
            if known:
                site.catch_up()
                site.hub.publish(HUB, alerts(5, seed=3).values(), partition=0)
            now[0] += 61_000
            site.hub.publish(HUB, kept.values(), partition=1)
            site.catch_up()
            assert set(site.syslog.ids()) >= set(kept)
            assert site.syslog.received == 10 + 5 * known

    def test_a_hub_that_was_not_read_is_told_at_the_end(self, site: Site) -> None:
        with EmbeddedHub(site.folder / "other", {"other": 1}) as other:
            site.more["OTHER"] = other.connection_string("other")
            other.refuse_hub("other")
            site.write(sources=SOURCES + OTHER)
            sent = alerts(10)
            site.publish([*sent.values()])
            code, output = site.call("run", "-c", str(site.settings), "--until-caught-up")
        assert code == 1
        assert "not everything was read" in output
        assert f"127.0.0.1:{other.port}/other/$Default" in output.splitlines()[-1]
        assert_arrived_once(site, sent)


class TestWhatCannotStart:
    @pytest.mark.parametrize(
        ("spoil", "told"),
        [
            (("the-right", "the-wrong"), "AuthenticationError"),
            (("{port}", "1"), "refused"),
            (("127.0.0.1", "no-such-host.invalid"), "not known"),
        ],
        ids=["wrong key", "unreachable", "unknown host"],
    )
    def test_a_hub_that_cannot_be_read_is_one_line(
        self, tmp_path: Path, spoil: tuple[str, str], told: str
    ) -> None:
        with Site(tmp_path, key="the-right-key-0123456789") as site:
            site.write()
            part, instead = spoil
            site.more["HUB"] = site.hub.connection_string(HUB).replace(
                part.format(port=site.hub.port), instead
            )
            code, output = site.call("run", "-c", str(site.settings), "--quiet")
        assert code == 1
        lines = output.strip().splitlines()
        assert len(lines) == 1, output
        assert lines[0].startswith("no hub can be read: ") and told in lines[0]
        assert "key-0123456789" not in output

    def test_a_hub_that_does_not_exist_is_one_line(self, site: Site) -> None:
        site.write(sources=SOURCES.replace("defender", "nowhere"))
        site.more["HUB"] = site.hub.connection_string(HUB).partition(";EntityPath")[0]
        code, output = site.call("run", "-c", str(site.settings), "--quiet")
        assert code == 1
        assert "/nowhere/$Default" in output and len(output.strip().splitlines()) == 1

    def test_several_hubs_that_cannot_be_read_are_listed(self, site: Site) -> None:
        site.more["OTHER"] = site.more["HUB"] = site.hub.connection_string(HUB)
        site.hub.refuse_hub(HUB)
        site.write(sources=SOURCES + OTHER)
        code, output = site.call("run", "-c", str(site.settings), "--quiet")
        assert code == 1
        assert [line.split(": ")[0].strip() for line in output.strip().splitlines()] == [
            "no hub can be read",
            site.source,
            site.source.replace(HUB, "other"),
        ]

    def test_an_unknown_runner_is_one_line(self, site: Site) -> None:
        code, output = site.call("run", "-c", str(site.settings), "--runner", "PrismRunner")
        assert code == 2
        assert (
            output == "there is no runner 'PrismRunner' here; "
            "there is DirectRunner, FlinkRunner, SparkRunner\n"
        )

    def test_a_second_run_in_one_state_folder_is_refused_and_leaves_the_first_alone(
        self, site: Site
    ) -> None:
        site.store.prepare()
        with site.store.lock("run"):
            site.store.put("status.json", b'{"of": "the first"}')
            code, output = site.call("run", "-c", str(site.settings), "--quiet")
            assert site.store.get("status.json") == b'{"of": "the first"}'
        assert code == 1
        assert output == (
            f"another `alertbeam run` works in the state folder {site.state}: stop it first, "
            "or give this one a folder of its own\n"
        )

    def test_a_state_folder_that_cannot_be_is_told_with_its_line(self, site: Site) -> None:
        (site.folder / "state").write_text("a file")
        code, output = site.call("run", "-c", str(site.settings))
        assert code == 2
        assert len(output.strip().splitlines()) == 1
        assert "state: " in output and "is not a folder" in output

    def test_a_state_folder_that_was_lost_meanwhile_is_one_line(
        self, site: Site, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(self: StateStore, path: str, data: bytes, **how: object) -> None:
            raise OSError(28, "No space left on device")

        site.load()
        monkeypatch.setattr(StateStore, "put", full)
        code, output = site.call("run", "-c", str(site.settings), "--quiet")
        assert code == 1
        assert output == (
            f"the state folder {site.state} cannot be written: No space left on device "
            "(make room there)\n"
        )

    def test_a_hub_made_anew_under_an_old_state_folder_is_told(self, site: Site) -> None:
        site.publish([*alerts(20).values()])
        site.catch_up()
        for path in site.store.list("accounts"):
            stored = json.loads(site.store.get(path) or b"")
            site.store.put(path, json.dumps(stored | {"position": 500}).encode())
        with pytest.raises(RunError, match=r"checkpoint is event 500, .* last one is .* made anew"):
            site.catch_up()
        with pytest.raises(RunError, match=r"checkpoint is event 500, .* last one is .* made anew"):
            Run(site.load()).run()  # live, where only the refusal of the position shows it


def test_sums_that_do_not_hold_are_no_success(site: Site) -> None:
    site.publish([*alerts(10).values()])
    site.catch_up()
    path = next(iter(site.store.list("accounts/siem")))
    stored = json.loads(site.store.get(path) or b"")
    site.store.put(path, json.dumps(stored | {"records": 1}).encode())
    code, output = site.call("run", "-c", str(site.settings), "--until-caught-up", "--quiet")
    assert code == 1
    assert output.count("DOES NOT HOLD") == 1 and output.count("holds") == 2


def test_where_it_begins_at_the_latest_nothing_is_missed_while_it_is_down(site: Site) -> None:
    site.write(sources=SOURCES.replace("}", ", start: latest}"))
    site.publish([*alerts(10).values()])
    site.catch_up()
    assert site.syslog.received == 0
    sent = alerts(5, seed=2)
    site.publish([*sent.values()])
    site.catch_up()
    assert_arrived_once(site, sent)


def test_panes_wait_until_it_can_be_written_that_they_fire(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else, after a crash, panes that seem to be others would tell of the same alerts."""
    site.write(sinks=SINKS + DIGESTS, more=STORMS)
    full, told = threading.Event(), []
    put = StateStore.put

    def fails(store: StateStore, path: str, *rest: Any, **options: Any) -> None:
        if path == "firing" and full.is_set():
            told.append(path)
            raise StateStoreError("no space left")
        put(store, path, *rest, **options)

    monkeypatch.setattr(StateStore, "put", fails)
    full.set()
    sent = alerts(50)
    with site.running() as run:
        site.publish([*sent.values()])
        wait_for(lambda: len(site.archived()) == len(sent))
        run.stop()
        wait_for(lambda: len(told) > 2, why="it is tried again")
        assert not digests(site)
        full.clear()
    assert sum(digest.total for digest in digests(site)) == len(sent)


class TestKill:
    def test_killed_at_any_moment_it_goes_on_at_the_checkpoint(self, site: Site) -> None:
        """As soon as it delivers what came last, in the middle of it, and as soon as it is back."""
        settled, sent = alerts(400), alerts(2_000, seed=2)
        site.publish([*settled.values()])
        process: subprocess.Popen[str] | None = site.run("--quiet")
        wait_for(
            lambda: all(sum(settled_events(site, sink)) == 400 for sink in SINK_NAMES),
            why="the first events are settled everywhere",
        )
        site.hec.fail(Slow(0.02))
        site.publish([*sent.values()])
        in_flight: Counter[str] = Counter()
        for more in (1, 900, 1):
            process = process or site.run("--quiet")
            goal = site.hec.received + more
            wait_for(lambda goal=goal: site.hec.received >= goal, why="the run delivers")
            process.kill()
            process.communicate()
            site.wait_for_quiet()
            for sink, found in site.arrived().items():
                position = sum(settled_events(site, sink))
                assert position >= 400
                in_flight[sink] += len(found) - position
            process = None
        site.hec.heal()

        site.catch_up()
        for sink, found in site.arrived().items():
            assert set(found) == set(settled) | set(sent), f"{sink} lacks alerts"
            assert not {i for i, count in found.items() if count > 1} & set(settled), sink
            assert found.total() - 2_400 <= in_flight[sink], "more came twice than was in flight"
        for account in site.accounts().values():
            assert account.holds
            assert account.outcomes.delivered == account.records == 2_400


class TestShifts:
    @pytest.fixture(autouse=True)
    def _listed_often(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(run_module, "_LISTING_SECONDS", 0.2)
        monkeypatch.setattr(run_module, "_RETRY_SECONDS", (0.01, 0.1))

    def test_they_hand_over_without_loss_repeats_or_new_connections(
        self, site: Site, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(run_module, "_SHORTEST_SHIFT", 0.3)
        site.write(sinks=SINKS + DIGESTS, more=STORMS + "shift: 0.5\n")
        sent = alerts(200)
        bodies = [*sent.values()]
        used, links = set(), set()
        with site.running() as run:
            for at in range(0, 200, 20):
                site.publish(bodies[at : at + 20])
                site.publish(bodies[max(0, at - 100) : at][:3])  # repeats, also of earlier shifts
                wait_for(lambda at=at: site.syslog.received >= at + 20)
                used |= {*engines(run.name)}
                links |= {reader for found in site.hub.readers.values() for reader in found}
                if at in (40, 80, 120):
                    number = shift(site)
                    wait_for(lambda number=number: shift(site) > number, why="a hand-over")

        assert_arrived_once(site, sent)
        for account in site.accounts().values():
            assert account.holds
            assert account.outcomes.repeat == account.records - 200 > 0
        assert len(used) == 4, "a shift made an engine anew"
        assert len(links) == 2, "a shift opened links anew"
        assert site.hec.connections <= 2 and site.syslog.connections <= 2
        panes = digests(site)
        assert sum(pane.total for pane in panes) == 200
        numbers = [pane.pane for pane in panes]
        assert numbers == sorted(numbers) and len({*numbers}) >= 3
        assert {pane.timing for pane in panes} == {"early"}
        assert len({pane.id for pane in panes}) == len(panes)

    def test_one_whose_graph_takes_longer_to_build_than_it_may_last_still_works(
        self, site: Site, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def slowly(*arguments: Any, **more: Any) -> None:
            time.sleep(0.4)
            forward(*arguments, **more)

        monkeypatch.setattr(run_module, "_SHORTEST_SHIFT", 0.01)
        monkeypatch.setattr(run_module, "forward", slowly)
        site.write(more="shift: 0.1\n")
        sent = alerts(20)
        site.publish([*sent.values()])
        with site.running():
            wait_for(lambda: site.syslog.received == 20, 10)
        assert_arrived_once(site, sent)

    def test_panes_are_numbered_on_through_a_restart(self, site: Site) -> None:
        site.write(sinks=DIGESTS, more=STORMS)
        for seed in (1, 2):
            site.publish([*alerts(5, seed=seed, Severity="High").values()])
            site.catch_up()
        assert sorted((pane.pane, pane.total) for pane in digests(site)) == [(1, 5), (2, 5)]

    def test_repeats_are_known_after_a_clean_restart_and_status_updates_pass(
        self, site: Site
    ) -> None:
        sent = alerts(50)
        site.publish([*sent.values()])
        site.catch_up()
        updates = alerts(50, Status="Resolved")
        assert not {*updates} & {*sent}
        site.publish([*sent.values(), *updates.values()])
        site.catch_up()
        assert_arrived_once(site, sent | updates)
        assert site.account("splunk").outcomes.repeat == 50

    def test_partitions_that_are_added_are_read_from_their_start(self, site: Site) -> None:
        site.write(sources=SOURCES.replace("}", ", start: latest}"))
        site.publish([*alerts(10, seed=9).values()])
        old, new = alerts(5), alerts(5, seed=2)
        with site.running() as run:
            wait_for(lambda: len(run.status()[0]) == 2)
            site.hub.publish(HUB, old.values(), partition=0)
            wait_for(lambda: site.syslog.received == 5)
            site.hub.add_partitions(HUB, 3)
            site.hub.publish(HUB, new.values(), partition=2)
            wait_for(lambda: site.syslog.received == 10, why="the new partition is read")
        assert_arrived_once(site, old | new)

    def test_a_hub_that_comes_back_is_read_and_one_that_fails_stops_no_other(
        self, site: Site
    ) -> None:
        with EmbeddedHub(site.folder / "other", {"other": 1}) as other:
            site.more["OTHER"] = other.connection_string("other")
            site.write(sources=SOURCES + OTHER)
            here, there = alerts(20), alerts(20, seed=2)
            other.publish("other", there.values())
            other.refuse_hub("other")
            with site.running() as run:
                site.publish([*here.values()][:10])
                wait_for(lambda: site.syslog.received == 10)
                assert any("not read for now" in line and "/other/" in line for line in run.said)
                other.accept_hub("other")
                wait_for(lambda: site.syslog.received == 30, why="the other hub is back")
                other.refuse_hub("other")
                site.publish([*here.values()][10:])
                wait_for(lambda: site.syslog.received == 40, why="it goes on without the other")
        assert_arrived_once(site, here | there)
        assert all(account.holds for account in site.accounts().values())

    def test_a_shift_that_fails_is_worked_again_without_loss(
        self, site: Site, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        calls = 0

        def failing(*arguments: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls in (3, 6):
                raise ValueError("made to fail, with [red]markup[/]")
            return enrich_batch(*arguments)

        monkeypatch.setattr("transforms.steps.enrich_batch", failing)
        sent = alerts(1_000)
        site.publish([*sent.values()])
        with site.running() as run:
            wait_for(lambda: set(site.syslog.ids()) == set(sent))
            site.wait_for_quiet()
        assert [line for line in run.said if "failed" in line] == [
            f"shift {number} failed, its work is done again: "
            "ValueError: made to fail, with [red]markup[/] "
            "[while running 'Enrich with subscriptions/Look up']"
            for number in (1, 2)
        ]
        for sink, found in site.arrived().items():
            assert set(found) == set(sent), sink
        for account in site.accounts().values():
            assert account.holds
            assert account.outcomes.delivered == account.records == 1_000

    def test_what_a_failed_shift_has_still_to_write_is_written_before_the_next_begins(
        self, site: Site, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Where a step cannot be torn down, Beam tears down none of those that come after it."""
        to_fail, failed, writes = threading.Event(), threading.Event(), threading.Event()
        made: dict[Account, int] = {}
        written: list[tuple[int, int]] = []  # in which shift the writer was made, and it ended
        begin, write = Account.setup, Account._flush

        def set_up(account: Account) -> None:
            made[account] = shift(site)
            begin(account)

        def slowly(account: Account, *what: Any) -> float:
            writes.set()
            failed.wait(30)
            time.sleep(0.2)
            took = write(account, *what)
            written.append((made[account], shift(site)))
            return took

        def looked_up(*arguments: Any) -> Any:
            if to_fail.is_set() and not failed.is_set():
                failed.set()
                raise ValueError("made to fail")
            return enrich_batch(*arguments)

        def torn_down(step: Any) -> None:
            if failed.is_set() and shift(site) == 1:
                raise StateStoreError("the disk is full")

        monkeypatch.setattr("pipelines.run._RETRY_SECONDS", (0.0, 0.0))
        monkeypatch.setattr("transforms.steps._Parse.teardown", torn_down)
        monkeypatch.setattr("transforms.steps.enrich_batch", looked_up)
        monkeypatch.setattr(Account, "setup", set_up)
        monkeypatch.setattr(Account, "_flush", slowly)
        sent = alerts(500)
        with site.running():
            site.publish([*sent.values()][:300])
            wait_for(writes.is_set, why="the accounts are written")
            to_fail.set()
            site.publish([*sent.values()][300:])
            wait_for(
                lambda: [site.account(name).records for name in SINK_NAMES] == [500] * 3,
                why="what failed is done again",
            )
        assert written[0] == (1, 1), "nothing was left to write"
        assert all(made == ended for made, ended in written), "the next shift had begun"
        assert set(site.syslog.ids()) == set(sent)
        for account in site.accounts().values():
            assert account.outcomes.delivered == account.records == 500

    def test_a_step_that_cannot_be_torn_down_leaves_no_account_behind(
        self, site: Site, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Where teardown fails, Beam says so in the log, and tears down none of those after it."""
        end, failed = Account.teardown, threading.Event()

        def torn_down(account: Account) -> None:
            if not failed.is_set():
                failed.set()
                raise StateStoreError("the disk is full")
            end(account)

        monkeypatch.setattr(Account, "finish_bundle", lambda account: None)
        monkeypatch.setattr(Account, "teardown", torn_down)
        sent = alerts(100)
        site.publish([*sent.values()])
        said = site.catch_up()
        assert failed.is_set() and "shift 1 left something unsettled" in " ".join(said)
        for account in site.accounts().values():
            assert account.outcomes.delivered == account.records == 100

    def test_what_was_learnt_of_fields_is_not_worth_an_account(
        self, site: Site, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        save, failed = Watch.save, threading.Event()

        def saved(watch: Watch) -> None:
            if not failed.is_set():
                failed.set()
                raise StateStoreError("the disk is full")
            save(watch)

        monkeypatch.setattr(Account, "finish_bundle", lambda account: None)
        monkeypatch.setattr(Watch, "save", saved)
        sent = alerts(100)
        site.publish([*sent.values()])
        assert "unsettled" not in " ".join(site.catch_up())
        assert failed.is_set()
        assert_arrived_once(site, sent)
        for account in site.accounts().values():
            assert account.outcomes.delivered == account.records == 100

    def test_what_a_failed_shift_had_seen_is_no_repeat_after_an_idle_one(
        self, site: Site, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        site.write(more="shift: 1\n")
        failed = threading.Event()

        def failing(*arguments: Any) -> Any:
            if not failed.is_set():
                for partition in "01":
                    site.hub.stall(HUB, partition)
                failed.set()
                raise ValueError("made to fail")
            return enrich_batch(*arguments)

        monkeypatch.setattr("transforms.steps.enrich_batch", failing)
        sent = alerts(50)
        site.publish([*sent.values()])
        with site.running():
            wait_for(failed.is_set)
            wait_for(lambda: shift(site) >= 3, why="a shift with nothing")
            site.hub.heal()
            wait_for(lambda: site.account("siem").records == 50, why="the events are read again")
        assert_arrived_once(site, sent)

    def test_it_gives_up_where_nothing_but_failures_comes(
        self, site: Site, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def failing(*arguments: Any) -> Any:
            raise ValueError("made to fail")

        monkeypatch.setattr("transforms.steps.enrich_batch", failing)
        site.publish([*alerts(5).values()])
        with pytest.raises(RunError, match="5 shifts failed, one after another"):
            site.catch_up()

    def test_a_drain_that_fails_is_no_success(
        self, site: Site, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def failing(*arguments: Any) -> Any:
            run.stop()
            raise ValueError("made to fail")

        monkeypatch.setattr("transforms.steps.enrich_batch", failing)
        site.publish([*alerts(5).values()])
        run = Run(site.load())
        with pytest.raises(RunError, match="the next run does its work again"):
            run.run()


class TestDigestsOnly:
    def test_positions_move_where_only_digests_are_sent(self, site: Site) -> None:
        site.write(sinks=DIGESTS, more=STORMS)
        site.publish([*alerts(120).values(), b"not JSON"])
        site.catch_up()
        assert sum(p + 1 for p in site.positions("digests").values()) == 121
        account = site.account("digests")
        assert account.holds
        assert (account.outcomes.delivered, account.outcomes.dead) == (120, 1)
        site.catch_up()
        assert sum(pane.total for pane in digests(site)) == 120

    def test_what_a_sink_refuses_is_set_aside_whole(self, site: Site) -> None:
        site.write(
            sinks=SINKS.replace("name: splunk", "name: splunk\n    send: digests"),
            more=STORMS,
            patience=0.5,
        )
        site.hec.refuse()
        sent = alerts(40)
        site.publish([*sent.values()])
        site.catch_up()
        aside = [
            from_json(site.store.get(path) or b"") for path in site.store.list("aside/digests")
        ]
        assert sum(digest.total for digest in aside) == 40
        assert {path.split("/")[2] for path in site.store.list("aside")} == {"splunk"}
        assert site.account("siem").outcomes.delivered == 40
        assert all(account.holds for account in site.accounts().values())


class TestDeadLetters:
    def test_what_a_sink_refuses_is_kept_as_it_came(self, site: Site) -> None:
        sent = alerts(60)
        refused = sorted(sent)[7]
        wrapped = b'{"records": [%s, [1, 2]]}' % sent[refused]
        site.hec.fail(Poison(f'"event_id":"{refused}"'.encode(), numbered=True))
        bodies = [body for identity, body in sent.items() if identity != refused]
        site.hub.publish(
            HUB, [*bodies[:20], wrapped, *bodies[20:], b"\xff\xfenot text"], partition=1
        )
        site.catch_up()

        assert set(site.hec.ids()) == set(sent) - {refused}
        assert set(site.syslog.ids()) == set(sent)
        letters = {
            (letter.step, letter.sequence, letter.index): letter
            for letter in read_dead_letters(site.store)
        }
        assert {place: letter.body for place, letter in letters.items()} == {
            ("splunk", 20, 0): sent[refused],
            ("parse", 20, 1): b"[1, 2]",
            ("parse", 60, 0): b"\xff\xfenot text",
        }
        assert letters["splunk", 20, 0].reason == "HTTP 400: Invalid data format (code 6)"
        account = site.accounts()
        assert all(each.holds for each in account.values())
        assert (account["splunk"].outcomes.dead, account["siem"].outcomes.dead) == (3, 2)

    def test_one_that_cannot_be_said_in_a_sink_s_language_is_dead_there_alone(
        self, site: Site, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        original = SplunkHec.encode

        def failing(self: SplunkHec, alert: Alert, source: str, partition: str) -> bytes:
            if alert.event_id == refused:
                raise EncodeError("[red]made to fail\x1b[2J")
            return original(self, alert, source, partition)

        sent = alerts(20)
        refused = sorted(sent)[0]
        monkeypatch.setattr(SplunkHec, "encode", failing)
        site.publish([*sent.values()])
        code, _ = site.call("run", "-c", str(site.settings), "--until-caught-up", "--quiet")
        assert code == 0
        assert set(site.hec.ids()) == set(sent) - {refused}
        assert set(site.syslog.ids()) == set(sent)
        (letter,) = read_dead_letters(site.store)
        assert (letter.step, letter.body) == ("splunk", sent[refused])
        _, output = site.call("status", "-c", str(site.settings))
        assert "cannot be encoded: [red]made to fail [2J" in output
        assert "\x1b" not in output
