"""The report as one HTML page that needs nothing else: no script, no file, no network.

Every text is escaped by the template, and what a browser may load is said in the page itself
(Content Security Policy, W3C): nothing.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from datetime import datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from jinja2 import Template

from pipelines.pages import WIDTH, bar, template
from pipelines.report.model import Bucket, Counts, Report
from pipelines.report.tables import lasting

__all__ = ["page"]

_OUTCOMES = {
    "delivered": "The sink said that it has it.",
    "not_routed": "The settings' conditions (`where`) gave it to other sinks.",
    "repeat": "An exact repeat of a record that came before.",
    "dead": "It could not be read, or the sink refused it for good; its original bytes are kept.",
    "owed": "The sink did not take it in time; it is read again, and delivered, by itself.",
}
_HEIGHT = 100.0  # of a chart, in its own units
_LEAST = 3.0  # what is there is seen, however little it is
_MOST_LISTED = 200
_SPELT = {60: "a minute", 3_600: "an hour", 86_400: "a day"}


class _Area(NamedTuple):
    outcome: str
    path: str


class _Chart(NamedTuple):
    """areas: one path an outcome. most: records in the fullest bucket of any sink."""

    sink: str
    areas: list[_Area]


class _Timeline(NamedTuple):
    charts: list[_Chart]
    most: int
    every: str
    first: datetime
    end: datetime


def page(report: Report) -> str:
    """A whole document."""
    return _template().render(
        report=report,
        outcomes=_OUTCOMES,
        bars=[(sink, _bar(sink.counts)) for sink in report.sinks],
        timeline=_timeline(report),
        most_listed=_MOST_LISTED,
    )


@functools.cache
def _template() -> Template:
    return template(
        Path(__file__).with_name("page.html"),
        lasting=lambda seconds: "–" if seconds is None else lasting(seconds),
        words=lambda name: name.replace("_", " "),
    )


def _bar(counts: Counts) -> list[tuple[str, float, float]]:
    """Outcome, where it begins, and how wide it is."""
    return bar({name: getattr(counts, name) for name in _OUTCOMES}, _LEAST)


def _timeline(report: Report) -> _Timeline | None:
    buckets = [bucket for row in report.timeline.sinks.values() for bucket in row]
    if not buckets:
        return None
    step = timedelta(seconds=report.timeline.bucket_seconds)
    first = min(bucket.at for bucket in buckets)
    end = max(bucket.at for bucket in buckets) + step
    most = max(bucket.counts.records for bucket in buckets)
    charts = [
        _Chart(sink, _areas(row, first, end, step, most))
        for sink, row in report.timeline.sinks.items()
        if row
    ]
    seconds = report.timeline.bucket_seconds
    return _Timeline(charts, most, _SPELT.get(seconds, lasting(seconds)), first, end)


def _areas(
    row: Iterable[Bucket], first: datetime, end: datetime, step: timedelta, most: int
) -> list[_Area]:
    width = step / (end - first) * WIDTH
    drawn = width - min(0.1 * width, 3.0)
    paths: dict[str, list[str]] = {name: [] for name in _OUTCOMES}
    for bucket in row:
        left, top = (bucket.at - first) / (end - first) * WIDTH, _HEIGHT
        for name, path in paths.items():
            value = getattr(bucket.counts, name)
            if value > 0:
                height = max(_LEAST / 2, value / max(most, 1) * _HEIGHT)
                top -= height
                path.append(f"M{left:.1f} {top:.1f}h{drawn:.1f}v{height:.1f}H{left:.1f}z")
    return [_Area(name, "".join(path)) for name, path in paths.items() if path]
