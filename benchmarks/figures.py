"""What every benchmark gives: figures with units."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Figure"]


class Figure(NamedTuple):
    what: str
    value: float
    unit: str
