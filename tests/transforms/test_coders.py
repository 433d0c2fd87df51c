"""What crosses a stage comes out as it went in, and costs nothing to estimate."""

from __future__ import annotations

import pickle
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.coders import registry
from hypothesis import given
from hypothesis import strategies as st

from schemas.alert import Alert, Subscription
from schemas.batch import AlertBatch, Batch, Dropped, Origin, Record
from schemas.receipt import Outcome, Outcomes, Receipt, Run
from tests.stubs import alert, alerts, events
from transforms import coders

coders.register()

numbers = st.integers(0, 2**62)
runs = st.lists(st.builds(Run, numbers, numbers, st.integers(0, 2**31)), max_size=3)
origins = st.builds(Origin, st.text(), st.text())
batches = st.builds(
    Batch,
    origins,
    numbers,
    numbers,
    st.none() | st.text(),
    st.lists(st.builds(Record, numbers, numbers, st.integers(-(2**63), 2**63 - 1), st.binary())),
    st.none() | runs,
)
made = st.builds(
    Alert,
    kind=st.text(),
    key=st.binary(min_size=16, max_size=16),
    entity=st.text(),
    severity=st.sampled_from(["high", "unknown"]),
    event_ms=st.integers(-(10**15), 10**15),
    resource_ids=st.lists(st.text(), max_size=2).map(tuple),
    raw=st.binary(),
    subscription=st.none()
    | st.builds(Subscription, st.text(), tags=st.dictionaries(st.text(), st.text(), max_size=2)),
)
alert_batches = st.builds(
    AlertBatch,
    origins,
    numbers,
    numbers,
    st.none() | st.text(),
    numbers,
    st.lists(made, max_size=3),
    st.lists(st.builds(Dropped, numbers, numbers, st.sampled_from(Outcome)), max_size=3),
)
receipts = st.builds(
    Receipt,
    st.text(),
    st.text(),
    st.text(),
    numbers,
    numbers,
    numbers,
    st.builds(Outcomes, *[numbers] * 6),
    runs,
    numbers,
    st.none() | st.text(),
    runs,
    runs,
)


@given(batches | alert_batches | receipts)
def test_what_goes_in_comes_out(value: Any) -> None:
    coder = registry.get_coder(type(value))
    assert coder.decode(coder.encode(value)) == value


@pytest.mark.parametrize("struct", [Batch, AlertBatch, Receipt])
def test_beam_finds_the_coder_by_the_type_and_can_ship_it(struct: type) -> None:
    coder = registry.get_coder(struct)
    assert coder.struct is struct
    assert coder.to_type_hint() is struct
    shipped = pickle.loads(pickle.dumps(coder))
    assert shipped == coder
    assert hash(shipped) == hash(coder)
    assert type(beam.coders.Coder.from_runner_api(coder.to_runner_api(None), None)) is type(coder)


def test_coders_of_different_types_differ() -> None:
    assert registry.get_coder(Batch) != registry.get_coder(AlertBatch)


def test_keyed_for_a_stateful_step_both_parts_have_their_coders() -> None:
    """The key's must be deterministic; the value must not fall back to pickles."""
    pipeline = beam.Pipeline()
    keyed = pipeline | beam.Create([0]) | beam.Map(lambda n: (n, alerts(n, n)))
    keyed = keyed | beam.Map(lambda pair: pair).with_output_types(tuple[int, AlertBatch])
    coder = registry.get_coder(keyed.element_type)
    assert coder.key_coder().is_deterministic()
    assert isinstance(coder.value_coder(), coders.AlertBatchCoder)


class Unencodable:
    """Stands for records that must not be looked at."""


@pytest.mark.parametrize("struct", [Batch, AlertBatch])
def test_a_size_is_estimated_without_encoding(struct: type) -> None:
    coder = registry.get_coder(struct)
    filled = [Unencodable()] * 200
    value = (
        Batch(Origin("s", "0"), 0, 199, None, filled)  # type: ignore[arg-type]
        if struct is Batch
        else AlertBatch(Origin("s", "0"), 0, 199, None, 200, filled, [])  # type: ignore[arg-type]
    )
    assert 100_000 < coder.estimate_size(value) < 10_000_000
    assert coder.estimate_size(alerts(0, 0) if struct is AlertBatch else events(0, b"{}")) < 10_000


def test_the_bytes_of_an_alert_are_kept_exactly() -> None:
    batch = alerts(0, 0, made=[alert(raw=b'{"a":\xff\x00}')])
    coder = registry.get_coder(AlertBatch)
    assert coder.decode(coder.encode(batch)).alerts[0].raw == b'{"a":\xff\x00}'
