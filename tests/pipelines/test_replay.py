"""A replay delivers every record of the files, once, and says so; whatever stops it, it goes on."""

from __future__ import annotations

import errno
import inspect
import json
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines.replay import Asked, Replay, ReplayError, Result, anew, default_name, state_of
from pipelines.settings import HistorySettings, Settings, load
from schemas.alert import Subscription
from schemas.batch import Record
from schemas.receipt import Outcomes
from transforms.account import _Account
from transforms.capture import row, write_capture
from transforms.dead_letters import read_dead_letters
from transforms.read.filesystems import open_file
from transforms.read.plan import unread_of
from transforms.route import Where
from transforms.state_store import StateStore
from transforms.subscription_history import keep

BEGAN_MS = 1_772_600_400_000  # 2026-03-04 05:00 UTC
MINUTE_MS = 60_000


def event(number: int, at_ms: int = 0, **fields: Any) -> bytes:
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime((at_ms or BEGAN_MS) / 1000))
    return json.dumps(
        {
            "AlertType": "VM_Test", "SystemAlertId": f"alert-{number}", "Severity": "High",
            "AlertDisplayName": f"Alert {number}", "TimeGenerated": at, "StartTimeUtc": at,
            "VendorName": "Microsoft", "ProductName": "Microsoft Defender for Cloud",
            "Status": "New", **fields,
        }
    ).encode()  # fmt: skip


def capture(folder: Path, minute: int, bodies: Iterable[bytes], partition: int = 0) -> Path:
    """A file of Event Hubs Capture, by its default path."""
    at_ms = BEGAN_MS + minute * MINUTE_MS
    path = folder / "contoso" / "defender" / str(partition)
    path = path / (time.strftime("%Y/%m/%d/%H/%M/%S", time.gmtime(at_ms / 1000)) + ".avro")
    path.parent.mkdir(parents=True, exist_ok=True)
    first = 1000 * minute
    rows = [row(Record(first + n, 0, at_ms + n, body)) for n, body in enumerate(bodies)]
    path.write_bytes(write_capture(rows))
    return path


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    path = tmp_path / "settings.yaml"
    path.write_text(
        "sinks:\n"
        "  - {file: {folder: one}, name: one}\n"
        "  - {file: {folder: two}, name: two, where: {severity: {at_least: medium}}}\n"
        "state: state\n"
    )
    return load(path, HistorySettings)


@pytest.fixture
def history(tmp_path: Path) -> Path:
    """300 alerts in 6 files of two partitions."""
    folder = tmp_path / "capture"
    for minute in range(3):
        for partition in range(2):
            first = 100 * minute + 50 * partition
            at_ms = BEGAN_MS + minute * MINUTE_MS
            bodies = [event(n, at_ms) for n in range(first, first + 50)]
            capture(folder, minute, bodies, partition)
    return folder


def replay(settings: Settings, *paths: Path, name: str = "", **asked: Any) -> tuple[Replay, Any]:
    about = Asked(tuple(map(str, paths)), **asked)
    made = Replay(settings, about, name or default_name(about), say=lambda line: None)
    made.store.prepare()
    return made, made.run()


def arrived(folder: Path) -> Counter[str]:
    return Counter(each["raw"]["SystemAlertId"] for each in lines(folder))


def lines(folder: Path) -> Iterator[dict[str, Any]]:
    for file in folder.rglob("*.ndjson*"):
        yield from map(json.loads, file.read_text().splitlines())


def names(*numbers: int) -> Counter[str]:
    return Counter(f"alert-{n}" for n in numbers)


def test_every_record_of_the_files_reaches_every_sink_once(
    settings: Settings, history: Path, tmp_path: Path
) -> None:
    made, result = replay(settings, history)
    assert result.well
    for sink in ("one", "two"):
        assert arrived(tmp_path / sink) == names(*range(300))
    assert [(a.records, a.outcomes) for a in made.accounts()] == [
        (300, Outcomes(delivered=300))
    ] * 2


def test_original_times_reach_the_sinks_and_alerts_are_marked_as_replayed(
    settings: Settings, history: Path, tmp_path: Path
) -> None:
    made, _ = replay(settings, history)
    assert {each["replay"] for each in lines(tmp_path / "one")} == {made.name}
    times = {each["time"] for each in lines(tmp_path / "one")}
    assert times == {f"2026-03-04T05:0{minute}:00Z" for minute in range(3)}


def test_the_same_command_again_sends_nothing_and_then_only_what_is_new(
    settings: Settings, history: Path, tmp_path: Path
) -> None:
    replay(settings, history)
    made, again = replay(settings, history)
    assert again.well and made.parts == 0
    capture(history, 1, [event(n) for n in range(900, 910)], partition=7)  # late
    made, more = replay(settings, history)
    assert more.well and made.parts == 1
    assert arrived(tmp_path / "one") == names(*range(300), *range(900, 910))


def test_a_repeat_in_another_file_is_told(
    settings: Settings, history: Path, tmp_path: Path
) -> None:
    capture(history, 3, [event(5, BEGAN_MS), event(500)])
    made, result = replay(settings, history)
    assert result.well
    assert arrived(tmp_path / "one") == names(*range(300), 500)
    assert made.accounts()[0].outcomes == Outcomes(delivered=301, repeat=1)


def test_a_stretch_of_time_and_a_condition_leave_the_rest_out_and_account_for_it(
    settings: Settings, history: Path, tmp_path: Path
) -> None:
    capture(history, 1, [event(700, BEGAN_MS + MINUTE_MS, Severity="Low")], partition=5)
    start, stop = BEGAN_MS + MINUTE_MS, BEGAN_MS + 2 * MINUTE_MS
    made, result = replay(
        settings, history, start_ms=start, stop_ms=stop,
        where=Where.model_validate({"severity": ["high"]}),
    )  # fmt: skip
    assert result.well
    assert arrived(tmp_path / "one") == names(*range(100, 200))
    for account in made.accounts():
        assert account.holds
        assert account.outcomes.delivered == 100


def test_only_the_sinks_that_are_named_get_it(
    settings: Settings, history: Path, tmp_path: Path
) -> None:
    _, result = replay(settings, history, sinks=("two",))
    assert result.well
    assert not (tmp_path / "one").exists()
    assert arrived(tmp_path / "two") == names(*range(300))
    with pytest.raises(ReplayError, match=r"no sink 'three'.*one, two"):
        replay(settings, history, sinks=("three",))


def test_what_cannot_be_read_is_named_and_the_rest_delivered(
    settings: Settings, history: Path, tmp_path: Path
) -> None:
    cut = capture(history, 4, [event(n) for n in range(600, 620)])
    data = cut.read_bytes()
    cut.write_bytes(data[: len(data) - 40])
    (history / "picture.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    made, result = replay(settings, history)
    assert not result.well
    found = {Path(each.url).name: each for each in unread_of(made.store, made.name)}
    assert {*found} == {cut.name, "picture.png"}
    assert arrived(tmp_path / "one") == names(*range(300))


def test_a_record_that_is_none_is_a_dead_letter(
    settings: Settings, history: Path, tmp_path: Path
) -> None:
    capture(history, 4, [b"{broken", event(600)])
    made, result = replay(settings, history)
    assert result.well
    assert arrived(tmp_path / "one") == names(*range(300), 600)
    assert made.accounts()[0].outcomes == Outcomes(delivered=301, dead=1)


def test_it_goes_on_where_it_was_stopped(settings: Settings, history: Path, tmp_path: Path) -> None:
    for minute in range(5, 25):
        capture(history, minute, [event(1000 * minute + n) for n in range(500)])
    about = Asked((str(history),), rate=2000.0)
    first = Replay(settings, about, "stopped", say=lambda line: None)
    first.store.prepare()

    def stop() -> None:
        until = time.monotonic() + 60
        while not arrived(tmp_path / "one") and time.monotonic() < until:
            time.sleep(0.02)
        first.stop()

    thread = threading.Thread(target=stop)
    thread.start()
    stopped = first.run()
    thread.join()
    assert "the same command goes on" in stopped.problem
    some = arrived(tmp_path / "one")
    assert 0 < some.total() < 10_300
    _, result = replay(settings, history, name="stopped")
    assert result.well
    wanted = names(*range(300), *(1000 * m + n for m in range(5, 25) for n in range(500)))
    assert arrived(tmp_path / "one") == wanted  # stopped, not killed: nothing comes twice


def test_what_a_sink_did_not_take_is_read_again_and_paid(
    settings: Settings, history: Path, tmp_path: Path
) -> None:
    closed = tmp_path / "two"
    closed.write_text("a file where a folder should be")  # the sink cannot write

    def opened() -> None:
        time.sleep(1.0)
        closed.unlink()

    thread = threading.Thread(target=opened)
    thread.start()
    made, result = replay(settings, history)
    thread.join()
    assert result.well, result
    assert arrived(tmp_path / "one") == names(*range(300))
    assert arrived(closed) == names(*range(300))
    assert all(account.holds for account in made.accounts())


def test_a_sink_that_takes_nothing_is_given_up_and_stays_owed_until_the_same_command(
    settings: Settings, history: Path, tmp_path: Path
) -> None:
    closed = tmp_path / "two"
    closed.write_text("a file where a folder should be")
    _, result = replay(settings, history, patience=1.0)
    assert not result.well
    assert result.owed == {"one": 0, "two": 300}
    assert arrived(tmp_path / "one") == names(*range(300))
    closed.unlink()
    _, result = replay(settings, history, patience=5.0)
    assert result.well, result
    assert arrived(closed) == names(*range(300))


def unaccounted(monkeypatch: pytest.MonkeyPatch, settings: Settings, *paths: Path) -> Result:
    """A replay that ends before anything of what it sent is in an account."""

    def ends(*args: Any) -> None:
        raise RuntimeError("the process is killed")

    with monkeypatch.context() as patch:
        patch.setattr("transforms.account._Account.process", ends)
        patch.setattr("pipelines.replay.replay._MOST_FAILURES", 1)
        patch.setattr(Replay, "_enter_journal", lambda self, failed=True: None)
        return replay(settings, *paths, patience=1.0)[1]


def test_what_was_sent_before_a_kill_is_not_sent_again(
    settings: Settings, history: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    capture(history, 3, [event(5, BEGAN_MS), b"no event", event(500)])
    killed = unaccounted(monkeypatch, settings, history)
    assert "the process is killed" in killed.problem
    assert arrived(tmp_path / "one") == names(*range(300), 500)
    made, result = replay(settings, history)
    assert result.well, result
    for sink in ("one", "two"):
        assert arrived(tmp_path / sink) == names(*range(300), 500), "it was sent again"
    assert [(a.records, a.outcomes) for a in made.accounts()] == [
        (303, Outcomes(delivered=301, repeat=1, dead=1))
    ] * 2
    assert [each.body for each in read_dead_letters(made.store)] == [b"no event"]


def test_what_a_sink_came_to_be_owed_before_a_kill_is_paid(
    settings: Settings, history: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = tmp_path / "two"
    closed.write_text("a file where a folder should be")
    unaccounted(monkeypatch, settings, history)
    closed.unlink()
    made, result = replay(settings, history)
    assert result.well, result
    assert arrived(tmp_path / "one") == names(*range(300)), "it was sent again"
    assert arrived(closed) == names(*range(300))
    assert [(a.records, a.outcomes) for a in made.accounts()] == [
        (300, Outcomes(delivered=300))
    ] * 2


def test_a_shift_that_fails_is_gone_on_with_behind_what_it_sent(
    settings: Settings, history: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, fails = _Account.process, iter([True])

    def process(self: Any, element: Any, *args: Any, **named: Any) -> Any:
        if next(fails, False):
            raise RuntimeError("the disk is away")
        return real(self, element, *args, **named)

    process.__signature__ = inspect.signature(real)  # type: ignore[attr-defined]
    monkeypatch.setattr("transforms.account._Account.process", process)
    made, result = replay(settings, history)
    assert result.well, result
    assert next(fails, None) is None
    assert arrived(tmp_path / "one") == names(*range(300))
    assert [*made.store.list(made._journal)] == []


def test_dead_letters_are_on_disk_before_sinks_are_through_with_what_is_around_them(
    settings: Settings, history: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The storage fails in the middle of a bundle, whose end never comes."""
    first = capture(history, -1, [b"no event", *(event(n) for n in range(1000, 1300))])
    fails = iter([True])

    def opens(url: str) -> Any:
        if not url.endswith(str(first)) and next(fails, False):
            raise OSError(errno.EIO, "the disk is away")
        return open_file(url)

    monkeypatch.setattr("transforms.read.history.open_file", opens)
    monkeypatch.setattr("transforms.read.history._RETRIES", 1)
    made, result = replay(settings, history)
    assert result.well, result
    assert next(fails, None) is None
    assert arrived(tmp_path / "one") == names(*range(300), *range(1000, 1300))
    assert [each.body for each in read_dead_letters(made.store)] == [b"no event"]


def test_two_lanes_are_one_replay(settings: Settings, history: Path, tmp_path: Path) -> None:
    made, result = replay(settings, history, workers=2)
    assert made.plan and made.plan.lanes == 2
    assert result.well
    assert arrived(tmp_path / "one") == names(*range(300))


def test_a_name_belongs_to_what_it_was_begun_for(settings: Settings, history: Path) -> None:
    replay(settings, history, name="month")
    with pytest.raises(ReplayError, match="other sinks: give this one another --name"):
        replay(settings, history, name="month", sinks=("one",))


def test_anew_is_another_name_until_that_is_through(settings: Settings, history: Path) -> None:
    store = StateStore(str(settings.state))
    assert anew(store, "month") == "month"
    made, result = replay(settings, history, name="month")
    made.tell(result)
    assert anew(store, "month") == "month-2"
    other, _ = replay(settings, history, name="month-2", again=True)
    other.tell()
    assert anew(store, "month") == "month-2"  # it was killed
    other.tell(other.ended())
    assert anew(store, "month") == "month-3"
    state = state_of(store, "month")
    assert state and state.ok and (state.done, state.parts) == (6, 6)


def lines_file(folder: Path, minute: int, bodies: Iterable[bytes]) -> Path:
    """A file of Log Analytics' data export."""
    at_ms = BEGAN_MS + minute * MINUTE_MS
    path = folder / time.strftime("y=%Y/m=%m/d=%d/h=%H/m=%M/PT05M.json", time.gmtime(at_ms / 1000))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(body + b"\n" for body in bodies))
    return path


def test_a_file_that_ends_in_the_middle_of_a_record_is_read_on_when_it_has_grown(
    settings: Settings, tmp_path: Path
) -> None:
    folder = tmp_path / "export"
    path = lines_file(folder, 0, [event(n) for n in range(10)])
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    _, result = replay(settings, folder)
    assert not result.well and result.unread == 1
    assert arrived(tmp_path / "one") == names(*range(9))
    path.write_bytes(whole + event(10) + b"\n")
    _, result = replay(settings, folder)
    assert result.well, result
    assert arrived(tmp_path / "one") == names(*range(11))


def test_what_a_sink_got_by_another_export_is_not_sent_twice_unless_again(
    settings: Settings, history: Path, tmp_path: Path
) -> None:
    replay(settings, history, sinks=("one",))
    export = tmp_path / "export"
    lines_file(export, 0, [event(n, BEGAN_MS + n // 100 * MINUTE_MS) for n in range(250, 310)])
    made, result = replay(settings, export)
    assert result.well
    assert arrived(tmp_path / "one") == names(*range(310))
    assert arrived(tmp_path / "two") == names(*range(250, 310))
    assert made.accounts()[0].outcomes == Outcomes(delivered=10, repeat=50)
    replay(settings, export, name="again", again=True, sinks=("one",))
    assert arrived(tmp_path / "one") == names(*range(310)) + names(*range(250, 310))


def test_alerts_are_enriched_with_what_was_known_when_they_happened(
    settings: Settings, tmp_path: Path
) -> None:
    subscription = "11111111-aaaa-4aaa-8aaa-000000000001"
    store = StateStore(str(settings.state))
    store.prepare()
    for minute, owner in ((0, "first"), (2, "second")):
        known = {subscription: Subscription(subscription, "Retail", owner)}
        keep(store, known, BEGAN_MS + minute * MINUTE_MS)
    for minute in (1, 3):
        at_ms = BEGAN_MS + minute * MINUTE_MS
        body = event(minute, at_ms, AzureResourceSubscriptionId=subscription)
        lines_file(tmp_path / "export", 5 * minute, [body])
    _, result = replay(settings, tmp_path / "export")
    assert result.well
    owners = {each["id"]: each["subscription"]["owner"] for each in lines(tmp_path / "one")}
    assert sorted(owners.values()) == ["first", "second"]
