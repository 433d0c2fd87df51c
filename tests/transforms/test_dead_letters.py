"""Dead letters are Capture files: any bytes come back as they were, each letter once."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path
from typing import Any

import fastavro
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.dead_letter import DeadLetter
from transforms.capture import CAPTURE_SCHEMA
from transforms.dead_letters import (
    amend,
    read_dead_letters,
    refused_again,
    strike,
    write_dead_letters,
)
from transforms.state_store import StateStore

SOURCE = "contoso.servicebus.windows.net/defender/$Default"
AT = 1_772_619_194_987  # 2026-03-04T10:13:14.987Z

HOSTILE = ["..", "/", "", "../../x", "a\0b", "a\nb", "%2F", "🔥", "x" * 300]


def letter(sequence: int = 1, **fields: Any) -> DeadLetter:
    fields = {
        "source": SOURCE,
        "partition": "3",
        "index": 0,
        "enqueued_ms": AT,
        "step": "parse",
        "reason": "not JSON",
        "body": b"{",
        **fields,
    }
    return DeadLetter(sequence=sequence, **fields)


@pytest.fixture
def store(tmp_path: Path) -> StateStore:
    return StateStore(str(tmp_path / "state"))


def rows(store: StateStore, path: str) -> list[Any]:
    return list(fastavro.reader(io.BytesIO(store.get(path) or b"")))


def test_the_schema_is_that_of_event_hubs_capture(shared: Path, store: StateStore) -> None:
    given = msgspec.json.decode((shared / "schemas/eventhubs_capture.avsc").read_bytes())
    assert given == CAPTURE_SCHEMA
    write_dead_letters(store, [letter()])
    (path,) = store.list("dead")
    written = fastavro.reader(io.BytesIO(store.get(path) or b"")).writer_schema
    assert fastavro.schema.to_parsing_canonical_form(
        written
    ) == fastavro.schema.to_parsing_canonical_form(given)


def test_files_lie_where_capture_puts_them(store: StateStore) -> None:
    write_dead_letters(store, [letter(7), letter(9, index=2)])
    (path,) = store.list("dead")
    folder, _, name = path.rpartition("/")
    assert folder == "dead/contoso.servicebus.windows.net/defender/3/2026/03/04/10/13"
    assert name.startswith("14-parse-7.0-9.2-")
    assert name.endswith(".avro")


def test_a_row_is_the_event_as_capture_has_it_and_says_why_it_is_here(store: StateStore) -> None:
    write_dead_letters(store, [letter(7, index=2, step="siem", reason="too large")])
    (path,) = store.list("dead")
    assert rows(store, path) == [
        {
            "SequenceNumber": 7,
            "Offset": "",
            "EnqueuedTimeUtc": "2026-03-04T10:13:14.987Z",
            "SystemProperties": {"x-opt-enqueued-time": AT},
            "Properties": {
                "alertbeam-source": SOURCE,
                "alertbeam-partition": "3",
                "alertbeam-step": "siem",
                "alertbeam-reason": "too large",
                "alertbeam-index": 2,
            },
            "Body": b"{",
        }
    ]


@settings(max_examples=50)
@given(
    st.lists(
        st.builds(
            letter,
            st.integers(0, 2**62),
            partition=st.sampled_from(["0", "31"]),
            index=st.integers(0, 10**6),
            enqueued_ms=st.integers(-(2**63), 2**63 - 1) | st.integers(0, 4 * 10**12),
            step=st.sampled_from(["parse", "siem"]),
            reason=st.text(),
            body=st.binary(),
        ),
        max_size=8,
        unique_by=lambda one: (one.partition, one.sequence, one.index, one.step),
    )
)
def test_any_letters_come_back_byte_for_byte(given: list[DeadLetter]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = StateStore(folder)
        write_dead_letters(store, given)
        found = list(read_dead_letters(store))

        def key(one: DeadLetter) -> Any:
            return one.partition, one.sequence, one.index, one.step

        assert sorted(found, key=key) == sorted(given, key=key)


def test_a_megabyte_of_zeros_is_kept_and_takes_little_room(store: StateStore) -> None:
    write_dead_letters(store, [letter(body=bytes(1 << 20))])
    (found,) = read_dead_letters(store)
    assert found.body == bytes(1 << 20)
    (path,) = store.list("dead")
    assert len(store.get(path) or b"") < 10_000


def test_written_twice_is_read_once(store: StateStore) -> None:
    letters = [letter(n) for n in (1, 2, 5)]
    write_dead_letters(store, letters)
    write_dead_letters(store, letters)
    assert len(list(store.list("dead"))) == 1
    assert list(read_dead_letters(store)) == letters


def test_what_a_restart_wrote_again_in_other_portions_is_read_once(store: StateStore) -> None:
    letters = [letter(n) for n in range(10)]
    write_dead_letters(store, letters[:6])
    write_dead_letters(store, letters[2:4])
    write_dead_letters(store, letters[4:])
    found = list(read_dead_letters(store))
    assert sorted(found, key=lambda one: one.sequence) == letters


def test_records_of_one_event_and_refusals_of_several_sinks_are_letters_each(
    store: StateStore,
) -> None:
    letters = [
        letter(4, partition=partition, step=step, index=index)
        for partition in ("0", "1", "10")
        for step in ("parse", "siem", "splunk")
        for index in (0, 1)
    ]
    write_dead_letters(store, letters)
    assert len(list(store.list("dead"))) == 9
    found = [msgspec.structs.astuple(one) for one in read_dead_letters(store)]
    assert sorted(found) == sorted(map(msgspec.structs.astuple, letters))


def test_readers_of_one_hub_in_several_groups_do_not_replace_each_others(
    store: StateStore,
) -> None:
    sources = [f"ns.servicebus.windows.net/hub/{group}" for group in ("$Default", "siem")]
    sources += ["file:///exports/a.avro", "file:///exports/b.avro"]
    for source in sources:
        write_dead_letters(store, [letter(source=source)])
    assert sorted(one.source for one in read_dead_letters(store)) == sorted(sources)


@pytest.mark.parametrize("name", HOSTILE, ids=range(len(HOSTILE)))
@pytest.mark.parametrize("field", ["source", "partition", "step"])
def test_hostile_names_stay_inside_and_come_back(
    store: StateStore, tmp_path: Path, name: str, field: str
) -> None:
    given = letter(**{field: name})
    write_dead_letters(store, [given])
    assert list(read_dead_letters(store)) == [given]
    (written,) = (path for path in tmp_path.rglob("*") if path.is_file())
    assert written.is_relative_to(store.folder / "dead")


def test_a_reason_that_is_no_unicode_text_is_written_all_the_same(store: StateStore) -> None:
    write_dead_letters(store, [letter(reason="cut \ud800 off")])
    assert [one.reason for one in read_dead_letters(store)] == ["cut ? off"]


def test_a_file_that_is_deleted_while_reading_is_passed_over(
    store: StateStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_dead_letters(store, [letter(1), letter(2, step="siem")])
    get = store.get
    monkeypatch.setattr(store, "get", lambda path: None if "siem" in path else get(path))
    assert [one.step for one in read_dead_letters(store)] == ["parse"]


def test_no_letters_no_file(store: StateStore) -> None:
    write_dead_letters(store, [])
    assert list(read_dead_letters(store)) == []


def test_letters_of_several_minutes_lie_in_the_folder_of_their_own(store: StateStore) -> None:
    write_dead_letters(store, [letter(1), letter(2, enqueued_ms=AT + 60_000)])
    assert [path.split("/")[-2] for path in store.list("dead")] == ["13", "14"]


def test_an_id_is_the_letters_own_whatever_its_reason(store: StateStore) -> None:
    found = [letter(), letter(index=1), letter(step="siem"), letter(partition="4"), letter(2)]
    assert len({one.id for one in found}) == len(found)
    assert letter(reason="other", body=b"", attempts=3).id == letter().id


@settings(max_examples=50)
@given(st.sets(st.integers(0, 12)), st.lists(st.sets(st.integers(0, 12)), max_size=4))
def test_what_is_struck_is_gone_from_every_portion_and_nothing_else(
    struck: set[int], portions: list[set[int]]
) -> None:
    def at(n: int) -> DeadLetter:
        return letter(n, enqueued_ms=AT + n * 20_000)

    with tempfile.TemporaryDirectory() as folder:
        store = StateStore(folder)
        for portion in portions:
            write_dead_letters(store, map(at, sorted(portion)))
        strike(store, map(at, struck))
        strike(store, map(at, struck))
        left = sorted(set[int]().union(*portions) - struck)
        assert sorted(one.sequence for one in read_dead_letters(store)) == left
        assert bool(left) == bool([*store.list("dead")])


def test_a_file_that_some_were_struck_from_is_not_replaced_by_others(store: StateStore) -> None:
    """Their range is the same: 5 to 9."""
    write_dead_letters(store, [letter(n) for n in (5, 7, 9)])
    strike(store, [letter(5), letter(9)])
    write_dead_letters(store, [letter(5), letter(9)])
    assert sorted(one.sequence for one in read_dead_letters(store)) == [5, 7, 9]


def test_one_that_is_refused_again_keeps_its_bytes_and_counts(store: StateStore) -> None:
    old = letter(7, body=b"the whole event", attempts=1)
    fresh = letter(7, body=b"a piece", reason="still too large")
    write_dead_letters(store, [fresh, letter(8)])
    for _ in range(2):  # said again after a crash
        refused_again(store, [old])
        found = {one.sequence: one for one in read_dead_letters(store)}
        assert found[7] == letter(7, body=b"the whole event", reason="still too large", attempts=2)
        assert found[8] == letter(8)


def test_one_that_is_refused_again_and_has_no_letter_any_more_gets_it_back(
    store: StateStore,
) -> None:
    refused_again(store, [letter(7)])
    assert list(read_dead_letters(store)) == [letter(7, attempts=1)]


def test_a_letter_is_amended_in_its_place(store: StateStore) -> None:
    write_dead_letters(store, [letter(7), letter(8)])
    before = list(store.list("dead"))
    amend(store, [letter(7, reason="other", attempts=4), letter(9)])
    assert list(store.list("dead")) == before
    assert list(read_dead_letters(store)) == [letter(7, reason="other", attempts=4), letter(8)]
