"""What is known of an alert's subscription: its name, owner, environment, tags, group."""

from __future__ import annotations

import csv
import functools
import io
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from schemas.alert import Subscription
from schemas.batch import AlertBatch
from transforms import located
from transforms.subscription_history import History

__all__ = ["SubscriptionsError", "enrich_batch", "enrich_batch_at", "load_subscriptions"]

_GUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")

_SPELLINGS = {  # without case, spaces, "_" and "-"; where several are given, the first wins
    "id": ("subscriptionid", "id"),
    "name": ("displayname", "subscriptionname", "name"),
    "owner": ("owner",),
    "environment": ("environment", "env"),
    "management_group": ("managementgroup", "managementgroupname", "managementgroupid"),
    "tags": ("tags",),
}


class SubscriptionsError(Exception):
    """A subscriptions file that cannot be used; each mistake is a line (from 1) and a sentence."""

    def __init__(self, path: Path, mistakes: list[tuple[int, str]]) -> None:
        super().__init__(path, mistakes)
        self.path = path
        self.mistakes = sorted(mistakes)

    def __str__(self) -> str:
        return "\n".join(f"{self.path}:{line}: {text}" for line, text in self.mistakes)


def load_subscriptions(path: Path | str) -> Mapping[str, Subscription]:
    """The subscriptions in a .yaml, .json or .csv file, by id (lower case).

    A list of mappings, also under `subscriptions` or `value` (as Azure's own listings are), or a
    mapping from id to the rest; in CSV, tags are `key=value;key=value`. What else is in it is
    ignored. Raises SubscriptionsError, with every mistake at once.
    """
    path = Path(path)
    read = {".yaml": _yaml, ".yml": _yaml, ".json": _json, ".csv": _csv}.get(path.suffix.lower())
    if read is None:
        raise SubscriptionsError(path, [(1, "the file's name must end in .yaml, .json or .csv")])
    try:
        rows, line = read(located.decode(path.read_bytes()))
        return _checked(path, rows, line)
    except OSError as error:
        raise SubscriptionsError(path, [(1, f"cannot be read: {error.strerror}")]) from None
    except located.YamlError as error:
        raise SubscriptionsError(path, [(error.place[0], str(error))]) from None


def enrich_batch(
    batch: AlertBatch,
    subscriptions: Mapping[str, Subscription],
    unknown: Callable[[int], object] = lambda count: None,
) -> AlertBatch:
    """The batch, its alerts' `subscription` set in place: nobody else reads them before Enrich.

    unknown: told how many alerts are of a subscription that is not known (and are marked so); an
        alert without a subscription id is not one of them.
    """
    count = 0
    for alert in batch.alerts:
        if name := alert.subscription_id:
            alert.subscription = subscriptions.get(name)
            if alert.subscription is None:
                alert.subscription = Subscription.bare(name)
                count += 1
    if count:
        unknown(count)
    return batch


def enrich_batch_at(
    batch: AlertBatch,
    history: History,
    unknown: Callable[[int], object] = lambda count: None,
    later: Callable[[int], object] = lambda count: None,
) -> AlertBatch:
    """The same, each alert by what was known of its subscription when it happened.

    later: told how many alerts happened before the first snapshot, and so got what that one says,
        or nothing, if it says nothing of theirs.
    """
    count = early = start = stop = 0
    for alert in batch.alerts:
        if name := alert.subscription_id:
            if not start <= alert.event_ms < stop:
                start, stop, subscriptions, is_later = history.span(alert.event_ms)
            found = subscriptions.get(name)
            if found is None:
                found = Subscription.bare(name)
                count += 1
            alert.subscription = found
            if is_later:
                early += 1
    if count:
        unknown(count)
    if early:
        later(early)
    return batch


# Reading the file: each format gives rows by their path in it, and the line where a path begins

_Rows = list[tuple[located.Path, Any]]
_Line = Callable[[located.Path], int]


def _yaml(text: str) -> tuple[_Rows, _Line]:
    document = located.parse(text)
    for _, place, message in document.mistakes:
        raise located.YamlError(message, place)
    return _rows(document.data), lambda path: document.key(path)[0]


def _json(text: str) -> tuple[_Rows, _Line]:
    try:
        rows = _rows(json.loads(text))
    except json.JSONDecodeError as error:
        message = f"not JSON: {error.msg}"
        raise located.YamlError(message, (error.lineno, error.colno)) from None
    except RecursionError:
        raise located.YamlError("nested too deeply") from None
    # JSON is YAML but for tabs, which it has between values only. Slow, so only for a mistake.
    document = functools.cache(lambda: located.parse(text.replace("\t", " ")))
    return rows, lambda path: document().key(path)[0]


def _csv(text: str) -> tuple[_Rows, _Line]:
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    rows: _Rows = []
    begin = 2
    try:
        if not {*map(_plain, reader.fieldnames or ())} & {*_SPELLINGS["id"]}:
            raise located.YamlError("the first line names no column `id`")
        for row in reader:
            rows.append(((begin,), row))
            begin = reader.line_num + 1
    except csv.Error as error:
        raise located.YamlError(f"not CSV: {error}", (begin, 1)) from None
    return rows, lambda path: int(path[0])


def _rows(data: Any) -> _Rows:
    path: located.Path = ()
    for name in ("subscriptions", "value"):
        if isinstance(data, dict) and name in data:
            path, data = (*path, name), data[name]
    if isinstance(data, list):
        return [((*path, i), row) for i, row in enumerate(data)]
    if isinstance(data, dict):
        return [
            ((*path, name), {"id": name, **row} if isinstance(row, dict) else row)
            for name, row in data.items()
        ]
    raise located.YamlError("not a list of subscriptions")


def _checked(path: Path, rows: _Rows, line: _Line) -> dict[str, Subscription]:
    found: dict[str, Subscription] = {}
    places: dict[str, located.Path] = {}
    mistakes: list[tuple[int, str]] = []
    for place, row in rows:
        try:
            subscription = _subscription(row)
        except ValueError as error:
            mistakes.append((line(place), str(error)))
            continue
        first = places.setdefault(subscription.id, place)
        if first is not place:
            text = f"subscription {subscription.id} stands on line {line(first)} already"
            mistakes.append((line(place), text))
        found[subscription.id] = subscription
    if mistakes:
        raise SubscriptionsError(path, mistakes)
    return found


def _subscription(row: Any) -> Subscription:
    if not isinstance(row, dict):
        raise ValueError("not a mapping with an id, a name, …")
    if None in row:
        raise ValueError("more columns than the header has")
    plain = {_plain(key): value for key, value in row.items()}
    fields: dict[str, Any] = {
        field: next((plain[name] for name in names if plain.get(name) not in (None, "")), "")
        for field, names in _SPELLINGS.items()
    }
    tags = _tags(fields.pop("tags"))
    for field, value in fields.items():
        if isinstance(value, dict | list):
            raise ValueError(f"`{field}` must be plain text")
        fields[field] = str(value).strip()
    identity = fields.pop("id").lower().removeprefix("/subscriptions/")
    if not _GUID.fullmatch(identity):
        raise ValueError(f"{identity!r} is no subscription id (a GUID)" if identity else "no id")
    try:
        "".join([*fields.values(), *tags.keys(), *tags.values()]).encode()
    except UnicodeEncodeError:
        raise ValueError("half of a surrogate pair, which no text can hold") from None
    return Subscription(identity, tags=tags, **fields)


def _plain(name: Any) -> str:
    return re.sub(r"[\s_-]", "", str(name)).lower()


def _tags(value: Any) -> dict[str, str]:
    if isinstance(value, str) and value.lstrip().startswith("{"):  # as Azure's CSV exports have it
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise ValueError("`tags` begins as JSON, and is not") from None
    if isinstance(value, str):
        pairs = [pair.partition("=") for pair in value.split(";") if pair.strip()]
        if not all(name.strip() and equals for name, equals, _ in pairs):
            raise ValueError("`tags` must be key=value;key=value")
        value = {name.strip(): text.strip() for name, _, text in pairs}
    if not isinstance(value, dict) or any(isinstance(text, dict | list) for text in value.values()):
        raise ValueError("`tags` must be a mapping from names to plain text")
    return {str(name): "" if text is None else str(text) for name, text in value.items()}
