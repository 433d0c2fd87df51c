"""A record that could not go on, with its original bytes and the step that refused it."""

from __future__ import annotations

import msgspec

__all__ = ["DeadLetter"]


class DeadLetter(msgspec.Struct, array_like=True):
    """`step` is `parse` or the sink's name; `reason` is one plain sentence, never a secret."""

    source: str
    partition: str
    sequence: int
    index: int
    enqueued_ms: int
    step: str
    reason: str
    body: bytes
