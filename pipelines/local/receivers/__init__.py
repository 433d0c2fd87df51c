"""Receivers on this machine: systems that alerts are sent to, as far as sinks see.

They listen on 127.0.0.1 only, keep what they get, answer as the real ones do, and fail on demand.
They are cheap, because they share the machine with the pipeline: nothing is parsed while it
arrives, only when somebody asks what arrived.

    with HecReceiver(token="t") as splunk:
        splunk.fail(Answer(503, 9, "Server is busy"), times=2)
        ...  # a sink sends to splunk.url
        splunk.ids()

`hec` is Splunk's event collector, `syslog` a syslog server; `http` is what doubles of further
systems are made of. Beside them `faults` (what can be done wrong), `base` (what all share) and
`certificates`.
"""

from pipelines.local.receivers.base import Receiver
from pipelines.local.receivers.certificates import certificate
from pipelines.local.receivers.faults import (
    Answer,
    Drip,
    Fault,
    HalfClose,
    InvalidEvent,
    Pace,
    Poison,
    Reset,
    Silence,
    Slow,
)
from pipelines.local.receivers.hec import HecReceiver
from pipelines.local.receivers.http import HttpReceiver, Reply, Request
from pipelines.local.receivers.syslog import SyslogReceiver

__all__ = [
    "Answer",
    "Drip",
    "Fault",
    "HalfClose",
    "HecReceiver",
    "HttpReceiver",
    "InvalidEvent",
    "Pace",
    "Poison",
    "Receiver",
    "Reply",
    "Request",
    "Reset",
    "Silence",
    "Slow",
    "SyslogReceiver",
    "certificate",
]
