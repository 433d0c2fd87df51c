"""A lake in a folder: what a custom source of Amazon Security Lake must look like is checked of
every file that is read, and what its readers (Glue, Athena, Spark) cannot stand.

Source: "Collecting data from custom sources in Security Lake" (docs.aws.amazon.com, security-lake).
Nothing of the sink's own code is used.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq

from tests.transforms.sinks.doubles.base import Says
from tests.transforms.sinks.doubles.file import File, refusals

__all__ = ["Held", "Lake", "rows"]

_NAME = re.compile(
    r"ext/(?P<source>[\w-]{1,13}-(?P<class_uid>\d+))(/(?P<version>[\w.-]+))?"
    r"/region=(?P<region>[a-z0-9-]+)/accountId=(?P<account>\d{12}|external(_[\w-]+)?)"
    r"/eventDay=(?P<day>\d{8})/[0-9a-f]{32}\.parquet",
    re.ASCII,
)
_MOST_SOURCE = 20  # characters: the provider's role bears the name
_MOST_GROUP = 256 * 1024 * 1024  # bytes, compressed


def rows(files: dict[str, bytes], schemas: dict[str, pa.Schema] | None = None) -> list[Any]:
    """The rows of a lake's files by their names; in no file's order. AssertionError: no lake.

    schemas: what the sources' files looked like so far; they must not change.
    """
    schemas = {} if schemas is None else schemas
    found: list[Any] = []
    for name, data in files.items():
        told = _NAME.fullmatch(name)
        assert told, f"no custom source's: {name}"
        assert len(told["source"]) <= _MOST_SOURCE, name
        file = pq.ParquetFile(pa.BufferReader(data))
        assert file.schema_arrow.equals(schemas.setdefault(told["source"], file.schema_arrow)), name
        for number in range(file.metadata.num_row_groups):
            group = file.metadata.row_group(number)
            chunks = [group.column(n) for n in range(group.num_columns)]
            assert {chunk.compression for chunk in chunks} == {"ZSTD"}, name
            assert sum(chunk.total_compressed_size for chunk in chunks) <= _MOST_GROUP, name
        held = file.read().to_pylist()
        assert held, f"no rows: {name}"
        times = [row["time"] for row in held]
        assert times == sorted(times), f"not in the order of time: {name}"
        for row in held:
            day = datetime.fromtimestamp(row["time"] / 1000, timezone.utc)
            assert f"{day:%Y%m%d}" == told["day"], f"of another day: {name}"
            assert row["class_uid"] == int(told["class_uid"]), f"of another class: {name}"
            assert row["metadata"]["version"] == "1.5.0", name
            assert row["type_uid"] == 100 * row["class_uid"] + row["activity_id"], name
        found += held
    return found


class Lake(File):
    kind = "security_lake"
    system = (
        "the real thing: a folder of this machine, with a disk that is made to fail; its files are "
        "read by pyarrow, and held to the layout of Amazon Security Lake's custom sources"
    )
    table: ClassVar[Sequence[Says]] = refusals("write")
    ordered = False
    linger: ClassVar[float] = 0.0

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._read: dict[str, list[Any]] = {}  # a file does not change
        self._schemas: dict[str, pa.Schema] = {}

    def settings(self) -> dict[str, Any]:
        return {"folder": str(self.folder), "region": "eu-central-1", "linger": self.linger}

    def ids(self) -> list[str]:
        names = [str(path.relative_to(self.folder)) for path in self.folder.rglob("*.parquet")]
        for name in names:
            if name not in self._read:
                data = (self.folder / name).read_bytes()
                self._read[name] = rows({name: data}, self._schemas)
        return [row["metadata"]["uid"] for name in names for row in self._read[name]]


class Held(Lake):
    name = "security_lake_held"
    system = f"{Lake.system}; records wait there for others, to be written together"
    linger = 300.0
    # What was given up, and arrives all the same, stands in two files with one `metadata.uid`.
    may_repeat = frozenset({"outage"}) | Lake.may_repeat
