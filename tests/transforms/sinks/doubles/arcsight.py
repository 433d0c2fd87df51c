"""A SmartConnector, as strict as the document that it parses by.

"Implementing ArcSight Common Event Format", revision 25: the prefix, escapes, the dictionary's
keys, their types and lengths; for Defender for IoT the keys of "Forward on-premises OT alert
information" (learn.microsoft.com). It takes whatever comes, and what it cannot parse becomes an
unparsed event: here that has the reason for an id. Nothing of the sink's own code is used.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Any

from tests.transforms.sinks.doubles.syslog import Strict

__all__ = ["Arcsight", "ArcsightIot", "cef_id", "message_id"]

_PREFIX = re.compile(
    r"<\d{1,3}>(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) (?: \d|\d\d) \d\d:\d\d:\d\d "
    r"[!-~]{1,255} (CEF:.*)",
    re.DOTALL,
)
_RFC5424 = re.compile(
    r"<\d{1,3}>1 \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (?:[!-~]{1,255} ){4}- (CEF:.*)", re.DOTALL
)
_HEADER = re.compile(r"CEF:0" + r"\|((?:[^|\\]|\\[|\\])+)" * 5 + r"\|(\d|10)\|(.*)", re.DOTALL)
_FIELD = re.compile(r"(\w+)=((?:[^\\=]|\\[\\=nr])+?)(?= \w+=|$)", re.ASCII)
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_TIME, _MAC = r"\d{1,15}", r"(?:[0-9a-fA-F]{2}:){5}[0-9a-fA-F]{2}"
_CUSTOM = ("c6a2", "c6a3", "cs1", "cs2", "cs3", "cs4", "cs5", "cs6", "flexString1", "flexString2")
_LENGTHS = {
    **dict.fromkeys(("act", "outcome"), 63),
    **dict.fromkeys(("app", "proto"), 31),
    **dict.fromkeys(("cs1", "cs2", "cs3", "cs4", "cs5", "cs6"), 4000),
    **dict.fromkeys(("deviceExternalId", "fileHash"), 255),
    **dict.fromkeys(("cat", "msg", "request", "fname", "filePath"), 1023),
    **dict.fromkeys(("dhost", "duser", "duid", "dproc", "shost", "suser", "suid", "sproc"), 1023),
    **dict.fromkeys(("flexString1", "flexString2"), 1023),
    **{f"{key}Label": 1023 for key in _CUSTOM},
    # and what the sensors of Defender for IoT send
    **dict.fromkeys(("protocol", "severity", "type", "UUID"), 1023),
}
_FORMS = {
    "externalId": r"[0-9a-f]{32}",  # 40 characters at most
    **dict.fromkeys(("rt", "start", "end"), _TIME),
    **dict.fromkeys(("spt", "dpt", "spid", "dpid"), r"\d{1,10}"),
    **dict.fromkeys(("smac", "dmac"), _MAC),
    **dict.fromkeys(("src_mac", "dst_mac"), r".{1,100}"),
}
_ADDRESSES = {
    **dict.fromkeys(("src", "dst"), (4,)),
    **dict.fromkeys(("c6a2", "c6a3"), (6,)),
    **dict.fromkeys(("src_ip", "dst_ip"), (4, 6)),
}


def message_id(message: bytes) -> str:
    """Of an event as CEF's document wraps it. Raises ValueError where it cannot be read."""
    return _unwrapped(_PREFIX, message)


def rfc5424_id(message: bytes) -> str:
    return _unwrapped(_RFC5424, message)


def _unwrapped(header: re.Pattern[str], message: bytes) -> str:
    found = header.fullmatch(message.decode("utf-8"))
    if found is None:
        raise ValueError("no header of syslog")
    return cef_id(found[1])


def cef_id(text: str) -> str:
    """`externalId` of an event. Raises ValueError for what is not CEF."""
    found = _HEADER.fullmatch(text)
    if found is None:
        raise ValueError("no header of CEF")
    for name, field, most in zip(
        ("vendor", "product", "version", "class id", "name"),
        found.groups(),
        (63, 63, 31, 1023, 512),
        strict=False,
    ):
        if len(re.sub(r"\\(.)", r"\1", field)) > most:
            raise ValueError(f"{name} is too long")
    if _CONTROL.search(text):
        raise ValueError("a control character")
    said, at, extension = {}, 0, found[7]
    while at < len(extension):
        field = _FIELD.match(extension, at)
        if field is None or field[1] in said:
            raise ValueError(f"no key, or one that was there: {extension[at : at + 40]!r}")
        said[field[1]] = re.sub(r"\\(.)", lambda escape: escape[1], field[2])
        at = field.end() + 1
    for key, value in said.items():
        _check(key, value)
    if labels := [key for key in _CUSTOM if (key in said) != (f"{key}Label" in said)]:
        raise ValueError(f"{labels[0]} and its label: one without the other")
    return said["externalId"]


def _check(key: str, value: str) -> None:
    if key in _ADDRESSES:
        if ipaddress.ip_address(value).version not in _ADDRESSES[key]:
            raise ValueError(f"{key} is {value}")
    elif key in _FORMS:
        if not re.fullmatch(_FORMS[key], value):
            raise ValueError(f"{key} is {value[:40]!r}")
    elif len(value) > _LENGTHS.get(key, 0):
        raise ValueError(f"{key} is unknown, or too long")


class Arcsight(Strict):
    kind = "arcsight"
    system = "a double of a SmartConnector, written from ArcSight's document on CEF, revision 25"
    read = staticmethod(message_id)


class ArcsightIot(Strict):
    kind = "arcsight"
    name = "arcsight_iot"
    system = f"{Arcsight.system}, and from Microsoft's on Defender for IoT; RFC 5424 around it"
    read = staticmethod(rfc5424_id)

    def settings(self) -> dict[str, Any]:
        return {**super().settings(), "profile": "iot_compat", "header": "rfc5424"}
