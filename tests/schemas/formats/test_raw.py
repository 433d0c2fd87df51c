from __future__ import annotations

import pytest
from hypothesis import given

from schemas.alert import Alert
from schemas.formats.raw import raw
from schemas.kinds import understand
from tests.strategies import records


@given(records())
def test_it_is_the_record_byte_for_byte(record: bytes) -> None:
    assert raw(understand(record)) == record


@pytest.mark.parametrize("record", [b"", b"42", b"[1]", b'{"a":1'])
def test_what_is_no_object_cannot_be_said(record: bytes) -> None:
    with pytest.raises(ValueError, match="not a JSON object"):
        raw(Alert(kind="unknown", key=bytes(16), entity="e", raw=record))
