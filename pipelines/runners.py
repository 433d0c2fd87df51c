"""Which Beam runner runs the pipeline, chosen by name and said aloud.

`DirectRunner` here is Beam's in-process FnApiRunner, made by us: Beam's own switch of that name
tries Prism first, then falls back silently, and Prism loses elements (docs/adr/0003).
"""

from __future__ import annotations

from typing import Any, NamedTuple

__all__ = ["RUNNERS", "Choice", "RunnerError", "choose"]

RUNNERS = ("DirectRunner",)


class RunnerError(ValueError):
    """A runner that does not exist here."""

    exit_code = 2


class Choice(NamedTuple):
    """A runner, and why it is this one."""

    runner: Any
    says: str


def choose(name: str) -> Choice:
    """The runner of that name. Raises RunnerError."""
    if name != "DirectRunner":
        raise RunnerError(f"there is no runner {name!r} here; there is {', '.join(RUNNERS)}")
    from apache_beam.runners.portability.fn_api_runner import FnApiRunner

    return Choice(
        FnApiRunner(),
        "DirectRunner: Beam's FnApiRunner in this process, streaming in shifts "
        "(not Beam's own switch of that name, which may pick Prism)",
    )
