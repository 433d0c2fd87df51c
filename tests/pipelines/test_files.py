"""A user's files become events as they are, whatever is in them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import fastavro
import pytest

from pipelines.local.files import MOST_BYTES, TooLargeError, events_in, files_in
from transforms.capture import CAPTURE_SCHEMA


def events(tmp_path: Path, data: bytes) -> list[bytes]:
    path = tmp_path / "file"
    path.write_bytes(data)
    return [*events_in(path)]


class TestFiles:
    def test_a_folder_gives_all_files_below_it_in_order(self, tmp_path: Path) -> None:
        for name in ("b/2", "b/1", "a", "c/d/e"):
            path = tmp_path / "folder" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        folder = tmp_path / "folder"
        found = [path.relative_to(folder).as_posix() for path in files_in([folder])]
        assert found == ["a", "b/1", "b/2", "c/d/e"]

    def test_files_and_folders_come_as_they_are_named(self, tmp_path: Path) -> None:
        (tmp_path / "z").touch()
        (tmp_path / "folder").mkdir()
        (tmp_path / "folder" / "a").touch()
        assert [path.name for path in files_in([tmp_path / "z", tmp_path / "folder"])] == ["z", "a"]

    def test_an_empty_folder_has_none(self, tmp_path: Path) -> None:
        assert [*files_in([tmp_path])] == []

    def test_what_is_missing_is_told(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError) as refused:
            [*files_in([tmp_path / "none"])]
        assert refused.value.strerror == "there is no such file or folder"
        assert refused.value.filename == str(tmp_path / "none")


class TestEvents:
    @pytest.mark.parametrize(
        "data",
        [
            b'{"a": 1}',
            b'{\n  "records": [\n    {"a": 1},\n    {"a": 2}\n  ]\n}',
            b'[{"a": 1}, {"a": 2}]',
            b"17",
            b'"text"',
        ],
    )
    def test_a_file_that_is_one_json_value_is_one_event(self, tmp_path: Path, data: bytes) -> None:
        assert events(tmp_path, data + b"\n") == [data]

    @pytest.mark.parametrize("newline", [b"\n", b"\r\n"])
    def test_of_any_other_each_line_is_one(self, tmp_path: Path, newline: bytes) -> None:
        lines = [b'{"a": 1}', b"not JSON", b'{"b": "\xff"}', b'{"cut": "of']
        assert events(tmp_path, newline.join([*lines, b"", b"  "])) == lines

    def test_lines_of_a_log_are_events_too(self, tmp_path: Path) -> None:
        lines = [b"<134>1 2026-01-01T00:00:00Z host app - - - text", b"Jan  1 00:00:00 host app: x"]
        assert events(tmp_path, b"\n".join(lines)) == lines

    @pytest.mark.parametrize("data", [b"", b"\n", b"\n  \n\t\n"])
    def test_an_empty_file_holds_none(self, tmp_path: Path, data: bytes) -> None:
        assert events(tmp_path, data) == []

    def test_nesting_that_no_parser_bears_is_one_line(self, tmp_path: Path) -> None:
        data = b"[" * 100_000 + b"]" * 100_000
        assert events(tmp_path, data) == [data]

    @pytest.mark.parametrize(
        "wrapped",
        [
            lambda records: records,
            lambda records: {"records": records},
            lambda records: {"value": records, "nextLink": "x"},
        ],
        ids=["array", "records", "value"],
    )
    def test_what_is_too_large_for_one_event_is_one_a_record(
        self, tmp_path: Path, wrapped: Any
    ) -> None:
        records = [{"number": n, "text": "x" * 1_000} for n in range(1_200)]
        data = json.dumps(wrapped(records)).encode()
        assert len(data) > MOST_BYTES
        assert [json.loads(event) for event in events(tmp_path, data)] == records

    def test_one_object_that_is_too_large_stays_whole(self, tmp_path: Path) -> None:
        large = {"text": "x" * 1_200_000}
        (event,) = events(tmp_path, json.dumps(large).encode())
        assert json.loads(event) == large

    @pytest.mark.parametrize("codec", ["null", "deflate"])
    def test_a_capture_file_gives_its_bodies(self, tmp_path: Path, codec: str) -> None:
        bodies = [b'{"a": 1}', b"", None, b"\xff\x00"]
        path = tmp_path / "capture.avro"
        rows = [
            {"SequenceNumber": n, "Offset": str(n), "EnqueuedTimeUtc": "1/2/2026 3:04:05 AM",
             "SystemProperties": {}, "Properties": {}, "Body": body}
            for n, body in enumerate(bodies)
        ]  # fmt: skip
        with path.open("wb") as file:
            fastavro.writer(file, fastavro.parse_schema(CAPTURE_SCHEMA), rows, codec=codec)
        assert [*events_in(path)] == [b'{"a": 1}', b"", b"", b"\xff\x00"]

    def test_a_capture_file_of_a_quiet_time_is_empty(self, tmp_path: Path) -> None:
        path = tmp_path / "capture.avro"
        with path.open("wb") as file:
            fastavro.writer(file, fastavro.parse_schema(CAPTURE_SCHEMA), [])
        assert [*events_in(path)] == []


def test_an_event_that_is_too_large_is_named() -> None:
    error = TooLargeError(Path("a.jsonl"), 3, 1_234_567)
    assert str(error) == "a.jsonl: event 3 has 1,234,567 bytes; a hub takes 1 MB at most"
