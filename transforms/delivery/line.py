"""A sender's connection: opened when needed, let go of when it fails. No exception escapes it."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

from transforms.secrets import SecretError
from transforms.sinks.base import Connection, Refresh, Retry, Sink, Stop, Verdict

__all__ = ["Line", "describe", "printable"]

logger = logging.getLogger(__name__)

_REASON = 300  # characters of a reason that are kept


class Line:
    """One sender thread's way to the system."""

    def __init__(self, sink: Sink[Any]) -> None:
        self._sink = sink
        self._connection: Connection | None = None

    @property
    def open(self) -> bool:
        return self._connection is not None

    def send(self, payloads: Sequence[bytes], timeout: float) -> Verdict:
        """One request; what it means, whatever happened."""
        try:
            if self._connection is None:
                self._connection = self._sink.connect()
            verdict = self._connection.send(payloads, timeout)
            if not isinstance(verdict, Verdict):
                raise TypeError(verdict)
        except ssl.SSLCertVerificationError as error:
            verdict = Stop(describe(error))  # no retry makes a certificate good
        except OSError as error:
            self.close()
            return Retry(describe(error))
        except Exception as error:  # noqa: BLE001 - a sink's bug must cost nobody a record
            verdict = Stop(describe(error))
        if isinstance(verdict, Stop | Refresh):
            self.close()  # secrets and settings are read anew with the next connection
        return verdict

    def confirm(self, timeout: float, hurry: bool = False) -> Mapping[Hashable, Verdict]:
        """What has become of what was pending; a failure closes the connection."""
        try:
            if self._connection is None:
                return {}
            if hurry:
                self._connection.hurry()
            return self._connection.confirm(timeout)
        except Exception as error:  # noqa: BLE001 - as in send
            logger.warning("sink %s: confirming failed: %s", self._sink.name, describe(error))
            self.close()
            return {}

    def idle(self) -> float | None:
        """Let the connection tidy up; seconds until it wants to again, if it does."""
        try:
            after = None if self._connection is None else self._connection.idle()
            return None if after is None else max(after, 0.1)
        except Exception:  # noqa: BLE001 - as in send
            self.close()
            return None

    def close(self) -> None:
        connection, self._connection = self._connection, None
        try:
            if connection is not None:
                connection.close()
        except Exception as error:  # noqa: BLE001 - as in send
            logger.warning("sink %s: closing failed: %s", self._sink.name, describe(error))


def printable(text: str, most: int = _REASON) -> str:
    """One line that is safe to log, whoever wrote it: no control characters, no end of it."""
    cut = text[:most] + ("…" if len(text) > most else "")
    return "".join(c if c.isprintable() else " " for c in cut)


def describe(error: Exception) -> str:
    """An error in one line. Only those whose text is known to hold no payload are quoted."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the certificate was refused: {error.verify_message}"
    if isinstance(error, OSError | SecretError):
        return printable(str(error) or type(error).__name__)
    at = error.__traceback__
    while at and at.tb_next:
        at = at.tb_next
    where = f" at {Path(at.tb_frame.f_code.co_filename).name}:{at.tb_lineno}" if at else ""
    return f"{type(error).__name__}{where}"
