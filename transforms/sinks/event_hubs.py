"""Azure Event Hubs: alerts handed on to another hub, for whoever reads hubs.

Contract: AMQP 1.0 as Event Hubs speaks it ("AMQP 1.0 in Azure Event Hubs protocol guide", "Event
Hubs quotas", "Event Hubs troubleshooting"; learn.microsoft.com), spoken by azure-eventhub: what
connects, authenticates, attaches and frames is the SDK's. Its producer waits for the outcome of
each publication before it sends the next one, waits for a silent server without limit, and sends
again by itself what failed; so its parts are driven from here, a hundred publications under way at
once, each request within its deadline. `tests/transforms/sinks/test_event_hubs.py` fails when a new
SDK no longer has these parts.

A publication has one partition key: that of what the alert is about, so that all its updates lie
in one partition, in their order. With `partition_key: none` a request is one publication.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import re
import select
import socket
import ssl
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal

from azure.core.exceptions import ClientAuthenticationError
from azure.eventhub import EventHubProducerClient, TransportType
from azure.eventhub._pyamqp.constants import (
    MESSAGE_DELIVERY_DONE_STATES,
    ConnectionState,
    LinkState,
)
from azure.eventhub._pyamqp.error import TokenAuthFailure
from azure.eventhub._pyamqp.message import BatchMessage, _MessageDelivery
from pydantic import Field, model_validator

from schemas.alert import Alert
from schemas.formats import FORMATS
from schemas.formats._shortened import shortened
from transforms.delivery.line import printable
from transforms.entra import Credential, identity
from transforms.secrets import SecretError, SecretRef
from transforms.sinks.base import (
    Accepted,
    Connection,
    FormatName,
    Limits,
    Refresh,
    RejectItems,
    Retry,
    Shrink,
    Sink,
    SinkSettings,
    Split,
    Stop,
    Verdict,
    say,
)

__all__ = ["EventHubs", "EventHubsSettings", "place"]

_KEY = 128  # characters of a partition key; of a longer one its hash is taken
_ENVELOPE = 250  # bytes of a publication beside its events
_SECTION = 8  # bytes that an event has around it there
_UNDER_WAY = 100  # publications; the hub grants some hundreds
_SENDING = 0.6  # of the time that a request may take
_IDLE_POLL = 10.0  # seconds between two looks at a connection that nothing is sent over
_GLANCE = 0.05  # seconds that looking may take
_PARTING = 0.5  # seconds for saying goodbye

# What the hub's error conditions mean; whatever is not here may pass, and is tried again.
_TOO_LARGE = "amqp:link:message-size-exceeded"
_MEANING: Mapping[str, Callable[[str], Verdict]] = {
    _TOO_LARGE: Shrink,
    **dict.fromkeys(("amqp:decode-error", "amqp:invalid-field"), Split),
    **dict.fromkeys(("amqp:unauthorized-access", "com.microsoft:auth-failed"), Refresh),
    **dict.fromkeys(
        (
            "amqp:not-found", "amqp:not-allowed", "amqp:not-implemented", "amqp:resource-deleted",
            "com.microsoft:argument-error", "com.microsoft:argument-out-of-range",
            "com.microsoft:entity-disabled", "com.microsoft:publisher-revoked",
        ),
        Stop,
    ),
}  # fmt: skip
_GRAVEST = (Stop, Refresh, Retry, Shrink, Split)


class EventHubsSettings(SinkSettings):
    """Azure Event Hubs: alerts handed on to another hub."""

    connection_string: SecretRef | None = Field(
        None,
        description="Where a connection string with the right to send lies: env:NAME or "
        "file:/path.",
    )
    namespace: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+$",
        description="Instead of it NAME.servicebus.windows.net, entered with `credential`.",
    )
    credential: Credential = Field(
        "default", description="`default` (azure-identity's chain) or {client_secret: …}."
    )
    hub: str = Field(
        "",
        pattern=r"^[A-Za-z0-9._-]*$",
        max_length=256,
        description="The hub. A connection string that ends in EntityPath=… names it already.",
    )
    format: FormatName = Field(
        "ndjson",
        description="How an event's body is written: `ndjson`, with the alert's record under "
        "`raw`; or any format that `alertbeam explain --as` knows: raw, ocsf, ecs, cef, …",
    )
    partition_key: Literal["entity", "none"] = Field(
        "entity",
        description="`entity`: all updates of an alert lie in one partition, in their order; "
        "`none`: the hub chooses a partition for every request, which carries more a second.",
    )
    max_bytes: int = Field(
        1_000_000,
        ge=2_000,
        le=20_000_000,
        description="Bytes of one publication; what is longer by itself is said shorter. A hub of "
        "the tier Basic takes 256 KB: 250000.",
    )

    @model_validator(mode="after")
    def _one_way_in(self) -> EventHubsSettings:
        if (self.namespace is None) == (self.connection_string is None):
            raise ValueError(
                "give either `namespace` (with azure-identity) or `connection_string` (a reference)"
            )
        if self.namespace and not self.hub:
            raise ValueError("with `namespace`, `hub` is needed too")
        return self


class EventHubs(Sink[EventHubsSettings]):
    """One hub."""

    kind = "event_hubs"
    Settings = EventHubsSettings
    example: ClassVar = {"connection_string": "env:FORWARDED_HUB_CONNECTION"}

    @property
    def limits(self) -> Limits:
        most = self.settings.max_bytes - _ENVELOPE
        count = 5_000 if self.settings.partition_key == "none" else 2 * _UNDER_WAY
        return Limits(most, max_records=count, max_record_bytes=most)

    @property
    def separator_bytes(self) -> int:
        return _SECTION

    def encode(self, alert: Alert, source: str, partition: str) -> bytes:
        return self._event(alert, say(self.settings.format, alert, source, partition))

    def shrink(self, alert: Alert, source: str, partition: str, most: int) -> bytes | None:
        if FORMATS[self.settings.format].media_type != "application/json":
            return None  # these are short already
        room = most - len(self._event(alert, b"")) - 3  # a longer length has three bytes more
        try:
            return self._event(alert, shortened(alert, room))
        except ValueError:
            return None

    def connect(self) -> Connection:
        return _Hub(self.settings)

    def probe(self, timeout: float) -> None:
        self.check(timeout)

    def check(self, timeout: float) -> str:
        hub = _Hub(self.settings)
        try:
            largest = hub.enter(timeout)
        finally:
            hub.close()
        return f"it lets us send to the hub {hub.name}, up to {largest:,} bytes a publication"

    @property
    def target(self) -> str:
        settings = self.settings
        where = settings.namespace or f"where {settings.connection_string} leads"
        return f"{where}, hub {settings.hub}" if settings.hub else where

    def destination(self) -> str:
        """`namespace/hub`, in lower case: where it writes to. Raises SecretError."""
        host, hub = _place(self.settings)
        return f"{host}/{hub}".lower()

    def find(self, event_id: str) -> str:
        return (
            "in the portal, the hub's Data Explorer, View events: the custom property "
            f"event_id is {event_id}"
        )

    def _event(self, alert: Alert, body: bytes) -> bytes:
        key = _key(alert) if self.settings.partition_key == "entity" else b""
        media = FORMATS[self.settings.format].media_type
        return len(key).to_bytes(2, "big") + key + _message(alert, key, media, body)


class _LateError(Exception):
    """The deadline has passed."""


class _Hub(Connection):
    """The SDK's client of one hub, and its link while it is open."""

    def __init__(self, settings: EventHubsSettings) -> None:
        self._settings = settings
        host, self.name = _place(settings)
        options: dict[str, Any] = {
            "retry_total": 0,
            # A read ends when something came, a write when all has gone: `_within` ends both.
            "socket_timeout": settings.timeout,
            "keep_alive": None,
            "transport_type": TransportType.Amqp,
        }
        self._secrets: list[str] = []
        if settings.connection_string is not None:
            text = settings.connection_string.resolve().reveal()
            self._secrets = [
                text,
                *re.findall(r"SharedAccess(?:Key|Signature)\s*=\s*([^;]{6,})", text),
            ]
            try:
                self._client = EventHubProducerClient.from_connection_string(
                    text, eventhub_name=self.name, **options
                )
            except ValueError as error:
                reason = self._clean(str(error))
                raise SecretError(f"{settings.connection_string}: {reason}") from None
        else:
            self._client = EventHubProducerClient(
                host, self.name, identity(settings.credential, settings.timeout), **options
            )
        self._handler: Any = None  # the SDK's SendClient, once it may send

    def send(self, payloads: Sequence[bytes], timeout: float) -> Verdict:
        groups = [
            (key, [at for at, _ in each])
            for key, each in itertools.groupby(enumerate(payloads), key=lambda it: _parts(it[1])[0])
        ]
        failed: dict[int, Exception] = dict.fromkeys(range(len(groups)), _LateError())
        until = time.monotonic() + timeout
        try:
            with self._within(until):
                self._look()
                self._open(until)
                messages = [(key, [_parts(payloads[at])[1] for at in ats]) for key, ats in groups]
                self._publish(messages, failed, until)
        except Exception as error:  # noqa: BLE001 - whatever the SDK raises
            self._drop()
            late = time.monotonic() >= until
            reason = _LateError(f"no outcome within {timeout:g} s") if late else error
            open_ = {number for number, why in failed.items() if isinstance(why, _LateError)}
            return self._judge(groups, {**failed, **dict.fromkeys(open_, reason)}, open_)
        return self._judge(groups, failed)

    def enter(self, timeout: float) -> int:
        """Open the link, which takes the right to send; bytes that it takes of a publication.
        Raises OSError or SecretError."""
        until = time.monotonic() + timeout
        try:
            with self._within(until):
                self._open(until)
                return int(self._handler._link.remote_max_message_size or 0)
        except Exception as error:  # noqa: BLE001 - whatever the SDK raises
            self._drop()
            if time.monotonic() >= until:
                raise TimeoutError(f"no answer within {timeout:g} s") from None
            raise ConnectionError(self._meaning(error)[1]) from None

    def idle(self) -> float | None:
        """Heartbeats, tokens, and what the hub may have said: links that idle are detached."""
        if self._handler is None:
            return None
        try:
            with self._within(time.monotonic() + _PARTING):
                self._look()
        except Exception:  # noqa: BLE001 - nothing was under way
            self._drop()
        return _IDLE_POLL if self._handler is not None else None

    def close(self) -> None:
        self._drop()
        if self._settings.connection_string is None:
            self._client._credential.close()

    def _open(self, until: float) -> None:
        """Connect, authenticate, attach, unless it is. Raises whatever the SDK raises."""
        if self._handler is not None:
            return
        producer = self._client._create_producer(send_timeout=self._settings.timeout)
        producer._create_handler(self._client._create_auth(auth_uri=self._client._auth_uri))
        handler: Any = producer._handler
        self._handler = handler
        handler.open()
        while not (handler.client_ready() and _attached(handler)):
            if time.monotonic() >= until:
                raise _LateError

    def _publish(
        self,
        messages: Sequence[tuple[str, list[bytes]]],
        failed: dict[int, Exception],
        until: float,
    ) -> None:
        """Send them, and take those that are accepted out of `failed`, which tells of the others
        why. Raises whatever the SDK raises where the link ends."""
        handler = self._handler
        sock = handler._connection._transport.sock
        largest = handler._link.remote_max_message_size or 1 << 62
        waiting: deque[tuple[int, Any]] = deque()
        for number, (key, events) in enumerate(messages):
            size = sum(map(len, events)) + _SECTION * len(events) + len(key) + 64
            if size > largest:
                failed[number] = _TooLargeError(size, largest)
                continue
            annotations = {b"x-opt-partition-key": key} if key else None
            message = BatchMessage(message_annotations=annotations, data=events)
            waiting.append((number, _MessageDelivery(message)))
        under_way: dict[int, Any] = {}
        now = time.monotonic()
        # The rest of the time is for outcomes: what has none at the end may come twice.
        send_by = now + (until - now) * _SENDING
        while under_way or (waiting and now < send_by):
            while waiting and len(under_way) < _UNDER_WAY and now < send_by:
                number, delivery = waiting.popleft()
                handler._transfer_message(delivery)
                under_way[number] = delivery
            try:
                handler.do_work()  # sends what waits, and reads one frame
                while _readable(sock):
                    handler._connection.listen(wait=self._settings.timeout)
            finally:
                for number, delivery in list(under_way.items()):
                    if delivery.state in MESSAGE_DELIVERY_DONE_STATES:
                        del under_way[number]
                        if delivery.error is None:
                            del failed[number]
                        elif _named(delivery.error)[0] != "amqp:unknown-error":
                            failed[number] = delivery.error
            if not _attached(handler):
                raise ConnectionError("the hub detached the link")
            now = time.monotonic()
            if now >= until:
                raise _LateError
        for number, _ in waiting:
            failed[number] = _LateError("there was no time left to send it")

    def _judge(
        self,
        groups: Sequence[tuple[str, list[int]]],
        failed: Mapping[int, Exception],
        open_: Collection[int] = (),
    ) -> Verdict:
        """open_: those of which the hub did not say that it was them."""
        if not failed:
            return Accepted(said="accepted by the hub")
        found = {number: self._meaning(error) for number, error in failed.items()}
        refused = {
            groups[number][1][0]: said
            for number, (verdict, said) in found.items()
            if verdict is Split and len(groups[number][1]) == 1 and number not in open_
        }
        if len(groups) > 1 and (refused or len(failed) < len(groups)):
            again = [at for number in failed for at in groups[number][1] if at not in refused]
            return RejectItems(refused, taken=True, again=again)
        verdict = min((verdict for verdict, _ in found.values()), key=_GRAVEST.index)
        return verdict(next(said for other, said in found.values() if other is verdict))

    def _meaning(self, error: Exception) -> tuple[Any, str]:
        """What sort of verdict an error is, and in which words."""
        cause = getattr(error, "inner_error", None)
        if isinstance(cause, ssl.SSLCertVerificationError):
            return Stop, f"the certificate was refused: {cause.verify_message}"
        if isinstance(error, ClientAuthenticationError):
            return Refresh, self._clean(f"Entra gives no token: {error.message}")
        condition, text = _named(error)
        said = self._clean(f"hub {self.name}: {text}")
        if isinstance(error, TokenAuthFailure):
            denied = {401: Refresh, 403: Refresh, 404: Stop}
            return denied.get(error.status_code, Retry), said
        return _MEANING.get(condition, Retry), said

    def _look(self) -> None:
        """Take what lies there, say what is due, and let go of a link that has ended."""
        handler = self._handler
        if handler is None:
            return
        try:
            sock = handler._connection._transport.sock
            sock.settimeout(_GLANCE)  # TLS may have something that is no frame
            while _readable(sock):
                handler._connection.listen(wait=_GLANCE)
                if not _attached(handler):
                    break
            sock.settimeout(self._settings.timeout)
            handler._connection.listen(batch=0)
            if handler._cbs_authenticator is not None:
                handler._cbs_authenticator.handle_token()
            if not _attached(handler):
                self._drop()
        except Exception:  # noqa: BLE001 - nothing was under way; the next one tells
            self._drop()

    @contextlib.contextmanager
    def _within(self, until: float) -> Iterator[None]:
        """Then the socket is ended, and with it whatever the SDK waits for."""
        done = threading.Event()

        def watch() -> None:
            done.wait(max(until - time.monotonic(), 0.0))
            while not done.is_set():  # there may be no socket yet
                sock = _socket(self._handler)
                if sock is not None:
                    with contextlib.suppress(OSError):
                        socket.socket.shutdown(sock, socket.SHUT_RDWR)
                done.wait(0.02)

        thread = threading.Thread(target=watch, name="event hub's deadline", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()

    def _drop(self) -> None:
        """Let go of the connection: say goodbye where that can be said, and never wait for it."""
        handler = self._handler
        if handler is None:
            return
        sock = _socket(handler)
        with self._within(time.monotonic() + _PARTING), contextlib.suppress(Exception):
            handler.close()
        self._handler = None
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.close()

    def _clean(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return printable(" ".join(text.split()))


class _TooLargeError(Exception):
    condition = _TOO_LARGE

    def __init__(self, size: int, largest: int) -> None:
        super().__init__(f"a publication of {size:,} bytes; the hub takes {largest:,}")


def _place(settings: EventHubsSettings) -> tuple[str, str]:
    """Host and hub. Raises SecretError."""
    if settings.connection_string is None:
        return settings.namespace or "", settings.hub
    return place(settings.connection_string, settings.hub)


def place(reference: SecretRef, hub: str = "") -> tuple[str, str]:
    """The host (and port, if any) and the hub that a connection string leads to; hub: instead of
    the one that it names. Raises SecretError."""
    text = reference.resolve().reveal()
    host = re.search(r"(?:^|;)\s*Endpoint\s*=\s*sb://([^/;\s]+)", text, re.IGNORECASE)
    path = re.search(r"(?:^|;)\s*EntityPath\s*=\s*([^;\s]+)", text, re.IGNORECASE)
    if host is None or not re.search(r"(?:^|;)\s*SharedAccess\w+\s*=", text, re.IGNORECASE):
        raise SecretError(
            f"{reference}: holds no connection string of Event Hubs "
            "(Endpoint=sb://…;SharedAccessKeyName=…;SharedAccessKey=…)"
        )
    hub = hub or (path[1] if path else "")
    if not hub:
        raise SecretError(f"{reference}: the connection string names no hub (EntityPath=…)")
    return host[1], hub


# The SDK's parts.


def _attached(handler: Any) -> bool:
    """Whether the link is up. Raises the error that it, or its connection, ended with."""
    if handler._connection._error is not None:
        raise handler._connection._error
    return (
        handler._link is not None
        and handler._link.get_state() is LinkState.ATTACHED
        and handler._connection.state is ConnectionState.OPENED
    )


def _socket(handler: Any) -> socket.socket | None:
    transport = getattr(getattr(handler, "_connection", None), "_transport", None)
    found: socket.socket | None = getattr(transport, "sock", None)
    return found


def _readable(sock: socket.socket) -> bool:
    pending = getattr(sock, "pending", None)  # TLS has decrypted it already
    return bool((pending and pending()) or select.select([sock], [], [], 0)[0])


def _named(error: Exception) -> tuple[str, str]:
    """An error's condition, and a line about it."""
    condition = getattr(error, "condition", None)
    name = _text(getattr(condition, "value", condition) or "")
    text = _text(getattr(error, "description", None) or getattr(error, "message", None) or error)
    return name, ": ".join(filter(None, (name, text or type(error).__name__)))


def _text(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


# An event, as AMQP writes it (OASIS AMQP 1.0, part 1, 1.6, and part 3, 3.2).


def _key(alert: Alert) -> bytes:
    key = alert.entity or alert.event_id
    if len(key) > _KEY:
        return hashlib.blake2b(key.encode("utf-8", "replace"), digest_size=16).hexdigest().encode()
    return key.encode("utf-8", "replace")


def _message(alert: Alert, key: bytes, media: str, body: bytes) -> bytes:
    """One event: its annotations, its properties, the application's properties, its data."""
    event_id = _sized(0xA1, alert.event_id.encode())
    properties = event_id + b"\x40" * 5 + _sized(0xA3, media.encode())
    told = {
        b"event_id": alert.event_id,
        b"kind": alert.kind,
        b"severity": alert.severity,
        b"status": alert.status,
    }
    pairs = b"".join(
        _sized(0xA1, name) + _sized(0xA1, said.encode()) for name, said in told.items()
    )
    annotation = _sized(0xA3, b"x-opt-partition-key") + _sized(0xA1, key)
    return b"".join(
        (
            b"\x00\x53\x72" + _compound(0xD1, 2, annotation) if key else b"",
            b"\x00\x53\x73" + _compound(0xD0, 7, properties),
            b"\x00\x53\x74" + _compound(0xD1, 2 * len(told), pairs),
            b"\x00\x53\x75" + _sized(0xA0, body),
        )
    )


def _sized(code: int, data: bytes) -> bytes:
    """A binary, string or symbol; code: of its short form."""
    if len(data) < 256:
        return bytes((code, len(data))) + data
    return struct.pack(">BI", code + 0x10, len(data)) + data


def _compound(code: int, count: int, body: bytes) -> bytes:
    return struct.pack(">BII", code, len(body) + 4, count) + body


def _parts(payload: bytes) -> tuple[str, bytes]:
    """An encoded alert's partition key, and its event."""
    at = 2 + int.from_bytes(payload[:2], "big")
    return payload[2:at].decode(), payload[at:]
