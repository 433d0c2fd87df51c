"""A small HTTP/1.1 client for sinks: one kept connection, no redirects, one deadline a request.

Timeouts of the usual clients hold for each read, so that a server which drips its answer keeps
them for ever; here the deadline holds from the first byte out to the last byte in.
"""

from __future__ import annotations

import dataclasses
import email.utils
import http.client
import io
import socket
import time
import zlib
from collections.abc import Mapping
from email.message import Message
from typing import IO, Any
from urllib.parse import urlsplit

from transforms.delivery.network import Deadline, Tls, dial, gone, is_loopback, send_all

__all__ = ["HttpConnection", "Response", "check_url", "compress", "retry_after"]

_MOST = 64 * 1024  # bytes of an answer that are looked at


@dataclasses.dataclass(frozen=True)
class Response:
    """An answer. `body`: its first 64 KiB."""

    status: int
    reason: str
    headers: Message
    body: bytes


class HttpConnection:
    """The way to one host. Every failure is an OSError, and leaves it usable for a next request."""

    def __init__(self, url: str, tls: Tls, headers: Mapping[str, str]) -> None:
        parts = urlsplit(url)
        assert parts.hostname is not None
        secure = parts.scheme == "https"
        self._host, self._port = parts.hostname, parts.port or (443 if secure else 80)
        self._context = tls.context() if secure else None
        self._name = tls.server_name or ""
        self._headers = {"Host": parts.netloc, "User-Agent": "alertbeam", **headers}
        self._sock: socket.socket | None = None

    def request(
        self, method: str, path: str, body: bytes, headers: Mapping[str, str], timeout: float
    ) -> Response:
        """Send, and read the answer. A request that failed may have been carried out."""
        deadline = Deadline(timeout)
        fields = {**self._headers, **headers, "Content-Length": str(len(body))}
        head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        try:
            sock = self._open(deadline)
            try:
                start = f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode("latin-1")
                send_all(sock, start + body, deadline)
            except (BrokenPipeError, ConnectionResetError):
                pass  # it may have answered, and closed, without reading everything
            answer = http.client.HTTPResponse(_Answer(sock, deadline), method=method)  # type: ignore[arg-type]
            answer.begin()
            read = answer.read(_MOST)
            if answer.will_close or not answer.isclosed():
                self.close()
            return Response(answer.status, answer.reason, answer.headers, read)
        except http.client.HTTPException as error:
            self.close()
            raise ConnectionError(f"not an HTTP answer: {type(error).__name__}") from None
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        sock, self._sock = self._sock, None
        if sock is not None:
            sock.close()

    def _open(self, deadline: Deadline) -> socket.socket:
        if self._sock is not None:
            try:
                if not gone(self._sock):
                    return self._sock
            except OSError:
                pass  # nothing was under way on it
            self.close()
        self._sock = dial(self._host, self._port, deadline, self._context, self._name)
        return self._sock


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
    parts = urlsplit(url)
    if parts.scheme not in ("https", "http") or not parts.hostname:
        raise ValueError("a URL is needed: https://host:port")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ValueError("the URL must hold no user, password, query or fragment")
    if parts.scheme == "http" and not is_loopback(parts.hostname):
        raise ValueError(
            "http:// would send the token and the alerts unencrypted: use https:// "
            "(http:// is taken for 127.0.0.1 and localhost only)"
        )
    try:
        _ = parts.port
    except ValueError:
        raise ValueError("the URL's port is not a number between 0 and 65535") from None
    return url if parts.path.strip("/") else f"{parts.scheme}://{parts.netloc}{path}"


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
