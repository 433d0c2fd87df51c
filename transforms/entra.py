"""Who alertbeam is to Microsoft Entra: settings, the credentials made from them, bearer tokens.

Source: azure-identity, which keeps tokens and renews them before they end. A token is asked for
by its scope: `https://monitor.azure.com/.default`.
"""

from __future__ import annotations

import re
import time
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from transforms.secrets import SecretError, SecretRef

__all__ = ["Bearer", "ClientSecret", "Credential", "EntraCredential", "identity"]

_KNOWN = (
    "login.microsoftonline.com",
    "login.microsoftonline.us",
    "login.partner.microsoftonline.cn",
)
_MARGIN = 300.0  # seconds before its end that a token is renewed
_PATIENCE = {"retry_total": 0, "connection_timeout": 5, "read_timeout": 10}


class ClientSecret(BaseModel):
    """An Entra application's credential."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    tenant_id: str = Field(description="The Entra tenant's id.")
    client_id: str = Field(description="The application's id.")
    secret: SecretRef = Field(description="Where its secret lies: env:NAME or file:/path.")
    authority: str = Field(
        _KNOWN[0],
        description="Who gives tokens: login.microsoftonline.us for Azure Government, "
        "login.partner.microsoftonline.cn for Azure in China.",
    )

    @field_validator("authority")
    @classmethod
    def _check_authority(cls, authority: str) -> str:
        bare = authority.removeprefix("https://").rstrip("/")
        if not re.fullmatch(r"[A-Za-z0-9.-]+(:\d{1,5})?", bare):
            raise ValueError(f"an authority is a host name: {_KNOWN[0]}")
        return bare


class EntraCredential(BaseModel):
    """Access through azure-identity with an application of one's own."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    client_secret: ClientSecret


Credential = Literal["default"] | EntraCredential
"""What settings call `credential`: azure-identity's own chain (a managed or workload identity,
the environment, `az login`), or an application with a secret."""


def identity(credential: Credential) -> Any:
    """azure-identity's credential. Resolves the secret it needs: raises SecretError."""
    from azure import identity  # slow to import, and only needed here

    if credential == "default":
        return identity.DefaultAzureCredential(**_PATIENCE)
    secret = credential.client_secret
    return identity.ClientSecretCredential(
        secret.tenant_id,
        secret.client_id,
        secret.secret.resolve().reveal(),
        authority=secret.authority,
        disable_instance_discovery=secret.authority not in _KNOWN,
        **_PATIENCE,
    )


class Bearer:
    """The token that requests to one service bear; it belongs to one connection."""

    def __init__(self, credential: Credential, scope: str) -> None:
        """Raises SecretError."""
        self._credential = identity(credential)
        self._scope = scope
        self._token = ""
        self._until = 0.0  # epoch seconds

    def header(self) -> str:
        """The value of `Authorization`, of a token that is good for minutes.

        Raises SecretError where Entra refuses, ConnectionError where it cannot be reached.
        """
        if time.time() >= self._until:
            from azure.core.exceptions import AzureError, ClientAuthenticationError

            try:
                token = self._credential.get_token(self._scope)
            except ClientAuthenticationError as error:
                raise SecretError(f"no token for {self._scope}: {_told(error)}") from None
            except (AzureError, ValueError) as error:
                raise ConnectionError(f"no token for {self._scope}: {_told(error)}") from None
            self._token, self._until = token.token, token.expires_on - _MARGIN
        return f"Bearer {self._token}"

    def hide(self, text: str) -> str:
        """A text without the token: some services quote what they were sent."""
        return text.replace(self._token, "***") if self._token else text

    def close(self) -> None:
        self._credential.close()


def _told(error: Exception) -> str:
    """The first line: what follows are traces, and advice of many lines."""
    lines = str(getattr(error, "message", error)).strip().splitlines()
    return lines[0][:500] if lines else type(error).__name__
