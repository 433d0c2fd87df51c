"""`--from`: where partitions begin, in words, and the sequence numbers that these come to.

WHERE           latest, earliest, checkpoint, a time (2026-03-04T10:00:00Z), how long ago (2h),
                or the sequence number of the first event
WHOM=WHERE      for a hub, a partition (3), or a partition of a hub (defender/3) alone
…,…             several; the most exact one counts
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from datetime import datetime, timezone
from typing import Any, Literal, NamedTuple

from schemas.batch import Origin
from transforms.read.access import EventHubsAccess
from transforms.read.sdk import HubError, _ask

__all__ = ["From", "FromError", "Where", "first_since"]

_TEACH = (
    "say earliest, latest, checkpoint, a time with its zone (2026-03-04T10:00:00Z), how long ago "
    "(30m, 2h, 7d), or the sequence number to begin with; for one hub or partition alone "
    "`defender=2h`, `3=1200` or `defender/3=1200`, several with commas"
)
_UNITS_MS = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_HIGHEST = 2**62
_SILENCE_SECONDS = 5.0


class FromError(Exception):
    """`--from` is not understood; the message says what may be said instead."""

    exit_code = 2


class Where(NamedTuple):
    """value: ms since 1970 of a time; a sequence number. text: as it was said."""

    kind: Literal["earliest", "latest", "checkpoint", "time", "sequence"]
    text: str
    value: int = 0


class From(NamedTuple):
    """What was said, and of it each WHOM ("": everybody) with its WHERE."""

    text: str
    items: tuple[tuple[str, Where], ...]

    @classmethod
    def parse(cls, text: str, now_ms: int | None = None) -> From:
        """Raises FromError."""
        now_ms = int(time.time() * 1000) if now_ms is None else now_ms
        items: dict[str, Where] = {}
        for item in text.split(","):
            whom, _, where = item.strip().rpartition("=")
            if "=" in item and not whom.strip():
                raise FromError(f"--from {text}: nothing is before the `=`; {_TEACH}")
            if whom.strip() in items:
                raise FromError(f"--from {text}: {whom or 'everything'} was said before; {_TEACH}")
            items[whom.strip()] = _where(where.strip(), now_ms)
        return cls(text, tuple(items.items()))

    def of(self, origin: Origin) -> Where | None:
        """Where a partition is to begin; None if nothing was said of it."""
        said = dict(self.items)
        return next((said[whom] for whom in _names(origin) if whom in said), None)

    def check(self, origins: Iterable[Origin]) -> None:
        """That each item means something, and one thing only. Raises FromError."""
        origins = [*origins]
        hubs = sorted({_hub(origin) for origin in origins})
        for whom, where in self.items:
            meant = {origin.source for origin in origins if whom in _names(origin)}
            if not meant:
                raise FromError(
                    f"--from {whom}={where.text}: there is no such hub or partition; hubs: "
                    f"{', '.join(hubs)}; partitions: "
                    f"{', '.join(sorted({o.partition for o in origins}, key=_order))}"
                )
            if whom and len(meant) > 1:
                source = min(meant)
                hub = source.split("/")[1]
                which = source if whom == hub else f"{hub if len(hubs) > 1 else source}/{whom}"
                raise FromError(
                    f"--from {whom}={where.text}: there are several {whom}; say which one: "
                    f"{which}={where.text}"
                )


def _names(origin: Origin) -> tuple[str, ...]:
    """Whatever it is called by, the most exact first."""
    hub, partition = _hub(origin), origin.partition
    return (
        f"{origin.source}/{partition}", f"{hub}/{partition}", partition, origin.source, hub, "",
    )  # fmt: skip


def _hub(origin: Origin) -> str:
    return origin.source.split("/")[1]


def _order(partition: str) -> tuple[int, str]:
    return len(partition), partition


def _where(text: str, now_ms: int) -> Where:
    if text in ("earliest", "latest", "checkpoint"):
        return Where(text, text)  # type: ignore[arg-type]
    if re.fullmatch("[0-9]{1,19}", text) and int(text) < _HIGHEST:
        return Where("sequence", text, int(text))
    if ago := re.fullmatch(r"([0-9]{1,6})([smhd])", text):
        return Where("time", text, now_ms - int(ago[1]) * _UNITS_MS[ago[2]])
    try:
        at = datetime.fromisoformat(re.sub("[zZ]$", "+00:00", text))
    except ValueError:
        raise FromError(f"--from {text}: not understood: {_TEACH}") from None
    if at.tzinfo is None:
        whole = text if len(text) > 10 else f"{text}T00:00:00"
        raise FromError(f"--from {text}: which time zone? For UTC say {whole}Z")
    value = int(at.timestamp() * 1000)
    if value > now_ms:
        raise FromError(f"--from {text}: it is still to come; `latest` begins with what comes next")
    return Where("time", text, value)


def first_since(access: EventHubsAccess, partition: str, kept: range, since_ms: int) -> int:
    """The sequence number of the first event that was enqueued at this time or later, by the
    hub's clock; `kept.stop` if there is none. Takes one to three seconds. Raises HubError.
    """
    if not kept:
        return kept.stop
    since = datetime.fromtimestamp(since_ms / 1000, tz=timezone.utc)
    found: list[int] = []
    failed: list[Exception] = []

    def ask(client: Any) -> None:
        if client.get_partition_properties(partition)["last_enqueued_time_utc"] < since:
            found.append(kept.stop)
            return

        def take(_: Any, events: list[Any]) -> None:
            found.extend(int(event.sequence_number) for event in events[:1])
            client.close()  # which ends `receive_batch`

        def fail(_: Any, error: Exception) -> None:
            failed.append(error)
            client.close()

        client.receive_batch(
            take, partition_id=partition, starting_position=since, on_error=fail, prefetch=1,
            starting_position_inclusive=True, max_batch_size=1, max_wait_time=_SILENCE_SECONDS,
        )  # fmt: skip
        if failed:
            raise failed[0]

    _ask(access, ask)
    if not found:
        raise HubError(
            f"partition {partition} sent nothing of what came since {since:%Y-%m-%d %H:%M:%S} UTC"
        )
    return max(found[0], kept.start)
