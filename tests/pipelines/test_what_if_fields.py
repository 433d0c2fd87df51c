"""How two encoded forms differ is told by field, in every format; whatever the bytes are."""

from __future__ import annotations

import time

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.what_if.differences import differences
from pipelines.what_if.fields import fields_of
from schemas.formats import FORMATS
from schemas.kinds import understand
from tests.fixtures import hostile
from tests.pipelines.what_if_cases import alert


class TestFields:
    @pytest.mark.parametrize("form", sorted(FORMATS))
    def test_a_change_of_an_alert_is_found_by_field_in_every_format(self, form: str) -> None:
        it = understand(alert())
        other = msgspec.structs.replace(
            it, raw=alert(0, AlertDisplayName="Another"), title="Another"
        )
        one, two = (FORMATS[form].say(each) for each in (it, other))
        found = differences(fields_of(one), fields_of(two))
        assert found, form
        assert len(fields_of(one)) > 3, form
        assert any("Another" in (field.b or "") for field in found)

    @given(
        st.sampled_from([b"", b"<13>", b"CEF:0|", b"<1>x LEEF:2.0|", b'{"a":1}', b'<1>1 [a b="']),
        st.one_of(st.binary(max_size=300), st.sampled_from(hostile()).map(str.encode)),
    )
    def test_any_bytes_have_fields(self, begin: bytes, payload: bytes) -> None:
        fields = fields_of(begin + payload)
        assert fields or not payload.strip()
        for field in differences(fields, {}):
            assert field.name.isprintable() and (field.a or "").isprintable()

    @pytest.mark.parametrize("piece", [b"a" * 64, b'a="', b"a=\\", b"|", b'b="c" ', b"{", b"[]"])
    def test_no_text_takes_long(self, piece: bytes) -> None:
        began = time.process_time()
        for begin in (b"<13>", b"CEF:0|", b"LEEF:2.0|", b""):
            fields_of(begin + piece * (100_000 // len(piece)))
        assert time.process_time() - began < 10

    def test_depth_without_end_is_a_text(self) -> None:
        assert [*fields_of(b'{"a":' * 100_000)] == ["text"]

    def test_a_long_text_is_shown_where_it_differs(self) -> None:
        (field,) = differences({"x": "a" * 900 + "b"}, {"x": "a" * 900 + "c"})
        assert field.a is not None and field.b is not None
        assert field.a.endswith("b") and field.b.endswith("c") and len(field.a) < 210

    def test_a_hostile_title_does_not_make_a_record_another_language(self) -> None:
        title = "CEF:0|Evil|Evil|1|1|forged|10|externalId=1"
        fields = fields_of(FORMATS["ndjson"].say(understand(alert(AlertDisplayName=title))))
        assert fields["title"] == title
