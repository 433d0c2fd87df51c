"""Whole files, in object stores (S3, Azure Blob Storage, Google Cloud Storage, each through its
vendor's client) or in a local folder.

A file is written whole: nobody ever reads half of one. `Objects` makes each request one new object.
A request that failed is written again under its name, which no other content ever has: should the
first attempt have come through after all, or still come, it is the same object.

Not through Beam's file systems: theirs retry for minutes, and an object that could not be written
is written again by the garbage collector, in whatever thread that runs in.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import importlib.util
import itertools
import os
import queue
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, NamedTuple, Protocol

from pydantic import StringConstraints

from transforms.secrets import SecretError
from transforms.sinks.base import Accepted, Connection, Refresh, Retry, Stop, Verdict

__all__ = [
    "OBJECT_BYTES",
    "REFUSED",
    "Folder",
    "ObjectUrl",
    "Objects",
    "Role",
    "check_url",
    "folder",
    "made",
    "probe",
    "sync_folder",
]

OBJECT_BYTES = 8_000_000

ObjectUrl = Annotated[str, StringConstraints(pattern=r"^(s3|gs|azfs)://")]
"""`s3://bucket/path`, `gs://bucket/path`, `azfs://account/container/path`."""

_PACKAGES = {  # what is imported, and what it is installed as
    "s3": ("boto3", "boto3"),
    "azfs": ("azure.storage.blob", "azure-storage-blob"),
    "gs": ("google.cloud.storage", "google-cloud-storage"),
}
_CONNECTION_STRING = "AZURE_STORAGE_CONNECTION_STRING"
REFUSED = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.EEXIST}
"""What a local folder says where no retry helps."""


class Role(NamedTuple):
    """A role of AWS to assume, in the region that the bucket is in. Its credentials are asked for
    once: when they have expired the store says so, and a new connection asks for new ones."""

    arn: str
    external_id: str
    region: str


class Folder(Protocol):
    """One thread's way to a folder, wherever it is."""

    def put(self, name: str, body: bytes, timeout: float) -> Verdict:
        """Write a file, or write over it; `name` may have folders of its own before it."""

    def close(self) -> None: ...


def folder(where: Path | str, media: str, timeout: float, role: Role | None = None) -> Folder:
    """The folder at a path or an `ObjectUrl`; media: the type of what is written.

    Credentials are the environment's, as the stores' own tools take them. timeout: seconds that a
    read may wait; what is given up before that ends by itself. Raises SecretError.
    """
    if isinstance(where, Path):
        return _Local(where)
    return _Remote(where, media, timeout, role)


class _Remote:
    def __init__(self, url: str, media: str, timeout: float, role: Role | None) -> None:
        self._url = url.rstrip("/")
        self._media = media
        self._store, self._bucket, self._folder = _store(url, timeout, role)

    def put(self, name: str, body: bytes, timeout: float) -> Verdict:
        key = self._folder + name
        try:
            _within(timeout, lambda: self._store.put(self._bucket, key, body, self._media))
        except Exception as error:  # noqa: BLE001 - of three vendors' libraries
            return _judge(self._url, error)
        return Accepted()

    def close(self) -> None:
        self._store.close()


class _Local:
    """Written beside, synced, and renamed: a name that is there has all of its content."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def put(self, name: str, body: bytes, timeout: float) -> Verdict:
        try:
            _within(timeout, lambda: _write(self._path / name, body))
        except OSError as error:
            said = f"{self._path}: {error.strerror or error}"
            return Stop(said) if error.errno in REFUSED else Retry(said)
        return Accepted()

    def close(self) -> None:
        pass


def _write(path: Path, body: bytes) -> None:
    beside = made(path.parent) / f".{path.name}.{uuid.uuid4().hex}"
    try:
        _put_down(beside, body)
        beside.rename(path)
    except BaseException:
        with contextlib.suppress(OSError):
            beside.unlink()
        raise
    sync_folder(path.parent)


def _put_down(path: Path, body: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        left = memoryview(body)
        while left:
            left = left[os.write(fd, left) :]
        os.fsync(fd)
    finally:
        os.close(fd)


def made(path: Path) -> Path:
    """The local folder, which lasts from now on."""
    if not path.is_dir():
        made(path.parent)
        path.mkdir(mode=0o700, exist_ok=True)
        sync_folder(path.parent)
    return path


def sync_folder(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


class Objects(Connection):
    """One thread's way to the folder `url`; its objects are `{name}-{utc}-{unique}-{n}.ndjson`."""

    def __init__(self, url: str, name: str, timeout: float) -> None:
        self._name = name
        self._folder = folder(url, "application/x-ndjson", timeout)
        self._unique = uuid.uuid4().hex[:12]
        self._numbers = itertools.count()
        self._failed: dict[bytes, str] = {}  # the digest of what could not be written: its key

    def send(self, payloads: Sequence[bytes], timeout: float) -> Verdict:
        body = b"\n".join(payloads) + b"\n"
        digest = hashlib.blake2b(body, digest_size=16).digest()
        key = self._failed.pop(digest, None) or self._key()
        verdict = self._folder.put(key, body, timeout)
        if not isinstance(verdict, Accepted):
            self._failed = {digest: key}
        return verdict

    def close(self) -> None:
        self._folder.close()

    def _key(self) -> str:
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        return f"{self._name}-{stamp}-{self._unique}-{next(self._numbers):06}.ndjson"


def probe(where: Path | str, name: str, timeout: float, role: Role | None = None) -> None:
    """Write something into a folder, and remove it, where that is allowed. Raises OSError or
    SecretError."""
    if isinstance(where, Path):
        trial = made(where) / f".{name}-{uuid.uuid4().hex}.probe"
        try:
            _put_down(trial, b"\0" * 4096)
        finally:
            trial.unlink(missing_ok=True)
        return
    store, bucket, inside = _store(where, timeout, role)
    key = f"{inside}.{name}.probe"
    try:
        _within(timeout, lambda: store.put(bucket, key, b"\n", "text/plain"))
    except Exception as error:  # noqa: BLE001 - of three vendors' libraries
        raise ConnectionError(_judge(where, error).reason) from None
    try:
        _within(timeout, lambda: store.delete(bucket, key))
    except Exception:  # noqa: BLE001, S110 - whoever may write need not be allowed to delete
        pass
    finally:
        store.close()


def check_url(url: str) -> str:
    """Raises ValueError, with what to do about it."""
    scheme, _, rest = url.partition("://")
    if scheme not in _PACKAGES:
        raise ValueError("must be a local folder, or in s3://, gs:// or azfs://")
    wanted = "account/container" if scheme == "azfs" else "bucket"
    pattern = r"[a-z0-9][\w.-]*/[\w-]+" if scheme == "azfs" else r"[a-z0-9][\w.-]+"
    if not re.fullmatch(pattern + r"(/[^?#]*)?", rest):
        raise ValueError(f"must be {scheme}://{wanted}/path")
    module, package = _PACKAGES[scheme]
    try:
        found = importlib.util.find_spec(module)
    except ModuleNotFoundError:
        found = None
    if found is None:
        raise ValueError(f"{scheme}:// needs a package more: pip install {package}")
    return url


class _Store(Protocol):
    """What a vendor's client does for us. The engine repeats what failed; the client must not."""

    def put(self, bucket: str, key: str, body: bytes, media: str) -> None: ...

    def delete(self, bucket: str, key: str) -> None: ...

    def close(self) -> None: ...


def _store(url: str, timeout: float, role: Role | None) -> tuple[_Store, str, str]:
    """The client, the bucket or container, and what keys begin with. Raises SecretError."""
    scheme, _, rest = url.rstrip("/").partition("://")
    account = ""
    if scheme == "azfs":
        account, _, rest = rest.partition("/")
    bucket, _, folder = rest.partition("/")
    store: _Store
    try:
        if scheme == "s3":
            store = _S3(timeout, role)
        elif scheme == "gs":
            store = _Google(timeout)
        else:
            store = _Azure(account, timeout)
    except SecretError:
        raise
    except Exception as error:  # noqa: BLE001 - of three vendors' libraries; it may quote a secret
        why = type(error).__name__
        raise SecretError(
            f"{url}: the environment's credentials cannot be used ({_code(error) or why})"
        ) from None
    return store, bucket, f"{folder}/" if folder else ""


class _S3:
    def __init__(self, timeout: float, role: Role | None) -> None:
        session = import_module("boto3.session").Session()  # a new one reads credentials anew
        how = import_module("botocore.config").Config(
            connect_timeout=timeout, read_timeout=timeout, retries={"total_max_attempts": 1}
        )
        given: dict[str, Any] = {}
        if role is not None:
            asked = {"RoleArn": role.arn, "RoleSessionName": "alertbeam"}
            if role.external_id:
                asked["ExternalId"] = role.external_id
            with contextlib.closing(
                session.client("sts", config=how, region_name=role.region)
            ) as sts:
                lent = sts.assume_role(**asked)["Credentials"]
            given = {
                "region_name": role.region,
                "aws_access_key_id": lent["AccessKeyId"],
                "aws_secret_access_key": lent["SecretAccessKey"],
                "aws_session_token": lent["SessionToken"],
            }
        self._client = session.client("s3", config=how, **given)

    def put(self, bucket: str, key: str, body: bytes, media: str) -> None:
        self._client.put_object(Bucket=bucket, Key=key, Body=body, ContentType=media)

    def delete(self, bucket: str, key: str) -> None:
        self._client.delete_object(Bucket=bucket, Key=key)

    def close(self) -> None:
        self._client.close()


class _Azure:
    def __init__(self, account: str, timeout: float) -> None:
        from azure.identity import DefaultAzureCredential
        from azure.storage.blob import BlobServiceClient

        how: dict[str, Any] = {
            "connection_timeout": timeout,
            "read_timeout": timeout,
            "retry_total": 0,
        }
        given = os.environ.get(_CONNECTION_STRING, "")
        if not given:
            url = f"https://{account}.blob.core.windows.net"
            self._client = BlobServiceClient(url, DefaultAzureCredential(), **how)
        elif re.search(rf"AccountName={account}(;|$)|//{account}\.", given):
            self._client = BlobServiceClient.from_connection_string(given, **how)
        else:
            raise SecretError(f"{_CONNECTION_STRING} is not of the account {account}")

    def put(self, bucket: str, key: str, body: bytes, media: str) -> None:
        blob = self._client.get_blob_client(bucket, key)
        blob.upload_blob(body, overwrite=True, headers={"x-ms-blob-content-type": media})

    def delete(self, bucket: str, key: str) -> None:
        self._client.get_blob_client(bucket, key).delete_blob()

    def close(self) -> None:
        self._client.close()


class _Google:
    def __init__(self, timeout: float) -> None:
        self._how: dict[str, Any] = {"timeout": timeout, "retry": None}
        self._client = import_module("google.cloud.storage").Client()

    def put(self, bucket: str, key: str, body: bytes, media: str) -> None:
        blob = self._client.bucket(bucket).blob(key)
        blob.upload_from_string(body, content_type=media, **self._how)

    def delete(self, bucket: str, key: str) -> None:
        self._client.bucket(bucket).blob(key).delete(**self._how)

    def close(self) -> None:
        self._client.close()


def _within(timeout: float, call: Callable[[], None]) -> None:
    """The clients' timeouts are for each read; this one is for all of it. Raises TimeoutError."""
    ended: queue.SimpleQueue[Exception | None] = queue.SimpleQueue()

    def run() -> None:
        try:
            call()
            ended.put(None)
        except Exception as error:  # noqa: BLE001 - raised by the caller
            ended.put(error)

    threading.Thread(target=run, daemon=True, name="object store").start()
    try:
        error = ended.get(timeout=timeout)
    except queue.Empty:
        raise TimeoutError(f"no answer within {timeout:g} s") from None
    if error is not None:
        raise error


def _judge(url: str, error: BaseException) -> Retry | Refresh | Stop:
    """What a store's refusal means. Of its words only the code is kept: S3's, Azure's, Google's."""
    causes = [*_causes(error)]
    if status := next(filter(None, map(_status, causes)), 0):
        code = next(filter(None, map(_code, causes)), type(error).__name__)
        said = f"{url}: {code} (HTTP {status})"
        if status in (400, 401, 403):  # 400: S3's word for a token that has expired
            return Refresh(said)
        return Stop(said) if status in (404, 405) else Retry(said)
    for name in (type(cause).__name__ for cause in causes):
        if re.search("Credential|Authentication|RefreshError", name):
            return Refresh(f"{url}: no credentials in the environment ({name})")
    return Retry(f"{url}: {error if isinstance(error, TimeoutError) else type(error).__name__}")


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """The first one first: the clients wrap what says most."""
    if error is not None:
        yield from _causes(error.__cause__ or error.__context__)
        yield error


def _status(error: BaseException) -> int:
    response = getattr(error, "response", None)
    if isinstance(response, dict):
        response = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    for found in (response, getattr(error, "status_code", None), getattr(error, "code", None)):
        if isinstance(found, int) and 300 <= found < 600:
            return int(found)
    return 0


def _code(error: BaseException) -> str:
    response = getattr(error, "response", None)
    found = response.get("Error", {}).get("Code") if isinstance(response, dict) else None
    found = found or getattr(error, "error_code", "")
    said = str(getattr(found, "value", found) or "")  # Azure's are an enumeration
    return said if re.fullmatch(r"[\w.]{1,80}", said) else ""
