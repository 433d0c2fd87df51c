"""What every test may ask for."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("unhurried", deadline=None)  # machines are busy, and pause
settings.load_profile("unhurried")

SHARED = Path(__file__).parent.parent.parent / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """Real events that lie beside the repository, not in it: `samples/` and `expected/`."""
    if not SHARED.is_dir():
        pytest.skip("no ../shared beside the repository: real events are not tested")
    return SHARED
