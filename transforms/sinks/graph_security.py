"""Consumers of the Graph Security API: alerts as Graph has them, POSTed to a signed webhook.

Source: "alert resource type" (learn.microsoft.com, graph/api/resources/security-alert): what
`GET /security/alerts_v2` answers with, an alert or a page of them (`value`). Of the vendors that
Microsoft lists as consumers none documents an endpoint to push to; what takes these requests is
theirs or yours, and verifies them as any webhook: `transforms.sinks.webhook`.

Each alert has `additionalData.event_id`, stable for this version of it; what came from Graph is
otherwise as it came. A record of Graph's that breaks Graph's own schema is said anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

import msgspec
from pydantic import Field, model_validator

from schemas.alert import Alert
from schemas.formats.graph import graph
from transforms.delivery.http import HttpSettings
from transforms.sinks.base import Connection, Limits, Sink
from transforms.sinks.webhook import (
    Address,
    Endpoint,
    Form,
    Headers,
    SecretAddress,
    Signing,
    Webhook,
    WebhookSettings,
)

__all__ = ["GraphSecurity", "GraphSecuritySettings"]

_TYPE = "#microsoft.graph.security."
_FORMS = {
    "one": Form("application/json"),
    "page": Form("application/json", b'{"value":[', b",", b"]}"),
}
_encode = msgspec.json.Encoder().encode


class GraphSecuritySettings(HttpSettings):
    """Anomali, Lookout, InSpark and others: Graph's security alerts, to a signed webhook."""

    url: Address = ""
    secret_url: SecretAddress = None
    secret: Signing = None
    headers: Headers = Field({})
    batch: Literal["one", "page"] = Field(
        "one",
        description="What a request holds. `one`: an alert; `page`: several, as a page of Graph's, "
        '{"value": […]}.',
    )
    max_records: int = Field(100, ge=1, le=999, description="Alerts in one page.")
    max_bytes: int = Field(
        1_000_000, ge=1_000, description="Bytes of one request, before compression."
    )
    gzip: bool = Field(
        False, description="Compress requests; many endpoints do not take what is compressed."
    )

    @model_validator(mode="after")
    def _fit(self) -> GraphSecuritySettings:
        _ = self.hook
        return self

    @property
    def hook(self) -> WebhookSettings:
        """The same as a webhook's. Raises ValueError."""
        given = {name: getattr(self, name) for name in type(self).model_fields if name != "batch"}
        return WebhookSettings(**given, format="graph")


class GraphSecurity(Sink[GraphSecuritySettings]):
    """One consumer's endpoint."""

    kind = "graph_security"
    Settings = GraphSecuritySettings
    example: ClassVar = {"url": "https://intake.example.com/graph", "secret": "env:GRAPH_SIGNING"}

    @property
    def limits(self) -> Limits:
        settings = self.settings
        frame = len(self._form.before) + len(self._form.after)
        most = settings.max_records if settings.batch == "page" else 1
        return Limits(settings.max_bytes - frame, most)

    def encode(self, alert: Alert, source: str, partition: str) -> bytes:
        return _encode(_alert(alert))

    def shrink(self, alert: Alert, source: str, partition: str, most: int) -> bytes | None:
        """Without evidence and details: its ids, what it is, and as much of the text as fits."""
        whole = _alert(alert)
        kept = {name: whole[name] for name in _KEPT if name in whole}
        kept |= {name: [] for name in _LISTS}
        kind = whole["additionalData"].get("kind")
        more = {"kind": kind} if kind and isinstance(kind, str) else {}
        kept["additionalData"] = _told(alert, {**more, "shortened": "true"})
        for longest in (4_096, 1_024, 256, 64, 0):
            said = _encode(kept | {name: _cut(whole.get(name), longest) for name in _TEXTS})
            if len(said) <= most:
                return said
        return None

    def connect(self) -> Connection:
        return Endpoint(self.settings.hook, self._form)

    def probe(self, timeout: float) -> None:
        self._webhook.probe(timeout)

    def check(self, timeout: float) -> str:
        return self._webhook.check(timeout)

    @property
    def target(self) -> str:
        return self._webhook.target

    def find(self, event_id: str) -> str:
        return f'look for an alert whose additionalData has "event_id": "{event_id}"'

    @property
    def _form(self) -> Form:
        return _FORMS[self.settings.batch]

    @property
    def _webhook(self) -> Webhook:
        return Webhook(self.name, self.settings.hook)


# An enumeration of Graph's may have a member more one day.
_Word = Annotated[str, msgspec.Meta(pattern=r"^[a-z][A-Za-z0-9]{0,63}\Z")]


_Time = Annotated[str, msgspec.Meta(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?Z\Z")]


class _Evidence(msgspec.Struct):
    kind: Annotated[
        str, msgspec.Meta(pattern=r"^#microsoft\.graph\.security\.\w{1,64}Evidence\Z")
    ] = msgspec.field(name="@odata.type")
    verdict: _Word | None = None
    remediationStatus: _Word | None = None
    createdDateTime: _Time | None = None
    roles: list[_Word] | None = None
    detailedRoles: list[str] | None = None
    tags: list[str] | None = None


# What the schema says of an alert, as far as consumers break where it is not so.
_Graph = msgspec.defstruct(
    "_Graph",
    [
        ("id", Annotated[str, msgspec.Meta(min_length=1)]),
        *((name, _Word) for name in ("severity", "status")),
        ("createdDateTime", _Time),
        *(
            (name, kind | None, None)
            for kind, names in (
                (_Word, "serviceSource detectionSource classification determination"),
                (
                    str,
                    "title description category providerAlertId incidentId tenantId assignedTo "
                    "alertWebUrl incidentWebUrl productName recommendedActions detectorId "
                    "alertPolicyId actorDisplayName threatDisplayName threatFamilyName",
                ),
                (
                    _Time,
                    "firstActivityDateTime lastActivityDateTime lastUpdateDateTime "
                    "resolvedDateTime",
                ),
                (list[str], "mitreTechniques categories systemTags"),
                (list[dict[str, Any]], "comments"),
                (list[_Evidence], "evidence"),
                (dict[str, Any], "additionalData"),
            )
            for name in names.split()
        ),
    ],
)
_LISTS = ("evidence", "mitreTechniques", "categories", "comments", "systemTags")
_TEXTS = ("title", "description")
_KEPT = (
    *("@odata.type", "id", "providerAlertId", "severity", "status", "createdDateTime"),
    *("lastUpdateDateTime", "serviceSource", "detectionSource", "classification", "determination"),
)
_read = msgspec.json.Decoder(dict[str, Any]).decode


def _alert(alert: Alert) -> dict[str, Any]:
    made = _from_graph(alert) if alert.kind == "graph_alert" else None
    if made is None:
        kind = "unknown" if alert.kind == "graph_alert" else alert.kind
        made = _read(graph(msgspec.structs.replace(alert, kind=kind)))
    made["@odata.type"] = f"{_TYPE}alert"
    made["additionalData"] = _told(alert, made.get("additionalData") or {})
    return made


def _from_graph(alert: Alert) -> dict[str, Any] | None:
    """As it came, if it is as the schema wants it."""
    try:
        made = _read(alert.raw)
        msgspec.convert(made, _Graph)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    return made


def _told(alert: Alert, more: Mapping[str, Any]) -> dict[str, Any]:
    return {"@odata.type": f"{_TYPE}dictionary", **more, "event_id": alert.event_id}


def _cut(text: Any, longest: int) -> str:
    return text[:longest] if isinstance(text, str) else ""
