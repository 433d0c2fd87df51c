"""The formats of history files, one file a format, found by being in this folder."""

from __future__ import annotations

import importlib
import pkgutil

from transforms.read.files.base import FileFormat

__all__ = ["HEAD_BYTES", "formats", "tell"]

HEAD_BYTES = 64 * 1024

_found: list[FileFormat] = []


def formats() -> list[FileFormat]:
    """Every format; those that are general after all others."""
    if not _found:
        names = sorted(info.name for info in pkgutil.iter_modules(__path__))
        modules = [importlib.import_module(f"{__name__}.{n}") for n in names if n != "base"]
        found = [m.FORMAT for m in modules if hasattr(m, "FORMAT")]
        _found[:] = sorted(found, key=lambda form: form.general)
    return _found


def tell(head: bytes, url: str) -> FileFormat | None:
    """The format of a file that begins like this; None: none that is known."""
    return next((form for form in formats() if form.tells(head, url)), None)
