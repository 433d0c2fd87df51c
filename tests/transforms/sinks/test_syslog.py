from __future__ import annotations

import contextlib
import json
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pydantic import ValidationError

from pipelines.local.receivers import (
    HalfClose,
    Reset,
    Silence,
    SyslogReceiver,
    certificate,
)
from schemas.alert import Subscription
from schemas.receipt import Outcome
from tests.transforms.sinks.alerts import HOSTILE, PARTITION, SOURCE, alert, identity, parcels
from transforms.delivery import syslog as module
from transforms.delivery.engine import Engine
from transforms.sinks.base import Accepted, Retry
from transforms.sinks.syslog import Syslog, SyslogSettings

D, OWED = Outcome.DELIVERED, Outcome.OWED


def sink(address: str = "127.0.0.1:514", **options: Any) -> Syslog:
    return Syslog("siem", SyslogSettings(address=address, **{"patience": 0.5, **options}))


@pytest.fixture
def server() -> Iterator[SyslogReceiver]:
    with SyslogReceiver() as receiver:
        yield receiver


@pytest.fixture
def deliver() -> Iterator[Callable[..., list[Outcome | None]]]:
    engines: dict[int, Engine] = {}

    def run(to: Syslog, numbers: range = range(3), **options: Any) -> list[Outcome | None]:
        run.engine = engine = engines.setdefault(id(to), Engine(to, cool_down=(0.03, 0.1)))  # type: ignore[attr-defined]
        sent = parcels(to, numbers, **options)
        engine.submit(sent)
        engine.settle()
        run.sent = sent  # type: ignore[attr-defined]
        return [parcel.outcome for parcel in sent]

    yield run
    for engine in engines.values():
        engine.close()


def eventually(check: Callable[[], bool], within: float = 3.0) -> None:
    until = time.monotonic() + within
    while not check():
        assert time.monotonic() < until, "it did not come about"
        time.sleep(0.002)


class TestSettings:
    @pytest.mark.parametrize("address", ["siem:514", "10.0.0.1:6514", "[2001:db8::1]:6514"])
    def test_an_address_is_host_and_port(self, address):
        assert sink(address).settings.address == address

    @pytest.mark.parametrize(
        "address", ["siem", "siem:", ":514", "siem:x", "siem:99999", "tcp://siem:514", "a@b:1", ""]
    )
    def test_anything_else_is_refused(self, address):
        with pytest.raises(ValidationError, match="an address is host:port"):
            sink(address)

    def test_a_tls_section_means_tls(self):
        assert sink(tls={}).settings.protocol == "tls"
        assert sink(protocol="tls").settings.protocol == "tls"
        assert sink().settings.protocol == "tcp"

    @pytest.mark.parametrize("protocol", ["tcp", "udp"])
    def test_tls_with_another_protocol_is_a_contradiction(self, protocol):
        with pytest.raises(ValidationError, match="knows no `tls`"):
            sink(protocol=protocol, tls={})

    def test_an_unknown_facility_is_refused(self):
        with pytest.raises(ValidationError):
            sink(facility="local9")

    def test_every_field_says_what_it_is(self):
        assert all(field.description for field in SyslogSettings.model_fields.values())

    @pytest.mark.parametrize(
        ("form", "most"), [("rfc5424", 8000), ("cef", 8000), ("leef", 4096), ("rfc3164", 1024)]
    )
    def test_a_format_has_its_own_cap_unless_another_is_given(self, form, most):
        assert sink(format=form).settings.max_bytes == most
        assert sink(format=form, max_bytes=32_000).settings.max_bytes == 32_000

    def test_what_was_written_for_qradar_and_arcsight_stays_good(self):
        for form in ("cef", "cef_iot", "leef"):
            given = {"address": "siem:6514", "tls": {}, "format": form, "framing": "lf"}
            assert SyslogSettings(**given).format == form


class TestEncoding:
    def encode(self, made: Any, **options: Any) -> str:
        return sink(**options).encode(made, SOURCE, PARTITION).decode()

    def test_the_header_says_who_and_how_bad(self):
        said = self.encode(alert(1), facility="auth", app_name="beam", hostname="h1")
        assert said.startswith("<35>1 2026-09-21T14:13:20.001Z h1 beam - defender_alert [alert@")

    def test_rfc5424_carries_the_fields_and_the_record(self):
        known = Subscription("s", name='Prod "EU"')
        said = self.encode(alert(1, subscription=known))
        assert f'event_id="{identity(1)}"' in said
        assert r'subscription_name="Prod \"EU\""' in said
        assert said.endswith(alert(1).raw.decode())

    def test_a_record_that_is_too_long_gives_way_to_title_and_description(self):
        said = self.encode(alert(1, text="ü" * 9000))
        assert len(said.encode()) in (7999, 8000)
        assert "] ü" in said
        assert "{" not in said

    def test_even_fields_that_are_too_long_leave_the_id(self):
        huge = dict.fromkeys(("title", "entity", "product", "alert_type"), "\\" * 300)
        said = self.encode(alert(1, **huge), max_bytes=480)
        assert len(said) <= 480
        assert f'[alert@32473 event_id="{identity(1)}"]' in said

    def test_cef_comes_in_a_syslog_header_and_keeps_to_the_cap(self):
        said = self.encode(alert(1, text="long " * 5000), format="cef")
        assert " - CEF:0|Microsoft|Microsoft Defender for Cloud|" in said
        assert f"|8|externalId={identity(1)} " in said
        assert len(said.encode()) <= 8000

    def test_leef_comes_in_a_syslog_header_and_keeps_to_the_cap_of_qradar(self):
        said = self.encode(alert(1, text="long " * 5000, link="x" * 5000), format="leef")
        assert (
            " - LEEF:2.0|Microsoft|Microsoft Defender for Cloud|1.0|VM_SuspectSignIn|0x09|" in said
        )
        assert f"\texternalId={identity(1)}\t" in said
        assert len(said.encode()) <= 4096
        more = self.encode(alert(1), format="leef", max_bytes=480)
        assert len(more) <= 480

    def test_rfc3164_has_its_own_header_and_keeps_to_1024_bytes(self):
        options = {"format": "rfc3164", "facility": "auth", "hostname": "h1.example.com"}
        said = self.encode(alert(1, text="long " * 5000), app_name="beam-1", **options)
        assert said.startswith(f'<35>Sep 21 14:13:20 h1 beam1: event_id="{identity(1)}" kind="')
        assert len(said) == 1024

    def test_cef_iot_says_alerts_of_defender_for_iot_as_its_sensors_do(self):
        said = self.encode(alert(1, kind="iot_alert"), format="cef_iot")
        assert "CEF:0|Microsoft Defender for IoT/CyberX|" in said
        assert self.encode(alert(1), format="cef_iot") == self.encode(alert(1), format="cef")

    @pytest.mark.parametrize("form", ["cef", "leef"])
    def test_what_a_record_mentions_can_be_left_out(self, form):
        record = {"Entities": [{"$id": "1", "Address": "203.0.113.7", "Type": "ip"}]}
        made = alert(1, raw=json.dumps(record).encode())
        assert "src=203.0.113.7" in self.encode(made, format=form)
        assert "203.0.113.7" not in self.encode(made, format=form, entities=False)

    @pytest.mark.parametrize("form", ["rfc5424", "rfc3164", "cef", "cef_iot", "leef"])
    @pytest.mark.parametrize("kind", ["defender_alert", "iot_alert"])
    def test_nothing_hostile_leaves_a_control_character(self, form, kind):
        made = alert(1, kind=kind, text=HOSTILE, alert_type=HOSTILE, resource=HOSTILE)
        said = self.encode(made, format=form)
        if form == "leef":
            said = said.replace("\t", "")
        assert not [c for c in said if c < " " or "\x7f" <= c < "\xa0" or c in "\u2028\u2029"]


class TestChecking:
    def test_a_plain_server_is_told_as_unencrypted(self, server):
        said = sink(server.address).check(1)
        assert said.startswith("it takes connections, unencrypted; more cannot be known")
        assert server.received == 0

    def test_whether_the_certificate_is_verified_is_told(self, tmp_path):
        cert, key = certificate(tmp_path)
        with SyslogReceiver(tls=(cert, key)) as server:
            verified = sink(server.address, tls={"ca": str(cert)}).check(1)
            assert verified.startswith("TLSv1.3, its certificate is verified; more cannot")
            anything = sink(server.address, tls={"verify": False}).check(1)
            assert "is not verified (`verify: false`)" in anything
            with pytest.raises(ssl.SSLCertVerificationError):
                sink(server.address, tls={}).check(1)

    def test_a_server_that_wants_a_client_certificate_is_told(self, tmp_path):
        """In TLS 1.3 it refuses after the handshake."""
        cert, key = certificate(tmp_path)
        client, client_key = certificate(tmp_path, "client")
        with SyslogReceiver(tls=(cert, key), client_ca=client) as server:
            with pytest.raises(OSError, match="certificate required"):
                sink(server.address, tls={"ca": str(cert)}).check(1)
            shown = {"ca": str(cert), "cert": str(client), "key": str(client_key)}
            assert "is verified" in sink(server.address, tls=shown).check(1)

    def test_a_server_that_hangs_up_at_once_is_told(self):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            threading.Thread(target=lambda: listener.accept()[0].close(), daemon=True).start()
            with pytest.raises(ConnectionError, match="closes the connection at once"):
                sink(f"127.0.0.1:{listener.getsockname()[1]}").check(1)

    def test_a_server_that_is_not_there_is_told(self, server):
        server.refuse()
        with pytest.raises(ConnectionRefusedError):
            sink(server.address).check(1)

    def test_udp_tells_that_it_cannot_be_known(self):
        assert "UDP never answers" in sink("127.0.0.1:9", protocol="udp").check(1)

    @pytest.mark.parametrize("form", ["rfc5424", "rfc3164", "cef", "cef_iot", "leef"])
    @pytest.mark.parametrize("kind", ["defender_alert", "iot_alert"])
    def test_a_record_is_found_by_what_is_in_it(self, form, kind):
        to = sink(format=form)
        found = to.find(identity(1)).removeprefix("search for ")
        assert found in to.encode(alert(1, kind=kind), SOURCE, PARTITION).decode()


STREAMS = [("octet", False), ("lf", False), ("octet", True), ("lf", True)]


class TestDelivery:
    @pytest.mark.parametrize("form", ["rfc5424", "cef"])
    @pytest.mark.parametrize(("framing", "tls"), STREAMS)
    def test_every_message_arrives_once_and_none_is_forged(
        self, deliver, tmp_path, framing, tls, form
    ):
        cert, key = certificate(tmp_path)
        with SyslogReceiver(tls=(cert, key) if tls else None) as server:
            options = {"tls": {"ca": f"file:{cert}"}} if tls else {}
            to = sink(server.address, framing=framing, format=form, patience=3, **options)
            assert deliver(to, range(300), text=HOSTILE) == [D] * 300
            eventually(lambda: server.received >= 300)
            assert server.ids() == [identity(n) for n in range(300)]
            to.probe(1)

    @pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this machine speaks no IPv6")
    @pytest.mark.parametrize("protocol", ["tcp", "udp"])
    def test_an_ipv6_address(self, protocol):
        kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
        with socket.socket(socket.AF_INET6, kind) as server:
            server.settimeout(2)
            server.bind(("::1", 0))
            if protocol == "tcp":
                server.listen()
            address = f"[::1]:{server.getsockname()[1]}"
            connection = sink(address, protocol=protocol).connect()
            assert connection.send([b"<13>hello"], 1) == Accepted()
            if protocol == "tcp":
                peer, _ = server.accept()
                with peer:
                    assert peer.recv(100) == b"9 <13>hello"
            else:
                assert server.recv(100) == b"<13>hello"
            connection.close()

    def test_udp(self, deliver):
        with SyslogReceiver(protocol="udp") as server:
            to = sink(server.address, protocol="udp")
            to.probe(1)
            assert deliver(to, range(50), text=HOSTILE) == [D] * 50
            eventually(lambda: server.received >= 50)
            assert server.ids() == [identity(n) for n in range(50)]

    def test_rfc3164_fits_a_datagram(self, deliver):
        with SyslogReceiver(protocol="udp") as server:
            to = sink(server.address, protocol="udp", format="rfc3164")
            assert deliver(to, range(50), text=HOSTILE * 10) == [D] * 50
            eventually(lambda: server.received >= 50)
            messages = server.messages()
        assert max(map(len, messages)) <= 1024
        found = [re.search(rb' alertbeam: event_id="(\w{32})" ', each) for each in messages]
        assert [match and match[1].decode() for match in found] == [identity(n) for n in range(50)]

    def test_udp_to_nobody_is_owed(self, deliver):
        with SyslogReceiver(protocol="udp") as server:
            address = server.address
        assert deliver(sink(address, protocol="udp"), range(5)) == [OWED] * 5

    def test_a_client_certificate(self, deliver, tmp_path):
        cert, key = certificate(tmp_path)
        client, client_key = certificate(tmp_path, "client")
        with SyslogReceiver(tls=(cert, key), client_ca=client) as server:
            tls = {"ca": str(cert), "cert": str(client), "key": str(client_key)}
            assert deliver(sink(server.address, tls=tls)) == [D] * 3
            eventually(lambda: server.received == 3)

    def test_a_server_whose_certificate_is_not_trusted_stops_it(self, deliver, tmp_path):
        with SyslogReceiver(tls=certificate(tmp_path)) as server:
            assert deliver(sink(server.address, tls={}, patience=5)) == [OWED] * 3
            assert "certificate was refused" in deliver.engine.status().reason
            assert server.received == 0

    def test_the_name_in_the_certificate_is_checked(self, deliver, tmp_path):
        cert, key = certificate(tmp_path)
        with SyslogReceiver(tls=(cert, key)) as server:
            tls = {"ca": str(cert), "server_name": "siem.example"}
            assert deliver(sink(server.address, tls=tls, patience=5)) == [OWED] * 3
            assert deliver(sink(server.address, tls={"ca": str(cert)})) == [D] * 3

    def test_one_connection_serves_all_chunks(self, server, deliver):
        to = sink(server.address)
        for start in range(0, 100, 10):
            assert deliver(to, range(start, start + 10)) == [D] * 10
        assert server.connections == 1


class TestFailures:
    def test_a_server_that_is_not_there_is_owed_and_recovered_from(self, server, deliver):
        to = sink(server.address)
        server.refuse()
        assert deliver(to) == [OWED] * 3
        assert "refused" in deliver.sent[0].reason
        server.accept()
        eventually(lambda: deliver.engine.status().circuit == "half_open")
        assert deliver(to) == [D] * 3

    def test_a_server_that_reads_nothing_is_owed_within_the_patience(self, server, deliver):
        """What its TCP has not taken is not delivered: here more than all buffers hold."""
        server.fail(Silence())
        to = sink(server.address)
        started = time.monotonic()
        outcomes = deliver(to, range(3000), text="x" * 2500)
        assert time.monotonic() - started < 3
        assert OWED in outcomes
        server.heal()
        delivered = [identity(n) for n, outcome in enumerate(outcomes) if outcome is D]
        eventually(lambda: server.received >= len(delivered))
        assert set(delivered) <= set(server.ids())

    def test_a_server_that_went_away_while_idle_is_found_out_before_sending(self, server, deliver):
        to = sink(server.address)
        assert deliver(to, range(10)) == [D] * 10
        eventually(lambda: server.received == 10)
        server.fail(HalfClose(), times=1)
        assert deliver(to, range(10, 20)) == [D] * 10
        eventually(lambda: server.received == 20)
        assert deliver(to, range(20, 30)) == [D] * 10
        eventually(lambda: server.received == 30)
        assert server.ids() == [identity(n) for n in range(30)], "in order: nothing comes twice"
        assert server.connections == 2
        assert deliver.engine.status().retries == 0

    def test_what_its_tcp_took_and_it_never_read_is_sent_again(self, server, deliver):
        """The server dies with a full receive buffer: its TCP had acknowledged everything."""
        to = sink(server.address)
        assert deliver(to, range(5)) == [D] * 5
        eventually(lambda: server.received == 5)
        server.fail(Reset(), times=1)
        assert deliver(to, range(5, 10)) == [D] * 5
        # What was read before may come again first.
        eventually(lambda: {identity(n) for n in range(10)} <= set(server.ids()))

    def test_a_server_that_closed_just_before_a_send_is_found_out_at_once(self, monkeypatch):
        """Not only when the time is over: what was sent then stays unacknowledged for ever."""
        listener = socket.create_server(("127.0.0.1", 0))
        connection = sink(f"127.0.0.1:{listener.getsockname()[1]}").connect()
        payloads = [p.payload for p in parcels(sink(), range(5))]
        assert connection.send(payloads, 1) == Accepted()
        peer, _ = listener.accept()
        while len(peer.recv(65536)) == 65536:
            pass
        peer.close()
        time.sleep(0.02)
        well, asked = module.gone, []

        def gone(sock: socket.socket) -> bool:
            asked.append(sock)
            return len(asked) > 1 and well(sock)  # it had not closed yet when it was looked at

        monkeypatch.setattr(module, "gone", gone)
        began = time.monotonic()
        verdict = connection.send(payloads, 3)
        assert isinstance(verdict, Retry)
        assert time.monotonic() - began < 1
        listener.close()
        connection.close()

    def die_with_a_full_buffer(
        self, server: SyslogReceiver, connection: Any, payloads: list[bytes]
    ) -> None:
        server.fail(Silence(), times=1)
        assert connection.send(payloads, 1) == Accepted()
        eventually(lambda: server._fault is None and bool(server._open))
        server.reset()
        server.heal()
        eventually(lambda: not server._open)
        assert server.received == 0

    def test_that_is_found_out_without_a_next_alert(self, server):
        connection = sink(server.address).connect()
        payloads = [p.payload for p in parcels(sink(), range(5))]
        self.die_with_a_full_buffer(server, connection, payloads)
        assert server.received == 0
        assert connection.idle() == 1.0
        eventually(lambda: server.received == 5)
        connection.close()

    def test_what_was_lost_while_the_server_is_down_is_sent_when_it_is_back(self, server):
        connection = sink(server.address).connect()
        server.fail(Reset(), times=1)
        first, second = (
            [p.payload for p in parcels(sink(), numbers)] for numbers in (range(5), range(5, 8))
        )
        verdict = connection.send(first, 1)
        eventually(lambda: server._fault is None and not server._open)
        server.refuse()
        assert isinstance(connection.send(second, 1), Retry)
        assert isinstance(connection.send(second, 1), Retry)
        server.accept()
        assert connection.send(second, 1) == Accepted()
        expected = range(8) if verdict == Accepted() else range(5, 8)
        eventually(lambda: {identity(n) for n in expected} <= set(server.ids()))
        connection.close()

    def test_closing_sends_what_got_lost(self, server):
        connection = sink(server.address).connect()
        payloads = [p.payload for p in parcels(sink(), range(5))]
        self.die_with_a_full_buffer(server, connection, payloads)
        connection.close()
        eventually(lambda: server.received == 5)

    def test_what_is_old_is_not_kept(self, server, monkeypatch):
        monkeypatch.setattr(module, "_TAIL_SECONDS", 0.05)
        connection = sink(server.address).connect()
        payloads = [p.payload for p in parcels(sink(), range(5))]
        connection.send(payloads, 1)
        assert connection.idle() == 1.0
        time.sleep(0.06)
        connection.idle()
        assert connection.idle() is None
        monkeypatch.setattr(module, "_TAIL_SECONDS", 10)
        monkeypatch.setattr(module, "_TAIL_BYTES", 2 * sum(map(len, payloads)))
        for _ in range(10):
            connection.send(payloads, 1)
        assert len(connection._tail) <= 3
        connection.close()

    def test_a_peer_that_says_goodbye_in_tls_is_not_a_failure(self, deliver, tmp_path):
        cert, key = certificate(tmp_path)
        with SyslogReceiver(tls=(cert, key)) as server:
            to = sink(server.address, tls={"ca": str(cert)})
            assert deliver(to) == [D] * 3
            eventually(lambda: server.received == 3)
            for sock in list(server._open):
                sock.settimeout(0.05)
                with contextlib.suppress(OSError):
                    sock.unwrap()
            time.sleep(0.02)
            assert deliver(to, range(3, 6)) == [D] * 3
            eventually(lambda: server.received == 6)
            assert deliver.engine.status().retries == 0

    def test_a_peer_that_ends_tls_without_a_goodbye_may_have_lost_what_came_last(
        self, deliver, tmp_path
    ):
        """As when it crashes: to Python that looks like an orderly end unless it is told."""
        cert, key = certificate(tmp_path)
        with SyslogReceiver(tls=(cert, key)) as server:
            to = sink(server.address, tls={"ca": str(cert)})
            assert deliver(to) == [D] * 3
            eventually(lambda: server.received == 3)
            for sock in list(server._open):
                socket.socket.shutdown(sock, socket.SHUT_RDWR)
            time.sleep(0.02)
            assert deliver(to, range(3, 6)) == [D] * 3
            eventually(lambda: server.received >= 9)
            assert set(server.ids()) == {identity(n) for n in range(6)}

    def test_parting_reads_what_the_peer_said_so_that_it_loses_nothing(self):
        """A socket that is closed with something unread resets the connection."""
        listener = socket.create_server(("127.0.0.1", 0))
        got: list[bytes] = []

        def serve() -> None:
            peer, _ = listener.accept()
            peer.sendall(b"welcome")
            time.sleep(0.1)
            while data := peer.recv(1000):
                got.append(data)
            peer.close()

        thread = threading.Thread(target=serve)
        thread.start()
        connection = sink(f"127.0.0.1:{listener.getsockname()[1]}").connect()
        sock = connection._sock = socket.create_connection(listener.getsockname())
        sock.sendall(b"<13>everything")
        connection.close()
        thread.join()
        listener.close()
        assert b"".join(got) == b"<13>everything"
