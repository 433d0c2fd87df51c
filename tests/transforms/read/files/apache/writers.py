"""Apache Avro's own writers, in Python and in Java: files in the layout of Event Hubs Capture."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.transforms.sinks import daemons

__all__ = ["JAVA_ROWS", "PYTHON_CODECS", "java_body", "write_java", "write_python"]

PYTHON_CODECS = ("null", "deflate", "bzip2", "snappy", "zstandard")
JAVA_ROWS = 60
_JAVA = ["java", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]


def write_python(
    path: Path, schema: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], codec: str, every: int
) -> None:
    """A block ends after so many rows."""
    import avro.schema
    from avro.datafile import DataFileWriter
    from avro.io import DatumWriter

    parsed = avro.schema.parse(json.dumps(schema))
    with (
        path.open("wb") as file,
        DataFileWriter(file, DatumWriter(), parsed, codec=codec) as writer,
    ):
        for number, row in enumerate(rows, 1):
            writer.append(row)
            if number % every == 0:
                writer.sync()


def write_java(folder: Path, schemas: Mapping[str, Mapping[str, Any]]) -> list[Path]:
    """What Write.java writes of these schemas: JAVA_ROWS rows a file."""
    daemons.missing("avro")
    paths = []
    for name, schema in schemas.items():
        paths.append(folder / f"{name}.avsc")
        paths[-1].write_text(json.dumps(schema))
    command = [*_JAVA, "-cp", f"{daemons.UNPACKED / 'avro' / 'lib'}/*"]
    command += [str(Path(__file__).with_name("Write.java")), str(folder), *map(str, paths)]
    made = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert made.returncode == 0, made.stderr
    return sorted(folder.glob("*.avro"))


def java_body(number: int) -> bytes:
    """Of the row of that number."""
    text = f'{{"n":{number},"é":"{"x" * (40 * number)}"}}'
    return b"" if number % 7 == 6 else text.encode()
