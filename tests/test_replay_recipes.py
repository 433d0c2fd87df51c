"""docs/replay.md: its commands, run as they stand on the page, do what it says."""

from __future__ import annotations

import json
import random
import re
import shlex
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines.cli import app
from pipelines.local.events import defender_alert
from pipelines.local.receivers import HecReceiver
from schemas.batch import Record
from schemas.kinds import understand
from tests.site import call
from transforms.capture import row, utc, write_capture

PAGE = Path(__file__).parent.parent / "docs" / "replay.md"
SPLUNK = "https://splunk.example.com:8088"
DAY_MS = 86_400_000
TOKEN = "a-token-for-tests"


def section(heading: str) -> str:
    """What stands under a heading of the page."""
    found = re.search(rf"(?ms)^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", PAGE.read_text("utf-8"))
    assert found, f"no {heading!r} on the page"
    return found[1]


def commands(heading: str) -> list[list[str]]:
    """The section's `$ alertbeam …` lines, in order, without `alertbeam`."""
    blocks = re.findall(r"(?ms)^```console\n(.*?)^```", section(heading))
    shown = [line for block in blocks for line in block.splitlines()]
    assert all(line.startswith("$ alertbeam ") for line in shown), shown
    return [shlex.split(line.removeprefix("$ alertbeam ")) for line in shown]


class Place:
    """A folder with the page's settings, a Splunk, and history that is made up."""

    def __init__(self, folder: Path, splunk: HecReceiver) -> None:
        self.folder = folder
        self.splunk = splunk
        self.history = folder / "history"
        self.now_ms = int(time.time() * 1000)
        self._rng = random.Random(8)
        self._sequence = 0
        for name, text in re.findall(
            r"(?ms)^`(\S+\.yaml)`:\n\n```yaml\n(.*?)^```$", PAGE.read_text("utf-8")
        ):
            assert SPLUNK in text
            (folder / name).write_text(text.replace(SPLUNK, splunk.url))

    def captured(self, days_ago: float, count: int, **changes: Any) -> list[str]:
        """A file of Event Hubs Capture from so many days ago; the ids of its alerts, in order."""
        at_ms = self.now_ms - int(days_ago * DAY_MS)
        rows, ids = [], []
        for n in range(count):
            body = json.dumps(defender_alert(self._rng, utc(at_ms + n * 1000), **changes)).encode()
            rows.append(row(Record(self._sequence, 0, at_ms + n * 1000, body)))
            ids.append(understand(body).event_id)
            self._sequence += 1
        path = self.history / f"contoso/defender/0/{utc(at_ms):%Y/%m/%d/%H/%M/%S}.avro"
        path.parent.mkdir(parents=True)
        path.write_bytes(write_capture(rows))
        return ids

    def run(self, *arguments: str) -> tuple[int, str]:
        return call(self.folder, *arguments, SPLUNK_TOKEN=TOKEN)

    def archived(self) -> list[str]:
        """The ids in the files of the sink `archive`, in the order in which they were written:
        their names tell it by the second."""
        files = (self.folder / "archive").glob("*.ndjson*")
        paths = sorted(files, key=lambda path: path.stat().st_mtime_ns)
        return [json.loads(line)["id"] for path in paths for line in path.read_bytes().splitlines()]

    def kept(self) -> list[str]:
        """What lies in the state folder."""
        state = self.folder / "state"
        return sorted(str(path.relative_to(state)) for path in state.rglob("*") if path.is_file())


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with HecReceiver(token=TOKEN, folder=tmp_path / "received") as splunk:
        yield Place(tmp_path, splunk)


def test_a_new_siem_is_filled_with_last_month_once_and_with_what_comes_after(place: Place) -> None:
    dry, fill, again = commands("Fill a new SIEM")
    assert "--dry-run" in dry and [*dry[:-1]] == fill == again
    older = place.captured(33, 20)
    month = [*place.captured(30, 150), *place.captured(12, 40), *place.captured(1, 10)]

    code, said = place.run(*dry)
    assert code == 0, said
    assert f"{len(month):,}" in said
    assert (place.splunk.ids(), place.kept()) == ([], []), "nothing is sent, nothing is written"

    code, said = place.run(*fill)
    assert code == 0, said
    assert place.splunk.ids() == month, "in order, each once"
    assert not {*older} & {*month} and place.archived() == [], "to this sink alone"
    (report,) = [line for line in said.splitlines() if line.startswith("report: ")]
    assert Path(report.removeprefix("report: ")).exists()
    times = [event["time"] for event in place.splunk.events()]
    assert place.now_ms / 1000 - times[0] == pytest.approx(30 * 86_400, abs=5), "as they were"

    new = place.captured(0.5, 25)
    code, said = place.run(*again)
    assert code == 0, said
    assert place.splunk.ids() == month + new
    code, said = place.run(*again)
    assert (code, place.splunk.ids()) == (0, month + new), said
    assert "nothing is new" in said


def test_replayed_alerts_are_marked_with_the_name_of_the_replay(place: Place) -> None:
    place.captured(3, 5)
    *_, fill = commands("Fill a new SIEM")
    code, said = place.run(*fill, "--name", "friday")
    assert code == 0, said
    marks = [event["event"]["alertbeam_replay"] for event in place.splunk.events()]
    assert marks == ["friday"] * 5


def test_an_outages_gap_is_closed_with_what_the_sink_lacks_and_with_nothing_else(
    place: Place,
) -> None:
    """It went down in the middle of the range's first file: what it had before is no part of it."""
    gap, report = commands("Close an outage's gap")
    had = place.captured(5.5, 30)
    code, said = place.run("replay", "history/", "--name", "as-if-live")
    assert (code, place.archived(), place.splunk.ids()) == (0, had, had), said
    place.captured(7, 10)  # before, and after: not in the range
    missed = [*place.captured(4.5, 60), *place.captured(3.5, 60)]
    place.captured(1, 10)

    code, said = place.run(*gap)
    assert code == 0, said
    assert place.archived() == had + missed
    assert place.splunk.ids() == had, "to the other sink nothing is sent"
    code, said = place.run(*gap)
    assert (code, place.archived()) == (0, had + missed), said
    code, said = place.run(*report)
    assert code == 0 and "holds" in said, said

    code, said = place.run(*gap, "--name", "lost-index", "--again")
    assert code == 0, said
    assert place.archived() == had + missed + had + missed, "`--again` sends all of it"


def test_what_a_sink_has_is_known_however_few_alerts_a_day_has(place: Place) -> None:
    """Files of a few alerts are read as one batch, over many days."""
    *_, fill = commands("Fill a new SIEM")
    ids = [found for day in range(29, 0, -2) for found in place.captured(day, 3)]
    code, said = place.run(*fill)
    assert (code, place.splunk.ids()) == (0, ids), said
    code, said = place.run(*fill, "--name", "once-more")
    assert (code, place.splunk.ids()) == (0, ids), said


def test_a_change_is_tried_on_last_month_and_sends_nothing(place: Place) -> None:
    (tried,) = commands("Try a change")
    place.captured(20, 30, Severity="High")
    low = place.captured(10, 12, Severity="Low")
    code, said = place.run(*tried)
    assert code == 0, said
    assert "new_siem" in said and f"{len(low)}" in said
    page = (place.folder / tried[tried.index("--page") + 1]).read_text("utf-8")
    assert "new_siem" in page and "<script" not in page
    assert (place.splunk.ids(), place.archived(), place.kept()) == ([], [], [])


def test_a_schedule_sends_what_is_new_late_and_grown_files_too(place: Place) -> None:
    (scheduled,) = commands("On a schedule")
    first = place.captured(9, 20)
    assert place.run(*scheduled)[0] == 0
    code, said = place.run(*scheduled)
    assert (code, place.archived()) == (0, first), said

    late = place.captured(11, 5)
    export = place.history / "am-securityalert/y=2026/m=03/d=04/h=05/m=00/PT05M.json"
    export.parent.mkdir(parents=True)
    rows = [json.dumps(defender_alert(place._rng, utc(place.now_ms))) for _ in range(6)]
    export.write_text("".join(f"{line}\n" for line in rows[:4]))
    code, said = place.run(*scheduled)
    assert code == 0, said
    exported = [understand(line.encode()).event_id for line in rows]
    assert sorted(place.archived()) == sorted(first + late + exported[:4])

    with export.open("a") as file:
        file.write("".join(f"{line}\n" for line in rows[4:]))
    code, said = place.run(*scheduled)
    assert code == 0, said
    assert sorted(place.archived()) == sorted(first + late + exported), "each once"
    assert place.splunk.ids() == place.archived()


def test_a_scheduled_run_that_finds_another_at_work_ends_with_3_and_says_who(
    place: Place,
) -> None:
    from transforms.lease import lease
    from transforms.state_store import StateStore

    (scheduled,) = commands("On a schedule")
    place.captured(9, 2)
    name = scheduled[scheduled.index("--name") + 1]
    with lease(StateStore(str(place.folder / "state")), f"replays/{name}/lease"):
        code, said = place.run(*scheduled)
    assert code == 3
    assert "is taken: process " in said.splitlines()[-1]
    assert place.archived() == []


def test_a_file_that_breaks_off_is_told_by_name_and_byte_and_all_before_it_is_sent(
    place: Place,
) -> None:
    (scheduled,) = commands("On a schedule")
    whole = place.captured(9, 20)
    (path,) = place.history.rglob("*.avro")
    data = path.read_bytes()
    cut = place.captured(8, 20)
    broken = max(place.history.rglob("*.avro"), key=lambda each: each.stat().st_mtime_ns)
    good = broken.read_bytes()
    broken.write_bytes(good[: len(good) // 2])
    code, said = place.run(*scheduled)
    assert code == 1, said
    (line,) = [line for line in said.splitlines() if line.startswith("not read: ")]
    assert str(broken) in line and "from byte" in line
    assert {*whole} <= {*place.archived()} <= {*whole, *cut}
    assert data == path.read_bytes()

    broken.write_bytes(good)
    code, said = place.run(*scheduled)
    assert sorted(place.archived()) == sorted(whole + cut), said
    assert code == 0, "a run that is well ends what the one before had to tell"


def test_joining_the_live_stream_wants_a_hub_in_the_settings(place: Place) -> None:
    (joined,) = commands("Joined to the live stream")
    place.captured(1, 2)
    code, said = place.run(*joined)
    assert code == 2 and "sources: this key is required" in said, said
    assert (place.archived(), place.kept()) == ([], [])


# ------------------------------------------------------------------------------- the page itself


def test_the_page_shows_only_options_that_there_are() -> None:
    import typer.main

    found = typer.main.get_command(app)
    replay = found.commands["replay"]  # type: ignore[attr-defined]
    known = {option for parameter in replay.params for option in parameter.opts}
    shown = {*re.findall(r"(?<![\w-])--[a-z][a-z-]+", PAGE.read_text("utf-8"))}
    assert shown and shown <= known, shown - known


def test_the_page_names_all_exit_codes_of_the_command() -> None:
    assert re.findall(r"(?m)^\| (\d) \|", section("What is counted")) == ["0", "1", "2", "3"]


def test_its_links_lead_to_files_that_are_there() -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", PAGE.read_text("utf-8")):
        assert (PAGE.parent / target).exists(), target
