"""Sinks of other packages: real distributions, tiny ones."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from transforms.sinks.base import SinkError, sinks

ROOT = Path(__file__).parents[3]
OFFERS = "the package theirs offers a sink, theirs:Nothing, that"

SINK = '''
from collections.abc import Sequence
from pydantic import Field
from schemas.alert import Alert
from transforms.secrets import SecretRef
from transforms.sinks.base import Accepted, Connection, Limits, Sink, SinkSettings, Verdict

class NothingSettings(SinkSettings):
    """A bin that somebody else's package brings."""
    lid: str = Field(description="What is on it.")
    key: SecretRef | None = Field(None, description="What opens it.")

class Bin(Connection):
    def send(self, payloads: Sequence[bytes], timeout: float) -> Verdict:
        return Accepted()

class Nothing(Sink[NothingSettings]):
    """One bin."""
    kind = "nothing"
    Settings = NothingSettings
    limits = Limits(1_000)
    def encode(self, alert: Alert, source: str, partition: str) -> bytes:
        return alert.event_id.encode()
    def connect(self) -> Connection:
        return Bin()
    def probe(self, timeout: float) -> None:
        pass
'''

SETTINGS = """\
sources: [{event_hubs: {namespace: a.b, hub: h}}]
sinks:
  - nothing: {lid: closed, key: env:BIN_KEY}
    name: rubbish
state: state
"""


def install(site: Path, name: str, code: str, *points: str) -> None:
    """What `pip install` would leave of a package with one module and these entry points."""
    module = name.replace("-", "_")
    (site / f"{module}.py").write_text(code)
    info = site / f"{module}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    lines = [f"{point.rpartition(':')[2]} = {point}" for point in points]
    (info / "entry_points.txt").write_text("\n".join(["[alertbeam.sinks]", *lines, ""]))


@pytest.fixture
def site(tmp_path: Path) -> Path:
    made = tmp_path / "site"
    made.mkdir()
    return made


def run(site: Path, *command: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(site), str(ROOT)])
    environment = {**os.environ, "PYTHONPATH": path, "BIN_KEY": "hunter2", "COLUMNS": "160"}
    return subprocess.run(
        [sys.executable, *command],
        cwd=site.parent,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )


def alertbeam(site: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run(site, "-m", "pipelines.cli", *arguments)


def test_an_installed_sink_is_listed_beside_our_own(site: Path) -> None:
    install(site, "bin-of-theirs", SINK, "bin_of_theirs:Nothing")
    shown = alertbeam(site, "sinks")
    assert shown.returncode == 0, shown.stderr
    assert "nothing" in shown.stdout
    assert "A bin that somebody else's package brings." in shown.stdout
    assert "splunk_hec" in shown.stdout


def test_settings_name_it_like_any_other_and_their_mistakes_are_told(site: Path) -> None:
    install(site, "bin-of-theirs", SINK, "bin_of_theirs:Nothing")
    file = site.parent / "settings.yaml"
    file.write_text(SETTINGS)
    shown = alertbeam(site, "validate", "settings.yaml")
    assert shown.returncode == 0, shown.stderr
    assert "rubbish" in shown.stdout
    file.write_text(SETTINGS.replace("lid:", "lit:").replace("BIN_KEY", "NO_SUCH_KEY"))
    shown = alertbeam(site, "validate", "settings.yaml")
    assert shown.returncode == 2
    assert 'unknown key; did you mean "lid"?' in shown.stderr
    assert "NO_SUCH_KEY is not set" in shown.stderr


def test_it_travels_to_a_worker_as_our_own_do(site: Path) -> None:
    install(site, "bin-of-theirs", SINK, "bin_of_theirs:Nothing")
    (site.parent / "settings.yaml").write_text(SETTINGS)
    script = (
        "import pickle; from pipelines.settings import load\n"
        "sink = load('settings.yaml').sinks[0].build()\n"
        "data = pickle.dumps(sink); copy = pickle.loads(data)\n"
        "print(copy, copy.settings.lid, b'hunter2' in data)"
    )
    shown = run(site, "-c", script)
    assert shown.stdout == "<nothing rubbish> closed False\n", shown.stderr


@pytest.mark.parametrize(
    ("code", "points", "complaint"),
    [
        (
            SINK.replace('kind = "nothing"', 'kind = "file"'),
            ["theirs:Nothing"],
            "two packages have a sink file: alertbeam and theirs; "
            "uninstall one of them, or give one another kind",
        ),
        (
            SINK + "\nclass Again(Nothing): pass\n",
            ["theirs:Nothing", "theirs:Again"],
            "two packages have a sink nothing: theirs and theirs; "
            "uninstall one of them, or give one another kind",
        ),
        (
            "import a_module_that\\\n    is not here",
            ["theirs:Nothing"],
            f"{OFFERS} cannot be imported: SyntaxError: invalid syntax (theirs.py, line 2)",
        ),
        (
            "import a_module_that_is_not_here",
            ["theirs:Nothing"],
            f"{OFFERS} cannot be imported: "
            "ModuleNotFoundError: No module named 'a_module_that_is_not_here'",
        ),
        (
            "raise RuntimeError('first\\nsecond')",
            ["theirs:Nothing"],
            f"{OFFERS} cannot be imported: RuntimeError: first second",
        ),
        (
            "Nothing = print",
            ["theirs:Nothing"],
            f"{OFFERS} is no complete subclass of transforms.sinks.base.Sink",
        ),
        (
            SINK.replace("def probe", "def prove"),
            ["theirs:Nothing"],
            f"{OFFERS} is no complete subclass of transforms.sinks.base.Sink",
        ),
        (
            SINK.replace('    kind = "nothing"\n', ""),
            ["theirs:Nothing"],
            f"{OFFERS} has no `kind`: a name of lower-case letters, digits and _",
        ),
        (
            SINK.replace("    Settings = NothingSettings\n", ""),
            ["theirs:Nothing"],
            f"{OFFERS} has no `Settings`: a subclass of SinkSettings",
        ),
    ],
    ids=[
        "a kind of ours", "a kind twice", "no Python", "it needs what is not there", "it fails",
        "a function", "a method is missing", "no kind", "no settings",
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_told_in_a_line_that_names_its_package(
    site: Path, monkeypatch: pytest.MonkeyPatch, code: str, points: list[str], complaint: str
) -> None:
    install(site, "theirs", code, *points)
    monkeypatch.syspath_prepend(site)
    try:
        with pytest.raises(SinkError) as told:
            sinks.__wrapped__()  # as if it were asked for the first time
    finally:
        sys.modules.pop("theirs", None)
    assert str(told.value) == complaint


def test_two_packages_with_one_kind_are_both_named(site: Path) -> None:
    install(site, "bin-of-theirs", SINK, "bin_of_theirs:Nothing")
    install(site, "bin-of-others", SINK, "bin_of_others:Nothing")
    shown = alertbeam(site, "sinks")
    assert (shown.returncode, shown.stdout) == (1, "")
    (line,) = shown.stderr.splitlines()
    assert line.startswith("two packages have a sink nothing: ")
    assert {"bin-of-theirs", "bin-of-others"} <= set(line.replace(";", "").split())


def test_help_does_not_need_them(site: Path) -> None:
    install(site, "theirs", "raise RuntimeError", "theirs:Nothing")
    assert alertbeam(site, "--help").returncode == 0
