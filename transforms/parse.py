"""Batch → alerts and dead letters: the only decode. What came is kept byte for byte in `raw`."""

from __future__ import annotations

from schemas.alert import Alert
from schemas.batch import AlertBatch, Batch, Dropped
from schemas.dead_letter import DeadLetter
from schemas.kinds import recognise, understand
from schemas.receipt import Outcome
from schemas.wrappers import BLANKS, Refusal, Repaired, unwrap

__all__ = ["parse_batch"]

_STEP = "parse"


def parse_batch(batch: Batch) -> tuple[AlertBatch, list[DeadLetter]]:
    """A batch of hub events as a batch of alerts, and a dead letter for every record that is none.

    An event yields at least one of either; `index` counts the records in it. Never raises: a bug
    in a kind costs the record that shows it.
    """
    alerts: list[Alert] = []
    dropped: list[Dropped] = []
    dead: list[DeadLetter] = []
    for event in batch.records:
        for index, found in enumerate(_records(event.body)):
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
    parsed = AlertBatch(batch.origin, batch.first, batch.last, batch.only, size, alerts, dropped)
    return parsed, dead


def _records(body: bytes) -> list[Alert | Refusal]:
    """The records of one event's body, understood or refused."""
    try:
        alert = recognise(body.strip(BLANKS))  # nearly always: one bare record of a usual kind
        if alert is not None:
            return [alert]
        pieces = unwrap(body)
    except Exception as error:  # noqa: BLE001
        return [Refusal(body, _bug(error))]
    return [piece if isinstance(piece, Refusal) else _understood(piece) for piece in pieces]


def _understood(record: bytes | Repaired) -> Alert | Refusal:
    try:
        if isinstance(record, bytes):
            return understand(record)
        alert = understand(record.body)
        alert.original = record.original
        alert.repairs = record.repairs + alert.repairs
        return alert
    except Exception as error:  # noqa: BLE001
        return Refusal(record if isinstance(record, bytes) else record.original, _bug(error))


def _bug(error: Exception) -> str:
    """Without the error's text, which may quote the record."""
    return f"could not be understood: {type(error).__name__}"
