"""A small HTTP/1.1 client for sinks: one kept connection, no redirects, one deadline a request.

Source: RFC 9110 and 9112. Timeouts of the usual clients hold for each read, so that a server which
drips its answer keeps them for ever; here the deadline holds from the first byte out to the last
byte in, through a proxy too.
"""

from __future__ import annotations

import base64
import dataclasses
import email.utils
import http.client
import io
import random
import socket
import ssl
import time
import urllib.request
import zlib
from collections.abc import Callable, Mapping
from email.message import Message
from typing import IO, Any
from urllib.parse import SplitResult, unquote, urlsplit

from pydantic import Field, field_validator

from transforms.delivery.network import Deadline, Tls, dial, gone, is_loopback, secure, send_all
from transforms.secrets import SecretError, SecretRef
from transforms.sinks.base import (
    Accepted,
    Refresh,
    Retry,
    Shrink,
    SinkSettings,
    Split,
    Stop,
    Verdict,
)

__all__ = [
    "HttpConnection",
    "HttpSettings",
    "Response",
    "check_url",
    "compress",
    "judge",
    "retry_after",
]

_MOST = 64 * 1024  # bytes of an answer that are looked at
_KEPT = 300.0  # seconds that a connection is kept: then its name is resolved anew


class HttpSettings(SinkSettings):
    """What the settings of every sink that speaks HTTP share."""

    gzip: bool = Field(True, description="Compress requests.")
    tls: Tls = Field(Tls(), description="How the connection is secured.")
    proxy: str = Field(
        "",
        description="The proxy on the way: http://host:port. Without it HTTPS_PROXY, HTTP_PROXY "
        "and NO_PROXY of the environment hold, but never for this machine's own addresses.",
    )
    proxy_credentials: SecretRef | None = Field(
        None, description="The proxy's `user:password`: env:NAME or file:/path."
    )

    @field_validator("proxy")
    @classmethod
    def _check_proxy(cls, proxy: str) -> str:
        if proxy:
            parts = _parts(proxy)
            if parts.username or parts.password:
                raise ValueError("a proxy's user and password are given as `proxy_credentials`")
            if parts.scheme != "http" or proxy.rstrip("/") != f"http://{parts.netloc}":
                raise ValueError("a proxy is given as http://host:port")
        return proxy


@dataclasses.dataclass(frozen=True)
class Response:
    """An answer. `body`: its first bytes, 64 KiB unless more were asked for."""

    status: int
    reason: str
    headers: Message
    body: bytes


class HttpConnection:
    """The way to one host. Every failure is an OSError, and leaves it usable for a next request.

    headers: what every request says. greet: called before each dialling, and told whether the
    connection before was lost, not given up; what it returns is said with the requests that go over
    the new one. Raises SecretError, or OSError where certificates cannot be read.
    """

    def __init__(
        self,
        url: str,
        how: HttpSettings,
        headers: Mapping[str, str],
        greet: Callable[[bool], Mapping[str, str]] | None = None,
    ) -> None:
        parts = urlsplit(url)
        assert parts.hostname is not None
        encrypted = parts.scheme == "https"
        self._host, self._port = parts.hostname, parts.port or (443 if encrypted else 80)
        self._context = how.tls.context() if encrypted else None
        self._name = how.tls.server_name or self._host
        self._proxy = _Proxy.to(parts, how)
        self._at = ""  # what stands before a path
        self._headers = {"User-Agent": "alertbeam", **headers}
        if self._proxy is not None and not encrypted:
            self._at = f"http://{parts.netloc}"
            self._headers.update(self._proxy.headers)
        self._named = parts.netloc
        self._greet = greet
        self._greeting: Mapping[str, str] = {}
        self._sock: socket.socket | None = None
        self._until = 0.0  # monotonic seconds

    def request(
        self,
        method: str,
        path: str,
        body: bytes,
        headers: Mapping[str, str],
        timeout: float,
        most: int = _MOST,
    ) -> Response:
        """Send, and read the answer, the first `most` bytes of it.

        A request that failed may have been carried out. Raises ValueError for a header that
        cannot be said; its text does not repeat it.
        """
        deadline = Deadline(timeout)
        try:
            sock = self._open(deadline)
            own = {"Host": self._named, "Content-Length": str(len(body))}
            start = f"{method} {self._at}{path} HTTP/1.1"
            head = _head(start, own, headers, self._greeting, self._headers)
            try:
                send_all(sock, head + body, deadline)
            except (BrokenPipeError, ConnectionResetError, ssl.SSLEOFError):
                pass  # it may have answered, and closed, without reading everything
            answer = http.client.HTTPResponse(_Answer(sock, deadline), method=method)  # type: ignore[arg-type]
            answer.begin()
            read = answer.read(most)
            if answer.length and len(read) < most:
                raise http.client.IncompleteRead(b"")
            if answer.will_close or not answer.isclosed():
                self.close()
        except http.client.HTTPException as error:
            self.close()
            raise ConnectionError(_trouble(error)) from None
        except BaseException:
            self.close()
            raise
        if self._at and self._proxy is not None and answer.status == 407:
            raise ConnectionError(self._proxy.refusal(407, self._named))
        return Response(answer.status, answer.reason, answer.headers, read)

    def reach(self, timeout: float) -> None:
        """Connect, and say nothing. Raises OSError."""
        self._open(Deadline(timeout))
        self.close()

    def close(self) -> None:
        sock, self._sock = self._sock, None
        if sock is not None:
            sock.close()

    def _open(self, deadline: Deadline) -> socket.socket:
        lost = False
        if self._sock is not None:
            try:
                lost = gone(self._sock)
            except OSError:
                lost = True  # nothing was under way on it
            if not lost and time.monotonic() < self._until:
                return self._sock
            self.close()
        if self._greet is not None:
            self._greeting = self._greet(lost)
        if self._proxy is None:
            self._sock = dial(self._host, self._port, deadline, self._context, self._name)
        else:
            self._sock = self._proxy.dial(deadline)
            if self._context is not None:
                self._proxy.tunnel(self._sock, self._host, self._port, deadline)
                self._sock = secure(self._sock, self._context, self._name, deadline)
        # Not all at once: a system behind several addresses would lose all its senders together.
        self._until = time.monotonic() + random.uniform(0.8, 1.0) * _KEPT
        return self._sock


@dataclasses.dataclass(frozen=True)
class _Proxy:
    """An HTTP proxy: CONNECT to what is secured (RFC 9110, 9.3.6), whole URLs to what is not."""

    host: str
    port: int
    headers: Mapping[str, str] = dataclasses.field(repr=False)

    @classmethod
    def to(cls, target: SplitResult, how: HttpSettings) -> _Proxy | None:
        """The proxy on the way to a URL. Raises SecretError, or OSError for a useless one."""
        url = how.proxy
        if not url and not is_loopback(target.hostname or ""):
            given = urllib.request.getproxies()
            if not urllib.request.proxy_bypass(target.netloc):
                url = given.get(target.scheme) or given.get("all") or ""
        if not url:
            return None
        try:
            parts = _parts(url if "://" in url else f"http://{url}")
        except ValueError:
            parts = None
        if parts is None or parts.scheme != "http":
            raise ConnectionError("the environment's proxy is not usable: give http://host:port")
        headers = {}
        credentials = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}"
        if how.proxy_credentials:
            credentials = how.proxy_credentials.resolve().reveal()
            if ":" not in credentials:
                raise SecretError(f"{how.proxy_credentials}: user:password is needed")
        if credentials != ":":
            encoded = base64.b64encode(credentials.encode()).decode()
            headers["Proxy-Authorization"] = f"Basic {encoded}"
        return cls(parts.hostname or "", parts.port or 80, headers)

    def __str__(self) -> str:
        return f"the proxy {_address(self.host, self.port)}"

    def dial(self, deadline: Deadline) -> socket.socket:
        try:
            return dial(self.host, self.port, deadline)
        except OSError as error:
            raise ConnectionError(f"{self} cannot be reached: {error}") from None

    def tunnel(self, sock: socket.socket, host: str, port: int, deadline: Deadline) -> None:
        """Have it connect the socket to a host. Raises OSError."""
        target = _address(host, port)
        head = _head(f"CONNECT {target} HTTP/1.1", {"Host": target}, self.headers)
        send_all(sock, head, deadline)
        answer = http.client.HTTPResponse(_Answer(sock, deadline), method="CONNECT")  # type: ignore[arg-type]
        try:
            answer.begin()
        except http.client.HTTPException as error:
            raise ConnectionError(f"{self}: {_trouble(error)}") from None
        if not 200 <= answer.status < 300:
            raise ConnectionError(self.refusal(answer.status, target))

    def refusal(self, status: int, target: str) -> str:
        """Its own words are not repeated: some proxies quote what they were told."""
        if status == 407 and self.headers:
            return f"{self} refused the credentials: HTTP 407"
        if status == 407:
            return f"{self} refused: HTTP 407, it wants `proxy_credentials`"
        verb = "could not" if status >= 500 else "refused to"
        return f"{self} {verb} connect to {target}: HTTP {status}"


def _head(start: str, *headers: Mapping[str, str]) -> bytes:
    """A request's first lines. Of a header that is there twice, however written, the first holds.

    Raises ValueError for what would begin another line.
    """
    fields: dict[str, str] = {}
    for name, value in (pair for each in headers for pair in each.items()):
        fields.setdefault(name.lower(), f"{name}: {value}")
    lines = [start, *fields.values()]
    if not all(map(str.isprintable, lines)):
        raise ValueError("a header holds a control character")
    return "".join(f"{line}\r\n" for line in [*lines, ""]).encode("latin-1")


def _trouble(error: http.client.HTTPException) -> str:
    if isinstance(error, http.client.RemoteDisconnected):
        return "it closed the connection without an answer"
    if isinstance(error, http.client.IncompleteRead):
        return "its answer broke off"
    return f"not an HTTP answer: {type(error).__name__}"


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _parts(url: str) -> SplitResult:
    """A URL taken apart. Raises ValueError; its text never repeats what may be a secret."""
    if not (url.isascii() and url.isprintable() and " " not in url):
        raise ValueError("a URL holds printable ASCII only: names in other letters as xn--…")
    parts = urlsplit(url)
    if not parts.hostname:
        raise ValueError("a URL is needed: https://host:port")
    try:
        _ = parts.port
    except ValueError:
        raise ValueError("the URL's port is not a number between 0 and 65535") from None
    return parts


class _Answer(io.RawIOBase):
    """What HTTPResponse takes for a socket: each read waits only for what the deadline leaves."""

    def __init__(self, sock: socket.socket, deadline: Deadline) -> None:
        self._sock = sock
        self._deadline = deadline

    def makefile(self, mode: str) -> IO[bytes]:
        return io.BufferedReader(self)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._sock.settimeout(self._deadline.left())
        return self._sock.recv_into(buffer)


def check_url(url: str, *, path: str) -> str:
    """An https URL (http on the machine's own address only), with `path` if it has none.

    Raises ValueError; its text never repeats what may be a secret.
    """
    parts = _parts(url)
    if parts.scheme not in ("https", "http"):
        raise ValueError("a URL is needed: https://host:port")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ValueError("the URL must hold no user, password, query or fragment")
    if parts.scheme == "http" and not is_loopback(parts.hostname or ""):
        raise ValueError(
            "http:// would send the token and the alerts unencrypted: use https:// "
            "(http:// is taken for 127.0.0.1 and localhost only)"
        )
    return url if parts.path.strip("/") else f"{parts.scheme}://{parts.netloc}{path}"


def judge(response: Response, said: str) -> Verdict:
    """What an answer means where a system's own codes say nothing else.

    said: the answer in a line, without secrets. 401 is tried once more with credentials that are
    read anew; 413 is too large; 400 and 422 are about the records; 408, 425, 429 and 5xx pass.
    """
    status = response.status
    if 200 <= status < 300:
        return Accepted(said=said)
    if status in (408, 425, 429) or status >= 500:
        return Retry(said, after=retry_after(response.headers))
    if status == 401:
        return Refresh(said)
    if status == 413:
        return Shrink(said)
    if status in (400, 422):
        return Split(said)
    return Stop(said)  # 3xx is a portal or a wrong address; 403, 404, … are about the settings


def compress(data: bytes) -> bytes:
    """gzip, at the level that costs least."""
    packer = zlib.compressobj(1, zlib.DEFLATED, 31)
    return packer.compress(data) + packer.flush()


def retry_after(headers: Message) -> float | None:
    """Seconds that `Retry-After` asks for, given as a number or a date (RFC 9110, 10.2.3)."""
    value = str(headers.get("Retry-After", "")).strip()
    if value.isascii() and value.isdigit():
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (TypeError, ValueError, OverflowError):
        return None
