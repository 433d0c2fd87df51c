"""Kafka, and what speaks its protocol: Azure Event Hubs, Microsoft Fabric's Eventstream, Redpanda.

Contract: the Apache Kafka protocol, spoken by librdkafka (the package confluent-kafka): partitions
and their leaders, idempotence and SASL are more than a sink should know. Of librdkafka only the
wire is used: every request ends within its deadline with nothing left in a queue, and what is not
acknowledged by then is the engine's again. Sources: librdkafka's CONFIGURATION.md and
INTRODUCTION.md; "Apache Kafka client configurations for Azure Event Hubs" (learn.microsoft.com).

A record's key is what the alert is about (its SystemAlertId), so that all its updates lie in one
partition, where Java's clients would put them; with `concurrency: 1` in their order. The header
`event_id` tells repeats: idempotence covers what librdkafka itself sends again, not what is sent
again after a deadline or a restart.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import re
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from schemas.alert import Alert
from schemas.formats import FORMATS
from schemas.formats._shortened import shortened
from transforms.delivery.line import printable
from transforms.delivery.network import Tls, is_loopback
from transforms.secrets import SecretRef
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

if TYPE_CHECKING:
    from confluent_kafka import KafkaError, Message, Producer

__all__ = ["Kafka", "KafkaSettings", "Sasl"]

logger = logging.getLogger(__name__)

_ID = 32  # bytes of an event id
_KEY = 1000  # bytes of a key; of a longer one its hash is taken
_OVERHEAD = 1000  # bytes of a batch beside its records
_IDLE = 180_000  # ms; Azure closes what was idle for 240 s
_LOOK = 0.1  # seconds between two looks at whether waiting is of any use
_IDLE_POLL = 10.0  # seconds between two polls while there is nothing to send
_PARTING = 0.5  # seconds for librdkafka to say what it has given up
_AZURE_KEY = re.compile(r"SharedAccess(?:Key|Signature)=([^;]{6,})", re.IGNORECASE)

# What the protocol's error codes mean, by their names (kafka.apache.org/protocol); those with an
# underscore are librdkafka's own. Whatever is not here may pass, and is tried again.
_BAD_RECORD = {"INVALID_RECORD", "INVALID_TIMESTAMP"}
_OTHERS = "_INVALID_DIFFERENT_RECORD"  # not this one: so the broker has said which it is
_MEANING: tuple[tuple[Callable[[str], Verdict], set[str]], ...] = (
    (Split, _BAD_RECORD),
    (Shrink, {"MSG_SIZE_TOO_LARGE", "RECORD_LIST_TOO_LARGE", "INVALID_MSG_SIZE"}),
    (Refresh, {"_AUTHENTICATION", "SASL_AUTHENTICATION_FAILED"}),
    (
        Stop,
        {
            "CLUSTER_AUTHORIZATION_FAILED", "INVALID_CONFIG", "INVALID_REQUIRED_ACKS",
            "POLICY_VIOLATION", "TOPIC_AUTHORIZATION_FAILED", "TOPIC_EXCEPTION",
            "TRANSACTIONAL_ID_AUTHORIZATION_FAILED", "UNKNOWN_TOPIC_OR_PART",
            "UNSUPPORTED_COMPRESSION_TYPE", "UNSUPPORTED_FOR_MESSAGE_FORMAT",
            "UNSUPPORTED_SASL_MECHANISM", "UNSUPPORTED_VERSION", "_UNKNOWN_PARTITION",
            "_UNKNOWN_TOPIC", "_UNSUPPORTED_FEATURE",
        },
    ),
)  # fmt: skip
_INSTALL = "the package confluent-kafka is missing: pip install 'alertbeam[kafka]'"


class Sasl(BaseModel):
    """How a sink shows who it is."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = Field(
        "PLAIN", description="How the password is shown. Event Hubs: PLAIN."
    )
    username: str = Field(
        min_length=1, description="The user. Event Hubs: the word `$ConnectionString`."
    )
    password: SecretRef = Field(
        description="The password: env:NAME or file:/path. Event Hubs: the connection string."
    )


class KafkaSettings(SinkSettings):
    """A topic of Kafka, or of what speaks its protocol: Azure Event Hubs, Fabric's Eventstream."""

    brokers: str = Field(
        description="host:port of one broker or several, with commas between. Event Hubs: "
        "<namespace>.servicebus.windows.net:9093, with `tls: {}` and `sasl`."
    )
    topic: str = Field(
        description="The topic (Event Hubs: the hub). It must be there: none is created.",
        pattern=r"^[A-Za-z0-9._-]{1,249}$",
    )
    format: FormatName = Field(
        "ndjson",
        description="How a record's value is written: `ndjson`, with the alert's record under "
        "`raw`; or any format that `alertbeam explain --as` knows: ocsf, ecs, cef, raw, …",
    )
    compression: Literal["none", "gzip", "snappy", "lz4", "zstd"] = Field(
        "none",
        description="How batches are compressed. Event Hubs takes `none` and `gzip` only; `zstd` "
        "costs least.",
    )
    max_record_bytes: int = Field(
        1_000_000,
        ge=2_000,
        le=100_000_000,
        description="Bytes of the longest record, and of a batch of them, before compression; "
        "longer ones are said shorter. The topic's `max.message.bytes`, less 5 %.",
    )
    tls: Tls | None = Field(
        None, description="How the connection is secured; `{}` takes the system's authorities."
    )
    sasl: Sasl | None = Field(None, description="Who the sink is, if the brokers ask.")

    @field_validator("brokers")
    @classmethod
    def _check_brokers(cls, brokers: str) -> str:
        return ",".join(_broker(broker.strip()) for broker in brokers.split(","))

    @model_validator(mode="after")
    def _check_security(self) -> KafkaSettings:
        hosts = [urlsplit(f"//{broker}").hostname or "" for broker in self.brokers.split(",")]
        if self.sasl and not self.tls and not all(map(is_loopback, hosts)):
            raise ValueError("without `tls` the password would be sent unencrypted: add `tls: {}`")
        if self.tls and self.tls.server_name:
            raise ValueError("`server_name` is of no use: brokers name each other themselves")
        return self


class Kafka(Sink[KafkaSettings]):
    """One topic."""

    kind = "kafka"
    Settings = KafkaSettings
    example: ClassVar = {"brokers": "kafka.example.com:9093", "topic": "alerts", "tls": {}}

    @property
    def limits(self) -> Limits:
        most = self.settings.max_record_bytes
        return Limits(max(most, 1_000_000), max_records=50_000, max_record_bytes=most)

    @property
    def separator_bytes(self) -> int:
        return 20  # of a record in a batch

    def encode(self, alert: Alert, source: str, partition: str) -> bytes:
        return _head(alert) + say(self.settings.format, alert, source, partition)

    def shrink(self, alert: Alert, source: str, partition: str, most: int) -> bytes | None:
        if FORMATS[self.settings.format].media_type != "application/json":
            return None  # these are short already
        head = _head(alert)
        try:
            return head + shortened(alert, most - len(head))
        except ValueError:
            return None

    def connect(self) -> Connection:
        return _Topic(self.settings)

    def probe(self, timeout: float) -> None:
        self.check(timeout)

    def check(self, timeout: float) -> str:
        topic = _Topic(self.settings)
        try:
            brokers, partitions = topic.look(timeout)
        finally:
            topic.close()
        return (
            f"brokers: {brokers}; partitions of {self.settings.topic}: {partitions}; whether "
            "records may be written to it shows with the first one"
        )

    @property
    def target(self) -> str:
        return f"{self.settings.brokers}, topic {self.settings.topic}"

    def destination(self) -> str:
        """`host/topic`, in lower case: where it writes to, as a hub of Event Hubs is called."""
        host = urlsplit(f"//{self.settings.brokers.partition(',')[0]}").hostname
        return f"{host}/{self.settings.topic}".lower()

    def find(self, event_id: str) -> str:
        return (
            f"kafka-console-consumer.sh --bootstrap-server {self.settings.brokers} --topic "
            f"{self.settings.topic} --from-beginning --property print.headers=true | "
            f"grep event_id:{event_id}"
        )


class _Topic(Connection):
    """A producer. It outlives failures: a new one needs half a second until it may send."""

    def __init__(self, settings: KafkaSettings) -> None:
        try:
            import confluent_kafka
        except ImportError:
            raise OSError(_INSTALL) from None
        self._kafka = confluent_kafka
        self._settings = settings
        self._password = settings.sasl.password.resolve().reveal() if settings.sasl else ""
        # Of a connection string of Azure the key alone is a secret, too.
        self._hidden = [self._password, *_AZURE_KEY.findall(self._password)]
        self._said = ""  # what went wrong last
        self._hopeless: Verdict | None = None  # what no waiting mends
        self._producer: Producer | None = self._open()

    def send(self, payloads: Sequence[bytes], timeout: float) -> Verdict:
        producer = self._producer = self._producer or self._open()
        producer.poll(0)  # hear what has happened since: it is not about this request
        self._hopeless = None
        results: dict[int, KafkaError | None] = {}
        for at, payload in enumerate(payloads):
            self._produce(producer, payload, functools.partial(_note, results, at))
        self._wait(producer, timeout)
        verdict = self._judge(results, len(payloads), timeout)
        if isinstance(verdict, Accepted):
            self._said, self._proven = "", True
        if self._broken:
            self.close()
        return verdict

    def look(self, timeout: float) -> tuple[int, int]:
        """How many brokers there are, and partitions of the topic. Raises OSError."""
        producer = self._producer = self._producer or self._open()
        name, until = self._settings.topic, time.monotonic() + timeout
        while True:
            left = max(until - time.monotonic(), 0.001)
            try:
                found = producer.list_topics(name, min(left, _LOOK))
                break
            except self._kafka.KafkaException as error:
                producer.poll(0)
                if self._hopeless or time.monotonic() >= until:
                    raise ConnectionError(self._said or error.args[0].str()) from None
        topic = found.topics[name]
        if topic.error:
            raise ConnectionError(f"topic {name}: {topic.error.str()}")
        return len(found.brokers), len(topic.partitions)

    def idle(self) -> float | None:
        """Hear what librdkafka says of its connections: unheard it would pile up."""
        if self._producer is None:
            return None
        self._producer.poll(0)
        return _IDLE_POLL

    def close(self) -> None:
        """Nothing is left in a queue: the engine has been told that it is not acknowledged."""
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.purge()
            producer.poll(0)

    def log(self, level: int, text: str, *parts: Any) -> None:
        """librdkafka's log, in place of a logger: what matters of it comes to `_hear` as well."""
        logger.debug("%s", self._clean(text % parts))

    def _open(self) -> Producer:
        self._proven = False  # whether a broker has acknowledged something
        self._broken = False  # it says that it can go on no more
        given = {**_config(self._settings), "error_cb": self._hear}
        if self._password:
            given["sasl.password"] = self._password
        try:
            return self._kafka.Producer(given, logger=self)
        except self._kafka.KafkaException as error:
            raise OSError(self._clean(error.args[0].str())) from None

    def _produce(self, producer: Producer, payload: bytes, told: Callable[..., None]) -> None:
        id_at = 2 + int.from_bytes(payload[:2], "big")
        value_at = id_at + _ID
        try:
            producer.produce(
                self._settings.topic,
                key=payload[2:id_at],
                value=payload[value_at:],
                headers=[("event_id", payload[id_at:value_at])],
                on_delivery=told,
            )
        except self._kafka.KafkaException as error:
            told(error.args[0], None)

    def _wait(self, producer: Producer, timeout: float) -> None:
        """Until every record has its result, or there is no hope of one: the rest is given up."""
        until = time.monotonic() + timeout
        while producer.flush(min(_LOOK, max(until - time.monotonic(), 0))):
            if self._hopeless or time.monotonic() >= until:
                producer.purge()
                producer.flush(_PARTING)
                return

    def _judge(
        self, results: Mapping[int, KafkaError | None], count: int, timeout: float
    ) -> Verdict:
        late = self._kafka.KafkaError(self._kafka.KafkaError._TIMED_OUT)
        failed = {at: error for at in range(count) if (error := results.get(at, late))}
        if not failed:
            return Accepted(said="acknowledged by all in-sync replicas")
        names = {error.name() for error in failed.values()}
        refused = (
            {at: error.str() for at, error in failed.items() if error.name() in _BAD_RECORD}
            if _OTHERS in names
            else {}
        )
        if refused or len(failed) < count:
            return RejectItems(refused, taken=True, again=failed.keys() - refused.keys())
        if self._hopeless:
            return self._hopeless
        said = {error.name(): error.str() for error in failed.values()}
        for verdict, these in _MEANING:
            for name in these & names:
                return verdict(f"topic {self._settings.topic}: {said[name]}")
        return Retry(self._said or f"not acknowledged within {timeout:g} s")

    def _hear(self, error: KafkaError) -> None:
        """What librdkafka has to say of its connections, while it is polled."""
        name, said = error.name(), self._clean(error.str())
        if name == "_ALL_BROKERS_DOWN":
            if not self._proven:  # else it may be back in time, and needs no second request
                self._hopeless = self._hopeless or Retry(self._said or said)
            return
        self._said = said
        if error.fatal():
            self._broken, self._hopeless = True, Retry(said)
        elif name == "_AUTHENTICATION":
            self._hopeless = Refresh(said)
        elif name == "_SSL" and "certificate verify failed" in said:
            self._hopeless = Stop(said)

    def _clean(self, text: str) -> str:
        for secret in filter(None, self._hidden):
            text = text.replace(secret, "***")
        return printable(text)


def _note(
    results: dict[int, KafkaError | None], at: int, error: KafkaError | None, _: Message | None
) -> None:
    results[at] = error


def _head(alert: Alert) -> bytes:
    """What stands before a record's value: the length of its key, the key, the event id."""
    key = (alert.entity or alert.event_id).encode("utf-8", "replace")
    if len(key) > _KEY:
        key = hashlib.blake2b(key, digest_size=16).hexdigest().encode()
    return len(key).to_bytes(2, "big") + key + alert.event_id.encode()


def _config(settings: KafkaSettings) -> dict[str, str | int | bool]:
    """librdkafka's own settings, without the password. Raises OSError (an unreadable file)."""
    ms = int(max(settings.timeout, 2.5) * 1000)
    config: dict[str, str | int | bool] = {
        "bootstrap.servers": settings.brokers,
        "client.id": "alertbeam",
        "acks": "all",
        "enable.idempotence": True,
        "partitioner": "murmur2_random",
        "compression.type": settings.compression,
        "message.max.bytes": settings.max_record_bytes + _OVERHEAD,
        "message.timeout.ms": 2 * ms,  # `_wait` gives up sooner; with it end librdkafka's retries
        "socket.connection.setup.timeout.ms": ms,
        "topic.metadata.propagation.max.ms": min(1000, int(settings.timeout * 300)),
        "allow.auto.create.topics": False,  # a name that is mistyped is an error
        "socket.keepalive.enable": True,
        "connections.max.idle.ms": _IDLE,
        "reconnect.backoff.max.ms": 1000,
        "metadata.max.age.ms": _IDLE,
        "security.protocol": ("sasl_" if settings.sasl else "")
        + ("ssl" if settings.tls else "plaintext"),
    }
    if tls := settings.tls:
        tls.context()  # says more clearly what is wrong with a file
        config |= {
            "ssl.ca.location": tls.ca or ssl.get_default_verify_paths().cafile or "probe",
            "enable.ssl.certificate.verification": tls.verify,
            "ssl.endpoint.identification.algorithm": "https" if tls.verify else "none",
        }
        if tls.cert:
            config |= {
                "ssl.certificate.location": tls.cert,
                "ssl.key.location": tls.key or tls.cert,
            }
    if sasl := settings.sasl:
        config |= {"sasl.mechanism": sasl.mechanism, "sasl.username": sasl.username}
    return config


def _broker(address: str) -> str:
    parts = urlsplit(f"//{address}")
    if not (parts.hostname and parts.port and parts.netloc == address and "@" not in address):
        raise ValueError("brokers are host:port, or [IPv6 address]:port, with commas between")
    return address
