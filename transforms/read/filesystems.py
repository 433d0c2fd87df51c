"""Where history lies: local folders, and every object store that Beam has a file system for.

    azfs://account/container/path   AZURE_STORAGE_CONNECTION_STRING (or --azure_connection_string),
                                    else Entra's: a managed identity, AZURE_CLIENT_ID…, `az login`
    s3://bucket/path                AWS_ACCESS_KEY_ID…, AWS_PROFILE, an instance's role
    gs://bucket/path                GOOGLE_APPLICATION_CREDENTIALS, `gcloud auth …`, an account's

Azure's is read through its own client, of which one serves all of a process: Beam's file system
makes a new one for each file, wants Entra's endpoint as an option, and takes `Last-Modified` for
local time, which is an hour wrong in summer.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import heapq
import importlib
import importlib.util
import io
import os
import re
import stat
from collections.abc import Callable, Container, Iterator, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast
from urllib.parse import quote, unquote_to_bytes

from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import AzureOptions, PipelineOptions, S3Options

from transforms.delivery.line import printable

__all__ = ["Found", "HistoryError", "find", "open_file"]

_PIECE = 4 * 1024 * 1024  # that is asked of a store at a time
_AZURE: dict[str, Any] = {  # seconds; between its attempts about 1, 3, 5, 9, 17
    "retry_total": 5, "initial_backoff": 1, "increment_base": 2,
    "connection_timeout": 20, "read_timeout": 60,
}  # fmt: skip
_CONNECTION_STRING = "AZURE_STORAGE_CONNECTION_STRING"
_SCOPE = "https://storage.azure.com/.default"
_PACKAGES = {  # of alertbeam[s3], alertbeam[gs]; without the last Beam is anonymous
    "s3": ("boto3",),
    "gs": ("google.cloud.storage", "google_auth_httplib2"),
}
_ADVICE = {
    "": "the user that runs this must be able to read it",
    "azfs": f"set {_CONNECTION_STRING}, or give the identity that runs this (a managed one, or "
    "`az login`'s) the role Storage Blob Data Reader",
    "s3": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, of someone who may "
    "list the bucket and read it",
    "gs": "set GOOGLE_APPLICATION_CREDENTIALS to the key of someone with the role Storage Object "
    "Viewer",
}
_ARCHIVED = "it is in the archive tier: rehydrate it"
_REASONS = {errno.ENOENT: "there is no such file or folder", errno.EACCES: "permission denied"}
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_AZURE_URL = re.compile(r"azfs://([a-z0-9-]+)/([$a-z0-9][a-z0-9-]*)(?:/(.*))?", re.DOTALL)
_OTHER_NAMES = re.compile(r"(https?|abfss?|wasbs?)://.*\.(blob|dfs)\.core\.", re.DOTALL)
_MAGIC = re.compile(r"[*?[]")
_GLOB = re.compile(r"\*\*/?|\*|\?|\[!?\]?[^\]/]*\]")

_BEHIND_THE_END = 416  # RFC 9110: Range Not Satisfiable

_Say = Callable[[str, str], None]


class HistoryError(Exception):
    """History cannot be found or read; the message says where, why, and what to do."""

    exit_code = 2


class Found(NamedTuple):
    """A file. start: the byte from which on it is wanted."""

    url: str
    size: int
    modified_ms: int  # 0: not known
    start: int = 0


def find(
    where: Sequence[str], unreadable: _Say | None = None, apart: _Say | None = None
) -> Iterator[Found]:
    """Every file of folders (and the folders in them), files and globs, in no order.

    where: local paths, `file://` and other URLs. `*` and `?` stand for what is within a name, `**`
        for folders too; what a glob matches may be a file or a folder.
    unreadable(url, why): for each file or folder that is there but closed to us; None: raise.
    apart(url, why): for what is passed over on purpose: hidden and temporary names (`.x`, `_x`,
        `x~`), which can be named to have them, and links to what is read anyway.

    Raises HistoryError, for each of `where` that holds nothing too.
    """
    roots = {_rooted(one): one for one in where}
    for root, one in roots.items():
        if _read_with(root, roots) and (_scheme(root) or os.path.lexists(root)):
            continue
        seen = _Seen(unreadable, apart)
        nothing = True
        try:
            for found in _every(root, seen):
                nothing = False
                yield found
        except OSError as error:
            raise HistoryError(_told(one, error)) from error
        if nothing and not seen.unreadable:
            less = f" ({seen.apart} hidden names or links are passed over)" if seen.apart else ""
            raise HistoryError(f"{printable(one)}: there is nothing to read{less}")


def open_file(url: str) -> BinaryIO:
    """A file to read: seekable, buffered, with what it is at this moment. Raises OSError."""
    scheme = _scheme(url)
    if not scheme:
        return Path(_local(url)).open("rb")
    raw = _Blob(url) if scheme == "azfs" else _Other(url)
    file = io.BufferedReader(raw, _PIECE)
    try:
        file.peek(1)  # whether it is there, and ours to read, is told now
    except BaseException:
        file.close()
        raise
    return cast(BinaryIO, file)


class _Seen:
    """What one of `where` holds beside files."""

    def __init__(self, unreadable: _Say | None, apart: _Say | None) -> None:
        self._unreadable, self._apart = unreadable, apart
        self.unreadable = self.apart = 0

    def closed(self, url: str, why: str) -> None:
        if self._unreadable is None:
            raise HistoryError(f"{printable(url)}: {printable(why)}")
        self.unreadable += 1
        self._unreadable(url, why)

    def passed(self, url: str, why: str) -> None:
        self.apart += 1
        if self._apart is not None:
            self._apart(url, why)

    def hidden(self, url: str) -> None:
        self.passed(url, "it is hidden, or not finished, by its name")


def _scheme(url: str) -> str:
    match = _SCHEME.match(url)
    return match[1] if match and match[1] != "file" else ""


def _local(url: str) -> str:
    """The path, of a path or a `file://` URL (RFC 8089)."""
    if not url.startswith("file://"):
        return url
    return os.fsdecode(unquote_to_bytes(url.removeprefix("file://").removeprefix("localhost")))


def _url(path: str) -> str:
    """The path as text that can be written down: as it is, if its name is UTF-8."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return "file://" + quote(os.fsencode(path))
    return path


def _rooted(one: str) -> str:
    return one.rstrip("/") if _scheme(one) else str(Path(_local(one)).absolute())


def _inside(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _hidden(path: str) -> bool:
    """Whether it is, or lies in, something hidden or unfinished."""
    return any(map(_hides, filter(None, path.split("/"))))


def _hides(name: str) -> bool:
    """As Hadoop's tools and editors mark it; and what file systems make for themselves."""
    return name[0] in "._" or name[-1] == "~" or name == "lost+found"


def _read_with(root: str, roots: Container[str]) -> bool:
    """Whether it lies in another one of the roots, and is found there."""
    at = len(root)
    while (at := root.rfind("/", 0, at)) > 0:
        if root[:at] in roots and not _hidden(root[at:]):
            return True
    return False


def _every(root: str, seen: _Seen) -> Iterator[Found]:
    scheme = _scheme(root)
    try:
        glob = _Glob(root, literal=not scheme and os.path.lexists(root))
    except re.error:
        raise HistoryError(f"{printable(root)}: its [ ] cannot be understood") from None
    if not scheme:
        return _walk(glob, seen)
    return _listed(_blobs(glob) if scheme == "azfs" else _others(glob), glob, seen)


class _Glob:
    """What is meant: a file or a folder and all that is in it; by name, or by a pattern."""

    def __init__(self, text: str, literal: bool = False) -> None:
        magic = None if literal else _MAGIC.search(text)
        self.text, self.magic = text, magic is not None
        self.prefix = text[: magic.start()] if magic else text
        self.base = self.prefix.rpartition("/")[0] if magic else text
        pattern = text[len(self.base) + 1 :]
        self._takes = re.compile(_regex(pattern) + "(?:/.*)?", re.DOTALL)
        opens = "(?:/.*)?"
        for part in reversed([*takewhile(lambda part: "**" not in part, pattern.split("/"))]):
            opens = f"(?:/{_regex(part)}{opens})?"
        self._opens = re.compile(opens, re.DOTALL)

    def takes(self, url: str) -> bool:
        """Whether it means this, which lies below its base."""
        return not self.magic or self._takes.fullmatch(url, len(self.base) + 1) is not None

    def opens(self, folder: str) -> bool:
        """Whether it may mean something in this folder, which lies below its base."""
        return not self.magic or self._opens.fullmatch(folder, len(self.base)) is not None


def _regex(glob: str) -> str:
    pattern, at = "", 0
    for match in _GLOB.finditer(glob):
        pattern += re.escape(glob[at : match.start()])
        at, said = match.end(), match[0]
        if said.startswith("["):
            inside = said[1:-1].replace("\\", "\\\\").replace("[", "\\[")
            pattern += f"[{'^' + inside[1:] if inside.startswith('!') else inside}]"
        else:
            pattern += {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}[said]
    return pattern + re.escape(glob[at:])


# ------------------------------------------------------------------------------------- local


def _walk(glob: _Glob, seen: _Seen) -> Iterator[Found]:
    """Folders by their own names first, then what links lead to: each folder once, so that no loop
    of links has no end."""
    base = glob.base or "/"
    info = Path(base).stat()
    if stat.S_ISREG(info.st_mode):
        if not glob.magic:
            yield _file(base, info)
        return
    real = os.path.realpath(base)
    entered: set[str] = set()
    folders, links = [base], list[str]()
    while folders or links:
        if not folders:
            path = heapq.heappop(links)  # in order: the same file has the same name next time
            try:
                info = Path(path).stat()
            except OSError as error:
                seen.closed(path, f"a link that leads nowhere: {_reason(error)}")
                continue
            target = os.path.realpath(path)
            read = not glob.magic and _inside(target, real) and not _hidden(target[len(real) :])
            if _inside(real, target):
                seen.passed(path, "a link that leads up to a folder it lies in")
            elif target in entered or read:
                seen.passed(path, "a link to what is read under another name")
            elif stat.S_ISDIR(info.st_mode) and glob.opens(path):
                entered.add(target)
                folders.append(path)
            elif stat.S_ISREG(info.st_mode) and glob.takes(path):
                yield _file(path, info)
            continue
        folder = folders.pop()
        try:
            entries = os.scandir(folder)
        except OSError as error:
            if folder == base:
                raise
            if not isinstance(error, FileNotFoundError):  # as if it had never been there
                seen.closed(folder, _reason(error))
            continue
        with entries:
            for entry in entries:
                path = entry.path
                if _hides(entry.name):
                    if glob.takes(path) or glob.opens(path):
                        seen.hidden(path)
                elif entry.is_symlink():
                    if glob.takes(path) or glob.opens(path):
                        heapq.heappush(links, path)
                elif entry.is_dir(follow_symlinks=False):
                    if glob.opens(path):
                        folders.append(path)
                elif glob.takes(path):
                    try:
                        info = entry.stat(follow_symlinks=False)
                    except FileNotFoundError:
                        continue
                    except OSError as error:
                        seen.closed(path, _reason(error))
                        continue
                    if stat.S_ISREG(info.st_mode):
                        yield _file(path, info)
                    else:
                        seen.passed(path, "it is no file")


def _file(path: str, info: os.stat_result) -> Found:
    return Found(
        path if path.isascii() else _url(path), info.st_size, info.st_mtime_ns // 1_000_000
    )


# ------------------------------------------------------------------------------------- stores


class _Object(NamedTuple):
    found: Found
    closed: str = ""  # why it cannot be read


def _listed(objects: Iterator[_Object], glob: _Glob, seen: _Seen) -> Iterator[Found]:
    with _asking(glob.text):
        for found, closed in objects:
            if not glob.takes(found.url):
                continue
            if _hidden(found.url[len(glob.base) :]):
                seen.hidden(found.url)
            elif closed:
                seen.closed(found.url, closed)
            else:
                yield found


def _blobs(glob: _Glob) -> Iterator[_Object]:
    """Azure's, page by page."""
    account, container, path = _azure_url(glob.text)
    client = _azure(account).get_container_client(container)
    top = f"azfs://{account}/{container}/"
    prefix = glob.prefix[len(top) :]
    if path and not glob.magic:
        with contextlib.suppress(FileNotFoundError), _asking(glob.text):
            it = client.get_blob_client(path).get_blob_properties()
            if not _folder(it):
                yield _blob(top, it)
        prefix += "/"
    for it in client.list_blobs(name_starts_with=prefix or None, include=["metadata"]):
        if not _folder(it):
            yield _blob(top, it)


def _folder(blob: Any) -> bool:
    """Whether it stands for a folder, in an account with a hierarchical namespace."""
    return (blob.metadata or {}).get("hdi_isfolder") == "true"


def _blob(top: str, blob: Any) -> _Object:
    found = Found(top + blob.name, blob.size, int(blob.last_modified.timestamp() * 1000))
    tier = str(blob.blob_tier or "")
    return _Object(found, _ARCHIVED if tier == "Archive" else "")


def _azure_url(url: str) -> tuple[str, str, str]:
    match = _AZURE_URL.fullmatch(url)
    if match is None:
        raise HistoryError(f"{printable(url)}: must be azfs://account/container/path")
    return match[1], match[2], match[3] or ""


def _azure(account: str) -> Any:
    options = getattr(FileSystems, "_pipeline_options", None)
    given = identity = None
    if isinstance(options, PipelineOptions):
        azure = options.view_as(AzureOptions)
        given, identity = azure.azure_connection_string, azure.azure_managed_identity_client_id
    return _azure_client(account, given or os.environ.get(_CONNECTION_STRING, ""), identity)


@functools.lru_cache(maxsize=8)
def _azure_client(account: str, given: str, identity: str | None) -> Any:
    from azure.identity import DefaultAzureCredential
    from azure.storage.blob import BlobServiceClient

    if not given:
        named = {"managed_identity_client_id": identity} if identity else {}
        credential = DefaultAzureCredential(**named)
        credential.get_token(_SCOPE)  # now: the client would ask for half a minute
        url = f"https://{account}.blob.core.windows.net"
        return BlobServiceClient(url, credential, **_AZURE)
    if not re.search(rf"AccountName={account}(;|$)|//{account}\.", given):
        raise HistoryError(f"azfs://{account}: {_CONNECTION_STRING} is of another account")
    try:
        return BlobServiceClient.from_connection_string(given, **_AZURE)
    except ValueError:  # whose text could quote it
        raise HistoryError(f"{_CONNECTION_STRING} cannot be understood") from None


def _others(glob: _Glob) -> Iterator[_Object]:
    """Those of Beam's file systems; all of a listing at once."""
    _beam(glob.text)
    if _scheme(glob.text) == "s3":
        _check_s3(glob.text)
    patterns = [f"{glob.prefix}**"] if glob.magic else [glob.text, f"{glob.text}/**"]
    if glob.text.count("/") == 2:
        del patterns[0]  # a bucket is no file
    for pattern in patterns:
        for it in FileSystems.match([pattern])[0].metadata_list:
            if not it.path.endswith("/"):  # what consoles make for an empty folder
                modified_ms = int(it.last_updated_in_seconds * 1000)
                yield _Object(Found(it.path, it.size_in_bytes, modified_ms))


def _beam(url: str) -> None:
    """Ready for Beam's file systems. Raises HistoryError."""
    scheme = _scheme(url)
    if _OTHER_NAMES.match(url):
        raise HistoryError(f"{printable(url)}: write it as azfs://account/container/path")
    if not all(map(_installed, _PACKAGES.get(scheme, ()))):
        raise HistoryError(f"{scheme}:// needs a package more: pip install 'alertbeam[{scheme}]'")
    if FileSystems._pipeline_options is None:
        FileSystems.set_options(PipelineOptions([]))
    try:
        FileSystems.get_filesystem(url)
    except ValueError:
        raise HistoryError(
            f"{printable(url)}: must be a local path, or in azfs://, s3:// or gs://"
        ) from None


def _check_s3(url: str) -> None:
    """Beam would ask for minutes for an object without credentials."""
    options = FileSystems._pipeline_options
    given = isinstance(options, PipelineOptions) and options.view_as(S3Options).s3_access_key_id
    session = importlib.import_module("boto3.session").Session()
    if not given and session.get_credentials() is None:
        raise ConnectionRefusedError(errno.ECONNREFUSED, "no credentials for it", url)


def _installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


class _Raw(io.RawIOBase):
    """A file in a store, without a buffer."""

    def __init__(self, url: str) -> None:
        self.name = url

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readall(self) -> bytes:
        """Not in pieces of 8 KiB, each of which would be a request."""
        return b"".join(iter(lambda: self.read(_PIECE) or b"", b""))


class _Blob(_Raw):
    """A blob; each read is one request for as much as is wanted."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        account, container, path = _azure_url(url)
        with _asking(url):
            self._client = _azure(account).get_blob_client(container, path)
        self._at = 0
        self._size = -1  # not known yet

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        if whence == os.SEEK_END and self._size < 0:
            with _asking(self.name):
                self._size = self._client.get_blob_properties().size
        before = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        self._at = max(0, before + offset)
        return self._at

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        if not view or 0 <= self._size <= self._at:
            return 0
        with _asking(self.name):
            try:
                # as it is stored: parts are ranges of that
                got = self._client.download_blob(self._at, len(view), decompress=False)
                data = got.readall()
            except Exception as error:
                if getattr(error, "status_code", 0) != _BEHIND_THE_END:
                    raise
                self._size = self._at
                return 0
        self._size = int(got.properties.content_range.rpartition("/")[2])
        view[: len(data)] = data
        self._at += len(data)
        return len(data)


class _Other(_Raw):
    """A file of a file system of Beam's."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        _beam(url)
        with _asking(url):
            how = CompressionTypes.UNCOMPRESSED
            self._file: Any = FileSystems.open(url, compression_type=how)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        with _asking(self.name):
            return int(self._file.seek(offset, whence))

    def readinto(self, buffer: Any) -> int:
        with _asking(self.name):
            return int(self._file.readinto(buffer))

    def close(self) -> None:
        if not self.closed:
            with contextlib.suppress(Exception):
                self._file.close()
        super().close()


# ------------------------------------------------------------------------------------- errors


@contextlib.contextmanager
def _asking(url: str) -> Iterator[None]:
    """Whatever a store's client raises becomes an OSError that names the file."""
    try:
        yield
    except HistoryError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.filename == url:
            raise
        raise _refused(url, error) from error


def _refused(url: str, error: Exception) -> OSError:
    """Of a store's words only the code is kept. Who is refused is not told that one file is closed
    to him: his credentials may be wrong, or have expired, for all of them."""
    causes = [*_causes(error)]
    status = next(filter(None, map(_status, causes)), 0)
    code = next(filter(None, map(_code, causes)), type(causes[0]).__name__)
    said = f"{code} (HTTP {status})" if status else code
    if code == "BlobArchived":
        return PermissionError(errno.EACCES, _ARCHIVED, url)
    if status == 404 or any(isinstance(cause, FileNotFoundError) for cause in causes):
        return FileNotFoundError(errno.ENOENT, f"it is not there: {said}", url)
    if status in (400, 401, 403):
        return ConnectionRefusedError(errno.ECONNREFUSED, f"refused: {said}", url)
    for name in (type(cause).__name__ for cause in causes):
        if re.search("Credential|Authentication|RefreshError", name):
            return ConnectionRefusedError(errno.ECONNREFUSED, f"no credentials for it: {name}", url)
    return OSError(errno.EIO, f"the store failed: {said}", url)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """The first one first: clients wrap what says most."""
    if error is not None:
        for inner in (getattr(error, "exception_details", None) or {}).values():  # Beam's
            yield from _causes(inner)
        yield from _causes(error.__cause__ or error.__context__)
        yield error


def _status(error: BaseException) -> int:
    for found in (getattr(error, "status_code", None), getattr(error, "code", None)):
        if isinstance(found, int) and 300 <= found < 600:
            return int(found)
    return 0


def _code(error: BaseException) -> str:
    found = getattr(error, "error_code", "")
    said = str(getattr(found, "value", found) or "")  # Azure's are an enumeration
    return said if re.fullmatch(r"[\w.]{1,80}", said) else ""


def _reason(error: OSError) -> str:
    return _REASONS.get(error.errno or 0) or error.strerror or str(error)


def _told(one: str, error: OSError) -> str:
    scheme = _scheme(one)
    reason = printable(error.strerror or str(error) if scheme else _reason(error))
    closed = isinstance(error, PermissionError | ConnectionRefusedError)
    advice = f" ({_ADVICE[scheme]})" if closed and scheme in _ADVICE else ""
    return f"{printable(one)}: {reason}{advice}"
