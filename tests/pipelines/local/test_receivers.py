"""The receivers, asked by the standard library's clients: no code of a sink takes part."""

from __future__ import annotations

import gzip
import http.client
import json
import socket
import ssl
import stat
import time
from collections.abc import Callable, Iterator

import pytest

from pipelines.local.receivers import (
    Answer,
    Drip,
    HalfClose,
    HecReceiver,
    InvalidEvent,
    Poison,
    Reset,
    Silence,
    Slow,
    SyslogReceiver,
    certificate,
)


def eventually(check: Callable[[], bool], within: float = 3.0) -> None:
    until = time.monotonic() + within
    while not check():
        assert time.monotonic() < until, "it did not come about"
        time.sleep(0.002)


def event(number: int) -> bytes:
    said = {"event": {"n": number}, "fields": {"event_id": f"{number:032x}"}}
    return json.dumps(said, separators=(",", ":")).encode()


EVENTS = b"\n".join(map(event, range(3)))


@pytest.fixture
def hec() -> Iterator[HecReceiver]:
    with HecReceiver(token="right", strict=True, max_bytes=10_000) as receiver:
        yield receiver


def post(
    receiver: HecReceiver,
    body: bytes = EVENTS,
    path: str = "/services/collector/event",
    timeout: float = 2,
    **headers: str,
) -> tuple[int, dict[str, object]]:
    client = http.client.HTTPConnection("127.0.0.1", receiver.port, timeout=timeout)
    named = {"Authorization": "Splunk right"}
    named |= {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        client.request("POST", path, body, named)
        answer = client.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        client.close()


class TestHec:
    def test_it_takes_events_and_says_so_as_splunk_does(self, hec):
        assert post(hec) == (200, {"text": "Success", "code": 0})
        assert (hec.requests, hec.received) == (1, 3)
        assert hec.ids() == [f"{n:032x}" for n in range(3)]
        assert [e["event"]["n"] for e in hec.events()] == [0, 1, 2]

    @pytest.mark.parametrize("path", ["/services/collector", "/services/collector/event/1.0"])
    def test_it_knows_the_other_names_of_its_endpoint(self, hec, path):
        assert post(hec, path=path)[0] == 200

    def test_it_unpacks_gzip(self, hec):
        assert post(hec, gzip.compress(EVENTS), Content_Encoding="gzip")[0] == 200
        assert hec.received == 3

    @pytest.mark.parametrize(
        ("body", "headers", "path", "status", "code"),
        [
            (EVENTS, {"Authorization": ""}, None, 401, 2),
            (EVENTS, {"Authorization": "Bearer right"}, None, 401, 3),
            (EVENTS, {"Authorization": "Splunk wrong"}, None, 403, 4),
            (b" ", {}, None, 400, 5),
            (b"not JSON", {}, None, 400, 6),
            (b"not gzip", {"Content_Encoding": "gzip"}, None, 400, 6),
            (b"[1]", {}, None, 400, 6),
            (b'{"fields":{}}', {}, None, 400, 12),
            (b'{"event":""}', {}, None, 400, 13),
            (b'{"event":1,"fields":{"a":{"b":1}}}', {}, None, 400, 15),
            (EVENTS, {}, "/elsewhere", 404, 404),
            (b"x" * 10_001, {}, None, 413, None),
            (gzip.compress(b"x" * 1_000_000), {"Content_Encoding": "gzip"}, None, 413, None),
        ],
    )
    def test_it_refuses_what_splunk_refuses(self, hec, body, headers, path, status, code):
        got, answer = post(hec, body, path or "/services/collector/event", **headers)
        assert (got, answer.get("code")) == (status, code)
        assert hec.received == 0

    def test_of_a_batch_with_an_invalid_event_those_before_it_are_taken(self, hec):
        status, answer = post(hec, b"\n".join([event(0), event(1), b"{]", event(3)]))
        assert (status, answer["invalid-event-number"]) == (400, 2)
        assert hec.ids() == [f"{n:032x}" for n in (0, 1)]

    def test_its_health_is_what_it_is_told(self, hec):
        for healthy, expected in ((True, (200, 17)), (False, (503, 18))):
            hec.healthy = healthy
            client = http.client.HTTPConnection("127.0.0.1", hec.port, timeout=2)
            client.request("GET", "/services/collector/health")
            answer = client.getresponse()
            assert (answer.status, json.loads(answer.read())["code"]) == expected
            client.close()

    def test_a_connection_is_kept(self, hec):
        client = http.client.HTTPConnection("127.0.0.1", hec.port, timeout=2)
        for _ in range(3):
            client.request("POST", "/services/collector", EVENTS, {"Authorization": "Splunk right"})
            assert client.getresponse().read()
        client.close()
        assert (hec.connections, hec.received) == (1, 9)

    def test_events_over_several_lines_and_without_a_line_between_are_all_found(self):
        with HecReceiver() as hec:
            pretty = json.dumps({"event": {"text": "}{"}}, indent=1).encode()
            post(hec, pretty + b"\n" + event(1) + b"\n" + pretty)
            assert hec.received == 3
            post(hec, event(2) + event(3))
            assert len(list(hec.events())) == 5

    def test_it_keeps_a_file_that_only_its_owner_reads(self, tmp_path):
        with HecReceiver(folder=tmp_path / "hec") as hec:
            post(hec)
            assert hec.path is not None
            lines = hec.path.read_bytes().splitlines()
            assert stat.S_IMODE(hec.path.stat().st_mode) == 0o600
        assert [json.loads(line)["event"]["n"] for line in lines] == [0, 1, 2]
        assert hec.ids() == [f"{n:032x}" for n in range(3)]

    def test_it_speaks_tls(self, tmp_path):
        cert, key = certificate(tmp_path)
        with HecReceiver(tls=(cert, key)) as hec:
            context = ssl.create_default_context(cafile=str(cert))
            client = http.client.HTTPSConnection("127.0.0.1", hec.port, timeout=2, context=context)
            client.request("POST", "/services/collector", EVENTS, {"Authorization": "Splunk x"})
            assert client.getresponse().status == 200
            client.close()
            assert hec.url.startswith("https://127.0.0.1:")

    def test_it_listens_on_this_machine_only(self, hec):
        assert hec._listener is not None
        assert hec._listener.getsockname()[0] == "127.0.0.1"

    def test_a_port_in_use_is_an_error(self, hec):
        with pytest.raises(OSError, match="in use"):
            HecReceiver(port=hec.port).start()


class TestHecFaults:
    def test_an_answer_as_often_as_asked(self, hec):
        hec.fail(Answer(429, 26, "Queue at capacity", (("Retry-After", "3"),)), times=2)
        assert [post(hec)[0] for _ in range(3)] == [429, 429, 200]
        assert hec.received == 3

    def test_an_answer_until_it_is_healed(self, hec):
        hec.fail(Answer(503, 9, "Server is busy"))
        assert [post(hec)[1].get("code") for _ in range(3)] == [9, 9, 9]
        hec.heal()
        assert post(hec)[0] == 200

    def test_an_invalid_event(self, hec):
        hec.fail(InvalidEvent(1), times=1)
        status, answer = post(hec)
        assert (status, answer["code"], answer["invalid-event-number"]) == (400, 6, 1)
        assert hec.received == 1

    @pytest.mark.parametrize("numbered", [False, True])
    def test_a_poisoned_event(self, hec, numbered):
        hec.fail(Poison(b'"n":1}', numbered))
        status, answer = post(hec)
        assert (status, answer.get("invalid-event-number")) == (400, 1 if numbered else None)
        assert post(hec, event(2))[0] == 200

    def test_silence(self, hec):
        hec.fail(Silence(), times=1)
        with pytest.raises(TimeoutError):
            post(hec, timeout=0.1)
        assert hec.received == 0

    def test_slowness(self, hec):
        hec.fail(Slow(0.1), times=1)
        started = time.monotonic()
        assert post(hec)[0] == 200
        assert time.monotonic() - started >= 0.1

    def test_a_dripping_answer(self, hec):
        hec.fail(Drip(0.01), times=1)
        started = time.monotonic()
        assert post(hec)[0] == 200
        assert time.monotonic() - started >= 0.2

    @pytest.mark.parametrize(("taken", "received"), [(False, 0), (True, 3)])
    def test_a_reset_before_or_after_it_took_everything(self, hec, taken, received):
        hec.fail(Reset(taken), times=1)
        with pytest.raises((ConnectionError, http.client.RemoteDisconnected)):
            post(hec)
        assert hec.received == received

    def test_a_half_closed_connection(self, hec):
        hec.fail(HalfClose(), times=1)
        with pytest.raises(http.client.RemoteDisconnected):
            post(hec)

    def test_refused_connections_and_accepted_again(self, hec):
        hec.refuse()
        with pytest.raises(ConnectionRefusedError):
            post(hec)
        hec.accept()
        assert post(hec)[0] == 200

    def test_stopping_ends_its_threads_whatever_they_wait_for(self):
        hec = HecReceiver().start()
        hec.fail(Silence())
        sock = socket.create_connection(("127.0.0.1", hec.port))
        sock.sendall(b"POST /services/collector HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}")
        idle = socket.create_connection(("127.0.0.1", hec.port))
        eventually(lambda: hec.connections == 2)
        started = time.monotonic()
        hec.stop()
        assert time.monotonic() - started < 1
        sock.close()
        idle.close()


def octets(*messages: bytes) -> bytes:
    return b"".join(b"%d %b" % (len(m), m) for m in messages)


class TestSyslog:
    def test_frames_by_length_and_by_newline_are_told_apart(self):
        with SyslogReceiver() as receiver:
            sock = socket.create_connection(("127.0.0.1", receiver.port))
            sock.sendall(octets(b"<1>one", b"<1>t\nwo") + b"<1>three\n" + octets(b"<1>four"))
            sock.close()
            eventually(lambda: receiver.received == 4)
            assert receiver.messages() == [b"<1>one", b"<1>t#012wo", b"<1>three", b"<1>four"]

    def test_frames_come_in_pieces(self):
        with SyslogReceiver() as receiver:
            sock = socket.create_connection(("127.0.0.1", receiver.port))
            for byte in octets(b"<1>one", b"<1>two") + b"<1>three\n":
                sock.sendall(bytes([byte]))
            eventually(lambda: receiver.received == 3)
            sock.close()

    def test_tls_with_a_client_certificate(self, tmp_path):
        cert, key = certificate(tmp_path)
        client = certificate(tmp_path, "client")
        with SyslogReceiver(tls=(cert, key), client_ca=client[0]) as receiver:
            context = ssl.create_default_context(cafile=str(cert))
            context.load_cert_chain(*client)
            plain = socket.create_connection(("127.0.0.1", receiver.port))
            with context.wrap_socket(plain, server_hostname="localhost") as sock:
                sock.sendall(octets(b"<1>secret"))
                eventually(lambda: receiver.received == 1)

    def test_udp_and_stopping_it(self, tmp_path):
        with SyslogReceiver(protocol="udp", folder=tmp_path) as receiver:
            sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            sock.sendto(b"<1>one", ("127.0.0.1", receiver.port))
            eventually(lambda: receiver.received == 1)
            sock.close()
        assert receiver.messages() == [b"<1>one"]

    def test_a_reset_takes_what_was_not_read_or_not(self):
        for taken in (False, True):
            with SyslogReceiver() as receiver:
                receiver.fail(Reset(taken), times=1)
                sock = socket.create_connection(("127.0.0.1", receiver.port))
                sock.sendall(octets(b"<1>one"))
                with pytest.raises(ConnectionResetError):
                    sock.recv(1)
                assert receiver.received == taken

    def test_a_server_that_reads_nothing_and_one_that_says_goodbye(self):
        with SyslogReceiver() as receiver:
            receiver.fail(Silence())
            sock = socket.create_connection(("127.0.0.1", receiver.port))
            sock.sendall(octets(b"<1>one"))
            time.sleep(0.05)
            assert receiver.received == 0
            receiver.heal()
            eventually(lambda: receiver.received == 1)
            receiver.fail(HalfClose(), times=1)
            sock.sendall(octets(b"<1>two"))
            assert sock.recv(1) == b""

    def test_ids_are_found_where_the_sinks_put_them_and_nowhere_else(self):
        good, forged = "a" * 32, "f" * 32
        head = b"<131>1 2026-01-01T00:00:00.000Z host alertbeam - kind "
        messages = [
            head
            + b'[alert@32473 event_id="%b" kind="x"] externalId=%b' % (good.encode(), b"f" * 32),
            head
            + rb"- CEF:0|M|P\||1.0|C|externalId=%b|8|externalId=%b rt=1" % (b"f" * 32, b"a" * 32),
            b"<1>no id " + forged.encode(),
        ]
        receiver = SyslogReceiver()
        receiver.take(messages)
        assert receiver.ids() == [good, good]
