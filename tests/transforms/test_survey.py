"""What a survey tells is what the deduplication of one machine would, however it is cut."""

from __future__ import annotations

import random
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.alert import Alert
from schemas.batch import NOBODY, AlertBatch, Batch, Record
from schemas.receipt import Outcome
from transforms import survey
from transforms.deduplicate import Seen, deduplicate_batch
from transforms.parse import parse_batch
from transforms.read.files.base import address
from transforms.read.plan import origin
from transforms.replayed import Taken
from transforms.state_store import StateStore
from transforms.survey import Told

HORIZON_MS = 1_000
AT = origin("month", 0)


def body(number: int) -> bytes:
    return msgspec.json.encode(
        {
            "SystemAlertId": f"alert-{number}", "AlertType": "VM_Test", "Severity": "High",
            "AlertDisplayName": "x", "TimeGenerated": "2026-03-04T05:00:00Z",
            "ProductName": "Microsoft Defender for Cloud", "VendorName": "Microsoft",
        }
    )  # fmt: skip


BODIES = [body(number) for number in range(8)]


def cut(records: list[Record], most: int) -> list[Batch]:
    """As a reader does: no batch is of two spans of time."""
    found: list[Batch] = []
    first = 0
    for place, record in enumerate(records):
        following = records[place + 1] if place + 1 < len(records) else None
        turns = (
            following and following.enqueued_ms // HORIZON_MS != record.enqueued_ms // HORIZON_MS
        )
        if not following or turns or place - first + 1 == most:
            inside = records[first : place + 1]
            begin = found[-1].last + 1 if found else 0
            found.append(Batch(AT, begin, inside[-1].sequence, None, inside))
            first = place + 1
    return found


def rows(batches: list[Batch], shards: int) -> dict[int, list[bytes]]:
    keys = survey._Keys(Taken("month"), True, HORIZON_MS, shards)
    keys.start_bundle()
    found: dict[int, list[bytes]] = {}
    for batch in batches:
        for shard, joined in keys.process(batch):
            found.setdefault(shard, []).append(joined)
    for each in keys.finish_bundle():
        found.setdefault(each.value[0], []).append(each.value[1])
    return found


def told(grouped: dict[int, list[bytes]]) -> tuple[set[tuple[int, int]], dict[int, set[bytes]]]:
    repeats: set[tuple[int, int]] = set()
    keys: dict[int, set[bytes]] = {}
    for values in grouped.values():
        passed, gone = survey.tell(values, HORIZON_MS)
        for joined in gone.values():
            repeats |= {(s, i) for s, i, _ in survey._REPEAT.iter_unpack(joined)}
        for at, joined in passed.items():
            keys.setdefault(at, set()).update(
                bytes(joined[n : n + 16]) for n in range(0, len(joined), 16)
            )
    return repeats, keys


def one_after_another(batches: list[Batch]) -> tuple[set[tuple[int, int]], dict[int, set[bytes]]]:
    seen = Seen(HORIZON_MS)
    repeats: set[tuple[int, int]] = set()
    for batch in batches:
        parsed, _ = parse_batch(batch)
        seen.turn(max(alert.enqueued_ms for alert in parsed.alerts))
        passed, _ = deduplicate_batch(parsed, seen)
        repeats |= {(d.sequence, d.index) for d in passed.dropped if d.outcome is Outcome.REPEAT}
    return repeats, {at: set(keys) for at, keys in seen.fresh.items()}


@given(
    read=st.lists(st.tuples(st.integers(0, 7), st.integers(0, 5_000)), min_size=1, max_size=60),
    most=st.integers(1, 20),
    again=st.integers(1, 20),
    shards=st.integers(1, 5),
    readers=st.integers(1, 3),
    seed=st.integers(0, 99),
)
def test_it_tells_what_one_machine_does_in_any_order_by_any_shards_and_readers(
    read: list[tuple[int, int]], most: int, again: int, shards: int, readers: int, seed: int
) -> None:
    records = [Record(n, 0, at, BODIES[which]) for n, (which, at) in enumerate(read)]
    grouped: dict[int, list[bytes]] = {}
    size = len(records) // readers + 1
    pieces = [records[at : at + size] for at in range(0, len(records), size)]
    for piece in pieces:
        for shard, values in rows(cut(piece, again), shards).items():
            grouped.setdefault(shard, []).extend(values)
    for values in grouped.values():
        random.Random(seed).shuffle(values)
    assert told(grouped) == one_after_another(cut(records, most))


def test_what_a_worker_says_twice_is_no_copy_of_itself() -> None:
    records = [Record(n, 0, 0, BODIES[n]) for n in range(4)]
    once = rows(cut(records, 10), 1)
    assert told({0: once[0] * 2})[0] == set()


@pytest.fixture
def found(tmp_path: Path) -> Told:
    store = StateStore(str(tmp_path / "state"))
    store.prepare()
    return Told(store, "month", 1)


def put(found: Told, number: int, *repeats: tuple[int, bytes]) -> None:
    packed = b"".join(survey._REPEAT.pack(sequence, 0, key) for sequence, key in repeats)
    found.store.put(f"{found.folder}/repeats/0/{number}", packed)


def parsed(*sequences: int) -> AlertBatch:
    records = [Record(s, 0, 0, BODIES[n % 8]) for n, s in enumerate(sequences)]
    return parse_batch(Batch(AT, sequences[0], sequences[-1], None, records))[0]


def drop(found: Told, batch: AlertBatch) -> AlertBatch:
    do_fn = survey._Drop(found)
    do_fn.setup()
    (left,) = do_fn.process(batch)
    return left


def sequences(alerts: list[Alert]) -> list[int]:
    return [alert.sequence for alert in alerts]


def test_what_was_told_is_dropped_also_where_a_batch_lies_in_two_files(found: Told) -> None:
    there, beyond = address(63, 7), address(64, 0)
    batch = parsed(there, there + 1, beyond, beyond + 1)
    keys = [alert.key for alert in batch.alerts]
    put(found, 0, (3, keys[0]), (there, keys[0]))
    put(found, 1, (beyond + 1, keys[3]), (beyond + 9, keys[3]))
    left = drop(found, batch)
    assert sequences(left.alerts) == [there + 1, beyond]
    assert [(d.sequence, d.outcome) for d in left.dropped] == [
        (there, Outcome.REPEAT), (beyond + 1, Outcome.REPEAT)
    ]  # fmt: skip
    assert left.size == len(left.alerts) + len(left.dropped)


def test_a_record_that_is_another_than_the_one_that_was_told_passes(found: Told) -> None:
    batch = parsed(5, 6)
    put(found, 0, (5, batch.alerts[1].key))  # the file was replaced meanwhile
    assert sequences(drop(found, batch).alerts) == [5, 6]


def test_what_pays_a_debt_or_is_only_marked_passes(found: Told) -> None:
    batch = parsed(5)
    put(found, 0, (5, batch.alerts[0].key))
    for only in ("siem", NOBODY):
        addressed = msgspec.structs.replace(batch, only=only)
        assert drop(found, addressed) is addressed


def test_a_survey_counts_once_all_of_it_is_written_and_can_be_forgotten(found: Told) -> None:
    put(found, 0, (5, BODIES[0][:16]))
    assert not found.whole
    found.end()
    assert Told(found.store, "month", 1).whole
    assert not Told(found.store, "month", 2).whole
    found.forget()
    assert not found.whole
    assert not found.repeats(0, 0)
