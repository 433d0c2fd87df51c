"""Avro's codecs: what unpacks a block, to no more than a block may have.

Source: Apache Avro 1.12's specification, "Object Container Files".
"""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable
from importlib import import_module
from typing import Any

from transforms.read.files._avro_values import Refused, skip_long

__all__ = ["BLOCK_BYTES", "CODECS", "LARGE", "unpacked"]

BLOCK_BYTES = 64 * 1024 * 1024  # unpacked
LARGE = "a block of more than 64 MiB"

_DICTIONARY = 128 * 1024 * 1024  # what unpacking may keep at hand

try:
    _deflate = import_module("isal.isal_zlib")  # the same, in less than half the time
except ImportError:
    _deflate = zlib


def _inflate(data: memoryview) -> bytes:
    # Python's writers leave some of zlib's checksum behind.
    return _ended(_deflate.decompressobj(-15), data, behind=4)


def _bunzip2(data: memoryview) -> bytes:
    return _ended(bz2.BZ2Decompressor(), data)


def _unxz(data: memoryview) -> bytes:
    return _ended(lzma.LZMADecompressor(memlimit=_DICTIONARY), data)


def _ended(unpacker: Any, data: memoryview, behind: int = 0) -> bytes:
    """behind: how many bytes may follow the end."""
    found = unpacker.decompress(data, BLOCK_BYTES + 1)
    return _whole(found, unpacker.eof and len(unpacker.unused_data) <= behind)


def _unzstd(data: memoryview) -> bytes:
    import zstandard  # comes with Beam, too

    unpacker = zstandard.ZstdDecompressor(max_window_size=_DICTIONARY)
    try:
        with unpacker.stream_reader(data, read_across_frames=True) as stream:
            return _whole(stream.read(BLOCK_BYTES + 1))
    except zstandard.ZstdError as error:
        raise ValueError(str(error)) from error


def _unsnap(data: memoryview) -> bytes:
    arrow = import_module("pyarrow")  # slow to import; comes with Beam
    packed, checksum = bytes(data[:-4]), data[-4:]
    size = sum((byte & 0x7F) << 7 * n for n, byte in enumerate(packed[: skip_long(packed, 0)]))
    if size > BLOCK_BYTES:
        raise Refused(LARGE)
    found: bytes = arrow.Codec("snappy").decompress(packed, size, asbytes=True)
    if zlib.crc32(found).to_bytes(4, "big") != checksum:
        raise ValueError("its checksum is another")
    return found


def _whole(found: bytes, ended: bool = True) -> bytes:
    if len(found) > BLOCK_BYTES:
        raise Refused(LARGE)
    if not ended:
        raise ValueError("it ends in the middle")
    return found


CODECS: dict[bytes, Callable[[memoryview], bytes] | None] = {
    b"null": None,
    b"deflate": _inflate,
    b"bzip2": _bunzip2,
    b"xz": _unxz,
    b"zstandard": _unzstd,
    b"snappy": _unsnap,
}
_UNPACKING = (
    _deflate.error,
    zlib.error,
    lzma.LZMAError,
    OSError,
    EOFError,
    IndexError,
    ValueError,
    MemoryError,
)


def unpacked(unpack: Callable[[memoryview], bytes], data: memoryview) -> bytes:
    """Raises Refused."""
    try:
        return unpack(data)
    except ImportError as error:
        raise Refused(f"its codec needs the package {error.name}") from error
    except _UNPACKING as error:
        raise Refused(f"a block cannot be unpacked: {error}") from error
