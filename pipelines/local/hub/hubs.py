"""An event hub: its partitions on disk, and which of them an event goes to."""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable
from pathlib import Path

from pipelines.local.hub.log import PartitionLog

__all__ = ["Hub"]


class Hub:
    """A hub in its own folder below `parent`, made if it is not there. No partition is open yet.

    Raises:
        ValueError: The name is not one that Event Hubs allows.
    """

    def __init__(
        self,
        parent: Path,
        name: str,
        open_log: Callable[[Path], PartitionLog],
        clock: Callable[[], int],
    ) -> None:
        if not re.fullmatch(r"[A-Za-z0-9](?:[\w.-]{0,254}[A-Za-z0-9])?", name, re.ASCII):
            raise ValueError(
                f"{name!r} cannot name a hub: letters, digits, '.', '-' and '_', at most 256, "
                "the first and last a letter or digit"
            )
        self.name = name
        self.partitions: list[PartitionLog] = []
        self._folder = folder = parent / name
        self._open_log = open_log
        self._turn = 0
        folder.mkdir(mode=0o700, exist_ok=True)
        stamp = folder / "created"
        if not stamp.exists():
            stamp.touch(mode=0o600)
            stamp.write_text(str(clock()))
        self.created_ms = int(stamp.read_text() or 0)

    def open(self, total: int) -> None:
        """Open `total` partitions, at least one, and those found on disk beyond them."""
        found = [int(path.name) for path in self._folder.iterdir() if path.name.isdecimal()]
        for number in range(len(self.partitions), max(total, 1, *(n + 1 for n in found))):
            self.partitions.append(self._open_log(self._folder / str(number)))

    def choose(self, key: str | None) -> PartitionLog:
        """The partition of a key (stable while none is added), or the next one in turn."""
        if key is not None:
            return self.partitions[zlib.crc32(key.encode()) % len(self.partitions)]
        self._turn += 1
        return self.partitions[(self._turn - 1) % len(self.partitions)]

    def get(self, partition: str) -> PartitionLog | None:
        known = partition.isdecimal() and int(partition) < len(self.partitions)
        return self.partitions[int(partition)] if known else None
