"""What the contract suite needs to know of a system: how to reach it, what it can be made to do."""

from __future__ import annotations

import abc
import dataclasses
import time
from collections.abc import Mapping, Sequence
from email.utils import formatdate
from pathlib import Path
from typing import Any, ClassVar, Literal

from pipelines.local.receivers import Drip, HalfClose, Reset, Silence
from transforms.sinks.base import Sink, sinks

__all__ = [
    "IMPATIENT",
    "MARKER",
    "PATIENT",
    "PAUSE",
    "PROPERTIES",
    "SECRET",
    "Double",
    "ReceiverDouble",
    "Says",
    "in_a_while",
]

SECRET = "c0ffee-secret-that-nobody-may-see"
MARKER = "p0ison-record-that-is-refused"  # what a record says that the system is to refuse
PAUSE = 3000  # seconds of every Retry-After here

PROPERTIES = {
    "one": "one record arrives",
    "many": "many records arrive, in order",
    "any": "any alert there can be arrives once, with its id",
    "largest": "a record of a megabyte arrives, shortened or whole, among others",
    "split by size": "no request holds more than the sink's limits say",
    "too large": "a request that is refused as too large is halved",
    "status codes": "every answer of the system's table has the outcome that it should",
    "partial rejection": "the record that the system names is dead, the others arrive",
    "unnamed rejection": "the record that is refused is found, although the system names none",
    "Retry-After in seconds": "the pause that the system asks for in seconds is understood",
    "Retry-After as a date": "the pause that the system asks for as a date is understood",
    "credentials renewed": "refused credentials are read anew, once",
    "timeout": "a system that never answers is given up in time",
    "slow drip": "an answer that drips is given up in time",
    "reset mid-body": "a connection that breaks within a request costs nothing",
    "reset after taking": "a connection that breaks before the answer costs nothing",
    "half-closed": "a system that ends the connection without an answer costs nothing",
    "outage": "what did not arrive is owed, to the record, and paid",
    "nothing lost": "a system that comes and goes has everything in the end",
    "status update": "what became of an alert is told: the same record changes where the system "
    "can change one, and one more tells of it elsewhere",
    "restart": "a new start goes on where the last one ended",
    "two of a kind": "two sinks of one kind do not touch each other",
    "hostile text": "no text of an alert forges or breaks a record",
    "secrets": "no secret is in a log, an error, a dead letter, the pickled graph or a repr",
    "quoted secret": "a secret that the system quotes is not repeated",
    "check": "up is told from down, and good credentials from bad ones, sending nothing",
}
"""What every sink is held to."""


@dataclasses.dataclass(frozen=True)
class Says:
    """An answer of the system's table, and what must become of the records that it is said of.

    fault: what `Double.play` takes. becomes:
        delivered  all of them, by this one answer (said once)
        retried    all of them are sent once more, and delivered (said once)
        split      all of them, in more requests (said until up, of what holds several records)
        dead       the one with MARKER dead, the others delivered (said until up, of what holds it)
        stopped    all owed, and nothing tried again but once with credentials read anew (until up)
        owed       all owed, once the patience is over (until up)
    """

    name: str
    fault: Any
    becomes: Literal["delivered", "retried", "split", "dead", "stopped", "owed"]


class Double(abc.ABC):
    """A system that is up, down, or up again, that fails on demand, and tells what it has.

    kind: of the sink that sends to it. name: its own, where a kind has several.
    system: what this is, for the documentation: the real one, or a double of and by what contract.
    secret: whether its sink is given SECRET, as `env:SECRET`.
    answers: whether it says that it took something, so that silence is noticed.
    ordered: whether it keeps the order in which records came.
    updates: whether an alert's later versions change the record that it has of it: `ids` then
        tells of each record only the version that it shows.
    faults: how the properties that need the system's help are played, by name.
    table: how "status codes" is: every answer that the system's contract knows.
    lacks: those of them that this system cannot have, and why.
    may_repeat: in whose course the contract allows that records come twice.
    """

    kind: ClassVar[str]
    name: ClassVar[str] = ""
    system: ClassVar[str]
    secret: ClassVar[bool] = False
    answers: ClassVar[bool] = True
    ordered: ClassVar[bool] = True
    updates: ClassVar[bool] = False
    faults: ClassVar[Mapping[str, Any]] = {}
    table: ClassVar[Sequence[Says]] = ()
    lacks: ClassVar[Mapping[str, str]] = {}
    may_repeat: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def sink(self, name: str = "siem", **options: Any) -> Sink[Any]:
        """Its sink, impatient unless the options say otherwise: who has patience gives requests
        time, too."""
        cls = sinks()[self.kind]
        if options.get("patience", 0) >= 5:
            options = {"timeout": options["patience"], **options}
        return cls(name, cls.Settings(**{**IMPATIENT, **self.settings(), **options}))

    @abc.abstractmethod
    def settings(self) -> dict[str, Any]:
        """What the sink must be told to find it."""

    @abc.abstractmethod
    def ids(self) -> list[str]:
        """The ids of the alerts that it holds, repeats included."""

    @abc.abstractmethod
    def down(self) -> None:
        """Fail, until it is up: also what is open."""

    @abc.abstractmethod
    def up(self) -> None:
        """Be well again, whatever was played."""

    def play(self, fault: Any, times: int | None = None) -> None:
        """Do this with the next requests (`times` of them; None: until up)."""
        raise NotImplementedError

    def limit(self, most: int) -> None:
        """Refuse requests of more than `most` bytes, until up ("too large")."""
        raise NotImplementedError

    def renew(self, secret: str) -> None:
        """From now on take this secret only ("credentials renewed")."""
        raise NotImplementedError

    def stop(self) -> None:
        """Let go of everything. Called once."""
        self.up()


IMPATIENT = {"patience": 0.4, "timeout": 0.3}
PATIENT = 20.0  # seconds, that only a failure waits for


def plays(double: type[Double], name: str) -> bool:
    """Whether the double does its part for this property; for most there is none to do."""
    if name == "status codes":
        return bool(double.table)
    if name == "too large":
        return double.limit is not Double.limit
    if name == "credentials renewed":
        return double.renew is not Double.renew
    return name in double.faults if name in HELPED else True


HELPED = frozenset(
    {
        "too large",
        "status codes",
        "partial rejection",
        "unnamed rejection",
        "Retry-After in seconds",
        "Retry-After as a date",
        "credentials renewed",
        "timeout",
        "slow drip",
        "reset mid-body",
        "reset after taking",
        "half-closed",
        "quoted secret",
    }
)
"""The properties that a system must help to play, or be exempted from."""


class ReceiverDouble(Double):
    """A double that is a receiver of `pipelines.local.receivers`, or a subclass of one.

    A fault is one of the receivers', or a function that is given the double, and returns one or
    has done it.
    """

    receiver: Any  # started by __init__
    faults: ClassVar[Mapping[str, Any]] = {
        "timeout": Silence(),
        "slow drip": Drip(0.1),
        "reset mid-body": Reset(),
        "reset after taking": Reset(taken=True),
        "half-closed": HalfClose(),
    }
    may_repeat: ClassVar[frozenset[str]] = frozenset(
        {"slow drip", "reset after taking", "nothing lost"}
    )

    def ids(self) -> list[str]:
        found: list[str] = self.receiver.ids()
        return found

    def down(self) -> None:
        self.receiver.refuse()
        until = time.monotonic() + 2
        while self.receiver._open and time.monotonic() < until:
            time.sleep(0.001)  # a connection that still closes would still take something

    def up(self) -> None:
        if self.answers and self.receiver._fault is not None:
            self.receiver.refuse()  # what was given up, and is not read yet, ends with this
        self.receiver.heal()
        self.receiver.accept()

    def play(self, fault: Any, times: int | None = None) -> None:
        if callable(fault):
            fault = fault(self)
        if fault is not None:
            self.receiver.fail(fault, times)

    def stop(self) -> None:
        self.receiver.stop()


def in_a_while() -> str:
    """The date PAUSE seconds from now, as HTTP says it."""
    return formatdate(time.time() + PAUSE, usegmt=True)
