"""For every kind of sink something to send to: real, or a strict double of it; one file a kind.

A file here is found by being here. The contract suite holds the sink to every property of
PROPERTIES, or to the reason why its system cannot have it (`Double.lacks`); `matrix` says which.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import pkgutil

from tests.transforms.sinks.doubles.base import (
    HELPED,
    IMPATIENT,
    MARKER,
    PATIENT,
    PAUSE,
    PROPERTIES,
    SECRET,
    Double,
    ReceiverDouble,
    Says,
    in_a_while,
    plays,
)

__all__ = [
    "DOUBLES",
    "HELPED",
    "IMPATIENT",
    "MARKER",
    "PATIENT",
    "PAUSE",
    "PROPERTIES",
    "SECRET",
    "Double",
    "Held",
    "ReceiverDouble",
    "Says",
    "doubles_of",
    "in_a_while",
    "matrix",
    "plays",
]


def doubles_of(module: str) -> dict[str, type[Double]]:
    """The doubles that a module defines, by name."""
    found = vars(importlib.import_module(module)).values()
    return {
        double.name or double.kind: double
        for double in found
        if inspect.isclass(double)
        and issubclass(double, Double)
        and not inspect.isabstract(double)
        and double.__module__ == module
    }


DOUBLES: dict[str, type[Double]] = {
    name: double
    for info in pkgutil.iter_modules(__path__)
    if info.name != "base"
    for name, double in doubles_of(f"{__name__}.{info.name}").items()
}


@dataclasses.dataclass(frozen=True)
class Held:
    """One sink and one property. exempt: why it is not held to it; empty: it is tested."""

    sink: str
    system: str
    property: str
    exempt: str


def matrix() -> list[Held]:
    """Every double and every property: what the suite tests, against what, and what it cannot."""
    return [
        Held(name, double.system, held, double.lacks.get(held, ""))
        for name, double in DOUBLES.items()
        for held in PROPERTIES
    ]
