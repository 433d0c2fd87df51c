"""Settings as texts by name, to be compared, and a sink's `where` condition by condition."""

from __future__ import annotations

import json
from typing import Any

from pipelines.settings import Settings, SinkEntry
from pipelines.what_if.differences import SHOWN, Hidden, Url, as_text, leaves
from transforms.delivery.line import printable
from transforms.route import Predicate, Where, compile_where
from transforms.secrets import SecretRef

__all__ = ["clauses", "shared_settings", "sink_settings"]


def sink_settings(entry: SinkEntry) -> dict[str, str]:
    """A sink's own."""
    found = {"system": entry.kind}
    if entry.where is not None:
        found["where"] = _words(_said(entry.where))
    return found | dict(leaves(entry.settings, _setting))


def shared_settings(settings: Settings) -> dict[str, str]:
    """But for sinks; where events come from, and are kept, changes nothing here."""
    found = {
        f"{name}{'' if path[:1] in ('', '[') else '.'}{path}": text
        for name in ("subscriptions", "deduplicate", "mask", "digests")
        for path, text in leaves(getattr(settings, name), _setting)
    }
    return found | {
        f"sinks.{entry.name}": f"{entry.kind}, which gets digests"
        for entry in settings.sinks
        if entry.send == "digests"
    }


def _setting(value: Any) -> str | None:
    if value is None:
        return None
    if isinstance(value, SecretRef):
        return Hidden(value)
    text = as_text(value)
    return Url(text) if text.startswith(("http://", "https://")) else text


def clauses(where: Where | None) -> list[tuple[str, Predicate]]:
    """The conditions that must hold, each in words and as a predicate, in the order in which
    `why_not` looks at them."""
    found: list[tuple[str, Predicate]] = []
    for name, field in type(where).model_fields.items() if where else ():
        value = getattr(where, name)
        if name == "all_":
            for each in value or ():
                found += clauses(each)
        elif value is not None:
            key = field.alias or name
            only = Where.model_validate({key: value})
            words = printable(f"where {key}: {_words(_said(only)[key])}", SHOWN)
            found.append((words, compile_where(only)))
    return found


def _said(where: Where) -> dict[str, Any]:
    """As the settings have it."""
    return where.model_dump(mode="json", by_alias=True, exclude_none=True)


def _words(said: Any) -> str:
    return json.dumps(said, ensure_ascii=False).replace('"', "")
