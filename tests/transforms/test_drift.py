from __future__ import annotations

import threading
from pathlib import Path

import msgspec
import pytest

from schemas.alert import Alert
from schemas.drift import LEARNT, Change
from schemas.kinds import understand
from tests import shapes
from tests.examples import EXAMPLES, encoded
from tests.fixtures import defender_alert
from transforms.drift import ONE_IN, Watch, close, drift_of, shipped, watch
from transforms.state_store import StateStore

RISK = Change("defender_alert", "new", "Risk", "string")


@pytest.fixture
def store(tmp_path: Path) -> StateStore:
    return StateStore(str(tmp_path))


def alerts(count: int, kind: str = "defender_alert", **more: object) -> list[Alert]:
    alert = understand(encoded(defender_alert(**more)))
    return [msgspec.structs.replace(alert, kind=kind, sequence=n) for n in range(count)]


def test_what_is_shipped_knows_every_kind() -> None:
    """`python -m tests.shapes` makes it anew."""
    known = shipped()
    assert {name.partition(":")[0] for name in known} >= set(EXAMPLES)
    for example in EXAMPLES.values():
        looking = Watch("run", StateStore("/nowhere"))
        alert = understand(encoded(example.record()))
        looking.look([alert])
        assert not looking._changes


def test_a_new_field_is_seen_and_counted_in_what_is_looked_at(store: StateStore) -> None:
    looking = Watch("run", store)
    looking.look(alerts(320, Risk="high"))
    looking.save()
    (seen,) = drift_of(store)
    assert seen.change == RISK
    assert LEARNT <= seen.records <= LEARNT + 320 // ONE_IN + 1
    assert 0 < seen.first_ms <= seen.last_ms


def test_a_change_stays_one_until_the_run_ends_and_is_known_to_the_next(store: StateStore) -> None:
    for _ in range(3):
        watch("one", store).look(alerts(200, Risk="high"))
    assert watch("one", store)._changes[RISK].records > 2 * LEARNT // 2
    close("one", store)
    close("one", store)  # there is nothing left to close
    watch("two", store).look(alerts(200, Risk="high"))
    close("two", store)
    assert [seen.change for seen in drift_of(store)] == [RISK]


def test_a_kind_that_nobody_knows_is_learnt_first(store: StateStore) -> None:
    one = Watch("one", store)
    one.look(alerts(500, kind="own_kind"))
    one.save()
    two = Watch("two", store)
    two.look(alerts(10, kind="own_kind", Risk="x"))
    two.save()
    assert [str(seen.change) for seen in drift_of(store)] == ["own_kind: Risk is new (string)"]


def test_many_runs_are_kept_in_few_files(store: StateStore) -> None:
    for number in range(40):
        looking = Watch(f"run-{number}", store)
        looking.look(alerts(1, **{f"Field{number}": 1}))
        looking.save()
    assert len(list(store.list("shapes"))) <= 18
    assert len(drift_of(store)) == 40
    assert Watch("x", store).known["defender_alert"].fields["Field1"].records == 1


def test_what_another_version_left_is_passed_over(store: StateStore) -> None:
    store.put("shapes/other.json", b'{"shapes":7}')
    assert Watch("run", store).known.keys() == shipped().keys()
    assert drift_of(store) == []


def test_what_cannot_be_looked_at_costs_nothing(
    store: StateStore, caplog: pytest.LogCaptureFixture
) -> None:
    looking = Watch("run", store)
    looking.look([Alert(kind="own_kind", key=bytes(16), entity="e", raw=b"no JSON"), *alerts(1)])
    assert "own_kind" in caplog.text
    assert "no JSON" not in caplog.text.partition("Traceback")[0]
    assert looking._seen["defender_alert"].records == 1


def test_threads_share_a_watch(store: StateStore) -> None:
    looking = Watch("run", store)
    threads = [
        threading.Thread(target=lambda: looking.look(alerts(64, Risk="x"))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert looking._seen["defender_alert"].records == looking._changes[RISK].records


def test_shapes_are_made_from_every_example() -> None:
    assert {name.partition(":")[0] for name in shapes.given()} >= set(EXAMPLES)
