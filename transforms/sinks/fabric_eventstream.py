"""Fabric Eventstream: alerts for Microsoft Fabric's Real-Time Intelligence, sent over Kafka.

Contract: a custom endpoint of an Eventstream ("Add a custom endpoint or custom app source to an
eventstream", learn.microsoft.com/fabric/real-time-intelligence/event-streams/add-source-custom-app)
is Event Hubs' Kafka endpoint: port 9093, TLS, SASL PLAIN with the user `$ConnectionString` and the
connection string as its password, the topic being the string's EntityPath ("Apache Kafka client
configurations for Azure Event Hubs"). So all follows from the string that the endpoint shows. The
rest is `kafka`.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, ValidationError

from schemas.alert import Alert
from transforms.delivery.network import Tls
from transforms.secrets import SecretError, SecretRef
from transforms.sinks.base import Connection, FormatName, Limits, Sink, SinkSettings
from transforms.sinks.event_hubs import place
from transforms.sinks.kafka import Kafka, KafkaSettings, Sasl

__all__ = ["FabricEventstream", "FabricEventstreamSettings"]

_PORT, _EMULATOR = 9093, 9092
_NOWHERE = "eventstream.invalid:9093"


class FabricEventstreamSettings(SinkSettings):
    """Microsoft Fabric: an Eventstream, through its custom endpoint."""

    connection_string: SecretRef = Field(
        description="Where the connection string lies that the custom endpoint shows under SAS Key "
        "Authentication: env:NAME or file:/path. Everything else follows from it."
    )
    format: FormatName = Field(
        "ndjson",
        description="How an event is written: `ndjson`, with the alert's record under `raw`; or "
        "any format that `alertbeam explain --as` knows: ocsf, ecs, raw, …",
    )
    compression: Literal["none", "gzip"] = Field("none", description="How batches are compressed.")
    max_record_bytes: int = Field(
        1_000_000,
        ge=2_000,
        le=1_000_000,
        description="Bytes of the longest event, and of a batch of them, before compression; "
        "longer ones are said shorter. An Eventstream takes 1 MB.",
    )
    tls: Tls = Field(Tls(), description="How the connection is secured.")


class FabricEventstream(Sink[FabricEventstreamSettings]):
    """One custom endpoint."""

    kind = "fabric_eventstream"
    Settings = FabricEventstreamSettings
    example: ClassVar = {"connection_string": "env:EVENTSTREAM_CONNECTION"}

    def __init__(self, name: str, settings: FabricEventstreamSettings) -> None:
        super().__init__(name, settings)
        self._records = self._kafka(_NOWHERE, "eventstream")  # how they are written

    @property
    def limits(self) -> Limits:
        return self._records.limits

    @property
    def separator_bytes(self) -> int:
        return self._records.separator_bytes

    def encode(self, alert: Alert, source: str, partition: str) -> bytes:
        return self._records.encode(alert, source, partition)

    def shrink(self, alert: Alert, source: str, partition: str, most: int) -> bytes | None:
        return self._records.shrink(alert, source, partition, most)

    def connect(self) -> Connection:
        return self.found().connect()

    def probe(self, timeout: float) -> None:
        self.check(timeout)

    def check(self, timeout: float) -> str:
        return self.found().check(timeout)

    @property
    def target(self) -> str:
        return f"the Eventstream that {self.settings.connection_string} leads to"

    def destination(self) -> str:
        """`namespace/hub`, in lower case: where it writes to. Raises SecretError."""
        return self.found().destination()

    def find(self, event_id: str) -> str:
        return f'in a KQL queryset: alerts | where id == "{event_id}" (alerts: your table)'

    def found(self) -> Kafka:
        """The topic that the connection string leads to now. Raises SecretError."""
        reference = self.settings.connection_string
        host, topic = place(reference)
        local = "usedevelopmentemulator=true" in reference.resolve().reveal().lower()
        if ":" not in host:
            host += f":{_EMULATOR if local else _PORT}"
        try:
            return self._kafka(host, topic, None if local else self.settings.tls, signed=True)
        except ValidationError as error:
            why = error.errors()[0]["msg"].removeprefix("Value error, ")
            raise SecretError(f"{reference}: leads to no topic of an Eventstream: {why}") from None

    def _kafka(
        self, brokers: str, topic: str, tls: Tls | None = None, signed: bool = False
    ) -> Kafka:
        settings = self.settings
        password = settings.connection_string
        sasl = Sasl(mechanism="PLAIN", username="$ConnectionString", password=password)
        return Kafka(
            self.name,
            KafkaSettings(
                **{name: getattr(settings, name) for name in SinkSettings.model_fields},
                brokers=brokers,
                topic=topic,
                format=settings.format,
                compression=settings.compression,
                max_record_bytes=settings.max_record_bytes,
                tls=tls,
                sasl=sasl if signed else None,
            ),
        )
