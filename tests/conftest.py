"""What every test may ask for, and how tests share a machine.

`make test` runs them in three processes (pytest-xdist): many wait more than they work. A file's
tests stay in one of them, so what a module starts (a server, a hub) is started once. Those that are
marked `alone`, since they measure a load, follow by themselves.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("unhurried", deadline=None)  # machines are busy, and pause
settings.load_profile("unhurried")

HERE = Path(__file__).parent
SHARED = HERE.parent.parent / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """Real events that lie beside the repository, not in it: `samples/` and `expected/`."""
    if not SHARED.is_dir():
        pytest.skip("no ../shared beside the repository: real events are not tested")
    return SHARED
