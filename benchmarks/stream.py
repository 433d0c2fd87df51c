"""Streaming on loopback: hub, pipeline and collector, each a process of its own."""

from __future__ import annotations

import time
from collections.abc import Iterator

from benchmarks.figures import Figure
from benchmarks.site import Site

__all__ = ["stream"]

_LOADED = 100_000
_RATE = 1_000
_WARM_SECONDS = 10
_WATCH_SECONDS = 30
_MANY_PARTITIONS = 32


def stream(long: bool = False) -> Iterator[Figure]:
    """long: memory after 1 and 5 minutes, not 1 and 2."""
    for gzip in (True, False):
        yield from _flat_out(gzip)
    yield from _steady(5 if long else 2)
    yield from _idle()


def _flat_out(gzip: bool) -> Iterator[Figure]:
    """A loaded hub, read as fast as it goes: from 10 % to 95 % of it, so without start and end."""
    with Site(partitions=4) as site:
        site.hub.call("load", _LOADED)
        site.run(gzip)
        site.wait(lambda: site.received > _LOADED * 0.10)
        first, cpu, began = site.received, site.cpu, time.monotonic()
        site.wait(lambda: site.received > _LOADED * 0.95)
        count, cpu, took = site.received - first, site.cpu - cpu, time.monotonic() - began
        site.drain()
    what = f"flat out, gzip {'on' if gzip else 'off'}"
    yield Figure(f"{what}, rate", count / took, "alerts/s")
    yield Figure(f"{what}, a core's second does", count / cpu, "alerts")
    yield Figure(f"{what}, a million alerts take", cpu / count * 1e6, "CPU s")


def _steady(minutes: int) -> Iterator[Figure]:
    what = f"{_RATE:,} alerts/s"
    with Site(partitions=4) as site:
        site.run()
        site.hub.call("stream", _RATE)
        site.wait(lambda: site.received > _RATE)
        began = time.monotonic()
        yield from _watched(site, what)
        for minute in (1, minutes):
            time.sleep(max(0.0, began + minute * 60 - time.monotonic()))
            yield Figure(f"{what}, memory after {minute} min", site.rss, "MiB")
        site.drain()


def _idle() -> Iterator[Figure]:
    """An alert a second, on one partition after the other; the others are idle."""
    with Site(_MANY_PARTITIONS) as site:
        site.run()
        site.hub.call("stream", 1)
        site.wait(lambda: site.received > 2)
        yield from _watched(site, f"1 alert/s, {_MANY_PARTITIONS} partitions")
        site.drain()


def _watched(site: Site, what: str) -> Iterator[Figure]:
    """How old alerts are when they arrive, and what that takes."""
    time.sleep(_WARM_SECONDS)
    site.collector.call("watch")
    cpu, began = site.cpu, time.monotonic()
    time.sleep(_WATCH_SECONDS)
    share = (site.cpu - cpu) / (time.monotonic() - began)
    ages = site.collector.call("ages")
    yield Figure(f"{what}, enqueued to delivered, p50", ages[len(ages) // 2], "ms")
    yield Figure(f"{what}, enqueued to delivered, p99", ages[len(ages) * 99 // 100], "ms")
    yield Figure(f"{what}, CPU", share * 100, "% of a core")
