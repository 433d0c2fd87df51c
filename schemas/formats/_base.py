"""What a format says of itself."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from schemas.alert import Alert

__all__ = ["Format"]


@dataclasses.dataclass(frozen=True)
class Format:
    """One way to write an alert.

    say: any alert of a record → exactly one record of the format, without a newline at its end.
        Raises ValueError where it cannot be said at all. A pure function: same alert, same bytes.
    media_type: `application/json` or `text/plain`.
    standard: what it was written from, with the version.
    drops: what of an alert does not get through, in a sentence.
    shortens: what happens to what is too long, in a sentence.
    max_bytes: the most that `say` returns; None where nothing is shortened.
    """

    name: str
    say: Callable[[Alert], bytes]
    media_type: str
    standard: str
    drops: str
    shortens: str
    max_bytes: int | None = None
