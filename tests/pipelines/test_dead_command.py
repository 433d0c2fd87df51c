"""`alertbeam dead`: what was refused is seen, and after a fix arrives where it is missing, once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines import cli
from pipelines.local.receivers import Poison
from schemas.dead_letter import DeadLetter
from schemas.kinds import understand
from schemas.wrappers import Refusal
from tests.site import HUB, SINKS, Site, alerts, wait_for
from transforms import parse
from transforms.dead_letters import read_dead_letters, write_dead_letters
from transforms.owed import debts

ALL = ("splunk", "siem", "archive")
WHERE = SINKS.replace("name: splunk", "name: splunk\n    where: {{severity: [high, medium]}}")
BROKEN = b"@@broken@@"


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with Site(tmp_path, partitions=2) as made:
        made.write(sinks=WHERE, patience=0.4)
        yield made


def dead(site: Site, *arguments: str) -> tuple[int, str]:
    command, *rest = arguments
    return site.call("dead", command, "-c", str(site.settings), *rest)


def letters(site: Site) -> list[DeadLetter]:
    return [*read_dead_letters(site.store)]


def pay(site: Site) -> tuple[int, str]:
    return site.call("redeliver", "-c", str(site.settings))


def holds(site: Site) -> None:
    for name, account in site.accounts().items():
        assert account.holds, (name, account)
        assert account.outcomes.owed == 0, (name, account)


@pytest.fixture
def older(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A version that does not know one kind of body; `undo()` is the fix."""
    well = parse._records

    def records(body: bytes, masking: bool) -> object:
        if body.startswith(BROKEN):
            return [Refusal(body, "not JSON")]
        return well(body, masking)

    monkeypatch.setattr(parse, "_records", records)
    return monkeypatch


def newer(monkeypatch: pytest.MonkeyPatch) -> None:
    """It knows them now: what follows the mark is the event."""
    monkeypatch.undo()
    well = parse._records

    def records(body: bytes, masking: bool) -> object:
        return well(body.removeprefix(BROKEN), masking)

    monkeypatch.setattr(parse, "_records", records)


class TestRetry:
    def test_what_one_sink_refused_goes_to_that_sink_alone_once_it_takes_it(
        self, site: Site
    ) -> None:
        sent = alerts(20, Severity="High")
        poisoned = sorted(sent)[3]
        site.hec.fail(Poison(f'"event_id":"{poisoned}"'.encode(), numbered=True))
        site.hub.publish(HUB, sent.values(), partition=0)
        site.catch_up()
        (letter,) = letters(site)
        assert (letter.step, letter.attempts) == ("splunk", 0)
        before = site.arrived()

        assert dead(site, "retry", "--sink", "splunk")[0] == 0
        assert letters(site) == []
        assert site.accounts()["splunk"].outcomes.owed == 1
        assert site.accounts()["splunk"].outcomes.dead == 0
        assert pay(site)[0] == 0
        (again,) = letters(site)
        assert (again.id, again.body, again.attempts) == (letter.id, letter.body, 1)
        assert site.accounts()["splunk"].outcomes.dead == 1
        holds(site)

        site.hec.heal()
        assert dead(site, "retry", letter.id)[0] == 0
        assert pay(site)[0] == 0
        assert letters(site) == []
        assert site.arrived() == {**before, "splunk": before["splunk"] + Counter([poisoned])}
        assert site.accounts()["splunk"].outcomes.delivered == 20
        holds(site)
        assert not [*site.store.list("tried")]

    def test_what_nobody_understood_goes_to_all_that_want_it_with_every_record_in_it(
        self, site: Site, older: pytest.MonkeyPatch
    ) -> None:
        high, low = alerts(3, Severity="High"), alerts(2, seed=5, Severity="Low")
        several = b'%s{"records": [%s]}' % (BROKEN, b",".join([*high.values(), *low.values()]))
        one = next(iter(alerts(1, seed=7, Severity="Low").values()))
        site.hub.publish(HUB, [several, b"hopeless", BROKEN + one], partition=1)
        site.catch_up()
        assert {letter.step for letter in letters(site)} == {"parse"}
        assert [site.accounts()[name].outcomes.dead for name in ALL] == [3, 3, 3]

        newer(older)
        code, output = dead(site, "retry", "--step", "parse")
        assert code == 1
        assert "2 dead letters are owed again" in output
        assert "not tried again: 1 cannot be understood by this version either" in output
        assert pay(site)[0] == 0
        (left,) = letters(site)
        assert (left.body, left.step, left.attempts) == (b"hopeless", "parse", 1)
        every = Counter([*high, *low, understand(one).event_id])
        assert site.arrived() == {"splunk": Counter([*high]), "siem": every, "archive": every}
        outcomes = {name: account.outcomes for name, account in site.accounts().items()}
        assert (outcomes["splunk"].delivered, outcomes["splunk"].not_routed) == (1, 1)
        assert (outcomes["siem"].delivered, outcomes["siem"].dead) == (2, 1)
        holds(site)

    def test_a_sink_that_is_down_is_owed_it_and_gets_all_of_an_event_when_it_is_back(
        self, site: Site, older: pytest.MonkeyPatch
    ) -> None:
        high = alerts(3, Severity="High")
        body = b'%s{"records": [%s]}' % (BROKEN, b",".join(high.values()))
        site.hub.publish(HUB, [body], partition=1)
        site.catch_up()
        newer(older)
        site.hec.refuse()
        assert dead(site, "retry", "--all")[0] == 0
        assert pay(site)[0] == 1
        assert site.accounts()["splunk"].outcomes.owed == 1
        assert {debt.partition for debt in debts(site.store, "splunk")} == {"1"}
        assert site.arrived()["siem"] == Counter([*high])
        site.hec.accept()
        assert pay(site)[0] == 0
        assert site.arrived()["splunk"] == Counter([*high])
        holds(site)

    def test_one_record_that_a_sink_refuses_leaves_the_whole_event_as_its_letter(
        self, site: Site, older: pytest.MonkeyPatch
    ) -> None:
        high = alerts(3, Severity="High")
        poisoned = [*high][1]
        body = b'%s{"records": [%s]}' % (BROKEN, b",".join(high.values()))
        site.hub.publish(HUB, [body], partition=1)
        site.catch_up()
        newer(older)
        site.hec.fail(Poison(f'"event_id":"{poisoned}"'.encode(), numbered=True))
        dead(site, "retry", "--all")
        assert pay(site)[0] == 0
        assert {*site.hec.ids()} == {*high} - {poisoned}
        (letter,) = letters(site)
        assert (letter.step, letter.body, letter.attempts) == ("splunk", body, 1)
        assert site.accounts()["splunk"].outcomes.dead == 1
        assert site.accounts()["siem"].outcomes.delivered == 1
        holds(site)

    def test_beside_a_run_the_run_does_it_and_the_command_says_so(self, site: Site) -> None:
        sent = alerts(6, Severity="High")
        poisoned = sorted(sent)[3]
        site.hec.fail(Poison(f'"event_id":"{poisoned}"'.encode(), numbered=True))
        with site.running():
            site.hub.publish(HUB, sent.values(), partition=0)
            wait_for(lambda: site.accounts()["splunk"].outcomes.dead == 1)
            site.hec.heal()
            code, output = dead(site, "retry", "--sink", "splunk")
            assert code == 0, output
            assert "a run works in this state folder" in output
            wait_for(lambda: set(site.hec.ids()) == {*sent})
            wait_for(lambda: site.accounts()["splunk"].outcomes.delivered == 6)
        assert letters(site) == []
        holds(site)

    def test_what_was_written_off_has_no_bytes_and_cannot(self, site: Site) -> None:
        site.store.prepare()
        letter = DeadLetter("ns/hub/$Default", "0", 4, 0, 1, "splunk", "gone from the hub", b"")
        write_dead_letters(site.store, [letter])
        code, output = dead(site, "retry", letter.id)
        assert code == 1
        assert "1 have no bytes any more: they were written off" in output
        assert letters(site) == [letter]

    def test_a_sink_that_is_not_in_the_settings_any_more_cannot(self, site: Site) -> None:
        site.store.prepare()
        write_dead_letters(
            site.store, [DeadLetter("ns/hub/$Default", "0", 4, 0, 1, "gone", "no", b"{}")]
        )
        code, output = dead(site, "retry", "--all")
        assert code == 1
        assert "no sink of that name takes alerts any more" in output

    def test_what_no_account_has_counted_cannot(self, site: Site) -> None:
        site.hub.publish(HUB, alerts(2).values(), partition=0)
        site.catch_up()
        write_dead_letters(
            site.store, [DeadLetter(site.source, "0", 400, 0, 1, "splunk", "no", b"{}")]
        )
        code, output = dead(site, "retry", "--all")
        assert code == 1
        assert "1 are not settled yet" in output
        holds(site)

    def test_it_must_be_said_which(self, site: Site) -> None:
        code, output = dead(site, "retry")
        assert code == 2
        assert "--all" in output


class TestShow:
    @pytest.fixture
    def some(self, site: Site) -> list[DeadLetter]:
        site.store.prepare()
        found = [
            DeadLetter("ns/hub/$Default", "0", 4, 0, 1_772_619_194_987, "parse", "not JSON", body)
            for body in (b'{"a":\n"\x1b[31mred"',)
        ]
        found.append(
            DeadLetter("ns/hub/g", "3", 9, 2, 5, "splunk", "too \x1b[2J[bold]big", b"\xff\0")
        )
        found.append(DeadLetter("ns/hub/g", "3", 9, 3, 5, "splunk", "cancelled by hand: x", b""))
        write_dead_letters(site.store, found)
        return found

    def test_the_list_counts_by_step_and_reason(self, site: Site, some: list[DeadLetter]) -> None:
        code, output = dead(site, "list")
        assert code == 0
        assert "\x1b" not in output
        rows = {line.split()[0] for line in output.splitlines() if line[:1].strip()}
        assert {"parse", "splunk"} <= rows
        assert "too  [2J[bold]big" in output

    def test_one_is_shown_with_where_from_why_and_the_bytes_harmlessly(
        self, site: Site, some: list[DeadLetter]
    ) -> None:
        code, output = dead(site, "show", "--step", "parse")
        assert code == 0
        for told in ("ns/hub/$Default, partition 0", "4, record 0", "2026-03-04 10:13:14 UTC"):
            assert told in output
        assert '"a":' in output and '" [31mred"' in output and "\x1b" not in output
        assert "ff 00" in dead(site, "show", some[1].id)[1]
        assert "none: it was written off" in dead(site, "show", some[2].id)[1]

    def test_several_are_listed_with_their_ids(self, site: Site, some: list[DeadLetter]) -> None:
        code, output = dead(site, "show", "--sink", "splunk")
        assert code == 0
        assert some[1].id in output and some[2].id in output and some[0].id not in output

    def test_raw_is_exactly_the_bytes(
        self, site: Site, some: list[DeadLetter], capfdbinary: pytest.CaptureFixture[bytes]
    ) -> None:
        arguments = ["dead", "show", some[1].id, "--raw", "-c", str(site.settings)]
        with pytest.raises(SystemExit) as ended:
            cli.main(arguments)
        assert ended.value.code == 0
        assert capfdbinary.readouterr().out == b"\xff\0"

    def test_none_is_said(self, site: Site) -> None:
        assert "there are no dead letters" in dead(site, "list")[1]
        code, output = dead(site, "show", "abc")
        assert code == 2 and "there is no such dead letter" in output
