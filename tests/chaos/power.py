"""A power failure: what was done to names in a folder, and not fsynced, is undone.

The model is POSIX's, not one file system's: a rename, an unlink, a new folder lasts once its folder
was fsynced after it; of what was not, each folder keeps some first part, in order. A file that was
not fsynced itself has lost its end, or all of it, even where its name lasted.
"""

from __future__ import annotations

import json
import random
import shutil
from collections import defaultdict
from pathlib import Path
from typing import Any

__all__ = ["fail"]


def fail(journal: Path, rng: random.Random, everything: bool = False) -> list[str]:
    """Undo what the victim that wrote the journal had not fsynced; what that was, a line each.

    everything: nothing lasts that need not. Otherwise chance says how much does.
    """
    entries = [json.loads(line) for line in (journal / "journal").read_bytes().splitlines()]
    synced: dict[str, int] = defaultdict(int)
    pending: dict[str, list[dict[str, Any]]] = defaultdict(list)
    done = [entry for entry in entries if entry["op"] != "fsync" and _happened(entry)]
    for entry in entries:
        if entry["op"] == "fsync":
            synced[entry["folder"]] = max(synced[entry["folder"]], entry["upto"])
    for entry in done:
        if entry["n"] > synced[entry["folder"]]:
            pending[entry["folder"]].append(entry)
    undone = []
    for _, found in sorted(pending.items()):
        undone += found[0 if everything else rng.randint(0, len(found)) :]
    undone.sort(key=lambda entry: -entry["n"])
    for entry in undone:
        _undo(entry)
    lost = {entry["n"] for entry in undone}
    said = [f"{entry['op']} {entry['path']}" for entry in undone]
    last = {entry["path"]: entry for entry in done if entry["n"] not in lost}
    for path, entry in last.items():
        if entry["op"] == "rename" and not entry["synced"] and (file := Path(path)).is_file():
            size = file.stat().st_size
            if everything or rng.random() < 0.5:
                kept = 0 if everything else rng.randint(0, size)
                _cut(file, kept)
                said.append(f"{size - kept} bytes of {path}")
    shutil.rmtree(journal)
    return said


def _happened(entry: dict[str, Any]) -> bool:
    """An entry is written before what it says is done; the end may have come between."""
    path = Path(entry["path"])
    if entry["op"] == "rename":
        return not Path(entry["source"]).exists()
    return entry["op"] == "mkdir" or entry["kept"] is None or not path.exists()


def _undo(entry: dict[str, Any]) -> None:
    path = Path(entry["path"])
    if entry["op"] == "mkdir":
        shutil.rmtree(path, ignore_errors=True)
    elif not path.parent.is_dir():
        pass  # its folder has gone
    elif entry["kept"]:
        path.unlink(missing_ok=True)
        path.hardlink_to(entry["kept"])
    else:
        path.unlink(missing_ok=True)


def _cut(file: Path, size: int) -> None:
    """A new file: the old one may be linked elsewhere."""
    data = file.read_bytes()[:size]
    file.unlink()
    file.write_bytes(data)
    file.chmod(0o600)
