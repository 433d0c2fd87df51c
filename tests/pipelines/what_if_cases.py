"""Settings to try on history, and history, for the tests of `pipelines.what_if`."""

from __future__ import annotations

import io
import itertools
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from pipelines.settings import Settings, load
from schemas.batch import Batch, Origin, Record
from tests.fixtures import defender_alert, encoded

ORIGIN = Origin("replay/march", "0")
NOON = 1_772_625_600_000  # 2026-03-04T12:00:00Z
DAY = 86_400_000
HEC = {"url": "https://splunk.example.com:8088", "token": "env:HEC_TOKEN"}
SENTINEL = {
    "endpoint": "https://alertbeam-x1y2.westeurope-1.ingest.monitor.azure.com",
    "rule": "dcr-000a00a000a00000a000000aa000a0aa",
}
FILE = {"file": {"folder": "archive"}}
DIGESTS = [{"name": "storms", "window": {"fixed": "5m"}}]

numbers = itertools.count()


def in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where settings are written; with every secret that they name."""
    monkeypatch.chdir(tmp_path)
    for name in ("HEC_TOKEN", "ONE_PLACE", "TWO_PLACE", "XSIAM_API_KEY", "XSIAM_COLLECTOR_KEY"):
        monkeypatch.setenv(name, "a-token-for-tests-only")


def made(*sinks: dict[str, Any], **more: Any) -> Settings:
    """Settings with these sinks."""
    path = Path(f"settings-{next(numbers)}.yaml")
    hub = {"event_hubs": {"namespace": "contoso.servicebus.windows.net", "hub": "defender"}}
    path.write_text(
        json.dumps({"sources": [hub], "sinks": [*sinks], "state": "state", **more}), "utf-8"
    )
    return load(path)


def alert(number: int = 0, **changes: Any) -> bytes:
    """A different alert for each number."""
    return encoded(defender_alert(**{"SystemAlertId": f"id-{number}", **changes}))


def batch(bodies: Iterable[bytes], at: int = NOON, first: int = 0) -> Batch:
    records = [Record(n, 0, at, body) for n, body in enumerate(bodies, first)]
    return Batch(ORIGIN, first, first + len(records) - 1, None, records)


def text(tables: Iterable[Any]) -> str:
    console = Console(file=io.StringIO(), width=220)
    for each in tables:
        console.print(each)
    return console.file.getvalue()  # type: ignore[attr-defined]
