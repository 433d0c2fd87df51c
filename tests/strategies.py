"""What hypothesis draws from: text that attacks, and alerts made of it."""

from __future__ import annotations

import copy
from typing import Any

import msgspec
from hypothesis import strategies as st

from schemas.alert import SEVERITIES, STATUSES, Alert, Subscription
from schemas.kinds import understand
from tests.examples import EXAMPLES, encoded
from tests.fixtures import hostile

texts = st.one_of(
    st.sampled_from(hostile()),
    st.text(st.characters(exclude_categories=("Cs",)), max_size=40),
    st.integers(1, 400).map(lambda times: "long é\u2028|=\\ " * times),
)
"""Any text that JSON can hold."""

names = st.tuples(texts, texts)
times = st.one_of(st.just(0), st.integers(1, 4_102_444_800_000))  # to the year 2100
subscriptions = st.builds(
    Subscription,
    id=texts,
    name=texts,
    owner=texts,
    environment=texts,
    management_group=texts,
    tags=st.dictionaries(texts, texts, max_size=2),
    known=st.booleans(),
)


def alerts() -> st.SearchStrategy[Alert]:
    """Any alert that any record of any kind could be understood as, and many that none could."""
    changes: dict[str, st.SearchStrategy[Any]] = {
        "entity": texts,
        "version": texts,
        "title": texts,
        "description": texts,
        "severity": st.sampled_from(SEVERITIES),
        "severity_original": texts,
        "status": st.sampled_from(STATUSES),
        "status_original": texts,
        "event_ms": times,
        "start_ms": times,
        "end_ms": times,
        "subscription_id": texts,
        "resource_ids": st.lists(texts, max_size=3).map(tuple),
        "resource": texts,
        "tactics": st.lists(texts, max_size=3).map(tuple),
        "techniques": st.lists(texts, max_size=3).map(tuple),
        "vendor": texts,
        "product": texts,
        "alert_type": texts,
        "link": texts,
        "enqueued_ms": times,
        "subscription": st.one_of(st.none(), subscriptions),
    }
    return st.builds(
        lambda record, changed: msgspec.structs.replace(understand(record), **changed),
        records(),
        st.fixed_dictionaries({}, optional=changes),
    )


@st.composite
def records(draw: st.DrawFn) -> bytes:
    """An example of any kind, with hostile text in some places, at any depth."""
    example = draw(st.sampled_from(sorted(EXAMPLES)))
    record = copy.deepcopy(EXAMPLES[example].record())  # its parts may be shared
    for _ in range(draw(st.integers(0, 3))):
        _spoil(draw, record)
    return encoded(record)


def _spoil(draw: st.DrawFn, place: Any) -> None:
    keys: list[Any] = list(place) if isinstance(place, dict) else list(range(len(place)))
    if not keys:
        return
    key = draw(st.sampled_from(keys))
    if isinstance(place[key], dict | list) and draw(st.booleans()):
        _spoil(draw, place[key])
    else:
        place[key] = draw(
            st.one_of(texts, texts, st.none(), st.integers(), st.just([]), st.just({}))
        )
