"""How the types that flow cross a stage: msgpack, with sizes that cost nothing to estimate."""

from __future__ import annotations

from typing import Any

import msgspec
from apache_beam import coders

from schemas.batch import AlertBatch, Batch
from schemas.receipt import Receipt

__all__ = ["register"]

_ENCODER = msgspec.msgpack.Encoder()
_BYTES_PER_RECORD = 2700


class _StructCoder(coders.Coder):
    """One of the structs in `schemas/`. Runners ask for sizes at every element: no encoding."""

    struct: type[Any]

    def __init__(self) -> None:
        self._decoder = msgspec.msgpack.Decoder(self.struct)

    def encode(self, value: Any) -> bytes:
        return _ENCODER.encode(value)

    def decode(self, encoded: bytes) -> Any:
        return self._decoder.decode(encoded)

    def is_deterministic(self) -> bool:
        return True

    def estimate_size(self, value: Any) -> int:
        return 256

    def to_type_hint(self) -> Any:
        return self.struct

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other)

    def __hash__(self) -> int:
        return hash(type(self))

    def __reduce__(self) -> Any:
        return type(self), ()


class BatchCoder(_StructCoder):
    struct = Batch

    def estimate_size(self, value: Batch) -> int:
        return len(value.records) * _BYTES_PER_RECORD


class AlertBatchCoder(_StructCoder):
    struct = AlertBatch

    def estimate_size(self, value: AlertBatch) -> int:
        return len(value.alerts) * _BYTES_PER_RECORD


class ReceiptCoder(_StructCoder):
    struct = Receipt


def register() -> None:
    """Tell Beam. Importing any module that moves these types does it."""
    for coder in (BatchCoder, AlertBatchCoder, ReceiptCoder):
        coders.registry.register_coder(coder.struct, coder)
