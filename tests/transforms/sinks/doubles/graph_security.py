"""A consumer of Graph's security alerts behind a webhook: strict about Graph's schema, as generated
clients are, and about Standard Webhooks.

Source: "alert resource type" (learn.microsoft.com, graph/api/resources/security-alert) and Graph's
metadata, as `tests.schemas.formats.test_graph` has them. An enumeration's members are known, but
that what comes from Graph itself may bear a later one ("evolvable enumerations"). Nothing of the
sink's own code is used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from schemas.kinds import KINDS
from tests.schemas.formats.test_graph import ALERT, ENUMERATED, ENUMERATIONS, MOMENT, TIME, check
from tests.transforms.sinks.doubles.base import SECRET, ReceiverDouble, Says
from tests.transforms.sinks.doubles.webhook import Endpoint, Lines, OneAPost

__all__ = ["Consumer", "OneAlert", "Page", "examine"]

_LISTS = ("evidence", "comments", "systemTags", "mitreTechniques", "categories")
_PREFIX = "#microsoft.graph.security."


class Consumer(Endpoint):
    """Takes an alert, or a page of them."""

    def __init__(self, key: bytes | None = None, *, page: bool = False, **options: Any) -> None:
        super().__init__(key, **options)
        self.page = page

    def ids(self) -> list[str]:
        return [record["additionalData"]["event_id"] for record in self.records()]

    def _records(self, body: bytes) -> list[dict[str, Any]]:
        (parsed,) = super()._records(body)
        if self.page:
            if parsed.keys() - {"@odata.context", "@odata.nextLink", "value"}:
                raise ValueError("a page has a value")
            found = parsed["value"]
        else:
            found = [parsed]
        if not isinstance(found, list) or not 0 < len(found) <= 999:
            raise ValueError("a page is a list of alerts")
        for alert in found:
            examine(alert)
        return found


def examine(alert: dict[str, Any]) -> None:
    """Raises ValueError for what is no alert of Graph's."""
    if alert["additionalData"].get("kind") in KINDS.keys() - {"graph_alert"}:
        _strictly(alert)
    else:
        _loosely(alert)


def _strictly(alert: dict[str, Any]) -> None:
    try:
        check(alert)
    except (AssertionError, KeyError) as error:
        raise ValueError(f"not Graph's: {error}") from None


def _loosely(alert: dict[str, Any]) -> None:
    """What Graph wrote, maybe a later one."""
    wrong = [name for name in ("id", "severity", "createdDateTime") if not alert.get(name)]
    if alert["@odata.type"] != f"{_PREFIX}alert":
        wrong.append("@odata.type")
    for name, value in alert.items():
        if value is None or name == "additionalData":
            continue
        if name in ENUMERATED:
            word = value in ENUMERATIONS[name].split() or (value.isascii() and value.isalnum())
            good = word and value[:1].islower()
        elif ALERT.get(name) == TIME:
            good = MOMENT.fullmatch(value) is not None
        elif name in _LISTS:
            good = isinstance(value, list)
        else:
            good = name not in ALERT or isinstance(value, str)
        if not good:
            wrong.append(name)
    for piece in alert.get("evidence") or []:
        if not piece["@odata.type"].startswith(_PREFIX):
            wrong.append("evidence")
    if wrong:
        raise ValueError(f"not Graph's: {', '.join(wrong)}")


class OneAlert(OneAPost):
    kind = "graph_security"
    page: ClassVar[bool] = False
    system = (
        "a double of a consumer, written from Graph's metadata (microsoft.graph.security.alert), "
        "Standard Webhooks 1.0.0 and draft-ietf-httpapi-idempotency-key-header-07"
    )
    lacks: ClassVar[Mapping[str, str]] = {
        **OneAPost.lacks,
        "status codes": "they are said of many records, and here is one: see graph_security_page",
    }

    def __init__(self, folder: Path) -> None:
        ReceiverDouble.__init__(self, folder)
        self.receiver = Consumer(SECRET.encode(), page=self.page).start()

    def settings(self) -> dict[str, Any]:
        url = f"{self.receiver.url}/hook"
        return {"url": url, "secret": "env:SECRET", "batch": "page" if self.page else "one"}


class Page(OneAlert):
    name = "graph_security_page"
    page = True
    table: ClassVar[Sequence[Says]] = Lines.table
    lacks: ClassVar[Mapping[str, str]] = Lines.lacks
    may_repeat: ClassVar[frozenset[str]] = Lines.may_repeat
