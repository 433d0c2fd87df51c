"""Makes `docs/kinds/`, `docs/formats.md`, and what of `docs/sinks/` comes from the code.

    python -m tests.docs

Where a field comes from is not written down anywhere but in the code that reads it. So it is
found out: each value of a kind's example is changed and taken away, and what of the understood
record then differs came from there. What is read only where that is missing is found by looking
again without it.
"""

from __future__ import annotations

import copy
import functools
import inspect
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from schemas.formats import FORMATS, Format
from schemas.kinds import KINDS, details, understand
from tests import sink_docs
from tests.examples import EXAMPLES, encoded

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"

FIELDS = {
    "entity": "identity",
    "version": "version",
    "event_ms": "event time",
    "start_ms": "activity from",
    "end_ms": "activity to",
    "title": "title",
    "description": "description",
    "severity": "severity",
    "status": "status",
    "subscription_id": "subscription",
    "resource_ids": "resource ids",
    "resource": "resource",
    "tactics": "tactics",
    "techniques": "techniques",
    "product": "product",
    "vendor": "vendor",
    "alert_type": "alert type",
    "link": "link",
}
DETAILS = ("hosts", "users", "ips", "urls", "hashes", "action", "outcome", "related")

_REPLAY = "replayed"
_ROUNDS = 4
_JSON = "≫"  # in a path: what follows stands in a string of JSON
Path_ = tuple[Any, ...]


def leaves(value: Any, at: Path_ = ()) -> Iterator[Path_]:
    """The path of every value that holds no others; strings of JSON are looked into."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from leaves(inner, (*at, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from leaves(inner, (*at, index))
    elif isinstance(value, str) and (inside := _json(value)) is not None:
        yield from leaves(inside, (*at, _JSON))
    elif value is not None:
        yield at


def _json(text: str) -> Any:
    if text[:1] in ("{", "["):
        try:
            return json.loads(text)
        except ValueError:
            return None
    return None


_TAKEN = object()


def changed(value: Any, at: Path_, new: Any) -> Any:
    """A copy with another value at a path, or without it (`_TAKEN`)."""
    if not at:
        return new
    step, rest = at[0], at[1:]
    if step == _JSON:
        return json.dumps(changed(json.loads(value), rest, new))
    result = copy.copy(value)
    if rest or new is not _TAKEN:
        result[step] = changed(value[step], rest, new)
    elif isinstance(result, dict):
        del result[step]
    else:
        result[step] = None  # places in a list are paths to the others
    return result


def _value(value: Any, at: Path_) -> Any:
    for step in at:
        value = json.loads(value) if step == _JSON else value[step]
    return value


def _others(value: Any) -> list[Any]:
    """Values like this one, but others."""
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int | float):
        return [value + 1]
    guid = re.sub(r"[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-", "deadbeef-dead-", value)
    address = re.sub(r"\d{1,3}(\.\d{1,3}){3}", "192.0.2.99", value)
    return [value + "x", "x" + value, guid, address]


def seen(record: Any) -> dict[str, Any]:
    """Everything that a record is understood as."""
    alert = understand(encoded(record))
    found = details(alert)
    return {
        "kind": alert.kind,
        **{name: getattr(alert, field) for field, name in FIELDS.items()},
        **{name: getattr(found, name) for name in DETAILS},
        **found.attributes,
    }


def sources(record: dict[str, Any]) -> dict[str, list[str]]:
    """Field → where it comes from, the first choice first: `AlertSeverity`, `Entities[].Name`."""
    found: dict[str, list[str]] = {}
    for name, value in seen(record).items():
        if name != "kind" and value and value != "unknown":
            found[name] = list(_sources(record, name)) or [_unfound(record, name, value)]
    return found


def _unfound(record: Any, name: str, value: Any) -> str:
    """Where changing one value of the record made no difference."""
    if name in ("product", "vendor"):
        return f"always {value}"
    if "message" in record and len(record) < 4:
        return "`message`"  # a line of text: without it, the record is of another kind
    holding = [
        path
        for path in leaves(record)
        if any(text.lower() in str(_value(record, path)).lower() for text in _texts(value))
    ]
    return ", ".join(_shown(holding)) if 0 < len(holding) < 4 else "several fields together"


def _sources(record: dict[str, Any], name: str) -> Iterator[str]:
    for _ in range(_ROUNDS):
        before = seen(record)
        if not before.get(name):
            return
        others = _changed_somewhere(encoded(record))
        from_ = [
            path
            for path, afters in others.items()
            if any(
                after["kind"] == before["kind"] and after.get(name) != before[name]
                for after in afters
            )
        ]
        if not from_:
            same = [path for path in others if str(_value(record, path)) in _texts(before[name])]
            if not same or not _matter_together(record, same, name, before):
                return
            from_ = same
        if len(from_) > max(6, len(others) * 0.7):
            parts = [p for p in from_ if str(_value(record, p)) in str(before[name]).split()]
            yield ", ".join([*_shown(parts), "a hash of the whole record"])
            return
        yield ", ".join(_shown(from_))
        for path in from_:
            record = changed(record, path, _TAKEN)


def _texts(value: Any) -> list[str]:
    return [str(each) for each in value] if isinstance(value, tuple) else [str(value)]


def _matter_together(record: Any, paths: list[Path_], name: str, before: dict[str, Any]) -> bool:
    """Whether taking all of these away, which say the same, makes a difference."""
    for path in paths:
        record = changed(record, path, _TAKEN)
    after = seen(record)
    return bool(after["kind"] == before["kind"] and after.get(name) != before[name])


@functools.lru_cache(256)
def _changed_somewhere(raw: bytes) -> dict[Path_, list[dict[str, Any]]]:
    """By path, what a record is understood as with other values there, and with none."""
    record = json.loads(raw)
    return {
        path: [seen(changed(record, path, new)) for new in (*_others(_value(record, path)), _TAKEN)]
        for path in leaves(record)
    }


def _shown(paths: list[Path_]) -> list[str]:
    """Paths for people, each once: places in lists are `[]`."""
    texts = []
    for path in paths:
        text = ""
        for step in path:
            if isinstance(step, int):
                text += "[]"
            elif step == _JSON:
                text += ""
            else:
                text += f".{step}" if text else step
        texts.append(f"`{text}`")
    return list(dict.fromkeys(texts))


def kind_page(name: str) -> str:
    kind = KINDS[name]
    module = sys.modules[kind.read.__module__]
    doc = inspect.cleandoc(module.__doc__ or "")
    head, _, rest = doc.partition("\n")
    lines = [f"# `{name}`", "", head, rest, "", f"**Told by:** {kind.told_by}.", ""]
    if kind.general:
        lines += ["Asked only when no other kind wants a record.", ""]
    lines += ["| field | comes from |", "|---|---|"]
    for field, froms in sources(EXAMPLES[name].record()).items():
        lines.append(f"| {field} | {'; else '.join(froms)} |")
    return "\n".join(lines) + "\n"


def index_page() -> str:
    lines = [
        "# Kinds of event",
        "",
        "What alertbeam tells apart, one file each in `schemas/kinds/`. These pages are made from",
        "the code: `python -m tests.docs`.",
        "",
        "| kind | told by |",
        "|---|---|",
    ]
    for name, kind in KINDS.items():
        shown = f"[{name}]({name}.md)" if name in EXAMPLES else name
        lines.append(f"| {shown} | {kind.told_by} |")
    return "\n".join(lines) + "\n"


def formats_page() -> str:
    lines = [
        "# Formats",
        "",
        "How alertbeam can write an alert, one file each in `schemas/formats/`; the mapping stands",
        "in the file. `alertbeam explain FILE --as FORMAT` shows any event in any of them. Made by",
        "`python -m tests.docs` from the code.",
        "",
        "| format | written from | does not get through | what is too long | a replay's name |",
        "|---|---|---|---|---|",
    ]
    for name, form in sorted(FORMATS.items()):
        limit = f" ({form.max_bytes:,} bytes)" if form.max_bytes else ""
        told = (form.standard, form.drops, form.shortens + limit, replay_mark(form))
        lines.append(f"| `{name}` | {' | '.join(told)} |")
    return "\n".join(lines) + "\n"


def replay_mark(form: Format) -> str:
    """Where a format says that an alert was replayed: where the replay's name turns up."""
    alert = understand(encoded(EXAMPLES["defender_alert"].record()))
    text = form.say(msgspec.structs.replace(alert, replay=_REPLAY)).decode()
    if form.media_type != "application/json":
        return ", ".join(f"`{key}`" for key in re.findall(rf'(\w+)="?{_REPLAY}', text))
    said = json.loads(text)
    marked = [path for path in leaves(said) if _REPLAY in str(_value(said, path))]
    return ", ".join(_shown(marked)) or "nowhere"


def pages() -> dict[str, str]:
    """Every page by its path below `docs`."""
    found = {f"kinds/{name}.md": kind_page(name) for name in KINDS if name in EXAMPLES}
    found |= {f"sinks/{name}": text for name, text in sink_docs.pages().items()}
    return {**found, "kinds/README.md": index_page(), "formats.md": formats_page()}


if __name__ == "__main__":
    (DOCS / "kinds").mkdir(exist_ok=True)
    made = pages()
    for old in (DOCS / "kinds").glob("*.md"):
        if f"kinds/{old.name}" not in made:
            old.unlink()
    for page, text in made.items():
        (DOCS / page).write_text(text, encoding="utf-8")
    print(f"{len(made)} pages")
