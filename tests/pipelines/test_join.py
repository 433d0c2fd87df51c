"""`replay --then-live`: history out of Capture's files, and the hub behind it, as one stream."""

from __future__ import annotations

import contextlib
import datetime
import itertools
import json
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from pipelines import join as module
from pipelines.join import Join, Listing, captured, listing, set_aside
from pipelines.local.hub import EmbeddedHub, Retention
from pipelines.local.hub.log import RECORD
from pipelines.run import RunError
from pipelines.settings import SourceEntry
from schemas.batch import Origin, Record
from schemas.digest import from_json
from schemas.ledger import Owing
from schemas.runs import runs
from tests.site import HUB, Site, alerts, stop, wait_for
from transforms.account import begin, settled
from transforms.capture import read_capture, write_capture
from transforms.capture import row as as_row
from transforms.gaps import gaps
from transforms.owed import aside_of, changed, debts, write
from transforms.read import captured as reading_module
from transforms.read.access import EventHubsAccess
from transforms.read.files.base import Part
from transforms.read.filesystems import Found
from transforms.read.frames import decode_message
from transforms.read.sdk import HubProperties
from transforms.state_store import StateStore

ARCHIVE: list[dict[str, Any]] = [{"file": {"folder": "archive"}, "name": "archive"}]
WITH_HEC = """\
  - splunk_hec: {{url: "{hec}", token: env:HEC_TOKEN, patience: {patience}, timeout: {patience}}}
    name: splunk
  - file: {{folder: archive}}
    name: archive
"""
DIGESTS = "  - file: {{folder: digests}}\n    name: counts\n    send: digests\n"
STORMS = "digests:\n  - {name: storms, window: {fixed: 1d}, by: [severity], samples: 0}\n"
MINUTE_MS = 60_000


class Capture:
    """Writes what a hub has into files, as Event Hubs Capture does; each time a window."""

    def __init__(self, hub: EmbeddedHub, folder: Path) -> None:
        self.folder = folder
        self._hub = hub
        self._next: Counter[str] = Counter()
        self._kept: list[tuple[str, list[dict[str, Any]]]] = []

    def keep(self, lag: int = 0) -> None:
        """Read what came since the last time, but for the last `lag` events of each partition."""
        for partition in map(str, range(len(self._hub.hubs[HUB].partitions))):
            self._kept.append((partition, [*self._rows(partition, lag)]))

    def write(self) -> None:
        """What was kept becomes files."""
        for partition, rows in self._kept:
            at = datetime.datetime.now(datetime.timezone.utc)
            folder = self.folder / "ns" / HUB / partition / f"{at:%Y/%m/%d/%H/%M}"
            folder.mkdir(parents=True, exist_ok=True)
            new = folder / ".new"
            new.write_bytes(write_capture(rows))
            new.replace(folder / f"{at:%S}.{at:%f}.avro")
        self._kept.clear()

    def _rows(self, partition: str, lag: int) -> Iterator[dict[str, Any]]:
        log = self._hub._log(HUB, partition)
        while (left := log.next - lag - self._next[partition]) > 0:
            found = log.read(self._next[partition], left, lambda: None)
            assert found is not None
            first, data, bounds = found
            assert first == self._next[partition], "the hub forgot it before Capture read it"
            for start, end in itertools.pairwise(bounds):
                at = start - bounds[0] + RECORD.size
                event = decode_message(data, at, end - bounds[0])
                record = Record(event.sequence, 0, event.enqueued_ms, event.body)
                self._next[partition] = event.sequence + 1
                yield {**as_row(record), "Offset": event.offset}


def files(site: Site, folder: Path) -> Listing:
    return listing(site.load().sources, [str(folder)])


@contextlib.contextmanager
def asked_directly(site: Site) -> Iterator[None]:
    """As `Site` has it for runs: the hub is asked without the SDK, and not claimed."""

    def properties(access: EventHubsAccess) -> HubProperties:
        hub = site.hub.hubs[HUB]
        return HubProperties([str(n) for n in range(len(hub.partitions))], hub.created_ms)

    def kept(access: EventHubsAccess, partition: str) -> range:
        info = site.hub.partition_info(HUB, partition)
        following = info.last_sequence_number + 1
        return range(following if info.is_empty else info.begin_sequence_number, following)

    with (
        site._asked_directly(),
        mock.patch.object(module, "hub_properties", properties),
        mock.patch.object(module, "kept_sequences", kept),
        mock.patch.object(module, "claim"),
        mock.patch.object(module, "_LOOK_SECONDS", 0.1),
    ):
        yield


class Joining:
    """A join in this process, beside the test."""

    def __init__(self, site: Site, capture: Capture, **how: Any) -> None:
        self.said: list[str] = []
        self.failed: list[BaseException] = []
        found = files(site, capture.folder)
        self.join = Join(site.load(), found, say=self.said.append, **how)
        self._site = site
        self._thread = threading.Thread(target=self._work, name="join", daemon=True)

    def _work(self) -> None:
        try:
            with asked_directly(self._site):
                self.join.run()
        except BaseException as error:
            self.failed.append(error)

    def __enter__(self) -> Joining:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.join.stop()
        self._thread.join(60)
        assert not self._thread.is_alive(), "the join did not end"
        if self.failed:
            raise self.failed[0]

    def wait_for(self, what: Callable[[], object], timeout: float = 60, why: str = "") -> None:
        wait_for(lambda: self.failed or what(), timeout, why)
        if self.failed:
            raise self.failed[0]


def refusal(site: Site, capture: Capture, **how: Any) -> str:
    """Why a join does not begin."""
    with asked_directly(site), pytest.raises(RunError) as caught:
        Join(site.load(), files(site, capture.folder), **how).run()
    return str(caught.value)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """Its hub keeps 200 events of a partition."""
    with Site(tmp_path, partitions=2, retention=Retention(events=200)) as made:
        made.write(sinks=ARCHIVE)
        yield made


@pytest.fixture
def capture(site: Site, tmp_path: Path) -> Capture:
    return Capture(site.hub, tmp_path / "capture")


def publish(site: Site, capture: Capture, sent: dict[str, bytes], lag: int = 0) -> None:
    """Put alerts on the hub, and let Capture write them before the hub forgets them."""
    bodies = [*sent.values()]
    for start in range(0, len(bodies), 80):
        site.publish(bodies[start : start + 80], 40)
        capture.keep(lag)
        capture.write()


def arrived(site: Site) -> Counter[str]:
    return Counter(line["id"] for line in site.archived())


def assert_whole(site: Site, records: int, sinks: tuple[str, ...] = ("archive",)) -> None:
    """Each partition's account says every event, and no gap."""
    for partition in "01":
        origin = Origin(site.source, partition)
        assert not gaps(site.store, origin)
    for sink in sinks:
        account = site.account(sink)
        assert account.holds
        assert account.records == records
        following = {
            p: site.hub.partition_info(HUB, p).last_sequence_number for p in site.positions(sink)
        }
        assert site.positions(sink) == following


# -------------------------------------------------------------------------------- as one stream


def test_each_event_comes_once_where_capture_and_hub_overlap_and_writes_go_on(
    site: Site, capture: Capture
) -> None:
    history, live = alerts(1_500), alerts(600, seed=2)
    publish(site, capture, history, lag=10)
    assert site.hub.partition_info(HUB, 0).begin_sequence_number > 500
    ended = threading.Event()
    bodies = [*live.values()]

    def keep_publishing() -> None:
        for start in range(0, len(bodies), 20):
            site.publish(bodies[start : start + 20], 10)
            capture.keep(lag=10)
            capture.write()
            if ended.wait(0.2):
                return

    publisher = threading.Thread(target=keep_publishing)
    with Joining(site, capture) as joining:
        publisher.start()
        try:
            publisher.join(60)
            joining.wait_for(lambda: len(arrived(site)) >= 2_100, why="all of it arrives")
        finally:
            ended.set()
            publisher.join()
    assert joining.join.live
    assert arrived(site) == Counter([*history, *live])
    assert_whole(site, 2_100)


def test_history_goes_on_in_rounds_while_the_hub_forgets_what_comes_next(
    site: Site, capture: Capture
) -> None:
    """While the first round is read, the hub loses more than Capture had: there is another."""
    history, meanwhile = alerts(400), alerts(600, seed=2)
    publish(site, capture, history)
    rounds: list[int] = []
    real = Join._round

    def one_more(self: Join, *args: Any) -> bool:
        well = real(self, *args)
        rounds.append(1)
        if len(rounds) == 1:
            publish(site, capture, meanwhile)
        return well

    with mock.patch.object(Join, "_round", one_more), Joining(site, capture) as joining:
        joining.wait_for(lambda: len(arrived(site)) >= 1_000)
    assert len(rounds) > 1
    assert arrived(site) == Counter([*history, *meanwhile])
    assert_whole(site, 1_000)


def test_an_outage_that_was_longer_than_retention_leaves_no_gap(
    site: Site, capture: Capture
) -> None:
    before, outage = alerts(100), alerts(900, seed=2)
    publish(site, capture, before)
    site.catch_up()
    publish(site, capture, outage)
    with Joining(site, capture) as joining:
        joining.wait_for(lambda: len(arrived(site)) >= 1_000)
    assert arrived(site) == Counter([*before, *outage])
    assert_whole(site, 1_000)


def test_a_repeat_is_told_across_the_seam(site: Site, capture: Capture) -> None:
    history = alerts(300)
    publish(site, capture, history)
    again = [*history.values()][-20:]
    with Joining(site, capture) as joining:
        joining.wait_for(lambda: joining.join.live)
        site.publish(again, 10)
        joining.wait_for(lambda: site.account("archive").records == 320)
    assert arrived(site) == Counter([*history])
    assert site.account("archive").outcomes.repeat == 20
    assert_whole(site, 320)


def test_what_a_sink_came_to_be_owed_of_history_is_paid_live_though_the_hub_has_it_no_more(
    site: Site, capture: Capture
) -> None:
    site.write(sinks=WITH_HEC, patience=0.5)
    history = alerts(1_000)
    publish(site, capture, history)
    site.hec.refuse()
    with Joining(site, capture) as joining:
        joining.wait_for(lambda: joining.join.live, why="history is through")
        assert site.account("splunk").outcomes.owed == 1_000
        site.hec.accept()
        joining.wait_for(lambda: not any(d.iou.count for d in debts(site.store, "splunk")))
    for found in (Counter(site.hec.ids()), arrived(site)):
        assert set(found) == set(history)
    assert site.account("splunk").outcomes.dead == 0
    assert_whole(site, 1_000, ("splunk", "archive"))


def test_digests_tell_each_alert_once_over_history_and_live(site: Site, capture: Capture) -> None:
    digests = "  - file: {{folder: archive}}\n    name: archive\n" + DIGESTS
    site.write(sinks=digests, more=STORMS)
    history, live = alerts(600), alerts(60, seed=2)
    publish(site, capture, history)
    slow = mock.patch.object(reading_module, "_BUNDLE_BYTES", 20_000)
    with slow, Joining(site, capture) as joining:
        joining.wait_for(lambda: len(arrived(site)) > 50)
        assert site.store.get("firing"), "a crash now would have told nobody that panes may come"
    with Joining(site, capture) as joining:
        joining.wait_for(lambda: joining.join.live)
        site.publish([*live.values()], 10)
        joining.wait_for(lambda: len(arrived(site)) >= 660)
    told = [from_json(json.dumps(line["raw"]).encode()) for line in site.archived("digests")]
    assert sum(each.total for each in told) == 660
    assert_whole(site, 660)


def test_what_is_set_aside_is_all_that_any_sink_is_owed_whenever_it_came_to_be(
    tmp_path: Path,
) -> None:
    store = StateStore(str(tmp_path / "state"))
    origin = Origin("ns/hub/group", "0")
    data = write_capture(as_row(Record(n, 0, 1_000 + n, b"%d" % n)) for n in range(1_000))
    (tmp_path / "00.avro").write_bytes(data)
    rows = {origin: reading_module.Row([Part(str(tmp_path / "00.avro"))])}
    begin(store, "ab", origin, 999)
    owed = {"a": [*range(0, 300, 30), *range(700, 710)], "b": [*range(90, 400)]}
    for sink, numbers in owed.items():
        of = runs((n, index) for n in numbers for index in (0, 1))
        write(store, sink, origin.source, origin.partition, [Owing(999, of, 1_000)])
        changed(store, sink)
        set_aside(store, "ab", rows)
        files = aside_of(store, origin.source, origin.partition)
        kept = {
            record.sequence
            for file in files
            for record, _ in read_capture(store.get(file.path) or b"")
        }
        assert kept >= {*numbers}
        for file in files:
            assert kept >= {*range(file.first, file.last + 1)}, "a file lacks what it says it has"
    assert not kept & {*range(450, 700)}


def test_it_stops_in_history_and_the_same_command_goes_on(site: Site, capture: Capture) -> None:
    history = alerts(1_000)
    publish(site, capture, history)
    slow = mock.patch.object(reading_module, "_BUNDLE_BYTES", 20_000)
    with slow, Joining(site, capture) as joining:
        joining.wait_for(lambda: len(arrived(site)) > 50)
    assert not joining.join.live
    assert 50 < site.account("archive").records < 1_000
    with Joining(site, capture) as joining:
        joining.wait_for(lambda: len(arrived(site)) >= 1_000)
        assert not any("read again first" in line for line in joining.said)
    assert arrived(site) == Counter([*history])
    assert_whole(site, 1_000)


# ------------------------------------------------------------------------------------- gaps


def test_what_capture_has_not_written_yet_is_waited_for(site: Site, capture: Capture) -> None:
    first, late = alerts(200), alerts(640, seed=2)
    publish(site, capture, first)
    for start in range(0, 640, 80):
        site.publish([*late.values()][start : start + 80], 40)
        capture.keep()  # and the hub forgets it before it is written
    with Joining(site, capture) as joining:
        joining.wait_for(lambda: sum("not written" in line for line in joining.said) == 2)
        time.sleep(0.3)  # three looks
        assert arrived(site) == Counter([*first])
        assert not joining.join.live
        capture.write()
        joining.wait_for(lambda: len(arrived(site)) >= 840)
    assert arrived(site) == Counter([*first, *late])
    assert_whole(site, 840)


def test_what_capture_never_writes_is_a_gap_that_is_said(site: Site, capture: Capture) -> None:
    first, lost_, kept = alerts(100), alerts(200, seed=2), alerts(400, seed=3)
    publish(site, capture, first)
    for bodies in (lost_, kept):
        site.publish([*bodies.values()], 100)
    with Joining(site, capture, wait=0.3) as joining:
        joining.wait_for(lambda: len(arrived(site)) >= 500)
    assert arrived(site) == Counter([*first, *kept])
    for partition in "01":
        (gap,) = gaps(site.store, Origin(site.source, partition))
        kept_from = site.hub.partition_info(HUB, partition).begin_sequence_number
        assert (gap.first, gap.last) == (capture._next[partition], kept_from - 1)
    assert sum("not written" in line for line in joining.said) == 2
    assert sum("are gone" in line for line in joining.said) == 2


# --------------------------------------------------------------------------- refused beforehand


def test_files_of_no_partition_of_the_hub_are_refused(site: Site, capture: Capture) -> None:
    publish(site, capture, alerts(10))
    (capture.folder / "ns" / HUB / "1").rename(capture.folder / "ns" / HUB / "7")
    assert "partition 7, which" in refusal(site, capture)
    assert not site.archived() and not settled(site.store, "archive")


def test_files_of_another_hub_are_refused_by_their_names(site: Site, capture: Capture) -> None:
    publish(site, capture, alerts(10))
    (capture.folder / "ns" / HUB).rename(capture.folder / "ns" / "other")
    with pytest.raises(RunError, match="of hub ns/other"):
        files(site, capture.folder)()


def test_files_of_another_hub_of_this_name_are_refused_by_an_event_that_both_have(
    site: Site, capture: Capture, tmp_path: Path
) -> None:
    now = time.time_ns() // 1_000_000
    with EmbeddedHub(tmp_path / "other", {HUB: 2}, clock=lambda: now + 60_000) as other:
        theirs = Capture(other, capture.folder)
        for partition in range(2):
            other.publish(HUB, alerts(60).values(), partition)
        theirs.keep()
        theirs.write()
    site.publish([*alerts(100).values()])
    assert "the hub has that event of another time" in refusal(site, capture)
    assert not site.archived() and not settled(site.store, "archive")


def test_files_that_are_older_than_the_hub_are_refused(site: Site, capture: Capture) -> None:
    publish(site, capture, alerts(10))
    for day in capture.folder.glob("ns/*/*/*/*/*"):
        day.rename(day.with_name("01" if day.name != "01" else "02"))
        day.parent.rename(day.parent.with_name("01"))
        day.parents[1].rename(day.parents[1].with_name("2020"))
    assert "is older than the hub" in refusal(site, capture)


def test_a_hub_that_was_made_anew_is_refused(site: Site, capture: Capture) -> None:
    publish(site, capture, alerts(10))
    begin(site.store, ["archive"], Origin(site.source, "0"), 5_000)
    assert "it was made anew" in refusal(site, capture)


def test_a_sink_that_stands_further_on_is_refused_and_nothing_begins(
    site: Site, capture: Capture
) -> None:
    publish(site, capture, alerts(600))
    for partition in "01":
        begin(site.store, ["archive"], Origin(site.source, partition), 250)
    said = refusal(site, capture)
    assert "sink archive stands at event 250" in said
    assert "replay without --then-live first" in said
    assert not site.archived()


def test_a_sink_that_was_joined_before_is_not(site: Site, capture: Capture) -> None:
    first, more = alerts(300), alerts(60, seed=2)
    publish(site, capture, first)
    with Joining(site, capture) as joining:
        joining.wait_for(lambda: joining.join.live)
    publish(site, capture, more)
    with Joining(site, capture) as joining:
        joining.wait_for(lambda: len(arrived(site)) >= 360)
    assert arrived(site) == Counter([*first, *more])
    assert_whole(site, 360)


def test_another_run_in_the_state_folder_is_refused(site: Site, capture: Capture) -> None:
    publish(site, capture, alerts(10))
    site.store.prepare()
    with site.store.lock("run"), pytest.raises(OSError, match="another `alertbeam run`"):
        Join(site.load(), files(site, capture.folder)).run()


def test_the_lock_is_held_in_history_and_live(site: Site, capture: Capture) -> None:
    publish(site, capture, alerts(300))
    free: list[bool] = []
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(0.01):
            try:
                with site.store.lock("run"):
                    free.append(True)
            except OSError:
                free.append(False)

    with Joining(site, capture) as joining:
        joining.wait_for(lambda: joining.join.began)
        looking = threading.Thread(target=look)
        looking.start()
        joining.wait_for(lambda: joining.join.live and len(arrived(site)) >= 300)
        time.sleep(0.2)
        ended.set()
        looking.join()
    assert len(free) > 10 and not any(free)


# ------------------------------------------------------------------------------------- files


def test_whose_files_are_is_told_by_their_paths() -> None:
    def source(namespace: str, hub: str) -> SourceEntry:
        access = EventHubsAccess(namespace=f"{namespace}.servicebus.windows.net", hub=hub)
        return SourceEntry(event_hubs=access)

    def paths(*found: str) -> list[Found]:
        return [Found(f"/lake/{path}/2026/03/04/10/05/00.avro", 1_000, 5) for path in found]

    said: list[str] = []
    sources = [source("one", "alerts"), source("two", "alerts"), source("one", "other")]
    found = captured(
        sources, [*paths("one/alerts/3", "two/alerts/3", "one/other/0"), Found("/lake/x", 1, 5)],
        say=said.append,
    )  # fmt: skip
    assert [f"{o.source.split('.')[0]}/{o.source.split('/')[1]}/{o.partition}" for o in found] == [
        "one/alerts/3", "two/alerts/3", "one/other/0",
    ]  # fmt: skip
    assert "1 files are passed over" in said[0] and "/lake/x" in said[0]
    with pytest.raises(RunError, match="three/alerts"):
        captured(sources, paths("three/alerts/0"))
    (part,) = captured(sources[:1], paths("any/alerts/0")).popitem()[1]
    day = 24 * 60 * MINUTE_MS
    assert part.at_ms % day == (10 * 60 + 5) * MINUTE_MS and part.size == 1_000
    assert not captured(sources[:1], paths("any/alerts/0"), since_ms=part.at_ms + day)
    assert captured(sources[:1], paths("any/alerts/0"), since_ms=part.at_ms + 14 * MINUTE_MS)


# ------------------------------------------------------------------------------------- killed


def command(site: Site, capture: Capture) -> subprocess.Popen[str]:
    return site.start("replay", str(capture.folder), "-c", str(site.settings), "--then-live")


@pytest.mark.timeout(240)
def test_killed_in_history_and_live_each_event_comes_and_few_come_twice(
    tmp_path: Path,
) -> None:
    with Site(tmp_path, partitions=2, retention=Retention(events=1_000)) as site:
        site.write(sinks=ARCHIVE)
        capture = Capture(site.hub, tmp_path / "capture")
        history, live = alerts(12_000), alerts(600, seed=2)
        bodies = [*history.values()]
        for start in range(0, len(bodies), 1_000):
            site.publish(bodies[start : start + 1_000], 500)
            capture.keep(lag=300)
            capture.write()

        def written(least: int) -> bool:
            sizes = (path.stat().st_size for path in (tmp_path / "archive").glob("*"))
            return process.poll() is not None or sum(sizes) >= least

        def settled_all(records: int) -> bool:
            return process.poll() is not None or site.account("archive").records >= records

        process = command(site, capture)
        for least in (1, 8_000_000):  # bytes; in history
            wait_for(partial(written, least), 60)
            output = stop(process, signal.SIGKILL)
            assert process.returncode == -signal.SIGKILL, output
            assert "history is through" not in output
            process = command(site, capture)
        wait_for(partial(settled_all, 12_000), 90)
        bodies = [*live.values()]
        for start in range(0, 300, 20):
            site.publish(bodies[start : start + 20], 10)
            time.sleep(0.02)
        assert "history is through" in stop(process, signal.SIGKILL)
        process = command(site, capture)
        site.publish(bodies[300:])
        wait_for(partial(settled_all, 12_600), 60)
        output = stop(process)
        assert process.returncode == 0, output

        found = arrived(site)
        assert set(found) == {*history, *live}
        twice = sum(found.values()) - 12_600
        print(f"\ntwice: {twice}, at most {max(found.values())} times")
        assert max(found.values()) <= 1 + 3
        assert twice <= 2 * 6_000 + 300, "more than a bundle of history each time, and what came"
        assert_whole(site, 12_600)
