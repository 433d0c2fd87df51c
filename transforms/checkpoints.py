"""Checkpoints in Azure Blob Storage, where the SDKs' consumers of a group keep theirs.

Layout (azure-eventhub-checkpointstoreblob 1.2; the same in every language): an empty blob
`<namespace>/<hub>/<group>/checkpoint/<partition>` with metadata `sequencenumber` and `offset`.
Python, .NET and JavaScript write the names in lower case, Go, Java and Rust as they are given: both
are read, and kept up where they are. Azure Functions and EventProcessorHost had a lease before,
`<namespace>/<hub>/<group>/<partition>`, a JSON object: that is read, never written.

The accounts in the state store are the authority. A partition without one begins where its
checkpoint stands; a checkpoint that is ahead of the account is told of, and left until that passes.
What sinks are owed of events before a checkpoint stays in the state store, and with this pipeline.
"""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any, NamedTuple

import msgspec
from azure.core import MatchConditions
from azure.core.exceptions import (
    AzureError,
    ClientAuthenticationError,
    HttpResponseError,
    ResourceExistsError,
    ResourceModifiedError,
    ResourceNotFoundError,
    ServiceRequestError,
    ServiceResponseError,
)

from schemas.batch import Origin
from transforms.account import begin, checkpoint
from transforms.delivery.line import describe, printable
from transforms.read.access import BlobCheckpoints, EventHubsAccess
from transforms.secrets import SecretError
from transforms.state_store import StateStore, place, unplace

__all__ = [
    "CheckpointError",
    "Position",
    "Publisher",
    "Taken",
    "others",
    "publish",
    "publishing",
    "take_over",
]

_LEASE_BYTES = 65_536
_ATTEMPTS = 5
_JOIN_SECONDS = 30.0  # longer than the client's own timeouts
_NO_OFFSET = "no offset"  # Azure.Messaging.EventHubs.Processor 5.11 wrote that
_HIGHEST = 2**62


class CheckpointError(Exception):
    """Checkpoints cannot be read or written; one line that says why, and what to do."""


class Position(NamedTuple):
    """The last event that was dealt with: its sequence number, and the hub's offset of it."""

    sequence: int
    offset: str


class Taken(NamedTuple):
    """A partition's checkpoint as it stands. `sequence` is None where the blob does not tell it;
    `why` is what it says instead."""

    sequence: int | None
    offset: str
    blob: str
    why: str = ""


class _Found(NamedTuple):
    """A blob of it, as it was when it was looked at."""

    taken: Taken
    etag: str
    modified: datetime


class _Lease(msgspec.Struct, rename="pascal"):
    sequence_number: int | None = None
    offset: str | None = None


class _Settled(msgspec.Struct):
    """What is wanted of `transforms.account.Settled`: the rest of it may be long."""

    position: int
    offset: str = ""


_LEASE = msgspec.json.Decoder(_Lease)
_SETTLED = msgspec.json.Decoder(_Settled)


# ---------------------------------------------------------------------------------- reading


def others(access: EventHubsAccess, source: str) -> dict[str, Taken]:
    """Each partition's checkpoint, by whoever wrote it last. Raises CheckpointError.

    source: `namespace/hub/group`, as origins have it.
    """
    with _opened(access) as container:
        return _last(_blobs(container, source))


def take_over(
    access: EventHubsAccess,
    source: str,
    store: StateStore,
    sinks: Iterable[str],
    partitions: Iterable[str],
    say: Callable[[str], None],
) -> None:
    """Give sinks that have settled nothing of a partition yet the position of its checkpoint, if
    there is one, durably. To be called before `account.begin`.

    Raises CheckpointError where a partition has no account, and its checkpoint cannot be read.
    """
    if access.checkpoints is None:
        return
    sinks = [*sinks]
    ours = {p: checkpoint(store, sinks, Origin(source, p)) for p in partitions}
    try:
        found = others(access, source)
    except CheckpointError as error:
        if None in ours.values():
            raise
        say(str(error))
        return
    for partition, position in ours.items():
        theirs = found.get(partition)
        if theirs is None:
            continue
        if theirs.sequence is None:
            if position is None:
                raise CheckpointError(
                    f"{source}/{partition}: where to begin cannot be told: the checkpoint "
                    f"{printable(theirs.blob)} {theirs.why}; say where with `--from`, or delete it"
                )
        elif position is None:
            begin(store, sinks, Origin(source, partition), theirs.sequence)
            say(
                f"{source}/{partition}: begins at event {theirs.sequence + 1}, "
                "after the checkpoint that another consumer left"
            )
        elif theirs.sequence > position:
            say(_ahead(source, partition, theirs, position))


def _last(found: Iterable[_Found]) -> dict[str, Taken]:
    """By partition."""
    latest: dict[str, _Found] = {}
    for one in found:
        partition = one.taken.blob.rpartition("/")[2]
        before = latest.get(partition)
        if before is None or _when(before) < _when(one):
            latest[partition] = one
    return {partition: one.taken for partition, one in latest.items()}


def _when(found: _Found) -> tuple[datetime, int]:
    """To the second; then who got further."""
    return found.modified, -1 if found.taken.sequence is None else found.taken.sequence


def _blobs(container: Any, source: str) -> Iterator[_Found]:
    """Every checkpoint of the group, however its name is written, and every lease."""
    for folder in dict.fromkeys((source.lower(), source)):
        for blob in container.list_blobs(name_starts_with=f"{folder}/", include=["metadata"]):
            kind, _, partition = blob.name.removeprefix(f"{folder}/").rpartition("/")
            if kind == "checkpoint" and partition:
                yield _found(blob.name, blob)
            elif not kind and blob.size:
                lease = _lease(container, blob.name)
                if lease is not None:
                    yield _Found(lease, blob.etag, blob.last_modified)


def _found(name: str, blob: Any) -> _Found:
    given = {key.lower(): value or "" for key, value in (blob.metadata or {}).items()}
    offset = given.get("offset", "")
    offset = "" if offset.lower() == _NO_OFFSET else offset
    number = given.get("sequencenumber", "")
    if re.fullmatch("[0-9]{1,19}", number, re.ASCII) and int(number) < _HIGHEST:
        return _Found(Taken(int(number), offset, name), blob.etag, blob.last_modified)
    why = (
        f"has the sequence number {printable(number, 40)!r}"
        if number
        else ("has an offset, and no sequence number" if offset else "has no sequence number")
    )
    return _Found(Taken(None, offset, name, why), blob.etag, blob.last_modified)


def _lease(container: Any, name: str) -> Taken | None:
    """What a lease says; None while nothing was checkpointed with it, or it has just gone."""
    try:
        data = container.download_blob(name, offset=0, length=_LEASE_BYTES).readall()
        lease = _LEASE.decode(data)
    except ResourceNotFoundError:
        return None
    except (msgspec.DecodeError, UnicodeDecodeError):
        return Taken(None, "", name, "is no lease of EventProcessorHost")
    number, offset = lease.sequence_number, lease.offset or ""
    if not number and not offset:
        return None
    if number is None or not 0 <= number < _HIGHEST:
        return Taken(None, offset, name, "is a lease without a sequence number")
    return Taken(number, offset, name)


# ---------------------------------------------------------------------------------- writing


def publish(
    access: EventHubsAccess,
    source: str,
    positions: Mapping[str, Position],
    *,
    explicit: bool = False,
) -> dict[str, Taken]:
    """Write positions, by partition; those whose checkpoint is ahead, and was left as it is.

    explicit: also back. What has no offset is not written: some SDKs go on at the offset alone,
    and would begin anew. Raises CheckpointError.
    """
    with _opened(access) as container:
        return _publish(container, source, positions, positions if explicit else ())


def _publish(
    container: Any, source: str, positions: Mapping[str, Position], explicit: Container[str]
) -> dict[str, Taken]:
    found = {one.taken.blob: one for one in _checkpoints(container, source)}
    ahead = {}
    for partition, position in positions.items():
        if not _writable(position.offset):
            continue
        name = _name(source.lower(), partition)
        for spelling in {name, _name(source, partition)}:
            if spelling == name or spelling in found:
                left = _write(
                    container, spelling, found.get(spelling), position, partition in explicit
                )
                if left is not None:
                    ahead[partition] = left
    return ahead


def _checkpoints(container: Any, source: str) -> Iterator[_Found]:
    for folder in dict.fromkeys((source.lower(), source)):
        start = _name(folder, "")
        for blob in container.list_blobs(name_starts_with=start, include=["metadata"]):
            yield _found(blob.name, blob)


def _write(
    container: Any, name: str, found: _Found | None, position: Position, explicit: bool
) -> Taken | None:
    """None once the blob says it; else what it says. Whoever writes at the same time is seen."""
    blob = container.get_blob_client(name)
    metadata = {"offset": position.offset, "sequencenumber": str(position.sequence)}
    for _ in range(_ATTEMPTS):
        taken = found.taken if found else None
        if taken is not None and not explicit:
            if taken.sequence is None and taken.offset:
                return taken  # perhaps it is ahead
            if taken.sequence is not None and taken.sequence > position.sequence:
                return taken
        if taken is not None and taken[:2] == position:
            return None
        try:
            if found is None:
                blob.upload_blob(b"", metadata=metadata)
            else:
                same = MatchConditions.IfNotModified
                blob.set_blob_metadata(metadata, etag=found.etag, match_condition=same)
            return None
        except (ResourceExistsError, ResourceModifiedError, ResourceNotFoundError) as error:
            if _code(error) == "ContainerNotFound":
                raise
        found = _look(blob, name)
    raise CheckpointError(f"the checkpoint {name} is written by somebody else all the time")


def _look(blob: Any, name: str) -> _Found | None:
    try:
        return _found(name, blob.get_blob_properties())
    except ResourceNotFoundError:
        return None


def _name(source: str, partition: str) -> str:
    return f"{source}/checkpoint/{partition}"


def _writable(offset: str) -> bool:
    """Metadata are headers."""
    return bool(offset) and offset.isascii() and offset.isprintable() and offset == offset.strip()


# ------------------------------------------------------------------------------- publishing


class Publisher:
    """`with Publisher(…):` around a run: its positions are published, from a thread, every some
    seconds and once more at the end. A service that is down is told of once, and tried again.

    explicit: the first position of each partition may lie before its checkpoint (`--from`).
    """

    def __init__(
        self,
        access: EventHubsAccess,
        source: str,
        store: StateStore,
        sinks: Iterable[str],
        say: Callable[[str], None],
        *,
        explicit: bool = False,
    ) -> None:
        assert access.checkpoints is not None, "there is somewhere to publish to"
        self._access = access
        self._every = access.checkpoints.every
        self._source = source
        self._store = store
        self._sinks = [*sinks]
        self._say = say
        self._explicit = explicit
        self._open = contextlib.ExitStack()
        self._container: Any = None
        self._published: dict[str, Position] = {}
        self._ahead: set[str] = set()
        self._failing = False
        self._ended = threading.Event()
        self._thread = threading.Thread(
            target=self._work, name=f"checkpoints of {source}", daemon=True
        )

    def __enter__(self) -> Publisher:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._ended.set()
        self._thread.join(_JOIN_SECONDS)

    def _work(self) -> None:
        while not self._ended.wait(self._every):
            self._try()
        self._try()
        self._open.close()

    def _try(self) -> None:
        try:
            self._round()
        except Exception as error:  # noqa: BLE001 - the run goes on; it is tried again
            self._open.close()  # secrets are read anew
            self._container = None
            if not self._failing:
                self._say(f"checkpoints are not published for now: {_plain(self._access, error)}")
            self._failing = True

    def _round(self) -> None:
        found = _least(self._store, self._sinks, self._source)
        moved = {
            partition: position
            for partition, position in found.items()
            if position.offset and position != self._published.get(partition)
        }
        if not moved:
            return
        if self._container is None:
            self._container = self._open.enter_context(_opened(self._access))
        back = moved.keys() - self._published.keys() if self._explicit else ()
        ahead = _publish(self._container, self._source, moved, back)
        if self._failing:
            self._say(f"{self._source}: checkpoints are published again")
        self._failing = False
        self._published.update(moved)
        for partition in sorted(ahead.keys() - self._ahead):
            position = moved[partition].sequence
            self._say(_ahead(self._source, partition, ahead[partition], position))
        self._ahead = (self._ahead - moved.keys()) | ahead.keys()


@contextlib.contextmanager
def publishing(
    hubs: Mapping[str, EventHubsAccess],
    store: StateStore,
    sinks: Iterable[str],
    say: Callable[[str], None],
    *,
    explicit: bool = False,
) -> Iterator[None]:
    """A Publisher for each hub, by source, that has somewhere to publish to."""
    sinks = [*sinks]
    with contextlib.ExitStack() as running:
        for source, access in hubs.items():
            if access.checkpoints is not None:
                running.enter_context(
                    Publisher(access, source, store, sinks, say, explicit=explicit)
                )
        yield


def _least(store: StateStore, sinks: Iterable[str], source: str) -> dict[str, Position]:
    """As `account.checkpoint` has it, of every partition, with its offset."""
    found: dict[str, list[_Settled]] = {}
    for sink in sinks:
        for path in store.list(place("accounts", sink, *source.split("/"))):
            data = store.get(path)
            if data is not None:
                partition = unplace(path)[-1].removesuffix(".json")
                found.setdefault(partition, []).append(_SETTLED.decode(data))
    least = {}
    for partition, accounts in found.items():
        sequence = min(account.position for account in accounts)
        # A sink that was given its position does not know the offset; one that got there does.
        offset = max(account.offset for account in accounts if account.position == sequence)
        least[partition] = Position(sequence, offset)
    return least


def _ahead(source: str, partition: str, theirs: Taken, position: int) -> str:
    if theirs.sequence is None:
        return (
            f"{source}/{partition}: the checkpoint {printable(theirs.blob)} {theirs.why}: perhaps "
            "it is ahead, so it stays as it is; delete it, and this pipeline writes its own"
        )
    return (
        f"{source}/{partition}: another consumer went on to event {theirs.sequence}, this pipeline "
        f"is at {position}; `--from checkpoint` goes on there"
    )


# ----------------------------------------------------------------------------------- errors


@contextlib.contextmanager
def _opened(access: EventHubsAccess) -> Iterator[Any]:
    """The container; whatever goes wrong with it is a CheckpointError."""
    assert access.checkpoints is not None, "there is a container to open"
    try:
        with access.checkpoints.client() as container:
            yield container
    except CheckpointError:
        raise
    except Exception as error:
        raise CheckpointError(_plain(access, error)) from error


def _plain(access: EventHubsAccess, error: Exception) -> str:
    """One line. Of the service's own words only its code is kept."""
    if isinstance(error, CheckpointError):
        return str(error)
    if not isinstance(error, AzureError | SecretError | ValueError):
        return describe(error)
    settings = access.checkpoints
    assert settings is not None, "it was opened"
    return f"the checkpoints in {settings.container}: {_reason(settings, error)}"


def _reason(settings: BlobCheckpoints, error: Exception) -> str:
    given = settings.connection_string
    code = _code(error)
    if isinstance(error, HttpResponseError) and error.status_code:
        said = f"{code} (HTTP {error.status_code})"
        if code == "ContainerNotFound":
            return "there is no such container: create it, or correct `container`"
        if error.status_code in (401, 403) and given:
            return (
                f"{said}: is {given} a key of this account, or a signature to list, read and "
                "write, and does it still hold? Does the firewall let this address in?"
            )
        if error.status_code == 401 or code == "AuthenticationFailed":
            return (
                f"{said}: the account does not take this identity's token: is it of the same "
                "tenant, and is the clock right?"
            )
        if error.status_code == 403:
            return (
                f"{said}: this identity needs the role `Storage Blob Data Contributor` on the "
                "container, and a firewall that lets this address in"
            )
        return f"{said}; it is tried again"
    if isinstance(error, ServiceRequestError | ServiceResponseError):
        return "the account does not answer: is its name right, and can it be reached from here?"
    if isinstance(error, SecretError):
        return str(error)
    if given and isinstance(error, ClientAuthenticationError | ValueError):
        return (
            f"{given} holds no connection string of Azure Storage (AccountName=…;AccountKey=…; or "
            "BlobEndpoint=…;SharedAccessSignature=…)"
        )
    if isinstance(error, ClientAuthenticationError):
        return f"azure-identity has no credential ({code}): log in, or give `credential`"
    return describe(error)


def _code(error: Exception) -> str:
    found = getattr(error, "error_code", None) or type(error).__name__
    return printable(str(getattr(found, "value", found)), 80)
