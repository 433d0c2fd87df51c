"""Outbound: what a receiver is told, one file a format, found by being in this folder.

A format's module holds pure functions Alert → bytes, and names them in `FORMATS` (see
`_base.Format`) for those who choose a format by its name.
"""

from __future__ import annotations

import importlib
import pkgutil

from schemas.formats._base import Format

__all__ = ["FORMATS", "Format"]

FORMATS: dict[str, Format] = {
    form.name: form
    for info in pkgutil.iter_modules(__path__)
    if not info.name.startswith("_")
    for form in importlib.import_module(f"{__name__}.{info.name}").FORMATS
}
"""Every format by its name."""
