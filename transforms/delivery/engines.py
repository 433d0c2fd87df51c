"""The engines of this process: one a sink and run, kept from one shift to the next."""

from __future__ import annotations

import threading
from typing import Any

from transforms.delivery.engine import Engine
from transforms.sinks.base import Sink

__all__ = ["close_all", "engine_for", "engines"]

_engines: dict[tuple[str, str], Engine] = {}
_engines_lock = threading.Lock()


def engine_for(sink: Sink[Any], token: str) -> Engine:
    """The process's engine of this sink in the run `token`; made when it is first asked for."""
    with _engines_lock:
        engine = _engines.get((token, sink.name))
        if engine is None:
            engine = _engines[token, sink.name] = Engine(sink)
        return engine


def engines(token: str) -> list[Engine]:
    """The run's engines, in no order."""
    with _engines_lock:
        return [engine for (run, _), engine in _engines.items() if run == token]


def close_all(token: str | None = None) -> None:
    """Close the run's engines (None: all), and forget them. Sinks that hang do not add up."""
    with _engines_lock:
        ending = {key: found for key, found in _engines.items() if token in (None, key[0])}
    closing = [threading.Thread(target=found.close, daemon=True) for found in ending.values()]
    for thread in closing:
        thread.start()
    for thread in closing:
        thread.join()
    with _engines_lock:
        for key in ending:
            _engines.pop(key, None)
