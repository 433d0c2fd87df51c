"""Google Security Operations (Chronicle), through the Chronicle API.

Contract: "Method: logs.import", "Log" and "Chronicle API ingestion methods" in Google's reference
(docs.cloud.google.com/chronicle); for sizes and codes, what the outputs of Fluent Bit and Bindplane
keep to; for errors AIP-193 (google.rpc.Status). A request holds logs of one log type, which the
parser goes by, each with its time and the time it was collected, which must be later. It is refused
as a whole, without naming a log unless `fieldViolations` do. A batch that holds what another one
held is not taken again, so that a repeat makes no second log unless it is packed anew; then both
bear the same `alertbeam_id`. 200 means that logs are queued: what their parser makes of them is
told in the console only.

A 400 that names nothing ("Request contains an invalid argument.") is what wrong settings are
answered with as well. So as long as nothing of a log type was taken over a connection, its last log
is sent alone: only if that is taken it is the others that are to blame.

Credentials: google-auth, which is not needed by anything else here.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping, Sequence
from importlib import import_module
from types import SimpleNamespace
from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import urlsplit

import msgspec
from pydantic import Field, StringConstraints, field_validator

from schemas.alert import Alert
from schemas.formats._records import rfc3339
from schemas.formats.stamped import stamped, stamped_within
from schemas.kinds import KINDS
from transforms.delivery.http import (
    HttpConnection,
    HttpSettings,
    Response,
    check_url,
    compress,
    judge,
)
from transforms.delivery.line import printable
from transforms.delivery.network import Deadline
from transforms.secrets import SecretError, SecretRef
from transforms.sinks.base import (
    Accepted,
    Connection,
    Limits,
    Refresh,
    RejectItems,
    Shrink,
    Sink,
    Split,
    Stop,
    Verdict,
)

__all__ = ["GoogleSecops", "GoogleSecopsSettings"]

_SCOPE = "https://www.googleapis.com/auth/cloud-platform"
_QUOTED = 300  # characters of an answer that are repeated
_RECORD_BYTES = 1_334_000  # of a log of 1 MB in base64, the most that Google documents

_LogType = Annotated[str, StringConstraints(pattern=r"^[A-Z0-9_]{1,100}$")]
_LOG_TYPES = {  # by kind, of parsers that read such records; all else is `log_type`
    **dict.fromkeys(("graph_alert", "graph_alert_v1"), "MICROSOFT_GRAPH_ALERT"),
    **dict.fromkeys(("security_incident", "arm_incident"), "MICROSOFT_SENTINEL"),
    "activity_log": "AZURE_ACTIVITY",
    "entra_log": "AZURE_AD",
    "office_activity": "OFFICE_365",
}
_TOO_LARGE = re.compile(r"payload size|(request|log|batch) (is )?(too large|size)", re.IGNORECASE)
_SETTINGS = re.compile(
    r"log.?type|forwarder|\bparent\b|\bproject|\binstance|\blocation|namespace", re.I
)
_LOG = re.compile(r"logs\[(\d+)\]")


class GoogleSecopsSettings(HttpSettings):
    """Google Security Operations, through the Chronicle API."""

    project: str = Field(
        pattern=r"^[a-z0-9][a-z0-9.:-]*$",
        description="The Google Cloud project that the instance is linked to: its id or number.",
    )
    instance: str = Field(
        pattern=r"^[0-9a-fA-F-]{8,64}$",
        description="The instance's id, called customer ID in SIEM Settings → Profile.",
    )
    region: str = Field(
        "us",
        pattern=r"^[a-z0-9-]+$",
        description="Where the instance is: us, eu, europe-west2, asia-southeast1, …",
    )
    credentials: SecretRef | None = Field(
        None,
        description="The JSON key of a service account that may import logs: file:/path or "
        "env:NAME. Without it, Application Default Credentials: the environment's, or those of the "
        "machine that this runs on.",
    )
    log_type: _LogType = Field(
        "MICROSOFT_DEFENDER_CLOUD_ALERTS",
        description="The log type, which decides on the parser; for kinds of which neither "
        "`log_types` nor alertbeam knows one.",
    )
    log_types: dict[str, _LogType] = Field(
        {},
        description="Log types by kind: {windows_event: WINEVTLOG}. Known without it: "
        + ", ".join(f"{kind}: {known}" for kind, known in _LOG_TYPES.items())
        + ".",
    )
    namespace: str = Field(
        "",
        pattern=r"^[ -~]{0,100}$",
        description="The namespace that tells apart assets of the same name or address.",
    )
    labels: dict[Annotated[str, StringConstraints(pattern=r"^[\w.-]{1,100}$")], str] = Field(
        {}, max_length=20, description="Ingestion labels that every log gets: {tenant: contoso}."
    )
    forwarder: str = Field(
        "",
        pattern=r"^[\w-]*$",
        description="The id of a forwarder that logs are said to come from; the API needs none.",
    )
    url: str = Field(
        "",
        description="Another endpoint than https://{region}-chronicle.googleapis.com, a private "
        "one or https://chronicle.{region}.rep.googleapis.com.",
    )
    api_version: Literal["v1", "v1beta", "v1alpha"] = Field(
        "v1", description="The version of the Chronicle API."
    )
    max_bytes: int = Field(
        1_000_000,
        ge=10_000,
        le=4_000_000,
        description="Bytes of one request, before compression; Google takes 4 MB.",
    )

    @field_validator("url")
    @classmethod
    def _check_url(cls, url: str) -> str:
        if url and urlsplit(check_url(url, path="")).path.strip("/"):
            raise ValueError("an endpoint has no path: https://us-chronicle.googleapis.com")
        return url.rstrip("/")

    @field_validator("log_types")
    @classmethod
    def _check_kinds(cls, types: dict[str, str]) -> dict[str, str]:
        for kind in types:
            if kind not in KINDS and kind != "unknown":
                raise ValueError(f"there is no kind {kind!r}: docs/kinds has them all")
        return types


class GoogleSecops(Sink[GoogleSecopsSettings]):
    """One instance."""

    kind = "google_secops"
    Settings = GoogleSecopsSettings
    example: ClassVar = {
        "project": "contoso-secops",
        "instance": "00000000-0000-4000-8000-000000000000",
        "region": "eu",
        "credentials": "file:/etc/alertbeam/google-key.json",
    }

    @property
    def limits(self) -> Limits:
        around = len(b"".join(_envelope(self.settings)))
        return Limits(self.settings.max_bytes - around, max_record_bytes=_RECORD_BYTES)

    def encode(self, alert: Alert, source: str, partition: str) -> bytes:
        """The log type, a blank, and the log: the type is said in a request's path."""
        return self._log(alert, stamped(alert))

    def shrink(self, alert: Alert, source: str, partition: str, most: int) -> bytes | None:
        room = (most - len(self._log(alert, b"")) - 4) * 3 // 4  # of base64
        try:
            return self._log(alert, stamped_within(alert, room))
        except ValueError:
            return None

    def _log(self, alert: Alert, data: bytes) -> bytes:
        settings = self.settings
        known = settings.log_types.get(alert.kind) or _LOG_TYPES.get(alert.kind)
        at = alert.event_ms or alert.enqueued_ms or 1
        log: dict[str, Any] = {
            "data": base64.b64encode(data).decode(),
            "logEntryTime": rfc3339(at),
            "collectionTime": rfc3339(max(alert.enqueued_ms, at + 1)),
        }
        if settings.namespace:
            log["environmentNamespace"] = settings.namespace
        if settings.labels:
            log["labels"] = {name: {"value": text} for name, text in settings.labels.items()}
        return f"{known or settings.log_type} ".encode() + msgspec.json.encode(log)

    def connect(self) -> Connection:
        return _Instance(self.settings)

    def probe(self, timeout: float) -> None:
        self.check(timeout)

    def check(self, timeout: float) -> str:
        instance = _Instance(self.settings)
        try:
            return instance.ask(timeout)
        finally:
            instance.close()

    @property
    def target(self) -> str:
        settings = self.settings
        return f"{_endpoint(settings)}, instance {settings.instance} of {settings.project}"

    def find(self, event_id: str) -> str:
        return f'raw log search: raw = "{event_id}"'


def _endpoint(settings: GoogleSecopsSettings) -> str:
    return settings.url or f"https://{settings.region}-chronicle.googleapis.com"


def _parent(settings: GoogleSecopsSettings) -> str:
    return f"projects/{settings.project}/locations/{settings.region}/instances/{settings.instance}"


def _envelope(settings: GoogleSecopsSettings) -> tuple[bytes, bytes]:
    """What stands before a request's logs, and after them."""
    start = b'{"inlineSource":{'
    if settings.forwarder:
        start += f'"forwarder":"{_parent(settings)}/forwarders/{settings.forwarder}",'.encode()
    return start + b'"logs":[', b"]}}"


class _Instance(Connection):
    def __init__(self, settings: GoogleSecopsSettings) -> None:
        self._gzip = settings.gzip
        self._path = f"/{settings.api_version}/{_parent(settings)}"
        self._start, self._end = _envelope(settings)
        self._bearer = _Bearer(settings)
        self._http = HttpConnection(
            _endpoint(settings), settings, {"Content-Type": "application/json"}
        )
        self._taken: set[str] = set()  # log types of which something was

    def send(self, payloads: Sequence[bytes], timeout: float) -> Verdict:
        """One request for each log type in it, as a rule one; after a failure no more."""
        deadline = Deadline(timeout)
        logs: dict[str, list[int]] = {}
        for at, payload in enumerate(payloads):
            logs.setdefault(payload[: payload.index(b" ")].decode(), []).append(at)
        untaken = {*range(len(payloads))}
        verdict: Verdict = Accepted()
        for log_type, positions in logs.items():
            try:
                verdict = self._import(log_type, [payloads[at] for at in positions], deadline)
            except OSError:
                if len(untaken) == len(payloads):
                    raise
                return RejectItems({}, taken=True, again=untaken)
            if not isinstance(verdict, Accepted):
                return _of_all(verdict, positions, untaken, len(payloads))
            untaken.difference_update(positions)
        return verdict

    def ask(self, timeout: float) -> str:
        """Ask for the instance. Raises OSError or SecretError unless it, or this account, is known.

        An account that may only import logs may not see it; that it is refused with 403.
        """
        response, said = self._request("GET", self._path, b"", Deadline(timeout))
        only = "whether it may import logs is told only of logs"
        if response.status == 200:
            return f"the instance is there, and the credentials are accepted; {only}"
        if response.status == 403 and _status(response) == "PERMISSION_DENIED":
            return f"the credentials are known; they may not see the instance; {only}"
        raise ConnectionError(said)

    def close(self) -> None:
        self._http.close()

    def _import(self, log_type: str, payloads: Sequence[bytes], deadline: Deadline) -> Verdict:
        """What becomes of logs of one type."""
        skipped = len(log_type) + 1
        logs = b",".join(payload[skipped:] for payload in payloads)
        path = f"{self._path}/logTypes/{log_type}/logs:import"
        try:
            response, said = self._request("POST", path, self._start + logs + self._end, deadline)
        except SecretError as error:
            return Refresh(str(error))
        if response.status == 200:
            self._taken.add(log_type)
            return Accepted(said=said)
        if 200 < response.status < 300:
            return Stop(said)
        if response.status != 400:
            return judge(response, said)
        named, elsewhere = _violations(response, len(payloads))
        if named and not elsewhere:
            return RejectItems(dict.fromkeys(named, said), taken=False)
        if _TOO_LARGE.search(said):
            return Shrink(said)
        if elsewhere or _SETTINGS.search(_message(response)):
            return Stop(said)
        if log_type in self._taken:
            return Split(said)
        if len(payloads) == 1:
            return Stop(f"{said}: no log of type {log_type} was taken yet: are the settings right?")
        verdict = self._import(log_type, payloads[-1:], deadline)
        if isinstance(verdict, Accepted):
            return RejectItems({}, taken=True, again=range(len(payloads) - 1))
        return Split(said) if isinstance(verdict, RejectItems) else verdict

    def _request(
        self, method: str, path: str, body: bytes, deadline: Deadline
    ) -> tuple[Response, str]:
        """The answer, and what it says in a line without the token."""
        headers = {"Authorization": self._bearer.header(deadline)}
        if body and self._gzip:
            headers["Content-Encoding"] = "gzip"
            body = compress(body)
        response = self._http.request(method, path, body, headers, deadline.left())
        told = _message(response) or response.reason
        status = _status(response)
        said = f"HTTP {response.status}: {f'{status}: ' if status else ''}{told}"
        return response, printable(self._bearer.hide(said), _QUOTED)


def _of_all(verdict: Verdict, positions: list[int], untaken: set[int], count: int) -> Verdict:
    """A verdict on the records at these positions, as one on all of a request."""
    if len(positions) == count:
        return verdict
    if not isinstance(verdict, RejectItems):
        return verdict if len(untaken) == count else RejectItems({}, taken=True, again=untaken)
    refused = {positions[at]: why for at, why in verdict.reasons.items()}
    again = untaken - refused.keys()
    if verdict.taken:
        again -= {*positions} - {positions[at] for at in verdict.again}
    return RejectItems(refused, taken=True, again=again)


def _error(response: Response) -> Mapping[str, Any]:
    """The google.rpc.Status that an answer holds; empty where something else speaks."""
    try:
        answer = json.loads(response.body)
    except (ValueError, RecursionError):
        return {}
    if isinstance(answer, list) and answer:  # as some of Google's front ends say it
        answer = answer[0]
    error = answer.get("error") if isinstance(answer, dict) else None
    return error if isinstance(error, dict) else {}


def _message(response: Response) -> str:
    return str(_error(response).get("message") or "")


def _status(response: Response) -> str:
    return str(_error(response).get("status") or "")


def _violations(response: Response, count: int) -> tuple[list[int], bool]:
    """The logs that an error names, and whether it names something else."""
    named, elsewhere = set(), False
    details = _error(response).get("details")
    for detail in details if isinstance(details, list) else ():
        violations = detail.get("fieldViolations") if isinstance(detail, dict) else None
        for violation in violations if isinstance(violations, list) else ():
            field = str(violation.get("field")) if isinstance(violation, dict) else ""
            found = _LOG.search(field)
            if found and int(found[1]) < count:
                named.add(int(found[1]))
            else:
                elsewhere = True
    return sorted(named), elsewhere


class _Bearer:
    """The token that requests bear; it belongs to one connection."""

    def __init__(self, settings: GoogleSecopsSettings) -> None:
        """Raises SecretError."""
        self._transport = _Transport(settings)
        try:
            self._errors: Any = import_module("google.auth.exceptions")
            account: Any = import_module("google.oauth2.service_account")
        except ModuleNotFoundError:
            raise SecretError(
                "Google's credentials need a package: pip install google-auth"
            ) from None
        if settings.credentials is None:
            try:
                google: Any = import_module("google.auth")
                self._credentials, _ = google.default(scopes=[_SCOPE])
            except self._errors.DefaultCredentialsError:
                raise SecretError(
                    "there are no Application Default Credentials: give `credentials`"
                ) from None
            return
        try:
            key = json.loads(settings.credentials.resolve().reveal())
            check_url(key["token_uri"], path="/")
            self._credentials = account.Credentials.from_service_account_info(key, scopes=[_SCOPE])
        except (ValueError, TypeError, KeyError, RecursionError):
            raise SecretError(
                f"{settings.credentials}: it is not the JSON key of a service account"
            ) from None

    def header(self, deadline: Deadline) -> str:
        """The value of `Authorization`. Raises SecretError where Google refuses, or OSError."""
        if not self._credentials.valid:
            self._transport.deadline = deadline
            try:
                self._credentials.refresh(self._transport)
            except self._errors.TransportError as error:
                raise ConnectionError(f"no token: {_first(error)}") from None
            except self._errors.GoogleAuthError as error:
                raise SecretError(f"Google gives no token: {_first(error)}") from None
            except (TypeError, ValueError, AttributeError):
                raise ConnectionError("no token: what answers is not Google") from None
        return f"Bearer {self._credentials.token}"

    def hide(self, text: str) -> str:
        token = self._credentials.token
        return text.replace(token, "***") if token else text


def _first(error: Exception) -> str:
    """What it says; what follows may be the whole answer."""
    return printable(str(error.args[0]) if error.args else type(error).__name__, _QUOTED)


class _Transport:
    """google-auth's way to whoever gives tokens: it ends with the request that needs one.

    google-auth itself would repeat what failed, for seconds; here the engine does.
    """

    def __init__(self, settings: GoogleSecopsSettings) -> None:
        # It has another name than the API.
        tls = settings.tls.model_copy(update={"server_name": None})
        self._settings = settings.model_copy(update={"tls": tls})
        self.deadline = Deadline(settings.timeout)

    def __call__(
        self,
        url: str,
        method: str = "GET",
        body: bytes | str | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
        **_: Any,
    ) -> SimpleNamespace:
        parts = urlsplit(url)
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        said = body.encode() if isinstance(body, str) else body or b""
        http = HttpConnection(f"{parts.scheme}://{parts.netloc}", self._settings, {})
        try:
            response = http.request(method, path, said, headers or {}, self.deadline.left())
        finally:
            http.close()
        if response.status in (408, 429) or response.status >= 500:
            raise ConnectionError(f"no token: {parts.hostname} answers HTTP {response.status}")
        return SimpleNamespace(
            status=response.status, headers=dict(response.headers), data=response.body
        )
