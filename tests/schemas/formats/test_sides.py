from __future__ import annotations

import pytest

from schemas.entities import Details, Entity
from schemas.formats._sides import address, first, longest_hash, mac_address, number, sides

HOST = Entity(type="host", name="shop-vm-1")
ADDRESS = Entity(type="ip", name="203.0.113.7")


def test_who_acts_and_where_it_comes_from_is_the_source_what_it_is_done_to_the_target() -> None:
    actor = Entity(type="user", name="mallory", role="actor")
    attacker = Entity(type="host", name="kali", role="source")
    attacked = Entity(type="ip", name="10.0.0.7", role="target")
    known = Details(entities=(actor, attacked, HOST, ADDRESS, attacker))
    assert sides(known) == ([actor, attacker, ADDRESS], [attacked, HOST])


def test_what_a_record_says_of_a_side_goes_before_what_is_only_likely() -> None:
    attacker = Entity(type="ip", name="198.51.100.1", role="source")
    attacked = Entity(type="host", name="dc-1", role="target")
    source, target = sides(Details(entities=(ADDRESS, HOST, attacker, attacked)))
    assert first(source, "ip") is attacker
    assert first(target, "host") is attacked


def test_an_address_that_is_none_is_not_the_first() -> None:
    none = Entity(type="ip", name="unknown")
    assert first((HOST, none, ADDRESS), "ip") is ADDRESS
    assert first((none,), "ip").name == ""
    assert first((ADDRESS, HOST), "device", "host") is HOST


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("203.0.113.7", (4, "203.0.113.7")),
        ("2001:DB8:0::7", (6, "2001:db8::7")),
        ("fe80::1%eth0", (6, "fe80::1")),
        ("fe80::1%a b=c", (6, "fe80::1")),
        ("203.0.113.7 cs1=forged", (0, "")),
        ("203.0.113.0/24", (0, "")),
        ("", (0, "")),
    ],
)
def test_address(text: str, found: tuple[int, str]) -> None:
    assert address(text) == found


@pytest.mark.parametrize(
    ("name", "text", "found"),
    [
        ("MacAddress", "00:0D:60:AF:1B:61", "00:0D:60:AF:1B:61"),
        ("mac", "00-0d-60-af-1b-61", "00:0d:60:af:1b:61"),
        ("macAddress", "000D60AF1B61", "00:0D:60:AF:1B:61"),
        ("MacAddress", "00:0D:60:AF:1B", ""),
        ("MacAddress", "00:0D:60:AF:1B:61 x=y", ""),
        ("Vendor", "00:0D:60:AF:1B:61", ""),
    ],
)
def test_mac_address(name: str, text: str, found: str) -> None:
    assert mac_address(Entity(type="device", attributes={name: text})) == found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        *(("443", "443"), ("0", "0"), ("0x1bb", "443"), ("65535", "65535"), ("0443", "443")),
        *(("65536", ""), ("-1", ""), ("4_3", ""), ("٤٤٣", ""), ("0x", ""), ("1" * 5000, "")),
        *(("", ""), ("443 spt=1", "")),
    ],
)
def test_number(text: str, found: str) -> None:
    assert number(text, 65535) == found


def test_of_several_hashes_the_longest() -> None:
    assert longest_hash(Entity(type="file", hashes=("a" * 32, "b" * 64, "c" * 40))) == "b" * 64
    assert longest_hash(HOST) == ""
