"""What a replay reads: rows of parts of files, written down before the first is read.

    replays/<name>/plan.json            what was asked for, and how many parts each lane has
    replays/<name>/plan/<lane>/<first>  the parts from that number on, a few thousand
    replays/<name>/unread/<lane>/<part> what of a part could not be read

A *lane* is a row of parts that one worker reads in order. Parts are only ever added, a round at a
time, so a record's address (`files.base.address`) means the same record for ever.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from schemas.batch import Origin
from transforms.read.files.base import Part, Unread, address
from transforms.state_store import StateStore, place, unplace

__all__ = ["REPLAY", "Plan", "folder", "length", "origin", "replays", "unread_of", "write_unread"]

REPLAY = "replay/"
"""What the source of a replay's records begins with."""

_SEGMENT = 4_000  # parts of a segment


class _Lane(msgspec.Struct):
    parts: int = 0
    bytes: int = 0
    segments: list[int] = []


class _Head(msgspec.Struct):
    """asked: what the replay was begun for, as its command was given. rounds: parts by lane at the
    end of each."""

    name: str
    asked: dict[str, Any]
    lanes: list[_Lane]
    rounds: list[list[int]] = []


_PARTS = msgspec.msgpack.Decoder(list[Part])


def folder(name: str) -> str:
    """Where a replay's objects lie in the store."""
    return place("replays", name)


def replays(store: StateStore) -> list[str]:
    """The names of all replays that the store knows, in order."""
    return sorted({unplace(path)[1] for path in store.list("replays")})


def origin(name: str, lane: int) -> Origin:
    """The origin of a lane's records."""
    return Origin(f"{REPLAY}{name}", str(lane))


class Plan:
    """The parts of a replay, read from the store as they are needed."""

    def __init__(self, store: StateStore, head: _Head) -> None:
        self._store = store
        self._head = head
        self._segment: tuple[int, int, list[Part]] = (-1, 0, [])

    @classmethod
    def load(cls, store: StateStore, name: str) -> Plan | None:
        """The plan of that name; None: there is none."""
        data = store.get(f"{folder(name)}/plan.json")
        return cls(store, msgspec.json.decode(data, type=_Head)) if data else None

    @classmethod
    def begin(cls, store: StateStore, name: str, asked: Mapping[str, Any]) -> Plan:
        """A new plan, without parts."""
        return cls(store, _Head(name, dict(asked), []))

    @property
    def name(self) -> str:
        return self._head.name

    @property
    def asked(self) -> Mapping[str, Any]:
        return self._head.asked

    @property
    def lanes(self) -> int:
        return len(self._head.lanes)

    @property
    def rounds(self) -> int:
        return len(self._head.rounds)

    @property
    def bytes(self) -> int:
        """Of all parts, as they were listed."""
        return sum(lane.bytes for lane in self._head.lanes)

    def parts(self, lane: int) -> int:
        """How many parts a lane has."""
        return self._head.lanes[lane].parts

    def round(self, lane: int) -> int:
        """The first part of the lane's last round."""
        before = self._head.rounds[-2] if self.rounds > 1 else []
        return before[lane] if lane < len(before) else 0

    def end(self, lane: int) -> int:
        """The address behind the lane's last record."""
        return address(self.parts(lane), 0)

    def add(self, lanes: Sequence[Iterable[Part]]) -> None:
        """Add a round: parts for each lane. It counts once all of it is written."""
        head = msgspec.json.decode(msgspec.json.encode(self._head), type=_Head)
        while len(head.lanes) < len(lanes):
            head.lanes.append(_Lane())
        for number, parts in enumerate(lanes):
            self._extend(number, head.lanes[number], parts)
        head.rounds.append([lane.parts for lane in head.lanes])
        self._store.put(f"{folder(head.name)}/plan.json", msgspec.json.encode(head))
        self._head = head

    def _extend(self, number: int, lane: _Lane, parts: Iterable[Part]) -> None:
        rows = [*parts]
        for at in range(0, len(rows), _SEGMENT):
            segment = rows[at : at + _SEGMENT]
            path = f"{folder(self.name)}/plan/{number}/{lane.parts:09d}"
            self._store.put(path, msgspec.msgpack.encode(segment))
            lane.segments.append(lane.parts)
            lane.parts += len(segment)
            lane.bytes += sum(length(part) for part in segment)

    def part(self, lane: int, number: int) -> Part:
        """Raises IndexError behind the lane's last."""
        segments = self._head.lanes[lane].segments
        if not 0 <= number < self.parts(lane):
            raise IndexError(number)
        first = max(each for each in segments if each <= number)
        if self._segment[:2] != (lane, first):
            self._segment = (lane, first, self._load(lane, first))
        return self._segment[2][number - first]

    def row(self, lane: int, start: int = 0) -> Iterator[tuple[int, Part]]:
        """A lane's parts from a number on, each with its number."""
        for number in range(start, self.parts(lane)):
            yield number, self.part(lane, number)

    def _load(self, lane: int, first: int) -> list[Part]:
        path = f"{folder(self.name)}/plan/{lane}/{first:09d}"
        data = self._store.get(path)
        if data is None:
            raise FileNotFoundError(
                f"the plan of replay {self.name} lacks {path} in {self._store.folder}: "
                "begin anew with --again"
            )
        return _PARTS.decode(data)


def length(part: Part) -> int:
    """A part's bytes, as it was listed."""
    return max(0, (part.size if part.stop < 0 else min(part.stop, part.size)) - part.start)


def write_unread(
    store: StateStore, name: str, lane: int, part: int, unread: Sequence[Unread]
) -> None:
    """Write down what of a part could not be read; saying it again changes nothing."""
    path = f"{folder(name)}/unread/{lane}/{part:09d}"
    data = store.get(path)
    known = msgspec.json.decode(data, type=list[Unread]) if data else []
    if new := [each for each in unread if each not in known]:
        store.put(path, msgspec.json.encode([*known, *new]))


def unread_of(store: StateStore, name: str, first: Mapping[int, int] = {}) -> Iterator[Unread]:
    """What of a replay's files could not be read, in order. first: by lane, of which parts on."""
    for path in store.list(f"{folder(name)}/unread"):
        lane, part = map(int, path.split("/")[-2:])
        if part >= first.get(lane, 0) and (data := store.get(path)):
            yield from msgspec.json.decode(data, type=list[Unread])
