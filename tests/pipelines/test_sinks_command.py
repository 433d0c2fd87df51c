"""`alertbeam sinks`: what it lists, and what becomes of a test record at every sort of system."""

from __future__ import annotations

import base64
import getpass
import json
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from pipelines import cli, trial
from pipelines.local.receivers import Answer, HecReceiver, SyslogReceiver, certificate
from pipelines.settings import Settings, SinkEntry
from schemas.formats import FORMATS
from schemas.kinds import understand
from tests.fixtures import hostile
from tests.transforms.sinks.doubles import DOUBLES, SECRET
from transforms.sinks.base import (
    Accepted,
    Connection,
    Limits,
    Pending,
    Refresh,
    RejectItems,
    Retry,
    Shrink,
    Sink,
    SinkSettings,
    Split,
    Stop,
    Verdict,
    sinks,
)

SOURCE = {"event_hubs": {"namespace": "a.b", "hub": "h"}}
CONNECTION = (
    "Endpoint=sb://a.servicebus.windows.net/;SharedAccessKeyName=k;SharedAccessKey=a2V5;"
    "EntityPath=elsewhere"
)
HEC = '  - {{name: splunk, splunk_hec: {{url: "{url}", token: env:SECRET, timeout: 1}}}}\n'


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("SECRET", SECRET)


@pytest.fixture
def hec() -> Iterator[HecReceiver]:
    with HecReceiver(token=SECRET, strict=True) as receiver:
        yield receiver


def write(entries: str, more: str = "") -> None:
    Path("settings.yaml").write_text(
        f"sources: [{json.dumps(SOURCE)}]\nsinks:\n{entries}state: state\n{more}", encoding="utf-8"
    )


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """Exit code and output of `alertbeam sinks …`: printable, and no secret in it."""
    with pytest.raises(SystemExit) as ended:
        cli.main(["sinks", *arguments])
    output = re.sub(r"\x1b\[[\d;]*m", "", "".join(capsys.readouterr()))
    assert isinstance(ended.value.code, int)
    assert all(each.isprintable() or each == "\n" for each in output)
    assert SECRET not in output
    return ended.value.code, output


def flat(output: str) -> str:
    return " ".join(output.split())


# -------------------------------------------------------------------------------- what it lists


def test_each_system_is_a_row_with_what_it_is_and_needs(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, out = run(capsys)
    assert code == 0
    assert max(map(len, out.splitlines())) <= 80
    monkeypatch.setenv("COLUMNS", "240")
    rows = [re.split(r" {2,}", line.strip()) for line in run(capsys)[1].splitlines()[3:-2]]
    assert [row[0] for row in rows] == [*sinks()]
    assert [
        "splunk_hec",
        "Splunk, through its HTTP Event Collector.",
        "url, token (secret)",
    ] in rows
    needs = {kind: needed for kind, _, needed in rows}  # each needs something
    assert needs["webhook"] == "either url or secret_url"


@pytest.mark.parametrize("kind", sinks())
def test_an_example_is_a_block_that_validate_accepts(
    kind: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once its secrets lie where it says."""
    code, block = run(capsys, kind, "--example")
    assert code == 0
    assert run(capsys, "show", kind, "--example") == (0, block)
    for name in re.findall(r"env:(\w+)", block):
        monkeypatch.setenv(name, CONNECTION if name.endswith("_CONNECTION") else SECRET)
    Path("key").write_text("{}")
    settings = re.sub("file:/.*", f"file:{Path('key').absolute()}", block)
    Path("settings.yaml").write_text(f"sources: [{json.dumps(SOURCE)}]\n{settings}state: state\n")
    with pytest.raises(SystemExit) as ended:
        cli.main(["validate", "settings.yaml"])
    assert ended.value.code == 0, "".join(capsys.readouterr())


def test_of_your_own_each_is_a_row_with_where_it_leads_and_what_it_gets(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    write(
        '  - {splunk_hec: {url: "https://splunk:8088/a/path-that-is-secret", token: env:SECRET, '
        "index: main}}\n"
        '  - {name: siem, syslog: {address: "127.0.0.1:514"}, where: {severity: [high]}}\n'
        "  - {name: counts, file: {folder: /digests}, send: digests}\n"
        "  - {name: chat, webhook: {secret_url: env:HOOK}}\n",
        "digests: [{name: storms, window: {fixed: 5m}}]\n",
    )
    monkeypatch.setenv("HOOK", f"https://chat.example/{SECRET}")
    code, out = run(capsys, "-c", "settings.yaml")
    assert code == 0
    assert [re.split(r" {2,}", line.strip()) for line in out.splitlines()[3:]] == [
        ["splunk_hec", "splunk_hec", "https://splunk:8088, index main", "all alerts"],
        ["siem", "syslog", "127.0.0.1:514", "alerts, severity: [high]"],
        ["counts", "file", "/digests", "digests: storms"],
        ["chat", "webhook", "env:HOOK", "all alerts"],
    ]


# ------------------------------------------------------------------------------- what it sends


@pytest.mark.parametrize("name", DOUBLES)
def test_a_test_alert_arrives_at_every_system(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    double = DOUBLES[name](tmp_path)
    try:
        settings = Settings.model_validate(
            {
                "sources": [SOURCE],
                "sinks": [{"name": "siem", double.kind: double.settings()}],
                "state": "state",
            }
        )
        given = double.sink(patience=5, timeout=5)
        monkeypatch.setattr(SinkEntry, "build", lambda entry: given)
        it = trial.try_sink(settings.sinks[0], settings, wait=5)
        assert it.accepted, it.said
        assert double.ids() == [it.event_id]
        assert it.event_id in it.find
        assert it.target
    finally:
        double.stop()


def test_it_says_what_the_system_answered_and_how_the_alert_is_found(
    capsys: pytest.CaptureFixture[str], hec: HecReceiver
) -> None:
    write(HEC.format(url=hec.url))
    code, out = run(capsys, "test", "splunk")
    assert code == 0
    assert "✓ splunk (splunk_hec): accepted: HTTP 200: Success (code 0)" in out
    (event,) = hec.events()
    assert event["fields"]["event_id"] in out.splitlines()[-1]
    body = event["event"]["body"]
    assert body["AlertDisplayName"] == "alertbeam test alert: nothing happened"
    assert f"run by {getpass.getuser()} on {socket.gethostname()} at " in body["Description"]
    assert not [*Path("state").iterdir()], "no account, no position"


def test_the_record_is_a_defender_alert_that_every_format_can_say() -> None:
    one, other = trial.trial_record(), trial.trial_record()
    assert (one.kind, one.severity, one.status) == ("defender_alert", "informational", "new")
    assert one.event_id != other.event_id
    assert understand(one.raw).event_id == one.event_id
    assert abs(one.event_ms - time.time() * 1000) < 5_000
    for name, form in FORMATS.items():
        assert form.say(one), name
    digests = trial.trial_record(digest=True), trial.trial_record(digest=True)
    assert {each.kind for each in digests} == {"digest"}
    assert digests[0].severity == "informational"


def test_whom_nobody_knows_can_send_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """A container's user often has no name."""

    def nobody() -> str:
        raise KeyError("getpwuid(): uid not found")

    monkeypatch.setattr(getpass, "getuser", nobody)
    assert "run by somebody on " in trial.trial_record().description


def test_a_sink_of_digests_gets_a_digest(capsys: pytest.CaptureFixture[str]) -> None:
    write(
        "  - {name: counts, file: {folder: digests}, send: digests}\n",
        "digests: [{name: storms, window: {fixed: 5m}}]\n",
    )
    code, _ = run(capsys, "test", "counts")
    (path,) = Path("digests").glob("*.ndjson")
    (line,) = path.read_text().splitlines()
    digest = json.loads(line)["raw"]
    assert code == 0
    assert digest["name"] == "alertbeam test digest, nothing happened"
    assert "Sent by `alertbeam sinks test`" in digest["samples"][0]["title"]


def test_a_where_does_not_stop_it_but_is_told(
    capsys: pytest.CaptureFixture[str], hec: HecReceiver
) -> None:
    write(f"{HEC.format(url=hec.url).rstrip()[:-1]}, where: {{severity: [high]}}}}\n")
    code, out = run(capsys, "test", "splunk")
    assert (code, hec.received) == (0, 1)
    told = "! its `where` keeps such alerts out: severity is informational, wanted is [high]"
    assert told in flat(out)


def test_settings_may_be_named_before_the_command_too(
    capsys: pytest.CaptureFixture[str], hec: HecReceiver
) -> None:
    write(HEC.format(url=hec.url))
    Path("settings.yaml").rename("mine.yaml")
    assert run(capsys, "-c", "mine.yaml", "test", "splunk")[0] == 0
    assert hec.received == 1


def test_all_are_tried_in_turn_and_one_that_fails_stops_none(
    capsys: pytest.CaptureFixture[str], hec: HecReceiver
) -> None:
    with SyslogReceiver() as siem:
        write(
            '  - {name: gone, splunk_hec: {url: "http://127.0.0.1:1", token: env:SECRET}}\n'
            f'  - {{name: siem, syslog: {{address: "{siem.address}"}}}}\n' + HEC.format(url=hec.url)
        )
        code, out = run(capsys, "test", "--all")
        assert (code, hec.received, siem.ids()) == (1, 1, [siem.ids()[0]])
    marks = re.findall(r"^([✓✗])  (\w+)", out, re.MULTILINE)
    assert marks == [("✗", "gone"), ("✓", "siem"), ("✓", "splunk")]
    assert f"\n  splunk: search index=* event_id::{hec.ids()[0]}\n" in out
    found = out.index("to find them")
    assert "gone" not in out[found:]
    assert max(map(len, out[:found].splitlines())) <= 80


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["test", "nothing"], "there is no sink 'nothing'; there are: splunk"),
        (["test"], "give either the name of a sink, or --all"),
        (["test", "splunk", "--all"], "give either the name of a sink, or --all"),
        (["show", "nothing"], "there is no sink 'nothing'; there are: "),
    ],
)
def test_what_cannot_be_meant_is_told(
    arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write(HEC.format(url="http://127.0.0.1:1"))
    code, out = run(capsys, *arguments)
    assert code == 2
    assert told in flat(out.replace("│", ""))


def test_no_beam_is_waited_for(hec: HecReceiver) -> None:
    """Which takes two seconds to import."""
    write(HEC.format(url=hec.url))
    script = """
import sys
from pipelines import cli
try:
    cli.main(["sinks", "test", "splunk"])
except SystemExit as ended:
    print(ended.code, "apache_beam" in sys.modules)
"""
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "0 False", done.stdout


# ------------------------------------------------------------------------------- what goes wrong


def refused(hec: HecReceiver, patch: pytest.MonkeyPatch) -> None:
    hec.refuse()


def wrong_token(hec: HecReceiver, patch: pytest.MonkeyPatch) -> None:
    hec.token = "another"


def unknown_host(hec: HecReceiver, patch: pytest.MonkeyPatch) -> None:
    def nobody(*address: object, **kind: object) -> Any:
        raise socket.gaierror(-2, "Name or service not known")

    patch.setattr(socket, "getaddrinfo", nobody)


def quoting(hec: HecReceiver, patch: pytest.MonkeyPatch) -> None:
    hec.fail(Answer(400, 6, f"no: {SECRET}"))


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (refused, "Connection refused; is it running there, and are host and port right?"),
        (wrong_token, "HTTP 403: Invalid token (code 4)"),
        (unknown_host, "Name or service not known; is the host's name right, and does this"),
        (quoting, "HTTP 400: no: ***"),
    ],
)
def test_a_refusal_is_told_with_what_to_do(
    spoil: Callable[[HecReceiver, pytest.MonkeyPatch], None],
    told: str,
    hec: HecReceiver,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write(HEC.format(url=hec.url))
    spoil(hec, monkeypatch)
    code, out = run(capsys, "test", "splunk")
    assert code == 1
    assert f"✗ splunk (splunk_hec): {told}" in flat(out)
    assert f" to {hec.url} in " in out
    assert hec.received == 0
    assert max(map(len, out.splitlines())) <= 80


def test_a_certificate_that_nobody_trusts_is_told_with_what_to_do(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with HecReceiver(token=SECRET, tls=certificate(tmp_path)) as hec:
        write(HEC.format(url=hec.url))
        code, out = run(capsys, "test", "splunk")
    assert (code, hec.received) == (1, 0)
    assert "self-signed certificate; give its authority: `tls: {ca: FILE}`" in flat(out)


def test_hostile_answers_do_nothing_to_the_terminal(
    capsys: pytest.CaptureFixture[str], hec: HecReceiver
) -> None:
    write(HEC.format(url=hec.url))
    for text in [*hostile(), "[bold red]x[/] [link=http://a]\n✓ splunk"]:
        hec.fail(Answer(400, 6, text))
        code, out = run(capsys, "test", "splunk")  # which looks at what is printed
        assert code == 1
        assert not re.search(r"^✓", out, re.MULTILINE)
    assert "[bold red]x[/] [link=http://a]" in flat(out)


class Played(Sink[Any], Connection):
    """A sink that plays its part: a verdict, or what is raised, for each request in turn."""

    kind = "played"

    def __init__(
        self,
        *verdicts: Verdict | Exception,
        later: Sequence[Mapping[Hashable, Verdict] | Exception] = (),
    ) -> None:
        super().__init__("played", SinkSettings())
        self._verdicts = iter(verdicts)
        self._later = iter(later)
        self.sent: list[bytes] = []
        self.connections = 0
        self.most: int | None = None

    limits = property(lambda self: Limits(1_000, max_record_bytes=self.most))  # type: ignore[assignment]

    def encode(self, alert: Any, source: str, partition: str) -> bytes:
        if self.most == 0:
            raise ValueError("it is no tune")
        return b"long" * 10

    def shrink(self, alert: Any, source: str, partition: str, most: int) -> bytes | None:
        return b"short"

    def connect(self) -> Connection:
        self.connections += 1
        return self

    def probe(self, timeout: float) -> None:
        raise AssertionError("a test sends")

    def send(self, payloads: Sequence[bytes], timeout: float) -> Verdict:
        self.sent += payloads
        return self._next(self._verdicts)

    def confirm(self, timeout: float) -> Mapping[Hashable, Verdict]:
        return self._next(self._later, {})

    @staticmethod
    def _next(said: Iterator[Any], *default: Any) -> Any:
        found = next(said, *default)
        if isinstance(found, Exception):
            raise found
        return found


HOOK = "https://chat.example/hooks/T0-B0-a-path-that-is-secret"
KEY = "a-key-in-a-header"
HOOKED = {
    "name": "chat",
    "webhook": {"secret_url": "env:HOOK", "headers": {"X-Api-Key": "env:KEY"}},
}


def play(sink: Played, wait: float = 0.2) -> trial.Tried:
    hec = {"url": "http://127.0.0.1:1", "token": "env:SECRET", "timeout": 0.05}
    settings = Settings.model_validate(
        {"sources": [SOURCE], "sinks": [{"splunk_hec": hec}, HOOKED], "state": "state"}
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOOK", HOOK)
        patch.setenv("KEY", KEY)
        patch.setattr(SinkEntry, "build", lambda entry: sink)
        patch.setattr(trial, "_CONFIRM_SECONDS", 0.01)
        return trial.try_sink(settings.sinks[0], settings, wait)


@pytest.mark.parametrize(
    ("verdict", "accepted", "said"),
    [
        (Accepted(), True, ""),
        (Accepted("nearly full", "200"), True, "200, nearly full"),
        (Accepted("200 nearly full", "200 nearly full"), True, "200 nearly full"),
        (Retry("busy"), False, "busy"),
        (Retry("busy", after=30), False, "busy; it asks to wait 30 s"),
        (Split("bad data"), False, "bad data"),
        (Shrink("too large"), False, "too large"),
        (Stop("no such index"), False, "no such index"),
        (RejectItems({0: "no such field"}, taken=True), False, "no such field"),
        (RejectItems({}, taken=True), True, ""),
        (RejectItems({}, taken=True, again=[0]), False, "not taken for now"),
        (RejectItems({}, taken=False), False, "not taken for now"),
        (OSError(111, "Connection refused"), False, "Connection refused; is it running there"),
        (KeyError("a bug of the sink"), False, "KeyError at "),
        (Stop(f"who said {SECRET}?"), False, "who said ***?"),
        (Stop("404 /hooks/T0-B0-a-path-that-is-secret"), False, "404 ***"),
        (Stop("X-Api-Key: a-key-in-a-header"), False, "X-Api-Key: ***"),
        (Stop(base64.b64encode(SECRET.encode()).decode()), False, "***"),
    ],
)
def test_each_verdict_is_told_for_what_it_is(
    verdict: Verdict | Exception, accepted: bool, said: str
) -> None:
    sink = Played(verdict)
    it = play(sink)
    assert (it.accepted, len(sink.sent)) == (accepted, 1)
    assert it.said.startswith(said)
    assert bool(it.find) == accepted


def test_credentials_are_read_anew_once() -> None:
    sink = Played(Refresh("expired"), Accepted())
    assert play(sink).accepted
    assert sink.connections == 2
    sink = Played(Refresh("expired"), Refresh("expired still"), Accepted())
    it = play(sink)
    assert (it.accepted, it.said, len(sink.sent)) == (False, "expired still", 2)


def test_what_is_taken_first_counts_once_it_is_confirmed() -> None:
    it = play(Played(Pending(7), later=[{}, {}, {7: Accepted(said="indexed")}]))
    assert (it.accepted, it.said) == (True, "indexed")
    it = play(Played(Pending(7), later=[{}, {7: Retry("never indexed")}]))
    assert (it.accepted, it.said) == (False, "never indexed")
    it = play(Played(Pending(7)))
    assert not it.accepted
    assert it.said == "taken, but not confirmed within 0.2 s: it may have arrived, or may yet"
    it = play(Played(Pending(7), later=[OSError(104, "reset")]), wait=5)
    assert not it.accepted
    assert it.said.startswith("taken, but the connection was lost")
    assert it.seconds < 3, "nobody waits for what cannot come"


def test_a_record_that_is_too_large_is_sent_shorter() -> None:
    sink = Played(Accepted())
    sink.most = 10
    assert play(sink).size == 5
    assert sink.sent == [b"short"]


def test_what_a_format_cannot_say_is_not_sent() -> None:
    sink = Played()
    sink.most = 0
    it = play(sink)
    assert (it.accepted, sink.sent) == (False, [])
    assert it.said == "this sink's format has no way to say it: it is no tune"


def test_a_sink_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    sink = Played()
    ended = threading.Event()

    def hang() -> Connection:
        ended.wait()
        raise OSError

    monkeypatch.setattr(trial, "_GRACE", 0.0)
    sink.connect = hang  # type: ignore[method-assign]
    it = play(sink, wait=0.0)
    ended.set()
    assert (it.accepted, it.find) == (False, "")
    assert it.said.startswith("no answer within 0.2 s")
