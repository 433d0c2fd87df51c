"""What is to go wrong, as `EmbeddedHub`'s methods set it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pipelines.local.hub.amqp import AmqpError

__all__ = ["BUSY", "Faults", "Place"]

BUSY = "com.microsoft:server-busy"
Place = tuple[str, str | None]
"""A hub's name in lower case, and a partition or None for all."""


@dataclass
class Faults:
    """Sets are replaced, never changed: any thread sets a fault, and the server's iterates."""

    delay: float = 0.0
    stalled: frozenset[Place] = frozenset()
    cut: frozenset[Place] = frozenset()
    refused: Mapping[str, str] = field(default_factory=dict)  # hub to condition
    attaches: tuple[int, str] = (0, BUSY)

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
