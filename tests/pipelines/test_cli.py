"""What the command prints, and how it ends."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines import cli
from transforms.secrets import SecretError
from transforms.sinks.base import sinks

GOOD = """\
sources: [{event_hubs: {namespace: a.b, hub: h}}]
digests: [{name: storms, window: {fixed: 5m}}]
sinks:
  - file: {folder: out}
    where: {severity: {at_least: high}, any: [{kind: "*"}]}
  - {file: {folder: digests}, name: counts, send: digests}
state: state
"""


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "240")


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Exit code, standard output, standard error."""
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    out, err = capsys.readouterr()
    code = ended.value.code
    assert isinstance(code, int)
    return code, re.sub(r"\x1b\[[\d;]*m", "", out), err


def test_good_settings_are_summed_up(capsys: pytest.CaptureFixture[str]) -> None:
    Path("settings.yaml").write_text(GOOD, encoding="utf-8")
    code, out, err = run(capsys, "validate", "settings.yaml")
    assert (code, err) == (0, "")
    lines = [" ".join(line.split()) for line in out.splitlines() if line.strip()]
    assert lines[0] == "settings.yaml: good"
    assert lines[1].startswith("From a.b/h/$Default, state in ")
    assert lines[-2:] == [
        f"file file {Path('out').absolute()} alerts, severity: {{at_least: high}}, "
        "any: [{kind: [*]}]",
        f"counts file {Path('digests').absolute()} digests: storms",
    ]


def test_mistakes_are_listed_without_a_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    Path("settings.yaml").write_text("surces: 1\n", encoding="utf-8")
    code, out, err = run(capsys, "validate", "settings.yaml")
    assert (code, out) == (2, "")
    assert err.splitlines() == [
        "settings.yaml:1:1: sinks: this key is required",
        "settings.yaml:1:1: state: this key is required",
        'settings.yaml:1:1: surces: unknown key; did you mean "sources"?',
    ]


def test_a_missing_file_is_one_mistake(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, "validate", "none.yaml")
    assert code == 2
    assert err == "none.yaml:1:1: cannot be read: No such file or directory\n"


def test_the_schema_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "schema")
    assert code == 0
    assert json.loads(out)["required"] == ["sources", "sinks", "state"]


@pytest.mark.parametrize("kind", sinks())
def test_every_sink_is_shown_with_all_its_settings(
    kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = run(capsys, "sinks", "show", kind)
    assert code == 0
    assert re.findall(r"^[a-z_]+:", out, re.MULTILINE) == [f"{kind}:"]
    settings = sinks()[kind].Settings.model_fields
    shown = re.findall(r"^  ([a-z_]+) ", out, re.MULTILINE)
    assert sorted(shown) == sorted(settings)
    needed = [name for name, field in settings.items() if field.is_required()]
    assert shown[: len(needed)] == needed
    assert shown.index("patience") >= len(shown) / 3, "what all share comes last"


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], []])
def test_help_lists_the_commands_in_groups(
    capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    _, out, err = run(capsys, *arguments)
    assert re.search(r"─ Settings ─.*│ validate .*│ schema .*│ sinks ", out + err, re.DOTALL)


def test_a_fault_of_ours_shows_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(path: object) -> None:
        raise KeyError("ours")

    monkeypatch.setattr("pipelines.settings.load", broken)
    with pytest.raises(KeyError, match="ours"):
        cli.main(["validate", "settings.yaml"])


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (PermissionError(13, "Permission denied", "/x"), "/x: Permission denied\n"),
        (OSError(98, "Address already in use"), "Address already in use\n"),
        (SecretError("env:X: not set"), "env:X: not set\n"),
    ],
)
def test_what_a_user_can_put_right_is_one_line(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: Exception,
    message: str,
) -> None:
    def refused(path: object) -> None:
        raise error

    monkeypatch.setattr("pipelines.settings.load", refused)
    assert run(capsys, "validate", "settings.yaml") == (1, "", message)


def test_help_waits_for_nothing_slow() -> None:
    slow = {"apache_beam", "azure", "pydantic", "ruamel"}
    script = "import sys, pipelines.cli; print(*{name.partition('.')[0] for name in sys.modules})"
    root = Path(__file__).parent.parent.parent
    loaded = subprocess.run(
        [sys.executable, "-c", script], cwd=root, capture_output=True, text=True, check=True
    ).stdout.split()
    assert not slow & {*loaded}
