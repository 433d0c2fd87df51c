"""How the C library keeps memory, in a process that runs for months: no more than it needs.

glibc learns from what it sees (mallopt(3)): each large buffer that is freed raises the size from
which it asks the system for one, up to 32 MiB, and what it keeps on top to twice that; and threads
have arenas of their own, eight a core. That suits short programs. A stream that holds the same at
all times grows by it, for hours: the free memory lies between what is in use.
"""

from __future__ import annotations

import ctypes
from typing import Any

__all__ = ["give_back", "stay_small"]

_MMAP_THRESHOLD, _ARENA_MAX = -3, -8  # malloc.h
_LARGE = 128 * 1024  # as glibc has it at first; once it is said, it stays
_ARENAS = 2  # Python's own lock lets few threads ask at once


def stay_small() -> None:
    """To be said before there are threads. Nothing happens where the C library is another."""
    if set_option := _of_glibc("mallopt"):
        set_option(_MMAP_THRESHOLD, _LARGE)
        set_option(_ARENA_MAX, _ARENAS)


def give_back() -> None:
    """What is free, to the system: malloc_trim(3). Some ms, during which other threads work."""
    if trim := _of_glibc("malloc_trim"):
        trim(0)


def _of_glibc(name: str) -> Any:
    return getattr(ctypes.CDLL(None), name, None)
