"""What is on its way to a sink: encoded records, those that were packed together, and figures."""

from __future__ import annotations

import dataclasses
import math

import msgspec

from schemas.alert import Alert
from schemas.batch import Origin
from schemas.receipt import Outcome

__all__ = ["Chunk", "Parcel", "Status"]


class Parcel(msgspec.Struct, gc=False, eq=False):
    """One encoded record on its way; `outcome` is DELIVERED, DEAD or OWED once it is settled.

    sequence, index: the record's address in its partition, `origin`.
    reason: why it is dead or owed; one line, safe to log.
    shortened: whether it is said shorter than it should be, as the sink takes none so large.
    ended_ms: when it got its outcome from the engine.
    """

    sequence: int
    index: int
    payload: bytes
    alert: Alert | None = None
    outcome: Outcome | None = None
    reason: str = ""
    origin: Origin | None = None
    shortened: bool = False
    ended_ms: int = 0


@dataclasses.dataclass(frozen=True)
class Status:
    """What an engine has done since it was made.

    since: when the circuit came into its state, epoch seconds. reason: why it opened last.
    in_flight: parcels without an outcome; pending: those of them that the system took, and has
        not confirmed yet.
    bytes_sent: encoded, with separators, before compression, retries too.
    late: results that came after their parcels had been given up.
    behind: whether what comes live is owed, as the sink is slower. paid: of what was owed before.
    per_second: records that it takes while there is something to send.
    """

    circuit: str
    since: float
    reason: str
    openings: int
    delivered: int
    dead: int
    owed: int
    in_flight: int
    pending: int
    requests: int
    retries: int
    bytes_sent: int
    warnings: int
    shortened: int
    late: int
    behind: bool
    paid: int
    per_second: float


class Chunk:
    """Parcels that were packed together: they have one deadline, and one share of the queue."""

    __slots__ = (
        "arrears", "attempts", "deadline", "left", "number", "parcels", "pending", "refreshed",
        "size",
    )  # fmt: skip

    def __init__(self, number: int, parcels: list[Parcel], size: int, arrears: bool) -> None:
        self.number = number
        self.parcels = parcels
        self.size = size
        self.arrears = arrears
        self.left = len(parcels)  # without an outcome
        self.pending = 0  # of those, how many only wait to be confirmed
        self.deadline = math.inf  # monotonic; set when it is first sent
        self.attempts = 0  # failed, one after another
        self.refreshed = False  # its refusal was answered with fresh credentials
