"""`--from`: what may be said, what it comes to at a real hub, and that a run begins there."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.local.hub import EmbeddedHub, Retention
from pipelines.positions import From, FromError, Where, first_since
from pipelines.report import accounts_of
from schemas.batch import Origin
from tests.site import HUB, SINKS, Site, alerts
from transforms.gaps import gaps
from transforms.read.access import EventHubsAccess
from transforms.read.sdk import HubError, kept_sequences
from transforms.secrets import SecretRef

NOW_MS = 1_772_618_400_000  # 2026-03-04T10:00:00Z
DEFENDER = [Origin("ns.servicebus.windows.net/defender/$Default", each) for each in ("0", "3")]
OTHER = Origin("ns.servicebus.windows.net/other/$Default", "3")
NAMES = ("splunk", "siem", "archive")


def one(text: str) -> Where:
    """What is said of everybody."""
    where = From.parse(text, NOW_MS).of(DEFENDER[0])
    assert where is not None
    return where


class TestGrammar:
    @pytest.mark.parametrize(
        ("text", "kind", "value"),
        [
            ("earliest", "earliest", 0),
            ("latest", "latest", 0),
            ("checkpoint", "checkpoint", 0),
            ("0", "sequence", 0),
            ("1200", "sequence", 1200),
            ("90s", "time", NOW_MS - 90_000),
            ("30m", "time", NOW_MS - 1_800_000),
            ("2h", "time", NOW_MS - 7_200_000),
            ("7d", "time", NOW_MS - 604_800_000),
            ("2026-03-04T09:59:00Z", "time", NOW_MS - 60_000),
            ("2026-03-04T09:59:00.500z", "time", NOW_MS - 59_500),
            ("2026-03-04T10:59+01:00", "time", NOW_MS - 60_000),
            ("2026-03-04 09:59Z", "time", NOW_MS - 60_000),
        ],
    )
    def test_where(self, text: str, kind: str, value: int) -> None:
        assert one(text) == Where(kind, text, value)  # type: ignore[arg-type]

    def test_the_most_exact_one_counts(self) -> None:
        said = From.parse("latest, 3=5,other=earliest, defender/3=7")
        assert [where and where.text for where in map(said.of, (*DEFENDER, OTHER))] == [
            "latest", "7", "5",
        ]  # fmt: skip
        whole = From.parse(f"{DEFENDER[1]}=1,defender/3=2,{OTHER.source}=3")
        assert [where and where.text for where in map(whole.of, (*DEFENDER, OTHER))] == [
            None, "1", "3",
        ]  # fmt: skip

    @pytest.mark.parametrize(
        ("text", "told"),
        [
            ("", "not understood: say earliest, latest"),
            ("yesterday", "not understood: say earliest, latest"),
            ("2h30m", "not understood"),
            ("-5", "not understood"),
            ("99999999999999999999", "not understood"),
            ("2026-03-04", "which time zone? For UTC say 2026-03-04T00:00:00Z"),
            ("2026-03-04T10:00:00", "which time zone? For UTC say 2026-03-04T10:00:00Z"),
            ("2026-03-05T00:00:00Z", "still to come; `latest`"),
            ("=5", "nothing is before the `=`"),
            ("3=1,3=2", "3 was said before"),
            ("latest,earliest", "everything was said before"),
            ("3=1,", "not understood"),
        ],
    )
    def test_what_is_not_understood_is_taught(self, text: str, told: str) -> None:
        with pytest.raises(FromError) as error:
            From.parse(text, NOW_MS)
        assert told in str(error.value)

    def test_a_name_that_two_hubs_share_has_to_be_said_whole(self) -> None:
        with pytest.raises(FromError, match=r"several 3; .*: defender/3=9"):
            From.parse("3=9").check([*DEFENDER, OTHER])
        From.parse("3=9").check(DEFENDER)
        From.parse("9,other=1,0=2").check([*DEFENDER, OTHER])
        group = Origin("ns.servicebus.windows.net/defender/second", "0")
        with pytest.raises(FromError, match=r"say which one: ns.*/defender/\$Default=9"):
            From.parse("defender=9").check([*DEFENDER, group])

    @given(st.text(max_size=20))
    def test_nothing_but_its_own_error_comes_of_any_text(self, text: str) -> None:
        try:
            From.parse(text, NOW_MS).check(DEFENDER)
        except FromError as error:
            assert str(error).startswith("--from ")


class TestTimes:
    @pytest.fixture(scope="class")
    def access(self, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EventHubsAccess]:
        """Partition 0: events 0 … 9, one a minute, of which retention left 2 … 9; 1: nothing."""
        now = [NOW_MS]
        folder = tmp_path_factory.mktemp("hub")
        with (
            pytest.MonkeyPatch.context() as patched,
            EmbeddedHub(
                folder, {HUB: 2}, clock=lambda: now[0], retention=Retention(events=8)
            ) as hub,
        ):
            for number in range(10):
                now[0] = NOW_MS + number * 60_000
                hub.publish(HUB, [b"{}"], partition=0)
            patched.setenv("HUB_OF_TIMES", hub.connection_string(HUB))
            yield EventHubsAccess(hub=HUB, connection_string=SecretRef("env:HUB_OF_TIMES"))

    @pytest.mark.parametrize(
        ("minutes", "expected"), [(-60, 2), (4, 4), (4.01, 5), (9, 9), (9.01, 10), (99, 10)]
    )
    def test_a_time_is_the_first_event_that_came_then_or_later(
        self, access: EventHubsAccess, minutes: float, expected: int
    ) -> None:
        kept = kept_sequences(access, "0")
        assert first_since(access, "0", kept, NOW_MS + int(minutes * 60_000)) == expected

    def test_in_an_empty_partition_it_is_the_next_one(self, access: EventHubsAccess) -> None:
        assert first_since(access, "1", range(0), NOW_MS) == 0

    def test_a_hub_that_is_gone_is_one_error(self, access: EventHubsAccess) -> None:
        with pytest.raises(HubError):
            first_since(access, "7", range(5), NOW_MS)


class TestARun:
    @pytest.fixture
    def site(self, tmp_path: Path) -> Iterator[Site]:
        with Site(tmp_path, partitions=2) as made:
            made.write()
            yield made

    def test_it_delivers_again_from_there_and_the_account_holds(self, site: Site) -> None:
        """What is delivered again is no repeat, though the last run had seen it."""
        sent = alerts(40)
        bodies = [*sent.values()]
        site.hub.publish(HUB, bodies[:20], partition=0)
        site.hub.publish(HUB, bodies[20:], partition=1)
        site.catch_up()
        said = site.catch_up("1=5")
        again = {*[*sent][25:]}
        for sink, found in site.arrived().items():
            assert found == Counter([*sent, *again]), sink
        assert any("partition 1 at event 5 (back from 20)" in line for line in said)
        for account in site.accounts().values():
            assert account.holds
            assert account.records == account.outcomes.delivered == 20 + 15

    def test_what_is_passed_over_never_arrives_and_is_a_gap(self, site: Site) -> None:
        first, missed, last = alerts(10), alerts(10, seed=2), alerts(10, seed=3)
        site.hub.publish(HUB, first.values(), partition=0)
        site.catch_up()
        site.hub.publish(HUB, missed.values(), partition=0)
        site.catch_up("latest")
        site.hub.publish(HUB, last.values(), partition=0)
        site.catch_up()
        for sink, found in site.arrived().items():
            assert found == Counter([*first, *last]), sink
        (gap,) = gaps(site.store, Origin(site.source, "0"))
        assert (gap.first, gap.last, gap.why) == (10, 19, "passed over: --from latest")
        assert all(account.holds for account in site.accounts().values())

    def test_what_is_still_owed_is_paid_after_a_step_back_too(self, site: Site) -> None:
        site.write(sinks=SINKS, patience=0.3)
        sent = alerts(20)
        site.hub.publish(HUB, sent.values(), partition=0)
        site.hec.refuse()
        site.catch_up()
        assert site.account("splunk").outcomes.owed == 20
        site.hec.accept()
        site.catch_up("0=12")
        assert set(site.arrived()["splunk"]) == set(sent)
        (account,) = accounts_of(site.store, ["splunk"])
        assert account.holds
        assert (account.outcomes.owed, account.outcomes.delivered) == (0, 20)

    def test_a_hub_made_anew_is_refused_and_then_read_whole(self, tmp_path: Path) -> None:
        old, new = alerts(10), alerts(30, seed=2)
        with Site(tmp_path, partitions=1) as site:
            site.write()
            site.publish([*old.values()])
            site.catch_up()
            site.hub.stop()
            made = EmbeddedHub(
                tmp_path / "anew", {HUB: 1}, port=site.hub.port, clock=_an_hour_later
            )
            with made:
                site.hub = made
                site.publish([*new.values()])
                code, output = site.call("run", "-c", str(site.settings), "--quiet")
                assert code == 1
                assert "the hub was made anew" in output and "`--from earliest`" in output
                code, output = site.call(
                    "run", "-c", str(site.settings), "--until-caught-up", "--from", "earliest"
                )
                assert code == 0, output
                for sink, found in site.arrived().items():
                    assert found == Counter([*old, *new]), sink
                assert site.account("siem").records == 30

    @pytest.mark.parametrize("text", ["yesterday", "7=latest"])
    def test_what_it_does_not_understand_is_one_line(self, site: Site, text: str) -> None:
        code, output = site.call("run", "-c", str(site.settings), "--quiet", "--from", text)
        assert code == 2
        assert len(output.strip().splitlines()) == 1
        assert output.startswith(f"--from {text}: ")


def _an_hour_later() -> int:
    return int(time.time() * 1000) + 3_600_000
