"""CEF, LEEF and syslog as others read them: the same fields and values, none lost, none forged.

rsyslog reads CEF (liblognorm) and structured data; OpenTelemetry's collector CEF and LEEF. Neither
rsyslog nor syslog-ng, as Debian ships them, knows LEEF: their parsers for fields with a delimiter
split it, and a key ends at its first equals sign, as IBM says.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas.alert import Alert
from schemas.batch import Batch, Origin, Record
from schemas.formats._text import HARMLESS
from schemas.formats.cef import cef, cef_iot
from schemas.formats.leef import leef
from schemas.formats.rfc5424 import header, structured
from tests.schemas.formats import test_cef, test_leef, test_rfc5424
from tests.strategies import alerts
from tests.transforms.sinks.daemons import (
    RSYSLOG_PARTS,
    SYSLOG_NG_PARTS,
    UNPACKED,
    Daemon,
    missing,
)
from transforms.parse import parse_batch

Said = tuple[list[str], dict[str, str]]
"""The fields of a header, and the others by their keys."""

CEF = {
    "cs2": ("entity", 4000),
    "cs6": ("subscription_id", 4000),
    "msg": ("description", 1023),
    "request": ("link", 1023),
    "flexString2": ("status_original", 1023),
}
LEEF = {
    "alertId": ("entity", 1023),
    "title": ("title", 1023),
    "subscriptionId": ("subscription_id", 1023),
    "msg": ("description", 1023),
    "link": ("link", 1023),
    "status": ("status_original", 1023),
}
"""Which field is which of an alert's, and its greatest length."""

many = settings(
    max_examples=60,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)


class Server:
    """A syslog server that writes the parts of each message as a line of JSON."""

    def __init__(self, daemon: Daemon) -> None:
        self._socket = socket.create_connection(("127.0.0.1", daemon.tcp))
        self._out = daemon.out
        self._read = 0

    def __call__(self, messages: list[bytes]) -> list[dict[str, Any]]:
        """What it made of these messages, in their order."""
        self._socket.sendall(b"".join(b"%d %b" % (len(each), each) for each in messages))
        lines: list[bytes] = []
        until = time.monotonic() + 10
        while len(lines) < len(messages):
            assert time.monotonic() < until, f"{len(lines)} of {len(messages)} messages"
            time.sleep(0.002)
            if self._out.exists():
                with self._out.open("rb") as out:
                    out.seek(self._read)
                    lines = out.read().splitlines(keepends=True)
                lines = lines[: None if lines and lines[-1].endswith(b"\n") else -1]
        self._read += sum(map(len, lines))
        assert len(lines) == len(messages)
        return [json.loads(line) for line in lines]


@pytest.fixture(scope="module")
def rsyslog(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    yield from running("rsyslog", RSYSLOG_PARTS, tmp_path_factory.mktemp("rsyslog"))


@pytest.fixture(scope="module")
def syslog_ng(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    yield from running("syslog-ng", SYSLOG_NG_PARTS, tmp_path_factory.mktemp("syslog-ng"))


def running(program: str, template: str, folder: Path) -> Iterator[Server]:
    missing(program)
    daemon = Daemon(program, folder, Path(), Path(), template)
    daemon.start()
    yield Server(daemon)
    daemon.kill()


class Collector:
    """OpenTelemetry's parsers: lines in, lines of JSON out."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    def __call__(self, line: bytes) -> dict[str, Any]:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(line + b"\n")
        self._process.stdin.flush()
        said: dict[str, Any] = json.loads(self._process.stdout.readline())
        return said


@pytest.fixture(scope="module")
def opentelemetry() -> Iterator[Collector]:
    program = UNPACKED / "opentelemetry" / "parse"
    if not program.exists():
        said = "OpenTelemetry's parsers are not here: run .ci/receivers"
        if os.environ.get("CI"):
            pytest.fail(said)
        pytest.skip(said)
    with subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        yield Collector(process)
        process.kill()


# How each says what it read


def liblognorm(event: dict[str, Any]) -> Said:
    """CEF as rsyslog read it. Debian's liblognorm loses the first character of the first key
    (rsyslog/liblognorm#363)."""
    found = json.loads(event["parts"])["cef"]
    names = ("DeviceVendor", "DeviceProduct", "DeviceVersion", "SignatureID", "Name", "Severity")
    fields = found["Extensions"]
    first, lost = next(iter(fields)), {"xternalId": "externalId", "everity": "severity"}
    fields[lost[first]] = fields.pop(first)
    return ["CEF:0", *(found[name] for name in names)], fields


def collector_cef(said: dict[str, Any]) -> Said:
    found = said["cef"]
    names = ("vendor", "product", "version", "event_class_id")
    head = [*(found[f"cef.device_{name}"] for name in names), found["cef.name"]]
    return [f"CEF:{found['cef.version']}", *head, found["cef.severity"]], found["cef.extensions"]


def collector_leef(said: dict[str, Any]) -> Said:
    found = said["leef"]
    names = ("vendor", "product.name", "product.version", "event.id")
    head = [f"LEEF:{found['leef.version']}", *(found[f"leef.{name}"] for name in names)]
    return [*head, "0x09"], found["leef.attributes"]


def mmfields(event: dict[str, Any]) -> Said:
    """LEEF as rsyslog split it: the header stands before the first attribute."""
    found = json.loads(event["parts"])["leef"]
    first, *others = (found[f"f{place}"] for place in range(1, len(found) + 1))
    *head, first = first.split("|", 6)
    return head, pairs([first, *others])


def csv_parser(event: dict[str, Any]) -> Said:
    """LEEF as syslog-ng split it, twice; it strips blanks."""
    found = {int(place): text for place, text in event["leef"].items()}
    attributes = [found[place] for place in sorted(found) if place >= 10]
    return [found[place] for place in range(6)], pairs(attributes)


def pairs(attributes: list[str]) -> dict[str, str]:
    found = dict(attribute.split("=", 1) for attribute in attributes)
    assert len(found) == len(attributes)
    return found


# What is held


def check_cef(alert: Alert, line: bytes, said: Said) -> None:
    assert said == test_cef.parse(line)
    check_values(alert, said, CEF, keep="\n\r")


def check_leef(alert: Alert, line: bytes, said: Said) -> None:
    head, fields = test_leef.parse(line)
    assert said[0] == head
    assert stripped(said[1]) == stripped(fields)
    check_values(alert, said, LEEF)


def check_values(
    alert: Alert, said: Said, where: dict[str, tuple[str, int]], keep: str = ""
) -> None:
    """What was read is what the alert says, but for control characters."""
    for key, (name, most) in where.items():
        wanted = plain(getattr(alert, name)[:most].strip(" "), keep)
        found = said[1].get(key, wanted).rstrip(" ")
        assert found == wanted or (key == "msg" and found and wanted.startswith(found))


def plain(text: str, keep: str) -> str:
    kept = {code: text for code, text in HARMLESS.items() if chr(code) not in keep}
    return text.translate(kept).strip(" ")


def stripped(fields: dict[str, str]) -> dict[str, str]:
    return {key: text.strip(" ") for key, text in fields.items()}


def check_message(message: bytes, event: dict[str, Any], data: dict[str, str]) -> None:
    pri, at, host, app, procid, msgid, written, text = test_rfc5424.parse(message)
    assert data == test_rfc5424.parameters(written)
    assert event["time"].replace("+00:00", "Z") == at
    named = [event[name] for name in ("pri", "host", "app", "procid", "msgid", "msg")]
    assert named == [pri, host, app, procid, msgid, text]


@pytest.fixture(scope="module")
def samples(shared: Path) -> list[Alert]:
    """Every record of every real event."""
    files = sorted((shared / "samples").glob("*/*"))
    records = [Record(number, 0, 1, file.read_bytes()) for number, file in enumerate(files)]
    batch, _ = parse_batch(Batch(Origin("file", "0"), 0, len(files), None, records))
    assert len(batch.alerts) > len(files)
    return batch.alerts


def sent(alert: Alert, line: bytes) -> bytes:
    return header(alert, hostname="h") + line


def as_iot(alert: Alert) -> Alert:
    return msgspec.structs.replace(alert, kind="iot_alert")


def rsyslog_reads(rsyslog: Server, these: list[Alert]) -> None:
    lines = [cef(alert) for alert in these]
    for alert, line, event in zip(
        these, lines, rsyslog(list(map(sent, these, lines))), strict=True
    ):
        check_cef(alert, line, liblognorm(event))
    lines = [cef_iot(as_iot(alert)) for alert in these]
    for line, event in zip(lines, rsyslog(list(map(sent, these, lines))), strict=True):
        assert liblognorm(event) == test_cef.parse(line)
    lines = [leef(alert) for alert in these]
    for alert, line, event in zip(
        these, lines, rsyslog(list(map(sent, these, lines))), strict=True
    ):
        check_leef(alert, line, mmfields(event))
    messages = [structured(alert, hostname="h", procid="7", max_bytes=8000) for alert in these]
    for message, event in zip(messages, rsyslog(messages), strict=True):
        check_message(message, event, json.loads(event["parts"])["rfc5424-sd"]["alert@32473"])


def syslog_ng_reads(syslog_ng: Server, these: list[Alert]) -> None:
    lines = [leef(alert) for alert in these]
    for alert, line, event in zip(
        these, lines, syslog_ng(list(map(sent, these, lines))), strict=True
    ):
        check_leef(alert, line, csv_parser(event))
    messages = [structured(alert, hostname="h", procid="7", max_bytes=8000) for alert in these]
    for message, event in zip(messages, syslog_ng(messages), strict=True):
        check_message(message, event, event["_SDATA"]["alert@32473"])


def opentelemetry_reads(opentelemetry: Collector, these: list[Alert]) -> None:
    for alert in these:
        check_cef(alert, line := cef(alert), collector_cef(opentelemetry(line)))
        line = cef_iot(as_iot(alert))
        assert collector_cef(opentelemetry(line)) == test_cef.parse(line)
        check_leef(alert, line := leef(alert), collector_leef(opentelemetry(line)))


class TestSamples:
    def test_rsyslog(self, rsyslog: Server, samples: list[Alert]) -> None:
        rsyslog_reads(rsyslog, samples)

    def test_syslog_ng(self, syslog_ng: Server, samples: list[Alert]) -> None:
        syslog_ng_reads(syslog_ng, samples)

    def test_opentelemetry(self, opentelemetry: Collector, samples: list[Alert]) -> None:
        opentelemetry_reads(opentelemetry, samples)


# rsyslog refuses a syslog message of the year 2100.
hostile = alerts().filter(lambda alert: alert.event_ms < 4_102_444_800_000)


class TestHostileText:
    @many
    @given(st.lists(hostile, min_size=1, max_size=10))
    def test_rsyslog(self, rsyslog: Server, these: list[Alert]) -> None:
        rsyslog_reads(rsyslog, these)

    @many
    @given(st.lists(hostile, min_size=1, max_size=10))
    def test_syslog_ng(self, syslog_ng: Server, these: list[Alert]) -> None:
        syslog_ng_reads(syslog_ng, these)

    @many
    @given(st.lists(hostile, min_size=1, max_size=10))
    def test_opentelemetry(self, opentelemetry: Collector, these: list[Alert]) -> None:
        opentelemetry_reads(opentelemetry, these)
