"""Activities of OCSF 1.5.0: what somebody or something did, by the record's own word for it."""

from __future__ import annotations

import re
from collections.abc import Callable

from schemas.alert import Alert
from schemas.entities import Details, Entity, EntityType, Role
from schemas.formats import _ocsf_classes as classes
from schemas.formats._ocsf_classes import Event
from schemas.formats._ocsf_objects import (
    Object,
    device,
    email_address,
    endpoint,
    file,
    integer,
    named,
    process,
    registry_key,
    registry_value,
    resource,
    said,
    url,
    user,
    without_blanks,
)

__all__ = [
    "Act",
    "access",
    "account",
    "api",
    "authentication",
    "cleared",
    "connected",
    "entity",
    "filed",
    "group",
    "inventoried",
    "key",
    "launched",
    "loaded",
    "mailed",
    "unclassed",
    "value",
    "web",
]

Act = Callable[[Alert, Details, int], Event | None]


_LOGON_TYPES = {
    "0": (1, "System"),
    "2": (2, "Interactive"),
    "3": (3, "Network"),
    "4": (4, "Batch"),
    "5": (5, "OS Service"),
    "7": (7, "Unlock"),
    "8": (8, "Network Cleartext"),
    "9": (9, "New Credentials"),
    "10": (10, "Remote Interactive"),
    "11": (11, "Cached Interactive"),
    "12": (12, "Cached Remote Interactive"),
    "13": (13, "Cached Unlock"),
    "interactive": (2, "Interactive"),
    "network": (3, "Network"),
    "batch": (4, "Batch"),
    "service": (5, "OS Service"),
    "unlock": (7, "Unlock"),
    "remoteinteractive": (10, "Remote Interactive"),
    "remote interactive (rdp) logons": (10, "Remote Interactive"),
    "cachedinteractive": (11, "Cached Interactive"),
}
_PROTOCOLS = {
    "ntlm": (1, "NTLM"),
    "kerberos": (2, "Kerberos"),
    "saml20": (5, "SAML"),
    "oauth2": (6, "OAUTH 2.0"),
}
_MANAGED = {
    "device": (1, "Device"),
    "host": (1, "Device"),
    "user": (2, "User"),
    "group": (3, "Group"),
    "organization": (4, "Organization"),
    "policy": (5, "Policy"),
}
_METHODS = [name.upper() for name in classes.HTTP.activities]
_LONG = 2**63 - 1
_VERSION = re.compile(r"v[46]$")
_DIRECTIONS = {
    "inbound": (1, "Inbound"),
    "outbound": (2, "Outbound"),
    "lateral": (3, "Lateral"),
}
_MAIL_DIRECTIONS = {
    "inbound": (1, "Inbound"),
    "outbound": (2, "Outbound"),
    "intra-org": (3, "Internal"),
}


def authentication(alert: Alert, found: Details, activity: int) -> Event | None:
    who = _of(found, ("user", "mailbox"), "target", "", "actor")
    who = who or _of(found, ("application",), "actor")
    person = who and user(who)
    if not person:
        return None
    body: Object = {"user": person}
    _ends(body, found)
    entered = _of(found, ("host",), "target", "")
    if "dst_endpoint" not in body and entered and (end := endpoint(entered)):
        body["dst_endpoint"] = end
    app = _of(found, ("application",), "target", "")
    service = app and without_blanks(name=app.name, uid=app.id)
    if service or "dst_endpoint" not in body:
        body["service"] = service or {"name": alert.product or alert.kind}
    attributes = found.attributes
    if word := attributes.get("logon_type", ""):
        number = integer(word)
        known = _LOGON_TYPES.get(str(number) if number is not None else word.lower())
        body |= named("logon_type", known, word)
    if word := attributes.get("authentication_package_name") or attributes.get("protocol", ""):
        body |= named("auth_protocol", _PROTOCOLS.get(word.lower()), word)
    if word := attributes.get("authentication_requirement", ""):
        body["is_mfa"] = word.lower() == "multifactorauthentication"
    if request := _request(found):
        body["http_request"] = request
    actor = _actor(found)
    if actor and actor.get("user") != person:
        body["actor"] = actor
    return Event(classes.AUTHENTICATION, activity, body)


def account(alert: Alert, found: Details, activity: int) -> Event | None:
    who = _of(found, ("user", "mailbox"), "target", "")
    person = who and user(who)
    if not person:
        return None
    body: Object = {"user": person}
    _by(body, found)
    return Event(classes.ACCOUNT, activity, body)


def group(alert: Alert, found: Details, activity: int) -> Event | None:
    what = _of(found, ("group",), "target", "")
    if what is None or not (what.name or what.id):
        return None
    body: Object = {"group": without_blanks(name=what.name, uid=what.id, domain=what.domain)}
    who = _of(found, ("user",), "target", "")
    if person := who and user(who):
        body["user"] = person
    _by(body, found)
    return Event(classes.GROUP, activity, body)


def access(alert: Alert, found: Details, activity: int) -> Event | None:
    """A role that somebody got or lost."""
    who = _of(found, ("user", "application"), "target")
    person = who and user(who)
    role = _of(found, ("group", "other"), "target", "")
    if not person or role is None:
        return None
    body: Object = {"user": person, "privileges": [role.name or role.id]}
    _by(body, found)
    return Event(classes.USER_ACCESS, activity, body)


def entity(alert: Alert, found: Details, activity: int) -> Event | None:
    """Whatever else a directory holds: applications, devices, policies, domains."""
    what = next((it for it in found.entities if it.role == "target"), None)
    names = what and without_blanks(name=what.full_name, uid=what.id)
    if not what or not names:
        return None
    kind = said(what, "type") or what.type
    body: Object = {"entity": names | named("type", _MANAGED.get(kind.lower()), kind)}
    _by(body, found)
    return Event(classes.ENTITY, activity, body)


def launched(alert: Alert, found: Details, activity: int) -> Event | None:
    """A process that was started, ended, opened or injected into."""
    listed = list(found.of("process"))
    one = _of(found, ("process",), "target", "") or (listed[0] if len(listed) == 1 else None)
    what = one and process(one)
    if not what:
        return None
    return _on_device(classes.PROCESS, activity, found, {"process": what})


def filed(alert: Alert, found: Details, activity: int) -> Event | None:
    one = _of(found, ("file",), "target", "")
    what = one and file(one)
    return _on_device(classes.FILE, activity, found, {"file": what}) if what else None


def loaded(alert: Alert, found: Details, activity: int) -> Event | None:
    """A library that a process loaded."""
    one = _of(found, ("file",), "target", "")
    what = one and file(one)
    if not what:
        return None
    module: Object = {"file": what, "load_type_id": 0, "load_type": "Unknown"}
    return _on_device(classes.MODULE, activity, found, {"module": module})


def key(alert: Alert, found: Details, activity: int) -> Event | None:
    one = _of(found, ("registry",), "target", "", "source")
    what = one and registry_key(one)
    if not what:
        return None
    return _on_device(classes.REGISTRY_KEY, activity, found, {"reg_key": what})


def value(alert: Alert, found: Details, activity: int) -> Event | None:
    one = _of(found, ("registry",), "target", "", "source")
    what = one and registry_value(one)
    if not what:
        return None
    return _on_device(classes.REGISTRY_VALUE, activity, found, {"reg_value": what})


def cleared(alert: Alert, found: Details, activity: int) -> Event | None:
    """A log that somebody cleared, or whose service was started or stopped."""
    body: Object = {"log_name": found.attributes.get("channel") or "Security"}
    if where := _machine(found):
        body["device"] = where
    if actor := _actor(found):
        body["actor"] = actor
    return Event(classes.EVENT_LOG, activity, body)


def connected(alert: Alert, found: Details, activity: int) -> Event | None:
    body: Object = {}
    _ends(body, found)
    if not body:
        return None
    attributes = found.attributes
    info = without_blanks(protocol_name=_VERSION.sub("", attributes.get("protocol", "").lower()))
    word = attributes.get("direction", "")
    body["connection_info"] = info | named("direction", _DIRECTIONS.get(word.lower()), word)
    traffic = without_blanks(
        bytes_out=integer(attributes.get("sent_bytes", ""), _LONG),
        bytes_in=integer(attributes.get("received_bytes", ""), _LONG),
    )
    if traffic:
        body["traffic"] = traffic
    if (one := _of(found, ("url",), "target", "")) and (link := url(one)):
        body["url"] = link
    if hosted := without_blanks(actor=_actor(found), device=_machine(found)):
        body |= hosted
        return Event(classes.NETWORK, activity, body, ("host",))
    return Event(classes.NETWORK, activity, body)


def mailed(alert: Alert, found: Details, activity: int) -> Event | None:
    sender = _of(found, ("mailbox", "user"), "source", "actor")
    addresses = [
        address
        for it in found.of("mailbox", "user")
        if it.role == "target" and (address := email_address(it.full_name))
    ]
    message = _of(found, ("message",), "target", "", "source", "actor")
    email = without_blanks(
        to=addresses,
        subject=message.name if message else "",
        uid=message.id if message else "",
        message_uid=message.attributes.get("InternetMessageId") if message else None,
    )
    if sender and (address := email_address(sender.full_name)):
        email["from"] = address
    if "from" not in email and "to" not in email:
        return None
    word = found.attributes.get("email_direction", "")
    direction = named("direction", _MAIL_DIRECTIONS.get(word.lower()), word)
    body: Object = {"email": email, **direction}
    _ends(body, found)
    if not activity:  # inbound: Receive; outbound: Send
        activity = {1: 2, 2: 1}.get(direction["direction_id"], 99)
    return Event(classes.EMAIL, activity, body)


def inventoried(alert: Alert, found: Details, activity: int) -> Event | None:
    where = _machine(found)
    return Event(classes.INVENTORY, activity, {"device": where}) if where else None


def web(alert: Alert, found: Details, activity: int) -> Event | None:
    """A request that a gateway or a site answered. Its method goes before the activity."""
    request = _request(found)
    if "url" not in request:
        return None
    body: Object = {"http_request": request}
    code = integer(found.attributes.get("http_status", ""), 999)
    if code is not None:
        body["http_response"] = {"code": code}
    _ends(body, found)
    method = request.get("http_method")
    return Event(classes.HTTP, _METHODS.index(method) + 1 if method else activity, body)


def api(alert: Alert, found: Details, activity: int) -> Event | None:
    """Somebody called an operation. Of caller and source, which the schema wants both, one that
    the record does not name is called Unknown."""
    operation = found.action or alert.alert_type or alert.title
    body: Object = {}
    _ends(body, found)
    actor = _actor(found)
    if not operation or not (actor or "src_endpoint" in body):
        return None
    body["actor"] = actor or {"app_name": "Unknown"}
    body.setdefault("src_endpoint", {"name": "Unknown"})
    attributes = found.attributes
    call: Object = {"operation": operation}
    if uid := attributes.get("correlation_id"):
        call["request"] = {"uid": uid}
    namespace = operation.partition("/")[0]
    if "/" in operation and "." in namespace:
        call["service"] = {"name": namespace}
    elif alert.product:
        call["service"] = {"name": alert.product}
    code = integer(attributes.get("http_status", ""), 999)
    reason = attributes.get("reason", "")
    if response := without_blanks(code=code, message=reason):
        call["response"] = response
    body["api"] = call
    if request := _request(found):
        body["http_request"] = request
    resources = [it for uid in alert.resource_ids if (it := resource(uid))]
    if resources:
        body["resources"] = resources
    return Event(classes.API, activity, body)


def unclassed(found: Details) -> Event:
    """What no class fits; with who did it and where, under the profile `host`."""
    body = without_blanks(actor=_actor(found), device=_machine(found))
    profiles = ("host",) if body else ()
    return Event(classes.BASE_EVENT, 99 if found.action else 0, body, profiles)


# Who, where from, where to.


def _of(found: Details, types: tuple[EntityType, ...], *roles: Role) -> Entity | None:
    """The first thing of these types in the first of these roles that there is."""
    listed = [it for it in found.entities if it.type in types]
    return next((it for role in roles for it in listed if it.role == role), None)


def _actor(found: Details) -> Object:
    actor: Object = {}
    one = _of(found, ("user", "mailbox"), "actor")
    if person := one and user(one):
        actor["user"] = person
    one = _of(found, ("process",), "actor")
    if image := one and process(one):
        actor["process"] = image
    one = _of(found, ("application",), "actor", "")
    if one:
        actor |= without_blanks(app_name=one.name, app_uid=one.id)
    return actor


def _request(found: Details) -> Object:
    method = found.attributes.get("http_method", "").upper()
    one = _of(found, ("url",), "target", "")
    return without_blanks(
        http_method=method if method in _METHODS else "",
        url=url(one) if one else None,
        user_agent=found.attributes.get("user_agent"),
        referrer=found.attributes.get("referrer"),
    )


def _by(body: Object, found: Details) -> None:
    """Who changed something, and where from."""
    if actor := _actor(found):
        body["actor"] = actor
    _ends(body, found)
    body.pop("dst_endpoint", None)


def _ends(body: Object, found: Details) -> None:
    ends: tuple[tuple[str, tuple[Role, ...]], ...] = (
        ("src_endpoint", ("source", "actor")),
        ("dst_endpoint", ("target",)),
    )
    for name, roles in ends:
        made: Object = {}
        for types in (("ip",), ("host", "domain")):
            one = _of(found, types, *roles)
            if end := one and endpoint(one):
                made = end | made
        if made:
            body[name] = made


def _machine(found: Details) -> Object | None:
    one = _of(found, ("host",), "", "target", "actor", "source")
    return device(one) if one else None


def _on_device(cls: classes.Class, activity: int, found: Details, body: Object) -> Event | None:
    """What the classes of System Activity require beside their object."""
    actor, where = _actor(found), _machine(found)
    if not actor or not where:
        return None
    return Event(cls, activity, body | {"actor": actor, "device": where})
