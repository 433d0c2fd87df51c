"""Sockets with one deadline for a whole exchange, and TLS that verifies unless told not to."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import ssl
import time
from collections.abc import Iterator
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

__all__ = ["Deadline", "Tls", "dial", "gone", "is_loopback", "secure", "send_all"]


def _path(text: str) -> str:
    path = text.removeprefix("file:")
    if not path or "-----BEGIN" in text:
        raise ValueError("a file is given as file:/path, not by its content")
    return path


PemFile = Annotated[str, AfterValidator(_path)]


class Tls(BaseModel):
    """How a TLS connection is made. Certificates are verified against the system's authorities."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    ca: PemFile | None = Field(
        default=None, description="PEM file of the authorities to trust instead of the system's."
    )
    cert: PemFile | None = Field(
        default=None, description="PEM file of the client certificate, if the system asks for one."
    )
    key: PemFile | None = Field(
        default=None,
        description="PEM file of the client certificate's key, if it is not in `cert`.",
    )
    server_name: str | None = Field(
        default=None,
        description="The name that the certificate must bear, if it is not the host's.",
    )
    verify: bool = Field(
        default=True, description="False accepts any certificate: for experiments only."
    )

    @model_validator(mode="after")
    def _key_needs_cert(self) -> Tls:
        if self.key and not self.cert:
            raise ValueError("`key` is of no use without `cert`")
        return self

    def context(self) -> ssl.SSLContext:
        """Read the files, now. Raises OSError (an unreadable file, or not a certificate)."""
        context = ssl.create_default_context(cafile=self.ca)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if self.cert:
            context.load_cert_chain(self.cert, self.key)
        if not self.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context


class Deadline:
    """A moment that everything in an exchange ends by; `left()` is what a socket may still wait."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    def left(self) -> float:
        """Seconds; raises TimeoutError when there are none."""
        left = self._end - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        return left


def dial(
    host: str, port: int, deadline: Deadline, tls: ssl.SSLContext | None = None, name: str = ""
) -> socket.socket:
    """A connected stream socket, with TLS if a context is given. Raises OSError.

    The name is resolved anew, and its addresses are tried one after another: each has its share
    of the time that is left, so that one which hangs leaves some to the others.
    name: what the certificate must be for, and the server is told; default: the host.
    """
    failure: OSError = OSError(f"{host} has no address")
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    for tried, (family, kind, protocol, _, address) in enumerate(found):
        share = Deadline(deadline.left() / (len(found) - tried))
        try:
            sock = socket.socket(family, kind, protocol)
        except OSError as error:  # a family that this machine does not speak
            failure = error
            continue
        try:
            sock.settimeout(share.left())
            sock.connect(address)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return sock if tls is None else secure(sock, tls, name or host, share)
        except OSError as error:
            sock.close()
            if not isinstance(failure, ssl.SSLCertVerificationError):  # that says the most
                failure = error
    raise failure


def secure(
    sock: socket.socket, tls: ssl.SSLContext, name: str, deadline: Deadline
) -> ssl.SSLSocket:
    """TLS over a connected socket, which is its own from now on. Raises OSError."""
    # An end without TLS's own goodbye is a connection that broke, not one that was closed: what
    # was sent last may have got lost.
    secured = tls.wrap_socket(
        sock, server_hostname=name, do_handshake_on_connect=False, suppress_ragged_eofs=False
    )
    try:
        secured.settimeout(deadline.left())
        secured.do_handshake()
    except BaseException:
        secured.close()
        raise
    return secured


def send_all(sock: socket.socket, data: bytes, deadline: Deadline) -> None:
    """`sendall`, but for TLS too the deadline is one for the whole."""
    view = memoryview(data)
    while view:
        sock.settimeout(deadline.left())
        view = view[sock.send(view) :]


@contextlib.contextmanager
def _not_waiting(sock: socket.socket) -> Iterator[None]:
    before = sock.gettimeout()
    sock.settimeout(0)
    try:
        yield
    finally:
        sock.settimeout(before)


def gone(sock: socket.socket) -> bool:
    """Whether the peer has closed the connection in order. Raises OSError if it broke.

    What a peer may have said unasked is read and dropped (TLS tickets among it).
    """
    with _not_waiting(sock), contextlib.suppress(BlockingIOError, ssl.SSLWantReadError):
        while sock.recv(65536):
            pass
        return True
    return False


def is_loopback(host: str) -> bool:
    """Whether a name or address is this machine's own, by itself: no name is looked up."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
