"""What is to be replayed, into which sinks, and what that replay is called."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from typing import Literal, NamedTuple

from pipelines.replay.state import state_of
from pipelines.settings import Settings
from transforms.read.plan import folder
from transforms.route import Where
from transforms.state_store import StateStore

__all__ = ["Asked", "ReplayError", "anew", "default_name", "with_sinks"]

_LEAST_PATIENCE = 60.0  # seconds: history can wait, and so do sinks that are slow


class ReplayError(Exception):
    """The replay cannot begin; the message says why, and what to do."""

    exit_code = 2


class Asked(NamedTuple):
    """What is to be replayed.

    where, sinks, again: which alerts, and to whom; also those that a sink has. rate: records a
    second at most. patience: seconds that sinks may take nothing at all. said: the times in the
    user's words, which mean the same when the command is given again.
    """

    paths: tuple[str, ...]
    start_ms: int | None = None
    stop_ms: int | None = None
    by: Literal["event", "enqueued"] = "event"
    where: Where | None = None
    sinks: tuple[str, ...] = ()
    again: bool = False
    template: str = ""
    rate: float = 0.0
    workers: int = 1
    patience: float = 600.0
    said: tuple[str, str] = ("", "")


def default_name(asked: Asked) -> str:
    """A name that the same command gives again."""
    said = repr((asked.paths, asked.said, asked.by, asked.where, asked.sinks))
    tail = re.sub(r"[^A-Za-z0-9]+", "-", asked.paths[0].rstrip("/").rpartition("/")[2]).strip("-")
    return f"{tail[:32] or 'history'}-{hashlib.blake2b(said.encode(), digest_size=4).hexdigest()}"


def anew(store: StateStore, name: str) -> str:
    """What a replay that begins anew is called: the name with a number behind it; where such a
    one is not through yet, that one."""
    number, last = 2, name
    while store.get(f"{folder(last)}/plan.json") is not None:
        state = state_of(store, last)
        if number > 2 and (state is None or not state.ended or state.done < state.parts):
            return last
        last, number = f"{name}-{number}", number + 1
    return last


def with_sinks(
    settings: Settings, names: Sequence[str], patience: float, digests: bool = False
) -> Settings:
    """The settings with these sinks only (none named: all that take alerts), which wait longer for
    a system than in the live stream, where others wait for them. Raises ReplayError.

    digests: keep them, and the sinks that take them.
    """
    takers = {entry.name: entry for entry in settings.sinks if entry.send == "alerts"}
    if unknown := [name for name in names if name not in takers]:
        raise ReplayError(
            f"there is no sink {unknown[0]!r} that takes alerts; there are: {', '.join(takers)}"
        )
    if not takers:
        raise ReplayError("the settings have no sink that takes alerts")
    chosen = [takers[name] for name in (names or takers)]
    patient = []
    for entry in chosen:
        longer = max(entry.settings.patience, min(_LEAST_PATIENCE, patience))
        own = entry.settings.model_copy(update={"patience": longer})
        patient.append(entry.model_copy(update={entry.kind: own}))
    if digests:
        others = (entry for entry in settings.sinks if entry.send == "digests")
        return settings.model_copy(update={"sinks": (*patient, *others)})
    return settings.model_copy(update={"sinks": tuple(patient), "digests": ()})
