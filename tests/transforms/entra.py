"""A double of Microsoft Entra's token endpoint, on 127.0.0.1 with TLS.

Written from "OAuth 2.0 client credentials flow on the Microsoft identity platform", its section of
error responses, and "Microsoft Entra authentication and authorization error codes" (learn.
microsoft.com). It gives tokens to one application of one tenant, for the scopes that it is told,
and refuses everything else in Entra's words. What it takes is what the page shows: a form, each
field once. OpenID's configuration is there because Microsoft's own library asks for it first.

    with EntraReceiver(secret="s3cret", scopes={"https://monitor.azure.com/.default"}) as entra:
        entra.credential("env:SECRET")   # for a sink's settings
        entra.knows(request.headers.get("authorization"), "https://monitor.azure.com/.default")

While one runs, REQUESTS_CA_BUNDLE names its authority: that is how azure-identity is told of one.
"""

from __future__ import annotations

import atexit
import base64
import datetime
import functools
import hmac
import json
import os
import shutil
import tempfile
import threading
import time
import uuid
from collections.abc import Collection
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qsl

from pipelines.local.receivers import Answer, HttpReceiver, Reply, Request, certificate

__all__ = ["CLIENT", "TENANT", "EntraReceiver"]

TENANT = "72f98888-1111-4222-8333-2d7cd011db47"
CLIENT = "00001111-aaaa-4222-8bbb-3333cccc4444"

_CA = "REQUESTS_CA_BUNDLE"
_ERRORS = {400: "invalid_request", 401: "invalid_client", 429: "temporarily_unavailable"}


@functools.cache
def _certificate() -> tuple[Path, Path]:
    """One for all of a process: there is one environment."""
    folder = Path(tempfile.mkdtemp(prefix="entra-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return certificate(folder)


class EntraReceiver(HttpReceiver):
    """Gives tokens for `secret`.

    lifetime: seconds that a token is good for. A token ends in the secret that it was given for, so
    that whoever looks for a leaked secret finds a leaked token, too.
    """

    _running: ClassVar[int] = 0
    _before: ClassVar[str | None] = None
    _counting: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self, *, secret: str, scopes: Collection[str], lifetime: int = 3599) -> None:
        super().__init__(tls=_certificate())
        self.secret = secret
        self.scopes = scopes
        self.lifetime = lifetime
        self.asked: list[dict[str, str]] = []  # what asked for a token, without the secret
        self._tokens: dict[str, tuple[str, float]] = {}  # scope and end, in epoch seconds
        self._trusted = False

    @property
    def ca(self) -> Path:
        return _certificate()[0]

    def start(self) -> Any:
        super().start()
        if not self._trusted:
            self._trusted = True
            with EntraReceiver._counting:
                if not EntraReceiver._running:
                    EntraReceiver._before = os.environ.get(_CA)
                EntraReceiver._running += 1
                os.environ[_CA] = str(self.ca)
        return self

    def stop(self) -> None:
        super().stop()
        if self._trusted:
            self._trusted = False
            with EntraReceiver._counting:
                EntraReceiver._running -= 1
                if not EntraReceiver._running:
                    if EntraReceiver._before is None:
                        os.environ.pop(_CA, None)
                    else:
                        os.environ[_CA] = EntraReceiver._before

    def credential(self, secret: str) -> dict[str, Any]:
        """The setting `credential` of a sink, for the reference to the secret."""
        given = {
            "tenant_id": TENANT,
            "client_id": CLIENT,
            "secret": secret,
            "authority": self.address,
        }
        return {"client_secret": given}

    def knows(self, authorization: str | None, scope: str) -> bool:
        """Whether a header bears a token of ours, for this scope, that is still good."""
        kind, _, token = (authorization or "").partition(" ")
        with self._lock:
            given, end = self._tokens.get(token, ("", 0.0))
        return kind == "Bearer" and given == scope and time.time() < end

    def revoke(self) -> None:
        """From now on no token is good that was given before."""
        with self._lock:
            self._tokens.clear()

    def respond(self, request: Request) -> Reply:
        tenant, _, rest = request.path.lstrip("/").partition("/")
        if rest not in ("v2.0/.well-known/openid-configuration", "oauth2/v2.0/token"):
            return Reply(404)
        if tenant != TENANT:
            text = f"Tenant '{tenant}' not found. Check to make sure you have the correct tenant ID"
            return self._no(400, "invalid_tenant", 90002, text)
        if rest.startswith("v2.0"):
            return self._configuration() if request.method == "GET" else Reply(405)
        if request.method != "POST":
            text = "Endpoint /token only accepts POST requests"
            return self._no(400, "invalid_request", 900561, text)
        return self._token(request)

    def refused(self, fault: Answer) -> Reply:
        error = _ERRORS.get(fault.status, "server_error")
        reply = self._no(fault.status, error, fault.code or 90033, fault.text or "A fault")
        return Reply(fault.status, reply.body, dict(fault.headers))

    def _configuration(self) -> Reply:
        base = f"{self.url}/{TENANT}"
        return Reply(
            200,
            {
                "token_endpoint": f"{base}/oauth2/v2.0/token",
                "token_endpoint_auth_methods_supported": ["client_secret_post"],
                "issuer": f"{base}/v2.0",
                "authorization_endpoint": f"{base}/oauth2/v2.0/authorize",
                "device_authorization_endpoint": f"{base}/oauth2/v2.0/devicecode",
                "jwks_uri": f"{base}/discovery/v2.0/keys",
                "tenant_region_scope": "WW",
            },
        )

    def _token(self, request: Request) -> Reply:
        media = request.headers.get("content-type", "").partition(";")[0].strip()
        pairs = parse_qsl(request.body.decode("ascii", "replace"), keep_blank_values=True)
        form = dict(pairs)
        if media != "application/x-www-form-urlencoded" or len(form) != len(pairs):
            text = "The request body is not a form with each field once"
            return self._no(400, "invalid_request", 9000410, text)
        for field in ("grant_type", "client_id", "scope", "client_secret"):
            if not form.get(field):
                text = f"The request body must contain the following parameter: '{field}'"
                return self._no(400, "invalid_request", 900144, text)
        secret, scope = form.pop("client_secret"), form["scope"]
        self.asked.append(form)
        if form["grant_type"] != "client_credentials":
            text = f"The app requested an unsupported grant type '{form['grant_type']}'"
            return self._no(400, "unsupported_grant_type", 70003, text)
        if form["client_id"] != CLIENT:
            text = f"Application with identifier '{form['client_id']}' was not found in the tenant"
            return self._no(400, "unauthorized_client", 700016, text)
        if not hmac.compare_digest(secret.encode(), self.secret.encode()):
            text = (
                "Invalid client secret provided. Ensure the secret being sent in the request is "
                "the client secret value, not the client secret ID, for a secret added to app "
                f"'{CLIENT}'"
            )
            return self._no(401, "invalid_client", 7000215, text)
        if " " in scope or not scope.endswith("/.default"):
            text = (
                f"The provided value for scope {scope} is not valid. Client credential flows must "
                "have a scope value with /.default suffixed to the resource identifier"
            )
            return self._no(400, "invalid_scope", 1002012, text)
        if scope not in self.scopes:
            text = f"The resource principal named {scope[:-9]} was not found in the tenant"
            return self._no(400, "invalid_resource", 500011, text)
        return Reply(200, self._given(scope), {"Cache-Control": "no-store, no-cache"})

    def _given(self, scope: str) -> dict[str, Any]:
        now = int(time.time())
        claims = {
            "aud": scope.removesuffix("/.default"),
            "appid": CLIENT,
            "tid": TENANT,
            "iat": now,
            "exp": now + self.lifetime,
            "uti": uuid.uuid4().hex,
        }
        token = f"{_packed({'typ': 'JWT', 'alg': 'none'})}.{_packed(claims)}.{self.secret}"
        with self._lock:
            self._tokens[token] = scope, float(claims["exp"])
        return {
            "token_type": "Bearer",
            "expires_in": self.lifetime,
            "ext_expires_in": self.lifetime,
            "access_token": token,
        }

    def _no(self, status: int, error: str, code: int, text: str) -> Reply:
        trace, correlation = str(uuid.uuid4()), str(uuid.uuid4())
        stamp = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M:%SZ")
        described = (
            f"AADSTS{code}: {text}. Trace ID: {trace} Correlation ID: {correlation} "
            f"Timestamp: {stamp}"
        )
        said = {
            "error": error,
            "error_description": described,
            "error_codes": [code],
            "timestamp": stamp,
            "trace_id": trace,
            "correlation_id": correlation,
            "error_uri": f"{self.url}/error?code={code}",
        }
        return Reply(status, said)


def _packed(part: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode()
