"""What the tests of the kinds share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from schemas.alert import Alert
from schemas.kinds import understand
from schemas.wrappers import unwrap
from tests.examples import changed, encoded

__all__ = ["read", "reader", "samples", "told"]


def read(record: dict[str, Any]) -> Alert:
    return understand(encoded(record))


def reader(record: Callable[[], dict[str, Any]]) -> Callable[..., Alert]:
    """Reads such a record, as it is or with another value at a path."""

    def changed_and_read(path: str = "", value: Any = None) -> Alert:
        return read(changed(record(), path, value) if path else record())

    return changed_and_read


def samples(shared: Path, *folders: str) -> Iterator[Alert]:
    """The alerts in the real records of these folders."""
    for folder in folders:
        for file in sorted((shared / "samples" / folder).iterdir()):
            for raw in unwrap(file.read_bytes()):
                assert isinstance(raw, bytes), file
                yield understand(raw)


def told(alert: Alert) -> dict[str, Any]:
    """What an alert says: its fields that have no default's value, without `raw` and `key`."""
    fields = {field.name: field.default for field in msgspec.structs.fields(alert)}
    return {
        name: value
        for name, value in msgspec.structs.asdict(alert).items()
        if name not in ("raw", "key") and value != fields[name]
    }
