from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.batch import NOBODY, AlertBatch, Batch, Dropped, Origin, Record
from schemas.dead_letter import DeadLetter
from schemas.kinds import KINDS
from schemas.receipt import Outcome
from tests.fixtures import defender_alert, encoded, security_alert, security_incident
from transforms.parse import parse_batch

ORIGIN = Origin("ns.servicebus.windows.net/hub/$Default", "3")


def batch(*bodies: bytes, only: str | None = None) -> Batch:
    """The bodies as events 100, 101, … enqueued at 5,000 + their number."""
    records = [Record(100 + i, 0, 5_000 + i, body) for i, body in enumerate(bodies)]
    return Batch(ORIGIN, 100, 99 + len(bodies), only, records)


def addresses(parsed: AlertBatch) -> list[tuple[int, int]]:
    return sorted((it.sequence, it.index) for it in (*parsed.alerts, *parsed.dropped))


def test_each_event_is_understood() -> None:
    bodies = [encoded(make()) for make in (defender_alert, security_alert, security_incident)]
    parsed, dead = parse_batch(batch(*bodies, b'{"other":1}'))
    assert [alert.kind for alert in parsed.alerts] == [
        *("defender_alert", "security_alert", "security_incident", "unknown")
    ]
    assert [alert.raw for alert in parsed.alerts] == [*bodies, b'{"other":1}']
    assert addresses(parsed) == [(100, 0), (101, 0), (102, 0), (103, 0)]
    assert [alert.enqueued_ms for alert in parsed.alerts] == [5000, 5001, 5002, 5003]
    assert (parsed.size, parsed.dropped, dead) == (4, [], [])
    assert (parsed.origin, parsed.first, parsed.last, parsed.only) == (ORIGIN, 100, 103, None)


def test_without_a_time_of_its_own_an_alert_has_the_enqueued_time() -> None:
    parsed, _ = parse_batch(batch(encoded(defender_alert(TimeGenerated="None")), b'{"a":1}'))
    assert [alert.event_ms for alert in parsed.alerts] == [5000, 5001]


def test_records_of_one_event_are_counted_and_a_bad_one_is_a_dead_letter() -> None:
    good = encoded(defender_alert())
    parsed, dead = parse_batch(batch(b'{"records":[%b,42,%b]}' % (good, good), b"", good + b"\n"))
    assert [(alert.sequence, alert.index) for alert in parsed.alerts] == [
        *((100, 0), (100, 2), (102, 0))
    ]
    assert {alert.raw for alert in parsed.alerts} == {good}
    assert len({alert.key for alert in parsed.alerts}) == 1
    assert parsed.dropped == [Dropped(100, 1, Outcome.DEAD), Dropped(101, 0, Outcome.DEAD)]
    assert parsed.size == 5
    assert dead == [
        DeadLetter(
            *(ORIGIN.source, "3", 100, 1, 5000, "parse"),
            *("a record is a JSON object, not a number", b"42"),
        ),
        DeadLetter(ORIGIN.source, "3", 101, 0, 5001, "parse", "empty body", b""),
    ]


@pytest.mark.parametrize("only", [None, NOBODY, "splunk"])
def test_an_addressed_batch_is_parsed_alike(only: str | None) -> None:
    parsed, dead = parse_batch(batch(encoded(defender_alert()), b"{", only=only))
    assert (parsed.only, parsed.size, len(parsed.alerts), len(dead)) == (only, 2, 1, 1)


def test_an_empty_batch_stays_one() -> None:
    parsed, dead = parse_batch(Batch(ORIGIN, 7, 9, None, []))
    assert (parsed.first, parsed.last, parsed.size, parsed.alerts, dead) == (7, 9, 0, [], [])


@pytest.mark.parametrize("wrapper", [b"%b", b"[%b]"])
def test_a_bug_in_a_kind_costs_its_record_only(
    monkeypatch: pytest.MonkeyPatch, wrapper: bytes
) -> None:
    incident, good = wrapper % encoded(security_incident()), encoded(defender_alert())
    parse_batch(batch(incident, good))  # both are recognised from here on

    def fails(row: object, raw: bytes) -> None:
        raise KeyError("secret")

    kind = KINDS["security_incident"]
    buggy = dataclasses.replace(kind, read=fails)  # type: ignore[arg-type]
    monkeypatch.setitem(KINDS, kind.name, buggy)
    monkeypatch.setattr("schemas.kinds._hints", {encoded(security_incident())[:12]: [buggy]})
    parsed, dead = parse_batch(batch(incident, good))
    assert [alert.sequence for alert in parsed.alerts] == [101]
    assert [(letter.reason, letter.body) for letter in dead] == [
        ("could not be understood: KeyError", encoded(security_incident()))
    ]


bodies = st.lists(
    st.one_of(
        st.binary(max_size=60),
        st.sampled_from([encoded(defender_alert()), encoded(security_alert()), b"", b"[]"]),
        st.lists(st.sampled_from([encoded(security_incident()), b"{}", b"42", b"{", b'{"a":'])).map(
            lambda items: b'{"records":[%b]}' % b",".join(items)
        ),
    ),
    max_size=6,
)


@settings(deadline=None)
@given(bodies)
def test_whatever_comes_every_record_has_one_outcome(bodies: list[bytes]) -> None:
    parsed, dead = parse_batch(batch(*bodies))
    assert parsed.size == len(parsed.alerts) + len(parsed.dropped)
    assert len(parsed.dropped) == len(dead)
    found = addresses(parsed)
    assert len(set(found)) == len(found)
    for number in range(len(bodies)):
        indices = [index for sequence, index in found if sequence == 100 + number]
        assert indices == list(range(len(indices))) != []
    assert [(it.sequence, it.index) for it in parsed.dropped] == [
        (letter.sequence, letter.index) for letter in dead
    ]
