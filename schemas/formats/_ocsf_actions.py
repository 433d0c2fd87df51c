"""Which activity of OCSF a record is of: by its own word for what was done."""

from __future__ import annotations

import re

from schemas.alert import Alert
from schemas.entities import Details
from schemas.formats._ocsf_activities import (
    Act,
    access,
    account,
    api,
    authentication,
    cleared,
    connected,
    entity,
    filed,
    group,
    inventoried,
    key,
    launched,
    loaded,
    mailed,
    value,
    web,
)
from schemas.formats._ocsf_classes import Event

__all__ = ["acted", "called", "directory", "flow", "of_table", "requested", "signed_in"]

_OTHER = 99
_AUDITORS = ("", "microsoft-windows-security-auditing", "microsoft-windows-eventlog")
_ACTS: dict[str, tuple[Act, int]] = {
    # Windows security events (learn.microsoft.com, windows/security: advanced audit policies).
    "1102": (cleared, 1),
    "4624": (authentication, 1),
    "4625": (authentication, 1),
    "4648": (authentication, 1),
    "4634": (authentication, 2),
    "4647": (authentication, 2),
    "4768": (authentication, 3),
    "4769": (authentication, 4),
    "4770": (authentication, 5),
    "4771": (authentication, 6),
    "4776": (authentication, 99),
    "4657": (value, 3),
    "4688": (launched, 1),
    "4689": (launched, 2),
    "4720": (account, 1),
    "4722": (account, 2),
    "4723": (account, 3),
    "4724": (account, 4),
    "4725": (account, 5),
    "4726": (account, 6),
    "4738": (account, 99),
    "4740": (account, 9),
    "4741": (account, 1),
    "4742": (account, 99),
    "4743": (account, 6),
    "4767": (account, 12),
    **dict.fromkeys(("4728", "4732", "4756"), (group, 3)),
    **dict.fromkeys(("4729", "4733", "4757"), (group, 4)),
    **dict.fromkeys(("4727", "4731", "4754"), (group, 6)),
    **dict.fromkeys(("4730", "4734", "4758"), (group, 5)),
    "5156": (connected, 1),
    "5157": (connected, 5),
    # Sysmon (its page at Sysinternals).
    "sysmon 1": (launched, 1),
    "sysmon 3": (connected, 1),
    "sysmon 5": (launched, 2),
    "sysmon 7": (loaded, 1),
    "sysmon 8": (launched, 4),
    "sysmon 10": (launched, 3),
    "sysmon 11": (filed, 1),
    "sysmon 13": (value, 2),
    "sysmon 14": (key, 5),
    "sysmon 15": (filed, 1),
    "sysmon 23": (filed, 4),
    "sysmon 26": (filed, 4),
    # Defender XDR's action types (learn.microsoft.com, defender-xdr/advanced-hunting-*-table).
    "logonsuccess": (authentication, 1),
    "logonfailed": (authentication, 1),
    "logonattempted": (authentication, 1),
    "imageloaded": (loaded, 1),
    "processcreated": (launched, 1),
    "processterminated": (launched, 2),
    "openprocessapicall": (launched, 3),
    "createremotethreadapicall": (launched, 4),
    "filecreated": (filed, 1),
    "shelllinkcreatefileevent": (filed, 1),
    "filemodified": (filed, 3),
    "filedeleted": (filed, 4),
    "filerenamed": (filed, 5),
    "registrykeycreated": (key, 1),
    "registrykeydeleted": (key, 4),
    "registrykeyrenamed": (key, 5),
    "registryvalueset": (value, 2),
    "registryvaluedeleted": (value, 4),
    "connectionsuccess": (connected, 1),
    "connectionfailed": (connected, 4),
    "inboundconnectionaccepted": (connected, 1),
    "listeningconnectioncreated": (connected, 7),
    # Linux: sshd, PAM, shadow.
    **dict.fromkeys(
        (
            *("accepted password", "accepted publickey", "accepted keyboard-interactive/pam"),
            *("failed password", "failed publickey", "failed keyboard-interactive/pam"),
            *("failed none", "invalid user", "authentication failure", "session opened"),
        ),
        (authentication, 1),
    ),
    "session closed": (authentication, 2),
    "new user": (account, 1),
    "password changed": (account, 3),
    # Office 365 and Entra (learn.microsoft.com, entra: audit activity reference).
    "userloggedin": (authentication, 1),
    "userloginfailed": (authentication, 1),
    "mailboxlogin": (authentication, 1),
    "add user": (account, 1),
    "enable account": (account, 2),
    "change user password": (account, 3),
    "change password (self-service)": (account, 3),
    "reset user password": (account, 4),
    "reset password (by admin)": (account, 4),
    "reset password (self-service)": (account, 4),
    "disable account": (account, 5),
    "delete user": (account, 6),
    "hard delete user": (account, 6),
    "update user": (account, 99),
    "add member to group": (group, 3),
    "remove member from group": (group, 4),
    "delete group": (group, 5),
    "add group": (group, 6),
    "add member to role": (access, 1),
    "add eligible member to role": (access, 1),
    "remove member from role": (access, 2),
}


def acted(alert: Alert, found: Details) -> Event | None:
    """By an action, or a number of Windows, that has a class of its own."""
    word = found.action.rstrip(".").lower()
    number = found.attributes.get("event_id", "")
    if number.isdigit():
        provider = found.attributes.get("provider", "").lower()
        if "sysmon" in provider:
            word = f"sysmon {number}"
        elif provider in _AUDITORS:
            word = number
    known = _ACTS.get(word)
    return known[0](alert, found, known[1]) if known else None


_TABLES: dict[str, tuple[Act, int]] = {
    "devicelogonevents": (authentication, _OTHER),
    "identitylogonevents": (authentication, _OTHER),
    "deviceprocessevents": (launched, _OTHER),
    "devicefileevents": (filed, _OTHER),
    "devicenetworkevents": (connected, _OTHER),
    "emailevents": (mailed, 0),
    "emailpostdeliveryevents": (mailed, _OTHER),
    "deviceinfo": (inventoried, 1),
    "devicenetworkinfo": (inventoried, 1),
}


def of_table(alert: Alert, found: Details) -> Event | None:
    """By the advanced hunting table that a row is of."""
    table = found.attributes.get("table", "").lower()
    if table.startswith(("cloudapp", "cloudaudit")):
        return called(alert, found)
    known = _TABLES.get(table)
    return known[0](alert, found, known[1]) if known else None


_DIRECTORIES = ("Microsoft Entra ID", "Microsoft Intune")
_METHODS = {"POST": 1, "GET": 2, "HEAD": 2, "PUT": 3, "PATCH": 3, "DELETE": 4}
_REFUSE, _TRAFFIC = 5, 6
_REFUSED = re.compile(r"den[iy]|drop|block|reject|refuse", re.IGNORECASE)
_VERBS = {
    **dict.fromkeys(("add", "create", "new", "register", "invite", "upload", "put"), 1),
    **dict.fromkeys(("read", "get", "list", "download", "view", "search", "query", "access"), 2),
    **dict.fromkeys(("write", "update", "set", "change", "modify", "modifi", "patch", "edit"), 3),
    **dict.fromkeys(("delete", "remove", "purge", "hard"), 4),
}
_WORDS = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")


def _verb(action: str) -> int:
    """Create, Read, Update, Delete: by the first word that says so in the last part of
    `Microsoft.Web/sites/write`, in `Add user`, `SecretGet`, `FileDownloaded`; or by how `getblob`
    begins."""
    for word in _WORDS.findall(action.rpartition("/")[2][:200]):
        folded = word.lower()
        for form in (folded, folded.removesuffix("d"), folded.removesuffix("ed")):
            if form in _VERBS:
                return _VERBS[form]
    begin = action[:20].lower()
    found = (activity for verb, activity in _VERBS.items() if begin.startswith(verb))
    return next(found, _OTHER if action else 0)


def directory(alert: Alert, found: Details) -> Event | None:
    """A change to something that Entra or Intune hold."""
    if alert.product not in _DIRECTORIES or "http_method" in found.attributes:
        return None
    return entity(alert, found, _verb(found.action))


def signed_in(alert: Alert, found: Details) -> Event | None:
    sign_in = found.attributes.get("category", "").lower().endswith("signinlogs")
    if sign_in or any(it.lower().startswith("sign-in") for it in (found.action, alert.title)):
        return authentication(alert, found, 1)
    return None


def requested(alert: Alert, found: Details) -> Event | None:
    """What a gateway, its firewall or a site logged of a request."""
    firewall = "firewall" in found.attributes.get("category", "").lower()
    if firewall or "http_method" in found.attributes:
        return web(alert, found, _OTHER)
    return None


def flow(alert: Alert, found: Details) -> Event | None:
    """Traffic between two ends, as a firewall or a flow log tells it."""
    ends = {it.role for it in found.of("ip", "host", "domain")}
    if "source" not in ends or "target" not in ends:
        return None
    refused = found.outcome == "failure" or _REFUSED.search(found.action)
    return connected(alert, found, _REFUSE if refused else _TRAFFIC)


def called(alert: Alert, found: Details) -> Event | None:
    method = found.attributes.get("http_method", "").upper()
    return api(alert, found, _METHODS.get(method) or _verb(found.action))
