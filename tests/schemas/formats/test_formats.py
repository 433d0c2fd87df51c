"""What holds for every format: any alert becomes exactly one well-formed record."""

from __future__ import annotations

import json
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given

import schemas.formats
from schemas.alert import Alert
from schemas.formats import FORMATS
from schemas.kinds import _columns, details, understand
from tests.examples import EXAMPLES, encoded, xdr
from tests.strategies import alerts

every_format = pytest.mark.parametrize("name", FORMATS)


def test_formats_are_the_files_of_the_folder() -> None:
    files = {info.name for info in pkgutil.iter_modules(schemas.formats.__path__)}
    assert {form.say.__module__.rpartition(".")[2] for form in FORMATS.values()} == {
        name for name in files if name[0] != "_"
    }


@every_format
def test_a_format_states_what_it_does(name: str) -> None:
    form = FORMATS[name]
    assert form.name == name
    assert form.media_type in ("application/json", "text/plain")
    assert form.standard
    assert form.drops
    assert form.shortens


@every_format
@given(alert=alerts())
def test_any_alert_becomes_one_well_formed_record(name: str, alert: Alert) -> None:
    form = FORMATS[name]
    said = form.say(alert)
    assert said == form.say(alert)
    text = said.decode()
    if name != "raw":
        assert "\n" not in text
        assert "\r" not in text
    if form.max_bytes is not None:
        assert len(said) <= form.max_bytes
    if form.media_type == "application/json":
        assert isinstance(json.loads(text, parse_constant=_refused), dict)


def _refused(constant: str) -> Any:
    raise AssertionError(f"{constant} is no JSON")


def test_formats_look_for_attributes_that_kinds_give() -> None:
    """A kind that calls an attribute otherwise would be missed in silence."""
    given_ = {*_columns._OURS.values(), "rule"}  # of columns that no example has
    for record in _examples():
        found = details(understand(encoded(record)))
        given_.update(found.attributes, *(entity.attributes for entity in found.entities))
    asked = {
        name
        for path in Path(schemas.formats.__path__[0]).glob("*.py")
        for name in re.findall(r'(?:seen|attributes\.get)\(\s*"(\w+)"', path.read_text("utf-8"))
    }
    assert asked - given_ == set()


def _examples() -> Iterator[dict[str, Any]]:
    for example in EXAMPLES.values():
        yield example.record()
    yield from xdr.TABLES.values()
