"""The commands on the pages about clusters are such as `alertbeam` understands."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from pipelines.cli import app

DOCS = Path(__file__).parent.parent.parent / "docs"
SHOWN = [
    (page, shown)
    for page in ("run-on-flink.md", "run-on-spark.md", "deploy.md")
    for shown in re.findall(
        r"(?m)^\$ alertbeam (.+?)(?: *#.*)?$", (DOCS / page).read_text(encoding="utf-8")
    )
]


@pytest.mark.parametrize(("page", "shown"), SHOWN)
def test_a_pages_command_is_understood(page: str, shown: str) -> None:
    command: Any = get_command(app)
    arguments = shlex.split(shown)
    while hasattr(command, "commands"):
        command, *arguments = command.commands[arguments[0]], *arguments[1:]
    command.make_context(shown, arguments)  # raises for what it does not know


def test_the_pages_show_how_a_job_is_started_stopped_and_resumed() -> None:
    shown = {" ".join(shown.split()[:2]) for page, shown in SHOWN if page == "run-on-flink.md"}
    assert {"run --runner", "worker-pool --health", "flink stop", "flink resume"} <= shown
