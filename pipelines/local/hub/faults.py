"""What is to go wrong, as `EmbeddedHub`'s methods set it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from pipelines.local.hub.amqp import AmqpError

__all__ = ["BUSY", "Broken", "Faults", "Place", "Refusal"]

BUSY = "com.microsoft:server-busy"
Place = tuple[str, str | None]
"""A hub's name in lower case, and a partition or None for all."""


Broken = Literal["before", "after", "silent"]
"""A publication whose connection is reset before it is stored, or after; or that is not stored and
never answered, the connection staying up."""


class Refusal(NamedTuple):
    """Publications that hold `marker` are rejected; `detach`: their link is detached instead, which
    does not say which of them it was."""

    condition: str
    description: str
    marker: bytes
    detach: bool


@dataclass
class Faults:
    """Sets are replaced, never changed: any thread sets a fault, and the server's iterates."""

    delay: float = 0.0
    stalled: frozenset[Place] = frozenset()
    cut: frozenset[Place] = frozenset()
    refused: Mapping[str, str] = field(default_factory=dict)  # hub to condition
    attaches: tuple[int, str] = (0, BUSY)
    rejected: Mapping[str, tuple[Refusal, int | None]] = field(default_factory=dict)  # and how many
    broken: Mapping[str, tuple[Broken, int | None]] = field(default_factory=dict)

    def check_attach(self, hub: str) -> None:
        left, condition = self.attaches
        if hub in self.refused:
            condition = self.refused[hub]
        elif left > 0:
            self.attaches = (left - 1, condition)
        else:
            return
        text = "The service is unable to process the request; please retry the operation."
        raise AmqpError(condition, text)

    def refusal(self, hub: str, message: bytes) -> Refusal | None:
        """What becomes of this publication."""
        refusal, left = self.rejected.get(hub, (None, None))
        if refusal is None or left == 0 or refusal.marker not in message:
            return None
        if left is not None:
            self.rejected = {**self.rejected, hub: (refusal, left - 1)}
        return refusal

    def breaks(self, hub: str) -> Broken | None:
        """How the connection of the next publication breaks."""
        broken, left = self.broken.get(hub, (None, None))
        if broken is None or left == 0:
            return None
        if left is not None:
            self.broken = {**self.broken, hub: (broken, left - 1)}
        return broken
