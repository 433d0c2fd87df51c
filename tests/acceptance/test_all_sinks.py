"""Every sink at once, from one settings file, on a load of mixed kinds with updates, and an outage
of each at its own time: every system has exactly what it is due, and every account balances.

The systems are the contract suite's doubles: a sink joins by having one. What a system takes a
second by its own documentation, or one record a request, or its double in Python at all, is met
as a user would meet it: by a `where`.

`ALERTBEAM_SOAK` (`make soak`) plays 1,000 alerts a second for two minutes: with 45 sinks that is
more than two cores carry, so that it takes ten minutes more until all is through; without it, it is
half a minute at a rate that they nearly do.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import gc
import json
import os
import random
import re
import resource
import shutil
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines.local import events
from pipelines.local.receivers.base import LOOPBACK, Receiver
from pipelines.report import SinkAccount, accounts_of
from schemas.alert import Alert
from schemas.kinds import understand
from schemas.receipt import Outcomes
from tests.site import HUB, Site, stop, wait_for
from tests.transforms.sinks.doubles import DOUBLES, SECRET, Double
from transforms.sinks.base import Sink, sinks

FULL = bool(os.environ.get("ALERTBEAM_SOAK"))
RATE = 1_000 if FULL else 200  # alerts a second
SECONDS = 120 if FULL else 30
OUTAGE = 6.0 if FULL else 3.0
PAID = 1_800 if FULL else 240  # seconds until everything owed must be paid
PATIENT = {"patience": 1.0, "timeout": 5.0}
AT_ONCE = 20
UPDATED = 4 * AT_ONCE  # so many alerts later some of them change

# Records a second that a system takes; of others it is what the sink's limits say. librdkafka's
# mock cluster forgets what is older than 5 MB: what an outage leaves owed has to fit into it. Of
# ServiceNow's events the sink remembers which of 50,000 alerts came last, as its page says.
TAKES = {"kafka": 200.0, "fabric_eventstream": 200.0, "servicenow_event": 50_000 / SECONDS}
ONE_A_REQUEST = 40.0

_PLACE = "@@@@@@@@"


@dataclasses.dataclass(frozen=True)
class Shape:
    """An event but for its number; of what changes, also what becomes of it."""

    parts: list[bytes]
    later: list[bytes] | None = None

    def numbered(self, number: int, *, later: bool = False) -> bytes:
        parts = self.later if later and self.later else self.parts
        return (b"%08x" % number).join(parts)


def _shapes() -> list[Shape]:
    """A hundred: mostly alerts, and some of everything else that hubs carry."""
    rng, now = random.Random(7), datetime.datetime.now(datetime.timezone.utc)
    then = now + datetime.timedelta(minutes=1)
    time_then = f"{then:%Y-%m-%dT%H:%M:%S}.0000000Z"
    resolved = {"Status": "Resolved", "ProcessingEndTime": time_then}
    closed = {"Status": "Closed", "LastModifiedTime": time_then, "TimeGenerated": time_then}
    plan: list[tuple[int, Any, Callable[[Any], str], dict[str, str]]] = [
        (62, events.defender_alert, lambda it: it["SystemAlertId"], resolved),
        (15, events.security_alert, lambda it: it["SystemAlertId"], resolved),
        (8, events.security_incident, lambda it: it["IncidentName"], closed),
        (1, events.ot_alert, lambda it: it["SystemAlertId"], {}),
        (5, events.recommendation, lambda it: it["name"], {}),
        (5, events.sign_in, lambda it: it["properties"]["id"], {}),
        (4, events.process, lambda it: it["properties"]["DeviceId"], {}),
    ]
    made = []
    for count, make, identity, changes in plan:
        for _ in range(count):
            record = make(rng, now)
            made.append(
                Shape(
                    _parts(record, identity(record)),
                    _parts(record | changes, identity(record)) if changes else None,
                )
            )
    rng.shuffle(made)
    return made


def _parts(record: dict[str, Any], identity: str) -> list[bytes]:
    body = json.dumps(record, separators=(",", ":"))
    return body.replace(identity, identity[:-8] + _PLACE).encode().split(_PLACE.encode())


SHAPES = _shapes()


class Load(threading.Thread):
    """`RATE` new alerts a second, and what becomes of every twentieth a while later."""

    def __init__(self, site: Site) -> None:
        super().__init__(daemon=True)
        self.site = site
        self.alerts: dict[str, Alert] = {}  # by id, in the order of the hub; without their records
        self.began = 0.0  # monotonic

    def at(self, second: float) -> None:
        """Wait until so long after the beginning."""
        time.sleep(max(0.0, self.began + second - time.monotonic()))

    def run(self) -> None:
        self.began = time.monotonic()
        for first in range(0, RATE * SECONDS, AT_ONCE):
            self.publish(first)
            self.at((first + AT_ONCE) / RATE)

    def publish(self, first: int) -> None:
        bodies = [SHAPES[n % len(SHAPES)].numbered(n) for n in range(first, first + AT_ONCE)]
        changed = first - UPDATED + first // AT_ONCE % AT_ONCE
        if changed >= 0 and SHAPES[changed % len(SHAPES)].later:
            bodies.append(SHAPES[changed % len(SHAPES)].numbered(changed, later=True))
        for body in bodies:
            alert = understand(body)
            alert.raw = b""
            self.alerts[alert.event_id] = alert
        self.site.hub.publish(HUB, bodies)


@dataclasses.dataclass(frozen=True)
class Some:
    """Some of the alerts: as settings say it, and in Python."""

    where: dict[str, Any]
    holds: Callable[[Alert], bool]

    @property
    def share(self) -> float:
        made = [understand(shape.numbered(0)) for shape in SHAPES]
        return sum(map(self.holds, made)) / len(made)


EVERYTHING = Some({}, lambda it: True)
FEWER = [  # less and less
    EVERYTHING,
    Some(
        {"severity": {"at_least": "high"}},
        lambda it: it.severity in ("high", "critical"),
    ),
    Some(
        {"kind": "security_alert"},
        lambda it: it.kind == "security_alert",
    ),
    Some(
        {"kind": "security_incident", "severity": {"at_least": "medium"}},
        lambda it: it.kind == "security_incident" and it.severity in ("medium", "high"),
    ),
    Some({"kind": "iot_alert"}, lambda it: it.kind == "iot_alert"),
]


@dataclasses.dataclass
class Player:
    """A sink, its system, and which alerts it is due."""

    name: str
    double: Double
    settings: dict[str, Any]
    some: Some
    kept: socket.socket | None = None

    @classmethod
    def of(cls, name: str, folder: Path) -> Player:
        double = DOUBLES[name](folder / name)
        receiver = getattr(double, "receiver", None)
        if isinstance(receiver, Receiver):  # there is much to keep
            receiver.refuse()
            receiver._folder = folder / "received" / name
            receiver.accept()
        settings = {**PATIENT, **double.settings()}
        if "linger" in settings:
            settings["linger"] = min(settings["linger"], 2.0)  # there is no more time here
        if "connection_string" in settings:
            settings["connection_string"] = _connection_string(double)
        kind = sinks()[double.kind]  # as users have it: some doubles' own know no rate
        most = cls.takes(kind(name, kind.Settings(**settings)))
        some = next((it for it in FEWER if it.share * RATE <= most), FEWER[-1])
        return cls(name, double, settings, some)

    @staticmethod
    def takes(sink: Sink[Any]) -> float:
        """Records a second."""
        limits = sink.limits
        found = [TAKES.get(sink.name, float("inf")), limits.rate.records or float("inf")]
        if limits.rate.requests:
            found.append(limits.rate.requests * min(limits.max_records, 100))
        if limits.max_records <= 10:  # and those, one after the other
            found.append(ONE_A_REQUEST)
        return min(found)

    @property
    def entry(self) -> dict[str, Any]:
        """What the settings file says of it."""
        entry = {"name": self.name, self.double.kind: self.settings}
        return {**entry, "where": self.some.where} if self.some.where else entry

    @property
    def _folder(self) -> Path | None:
        """Where its sink writes to: what the double plays in its own process, that one lacks."""
        folder = self.settings.get("folder")
        return Path(folder) if folder and "://" not in folder else None

    def down(self) -> None:
        """Of a folder: be moved away, which an open file survives. A port is kept: on a busy
        machine it would soon be another's."""
        if folder := self._folder:
            folder.rename(folder.with_suffix(".away"))
            folder.write_text("")
            return
        self.double.down()
        receiver = getattr(self.double, "receiver", None)
        if isinstance(receiver, Receiver):
            self.kept = socket.socket()
            self.kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self.kept.bind((LOOPBACK, receiver.port))

    def up(self) -> None:
        if folder := self._folder:
            folder.unlink()
            folder.with_suffix(".away").rename(folder)
            return
        self.double.up()
        if self.kept is not None:
            self.kept.close()

    def read(self) -> None:
        self.double.ids()  # which remembers

    def due(self, alerts: dict[str, Alert]) -> list[str]:
        """The ids of what is routed to it, in order."""
        return [identity for identity, alert in alerts.items() if self.some.holds(alert)]

    def shown(self, alerts: dict[str, Alert]) -> set[str]:
        """Those that its system must show in the end."""
        due = self.due(alerts)
        if not self.double.updates:
            return {*due}
        last = {(alerts[identity].kind, alerts[identity].entity): identity for identity in due}
        return {*last.values()}


def _connection_string(double: Double) -> str:
    """A reference to it. Doubles of hubs put theirs together when their own sinks ask for it."""
    known = {*os.environ}
    double.sink().check(5.0)
    (name,) = {*os.environ} - known
    return f"env:{name}"


def forgetful(players: list[Player]) -> list[Player]:
    """Those whose systems must be read as they go."""
    return [player for player in players if player.name in ("kafka", "fabric_eventstream")]


class Outages(threading.Thread):
    """Takes every system down, each at its own time, and up again."""

    def __init__(self, players: list[Player], load: Load) -> None:
        super().__init__(daemon=True)
        self.load = load
        self.failed: list[str] = []
        first, last = 0.1 * SECONDS, 0.9 * SECONDS - OUTAGE
        self.steps: list[tuple[float, str, Callable[[], None]]] = []
        for number, player in enumerate(players):
            at = first + (last - first) * number / len(players)
            self.steps += [(at, player.name, player.down), (at + OUTAGE, player.name, player.up)]
        for player in forgetful(players):
            self.steps += [(at, player.name, player.read) for at in range(SECONDS)]

    def run(self) -> None:
        for second, name, step in sorted(self.steps, key=lambda it: it[0]):
            self.load.at(second)
            try:
                step()
            except Exception as error:  # the others must come up again
                self.failed.append(f"{name}: {error!r}")


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """Hub and doubles live in this process, with millions of objects: looking through them all
    would stop every one of them for seconds."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _cpu(whose: int) -> float:
    used = resource.getrusage(whose)
    return used.ru_utime + used.ru_stime


@pytest.mark.alone
@pytest.mark.timeout(SECONDS + PAID + 300)
def test_all_sinks_at_once_have_exactly_what_is_due_to_them_through_an_outage_each(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SECRET", SECRET)
    with contextlib.ExitStack() as cleared:
        cleared.enter_context(_no_collection())
        players = []
        for name in sorted(DOUBLES):
            players.append(Player.of(name, tmp_path))
            cleared.callback(players[-1].double.stop)
        site = cleared.enter_context(Site(tmp_path))
        site.write(sinks=[it.entry for it in players], more="deduplicate: {horizon: 15s}\n")
        load = Load(site)
        outages = Outages(players, load)
        names = [it.name for it in players]

        def accounts() -> dict[str, SinkAccount]:
            return {it.name: it for it in accounts_of(site.store, names)}

        cpu = _cpu(resource.RUSAGE_SELF), _cpu(resource.RUSAGE_CHILDREN)
        running = site.run()
        load.publish(1 << 24)  # one lot: the run is up when it is through
        try:
            wait_for(
                lambda: (
                    running.poll() is not None
                    or all(it.records == len(load.alerts) for it in accounts().values())
                ),
                120,
                "the run delivers",
            )
        except AssertionError:
            print(stop(running, timeout=90))
            raise
        assert running.poll() is None, running.communicate()[0]
        load.start()
        time.sleep(0.1)
        outages.start()
        load.join()
        outages.join()
        assert not outages.failed
        ended, found = time.monotonic(), accounts()
        behind = {name: len(load.alerts) - it.records for name, it in found.items()}
        owed = {name: it.outcomes.owed for name, it in found.items()}

        def paid() -> bool:
            time.sleep(0.5)  # it takes a look at much
            assert running.poll() is None, "the run ended"
            for it in forgetful(players):
                it.read()
            return all(
                it.records == len(load.alerts) and not it.outcomes.owed
                for it in accounts().values()
            )

        try:
            wait_for(paid, PAID, "everything owed is paid")
        finally:
            took = time.monotonic() - ended
            output = stop(running, timeout=90)
            print(f"\n{len(load.alerts):,} alerts, {RATE}/s; paid {took:.1f} s after the load")
            own = _cpu(resource.RUSAGE_SELF) - cpu[0]
            run = _cpu(resource.RUSAGE_CHILDREN) - cpu[1]
            print(f"seconds of CPU: {run:.0f} of the run, {own:.0f} of the hub and the systems")
            print("\n".join(line for line in output.splitlines() if "WARNING" in line))
            found = accounts()
            arrived = {it.name: Counter(it.double.ids()) for it in players}
            for it in players:
                twice = arrived[it.name].total() - len(arrived[it.name])
                print(
                    f"{it.name:28} {json.dumps(it.some.where):60} "
                    f"due {len(it.due(load.alerts)):7,}  has {len(arrived[it.name]):7,}  "
                    f"twice {twice:5,}  at the end of the load behind {behind[it.name]:7,}, "
                    f"owed {owed[it.name]:7,}; owed now {found[it.name].outcomes.owed:,}"
                )
        assert running.returncode == 0, output
        opened = {*re.findall(r"sink (\S+): circuit opened", output)}
        assert len(opened) > 0.9 * len(players), "the outages passed unnoticed"

    wrong = {
        it.name: why
        for it in players
        if (why := _wrong(it, arrived[it.name], found[it.name], load.alerts))
    }
    assert not wrong
    shutil.rmtree(tmp_path / "received")  # gigabytes


def _wrong(it: Player, has: Counter[str], account: SinkAccount, alerts: dict[str, Alert]) -> str:
    """What a system has that it must not, lacks, or has twice; what its account has wrong."""
    shown, due = it.shown(alerts), len(it.due(alerts))
    if has.keys() != shown:
        return f"it lacks {len(shown - has.keys())}, and has {len(has.keys() - shown)} others"
    if has.total() != len(has) and not {"outage", "nothing lost"} & it.double.may_repeat:
        return f"it has {has.total() - len(has)} twice"
    outcomes = Outcomes(delivered=due, not_routed=len(alerts) - due)
    if account.outcomes != outcomes or account.records != len(alerts) or not account.holds:
        return f"its account: {account}"
    return ""
