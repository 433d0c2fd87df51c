"""What docs/write-a-sink.md shows works: it is installed as it stands, and holds the contract."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

try:
    import tomllib
except ImportError:  # Python 3.10; pytest needs it there too
    import tomli as tomllib

from tests.transforms.sinks.test_discovery import install

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "write-a-sink.md"


def files() -> dict[str, str]:
    """The page's blocks that are introduced as a file, by its name."""
    found = re.findall(r"^`(\S+)`:\n\n```\w+\n(.*?)^```$", PAGE.read_text("utf-8"), re.M | re.S)
    return dict(found)


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """The example, as `pip install` would leave it, and its double beside it."""
    shown = files()
    project = tomllib.loads(shown["pyproject.toml"])
    (module,) = project["tool"]["setuptools"]["py-modules"]
    points: Mapping[str, str] = project["project"]["entry-points"]["alertbeam.sinks"]
    made = tmp_path / "site"
    made.mkdir()
    install(made, module, shown[f"{module}.py"], *points.values())
    (made / "linehouse_double.py").write_text(shown["linehouse_double.py"], "utf-8")
    return made


def run(site: Path, *command: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(site), str(ROOT)]),
        "LINEHOUSE_TOKEN": "t",
        "EVENT_HUB_CONNECTION": "Endpoint=sb://a.b;SharedAccessKeyName=k;SharedAccessKey=s",
    }
    return subprocess.run(
        [sys.executable, "-m", *command],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=110,
    )


def contract(site: Path, *options: str) -> subprocess.CompletedProcess[str]:
    (shown,) = re.findall(r"^\$ pytest (.*--double.*)$", PAGE.read_text("utf-8"), re.M)
    return run(site, "pytest", "-p", "no:cacheprovider", *shown.split(), *options)


def test_the_example_is_listed_and_its_settings_are_good(site: Path) -> None:
    listed = run(site, "pipelines.cli", "sinks")
    assert "linehouse" in listed.stdout, listed.stderr
    (site.parent / "settings.yaml").write_text(files()["settings.yaml"], "utf-8")
    validated = run(site, "pipelines.cli", "validate", "settings.yaml", cwd=site.parent)
    assert validated.returncode == 0, validated.stderr


def test_the_example_holds_the_contract(site: Path) -> None:
    done = contract(site)
    assert done.returncode == 0, done.stdout[-4000:]
    assert "skipped" not in done.stdout


def test_a_sink_that_gets_it_wrong_does_not_hold_it(site: Path) -> None:
    module = site / "linehouse.py"
    code = module.read_text("utf-8")
    for right, wrong in (("taken=False", "taken=True"), ('.replace(self._token, "***")', "")):
        assert right in code
        code = code.replace(right, wrong)
    module.write_text(code, "utf-8")
    done = contract(site, "-k", "only_the_refused_record_is_dead or quotes_is_not_repeated")
    failed = re.findall(r"^FAILED .*::(\w+)\[([^]]*)\]", done.stdout, re.M)
    assert failed == [
        ("test_only_the_refused_record_is_dead", "linehouse-partial rejection"),
        ("test_a_secret_that_the_system_quotes_is_not_repeated", "linehouse"),
    ], done.stdout[-4000:]


def test_the_page_names_every_verdict_and_every_file_that_it_speaks_of() -> None:
    from transforms.sinks.base import Verdict

    page = PAGE.read_text("utf-8")
    named = set(re.findall(r"^\|[^|]*\| `(\w+)`", page, re.M))
    assert named == {verdict.__name__ for verdict in Verdict.__args__}
    for path in re.findall(r"`((?:tests|transforms|docs)/[\w/.]+)`", page):
        assert (ROOT / path).exists(), path
