"""The account of every record: in a terminal, as JSON, as a page; and recomputed."""

from __future__ import annotations

from pathlib import Path

import msgspec

from pipelines.report.accounts import (
    SinkAccount,
    Standing,
    accounts_of,
    is_running,
    read_status,
    standings,
    works,
)
from pipelines.report.model import Report, report
from pipelines.report.tables import (
    OWED,
    counts_line,
    dead_table,
    drift_table,
    owed_table,
    partitions_table,
    sinks_table,
)
from pipelines.settings import Settings
from transforms.state_store import StateStore

__all__ = [
    "OWED",
    "Report",
    "SinkAccount",
    "Standing",
    "accounts_of",
    "as_json",
    "counts_line",
    "dead_table",
    "drift_table",
    "is_running",
    "keep",
    "owed_table",
    "partitions_table",
    "read_status",
    "report",
    "sinks_table",
    "standings",
    "works",
    "write_reports",
]

_FOLDER = "reports"
_MOST_KEPT = 30


def as_json(made: Report) -> bytes:
    """Indented, with a line's end."""
    return msgspec.json.format(msgspec.json.encode(made), indent=2) + b"\n"


def write_reports(settings: Settings, store: StateStore) -> Path:
    """Make the report of now, and keep it; the page's path."""
    return keep(store, report(settings, store))


def keep(store: StateStore, made: Report) -> Path:
    """Write a report under `reports/` in the state folder, as JSON and as a page, and forget the
    oldest of many; the page's path."""
    from pipelines.report.page import page

    name = f"{_FOLDER}/{made.made:%Y%m%dT%H%M%SZ}"
    store.put(f"{name}.json", as_json(made))
    store.put(f"{name}.html", page(made).encode())
    names = sorted({path.rpartition(".")[0] for path in store.list(_FOLDER)})
    for old in names[:-_MOST_KEPT]:
        for suffix in ("json", "html"):
            store.delete(f"{old}.{suffix}")
    return store.folder / f"{name}.html"
