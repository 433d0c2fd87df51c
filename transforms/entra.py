"""Who alertbeam is to Microsoft Entra: settings, the credentials made from them, bearer tokens.

Source: azure-identity, which keeps tokens and renews them before they end. A token is asked for
by its scope: `https://monitor.azure.com/.default`. Certificates are verified against the
authorities that requests knows, or REQUESTS_CA_BUNDLE names.
"""

from __future__ import annotations

import re
import time
from typing import Any, Literal, NoReturn

from pydantic import BaseModel, ConfigDict, Field, field_validator

from transforms.secrets import SecretError, SecretRef

__all__ = ["Bearer", "ClientSecret", "Credential", "EntraCredential", "identity"]

_PUBLIC = "login.microsoftonline.com"
_ID = r"^[A-Za-z0-9.-]+$"
_MARGIN = 300.0  # seconds before its end that a token is renewed
_PAUSE = 30.0  # seconds between attempts to renew a token that is still good
_CHAIN = "the default credential (a managed identity, the environment, `az login`)"


class ClientSecret(BaseModel):
    """An Entra application's credential."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    tenant_id: str = Field(pattern=_ID, description="The Entra tenant's id.")
    client_id: str = Field(pattern=_ID, description="The application's id.")
    secret: SecretRef = Field(description="Where its secret lies: env:NAME or file:/path.")
    authority: str = Field(
        _PUBLIC,
        description="Who gives tokens: login.microsoftonline.us for Azure Government, "
        "login.partner.microsoftonline.cn for Azure in China.",
    )

    @field_validator("authority")
    @classmethod
    def _check_authority(cls, authority: str) -> str:
        bare = authority.removeprefix("https://").rstrip("/")
        if not re.fullmatch(r"[A-Za-z0-9.-]+(:\d{1,5})?", bare):
            raise ValueError(f"an authority is a host name: {_PUBLIC}")
        return bare


class EntraCredential(BaseModel):
    """Access through azure-identity with an application of one's own."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    client_secret: ClientSecret


Credential = Literal["default"] | EntraCredential
"""What settings call `credential`: azure-identity's own chain (a managed or workload identity,
the environment, `az login`), or an application with a secret."""


def identity(credential: Credential, timeout: float = 10.0) -> Any:
    """azure-identity's credential. Resolves the secret it needs: raises SecretError.

    timeout: seconds that it may wait for Entra, for a token; the first one takes two requests.
    """
    from azure import identity  # slow to import, and only needed here

    half = timeout / 2
    patience = {"retry_total": 0, "connection_timeout": half, "read_timeout": half}
    if credential == "default":
        return identity.DefaultAzureCredential(**patience)
    secret = credential.client_secret
    return identity.ClientSecretCredential(
        secret.tenant_id,
        secret.client_id,
        secret.secret.resolve().reveal(),
        authority=secret.authority,
        disable_instance_discovery=True,  # nobody else is asked whether the authority is one
        **patience,
    )


class Bearer:
    """The token that requests to one service bear; it belongs to one connection."""

    def __init__(self, credential: Credential, scope: str, timeout: float = 10.0) -> None:
        """timeout: as of `identity`. Raises SecretError."""
        self._credential = identity(credential, timeout)
        self._who = _CHAIN if credential == "default" else str(credential.client_secret.secret)
        self._scope = scope
        self._token = ""
        self._renew_at = self._end = 0.0  # epoch seconds

    def __reduce__(self) -> NoReturn:
        raise TypeError("a token cannot be pickled: pass the credential's settings")

    def header(self) -> str:
        """The value of `Authorization`, of a token that is good for minutes.

        Raises SecretError where Entra refuses, ConnectionError where it cannot be reached, or has
        a failure of its own; not while the token before is still good.
        """
        now = time.time()
        if now >= self._renew_at:
            try:
                self._renew(now)
            except (SecretError, ConnectionError):
                if now >= self._end:
                    raise
                self._renew_at = min(now + _PAUSE, self._end)
        return f"Bearer {self._token}"

    def hide(self, text: str) -> str:
        """A text without the token: some services quote what they were sent."""
        return text.replace(self._token, "***") if self._token else text

    def close(self) -> None:
        self._credential.close()

    def _renew(self, now: float) -> None:
        from azure.core.exceptions import AzureError

        try:
            token = self._credential.get_token(self._scope)
        except (AzureError, ValueError) as error:
            said = f"{self._who}: no token for {self._scope}: {_told(error)}"
            raise (SecretError if _refused(error) else ConnectionError)(said) from None
        self._token, self._end = token.token, float(token.expires_on)
        # One that is given for less than the margin is not asked for each time.
        self._renew_at = min(max(self._end - _MARGIN, now + _PAUSE), self._end)


def _refused(error: Exception) -> bool:
    """Whether Entra, or azure-identity, has said no. It says the same of a failure on the way, but
    then names that as the cause; ValueError is a tenant that is not there."""
    from azure.core.exceptions import ClientAuthenticationError

    cause = error.__cause__
    return isinstance(error, ClientAuthenticationError) and (
        cause is None or isinstance(cause, (ClientAuthenticationError, ValueError))
    )


def _told(error: Exception) -> str:
    """The first line: what follows are traces, and advice of many lines."""
    lines = str(getattr(error, "message", error)).strip().splitlines()
    return lines[0][:500] if lines else type(error).__name__
