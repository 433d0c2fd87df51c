"""Files of lines, JSON mostly, for a data lake, an agent that tails a folder, or for keeping.

A file is written as `….ndjson.open` and renamed to `….ndjson` once nothing more will be added:
whoever takes only the latter never sees half a file. Every chunk is appended by one write and
synced before it counts as delivered. What a crash left open is found by the next start: nobody
holds its lock any more, so a torn last line is cut off and the file finished.
"""

from __future__ import annotations

import errno
import fcntl
import glob
import itertools
import os
import time
import uuid
from collections.abc import Sequence
from pathlib import Path

from pydantic import Field, field_validator
from pydantic_core import PydanticCustomError

from schemas.alert import Alert
from schemas.formats import FORMATS
from schemas.formats.ndjson import ndjson
from transforms.sinks.base import (
    Accepted,
    Connection,
    Limits,
    Retry,
    Sink,
    SinkSettings,
    Stop,
    Verdict,
)

__all__ = ["File", "FileSettings"]

_OPEN = ".open"
_REFUSED = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR}


class FileSettings(SinkSettings):
    """A folder of files with one alert a line."""

    folder: Path = Field(description="Where the files go; made if it is missing.")
    format: str = Field(
        "ndjson",
        description="How a line is written: `ndjson`, with the record under `raw`; or any format "
        "that `alertbeam explain --as` knows: ocsf, ecs, raw, …",
        json_schema_extra={"enum": [*FORMATS]},
    )
    max_bytes: int = Field(
        128_000_000, ge=1, description="Bytes after which a file is finished and a new one begun."
    )
    max_age: float = Field(
        300.0, gt=0, description="Seconds after which a file is finished, whatever it holds."
    )
    sync: bool = Field(
        True,
        description="Wait until the disk has every chunk. False: a power failure may take what "
        "already counted as delivered.",
    )

    @field_validator("format")
    @classmethod
    def _check_format(cls, name: str) -> str:
        if name not in FORMATS:
            raise PydanticCustomError("choice", "no such format", {"choices": [*FORMATS]})
        return name


class File(Sink[FileSettings]):
    """One folder. Sinks and processes may share it: each writes files of its own."""

    kind = "file"
    Settings = FileSettings

    @property
    def limits(self) -> Limits:
        return Limits(1_000_000)

    def encode(self, alert: Alert, source: str, partition: str) -> bytes:
        if self.settings.format == "ndjson":
            return ndjson(alert, source=source, partition=partition)
        said = FORMATS[self.settings.format].say(alert)
        if b"\n" in said:  # of the formats only the raw record has any, between its tokens
            said = said.translate(None, b"\r\n")
        return said

    def connect(self) -> Connection:
        return _Folder(self.name, self.settings)

    def probe(self, timeout: float) -> None:
        folder = _made(self.settings.folder)
        trial = folder / f".{self.name}-{uuid.uuid4().hex}.probe"
        try:
            with trial.open("xb") as file:
                file.write(b"\0" * 4096)
                file.flush()
                os.fsync(file.fileno())
        finally:
            trial.unlink(missing_ok=True)


class _Folder(Connection):
    """One thread's open file, if there is one."""

    def __init__(self, name: str, settings: FileSettings) -> None:
        self._name = name
        self._settings = settings
        self._fd = -1
        self._path = Path()
        self._size = 0
        self._begun = 0.0  # monotonic seconds
        self._unique = uuid.uuid4().hex[:12]
        self._numbers = itertools.count()
        for left in _made(settings.folder).glob(f"{glob.escape(name)}-*.ndjson{_OPEN}"):
            _recover(left)

    def send(self, payloads: Sequence[bytes], timeout: float) -> Verdict:
        chunk = b"\n".join(payloads) + b"\n"
        try:
            if self._size and self._size + len(chunk) > self._settings.max_bytes:
                self.close()
            if self._fd < 0:
                self._begin()
            self._append(chunk)
        except OSError as error:
            if error.errno in _REFUSED:
                return Stop(f"{self._settings.folder}: {error.strerror}")
            return Retry(f"{self._settings.folder}: {error.strerror}")
        self.idle()
        return Accepted()

    def idle(self) -> float | None:
        """Finish the file when it is old."""
        if self._fd < 0:
            return None
        left = self._begun + self._settings.max_age - time.monotonic()
        if left > 0:
            return left
        self.close()
        return None

    def close(self) -> None:
        """Finish the file."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            try:
                _finish(self._path, self._size)
            finally:
                os.close(fd)

    def _begin(self) -> None:
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        name = f"{self._name}-{stamp}-{self._unique}-{next(self._numbers):06}.ndjson{_OPEN}"
        self._path = _made(self._settings.folder) / name
        fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        fcntl.flock(fd, fcntl.LOCK_EX)
        if not os.fstat(fd).st_nlink:
            # Somebody's start took it for left behind, before it had its lock.
            os.close(fd)
            self._begin()
            return
        self._fd, self._size, self._begun = fd, 0, time.monotonic()
        if self._settings.sync:
            _sync_folder(self._path.parent)

    def _append(self, chunk: bytes) -> None:
        try:
            written = os.write(self._fd, chunk)
            if written != len(chunk):
                raise OSError(errno.ENOSPC, f"only {written} of {len(chunk)} bytes were written")
            if self._settings.sync:
                os.fsync(self._fd)
        except OSError:
            # The chunk will be sent again as a whole: no part of it may stay.
            try:
                os.ftruncate(self._fd, self._size)
            except OSError:
                os.close(self._fd)  # the next connection finds the file, and mends it
                self._fd = -1
            raise
        self._size += len(chunk)


def _made(folder: Path) -> Path:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def _recover(path: Path) -> None:
    """Finish a file that nobody writes any more, without what may be half a line."""
    try:
        fd = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return  # its writer, or another start, has just finished it
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(fd).st_ino == path.stat().st_ino:
            whole = _whole_lines(fd)
            os.ftruncate(fd, whole)
            os.fsync(fd)
            _finish(path, whole)
    except (BlockingIOError, FileNotFoundError):
        pass  # its writer lives, or has just finished it
    finally:
        os.close(fd)


def _whole_lines(fd: int) -> int:
    """Bytes up to the last newline, and with it."""
    end = os.fstat(fd).st_size
    while end > 0:
        start = max(0, end - 65536)
        at = os.pread(fd, end - start, start).rfind(b"\n")
        if at >= 0:
            return start + at + 1
        end = start
    return 0


def _finish(path: Path, size: int) -> None:
    if size:
        path.rename(path.with_suffix(""))
    else:
        path.unlink()
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
