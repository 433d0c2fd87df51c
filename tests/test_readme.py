"""What the README shows is true: its settings are good, its commands exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pipelines.cli import app
from pipelines.settings import load

README = Path(__file__).parent.parent / "README.md"


def _block(language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert found, f"no {language} in the README"
    return found[1]


def test_the_settings_in_the_readme_are_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(
        "EVENT_HUB_CONNECTION",
        "Endpoint=sb://127.0.0.1;SharedAccessKeyName=k;SharedAccessKey=s;EntityPath=defender",
    )
    monkeypatch.setenv("SPLUNK_TOKEN", "t")
    file = tmp_path / "settings.yaml"
    file.write_text(_block("yaml"))
    settings = load(file)
    assert [sink.name for sink in settings.sinks] == [
        "splunk_hec", "arcsight", "file", "digest-files",
    ]  # fmt: skip


def test_every_command_in_the_readme_exists() -> None:
    known = {
        command.name or command.callback.__name__.replace("_", "-")  # type: ignore[union-attr]
        for command in app.registered_commands
    }
    known |= {str(group.name) for group in app.registered_groups}
    shown = set(re.findall(r"alertbeam ([a-z-]+)\b", README.read_text(encoding="utf-8")))
    assert shown & known >= {"hub", "publish", "validate", "run", "status", "redeliver"}
    for line in re.findall(
        r"^\$ alertbeam ([\w-]+)", README.read_text(encoding="utf-8"), re.MULTILINE
    ):
        assert line in known, f"the README shows `alertbeam {line}`"


def test_every_target_in_the_readme_exists() -> None:
    makefile = (README.parent / "Makefile").read_text()
    for target in re.findall(r"^\$ make (\w+)", README.read_text(encoding="utf-8"), re.MULTILINE):
        assert re.search(rf"^{target}:.*## ", makefile, re.MULTILINE), target
