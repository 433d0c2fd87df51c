"""A month of made-up history, and what replaying it costs against a plain loop over its files.

    python -m benchmarks.history make FOLDER [--alerts N] [--layout LAYOUT]
    python -m benchmarks.history measure [--alerts N] [--folder FOLDER]

Layouts: Event Hubs Capture by its default path template, a file a partition and five minutes
(`capture`: Avro, deflate; `capture-null`: not packed), and Log Analytics data export (`PT05M`: JSON
lines). The same number and seed give the same records.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import random
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import fastavro

from benchmarks.figures import Figure
from pipelines.local.events import (
    defender_alert,
    ot_alert,
    recommendation,
    security_alert,
    security_incident,
    sign_in,
)
from schemas.batch import Batch, Origin, Record
from transforms.capture import CAPTURE_SCHEMA
from transforms.deduplicate import Seen, deduplicate_batch
from transforms.drift import Watch
from transforms.enrich import enrich_batch_at
from transforms.known import Known, skip_known
from transforms.parse import parse_batch
from transforms.replayed import Taken, take_batch
from transforms.route import compile_where, route_batch
from transforms.sinks.file import File, FileSettings
from transforms.state_store import StateStore
from transforms.subscription_history import History
from transforms.write import parcels

__all__ = ["LAYOUTS", "Took", "Written", "history", "measure", "write_history"]

LAYOUTS = ("capture", "capture-null", "PT05M")

_BEGIN = datetime.datetime(2026, 3, 1, tzinfo=datetime.timezone.utc)
_DAYS = 30
_PARTITIONS = 4
_WINDOW_SECONDS = 300
_REPEATS = 0.1  # of what came among the last:
_RECENT = 2_000
_SHAPES = 400
_BLOCK_BYTES = 64_000
_BATCH = 200
_HORIZON_MS = 24 * 3600 * 1000
_ALERTS = 1_000_000
_ROUNDS = 3
_SETTINGS = """\
sinks:
  - file: {{folder: {out}, sync: false}}
state: {state}
"""
_HUB = ("contoso", "defender")
_WORKSPACE = (
    "WorkspaceResourceId=/subscriptions/11111111-aaaa-4aaa-8aaa-000000000001/resourcegroups/soc"
    "/providers/microsoft.operationalinsights/workspaces/soc"
)
_KINDS = (  # of a hundred, what, and where its identity is
    (84, defender_alert, "SystemAlertId"),
    (6, security_alert, "SystemAlertId"),
    (4, security_incident, "IncidentName"),
    (2, recommendation, "name"),
    (2, sign_in, "properties.id"),
    (2, ot_alert, "SystemAlertId"),
)
_PARSED = fastavro.parse_schema(CAPTURE_SCHEMA)


# ----------------------------------------------------------------------------------- making it


class _Shape:
    """An event as pieces of JSON, between which its identity and its time go."""

    def __init__(self, event: dict[str, Any], where: str, at: str) -> None:
        found: Any = event
        for name in where.split("."):
            found = found[name]
        identity = found.encode()
        body = json.dumps(event, separators=(",", ":")).encode()
        self._pieces = re.split(b"(%b|%b)" % (re.escape(identity), re.escape(at.encode())), body)
        self._ids = [n for n, piece in enumerate(self._pieces) if piece == identity]
        self._times = [n for n, piece in enumerate(self._pieces) if piece == at.encode()]
        self._identity = identity[:-8]

    def fill(self, number: int, at: bytes) -> bytes:
        pieces = self._pieces
        identity = b"%b%08d" % (self._identity, number)
        for place in self._ids:
            pieces[place] = identity
        for place in self._times:
            pieces[place] = at
        return b"".join(pieces)


def _shapes(rng: random.Random) -> list[_Shape]:
    at = _BEGIN.replace(microsecond=123_456)
    text = f"{at:%Y-%m-%dT%H:%M:%S}.{at.microsecond:06d}0Z"
    kinds = [entry for entry in _KINDS for _ in range(entry[0])]
    return [_Shape(make(rng, at), where, text) for _, make, where in rng.choices(kinds, k=_SHAPES)]


class _Event(NamedTuple):
    at_ms: int
    body: bytes
    is_new: bool


def _windows(
    alerts: int, seed: int, days: int
) -> Iterator[tuple[datetime.datetime, list[list[_Event]]]]:
    """What every five minutes have, by partition."""
    rng = random.Random(seed)
    shapes = _shapes(rng)
    recent: deque[bytes] = deque(maxlen=_RECENT)
    windows = days * 86_400 // _WINDOW_SECONDS
    cells = windows * _PARTITIONS
    number = 0
    for window in range(windows):
        begin = _BEGIN + datetime.timedelta(seconds=window * _WINDOW_SECONDS)
        begin_ms = int(begin.timestamp() * 1000)
        hour = f"{begin:%Y-%m-%dT%H:}".encode()
        found: list[list[_Event]] = []
        for cell in range(window * _PARTITIONS, (window + 1) * _PARTITIONS):
            count = alerts * (cell + 1) // cells - alerts * cell // cells
            events = []
            for place in range(count):
                after_ms = place * _WINDOW_SECONDS * 1000 // count
                is_new = not recent or rng.random() >= _REPEATS
                if is_new:
                    seconds, ms = divmod(after_ms, 1000)
                    minute = begin.minute + seconds // 60
                    at = b"%b%02d:%02d.%03d0000Z" % (hour, minute, seconds % 60, ms)
                    body = shapes[number % _SHAPES].fill(number, at)
                    recent.append(body)
                    number += 1
                else:
                    body = recent[rng.randrange(len(recent))]
                events.append(_Event(begin_ms + after_ms, body, is_new))
            found.append(events)
        yield begin, found


class Written(NamedTuple):
    """alerts: records in all; different: those that are no repeats."""

    alerts: int
    different: int
    files: int
    bytes: int


def write_history(
    folder: Path, alerts: int, layout: str = "capture", seed: int = 1, days: int = _DAYS
) -> Written:
    """So many days of it, in one layout."""
    write = _write_lines if layout == "PT05M" else _write_capture
    done = Written(0, 0, 0, 0)
    for begin, found in _windows(alerts, seed, days):
        paths = write(folder, begin, found, done, "null" if layout == "capture-null" else "deflate")
        events = [event for of_partition in found for event in of_partition]
        done = Written(
            done.alerts + len(events),
            done.different + sum(event.is_new for event in events),
            done.files + len(paths),
            done.bytes + sum(path.stat().st_size for path in paths),
        )
    return done


def _write_lines(
    folder: Path, begin: datetime.datetime, found: list[list[_Event]], done: Written, codec: str
) -> list[Path]:
    path = folder / _WORKSPACE / f"{begin:y=%Y/m=%m/d=%d/h=%H/m=%M}" / "PT05M.json"
    path.parent.mkdir(parents=True)
    events = sorted((each for one in found for each in one), key=lambda each: each.at_ms)
    with path.open("wb") as file:
        file.writelines(b"%b\n" % event.body for event in events)
    return [path]


def _write_capture(
    folder: Path, begin: datetime.datetime, found: list[list[_Event]], done: Written, codec: str
) -> list[Path]:
    paths = []
    for partition, events in enumerate(found):
        path = folder.joinpath(*_HUB, str(partition), f"{begin:%Y/%m/%d/%H/%M/%S}.avro")
        path.parent.mkdir(parents=True)
        with path.open("wb") as file:
            fastavro.writer(
                file, _PARSED, _rows(events, done.alerts), codec, sync_interval=_BLOCK_BYTES,
                codec_compression_level=1 if codec == "deflate" else None,
            )  # fmt: skip
        paths.append(path)
    return paths


def _rows(events: list[_Event], sequence: int) -> Iterator[dict[str, Any]]:
    """As Capture writes them."""
    for number, event in enumerate(events, sequence):
        at = datetime.datetime.fromtimestamp(event.at_ms / 1000, datetime.timezone.utc)
        yield {
            "SequenceNumber": number,
            "Offset": str(number * 2_700),
            "EnqueuedTimeUtc": f"{at:%-m/%-d/%Y %-I:%M:%S %p}",
            "SystemProperties": {"x-opt-enqueued-time": event.at_ms},
            "Properties": {},
            "Body": event.body,
        }


# ------------------------------------------------------------------------------ the plain loop


def _loop(paths: Sequence[Path], out: Path) -> None:
    """All that a replay calls for a batch, in its order, but for Beam, the delivery engine, the
    accounts and threads: over the same files, to the same kind of files."""
    sink = File("archive", FileSettings(folder=out, sync=False))
    wanted, seen = compile_where(None), Seen(_HORIZON_MS)
    store = StateStore(str(out.with_name("state")))
    shapes, subscriptions = Watch("loop", store), History.load(store)
    has = Known(store, {sink.name: (None,)}, _HORIZON_MS, subscriptions.at)
    connection = sink.connect()
    for batch in _batches(_read(paths)):
        parsed, _ = parse_batch(batch)
        shapes.look(parsed.alerts)
        taken = take_batch(parsed, Taken("loop"))
        seen.turn(max((alert.enqueued_ms for alert in taken.alerts), default=0))
        fresh, _ = deduplicate_batch(taken, seen)
        seen.fresh.clear()
        routed = route_batch(enrich_batch_at(fresh, subscriptions), sink.name, wanted)
        assert routed is not None
        if encoded := parcels(sink, skip_known(routed, sink.name, has), -1):
            connection.send([parcel.payload for parcel in encoded], 60)
    connection.close()
    shapes.save()


def _read(paths: Sequence[Path]) -> Iterator[tuple[int, bytes]]:
    files = [file for path in paths for file in path.rglob("*.*") if file.is_file()]
    for path in sorted(files, key=lambda path: path.parts[-6:]):
        with path.open("rb") as file:
            if path.suffix == ".json":
                yield from ((0, line) for line in file)
                continue
            for block in fastavro.block_reader(file):
                for row in block:
                    yield row["SystemProperties"]["x-opt-enqueued-time"], row["Body"]


def _batches(found: Iterable[tuple[int, bytes]]) -> Iterator[Batch]:
    origin, records = Origin("history", "0"), []
    for number, (at_ms, body) in enumerate(found):
        records.append(Record(number, 0, at_ms, body))
        if len(records) == _BATCH:
            yield Batch(origin, records[0].sequence, number, None, records)
            records = []
    if records:
        yield Batch(origin, records[0].sequence, records[-1].sequence, None, records)


# --------------------------------------------------------------------------------- measuring


class Took(NamedTuple):
    """What one process (and those that it started) took; rss: at its most, in bytes."""

    seconds: float
    cpu: float
    rss: int
    lines: int


def _run(paths: Sequence[Path], folder: Path, workers: int) -> Took:
    """workers: processes of a replay; 0: the plain loop. One process has one core."""
    with tempfile.TemporaryDirectory(dir=folder) as made:
        out, log = Path(made) / "out", Path(made) / "log"
        if workers:
            settings = Path(made) / "settings.yaml"
            settings.write_text(_SETTINGS.format(out=out, state=Path(made) / "state"))
            command = ["-m", "pipelines.cli", "replay", "-c", settings, "--workers", workers]
            command += ["--quiet"]
        else:
            command = ["-m", "benchmarks.history", "loop", out]
        cores = sorted(os.sched_getaffinity(0))
        with log.open("wb") as file:
            began = time.monotonic()
            process = subprocess.Popen(
                [sys.executable, *map(str, (*command, *paths))], stdout=file, stderr=file,
                preexec_fn=lambda: os.sched_setaffinity(0, cores if workers > 1 else cores[-1:]),
            )  # fmt: skip
            _, status, used = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            seconds = time.monotonic() - began
        if process.returncode:
            raise RuntimeError(
                f"{command[1:3]} ended with {process.returncode}:\n{log.read_text()}"
            )
        lines = sum(map(_lines, out.iterdir()))
        return Took(seconds, used.ru_utime + used.ru_stime, used.ru_maxrss * 1024, lines)


def _lines(path: Path) -> int:
    with path.open("rb") as file:
        return sum(chunk.count(b"\n") for chunk in iter(lambda: file.read(1 << 20), b""))


def measure(
    alerts: int, layout: str, folder: Path, rounds: int, days: int = _DAYS
) -> Iterator[tuple[Took, Took]]:
    """The loop and the replay, in turn, over a history that is made for it. All must arrive."""
    with tempfile.TemporaryDirectory(dir=folder) as made:
        written = write_history(Path(made), alerts, layout, days=days)
        for _ in range(rounds):
            pair = _run([Path(made)], folder, 0), _run([Path(made)], folder, 1)
            for took in pair:
                if took.lines != written.different:
                    raise RuntimeError(f"{took.lines:,} arrived of {written.different:,}")
            yield pair


def history(alerts: int = _ALERTS, folder: Path | None = None) -> Iterator[Figure]:
    """Medians of interleaved rounds."""
    with tempfile.TemporaryDirectory(dir=folder) as made:
        room = Path(made)
        for layout in LAYOUTS:
            pairs = [*measure(alerts, layout, room, _ROUNDS if layout == LAYOUTS[0] else 1)]
            yield from _compared(layout, alerts, pairs)
        yield from _wide(alerts, room)


def _compared(layout: str, alerts: int, pairs: list[tuple[Took, Took]]) -> Iterator[Figure]:
    def median(of: Callable[[Took, Took], float]) -> float:
        return statistics.median(of(*pair) for pair in pairs)

    yield Figure(f"{layout}: plain loop", median(lambda loop, _: alerts / loop.seconds), "alerts/s")
    yield Figure(f"{layout}: replay", median(lambda _, one: alerts / one.seconds), "alerts/s")
    yield Figure(
        f"{layout}: replay, of the loop's rate", median(lambda a, b: a.seconds / b.seconds), ""
    )
    yield Figure(f"{layout}: the same by CPU time", median(lambda a, b: a.cpu / b.cpu), "")
    yield Figure(
        f"{layout}: a million alerts take", median(lambda _, b: b.cpu / alerts * 1e6), "CPU s"
    )


def _wide(alerts: int, room: Path) -> Iterator[Figure]:
    """Two processes against one, and the memory of a fifth of it against all."""
    whole = room / "whole"
    written = write_history(whole, alerts)
    first = [*whole.glob("/".join((*_HUB, "*", f"{_BEGIN:%Y/%m}", "0[1-6]")))]
    one, two, fifth = _run([whole], room, 1), _run([whole], room, 2), _run(first, room, 1)
    shutil.rmtree(whole)
    yield Figure("two processes, of one's rate", one.seconds / two.seconds, "")
    yield Figure("two processes: arrived twice", two.lines - written.different, "alerts")
    yield Figure(f"memory at most, {alerts:,} alerts", one.rss / 2**20, "MiB")
    yield Figure(f"memory at most, {fifth.lines:,} of them", fifth.rss / 2**20, "MiB")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.history")
    commands = parser.add_subparsers(required=True, dest="command")
    make = commands.add_parser("make", help="write a history")
    make.add_argument("folder", type=Path)
    make.add_argument("--layout", choices=LAYOUTS, default=LAYOUTS[0])
    of_it = commands.add_parser("measure", help="make histories, replay them, and delete them")
    of_it.add_argument("--folder", type=Path, help="where there is room")
    for each in (make, of_it):
        each.add_argument("--alerts", type=int, default=_ALERTS)
    loop = commands.add_parser("loop")
    loop.add_argument("out", type=Path)
    loop.add_argument("paths", type=Path, nargs="+")
    given = parser.parse_args()
    if given.command == "loop":
        _loop(given.paths, given.out)
    elif given.command == "make":
        began = time.monotonic()
        written = write_history(given.folder, given.alerts, given.layout)
        took = time.monotonic() - began
        print(
            f"{written.alerts:,} alerts, {written.different:,} of them different, in "
            f"{written.files:,} files of {written.bytes:,} bytes; {took:.0f} s"
        )
    else:
        for figure in history(given.alerts, given.folder):
            print(f"{figure.what}: {figure.value:,.3g} {figure.unit}", flush=True)


if __name__ == "__main__":
    main()
