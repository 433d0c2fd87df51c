"""Dead letters on disk: Avro files in the layout of Event Hubs Capture.

Whatever reads Capture files reads them, and replays them with the original bytes. The step, the
reason and the record's index lie in `Properties`. Schema: Microsoft's "Event Hubs Capture", Avro.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Iterator
from typing import Any

from schemas.batch import Record
from schemas.dead_letter import DeadLetter
from transforms.capture import read_capture, row, utc, write_capture
from transforms.state_store import StateStore, place

__all__ = ["read_dead_letters", "write_dead_letters"]


def write_dead_letters(store: StateStore, letters: Iterable[DeadLetter]) -> None:
    """One new file a partition and step, named by its range and the source (whose last part,
    the consumer group, Capture's folders lack): writing it again replaces it."""

    def group(letter: DeadLetter) -> tuple[str, str, str]:
        return letter.source, letter.partition, letter.step

    for (source, partition, step), found in itertools.groupby(sorted(letters, key=group), group):
        inside = sorted(found, key=lambda letter: (letter.sequence, letter.index))
        first, last = inside[0], inside[-1]
        at = utc(first.enqueued_ms)
        namespace, _, rest = source.partition("/")
        hub = rest.split("/")[0] or "-"
        span = f"{first.sequence}.{first.index}-{last.sequence}.{last.index}"
        whose = hashlib.blake2b(source.encode(), digest_size=4).hexdigest()
        name = f"{at:%S}-{step}-{span}-{whose}.avro"
        folders = (namespace, hub, partition, *f"{at:%Y/%m/%d/%H/%M}".split("/"))
        store.put(place("dead", *folders, name), write_capture(map(_row, inside)))


def _row(letter: DeadLetter) -> dict[str, Any]:
    return row(
        Record(letter.sequence, 0, letter.enqueued_ms, letter.body),
        {
            "alertbeam-source": letter.source,
            "alertbeam-partition": letter.partition,
            "alertbeam-step": letter.step,
            "alertbeam-reason": letter.reason.encode("utf-8", "replace").decode(),
            "alertbeam-index": letter.index,
        },
    )


def read_dead_letters(store: StateStore) -> Iterator[DeadLetter]:
    """Every dead letter once, also where a restart wrote it twice."""
    seen: set[tuple[str, str, int, int, str]] = set()
    for path in store.list("dead"):
        data = store.get(path)
        for record, properties in read_capture(data) if data else ():
            letter = DeadLetter(
                properties["alertbeam-source"],
                properties["alertbeam-partition"],
                record.sequence,
                properties["alertbeam-index"],
                record.enqueued_ms,
                properties["alertbeam-step"],
                properties["alertbeam-reason"],
                record.body,
            )
            key = (letter.source, letter.partition, letter.sequence, letter.index, letter.step)
            if key not in seen:
                seen.add(key)
                yield letter
