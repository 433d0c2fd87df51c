"""Palo Alto Networks Cortex: how its APIs are asked, of XSIAM, XDR and XSOAR.

Contract: "Get started with Cortex XSIAM APIs" and "Make your first API call" (docs-cortex.
paloaltonetworks.com). A standard key is sent as it is; of an advanced one a hash, with a nonce and
the time, so that who sees a request cannot repeat it later. XSOAR 6 knows no ids of keys.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import string
import time
from collections.abc import Mapping
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from transforms.delivery.http import (
    HttpConnection,
    HttpSettings,
    Response,
    check_url,
    compress,
)
from transforms.delivery.line import printable
from transforms.secrets import SecretError, SecretRef

__all__ = ["Cortex", "CortexSettings", "decoded", "signed"]

_LETTERS = string.ascii_letters + string.digits
_NONCE = 64  # characters
_REASON = 300  # characters
_SAID = ("err_msg", "err_extra", "title", "error", "message")


class CortexSettings(HttpSettings):
    """What the settings of every sink that asks a Cortex API with a key and its id share."""

    url: str = Field(
        description="The API's address: https://api-TENANT.xdr.REGION.paloaltonetworks.com."
    )
    key: SecretRef = Field(description="The API key: env:NAME or file:/path.")
    key_id: str = Field(
        description="The key's id: the number in the column ID of the list of keys.",
        pattern=r"^[0-9]+$",
    )
    key_type: Literal["standard", "advanced"] = Field(
        "standard", description="The key's security level, as it was chosen when it was made."
    )
    gzip: bool = Field(
        False, description="Compress requests; that the API takes such is not documented."
    )

    @field_validator("url")
    @classmethod
    def _check_url(cls, url: str) -> str:
        return check_url(url, path="")


class Cortex:
    """A kept connection to one tenant. Raises SecretError for a key that none can be."""

    def __init__(
        self,
        url: str,
        how: HttpSettings,
        key: SecretRef,
        key_id: str = "",
        *,
        advanced: bool = False,
    ) -> None:
        self._key = key.resolve().reveal()
        if not (self._key.isascii() and self._key.isprintable()) or " " in self._key:
            raise SecretError(f"{key}: an API key is letters, digits and signs, without blanks")
        self._key_id, self._advanced, self._gzip = key_id, advanced, how.gzip
        self._hidden = [self._key]
        self._root = urlsplit(url).path.rstrip("/")
        self._http = HttpConnection(url, how, {})

    def ask(
        self,
        method: str,
        path: str,
        body: bytes,
        timeout: float,
        *,
        content: str = "application/json",
        most: int = 64 * 1024,
    ) -> Response:
        """Send, and read the first `most` bytes of the answer. Raises OSError."""
        headers = signed(self._key, self._key_id, self._advanced)
        self._hidden = [self._key, headers["Authorization"]]
        if body:
            headers["Content-Type"] = content
        if body and self._gzip:
            headers["Content-Encoding"] = "gzip"
            body = compress(body)
        return self._http.request(method, self._root + path, body, headers, timeout, most)

    def reach(self, timeout: float) -> None:
        """Connect, and say nothing. Raises OSError."""
        self._http.reach(timeout)

    def say(self, response: Response, advice: str = "") -> str:
        """An answer in a line, without the key: some systems repeat what they were sent."""
        said = ": ".join(_words(decoded(response))) or response.reason
        for secret in self._hidden:
            said = said.replace(secret, "***")
        if response.status == 401 and self._advanced:
            advice = advice or "an advanced key also takes this machine's clock to be right"
        text = printable(" ".join(said.split()), _REASON)
        return f"HTTP {response.status}: {text}" + (f": {advice}" if advice else "")

    def close(self) -> None:
        self._http.close()


def signed(key: str, key_id: str, advanced: bool) -> dict[str, str]:
    """The headers by which a request shows its key."""
    headers = {"Authorization": key}
    if key_id:
        headers["x-xdr-auth-id"] = key_id
    if advanced:
        nonce = "".join(secrets.choice(_LETTERS) for _ in range(_NONCE))
        now = str(int(time.time() * 1000))
        digest = hashlib.sha256(f"{key}{nonce}{now}".encode()).hexdigest()
        headers |= {"Authorization": digest, "x-xdr-nonce": nonce, "x-xdr-timestamp": now}
    return headers


def decoded(response: Response) -> Any:
    """What is answered, if it is JSON; else None."""
    try:
        return json.loads(response.body)
    except (ValueError, RecursionError):
        return None


def _words(answer: Any) -> list[str]:
    """What an error says: of XSIAM and XDR under `reply`, of XSOAR at the top."""
    said = answer.get("reply", answer) if isinstance(answer, Mapping) else None
    if not isinstance(said, Mapping):
        return []
    found = (said.get(name) for name in _SAID)
    texts = (text for text in found if isinstance(text, str))
    return list(dict.fromkeys(text for text in texts if text.lower() not in ("", "true", "false")))
