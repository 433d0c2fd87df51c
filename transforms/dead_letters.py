"""Dead letters on disk: Avro files in the layout of Event Hubs Capture.

Whatever reads Capture files reads them, and replays them with the original bytes. The step, the
reason and the record's index lie in `Properties`. Schema: Microsoft's "Event Hubs Capture", Avro.
"""

from __future__ import annotations

import hashlib
import itertools
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import msgspec

from schemas.batch import Record
from schemas.dead_letter import DeadLetter
from transforms.capture import read_capture, row, utc, write_capture
from transforms.state_store import StateStore, place

__all__ = [
    "amend",
    "pack",
    "read_dead_letters",
    "refused_again",
    "strike",
    "unpack",
    "write_dead_letters",
]

_Key = tuple[str, str, int, int, str]

_ALONE = threading.Lock()  # a file is read, changed and written by one at a time


def write_dead_letters(store: StateStore, letters: Iterable[DeadLetter]) -> None:
    """One new file a partition, step and minute, named by what is in it (and the whole source,
    whose last part, the consumer group, Capture's folders lack): writing it again replaces it."""

    def group(letter: DeadLetter) -> tuple[str, str, str]:
        return _folder(letter), letter.step, letter.source

    for (folder, step, _), found in itertools.groupby(sorted(letters, key=group), group):
        inside = sorted(found, key=lambda letter: (letter.sequence, letter.index))
        first, last = inside[0], inside[-1]
        span = f"{first.sequence}.{first.index}-{last.sequence}.{last.index}"
        which = hashlib.blake2b(digest_size=8)
        for letter in inside:
            which.update(msgspec.msgpack.encode((letter.source, letter.sequence, letter.index)))
        name = f"{utc(first.enqueued_ms):%S}-{step}-{span}-{which.hexdigest()}.avro"
        with _ALONE:
            store.put(f"{folder}/{place(name)}", pack(inside))


def read_dead_letters(store: StateStore) -> Iterator[DeadLetter]:
    """Every dead letter once, also where a restart wrote it twice."""
    seen: set[_Key] = set()
    for path in store.list("dead"):
        data = store.get(path)
        for letter in unpack(data) if data else ():
            if letter.key not in seen:
                seen.add(letter.key)
                yield letter


def strike(store: StateStore, letters: Iterable[DeadLetter]) -> None:
    """Remove these letters, however often each was written; those that are not there are no
    error."""
    _rewrite(store, letters, lambda given, found: None)


def amend(store: StateStore, letters: Iterable[DeadLetter]) -> None:
    """Write letters in the place of those with the same address and step."""
    _rewrite(store, letters, lambda given, found: given)


def refused_again(store: StateStore, letters: Iterable[DeadLetter]) -> None:
    """These letters were tried again, and what refused them has written a letter for each of that
    address and step. It keeps the new reason, and is the old letter otherwise, with its count."""

    def merged(given: DeadLetter, found: DeadLetter) -> DeadLetter:
        return msgspec.structs.replace(
            found, body=given.body, attempts=max(given.attempts + 1, found.attempts)
        )

    there = _rewrite(store, given := [*letters], merged)
    lost = [letter for letter in given if letter.key not in there]
    write_dead_letters(
        store, (msgspec.structs.replace(each, attempts=each.attempts + 1) for each in lost)
    )


def _rewrite(
    store: StateStore,
    letters: Iterable[DeadLetter],
    change: Callable[[DeadLetter, DeadLetter], DeadLetter | None],
) -> set[_Key]:
    """Replace what is found of these letters, given and as found, in place; the keys of those."""
    folders: dict[str, dict[_Key, DeadLetter]] = {}
    for letter in letters:
        folders.setdefault(_folder(letter), {})[letter.key] = letter
    there: set[_Key] = set()
    for folder, wanted in folders.items():
        for path in store.list(folder):
            with _ALONE:
                data = store.get(path)
                before = [*unpack(data)] if data else []
                mine = {letter.key for letter in before} & wanted.keys()
                there |= mine
                found = (change(wanted[e.key], e) if e.key in mine else e for e in before)
                after = [letter for letter in found if letter is not None]
                if mine and not after:
                    store.delete(path)
                elif after != before:
                    store.put(path, pack(after))
    return there


def _folder(letter: DeadLetter) -> str:
    namespace, _, rest = letter.source.partition("/")
    minute = f"{utc(letter.enqueued_ms):%Y/%m/%d/%H/%M}".split("/")
    return place("dead", namespace, rest.split("/")[0] or "-", letter.partition, *minute)


def pack(letters: Iterable[DeadLetter]) -> bytes:
    """A whole file of Capture's."""
    return write_capture(map(_row, letters))


def _row(letter: DeadLetter) -> dict[str, Any]:
    properties = {
        "alertbeam-source": letter.source,
        "alertbeam-partition": letter.partition,
        "alertbeam-step": letter.step,
        "alertbeam-reason": letter.reason.encode("utf-8", "replace").decode(),
        "alertbeam-index": letter.index,
    }
    if letter.attempts:
        properties["alertbeam-attempts"] = letter.attempts
    return row(Record(letter.sequence, 0, letter.enqueued_ms, letter.body), properties)


def unpack(data: bytes) -> Iterator[DeadLetter]:
    """The letters of a file."""
    for record, properties in read_capture(data):
        yield DeadLetter(
            properties["alertbeam-source"],
            properties["alertbeam-partition"],
            record.sequence,
            properties["alertbeam-index"],
            record.enqueued_ms,
            properties["alertbeam-step"],
            properties["alertbeam-reason"],
            record.body,
            properties.get("alertbeam-attempts", 0),
        )
