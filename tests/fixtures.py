"""Short names for the examples that most tests use; and texts that attack."""

from __future__ import annotations

from tests.examples import encoded
from tests.examples._base import PORTAL, RESOURCE, SUBSCRIPTION, WORKSPACE_SUBSCRIPTION
from tests.examples.defender_alert import record as defender_alert
from tests.examples.security_alert import record as security_alert
from tests.examples.security_incident import record as security_incident

__all__ = [
    "PORTAL",
    "RESOURCE",
    "SUBSCRIPTION",
    "WORKSPACE_SUBSCRIPTION",
    "defender_alert",
    "encoded",
    "hostile",
    "security_alert",
    "security_incident",
]


def hostile() -> list[str]:
    """Texts that try to be more than text in a SIEM."""
    return [
        "two\nlines\r\nCEF:0|Evil|Evil|1|1|forged|10|externalId=1",
        "end\n<13>1 2026-03-04T10:13:14Z evil evil - - - forged",
        "pipe | pipe \\| equals = \\= backslash \\ cs1=forged msg=forged",
        "trailing backslash \\",
        "\\\\",
        " =",
        '"}\n{"event":"forged"}',
        '"],[forged@1 a="b"] "',
        "<script>alert(1)</script>",
        "\x1b]0;title\x07\x1b[31mred\x1b[0m\x9b31m\x00\x7f",
        "next\u0085line\u2028separator\u2029paragraph\x0b\x0c\x1c\x1d\x1e",
        "\ufeffmark \u202ereversed \U0001f600 \u00e9\u4e2d\u6587",
    ]
