"""An embedded Event Hubs: the AMQP 1.0 service that Azure's own clients talk to, on loopback.

`EmbeddedHub` serves unmodified azure-eventhub producers and consumers from a thread of its own,
keeps the events in append-only files, and fails on demand. Where the service's answers are known
from logs in public issues, conditions and sentences are the service's own; what is a guess is
marked "assumed". Plain TCP on 127.0.0.1 only: it is a tool for development and tests.

From the outside in: `server` (EmbeddedHub), `connection` (a client's bytes, sessions, attaches),
`links` (readers and writers) and `requests` (what clients ask about hubs), `hubs` and `log`
(events on disk). Beside them `amqp` and `messages` (the encoding), `access` (keys and tokens)
and `faults`.
"""

from pipelines.local.hub.log import PartitionInfo, Retention
from pipelines.local.hub.server import EmbeddedHub, PortInUseError, Published

__all__ = ["EmbeddedHub", "PartitionInfo", "PortInUseError", "Published", "Retention"]
