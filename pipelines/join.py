"""`alertbeam replay --then-live`: history from Event Hubs Capture, and the hub behind it.

Capture keeps the hub's sequence numbers. So its events have the hub's own addresses, the accounts
are the hub's own, and it is they that say where history goes on, and where the live stream begins:
without gap or overlap, wherever either was killed.

History is read in rounds, each up to where Capture's files end or the hub has what they lack. They
end once the hub has whatever comes next of every partition; then it is an ordinary run. What sinks
came to be owed of history is set aside first: the hub could not be asked for it.
"""

from __future__ import annotations

import itertools
import logging
import selectors
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec
from apache_beam import Pipeline

from pipelines.cold_start import clean_end, cold_start, firing
from pipelines.forward import forward
from pipelines.run import Run, RunError
from pipelines.runners import beside
from pipelines.settings import Settings, SourceEntry
from schemas.alert import Subscription
from schemas.batch import Origin, Record
from schemas.runs import Run as Runs
from schemas.runs import clip, subtract, union
from transforms import heartbeat
from transforms.account import begin, checkpoint, settled
from transforms.capture import row as as_row
from transforms.capture import write_capture
from transforms.delivery.engines import close_all
from transforms.delivery.line import printable
from transforms.delivery.parcel import Status
from transforms.drift import close as close_watch
from transforms.hand_over import discard, load
from transforms.known import terms
from transforms.owed import aside_of, debts, put_aside
from transforms.read.access import EventHubsAccess
from transforms.read.captured import (
    Cursor,
    First,
    NotThisHub,
    ReadCaptured,
    Row,
    close_reading,
    reading,
)
from transforms.read.claim import HubTaken, claim
from transforms.read.event_hubs import Partition
from transforms.read.files.base import Part
from transforms.read.filesystems import Found, HistoryError, find
from transforms.read.history import StorageError
from transforms.read.paths import Template, placed
from transforms.read.reader import PartitionStatus, close_session
from transforms.read.sdk import HubError, PartitionLink, hub_properties, kept_sequences
from transforms.restart import resume
from transforms.state_store import StateStore, StateStoreError, place
from transforms.steps import Shift
from transforms.subscription_history import History

__all__ = ["WAIT", "Join", "Listing", "captured", "listing", "set_aside"]

_LOGGER = logging.getLogger(__name__)

WAIT = 1_200.0
"""Seconds that Capture is waited for, which writes every 15 minutes at most."""

_LONGEST_SHIFT = 300.0
_MOST_BUNDLES = 800
_MOST_FAILURES = 5
_BRIEF_ROUND = 60.0  # seconds; in a longer one Capture has written more
_LOOK_SECONDS = 15.0
_WINDOW_MS = 15 * 60_000  # that a file of Capture's may be named for before its first event
_ASKERS = 8
_OPEN_SECONDS = 10.0
_SILENCE_SECONDS = 5.0
_NEAR = 100  # events that are kept too, between such as are owed
_AT_ONCE = 200
_ASIDE_BYTES = 4 * 1024 * 1024
_MOST_TOLD = 20

Listing = Callable[[], Mapping[Origin, Sequence[Part]]]
"""Capture's files as they are now, by whose they are."""


class _Files:
    """Stands for a hub's access where files are read: no hub need be asked what it keeps."""

    hub = "files"

    def client(self) -> Any:
        raise HubError("it is read from files")


_FILES: Any = _Files()


class Join(Run):
    """A run that begins with history.

    listing: asked in each round.
    whole: whether a sink that has nothing yet begins with what the hub has, where Capture begins
        later; else with Capture.
    wait: seconds that events are waited for which Capture has not written, and the hub has no more;
        then they are a gap.
    """

    def __init__(
        self,
        settings: Settings,
        listing: Listing,
        *,
        runner: str = "DirectRunner",
        whole: bool = True,
        wait: float = WAIT,
        say: Callable[[str], None] = _LOGGER.info,
    ) -> None:
        super().__init__(settings, runner=runner, say=say)
        self.live = False  # history is through
        self._listing = listing
        self._whole = whole
        self._wait = wait
        self._entries = {entry.name: entry for entry in settings.sources}
        self._rows: dict[Origin, Row] = {}
        self._known: dict[Origin, First] = {}

    def status(self) -> tuple[list[PartitionStatus], dict[str, Status]]:
        partitions, sinks = super().status()
        if not self.live and self._last is None:
            found = reading(self.name).status.values()
            partitions = sorted(found, key=lambda s: (s.source, len(s.partition), s.partition))
        return partitions, sinks

    def _run(self, subscriptions: Mapping[str, Subscription]) -> None:
        self._number = self._next_number()
        try:
            self._history(subscriptions)
        except BaseException:
            self._leave()
            raise
        if self._stopping.is_set():
            self._leave()
            return
        self.live = True
        close_reading(self.name)
        self._say("history is through: the live stream goes on behind it")
        super()._run(subscriptions)

    def _leave(self) -> None:
        self._ended.set()
        self._last = self.status()
        close_reading(self.name)
        close_session(self.name)
        close_all(self.name)
        close_watch(self.name, self.store)

    # ---------------------------------------------------------------------------- beforehand

    def _prepare(self) -> None:
        """Whether files, hub and accounts are of one stream; and let each sink begin in it.

        Raises RunError: nothing was done then.
        """
        resume(self.store)
        self._list()
        if not self._rows:
            raise RunError("there are no files of Event Hubs Capture there")
        partitions = {
            source: self._hub(source) for source in sorted({o.source for o in self._rows})
        }
        origins = [Origin(source, each) for source, found in partitions.items() for each in found]
        kept = self._kept(origins)
        self._known = self._asked(origins, lambda o: self._oldest(o, kept[o]))
        self._compare(kept)
        self._stand(kept)
        for origin in origins:
            row = self._rows.get(origin)
            first = row.begins() if row else None
            start = kept[origin].start
            if first and not (self._whole and start < first.sequence):
                start = first.sequence
            at = checkpoint(self.store, self._sinks, origin)
            begin(self.store, self._sinks, origin, start - 1 if at is None else at)
        for source in partitions:
            if self.store.get(_path(source)) is None:
                self.store.put(_path(source), msgspec.json.encode(sorted(self._sinks)))
        self._turn_back()
        set_aside(self.store, self._sinks, self._rows, self._say, self._progress)

    def _hub(self, source: str) -> list[str]:
        """The hub's partitions. Raises RunError if it is not the one that the files are of."""
        if source not in self._entries:
            raise RunError(f"the settings have no hub {source}")
        access = self._entries[source].event_hubs
        try:
            found = hub_properties(access)
            claim(access, found.partitions[0])
        except HubTaken as error:
            raise RunError(str(error)) from None
        except HubError as error:
            raise RunError(f"{source}: {error}") from None
        for origin, row in self._rows.items():
            if origin.source != source:
                continue
            if origin.partition not in found.partitions:
                raise RunError(
                    f"{printable(row.parts[0].url, 300)} is of partition "
                    f"{printable(origin.partition, 40)}, which {source} does not have: it has "
                    f"{', '.join(found.partitions)}"
                )
            oldest = row.parts[0]
            if oldest.at_ms + _WINDOW_MS < found.created_ms:
                raise RunError(
                    f"{printable(oldest.url, 300)} is older than the hub, {source}, which was made "
                    f"at {_time(found.created_ms)}: it is of one before it; give only files of "
                    "this one (`--from`); replay those without --then-live"
                )
        return found.partitions

    def _oldest(self, origin: Origin, kept: range) -> First | None:
        """The first event that the hub has of a partition; None if it has none, or is silent."""
        if not kept:
            return None
        return _event(self._entries[origin.source].event_hubs, origin.partition, kept.start)

    def _compare(self, kept: Mapping[Origin, range]) -> None:
        """An event that both have must be the same. Raises RunError."""

        def look(origin: Origin) -> None:
            row, known = self._rows[origin], self._known.get(origin)
            first = row.begins()
            if first and first.sequence >= kept[origin].stop:
                raise NotThisHub(
                    f"{origin}: Capture's files begin with event {first.sequence:,}, but the hub's "
                    f"last one is {kept[origin].stop - 1:,}: they are of another hub, or of an "
                    "older one of this name"
                )
            if first and known and first.sequence <= known.sequence:
                Cursor(row, known.sequence, known).peek()

        with ThreadPoolExecutor(_ASKERS, thread_name_prefix="compare") as pool:
            try:
                for _ in pool.map(look, self._rows):
                    pass
            except (NotThisHub, StorageError) as error:
                raise RunError(str(error)) from None

    def _stand(self, kept: Mapping[Origin, range]) -> None:
        """No sink may stand further on than history, unless it was joined to it before.

        Raises RunError.
        """
        accounts = {sink: settled(self.store, sink) for sink in self._sinks}
        for source in sorted({origin.source for origin in kept}):
            stands = {
                sink: {o: found[o].position for o in kept if o.source == source and o in found}
                for sink, found in accounts.items()
            }
            for sink, found in stands.items():
                for origin, position in found.items():
                    if position >= kept[origin].stop:
                        raise RunError(
                            f"{origin}: sink {sink} stands at event {position:,}, but the hub's "
                            f"last one is {kept[origin].stop - 1:,}: it was made anew; `alertbeam "
                            "run --from earliest` goes on with it"
                        )
                ahead = all(position + 1 >= kept[o].start for o, position in found.items())
                if found and ahead and self.store.get(_path(source)) is None:
                    origin, position = max(found.items(), key=lambda each: each[1])
                    raise RunError(
                        f"sink {sink} stands at event {position:,} of {origin}, further on than "
                        "this history, which would not reach it: replay without --then-live "
                        "first, which reaches sinks wherever they stand, then `alertbeam run`"
                    )
            if any(stands.values()):
                for sink in [sink for sink, found in stands.items() if not found]:
                    self._say(
                        f"sink {sink} is new, and begins where the others stand; `alertbeam replay "
                        f"--sink {sink}` gives it what came before"
                    )

    def _turn_back(self) -> None:
        """What was seen is forgotten where it is of a later time than history: generations of it
        only turn forward, and would hold all of history at once."""
        handed = load(self.store)
        if handed is None or handed.generation < 0:
            return
        times = []
        for origin, row in self._rows.items():
            at = checkpoint(self.store, self._sinks, origin)
            assert at is not None, "it was begun"
            times.append(row.parts[row.find(at + 1)].at_ms)
        horizon_ms = self.settings.deduplicate.horizon_ms
        if handed.generation * horizon_ms > min(times) + 2 * horizon_ms:
            discard(self.store, handed)

    # -------------------------------------------------------------------------------- rounds

    def _history(self, subscriptions: Mapping[str, Subscription]) -> None:
        """Rounds, until the hub has what comes next of every partition. Raises RunError."""
        try:
            self._prepare()
        except (HubError, StorageError) as error:
            raise RunError(str(error)) from None
        read: list[frozenset[Part]] = []
        told: dict[Origin, range] = {}
        waits_until = 0.0
        failures = 0
        while not self._stopping.is_set():
            began = time.monotonic()
            try:
                self._list(known=[*self._rows])
                parts = [frozenset(row.parts) for row in self._rows.values()]
                if parts != read:
                    if not self._round(subscriptions):
                        break  # stopped
                    read = parts
                lacking = self._lacking()
            except (HistoryError, HubError, StorageError) as error:
                failures += 1
                if failures == _MOST_FAILURES:
                    raise RunError(f"history cannot be read: {error}") from None
                self._say(f"history cannot be read now: {error}")
                self._pause(min(60.0, 2.0**failures))
                continue
            failures = 0
            took = time.monotonic() - began
            if not lacking and took < _BRIEF_ROUND:
                break
            if lacking and lacking == told and time.monotonic() > waits_until:
                break  # the run writes the gap down, and says so
            if {o: each.start for o, each in lacking.items()} != {
                o: each.start for o, each in told.items()
            }:
                waits_until = time.monotonic() + self._wait
                self._say_lacking(lacking)
            told = lacking
            if lacking:
                self._pause(_LOOK_SECONDS)

    def _say_lacking(self, lacking: Mapping[Origin, range]) -> None:
        for origin, each in itertools.islice(lacking.items(), _MOST_TOLD):
            self._say(
                f"{origin}: the hub has events {each.start:,} to {each.stop - 1:,} no more, and "
                f"Capture has not written them yet: they are waited for, up to "
                f"{self._wait / 60:.0f} minutes"
            )

    def _round(self, subscriptions: Mapping[str, Subscription]) -> bool:
        """Read what Capture has now; False if it was stopped. Raises HubError, RunError,
        StorageError."""
        kept = self._kept(self._rows)  # after the files: none of their events can be beyond
        all_of_it = reading(self.name)
        all_of_it.begin(self._rows, {o: each.start for o, each in kept.items()}, self._known)
        failures = 0
        while not self._stopping.is_set():
            left = [origin for origin in self._rows if origin not in all_of_it.ended]
            if not left:
                return True
            partitions = []
            for origin in sorted(left):
                at = checkpoint(self.store, self._sinks, origin)
                assert at is not None, "it was begun"
                stop = kept[origin].stop
                partitions.append(
                    Partition(origin.source, origin.partition, _FILES, at + 1, max(at + 1, stop))
                )
            try:
                well = self._pass(partitions, subscriptions)
            except StateStoreError as error:
                self._say(f"shift {self._number} failed: {error}")
                self._forget()
                well = False
            if all_of_it.refused:
                raise RunError(all_of_it.refused)
            self._say_unread()
            if well:
                failures = 0
                set_aside(self.store, self._sinks, self._rows, self._say, self._progress)
                continue
            all_of_it.begin(self._rows, all_of_it.gone, self._known)
            failures += 1
            if failures == _MOST_FAILURES:
                raise RunError(f"{failures} shifts failed, one after another; see above")
            self._pause(min(60.0, 2.0**failures))
        return False

    def _pass(
        self, partitions: Sequence[Partition], subscriptions: Mapping[str, Subscription]
    ) -> bool:
        """One Beam run over history, from the checkpoint to its end, or until enough was read;
        whether it went well. Raises StateStoreError."""
        self._progress()
        all_of_it = reading(self.name)
        all_of_it.draining = False
        self._number += 1
        self.store.put("shift", str(self._number).encode())
        horizon_ms = self.settings.deduplicate.horizon_ms
        started = cold_start(self.store, self._sinks, partitions, horizon_ms, self._remembered)
        if started.again:
            self._say(
                f"{started.again:,} events are read again first, to know what was seen and counted"
            )
        all_of_it.warming = {*started.warming}
        if self.settings.digests:
            firing(self.store, self._number)  # it may end by itself
        # As they were when each alert happened.
        told: Any = History.load(self.store) if subscriptions else subscriptions
        pipeline = Pipeline(runner=self.runner.runner)
        forward(
            pipeline, ReadCaptured(self.name, started.partitions, self.store), self.settings,
            told, self.name, Shift(self._number, self._drained_ms, started.recounts),
            left=started.left,
        )  # fmt: skip
        worker, failed = beside(pipeline, f"shift {self._number}", self.counts)
        end = time.monotonic() + (self.settings.shift or _LONGEST_SHIFT)
        most = heartbeat.bundles(self.name) + _MOST_BUNDLES
        held = ""
        worker.start()
        while worker.is_alive():
            worker.join(0.1)
            if all_of_it.held and not held:
                self._say(f"history waits: no sink takes anything ({printable(all_of_it.held)})")
            held = all_of_it.held
            over = time.monotonic() >= end or heartbeat.bundles(self.name) >= most
            if self._stopping.is_set() or (over and not all_of_it.warming):
                all_of_it.draining = True
        drained_ms = int(time.time() * 1000)
        if failed:
            _LOGGER.error("shift %d failed: %s", self._number, failed[0], exc_info=failed[0])
            self._say(f"shift {self._number} failed, its work is done again: {_brief(failed[0])}")
            self._forget()
            return False
        self._drained_ms = drained_ms
        heads = {origin: each.next - 1 for origin, each in all_of_it.status.items()}
        takers = (entry for entry in self.settings.sinks if entry.send == "alerts")
        wanted = {entry.name: terms(entry.where, told) for entry in takers}
        self._remembered = clean_end(
            self.name, self.store, self._sinks, started, heads, self._number, horizon_ms, wanted
        )
        if not self._remembered:
            _LOGGER.warning("shift %d left something unsettled: it is read again", self._number)
            self._forget()
        return self._remembered

    def _say_unread(self) -> None:
        unread = reading(self.name).unread
        for _ in range(min(len(unread), _MOST_TOLD)):
            each = unread.popleft()
            self._say(
                f"{printable(each.url, 300)}, byte {each.offset:,}: cannot be read: "
                f"{printable(each.why, 300)}"
            )
        if unread:
            self._say(f"and {len(unread):,} more places in Capture's files cannot be read")
            unread.clear()

    # -------------------------------------------------------------------------------- asking

    def _list(self, known: Sequence[Origin] = ()) -> None:
        """Capture's files; in rounds, of partitions that have begun."""
        rows = {}
        for origin, parts in self._listing().items():
            if parts and (not known or checkpoint(self.store, self._sinks, origin) is not None):
                rows[origin] = Row(parts, self._rows.get(origin), self._progress)
        self._rows = rows

    def _lacking(self) -> dict[Origin, range]:
        """What comes next of partitions, where the hub has it no more."""
        found = {}
        for origin, kept in self._kept(self._rows).items():
            at = checkpoint(self.store, self._sinks, origin)
            assert at is not None, "it was begun"
            if at + 1 < kept.start:
                found[origin] = range(at + 1, kept.start)
        return found

    def _kept(self, origins: Iterable[Origin]) -> dict[Origin, range]:
        """Raises HubError."""
        return self._asked(
            origins, lambda o: kept_sequences(self._entries[o.source].event_hubs, o.partition)
        )

    def _asked(self, origins: Iterable[Origin], question: Callable[[Origin], Any]) -> Any:
        """What is answered of each, side by side; without what has no answer."""
        origins = [*origins]
        with ThreadPoolExecutor(_ASKERS, thread_name_prefix="ask the hub") as pool:
            answers = zip(origins, pool.map(question, origins), strict=True)
            return {origin: answer for origin, answer in answers if answer is not None}

    def _progress(self) -> None:
        heartbeat.progress(self.name)


# ------------------------------------------------------------------------------------- files


def listing(
    sources: Iterable[SourceEntry],
    paths: Sequence[str],
    template: str = "",
    since_ms: int | None = None,
    say: Callable[[str], None] = _LOGGER.info,
) -> Listing:
    """What `Join` asks for Capture's files: those in these folders. What it says, it says once.

    template, since_ms: of `captured`. Raises HistoryError for a template that is not understood;
    and for folders that cannot be read when it is asked.
    """
    try:
        made = Template(template) if template else None
    except ValueError as error:
        raise HistoryError(str(error)) from None
    sources, told = [*sources], set[str]()

    def once(line: str) -> None:
        if line not in told:
            told.add(line)
            say(line)

    def closed(url: str, why: str) -> None:
        once(f"{printable(url, 300)}: cannot be read: {printable(why)}")

    return lambda: captured(sources, find(paths, closed), made, since_ms, once)


def captured(
    sources: Iterable[SourceEntry],
    found: Iterable[Found],
    template: Template | None = None,
    since_ms: int | None = None,
    say: Callable[[str], None] = _LOGGER.info,
) -> dict[Origin, list[Part]]:
    """Files that Capture wrote, by whose they are; the others are passed over, and said.

    since_ms: files that can hold nothing since then are passed over, too. Raises RunError for files
    of a hub that is none of the sources.
    """
    names = [entry.name for entry in sources]
    rows: dict[Origin, list[Part]] = {}
    others = []
    for url, size, modified_ms, *_ in found:
        where = placed(url, template)
        if where is None or where.begin_ms is None or not where.partition:
            others.append(url)
            continue
        if since_ms is not None and where.begin_ms + where.length_ms < since_ms:
            continue
        origin = Origin(_source(names, where.hub, url), where.partition)
        part = Part(url, 0, -1, where.begin_ms, size, modified_ms)
        rows.setdefault(origin, []).append(part)
    if others:
        say(
            f"{len(others):,} files are passed over: their paths are not of Event Hubs Capture "
            f"(`--template`, if they are): {printable(others[0], 300)}"
        )
    return rows


def _source(names: Sequence[str], hub: str, url: str) -> str:
    """Which of the sources a path means by `namespace/hub`."""
    space, _, name = hub.lower().rpartition("/")
    same = [source for source in names if not name or source.lower().split("/")[1] == name]
    if len(same) > 1 and space:
        same = [source for source in same if source.lower().split("/")[0].split(".")[0] == space]
    if len(same) != 1:
        whose = f"hub {printable(hub, 200)}" if hub else "a hub that its path does not name"
        raise RunError(
            f"{printable(url, 300)} is of {whose}; the settings have {', '.join(names)}: give "
            "files of one of them"
        )
    return same[0]


# --------------------------------------------------------------------------------- what is owed


def set_aside(
    store: StateStore,
    sinks: Iterable[str],
    rows: Mapping[Origin, Row],
    say: Callable[[str], None] = _LOGGER.info,
    progress: Callable[[], None] = lambda: None,
) -> None:
    """Keep, out of Capture's files, what sinks are owed: the hub has it no more, or not for long.
    Raises StorageError, StateStoreError."""
    owed: dict[Origin, list[Runs]] = {}
    for debt in itertools.chain.from_iterable(debts(store, sink) for sink in sinks):
        origin = Origin(debt.source, debt.partition)
        if origin in rows and not debt.letters:
            owed[origin] = union(owed.get(origin, []), debt.iou.owed)
    for origin, runs in owed.items():
        for first, last, _ in aside_of(store, origin.source, origin.partition):
            runs = subtract(runs, clip(runs, first, last))
        count = 0
        for first, last in _near(union(Runs(run.first, run.last, 0) for run in runs)):
            kept: list[Record] = []
            cursor = Cursor(rows[origin], first)
            while (event := cursor.peek()) and event.sequence <= last:
                progress()
                records, _ = cursor.take(last + 1, _AT_ONCE, _ASIDE_BYTES)
                kept += records
                count += len(records)
                if sum(len(record.body) for record in kept) >= _ASIDE_BYTES:
                    _put_aside(store, origin, kept)
                    kept = []
            if kept:
                _put_aside(store, origin, kept)
        if count:
            say(f"{origin}: {count:,} events that sinks are owed are set aside, and paid live")


def _near(runs: Iterable[Runs]) -> Iterator[tuple[int, int]]:
    """Events, first and last, in which these runs lie: a file has all that is between."""
    first = last = -1
    for run in runs:
        if last >= 0 and run.first > last + _NEAR:
            yield first, last
            last = -1
        first, last = (run.first if last < 0 else first), run.last
    if last >= 0:
        yield first, last


def _put_aside(store: StateStore, origin: Origin, records: list[Record]) -> None:
    first, last = records[0].sequence, records[-1].sequence
    data = write_capture(map(as_row, records))
    put_aside(store, origin.source, origin.partition, first, last, data)


# ------------------------------------------------------------------------------------- the hub


def _event(access: EventHubsAccess, partition: str, sequence: int) -> First | None:
    """The hub's first event at or behind this number; None if it does not come soon. Raises
    HubError."""
    with access.client() as client:
        link = PartitionLink(client, access.consumer_group, partition, sequence, 1)
        try:
            link.open(_OPEN_SECONDS)
            until = time.monotonic() + _SILENCE_SECONDS
            with selectors.DefaultSelector() as selector:
                selector.register(link.sock, selectors.EVENT_READ)
                while (left := until - time.monotonic()) > 0:
                    if (link.held() or selector.select(left)) and (events := link.read()):
                        return First(events[0].sequence, events[0].enqueued_ms)
        finally:
            link.close()
    return None


def _path(source: str) -> str:
    *folders, group = source.split("/")
    return place("joined", *folders, f"{group}.json")


def _time(ms: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(ms / 1000))


def _brief(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {printable(lines[-1])}" if lines else type(error).__name__
