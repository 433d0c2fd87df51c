"""Files of lines, JSON mostly, for a data lake, an agent that tails a folder, or for keeping.

A file is written as `….ndjson.open` and renamed to `….ndjson` once nothing more will be added:
whoever takes only the latter never sees half a file. Every chunk is appended and synced before it
counts as delivered. What a crash left open is found by the next start: nobody holds its lock any
more, so a torn last line is cut off and the file finished.

An object store appends nothing: there each request is an object: `transforms/delivery/objects.py`.
"""

from __future__ import annotations

import errno
import fcntl
import glob
import itertools
import os
import re
import shlex
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field, field_validator

from schemas.alert import Alert
from transforms.delivery.objects import (
    OBJECT_BYTES,
    REFUSED,
    Objects,
    ObjectUrl,
    check_url,
    made,
    probe,
    sync_folder,
)
from transforms.sinks.base import (
    Accepted,
    Connection,
    FormatName,
    Limits,
    Retry,
    Sink,
    SinkSettings,
    Stop,
    Verdict,
    say,
)

__all__ = ["File", "FileSettings"]

_OPEN = ".open"
_PIECES = 1024  # that a system call writes at most: IOV_MAX


class FileSettings(SinkSettings):
    """A folder of files with one alert a line; or an object store."""

    folder: Path | ObjectUrl = Field(
        description="Where the files go; made if it is missing. Or an object store, with the "
        "environment's credentials: `s3://bucket/path` (AWS_…), `gs://bucket/path` "
        "(GOOGLE_APPLICATION_CREDENTIALS), `azfs://account/container/path` "
        "(AZURE_STORAGE_CONNECTION_STRING, or Entra's); there each request is an object of its "
        "own, of up to 8 MB."
    )
    format: FormatName = Field(
        "ndjson",
        description="How a line is written: `ndjson`, with the record under `raw`; or any format "
        "that `alertbeam explain --as` knows: ocsf, ecs, raw, …",
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

    @field_validator("folder", mode="before")
    @classmethod
    def _check_folder(cls, folder: Any) -> Any:
        return check_url(folder) if re.match(r"\w{2,}://", str(folder)) else folder


class File(Sink[FileSettings]):
    """One folder. Sinks and processes may share it: each writes files of its own."""

    kind = "file"
    Settings = FileSettings
    example: ClassVar = {"folder": "archive"}

    @property
    def limits(self) -> Limits:
        if isinstance(self.settings.folder, str):
            return Limits(min(self.settings.max_bytes, OBJECT_BYTES))
        return Limits(1_000_000)

    def encode(self, alert: Alert, source: str, partition: str) -> bytes:
        said = say(self.settings.format, alert, source, partition)
        if b"\n" in said:  # of the formats only the raw record has any, between its tokens
            said = said.translate(None, b"\r\n")
        return said

    def connect(self) -> Connection:
        folder = self.settings.folder
        if isinstance(folder, str):
            return Objects(folder, self.name, self.settings.timeout)
        return _Folder(self.name, folder, self.settings)

    def probe(self, timeout: float) -> None:
        probe(self.settings.folder, self.name, timeout)

    def check(self, timeout: float) -> str:
        self.probe(timeout)
        return f"{self.settings.folder} can be written to"

    def find(self, event_id: str) -> str:
        folder = self.settings.folder
        if isinstance(folder, str):
            return f"look for {event_id} in the objects {folder.rstrip('/')}/{self.name}-*"
        return f"grep -r {shlex.quote(event_id)} {shlex.quote(str(folder))}"


class _Folder(Connection):
    """One thread's open file, if there is one."""

    def __init__(self, name: str, folder: Path, settings: FileSettings) -> None:
        self._name = name
        self._folder = folder
        self._settings = settings
        self._fd = -1
        self._path = Path()
        self._size = 0
        self._begun = 0.0  # monotonic seconds
        self._unique = uuid.uuid4().hex[:12]
        self._numbers = itertools.count()
        for left in made(folder).glob(f"{glob.escape(name)}-*.ndjson{_OPEN}"):
            _recover(left)

    def send(self, payloads: Sequence[bytes], timeout: float) -> Verdict:
        pieces = [b"\n"] * (2 * len(payloads))
        pieces[::2] = payloads  # to join them would take longer than to write them
        size = sum(map(len, pieces))
        try:
            if self._size and self._size + size > self._settings.max_bytes:
                self.close()
            if self._fd < 0:
                self._begin()
            self._append(pieces, size)
        except OSError as error:
            if error.errno in REFUSED:
                return Stop(f"{self._folder}: {error.strerror}")
            return Retry(f"{self._folder}: {error.strerror}")
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
        self._path = made(self._folder) / name
        fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        fcntl.flock(fd, fcntl.LOCK_EX)
        if not os.fstat(fd).st_nlink:
            # Somebody's start took it for left behind, before it had its lock.
            os.close(fd)
            self._begin()
            return
        self._fd, self._size, self._begun = fd, 0, time.monotonic()
        if self._settings.sync:
            sync_folder(self._path.parent)

    def _append(self, pieces: list[bytes], size: int) -> None:
        try:
            some = (pieces[at : at + _PIECES] for at in range(0, len(pieces), _PIECES))
            written = sum(os.writev(self._fd, each) for each in some)
            if written != size:
                raise OSError(errno.ENOSPC, f"only {written} of {size} bytes were written")
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
        self._size += size


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
    sync_folder(path.parent)
