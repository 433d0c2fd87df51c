"""`HttpConnection` against receivers, a double of an HTTP proxy, and peers that break the rules."""

from __future__ import annotations

import base64
import contextlib
import email.message
import email.utils
import pickle
import random
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
    Answer,
    Drip,
    HalfClose,
    HttpReceiver,
    Reply,
    Request,
    Reset,
    Silence,
    Slow,
    certificate,
)
from transforms.delivery import http as module
from transforms.delivery import network
from transforms.delivery.http import (
    HttpConnection,
    HttpSettings,
    Response,
    check_url,
    compress,
    judge,
    retry_after,
)
from transforms.secrets import SecretError
from transforms.sinks.base import Accepted, Refresh, Retry, Shrink, Split, Stop

PASSWORD = "hunter2:with-a-colon"


class Echo(HttpReceiver):
    """It answers with the body, and remembers what it was asked."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.asked: list[Request] = []

    def respond(self, request: Request) -> Reply:
        self.asked.append(request)
        self.received += 1
        return Reply(200, request.body)


class Proxy:
    """A double of an HTTP proxy: CONNECT and whole URLs; every host is the one it knows. Contract:
    RFC 9110, 9.3.6 and 11.7; RFC 9112, 3.2.

    credentials: what it wants to be shown; status: what it answers instead of connecting.
    """

    def __init__(self, to: tuple[str, int], credentials: str = "", status: int = 200) -> None:
        self.asked: list[str] = []  # request lines
        self._to, self._status = to, status
        self._expected = f"Basic {base64.b64encode(credentials.encode()).decode()}"
        self._wants = bool(credentials)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.url = f"http://{self.address}"
        _thread(self._accept)

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *exception: object) -> None:
        _stop(self._listener)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                _thread(self._serve, self._listener.accept()[0])

    def _serve(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            head, rest = _head(client)
            line, *fields = head.decode().split("\r\n")
            named = dict(field.split(": ", 1) for field in fields)
            assert len(named) == len(fields), "a field came twice"
            self.asked.append(line)
            method, target, version = line.split(" ")
            host = target if method == "CONNECT" else target.split("/")[2]
            if version != "HTTP/1.1" or named["Host"] != host:
                client.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
            elif self._wants and named.get("Proxy-Authorization") != self._expected:
                said = named.get("Proxy-Authorization", "")  # some quote it
                client.sendall(
                    f"HTTP/1.1 407 Not with {said} {PASSWORD}\r\n"
                    'Proxy-Authenticate: Basic realm="x"\r\nContent-Length: 0\r\n\r\n'.encode()
                )
            elif self._status != 200:
                said = f"HTTP/1.1 {self._status} No {PASSWORD}\r\nContent-Length: 0\r\n\r\n"
                client.sendall(said.encode())
            else:
                with socket.create_connection(self._to) as server:
                    if method == "CONNECT":
                        client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                    else:
                        server.sendall(head + b"\r\n\r\n" + rest)
                    _thread(_pump, server, client)
                    _pump(client, server)


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch):
    for name in ("http", "https", "all", "no"):
        monkeypatch.delenv(f"{name}_proxy", raising=False)
        monkeypatch.delenv(f"{name}_proxy".upper(), raising=False)


@pytest.fixture
def echo() -> Iterator[Echo]:
    with Echo() as receiver:
        yield receiver


@pytest.fixture
def secured(tmp_path) -> Iterator[tuple[Echo, str]]:
    """A receiver with a certificate for `siem.example`, and its authority."""
    cert, key = certificate(tmp_path, "siem.example")
    with Echo(tls=(cert, key)) as receiver:
        yield receiver, str(cert)


@pytest.fixture
def connect() -> Iterator[Callable[..., HttpConnection]]:
    with contextlib.ExitStack() as made:

        def to(url: str, headers: Any = (), **how: Any) -> HttpConnection:
            connection = HttpConnection(url, HttpSettings(**how), dict(headers))
            made.callback(connection.close)
            return connection

        yield to


@pytest.fixture
def peer() -> Iterator[Callable[..., str]]:
    """A server that reads a request and then does as it is told, once; its URL."""
    with contextlib.ExitStack() as made:

        def that(does: Callable[[socket.socket], Any]) -> str:
            listener = socket.create_server(("127.0.0.1", 0))
            made.callback(_stop, listener)

            def serve() -> None:
                sock, _ = listener.accept()
                with sock, contextlib.suppress(OSError):
                    _head(sock)
                    does(sock)

            _thread(serve)
            return f"http://127.0.0.1:{listener.getsockname()[1]}"

        yield that


def post(connection: HttpConnection, body: bytes = b"hello", timeout: float = 1.0) -> Response:
    return connection.request("POST", "/in", body, {"Content-Type": "text/plain"}, timeout)


def saying(answer: bytes) -> Callable[[socket.socket], None]:
    return lambda sock: sock.sendall(answer)


def _thread(target: Any, *args: Any) -> None:
    threading.Thread(target=target, args=args, daemon=True).start()


def _stop(listener: socket.socket) -> None:
    listener.shutdown(socket.SHUT_RDWR)  # closing alone would not end accept()
    listener.close()


def _head(sock: socket.socket) -> tuple[bytes, bytes]:
    data = b""
    while b"\r\n\r\n" not in data:
        data += sock.recv(65536) or b"\r\n\r\n"
    head, _, rest = data.partition(b"\r\n\r\n")
    return head, rest


def _pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)


class TestRequests:
    def test_one_connection_serves_many_requests(self, echo, connect):
        connection = connect(echo.url)
        assert [post(connection, b"%d" % n).body for n in range(20)] == [
            b"%d" % n for n in range(20)
        ]
        assert echo.connections == 1

    def test_there_is_one_host_header_whatever_is_given(self, echo, connect):
        connection = connect(echo.url, {"host": "evil.example"})
        answer = connection.request("POST", "/in", b"x", {"HOST": "evil.example"}, 1)
        assert answer.status == 200  # the receiver refuses a second one
        assert echo.asked[0].headers["host"] == echo.address

    def test_a_header_of_the_request_holds_before_one_of_the_connection(self, echo, connect):
        connection = connect(echo.url, {"X-Kind": "a", "User-Agent": "mine"})
        connection.request("POST", "/in", b"", {"x-kind": "b"}, 1)
        post(connection)
        assert [asked.headers["X-Kind"] for asked in echo.asked] == ["b", "a"]
        assert echo.asked[0].headers["user-agent"] == "mine"

    @pytest.mark.parametrize(
        "headers",
        [{"X": f"{PASSWORD}\r\nEvil: 1"}, {"X\r\nEvil": PASSWORD}, {"X": f"{PASSWORD}\nEvil: 1"}],
    )
    def test_no_header_begins_another_line(self, echo, connect, headers):
        with pytest.raises(ValueError, match="control character") as caught:
            connect(echo.url).request("POST", "/in", b"", headers, 1)
        assert PASSWORD not in str(caught.value)
        assert not echo.asked

    def test_an_answer_longer_than_what_is_looked_at_ends_the_connection(self, echo, connect):
        connection = connect(echo.url)
        assert connection.request("POST", "/in", b"x" * 9000, {}, 1, 1000).body == b"x" * 1000
        assert post(connection, b"y").body == b"y"
        assert echo.connections == 2

    def test_an_answer_in_chunks_is_put_together(self, peer, connect):
        chunks = (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
        )
        assert post(connect(peer(saying(chunks)))).body == b"abcde"

    def test_an_answer_before_everything_is_read_is_heard(self, peer, connect):
        def refuse(sock: socket.socket) -> None:
            sock.sendall(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
            time.sleep(0.05)

        assert post(connect(peer(refuse)), b"x" * 10_000_000, 2).status == 413

    def test_compressed_is_gzip(self, echo, connect):
        zipped = compress(b"hello" * 1000)
        assert len(zipped) < 100
        answer = connect(echo.url).request("PUT", "/", zipped, {"Content-Encoding": "gzip"}, 1)
        assert answer.body == b"hello" * 1000


class TestFailures:
    def test_an_idle_connection_that_was_closed_is_dialled_anew(self, echo, connect):
        connection = connect(echo.url)
        post(connection)
        for sock in list(echo._open):
            sock.shutdown(socket.SHUT_RDWR)
        time.sleep(0.01)
        assert post(connection).status == 200
        assert echo.connections == 2

    def test_an_idle_connection_that_was_reset_is_dialled_anew(self, echo, connect):
        connection = connect(echo.url)
        post(connection)
        echo.refuse()
        echo.accept()
        time.sleep(0.01)
        assert post(connection).status == 200

    def test_what_a_server_says_unasked_is_no_answer_to_the_next_request(self, peer, connect):
        def two(sock: socket.socket) -> None:
            answer = b"HTTP/1.1 %d X\r\nContent-Length: 0\r\n\r\n"
            sock.sendall(answer % 200)
            time.sleep(0.01)
            sock.sendall(answer % 408)
            _head(sock)
            sock.sendall(answer % 201)

        connection = connect(peer(two))
        assert post(connection).status == 200
        time.sleep(0.03)
        assert post(connection, b"").status == 201

    @pytest.mark.parametrize(
        ("fault", "raised"),
        [
            (Reset(), ConnectionError),
            (Reset(taken=True), ConnectionError),
            (HalfClose(), ConnectionError),
            (Silence(), TimeoutError),
            (Slow(1), TimeoutError),
            (Drip(0.05), TimeoutError),
        ],
        ids=lambda it: type(it).__name__,
    )
    def test_a_failure_is_an_os_error_within_the_deadline_and_the_next_request_succeeds(
        self, echo, connect, fault, raised
    ):
        connection = connect(echo.url)
        echo.fail(fault, times=1)
        started = time.monotonic()
        with pytest.raises(raised):
            post(connection, b"x" * 500, 0.2)
        assert time.monotonic() - started < 0.35
        echo.heal()
        assert post(connection).status == 200

    @pytest.mark.parametrize(
        "answer",
        [
            b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n64\r\n{",
        ],
        ids=["length", "chunked"],
    )
    def test_an_answer_that_breaks_off_is_none(self, peer, connect, answer):
        with pytest.raises(ConnectionError, match="broke off"):
            post(connect(peer(saying(answer))))

    def test_of_an_answer_without_end_only_the_beginning_is_read(self, peer, connect):
        sent = 100 * 1024 * 1024
        head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % sent
        response = post(connect(peer(saying(head + bytes(1024 * 1024)))))
        assert len(response.body) == 64 * 1024

    def test_a_reset_in_the_middle_of_an_answer_is_a_failure(self, peer, connect):
        def reset(sock: socket.socket) -> None:
            sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")
            time.sleep(0.02)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

        with pytest.raises(ConnectionResetError):
            post(connect(peer(reset)))

    @pytest.mark.parametrize(
        "answer", [b"220 mail ESMTP\r\n", b"\0" * 100, b"HTTP/1.1 200 OK\r\n" + b"x" * 70_000]
    )
    def test_what_is_no_http_is_a_network_failure(self, peer, connect, answer):
        with pytest.raises(ConnectionError, match=r"not an HTTP answer|broke off"):
            post(connect(peer(saying(answer))))

    def test_a_server_that_says_nothing_and_closes_is_told(self, peer, connect):
        with pytest.raises(ConnectionError, match="without an answer"):
            post(connect(peer(saying(b""))))

    def test_headers_that_drip_end_by_the_deadline(self, peer, connect):
        def drip(sock: socket.socket) -> None:
            for byte in b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100:
                sock.sendall(bytes([byte]))
                time.sleep(0.01)

        started = time.monotonic()
        with pytest.raises(TimeoutError):
            post(connect(peer(drip)), timeout=0.15)
        assert time.monotonic() - started < 0.25


class TestRenewal:
    def test_a_connection_is_given_up_after_five_minutes_and_the_name_resolved_anew(
        self, echo, connect, monkeypatch
    ):
        connection = connect(f"http://localhost:{echo.port}")
        post(connection)
        now = time.monotonic()
        monkeypatch.setattr(module.time, "monotonic", lambda: now + 239)
        post(connection)
        assert echo.connections == 1
        with Echo() as moved:
            found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", moved.port))]
            monkeypatch.setattr(network.socket, "getaddrinfo", lambda *_, **__: found)
            monkeypatch.setattr(module.time, "monotonic", lambda: now + 301)
            post(connection)
            assert (echo.received, moved.received) == (2, 1)

    def test_connections_made_together_are_not_given_up_together(self, echo, connect):
        random.seed(7)
        made = [connect(echo.url) for _ in range(8)]
        for connection in made:
            post(connection)
        ends = [connection._until - time.monotonic() for connection in made]
        assert max(ends) - min(ends) > 10
        assert 239 < min(ends) < max(ends) < 301

    def test_a_greeting_goes_with_each_connection_and_knows_whether_one_was_lost(self, echo):
        told: list[bool] = []

        def greet(lost: bool) -> dict[str, str]:
            told.append(lost)
            return {"X-Channel": str(len(told))}

        connection = HttpConnection(echo.url, HttpSettings(), {}, greet)
        post(connection)
        post(connection)
        echo.refuse()
        echo.accept()
        time.sleep(0.01)
        post(connection)
        connection._until = 0
        post(connection)
        connection.close()
        assert [asked.headers["x-channel"] for asked in echo.asked] == ["1", "1", "2", "3"]
        assert told == [False, True, False]


class TestTls:
    def test_an_authority_of_ones_own_and_the_name_in_the_certificate(self, secured, connect):
        echo, ca = secured
        with pytest.raises(ssl.SSLCertVerificationError):
            post(connect(echo.url))
        with pytest.raises(ssl.SSLCertVerificationError):
            wrong = {"ca": ca, "server_name": "other.example"}
            post(connect(echo.url, tls=wrong))
        assert post(connect(echo.url, tls={"ca": ca, "server_name": "siem.example"})).status == 200
        assert post(connect(echo.url, tls={"verify": False})).status == 200

    @pytest.fixture
    def mutual(self, tmp_path) -> Iterator[tuple[Echo, dict[str, str]]]:
        cert, key = certificate(tmp_path)
        client, client_key = certificate(tmp_path, "client")
        with Echo(tls=(cert, key), client_ca=client) as receiver:
            yield receiver, {"ca": str(cert), "cert": str(client), "key": str(client_key)}

    def test_a_client_certificate_is_shown(self, mutual, connect):
        echo, tls = mutual
        assert post(connect(echo.url, tls=tls), b"x" * 50_000).body == b"x" * 50_000

    def test_without_it_or_with_another_one_the_server_refuses(self, mutual, connect, tmp_path):
        echo, tls = mutual
        other, other_key = certificate(tmp_path / "other", "client")
        with pytest.raises(OSError, match=r"(?i)certificate|reset|broken|EOF"):
            post(connect(echo.url, tls={"ca": tls["ca"]}))
        with pytest.raises(OSError, match=r"(?i)unknown ca|reset|broken|EOF"):
            post(connect(echo.url, tls={**tls, "cert": str(other), "key": str(other_key)}))
        assert not echo.asked

    def test_a_certificate_file_that_is_missing_is_an_os_error(self, connect):
        with pytest.raises(FileNotFoundError):
            connect("https://siem.example", tls={"ca": "/nowhere/ca.pem"})


class TestProxies:
    URL = "https://siem.example:8088"

    def test_what_is_secured_goes_through_connect_and_the_proxy_reads_nothing(
        self, secured, connect
    ):
        echo, ca = secured
        with Proxy(("127.0.0.1", echo.port)) as proxy:
            connection = connect(self.URL, {"Authorization": "x"}, proxy=proxy.url, tls={"ca": ca})
            assert [post(connection).status for _ in range(3)] == [200] * 3
            assert proxy.asked == ["CONNECT siem.example:8088 HTTP/1.1"]
        assert echo.asked[0].headers["host"] == "siem.example:8088"
        assert "proxy-authorization" not in echo.asked[0].headers

    def test_the_certificate_is_verified_through_it(self, secured, connect):
        echo, _ = secured
        with (
            Proxy(("127.0.0.1", echo.port)) as proxy,
            pytest.raises(ssl.SSLCertVerificationError),
        ):
            post(connect(self.URL, proxy=proxy.url))

    def test_what_is_not_secured_is_asked_for_by_its_whole_url(self, echo, connect, monkeypatch):
        monkeypatch.setenv("PROXY_LOGIN", f"me:{PASSWORD}")
        with Proxy(("127.0.0.1", echo.port), f"me:{PASSWORD}") as proxy:
            how = {"proxy": proxy.url, "proxy_credentials": "env:PROXY_LOGIN"}
            assert post(connect("http://127.0.0.1:1", **how)).body == b"hello"
            assert proxy.asked == ["POST http://127.0.0.1:1/in HTTP/1.1"]

    def test_credentials_are_shown_to_the_proxy_alone(self, secured, connect, monkeypatch):
        echo, ca = secured
        monkeypatch.setenv("PROXY_LOGIN", f"me:{PASSWORD}")
        with Proxy(("127.0.0.1", echo.port), f"me:{PASSWORD}") as proxy:
            how = {"proxy": proxy.url, "proxy_credentials": "env:PROXY_LOGIN", "tls": {"ca": ca}}
            connection = connect(self.URL, **how)
            assert post(connection).status == 200
        assert "proxy-authorization" not in echo.asked[0].headers
        assert "Basic" not in repr(connection._proxy) + str(connection._proxy)

    @pytest.mark.parametrize("url", [URL, "http://127.0.0.1:1"])
    def test_a_proxy_that_refuses_the_credentials_is_told_from_the_system(
        self, connect, monkeypatch, url
    ):
        with Proxy(("127.0.0.1", 1), "me:something-else") as proxy:
            with pytest.raises(ConnectionError, match="HTTP 407, it wants `proxy_credentials`"):
                post(connect(url, proxy=proxy.url))
            monkeypatch.setenv("PROXY_LOGIN", f"me:{PASSWORD}")
            with pytest.raises(ConnectionError) as caught:
                post(connect(url, proxy=proxy.url, proxy_credentials="env:PROXY_LOGIN"))
        said = f"the proxy {proxy.address} refused the credentials: HTTP 407"
        assert str(caught.value) == said

    @pytest.mark.parametrize(("status", "verb"), [(403, "refused to"), (502, "could not")])
    def test_a_proxy_that_does_not_connect_says_so_without_its_own_words(
        self, connect, status, verb
    ):
        with (
            Proxy(("127.0.0.1", 1), status=status) as proxy,
            pytest.raises(ConnectionError) as caught,
        ):
            post(connect(self.URL, proxy=proxy.url))
        assert str(caught.value) == (
            f"the proxy {proxy.address} {verb} connect to siem.example:8088: HTTP {status}"
        )

    def test_a_proxy_that_is_not_there_is_named(self, connect):
        with Proxy(("127.0.0.1", 1)) as proxy:
            pass
        with pytest.raises(ConnectionError, match=f"the proxy {proxy.address} cannot be reached"):
            post(connect(self.URL, proxy=proxy.url))

    def test_what_is_no_proxy_is_named(self, connect, peer):
        with pytest.raises(ConnectionError, match=r"the proxy 127.*not an HTTP answer"):
            post(connect(self.URL, proxy=peer(saying(b"220 mail\r\n"))))

    def test_a_proxy_that_hangs_ends_by_the_deadline(self, connect):
        with socket.create_server(("127.0.0.1", 0)) as silent:
            proxy = f"http://127.0.0.1:{silent.getsockname()[1]}"
            started = time.monotonic()
            with pytest.raises(TimeoutError):
                post(connect(self.URL, proxy=proxy), timeout=0.1)
            assert time.monotonic() - started < 1

    @pytest.mark.parametrize("name", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY"])
    def test_the_environments_proxy_holds_with_its_credentials(
        self, secured, connect, monkeypatch, name
    ):
        echo, ca = secured
        with Proxy(("127.0.0.1", echo.port), "me:p@ss") as proxy:
            monkeypatch.setenv(name, f"http://me:p%40ss@{proxy.address}/")
            assert post(connect(self.URL, tls={"ca": ca})).status == 200
            assert len(proxy.asked) == 1

    @pytest.mark.parametrize("hosts", ["siem.example", ".example", "*", "x,siem.example:8088"])
    def test_no_proxy_holds(self, secured, connect, monkeypatch, hosts):
        echo, ca = secured
        monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
        monkeypatch.setenv("NO_PROXY", hosts)
        found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", echo.port))]
        monkeypatch.setattr(network.socket, "getaddrinfo", lambda *_, **__: found)
        assert post(connect(self.URL, tls={"ca": ca})).status == 200

    def test_the_setting_holds_before_the_environment(self, secured, connect, monkeypatch):
        echo, ca = secured
        monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
        monkeypatch.setenv("NO_PROXY", "*")
        with Proxy(("127.0.0.1", echo.port)) as proxy:
            assert post(connect(self.URL, proxy=proxy.url, tls={"ca": ca})).status == 200
            assert len(proxy.asked) == 1

    @pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
    def test_this_machine_is_not_reached_through_the_environments_proxy(
        self, echo, connect, monkeypatch, host
    ):
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, "http://127.0.0.1:1")
            monkeypatch.setenv(name.lower(), "http://127.0.0.1:1")
        assert post(connect(f"http://{host}:{echo.port}")).status == 200

    @pytest.mark.parametrize(
        "given", ["socks5://me:hunter2@p:1", "https://me:hunter2@p:1", "http://me:hunter2@p:x"]
    )
    def test_an_environments_proxy_of_no_use_is_refused_without_its_secret(
        self, connect, monkeypatch, given
    ):
        monkeypatch.setenv("HTTPS_PROXY", given)
        with pytest.raises(OSError, match="environment's proxy is not usable") as caught:
            connect(self.URL)
        assert "hunter2" not in str(caught.value)

    @pytest.mark.parametrize(
        ("proxy", "complaint"),
        [
            ("http://me:hunter2@proxy:3128", "given as `proxy_credentials`"),
            ("https://proxy:3128", "http://host:port"),
            ("socks5://proxy:3128", "http://host:port"),
            ("proxy:3128", "a URL is needed"),
            ("http://proxy:3128/path", "http://host:port"),
            ("http://proxy:x", "port"),
            ("http://pro\r\nxy:1", "printable ASCII"),
        ],
    )
    def test_a_bad_setting_is_refused_without_repeating_it(self, proxy, complaint):
        with pytest.raises(ValidationError, match=complaint) as caught:
            HttpSettings(proxy=proxy)
        assert "hunter2" not in str(caught.value)

    def test_credentials_are_resolved_when_connecting_and_must_be_two(self, connect, monkeypatch):
        how = {"proxy": "http://proxy:3128", "proxy_credentials": "env:PROXY_LOGIN"}
        monkeypatch.setenv("PROXY_LOGIN", "hunter2")
        with pytest.raises(SecretError, match="env:PROXY_LOGIN: user:password") as caught:
            connect(self.URL, **how)
        assert "hunter2" not in str(caught.value)
        assert b"hunter2" not in pickle.dumps(HttpSettings(**how))
        with pytest.raises(ValidationError, match="given as a reference") as pasted:
            HttpSettings(**{**how, "proxy_credentials": "me hunter2"})
        assert "hunter2" not in str(pasted.value)


class TestUrls:
    @pytest.mark.parametrize(
        "url",
        [
            "https://siem.example/\r\nX: hunter2",
            "https://siem.example\n",
            "https://siem.example/a b",
            "https://sïem.example",
            "\thttps://siem.example",
            "https://siem.example/\x00",
        ],
    )
    def test_nothing_that_could_forge_a_header_is_in_a_url(self, url):
        with pytest.raises(ValueError, match="printable ASCII") as caught:
            check_url(url, path="/")
        assert "hunter2" not in str(caught.value)

    def test_a_url_without_a_path_gets_one(self):
        assert check_url("https://siem.example/", path="/in") == "https://siem.example/in"
        assert check_url("https://siem.example/a", path="/in") == "https://siem.example/a"

    @pytest.mark.parametrize("url", ["ftp://siem.example", "siem.example", "https:///x", "[::1"])
    def test_what_is_no_url_is_refused(self, url):
        with pytest.raises(ValueError, match=re.compile("URL|IPv6")):
            check_url(url, path="/")


class TestVerdicts:
    @pytest.mark.parametrize(
        ("verdict", "statuses"),
        [
            (Accepted, (200, 201, 204)),
            (Retry, (408, 425, 429, 500, 502, 503, 504, 599)),
            (Refresh, (401,)),
            (Shrink, (413,)),
            (Split, (400, 422)),
            (Stop, (301, 302, 307, 308, 403, 404, 405, 407, 410)),
        ],
    )
    def test_every_status_has_its_verdict(self, echo, connect, verdict, statuses):
        connection = connect(echo.url)
        for status in statuses:
            echo.fail(Answer(status), times=1)
            got = judge(post(connection), "said")
            assert type(got) is verdict
            assert (got.said if isinstance(got, Accepted) else got.reason) == "said"

    def test_retry_after_in_seconds_and_as_a_date(self, echo, connect):
        date = email.utils.formatdate(time.time() + 60, usegmt=True)
        after = []
        for value in ("7", date):
            echo.fail(Answer(429, headers=(("Retry-After", value),)), times=1)
            after.append(judge(post(connect(echo.url)), "").after)
        assert after[0] == 7
        assert 55 < after[1] < 61

    @pytest.mark.parametrize("value", ["soon", "-1", "", "1e9", "Mon, 99 Foo 2026 00:00:00"])
    def test_a_retry_after_that_is_neither_is_none(self, value):
        message = email.message.Message()
        message["Retry-After"] = value
        assert retry_after(message) is None
