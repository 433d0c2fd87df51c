"""Counting alerts by chosen keys: plain functions whose results do not depend on the order."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal

import msgspec

from schemas.alert import Alert, Subscription
from schemas.digest import Digest, Sample

__all__ = ["KEYS", "TAG", "Tally", "add", "digest", "digest_key", "merge"]

_NO_SUBSCRIPTION = Subscription("")


def _of(alert: Alert) -> Subscription:
    return alert.subscription or _NO_SUBSCRIPTION


KEYS: Mapping[str, Callable[[Alert], str]] = {
    "subscription": lambda alert: alert.subscription_id,
    "subscription_name": lambda alert: _of(alert).name,
    "environment": lambda alert: _of(alert).environment,
    "management_group": lambda alert: _of(alert).management_group,
    "severity": lambda alert: alert.severity,
    "status": lambda alert: alert.status,
    "kind": lambda alert: alert.kind,
    "alert_type": lambda alert: alert.alert_type,
    "product": lambda alert: alert.product,
    "resource": lambda alert: alert.resource,
    "tactic": lambda alert: ", ".join(sorted(set(alert.tactics))),
}
"""What a digest may count by, and how an alert answers; `tag:NAME` besides."""

TAG = "tag:"


@functools.cache
def _readers(by: tuple[str, ...]) -> tuple[Callable[[Alert], str], ...]:
    return tuple(map(_reader, by))


def _reader(name: str) -> Callable[[Alert], str]:
    if not name.startswith(TAG):
        return KEYS[name]
    tag = name.removeprefix(TAG).casefold()
    return lambda alert: next(
        (value for key, value in _of(alert).tags.items() if key.casefold() == tag), ""
    )


def digest_key(alert: Alert, by: Sequence[str]) -> tuple[str, ...]:
    """The alert's value for each name in `by` (a key of KEYS, or `tag:NAME`); "" if it has none.

    Several tactics are one value, "Execution, Impact": an alert is counted once.
    """
    return tuple([read(alert) for read in _readers(tuple(by))])


class Tally(msgspec.Struct, array_like=True):
    """Counts of one key in one window. `first_ms` and `last_ms` mean nothing while total is 0.

    samples: the alerts of the least event ids, in order: the same ones in whatever order they came.
    """

    total: int = 0
    severities: dict[str, int] = {}
    statuses: dict[str, int] = {}
    kinds: dict[str, int] = {}
    first_ms: int = 0
    last_ms: int = 0
    samples: list[Sample] = []


def add(tally: Tally, alert: Alert, samples: int) -> Tally:
    """Count one alert, in place; at most `samples` samples are kept."""
    _count(tally.severities, alert.severity)
    _count(tally.statuses, alert.status)
    _count(tally.kinds, alert.kind)
    time = alert.event_ms
    if not tally.total:
        tally.first_ms = tally.last_ms = time
    elif time < tally.first_ms:
        tally.first_ms = time
    elif time > tally.last_ms:
        tally.last_ms = time
    tally.total += 1
    if samples:
        identity, kept = alert.event_id, tally.samples
        if len(kept) < samples or identity <= kept[-1].id:
            tally.samples = _least([*kept, Sample(identity, alert.title)], samples)
    return tally


def _count(counts: dict[str, int], name: str) -> None:
    counts[name] = counts.get(name, 0) + 1


def merge(tallies: Iterable[Tally], samples: int) -> Tally:
    """One new tally of all: associative, commutative, and `Tally()` changes nothing."""
    counted = [tally for tally in tallies if tally.total]
    return Tally(
        sum(tally.total for tally in counted),
        _sums(tally.severities for tally in counted),
        _sums(tally.statuses for tally in counted),
        _sums(tally.kinds for tally in counted),
        min((tally.first_ms for tally in counted), default=0),
        max((tally.last_ms for tally in counted), default=0),
        _least([sample for tally in counted for sample in tally.samples], samples),
    )


def digest(
    tally: Tally,
    name: str,
    by: Sequence[str],
    key: Sequence[str],
    window_ms: tuple[int, int],
    pane: int,
    timing: Literal["early", "on_time", "late"],
) -> Digest:
    """The tally of `key` (as `digest_key` gives it for `by`) as one pane of a window."""
    return Digest(
        name=name,
        key=dict(zip(by, key, strict=True)),
        start_ms=window_ms[0],
        end_ms=window_ms[1],
        pane=pane,
        timing=timing,
        **msgspec.structs.asdict(tally),
    )


def _sums(parts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    total: dict[str, int] = {}
    for part in parts:
        for name, count in part.items():
            total[name] = total.get(name, 0) + count
    return total


def _least(found: list[Sample], samples: int) -> list[Sample]:
    """The least ids, each once: of one id's titles, the least."""
    titles = {sample.id: sample for sample in sorted(found, reverse=True)}
    return sorted(titles.values())[:samples]
