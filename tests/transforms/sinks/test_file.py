from __future__ import annotations

import errno
import json
import multiprocessing
import os
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from pydantic import ValidationError

from schemas.formats import FORMATS
from schemas.receipt import Outcome
from tests.transforms.sinks.alerts import HOSTILE, PARTITION, SOURCE, alert, identity, parcels
from transforms.delivery.engine import Engine
from transforms.sinks.base import Accepted, Connection, Retry, Stop, Verdict
from transforms.sinks.file import File, FileSettings


def sink(folder: Path, name: str = "lake", **options: Any) -> File:
    return File(name, FileSettings(folder=folder, **{"patience": 0.3, **options}))


def send(connection: Connection, *numbers: int) -> Verdict:
    made = (sink(Path()).encode(alert(n), SOURCE, PARTITION) for n in numbers)
    return connection.send(list(made), 1.0)


def finished(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.ndjson"))


def unfinished(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.ndjson.open"))


def ids(*files: Path) -> list[str]:
    """What the files hold; whole lines only, or JSON would say so."""
    texts = [file.read_text("utf-8").removesuffix("\n") for file in files]
    return [json.loads(line)["id"] for text in texts for line in text.split("\n")]


def half(fd: int, pieces: list[bytes]) -> int:
    """What a disk does that is full after 50 bytes."""
    return os.write(fd, b"".join(pieces)[:50])


def eventually(check: Callable[[], bool], within: float = 3.0) -> None:
    until = time.monotonic() + within
    while not check():
        assert time.monotonic() < until, "it did not come about"
        time.sleep(0.002)


def test_a_line_an_alert_whatever_it_says(tmp_path):
    engine = Engine(sink(tmp_path))
    sent = parcels(engine.sink, range(50), HOSTILE)
    engine.submit(sent)
    engine.settle()
    assert {p.outcome for p in sent} == {Outcome.DELIVERED}
    assert ids(*unfinished(tmp_path)) == [identity(n) for n in range(50)]
    engine.close()
    (file,) = finished(tmp_path)
    assert ids(file) == [identity(n) for n in range(50)]
    assert json.loads(file.read_text("utf-8").split("\n")[0])["raw"]["Description"] == HOSTILE
    assert unfinished(tmp_path) == []


@pytest.mark.parametrize("form", FORMATS)
def test_a_line_may_be_of_any_format(form, tmp_path):
    writing = sink(tmp_path, format=form).connect()
    payloads = [sink(tmp_path, format=form).encode(alert(n), SOURCE, PARTITION) for n in range(3)]
    assert writing.send(payloads, 1.0) == Accepted()
    writing.close()
    (file,) = finished(tmp_path)
    lines = file.read_bytes().split(b"\n")[:-1]
    assert lines == payloads
    if form not in ("ndjson", "raw"):
        assert lines == [FORMATS[form].say(alert(n)) for n in range(3)]


def test_the_raw_record_takes_one_line(tmp_path):
    broken = msgspec.structs.replace(alert(1), raw=b'{\r\n "a": 1\n}')
    assert sink(tmp_path, format="raw").encode(broken, SOURCE, PARTITION) == b'{ "a": 1}'


def test_an_unknown_format_is_refused(tmp_path):
    with pytest.raises(ValidationError, match="no such format"):
        sink(tmp_path, format="csv")


def test_only_its_owner_can_read_what_it_writes(tmp_path):
    folder = tmp_path / "deep" / "lake"
    connection = sink(folder).connect()
    send(connection, 1)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(unfinished(folder)[0].stat().st_mode) == 0o600
    connection.close()


def test_nothing_sent_leaves_no_file(tmp_path):
    sink(tmp_path).connect().close()
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_finished_when_the_next_chunk_would_make_it_too_large(tmp_path):
    size = len(sink(tmp_path).encode(alert(1), SOURCE, PARTITION)) + 1
    connection = sink(tmp_path, max_bytes=2 * size + 10).connect()
    for number in range(1, 6):
        assert send(connection, number) == Accepted()
    assert [len(ids(file)) for file in finished(tmp_path)] == [2, 2]
    connection.close()
    assert ids(*finished(tmp_path)) == [identity(n) for n in range(1, 6)], "names sort by time"


def test_a_chunk_is_never_parted(tmp_path):
    connection = sink(tmp_path, max_bytes=10).connect()
    send(connection, 1, 2, 3)
    send(connection, 4)
    connection.close()
    assert sorted(len(ids(file)) for file in finished(tmp_path)) == [1, 3]


def test_an_old_file_is_finished_without_a_next_alert(tmp_path):
    engine = Engine(sink(tmp_path, max_age=0.15))
    engine.submit(parcels(engine.sink, range(3)))
    engine.settle()
    assert finished(tmp_path) == []
    eventually(lambda: len(finished(tmp_path)) == 1)
    assert unfinished(tmp_path) == []
    engine.close()


def test_what_a_crash_left_open_is_mended_and_finished(tmp_path):
    line = sink(tmp_path).encode(alert(1), SOURCE, PARTITION) + b"\n"
    (tmp_path / "lake-1.ndjson.open").write_bytes(line * 3 + line[:100])
    (tmp_path / "lake-2.ndjson.open").write_bytes(b"")
    (tmp_path / "lake-3.ndjson.open").write_bytes(b"x" * 200_000)  # one line, and not all of it
    (tmp_path / "lake-4.ndjson.open").write_bytes(line + b"x" * 200_000)
    (tmp_path / "other-1.ndjson.open").write_bytes(line[:100])
    sink(tmp_path).connect().close()
    assert [(file.name, len(ids(file))) for file in finished(tmp_path)] == [
        ("lake-1.ndjson", 3),
        ("lake-4.ndjson", 1),
    ]
    assert [file.name for file in unfinished(tmp_path)] == ["other-1.ndjson.open"]


def test_a_file_that_somebody_still_writes_is_left_to_him(tmp_path):
    writer = sink(tmp_path).connect()
    send(writer, 1)
    other = sink(tmp_path).connect()
    assert send(other, 2) == Accepted()
    assert len(unfinished(tmp_path)) == 2
    assert send(writer, 3) == Accepted()
    writer.close()
    other.close()
    assert sorted(map(ids, finished(tmp_path))) == sorted(
        [[identity(1), identity(3)], [identity(2)]]
    )


def _die(folder: Path, half: bytes) -> None:
    connection = sink(folder).connect()
    send(connection, 1, 2)
    os.write(connection._fd, half)  # type: ignore[attr-defined]
    os._exit(9)


def test_a_killed_process_loses_nothing_that_was_delivered(tmp_path):
    process = multiprocessing.get_context("spawn").Process(target=_die, args=(tmp_path, b'{"id":'))
    process.start()
    process.join(30)
    assert process.exitcode == 9
    assert len(unfinished(tmp_path)) == 1
    sink(tmp_path).connect().close()
    assert ids(*finished(tmp_path)) == [identity(1), identity(2)]


def test_a_chunk_of_more_lines_than_a_system_call_takes_arrives_whole_and_in_order(tmp_path):
    connection = sink(tmp_path).connect()
    lines = [b'{"id":"%d"}' % n for n in range(1_500)]
    assert connection.send(lines, 1.0) == Accepted()
    connection.close()
    (file,) = finished(tmp_path)
    assert file.read_bytes() == b"".join(b"%b\n" % line for line in lines)


class TestTrouble:
    def broken(self, monkeypatch: pytest.MonkeyPatch, what: str, code: int) -> None:
        def fail(*arguments: Any) -> Any:
            raise OSError(code, os.strerror(code))

        monkeypatch.setattr(f"transforms.sinks.file.os.{what}", fail)

    def test_a_full_disk_is_waited_out_and_leaves_no_half_line(self, tmp_path, monkeypatch):
        connection = sink(tmp_path).connect()
        send(connection, 1)
        monkeypatch.setattr("transforms.sinks.file.os.writev", half)
        verdict = send(connection, 2)
        assert isinstance(verdict, Retry)
        assert "only 50 of" in verdict.reason
        self.broken(monkeypatch, "writev", errno.ENOSPC)
        assert isinstance(send(connection, 2), Retry)
        monkeypatch.undo()
        assert send(connection, 2) == Accepted()
        connection.close()
        assert ids(*finished(tmp_path)) == [identity(1), identity(2)]

    def test_what_could_not_be_synced_is_written_again_once(self, tmp_path, monkeypatch):
        connection = sink(tmp_path).connect()
        send(connection, 1)
        self.broken(monkeypatch, "fsync", errno.EIO)
        assert isinstance(send(connection, 2), Retry)
        monkeypatch.undo()
        assert send(connection, 2) == Accepted()
        connection.close()
        assert ids(*finished(tmp_path)) == [identity(1), identity(2)]

    def test_a_half_line_that_cannot_be_cut_off_is_mended_by_the_next_start(
        self, tmp_path, monkeypatch
    ):
        connection = sink(tmp_path).connect()
        send(connection, 1)
        monkeypatch.setattr("transforms.sinks.file.os.writev", half)
        self.broken(monkeypatch, "ftruncate", errno.EIO)
        assert isinstance(send(connection, 2), Retry)
        monkeypatch.undo()
        assert send(connection, 2) == Accepted()
        connection.close()
        sink(tmp_path).connect().close()
        assert sorted(map(ids, finished(tmp_path))) == sorted([[identity(1)], [identity(2)]])

    @pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS, errno.EPERM])
    def test_a_folder_that_refuses_stops_it(self, tmp_path, monkeypatch, code):
        connection = sink(tmp_path).connect()
        self.broken(monkeypatch, "open", code)
        verdict = send(connection, 1)
        assert isinstance(verdict, Stop)
        assert str(tmp_path) in verdict.reason

    def test_a_file_in_the_folders_place_owes_everything(self, tmp_path):
        (tmp_path / "lake").write_text("")
        engine = Engine(sink(tmp_path / "lake"), cool_down=(9, 9))
        sent = parcels(engine.sink, range(3))
        engine.submit(sent)
        engine.settle()
        assert {p.outcome for p in sent} == {Outcome.OWED}
        engine.close()

    def test_a_folder_that_was_removed_is_made_again(self, tmp_path):
        connection = sink(tmp_path / "lake").connect()
        (tmp_path / "lake").rmdir()
        assert send(connection, 1) == Accepted()
        connection.close()
        assert len(finished(tmp_path / "lake")) == 1

    def test_the_probe_writes_and_leaves_nothing(self, tmp_path, monkeypatch):
        lake = sink(tmp_path)
        lake.probe(1)
        assert list(tmp_path.iterdir()) == []
        self.broken(monkeypatch, "fsync", errno.ENOSPC)
        with pytest.raises(OSError, match="No space"):
            lake.probe(1)
        assert list(tmp_path.iterdir()) == []

    def test_a_file_that_a_start_took_before_it_was_locked_is_not_written_to(
        self, tmp_path, monkeypatch
    ):
        import fcntl

        connection = sink(tmp_path).connect()
        real, calls = fcntl.flock, []

        def flock(fd: int, how: int) -> None:
            if not calls:
                calls.append(1)
                for file in unfinished(tmp_path):
                    file.unlink()  # what mending does to an empty file
            real(fd, how)

        monkeypatch.setattr("transforms.sinks.file.fcntl.flock", flock)
        assert send(connection, 1) == Accepted()
        monkeypatch.undo()
        connection.close()
        assert ids(*finished(tmp_path)) == [identity(1)]


def test_syncing_can_be_left_out(tmp_path, monkeypatch):
    TestTrouble().broken(monkeypatch, "fsync", errno.EIO)
    connection = sink(tmp_path, sync=False).connect()
    assert send(connection, 1) == Accepted()


def test_every_field_says_what_it_is():
    assert all(field.description for field in FileSettings.model_fields.values())


def test_an_unknown_field_is_refused(tmp_path):
    with pytest.raises(ValidationError):
        sink(tmp_path, folders="x")
