"""The event classes of OCSF 1.5.0 that alerts become, with the schema's own captions.

Source: schema.ocsf.io/1.5.0/classes. Activities 0 Unknown and 99 Other are in every class.
"""

from __future__ import annotations

from typing import NamedTuple

from schemas.formats._ocsf_objects import Object

__all__ = ["Class", "Event"]


class Class(NamedTuple):
    uid: int
    name: str
    activities: tuple[str, ...]
    """From id 1 on; blank where the class has no such id."""


class Event(NamedTuple):
    """An alert as one class says it, without what every event has.

    activity: an id of `cls.activities`, 0 or 99.
    body: the class's own attributes; over those that every event has, where they meet.
    profiles: that the body uses.
    """

    cls: Class
    activity: int
    body: Object
    profiles: tuple[str, ...] = ()


CATEGORIES = {
    0: "Uncategorized",
    1: "System Activity",
    2: "Findings",
    3: "Identity & Access Management",
    4: "Network Activity",
    5: "Discovery",
    6: "Application Activity",
}

_FINDING = ("Create", "Update", "Close")
BASE_EVENT = Class(0, "Base Event", ())
FILE = Class(
    1001,
    "File System Activity",
    (
        *("Create", "Read", "Update", "Delete", "Rename", "Set Attributes", "Set Security"),
        *("Get Attributes", "Get Security", "Encrypt", "Decrypt", "Mount", "Unmount", "Open"),
    ),
)
MODULE = Class(1005, "Module Activity", ("Load", "Unload"))
PROCESS = Class(1007, "Process Activity", ("Launch", "Terminate", "Open", "Inject", "Set User ID"))
EVENT_LOG = Class(
    1008,
    "Event Log Activity",
    (
        *("Clear", "Delete", "Export", "Archive", "Rotate", "Start", "Stop", "Restart"),
        *("Enable", "Disable"),
    ),
)
VULNERABILITY = Class(2002, "Vulnerability Finding", _FINDING)
COMPLIANCE = Class(2003, "Compliance Finding", _FINDING)
DETECTION = Class(2004, "Detection Finding", _FINDING)
INCIDENT = Class(2005, "Incident Finding", _FINDING)
ACCOUNT = Class(
    3001,
    "Account Change",
    (
        *("Create", "Enable", "Password Change", "Password Reset", "Disable", "Delete"),
        *("Attach Policy", "Detach Policy", "Lock", "MFA Factor Enable", "MFA Factor Disable"),
        "Unlock",
    ),
)
AUTHENTICATION = Class(
    3002,
    "Authentication",
    (
        *("Logon", "Logoff", "Authentication Ticket", "Service Ticket Request"),
        *("Service Ticket Renew", "Preauth"),
    ),
)
ENTITY = Class(
    3004,
    "Entity Management",
    (
        *("Create", "Read", "Update", "Delete", "Move", "Enroll", "Unenroll", "Enable"),
        *("Disable", "Activate", "Deactivate", "Suspend", "Resume"),
    ),
)
USER_ACCESS = Class(3005, "User Access Management", ("Assign Privileges", "Revoke Privileges"))
GROUP = Class(
    3006,
    "Group Management",
    ("Assign Privileges", "Revoke Privileges", "Add User", "Remove User", "Delete", "Create"),
)
NETWORK = Class(
    4001,
    "Network Activity",
    ("Open", "Close", "Reset", "Fail", "Refuse", "Traffic", "Listen"),
)
HTTP = Class(
    4002,
    "HTTP Activity",
    ("Connect", "Delete", "Get", "Head", "Options", "Post", "Put", "Trace"),
)
EMAIL = Class(4009, "Email Activity", ("Send", "Receive", "Scan", "Trace"))
INVENTORY = Class(5001, "Device Inventory Info", ("Log", "Collect"))
API = Class(6003, "API Activity", ("Create", "Read", "Update", "Delete"))
REGISTRY_KEY = Class(
    201001,
    "Registry Key Activity",
    (
        *("Create", "Read", "Modify", "Delete", "Rename", "Set Security", "Restore", "Import"),
        "Export",
    ),
)
REGISTRY_VALUE = Class(201002, "Registry Value Activity", ("Get", "Set", "Modify", "Delete"))
