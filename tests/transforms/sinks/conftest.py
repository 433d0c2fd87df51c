"""Options of the contract suite: one sink by its name, and doubles that lie elsewhere.

$ pytest tests/transforms/sinks/test_contract.py --sink splunk_hec
$ pytest tests/transforms/sinks/test_contract.py --double their_package.double --sink theirs
"""

from __future__ import annotations

import pytest

from tests.transforms.sinks.doubles import DOUBLES, doubles_of


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--sink", help="only this sink, by its kind or its double's name")
    parser.addoption("--double", action="append", help="a module with a double more")


def pytest_configure(config: pytest.Config) -> None:
    for module in config.getoption("--double", None) or ():
        DOUBLES.update(doubles_of(module))


def chosen(config: pytest.Config) -> list[str]:
    """The names of the doubles that the suite runs against."""
    only = config.getoption("--sink", None)
    found = [name for name, double in DOUBLES.items() if only in (None, name, double.kind)]
    if not found:
        raise pytest.UsageError(f"there is no double {only}; there are: {', '.join(DOUBLES)}")
    return sorted(found)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Without what holds for none of the chosen sinks, which pytest would call skipped."""
    for_none = [item for item in items if item.name.endswith("NOTSET]")]
    config.hook.pytest_deselected(items=for_none)
    items[:] = [item for item in items if item not in for_none]
