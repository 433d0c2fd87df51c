"""Trying out where settings lead: can everything be reached, and does a marked record arrive?

Nothing here is part of a run: no state is written, no position moves, no account counts it.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import getpass
import itertools
import json
import queue
import re
import socket
import ssl
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timezone
from functools import partial
from typing import Any, TypeVar
from urllib.parse import urlsplit

from pydantic import BaseModel

from pipelines.settings import Settings, SinkEntry
from schemas.alert import Alert
from schemas.digest import Digest, Sample, to_alert
from schemas.kinds import understand
from transforms.delivery.line import Line, describe
from transforms.delivery.network import Deadline, Tls, dial
from transforms.read.access import EventHubsAccess
from transforms.read.sdk import HubError, PartitionLink, kept_sequences, partition_ids
from transforms.route import why_not
from transforms.secrets import SecretError, SecretRef
from transforms.sinks.base import (
    Accepted,
    Pending,
    Refresh,
    RejectItems,
    Retry,
    Sink,
    SinkSettings,
    Verdict,
)

__all__ = ["Reached", "Tried", "reach", "trial_record", "try_sink"]

_SOURCE_SECONDS = 30.0
_LINK_SECONDS = 10.0
_PARTITIONS = 32  # of a hub that are asked what they hold
_CERTIFICATE_SECONDS = 3.0
_RENEW_DAYS = 30
_CONFIRM_SECONDS = 0.25  # from asking about what is pending to asking again
_GRACE = 1.0  # seconds for whoever keeps to its time, to say so itself
_LEAST_SECRET = 6  # characters; what is shorter stands in ordinary words too

T = TypeVar("T")


# --------------------------------------------------------------- connecting, sending nothing


@dataclasses.dataclass(frozen=True)
class Reached:
    """What was found at a source or sink; `good`: it can be used. warning: it can, but …"""

    name: str
    kind: str
    good: bool
    said: str
    warning: str = ""


def reach(settings: Settings) -> Iterator[Reached]:
    """Connect to every source and sink, all at once; what was found, as it is found.

    No record is sent or read. A sink has its own `timeout`, a source 30 s.
    """
    places: list[tuple[str, str]] = []
    tasks: list[tuple[float, Callable[[], tuple[str, str]]]] = []
    for source in settings.sources:
        places.append((source.name, "event_hubs"))
        tasks.append((_SOURCE_SECONDS, partial(_reach_hub, source.event_hubs)))
    for entry in settings.sinks:
        places.append((entry.name, entry.kind))
        tasks.append((entry.settings.timeout, partial(_reach_sink, entry)))
    for number, found in _side_by_side(tasks):
        if isinstance(found, Exception):
            yield Reached(*places[number], False, _safe(_advised(found), settings))
        else:
            said, warning = (_safe(text, settings) for text in found)
            yield Reached(*places[number], True, said, warning)


def _reach_hub(access: EventHubsAccess) -> tuple[str, str]:
    ids = partition_ids(access)
    asked = [partial(kept_sequences, access, each) for each in ids[:_PARTITIONS]]
    tasks: list[Callable[[], Any]] = [*asked, partial(_attach, access, ids[0])]
    kept = 0
    for number, found in _side_by_side([(_SOURCE_SECONDS, task) for task in tasks]):
        if isinstance(found, Exception):
            raise found
        kept += len(found) if number < len(asked) else 0
    of = f" in the first {_PARTITIONS}" if len(ids) > _PARTITIONS else ""
    said = f"{_many(len(ids), 'partition')}, {_many(kept, 'event')} kept{of}"
    return f"{said}; readable as {access.consumer_group}", ""


def _attach(access: EventHubsAccess, partition: str) -> None:
    """Whether the consumer group is there, and may be read: a link that is granted no event."""
    with access.client() as client:
        link = PartitionLink(client, access.consumer_group, partition, -1, prefetch=0)
        link.open(_LINK_SECONDS)
        link.close()


def _reach_sink(entry: SinkEntry) -> tuple[str, str]:
    timeout = entry.settings.timeout
    said = entry.build().check(timeout)
    ends = _certificate_ends(entry.settings, min(timeout, _CERTIFICATE_SECONDS))
    if ends is None:
        return said, ""
    days = (ends - datetime.now(timezone.utc)).days
    if days < _RENEW_DAYS:
        return said, f"its certificate ends on {ends:%Y-%m-%d}, in {_many(days, 'day')}: renew it"
    return f"{said}; its certificate is good until {ends:%Y-%m-%d}", ""


def _certificate_ends(settings: SinkSettings, timeout: float) -> datetime | None:
    """When the server's certificate ends; None where there is none, or it is not verified."""
    tls = getattr(settings, "tls", None) or Tls()
    url = getattr(settings, "url", "")
    if getattr(settings, "protocol", "") == "tls":
        url = f"https://{getattr(settings, 'address', '')}"
    with contextlib.suppress(OSError, ValueError, TypeError):
        parts = urlsplit(url)
        if parts.scheme == "https" and parts.hostname and not getattr(settings, "proxy", None):
            deadline, context = Deadline(timeout), tls.context()
            name = tls.server_name or ""
            with dial(parts.hostname, parts.port or 443, deadline, context, name) as sock:
                assert isinstance(sock, ssl.SSLSocket)
                found = sock.getpeercert()
            if found:
                seconds = ssl.cert_time_to_seconds(str(found["notAfter"]))
                return datetime.fromtimestamp(seconds, timezone.utc)
    return None


# ------------------------------------------------------------------------ sending one record


@dataclasses.dataclass(frozen=True)
class Tried:
    """What became of a test record. said: the system's answer, or why there is none.

    target: where it was sent. find: how it is found there, if it was accepted. note: what else
    should be known.
    """

    name: str
    kind: str
    target: str
    accepted: bool
    said: str
    seconds: float
    event_id: str
    size: int = 0  # bytes
    find: str = ""
    note: str = ""


def try_sink(entry: SinkEntry, settings: Settings, wait: float) -> Tried:
    """Send one test record to a sink, whatever its `where`; once, without retries.

    wait: seconds for a system that takes first, and confirms later.
    """
    record = trial_record(digest=entry.send == "digests")
    note = why_not(entry.where, record)
    timeout = entry.settings.timeout
    began = time.monotonic()
    # Each of two attempts may connect, and send.
    ((_, found),) = _side_by_side(
        [(4 * timeout + wait, partial(_try, entry, settings.sources[0].name, record, wait))]
    )
    seconds = time.monotonic() - began
    accepted, said, size, find = (
        (False, _advised(found), 0, "") if isinstance(found, Exception) else found
    )
    return Tried(
        entry.name,
        entry.kind,
        entry.build().target,
        accepted,
        _safe(said, settings),
        seconds,
        record.event_id,
        size,
        _safe(find, settings),
        f"its `where` keeps such alerts out: {note}" if note else "",
    )


def trial_record(*, digest: bool = False) -> Alert:
    """A record that says what it is, and who sent it when: a Defender alert, or a digest."""
    now = datetime.now(timezone.utc)
    at = now.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    host = socket.gethostname()
    try:
        who = f"{getpass.getuser()} on {host}"
    except (KeyError, OSError):  # no such user, as in some containers
        who = f"somebody on {host}"
    why = (
        f"Sent by `alertbeam sinks test`, run by {who} at {at}, to see that alerts arrive here. "
        "There is nothing to look into; it may be closed."
    )
    ms = int(now.timestamp() * 1000)
    identity = str(uuid.uuid4())
    if digest:
        return to_alert(
            Digest(
                name="alertbeam test digest, nothing happened",
                key={},
                start_ms=ms,
                end_ms=ms,
                pane=0,
                timing="on_time",
                total=0,
                severities={"informational": 0},
                statuses={},
                kinds={},
                first_ms=ms,
                last_ms=ms,
                samples=[Sample(uuid.UUID(identity).hex, why)],
            )
        )
    fields = {
        "VendorName": "Microsoft",
        "AlertType": "alertbeam_Test",
        "ProductName": "Microsoft Defender for Cloud",
        "StartTimeUtc": at,
        "EndTimeUtc": at,
        "TimeGenerated": at,
        "ProcessingEndTime": at,
        "Severity": "Informational",
        "Status": "New",
        "SystemAlertId": identity,
        "Intent": "Unknown",
        "AzureResourceId": None,
        "CompromisedEntity": host,
        "AlertDisplayName": "alertbeam test alert: nothing happened",
        "Description": why,
        "ExtendedProperties": {"resourceType": "None: this is a test"},
    }
    alert = understand(json.dumps(fields).encode())
    alert.enqueued_ms = ms
    return alert


def _try(entry: SinkEntry, source: str, record: Alert, wait: float) -> tuple[bool, str, int, str]:
    """Accepted, what was said, bytes, how it is found."""
    sink: Sink[Any] = entry.build()
    try:
        payload = sink.encode(record, source, "0")
    except ValueError as error:
        return False, f"this sink's format has no way to say it: {error}", 0, ""
    most = sink.limits.max_record_bytes
    if most is not None and len(payload) > most:
        payload = sink.shrink(record, source, "0", most) or payload
    line = Line(sink)
    try:
        verdict = line.send([payload], entry.settings.timeout)
        if isinstance(verdict, Refresh):
            verdict = line.send([payload], entry.settings.timeout)
        if isinstance(verdict, Pending):
            verdict = _confirmed(line, verdict, entry.settings.timeout, wait)
    finally:
        line.close()
    accepted, said = _judged(verdict)
    return accepted, said, len(payload), sink.find(record.event_id) if accepted else ""


def _confirmed(line: Line, pending: Pending, timeout: float, wait: float) -> Verdict:
    end = time.monotonic() + wait
    while line.open and time.monotonic() < end:
        found = line.confirm(timeout)
        if pending.handle in found:
            return found[pending.handle]
        time.sleep(_CONFIRM_SECONDS)
    what = f"not confirmed within {wait:g} s" if line.open else "the connection was lost"
    return Retry(f"taken, but {what}: it may have arrived, or may yet")


def _judged(verdict: Verdict) -> tuple[bool, str]:
    if isinstance(verdict, RejectItems):
        if 0 in verdict.reasons:
            return False, verdict.reasons[0]
        taken = verdict.taken and 0 not in verdict.again
        return taken, "" if taken else "not taken for now"
    if isinstance(verdict, Accepted):
        return True, ", ".join(filter(None, dict.fromkeys((verdict.said, verdict.warning))))
    assert not isinstance(verdict, Pending), "it was waited for"
    said = _with_advice(verdict.reason)
    if isinstance(verdict, Retry) and verdict.after:
        said += f"; it asks to wait {verdict.after:g} s"
    return False, said


# ------------------------------------------------------------------------------ what both use


def _side_by_side(
    tasks: Sequence[tuple[float, Callable[[], T]]],
) -> Iterator[tuple[int, T | Exception]]:
    """Do all at once, each for so many seconds at most; number and result, as they come.

    In threads that nobody waits for: a name that is looked up, for one, can take any time.
    """
    results: queue.SimpleQueue[tuple[int, T | Exception]] = queue.SimpleQueue()

    def work(number: int, task: Callable[[], T]) -> None:
        try:
            results.put((number, task()))
        except Exception as error:  # noqa: BLE001 - told where it is waited for
            results.put((number, error))

    now = time.monotonic()
    ends = {number: now + seconds + _GRACE for number, (seconds, _) in enumerate(tasks)}
    for number, (_, task) in enumerate(tasks):
        threading.Thread(target=work, args=(number, task), name="trial", daemon=True).start()
    while ends:
        first = min(ends, key=ends.__getitem__)
        try:
            number, found = results.get(timeout=max(0.0, ends[first] - time.monotonic()))
        except queue.Empty:
            number, found = first, TimeoutError(f"no answer within {tasks[first][0]:g} s")
        if ends.pop(number, None) is not None:
            yield number, found


# What a system, or the machine, says when something is wrong, and what may be done about it.
_ADVICE = (
    (r"Connection refused", "is it running there, and are host and port right?"),
    (
        r"\[Errno -\d+\]|nodename nor",
        "is the host's name right, and does this machine's DNS know it?",
    ),
    (r"No route to host|unreachable", "there is no way there from this machine"),
    (r"handshake .* timed out|WRONG_VERSION|RECORD_LAYER", "does it speak TLS at this port?"),
    (r"timed out|no answer within|did not answer", "is the host right, or a firewall between?"),
    (r"certificate was refused: .*(self-signed|issuer)", "give its authority: `tls: {ca: FILE}`"),
    (
        r"certificate was refused: .*(mismatch|not valid for)",
        "is the host right? If so, tell the name that it bears: `tls: {server_name: NAME}`",
    ),
    (r"certificate was refused: .*expired", "the server needs a new one"),
    (r"amqp:not-found|Status code: 404", "are the names of hub and consumer group right?"),
    (
        r"amqp:unauthorized|Status code: 401",
        "is it this hub's connection string, or a role that may listen?",
    ),
)
_NOISE = re.compile(
    r"\[(?:Errno -?\d+|SSL: \w+)\] | ?\(_ssl\.c:\d+\)|_ssl\.c:\d+: |,? Description: None"
    r"|^ConnectError: (?:Failed to initiate the connection due to exception: )?"
)


def _advised(error: Exception) -> str:
    return _with_advice(str(error) if isinstance(error, HubError) else describe(error))


def _with_advice(text: str) -> str:
    """In a line, and with what may be done about it."""
    advice = next((told for sign, told in _ADVICE if re.search(sign, text)), "")
    plain = _NOISE.sub("", text).rstrip(".")
    return f"{plain}; {advice}" if advice else plain


def _safe(text: str, settings: Settings) -> str:
    """Without any secret of the settings: a system may quote what it was sent."""
    for secret in sorted({*_secrets(settings)}, key=len, reverse=True):
        text = text.replace(secret, "***")
    return text


def _secrets(value: Any) -> Iterator[str]:
    below: Iterable[Any] = ()
    if isinstance(value, SecretRef):
        with contextlib.suppress(SecretError):
            whole = value.resolve().reveal()
            keys = re.findall(r"SharedAccess(?:Key|Signature)=([^;]+)|https?://[^/]*(/.+)", whole)
            for secret in (whole, *map("".join, keys)):
                if len(secret) >= _LEAST_SECRET:
                    yield secret
                    yield base64.b64encode(secret.encode()).decode()
    elif isinstance(value, BaseModel):
        below = (each for _, each in value)
    elif isinstance(value, Mapping):
        below = value.values()
    elif isinstance(value, list | tuple):
        below = value
    yield from itertools.chain.from_iterable(map(_secrets, below))


def _many(count: int, what: str) -> str:
    return f"{count:,} {what}" + ("" if count == 1 else "s")
