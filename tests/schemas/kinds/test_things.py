from __future__ import annotations

import pytest

from schemas.entities import Entity
from schemas.kinds._things import address, endpoint, hashes, hostname, hosts, numeric, things


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("::ffff:203.0.113.30", "203.0.113.30"),
        ("[fe80::1%4]", "fe80::1"),
        ("10.0.0.4", "10.0.0.4"),
        ("-", ""),
        ("LOCAL", ""),
        ("1" * 5000, ""),
        ("7", ""),
    ],
)
def test_an_address_has_one_form(text: str, name: str) -> None:
    assert numeric(text) == name


def test_addresses_may_stand_between_commas_with_their_ports() -> None:
    found = address("10.0.0.7:443, [2001:db8::1]:80, 2001:db8::2,nowhere", "source")
    assert [(it.name, it.port, it.role) for it in found] == [
        ("10.0.0.7", "443", "source"),
        ("2001:db8::1", "80", "source"),
        ("2001:db8::2", "", "source"),
    ]


@pytest.mark.parametrize(
    ("written", "found"),
    [
        ("10.0.0.7:443", [("ip", "10.0.0.7", "443")]),
        ("db.example.com:5432", [("host", "db", "5432")]),
        ("db", [("host", "db", "")]),
        ("", []),
    ],
)
def test_a_machine_may_have_a_port(written: str, found: list[tuple[str, str, str]]) -> None:
    assert [(it.type, it.name, it.port) for it in hosts(written)] == found


def test_a_machine_may_be_called_by_its_address() -> None:
    assert list(hostname("10.0.0.7", role="source")) == [
        Entity(type="ip", name="10.0.0.7", role="source")
    ]
    assert list(hostname("pc-7", "corp.example", id="1", OS="")) == [
        Entity(type="host", name="pc-7", domain="corp.example", id="1")
    ]
    assert list(hostname("", "corp.example")) == []


def test_an_addresss_own_port_goes_first() -> None:
    assert [it.port for it in endpoint("10.0.0.7", "80")] == ["80"]
    assert [it.port for it in endpoint("10.0.0.7:443", "80")] == ["443"]
    assert list(endpoint("nowhere", "80")) == []


def test_only_hashes_are_hashes() -> None:
    assert hashes("a" * 40, "ANONYMIZED", "", "a" * 40, "B" * 64) == ("a" * 40, "B" * 64)


def test_a_display_name_and_an_account_of_one_id_are_one() -> None:
    called = Entity(type="user", name="Jane Doe", id="7", role="actor")
    jane = Entity(type="user", name="jane", domain="example.com", id="7")
    other = Entity(type="user", name="Jane Doe", id="8")
    assert things([called, Entity(type="user"), other, jane]) == (
        other,
        Entity(
            type="user",
            name="jane",
            domain="example.com",
            id="7",
            role="actor",
            attributes={"DisplayName": "Jane Doe"},
        ),
    )


def test_a_bare_id_is_the_thing_that_is_named_with_it() -> None:
    named = Entity(type="group", name="Admins", id="7", role="target")
    assert things([Entity(type="group", id="7"), named]) == (named,)
    assert things([named, Entity(type="user", id="7")]) == (named, Entity(type="user", id="7"))
    other = Entity(type="group", id="7", role="actor")
    assert things([named, other]) == (named, other)
