"""`python -m tests.pipelines.hanging HOW TIMES FOLDER ALLOWED ARGUMENT…`: the command, whose file
sink hangs at the first record that says `hang-here`, TIMES times over all its restarts, of which
ALLOWED are; it is noticed after seconds."""

from __future__ import annotations

import re
import sys
import threading
from pathlib import Path
from typing import Any

HOW = {
    "waits": threading.Event().wait,
    "computes": lambda: re.match(r"(a+)+$", "a" * 99 + "b"),  # holds the interpreter's lock
}


def main(how: str, times: str, folder: str, allowed: str, *arguments: str) -> None:
    from pipelines import cli, watchdog
    from transforms.sinks.file import File

    encode, begin = File.encode, watchdog.Watchdog.__init__

    def hangs(self: Any, alert: Any, *origin: str) -> bytes:
        marks = Path(folder) / "hung"
        hung = len(marks.read_bytes()) if marks.exists() else 0
        if b"hang-here" in alert.raw and hung < int(times):
            marks.write_bytes(b"." * (hung + 1))
            HOW[how]()
        return encode(self, alert, *origin)

    def soon(self: Any, run: Any, seconds: float, **more: Any) -> None:
        begin(self, run, 3.0, **more)  # a shift takes a while to begin, on a busy machine

    File.encode = hangs  # type: ignore[method-assign]
    watchdog.Watchdog.__init__ = soon  # type: ignore[method-assign,assignment]
    watchdog._LOOK_SECONDS, watchdog._GRACE_SECONDS = 0.2, 1.0
    watchdog._MOST = int(allowed)
    cli.main(arguments)


if __name__ == "__main__":
    main(*sys.argv[1:])
