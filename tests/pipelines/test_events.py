"""Made-up events: what the demo, tests and benchmarks rest on."""

from __future__ import annotations

import datetime
import json
import random
from collections import Counter

import pytest

from pipelines.local.events import (
    SUBSCRIPTIONS,
    defender_alert,
    ot_alert,
    process,
    recommendation,
    security_alert,
    security_incident,
    sign_in,
    varied,
)
from pipelines.local.files import MOST_BYTES
from schemas.batch import Batch, Origin, Record
from schemas.kinds import understand
from transforms.parse import parse_batch

NOW = datetime.datetime(2026, 3, 4, 5, 6, 7, tzinfo=datetime.timezone.utc)


def test_the_same_seed_makes_the_same_events() -> None:
    assert [*varied(500, now=NOW)] == [*varied(500, now=NOW)]
    assert [*varied(500, now=NOW)] != [*varied(500, seed=2, now=NOW)]


def test_there_is_something_of_everything() -> None:
    whats = Counter(made.what for made in varied(2_000))
    assert set(whats) == {
        "Defender alert", "SecurityAlert", "SecurityIncident", "repeat", "status update",
        "malformed", "unknown kind", "records, one of them bad", "hostile text", "secret in it",
        "needs repair", "recommendation", "sign-in", "process", "OT alert",
    }  # fmt: skip
    assert whats["Defender alert"] > 1_000


def test_none_is_too_large_for_a_hub() -> None:
    assert max(len(made.body) for made in varied(2_000)) < MOST_BYTES


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (defender_alert, "defender_alert"),
        (security_alert, "security_alert"),
        (security_incident, "security_incident"),
    ],
)
def test_they_are_understood_as_what_they_are(make, kind: str) -> None:  # type: ignore[no-untyped-def]
    alert = understand(json.dumps(make(random.Random(1), NOW)).encode())
    assert alert.kind == kind
    assert alert.severity != "unknown" and alert.status == "new"
    assert alert.subscription_id
    assert alert.event_ms


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (ot_alert, "iot_alert"),
        (recommendation, "assessment"),
        (sign_in, "entra_log"),
        (process, "xdr"),
    ],
)
def test_events_of_other_kinds_too(make, kind: str) -> None:  # type: ignore[no-untyped-def]
    alert = understand(json.dumps(make(random.Random(1), NOW)).encode())
    assert alert.kind == kind
    assert alert.title and alert.event_ms
    assert len(alert.entity) != 32  # not only a hash of it: it has an id


def test_alerts_are_of_subscriptions_that_are_known_and_of_one_that_is_not() -> None:
    rng = random.Random(1)
    found = {
        understand(json.dumps(defender_alert(rng, NOW)).encode()).subscription_id
        for _ in range(200)
    }
    assert found > set(SUBSCRIPTIONS)
    assert len(found - set(SUBSCRIPTIONS)) == 1


def test_a_change_replaces_a_field() -> None:
    assert defender_alert(random.Random(1), NOW, Severity="Low")["Severity"] == "Low"


def test_what_they_are_called_is_what_the_pipeline_makes_of_them() -> None:
    seen: set[str] = set()
    for made in varied(1_000, now=NOW):
        records = [Record(0, 0, 1, made.body)]
        parsed, dead = parse_batch(Batch(Origin("s", "0"), 0, 0, None, records))
        keys = {alert.event_id for alert in parsed.alerts}
        if made.what == "malformed":
            assert dead and not keys
        elif made.what == "records, one of them bad":
            assert (len(keys), len(dead)) == (2, 1)
        else:
            assert not dead
            if made.what == "repeat":
                assert keys <= seen
            elif made.what == "unknown kind":
                assert parsed.alerts[0].kind == "unknown"
            elif made.what == "secret in it":
                assert parsed.alerts[0].masked == 1
            elif made.what == "needs repair":
                assert [alert.repairs for alert in parsed.alerts] == [
                    *[("byte_order_mark", "concatenated_objects")] * 2
                ]
        seen |= keys


def test_a_status_update_is_no_repeat_of_what_it_updates() -> None:
    keys: dict[str, set[str]] = {}
    for made in varied(1_000, now=NOW):
        if made.id and made.what in ("Defender alert", "status update"):
            keys.setdefault(made.id, set()).add(f"{made.what} {understand(made.body).event_id}")
    updated = [found for found in keys.values() if any("update" in key for key in found)]
    assert updated
    for found in updated:
        alert = next(key.split()[-1] for key in found if "Defender" in key)
        assert all(alert not in key for key in found if "update" in key)
