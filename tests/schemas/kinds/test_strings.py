"""Values in strings: what serializers wrote comes back, and hostile text costs little."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.kinds._strings import loads_loosely

texts = st.one_of(
    st.text(st.characters(exclude_categories=("Cs",)), max_size=12),
    st.text("'\"\\{}[],: \nnux0", max_size=12),
)
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    texts,
)
containers = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=12,
).filter(lambda value: isinstance(value, dict | list))


@given(containers, st.booleans())
def test_what_json_wrote_comes_back(value: Any, ascii_only: bool) -> None:
    written = json.dumps(value, ensure_ascii=ascii_only)
    assert loads_loosely(written) == (value, "json_in_string")
    assert loads_loosely(f" \n{written}\t") == (value, "json_in_string")


@given(containers)
def test_what_python_wrote_comes_back(value: Any) -> None:
    found, repair = loads_loosely(repr(value))
    assert found == value
    assert repair in ("json_in_string", "single_quotes", "sloppy_json")


plain = st.text("abc 0.:/@-", max_size=8)
quoted = st.lists(plain, min_size=2, max_size=4).map('"'.join)


@given(st.dictionaries(plain, quoted, min_size=1, max_size=4), st.sampled_from(["'", '"']))
def test_quotes_that_nobody_escaped_are_kept(value: dict[str, str], mark: str) -> None:
    value = {key: text.replace('"', mark) for key, text in value.items()}
    members = (f"{mark}{key}{mark}:{mark}{text}{mark}" for key, text in value.items())
    assert loads_loosely(f"{{{','.join(members)}}}") == (value, "unescaped_quotes")


@given(st.dictionaries(texts, scalars | containers, min_size=1, max_size=4), st.data())
def test_what_was_cut_off_leaves_whole_members(value: dict[str, Any], data: st.DataObject) -> None:
    written = json.dumps(value)
    kept = data.draw(st.integers(0, len(written) - 1))
    found, repair = loads_loosely(written[:kept])
    assert repair in ("", "cut_off")
    assert part_of(found or {}, value)


def part_of(part: Any, whole: Any) -> bool:
    if isinstance(part, dict) and isinstance(whole, dict):
        return all(key in whole and part_of(part[key], whole[key]) for key in part)
    if isinstance(part, list) and isinstance(whole, list):
        return len(part) <= len(whole) and all(map(part_of, part, whole))
    return bool(part == whole)


@pytest.mark.parametrize(
    ("text", "value", "repair"),
    [
        ("{'a':'b','c':null,'d':true}", {"a": "b", "c": None, "d": True}, "single_quotes"),
        ("{'a': None, 'b': [True, False]}", {"a": None, "b": [True, False]}, "single_quotes"),
        ("{'a': nan, 'b': undefined,}", {"a": None, "b": None}, "single_quotes"),
        ("[{'a': \"it's\"}, 1,]", [{"a": "it's"}, 1], "single_quotes"),
        ('{"a": [1, 2,], "b": None}', {"a": [1, 2], "b": None}, "sloppy_json"),
        (r'{"path": "C:\Windows\System32"}', {"path": r"C:\Windows\System32"}, "sloppy_json"),
        ('{"a": "two\nlines"}', {"a": "two\nlines"}, "sloppy_json"),
        (
            "{'a':'can't','b':{'c':'won't'}}",
            {"a": "can't", "b": {"c": "won't"}},
            "unescaped_quotes",
        ),
        ('["a "b" c", "d"]', ['a "b" c', "d"], "unescaped_quotes"),
        ('{"a":"b","c":12', {"a": "b"}, "cut_off"),  # it may have been 123
        ('{"a":[{"b":1,"c":"d"},{"e', {"a": [{"b": 1, "c": "d"}, {}]}, "cut_off"),
        (r"{'a': '\x41\U0001f600\u0042\\n'}", {"a": "A😀B\\n"}, "single_quotes"),
    ],
)
def test_repairs_have_names(text: str, value: Any, repair: str) -> None:
    assert loads_loosely(text) == (value, repair)


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "{", "[", "]", "}", "text", "12", "null", '"{}"', "{]", "[}", "{'a'}", "{:}"),
        "{9acedb82-ccd4-6107-22de-030000000600}",
        "[Identifier=59eaeebc,Type=Password]",
        "[INFO] it's up",
        '{"a":1} and more',
        "{'a':1} {'b':2}",
        r"{'a': '\U00110000'}",
        "{a: 1}",
    ],
)
def test_what_is_no_value_is_none(text: str) -> None:
    assert loads_loosely(text) == (None, "")


@given(st.text("'\"\\{}[],: \nTa1", max_size=60))
def test_no_text_is_fatal(text: str) -> None:
    value, repair = loads_loosely(text)
    assert isinstance(value, dict | list) if repair else value is None


@pytest.mark.parametrize(
    "part",
    [
        "'b",
        "' ",
        '", "',
        "'a'",
        "\\",
        '"},',
        " ",
        '"         ',
        '", "b',
        "'}   ",
        "[",
        "{'a':",
        "a,",
    ],
)
@pytest.mark.parametrize("start", ["{'a':'", '{"a":"', "[", "{"])
def test_hostile_text_takes_linear_time(start: str, part: str) -> None:
    text = start + part * (200_000 // len(part))
    before = time.process_time()
    loads_loosely(text)
    assert time.process_time() - before < 2  # quadratic would take minutes


def test_real_strings_are_read(shared: Path) -> None:
    """Of those that look like JSON and are not, in real records."""
    events = json.loads((shared / "samples/diagnostic_logs/dynatrace__events.json").read_bytes())
    texts = [event["properties"] for event in events if isinstance(event["properties"], str)]
    assert [loads_loosely(text)[1] for text in texts] == [
        *("json_in_string", "json_in_string", "single_quotes"),
    ]
    found, _ = loads_loosely(texts[-1])
    assert (found["level"], found["processId"]) == ("Information", 24)
    row = shared / "samples/la_securityalert/stixshifter__transmission__SecurityAlert_3.json"
    found, repair = loads_loosely(json.loads(row.read_bytes())["ExtendedProperties"])
    assert repair == "cut_off"
    assert found["Query Period"] == "00:05:00"
    assert "Query" not in found
