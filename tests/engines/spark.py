"""A real Spark for tests: `local[2]`, inside Beam's job server, which `.ci/receivers spark` puts in
place.

Source: Apache Beam, "Using the Apache Spark Runner"; Apache Spark 3.5, "Spark Configuration".
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from pipelines.cluster.job_server import JobServer, jar, serving
from tests.transforms.sinks.daemons import missing

__all__ = ["local"]


@contextlib.contextmanager
def local(folder: Path, cores: int = 2) -> Iterator[JobServer]:
    """A job server with Spark inside. Its user interface is off: nothing listens but the jobs."""
    missing("spark")
    conf = {"spark.ui.enabled": "false", "spark.local.dir": str(folder)}
    with serving(
        "spark", f"local[{cores}]", jar("spark", None, print), folder, print, conf
    ) as server:
        yield server
