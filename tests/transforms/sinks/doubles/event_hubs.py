"""Event Hubs: the embedded hub of this project, which the unmodified SDK speaks AMQP 1.0 with.

It checks shared access signatures, the rights to a hub, the form of what is published, and its
size. What each event must have beside its body is checked here.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from pipelines.local.hub import EmbeddedHub, amqp
from pipelines.local.hub.log import RECORD
from tests.transforms.sinks.doubles.base import MARKER, SECRET, Double, Says
from transforms.secrets import SecretRef
from transforms.sinks import event_hubs
from transforms.sinks.base import Connection, Sink

__all__ = ["Batches", "Event", "Keyed", "events"]

_HUB = "forwarded"
_LARGEST = 1 << 20
_NO_TIME = "AMQP has no way to say when to come again"
_NO_ANSWER = "frames that are broken or drip are the SDK's to read; the deadline ends both"


@dataclasses.dataclass(frozen=True)
class Event:
    """What a reader gets."""

    body: bytes
    key: str | None
    properties: Mapping[str, str]
    message_id: str
    content_type: str


def events(hub: EmbeddedHub, name: str = _HUB, partition: int = 0) -> list[Event]:
    """All that a partition holds, in its order."""
    log = hub._log(name, partition)
    found: list[Event] = []
    while (chunk := log.read(len(found), 1000, waiter=_nobody)) is not None:
        _, data, bounds = chunk
        for start, end in itertools.pairwise(bounds):
            found.append(_event(data[start - bounds[0] + RECORD.size : end - bounds[0]]))
    log.forget(_nobody)
    return found


def _nobody() -> None:
    """Waits for events, as `read` wants it."""


def _event(message: bytes) -> Event:
    sections = {code: amqp.decode(message, at)[0] for code, _, at, _ in amqp.sections(message)}
    properties = sections[amqp.PROPERTIES]
    return Event(
        body=sections[amqp.DATA],
        key=sections.get(amqp.MESSAGE_ANNOTATIONS, {}).get("x-opt-partition-key"),
        properties=sections[amqp.APPLICATION_PROPERTIES],
        message_id=properties[0],
        content_type=properties[6],
    )


@dataclasses.dataclass(frozen=True)
class _Refuses:
    """An error condition, for what holds the marker; `detach`: the link ends with it."""

    condition: str
    marker: str = ""
    detach: bool = False
    description: str = ""


class _Local(event_hubs.EventHubs):
    """The sink, whose secret is the key alone: the rest of a connection string is added here."""

    port: int

    def connect(self) -> Connection:
        return self._real().connect()

    def check(self, timeout: float) -> str:
        return self._real().check(timeout)

    def _real(self) -> event_hubs.EventHubs:
        reference = self.settings.connection_string
        assert reference is not None
        name = f"HUB_{self.port}"
        os.environ[name] = (
            f"Endpoint=sb://127.0.0.1:{self.port};SharedAccessKeyName=send;SharedAccessKey="
            f"{reference.resolve().reveal()};UseDevelopmentEmulator=true;EntityPath={_HUB}"
        )
        known = self.settings.model_copy(update={"connection_string": SecretRef(f"env:{name}")})
        return event_hubs.EventHubs(self.name, known)


class Keyed(Double):
    kind = "event_hubs"
    name = "event_hubs"
    system = "the embedded hub: Event Hubs' AMQP 1.0 on this machine, with the unmodified SDK"
    secret = True
    faults: ClassVar[Mapping[str, Any]] = {
        "timeout": "silent",
        "reset mid-body": "before",
        "reset after taking": "after",
        "partial rejection": _Refuses("amqp:decode-error", MARKER),
        "unnamed rejection": _Refuses("amqp:decode-error", MARKER, detach=True),
        "quoted secret": _Refuses("amqp:not-allowed", description=f"The key {SECRET} may not"),
    }
    lacks: ClassVar[Mapping[str, str]] = {
        "Retry-After in seconds": _NO_TIME,
        "Retry-After as a date": _NO_TIME,
        "slow drip": _NO_ANSWER,
        "half-closed": _NO_ANSWER,
        "too large": "each alert is a publication of its own; see `event_hubs_batches`",
    }
    table: ClassVar[Sequence[Says]] = [
        *(
            Says(f"{name}{', detached' if detach else ''}", _Refuses(name, detach=detach), becomes)
            for name in (
                "com.microsoft:server-busy",
                "com.microsoft:timeout",
                "amqp:internal-error",
                "amqp:resource-limit-exceeded",
            )
            for detach in (False, True)
            for becomes in ("retried", "owed")
        ),
        Says("amqp:link:detach-forced", _Refuses("amqp:link:detach-forced", detach=True), "owed"),
        *(
            Says(
                f"{name}{', detached' if detach else ''}", _Refuses(name, detach=detach), "stopped"
            )
            for name in (
                "amqp:unauthorized-access",
                "amqp:not-found",
                "amqp:not-allowed",
                "com.microsoft:entity-disabled",
            )
            for detach in (False, True)
        ),
        *(
            Says(f"{name}{', detached' if detach else ''}", fault, "dead")
            for name in ("amqp:decode-error", "amqp:invalid-field")
            for detach in (False, True)
            for fault in [_Refuses(name, MARKER, detach)]
        ),
    ]
    # What was under way when the connection broke may have been taken.
    may_repeat = frozenset({"reset mid-body", "reset after taking", "nothing lost"})

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._key, self._port = SECRET, 0
        self._found: list[str] = []
        self._start()

    def settings(self) -> dict[str, Any]:
        return {"connection_string": "env:SECRET"}

    def sink(self, name: str = "siem", **options: Any) -> Sink[Any]:
        sink = _Local(name, super().sink(name, **options).settings)
        sink.port = self._port
        return sink

    def ids(self) -> list[str]:
        if self._is_up:
            self._found = [self._checked(event) for event in events(self.hub)]
        return self._found

    def down(self) -> None:
        if self._is_up:
            self._is_up = False
            self.hub.stop()

    def up(self) -> None:
        if not self._is_up:
            self._start()
        if self.hub.faults.broken or self.hub.faults.rejected:
            self.hub.drop_connections()  # and what was given up, and is not read yet
        self.hub.heal()
        if self.hub.max_message_size != _LARGEST:
            self.limit(_LARGEST)

    def play(self, fault: Any, times: int | None = None) -> None:
        if callable(fault):
            fault(self)
        elif isinstance(fault, _Refuses):
            self.hub.refuse_events(
                _HUB,
                fault.condition,
                fault.description or "The event is refused on demand.",
                marker=fault.marker.encode(),
                detach=fault.detach,
                count=times,
            )
        else:
            self.hub.break_publications(_HUB, fault, times)

    def renew(self, secret: str) -> None:
        self._key = self.hub.key = secret

    def stop(self) -> None:
        self.hub.stop()

    def _start(self) -> None:
        self.hub = EmbeddedHub(self.folder, {_HUB: 1}, port=self._port, key=self._key).start()
        self._port, self._is_up = self.hub.port, True

    def _checked(self, event: Event) -> str:
        """An event's id, which is said in three places."""
        said = json.loads(event.body)
        assert event.properties.keys() == {"event_id", "kind", "severity", "status"}
        assert {event.message_id, event.properties["event_id"]} == {said["id"]}
        assert event.content_type == "application/json"
        self._check_key(event.key)
        return event.message_id

    def _check_key(self, key: str | None) -> None:
        assert key is not None and 0 < len(key) <= 128


class Batches(Keyed):
    name = "event_hubs_batches"
    system = f"{Keyed.system}; `partition_key: none`"
    faults: ClassVar[Mapping[str, Any]] = {
        **{name: fault for name, fault in Keyed.faults.items() if name != "partial rejection"},
        "unnamed rejection": _Refuses("amqp:decode-error", MARKER),
    }
    lacks: ClassVar[Mapping[str, str]] = {
        **{name: why for name, why in Keyed.lacks.items() if name != "too large"},
        "partial rejection": "a publication is accepted or rejected as a whole",
    }
    table: ClassVar[Sequence[Says]] = [
        *Keyed.table,
        Says("amqp:link:message-size-exceeded", lambda double: double.limit(4_000), "split"),
    ]

    def settings(self) -> dict[str, Any]:
        return {**super().settings(), "partition_key": "none"}

    def limit(self, most: int) -> None:
        self.hub.max_message_size = most
        self.hub.detach_links(_HUB)  # a link is told when it attaches

    def _check_key(self, key: str | None) -> None:
        assert key is None
