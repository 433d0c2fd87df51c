from __future__ import annotations

from typing import Any

import pytest

from schemas.entities import Entity
from schemas.kinds._columns import Columns, account, facts, read


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


def test_what_is_no_object_has_no_columns() -> None:
    assert read(b"[1]").rest() == {}
    assert read(b'{"a":' * 5000 + b"1" + b"}" * 5000).rest() == {}


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


def test_facts_have_the_names_that_they_have_in_all_kinds() -> None:
    columns = Columns({"HttpUserAgent": "curl", "RequestMethod": "GET", "TenantId": "w", "A": "a"})
    columns.text("A")
    assert facts(columns) == {"user_agent": "curl", "http_method": "GET", "workspace_id": "w"}
