"""What the kinds' files are made of: rows read strictly or leniently, times, words, resources."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Sized
from datetime import datetime, timedelta, timezone
from importlib import import_module
from typing import Any, Generic, TypeVar, get_args

import msgspec

from schemas.alert import Alert
from schemas.entities import Details

__all__ = [
    "ABSENT",
    "Fields",
    "Kind",
    "Memo",
    "Row",
    "body_hash",
    "crc32",
    "decoded",
    "effective_subscription",
    "key",
    "lenient",
    "millis",
    "moment",
    "severity",
    "short_name",
    "status",
    "subscription_in",
    "subscription_of",
    "text",
    "unique",
    "values_of",
    "words",
]

ABSENT = msgspec.Raw()

crc32: Callable[[bytes], int]
try:
    crc32 = import_module("isal.isal_zlib").crc32  # the same, in an eighth of the time
except ImportError:
    crc32 = zlib.crc32

_NULL = msgspec.Raw(b"null")
_raw_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_scalar = msgspec.json.Decoder(str | bool | int | float | None).decode
_value = msgspec.json.Decoder().decode


class Row(msgspec.Struct, kw_only=True, gc=False):
    """The top-level fields of a record that its kind needs; the others are skipped unread.

    A row's strict decode must accept records of its kind only, since it is tried before anything
    else. So the fields that every such record has are required, with their type; the rest have
    a default. Fields are text, times, `Raw` (decoded on demand; `ABSENT`) or lists of structs.
    """

    # A wrapper is no record.
    records: None = None
    value: None = None


R = TypeVar("R", bound=Row)
S = TypeVar("S", bound=msgspec.Struct)
K = TypeVar("K", bound=Sized)
V = TypeVar("V")


class Memo(dict[K, V]):
    """What a function made of arguments that come again and again: `memo[argument]`.

    Bounded: what is made of long ones is not kept, and when there are too many, all are forgotten.
    size: of an argument; that of a text is its length.
    """

    def __init__(
        self,
        make: Callable[[K], V],
        most: int = 4096,
        longest: int = 64,
        size: Callable[[K], int] = len,
    ) -> None:
        super().__init__()
        self._made = make, size, longest, most

    def __missing__(self, argument: K) -> V:
        make, size, longest, most = self._made
        result = make(argument)
        if size(argument) <= longest:
            if len(self) >= most:
                self.clear()
            self[argument] = result
        return result


def by_lower_case(keys: Iterable[str]) -> dict[str, str]:
    """Keys by their lower case; of those that differ only in case the last."""
    return {key.lower(): key for key in keys}


def length_together(texts: Iterable[str]) -> int:
    return sum(map(len, texts))


# A kind's records have the same keys in the same order, nearly always.
_spellings: Memo[tuple[str, ...], dict[str, str]] = Memo(
    by_lower_case, most=256, longest=4096, size=length_together
)


class Fields:
    """A record's own keys, and their values' raw JSON. Exact spelling goes before case-blind.

    keys: in their order. asked: whether anybody asked for one that is there.
    Raises msgspec.DecodeError when `raw` is no JSON object.
    """

    def __init__(self, raw: bytes) -> None:
        self._exact = _raw_fields(raw)
        self.keys = tuple(self._exact)
        self._spelled = _spellings[self.keys]
        self.asked = False

    def get(self, name: str) -> msgspec.Raw | None:
        """The value's raw JSON; None where it is absent or null."""
        value = self._exact.get(name) or self._respelled(name)
        if value is None:
            return None
        self.asked = True
        return None if value == _NULL else value

    def text(self, name: str) -> str:
        value = self._exact.get(name) or self._respelled(name)
        if value is None:
            return ""
        self.asked = True
        return text(value)

    def _respelled(self, name: str) -> msgspec.Raw | None:
        spelled = self._spelled.get(name.lower())
        return None if spelled is None else self._exact[spelled]

    def __contains__(self, name: str) -> bool:
        return self.get(name) is not None


@dataclasses.dataclass(frozen=True)
class Kind(Generic[R]):
    """One kind of event.

    name: its file's name.
    row: what is read of a record.
    tells: whether a record is of this kind; at most one kind that is not general says so of any.
    read: a row (each field may be missing) and the record's own JSON, understood.
    details: the record's own JSON → what else it mentions. Never called on the way to a sink
        that forwards the record as it is.
    told_by: `tells` in words, for people: "`Type` is `SecurityAlert`".
    general: asked only when no other kind wants the record.
    """

    name: str
    row: type[R]
    tells: Callable[[Fields], bool]
    read: Callable[[R, bytes], Alert]
    details: Callable[[bytes], Details]
    told_by: str
    general: bool = False

    @functools.cached_property
    def strict(self) -> Callable[[bytes], R]:
        """The fast way to a row. Raises msgspec.DecodeError for anything unusual."""
        return msgspec.json.Decoder(self.row).decode


def lenient(row: type[S], fields: Fields) -> S:
    """A row of whatever is there: keys match case-blind, values of wrong types are coerced; so
    in the objects that its fields hold."""
    return row(**{name: coerced(fields.get(key)) for name, key, coerced in _columns(row)})


@functools.cache
def _columns(
    row: type[msgspec.Struct],
) -> list[tuple[str, str, Callable[[msgspec.Raw | None], Any]]]:
    return [(f.name, f.encode_name, _coercion(f.type)) for f in msgspec.structs.fields(row)]


def _coercion(wanted: Any) -> Callable[[msgspec.Raw | None], Any]:
    """From a value's raw JSON, or None, to something that a field of this type can hold."""
    if wanted is msgspec.Raw:
        return lambda raw: raw or ABSENT
    decode = msgspec.json.Decoder(wanted).decode
    types = (wanted, *get_args(wanted))
    inner = next((it for it in types if hasattr(it, "__struct_fields__")), None)

    def coerced(raw: msgspec.Raw | None) -> Any:
        if raw is None:
            return None
        try:
            return decode(raw)
        except msgspec.DecodeError:
            if inner is not None and bytes(raw)[:1] == b"{":
                return lenient(inner, Fields(raw))
            if datetime in types:
                return moment(text(raw))
            if str in types:
                return text(raw)
        try:
            return msgspec.convert(decoded(raw), wanted)
        except msgspec.ValidationError:
            return None

    return coerced


# Values


def text(raw: msgspec.Raw) -> str:
    """A value as text: a string's content, `""` for null, else its JSON as it stands."""
    try:
        value = _scalar(raw)
    except msgspec.DecodeError:  # an object, a list, or nothing
        return bytes(raw).decode()
    if isinstance(value, str):
        return value
    return "" if value is None else bytes(raw).decode()


def decoded(raw: msgspec.Raw) -> Any:
    """A value; of a string that holds JSON itself, what it holds. None where there is nothing."""
    try:
        value = _value(raw)
        return _value(value) if isinstance(value, str) else value
    except (msgspec.DecodeError, RecursionError):
        return None


def values_of(value: Any, names: frozenset[str]) -> Iterator[str]:
    """The texts under these keys (given in lower case) of an object or of a list of objects."""
    for item in value if isinstance(value, list) else (value,):
        if isinstance(item, dict):
            for name, inner in item.items():
                if isinstance(inner, str) and name.lower() in names:
                    yield inner


def unique(texts: Iterable[str | None]) -> tuple[str, ...]:
    """In order, without blanks and without those that differ only in case from an earlier one."""
    found: dict[str, str] = {}
    for item in texts:
        if item:
            found.setdefault(item.lower(), item)
    return tuple(found.values())


def words(listed: str | None) -> tuple[str, ...]:
    """`"Persistence, CredentialAccess"` or `'["T1059"]'` as its words; "Unknown" is none."""
    return _words[listed[:4000]] if listed else ()


def _words_in(listed: str) -> tuple[str, ...]:
    found = re.split(r'\s*[,;\[\]"]\s*', listed.strip())
    return unique(word for word in found if word.lower() not in ("unknown", "none", "null"))


_words = Memo(_words_in, longest=256)  # few lists, often repeated


_SEVERITIES = {
    "informational": "informational",
    "information": "informational",
    "info": "informational",
    "low": "low",
    "medium": "medium",
    "moderate": "medium",
    "high": "high",
    "critical": "critical",
}
_STATUSES = {
    "new": "new",
    "active": "new",
    "inprogress": "in_progress",
    "in progress": "in_progress",
    "in_progress": "in_progress",
    "resolved": "resolved",
    "closed": "resolved",
    "dismissed": "dismissed",
}


def severity(word: str | None) -> str:
    """A word on the scale of `schemas.alert.SEVERITIES`."""
    return _severities[word] if word else "unknown"


def status(word: str | None) -> str:
    """A word on the scale of `schemas.alert.STATUSES`. An alert that is "Active" is new."""
    return _statuses[word] if word else "unknown"


_severities: Memo[str, str] = Memo(lambda word: _SEVERITIES.get(word.lower(), "unknown"))
_statuses: Memo[str, str] = Memo(lambda word: _STATUSES.get(word.lower(), "unknown"))


# Times

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_NAIVE_EPOCH = datetime(1970, 1, 1)  # times without an offset are UTC
_NEVER = 253_370_764_800_000  # from the year 9999 on: .NET's "no date"
_FORMATS = (
    "%m/%d/%Y %H:%M",
    "%m/%d/%Y %H:%M:%S",
    "%m/%d/%Y %I:%M:%S %p",
    "%m/%d/%Y %I:%M %p",
    "%m/%d/%Y",
    "%Y-%m-%d",
    "%Y-%m-%dT%H:%M%z",
    "%Y-%m-%d %H:%M",
)


def millis(time: datetime | None) -> int:
    """Milliseconds since the epoch; 0 for no time, and for .NET's least and greatest dates."""
    if time is None:
        return 0
    since = time - (_EPOCH if time.tzinfo else _NAIVE_EPOCH)
    # One timedelta divided by another takes twice as long.
    passed = since.days * 86_400_000 + since.seconds * 1000 + since.microseconds // 1000
    return passed if 0 < passed < _NEVER else 0


def moment(written: str) -> datetime | None:
    """A time as Azure writes it: RFC 3339 with any number of fraction digits, with or without an
    offset, blank-separated, m/d/Y, or epoch seconds or milliseconds. None for anything else."""
    written = written.strip()
    try:
        return msgspec.convert(written, datetime)
    except msgspec.ValidationError:
        pass
    if written.isascii() and written.isdigit() and len(written) in (10, 13):
        return _EPOCH + timedelta(milliseconds=int(written.ljust(13, "0")))
    for form in _FORMATS if written[:1].isdigit() else ():
        try:
            return datetime.strptime(written, form)
        except ValueError:
            pass
    return None


# Azure resources

_SUBSCRIPTION = re.compile(
    r"(?:^|/|%2f)subscription(?:s|id)(?:/|%2f|=)([^/%?&#\s]+)", re.IGNORECASE
)


def subscription_of(resource_id: str | None) -> str:
    """The subscription in an ARM resource id, lower case; empty if there is none."""
    if resource_id and resource_id[:15].lower() == "/subscriptions/":
        return resource_id[15:].partition("/")[0].lower()
    return ""


def subscription_in(url: str | None) -> str:
    """The subscription that a portal link names, lower case; empty if there is none."""
    found = _SUBSCRIPTION.search(url or "")
    return found[1].lower() if found else ""


def short_name(resource: str | None) -> str:
    """A resource id's last part; any other name as it is."""
    if not resource:
        return ""
    return resource.rstrip("/").rpartition("/")[2] if resource[0] == "/" else resource


def effective_subscription(properties: msgspec.Raw) -> str:
    """`EffectiveSubscriptionId` of an alert's ExtendedProperties, lower case; else empty."""
    if b"ffectivesubscriptionid" not in bytes(properties).lower():
        return ""  # most have none: nothing is decoded
    return next(values_of(decoded(properties), frozenset({"effectivesubscriptionid"})), "").lower()


# Identity


def key(kind: str, entity: str, version: str) -> bytes:
    """The 16 bytes that only exact repeats share. Stable between processes and releases."""
    identity = f"{kind}\0{entity}\0{version}".encode()
    return hashlib.blake2b(identity, digest_size=16).digest()


def body_hash(raw: bytes) -> str:
    """What identifies a record that names no id: itself. 32 hex digits."""
    return hashlib.blake2b(raw, digest_size=16).hexdigest()
