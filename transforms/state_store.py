"""Where a run keeps what must outlast it: one folder, written only whole.

    accounts/<sink>/<source>/<partition>.json     position and sums, one writer each
    receipts/<sink>/<source>/<partition>/<first>.json   how the events up to there ended, older ones
    checkpoints/<source>/checkpoint/<partition>   the least position of the sinks
    owed/<sink>/<source>/<partition>/<first>.json   what is owed, and paid of it: few objects
    paid/<sink>/<source>/<partition>.json         what is owed no more: sums
    changed/<sink>                                a new token whenever either is
    aside/events/<source>/<partition>/<first>-<last>.avro   owed, and soon gone from the hub
    dead/<namespace>/<hub>/<partition>/<Y>/<M>/<D>/<h>/<m>/<s>-….avro     Capture layout
    gaps/<source>/<partition>/<first>-<last>.json   events that were never read
    joined/<source>.json                          the sinks that history was joined to the hub for
    handed-over, high-water, seen/                what one shift leaves for the next
    aside/digests/<sink>/<id>.json                digests that a sink refused
    known/                                        what sinks have of longer ago, for replays
    replays/<name>/                               plan, lease, state; what could not be read; what
        has ended since the accounts were written (journal/); on clusters what workers tell (spool/,
        told/, rests.json, job)
    attempts/<source>/<partition>.json            on clusters: who reads it, and from where
    workers/, draining/, flink/<name>.json        on clusters: how workers do; what to resume from
    subscriptions/<time>.json                     what was known of them from then on
    reports/, status.json

Everything is readable by its owner alone: it holds payloads. What is written with `sync` outlasts
a power failure, with its name and those of its folders (fsync(2), rename(2)).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import itertools
import logging
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, unquote

__all__ = ["StateStore", "StateStoreError", "place", "unplace"]

_LOGGER = logging.getLogger(__name__)

_NAME_BYTES = 200  # file systems allow 255
_TEMPORARY = ".new-"
_LEFT_SECONDS = 3600.0  # a temporary file that is older was left by a crash
_SLOW_SECONDS = 5.0
_MOST_KEPT = 4096

_ADVICE = {
    errno.ENOSPC: "make room there",
    errno.EDQUOT: "make room there, or raise it",
    errno.EROFS: "mount it for writing",
    errno.EACCES: "the user that runs this must own it",
    errno.EPERM: "the user that runs this must own it",
    errno.EIO: "its disk or mount fails, see the kernel's log",
    errno.ESTALE: "mount it again",
    errno.ENOTCONN: "mount it again",
    errno.ENOENT: "was it removed, or unmounted?",
}
_NO_FOLDER_SYNC = (errno.EINVAL, errno.ENOTSUP)  # some network file systems

# In this process: folders whose names are on disk, and which folder each store was at first.
_kept: set[Path] = set()
_prepared: dict[Path, tuple[int, int]] = {}


class StateStoreError(OSError):
    """The store cannot be used; the message says which folder, why, and what to do."""


def place(*parts: str) -> str:
    """A path in the store from names of any origin: nothing in a name can leave its folder."""
    return "/".join(map(_placed, parts))


def _placed(name: str) -> str:
    """Quoted, so that a bare `%` never ends it: that stands for an empty name, and at the end of
    a folder for a name that is too long for one and goes on inside."""
    safe = quote(name, safe="$ ,=@", errors="surrogatepass") or "%"
    pieces = (safe[at : at + _NAME_BYTES] for at in range(0, len(safe), _NAME_BYTES))
    return "%/".join(f"%2E{one[1:]}" if one.startswith(".") else one for one in pieces)


def unplace(path: str) -> list[str]:
    """The names that `place` made the path from."""
    names, begun = [], ""
    for part in path.split("/"):
        if part.endswith("%") and part != "%":
            begun += part[:-1]
        else:
            names.append("" if part == "%" else unquote(begun + part, errors="surrogatepass"))
            begun = ""
    return names


class StateStore:
    """A folder. Every write but of `append` is a new file or an atomic replacement: no reader sees
    half of one.

    Whatever the system refuses is raised as StateStoreError.
    """

    def __init__(self, url: str) -> None:
        self.folder = Path(url.removeprefix("file://"))

    def prepare(self) -> None:
        """Create the folder, try a write, and sweep what crashes left half-written."""
        _prepared.pop(self.folder, None)
        with self._told("written"):
            self.put("writable", b"")
            self.delete("writable", sync=False)
        with self._told("read"):
            _prepared[self.folder] = _identity(self.folder)
            before = time.time() - _LEFT_SECONDS
            for path, entry in _files(self.folder, ""):
                if entry.name.startswith(_TEMPORARY) and entry.stat().st_mtime < before:
                    self.delete(path, sync=False)

    def put(self, path: str, data: bytes, *, sync: bool = True) -> None:
        """Write an object whole. sync: also through a power failure; without, only a crash."""
        began = time.monotonic()
        target = self.folder / path
        with self._told("written"):
            self._make(target.parent)
            descriptor, temporary = tempfile.mkstemp(dir=target.parent, prefix=_TEMPORARY)  # 0600
            try:
                with os.fdopen(descriptor, "wb") as file:
                    file.write(data)
                    if sync:
                        file.flush()
                        os.fsync(file.fileno())
                Path(temporary).replace(target)
            except BaseException:
                with contextlib.suppress(OSError):
                    Path(temporary).unlink(missing_ok=True)
                raise
            if sync:
                self._keep(target.parent)
        took = time.monotonic() - began
        if took > _SLOW_SECONDS:
            _LOGGER.warning("the state folder %s is slow: a write took %.0f s", self.folder, took)

    def _make(self, folder: Path) -> None:
        """With the mode for each folder that is new: `parents` gives it to the last one alone."""
        if not folder.is_dir():
            if folder != self.folder:
                self._make(folder.parent)
            known = _prepared.get(self.folder)
            if known and known != _identity(self.folder):
                raise OSError(errno.ESTALE, "it is another folder than it was")
            folder.mkdir(mode=0o700, parents=folder == self.folder, exist_ok=True)
            _kept.discard(folder)

    def _keep(self, folder: Path) -> None:
        """Bring a folder's new names to disk; once, also the names of those that it lies in."""
        _sync(folder)
        new = [*itertools.takewhile(lambda each: each not in _kept, (folder, *folder.parents))]
        for each in new:
            try:
                _sync(each.parent)
            except OSError:
                if self.folder in each.parents:
                    raise  # what lies above the store may be closed to us
        if len(_kept) >= _MOST_KEPT:
            _kept.clear()
        _kept.update(new)

    def append(self, path: str, data: bytes) -> None:
        """Add to an object of one writer, unsynced; it need not be there yet. Readers may see half
        of the last write."""
        target = self.folder / path
        with self._told("written"):
            self._make(target.parent)
            descriptor = os.open(target, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            with os.fdopen(descriptor, "ab") as file:
                file.write(data)

    def get(self, path: str) -> bytes | None:
        with self._told("read"):
            try:
                return (self.folder / path).read_bytes()
            except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
                return None

    def list(self, prefix: str) -> Iterator[str]:
        """Paths of all objects under a folder, in order."""
        with self._told("read"):
            for path, entry in _files(self.folder / prefix, prefix):
                if not entry.name.startswith("."):
                    yield path

    def delete(self, path: str, *, sync: bool = True) -> None:
        """Remove an object, if it is there. sync: as in `put`."""
        with self._told("written"):
            try:
                (self.folder / path).unlink()
            except (FileNotFoundError, NotADirectoryError):
                return
            if sync:
                _sync((self.folder / path).parent)

    @contextlib.contextmanager
    def _told(self, what: str) -> Iterator[None]:
        """What the system refused, in words."""
        try:
            yield
        except StateStoreError:
            raise
        except OSError as error:
            reason = error.strerror or str(error)
            if isinstance(error, FileExistsError):
                reason = "it is not a folder"
            advice = _ADVICE.get(error.errno or 0, "")
            told = StateStoreError(
                f"the state folder {self.folder} cannot be {what}: {reason}"
                + (f" ({advice})" if advice else "")
            )
            told.errno = error.errno
            raise told from error

    @contextlib.contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """Hold `name` for this process alone, until it ends. Raises StateStoreError if another
        has it: two runs in one folder would count, and deliver, everything twice."""
        path = self.folder / f".{name}.lock"
        with contextlib.ExitStack() as held:
            with self._told("locked"):
                file = held.enter_context(path.open("a"))
                path.chmod(0o600)
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    raise StateStoreError(
                        f"another `alertbeam {name}` works in the state folder {self.folder}: "
                        "stop it first, or give this one a folder of its own"
                    ) from None
            yield


def _files(folder: Path | str, path: str) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """All files under a folder, each with its path, in order; what vanishes meanwhile is none."""
    try:
        with os.scandir(folder) as found:
            entries = sorted(found, key=lambda entry: entry.name)
    except (FileNotFoundError, NotADirectoryError):
        return
    for entry in entries:
        inside = f"{path}/{entry.name}" if path else entry.name
        if entry.name == "lost+found":
            continue  # of the file system, where the folder is the top of one
        if entry.is_dir(follow_symlinks=False):
            yield from _files(entry.path, inside)
        elif entry.is_file():
            yield inside, entry


def _identity(folder: Path) -> tuple[int, int]:
    found = folder.stat()
    return found.st_dev, found.st_ino


def _sync(folder: Path) -> None:
    """Bring a folder itself to disk: without it, a name may be gone after a power failure."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_FOLDER_SYNC:
            raise
    finally:
        os.close(descriptor)
