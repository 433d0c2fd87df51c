from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from schemas.entities import Details, Entity
from schemas.kinds import KINDS, details
from tests.examples import encoded
from tests.examples.office_activity import (
    ALERT,
    ALICE,
    APP,
    FILE,
    GRANT,
    ROLE,
    RULE,
    TEAM,
    TENANT,
    exported,
    of,
    record,
)
from tests.schemas.kinds import read, samples, told


def mentioned(record: dict[str, Any]) -> Details:
    return details(read(record))


def said(record: dict[str, Any]) -> list[str]:
    return [
        f"{it.role or '-'} {it.type} {it.full_name or it.id}" for it in mentioned(record).entities
    ]


def test_every_field() -> None:
    assert told(read(record())) == {
        "kind": "office_activity",
        "entity": "aaaaaaaa-1111-4222-8333-444455556666",
        "title": "UserLoginFailed",
        "event_ms": 1772619600000,  # UTC, though it does not say so
        "product": "Microsoft Entra ID",
        "alert_type": "AzureActiveDirectory/UserLoginFailed",
    }


def test_every_detail() -> None:
    assert mentioned(record()) == Details(
        entities=(
            Entity(
                type="user",
                name="alice",
                domain="example.com",
                id=ALICE,
                role="actor",
                attributes={"UserKey": ALICE},
            ),
            Entity(type="ip", name="203.0.113.9", role="source"),
            Entity(type="host", name="pc-7", id="device-1", attributes={"OS": "Windows11"}),
            Entity(type="application", id=APP),
        ),
        action="UserLoginFailed",
        outcome="failure",
        attributes={
            "user_agent": "Mozilla/5.0",
            "reason": "InvalidUserNameOrPassword",
            "tenant_id": TENANT,
            "record_type": "15",
            "user_type": "0",
            "version": "1",
            "error_number": "50126",
        },
    )


def test_a_row_of_the_table_is_the_same_record() -> None:
    alert = read(exported())
    assert alert.key == read(of("Exchange", "MailItemsAccessed")).key
    assert (alert.event_ms, alert.product) == (1772619600000, "Microsoft Exchange Online")
    assert alert.resource == "alice@example.com"
    assert said(exported()) == [
        "actor user alice@example.com",
        "source ip 203.0.113.9",
        "target mailbox alice@example.com",
        "target message <1@example.net>",
    ]


@pytest.mark.parametrize("of_table", [False, True])
def test_both_shapes_take_the_fast_way(of_table: bool) -> None:
    KINDS["office_activity"].strict(encoded(exported() if of_table else record()))


def test_a_row_without_the_records_id_has_its_own() -> None:
    assert read(exported(OfficeId=None)).entity == "eeeeeeee-1111-4222-8333-444455556666"
    assert read(exported(OfficeId="", SourceRecordId="7")).entity == "7"


def test_an_alert_comes_in_several_records() -> None:
    alert = read(ALERT)
    assert (alert.title, alert.description) == (
        *("Suspicious inbox rule", "A rule forwards mail to the outside."),
    )
    assert (alert.severity, alert.severity_original) == ("medium", "Medium")
    assert (alert.status, alert.status_original) == ("new", "Active")
    assert alert.link == "https://security.example.com/alerts/1"
    update = read(ALERT | {"Id": "later", "Operation": "AlertUpdated", "Status": "Resolved"})
    assert update.entity == alert.entity == ALERT["AlertId"]
    assert update.key != alert.key
    assert update.status == "resolved"
    assert details(alert).related == (ALERT["AlertId"],)


def test_what_changes_in_the_directory() -> None:
    assert said(ROLE) == [
        "actor user alice@example.com",
        "- application Office Portal",
        "target user bob@example.com",
        "target other Global Administrator",
    ]
    alice = mentioned(ROLE).entities[0]
    assert (alice.id, alice.attributes["PUID"]) == (ALICE, "100320000000000A")
    assert mentioned(ROLE).attributes["user_agent"] == "Swagger/1.0"
    assert said(GRANT) == [
        "actor application Deployer",
        "target group Admins",
        "target application Sync",
    ]
    deployer, _, sync = mentioned(GRANT).entities
    assert deployer.id == APP
    assert (sync.id, sync.attributes) == ("sp-1", {"AppId": "app-1"})
    assert read(GRANT).resource == "graph.example.com"


def test_what_a_cmdlet_changes() -> None:
    assert said(RULE) == [
        "actor user alice@example.com",
        "source ip 2001:db8::9",
        "target mailbox bob@example.com",
        "target mailbox evil@example.net",
        "target user CORP\\carol",
        f"- application {APP}",
    ]
    assert mentioned(RULE).entities[1].port == "52816"
    assert mentioned(RULE).outcome == "success"


def test_files_and_teams() -> None:
    assert read(FILE).resource == "pay.xlsx"
    assert said(FILE) == [
        "actor user alice@example.com",
        "source ip 203.0.113.9",
        "target file Shared Documents/pay.xlsx",
        "target url https://corp.example.com/sites/hr/",
        "target url https://corp.example.com/sites/hr/Shared Documents/pay.xlsx",
        "target user eve@example.net",
    ]
    assert said(TEAM)[1:] == ["- group Sales", "target user bob@example.com"]


@pytest.mark.parametrize(
    ("who", "expected"),
    [
        ("alice@example.com", "actor user alice@example.com"),
        (f"ServicePrincipal_{APP}", f"actor application {APP}"),
        (ALICE, f"actor user {ALICE}"),
        ("S-1-5-18", "actor user S-1-5-18"),
        ("Not Available", None),
    ],
)
def test_who_acts(who: str, expected: str | None) -> None:
    assert said(of("Exchange", "Send", UserId=who))[:1] == ([expected] if expected else [])


def test_real_records(shared: Path) -> None:
    for alert in samples(shared, "office365_mgmt", "la_officeactivity"):
        written = json.loads(alert.raw)
        assert alert.kind == "office_activity"
        assert alert.entity == (written.get("Id") or written["OfficeId"])
        # One tells of 65 seconds.
        assert alert.event_ms or written["CreationTime"].endswith(":65")
        actors = [it for it in details(alert).entities if it.role == "actor"]
        names = {it.full_name for it in actors} | {it.id for it in actors}
        assert written["UserId"].removeprefix("ServicePrincipal_") in names
        assert details(alert).outcome
