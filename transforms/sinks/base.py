"""The contract of a sink: a declared configuration, a pure encoder, and one send.

A sink is one module in this folder, found by being there; it defines one `Sink` subclass.
Everything else (batching by encoded bytes, retries, circuit, splitting, receipts, dead letters)
is the delivery engine's, the same for all: `transforms/delivery/`.
"""

from __future__ import annotations

import abc
import dataclasses
import functools
import importlib
import pkgutil
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from schemas.alert import Alert

__all__ = [
    "Accepted",
    "Connection",
    "EncodeError",
    "Limits",
    "RejectItems",
    "Retry",
    "Sink",
    "SinkSettings",
    "Split",
    "Stop",
    "Verdict",
    "sinks",
]


class SinkSettings(BaseModel):
    """What every sink's settings share. A field's description is its documentation."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    patience: float = Field(
        10.0, gt=0, le=300, description="Seconds of retries before the circuit opens."
    )
    timeout: float = Field(
        10.0, gt=0, le=300, description="Seconds that one request or connection attempt may take."
    )
    concurrency: int = Field(1, ge=1, le=32, description="Connections that send side by side.")


@dataclasses.dataclass(frozen=True)
class Limits:
    """The most that one send should hold: encoded bytes (with separators) and records.

    A record that is larger by itself goes alone: the system decides.
    """

    max_bytes: int
    max_records: int = 1_000_000


class EncodeError(ValueError):
    """This alert cannot be said in this sink's language; it becomes a dead letter."""


@dataclasses.dataclass(frozen=True)
class Accepted:
    """Everything was taken; `warning` is logged and counted."""

    warning: str = ""


@dataclasses.dataclass(frozen=True)
class Retry:
    """Nothing was taken; try again, not before `after` seconds when the system named a time."""

    reason: str
    after: float | None = None


@dataclasses.dataclass(frozen=True)
class Split:
    """The request as a whole was refused: halve it; a single record that is refused is dead."""

    reason: str


@dataclasses.dataclass(frozen=True)
class RejectItems:
    """These records (positions in the request) are refused for good, with a reason each.

    taken: the others were accepted; otherwise they are sent again without the refused ones.
    """

    reasons: Mapping[int, str]
    taken: bool


@dataclasses.dataclass(frozen=True)
class Stop:
    """The settings or credentials are refused: open the circuit, owe everything, drop nothing."""

    reason: str


Verdict = Accepted | Retry | Split | RejectItems | Stop

S = TypeVar("S", bound=SinkSettings)


class Connection(abc.ABC):
    """One sender thread's way to the system; opened in that thread, used by it alone."""

    @abc.abstractmethod
    def send(self, payloads: Sequence[bytes], timeout: float) -> Verdict:
        """Send the encoded records in one request, within `timeout` seconds.

        A network failure may be raised as OSError; it counts as `Retry`.
        """

    def idle(self) -> float | None:
        """Tidy up while nothing waits to be sent; seconds until the next time, if it needs one."""
        return None

    def close(self) -> None:  # noqa: B027 - not every connection holds something
        """Let go of sockets and files. Called once."""


class Sink(abc.ABC, Generic[S]):
    """One system that alerts are written to, configured. Picklable: it holds no secret value."""

    kind: ClassVar[str]  # the name in settings: "splunk_hec"
    Settings: ClassVar[type[SinkSettings]]

    def __init__(self, name: str, settings: S) -> None:
        self.name = name
        self.settings = settings

    @property
    @abc.abstractmethod
    def limits(self) -> Limits: ...

    @property
    def separator_bytes(self) -> int:
        """Bytes that a request adds to each record (a newline, a length prefix)."""
        return 1

    @abc.abstractmethod
    def encode(self, alert: Alert, source: str, partition: str) -> bytes:
        """The record as the system wants it: a pure function. Raises EncodeError (ValueError)."""

    @abc.abstractmethod
    def connect(self) -> Connection:
        """A new connection. Secrets are resolved here. May raise OSError or SecretError."""

    @abc.abstractmethod
    def probe(self, timeout: float) -> None:
        """Ask whether the system can take records, sending none. Raises OSError if it cannot."""

    def __repr__(self) -> str:
        return f"<{self.kind} {self.name}>"


@functools.cache
def sinks() -> dict[str, type[Sink[Any]]]:
    """Every sink by its kind: each module of this folder that defines a Sink."""
    found: dict[str, type[Sink[Any]]] = {}
    package = importlib.import_module("transforms.sinks")
    for info in pkgutil.iter_modules(package.__path__):
        if info.name != "base":
            module = importlib.import_module(f"transforms.sinks.{info.name}")
            for value in vars(module).values():
                if (
                    isinstance(value, type)
                    and issubclass(value, Sink)
                    and value.__module__ == module.__name__
                ):
                    found[value.kind] = value
    return dict(sorted(found.items()))
