"""What is set aside for one sink is not thrown away because of another."""

from __future__ import annotations

from schemas.runs import Run
from tests.transforms.test_owed import SOURCE, batch, owe, pay, settle, store
from transforms.owed import drop_aside, put_aside
from transforms.state_store import StateStore

__all__ = ["store"]  # a fixture


def test_it_stays_while_one_is_owed_of_it_although_all_have_settled_it(store: StateStore) -> None:
    path = put_aside(store, SOURCE, "3", 0, 9, b"payload")
    owe(store, batch(9, 12))
    settle(store, 12, sink="splunk")
    drop_aside(store, ("siem", "splunk"), SOURCE, "3")
    assert store.get(path) == b"payload"
    pay(store, [Run(9, 9, 0)])
    drop_aside(store, ("siem", "splunk"), SOURCE, "3")
    assert store.get(path) is None
