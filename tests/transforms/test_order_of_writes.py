"""What a position stands on is whole, and on disk, before anything says that it may move."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

from schemas.receipt import Receipt
from tests import stubs
from tests.stubs import StubSettings, StubSink, alert, alerts
from tests.transforms.test_write import sink, store
from transforms.dead_letters import read_dead_letters
from transforms.delivery.engines import close_all
from transforms.read.reader import close_session
from transforms.sinks.base import Accepted, Verdict
from transforms.state_store import StateStore
from transforms.write import _Write

__all__ = ["sink", "store"]  # fixtures


def test_a_dead_letter_is_written_before_the_receipt_that_counts_it(
    sink: StubSink, store: StateStore
) -> None:
    do_fn = _Write(sink, sink.name, store)
    do_fn.setup()
    do_fn.start_bundle()
    do_fn.process(alerts(0, 0, made=[alert(title="no")]))
    told = next(do_fn.finish_bundle()).value
    assert told.outcomes.dead == 1
    assert len([*read_dead_letters(store)]) == 1


def test_a_batch_of_which_a_part_is_on_its_way_has_no_receipt_yet(store: StateStore) -> None:
    sink = StubSink("in parts", StubSettings(patience=5))  # ten records a request
    gate = threading.Event()

    def answer(payloads: Sequence[bytes]) -> Verdict:
        if len(payloads) < 10:
            gate.wait(5)
        return Accepted()

    stubs.ANSWERS[sink.name] = answer
    do_fn = _Write(sink, sink.name, store, carry=True)
    do_fn.setup()

    def told() -> list[Receipt]:
        return [windowed.value for windowed in do_fn.finish_bundle()]

    try:
        do_fn.start_bundle()
        now_ms = int(time.time() * 1000)
        do_fn.process(alerts(0, 14, made=[alert(n, enqueued_ms=now_ms) for n in range(15)]))
        assert told() == []
        assert do_fn._engine.status().delivered == 10
        gate.set()
        do_fn.start_bundle()
        (receipt,) = told()
        assert receipt.outcomes.delivered == 15
    finally:
        gate.set()
        close_all(sink.name)
        close_session(sink.name)
