"""Batch → alerts and dead letters: the only decode.

What came is kept byte for byte in `raw`, but for secrets, which are masked, and repairs.
"""

from __future__ import annotations

import msgspec

from schemas.alert import Alert
from schemas.batch import AlertBatch, Batch, Dropped
from schemas.dead_letter import DeadLetter
from schemas.kinds import recognise, understand
from schemas.masking import mask
from schemas.receipt import Outcome
from schemas.repairs import Repaired
from schemas.wrappers import BLANKS, Refusal, unwrap

__all__ = ["parse_again", "parse_batch"]

_STEP = "parse"


def parse_batch(batch: Batch, masking: bool = True) -> tuple[AlertBatch, list[DeadLetter]]:
    """A batch of hub events as a batch of alerts, and a dead letter for every record that is none.

    masking: whether secrets inside alerts are masked (`schemas.masking`).
    An event yields at least one of either; `index` counts the records in it. Never raises: a bug
    in a kind costs the record that shows it.
    """
    alerts: list[Alert] = []
    dropped: list[Dropped] = []
    dead: list[DeadLetter] = []
    for event in batch.records:
        for index, found in enumerate(_records(event.body, masking), event.index):
            if isinstance(found, Alert):
                found.sequence = event.sequence
                found.index = index
                found.enqueued_ms = event.enqueued_ms
                if not found.event_ms:
                    found.event_ms = event.enqueued_ms
                alerts.append(found)
                continue
            dropped.append(Dropped(event.sequence, index, Outcome.DEAD))
            dead.append(
                DeadLetter(
                    source=batch.origin.source,
                    partition=batch.origin.partition,
                    sequence=event.sequence,
                    index=index,
                    enqueued_ms=event.enqueued_ms,
                    step=_STEP,
                    reason=found.reason,
                    body=found.body,
                )
            )
    size = len(alerts) + len(dead)
    parsed = AlertBatch(
        batch.origin, batch.first, batch.last, batch.only, size, alerts, dropped, batch.offset,
        attempt=batch.attempt,
    )  # fmt: skip
    return parsed, dead


def parse_again(batch: Batch, masking: bool = True) -> tuple[AlertBatch, list[DeadLetter]]:
    """A batch of dead letters as `parse_batch` gives it, but for addresses: however many records
    a letter holds by now, all have its own, as only that was ever counted. One that is refused
    makes it dead, whole."""
    alerts: list[Alert] = []
    dead: list[DeadLetter] = []
    for letter in batch.records:
        found, refused = parse_batch(msgspec.structs.replace(batch, records=[letter]), masking)
        for alert in found.alerts:
            alert.index = letter.index
        alerts += found.alerts
        for one in refused[:1]:
            one.index, one.body = letter.index, letter.body
            dead.append(one)
    dropped = [Dropped(one.sequence, one.index, Outcome.DEAD) for one in dead]
    parsed = AlertBatch(
        batch.origin, batch.first, batch.last, batch.only, len(alerts) + len(dead), alerts,
        dropped, batch.offset, batch.retried,
    )  # fmt: skip
    return parsed, dead


def _records(body: bytes, masking: bool) -> list[Alert | Refusal]:
    """The records of one event's body, understood or refused."""
    try:
        text = body.strip(BLANKS)
        raw, masked = mask(text) if masking else (text, 0)
        alert = recognise(raw)  # nearly always: one bare record of a usual kind
        if alert is not None:
            return [_with_original(alert, text, masked) if masked else alert]
        pieces = unwrap(body)
    except Exception as error:  # noqa: BLE001
        return [Refusal(body, _bug(error))]
    return [p if isinstance(p, Refusal) else _understood(p, masking) for p in pieces]


def _understood(piece: bytes | Repaired, masking: bool) -> Alert | Refusal:
    it = piece if isinstance(piece, Repaired) else Repaired(piece, piece, ())
    try:
        raw, masked = mask(it.body) if masking else (it.body, 0)
        alert = understand(raw)
    except Exception as error:  # noqa: BLE001
        return Refusal(it.original, _bug(error))
    alert.repairs = it.repairs + alert.repairs
    return _with_original(alert, it.original, masked) if masked or it.repairs else alert


def _with_original(alert: Alert, original: bytes, masked: int) -> Alert:
    alert.masked = masked
    alert.original = original
    return alert


def _bug(error: Exception) -> str:
    """Without the error's text, which may quote the record."""
    return f"could not be understood: {type(error).__name__}"
