from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.transforms.delivery.scripted import Scripted
from transforms.delivery.engine import Engine


@pytest.fixture
def make() -> Iterator[Callable[..., Engine]]:
    made: list[Engine] = []

    def build(sink: Scripted, **options: object) -> Engine:
        options.setdefault("cool_down", (0.05, 0.2))
        made.append(Engine(sink, **options))  # type: ignore[arg-type]
        return made[-1]

    yield build
    for engine in made:
        engine.sink.up.set()
        engine.close()
