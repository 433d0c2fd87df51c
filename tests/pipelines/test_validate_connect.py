"""`alertbeam validate --connect`: everything is reached, nothing is sent or read."""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines import cli, trial
from pipelines.local.hub import EmbeddedHub
from pipelines.local.hub.links import Reader
from pipelines.local.receivers import (
    Answer,
    HecReceiver,
    Receiver,
    Silence,
    SyslogReceiver,
    certificate,
)
from pipelines.settings import SinkEntry
from tests.fixtures import hostile
from transforms.secrets import SecretError

KEY = "the-key-of-the-hub"
TOKEN = "the-token-of-the-collector"


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TOKEN", TOKEN)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[EmbeddedHub]:
    with EmbeddedHub(tmp_path / "hub", {"h": 2}, key=KEY, consumer_groups=["ours"]) as made:
        monkeypatch.setenv("HUB", made.connection_string("h"))
        yield made


@pytest.fixture
def hec() -> Iterator[HecReceiver]:
    with HecReceiver(token=TOKEN) as receiver:
        yield receiver


def source(reference: str = "env:HUB", hub: str = "h", group: str = "$Default") -> str:
    return f"{{hub: {hub}, connection_string: '{reference}', consumer_group: {group}}}"


def collector(name: str, url: str, more: str = "") -> str:
    return f'{name}: {{splunk_hec: {{url: "{url}", token: env:TOKEN, timeout: 1{more}}}}}'


def write(*sinks: str, sources: tuple[str, ...] = ()) -> None:
    """A source, if there is none other, is one of an answer that is made up."""
    entries = [sink.partition(": {") for sink in sinks]
    Path("settings.yaml").write_text(
        "sources:\n"
        + "".join(f"  - event_hubs: {access}\n" for access in sources or (source(),))
        + "sinks:\n"
        + "".join(f"  - {{name: {name}, {settings}\n" for name, _, settings in entries)
        + "state: state\n",
        encoding="utf-8",
    )


def connect(capsys: pytest.CaptureFixture[str], *more: str) -> tuple[int, dict[str, str]]:
    """Exit code, and by the name of each source and sink what was said of it, with its mark.

    No line is broken badly, nothing is not printable, and no secret is shown.
    """
    with pytest.raises(SystemExit) as ended:
        cli.main(["validate", "--connect", "settings.yaml", *more])
    out, err = capsys.readouterr()
    out = re.sub(r"\x1b\[[\d;]*m", "", out + err)
    assert isinstance(ended.value.code, int)
    assert all(each.isprintable() or each == "\n" for each in out)
    for secret in (KEY, TOKEN, "another-key"):
        assert secret not in out
    told = out.partition("connecting; nothing is sent\n")[2].replace("\n  ", " ")
    assert max(map(len, out.splitlines())) <= 80 or ended.value.code == 2
    found = re.findall(r"^([✓✗]) (\S+) \(\w+\): (.*(?:\n!.*)?)", told, re.MULTILINE)
    return ended.value.code, {
        name: " ".join(f"{mark} {said}".split()) for mark, name, said in found
    }


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """The source is as good as there: what is looked at are sinks."""
    monkeypatch.setenv("HUB", "Endpoint=sb://a.b;SharedAccessKeyName=k;SharedAccessKey=s")
    monkeypatch.setattr(trial, "_reach_hub", lambda access: ("it is there", ""))


def test_everything_that_is_well_is_a_line_and_nothing_is_sent_or_read(
    capsys: pytest.CaptureFixture[str],
    hub: EmbeddedHub,
    hec: HecReceiver,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    granted: list[int] = []
    flow = Reader.flow

    def watched(link: Reader, delivery_count: int, credit: int, drain: bool, echo: bool) -> None:
        granted.append(credit)
        flow(link, delivery_count, credit, drain, echo)

    monkeypatch.setattr(Reader, "flow", watched)
    hub.publish("h", [b"{}"] * 7, partition=1)
    with SyslogReceiver() as siem:
        write(
            collector("splunk", hec.url),
            f'siem: {{syslog: {{address: "{siem.address}"}}}}',
            "files: {file: {folder: out}}",
            sources=(source(group="ours"),),
        )
        code, found = connect(capsys)
    assert code == 0
    name = f"127.0.0.1:{hub.port}/h/ours"
    assert {*found} == {name, "splunk", "siem", "files"}
    assert found[name] == "✓ 2 partitions, 7 events kept; readable as ours"
    assert found["splunk"] == "✓ HEC is healthy; the token is accepted"
    assert hec.received == siem.received == 0
    assert {*granted} == {0}, "a link was opened, and no event asked for"
    assert not [*Path("out").glob("*"), *Path("state").iterdir()]


def test_each_source_that_cannot_be_read_says_why_and_what_to_do(
    capsys: pytest.CaptureFixture[str],
    hub: EmbeddedHub,
    hec: HecReceiver,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    good = hub.connection_string("h")
    monkeypatch.setenv("WRONG", good.replace(KEY, "another-key"))
    monkeypatch.setenv("REFUSED", good.replace(f":{hub.port}", ":1"))
    monkeypatch.setenv("UNKNOWN", good.replace(f"127.0.0.1:{hub.port}", "nobody.example"))
    lookup = socket.getaddrinfo

    def found_here(host: Any, *more: Any, **kind: Any) -> Any:
        if host in ("nobody.example", b"nobody.example"):
            raise socket.gaierror(-2, "Name or service not known")
        return lookup(host, *more, **kind)

    monkeypatch.setattr(socket, "getaddrinfo", found_here)
    write(
        collector("splunk", hec.url),
        sources=(
            source("env:WRONG"),
            source("env:REFUSED"),
            source("env:UNKNOWN"),
            source(hub="none"),
            source(group="theirs"),
        ),
    )
    code, found = connect(capsys)
    assert code == 1
    here = f"127.0.0.1:{hub.port}"
    for name, told in (
        (f"{here}/h/$Default", "is it this hub's connection string, or a role that may listen?"),
        ("127.0.0.1:1/h/$Default", "✗ Connection refused; is it running there, and are host and"),
        ("nobody.example/h/$Default", "✗ Name or service not known; is the host's name right"),
        (f"{here}/none/$Default", "Status code: 404; are the names of hub and consumer group"),
        (f"{here}/h/theirs", "could not be found; are the names of hub and consumer group right?"),
    ):
        assert told in found.pop(name)
    assert found == {"splunk": "✓ HEC is healthy; the token is accepted"}


def test_a_hub_that_never_answers_is_given_up(
    capsys: pytest.CaptureFixture[str],
    hub: EmbeddedHub,
    hec: HecReceiver,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with SyslogReceiver() as silent:  # it listens, and says nothing that the SDK waits for
        silent.fail(Silence())
        string = hub.connection_string("h").replace(f":{hub.port}", f":{silent.port}")
        monkeypatch.setenv("SILENT", string)
        monkeypatch.setattr(trial, "_SOURCE_SECONDS", 0.3)
        monkeypatch.setattr(trial, "_GRACE", 0.0)
        write(collector("splunk", hec.url), sources=(source("env:SILENT"),))
        code, found = connect(capsys)
    assert code == 1
    assert found.pop(f"127.0.0.1:{silent.port}/h/$Default").startswith("✗ no answer within 0.3 s")
    assert found["splunk"].startswith("✓")


@pytest.mark.usefixtures("no_hub")
def test_each_sink_that_cannot_be_used_says_why_and_what_to_do(
    capsys: pytest.CaptureFixture[str], hec: HecReceiver, tmp_path: Path
) -> None:
    ours, _ = pair = certificate(tmp_path / "tls")
    with HecReceiver(tls=pair) as secure, HecReceiver(token="another") as other:
        name = f', tls: {{ca: "{ours}", server_name: splunk.example}}'
        write(
            collector("splunk", hec.url),
            collector("refused", "http://127.0.0.1:1"),
            collector("token", other.url),
            collector("untrusted", secure.url),
            collector("misnamed", secure.url, name),
            collector("plain", hec.url.replace("http:", "https:")),
            'siem: {syslog: {address: "127.0.0.1:1"}}',
            "files: {file: {folder: settings.yaml}}",
        )
        code, found = connect(capsys)
    assert code == 1
    assert [name for name, said in found.items() if said[0] == "✓"] == ["a.b/h/$Default", "splunk"]
    for name, told in (
        ("refused", "✗ Connection refused; is it running there, and are host and port right?"),
        ("token", "✗ HTTP 403: Invalid token (code 4)"),
        ("untrusted", "self-signed certificate; give its authority: `tls: {ca: FILE}`"),
        ("misnamed", "is the host right? If so, tell the name that it bears: `tls: {server_name:"),
        ("plain", "does it speak TLS at this port?"),
        ("siem", "✗ Connection refused; is it running there, and are host and port right?"),
        ("files", "✗"),
    ):
        assert told in found[name]


@pytest.mark.usefixtures("no_hub")
def test_a_certificate_that_ends_soon_is_a_warning(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, _ = pair = certificate(tmp_path / "tls")  # good for 30 days, less a moment
    with HecReceiver(token=TOKEN, tls=pair) as hec, SyslogReceiver(tls=pair) as siem:
        tls = f'tls: {{ca: "{ours}"}}'
        write(
            collector("splunk", hec.url, f", {tls}"),
            f'siem: {{syslog: {{address: "{siem.address}", {tls}}}}}',
            collector("blind", hec.url, ", tls: {verify: false}"),
        )
        code, found = connect(capsys)
        assert code == 0
        assert "certificate" not in found["blind"]
        for name in ("splunk", "siem"):
            assert re.search(r" ! its certificate ends on [-\d]{10}, in 29 days: renew it$",
                             found[name])  # fmt: skip
        monkeypatch.setattr(trial, "_RENEW_DAYS", 20)
        code, found = connect(capsys)
        assert code == 0
        for name in ("splunk", "siem"):
            assert re.search(r"; its certificate is good until [-\d]{10}$", found[name])


@pytest.mark.usefixtures("no_hub")
def test_all_are_asked_at_the_same_time_each_for_its_own_timeout(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = threading.Event()
    monkeypatch.setattr(SinkEntry, "build", lambda entry: _Hanging(ended))
    monkeypatch.setattr(trial, "_GRACE", 0.0)
    timeouts = [0.3, 0.2, 0.1]
    write(*(f"s{n}: {{file: {{folder: out, timeout: {t}}}}}" for n, t in enumerate(timeouts)))
    began = time.monotonic()
    code, found = connect(capsys)
    took = time.monotonic() - began
    ended.set()
    assert code == 1
    assert list(found)[1:] == ["s2", "s1", "s0"], "each is told as soon as it is known"
    assert found["s0"].startswith("✗ no answer within 0.3 s")
    assert took < sum(timeouts) + 1


class _Hanging:
    target = "somewhere"
    destination = staticmethod(str)

    def __init__(self, ended: threading.Event) -> None:
        self._ended = ended

    def check(self, timeout: float) -> str:
        self._ended.wait()
        return "too late"


@pytest.mark.usefixtures("no_hub")
@pytest.mark.parametrize(
    ("error", "told"),
    [
        (SecretError("env:X: the environment variable X is not set, or empty"), "✗ env:X: the env"),
        (ConnectionError(f"it says {TOKEN}"), "✗ it says ***"),
        (KeyError(TOKEN), "✗ KeyError at test_validate_connect.py:"),
    ],
)
def test_whatever_a_check_raises_is_a_line(
    error: Exception,
    told: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Failing:
        target = "somewhere"
        destination = staticmethod(str)

        def check(self, timeout: float) -> str:
            raise error

    monkeypatch.setattr(SinkEntry, "build", lambda entry: Failing())
    write(collector("splunk", "http://127.0.0.1:1"))
    code, found = connect(capsys)
    assert code == 1
    assert found["splunk"].startswith(told)


@pytest.mark.usefixtures("no_hub")
def test_hostile_answers_do_nothing_to_the_terminal(
    capsys: pytest.CaptureFixture[str], hec: HecReceiver
) -> None:
    write(collector("splunk", hec.url))
    for text in [*hostile(), "[bold red]x[/]\n✓ forged (file): it answers"]:
        hec.fail(Answer(503, 9, text))
        hec.healthy = False
        code, found = connect(capsys)  # which looks at what is printed
        assert code == 1
        assert [*found] == ["a.b/h/$Default", "splunk"]


def test_with_a_mistake_nobody_is_connected_to(
    capsys: pytest.CaptureFixture[str], hec: HecReceiver
) -> None:
    write(collector("splunk", hec.url, ", indx: a"), sources=(source("env:NOT_SET"),))
    code, found = connect(capsys)
    assert (code, found) == (2, {})
    assert not _connected(hec)


@pytest.mark.usefixtures("no_hub")
def test_without_being_asked_to_nobody_is_connected_to(
    capsys: pytest.CaptureFixture[str], hec: HecReceiver
) -> None:
    write(collector("splunk", hec.url))
    with pytest.raises(SystemExit) as ended:
        cli.main(["validate", "settings.yaml"])
    assert ended.value.code == 0
    assert "connecting" not in capsys.readouterr().out
    assert not _connected(hec)


def _connected(receiver: Receiver) -> bool:
    return receiver.connections > 0
