"""What clients ask: $cbs takes their tokens, $management tells of hubs and partitions."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pipelines.local.hub import amqp
from pipelines.local.hub.access import Denied
from pipelines.local.hub.amqp import NULL
from pipelines.local.hub.links import Receiver, Sender

if TYPE_CHECKING:
    from pipelines.local.hub.server import EmbeddedHub

__all__ = ["NODES", "Replies", "Requests"]

NODES = ("$cbs", "$management")


@dataclass(eq=False, kw_only=True)
class Replies(Sender):
    """Where a node's answers go."""

    node: str
    waiting: deque[bytes] = field(default_factory=deque)

    def pump(self) -> None:
        while self.waiting and self.credit > 0:
            frames = self.split(self.session.next_delivery, self.waiting.popleft())
            self.send(b"".join(frames), len(frames), 1)


@dataclass(eq=False, kw_only=True)
class Requests(Receiver):
    """Where the requests to a node come from."""

    node: str

    def accept(self, message: bytes) -> None:
        connection = self.session.connection
        ident, properties, value = NULL, {}, None
        for code, start, at, _ in amqp.sections(message):
            if code == amqp.PROPERTIES:
                ident = amqp.read_performative(message[start:]).raw[0]
            elif code == amqp.APPLICATION_PROPERTIES:
                properties = amqp.decode(message, at)[0]
            elif code == amqp.VALUE:
                value = amqp.decode(message, at)[0]
        status, description, answer = 200, "OK", NULL
        try:
            if self.node == "$cbs":
                path, until = connection.server.check_token(value)
                connection.granted[path] = until
                status, description = 202, "Accepted"
            else:
                answer = _manage(connection.server, properties)
        except Denied as denied:
            status, description = denied.args
        outcome = {
            "status-code": amqp.integer(status),
            "status-description": amqp.string(description),
        }
        reply = amqp.composite(amqp.PROPERTIES, *(NULL,) * 5, ident, *(NULL,) * 7)
        reply += amqp.section(amqp.APPLICATION_PROPERTIES, amqp.mapping(outcome))
        reply += amqp.section(amqp.VALUE, answer)
        for link in self.session.links.values():
            if isinstance(link, Replies) and link.node == self.node:
                link.waiting.append(reply)
                link.pump()
                return


def _manage(server: EmbeddedHub, request: Mapping[str, Any]) -> bytes:
    """Answer a management request with an encoded map."""
    name, what = str(request.get("name")).lower(), (request.get("operation"), request.get("type"))
    path, _ = server.check_token(request.get("security_token"))
    if path and path != name:
        raise Denied(401, "Unauthorized access. 'Manage' claim is required.")
    if name in server.faults.refused:
        raise Denied(503, "The hub is refused on demand.")
    hub = server.hubs.get(name)
    log = hub.get(str(request.get("partition"))) if hub else None
    if hub and what == ("READ", "com.microsoft:eventhub"):
        ids = [partition.folder.name.encode() for partition in hub.partitions]
        return amqp.mapping(
            {
                "name": amqp.string(hub.name),
                "created_at": amqp.timestamp(hub.created_ms),
                "partition_count": amqp.integer(len(ids)),
                "partition_ids": amqp.array(0xB1, *ids),
                "georeplication_factor": amqp.integer(1),  # the Go client wants it
            }
        )
    if hub and log and what == ("READ", "com.microsoft:partition"):
        info = log.info()
        return amqp.mapping(
            {
                "name": amqp.string(hub.name),
                "partition": amqp.string(info.partition),
                "begin_sequence_number": amqp.long(info.begin_sequence_number),
                "last_enqueued_sequence_number": amqp.long(info.last_sequence_number),
                "last_enqueued_offset": amqp.string(info.last_offset),
                "last_enqueued_time_utc": amqp.timestamp(info.last_enqueued_ms),
                "is_partition_empty": amqp.TRUE if info.is_empty else amqp.FALSE,
            }
        )
    raise Denied(404, f"The messaging entity 'sb://127.0.0.1/{name}' could not be found.")
