"""Where a run keeps what must outlast it: one folder, written only whole.

    accounts/<sink>/<source>/<partition>.json     position and sums, one writer each
    checkpoints/<source>/checkpoint/<partition>   the least position of the sinks
    owed/<sink>/<source>/<partition>/<first>.json   what is owed, and paid of it: few objects
    paid/<sink>/<source>/<partition>.json         what is owed no more: sums
    changed/<sink>                                a new token whenever either is
    aside/events/<source>/<partition>/<first>-<last>.avro   owed, and soon gone from the hub
    dead/<namespace>/<hub>/<partition>/<Y>/<M>/<D>/<h>/<m>/<s>-….avro     Capture layout
    gaps/<source>/<partition>/<first>-<last>.json   events that were never read
    seen/snapshot                                 deduplication, at the last clean hand-over
    aside/digests/<sink>/<id>.json                digests that a sink refused
    reports/, status.json

Everything is readable by its owner alone: it holds payloads.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, unquote

__all__ = ["StateStore", "StateStoreError", "place", "unplace"]

_NAME_BYTES = 200  # file systems allow 255


class StateStoreError(Exception):
    """The store cannot be used; the message says which folder and why."""


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
    """A folder. Every write is a new file or an atomic replacement: no reader sees half of one."""

    def __init__(self, url: str) -> None:
        self.folder = Path(url.removeprefix("file://"))

    def prepare(self) -> None:
        """Create the folder and try a write. Raises StateStoreError."""
        try:
            self.put("writable", b"")
            self.delete("writable")
        except OSError as error:
            reason = error.strerror or error
            if isinstance(error, FileExistsError):
                reason = "it is not a folder"
            raise StateStoreError(
                f"the state folder {self.folder} cannot be written: {reason}"
            ) from error

    def put(self, path: str, data: bytes, *, sync: bool = True) -> None:
        """Write an object whole. sync: also through a power failure; without, only a crash."""
        target = self.folder / path
        self._make(target.parent)
        descriptor, temporary = tempfile.mkstemp(dir=target.parent, prefix=".")  # mode 0600
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                if sync:
                    file.flush()
                    os.fsync(file.fileno())
            Path(temporary).replace(target)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise

    def _make(self, folder: Path) -> None:
        """With the mode for each folder that is new: `parents` gives it to the last one alone."""
        if not folder.is_dir():
            if folder != self.folder:
                self._make(folder.parent)
            folder.mkdir(mode=0o700, parents=folder == self.folder, exist_ok=True)

    def get(self, path: str) -> bytes | None:
        try:
            return (self.folder / path).read_bytes()
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            return None

    def list(self, prefix: str) -> Iterator[str]:
        """Paths of all objects under a folder, in order."""
        for path in sorted((self.folder / prefix).rglob("*")):
            if path.is_file() and not path.name.startswith("."):
                yield path.relative_to(self.folder).as_posix()

    def delete(self, path: str) -> None:
        (self.folder / path).unlink(missing_ok=True)

    @contextlib.contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """Hold `name` for this process alone, until it ends. Raises StateStoreError if another
        has it: two runs in one folder would count, and deliver, everything twice."""
        path = self.folder / f".{name}.lock"
        with path.open("a") as file:
            path.chmod(0o600)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise StateStoreError(
                    f"another `alertbeam {name}` works in the state folder {self.folder}: "
                    "stop it first, or give this one a folder of its own"
                ) from None
            yield
