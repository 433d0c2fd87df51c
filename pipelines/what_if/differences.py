"""How two sets of named texts differ, in words that may be shown: without what could act in a
terminal, and without secrets."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from pipelines.what_if.found import Field
from schemas.masking import mask
from transforms.delivery.line import printable
from transforms.sinks import base

__all__ = ["SHOWN", "Hidden", "Url", "as_text", "differences", "leaves", "safe"]

SHOWN = 200  # characters of a value


class Hidden(str):
    """A text that is compared, and not shown."""

    __slots__ = ()


class Url(str):
    """A URL, of which the host is shown."""

    __slots__ = ()


def as_text(value: Any) -> str:
    """One value."""
    if isinstance(value, str | Path):
        return str(value)
    return json.dumps(value, default=str, ensure_ascii=False)


def leaves(
    value: Any, told: Callable[[Any], str | None] = as_text, path: str = ""
) -> Iterator[tuple[str, str]]:
    """Every value by its dotted path, as text; None: it is none."""
    if isinstance(value, BaseModel):
        value = dict(value)
    if isinstance(value, Mapping) and value:
        for key, each in value.items():
            yield from leaves(each, told, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list | tuple) and value:
        for number, each in enumerate(value):
            yield from leaves(each, told, f"{path}[{number}]")
    elif (text := told(value)) is not None:
        yield path, text


def differences(a: Mapping[str, str], b: Mapping[str, str]) -> list[Field]:
    """What the two have under a name, wherever that is not the same."""
    return [
        Field(printable(name, SHOWN), *_both(a.get(name), b.get(name)))
        for name in dict.fromkeys((*a, *b))
        if a.get(name) != b.get(name)
    ]


def _both(a: str | None, b: str | None) -> tuple[str | None, str | None]:
    """Two texts that differ, around the place where they do."""
    start = 0
    if a is not None and b is not None and max(len(a), len(b)) > SHOWN // 2:
        same = next((n for n, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), None)
        start = max(0, (min(len(a), len(b)) if same is None else same) - SHOWN // 4)
    one, two = (_visible(text, start) for text in (a, b))
    if one == two and one is not None:
        two = f"{two} (another one)"
    return one, two


def _visible(text: str | None, start: int) -> str | None:
    if not text:
        return None if text is None else "(empty)"
    if isinstance(text, Hidden):
        return "a secret"
    if isinstance(text, Url):
        return safe(base.shown(text))
    # Masked before it is cut: a cut may take what tells a secret.
    whole, count = _masked(text)
    at = min(start, max(0, len(whole) - SHOWN)) if count else start
    return ("…" if at else "") + printable(whole[at:], SHOWN)


def safe(text: str) -> str:
    """One line for people: without what could act, or is secret, whatever the settings say."""
    return printable(_masked(text)[0], SHOWN)


def _masked(text: str) -> tuple[str, int]:
    """Without secrets, and how many there were."""
    hidden, count = mask(text.encode("utf-8", "replace"))
    return hidden.decode("utf-8", "replace"), count
