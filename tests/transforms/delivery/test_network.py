from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pydantic import ValidationError

from pipelines.local.receivers import certificate
from transforms.delivery import network
from transforms.delivery.network import Deadline, Tls, dial, gone, is_loopback, send_all

Address = tuple[str, int]


@pytest.fixture
def resolves(monkeypatch) -> Callable[..., None]:
    """Have the name `siem.example` stand for these addresses."""

    def to(*addresses: Address, family: int = socket.AF_INET) -> None:
        found = [(family, socket.SOCK_STREAM, 6, "", address) for address in addresses]
        monkeypatch.setattr(network.socket, "getaddrinfo", lambda *_, **__: found)

    return to


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """It takes connections, and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        sock.settimeout(2)
        yield sock


@pytest.fixture
def refusing() -> Address:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return sock.getsockname()


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        near = socket.create_connection(server.getsockname())
        far, _ = server.accept()
    with near, far:
        yield near, far


class Secured:
    """A TLS server with a certificate for `name`."""

    def __init__(self, folder: Path, name: str = "siem.example") -> None:
        self.ca, key = certificate(folder, name)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.ca, key)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address: Address = self._listener.getsockname()
        self._context = context
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
                self._context.wrap_socket(sock, server_side=True).close()
            except ssl.SSLError:
                continue
            except OSError:
                return

    def __enter__(self) -> Secured:
        return self

    def __exit__(self, *exception: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)  # closing alone would not end accept()
        self._listener.close()

    def context(self) -> ssl.SSLContext:
        return Tls(ca=str(self.ca)).context()


class TestDialling:
    def test_the_next_address_is_tried_when_one_refuses(self, resolves, refusing, listener):
        resolves(refusing, listener.getsockname())
        with dial("siem.example", 514, Deadline(1)) as sock:
            assert sock.getpeername() == listener.getsockname()

    def test_an_address_of_a_family_that_is_not_spoken_is_passed_over(
        self, resolves, listener, monkeypatch
    ):
        spoken = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", listener.getsockname())]
        unspoken = [(250, socket.SOCK_STREAM, 6, "", ("::1", 514, 0, 0))]
        monkeypatch.setattr(network.socket, "getaddrinfo", lambda *_, **__: unspoken + spoken)
        dial("siem.example", 514, Deadline(1)).close()

    def test_an_address_that_hangs_leaves_the_others_their_share(
        self, resolves, listener, tmp_path
    ):
        with Secured(tmp_path) as server:
            resolves(listener.getsockname(), server.address)
            context = server.context()
            started = time.monotonic()
            with dial("siem.example", 6514, Deadline(0.4), context) as sock:
                assert sock.getpeername() == server.address
            assert 0.19 < time.monotonic() - started < 0.4

    def test_all_of_them_end_by_the_deadline(self, resolves, listener, tmp_path):
        context = Tls(ca=str(certificate(tmp_path)[0])).context()
        resolves(*[listener.getsockname()] * 3)
        started = time.monotonic()
        with pytest.raises(TimeoutError):
            dial("siem.example", 6514, Deadline(0.2), context)
        assert 0.19 < time.monotonic() - started < 0.3

    def test_a_refused_certificate_is_what_is_told_whatever_else_fails(
        self, resolves, refusing, tmp_path
    ):
        with Secured(tmp_path, "other.example") as server:
            resolves(server.address, refusing)
            with pytest.raises(ssl.SSLCertVerificationError, match=r"siem\.example"):
                dial("siem.example", 6514, Deadline(1), server.context())

    def test_the_name_is_resolved_anew_each_time(self, resolves, listener):
        resolves(listener.getsockname())
        dial("siem.example", 514, Deadline(1)).close()
        with socket.create_server(("127.0.0.1", 0)) as moved:
            resolves(moved.getsockname())
            with dial("siem.example", 514, Deadline(1)) as sock:
                assert sock.getpeername() == moved.getsockname()

    def test_a_name_without_an_address_is_told(self, resolves):
        resolves()
        with pytest.raises(OSError, match=r"siem\.example has no address"):
            dial("siem.example", 514, Deadline(1))

    def test_no_socket_is_left_open_by_a_handshake_that_fails(self, listener):
        context = Tls(verify=False).context()
        with pytest.raises(TimeoutError) as caught:  # its traceback keeps the socket from the gc
            dial(*listener.getsockname(), Deadline(0.05), context)
        peer, _ = listener.accept()
        with peer:
            peer.settimeout(1)
            while peer.recv(4096):
                pass  # it ends
        assert caught


class TestSockets:
    def test_sending_to_one_that_reads_nothing_ends_by_the_deadline(self, pair):
        started = time.monotonic()
        with pytest.raises(TimeoutError):
            send_all(pair[0], bytes(32 << 20), Deadline(0.1))
        assert time.monotonic() - started < 0.3

    def test_a_peer_that_waits_or_chatters_is_there(self, pair):
        near, far = pair
        assert not gone(near)
        far.sendall(b"welcome")
        time.sleep(0.01)
        assert not gone(near)
        assert near.gettimeout() is None

    def test_a_peer_that_closed_is_gone(self, pair):
        near, far = pair
        far.sendall(b"bye")
        far.close()
        time.sleep(0.01)
        assert gone(near)

    def test_a_connection_that_broke_is_an_error(self, pair):
        near, far = pair
        near.sendall(b"unread")
        time.sleep(0.01)
        far.close()  # with something unread: a reset
        time.sleep(0.01)
        with pytest.raises(ConnectionResetError):
            gone(near)

    @pytest.mark.parametrize("host", ["localhost", "LOCALHOST", "127.0.0.1", "127.9.9.9", "::1"])
    def test_loopback(self, host):
        assert is_loopback(host)

    @pytest.mark.parametrize("host", ["10.0.0.1", "localhost.example", "::2", "", "127.0.0.1.x"])
    def test_anything_else_is_another_machine(self, host):
        assert not is_loopback(host)


class TestTls:
    def test_a_key_needs_a_certificate(self):
        with pytest.raises(ValidationError, match="no use without `cert`"):
            Tls(key="/k.pem")

    @pytest.mark.parametrize("name", ["ca", "cert", "key"])
    def test_a_certificate_is_a_file_and_a_pasted_one_is_not_repeated(self, name):
        with pytest.raises(ValidationError, match="not by its content") as caught:
            Tls.model_validate({name: "-----BEGIN PRIVATE KEY-----hunter2"})
        assert "hunter2" not in str(caught.value)

    def test_what_is_no_certificate_is_an_os_error(self, tmp_path):
        (tmp_path / "ca.pem").write_text("no certificate")
        with pytest.raises(OSError):
            Tls(ca=str(tmp_path / "ca.pem")).context()

    def test_nothing_older_than_tls_1_2_is_spoken(self):
        assert Tls().context().minimum_version is ssl.TLSVersion.TLSv1_2
