"""gzip, zip and UTF-16: as the files inside, bounded, and every break named."""

from __future__ import annotations

import errno
import gzip
import io
import os
import tempfile
import tracemalloc
import zipfile
import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.batch import Record
from transforms.capture import row, write_capture
from transforms.read.files import HEAD_BYTES, packed, tell
from transforms.read.files.base import Part, Place, Unread
from transforms.read.files.packed import FORMAT

URL = "file:///exports/PT1H.json.gz"
AT_MS = 1_772_600_000_000
BASE = 5 * 2**32
LINES = b'{"a":1}\n{"a":2}\n'
TWO = [b'{"a":1}', b'{"a":2}']


def read(data: bytes, place: Place | None = None) -> tuple[list[Record], list[Unread], list[Place]]:
    records: list[Record] = []
    unread: list[Unread] = []
    places: list[Place] = []
    before = 0
    for chunk in FORMAT.read(io.BytesIO(data), Part(URL, at_ms=AT_MS), BASE, place):
        assert before <= chunk.offset <= len(data)
        before = chunk.offset
        records += chunk.records
        unread += chunk.unread
        if chunk.place and chunk.records:
            places.append(chunk.place)
    return records, unread, places


def bodies(data: bytes) -> list[bytes]:
    records, unread, _ = read(data)
    assert not unread
    return [record.body for record in records]


def zipped(files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return file.getvalue()


CAPTURE = write_capture([row(Record(n, 0, AT_MS + n, body)) for n, body in enumerate(TWO)])
INSIDE = {
    "lines": LINES,
    "document": b'{"value": [{"a":1},\n {"a":2}]}',
    "Avro": CAPTURE,
}


@pytest.mark.parametrize("name", INSIDE)
@pytest.mark.parametrize("pack", [gzip.compress, lambda data: zipped({"x": data})])
def test_what_is_packed_is_read_as_its_own_format(name: str, pack: Any) -> None:
    data = pack(INSIDE[name])
    assert tell(data, URL) is FORMAT
    records, unread, _ = read(data)
    assert not unread
    assert [record.body for record in records] == TWO
    assert [record.sequence for record in records] == [BASE, BASE + 1]
    if name == "Avro":
        assert [record.enqueued_ms for record in records] == [AT_MS, AT_MS + 1]


def test_delimited_text_is_read_from_an_archive() -> None:
    assert bodies(gzip.compress(b"id,x\n1,2\n")) == [b'{"id":"1","x":"2"}']


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
def test_text_as_powershell_writes_it_is_read(encoding: str) -> None:
    text = "\ufeff" + '{"a":"é\u2028😀\u0a0a"}\r\n' * 2
    data = text.encode(encoding)
    assert tell(data, URL) is FORMAT
    assert bodies(data) == ['{"a":"é\u2028😀\u0a0a"}'.encode()] * 2
    assert bodies(gzip.compress(data)) == bodies(data)


@pytest.mark.parametrize("padding", [b"", b"\0" * 20_000])
def test_a_gzip_file_may_have_many_members(padding: bytes) -> None:
    data = gzip.compress(b'{"a":1}\n{"a"') + padding + gzip.compress(b":2}\n") + padding
    assert bodies(data) == TWO


def test_the_files_of_a_zip_are_read_in_order_of_their_names() -> None:
    data = zipped(
        {
            "y=2026/m=03/PT1H.json": b'{"c":3}\n',
            "y=2026/": b"",
            "y=2026/m=02/PT1H.json": b'{"b":2}\n',
            "__MACOSX/._PT1H.json": b"\0\5\x16\7",
            "a.json.gz": gzip.compress(LINES),
            "empty": b"",
        }
    )
    assert bodies(data) == [*TWO, b'{"b":2}', b'{"c":3}']


def test_what_is_inside_an_archive_is_named_with_its_place_in_it() -> None:
    _, unread, _ = read(zipped({"a\nb": b"[{}, {", "c": b"nonsense", "d": LINES + b"{"}))
    assert [(u.offset, u.why) for u in unread] == [
        (5, "the document ends too early (unpacked, `a b`)"),
        (0, "no format that is known (unpacked, `c`)"),
        (16, "the file ends in the middle of a record (unpacked, `d`)"),
    ]


def test_archives_hold_archives_and_those_no_more() -> None:
    inner = zipped({"x": LINES})
    assert bodies(gzip.compress(gzip.compress(LINES))) == TWO
    assert bodies(zipped({"x": inner})) == TWO
    assert bodies(zipped({"x": gzip.compress(LINES.decode().encode("utf-16"))})) == TWO
    for deeper in (zipped({"x": zipped({"y": inner})}), gzip.compress(gzip.compress(inner))):
        records, (unread,), _ = read(deeper)
        assert not records
        assert unread.why.startswith("it is an archive in an archive in an archive")


def test_an_encrypted_file_is_named_and_the_others_are_read() -> None:
    data = bytearray(zipped({"a": LINES, "b": LINES}, zipfile.ZIP_STORED))
    for header, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(header) + flags] |= 1
    records, unread, _ = read(bytes(data))
    assert [record.body for record in records] == TWO
    assert unread == [Unread(URL, 0, len(LINES), "it is encrypted: `a`")]


def test_a_method_that_is_not_read_is_named() -> None:
    assert read(zipped({"a": LINES}, zipfile.ZIP_BZIP2))[:2] == (
        [],
        [Unread(URL, 0, 53, "it is packed by method 12: only deflate is read: `a`")],
    )


MANY = b"".join(b'{"number":%d,"noise":"%d"}\n' % (n, n * n * 2_654_435_761) for n in range(9000))


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.999])
def test_of_a_gzip_file_that_is_cut_off_all_before_is_read(kept: float) -> None:
    data = gzip.compress(MANY)
    data = data[: int(len(data) * kept)]
    records, unread, _ = read(data)
    text = zlib.decompressobj(31).decompress(data)
    whole = text[: text.rfind(b"\n") + 1]
    assert b"".join(record.body + b"\n" for record in records) == whole
    assert [u.why for u in unread if u.offset == len(data)] == ["it ends too early"]


def test_a_wrong_checksum_is_told() -> None:
    data = bytearray(gzip.compress(MANY))
    data[-8] ^= 1
    whole = MANY.splitlines()
    records, unread, _ = read(bytes(data))
    assert [record.body for record in records] == whole[: len(records)]
    assert unread[-1].why == packed._WRONG_SUM

    data = bytearray(zipped({"a": MANY}))
    at = data.index(b"PK\x01\x02") + 16
    data[at] ^= 1
    data[14] ^= 1
    records, unread, _ = read(bytes(data))
    assert [record.body for record in records] == whole[: len(records)]
    assert unread[-1].why == f"{packed._WRONG_SUM}: `a`"


def test_what_follows_a_gzip_file_is_named() -> None:
    data = gzip.compress(LINES)
    records, unread, _ = read(data + b"garbage")
    assert [record.body for record in records] == TWO
    assert unread == [Unread(URL, len(data), -1, "what follows is no gzip")]


def test_a_zip_file_that_is_cut_off_is_named() -> None:
    data = zipped({"a": LINES})
    assert read(data[:-4]) == ([], [Unread(URL, 0, -1, "it is no whole zip file")], [])


def test_a_zip_file_whose_directory_lies_before_it_is_named() -> None:
    data = bytearray(zipped({"a": LINES}))
    at = data.index(b"PK\x05\x06") + 12  # the directory's size
    data[at : at + 4] = b"\xff\xff\xff\x7e"
    with tempfile.TemporaryFile() as file:  # memory says otherwise what a disk says of such places
        file.write(data)
        (chunk,) = FORMAT.read(file, Part(URL), 0)
    assert chunk.unread == (Unread(URL, 0, -1, "it is no whole zip file"),)


def test_a_bomb_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed, "MOST_UNPACKED", 3 * 1024 * 1024)
    monkeypatch.setattr(packed, "_SMALL", 1024)
    line = b'{"a":"%0190d"}\n' % 0
    bomb = line * 30_000
    for data in (
        gzip.compress(bomb),
        zipped({"a": bomb, "b": bomb}),
        gzip.compress(gzip.compress(bomb)),
    ):
        tracemalloc.start()
        try:
            count = 0
            unread: list[Unread] = []
            for chunk in FORMAT.read(io.BytesIO(data), Part(URL), 0):
                count += len(chunk.records)
                unread += chunk.unread
            _, most = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert count <= 3 * 1024 * 1024 / len(line)
        assert len([u for u in unread if u.why.startswith(packed._TOO_MUCH)]) == 1
        assert most < 8 * 1024 * 1024


def test_the_ratio_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed, "MOST_RATIO", 10)
    monkeypatch.setattr(packed, "_SMALL", 1024)
    assert [u.why for u in read(gzip.compress(LINES * 1000))[1]][-1] == packed._TOO_MUCH
    assert len(bodies(gzip.compress(LINES))) == 2


@given(st.data())
def test_no_damage_raises(data: st.DataObject) -> None:
    texts = [gzip.compress(LINES * 20), zipped({"a": LINES * 20, "b": gzip.compress(LINES)})]
    text = bytearray(data.draw(st.sampled_from(texts)))
    for _ in range(data.draw(st.integers(1, 3))):
        text[data.draw(st.integers(0, len(text) - 1))] = data.draw(st.integers(0, 255))
    size = data.draw(st.integers(0, len(text)))
    read(bytes(text[:size]))
    with tempfile.TemporaryFile() as file:  # whose offsets are refused in another way
        file.write(text[:size])
        [*FORMAT.read(file, Part(URL), 0)]


class Failing(io.BytesIO):
    def read(self, size: int | None = -1) -> bytes:
        if self.tell() < 1000 < self.tell() + (size or 0) and size != HEAD_BYTES:
            raise OSError(errno.EIO, "the disk is gone")
        return super().read(size)


@pytest.mark.parametrize("pack", [gzip.compress, lambda data: zipped({"x": data})])
def test_an_error_of_the_filesystem_is_none_of_the_file(pack: Any) -> None:
    with pytest.raises(OSError, match="the disk is gone"):
        [*FORMAT.read(Failing(pack(MANY)), Part(URL), 0)]


@pytest.mark.parametrize("many", [1, 300])
def test_reading_again_from_any_place_gives_the_same_addresses(many: int) -> None:
    data = zipped({"a": LINES, "b": b"[{},{},{}]", "c": gzip.compress(LINES * many)})
    records, _, places = read(data)
    assert [record.sequence for record in records] == [BASE + n for n in range(len(records))]
    assert len(places) > 2
    for place in [*places, Place(0, 3), Place(0, len(records))]:
        assert read(data, place)[0] == records[place.number :]


def unpacked(data: bytes) -> packed._Unpacked:
    return packed._Unpacked(lambda: iter([data[:3], data[3:]]), packed._Budget(len(data)))


@given(st.binary(max_size=40), st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50))))
@pytest.mark.parametrize("back", [0, 8])
def test_readers_may_go_to_and_fro(back: int, data: bytes, steps: list[tuple[int, int]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packed, "_BACK", back)
        raw = unpacked(data)
        with io.BufferedReader(raw, 4) as file:
            for at, size in steps:
                file.seek(at)
                assert file.read(size) == data[at : at + size]
            assert file.seek(0, io.SEEK_END) == len(data)
            file.seek(0)
            assert file.read() == data
            assert raw._budget.spent == len(data)  # what is unpacked again is no more


def test_a_copy_is_its_owners_alone_and_gone_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with unpacked(b"0123456789") as file:
        file.seek(0, io.SEEK_END)
        copy: Any = file._copy
        assert os.fstat(copy.fileno()).st_mode & 0o777 == 0o600
    assert copy.closed
    assert [*tmp_path.iterdir()] == []


def test_a_copy_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed, "MOST_COPIED", 1000)
    records, unread, _ = read(zipped({"x": zipped({"y": MANY})}))
    assert not records
    assert "it is too large for a temporary copy: `x`" in [u.why for u in unread]
