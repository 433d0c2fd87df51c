"""Which alerts a sink gets: conditions, and what becomes of a batch."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from schemas.alert import SEVERITIES, STATUSES, Alert, Subscription
from schemas.batch import NOBODY, AlertBatch, Dropped, Origin
from schemas.receipt import Outcome
from transforms.route import Where, compile_where, route_batch, why_not

SUBSCRIPTION = Subscription(
    "11111111-1111-1111-1111-111111111111",
    name="Payments Prod",
    environment="Production",
    tags={"Team": "Red", "cost": "42"},
)


def alert(**fields: Any) -> Alert:
    return Alert(**{"kind": "defender_alert", "key": bytes(16), "entity": "e", **fields})


ALERT = alert(
    severity="high",
    status="new",
    product="Microsoft Defender for Servers",
    alert_type="VM_SuspectProcess",
    subscription_id=SUBSCRIPTION.id,
    subscription=SUBSCRIPTION,
)


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ({}, True),
        ({"severity": "high"}, True),
        ({"severity": ["High", "low"]}, True),
        ({"severity": ["low"]}, False),
        ({"severity": {"at_least": "medium"}}, True),
        ({"severity": {"at_least": "high"}}, True),
        ({"severity": {"at_least": "critical"}}, False),
        ({"status": ["new"]}, True),
        ({"status": "resolved"}, False),
        ({"kind": "unknown"}, False),
        ({"kind": "*"}, True),
        ({"subscription": SUBSCRIPTION.id.upper()}, True),
        ({"subscription": ["payments prod"]}, True),
        ({"subscription": "no such"}, False),
        ({"environment": "PRODUCTION"}, True),
        ({"environment": ["test", "dev"]}, False),
        ({"tag": {"team": "red"}}, True),
        ({"tag": {"TEAM": ["blue", "RED"], "cost": "42"}}, True),
        ({"tag": {"team": "red", "cost": "43"}}, False),
        ({"tag": {"owner": "red"}}, False),
        ({"product": "microsoft defender for servers"}, True),
        ({"product": "*servers"}, True),
        ({"product": "servers"}, False),
        ({"alert_type": ["x", "vm_*"]}, True),
        ({"alert_type": "VM_*_x"}, False),
        ({"alert_type": "VM.SuspectProcess*"}, False),
        ({"severity": "high", "status": "resolved"}, False),
        ({"any": [{"severity": "low"}, {"status": "new"}]}, True),
        ({"any": [{"severity": "low"}, {"status": "resolved"}]}, False),
        ({"all": [{"severity": "high"}, {"status": "new"}]}, True),
        ({"all": [{"severity": "high"}, {"status": "resolved"}]}, False),
        ({"not": {"severity": "low"}}, True),
        ({"not": {"any": [{"severity": "high"}]}}, False),
        ({"not": {}}, False),
        ({"severity": "high", "not": {"tag": {"team": "blue"}}}, True),
    ],
)
def test_conditions(where: dict[str, Any], expected: bool) -> None:
    assert compile_where(Where.model_validate(where))(ALERT) is expected


@pytest.mark.parametrize(
    "where", [{"environment": "production"}, {"tag": {"team": "red"}}, {"subscription": "payments"}]
)
def test_an_alert_without_a_subscription_matches_none(where: dict[str, Any]) -> None:
    assert not compile_where(Where.model_validate(where))(alert())


def test_without_conditions_everything_matches() -> None:
    assert compile_where(None)(alert())


def test_unknown_is_below_every_severity() -> None:
    least = compile_where(Where.model_validate({"severity": {"at_least": "informational"}}))
    assert [each for each in SEVERITIES if not least(alert(severity=each))] == ["unknown"]


def test_text_may_hold_anything() -> None:
    where = compile_where(Where.model_validate({"alert_type": ["a*z", "(+[*"]}))
    assert where(alert(alert_type="a\n\r\u2028z"))
    assert where(alert(alert_type="(+[x"))
    assert not where(alert(alert_type="az\n"))


@pytest.mark.parametrize(
    "where",
    [
        {"severity": "hihg"},
        {"severity": []},
        {"severity": {"at_least": "hihg"}},
        {"severity": {}},
        {"status": ["open"]},
        {"kind": "defnder_alert"},
        {"any": []},
        {"all": {}},
        {"not": []},
        {"tag": {}},
        {"tag": ["team"]},
        {"product": 5},
        {"alert_type": ""},
        {"severty": "high"},
        {"any_": [{}]},
    ],
)
def test_mistakes_are_refused(where: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Where.model_validate(where)


# The compiled predicate against one that reads the condition anew for each alert

WORDS = st.sampled_from(["red", "Blue", "prod", "vm_x", "VM_y", "", SUBSCRIPTION.id])
TEXTS = WORDS.filter(bool)
GLOBS = st.sampled_from(["red", "*", "vm_*", "*_X", "*e*", "V*_y", "re?"])


def one_or_more(item: st.SearchStrategy[str]) -> st.SearchStrategy[Any]:
    return item | st.lists(item, min_size=1, max_size=3)


SEVERITY = st.sampled_from(SEVERITIES)
PLAIN = st.fixed_dictionaries(
    {},
    optional={
        "severity": one_or_more(SEVERITY) | st.fixed_dictionaries({"at_least": SEVERITY}),
        "status": one_or_more(st.sampled_from(STATUSES)),
        "kind": st.sampled_from(["*", "unknown", "un*", ["*own", "U*k*n"]]),
        "subscription": one_or_more(TEXTS),
        "environment": one_or_more(TEXTS),
        "tag": st.dictionaries(TEXTS, one_or_more(TEXTS), min_size=1, max_size=2),
        "product": one_or_more(GLOBS),
        "alert_type": one_or_more(GLOBS),
    },
)


def nested(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    some = st.lists(inner, min_size=1, max_size=3)
    return st.fixed_dictionaries({}, optional={"any": some, "all": some, "not": inner})


WHERES = st.recursive(PLAIN, nested, max_leaves=5)
SUBSCRIPTIONS = st.none() | st.builds(
    Subscription,
    st.just(SUBSCRIPTION.id),
    name=WORDS,
    environment=WORDS,
    tags=st.dictionaries(TEXTS, WORDS, max_size=3),
)
ALERTS = st.builds(
    alert,
    kind=st.sampled_from(["defender_alert", "unknown"]),
    severity=SEVERITY,
    status=st.sampled_from(STATUSES),
    product=WORDS,
    alert_type=WORDS,
    subscription_id=st.sampled_from(["", SUBSCRIPTION.id]),
    subscription=SUBSCRIPTIONS,
)


def naive(where: dict[str, Any], a: Alert) -> bool:
    about = a.subscription or Subscription("")

    def among(words: Any, *texts: str) -> bool:
        words = [words] if isinstance(words, str) else words
        return any(
            fnmatchcase(text.lower(), word.lower().replace("?", "[?]"))
            for word in words
            for text in texts
        )

    def holds(key: str, value: Any) -> bool:
        match key:
            case "severity" if isinstance(value, dict):
                return SEVERITIES.index(a.severity) >= SEVERITIES.index(value["at_least"])
            case "subscription":
                return among(value, a.subscription_id, about.name)
            case "environment":
                return among(value, about.environment)
            case "tag":
                return all(
                    among(words, *(v for k, v in about.tags.items() if k.lower() == tag.lower()))
                    for tag, words in value.items()
                )
            case "any":
                return any(naive(each, a) for each in value)
            case "all":
                return all(naive(each, a) for each in value)
            case "not":
                return not naive(value, a)
            case _:
                return among(value, getattr(a, key))

    return all(holds(key, value) for key, value in where.items())


@given(WHERES, ALERTS)
def test_compiled_and_naive_agree(where: dict[str, Any], a: Alert) -> None:
    assert compile_where(Where.model_validate(where))(a) is naive(where, a)


# Why not


@pytest.mark.parametrize(
    ("where", "why"),
    [
        ({}, ""),
        ({"severity": "high"}, ""),
        (
            {"severity": {"at_least": "critical"}},
            "severity is high, wanted is {at_least: critical}",
        ),
        ({"severity": "high", "status": ["resolved"]}, "status is new, wanted is [resolved]"),
        ({"kind": "unknown"}, "kind is defender_alert, wanted is [unknown]"),
        ({"environment": "test"}, "environment is Production, wanted is [test]"),
        ({"tag": {"team": "blue"}}, "tag is Team: Red, cost: 42, wanted is {team: [blue]}"),
        (
            {"subscription": "x"},
            f"subscription is {SUBSCRIPTION.id} Payments Prod, wanted is [x]",
        ),
        ({"alert_type": "Sql*"}, "alert_type is VM_SuspectProcess, wanted is [Sql*]"),
        (
            {"all": [{"status": "new"}, {"kind": "unknown"}]},
            "kind is defender_alert, wanted is [unknown]",
        ),
        (
            {"any": [{"status": "resolved"}, {"kind": "unknown"}]},
            "none of these holds: [{status: [resolved]}, {kind: [unknown]}]",
        ),
        ({"not": {"severity": "high"}}, "it is what `not` excludes: {severity: [high]}"),
    ],
)
def test_the_condition_that_is_not_met_is_told(where: dict[str, Any], why: str) -> None:
    assert why_not(Where.model_validate(where), ALERT) == why


def test_what_is_not_known_of_an_alert_is_told_as_such() -> None:
    for key in ("environment", "subscription"):
        why = why_not(Where.model_validate({key: "x"}), alert())
        assert why == f"{key} is not known, wanted is [x]"
    assert (
        why_not(Where.model_validate({"product": "x"}), alert())
        == "product is empty, wanted is [x]"
    )


@given(WHERES, ALERTS)
def test_there_is_a_reason_exactly_when_the_predicate_does_not_hold(
    where: dict[str, Any], a: Alert
) -> None:
    conditions = Where.model_validate(where)
    assert bool(why_not(conditions, a)) != compile_where(conditions)(a)
    assert why_not(None, a) == ""


# Batches


def batch(only: str | None = None) -> AlertBatch:
    return AlertBatch(
        Origin("ns/hub/group", "3"),
        10,
        14,
        only,
        5,
        [
            alert(sequence=10, severity="high"),
            alert(sequence=11, severity="low"),
            alert(sequence=11, index=1, severity="low"),
            alert(sequence=14, severity="high"),
        ],
        [Dropped(12, 0, Outcome.DEAD)],
    )


HIGH = compile_where(Where.model_validate({"severity": "high"}))


def test_what_a_sink_does_not_want_counts_as_not_routed() -> None:
    routed = route_batch(batch(), "splunk", HIGH)
    assert routed is not None
    assert [a.sequence for a in routed.alerts] == [10, 14]
    assert routed.dropped == [
        Dropped(12, 0, Outcome.DEAD),
        Dropped(11, 0, Outcome.NOT_ROUTED),
        Dropped(11, 1, Outcome.NOT_ROUTED),
    ]
    assert len(routed.alerts) + len(routed.dropped) == routed.size == 5
    assert (routed.origin, routed.first, routed.last) == (Origin("ns/hub/group", "3"), 10, 14)


def test_the_batch_that_other_sinks_get_is_left_as_it_is() -> None:
    whole = batch()
    route_batch(whole, "splunk", HIGH)
    assert whole == batch()


def test_a_batch_addressed_to_a_sink_reaches_it_alone_and_whole() -> None:
    def never(_: Alert) -> bool:
        raise AssertionError("it was routed when it became owed")

    assert route_batch(batch(only="splunk"), "splunk", never) == batch(only="splunk")
    assert route_batch(batch(only="splunk"), "syslog", never) is None
    assert route_batch(batch(only=NOBODY), "splunk", never) is None
