"""What is wrong is found, and named exactly; what is right is not complained of."""

from __future__ import annotations

import json
import os
import random
import re
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import msgspec
import pytest
import typer
from typer.testing import CliRunner

from pipelines.commands.report import report as command
from pipelines.local.events import defender_alert
from pipelines.local.hub.log import Retention
from pipelines.report.arrived import ArrivedError, read_ids
from pipelines.report.verify import Check, verify
from schemas.batch import Origin
from schemas.dead_letter import DeadLetter
from schemas.ledger import Payment
from schemas.receipt import Outcomes
from schemas.runs import Run
from tests.pipelines.test_report_page import NOW, ORIGIN, SOURCE, owe, settle, span
from tests.site import HUB, Site, alerts, wait_for
from transforms.account import Settled
from transforms.dead_letters import write_dead_letters
from transforms.gaps import Gap, record_gap
from transforms.owed import account_path
from transforms.receipts import spill
from transforms.state_store import StateStore, place

TILED, DEAD, OWED, CHECKPOINT = range(4)


@pytest.fixture
def store(tmp_path: Path) -> StateStore:
    """Where all is well: receipts in segments too, dead letters, debts, payments, a checkpoint."""
    made = StateStore(str(tmp_path / "state"))
    spans = [span(n * 10, n * 10 + 9, NOW, delivered=8, dead=1, owed=1) for n in range(100)]
    settle(made, "siem", *spans)
    kept = spill(made, "siem", SOURCE, "0", spans)
    put(made, spans=kept)
    letters = [letter(n * 10, "parse" if n % 2 else "siem") for n in range(100)]
    write_dead_letters(made, [*letters, letter(5, "siem")])
    owe(
        made, "siem", *(Run(n * 10 + 5, n * 10 + 5, 0) for n in range(100)),
        paid=Payment([Run(15, 15, 0)], [Run(5, 5, 0)]),
    )  # fmt: skip
    checkpoint(made, 999)
    assert faults(made) == [[], [], [], []]
    return made


def put(store: StateStore, sink: str = "siem", **changes: Any) -> None:
    """Let the account say otherwise."""
    path = account_path(sink, SOURCE, "0")
    stored = msgspec.json.decode(store.get(path) or b"", type=Settled)
    store.put(path, msgspec.json.encode(msgspec.structs.replace(stored, **changes)))


def stored(store: StateStore) -> Settled:
    return msgspec.json.decode(store.get(account_path("siem", SOURCE, "0")) or b"", type=Settled)


def checkpoint(store: StateStore, sequence: int) -> None:
    path = place("checkpoints", *SOURCE.split("/"), "checkpoint", "0")
    store.put(path, msgspec.json.encode({"sequencenumber": str(sequence)}))


def letter(sequence: int, step: str, index: int = 0) -> DeadLetter:
    return DeadLetter(SOURCE, "0", sequence, index, NOW, step, "a reason", b"x")


def checks(store: StateStore) -> list[Check]:
    return verify(store, ["siem"])


def faults(store: StateStore) -> list[list[str]]:
    where = f"siem, {SOURCE}/0: "
    return [[f.removeprefix(where) for f in check.faults] for check in checks(store)]


def segment(store: StateStore) -> tuple[str, list[Any]]:
    (path,) = store.list("receipts")
    return path, json.loads(store.get(path) or b"")


class TestTheStore:
    def test_where_all_is_well_each_statement_holds(self, store: StateStore) -> None:
        assert [check.checked for check in checks(store)] == [1, 1, 1, 1]
        assert not any(check.notes for check in checks(store))

    def test_a_hole_in_the_receipts_is_named(self, store: StateStore) -> None:
        path, spans = segment(store)
        hole = spans.pop(7)
        store.put(path, msgspec.json.encode(spans))
        found = faults(store)[TILED]
        assert found[0] == f"events {hole[0]} to {hole[1]} have no receipt"
        assert "the receipts are of 990 records, the account is of 1,000" in found

    def test_a_segment_that_is_gone_is_named(self, store: StateStore) -> None:
        path, spans = segment(store)
        store.delete(path)
        assert faults(store)[TILED][0] == f"events 0 to {spans[-1][1]} have no receipt"

    def test_a_hole_at_the_end_is_named(self, store: StateStore) -> None:
        put(store, spans=stored(store).spans[:-1])
        assert faults(store)[TILED][0] == "events 990 to 999 have no receipt"

    def test_a_hole_that_is_partly_a_gap_is_named_for_the_rest(self, store: StateStore) -> None:
        path, spans = segment(store)
        del spans[7:9]
        store.put(path, msgspec.json.encode(spans))
        record_gap(store, ORIGIN, Gap(70, 84, NOW, "gone"))
        assert faults(store)[TILED][0] == "events 85 to 89 have no receipt"

    def test_a_gap_of_another_sink_explains_no_hole(self, store: StateStore) -> None:
        put(store, spans=stored(store).spans[:-1])
        record_gap(store, ORIGIN, Gap(990, 999, NOW, "gone", ("splunk",)))
        assert faults(store)[TILED][0] == "events 990 to 999 have no receipt"

    def test_an_overlap_is_named(self, store: StateStore) -> None:
        path, spans = segment(store)
        spans[7][0] -= 3
        store.put(path, msgspec.json.encode(spans))
        assert faults(store)[TILED] == ["events 67 to 69 have more than one receipt"]

    def test_receipts_of_before_the_account_began_are_named(self, store: StateStore) -> None:
        put(store, began=4)
        assert faults(store)[TILED] == ["a receipt begins at event 0, the account at 4"]

    def test_receipts_behind_the_position_are_named(self, store: StateStore) -> None:
        put(store, position=994)
        assert faults(store)[TILED] == ["receipts reach event 999, the account only event 994"]

    @pytest.mark.parametrize("at", range(5))
    def test_a_wrong_sum_is_named(self, store: StateStore, at: int) -> None:
        outcomes = msgspec.to_builtins(stored(store).outcomes)
        outcomes[at] += 1
        put(store, outcomes=msgspec.convert(outcomes, Outcomes))
        name = ("delivered", "not routed", "repeat", "dead", "owed")[at]
        assert any(name in fault and "the receipts say" in fault for fault in faults(store)[TILED])

    def test_receipts_whose_records_did_not_all_end_are_named(self, store: StateStore) -> None:
        path, spans = segment(store)
        spans[7][2] += 1
        store.put(path, msgspec.json.encode(spans))
        assert faults(store)[TILED][0] == "events 70 to 79 held 11 records, and 10 ended"

    def test_a_dead_letter_that_is_gone_is_named(self, store: StateStore) -> None:
        (path, *_) = [p for p in store.list("dead") if "-parse-" in p]
        store.delete(path)
        found = faults(store)[DEAD]
        assert found[0] == "of events 10 to 19 1 records are dead, and 0 have a dead letter"
        assert found[-1] == "101 records are dead, and 51 have a dead letter"

    def test_the_letter_of_a_record_that_died_when_it_was_paid_is_missed_too(
        self, store: StateStore
    ) -> None:
        for path in [*store.list("dead")]:
            store.delete(path)
        write_dead_letters(store, [letter(n * 10, "siem") for n in range(100)])
        assert faults(store)[DEAD] == ["101 records are dead, and 100 have a dead letter"]

    def test_another_sinks_letters_are_not_this_ones(self, store: StateStore) -> None:
        for path in [*store.list("dead")]:
            store.delete(path)
        write_dead_letters(store, [letter(n * 10, "splunk") for n in range(101)])
        assert faults(store)[DEAD][-1] == "101 records are dead, and 0 have a dead letter"

    def test_a_letter_that_a_crash_left_is_noted_and_no_fault(self, store: StateStore) -> None:
        write_dead_letters(store, [letter(3, "siem"), letter(5_000, "siem")])
        check = checks(store)[DEAD]
        assert not check.faults
        assert check.notes[0].endswith("1 dead letters are of records that ended otherwise later")

    def test_an_iou_that_is_gone_is_named(self, store: StateStore) -> None:
        (path,) = store.list("owed")
        store.delete(path)
        assert faults(store)[OWED] == [
            "100 records came to be owed, but 0 are owed, 0 were delivered and 0 are dead since"
        ]

    def test_an_iou_too_many_is_named(self, store: StateStore) -> None:
        (path,) = store.list("owed")
        iou = json.loads(store.get(path) or b"")
        iou["owed"].append([995, 995, 0])
        store.put(path, msgspec.json.encode(iou))
        assert faults(store)[OWED] == [
            "100 records came to be owed, but 99 are owed, 1 were delivered and 1 are dead since",
            "1 are owed twice",
        ]

    def test_a_checkpoint_ahead_of_a_sink_is_named(self, store: StateStore) -> None:
        checkpoint(store, 1_000)
        assert checks(store)[CHECKPOINT].faults == [
            f"{SOURCE}/0: the checkpoint is event 1,000, but a sink settled only event 999"
        ]

    def test_a_checkpoint_that_a_crash_left_behind_is_noted(self, store: StateStore) -> None:
        checkpoint(store, 990)
        assert not checks(store)[CHECKPOINT].faults
        assert checks(store)[CHECKPOINT].notes

    def test_what_an_older_version_did_not_keep_is_said(self, store: StateStore) -> None:
        settle(store, "old", span(50, 59), began=-1, records=900, outcomes=Outcomes(900))
        check = checks(store)[TILED]
        assert not check.faults
        assert check.notes[0].endswith("kept no receipts before event 50")


class TestIds:
    def test_they_are_read_in_any_case_with_spaces_and_empty_lines(self, tmp_path: Path) -> None:
        path = tmp_path / "ids"
        path.write_bytes(b"AB" * 16 + b"\r\n\n" + b"  " + b"ab" * 16 + b"\n" + b"cd" * 16)
        with path.open("rb") as file:
            assert read_ids(file, "ids") == {b"\xab" * 16: 2, b"\xcd" * 16: 1}

    @pytest.mark.parametrize(
        "line", [b"xyz", b"ab" * 15, b"ab" * 17, b"\xff" * 32, b'"' + b"a" * 32]
    )
    def test_a_line_that_is_none_is_named(self, tmp_path: Path, line: bytes) -> None:
        path = tmp_path / "ids"
        path.write_bytes(b"ab" * 16 + b"\n" + line + b"\n")
        with path.open("rb") as file, pytest.raises(ArrivedError, match=r"^ids:2: not an event id"):
            read_ids(file, "ids")


# ------------------------------------------------------------------------- what arrived

SINKS = """\
  - splunk_hec: {{url: "{hec}", token: env:HEC_TOKEN, patience: 5}}
    name: splunk
    where: {{severity: {{at_least: medium}}}}
  - syslog: {{address: "{syslog}", format: cef, patience: 0.3, timeout: 0.3}}
    name: down
  - file: {{folder: archive}}
    name: archive
"""

ALERTS = alerts(60, seed=7)

_APP = typer.Typer()
_APP.command()(command)


def call(site: Site, *arguments: str, stdin: bytes = b"") -> tuple[int, str]:
    result = CliRunner().invoke(
        _APP,
        ["-c", str(site.settings), *arguments],
        input=stdin,
        env={**site.environment, "COLUMNS": "200"},
    )
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, re.sub(r"\x1b\[[\d;]*m", "", result.output)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Everything is through: alerts of all severities, copies, dead letters, events with several
    records; and one sink was down, and is owed all."""
    with Site(tmp_path_factory.mktemp("site"), partitions=2) as made:
        made.write(sinks=SINKS)
        made.syslog.refuse()
        bodies = [*ALERTS.values()]
        several = [defender_alert(random.Random(9), datetime.now(timezone.utc)) for _ in range(5)]
        made.publish([*bodies, *bodies[:9], b"not JSON", json.dumps(several).encode()], 7)
        made.catch_up()
        assert made.account("down").outcomes.owed > 50
        yield made


def ids(site: Site, sink: str) -> list[str]:
    return [*site.arrived()[sink].elements()]


def check_arrived(site: Site, tmp_path: Path, lines: list[str], sink: str = "splunk") -> Any:
    """Exit code, output, and what the JSON says of the sink."""
    file, out = tmp_path / "ids.txt", tmp_path / "report.json"
    file.write_text("".join(f"{line}\n" for line in lines))
    code, output = call(site, "--verify", "--arrived", f"{sink}={file}", "--json", str(out))
    (said,) = json.loads(out.read_bytes())["verification"]["arrived"]
    return code, output, said


def test_what_arrived_is_what_must_have(site: Site, tmp_path: Path) -> None:
    for sink in ("splunk", "archive"):
        code, output, said = check_arrived(site, tmp_path, ids(site, sink), sink)
        assert code == 0, output
        assert said["expected"] == said["ids"] == len(ids(site, sink))
        assert (said["missing"], said["unexpected"], said["twice"]) == ([], [], 0)
    assert len(ids(site, "splunk")) < len(ids(site, "archive")), "something was not routed"


def test_an_id_that_is_missing_is_named_with_its_address(site: Site, tmp_path: Path) -> None:
    there = ids(site, "splunk")
    gone = min(ALERTS.keys() & {*there})
    there.remove(gone)
    code, output, said = check_arrived(site, tmp_path, there)
    assert code == 1
    (missing,) = said["missing"]
    assert missing["id"] == gone
    assert f"splunk misses {gone}: {site.source}/{missing['partition']}" in output
    event = site.hub._log(HUB, missing["partition"]).read(missing["sequence"], 1, print)
    assert event is not None and ALERTS[gone] in event[1]


def test_an_id_that_no_event_accounts_for_is_named(site: Site, tmp_path: Path) -> None:
    code, output, said = check_arrived(site, tmp_path, [*ids(site, "splunk"), "0" * 32])
    assert (code, said["unexpected"]) == (1, ["0" * 32])
    assert f"splunk has {'0' * 32}, which no event accounts for" in output


def test_an_id_that_was_not_routed_there_is_unexpected(site: Site, tmp_path: Path) -> None:
    others = {*ids(site, "archive")} - {*ids(site, "splunk")}
    one = min(others)
    code, _, said = check_arrived(site, tmp_path, [*ids(site, "splunk"), one])
    assert (code, said["unexpected"]) == (1, [one])


def test_what_came_twice_is_counted_and_no_fault(site: Site, tmp_path: Path) -> None:
    there = ids(site, "splunk")
    code, _, said = check_arrived(site, tmp_path, [*there, *there[:3]])
    assert (code, said["twice"], said["lines"]) == (0, 3, len(there) + 3)


def test_what_is_owed_need_not_be_there_and_may_be(site: Site, tmp_path: Path) -> None:
    """A receiver that takes an alert and never answers has it, and is owed it."""
    code, _, said = check_arrived(site, tmp_path, [], "down")
    assert (code, said["expected"], said["missing"]) == (0, 0, [])
    assert said["excused"] == len({*ids(site, "archive")})
    some = ids(site, "archive")[:5]
    assert check_arrived(site, tmp_path, some, "down")[2]["unexpected"] == []
    assert check_arrived(site, tmp_path, ["0" * 32], "down")[0] == 1


def test_events_that_are_not_settled_yet_explain_what_arrived(site: Site, tmp_path: Path) -> None:
    """Of a batch that was on its way when the process was killed, the receiver may have a part."""
    more = alerts(3, seed=99, severity="High")
    partition = site.hub.publish(HUB, [*more.values()]).partition
    code, output, said = check_arrived(site, tmp_path, [*ids(site, "splunk"), *more])
    assert code == 0, output
    assert (said["early"], said["unexpected"]) == (3, [])
    assert partition in ("0", "1")


def test_standard_input_is_a_file_of_ids(site: Site) -> None:
    lines = "".join(f"{one}\n" for one in ids(site, "splunk")).encode()
    code, output = call(site, "--arrived", "splunk=-", "--json", os.devnull, stdin=lines)
    assert code == 0, output


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("splunk", "'splunk' is not SINK=FILE"),
        ("nobody=ids", "there is no sink 'nobody' that takes alerts; there are: splunk, down"),
        ("splunk=none.txt", "none.txt"),
    ],
)
def test_arguments_that_are_wrong_are_told(site: Site, given: str, said: str) -> None:
    code, output = call(site, "--arrived", given)
    assert code == 2
    assert said in " ".join(output.replace("│", "").split())


def test_the_summary_says_where_the_page_lies(site: Site) -> None:
    code, output = call(site, "--verify")
    assert code == 0, output
    path = re.search(r"written: (\S+)", output)
    assert path and Path(path[1]).read_text().startswith("<!doctype html>")
    assert "no gaps: every event was read" in output
    assert "records are owed; the hub keeps the oldest for another 24 h" in output


def test_where_nothing_ever_ran_nothing_is_proven(tmp_path: Path) -> None:
    (tmp_path / "settings.yaml").write_text(
        "sources: [{event_hubs: {namespace: a.b, hub: h}}]\n"
        "sinks: [{file: {folder: out}}]\nstate: state\n"
    )
    result = CliRunner().invoke(_APP, ["-c", str(tmp_path / "settings.yaml"), "--verify"])
    assert (result.exit_code, result.output[:10]) == (1, "never run:")
    assert not (tmp_path / "state" / "reports").exists()


def test_json_alone_is_on_standard_output(site: Site) -> None:
    result = CliRunner().invoke(
        _APP, ["-c", str(site.settings), "--json", "-"], env=site.environment
    )
    assert json.loads(result.stdout)["holds"] is True


def test_beside_a_run_it_holds_too_and_says_that_one_works(tmp_path: Path) -> None:
    with Site(tmp_path, partitions=2) as site:
        site.write(sinks="  - file: {{folder: archive}}\n    name: archive\n")
        bodies = [*alerts(400, seed=3).values()]
        with site.running():
            site.publish(bodies[:50], 10)
            wait_for(lambda: site.account("archive").records)
            for at in range(50, 400, 50):
                site.publish(bodies[at : at + 50], 5)
                out = tmp_path / "report.json"
                code, output = call(site, "--verify", "--json", str(out))
                assert code == 0, output
            assert json.loads(out.read_bytes())["running"] is True
            wait_for(lambda: site.account("archive").records == 400)
        assert call(site, "--verify", "--json", str(out))[0] == 0
        said = json.loads(out.read_bytes())
        assert (said["running"], said["sinks"][0]["counts"]["in"]) == (False, 400)


class TestWhatTheHubHasNoMore:
    @pytest.fixture
    def old(self, tmp_path: Path) -> Iterator[Site]:
        with Site(tmp_path, partitions=1) as made:
            made.write(sinks="  - file: {{folder: archive}}\n    name: archive\n")
            made.publish([*alerts(40).values()])
            made.catch_up()
            made.hub._log(HUB, "0")._retention = Retention(events=10)
            made.hub.publish(HUB, [b"{}"])
            yield made

    def test_is_said_and_what_may_be_of_it_is_not_judged(self, old: Site, tmp_path: Path) -> None:
        there = [line["id"] for line in old.archived()]
        code, output, said = check_arrived(old, tmp_path, there, "archive")
        assert code == 0, output
        assert f"{old.source}/0: events 0 to 30 are gone from the hub" in output
        assert (said["undecided"], said["expected"]) == (31, 9)

    def test_is_no_excuse_for_what_the_hub_still_has(self, old: Site, tmp_path: Path) -> None:
        there = [line["id"] for line in old.archived()]
        code, _, said = check_arrived(old, tmp_path, there[:-1], "archive")
        assert (code, [one["id"] for one in said["missing"]]) == (1, there[-1:])


def test_records_that_were_never_counted_are_missed(site: Site, tmp_path: Path) -> None:
    """Receipts that are one record short, and say so consistently: only the events know better."""
    store, origin = site.store, Origin(site.source, "0")
    path = account_path("archive", origin.source, origin.partition)
    before = store.get(path) or b""
    found = msgspec.json.decode(before, type=Settled)
    found.spans[0].records -= 1
    found.spans[0].outcomes.delivered -= 1
    found.records -= 1
    found.outcomes.delivered -= 1
    store.put(path, msgspec.json.encode(found))
    try:
        assert not any(check.faults for check in verify(store, ["archive"]))
        code, output, _ = check_arrived(site, tmp_path, ids(site, "archive"), "archive")
        assert code == 1
        assert re.search(r"the receipts are of (\d+) records, and the hub's events hold", output)
    finally:
        store.put(path, before)


def test_a_hub_that_cannot_be_read_is_a_fault(site: Site, tmp_path: Path) -> None:
    site.hub.refuse_hub(HUB)
    try:
        code, output, said = check_arrived(site, tmp_path, ids(site, "archive"), "archive")
        assert (code, said["unexpected"]) == (1, [])
        assert "the hub cannot be read: " in output
    finally:
        site.hub.accept_hub(HUB)
