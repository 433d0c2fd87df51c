"""A custom endpoint of Fabric's Eventstream: librdkafka's mock cluster behind a gateway.

Written from "Apache Kafka client configurations for Azure Event Hubs" and "Add a custom endpoint or
custom app source to an eventstream" (learn.microsoft.com). The gateway is as strict as they are:
TLS only, SASL PLAIN only, the user `$ConnectionString`, the endpoint's own connection string as the
password; nothing is passed on before. Of Kafka's protocol it speaks ApiVersions, SaslHandshake and
SaslAuthenticate (kafka.apache.org/protocol), and makes the brokers' ports its own in what passes.
"""

from __future__ import annotations

import contextlib
import hmac
import os
import socket
import ssl
import struct
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from pipelines.local.receivers import certificate
from tests.transforms.sinks.alerts import alert
from tests.transforms.sinks.doubles import kafka
from tests.transforms.sinks.doubles.base import SECRET, Double
from transforms.secrets import SecretRef
from transforms.sinks import fabric_eventstream
from transforms.sinks.base import Accepted, Connection, Sink
from transforms.sinks.kafka import Kafka

__all__ = ["Eventstream", "Gateway"]

_HOST = "127.0.0.1"
_API_VERSIONS, _HANDSHAKE, _AUTHENTICATE = 18, 17, 36
_UNSUPPORTED_VERSION, _UNSUPPORTED_MECHANISM, _REFUSED = 35, 33, 58


class Gateway:
    """Stands before every broker of a cluster. `address`: of the one that clients are told of.

    password: what a client must show; says: what one is told that shows another.
    """

    def __init__(self, brokers: str, tls: tuple[Path, Path]) -> None:
        self.password = ""
        self.says = "Invalid SAS token. Can't authenticate"
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(*tls)
        self._open: set[socket.socket] = set()
        self._listeners = [socket.create_server((_HOST, 0)) for _ in brokers.split(",")]
        ports = [int(broker.rpartition(":")[2]) for broker in brokers.split(",")]
        self._ours = {
            _place(port): _place(listener.getsockname()[1])
            for port, listener in zip(ports, self._listeners, strict=True)
        }
        self.address = f"{_HOST}:{self._listeners[0].getsockname()[1]}"
        for port, listener in zip(ports, self._listeners, strict=True):
            threading.Thread(target=self._accept, args=(listener, port), daemon=True).start()

    def reset(self) -> None:
        """Break every connection."""
        for sock in [*self._open]:
            with contextlib.suppress(OSError):
                socket.socket.shutdown(sock, socket.SHUT_RDWR)

    def stop(self) -> None:
        for listener in self._listeners:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        self.reset()

    def _accept(self, listener: socket.socket, port: int) -> None:
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(sock, port), daemon=True).start()

    def _serve(self, sock: socket.socket, port: int) -> None:
        with contextlib.suppress(OSError, struct.error), contextlib.ExitStack() as stack:
            stack.callback(sock.close)
            broker = stack.enter_context(socket.create_connection((_HOST, port)))
            sock.settimeout(5)
            there = stack.enter_context(self._context.wrap_socket(sock, server_side=True))
            there.settimeout(None)
            for each in (there, broker):
                self._open.add(each)
                stack.callback(self._open.discard, each)
            if self._entered(there, broker):
                back = threading.Thread(target=self._answers, args=(broker, there), daemon=True)
                back.start()
                while (request := _read(there)) is not None:
                    _write(broker, request)

    def _entered(self, there: socket.socket, broker: socket.socket) -> bool:
        """Whether a client has shown the password; what else it asks before ends it."""
        while (request := _read(there)) is not None:
            api, version, correlation = struct.unpack_from(">hhi", request)
            at = 8 + 2 + max(struct.unpack_from(">h", request, 8)[0], 0)
            head = struct.pack(">i", correlation)
            if api == _API_VERSIONS and version > 0:
                _write(there, head + struct.pack(">hihhh", _UNSUPPORTED_VERSION, 1, api, 0, 0))
            elif api == _API_VERSIONS:
                _write(broker, request)
                answer = _read(broker) or b""
                error, count = struct.unpack_from(">hi", answer, 4)
                more = struct.pack(">hhhhhh", _HANDSHAKE, 0, 1, _AUTHENTICATE, 0, 0)
                known = head + struct.pack(">hi", error, count + 2) + answer[10:]
                _write(there, known + more)
            elif api == _HANDSHAKE:
                length = struct.unpack_from(">h", request, at)[0]
                plain = request[at + 2 : at + 2 + length] == b"PLAIN"
                error = 0 if plain else _UNSUPPORTED_MECHANISM
                _write(there, head + struct.pack(">hih", error, 1, 5) + b"PLAIN")
            elif api == _AUTHENTICATE:
                _, user, password = request[at + 4 :].split(b"\0", 2)
                right = hmac.compare_digest(password, self.password.encode())
                if user == b"$ConnectionString" and right:
                    _write(there, head + struct.pack(">hhi", 0, -1, 0))
                    return True
                said = self.says.encode()
                _write(there, head + struct.pack(">hh", _REFUSED, len(said)) + said + b"\0" * 4)
            else:
                return False
        return False

    def _answers(self, broker: socket.socket, there: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while (answer := _read(broker)) is not None:
                for theirs, ours in self._ours.items():
                    answer = answer.replace(theirs, ours)
                _write(there, answer)
        with contextlib.suppress(OSError):
            socket.socket.shutdown(there, socket.SHUT_RDWR)


def _place(port: int) -> bytes:
    """A broker's address as answers have it, with a length of either form before it."""
    return _HOST.encode() + struct.pack(">i", port)


def _read(sock: socket.socket) -> bytes | None:
    """A message; None at the connection's end."""
    size = _exactly(sock, 4)
    return None if size is None else _exactly(sock, struct.unpack(">i", size)[0])


def _exactly(sock: socket.socket, count: int) -> bytes | None:
    found = bytearray()
    while len(found) < count:
        data = sock.recv(count - len(found))
        if not data:
            return None
        found += data
    return bytes(found)


def _write(sock: socket.socket, message: bytes) -> None:
    sock.sendall(struct.pack(">i", len(message)) + message)


class _Local(fabric_eventstream.FabricEventstream):
    """The sink, whose secret is the key alone (the rest of a connection string is added here), with
    a first connection that has been used where there is one."""

    address: str
    ready: ClassVar[dict[str, Connection]] = {}

    def found(self) -> Kafka:
        key = self.settings.connection_string.resolve().reveal()
        name = f"EVENTSTREAM_{self.address.rpartition(':')[2]}"
        os.environ[name] = connection_string(self.address, key)
        known = self.settings.model_copy(update={"connection_string": SecretRef(f"env:{name}")})
        return fabric_eventstream.FabricEventstream(self.name, known).found()

    def connect(self) -> Connection:
        return self.ready.pop(f"{self.address} {self.name}", None) or super().connect()


def connection_string(address: str, key: str) -> str:
    return (
        f"Endpoint=sb://{address}/;SharedAccessKeyName=key_1;SharedAccessKey={key};"
        "EntityPath=alerts"
    )


class Eventstream(kafka.Kafka):
    kind = "fabric_eventstream"
    name = ""
    system = (
        "librdkafka's mock cluster behind a double of Event Hubs' Kafka endpoint (TLS, SASL PLAIN "
        "with a connection string), written from “Apache Kafka client configurations for Azure "
        "Event Hubs”"
    )
    secret = True
    faults: ClassVar[Mapping[str, Any]] = {**kafka.Kafka.faults, "quoted secret": "quoted"}
    lacks: ClassVar[Mapping[str, str]] = {
        name: why
        for name, why in kafka.Kafka.lacks.items()
        if name not in ("credentials renewed", "quoted secret")
    }

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self._tls = certificate(folder)
        self.gateway = Gateway(self.cluster.brokers, self._tls)
        self.renew(SECRET)

    def sink(self, name: str = "siem", **options: Any) -> Sink[Any]:
        sink = _Local(name, Double.sink(self, name, **options).settings)
        sink.address = self.gateway.address
        known = os.environ.get("SECRET") == SECRET
        if options.get("patience", 0) < 5 and self._up and known:
            connection = fabric_eventstream.FabricEventstream.connect(sink)
            first = sink.encode(alert(10**9), "", "")
            assert isinstance(connection.send([first], 5.0), Accepted)
            _Local.ready[f"{sink.address} {name}"] = connection
        return sink

    def settings(self) -> dict[str, Any]:
        return {"connection_string": "env:SECRET", "tls": {"ca": f"file:{self._tls[0]}"}}

    def play(self, fault: Any, times: int | None = None) -> None:
        if fault == "quoted":
            self.gateway.says = f"No key is {SECRET}"
            self.gateway.password = "another"
            self.gateway.reset()
        else:
            super().play(fault, times)

    def renew(self, secret: str) -> None:
        self.gateway.password = connection_string(self.gateway.address, secret)

    def stop(self) -> None:
        for name in [it for it in _Local.ready if it.startswith(f"{self.gateway.address} ")]:
            _Local.ready.pop(name).close()
        self.gateway.stop()
        super().stop()
