"""A record that could not go on, with its original bytes and the step that refused it."""

from __future__ import annotations

import hashlib

import msgspec

__all__ = ["DeadLetter"]


class DeadLetter(msgspec.Struct, array_like=True):
    """`step` is `parse` (no sink has it) or the sink's name (that one has it not); `reason` is one
    plain sentence, never a secret. body: empty where nobody has the bytes any more: what was owed
    was written off. attempts: how often it was tried again, in vain; `reason` is the latest.
    """

    source: str
    partition: str
    sequence: int
    index: int
    enqueued_ms: int
    step: str
    reason: str
    body: bytes
    attempts: int = 0

    @property
    def key(self) -> tuple[str, str, int, int, str]:
        """Of two letters with the same key, one was written again."""
        return self.source, self.partition, self.sequence, self.index, self.step

    @property
    def id(self) -> str:
        """12 hex digits that stay the same however often it is written."""
        return hashlib.blake2b(msgspec.json.encode(self.key), digest_size=6).hexdigest()
