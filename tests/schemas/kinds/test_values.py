from __future__ import annotations

from typing import Any

import msgspec
import pytest

from schemas.kinds._values import (
    attributes,
    first,
    folded,
    listed,
    object_in,
    objects,
    part,
    plain,
    record,
    snake,
    value_of,
)


@pytest.mark.parametrize("value", [[{"a": 1}, 7], '[{"a": 1}, 7]', "[{'a': 1}, 7]"])
def test_lists_may_stand_in_a_text(value: Any) -> None:
    assert listed(value) == [{"a": 1}, 7]
    assert objects(value) == [{"a": 1}]


def test_one_thing_is_a_list_of_it_and_long_lists_are_cut() -> None:
    assert listed("a") == ["a"]
    assert listed(None) == []
    assert objects({"a": 1}) == [{"a": 1}]
    assert len(listed([0] * 5000)) == 1000


@pytest.mark.parametrize(
    ("json", "value"),
    [
        (b'{"a": 1}', {"a": 1}),
        (b"\"{'a': 1}\"", {"a": 1}),
        (b'"7"', "7"),
        (b"null", None),
        (b"", None),
        (b"[" * 200_000 + b"]" * 200_000, None),
    ],
)
def test_a_value_may_stand_in_a_text(json: bytes, value: Any) -> None:
    assert value_of(msgspec.Raw(json)) == value


@pytest.mark.parametrize("value", [b'{"A": 1, "b": null}', {"A": 1}, '{"A": 1}', "{'A': 1}"])
def test_an_object_goes_by_names_in_lower_case(value: Any) -> None:
    assert folded(value) == {"a": 1}


@pytest.mark.parametrize("value", [b"[1]", b"{", "text", 7, None, [{"a": 1}]])
def test_what_is_no_object_has_no_members(value: Any) -> None:
    assert folded(value) == {}


def test_a_row_of_log_analytics_has_the_workspaces_id_where_others_have_the_tenants() -> None:
    ids = b'"TenantId": "w", "AADTenantId": "t"}'
    assert record(b'{"TimeGenerated": "2026", ' + ids)["tenantid"] == "t"
    assert record(b'{"TimeGenerated": "2026", ' + ids)["workspaceid"] == "w"
    assert record(b'{"time": "2026", ' + ids)["tenantid"] == "w"
    assert "tenantid" not in record(b'{"TimeGenerated": "2026", "TenantId": "w"}')


def test_what_says_nothing_is_not_told() -> None:
    assert first({"a": " N/A ", "b": {}, "c": 7}, "a", "b", "c") == "7"
    said = {"a": "-", "b": [], "c": None, "d": False, "e": ("x", "", 1), "f": msgspec.Raw(b'["y"]')}
    assert plain(**said) == {"d": "false", "e": "x, 1", "f": "y"}
    assert attributes({"x": "1", "y": "none", "z": ["2"]}, {"x": "a", "y": "a", "z": "b"}) == {
        "a": "1",
        "b": "2",
    }


@pytest.mark.parametrize(
    ("name", "snaked"),
    [
        ("LogonType", "logon_type"),
        ("OSPlatform", "os_platform"),
        ("AadDeviceId", "aad_device_id"),
        ("Source Mac", "source_mac"),
        ("FROM.DEVICE", "from_device"),
        ("_ItemId", "item_id"),
        ("Process Name", "process_name"),
        ("ObjectDN", "object_dn"),
        ("AttributeLDAPDisplayName", "attribute_ldap_display_name"),
    ],
)
def test_names_become_stable_ones(name: str, snaked: str) -> None:
    assert snake(name) == snaked


class Part(msgspec.Struct):
    Name: str | None = None
    size: int | None = None


@pytest.mark.parametrize(
    ("json", "repair"),
    [
        (b'{"Name": "a", "size": 1}', ""),
        (b'{"NAME": "a", "size": "1"}', ""),
        (b'"{\\"Name\\": \\"a\\", \\"size\\": 1}"', "json_in_string"),
        (b"\"{'Name': 'a', 'size': 1}\"", "single_quotes"),
    ],
)
def test_an_object_in_a_record_is_read_whatever_its_form(json: bytes, repair: str) -> None:
    assert part(Part, msgspec.Raw(json)) == (Part("a", 1), repair)


@pytest.mark.parametrize("json", [b"", b"null", b"7", b'"text"', b'"[1]"', b"[1]"])
def test_what_is_no_object_is_blank(json: bytes) -> None:
    assert part(Part, msgspec.Raw(json)) == (Part(), "")
    assert object_in(msgspec.Raw(json)) == (b"", "")
