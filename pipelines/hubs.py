"""The hubs of a run: which partitions they have, and where each begins.

    hubs/<source>.json    when the hub was made, and where each partition began when first seen

An account's position moves forward over what is settled. Here is whatever else may befall it: a
partition that is new, retention that overtook it, a hub that was made anew (its sequence numbers
begin again: those in the store mean other events), and somebody's word, `--from`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from functools import partial
from typing import NamedTuple

import msgspec

from pipelines.positions import From, Where, first_since
from pipelines.settings import SourceEntry
from schemas.batch import Origin
from transforms.account import begin, checkpoint, settled
from transforms.checkpoints import CheckpointError, others, take_over
from transforms.owed import debts
from transforms.read.claim import HubTaken, claim
from transforms.read.event_hubs import END, Partition
from transforms.read.reader import PartitionStatus
from transforms.read.sdk import HubError, HubProperties, hub_properties, kept_sequences
from transforms.restart import Moved, move, pass_over, renew, resume
from transforms.state_store import StateStore, place

__all__ = ["Hubs", "RunError"]

_LOGGER = logging.getLogger(__name__)

_ASK_SECONDS = 1.0
_LISTERS = 8
_SAME_MS = 1_000  # two tellings of one time
_CLOCKS_MS = 300_000  # that clocks of the service may differ
_MOST_TOLD = 8


class RunError(Exception):
    """The run cannot start, or go on; the message says what to do."""


class _Hub(msgspec.Struct):
    """What is remembered. created_ms: 0: it was not told. partitions: the position at which each
    began when it was first seen."""

    created_ms: int
    partitions: dict[str, int]


class _Known(NamedTuple):
    """A hub that is read, and where reading of each partition ends."""

    entry: SourceEntry
    stops: dict[str, int]


class _Answer(NamedTuple):
    """What a hub says of itself now, and what its partitions that are not known yet hold."""

    entry: SourceEntry
    properties: HubProperties
    kept: dict[str, range]


class Hubs:
    """The hubs of one run, which holds the store's lock.

    until_caught_up: read up to what is in each partition when it is found.
    start: where `--from` says to begin; it holds for what is found first.
    claims: whether to make sure that nobody else reads; not where this very run reads already.
    unread: what did not answer the last time, a line each.
    """

    def __init__(
        self,
        sources: Iterable[SourceEntry],
        store: StateStore,
        sinks: Iterable[str],
        *,
        until_caught_up: bool = False,
        start: From | None = None,
        say: Callable[[str], None] = _LOGGER.info,
        claims: bool = True,
    ) -> None:
        self.unread: list[str] = []
        self._sources = [*sources]
        self._store = store
        self._sinks = [*sinks]
        self._until_caught_up = until_caught_up
        self._start = start
        self._say = say
        self._claims = claims
        self._known: dict[str, _Known] = {}
        self._vanished: set[Origin] = set()
        self._broken = ""
        self._ask_again = 0.0  # monotonic

    def look(self, first: bool = False) -> bool:
        """Ask all hubs for partitions that are not known yet; whether there are any.

        A hub that does not answer is left for the next time: it must not stop the others.
        The first time, raises RunError if none answers, if one was made anew, or if not all of
        what `--from` says can be done, or if somebody else reads one; and FromError if `--from`
        means nothing here.
        """
        if first:
            resume(self._store)
        answers, problems = self._ask(first)
        start = self._start if first else None
        if start:
            if problems:
                raise RunError(_lines("`--from` needs every hub to answer: ", problems))
            start.check(_origin(a, p) for a in answers for p in a.properties.partitions)
        added = False
        for answer in answers:
            try:
                added = self._learn(answer, start) or added
            except (HubError, CheckpointError) as error:
                if start:
                    raise RunError(f"{answer.entry.name}: {error}") from error
                problems.append(f"{answer.entry.name}: {error}")
            except RunError as error:
                if first:
                    raise
                self._broken = str(error)  # for `beyond`, in the right thread
        if first and len(problems) == len(self._sources):
            raise RunError(_lines("no hub can be read: ", problems))
        self.unread = problems
        for problem in problems:
            self._say(f"not read for now: {problem}")
        return added

    def partitions(self) -> list[Partition]:
        """Every partition of every hub, from its checkpoint on."""
        found = []
        for source, (entry, stops) in self._known.items():
            for partition, stop in sorted(stops.items()):
                origin = Origin(source, partition)
                at = checkpoint(self._store, self._sinks, origin)
                assert at is not None, "it was begun when it was found"
                found.append(Partition(source, partition, entry.event_hubs, at + 1, stop))
        return found

    def beyond(self, statuses: Iterable[PartitionStatus]) -> str:
        """What to say if a hub was made anew under this run, "" if not: read on at the old
        position, it would seem well, and its first events would never have been read."""
        if self._broken or time.monotonic() < self._ask_again:
            return self._broken
        self._ask_again = time.monotonic() + _ASK_SECONDS
        for status in statuses:
            if "argument-error" in status.error and status.source in self._known:
                entry = self._known[status.source].entry
                try:
                    following = kept_sequences(entry.event_hubs, status.partition).stop
                except HubError:
                    continue
                if status.next > following:
                    origin = Origin(status.source, status.partition)
                    return f"{_short(origin, status.next - 1, following)}{self._advice(entry)}"
        return ""

    # asking

    def _ask(self, first: bool) -> tuple[list[_Answer], list[str]]:
        """All hubs, side by side: their answers, and a line for each that has none."""
        answers, problems = [], []
        with ThreadPoolExecutor(_LISTERS, thread_name_prefix="list partitions") as pool:
            asked = [(entry, pool.submit(self._properties, entry)) for entry in self._sources]
            for entry, waited in asked:
                known = self._known.get(entry.name, _Known(entry, {}))
                try:
                    properties = waited.result()
                    new = [each for each in properties.partitions if each not in known.stops]
                    kept = pool.map(partial(kept_sequences, entry.event_hubs), new)
                    answers.append(_Answer(entry, properties, dict(zip(new, kept, strict=True))))
                except HubError as error:
                    if first and isinstance(error, HubTaken):
                        raise RunError(str(error)) from None
                    problems.append(f"{entry.name}: {error}")
        return answers, problems

    def _properties(self, entry: SourceEntry) -> HubProperties:
        """Of a hub that is new to this run: if nobody else reads it."""
        found = hub_properties(entry.event_hubs)
        if self._claims and found.partitions and entry.name not in self._known:
            claim(entry.event_hubs, found.partitions[0])
        return found

    # what an answer means

    def _learn(self, answer: _Answer, start: From | None) -> bool:
        """Settle where each partition that is new to this run begins; whether there is any."""
        entry, properties, kept = answer
        source = entry.name
        remembered = self._remembered(source)
        told = remembered.partitions if remembered else {}
        if anew := self._anew(answer, remembered):
            said = [start.of(_origin(answer, each)) if start else None for each in kept]
            if not said or any(where is None or where.kind == "checkpoint" for where in said):
                raise RunError(f"{anew}{self._advice(entry)}")
            self._renew(answer, told, anew)
            told = {each: held.start - 1 for each, held in kept.items()}
        elif kept:
            told = told | self._begins(answer, told)
        self._say_vanished(answer, told)
        if not kept:
            return False
        before_ms = remembered.created_ms if remembered and not anew else 0
        self._remember(source, _Hub(max(0, properties.created_ms) or before_ms, told))

        where = {each: start.of(_origin(answer, each)) if start else None for each in kept}
        plain = [each for each in kept if where[each] is None]
        take_over(entry.event_hubs, source, self._store, self._sinks, plain, self._say)
        if past := self._past(answer):
            raise RunError(f"{past}{self._advice(entry)}")
        for each in plain:
            self._begin(Origin(source, each), told[each])
        for each, held in kept.items():
            self._overtaken(Origin(source, each), held)
        if start:
            self._go(answer, start, {each: said for each, said in where.items() if said})
            for each in kept:  # `checkpoint`, and there is none
                self._begin(Origin(source, each), told[each])
        stops = {each: held.stop if self._until_caught_up else END for each, held in kept.items()}
        before = self._known.get(source, _Known(entry, {})).stops
        self._known = {**self._known, source: _Known(entry, before | stops)}
        return True

    def _begins(self, answer: _Answer, told: dict[str, int]) -> dict[str, int]:
        """The positions at which partitions begin that were never seen before. What comes to one
        that is added to a hub came after the start, wherever that was."""
        source, access = answer.entry.name, answer.entry.event_hubs
        if told or any(origin.source == source for origin in self._settled(source)):
            return {each: -1 for each in answer.kept if each not in told}
        latest = access.start == "latest"
        return {
            each: (held.stop if latest else held.start) - 1 for each, held in answer.kept.items()
        }

    def _anew(self, answer: _Answer, remembered: _Hub | None) -> str:
        """How it shows that this is not the hub that the store knows; "" if it does not."""
        source, made_ms = answer.entry.name, max(0, answer.properties.created_ms)
        if remembered and remembered.created_ms and made_ms:
            if abs(made_ms - remembered.created_ms) >= _SAME_MS:
                return (
                    f"{source}: the hub was made anew: this one is of {_time(made_ms)}, the one "
                    f"that was read of {_time(remembered.created_ms)}"
                )
        elif made_ms:
            youngest_ms = max(self._settled(source).values(), default=0)
            if youngest_ms and made_ms > youngest_ms + _CLOCKS_MS:
                return (
                    f"{source}: the hub was made anew: this one is of {_time(made_ms)}, and the "
                    f"events that were read came up to {_time(youngest_ms)}"
                )
        elif lost := sorted({*(remembered or _Hub(0, {})).partitions} - {*answer.properties[0]}):
            return f"{source}: the hub was made anew: it had a partition {lost[0]}, and has none"
        return self._past(answer)

    def _past(self, answer: _Answer) -> str:
        """Which position is past the end of its partition; "" if none is."""
        for each, held in answer.kept.items():
            origin = _origin(answer, each)
            positions = [checkpoint(self._store, [sink], origin) for sink in self._sinks]
            most = max((at for at in positions if at is not None), default=-1)
            if most >= held.stop:
                return _short(origin, most, held.stop)
        return ""

    def _begin(self, origin: Origin, position: int) -> None:
        """Sinks that have no position get one: where the others stand, or else this one. The first
        receipt to come need not be the first batch's."""
        at = checkpoint(self._store, self._sinks, origin)
        begin(self._store, self._sinks, origin, position if at is None else at)

    def _overtaken(self, origin: Origin, kept: range) -> None:
        moved = pass_over(self._store, self._sinks, origin, kept.start - 1)
        if moved is not None:
            then = f"it goes on at {kept.start:,}" if kept else "nothing came since"
            self._say(
                f"{origin}: events {moved.least + 1:,} to {moved.position:,} are gone: the hub "
                f"keeps them no longer, and not every sink had them; a gap in the account; {then}"
            )

    def _say_vanished(self, answer: _Answer, told: Iterable[str]) -> None:
        for each in sorted({*told} - {*answer.properties.partitions}):
            origin = _origin(answer, each)
            if origin not in self._vanished:
                self._vanished.add(origin)
                self._say(f"{origin}: the hub has no such partition any more: it cannot be read")

    # --from

    def _go(self, answer: _Answer, start: From, said: dict[str, Where]) -> None:
        """Begin where it was said. Everything is asked before anything is moved."""
        with ThreadPoolExecutor(_LISTERS, thread_name_prefix="where to begin") as pool:
            ask = partial(self._position, answer, self._checkpoints(answer, said.values()))
            positions = dict(zip(said, pool.map(ask, said, said.values()), strict=True))
        moves = []
        for each, position in positions.items():
            if position is not None:
                origin = _origin(answer, each)
                moves.append(
                    move(self._store, self._sinks, origin, position, f"--from {start.text}")
                )
        self._say_moves(answer.entry.name, start, [moved for moved in moves if moved])

    def _checkpoints(self, answer: _Answer, said: Iterable[Where]) -> dict[str, int]:
        """Where other consumers of the group stand, if anybody wants to know."""
        access, source = answer.entry.event_hubs, answer.entry.name
        if access.checkpoints is None or all(where.kind != "checkpoint" for where in said):
            return {}
        found = {}
        for partition, theirs in others(access, source).items():
            if theirs.sequence is None and partition in answer.kept:
                raise RunError(
                    f"{source}/{partition}: the checkpoint {theirs.blob} {theirs.why}: say a "
                    "sequence number, or a time"
                )
            found[partition] = theirs.sequence or 0
        return found

    def _position(
        self, answer: _Answer, checkpoints: dict[str, int], partition: str, where: Where
    ) -> int | None:
        """Behind what a partition is to begin; None: where it stands.

        Raises RunError, HubError.
        """
        kept, origin = answer.kept[partition], _origin(answer, partition)
        if where.kind == "checkpoint":
            ours = checkpoint(self._store, self._sinks, origin)
            theirs = checkpoints.get(partition, -1)
            if theirs >= kept.stop:
                raise RunError(
                    f"{origin}: another consumer's checkpoint is event {theirs:,}, but the hub's "
                    f"last one is {kept.stop - 1:,}: it is of an older hub; say `earliest`"
                )
            return theirs if theirs > (-1 if ours is None else ours) else None
        if where.kind == "latest":
            return kept.stop - 1
        if where.kind == "earliest":
            return kept.start - 1
        if where.kind == "time":
            return first_since(answer.entry.event_hubs, partition, kept, where.value) - 1
        if where.value > kept.stop:
            raise RunError(
                f"{origin}: there is no event {where.value:,} yet: the next one will be "
                f"{kept.stop:,}; `--from latest` begins with that"
            )
        if where.value < kept.start:
            self._say(
                f"{origin}: events {where.value:,} to {kept.start - 1:,} are gone from the hub: it "
                f"begins at {kept.start:,}"
            )
        return max(where.value, kept.start) - 1

    def _say_moves(self, source: str, start: From, moves: list[Moved]) -> None:
        if not moves:
            self._say(f"{source}: every partition stands where --from {start.text} says")
            return
        told = [
            f"{moved.origin.partition} at event {moved.position + 1:,} "
            f"({'back' if moved.history else 'on'} from {moved.most + 1:,})"
            for moved in moves[:_MOST_TOLD]
        ]
        more = f" and {len(moves) - _MOST_TOLD} more" if len(moves) > _MOST_TOLD else ""
        self._say(f"{source}: --from {start.text}: partition {', '.join(told)}{more}")
        if any(not moved.history for moved in moves):
            self._say("what is passed over is a gap in the account; what is owed stays owed")
        if back := [moved for moved in moves if moved.history]:
            self._say(
                "what is read again is delivered again: what was seen of it is forgotten; the "
                f"account so far is kept in {self._store.folder}/{back[0].history}"
            )

    # a hub that was made anew

    def _renew(self, answer: _Answer, told: Iterable[str], why: str) -> None:
        source = answer.entry.name
        self._say(why)
        self._say_owed(source)
        moves = []
        for each in sorted({*told, *answer.kept, *(o.partition for o in self._settled(source))}):
            held = answer.kept.get(each)
            sinks = self._sinks if held is not None else []
            position = held.start - 1 if held is not None else -1
            moves.append(renew(self._store, sinks, Origin(source, each), position, why))
        for moved in [moved for moved in moves if moved][:1]:
            self._say(f"the account of the old hub is kept in {self._store.folder}/{moved.history}")

    def _say_owed(self, source: str) -> None:
        for sink, count in self._owed(source).items():
            self._say(f"{sink} was owed {count:,} records of the old hub, which went with it")

    def _owed(self, source: str) -> dict[str, int]:
        found = {
            sink: sum(d.iou.count for d in debts(self._store, sink) if d.source == source)
            for sink in self._sinks
        }
        return {sink: count for sink, count in found.items() if count}

    def _advice(self, entry: SourceEntry) -> str:
        hub = entry.event_hubs.hub
        which = f"{hub}=earliest" if len(self._sources) > 1 else "earliest"
        owed = ", ".join(f"{sink} {n:,} records" for sink, n in self._owed(entry.name).items())
        return (
            f". `--from {which}` goes on with the new one, and keeps the old one's account as "
            "history; or give this run a new state folder"
            + (f". What was owed of the old one went with it: to {owed}" if owed else "")
        )

    # the store

    def _settled(self, source: str) -> dict[Origin, int]:
        """The hub's partitions that have an account, and when its youngest alert was enqueued."""
        found: dict[Origin, int] = {}
        for sink in self._sinks:
            for origin, entry in settled(self._store, sink).items():
                if origin.source == source:
                    found[origin] = max(found.get(origin, 0), entry.enqueued_ms)
        return found

    def _remembered(self, source: str) -> _Hub | None:
        data = self._store.get(_path(source))
        return msgspec.json.decode(data, type=_Hub) if data else None

    def _remember(self, source: str, hub: _Hub) -> None:
        """Before accounts begin: a crash between two of them must not make the second one new."""
        data = msgspec.json.encode(hub)
        if data != self._store.get(_path(source)):
            self._store.put(_path(source), data)


def _path(source: str) -> str:
    *folders, group = source.split("/")
    return place("hubs", *folders, f"{group}.json")


def _origin(answer: _Answer, partition: str) -> Origin:
    return Origin(answer.entry.name, partition)


def _short(origin: Origin, position: int, following: int) -> str:
    return (
        f"{origin}: the checkpoint is event {position}, but the hub's last one is {following - 1}: "
        "it was made anew"
    )


def _time(ms: int) -> str:
    return f"{datetime.fromtimestamp(ms / 1000, tz=timezone.utc):%Y-%m-%d %H:%M:%S} UTC"


def _lines(head: str, lines: list[str]) -> str:
    return head + (lines[0] if len(lines) == 1 else "".join(f"\n  {line}" for line in lines))
