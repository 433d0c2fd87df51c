"""What the events of `schemas.formats.ocsf` are made of, class by class, as a table's columns.

Source: the types of schema.ocsf.io/1.5.0, of what those events say and no more: the schema's own
objects hold each other without end. A column has one type in all classes, so that tables of several
classes can be read as one. `unmapped` is a map of texts; what OCSF leaves open (`json_t`) is JSON.
"""

from __future__ import annotations

from typing import Any

from schemas.formats import _ocsf_classes as classes

__all__ = ["BOOL", "CLASSES", "INT", "JSON", "LONG", "MAP", "TEXT", "Type", "columns"]

TEXT, INT, LONG, BOOL, JSON, MAP = "text", "int", "long", "bool", "json", "map"

Type = Any
"""One of the names above; a list of one type; or a dictionary of types by name."""


def _texts(names: str) -> dict[str, Type]:
    return dict.fromkeys(names.split(), TEXT)


def _ids(*names: str) -> dict[str, Type]:
    """An id, and its caption."""
    return {key: kind for name in names for key, kind in ((f"{name}_id", INT), (name, TEXT))}


_NAMED = _texts("name vendor_name")
_UID = {"uid": TEXT}
_URL = {"url_string": TEXT}
_ATTACK = {"tactic": _texts("uid name"), "technique": _texts("uid name"), "sub_technique": _UID}
_FILE = {
    **_texts("name path"),
    **_ids("type"),
    "hashes": [{**_ids("algorithm"), "value": TEXT}],
}
_PROCESS = {
    "pid": INT,
    **_texts("uid name cmd_line"),
    "file": _FILE,
    "parent_process": {"pid": INT},
}
_USER = _texts("name uid domain email_addr full_name")
_ACTOR = {"user": _USER, "process": _PROCESS, **_texts("app_name app_uid")}
_DEVICE = {
    **_texts("hostname name uid domain ip mac model vendor_name"),
    **_ids("type"),
    "os": {"name": TEXT, **_ids("type")},
}
_ENDPOINT = {
    **_texts("ip hostname name uid mac"),
    "port": INT,
    "location": _texts("city region country"),
}
_REG_VALUE = _texts("path name data type")
_INFO = {
    **_texts("uid title desc src_url"),
    "product": _NAMED,
    "types": [TEXT],
    "analytic": {**_texts("uid name"), **_ids("type")},
    **dict.fromkeys(("created_time", "modified_time", "first_seen_time", "last_seen_time"), LONG),
    "attacks": [_ATTACK],
    "related_events": [_UID],
    "related_events_count": INT,
}
_EVIDENCE = {
    "name": TEXT,
    "data": JSON,
    "process": _PROCESS,
    "file": _FILE,
    "user": _USER,
    "src_endpoint": _ENDPOINT,
    "dst_endpoint": _ENDPOINT,
    "url": _URL,
    "actor": _texts("app_name app_uid"),
    "reg_key": {"path": TEXT},
    "reg_value": _REG_VALUE,
}
_REMEDIATION = {"desc": TEXT}
_PACKAGE = _texts("name version fixed_in_version")

_COMMON: dict[str, Type] = {
    "metadata": {
        **_texts("version uid log_name event_code original_time correlation_uid tenant_uid"),
        "logged_time": LONG,
        "product": _NAMED,
        "profiles": [TEXT],
        "labels": [TEXT],
        "extensions": [_texts("name uid version")],
    },
    "time": LONG,
    "start_time": LONG,
    "end_time": LONG,
    "category_uid": INT,
    "category_name": TEXT,
    "class_uid": INT,
    "class_name": TEXT,
    "activity_id": INT,
    "activity_name": TEXT,
    "type_uid": LONG,
    "type_name": TEXT,
    **_ids("severity", "status"),
    "status_detail": TEXT,
    "message": TEXT,
    "cloud": {
        "provider": TEXT,
        "account": {**_texts("uid name"), **_ids("type")},
        "org": _UID,
    },
    "attacks": [_ATTACK],
    "observables": [{**_texts("name value"), **_ids("type")}],
    "enrichments": [{**_texts("name value type"), "data": JSON}],
    "unmapped": MAP,
    "raw_data": TEXT,
    "raw_data_size": LONG,
}
"""Of every class."""

_MORE: dict[str, Type] = {
    "actor": _ACTOR,
    "api": {
        "operation": TEXT,
        "request": _UID,
        "service": _texts("name uid"),
        "response": {"code": INT, "message": TEXT},
    },
    "assignee": _texts("name email_addr"),
    "assignee_group": {"name": TEXT},
    **_ids("auth_protocol", "confidence", "direction", "logon_type", "priority", "risk_level"),
    **_ids("verdict"),
    "compliance": {
        **_texts("control category desc"),
        "standards": [TEXT],
        "status_details": [TEXT],
        **_ids("status"),
    },
    "confidence_score": INT,
    "connection_info": {"protocol_name": TEXT, **_ids("direction")},
    "desc": TEXT,
    "device": _DEVICE,
    "dst_endpoint": _ENDPOINT,
    "email": {**_texts("from subject uid message_uid"), "to": [TEXT]},
    "entity": {**_texts("name uid"), **_ids("type")},
    "evidences": [_EVIDENCE],
    "file": _FILE,
    "finding_info": _INFO,
    "finding_info_list": [_INFO],
    "group": _texts("name uid domain"),
    "http_request": {**_texts("http_method user_agent referrer"), "url": _URL},
    "http_response": {"code": INT},
    "is_alert": BOOL,
    "is_mfa": BOOL,
    "log_name": TEXT,
    "malware": [{"name": TEXT, "classification_ids": [INT]}],
    "module": {"file": _FILE, **_ids("load_type")},
    "privileges": [TEXT],
    "process": _PROCESS,
    "reg_key": {"path": TEXT},
    "reg_value": _REG_VALUE,
    "remediation": _REMEDIATION,
    "resources": [{**_texts("uid name type hostname"), "group": {"name": TEXT}}],
    "service": _texts("name uid"),
    "src_endpoint": _ENDPOINT,
    "src_url": TEXT,
    "traffic": {"bytes_in": LONG, "bytes_out": LONG},
    "url": _URL,
    "user": _USER,
    "vulnerabilities": [
        {
            "cve": _UID,
            **_texts("title desc severity"),
            "remediation": _REMEDIATION,
            "affected_packages": [_PACKAGE],
        }
    ],
}
_FINDING = "finding_info resources confidence_id confidence confidence_score"
_JUDGED = "assignee verdict_id verdict"
_ENDS = "src_endpoint dst_endpoint"
_OF_CLASS = {
    classes.BASE_EVENT: "actor device",
    classes.FILE: "file actor device",
    classes.MODULE: "module actor device",
    classes.PROCESS: "process actor device",
    classes.EVENT_LOG: "log_name actor device",
    classes.VULNERABILITY: f"{_FINDING} vulnerabilities",
    classes.COMPLIANCE: f"{_FINDING} compliance remediation",
    classes.DETECTION: f"{_FINDING} {_JUDGED} is_alert evidences malware device remediation "
    "risk_level_id risk_level",
    classes.INCIDENT: f"finding_info_list {_JUDGED} assignee_group desc src_url priority_id "
    "priority",
    classes.ACCOUNT: "user actor src_endpoint",
    classes.AUTHENTICATION: f"user actor {_ENDS} service logon_type_id logon_type auth_protocol_id "
    "auth_protocol is_mfa http_request",
    classes.ENTITY: "entity actor src_endpoint",
    classes.USER_ACCESS: "user privileges actor src_endpoint",
    classes.GROUP: "group user actor src_endpoint",
    classes.NETWORK: f"{_ENDS} connection_info traffic url actor device",
    classes.HTTP: f"http_request http_response {_ENDS}",
    classes.EMAIL: f"email direction_id direction {_ENDS}",
    classes.INVENTORY: "device",
    classes.API: f"api actor {_ENDS} http_request resources",
    classes.REGISTRY_KEY: "reg_key actor device",
    classes.REGISTRY_VALUE: "reg_value actor device",
}
CLASSES: dict[int, tuple[str, ...]] = {
    cls.uid: tuple(names.split()) for cls, names in _OF_CLASS.items()
}
"""The columns that a class has beside those of all, by its id."""


def columns(class_uid: int) -> dict[str, Type]:
    """The columns of a class. Raises KeyError for one that no event is of."""
    return _COMMON | {name: _MORE[name] for name in CLASSES[class_uid]}
