"""What one shift leaves for the next, through a clean end or a crash: where it had read to, and
what it had seen.

    handed-over                 positions, and which of the files below hold
    seen/<generation>-<shift>   16 bytes a key, of what was new to the deduplication in a shift
    seen/weak-<shift>           keys whose record may not have reached every sink
    high-water                  up to where anything may have been read, kept ahead of reading

`handed-over` is replaced whole, after its files: it is what counts. The argument that nothing is
lost by what was seen stands in docs/adr/0011.
"""

from __future__ import annotations

import hashlib
import itertools
import threading
import time
from collections.abc import Iterable, Mapping

import msgspec

from schemas.batch import Origin
from transforms.state_store import StateStore

__all__ = [
    "ALL",
    "KEY_BYTES",
    "HandedOver",
    "HighWater",
    "Keys",
    "discard",
    "high_water",
    "load",
    "marks",
    "put",
    "put_marks",
    "save",
    "seen_keys",
    "weaken",
]

KEY_BYTES = 16
ALL = "*"
_PATH = "handed-over"
_MARKS = "high-water"
_MOST_FILES = 16  # of a generation, until they become one
_MARGIN = (100, 100_000)  # events that a mark is ahead of reading
_AHEAD_SECONDS = 1.0

Keys = dict[int, list[bytes]]
"""By generation."""


class HandedOver(msgspec.Struct):
    """How a shift that ended cleanly left everything.

    number: the shift's. By `str(origin)`: positions, the event up to which everything is settled,
        and marked as seen; counted, up to which the digests have told it; unsettled, where a
        partition is not yet past what an earlier crash left: the last event that may have been
        read before it.
    generation: the deduplication's. files, weak: names under `seen/`; weak is `ALL` where every
        key is.
    """

    number: int
    horizon_ms: int
    positions: dict[str, int]
    counted: dict[str, int] = {}
    unsettled: dict[str, int] = {}
    generation: int = -1
    files: list[str] = []
    weak: str = ""


def load(store: StateStore) -> HandedOver | None:
    data = store.get(_PATH)
    return msgspec.json.decode(data, type=HandedOver) if data else None


def put(store: StateStore, handed: HandedOver) -> None:
    """Replace it whole, as it is."""
    store.put(_PATH, msgspec.json.encode(handed))


def save(store: StateStore, handed: HandedOver, fresh: Keys, weak: Iterable[bytes]) -> None:
    """Add what was new in a shift to the keys of the one before, and hand over.

    fresh: by generation; only the two last ones are kept. weak: nothing where every partition is
    past its mark.
    """
    before = load(store)
    files: list[str] = []
    if before and before.horizon_ms == handed.horizon_ms:
        files += before.files
        handed.generation = max(handed.generation, before.generation)
    for generation, keys in sorted(fresh.items()):
        name = f"{generation:012d}-{handed.number}"
        _write(store, name, keys)
        files.append(name)
    files = [name for name in dict.fromkeys(files) if _generation(name) >= handed.generation - 1]
    for generation, same in itertools.groupby(sorted(files), _generation):
        if len(names := [*same]) > _MOST_FILES:
            merged = f"{generation:012d}-{handed.number}-all"
            _write(store, merged, (key for name in names for key in _read(store, name) or ()))
            files = [*(name for name in files if name not in names), merged]
    handed.files = files
    keys = [*weak]
    if handed.unsettled and keys:
        handed.weak = f"weak-{handed.number}"
        _write(store, handed.weak, keys)
    put(store, handed)
    for path in store.list("seen"):
        if path.removeprefix("seen/") not in (*files, handed.weak):
            store.delete(path)


def discard(store: StateStore, handed: HandedOver) -> None:
    """Forget what was seen: it fits no horizon, until a shift that ended cleanly has some anew."""
    kept = msgspec.structs.replace(handed, horizon_ms=0, files=[], weak="", generation=-1)
    put(store, kept)


def weaken(store: StateStore, handed: HandedOver) -> None:
    """What was seen ends nothing of what is read again."""
    put(store, msgspec.structs.replace(handed, weak=ALL))


def seen_keys(store: StateStore, handed: HandedOver) -> tuple[Keys, list[bytes]] | None:
    """The keys by generation, and the weak ones; None if any file is missing or damaged."""
    found: Keys = {}
    for name in handed.files:
        keys = _read(store, name)
        if keys is None:
            return None
        found.setdefault(_generation(name), []).extend(keys)
    if handed.weak == ALL:
        return found, [key for keys in found.values() for key in keys]
    weak = _read(store, handed.weak) if handed.weak else []
    return None if weak is None else (found, weak)


def _generation(name: str) -> int:
    return int(name.partition("-")[0])


def _write(store: StateStore, name: str, keys: Iterable[bytes]) -> None:
    body = b"".join(keys)
    store.put(f"seen/{name}", body + hashlib.blake2b(body, digest_size=16).digest())


def _read(store: StateStore, name: str) -> list[bytes] | None:
    data = store.get(f"seen/{name}") or b""
    body, digest = data[:-16], data[-16:]
    if hashlib.blake2b(body, digest_size=16).digest() != digest or len(body) % KEY_BYTES:
        return None
    return [body[at : at + KEY_BYTES] for at in range(0, len(body), KEY_BYTES)]


# ----------------------------------------------------------------------------- high-water marks


def marks(store: StateStore) -> dict[str, int]:
    """Up to where anything may ever have been read, by `str(origin)`."""
    return msgspec.json.decode(store.get(_MARKS) or b"{}", type=dict[str, int])


def put_marks(store: StateStore, marks: Mapping[str, int]) -> None:
    """Replace all of them."""
    store.put(_MARKS, msgspec.json.encode(marks))


class HighWater:
    """Keeps the marks ahead of reading. Durable: no copy of an alert can settle, because its
    original was seen, before the original's own position is known to have been read.

    Ahead by about a second's reading, so that one write a second suffices; at first by less, since
    after a crash a repeat of what lies before a mark may pass.
    """

    def __init__(self, store: StateStore) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._marks = marks(store)
        self._heads: dict[str, int] = {}
        self._before: dict[str, int] = {}  # the heads when the marks were written last
        self._written = 0.0  # monotonic

    def cover(self, origin: Origin, sequence: int) -> None:
        """To be said before anything up to this event is handed on."""
        name = str(origin)
        with self._lock:
            self._heads[name] = sequence
            if sequence <= self._marks.get(name, -1):
                return
            now = time.monotonic()
            took = max(now - self._written, 0.001)
            # Never back: behind an older mark may still be what a crash left unsettled.
            ahead = {
                each: max(head + self._margin(each, head, took), self._marks.get(each, -1))
                for each, head in self._heads.items()
            }
            self._put({**self._marks, **ahead})
            self._before, self._written = dict(self._heads), now

    def _margin(self, name: str, head: int, took: float) -> int:
        read = head - self._before.get(name, head)
        least, most = _MARGIN
        return max(least, min(most, 2 * read, int(read / took * _AHEAD_SECONDS)))

    def settle(self, marks: Mapping[str, int]) -> None:
        """Everything that was read is settled, but for what is left up to these marks."""
        with self._lock:
            self._heads.clear()
            self._before.clear()
            self._put(dict(marks))

    def _put(self, marks: dict[str, int]) -> None:
        put_marks(self._store, marks)
        self._marks = marks


_HIGH_WATERS: dict[str, HighWater] = {}
_LOCK = threading.Lock()


def high_water(run: str, store: StateStore) -> HighWater:
    """The run's, in this process."""
    with _LOCK:
        if run not in _HIGH_WATERS:
            _HIGH_WATERS[run] = HighWater(store)
        return _HIGH_WATERS[run]
