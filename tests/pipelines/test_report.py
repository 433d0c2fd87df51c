"""What the tables say of a state store, whatever stands in it."""

from __future__ import annotations

import io
import re
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipelines.report import (
    SinkAccount,
    accounts_of,
    counts_line,
    dead_table,
    drift_table,
    owed_table,
    partitions_table,
    read_status,
    sinks_table,
)
from pipelines.tables import shown
from schemas.dead_letter import DeadLetter
from schemas.drift import Change
from schemas.ledger import Owing, Payment
from schemas.receipt import Outcomes
from schemas.runs import Run
from transforms.account import Settled
from transforms.dead_letters import write_dead_letters
from transforms.drift import Seen
from transforms.owed import changed, write
from transforms.state_store import StateStore, place

SOURCE = "contoso.servicebus.windows.net/defender/$Default"
HOSTILE = (
    "[red]red[/] [link=http://x]y[/link] [/] \x1b[2J\x1b]0;title\x07 \r\n│ forged │ \u202eback"
)


@pytest.fixture
def store(tmp_path: Path) -> StateStore:
    made = StateStore(str(tmp_path))
    made.prepare()
    return made


def settle(store: StateStore, sink: str, partition: str, position: int, **counts: int) -> None:
    outcomes = Outcomes(**counts)
    records = counts.get("records", outcomes.total)
    stored = Settled(position, records, 1_700_000_000_000, outcomes)
    path = place("accounts", sink, *SOURCE.split("/"), f"{partition}.json")
    store.put(path, msgspec.json.encode(stored))


def text(table: Table, width: int = 160) -> str:
    """As a terminal gets it, colours and all."""
    out = io.StringIO()
    Console(file=out, width=width, force_terminal=True, color_system="truecolor").print(table)
    return out.getvalue()


def plain(table: Table) -> list[list[str]]:
    """The cells of each row."""
    columns = [[_plain(cell) for cell in column.cells] for column in table.columns]
    return [list(row) for row in zip(*columns, strict=True)]


def _plain(cell: object) -> str:
    return cell.plain if isinstance(cell, Text) else Text.from_markup(str(cell)).plain


class TestAccounts:
    def test_they_add_up_over_partitions(self, store: StateStore) -> None:
        settle(store, "siem", "0", 9, delivered=7, not_routed=2, repeat=1)
        settle(store, "siem", "1", 4, delivered=2, dead=2, owed=1)
        (account,) = accounts_of(store, ["siem"])
        assert account.records == 15 and account.holds
        assert account.outcomes == Outcomes(9, 2, 1, 2, 1)
        assert plain(sinks_table([account])) == [["siem", "15", "9", "2", "1", "2", "1", "holds"]]

    def test_what_was_paid_counts_as_what_it_became(self, store: StateStore) -> None:
        settle(store, "siem", "0", 9, delivered=2, owed=8)
        owing = Owing(9, [Run(2, 9, 0)], 1_600_000_000_000)
        payment = Payment([Run(2, 5, 0)], [Run(6, 6, 0)])
        write(store, "siem", SOURCE, "0", [owing], payment)
        (account,) = accounts_of(store, ["siem"])
        assert account.outcomes == Outcomes(6, 0, 0, 1, 3)
        assert account.holds
        assert account.since_ms == 1_600_000_000_000
        write(store, "siem", SOURCE, "0", (), Payment([Run(7, 9, 0)]))
        changed(store, "siem")
        (account,) = accounts_of(store, ["siem"])
        assert account.outcomes == Outcomes(9, 0, 0, 1, 0)
        assert account.since_ms == 0

    def test_the_pipeline_says_how_paying_goes(self, store: StateStore) -> None:
        said = {"circuit": "closed", "behind": True, "paying_per_second": 12.5}
        store.put("status.json", msgspec.json.encode({"sinks": {"siem": said}}))
        siem, other = accounts_of(store, ["siem", "other"])
        assert (siem.circuit, siem.behind, siem.paying) == ("closed", True, 12.5)
        assert (other.circuit, other.behind, other.paying) == ("", False, 0.0)

    def test_a_sink_that_settled_nothing_has_an_empty_account(self, store: StateStore) -> None:
        (account,) = accounts_of(store, ["siem"])
        assert account == SinkAccount("siem", 0, Outcomes())

    def test_sums_that_do_not_hold_are_shown(self) -> None:
        account = SinkAccount("siem", 10, Outcomes(delivered=9))
        assert not account.holds
        assert plain(sinks_table([account]))[0][-1] == "DOES NOT HOLD"

    def test_what_arrived_and_circuits_are_columns_where_they_are_asked_for(self) -> None:
        accounts = [
            SinkAccount("a", 1, Outcomes(delivered=1), "open"),
            SinkAccount("b", 1234, Outcomes(delivered=1234)),
        ]
        table = sinks_table(accounts, circuits=True, arrived={"b": 1234})
        assert [row[-2:] for row in plain(table)] == [["0", "open"], ["1,234", "-"]]


class TestOwed:
    def row(self, running: bool = True, ago: float = 0, **fields: Any) -> list[str]:
        """Of a sink that is owed 1,200 records."""
        since_ms = int((time.time() - ago) * 1000) if ago else 0
        account = SinkAccount("siem", 1_200, Outcomes(owed=1_200), since_ms=since_ms, **fields)
        ((name, records, *cells),) = plain(owed_table([account], running))
        assert (name, records) == ("siem", "1,200")
        return cells

    @pytest.mark.parametrize(
        ("ago", "said"),
        [(1, "1 s"), (119, "119 s"), (300, "5 min"), (7_199, "120 min"), (18_000, "5 h"),
         (3 * 86_400, "3 days")],
    )  # fmt: skip
    def test_since_when_is_a_time_and_an_age(self, ago: float, said: str) -> None:
        assert re.fullmatch(rf"\d\d-\d\d \d\d:\d\d, {said}", self.row(ago=ago)[0])

    def test_since_when_may_be_unknown(self) -> None:
        assert self.row()[0] == "-"

    @pytest.mark.parametrize(
        ("fields", "said"),
        [
            ({"paying": 400.0, "circuit": "closed"}, ["400/s", "about 3 s"]),
            ({"paying": 1.0, "behind": True}, ["1/s, but more comes", "over 20 min"]),
            ({"paying": 400.0, "circuit": "open"}, ["no, circuit open", "-"]),
            ({"circuit": "closed"}, ["not yet", "-"]),
            ({"paying": 400.0, "running": False}, ["no, nothing runs", "-"]),
        ],
    )
    def test_how_paying_goes(self, fields: dict[str, Any], said: list[str]) -> None:
        assert self.row(**fields)[1:] == said

    def test_only_sinks_that_are_owed_something_have_a_row(self) -> None:
        accounts = [SinkAccount("a", 1, Outcomes(1)), SinkAccount("b", 1, Outcomes(owed=1))]
        assert [row[0] for row in plain(owed_table(accounts, running=True))] == ["b"]
        assert owed_table(accounts[:1], running=True).row_count == 0


class TestPartitions:
    def status(self, store: StateStore, **partition: Any) -> None:
        known = {"source": SOURCE, "partition": "0", "next": 0, **partition}
        store.put("status.json", msgspec.json.encode({"partitions": [known], "sinks": {}}))

    def test_settled_is_what_the_slowest_sink_settled(self, store: StateStore) -> None:
        settle(store, "splunk", "0", 40)
        settle(store, "siem", "0", 90)
        self.status(store, next=100, last_sequence=139)
        assert plain(partitions_table(store, ["splunk", "siem"]))[0][2:5] == ["99", "40", "99"]

    def test_lag_is_the_age_of_what_was_read_last(self, store: StateStore) -> None:
        settle(store, "siem", "0", 9)
        before = int((time.time() - 60) * 1000)
        self.status(
            store, next=10, last_sequence=19, last_enqueued_ms=before + 30_000,
            read_enqueued_ms=before,
        )  # fmt: skip
        cells = plain(partitions_table(store, ["siem"]))[0]
        assert cells[4] == "10"
        assert 59 < float(cells[5]) < 70

    def test_one_that_is_caught_up_has_no_lag(self, store: StateStore) -> None:
        settle(store, "siem", "0", 19)
        self.status(store, next=20, last_sequence=19)
        assert plain(partitions_table(store, ["siem"]))[0][2:6] == ["19", "19", "0", "0.0"]

    def test_what_is_not_known_is_a_dash(self, store: StateStore) -> None:
        self.status(store)
        assert plain(partitions_table(store, ["siem"]))[0][2:6] == ["-", "-", "-", "-"]

    def test_partitions_come_in_the_order_of_their_numbers(self, store: StateStore) -> None:
        for partition in ("10", "9", "0"):
            settle(store, "siem", partition, 1)
        rows = plain(partitions_table(store, ["siem"]))
        assert [row[1] for row in rows] == ["0", "9", "10"]


def letter(sequence: int, reason: str, step: str = "parse") -> DeadLetter:
    return DeadLetter(SOURCE, "0", sequence, 0, 1_700_000_000_000, step, reason, b"x")


class TestDeadLetters:
    def test_they_are_counted_by_step_and_reason(self, store: StateStore) -> None:
        letters = [letter(n, "not JSON") for n in range(3)] + [letter(3, "empty body")]
        write_dead_letters(store, [*letters, letter(4, "refused", "splunk")])
        assert plain(dead_table(store)) == [
            ["parse", "3", "not JSON"],
            ["parse", "1", "empty body"],
            ["splunk", "1", "refused"],
        ]

    def test_rare_reasons_are_one_row(self, store: StateStore) -> None:
        write_dead_letters(store, [letter(n, f"reason {n}") for n in range(25)])
        rows = plain(dead_table(store))
        assert len(rows) == 21
        assert rows[-1] == ["", "5", "…"]

    def test_without_any_the_table_is_empty(self, store: StateStore) -> None:
        assert dead_table(store).row_count == 0


class TestHostileTexts:
    def test_none_reaches_the_terminal_as_more_than_text(self, store: StateStore) -> None:
        settle(store, HOSTILE, HOSTILE, 1, owed=1)
        write_dead_letters(store, [letter(1, HOSTILE, HOSTILE)])
        known = {"source": HOSTILE, "partition": HOSTILE, "next": 3, "error": HOSTILE}
        store.put("status.json", msgspec.json.encode({"partitions": [known], "sinks": {}}))
        accounts = accounts_of(store, [HOSTILE])
        for table in (
            dead_table(store),
            partitions_table(store, [HOSTILE]),
            sinks_table(accounts, circuits=True),
            owed_table(accounts, running=True),
        ):
            seen = text(table, 400)
            assert "[red]red[/] [link=http://x]y[/link] [/]" in seen, "markup was taken as such"
            for mark in ("\x1b[2J", "\x1b]", "\x07", "\r", "\u202e"):
                assert mark not in seen

    @pytest.mark.parametrize("end", ["\\", "[/", "[", "\\\\", "\\\\\\"])
    def test_a_text_cannot_undo_what_follows_it(self, end: str) -> None:
        table = Table("a", "b")
        table.add_row(shown(f"text{end}", "red"), "[bold]bold[/]")
        assert plain(table) == [[f"text{end}", "bold"]]


class TestStatus:
    @pytest.mark.parametrize("data", [b"", b"{", b"[]", b"\xff", b"null", b"17"])
    def test_one_that_cannot_be_read_is_none(self, store: StateStore, data: bytes) -> None:
        store.put("status.json", data)
        assert read_status(store) == {}

    def test_where_there_never_was_one_it_is_empty(self, store: StateStore) -> None:
        assert read_status(store) == {}


def test_kinds_are_told_by_their_number() -> None:
    counts = {"unknown": 1, "defender_alert": 1_200, "unknown_subscription": 7}
    line = counts_line(counts)
    assert line == "kinds: 1,200 defender_alert, 1 unknown; 7 of unknown subscriptions"
    assert counts_line({}) == "kinds: none"


def test_repairs_and_masked_secrets_are_told_where_there_were_any() -> None:
    counts = {"unknown": 1, "repaired:single_quotes": 2, "repaired:byte_order_mark": 3, "masked": 4}
    assert counts_line(counts) == (
        "kinds: 1 unknown; repaired: 3 byte_order_mark, 2 single_quotes; masked: 4 secrets"
    )


def test_changed_shapes_are_listed_the_latest_first() -> None:
    changes = [
        Seen(Change("defender_alert", "new", f"[bold]Risk{n}", "string"), 1_200, 0, n)
        for n in range(40, 0, -1)
    ]
    table = drift_table(changes, since_ms=5)
    console = Console(width=100, record=True)
    console.print(table)
    lines = console.export_text().splitlines()
    assert "[bold]Risk40 is new (string)" in lines[3]
    assert "1,200" in lines[3]
    assert "1970-01-01 00:00" in lines[3]
    assert "… and 6 more" in lines[-1]
