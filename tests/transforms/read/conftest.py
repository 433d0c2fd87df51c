"""A hub to read from, and a reader's settings for it."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from azure.eventhub import _client_base
from azure.eventhub._pyamqp import client as pyamqp_client

from pipelines.local.hub import EmbeddedHub
from transforms.read.access import EventHubsAccess

HUB = "defender"
PARTITIONS = 32

_names = itertools.count()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The SDK polls with naps of 50 ms while it opens; naps of 1 ms do as well."""
    naps = SimpleNamespace(time=time.time, sleep=lambda seconds: time.sleep(min(seconds, 0.001)))
    for module in (_client_base, pyamqp_client):
        monkeypatch.setattr(module, "time", naps)


@pytest.fixture(scope="module")
def shared_hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedHub]:
    with EmbeddedHub(tmp_path_factory.mktemp("hub"), {HUB: PARTITIONS}) as hub:
        yield hub


@pytest.fixture
def hub(shared_hub: EmbeddedHub) -> Iterator[EmbeddedHub]:
    """A hub without faults. What is in it, other tests have left there: see `partition`."""
    yield shared_hub
    shared_hub.heal()


@pytest.fixture(scope="module")
def _partitions() -> Iterator[int]:
    return itertools.count()


@pytest.fixture
def partition(_partitions: Iterator[int]) -> str:
    """A partition of the hub that no other test of the module uses."""
    return str(next(_partitions))


@pytest.fixture
def access(monkeypatch: pytest.MonkeyPatch) -> Callable[..., EventHubsAccess]:
    """Makes the settings for a hub; the connection string comes through the environment."""

    def make(hub: EmbeddedHub, name: str = HUB, **fields: Any) -> EventHubsAccess:
        variable = f"HUB_{next(_names)}"
        monkeypatch.setenv(variable, fields.pop("string", hub.connection_string(name)))
        fields.setdefault("hub", name)
        return EventHubsAccess(connection_string=f"env:{variable}", **fields)

    return make


def until(condition: Callable[[], Any], seconds: float = 10.0) -> Any:
    """What the condition says once that is anything; fails after `seconds`."""
    end = time.monotonic() + seconds
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.002)


@pytest.fixture
def separate_hub(tmp_path: Path) -> Iterator[Callable[..., EmbeddedHub]]:
    """Starts hubs of their own, for tests that end, restart or configure them."""
    started: list[EmbeddedHub] = []

    def make(folder: str = "hub", **options: Any) -> EmbeddedHub:
        options.setdefault("hubs", {HUB: 2})
        started.append(EmbeddedHub(tmp_path / folder, **options).start())
        return started[-1]

    yield make
    for one in started:
        one.stop()
