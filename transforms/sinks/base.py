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
import importlib.metadata
import inspect
import pkgutil
import re
from collections.abc import Collection, Hashable, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Generic, TypeVar
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

from schemas.alert import Alert
from schemas.formats import FORMATS
from schemas.formats.ndjson import ndjson
from transforms.secrets import SecretRef

__all__ = [
    "Accepted",
    "Connection",
    "EncodeError",
    "FormatName",
    "Limits",
    "Pending",
    "Rate",
    "Refresh",
    "RejectItems",
    "Retry",
    "Shrink",
    "Sink",
    "SinkError",
    "SinkSettings",
    "Split",
    "Stop",
    "Verdict",
    "say",
    "shown",
    "sinks",
]


class Rate(BaseModel):
    """The most that a system is sent a second; a sink waits, and the others do not."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    records: float | None = Field(None, gt=0, description="Records a second.")
    requests: float | None = Field(None, gt=0, description="Requests a second.")
    bytes: float | None = Field(None, gt=0, description="Bytes a second, before compression.")


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
    rate: Rate = Field(
        Rate.model_validate({}),
        description="The most that is sent a second. What comes faster is owed, and paid in order.",
    )


@dataclasses.dataclass(frozen=True)
class Limits:
    """The most that one send should hold: encoded bytes (with separators) and records.

    A record that is larger by itself goes alone: the system decides.
    max_record_bytes: what the system surely refuses of a single record; a larger one is said
        shorter (`Sink.shrink`) before it is sent, or is dead.
    rate: what the system takes a second by its own documentation; settings may ask for less.
    """

    max_bytes: int
    max_records: int = 1_000_000
    max_record_bytes: int | None = None
    rate: Rate = dataclasses.field(default_factory=lambda: Rate.model_validate({}))


def _known(name: str) -> str:
    if name not in FORMATS:
        raise PydanticCustomError("choice", "no such format", {"choices": [*FORMATS]})
    return name


FormatName = Annotated[
    str, AfterValidator(_known), WithJsonSchema({"type": "string", "enum": [*FORMATS]})
]
"""The name of any format that `alertbeam explain --as` knows, in a sink's settings."""


class EncodeError(ValueError):
    """This alert cannot be said in this sink's language; it becomes a dead letter."""


class SinkError(Exception):
    """A sink of another package that cannot be used. The message names the package."""


@dataclasses.dataclass(frozen=True)
class Accepted:
    """Everything was taken. `warning` is logged and counted; `said`: the system's own words."""

    warning: str = ""
    said: str = ""


@dataclasses.dataclass(frozen=True)
class Pending:
    """Everything was taken, but not for good yet: `Connection.confirm` tells of `handle` later."""

    handle: Hashable


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
class Shrink:
    """The request is too large: halve it; a single record is said shorter, or is dead."""

    reason: str


@dataclasses.dataclass(frozen=True)
class RejectItems:
    """These records (positions in the request) are refused for good, with a reason each.

    taken: the others were accepted; otherwise they are sent again without the refused ones.
    again: of those, the positions that were not taken for now: sent again after a pause.
    """

    reasons: Mapping[int, str]
    taken: bool
    again: Collection[int] = ()


@dataclasses.dataclass(frozen=True)
class Refresh:
    """The credentials are refused. They may have expired: they are read anew, at once, and the
    request is sent once more; refused again, it is a `Stop`."""

    reason: str


@dataclasses.dataclass(frozen=True)
class Stop:
    """The settings or credentials are refused: open the circuit, owe everything, drop nothing."""

    reason: str


Verdict = Accepted | Pending | Retry | Split | Shrink | RejectItems | Refresh | Stop

S = TypeVar("S", bound=SinkSettings)


def say(form: str, alert: Alert, source: str, partition: str) -> bytes:
    """The alert in this format; `ndjson` says where it came from too."""
    if form == "ndjson":
        return ndjson(alert, source=source, partition=partition)
    return FORMATS[form].say(alert)


def shown(value: object) -> str:
    """A setting for people; of a URL only scheme and host: with some systems, its path is the
    secret."""
    text = str(value)
    parts = urlsplit(text)
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}" if parts.scheme in ("https", "http") else text


class Connection(abc.ABC):
    """One sender thread's way to the system; opened in that thread, used by it alone."""

    @abc.abstractmethod
    def send(self, payloads: Sequence[bytes], timeout: float) -> Verdict:
        """Send the encoded records in one request, within `timeout` seconds.

        A network failure may be raised as OSError; it counts as `Retry`.
        """

    def confirm(self, timeout: float) -> Mapping[Hashable, Verdict]:
        """What has become of requests that were `Pending`; those still open are left out.

        Called about four times a second while there are any. Whatever is still open when the
        connection fails or is closed counts as not taken, and is sent again.
        """
        return {}

    def hurry(self) -> None:  # noqa: B027 - most connections wait for the system alone
        """Somebody waits for what is `Pending`: what only waits for more to come goes now."""

    def idle(self) -> float | None:
        """Tidy up while nothing waits to be sent; seconds until the next time, if it needs one."""
        return None

    def close(self) -> None:  # noqa: B027 - not every connection holds something
        """Let go of sockets and files. Called once."""


class Sink(abc.ABC, Generic[S]):
    """One system that alerts are written to, configured. Picklable: it holds no secret value."""

    kind: ClassVar[str]  # the name in settings: "splunk_hec"
    Settings: ClassVar[type[SinkSettings]]
    example: ClassVar[Mapping[str, Any]] = {}
    """Settings that are enough, as a user would write them."""

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

    def shrink(self, alert: Alert, source: str, partition: str, most: int) -> bytes | None:
        """The record said within `most` bytes, with its id; None: this language has no way to.

        Called for a record that is, or was refused as, too large. Pure, as `encode` is.
        """
        return None

    @abc.abstractmethod
    def connect(self) -> Connection:
        """A new connection. Secrets are resolved here. May raise OSError or SecretError."""

    @abc.abstractmethod
    def probe(self, timeout: float) -> None:
        """Ask whether the system can take records, sending none. Raises OSError if it cannot."""

    def check(self, timeout: float) -> str:
        """Try names, certificates and credentials, sending no record; what was found, in a line.

        Raises OSError or SecretError, in words that tell the user what to do. A system that
        cannot be asked about credentials says so in the line.
        """
        self.probe(timeout)
        return "it answers"

    @property
    def target(self) -> str:
        """Where its settings lead, in a few words: hosts, folders, names; never what may be a
        secret. Here: what they need, but for secrets."""
        fields = type(self.settings).model_fields
        needed = [getattr(self.settings, name) for name in fields if fields[name].is_required()]
        return ", ".join(shown(value) for value in needed if not isinstance(value, SecretRef))

    def destination(self) -> str:
        """The event hub that it writes to, `namespace/hub` in lower case; "" of any other system.
        May raise SecretError, where a secret names it."""
        return ""

    def find(self, event_id: str) -> str:
        """How a user finds a record with this id in the system: a search to type, a path."""
        return f"look for {event_id}"

    def __repr__(self) -> str:
        return f"<{self.kind} {self.name}>"


@functools.cache
def sinks() -> dict[str, type[Sink[Any]]]:
    """Every sink by its kind: each module of this folder that defines one, and each class that an
    installed package names as an entry point of the group `alertbeam.sinks`.

    Raises SinkError: what a package names is no sink, fails to import, or has a kind that is taken.
    """
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
    whose = dict.fromkeys(found, "alertbeam")
    for point in importlib.metadata.entry_points(group="alertbeam.sinks"):
        name = point.dist.name if point.dist else point.module
        sink = _load(point, name)
        if sink.kind in found:
            raise SinkError(
                f"two packages have a sink {sink.kind}: {whose[sink.kind]} and {name}; "
                f"uninstall one of them, or give one another kind"
            )
        found[sink.kind], whose[sink.kind] = sink, name
    return dict(sorted(found.items()))


def _load(point: importlib.metadata.EntryPoint, package: str) -> type[Sink[Any]]:
    where = f"the package {package} offers a sink, {point.value}, that"
    try:
        sink = point.load()
    except Exception as error:  # whatever it does while it is imported
        why = " ".join(f"{type(error).__name__}: {error}".split())
        raise SinkError(f"{where} cannot be imported: {why}") from error
    if not (isinstance(sink, type) and issubclass(sink, Sink)) or inspect.isabstract(sink):
        raise SinkError(f"{where} is no complete subclass of transforms.sinks.base.Sink")
    kind, settings = getattr(sink, "kind", None), getattr(sink, "Settings", None)
    if not (isinstance(kind, str) and re.fullmatch("[a-z][a-z0-9_]*", kind)):
        raise SinkError(f"{where} has no `kind`: a name of lower-case letters, digits and _")
    if not (isinstance(settings, type) and issubclass(settings, SinkSettings)):
        raise SinkError(f"{where} has no `Settings`: a subclass of SinkSettings")
    return sink
