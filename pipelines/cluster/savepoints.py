"""What is known of a job's savepoints and checkpoints, kept in the state store: what a job can be
resumed from is known where its cluster is gone.

    flink/<name>.json     where the job ran last, its last checkpoint that was seen, its savepoints

A checkpoint is gone as soon as a newer one stands, so that what was seen is rarely the last: the
cluster knows it as long as it is there, and on a file system that is seen from here, its folder.
Source: Flink, "Checkpoints" (directory structure, retained checkpoints) and "Savepoints".
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

import msgspec

from pipelines.cluster.flink import Checkpoint, Flink, FlinkError
from transforms.state_store import StateStore, place

__all__ = ["Kept", "Saved", "kept", "learn", "newest", "stopped", "submitted"]

_MOST = 20  # savepoints that are kept in mind


class Saved(msgspec.Struct, frozen=True):
    """What a job can be resumed from. size in bytes; 0: not known."""

    path: str
    at_ms: int
    size: int = 0


class Kept(msgspec.Struct):
    """What is known of the jobs of one name. savepoints: the newest last."""

    name: str
    cluster: str = ""
    job: str = ""
    submitted_ms: int = 0
    checkpoint: Saved | None = None
    savepoints: list[Saved] = []


def kept(store: StateStore, name: str) -> Kept:
    """Empty where the name is not known."""
    try:
        return msgspec.json.decode(store.get(_path(name)) or b"", type=Kept)
    except msgspec.DecodeError:
        return Kept(name)


def submitted(store: StateStore, name: str, cluster: str, job: str, at_ms: int) -> None:
    """Keep where the job runs now."""
    known = kept(store, name)
    known.cluster, known.job, known.submitted_ms = cluster, job, at_ms
    _keep(store, known)


def learn(store: StateStore, name: str, seen: Checkpoint | None) -> None:
    """Keep the last checkpoint, if it is another than before."""
    if seen is None or not seen.path:
        return
    known = kept(store, name)
    if known.checkpoint is None or known.checkpoint.path != seen.path:
        known.checkpoint = Saved(seen.path, seen.at_ms, seen.size)
        _keep(store, known)


def stopped(store: StateStore, name: str, savepoint: Saved) -> None:
    """Keep a savepoint."""
    known = kept(store, name)
    others = [each for each in known.savepoints if each.path != savepoint.path]
    known.savepoints = [*others, savepoint][-_MOST:]
    _keep(store, known)


def newest(store: StateStore, name: str, client: Flink | None = None) -> Saved | None:
    """The newest savepoint or retained checkpoint of the job of that name: of what the store
    knows, what the cluster still remembers, and what lies beside a known checkpoint.

    client: of the cluster; one that is not there is passed over.
    """
    known = kept(store, name)
    found = [*known.savepoints, *([known.checkpoint] if known.checkpoint else [])]
    if client is not None:
        try:
            for job in client.jobs():
                if job.name == name and not job.lives:
                    latest = client.checkpoints(job.id).latest
                    seen = [each for each in (latest.completed, latest.savepoint) if each]
                    found += [Saved(c.path, c.at_ms, c.size) for c in seen if c.path]
        except FlinkError:
            pass  # it forgets jobs anyway, after an hour or with its end
    return max(map(_beside, found), key=lambda saved: saved.at_ms, default=None)


def _beside(saved: Saved) -> Saved:
    """A newer complete checkpoint in the same folder `<job>/chk-<n>`, where that is seen here."""
    parts = urlsplit(saved.path)
    if parts.scheme not in ("", "file"):
        return saved
    path = Path(unquote(parts.path) if parts.scheme else saved.path)
    if not path.name.startswith("chk-"):
        return saved
    found: list[tuple[int, Path]] = []
    for each in path.parent.glob("chk-*/_metadata"):
        try:
            found.append((int(each.parent.name.removeprefix("chk-")), each))
        except ValueError:
            continue
    if not found:
        return saved
    last = max(found)[1]
    prefix = saved.path[: -len(path.name)] if saved.path.endswith(path.name) else f"{path.parent}/"
    try:
        at_ms = int(last.stat().st_mtime * 1000)
    except OSError:
        return saved
    again = prefix + last.parent.name
    return saved if again == saved.path else Saved(again, at_ms)


def _keep(store: StateStore, known: Kept) -> None:
    store.put(_path(known.name), msgspec.json.encode(known))


def _path(name: str) -> str:
    return f"flink/{place(name)}.json"
