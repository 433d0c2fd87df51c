"""Secrets are references: resolved on the worker, as late as possible, and never shown.

A reference is safe to print, pickle and store; what it resolves to is not, so `Secret` hides it
from `repr`, `str`, logs and pickles.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NoReturn

from pydantic import GetCoreSchemaHandler
from pydantic_core import core_schema

__all__ = ["Secret", "SecretError", "SecretRef"]


class SecretError(Exception):
    """A reference that leads nowhere. The message names the reference, never a value."""


class Secret:
    """A value that shows itself only through `reveal()`."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        return self._value

    def __repr__(self) -> str:
        return "Secret(***)"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return repr(self)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret cannot be pickled: pass its reference, resolve it in setup()")


class SecretRef(str):
    """`env:NAME` or `file:/path`: where a secret lies, not the secret.

    A file's trailing newline is not part of the secret.
    """

    __slots__ = ()

    schemes = ("env", "file")

    def resolve(self) -> Secret:
        """The secret's value now. Raises SecretError when there is none."""
        scheme, _, place = self.partition(":")
        if scheme == "env":
            value = os.environ.get(place)
            if not value:
                raise SecretError(f"{self}: the environment variable {place} is not set, or empty")
            return Secret(value)
        try:
            value = Path(place).read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
            raise SecretError(f"{self}: cannot be read: {reason}") from None
        if not value:
            raise SecretError(f"{self}: the file is empty")
        return Secret(value)

    @classmethod
    def __get_pydantic_core_schema__(
        cls, source: Any, handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        return core_schema.no_info_after_validator_function(
            cls.checked,
            core_schema.str_schema(),
            serialization=core_schema.to_string_ser_schema(),
        )

    @classmethod
    def checked(cls, text: str) -> SecretRef:
        """The text as a reference. Raises ValueError, which does not repeat it."""
        scheme, colon, place = text.partition(":")
        if not colon or scheme not in cls.schemes or not place:
            # The text may be a secret that somebody pasted: it is not repeated.
            raise ValueError(
                "a secret is given as a reference: env:NAME (an environment variable) "
                "or file:/path (a file that holds nothing else)"
            )
        return cls(text)
