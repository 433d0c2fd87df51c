"""A Sysmon event as the Azure diagnostics extension sends it to a hub."""

from __future__ import annotations

from typing import Any

IDENTITY = ("properties.RawXml",)
VERSION = ("time",)
RESOLVED = None

MD5 = "0123456789ABCDEF0123456789ABCDEF"
SHA256 = "0123456789ABCDEF" * 4
IMPHASH = "FEDCBA9876543210FEDCBA9876543210"
DATA = {
    "RuleName": "-",
    "UtcTime": "2026-03-04 10:19:59.987",
    "ProcessGuid": "{7a7a7a7a-0001-0002-0003-000000000001}",
    "ProcessId": "6272",
    "Image": "C:\\Windows\\System32\\rundll32.exe",
    "CommandLine": 'rundll32.exe "C:\\tmp\\a & b.dll",Run',
    "User": "SHOP\\mallory",
    "LogonId": "0x3e7",
    "Hashes": f"MD5={MD5},SHA256={SHA256},IMPHASH={IMPHASH}",
    "ParentProcessId": "880",
    "ParentImage": "C:\\Windows\\explorer.exe",
    "ParentCommandLine": "C:\\Windows\\explorer.exe",
    "ParentUser": "SHOP\\mallory",
}
XML = (
    "<Event xmlns='http://schemas.microsoft.com/win/2004/08/events/event'><System>"
    "<Provider Name='Microsoft-Windows-Sysmon' Guid='{5770385f-c22a-43e0-bf4c-06f5698ffbd9}'/>"
    "<EventID>1</EventID><Version>5</Version><Level>4</Level><Task>1</Task><Opcode>0</Opcode>"
    "<Keywords>0x8000000000000000</Keywords>"
    "<TimeCreated SystemTime='2026-03-04T10:20:00.123456700Z'/>"
    "<EventRecordID>120166</EventRecordID><Correlation/>"
    "<Execution ProcessID='3272' ThreadID='5036'/>"
    "<Channel>Microsoft-Windows-Sysmon/Operational</Channel>"
    "<Computer>shop-vm-1.shop.example.com</Computer><Security UserID='S-1-5-18'/></System>"
    "<EventData>"
    + "".join(
        f"<Data Name='{name}'>{value.replace('&', '&amp;').replace(chr(34), '&quot;')}</Data>"
        for name, value in DATA.items()
    )
    + "</EventData></Event>"
)
TEXT = "\r\n".join(["Process Create:", *(f"{name}: {value}" for name, value in DATA.items())])


def record(**overrides: Any) -> dict[str, Any]:
    record: dict[str, Any] = {
        "time": "2026-03-04T10:20:00.1234567Z",
        "category": "WindowsEventLogsTable",
        "level": "Informational",
        "properties": {
            "DeploymentId": "33333333-0000-4000-8000-000000000003",
            "Role": "IaaS",
            "RoleInstance": "_shop-vm-1",
            "ProviderGuid": "{5770385f-c22a-43e0-bf4c-06f5698ffbd9}",
            "ProviderName": "Microsoft-Windows-Sysmon",
            "EventId": 1,
            "Level": 4,
            "Pid": 3272,
            "Tid": 5036,
            "Opcode": 0,
            "Task": 1,
            "Channel": "Microsoft-Windows-Sysmon/Operational",
            "Description": TEXT,
            "RawXml": XML,
        },
    }
    return record | overrides
