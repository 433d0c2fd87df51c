"""Tests on real engines: Flink, Spark. `.ci/receivers flink spark` puts them in place; where they
are missing these tests are skipped, but not in CI.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.engines.flink import Standalone


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standalone]:
    """Two TaskManagers of two slots, which a module's tests share."""
    with Standalone(tmp_path_factory.mktemp("flink") / "cluster") as running:
        yield running
