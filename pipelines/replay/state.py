"""How a run of a replay ended, and what is written down of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from transforms.read.plan import folder
from transforms.state_store import StateStore

__all__ = ["STOPPED", "Result", "State", "state_of"]

STOPPED = "it was stopped; the same command goes on"
"""A result's problem, where somebody told it to end."""


class Result(NamedTuple):
    """How a run of a replay ended. parts: of this run. owed: by sink, records that are still owed.
    problem: why it ended before it was through; "": it is."""

    parts: int
    unread: int
    owed: Mapping[str, int]
    holds: bool
    problem: str = ""

    @property
    def well(self) -> bool:
        return self.holds and not (self.problem or self.unread or any(self.owed.values()))


class State(msgspec.Struct):
    """How a replay's last run went, or goes. Times in ms; ended 0: it has not (it works, or was
    killed). parts, done: of all rounds."""

    name: str
    began: int
    ended: int
    ok: bool
    said: str
    parts: int
    done: int
    unread: int
    rounds: int


def state_of(store: StateStore, name: str) -> State | None:
    """What the replay of that name last told of itself."""
    data = store.get(f"{folder(name)}/state.json")
    return msgspec.json.decode(data, type=State) if data else None
