"""What every test may ask for, and how tests share a machine.

`make test` runs them in several processes (pytest-xdist): many wait more than they work. A file's
tests stay in one of them, so what a module starts (a server, a hub) is started once; but of the
contract suite, which waits the longest, each double's do. Those that are marked `alone`, since they
measure a load, follow by themselves.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

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


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    from xdist.scheduler import LoadScopeScheduling

    class ByFileOrDouble(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file, _, test = nodeid.partition("::")
            double = test.partition("[")[2].split("-")[0].rstrip("]")
            return f"{file} {double}" if file.endswith("/test_contract.py") else file

    return ByFileOrDouble(config, log)
