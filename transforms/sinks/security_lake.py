"""OCSF events as Parquet, in the layout of Amazon Security Lake's custom sources.

Source: "Collecting data from custom sources in Security Lake" (docs.aws.amazon.com, security-lake):
one event class a source; `ext/SOURCE/region=…/accountId=…/eventDay=YYYYMMDD/`, the day of the event
in UTC; zstandard, data pages of 1 MB, rows by time; `external…` for what is of no AWS account.
Columns: `schemas.formats._ocsf_columns`, the same in every file, since a table of files whose types
differ cannot be read.

A file is named after what it holds: written once more, it is the same file.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import re
import time
from collections.abc import Hashable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

import msgspec
from pydantic import Field, field_validator, model_validator

from schemas.alert import Alert
from schemas.formats._ocsf_columns import BOOL, CLASSES, INT, LONG, MAP, Type, columns
from schemas.formats.ocsf import event
from schemas.kinds import details
from transforms.delivery.objects import Folder, ObjectUrl, Role, check_url, folder, probe
from transforms.secrets import SecretError
from transforms.sinks.base import (
    Accepted,
    Connection,
    EncodeError,
    Limits,
    Pending,
    Refresh,
    Sink,
    SinkSettings,
    Split,
    Stop,
    Verdict,
)

__all__ = ["SecurityLake", "SecurityLakeSettings", "parquet"]

_MEDIA = "application/vnd.apache.parquet"
_REQUEST = 8_000_000  # bytes
_PAGE = 1 << 19  # bytes, and as many again that one batch of rows may add: 1 MB
_ROWS = 1_000  # that are Python's objects at a time
_DETECTION = 2004
_EPOCH = datetime(1970, 1, 1)
_encode = msgspec.json.Encoder().encode


class _Account(msgspec.Struct, frozen=True):
    uid: str


class _Cloud(msgspec.Struct, frozen=True):
    account: _Account | None = None


class _Head(msgspec.Struct, frozen=True):
    """What of an event says where it belongs."""

    class_uid: int
    time: int
    cloud: _Cloud = _Cloud()


_head = msgspec.json.Decoder(_Head).decode


class SecurityLakeSettings(SinkSettings):
    """Amazon Security Lake, or any folder of the kind: OCSF events as Parquet."""

    folder: Path | ObjectUrl = Field(
        description="Where the lake is: its bucket, `s3://aws-security-data-lake-REGION-…`; or "
        "another object store (`azfs://account/container/path`, `gs://bucket/path`) or a local "
        "folder. Credentials are the environment's, as for the sink `file`."
    )
    region: str = Field(
        pattern=r"^[a-z0-9-]{1,40}$",
        description="The region that the lake is in, as its paths say it: eu-central-1.",
    )
    source: str = Field(
        "alertbeam",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,12}$",
        description="How the custom sources are called, before the number of the event class: "
        "`alertbeam` for alertbeam-2004 and alertbeam-2005. Security Lake takes 20 characters.",
    )
    source_version: str = Field(
        "",
        pattern=r"^[A-Za-z0-9._-]{0,32}$",
        description="The version of the sources, if they were made with one.",
    )
    classes: tuple[int, ...] = Field(
        (),
        description="The event classes that there are sources for: [2004, 2005]. A record of any "
        "other is a dead letter. Without it every class has its folder.",
    )
    account: str = Field(
        "external",
        pattern=r"^[A-Za-z0-9_-]{1,64}$",
        description="What stands after accountId=. AWS wants `external…` for what is not of an "
        "AWS account.",
    )
    by_subscription: bool = Field(
        False,
        description="Append the Azure subscription to it: external_1111…; more and smaller files.",
    )
    role: str = Field(
        "",
        pattern=r"^$|^arn:aws[a-z-]*:iam::\d{12}:role/[\w+=,.@/{}-]+$",
        description="The role to write with, {source} in it for the name of the source: "
        "`arn:aws:iam::123456789012:role/AmazonSecurityLake-Provider-{source}-eu-central-1`. "
        "Without it the environment's own.",
    )
    external_id: str = Field("", description="What the role wants to be told, if it does.")
    linger: float = Field(
        300.0,
        ge=0,
        le=86_400,
        description="Seconds that records may wait for others, to be written together: what makes "
        "files large. At the end of a shift nothing waits. 0: each request at once.",
    )
    max_bytes: int = Field(
        32_000_000,
        ge=1,
        le=60_000_000,
        description="Bytes of records, as JSON, after which they wait no longer; of all senders.",
    )

    @field_validator("folder", mode="before")
    @classmethod
    def _check_folder(cls, given: Any) -> Any:
        return check_url(given) if re.match(r"\w{2,}://", str(given)) else given

    @field_validator("classes")
    @classmethod
    def _check_classes(cls, classes: tuple[int, ...]) -> tuple[int, ...]:
        for uid in classes:
            if uid not in CLASSES:
                raise ValueError(f"no record becomes an event of class {uid}: {[*CLASSES]}")
        return classes

    @model_validator(mode="after")
    def _fit(self) -> SecurityLakeSettings:
        if self.role and not str(self.folder).startswith("s3://"):
            raise ValueError("a `role` is of s3:// only")
        return self


class SecurityLake(Sink[SecurityLakeSettings]):
    """One lake."""

    kind = "security_lake"
    Settings = SecurityLakeSettings
    example: ClassVar = {
        "folder": "s3://aws-security-data-lake-eu-central-1-EXAMPLE",
        "region": "eu-central-1",
        "classes": [2004],
        "role": "arn:aws:iam::123456789012:role/AmazonSecurityLake-Provider-{source}-eu-central-1",
        "external_id": "alertbeam",
    }

    @property
    def limits(self) -> Limits:
        return Limits(min(_REQUEST, self.settings.max_bytes))

    def encode(self, alert: Alert, source: str, partition: str) -> bytes:
        made = event(alert, details(alert))
        if self.settings.classes and made["class_uid"] not in self.settings.classes:
            raise EncodeError(
                f"the lake has no source for {made['class_name']} ({made['class_uid']}): "
                "see `classes`"
            )
        return _encode(made)

    def connect(self) -> Connection:
        return _Lake(self.settings)

    def probe(self, timeout: float) -> None:
        settings = self.settings
        source = _source(settings, (settings.classes or (_DETECTION,))[0])
        where = settings.folder
        place = f"ext/{source}"
        inside = where / place if isinstance(where, Path) else f"{where.rstrip('/')}/{place}"
        probe(inside, self.name, timeout, _role(settings, source))

    def check(self, timeout: float) -> str:
        self.probe(timeout)
        return f"{self.settings.folder} can be written to"

    def find(self, event_id: str) -> str:
        settings = self.settings
        wanted = f"WHERE metadata.uid = {_quoted(event_id)}"
        if str(settings.folder).startswith("s3://"):
            region = settings.region.replace("-", "_")
            table = re.sub(r"\W", "_", f"{region}_ext_{_source(settings, _DETECTION)}").lower()
            there = f"amazon_security_lake_glue_db_{region}.amazon_security_lake_table_{table}"
        else:
            files = f"{str(settings.folder).rstrip('/')}/ext/{settings.source}-*/**/*.parquet"
            there = f"read_parquet({_quoted(files)}, union_by_name = true)"
        return f"SELECT * FROM {there} {wanted}"  # noqa: S608 - for people to run


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _source(settings: SecurityLakeSettings, class_uid: int) -> str:
    return f"{settings.source}-{class_uid}"


def _role(settings: SecurityLakeSettings, source: str) -> Role | None:
    if not settings.role:
        return None
    arn = settings.role.replace("{source}", source)
    return Role(arn, settings.external_id, settings.region)


class _Lake(Connection):
    """One sender's way there. What waits to be written together is `Pending`.

    Where nothing is known to work, nothing waits: the first request, and those after a failure,
    are written at once, so that the engine hears the truth about each.
    """

    def __init__(self, settings: SecurityLakeSettings) -> None:
        self._settings = settings
        self._most = settings.max_bytes // settings.concurrency
        self._folders: dict[str, Folder] = {}  # by role
        self._works = False
        self._written: set[str] = set()  # rows of what failed as a whole, and comes again
        self._numbers = itertools.count()
        self._held: dict[Hashable, Sequence[bytes]] = {}
        self._bytes = 0
        self._due = math.inf  # monotonic

    def send(self, payloads: Sequence[bytes], timeout: float) -> Verdict:
        if not (self._works and self._settings.linger):
            return self._write(payloads, timeout)
        if not self._held:
            self._due = time.monotonic() + self._settings.linger
        handle = next(self._numbers)
        self._held[handle] = payloads
        self._bytes += sum(map(len, payloads))
        return Pending(handle)

    def confirm(self, timeout: float) -> Mapping[Hashable, Verdict]:
        if time.monotonic() < self._due and self._bytes < self._most:
            return {}
        held, self._held = self._held, {}
        self._bytes, self._due = 0, math.inf
        try:
            verdict = self._write([*itertools.chain(*held.values())], timeout)
        except SecretError as error:
            verdict = Stop(str(error))
        return dict.fromkeys(held, verdict)

    def hurry(self) -> None:
        self._due = -math.inf

    def close(self) -> None:
        while self._folders:
            self._folders.popitem()[1].close()

    def _write(self, payloads: Sequence[bytes], timeout: float) -> Verdict:
        """Write everything, or say why not."""
        until = time.monotonic() + timeout
        self._works = False
        again: set[str] = set()
        places: dict[str, list[tuple[_Head, bytes]]] = {}
        for payload in payloads:
            if self._written and (row := _digest([payload])) in self._written:
                again.add(row)
                continue
            head = _head(payload)
            places.setdefault(self._place(head), []).append((head, payload))
        written: list[bytes] = []
        for place, found in places.items():
            verdict = self._put(place, found, until)
            if not isinstance(verdict, Accepted):
                self._written.update(_digest([row]) for row in written)
                return verdict
            written += (payload for _, payload in found)
        self._written -= again
        self._works = True
        return Accepted()

    def _put(self, place: str, found: list[tuple[_Head, bytes]], until: float) -> Verdict:
        found.sort(key=lambda row: row[0].time)
        rows = [payload for _, payload in found]
        try:
            body = parquet(found[0][0].class_uid, rows)
        except _unfit() as error:
            return Split(f"it does not fit the columns of its class: {type(error).__name__}")
        folder = self._folder(place.split("/")[1])
        left = max(until - time.monotonic(), 0.001)
        verdict = folder.put(f"{place}/{_digest(rows)}.parquet", body, left)
        if isinstance(verdict, Stop | Refresh):
            self.close()  # credentials are read anew
        return verdict

    def _folder(self, source: str) -> Folder:
        role = _role(self._settings, source)
        key = role.arn if role else ""
        if key not in self._folders:
            settings = self._settings
            self._folders[key] = folder(settings.folder, _MEDIA, settings.timeout, role)
        return self._folders[key]

    def _place(self, head: _Head) -> str:
        """The folder of an event, under the lake's. No text of it can lead elsewhere."""
        settings = self._settings
        account = settings.account
        subscription = head.cloud.account.uid if head.cloud.account else ""
        if settings.by_subscription and re.fullmatch(r"[0-9A-Za-z-]{1,64}", subscription):
            account += f"_{subscription.lower()}"
        version = f"/{settings.source_version}" if settings.source_version else ""
        return (
            f"ext/{_source(settings, head.class_uid)}{version}/region={settings.region}"
            f"/accountId={account}/eventDay={_day(head.time)}"
        )


def _day(millis: int) -> str:
    return (_EPOCH + timedelta(milliseconds=millis)).date().isoformat().replace("-", "")


def _digest(rows: Sequence[bytes]) -> str:
    made = hashlib.blake2b(digest_size=16)
    for row in rows:
        made.update(b"%d:%b" % (len(row), row))
    return made.hexdigest()


def _unfit() -> tuple[type[Exception], ...]:
    pa = import_module("pyarrow")

    return (pa.ArrowException, TypeError, OverflowError)


def parquet(class_uid: int, events: Sequence[bytes]) -> bytes:
    """Events of one class, each a JSON object, as a file, in their order."""
    pa, pq = import_module("pyarrow"), import_module("pyarrow.parquet")

    schema = _schema(class_uid)
    batches = [
        pa.RecordBatch.from_pylist([*map(_row, events[start : start + _ROWS])], schema)
        for start in range(0, len(events), _ROWS)
    ]
    file = pa.BufferOutputStream()
    pq.write_table(
        pa.Table.from_batches(batches, schema),
        file,
        compression="zstd",
        data_page_size=_PAGE,
        dictionary_pagesize_limit=_PAGE,
        write_batch_size=max(1, min(1024, _PAGE // max(map(len, events)))),
        store_schema=False,
    )
    return bytes(file.getvalue())


def _row(event: bytes) -> dict[str, Any]:
    """As Arrow takes it: what is open as JSON, a map as pairs."""
    row: dict[str, Any] = msgspec.json.decode(event)
    for name in ("evidences", "enrichments"):
        if name in row:
            row[name] = [
                {**it, "data": _encode(it["data"]).decode()} if "data" in it else it
                for it in row[name]
            ]
    if "unmapped" in row:
        row["unmapped"] = [*row["unmapped"].items()]
    return row


@lru_cache
def _schema(class_uid: int) -> Any:
    pa = import_module("pyarrow")

    return pa.schema([(name, _arrow(kind)) for name, kind in columns(class_uid).items()])


def _arrow(kind: Type) -> Any:
    pa = import_module("pyarrow")

    if isinstance(kind, dict):
        return pa.struct([(name, _arrow(inner)) for name, inner in kind.items()])
    if isinstance(kind, list):
        return pa.list_(_arrow(kind[0]))
    plain = {
        BOOL: pa.bool_(),
        INT: pa.int32(),
        LONG: pa.int64(),
        MAP: pa.map_(pa.string(), pa.string()),
    }
    return plain.get(kind, pa.string())
