"""What is put down as batches end is there after any end of the process, as far as it was whole."""

from __future__ import annotations

import logging
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.receipt import Outcomes, Receipt, Run
from transforms import journal
from transforms.journal import Journal, journaled
from transforms.state_store import StateStore

FOLDER = "replays/month/journal/all"


@pytest.fixture
def store(tmp_path: Path) -> StateStore:
    return StateStore(str(tmp_path))


def receipt(first: int, sink: str = "one", lane: str = "0") -> Receipt:
    return Receipt(
        "replay/month", lane, sink, first, first + 9, 10, Outcomes(delivered=8, owed=2),
        [Run(first + 3, first + 4, 0)], enqueued_ms=7, since_ms=5, offset=f"{first}:0",
    )  # fmt: skip


def put(store: StateStore, *receipts: Receipt, folder: str = FOLDER, sink: str = "one") -> Path:
    """A writer's file, which is never closed: as a kill leaves it."""
    written = Journal(store, folder, sink)
    for each in receipts:
        written.add(each)
    return store.folder / written._path


def test_receipts_come_back_by_sink_in_the_order_of_their_events(store: StateStore) -> None:
    put(store, receipt(20), receipt(0), receipt(10, lane="1"))
    put(store, receipt(10), receipt(0, lane="1"))
    put(store, receipt(0, "a/b"), sink="a/b", folder="replays/month/journal/3")
    assert journaled(store, "replays/month/journal") == {
        "one": [receipt(n) for n in (0, 10, 20)] + [receipt(n, lane="1") for n in (0, 10)],
        "a/b": [receipt(0, "a/b")],
    }
    assert [*journaled(store, "replays/month/journal/3")] == ["a/b"]
    assert journaled(store, "replays/other/journal") == {}


@given(upto=st.integers(0, 1000), junk=st.binary(max_size=50))
def test_of_a_file_whose_end_is_torn_all_that_is_whole_counts(
    tmp_path_factory: pytest.TempPathFactory, upto: int, junk: bytes
) -> None:
    """A power failure may leave anything behind what was on disk."""
    store = StateStore(str(tmp_path_factory.mktemp("state")))
    receipts = [receipt(n) for n in range(0, 50, 10)]
    path = put(store, *receipts)
    data = path.read_bytes()
    upto = min(upto, len(data))
    path.write_bytes(data[:upto] + junk)
    whole = data[:upto].count(b"\n")
    found = journaled(store, FOLDER).get("one", [])
    assert found[:whole] == receipts[:whole]
    assert len(found) <= len(receipts)


def test_only_its_owner_reads_it(store: StateStore) -> None:
    assert stat.S_IMODE(put(store, receipt(0)).stat().st_mode) == 0o600


def test_one_that_cannot_be_written_ends_with_a_warning_and_stops_nothing(
    store: StateStore, caplog: pytest.LogCaptureFixture
) -> None:
    (store.folder / "replays").write_text("a file where a folder should be")
    with caplog.at_level(logging.WARNING):
        put(store, receipt(0), receipt(10))
    (said,) = caplog.messages
    assert "a kill now would make more come twice" in said
    assert "it is not a folder" in said


def test_what_is_forgotten_does_not_come_back(store: StateStore) -> None:
    written = Journal(store, FOLDER, "one")
    written.add(receipt(0))
    journal.forget(store, FOLDER)
    assert journaled(store, FOLDER) == {}
    written.add(receipt(10))
    assert journaled(store, FOLDER) == {"one": [receipt(10)]}
