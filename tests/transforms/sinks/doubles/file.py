"""A folder: the real thing, on a disk that can be full, hang, or refuse."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import os
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar
from unittest import mock

from tests.transforms.sinks.doubles.base import Double, Says

__all__ = ["File", "refusals"]

_NO_WIRE = "a folder is no connection: nothing is answered"


@dataclasses.dataclass(frozen=True)
class _Fails:
    """What the system says to `call`, a function of os, about files in this folder."""

    call: str
    code: int


def refusals(write: str) -> list[Says]:
    """What the system may say. write: the function that the sink writes with."""
    return [
        *(
            Says(f"{errno.errorcode[code]} of {call}", _Fails(call, code), becomes)
            for call, code in (
                ("open", errno.EMFILE),
                (write, errno.ENOSPC),
                (write, errno.EDQUOT),
                (write, errno.EIO),
                ("fsync", errno.EIO),
            )
            for becomes in ("retried", "owed")
        ),
        *(
            Says(f"{errno.errorcode[code]} of open", _Fails("open", code), "stopped")
            for code in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR)
        ),
    ]


class File(Double):
    kind = "file"
    system = "the real thing: a folder of this machine, with a disk that is made to fail"
    faults: ClassVar[Mapping[str, Any]] = {"timeout": "hang"}
    lacks: ClassVar[Mapping[str, str]] = {
        **dict.fromkeys(
            (
                "slow drip",
                "reset mid-body",
                "reset after taking",
                "half-closed",
                "Retry-After in seconds",
                "Retry-After as a date",
            ),
            _NO_WIRE,
        ),
        **dict.fromkeys(("credentials renewed", "quoted secret"), "a folder asks for none"),
        **dict.fromkeys(("partial rejection", "unnamed rejection"), "a folder takes any line"),
        "too large": "a file takes a line of any length",
    }
    table: ClassVar[Sequence[Says]] = refusals("writev")
    may_repeat = frozenset({"timeout", "nothing lost"})  # what was given up is written after all

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._trouble = contextlib.ExitStack()
        self._well = threading.Event()

    def settings(self) -> dict[str, Any]:
        return {"folder": str(self.folder)}

    def ids(self) -> list[str]:
        lines = [line for file in self.folder.glob("*.ndjson*") for line in _lines(file)]
        return [json.loads(line)["id"] for line in lines]

    def down(self) -> None:
        self.play(_Fails("fsync", errno.ENOSPC))

    def up(self) -> None:
        self._well.set()
        self._trouble.close()

    def play(self, fault: Any, times: int | None = None) -> None:
        """Another folder's disk is well."""
        hangs = fault == "hang"
        call = "fsync" if hangs else fault.call
        left = [times]
        well = getattr(os, call)
        self._well.clear()

        def ill(where: Any, *arguments: Any) -> Any:
            path = Path(f"/proc/self/fd/{where}").readlink() if isinstance(where, int) else where
            if self.folder in Path(path).parents and left[0] != 0:
                if left[0] is not None:
                    left[0] -= 1
                if not hangs:
                    raise OSError(fault.code, os.strerror(fault.code))
                self._well.wait(10)
            return well(where, *arguments)

        self._trouble.enter_context(mock.patch(f"os.{call}", ill))


def _lines(file: Path) -> list[str]:
    return file.read_text("utf-8").split("\n")[:-1]
