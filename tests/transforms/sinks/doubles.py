"""For every kind of sink something to send to: what the contract suite needs to know of it.

A new sink adds its double here; the suite says so when there is none.
"""

from __future__ import annotations

import abc
import contextlib
import errno
import json
import os
import time
from pathlib import Path
from typing import Any
from unittest import mock

from pipelines.local.receivers import HecReceiver, SyslogReceiver
from transforms.sinks.base import Sink, sinks

SECRET = "c0ffee-secret-that-nobody-may-see"


class Double(abc.ABC):
    """A system that is up, down, or up again, and tells which alerts it has."""

    kind: str
    secret = False  # whether its sink is given SECRET, as env:SECRET

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def sink(self, name: str = "siem", **options: Any) -> Sink[Any]:
        cls = sinks()[self.kind]
        given = {"patience": 0.4, "timeout": 0.3, **self.settings(), **options}
        return cls(name, cls.Settings(**given))

    @abc.abstractmethod
    def settings(self) -> dict[str, Any]:
        """What the sink must be told to find it."""

    @abc.abstractmethod
    def ids(self) -> list[str]:
        """The ids of the alerts that it holds, repeats included."""

    @abc.abstractmethod
    def down(self) -> None:
        """Fail, until it is up: also what is open."""

    @abc.abstractmethod
    def up(self) -> None: ...

    def stop(self) -> None:
        self.up()


class Hec(Double):
    kind = "splunk_hec"
    secret = True

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.receiver = HecReceiver(token=SECRET, strict=True).start()

    def settings(self) -> dict[str, Any]:
        return {"url": self.receiver.url, "token": "env:SECRET"}

    def ids(self) -> list[str]:
        return [event["fields"]["event_id"] for event in self.receiver.events()]

    def down(self) -> None:
        _refuse(self.receiver)

    def up(self) -> None:
        self.receiver.accept()

    def stop(self) -> None:
        self.receiver.stop()


class Syslog(Double):
    kind = "syslog"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.receiver = SyslogReceiver().start()

    def settings(self) -> dict[str, Any]:
        return {"address": self.receiver.address}

    def ids(self) -> list[str]:
        received = self.receiver.received
        found = self.receiver.ids()
        assert len(found) >= received, "a message without an id: a forged one"
        return found

    def down(self) -> None:
        _refuse(self.receiver)

    def up(self) -> None:
        self.receiver.accept()

    def stop(self) -> None:
        self.receiver.stop()


class File(Double):
    kind = "file"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._trouble = contextlib.ExitStack()

    def settings(self) -> dict[str, Any]:
        return {"folder": str(self.folder)}

    def ids(self) -> list[str]:
        lines = [line for file in self.folder.glob("*.ndjson*") for line in _lines(file)]
        return [json.loads(line)["id"] for line in lines]

    def down(self) -> None:
        """Its disk is full; another one's is not."""
        well = os.fsync

        def fsync(fd: int) -> None:
            if self.folder in Path(f"/proc/self/fd/{fd}").readlink().parents:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            well(fd)

        self._trouble.enter_context(mock.patch("os.fsync", fsync))

    def up(self) -> None:
        self._trouble.close()


def _refuse(receiver: HecReceiver | SyslogReceiver) -> None:
    receiver.refuse()
    until = time.monotonic() + 2
    while receiver._open and time.monotonic() < until:
        time.sleep(0.001)  # a connection that still closes would still take something


def _lines(file: Path) -> list[str]:
    return file.read_text("utf-8").split("\n")[:-1]


DOUBLES: dict[str, type[Double]] = {double.kind: double for double in (Hec, Syslog, File)}
