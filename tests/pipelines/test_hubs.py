"""Where partitions begin: found, added, overtaken by retention, of a hub made anew, or on word."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from pipelines import hubs as hubs_module
from pipelines.hubs import Hubs, RunError
from pipelines.positions import From, FromError
from pipelines.settings import SourceEntry
from schemas.batch import Origin
from schemas.ledger import Owing
from schemas.receipt import Outcomes, Run
from transforms import owed, restart
from transforms.account import Settled, begin, settled
from transforms.checkpoints import Taken
from transforms.gaps import GONE, gaps
from transforms.owed import account_path
from transforms.read.access import BlobCheckpoints, EventHubsAccess
from transforms.read.reader import PartitionStatus
from transforms.read.sdk import HubError, HubProperties
from transforms.secrets import SecretRef
from transforms.state_store import StateStore

SINKS = ["siem", "splunk"]
MADE_MS = 1_700_000_000_000


class Hub:
    """What a hub would say."""

    def __init__(self, name: str = "defender", **kept: range) -> None:
        self.name = name
        self.source = f"ns.servicebus.windows.net/{name}/$Default"
        self.kept = {each.removeprefix("p"): held for each, held in kept.items()}
        self.created_ms = MADE_MS
        self.fails = ""


class Place:
    """A state folder, hubs, and runs over them."""

    def __init__(self, folder: Path) -> None:
        self.store = StateStore(str(folder))
        self.hubs = {"defender": Hub(p0=range(100), p1=range(50))}
        self.said: list[str] = []
        self.access: dict[str, object] = {}

    @property
    def hub(self) -> Hub:
        return self.hubs["defender"]

    def run(self, start: str = "", *, sinks: list[str] = SINKS, **more: object) -> Hubs:
        """A run that has just started; what it says is in `said`."""
        self.said = []
        namespace = "ns.servicebus.windows.net"
        sources = [
            SourceEntry(event_hubs=EventHubsAccess(hub=name, namespace=namespace, **self.access))
            for name in self.hubs
        ]
        found = Hubs(
            sources, self.store, sinks, start=From.parse(start) if start else None,
            say=self.said.append, **more,
        )  # fmt: skip
        found.look(first=True)
        return found

    def settle(self, partition: str, position: int, *sinks: str, enqueued_ms: int = 0) -> None:
        """What a run does: whatever came up to the position is delivered."""
        for sink in sinks or SINKS:
            path = account_path(sink, self.hub.source, partition)
            before = settled(self.store, sink)[Origin(self.hub.source, partition)]
            count = before.records + position - before.position
            stored = Settled(
                position, count, enqueued_ms, Outcomes(delivered=count), before.began
            )  # fmt: skip
            self.store.put(path, msgspec.json.encode(stored))

    def stands(self, sink: str = "siem") -> dict[str, int]:
        found = settled(self.store, sink)
        return {origin.partition: entry.position for origin, entry in found.items()}

    def gaps(self, partition: str) -> list[tuple[int, int, str]]:
        found = gaps(self.store, Origin(self.hub.source, partition))
        return [(gap.first, gap.last, gap.why) for gap in found]

    def history(self) -> set[str]:
        """What is kept of closed chapters: the tops and partitions."""
        paths = (path.split("/") for path in self.store.list("history"))
        return {f"{path[2]} {path[-1].removesuffix('.json')}" for path in paths}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    made = Place(tmp_path)

    def properties(access: EventHubsAccess) -> HubProperties:
        hub = made.hubs[access.hub]
        if hub.fails:
            raise HubError(hub.fails)
        return HubProperties([*hub.kept], hub.created_ms)

    monkeypatch.setattr(hubs_module, "hub_properties", properties)
    monkeypatch.setattr(hubs_module, "claim", lambda access, partition: None)
    monkeypatch.setattr(
        hubs_module, "kept_sequences", lambda access, each: made.hubs[access.hub].kept[each]
    )
    return made


def starts(found: Hubs) -> dict[str, int]:
    return {each.partition: each.start for each in found.partitions()}


# ------------------------------------------------------------------------------------ found


class TestFound:
    def test_a_new_hub_begins_at_the_first_event_that_it_has(self, place: Place) -> None:
        place.hub.kept = {"0": range(500, 600), "1": range(0), "2": range(70, 70)}
        found = place.run()
        assert starts(found) == {"0": 500, "1": 0, "2": 70}
        assert place.stands() == place.stands("splunk") == {"0": 499, "1": -1, "2": 69}
        assert not place.gaps("0") and not place.gaps("2") and not place.said

    def test_or_at_the_latest(self, place: Place) -> None:
        place.access = {"start": "latest"}
        assert starts(place.run()) == {"0": 100, "1": 50}

    def test_until_caught_up_it_ends_where_the_hub_ended(self, place: Place) -> None:
        found = place.run(until_caught_up=True).partitions()
        assert [(each.start, each.stop) for each in found] == [(0, 100), (0, 50)]

    def test_a_known_one_goes_on_at_its_checkpoint(self, place: Place) -> None:
        place.run()
        place.settle("0", 80)
        place.settle("0", 60, "splunk")
        assert starts(place.run()) == {"0": 61, "1": 0}

    def test_a_sink_that_is_added_begins_where_the_others_stand(self, place: Place) -> None:
        place.run()
        place.settle("0", 80)
        place.run(sinks=[*SINKS, "archive"])
        assert place.stands("archive") == {"0": 80, "1": -1}

    def test_a_partition_that_is_added_is_read_from_its_start(self, place: Place) -> None:
        place.access = {"start": "latest"}
        found = place.run()
        assert not found.look()
        place.hub.kept["2"] = range(7)
        assert found.look()
        assert starts(found) == {"0": 100, "1": 50, "2": 0}
        assert not place.said

    def test_one_that_was_found_too_late_has_a_gap(self, place: Place) -> None:
        found = place.run()
        place.hub.kept["2"] = range(30, 40)
        found.look()
        assert starts(found)["2"] == 30
        assert place.gaps("2") == [(0, 29, GONE)]

    def test_a_crash_while_a_new_hub_is_begun_makes_no_partition_old(
        self, place: Place, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        place.access = {"start": "latest"}
        count = 0

        def killed(*arguments: object) -> None:
            nonlocal count
            count += 1
            if count == 2:
                raise KeyboardInterrupt
            begin(*arguments)  # type: ignore[arg-type]

        with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
            patched.setattr(hubs_module, "begin", killed)
            place.run()
        place.hub.kept = {"0": range(110), "1": range(60)}
        assert starts(place.run()) == {"0": 100, "1": 50}

    def test_a_partition_that_is_gone_is_told_once_and_the_others_go_on(self, place: Place) -> None:
        found = place.run()
        del place.hub.kept["1"]
        found.look()
        found.look()
        assert place.said == [
            f"{place.hub.source}/1: the hub has no such partition any more: it cannot be read"
        ]
        assert starts(place.run()) == {"0": 0}
        assert len(place.said) == 1


class TestNoAnswer:
    def test_a_hub_without_one_stops_no_other_and_is_found_later(self, place: Place) -> None:
        place.hubs["other"] = Hub("other", p0=range(5))
        place.hub.fails = "busy"
        found = place.run()
        assert found.unread == [f"{place.hub.source}: busy"]
        assert place.said == [f"not read for now: {place.hub.source}: busy"]
        assert [each.source for each in found.partitions()] == [place.hubs["other"].source]
        place.hub.fails = ""
        assert found.look() and not found.unread
        assert len(found.partitions()) == 3

    def test_none_is_an_error(self, place: Place) -> None:
        place.hub.fails = "no such host"
        with pytest.raises(RunError) as told:
            place.run()
        assert str(told.value) == f"no hub can be read: {place.hub.source}: no such host"


# ---------------------------------------------------------------------------------- overtaken


class TestOvertaken:
    def test_what_is_gone_is_said_exactly_and_written_down_once(self, place: Place) -> None:
        place.run()
        place.settle("0", 80)
        place.hub.kept["0"] = range(1_500, 2_000)
        assert starts(place.run()) == {"0": 1_500, "1": 0}
        assert place.said == [
            f"{place.hub.source}/0: events 81 to 1,499 are gone: the hub keeps them no longer, and "
            "not every sink had them; a gap in the account; it goes on at 1,500"
        ]
        assert place.gaps("0") == [(81, 1_499, GONE)]
        assert starts(place.run()) == {"0": 1_500, "1": 0}
        assert not place.said and len(place.gaps("0")) == 1
        assert not place.history() & {"accounts 0"}

    def test_also_where_nothing_came_since(self, place: Place) -> None:
        place.run()
        place.settle("0", 80)
        place.hub.kept["0"] = range(100, 100)
        assert starts(place.run()) == {"0": 100, "1": 0}
        assert place.said[0].endswith("a gap in the account; nothing came since")
        assert place.gaps("0") == [(81, 99, GONE)]

    def test_also_where_nothing_had_come_before(self, place: Place) -> None:
        place.hub.kept["1"] = range(0)
        place.run()
        place.hub.kept["1"] = range(20, 30)
        place.run()
        assert place.gaps("1") == [(0, 19, GONE)]

    def test_a_position_right_before_the_first_event_is_not(self, place: Place) -> None:
        place.run()
        place.settle("0", 80)
        place.hub.kept["0"] = range(81, 100)
        assert starts(place.run())["0"] == 81
        assert not place.said

    def test_a_sink_that_had_more_loses_less(self, place: Place) -> None:
        place.run()
        place.settle("0", 80, "siem")
        place.settle("0", 99, "splunk")
        place.hub.kept["0"] = range(90, 100)
        place.run()
        assert (place.stands("siem")["0"], place.stands("splunk")["0"]) == (89, 99)
        assert "events 81 to 89 are gone" in place.said[0]


# ---------------------------------------------------------------------------------- made anew


class TestMadeAnew:
    @pytest.fixture
    def renewed(self, place: Place) -> Place:
        """The new hub has more events already than were read of the old one."""
        place.run()
        place.settle("0", 80, enqueued_ms=MADE_MS + 1_000)
        place.settle("1", 30)
        place.hub.created_ms = MADE_MS + 3_600_000
        place.hub.kept = {"0": range(9_000), "1": range(9_000)}
        return place

    def test_it_is_not_skipped_over(self, renewed: Place) -> None:
        before = renewed.stands()
        with pytest.raises(RunError) as told:
            renewed.run()
        assert str(told.value) == (
            f"{renewed.hub.source}: the hub was made anew: this one is of 2023-11-14 23:13:20 UTC, "
            "the one that was read of 2023-11-14 22:13:20 UTC. `--from earliest` goes on with the "
            "new one, and keeps the old one's account as history; or give this run a new state "
            "folder"
        )
        assert renewed.stands() == before

    def test_from_earliest_goes_on_with_it_and_keeps_the_old_one_s_account(
        self, renewed: Place
    ) -> None:
        found = renewed.run("earliest")
        assert starts(found) == {"0": 0, "1": 0}
        assert settled(renewed.store, "siem")[Origin(renewed.hub.source, "0")].records == 0
        assert not renewed.gaps("0")
        assert {"accounts 0", "accounts 1"} <= renewed.history()
        assert any("the account of the old hub is kept in" in line for line in renewed.said)
        renewed.settle("0", 10)
        assert starts(renewed.run()) == {"0": 11, "1": 0}

    def test_from_latest_passes_the_new_one_s_events_over(self, renewed: Place) -> None:
        assert starts(renewed.run("latest")) == {"0": 9_000, "1": 9_000}
        assert renewed.gaps("0") == [(0, 8_999, "passed over: --from latest")]

    @pytest.mark.parametrize("start", ["checkpoint", "0=earliest", "0=5,1=checkpoint"])
    def test_what_does_not_say_where_every_partition_begins_is_refused(
        self, renewed: Place, start: str
    ) -> None:
        with pytest.raises(RunError, match="made anew"):
            renewed.run(start)

    def test_what_was_owed_of_the_old_one_is_told(self, renewed: Place) -> None:
        owed.write(renewed.store, "siem", renewed.hub.source, "0", [Owing(80, [Run(70, 74, 0)], 1)])
        owed.changed(renewed.store, "siem")
        with pytest.raises(RunError, match="owed of the old one went with it: to siem 5 records"):
            renewed.run()
        renewed.run("earliest")
        assert any("siem was owed 5 records of the old hub" in line for line in renewed.said)
        assert not owed.debts(renewed.store, "siem")

    def test_a_crash_in_the_middle_of_it_is_refused_again(
        self, renewed: Place, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real, count = hubs_module.renew, 0

        def killed(*arguments: object) -> object:
            nonlocal count
            count += 1
            if count == 2:
                raise KeyboardInterrupt
            return real(*arguments)  # type: ignore[arg-type]

        with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
            patched.setattr(hubs_module, "renew", killed)
            renewed.run("earliest")
        with pytest.raises(RunError, match="made anew"):
            renewed.run()
        assert starts(renewed.run("earliest")) == {"0": 0, "1": 0}

    def test_partitions_that_only_the_old_one_had_are_history(self, renewed: Place) -> None:
        del renewed.hub.kept["1"]
        renewed.run("earliest")
        assert renewed.stands() == {"0": -1}
        assert "accounts 1" in renewed.history()
        renewed.run()
        assert not renewed.said

    def test_under_a_run_it_is_told_by_the_next_look(self, renewed: Place) -> None:
        renewed.hub.created_ms = MADE_MS
        found = renewed.run()
        assert found.beyond([]) == ""
        renewed.hub.created_ms += 5_000
        assert not found.look()
        assert "the hub was made anew" in found.beyond([])

    def test_or_by_a_position_that_it_refuses(self, place: Place) -> None:
        found = place.run()
        place.hub.kept["0"] = range(5)
        status = PartitionStatus(place.hub.source, "0", next=81, error="argument-error: …")
        assert "checkpoint is event 80, but the hub's last one is 4" in found.beyond([status])

    def test_one_that_has_fewer_events_than_were_read_needs_no_time(self, place: Place) -> None:
        place.hub.created_ms = 0
        place.run()
        place.settle("0", 80, "splunk")
        place.hub.kept["0"] = range(80)
        with pytest.raises(RunError, match=r"checkpoint is event 80, .* last one is 79: .* anew"):
            place.run()
        assert starts(place.run("earliest")) == {"0": 0, "1": 0}

    def test_one_that_does_not_tell_its_time_is_told_by_a_partition_that_it_lacks(
        self, place: Place
    ) -> None:
        place.hub.created_ms = 0
        place.run()
        del place.hub.kept["1"]
        with pytest.raises(RunError, match="it had a partition 1, and has none"):
            place.run()

    @pytest.mark.parametrize(
        ("then_ms", "now_ms"), [(MADE_MS, 0), (0, MADE_MS), (0, 0), (MADE_MS, MADE_MS + 999)]
    )
    def test_a_time_that_is_not_told_or_told_less_exactly_is_no_new_hub(
        self, place: Place, then_ms: int, now_ms: int
    ) -> None:
        place.hub.created_ms = then_ms
        place.run()
        place.settle("0", 80, enqueued_ms=MADE_MS - 60_000)  # clocks differ
        place.hub.created_ms = now_ms
        assert starts(place.run())["0"] == 81

    def test_a_time_that_was_told_once_is_remembered(self, renewed: Place) -> None:
        later_ms, renewed.hub.created_ms = renewed.hub.created_ms, 0
        renewed.run()
        renewed.hub.created_ms = later_ms
        with pytest.raises(RunError, match="the one that was read of 2023-11-14 22:13:20"):
            renewed.run()

    def test_a_hub_that_is_younger_than_what_was_read_of_it_was_made_anew(
        self, place: Place
    ) -> None:
        """Also where an older version remembered nothing of the hub."""
        place.run()
        place.settle("0", 80, enqueued_ms=MADE_MS - 400_000)
        for path in [*place.store.list("hubs")]:
            place.store.delete(path)
        with pytest.raises(RunError, match="the events that were read came up to"):
            place.run()

    def test_with_several_hubs_the_advice_names_the_one(self, renewed: Place) -> None:
        renewed.hubs["other"] = Hub("other", p0=range(5))
        with pytest.raises(RunError, match="`--from defender=earliest` goes on"):
            renewed.run()
        assert len(renewed.run("defender=earliest").partitions()) == 3


# ------------------------------------------------------------------------------------- --from


class TestFrom:
    @pytest.fixture
    def read(self, place: Place) -> Place:
        place.run()
        place.settle("0", 80)
        place.settle("1", 30)
        return place

    @pytest.mark.parametrize(
        ("start", "expected"),
        [
            ("latest", {"0": 100, "1": 50}),
            ("earliest", {"0": 10, "1": 0}),
            ("40", {"0": 40, "1": 40}),
            ("0=90", {"0": 90, "1": 31}),
            ("defender/1=0,latest", {"0": 100, "1": 0}),
            ("checkpoint", {"0": 81, "1": 31}),
            ("50,0=100", {"0": 100, "1": 50}),
        ],
    )
    def test_partitions_begin_where_it_says(
        self, read: Place, start: str, expected: dict[str, int]
    ) -> None:
        read.hub.kept["0"] = range(10, 100)
        assert starts(read.run(start)) == expected
        assert starts(read.run()) == expected

    def test_forward_is_a_gap_and_back_is_a_new_chapter_and_both_are_said(
        self, read: Place
    ) -> None:
        read.run("40")
        assert read.gaps("1") == [(31, 39, "passed over: --from 40")]
        assert read.history() == {"accounts 0", "moves 0", "moves 1"}
        assert read.said[:2] == [
            f"{read.hub.source}: --from 40: partition 0 at event 40 (back from 81), "
            "1 at event 40 (on from 31)",
            "what is passed over is a gap in the account; what is owed stays owed",
        ]
        assert "what is read again is delivered again" in read.said[2]

    def test_that_nothing_moves_is_said(self, read: Place) -> None:
        read.run("checkpoint")
        assert read.said == [
            f"{read.hub.source}: every partition stands where --from checkpoint says"
        ]

    def test_what_is_gone_is_told_of_retention_not_passed_over(self, read: Place) -> None:
        read.hub.kept["0"] = range(90, 100)
        assert starts(read.run("0=5")) == {"0": 90, "1": 31}
        assert read.gaps("0") == [(81, 89, GONE)]
        assert any("events 5 to 89 are gone from the hub: it begins at 90" in s for s in read.said)

    def test_an_event_that_is_not_there_yet_is_refused(self, read: Place) -> None:
        before = read.stands()
        with pytest.raises(RunError, match="there is no event 60 yet: the next one will be 50"):
            read.run("60")
        assert read.stands() == before, "one partition moved before the other was refused"

    def test_where_nothing_was_read_yet_it_begins_there_without_a_gap(self, place: Place) -> None:
        assert starts(place.run("0=70,latest")) == {"0": 70, "1": 50}
        assert not place.gaps("0") and not place.gaps("1") and not place.history()

    def test_a_move_that_a_crash_interrupted_is_finished_by_the_next_run(
        self, read: Place, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def killed(*arguments: object) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
            patched.setattr(restart, "_new_chapter", killed)
            read.run("0=40")
        assert read.stands()["0"] == 80
        assert starts(read.run()) == {"0": 40, "1": 31}

    def test_it_holds_for_the_first_look_alone(self, place: Place) -> None:
        found = place.run("latest")
        place.hub.kept["2"] = range(9)
        found.look()
        assert starts(found)["2"] == 0

    def test_a_time_is_asked_of_the_hub(self, read: Place, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(
            hubs_module, "first_since", lambda access, partition, kept, ms: kept.start + 7
        )
        assert starts(read.run("2h")) == {"0": 7, "1": 7}

    def test_a_hub_that_does_not_answer_is_refused(self, read: Place) -> None:
        read.hubs["other"] = Hub("other", p0=range(5))
        read.hubs["other"].fails = "busy"
        with pytest.raises(RunError, match=r"`--from` needs every hub to answer: .*/other/.*busy"):
            read.run("defender=latest")

    def test_what_names_nothing_here_is_refused(self, read: Place) -> None:
        with pytest.raises(FromError, match=r"no such hub or partition; hubs: defender; .*: 0, 1"):
            read.run("7=latest")

    @pytest.mark.parametrize(
        ("theirs", "expected"), [(90, {"0": 91, "1": 31}), (20, {"0": 81, "1": 31})]
    )
    def test_another_consumer_s_checkpoint_counts_where_it_is_ahead(
        self,
        read: Place,
        monkeypatch: pytest.MonkeyPatch,
        theirs: int,
        expected: dict[str, int],
    ) -> None:
        read.access = {"checkpoints": blobs()}
        found = {"0": Taken(theirs, "", "a-blob")}
        monkeypatch.setattr(hubs_module, "others", lambda access, source: found)
        monkeypatch.setattr(hubs_module, "take_over", lambda *arguments: None)
        assert starts(read.run("checkpoint")) == expected

    @pytest.mark.parametrize(
        ("taken", "told"),
        [
            (Taken(100, "", "a-blob"), "it is of an older hub"),
            (Taken(None, "9", "a-blob", "has no sequence number"), "has no sequence number: say"),
        ],
    )
    def test_one_that_tells_no_event_of_this_hub_is_refused(
        self, read: Place, monkeypatch: pytest.MonkeyPatch, taken: Taken, told: str
    ) -> None:
        read.access = {"checkpoints": blobs()}
        monkeypatch.setattr(hubs_module, "others", lambda access, source: {"0": taken})
        monkeypatch.setattr(hubs_module, "take_over", lambda *arguments: None)
        with pytest.raises(RunError, match=told):
            read.run("checkpoint")

    def test_a_checkpoint_that_was_taken_over_past_the_end_is_refused(
        self, place: Place, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def taken(access: object, source: str, *more: object) -> None:
            begin(place.store, SINKS, Origin(source, "0"), 5_000)

        monkeypatch.setattr(hubs_module, "take_over", taken)
        with pytest.raises(RunError, match=r"checkpoint is event 5000, .* last one is 99"):
            place.run()


def blobs() -> BlobCheckpoints:
    return BlobCheckpoints(connection_string=SecretRef("env:BLOBS"), container="checkpoints")
