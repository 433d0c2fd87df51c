"""What a replay would read, where nothing is sent: for `--dry-run` and `--compare`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from pipelines.replay.asked import Asked, with_sinks
from pipelines.settings import Settings
from schemas.alert import Alert
from schemas.batch import AlertBatch, Batch
from transforms.enrich import enrich_batch, enrich_batch_at, load_subscriptions
from transforms.known import Known, skip_known
from transforms.read.files.base import Unread
from transforms.read.filesystems import find
from transforms.read.history import Progress, batches
from transforms.read.listing import Between, parts_of
from transforms.read.plan import origin
from transforms.replayed import Taken, taken
from transforms.state_store import StateStore
from transforms.subscription_history import History

__all__ = ["Rehearsal"]


class Rehearsal:
    """A replay that sends nothing, and writes nothing down: what `pipelines.what_if` asks for.

    unread: what could not be read, as far as reading is.
    """

    def __init__(self, settings: Settings, asked: Asked, say: Callable[[str], None]) -> None:
        chosen = with_sinks(settings, asked.sinks, 0.0)
        store = StateStore(str(settings.state))
        self.progress = Progress()
        self.unread: list[Unread] = []
        self.bytes = 0
        self._asked = asked
        self._say = say
        self._taken = Taken("", asked.start_ms, asked.stop_ms, asked.by)
        history = History.load(store)
        given = settings.subscriptions
        known = load_subscriptions(given.file) if given else {}
        self.enrich: Callable[[AlertBatch], AlertBatch] = (
            partial(enrich_batch_at, history=history)
            if history
            else partial(enrich_batch, subscriptions=known)
        )
        wants = {entry.name: (entry.where, asked.where) for entry in chosen.sinks}
        horizon_ms = settings.deduplicate.horizon_ms
        has = Known(store, wants, horizon_ms, history.at if history else known)
        self.skip = None if asked.again else partial(skip_known, known=has)

    def taken(self, alert: Alert) -> bool:
        """Whether the replay would be about this alert."""
        return taken(alert, self._taken)

    def batches(self) -> Iterator[Batch]:
        """All records of the files, in order."""
        about = self._asked
        found = find(about.paths, lambda url, why: self.unread.append(Unread(url, 0, -1, why)))
        listed = parts_of(found, Between(about.start_ms, about.stop_ms, about.by), about.template)
        for line in listed.says:
            self._say(line)
        self.bytes = listed.bytes
        return batches(
            enumerate(listed.parts), origin("", 0),
            lambda part, unread: self.unread.extend(unread), self.progress,
        )  # fmt: skip
