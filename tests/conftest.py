"""What every test may ask for, and how tests share a machine.

`make test` runs them in three processes (pytest-xdist): many wait more than they work. A file's
tests stay in one of them, so what a module starts (a server, a hub) is started once. A test that
is marked `alone`, since it measures a load, begins when no other runs, and none begins until it
has ended.
"""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("unhurried", deadline=None)  # machines are busy, and pause
settings.load_profile("unhurried")

HERE = Path(__file__).parent
_LOCKS = HERE / "conftest.py", HERE / "__init__.py"
SHARED = HERE.parent.parent / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """Real events that lie beside the repository, not in it: `samples/` and `expected/`."""
    if not SHARED.is_dir():
        pytest.skip("no ../shared beside the repository: real events are not tested")
    return SHARED


@pytest.hookimpl(wrapper=True, tryfirst=True)  # around pytest-timeout's: waiting is not working
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    if not hasattr(item.config, "workerinput"):
        return (yield)
    alone = item.get_closest_marker("alone") is not None
    with contextlib.ExitStack() as held:
        room, door = (held.enter_context(path.open()) for path in _LOCKS)
        fcntl.flock(door, fcntl.LOCK_EX)  # who waits to be alone stands in it
        fcntl.flock(room, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        fcntl.flock(door, fcntl.LOCK_UN)
        return (yield)
