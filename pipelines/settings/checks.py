"""From a file to settings, or to every mistake in it at once, each with its line and column."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import functools
import os
import re
import types
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin
from urllib.parse import unquote, urlsplit

from pydantic import BaseModel, ValidationError

from pipelines.settings.models import Settings, endpoint
from transforms import located
from transforms.delivery.network import PemFile, Tls
from transforms.enrich import SubscriptionsError, load_subscriptions
from transforms.secrets import SecretError, SecretRef
from transforms.sinks.base import sinks

__all__ = ["Mistake", "SettingsError", "json_schema", "load"]


@dataclasses.dataclass(frozen=True, order=True)
class Mistake:
    """One thing that is wrong, at a line and column (from 1); `nearest` is what may be meant.

    where: the dotted path to it, `sinks[0].splunk_hec.token`, or "" for the file as a whole.
    """

    line: int
    column: int
    where: str
    message: str
    nearest: str | None = None

    def __str__(self) -> str:
        meant = f'; did you mean "{self.nearest}"?' if self.nearest else ""
        where = f"{self.where}: " if self.where else ""
        return f"{self.line}:{self.column}: {where}{self.message}{meant}"


class SettingsError(Exception):
    """Settings that cannot be used: all their mistakes, by line. Its text never quotes a value."""

    exit_code = 2

    def __init__(self, path: Path, mistakes: Iterable[Mistake]) -> None:
        self.path = path
        self.mistakes = sorted({*mistakes}, key=lambda mistake: dataclasses.astuple(mistake)[:4])
        super().__init__(path, self.mistakes)

    def __str__(self) -> str:
        return "\n".join(f"{self.path}:{mistake}" for mistake in self.mistakes)


def load(path: Path | str, model: type[Settings] = Settings) -> Settings:
    """The settings in a YAML file, ready to run: its secrets and files exist, and so does the
    state folder (made if need be, for its owner alone). Relative paths in it are relative to it.

    model: `HistorySettings` where no source is needed. Raises SettingsError.
    """
    path = Path(path)
    try:
        document = located.parse(located.decode(path.read_bytes()))
    except located.YamlError as error:
        raise SettingsError(path, [Mistake(*error.place, "", str(error))]) from None
    except OSError as error:
        message = f"cannot be read: {error.strerror}"
        raise SettingsError(path, [Mistake(1, 1, "", message)]) from None
    if document.data is None:
        raise SettingsError(path, [Mistake(1, 1, "", "the file is empty")])

    mistakes = [Mistake(*place, _dotted(at), text) for at, place, text in document.mistakes]
    broken = {mistake.where for mistake in mistakes}
    for at, message in [
        *_anchor(document.data, path.absolute().parent),
        *_across(document.data),
        *_outside(document.data),
    ]:
        if _dotted(at) not in broken:
            mistakes.append(Mistake(*document.value(at), _dotted(at), message))
    told = {mistake.where for mistake in mistakes}
    try:
        settings = model.model_validate(document.data)
    except ValidationError as error:
        found = _mistakes(error, document)
        mistakes += [mistake for mistake in found if mistake.where not in told]
    else:
        for at, message in _together(settings):
            if not any(where.startswith(_dotted(at)) for where in told):
                mistakes.append(Mistake(*document.value(at), _dotted(at), message))
    if mistakes:
        raise SettingsError(path, mistakes)
    try:
        settings.state.mkdir(mode=0o700, exist_ok=True)
    except (OSError, ValueError) as error:
        message = f"cannot be made: {getattr(error, 'strerror', None) or error}"
        place = document.value(("state",))
        raise SettingsError(path, [Mistake(*place, "state", message)]) from None
    return settings


def json_schema() -> dict[str, Any]:
    """The JSON Schema of a settings file, for editors."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **_plainer(Settings.model_json_schema(by_alias=True)),
        "title": "Settings of alertbeam",
    }


def _plainer(schema: Any) -> Any:
    """Without null, which no key may be, and without titles that only repeat the key."""
    if isinstance(schema, list):
        return [_plainer(item) for item in schema if item != {"type": "null"}]
    if not isinstance(schema, dict):
        return schema
    plain = {
        key: _plainer(value)
        for key, value in schema.items()
        if not (key == "title" and isinstance(value, str)) and (key, value) != ("default", None)
    }
    if len(arms := plain.get("anyOf", ())) == 1:
        plain = {**arms[0], **{key: value for key, value in plain.items() if key != "anyOf"}}
    return plain


# What the models cannot see. Each check yields (path, message), whatever else is wrong.


def _anchor(data: Any, folder: Path) -> Iterator[tuple[located.Path, str]]:
    """Make the paths in `data` absolute, in place; tell of missing secrets and empty values."""
    for path, value, put in _leaves(data):
        hints = _types_at(path)
        types_here = [kind for kind in hints if isinstance(kind, type)]
        if value is None:
            yield path, "is empty: give a value, or leave the key out"
        elif not isinstance(value, str):
            continue
        elif PemFile in hints or any(issubclass(kind, Path) for kind in types_here):
            if value.startswith("file:"):
                value = unquote(urlsplit(value).path)
            if value and not re.match(r"\w{2,}:", value):
                value = str(folder / Path(value).expanduser())
                put(value)
                if PemFile in hints and not Path(value).is_file():
                    yield path, f"there is no such file: {value}"
        elif any(issubclass(kind, SecretRef) for kind in types_here):
            scheme, _, place = value.partition(":")
            if scheme not in SecretRef.schemes or not place:
                continue  # the type itself refuses it
            reference = SecretRef(f"file:{folder / place}" if scheme == "file" else value)
            put(str(reference))
            try:
                hub = path[-2:] == ("event_hubs", "connection_string")
                (endpoint if hub else SecretRef.resolve)(reference)
            except SecretError as error:
                yield path, str(error)


def _across(data: Any) -> Iterator[tuple[located.Path, str]]:
    """What only two places together can tell."""
    for section, what in (("sinks", "sink"), ("digests", "digest")):
        seen: dict[str, int] = {}
        for i, entry in _entries(data, section):
            name = entry.get("name") or next((key for key in entry if key in sinks()), None)
            if not isinstance(name, str):
                continue
            if (first := seen.setdefault(name.casefold(), i)) != i:
                path = (section, i, "name") if "name" in entry else (section, i)
                yield path, f"{section}[{first}] has the name {name} too: give each {what} its own"
    for i, entry in _entries(data, "sinks"):
        if entry.get("send") == "digests" and not data.get("digests"):
            yield ("sinks", i, "send"), "there are no `digests` to send"
    for i, entry in _entries(data, "sources"):
        hub = entry.get("event_hubs")
        namespace = hub.get("namespace") if isinstance(hub, dict) else None
        if isinstance(namespace, str) and not re.fullmatch(r"[\w-]+(\.[\w-]+)+", namespace):
            message = "must be a full host name, without sb:// or /: NAME.servicebus.windows.net"
            yield ("sources", i, "event_hubs", "namespace"), message


def _outside(data: Any) -> Iterator[tuple[located.Path, str]]:
    """What only the machine can tell: the subscriptions file and the state folder."""
    if not isinstance(data, dict):
        return
    subscriptions, state = data.get("subscriptions"), data.get("state")
    if isinstance(subscriptions, dict) and isinstance(file := subscriptions.get("file"), str):
        try:
            load_subscriptions(file)
        except SubscriptionsError as error:
            for mistake in str(error).splitlines():
                yield ("subscriptions", "file"), mistake
    if isinstance(state, str) and Path(state).is_absolute():
        folder = Path(state)
        try:
            # It is made only once everything else is right, so that a refusal leaves nothing.
            if folder.exists():
                if not folder.is_dir():
                    yield ("state",), f"{folder} is not a folder"
                elif not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
                    yield ("state",), f"{folder} cannot be written to"
            elif not folder.parent.is_dir():
                yield ("state",), f"cannot be made: there is no folder {folder.parent}"
            elif not os.access(folder.parent, os.W_OK | os.X_OK):
                yield ("state",), f"cannot be made: {folder.parent} cannot be written to"
        except (OSError, ValueError) as error:
            yield ("state",), f"cannot be reached: {getattr(error, 'strerror', None) or error}"


def _together(settings: Settings) -> Iterator[tuple[located.Path, str]]:
    """What only settings that are good in themselves can tell."""
    names: dict[str, int] = {}
    hubs: dict[str, int] = {}
    for i, source in enumerate(settings.sources):
        with contextlib.suppress(SecretError):  # told already
            if (first := names.setdefault(source.name, i)) != i:
                yield ("sources", i), f"sources[{first}] reads the same event hub"
            hubs.setdefault(source.name.rpartition("/")[0].lower(), i)
    for i, sink in enumerate(settings.sinks):
        with contextlib.suppress(SecretError):
            if (read := hubs.get(sink.build().destination())) is not None:
                yield (
                    ("sinks", i),
                    f"it writes to the event hub that sources[{read}] reads: each alert would come "
                    "back for ever",
                )
        for name, value in sink.settings:
            try:
                if isinstance(value, Tls):
                    value.context()
            except OSError as error:
                why = error.strerror or error
                yield ("sinks", i, sink.kind, name), f"its certificates cannot be used: {why}"


def _entries(data: Any, section: str) -> Iterator[tuple[int, dict[str, Any]]]:
    entries = data.get(section) if isinstance(data, dict) else None
    for i, entry in enumerate(entries if isinstance(entries, list) else ()):
        if isinstance(entry, dict):
            yield i, entry


def _leaves(
    data: Any, path: located.Path = ()
) -> Iterator[tuple[located.Path, Any, Callable[[Any], None]]]:
    """Every scalar with its path, and a function that puts another in its place."""
    if not isinstance(data, dict | list):
        return
    for key, value in list(data.items() if isinstance(data, dict) else enumerate(data)):
        if isinstance(value, dict | list):
            yield from _leaves(value, (*path, key))
        else:
            yield (*path, key), value, functools.partial(data.__setitem__, key)


def _types_at(path: located.Path) -> list[Any]:
    """The types that the models allow for the value at `path`."""
    found: list[Any] = [Settings]
    for part in path:
        found = [under for hint in found for under in _under(hint, part)]
    return found


def _under(hint: Any, part: str | int) -> Iterator[Any]:
    args = get_args(hint)
    if isinstance(part, int):
        if get_origin(hint) in (list, tuple):
            yield from _alternatives(args[0])
    elif get_origin(hint) is dict:
        yield from _alternatives(args[1])
    elif part in (fields := _fields(hint)):
        yield from _alternatives(fields[part])


def _fields(hint: Any) -> dict[str, Any]:
    if not (isinstance(hint, type) and issubclass(hint, BaseModel)):
        return {}
    return {field.alias or name: field.annotation for name, field in hint.model_fields.items()}


def _alternatives(hint: Any) -> Iterator[Any]:
    if hint == PemFile:  # a path that is declared as text
        yield hint
    elif get_origin(hint) is Annotated:
        yield from _alternatives(get_args(hint)[0])
    elif get_origin(hint) in (Union, types.UnionType):
        for arm in get_args(hint):
            yield from _alternatives(arm)
    else:
        yield hint


# What the models say, in this project's words

_SHAPES = {
    "model_type": (dict, "must be a mapping of keys to values"),
    "dict_type": (dict, "must be a mapping of keys to values"),
    "tuple_type": (list, "must be a list"),
    "list_type": (list, "must be a list"),
    "string_type": (str, "must be text (put it in quotes)"),
    "literal_error": (str, ""),
}
_SENTENCES = {
    "missing": "this key is required",
    "extra_forbidden": "unknown key",
    "too_short": "must not be empty",
    "string_too_short": "must not be empty",
    "path_not_file": "there is no such file",
    "path_not_directory": "there is no such folder",
}


def _mistakes(error: ValidationError, document: located.Located) -> Iterator[Mistake]:
    found: dict[located.Path, Any] = {}
    fits: set[located.Path] = set()
    for detail in error.errors(include_url=False):
        path = _tree_path(detail, document.data)
        if detail["type"] == "too_short" and detail["input"]:
            continue  # pydantic counts good items only, and has told of the bad ones
        if path not in fits:
            found.setdefault(path, detail)
            if _fits(detail):
                fits.add(path)
                found[path] = detail
    said = {
        path: _said(detail, path)
        for path, detail in found.items()
        # Of a union's arms, the one that the value looks like is the one that was meant.
        if path in fits or not any(fit[: len(path)] == path for fit in fits)
    }
    misspelt = {(*path[:-1], nearest) for path, (_, nearest) in said.items()}
    for path, (message, nearest) in said.items():
        kind = found[path]["type"]
        if kind == "missing":
            if path not in misspelt:
                yield Mistake(*document.key(path[:-1]), _dotted(path), message)
        else:
            place = document.key(path) if kind == "extra_forbidden" else document.value(path)
            yield Mistake(*place, _dotted(path), message, nearest)


def _tree_path(detail: Any, data: Any) -> located.Path:
    """Pydantic's path without what names arms of a union, and not the file's parts."""
    path: located.Path = ()
    for part in detail["loc"]:
        keys = range(len(data)) if isinstance(data, list) else data
        if isinstance(data, list | dict) and part in keys:
            path, data = (*path, part), data[part]
    return (*path, detail["loc"][-1]) if detail["type"] == "missing" else path


def _fits(detail: Any) -> bool:
    """Whether the value at least has the shape (mapping, list, scalar) that was asked for."""
    shape, _ = _SHAPES.get(detail["type"], (None, ""))
    given = next((kind for kind in (dict, list) if isinstance(detail["input"], kind)), str)
    return shape in (None, given)


def _said(detail: Any, path: located.Path) -> tuple[str, str | None]:
    """The message, and the nearest valid name if there is one. Neither quotes the value."""
    kind, context = detail["type"], detail.get("ctx", {})
    message: str = detail["msg"].replace("Input should be", "must be").partition(", unable")[0]
    message = message[:1].lower() + message[1:]
    if kind == "value_error":
        message = str(context["error"])
    elif kind in _SENTENCES:
        message = _SENTENCES[kind]
    elif kind in _SHAPES:
        message = _SHAPES[kind][1] or message
    if kind == "extra_forbidden":
        text = str(path[-1])
        names = [name for hint in _types_at(path[:-1]) for name in _fields(hint)]
    else:
        text = str(detail["input"])
        names = context.get("choices") or re.findall(r"'([^']*)'", context.get("expected", ""))
    near = difflib.get_close_matches(text.lower(), names, 1)
    if names and not near and kind != "literal_error":
        message += f" (known here: {', '.join(sorted(names))})"
    return message, near[0] if near else None


def _dotted(path: located.Path) -> str:
    return "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in path).removeprefix(".")
