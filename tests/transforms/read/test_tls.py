"""Reading through TLS, as every hub in Azure is read."""

from __future__ import annotations

import contextlib
import selectors
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from azure.eventhub import EventHubConsumerClient, TransportType

from pipelines.local.hub import EmbeddedHub
from pipelines.local.receivers import certificate
from transforms.read.access import EventHubsAccess
from transforms.read.reader import ReadSession


class _Front(threading.Thread):
    """A TLS end on loopback that passes everything on to a plain port."""

    def __init__(self, cert: tuple[Path, Path], to: int) -> None:
        super().__init__(daemon=True)
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(*cert)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._to = to

    def run(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                plain, _ = self._listener.accept()
                threading.Thread(target=self._pass_on, args=(plain,), daemon=True).start()

    def _pass_on(self, plain: socket.socket) -> None:
        with contextlib.suppress(OSError, ssl.SSLError):
            secure = self._context.wrap_socket(plain, server_side=True)
            inner = socket.create_connection(("127.0.0.1", self._to))
            with secure, inner, selectors.DefaultSelector() as selector:
                selector.register(secure, selectors.EVENT_READ, inner)
                selector.register(inner, selectors.EVENT_READ, secure)
                while True:
                    for key, _ in selector.select():
                        while True:
                            data = key.fileobj.recv(65536)  # type: ignore[union-attr]
                            if not data:
                                return
                            key.data.sendall(data)
                            if key.fileobj is inner or not secure.pending():
                                break

    def close(self) -> None:
        self._listener.close()


class _Access(EventHubsAccess):
    """The settings cannot name another endpoint; this one leads to the TLS front."""

    port: int
    ca: str

    def client(self) -> EventHubConsumerClient:
        return EventHubConsumerClient.from_connection_string(
            "Endpoint=sb://localhost/;SharedAccessKeyName=k;SharedAccessKey=s;EntityPath=defender",
            self.consumer_group,
            custom_endpoint_address=f"sb://localhost:{self.port}",
            transport_type=TransportType.Amqp,
            connection_verify=self.ca,
            retry_total=0,
            socket_timeout=0.05,
            keep_alive=None,
        )


@pytest.fixture
def secure(tmp_path: Path) -> Iterator[tuple[EmbeddedHub, Any]]:
    cert = certificate(tmp_path)
    with EmbeddedHub(tmp_path / "hub", {"defender": 2}) as hub:
        front = _Front(cert, hub.port)
        front.start()
        access = _Access(hub="defender", namespace="localhost", port=front.port, ca=str(cert[0]))
        reading = ReadSession()
        yield hub, (reading, reading.reader("hub", access))
        reading.close()
        front.close()


def _take(reading: ReadSession, reader: Any, partition: str, count: int) -> list[bytes]:
    found: list[bytes] = []
    while len(found) < count:
        assert reading.wait(10), f"{len(found)} of {count} came"
        found += [event.body for event in reader.take(partition, 2**62, 500, 1 << 24)]
    return found


def test_everything_is_read_in_order_through_tls(secure: Any) -> None:
    hub, (reading, reader) = secure
    bodies = [b"%06d" % number + b"x" * 2_500 for number in range(5_000)]
    for start in range(0, len(bodies), 100):
        hub.publish("defender", bodies[start : start + 100], partition=0)
    reader.seek("0", 0)
    assert _take(reading, reader, "0", len(bodies)) == bodies


def test_a_single_event_is_seen_at_once_through_tls(secure: Any) -> None:
    # What the TLS layer has decrypted already, no selector shows.
    hub, (reading, reader) = secure
    reader.seek("1", 0)
    for number in range(30):
        hub.publish("defender", [b"%d" % number, b"x" * 40_000], partition=1)
        assert _take(reading, reader, "1", 2)[0] == b"%d" % number
