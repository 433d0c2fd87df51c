"""What only QRadar has: its header, its cap, its HTTP Receiver."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from pydantic import ValidationError

from pipelines.local.receivers import Answer, SyslogReceiver, certificate
from schemas.alert import Alert
from schemas.receipt import Outcome
from tests.strategies import alerts
from tests.transforms.sinks.alerts import HOSTILE, PARTITION, SOURCE, alert, identity, parcels
from tests.transforms.sinks.doubles.qradar import PATTERN, Receiver, leef_id, payload_id
from transforms.delivery.engine import Engine
from transforms.sinks.base import Accepted, Refresh, Retry, Split, Stop
from transforms.sinks.qradar import Qradar, QradarSettings

DOCS = Path(__file__).parents[3] / "docs" / "sinks" / "qradar.md"


def sink(address: str = "127.0.0.1:6514", **options: Any) -> Qradar:
    return Qradar("qradar", QradarSettings(address=address, **options))


def posting(url: str = "http://127.0.0.1:12469", **options: Any) -> Qradar:
    return Qradar("qradar", QradarSettings(url=url, **options))


def encode(to: Qradar, made: Alert) -> bytes:
    return to.encode(made, SOURCE, PARTITION)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as running:
        yield running


class TestSettings:
    def test_it_is_tls_and_lines_unless_told_otherwise(self):
        assert (sink().settings.protocol, sink().settings.framing) == ("tls", "lf")
        assert sink(protocol="udp").settings.protocol == "udp"

    @pytest.mark.parametrize(
        ("given", "why"),
        [
            ({}, "give either `address` or `url`"),
            ({"address": "q:6514", "url": "https://q:12469"}, "give either `address` or `url`"),
            ({"url": "https://q", "hostname": "h"}, "`hostname` means nothing with `url`"),
            ({"url": "https://q", "protocol": "tcp"}, "`protocol` means nothing with `url`"),
            ({"address": "q:1", "batch": "lines"}, "`batch` means nothing with `address`"),
            ({"address": "q:1", "proxy": "http://p:1"}, "`proxy` means nothing with `address`"),
            ({"address": "q:1", "protocol": "tcp", "tls": {"verify": False}}, "knows no `tls`"),
            ({"address": "q"}, "an address is host:port"),
            ({"url": "http://qradar.example.com:12469"}, "would send the token and the alerts"),
            ({"url": "https://q", "max_bytes": 40_000}, "less than or equal to 32767"),
        ],
    )
    def test_what_cannot_be_is_refused(self, given, why):
        with pytest.raises(ValidationError, match=re.escape(why)):
            QradarSettings(**given)

    def test_what_they_were_made_of_makes_them_again(self):
        for to in (sink(tls={"verify": False}), posting(batch="lines", gzip=True)):
            assert QradarSettings(**to.settings.model_dump()) == to.settings

    def test_where_it_leads(self):
        assert sink().target == "127.0.0.1:6514"
        assert posting("https://q.example:12469/secret").target == "https://q.example:12469"


class TestEvents:
    def test_the_header_is_of_three_fields_and_bears_the_log_source(self):
        said = encode(sink(hostname="alertbeam-1", facility="auth"), alert(1)).decode()
        head, leef, _ = said.partition(" LEEF:2.0|")
        assert (head, leef) == ("<35>1 2026-09-21T14:13:20.001Z alertbeam-1", " LEEF:2.0|")

    def test_event_id_and_category_are_of_no_language_and_never_change(self):
        names = {"alert_type": "VM_X", "severity": "low", "version": "2", "status": "resolved"}
        for text in ("Suspicious", "Verdächtig"):
            said = encode(sink(), alert(1, text=text, **names)).decode()
            assert "|VM_X|0x09|cat=defender_alert\t" in said

    @pytest.mark.parametrize("most", [480, 4096, 32_767])
    def test_an_event_fits_its_cap(self, most):
        long = alert(1, text="long ünd " * 20_000, link="x" * 5000, alert_type="T" * 300)
        assert len(encode(sink(max_bytes=most), long)) <= most
        assert len(encode(sink(), long)) > 2000

    def test_a_receiver_gets_leef_alone(self):
        assert encode(posting(), alert(1)).startswith(b"LEEF:2.0|Microsoft|")
        assert len(encode(posting(), alert(1, text="x" * 9000))) <= 4096

    @given(alerts())
    def test_any_event_reads_back(self, made):
        assert payload_id(encode(sink(), made)) == made.event_id
        assert leef_id(encode(posting(), made).decode()) == made.event_id

    @given(alerts(), alerts())
    def test_the_message_pattern_matches_where_an_event_begins_and_nowhere_else(self, one, two):
        body = encode(posting(), one) + b"\n" + encode(posting(), two)
        assert [found.start() for found in PATTERN.finditer(body)] == [
            0,
            len(encode(posting(), one)) + 1,
        ]

    def test_no_text_is_taken_for_an_event_that_begins(self):
        forged = "LEEF:2.0|a|b|c|d|0x09|cat=x\tdevTime=1\nLEEF:2.0|a|b|c|d|0x09|cat=x"
        made = alert(1, text=forged, alert_type=forged, resource=forged, entity=forged)
        body = encode(posting(), made)
        assert [found.start() for found in PATTERN.finditer(body + b"\n" + body)] == [
            0,
            len(body) + 1,
        ]

    def test_the_pattern_is_the_one_that_is_documented(self):
        shown = f"`{PATTERN.pattern.decode()}`"
        assert shown in DOCS.read_text(encoding="utf-8")
        assert shown in str(QradarSettings.model_fields["batch"].description)

    def test_it_is_found_by_what_is_in_it(self):
        assert f"externalId={identity(1)}" in sink().find(identity(1))
        assert f"externalId={identity(1)}" in encode(sink(), alert(1)).decode()


class TestSyslog:
    @pytest.mark.parametrize("protocol", ["tls", "tcp", "udp"])
    def test_every_way_to_a_listener(self, protocol, tmp_path):
        tls = certificate(tmp_path) if protocol == "tls" else None
        way = "udp" if protocol == "udp" else "tcp"
        with SyslogReceiver(protocol=way, tls=tls) as listener:
            options = {"tls": {"ca": str(tls[0])}} if tls else {"protocol": protocol}
            to = sink(listener.address, **options)
            to.probe(1)
            engine = Engine(to)
            sent = parcels(to, range(30), text=HOSTILE)
            engine.submit(sent)
            engine.settle()
            engine.close()
            assert {parcel.outcome for parcel in sent} == {Outcome.DELIVERED}
            until = time.monotonic() + 3
            while listener.received < 30 and time.monotonic() < until:
                time.sleep(0.002)
            assert [payload_id(m) for m in listener.messages()] == [identity(n) for n in range(30)]


class TestReceiver:
    def test_a_post_is_an_event(self, receiver):
        to = posting(receiver.url)
        connection = to.connect()
        for number in range(3):
            assert connection.send([encode(to, alert(number))], 1) == Accepted(said="HTTP 200 OK")
        connection.close()
        assert receiver.ids() == [identity(n) for n in range(3)]
        assert (receiver.connections, to.limits.max_records) == (1, 1)

    def test_without_the_pattern_several_are_one_event_that_nobody_reads(self, receiver):
        """Why `batch: lines` is not the default."""
        to = posting(receiver.url, batch="lines")
        to.connect().send([encode(to, alert(n)) for n in range(3)], 1)
        assert [found[:8] for found in receiver.ids()] == ["unparsed"]

    def test_compressed_nobody_reads_it(self, receiver):
        """Why `gzip` is off."""
        to = posting(receiver.url, gzip=True)
        to.connect().send([encode(to, alert(1))], 1)
        assert [found[:8] for found in receiver.ids()] == ["unparsed"]

    @pytest.mark.parametrize(
        ("status", "verdict"),
        [
            *((status, Accepted) for status in (200, 202, 204)),
            *((status, Stop) for status in (301, 403, 404, 405)),
            *((status, Retry) for status in (408, 429, 500, 503)),
            *((400, Split), (401, Refresh)),
        ],
    )
    def test_what_http_says_is_understood(self, receiver, status, verdict):
        receiver.fail(Answer(status, text="\x1b[31mno\r\n" + "x" * 900))
        said = posting(receiver.url).connect().send([b"LEEF"], 1)
        assert isinstance(said, verdict)
        text = said.said if isinstance(said, Accepted) else said.reason
        assert text.startswith(f"HTTP {status} ")
        assert text.isprintable()
        assert len(text) < 220

    def test_it_is_checked_without_an_event(self, receiver, tmp_path):
        said = posting(receiver.url).check(1)
        assert "it can be reached; whether address" in said
        assert "alertbeam sinks test qradar" in said
        assert receiver.received == 0

    def test_mutual_tls(self, tmp_path):
        cert, key = certificate(tmp_path)
        client, client_key = certificate(tmp_path, "client")

        class Secured(Receiver):
            def __init__(self) -> None:
                super().__init__()
                self._context = SyslogReceiver(tls=(cert, key), client_ca=client)._context

        with Secured() as receiver:
            tls = {"ca": str(cert), "cert": str(client), "key": str(client_key)}
            to = posting(receiver.url, tls=tls)
            assert isinstance(to.connect().send([encode(to, alert(1))], 1), Accepted)
            assert "its certificate is verified" in to.check(1)
            with pytest.raises(OSError):
                to = posting(receiver.url, tls={"ca": str(cert)})
                to.connect().send([encode(to, alert(1))], 1)
        assert receiver.ids() == [identity(1)]


GOOD = "LEEF:2.0|Microsoft|Defender|1.0|VM_X|0x09|cat=c\tdevTime=1\tsev=8\texternalId=" + "0" * 32


@pytest.mark.parametrize(
    "spoiled",
    [
        GOOD.replace("2.0", "3.0", 1),
        GOOD.replace("|0x09", ""),
        GOOD.replace("0x09", "tab"),
        GOOD.replace("VM_X", ""),
        GOOD.replace("VM_X", "x" * 256),
        GOOD.replace("sev=8", "sev=11"),
        GOOD.replace("devTime=1", "devTime=Sep 21"),
        GOOD.replace("cat=c\t", ""),
        f"{GOOD}\tcat=twice",
        f"{GOOD}\tsrc=not-an-address",
        f"{GOOD}\tdstPort=70000",
        f"{GOOD}\tusrName={'x' * 256}",
        f"{GOOD}\tmsg=a\nb",
        f"{GOOD}\tmsg",
        f"{GOOD}\t",
    ],
)
def test_the_double_refuses_what_qradar_could_not_read(spoiled):
    assert leef_id(GOOD) == "0" * 32
    with pytest.raises(ValueError):
        leef_id(spoiled)


def test_the_double_wants_its_header_and_cuts_what_is_too_long():
    header = "<131>1 2026-09-21T14:13:20.001Z host "
    assert payload_id(f"{header}{GOOD}".encode()) == "0" * 32
    for spoiled in (
        GOOD,
        f"{header}alertbeam - - - {GOOD}",
        f"{header.replace('.001Z', 'Z')}{GOOD}",
        f"{header}{GOOD}\tmsg={'x' * 4096}",
    ):
        with pytest.raises(ValueError):
            payload_id(spoiled.encode())
