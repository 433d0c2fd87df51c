"""Office 365 audit records as the Management Activity API gives them; `exported` is a row."""

from __future__ import annotations

from typing import Any

IDENTITY = ("Id",)
VERSION = ()
RESOLVED = None

TENANT = "22222222-0000-4000-8000-000000000002"
ALICE = "bbbbbbbb-0000-4000-8000-00000000000b"
APP = "cccccccc-0000-4000-8000-00000000000c"


def of(workload: str, operation: str, **columns: Any) -> dict[str, Any]:
    record: dict[str, Any] = {
        "CreationTime": "2026-03-04T10:20:00",
        "Id": "aaaaaaaa-1111-4222-8333-444455556666",
        "Operation": operation,
        "OrganizationId": TENANT,
        "RecordType": 8,
        "ResultStatus": "Success",
        "UserKey": "100320000000000A",
        "UserType": 0,
        "Version": 1,
        "Workload": workload,
        "UserId": "alice@example.com",
    }
    return record | columns


def record(**overrides: Any) -> dict[str, Any]:
    """A sign-in."""
    return (
        of(
            "AzureActiveDirectory",
            "UserLoginFailed",
            RecordType=15,
            ResultStatus="Failed",
            LogonError="InvalidUserNameOrPassword",
            ErrorNumber="50126",
            UserKey=ALICE,
            ObjectId="Unknown",
            ClientIP="203.0.113.9",
            ActorIpAddress="203.0.113.9",
            ApplicationId=APP,
            ExtendedProperties=[{"Name": "UserAgent", "Value": "Mozilla/5.0"}],
            Actor=[{"ID": ALICE, "Type": 0}, {"ID": "alice@example.com", "Type": 5}],
            Target=[{"ID": "Unknown", "Type": 0}],
            DeviceProperties=[
                {"Name": "Id", "Value": "device-1"},
                {"Name": "DisplayName", "Value": "pc-7"},
                {"Name": "OS", "Value": "Windows11"},
            ],
        )
        | overrides
    )


def exported(**overrides: Any) -> dict[str, Any]:
    """A row of OfficeActivity: other names, lists in texts."""
    row: dict[str, Any] = {
        "TenantId": "99999999-0000-4000-8000-000000000009",
        "RecordType": "ExchangeItem",
        "TimeGenerated": "2026-03-04T10:20:00Z",
        "Operation": "MailItemsAccessed",
        "OrganizationId": TENANT,
        "UserType": "Regular",
        "UserKey": "100320000000000A",
        "OfficeWorkload": "Exchange",
        "ResultStatus": "Succeeded",
        "UserId": "alice@example.com",
        "Client_IPAddress": "203.0.113.9",
        "MailboxOwnerUPN": "alice@example.com",
        "MailboxGuid": "dddddddd-0000-4000-8000-00000000000d",
        "Folders": '[{"Path":"\\\\Inbox","FolderItems":[{"InternetMessageId":"<1@example.net>"}]}]',
        "OfficeId": "aaaaaaaa-1111-4222-8333-444455556666",
        "Type": "OfficeActivity",
        "_ItemId": "eeeeeeee-1111-4222-8333-444455556666",
    }
    return row | overrides


ALERT = of(
    "SecurityComplianceCenter",
    "AlertTriggered",
    RecordType=40,
    UserId="SecurityComplianceAlerts",
    UserKey="SecurityComplianceAlerts",
    ObjectId="alice@example.com",
    AlertId="bbbbbbbb-1111-4222-8333-444455556666",
    Category="ThreatManagement",
    Comments="A rule forwards mail to the outside.",
    Name="Suspicious inbox rule",
    Severity="Medium",
    Status="Active",
    DeepLinkUrl="https://security.example.com/alerts/1",
)
ROLE = of(
    "AzureActiveDirectory",
    "Add member to role.",
    ObjectId="bob@example.com",
    ExtendedProperties=[
        {"Name": "additionalDetails", "Value": '{"User-Agent":"Swagger/1.0"}'},
    ],
    ModifiedProperties=[
        {"Name": "Role.ObjectID", "NewValue": "role-1", "OldValue": ""},
        {"Name": "Role.DisplayName", "NewValue": "Global Administrator", "OldValue": ""},
    ],
    Actor=[
        {"ID": "alice@example.com", "Type": 5},
        {"ID": "100320000000000A", "Type": 3},
        {"ID": "Office Portal", "Type": 1},
        {"ID": "00000006-0000-0ff1-ce00-000000000000", "Type": 2},
        {"ID": f"User_{ALICE}", "Type": 2},
        {"ID": ALICE, "Type": 2},
        {"ID": "User", "Type": 2},
    ],
    Target=[
        {"ID": "User_dddddddd-0000-4000-8000-00000000000d", "Type": 2},
        {"ID": "dddddddd-0000-4000-8000-00000000000d", "Type": 2},
        {"ID": "bob@example.com", "Type": 5},
    ],
)
GRANT = of(
    "AzureActiveDirectory",
    "Add app role assignment to service principal.",
    UserId=f"ServicePrincipal_{APP}",
    ObjectId="https://graph.example.com/api;Graph",
    ModifiedProperties=[
        {"Name": "ServicePrincipal.ObjectID", "NewValue": "sp-1", "OldValue": ""},
        {"Name": "ServicePrincipal.DisplayName", "NewValue": '"Sync"', "OldValue": ""},
        {"Name": "ServicePrincipal.AppId", "NewValue": "app-1", "OldValue": ""},
    ],
    Actor=[
        {"ID": "Deployer", "Type": 1},
        {"ID": "dddddddd-0000-4000-8000-00000000000d", "Type": 2},
        {"ID": f"ServicePrincipal_{APP}", "Type": 2},
        {"ID": APP, "Type": 2},
    ],
    Target=[
        {"ID": "Group_eeeeeeee-0000-4000-8000-00000000000e", "Type": 2},
        {"ID": "Admins", "Type": 1},
    ],
)
RULE = of(
    "Exchange",
    "Set-Mailbox",
    RecordType=1,
    ResultStatus="True",
    ObjectId="bob",
    ClientIP="[2001:db8::9]:52816",
    AppId=APP,
    Parameters=[
        {"Name": "Identity", "Value": "bob@example.com"},
        {"Name": "ForwardingSmtpAddress", "Value": "smtp:evil@example.net"},
        {"Name": "User", "Value": "CORP\\carol"},
    ],
)
FILE = of(
    "SharePoint",
    "FileDownloaded",
    RecordType=6,
    ObjectId="https://corp.example.com/sites/hr/Shared Documents/pay.xlsx",
    SiteUrl="https://corp.example.com/sites/hr/",
    SourceRelativeUrl="Shared Documents",
    SourceFileName="pay.xlsx",
    ClientIP="203.0.113.9",
    UserAgent="Mozilla/5.0",
    TargetUserOrGroupName="eve@example.net",
    TargetUserOrGroupType="Guest",
)
TEAM = of(
    "MicrosoftTeams",
    "MemberAdded",
    RecordType=25,
    TeamName="Sales",
    TeamGuid="19:1@thread",
    Members=[{"UPN": "bob@example.com", "DisplayName": "Bob", "Role": 1}],
)
