"""Dead letters on disk: Avro files in the layout of Event Hubs Capture.

Whatever reads Capture files reads them, and replays them with the original bytes. The step, the
reason and the record's index lie in `Properties`. Schema: Microsoft's "Event Hubs Capture", Avro.
"""

from __future__ import annotations

import datetime
import hashlib
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
_END_MS = 253_402_300_799_999  # the last that a date can say: the year 9999


def write_dead_letters(store: StateStore, letters: Iterable[DeadLetter]) -> None:
    """One new file a partition and step, named by its range and the source (whose last part,
    the consumer group, Capture's folders lack): writing it again replaces it."""

    def group(letter: DeadLetter) -> tuple[str, str, str]:
        return letter.source, letter.partition, letter.step

    for (source, partition, step), found in itertools.groupby(sorted(letters, key=group), group):
        inside = sorted(found, key=lambda letter: (letter.sequence, letter.index))
        buffer = io.BytesIO()
        fastavro.writer(buffer, _PARSED, (_row(letter) for letter in inside), codec="deflate")
        first, last = inside[0], inside[-1]
        at = _utc(first.enqueued_ms)
        namespace, _, rest = source.partition("/")
        hub = rest.split("/")[0] or "-"
        span = f"{first.sequence}.{first.index}-{last.sequence}.{last.index}"
        whose = hashlib.blake2b(source.encode(), digest_size=4).hexdigest()
        name = f"{at:%S}-{step}-{span}-{whose}.avro"
        folders = (namespace, hub, partition, *f"{at:%Y/%m/%d/%H/%M}".split("/"))
        store.put(place("dead", *folders, name), buffer.getvalue())


def _utc(ms: int) -> datetime.datetime:
    seconds = min(max(ms, 0), _END_MS) / 1000
    return datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc)


def _row(letter: DeadLetter) -> dict[str, Any]:
    at = _utc(letter.enqueued_ms)
    return {
        "SequenceNumber": letter.sequence,
        "Offset": "",
        "EnqueuedTimeUtc": f"{at:%Y-%m-%dT%H:%M:%S}.{at.microsecond // 1000:03d}Z",
        "SystemProperties": {"x-opt-enqueued-time": letter.enqueued_ms},
        "Properties": {
            "alertbeam-source": letter.source,
            "alertbeam-partition": letter.partition,
            "alertbeam-step": letter.step,
            "alertbeam-reason": letter.reason.encode("utf-8", "replace").decode(),
            "alertbeam-index": letter.index,
        },
        "Body": letter.body,
    }


def read_dead_letters(store: StateStore) -> Iterator[DeadLetter]:
    """Every dead letter once, also where a restart wrote it twice."""
    seen: set[tuple[str, str, int, int, str]] = set()
    for path in store.list("dead"):
        data = store.get(path)
        for row in fastavro.reader(io.BytesIO(data)) if data else ():
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
