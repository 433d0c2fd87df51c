"""Replays history: files of any export, through the same graph, into the same sinks and accounts.

A replay is a row of rounds; each plans what is new since the last one, and goes through it in
shifts, as the live stream does. Where it was killed, the accounts say, and the next run of the same
command goes on there. What sinks come to be owed is read again, and paid, at the end.

From the outside in: `asked` (what is to be replayed) and `state` (how it went), over `replay` (one
run of it), `cluster` (a round as jobs elsewhere) and `accounts` (how far its sinks are). A
`rehearsal` reads the same, and sends nothing.
"""

from pipelines.replay.asked import Asked, ReplayError, anew, default_name, with_sinks
from pipelines.replay.rehearsal import Rehearsal
from pipelines.replay.replay import Replay
from pipelines.replay.state import Result, State, state_of

__all__ = [
    "Asked",
    "Rehearsal",
    "Replay",
    "ReplayError",
    "Result",
    "State",
    "anew",
    "default_name",
    "state_of",
    "with_sinks",
]
