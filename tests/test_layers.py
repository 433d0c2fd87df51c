"""Imports go down only: pipelines → transforms → schemas; and what an event is does no I/O."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
IO = {
    "aiohttp", "asyncio", "http", "httpx", "io", "multiprocessing", "os", "pathlib", "requests",
    "secrets", "select", "shutil", "signal", "socket", "socketserver", "sqlite3", "ssl",
    "subprocess", "tempfile", "threading", "time", "urllib3",
}  # fmt: skip
FORBIDDEN = {
    "schemas": {"transforms", "pipelines", "tests", "apache_beam", "azure", "pydantic", *IO},
    "transforms": {"pipelines", "tests"},
    "pipelines": {"tests"},
}


def imported(source: str) -> dict[str, int]:
    """The modules that `source` imports, dotted, with the line; relative ones as `.`."""
    found: dict[str, int] = {}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found.update({name.name: node.lineno for name in node.names})
        elif isinstance(node, ast.ImportFrom):
            found["." * node.level + (node.module or "")] = node.lineno
    return found


@pytest.mark.parametrize("layer", FORBIDDEN)
def test_imports_go_down_only(layer: str) -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line}: {module}"
        for path in sorted((ROOT / layer).rglob("*.py"))
        for module, line in imported(path.read_text(encoding="utf-8")).items()
        if module.partition(".")[0] in FORBIDDEN[layer] or module.startswith(".")
    ]
    assert not wrong


def test_schemas_read_no_clock_and_open_no_file() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in sorted((ROOT / "schemas").rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        and (
            (isinstance(node.func, ast.Name) and node.func.id in {"open", "print", "input"})
            or (
                isinstance(node.func, ast.Attribute)
                and node.func.attr in {"now", "utcnow", "today", "open"}
            )
        )
    ]
    assert not wrong
