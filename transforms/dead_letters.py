"""Dead letters on disk: Avro files in the layout of Event Hubs Capture.

Whatever reads Capture files reads them, and replays them with the original bytes. The step, the
reason and the record's index lie in `Properties`. Schema: Microsoft's "Event Hubs Capture", Avro.
"""

from __future__ import annotations

import datetime
import io
import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import fastavro

from schemas.dead_letter import DeadLetter
from transforms.state_store import StateStore, place

__all__ = ["CAPTURE_SCHEMA", "read_dead_letters", "write_dead_letters"]

_MAP = {"type": "map", "values": ["long", "double", "string", "bytes"]}
CAPTURE_SCHEMA = {
    "type": "record",
    "name": "EventData",
    "namespace": "Microsoft.ServiceBus.Messaging",
    "fields": [
        {"name": "SequenceNumber", "type": "long"},
        {"name": "Offset", "type": "string"},
        {"name": "EnqueuedTimeUtc", "type": "string"},
        {"name": "SystemProperties", "type": _MAP},
        {"name": "Properties", "type": _MAP},
        {"name": "Body", "type": ["null", "bytes"]},
    ],
}
_PARSED = fastavro.parse_schema(CAPTURE_SCHEMA)


def write_dead_letters(store: StateStore, letters: Iterable[DeadLetter]) -> None:
    """One new file a partition and step, named by its range: writing it again replaces it."""

    def group(letter: DeadLetter) -> tuple[str, str, str]:
        return letter.source, letter.partition, letter.step

    for (source, partition, step), found in itertools.groupby(sorted(letters, key=group), group):
        inside = sorted(found, key=lambda letter: (letter.sequence, letter.index))
        buffer = io.BytesIO()
        fastavro.writer(buffer, _PARSED, (_row(letter) for letter in inside), codec="deflate")
        first, last = inside[0], inside[-1]
        at = datetime.datetime.fromtimestamp(first.enqueued_ms / 1000, datetime.timezone.utc)
        namespace, _, rest = source.partition("/")
        hub = rest.split("/")[0] or "-"
        name = f"{at:%S}-{step}-{first.sequence}.{first.index}-{last.sequence}.{last.index}.avro"
        folders = (namespace, hub, partition, *f"{at:%Y/%m/%d/%H/%M}".split("/"))
        store.put(place("dead", *folders, name), buffer.getvalue())


def _row(letter: DeadLetter) -> dict[str, Any]:
    at = datetime.datetime.fromtimestamp(letter.enqueued_ms / 1000, datetime.timezone.utc)
    return {
        "SequenceNumber": letter.sequence,
        "Offset": "",
        "EnqueuedTimeUtc": f"{at:%Y-%m-%dT%H:%M:%S}.{at.microsecond // 1000:03d}Z",
        "SystemProperties": {"x-opt-enqueued-time": letter.enqueued_ms},
        "Properties": {
            "alertbeam-source": letter.source,
            "alertbeam-partition": letter.partition,
            "alertbeam-step": letter.step,
            "alertbeam-reason": letter.reason,
            "alertbeam-index": letter.index,
        },
        "Body": letter.body,
    }


def read_dead_letters(store: StateStore) -> Iterator[DeadLetter]:
    """Every dead letter once, also where a restart wrote it twice."""
    seen: set[tuple[str, str, int, int, str]] = set()
    for path in store.list("dead"):
        for row in fastavro.reader(io.BytesIO(store.get(path) or b"")):
            assert isinstance(row, dict)
            properties = row["Properties"]
            letter = DeadLetter(
                properties["alertbeam-source"],
                properties["alertbeam-partition"],
                row["SequenceNumber"],
                properties["alertbeam-index"],
                row["SystemProperties"]["x-opt-enqueued-time"],
                properties["alertbeam-step"],
                properties["alertbeam-reason"],
                row["Body"],
            )
            key = (letter.source, letter.partition, letter.sequence, letter.index, letter.step)
            if key not in seen:
                seen.add(key)
                yield letter
