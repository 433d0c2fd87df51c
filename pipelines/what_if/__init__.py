"""What a replay would do, and what other settings would change: `--dry-run` and `--compare`.

History goes through the very functions that a run uses (parse, drop repeats, enrich, route,
encode) in a plain loop: nothing is sent, and nothing is written to the state store. What is kept
are counts and a few examples, however much history there is, and the keys that a run keeps too.

From the outside in: `dry_run` (one set of settings) and `compare` (two, a `pair` of sinks at a
time), over `way` (what happens to a record before it would be sent), `ingest` (what vendors would
charge for) and `counts`. What differs is told by `fields` (of what is sent), `settings` and
`differences`. The result is `found`, and shown by `tables` and `page`.
"""

from pipelines.what_if.compare import compare
from pipelines.what_if.dry_run import dry_run
from pipelines.what_if.found import (
    Comparison,
    DryRun,
    Example,
    Field,
    Flow,
    Group,
    Ingest,
    Load,
    NotRead,
    SinkChange,
    as_json,
)
from pipelines.what_if.page import page
from pipelines.what_if.tables import comparison_tables, dry_run_tables

__all__ = [
    "Comparison",
    "DryRun",
    "Example",
    "Field",
    "Flow",
    "Group",
    "Ingest",
    "Load",
    "NotRead",
    "SinkChange",
    "as_json",
    "compare",
    "comparison_tables",
    "dry_run",
    "dry_run_tables",
    "page",
]
