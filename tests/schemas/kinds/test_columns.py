from __future__ import annotations

from typing import Any

import pytest

from schemas.entities import Entity
from schemas.kinds._columns import (
    Columns,
    account,
    endpoint,
    hashes,
    hostname,
    listed,
    objects,
    read,
    snake,
    things,
)


def test_columns_are_found_whatever_their_case_and_type() -> None:
    columns = Columns({"ReportId_long": 7, "clientIP_s": "10.0.0.7", "Name": "a", "name": "b"})
    assert columns.text("reportid") == "7"
    assert columns.text("ClientIP") == "10.0.0.7"
    assert columns.text("NAME") == "a"
    assert columns.rest() == {}


def test_a_column_goes_before_one_that_ends_in_its_type() -> None:
    columns = Columns({"ReportId_string": "x", "ReportId": "y"})
    assert columns.text("ReportId") == "y"
    assert columns.rest() == {"ReportId_string": "x"}


@pytest.mark.parametrize("nothing", [None, "", " ", "-", "N/A", "null", "Not Available", [], {}])
def test_what_says_nothing_is_not_there(nothing: Any) -> None:
    columns = Columns({"A": nothing, "B": "b"})
    assert columns.text("A", "B") == "b"
    assert columns.rest() == {}


def test_the_rest_is_what_nobody_asked_for() -> None:
    columns = Columns({"A": 1, "Process": "p", "ProcessId": 7, "List": [1], "B": True, "C": "c"})
    assert columns.says("A", "Z")
    assert not columns.says("Z")
    columns.omit("C")
    assert columns.rest("Process") == {"Process": "p", "Id": "7"}
    assert columns.rest() == {"A": "1", "B": "true"}
    assert columns.rest() == {}


@pytest.mark.parametrize("value", [[{"a": 1}, 7], '[{"a": 1}, 7]', "[{'a': 1}, 7]"])
def test_lists_may_stand_in_a_text(value: Any) -> None:
    assert Columns({"L": value}).value("l") == [{"a": 1}, 7]
    assert listed(value) == [{"a": 1}, 7]
    assert objects(value) == [{"a": 1}]


def test_one_thing_is_a_list_of_it_and_long_lists_are_cut() -> None:
    assert listed("a") == ["a"]
    assert listed(None) == []
    assert objects({"a": 1}) == [{"a": 1}]
    assert len(listed([0] * 5000)) == 1000


def test_what_is_no_object_has_no_columns() -> None:
    assert read(b"[1]").rest() == {}
    assert read(b'{"a":' * 5000 + b"1" + b"}" * 5000).rest() == {}


@pytest.mark.parametrize(
    ("name", "snaked"),
    [
        ("LogonType", "logon_type"),
        ("OSPlatform", "os_platform"),
        ("AadDeviceId", "aad_device_id"),
        ("Source Mac", "source_mac"),
        ("FROM.DEVICE", "from_device"),
        ("_ItemId", "item_id"),
    ],
)
def test_names_become_stable_ones(name: str, snaked: str) -> None:
    assert snake(name) == snaked


def test_an_account_is_called_by_its_principal_name() -> None:
    columns = {
        "AccountUpn": "jane.doe@example.com",
        "AccountName": "jdoe",
        "AccountDomain": "CORP",
        "AccountSid": "S-1-5-21-7",
    }
    jane = account(Columns(columns), role="actor")
    assert (jane.full_name, jane.id, jane.role) == ("jane.doe@example.com", "S-1-5-21-7", "actor")
    assert jane.attributes == {"AccountName": "jdoe", "AccountDomain": "CORP"}
    del columns["AccountUpn"]
    assert account(Columns(columns)).full_name == "CORP\\jdoe"
    assert account(Columns({"AccountDomain": "CORP"})) == Entity(type="user")


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
