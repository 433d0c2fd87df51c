from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given

from schemas.drift import LEARNT, Change, Shapes, changes, dump, load, merge
from tests.examples import encoded
from tests.strategies import records


def learnt(*recordings: dict[str, Any], times: int = LEARNT) -> Shapes:
    known: Shapes = {}
    for _ in range(times):
        for record in recordings:
            assert changes({}, known, "kind", encoded(record)) == []
    return known


BASE = {"Severity": "High", "Count": 1, "Owner": None, "properties": {"a": "x", "b": [1]}}


@pytest.mark.parametrize(
    ("changed", "found"),
    [
        ({}, []),
        ({"Risk": "x"}, [("new", "Risk", "string")]),
        ({"Severity": 3}, [("type", "Severity", "number")]),
        ({"Severity": None}, []),
        ({"Owner": {"name": "x"}}, []),  # only null was known of it
        ({"properties": {"a": "x", "b": [], "c": True}}, [("new", "properties.c", "boolean")]),
        ({"properties": {"a": "x"}}, [("vanished", "properties.b", "")]),
        ({"properties": "{}"}, [("type", "properties", "string")]),
    ],
)
def test_what_differs_is_named(changed: dict[str, Any], found: list[tuple[str, str, str]]) -> None:
    seen: Shapes = {}
    differences = changes(learnt(BASE), seen, "kind", encoded(BASE | changed))
    assert differences == [Change("kind", *each) for each in found]  # type: ignore[arg-type]
    assert seen["kind"].records == 1


def test_a_field_that_was_always_there_is_missed() -> None:
    record = {name: value for name, value in BASE.items() if name != "Count"}
    assert changes(learnt(BASE), {}, "kind", encoded(record)) == [
        Change("kind", "vanished", "Count")
    ]


def test_a_field_that_was_there_sometimes_is_not_missed() -> None:
    known = learnt(BASE, BASE | {"Sometimes": 1})
    assert changes(known, {}, "kind", encoded(BASE)) == []


def test_of_a_shape_that_was_given_nothing_is_missed_until_enough_was_seen() -> None:
    known = learnt(BASE, times=1)
    known["kind"].given = True
    known["kind"].records = 0
    fewer = {name: value for name, value in BASE.items() if name != "Count"}
    assert changes(known, {}, "kind", encoded(fewer)) == []
    assert changes(known, {}, "kind", encoded(BASE | {"Risk": 1})) != []
    assert changes(merge(known, learnt(BASE)), {}, "kind", encoded(fewer)) != []


def test_nothing_differs_until_a_shape_is_known() -> None:
    known = learnt(BASE, times=LEARNT - 1)
    assert changes(known, {}, "kind", encoded(BASE | {"Risk": 1})) == []
    assert changes({}, {}, "kind", encoded(BASE)) == []


@pytest.mark.parametrize("name", ["Type", "category"])
def test_each_table_has_a_shape_of_its_own(name: str) -> None:
    known = learnt({name: "A", "x": 1}, {name: "B", "y": 1})
    assert set(known) == {"kind:A", "kind:B"}
    assert changes(known, {}, "kind", encoded({name: "B", "x": 1, "y": 1})) == [
        Change("kind:B", "new", "x", "number")
    ]


def test_a_dictionary_is_not_a_schema() -> None:
    known = learnt(BASE | {"ExtendedProperties": {"a": 1}})
    record = BASE | {"ExtendedProperties": {"b": 1, "c": 2}}
    assert changes(known, {}, "kind", encoded(record)) == []


def test_what_was_learnt_apart_adds_up() -> None:
    one, other = learnt(BASE, times=60), learnt(BASE | {"Risk": 1}, times=60)
    together = load(dump(merge(one, other)))
    assert together["kind"].records == 120
    assert changes(together, {}, "kind", encoded(BASE | {"Risk": 2})) == []
    assert changes(together, {}, "kind", encoded(BASE | {"New": 2})) == [
        Change("kind", "new", "New", "number")
    ]


def test_a_change_is_told_in_words() -> None:
    assert str(Change("k", "new", "f", "string")) == "k: f is new (string)"
    assert str(Change("k", "type", "f", "number")) == "k: f is now also number"
    assert str(Change("k", "vanished", "f")) == "k: f is missing"


def test_what_a_hostile_record_teaches_is_bounded() -> None:
    seen: Shapes = {}
    for number in range(700):
        changes({}, seen, "kind", encoded({"Type": f"t{number}", "x" * 1000: 1}))
        changes({}, seen, "one", encoded({f"{number}_{n}": 1 for n in range(10)}))
    assert len(seen) == 500
    assert len(seen["one"].fields) == 1000
    assert seen["kind:t1"].fields.keys() == {"Type"}


@given(raw=records())
def test_any_record_has_a_shape(raw: bytes) -> None:
    seen: Shapes = {}
    assert changes({}, seen, "kind", raw) == []
    known = merge(*[seen] * LEARNT)
    assert changes(known, seen, "kind", raw) == []
