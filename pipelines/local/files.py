"""A user's files as events: what `alertbeam publish` and the demo put on the hub."""

from __future__ import annotations

import errno
import io
import json
from collections.abc import Iterator
from pathlib import Path

import fastavro
import msgspec

__all__ = ["MOST_BYTES", "TooLargeError", "events_in", "files_in"]

MOST_BYTES = 1_000_000
"""A publication's limit, less some room for what AMQP adds."""

_WRAPPERS = ("records", "value")


class TooLargeError(Exception):
    """An event that no hub takes; `number` counts a file's events from 1."""

    def __init__(self, path: Path, number: int, size: int) -> None:
        super().__init__(path, number, size)
        self.path, self.number, self.size = path, number, size

    def __str__(self) -> str:
        return f"{self.path}: event {self.number} has {self.size:,} bytes; a hub takes 1 MB at most"


def files_in(paths: list[Path]) -> Iterator[Path]:
    """The files, and all files below the folders, in order. Raises FileNotFoundError."""
    for path in paths:
        if path.is_dir():
            yield from (p for p in sorted(path.rglob("*")) if p.is_file())
        elif path.exists():
            yield path
        else:
            raise FileNotFoundError(errno.ENOENT, "there is no such file or folder", str(path))


def events_in(path: Path) -> Iterator[bytes]:
    """Bodies to publish, as they are.

    An Avro file of Event Hubs Capture: its bodies. A file that is one JSON value: one event (one
    a record, if it is too large for an event). Anything else: one event a line that is not empty.
    """
    data = path.read_bytes()
    if data[:4] == b"Obj\x01":
        for row in fastavro.reader(io.BytesIO(data)):
            assert isinstance(row, dict)
            yield row.get("Body") or b""
        return
    try:
        msgspec.json.decode(data, type=msgspec.Raw)
        whole = True
    except (msgspec.DecodeError, RecursionError):
        whole = False
    if whole and len(data) <= MOST_BYTES:
        yield data.strip()
    elif whole:
        value = json.loads(data)
        if isinstance(value, dict):
            value = next((value[name] for name in _WRAPPERS if name in value), [value])
        yield from (msgspec.json.encode(item) for item in value)
    else:
        yield from (line for line in data.splitlines() if line.strip())
