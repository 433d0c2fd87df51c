"""A failed logon as a forwarder puts it on a hub, and a shipper behind it wrote it down."""

from __future__ import annotations

from typing import Any

IDENTITY = ("message",)
VERSION = ()
RESOLVED = None

XML = (
    "<Event xmlns='http://schemas.microsoft.com/win/2004/08/events/event'><System>"
    "<Provider Name='Microsoft-Windows-Security-Auditing'"
    " Guid='{54849625-5478-4994-a5ba-3e3b0328c30d}'/><EventID>4625</EventID><Version>0</Version>"
    "<Level>0</Level><Task>12544</Task><Opcode>0</Opcode><Keywords>0x8010000000000000</Keywords>"
    "<TimeCreated SystemTime='2026-03-04T10:20:00.123456700Z'/>"
    "<EventRecordID>367348</EventRecordID>"
    "<Correlation ActivityID='{6C54D781-5C05-0000-8CD7-546C055CD901}'/>"
    "<Execution ProcessID='588' ThreadID='3564'/><Channel>Security</Channel>"
    "<Computer>shop-dc-1.shop.example.com</Computer><Security/></System><EventData>"
    "<Data Name='SubjectUserSid'>S-1-0-0</Data><Data Name='SubjectUserName'>-</Data>"
    "<Data Name='SubjectDomainName'>-</Data><Data Name='SubjectLogonId'>0x0</Data>"
    "<Data Name='TargetUserSid'>S-1-0-0</Data><Data Name='TargetUserName'>Administrator</Data>"
    "<Data Name='TargetDomainName'>SHOP</Data><Data Name='Status'>0xc000006d</Data>"
    "<Data Name='FailureReason'>%%2313</Data><Data Name='SubStatus'>0xc000006a</Data>"
    "<Data Name='LogonType'>3</Data><Data Name='LogonProcessName'>NtLmSsp </Data>"
    "<Data Name='AuthenticationPackageName'>NTLM</Data>"
    "<Data Name='WorkstationName'>EVIL-PC</Data><Data Name='ProcessId'>0x24c</Data>"
    "<Data Name='ProcessName'>C:\\Windows\\System32\\lsass.exe</Data>"
    "<Data Name='IpAddress'>::ffff:203.0.113.30</Data><Data Name='IpPort'>59450</Data>"
    "</EventData><RenderingInfo Culture='en-US'><Message>An account failed to log on.</Message>"
    "<Level>Information</Level></RenderingInfo></Event>"
)


def record(**overrides: Any) -> dict[str, Any]:
    record: dict[str, Any] = {
        "message": XML,
        "@timestamp": "2026-03-04T10:20:01Z",
        "host": {"name": "shipper-1"},
        "tags": ["windows"],
    }
    return record | overrides
