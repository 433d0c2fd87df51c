"""`alertbeam demo`: the main job on this machine, with made-up events and with the user's own."""

from __future__ import annotations

import io
import json
import re
import stat
import subprocess
import sys
from pathlib import Path

import fastavro
import pytest
from rich.console import Console

from pipelines.local import demo as demo_module
from pipelines.local.demo import demo
from pipelines.local.files import events_in, files_in
from pipelines.local.receivers import HecReceiver
from pipelines.settings import load
from tests.site import alerts, call
from transforms.capture import CAPTURE_SCHEMA

SINKS = ("splunk", "arcsight", "archive")


def shown(tmp_path: Path, events: Path | None = None, count: int = 50) -> tuple[int, str]:
    """Exit code and output of a demo in this process."""
    out = io.StringIO()
    code = demo(tmp_path / "out", events, count, Console(file=out, width=160))
    return code, out.getvalue()


def sums(output: str) -> dict[str, list[int]]:
    """In, the five outcomes and what arrived, of each sink whose sums hold."""
    found = {}
    for line in output.splitlines():
        cells = line.split()
        if cells and cells[0] in SINKS and "holds" in cells:
            numbers = [int(cell.replace(",", "")) for cell in cells[1:] if cell != "holds"]
            found[cells[0]] = numbers
    return found


def assert_holds(output: str) -> int:
    """That every sink's sums hold and match its receiver; the number of records."""
    found = sums(output)
    assert set(found) == set(SINKS), output
    for records, delivered, not_routed, repeat, dead, owed, arrived in found.values():
        assert records == delivered + not_routed + repeat + dead + owed
        assert delivered == arrived
        assert owed == 0
    assert len({numbers[0] for numbers in found.values()}) == 1
    return found["archive"][0]


def the_folder(tmp_path: Path) -> Path:
    (found,) = (tmp_path / "out").iterdir()
    return found


class TestMadeUpEvents:
    def test_the_command_shows_an_account_that_holds(self, tmp_path: Path) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "pipelines.cli", "demo", "--count", "500"],
            cwd=tmp_path,
            env={"COLUMNS": "160", "PATH": ""},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stderr == ""
        assert "500 events published" in done.stdout
        assert assert_holds(done.stdout) >= 500
        assert sums(done.stdout)["archive"][3] > 0, "no repeat was among them"
        assert re.search(r"kinds: [\d,]+ defender_alert, ", done.stdout)
        assert "digests: storms" in done.stdout
        assert "a record is a JSON object, not null" in done.stdout
        folder = the_folder(tmp_path)
        where = done.stdout.split(f"where it lies: {folder}\n")[1]
        for name in ("settings.yaml", "received/", "archive/", "digests/", "state/"):
            assert f" {name} " in where
            assert (folder / name).exists()
        page = re.search(r"(state/reports/\S+\.html) +the account as a page", where)
        assert page and "Nothing is lost" in (folder / page[1]).read_text()

    def test_what_it_writes_is_its_owner_s_alone(self, tmp_path: Path) -> None:
        code, _ = shown(tmp_path)
        assert code == 0
        folder = the_folder(tmp_path)
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        for path in (folder / "secrets").iterdir():
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
        load(folder / "settings.yaml")  # they can be used again

    def test_digests_count_what_was_delivered_or_not_routed(self, tmp_path: Path) -> None:
        code, output = shown(tmp_path, count=300)
        assert code == 0
        lines = [
            json.loads(line)["raw"]
            for path in (the_folder(tmp_path) / "digests").iterdir()
            for line in path.read_bytes().splitlines()
        ]
        assert sum(line["total"] for line in lines) == sums(output)["archive"][1]

    def test_two_that_begin_in_one_second_do_not_meet(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class Clock(demo_module.datetime.datetime):
            @classmethod
            def now(cls, tz: object = None) -> Clock:
                return cls(2026, 1, 2, 3, 4, 5)

        monkeypatch.setattr(demo_module.datetime, "datetime", Clock)
        names = [demo_module._new_folder(tmp_path / "out").name for _ in range(3)]
        assert names == ["demo-20260102-030405", "demo-20260102-030405_2", "demo-20260102-030405_3"]


class TestOwnEvents:
    def test_a_folder_of_all_sorts(self, tmp_path: Path) -> None:
        own = tmp_path / "own"
        (own / "below").mkdir(parents=True)
        first, second, third = (alerts(3, seed=seed) for seed in (1, 2, 3))
        (own / "lines.jsonl").write_bytes(b"\n".join(first.values()) + b"\n")
        wrapped = b'{"records": [%s]}' % b",".join(second.values())
        (own / "below" / "wrapped.json").write_bytes(wrapped)
        with (own / "below" / "capture.avro").open("wb") as file:
            rows = [
                {"SequenceNumber": n, "Offset": "", "EnqueuedTimeUtc": "", "SystemProperties": {},
                 "Properties": {}, "Body": body}
                for n, body in enumerate([*third.values(), None])
            ]  # fmt: skip
            fastavro.writer(file, fastavro.parse_schema(CAPTURE_SCHEMA), rows)
        (own / "notes.txt").write_text("no alert\n\nat all\n")
        (own / "empty").write_bytes(b"")
        (own / "[red]name\x1b[2J").write_bytes(next(iter(first.values())))

        code, output = shown(tmp_path, own)
        assert code == 0, output
        assert "11 events published" in output
        assert assert_holds(output) == 13
        assert sums(output)["archive"][1:6] == [9, 0, 1, 3, 0]
        for name in ("below/capture.avro", "lines.jsonl", "[red]name [2J"):
            assert name in output
        assert "\x1b" not in output

    def test_a_single_file(self, tmp_path: Path) -> None:
        path = tmp_path / "one.json"
        path.write_bytes(next(iter(alerts(1).values())))
        code, output = shown(tmp_path, path)
        assert code == 0
        assert "one.json" in output and assert_holds(output) == 1

    def test_a_title_reaches_the_terminal_as_text(self, tmp_path: Path) -> None:
        path = tmp_path / "one.json"
        title = "[bold]\x1b[2J\x07[/]"
        path.write_bytes(next(iter(alerts(1, AlertDisplayName=title).values())))
        code, output = shown(tmp_path, path)
        assert code == 0
        assert "[bold] [2J [/]" in output
        assert "\x1b" not in output and "\x07" not in output

    def test_every_sample_file_goes_through(self, tmp_path: Path, shared: Path) -> None:
        samples = shared / "samples"
        published = sum(sum(1 for _ in events_in(path)) for path in files_in([samples]))
        code, output = shown(tmp_path, samples)
        assert code == 0, output
        assert f"{published:,} events published" in output
        assert assert_holds(output) >= published

    @pytest.mark.parametrize("what", ["an empty folder", "empty files"])
    def test_where_there_is_nothing_it_says_so(self, tmp_path: Path, what: str) -> None:
        own = tmp_path / "own"
        own.mkdir()
        if what == "empty files":
            (own / "a.jsonl").write_bytes(b"\n\n")
        code, output = shown(tmp_path, own)
        assert code == 2
        assert re.search(rf"no (files|events) in {re.escape(str(own))}$", output.strip())

    @pytest.mark.parametrize(
        ("events", "told"),
        [
            ("missing", "missing: there is no such file or folder"),
            ("large.jsonl", "large.jsonl: event 2 has 1,500,000 bytes; a hub takes 1 MB at most"),
        ],
    )
    def test_what_cannot_be_published_is_one_line(
        self, tmp_path: Path, events: str, told: str
    ) -> None:
        (tmp_path / "large.jsonl").write_bytes(b"{}\n" + b"x" * 1_500_000)
        code, output = call(tmp_path, "demo", "--events", events)
        assert code == 1
        assert output.splitlines()[-1] == told
        assert (tmp_path / "out").exists() == (events != "missing")


class TestAnAccountThatDoesNotHold:
    def test_a_receiver_that_loses_something_is_no_success(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class Forgetful(HecReceiver):
            def take(self, body: bytes) -> None:
                super().take(body)
                self.received -= 1

        monkeypatch.setattr(demo_module, "HecReceiver", Forgetful)
        code, output = shown(tmp_path)
        assert code == 1
        assert "the account does not hold" in output

    def test_nor_are_sums_that_differ(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        original = demo_module.accounts_of

        def wrong(*arguments: object) -> object:
            found = original(*arguments)  # type: ignore[arg-type]
            found[0].records += 1
            return found

        monkeypatch.setattr(demo_module, "accounts_of", wrong)
        code, output = shown(tmp_path)
        assert code == 1
        assert "DOES NOT HOLD" in output
