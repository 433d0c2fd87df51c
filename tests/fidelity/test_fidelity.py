"""Nearly all that peers read of real events is read here too, and what is not is accounted for."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from tests.fidelity.measure import Found, counts, measured, ours, parsed, theirs
from tests.fidelity.peers import FIELDS, GROUPS, Reading, field_of, leaves, ocsf, readings, table

LEAST = 0.97
HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def found(shared: Path) -> list[Found]:
    return list(measured(shared))


@pytest.mark.parametrize("group", GROUPS)
def test_of_a_group_at_least_97_percent_are_read(found: list[Found], group: str) -> None:
    count = counts(found, lambda it: "")[""]
    assert count[f"{group}+"] >= LEAST * count[group]


def test_the_misses_are_those_of_the_table(found: list[Found]) -> None:
    known = {tuple(row[:4]) for row in table(HERE / "misses.tsv")}
    missed = {(it.file, it.peer, it.field, it.value) for it in found if not it.found}
    assert not missed - known, "not in misses.tsv"
    assert not known - missed, "in misses.tsv, but read"


def test_every_miss_has_a_reason() -> None:
    assert all(len(row[4]) > 20 for row in table(HERE / "misses.tsv"))


def test_what_is_not_in_a_record_is_not_found(shared: Path, everything: list[Reading]) -> None:
    """Else the comparison would prove nothing: a peer's values, sought in the next sample."""
    for one, other in itertools.pairwise(it for it in everything if it.peer == "sekoia"):
        sample = shared / "samples" / other.file
        text = sample.read_text(encoding="utf-8").lower()
        have = ours(parsed(sample.read_bytes())[0])
        for (group, value), (_, written) in theirs(one).items():
            if (
                group not in ("time", "creation")
                and value not in text
                and written.lower() not in text
            ):
                assert value not in have[group], (one.file, other.file, group)


@pytest.fixture(scope="module")
def everything(shared: Path) -> list[Reading]:
    return list(readings(shared))


def test_every_peer_is_paired_with_its_samples(shared: Path, everything: list[Reading]) -> None:
    files = [file for file in (shared / "expected").rglob("*.*") if file.is_file()]
    assert {it.expected for it in everything} == {
        file.relative_to(shared / "expected").as_posix() for file in files
    }
    assert all((shared / "samples" / it.file).is_file() for it in everything)


def test_every_field_of_a_peer_is_decided_about(everything: list[Reading]) -> None:
    undecided = {
        (it.peer, name)
        for it in everything
        for name, _ in it.values
        if field_of(it.expected, name) is None
    }
    assert not undecided


def test_every_line_about_fields_is_of_use_and_has_a_reason(everything: list[Reading]) -> None:
    used = {field_of(it.expected, name) for it in everything for name, _ in it.values}
    assert not [it for it in FIELDS if it not in used]
    assert all(it.group in GROUPS or (it.group == "-" and it.why) for it in FIELDS)


def test_tenzirs_notation() -> None:
    text = """{
      time: 2026-05-01T10:12:00Z,
      nothing: null,
      "@odata.type": "a: {\\"b\\"}",
      ips: [
        203.0.113.10,
        2001:db8::1,
      ],
      none: [],
      user: { id: 1, is_mfa: true, },
    }
    { uid: "2" }
    """
    assert ocsf(text) == [
        {
            "time": "2026-05-01T10:12:00Z",
            "nothing": None,
            "@odata.type": 'a: {"b"}',
            "ips": ["203.0.113.10", "2001:db8::1"],
            "none": [],
            "user": {"id": "1", "is_mfa": True},
        },
        {"uid": "2"},
    ]


def test_values_have_dotted_names() -> None:
    event = {
        "a": {"b": [1, "x", None]},
        "objects": [{"Type": "User", "Id": "u"}],
        "text": '{"c":"d"}',
        "odd": "{e",
    }
    assert list(leaves(event)) == [
        ("a.b", "1"),
        ("a.b", "x"),
        ("objects[User].Type", "User"),
        ("objects[User].Id", "u"),
        ("text.c", "d"),
        ("odd", "{e"),
    ]
