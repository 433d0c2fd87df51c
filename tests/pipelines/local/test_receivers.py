"""The receivers, asked by the standard library's clients: no sink takes part."""

from __future__ import annotations

import contextlib
import gzip
import http.client
import json
import math
import socket
import ssl
import stat
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from pipelines.local.receivers import (
    Answer,
    Drip,
    HalfClose,
    HecReceiver,
    HttpReceiver,
    InvalidEvent,
    Pace,
    Poison,
    Reply,
    Request,
    Reset,
    Silence,
    Slow,
    SyslogReceiver,
    certificate,
)
from schemas.alert import Alert
from schemas.formats.cef import cef, cef_iot
from schemas.formats.leef import leef
from schemas.formats.rfc5424 import header


def eventually(check: Callable[[], bool], within: float = 3.0) -> None:
    until = time.monotonic() + within
    while not check():
        assert time.monotonic() < until, "it did not come about"
        time.sleep(0.002)


def event(number: int) -> bytes:
    said = {"event": {"n": number}, "fields": {"event_id": f"{number:032x}"}}
    return json.dumps(said, separators=(",", ":")).encode()


EVENTS = b"\n".join(map(event, range(3)))


CHANNEL, OTHER = "0aeeac95-ac74-4aa9-b30d-6c4c0ac581ba", "1AEEAC95-AC74-4AA9-B30D-6C4C0AC581BA"


@pytest.fixture
def hec() -> Iterator[HecReceiver]:
    with HecReceiver(token="right", strict=True, max_bytes=10_000) as receiver:
        yield receiver


def post(
    receiver: HttpReceiver,
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
            (
                gzip.compress(b"x" * 1_000_000, mtime=0),
                {"Content_Encoding": "gzip"},
                None,
                413,
                None,
            ),
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
        sock.sendall(b"POST /services/collector HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}")
        idle = socket.create_connection(("127.0.0.1", hec.port))
        eventually(lambda: hec.connections == 2 and hec.requests == 1)
        started = time.monotonic()
        hec.stop()
        assert time.monotonic() - started < 1
        sock.close()
        idle.close()


class TestAcknowledgement:
    @pytest.fixture
    def hec(self) -> Iterator[HecReceiver]:
        with HecReceiver(token="right", acknowledge=True, strict=True) as receiver:
            yield receiver

    def send(self, hec: HecReceiver, *numbers: int, channel: str = CHANNEL) -> int:
        body = b"\n".join(map(event, numbers))
        status, answer = post(hec, body, X_Splunk_Request_Channel=channel)
        assert (status, answer["code"]) == (200, 0)
        return int(str(answer["ackId"]))

    def ask(self, hec: HecReceiver, *acks: int, channel: str = CHANNEL) -> dict[str, bool]:
        path = f"/services/collector/ack?channel={channel}"
        status, answer = post(hec, json.dumps({"acks": acks}).encode(), path)
        assert status == 200
        return answer["acks"]

    def test_requests_are_numbered_in_their_channel_and_acknowledged_once(self, hec):
        assert [self.send(hec, n) for n in range(3)] == [0, 1, 2]
        assert self.send(hec, 3, channel=OTHER) == 0
        assert self.ask(hec, 0, 2, 7) == {"0": True, "2": True, "7": False}
        assert self.ask(hec, 0, 1) == {"0": False, "1": True}
        assert self.ask(hec, 0, channel=OTHER) == {"0": True}

    @pytest.mark.parametrize("path", ["/services/collector", "/services/collector/ack"])
    @pytest.mark.parametrize(
        ("channel", "code"), [("", 10), ("1", 11), (CHANNEL + "0", 11), (CHANNEL[:-1] + "x", 11)]
    )
    def test_without_a_channel_there_is_no_answer(self, hec, path, channel, code):
        status, answer = post(hec, path=f"{path}?channel={channel}")
        assert (status, answer["code"]) == (400, code)
        assert hec.received == 0

    def test_without_acknowledgement_there_is_no_number_and_nothing_to_ask(self):
        with HecReceiver(token="right") as hec:
            assert "ackId" not in post(hec, X_Splunk_Request_Channel=CHANNEL)[1]
            path = f"/services/collector/ack?channel={CHANNEL}"
            assert post(hec, b'{"acks":[0]}', path)[1]["code"] == 14
            assert post(hec, b'{"acks":[0]}', path, Authorization="Splunk wrong")[1]["code"] == 4

    @pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"acks":0}', b'{"acks":["0"]}'])
    def test_a_question_that_is_none(self, hec, body):
        status, answer = post(hec, body, f"/services/collector/ack?channel={CHANNEL}")
        assert (status, answer["code"]) == (400, 6)

    def test_what_waits_to_be_indexed_is_neither_told_nor_there(self, hec):
        hec.ack_after = math.inf
        self.send(hec, 0)
        assert self.ask(hec, 0) == {"0": False}
        assert (hec.received, hec.ids()) == (1, [])
        hec.ack_after = 0
        assert hec.ids() == [f"{0:032x}"]
        assert self.ask(hec, 0) == {"0": True}

    def test_it_takes_as_long_as_it_is_told(self, hec):
        hec.ack_after = 0.05
        started = time.monotonic()
        self.send(hec, 0)
        eventually(lambda: self.ask(hec, 0)["0"])
        assert time.monotonic() - started >= 0.05

    def test_what_is_lost_was_taken_and_is_never_acknowledged(self, hec):
        hec.lose_next(1)
        assert [self.send(hec, 0, 1), self.send(hec, 2)] == [0, 1]
        assert self.ask(hec, 0, 1) == {"0": False, "1": True}
        assert hec.received == 3
        assert hec.ids() == [f"{2:032x}"]

    def test_a_restart_forgets_channels_and_what_was_not_indexed(self, hec):
        self.send(hec, 0)
        assert hec.ids() == [f"{0:032x}"]
        hec.ack_after = math.inf
        self.send(hec, 1)
        hec.restart()
        hec.ack_after = 0
        assert self.ask(hec, 0, 1) == {"0": False, "1": False}
        assert self.send(hec, 2) == 0
        assert hec.ids() == [f"{n:032x}" for n in (0, 2)]

    def test_a_batch_that_is_refused_has_no_number(self, hec):
        body = b"\n".join([event(0), b"{]"])
        status, answer = post(hec, body, X_Splunk_Request_Channel=CHANNEL)
        assert status == 400 and "ackId" not in answer

    def test_faults_are_about_events_unless_they_are_about_the_question(self, hec):
        number = self.send(hec, 0)
        hec.fail(Answer(503, 9, "Server is busy"))
        assert self.ask(hec, number) == {"0": True}
        hec.fail(Answer(503, 9, "Server is busy"), on="/services/collector/ack")
        number = self.send(hec, 1)
        assert post(hec, b"", f"/services/collector/ack?channel={CHANNEL}")[0] == 503
        assert hec.requests == 2


class Lines(HttpReceiver):
    """A system that takes lines."""

    def respond(self, request: Request) -> Reply:
        if request.method == "GET":
            return Reply(200, {"path": request.path, "query": request.query})
        if request.headers["X-LINES"] != "yes":
            raise ValueError("a mistake of the double's")
        count = request.body.count(b"\n")
        self.keep(request.body, count)
        return Reply(200, {"took": count}) if count else Reply(204)


def send(receiver: HttpReceiver, raw: bytes) -> bytes:
    """All that is answered until the connection is closed."""
    with socket.create_connection(("127.0.0.1", receiver.port), timeout=2) as sock:
        sock.sendall(raw)
        said = b""
        while data := sock.recv(65536):
            said += data
        return said


class TestHttp:
    @pytest.fixture
    def lines(self) -> Iterator[Lines]:
        with Lines(max_bytes=1000) as receiver:
            yield receiver

    def test_a_subclass_says_what_it_answers(self, lines):
        assert post(lines, b"a\nb\n", x_lines="yes") == (200, {"took": 2})
        assert list(lines.lines()) == [b"a", b"b"]
        assert (lines.requests, lines.received) == (1, 2)

    def test_it_gets_path_and_query_decoded(self, lines):
        head = b"GET %b HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        for target in (b"/a%20b?q=1%26&r=", b"http://x/a%20b?q=1%26&r="):
            body = send(lines, head % target).partition(b"\r\n\r\n")[2]
            assert json.loads(body) == {"path": "/a b", "query": {"q": "1&", "r": ""}}
        assert lines.requests == 0

    def test_requests_may_come_close_behind_each_other_and_in_pieces(self, lines):
        one = b"POST / HTTP/1.1\r\nHost: x\r\nX-Lines: yes\r\nContent-Length: 2\r\n\r\na\n"
        last = one.replace(b"X-", b"Connection: close\r\nX-")
        assert send(lines, one + one + last).count(b'{"took":1}') == 3
        with socket.create_connection(("127.0.0.1", lines.port), timeout=2) as sock:
            for byte in last:
                sock.sendall(bytes([byte]))
            assert sock.recv(1000).startswith(b"HTTP/1.1 200 OK\r\n")

    def test_an_answer_without_a_body_has_no_length(self, lines):
        said = send(
            lines,
            b"POST / HTTP/1.1\r\nHost: x\r\nX-Lines: yes\r\nConnection: close\r\n\r\n",
        )
        assert said.startswith(b"HTTP/1.1 204 No Content\r\n") and said.endswith(b"\r\n\r\n")
        assert b"Content-Length" not in said

    def test_the_answer_to_head_is_that_to_get_without_its_body(self, lines):
        lines.respond = lambda request: Reply(200, b"1234", {"Content-Type": "text/plain"})
        said = send(lines, b"HEAD / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert b"Content-Length: 4\r\n" in said and said.endswith(b"\r\n\r\n")

    def test_who_expects_to_be_told_to_go_on_is_told(self, lines):
        head = b"POST / HTTP/1.1\r\nHost: x\r\nX-Lines: yes\r\nExpect: 100-continue\r\n"
        with socket.create_connection(("127.0.0.1", lines.port), timeout=2) as sock:
            sock.sendall(head + b"Content-Length: 2\r\n\r\n")
            assert sock.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
            sock.sendall(b"a\n")
            assert sock.recv(1000).startswith(b"HTTP/1.1 200 ")

    @pytest.mark.parametrize(
        ("head", "status"),
        [
            (b"POST / HTTP/1.1\r\nContent-Length: 0", 400),  # no Host
            (b"POST / HTTP/1.1\r\nHost: x\r\nHost: x", 400),
            (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2", 400),
            (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1", 400),
            (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: \xb2", 400),
            (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked", 411),
            (b"POST / HTTP/1.1\r\nHost: x\r\nX : y", 400),
            (b"POST / HTTP/1.1\r\nHost: x\r\n folded", 400),
            (b"POST / HTTP/1.1\r\nHost: x\r\nX: a\nb", 400),
            (b"POST / HTTP/1.1\r\nHost: x\r\nX: a\x00b", 400),
            (b"POST  / HTTP/1.1\r\nHost: x", 400),
            (b"POST /a b HTTP/1.1\r\nHost: x", 400),
            (b"POST / HTTP/2\r\nHost: x", 400),
        ],
    )
    def test_it_refuses_what_is_no_request(self, lines, head, status):
        assert send(lines, head + b"\r\n\r\n").startswith(b"HTTP/1.1 %d " % status)
        assert lines.requests == 0

    @pytest.mark.parametrize(
        ("body", "encoding", "status"),
        [
            (b"a\n", "br", 415),
            (b"a\n", "gzip", 400),
            (gzip.compress(b"a\n", mtime=0)[:-1], "gzip", 400),
            (gzip.compress(b"a\n", mtime=0) + b"more", "gzip", 400),
            (b"x" * 1001, "identity", 413),
            (gzip.compress(b"x" * 1001, mtime=0), "gzip", 413),
            (gzip.compress(b"x" * 999 + b"\n", mtime=0), "gzip", 200),
        ],
    )
    def test_it_refuses_bodies_that_it_cannot_read(self, lines, body, encoding, status):
        assert post(lines, body, Content_Encoding=encoding, x_lines="yes")[0] == status
        assert lines.received == (status == 200)

    def test_faults_are_about_requests_that_bring_something(self, lines):
        lines.fail(Answer(503, text="busy", headers=(("Retry-After", "1"),)), times=1)
        client = http.client.HTTPConnection("127.0.0.1", lines.port, timeout=2)
        client.request("GET", "/health")
        answer = client.getresponse()
        assert (answer.status, answer.headers["Retry-After"]) == (200, None)
        answer.read()
        client.request("PUT", "/")
        answer = client.getresponse()
        assert answer.status == 503
        assert answer.headers["Retry-After"] == "1"
        assert json.loads(answer.read()) == {"error": "busy"}
        client.close()

    def test_a_poisoned_line_and_a_reset_and_a_silence_need_no_help_of_the_subclass(self, lines):
        lines.fail(Poison(b"evil"))
        assert post(lines, b"evil\n", x_lines="yes")[0] == 400
        assert post(lines, b"good\n", x_lines="yes")[0] == 200
        lines.fail(Reset(taken=True), times=1)
        with pytest.raises((ConnectionError, http.client.RemoteDisconnected)):
            post(lines, b"more\n", x_lines="yes")
        assert list(lines.lines()) == [b"good", b"more"]
        lines.fail(Silence())
        client = http.client.HTTPConnection("127.0.0.1", lines.port, timeout=0.1)
        client.request("GET", "/health")
        with pytest.raises(TimeoutError):
            client.getresponse()

    def test_a_drip_without_a_body_is_one_of_the_head(self, lines):
        lines.fail(Drip(0.001), times=1)
        started = time.monotonic()
        raw = b"POST / HTTP/1.1\r\nHost: x\r\nX-Lines: yes\r\n\r\n"
        assert send(lines, raw).startswith(b"HTTP/1.1 204 ")
        assert time.monotonic() - started >= 0.05

    @pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
    def test_a_mistake_of_the_subclass_is_not_taken_for_one_of_the_peer(self, lines, monkeypatch):
        seen: list[BaseException | None] = []
        monkeypatch.setattr(threading, "excepthook", lambda args: seen.append(args.exc_value))
        with pytest.raises(http.client.RemoteDisconnected):
            post(lines, b"a\n", x_lines="no")
        eventually(lambda: bool(seen))
        assert "Lines has no answer" in str(seen[0])

    def test_a_client_certificate(self, tmp_path):
        cert, key = certificate(tmp_path)
        client = certificate(tmp_path, "client")
        with Lines(tls=(cert, key), client_ca=client[0]) as lines:
            for shown in (True, False):
                context = ssl.create_default_context(cafile=str(cert))
                if shown:
                    context.load_cert_chain(*client)
                https = http.client.HTTPSConnection(
                    "127.0.0.1", lines.port, timeout=2, context=context
                )
                refused = contextlib.nullcontext() if shown else pytest.raises(OSError)
                with contextlib.closing(https), refused:
                    https.request("GET", "/")
                    assert https.getresponse().status == 200

    def test_a_pace_holds_for_all_connections_together(self, lines):
        lines.fail(Pace(200))
        ten = b"x\n" * 10
        started = time.monotonic()
        threads = [
            threading.Thread(target=post, args=(lines, ten), kwargs={"x_lines": "yes"})
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert lines.received == 40
        assert 0.1 <= time.monotonic() - started < 1  # 0.2 s, of which 0.1 may be made up for

    def test_healing_ends_a_pace_at_once(self, lines):
        lines.fail(Pace(0.001))
        threading.Timer(0.05, lines.heal).start()
        assert post(lines, b"x\n", x_lines="yes")[0] == 200


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
        leef_head = head + b"- LEEF:2.0|M|P|1.0|C|0x09|cat=k\tdevTime=1\tsev=8"
        messages = [
            head
            + b'[alert@32473 event_id="%b" kind="x"] externalId=%b' % (good.encode(), b"f" * 32),
            head
            + rb"- CEF:0|M|P\||1.0|C|externalId=%b|8|externalId=%b rt=1" % (b"f" * 32, b"a" * 32),
            leef_head + b"\texternalId=%b\ttitle=externalId=%b" % (b"a" * 32, b"f" * 32),
            leef_head + b"\ttitle=\texternalId=%b" % (b"f" * 32),
            b"<1>no id " + forged.encode(),
        ]
        receiver = SyslogReceiver()
        receiver.take(messages)
        assert receiver.ids() == [good, good, good]

    @pytest.mark.parametrize("form", [cef, cef_iot, leef])
    def test_ids_are_found_in_what_the_formats_make(self, form):
        it = Alert(
            kind="defender_alert", key=b"k" * 16, entity="e", title="externalId=" + "f" * 32,
            description="d", severity="high", event_ms=1, product="P|", alert_type="T", raw=b"{}",
        )  # fmt: skip
        receiver = SyslogReceiver()
        receiver.take([header(it) + form(it)])
        assert receiver.ids() == [it.event_id]

    @pytest.mark.parametrize("tls", [False, True])
    def test_a_server_that_reads_slowly(self, tmp_path, tls):
        cert, key = certificate(tmp_path)
        with SyslogReceiver(tls=(cert, key) if tls else None) as receiver:
            receiver.fail(Pace(1000))
            sock = socket.create_connection(("127.0.0.1", receiver.port))
            if tls:
                context = ssl.create_default_context(cafile=str(cert))
                sock = context.wrap_socket(sock, server_hostname="localhost")
            message = octets(b"<1>" + b"x" * 997)
            threading.Thread(target=sock.sendall, args=(message * 4000,), daemon=True).start()
            time.sleep(0.2)
            assert 100 < receiver.received < 600
            receiver.heal()
            eventually(lambda: receiver.received == 4000)
            sock.close()
