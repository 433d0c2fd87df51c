"""What a subscriptions file may say, how it is told what is wrong, and what alerts get of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from schemas.alert import Alert, Subscription
from schemas.batch import AlertBatch, Origin
from transforms.enrich import (
    SubscriptionsError,
    enrich_batch,
    enrich_batch_at,
    load_subscriptions,
)
from transforms.state_store import StateStore
from transforms.subscription_history import History, keep

ONE = "11111111-1111-1111-1111-111111111111"
TWO = "22222222-2222-2222-2222-22222222abcd"

EXPECTED = {
    ONE: Subscription(
        ONE,
        name="Payments",
        owner="ada@contoso.com",
        environment="prod",
        management_group="corp",
        tags={"team": "red", "cost": "42"},
    ),
    TWO: Subscription(TWO, name="Sandbox"),
}

YAML_LIST = f"""\
- id: {ONE}
  name: Payments
  owner: ada@contoso.com
  environment: prod
  management_group: corp
  tags: {{team: red, cost: 42}}
- subscription_id: {TWO.upper()}
  displayName: Sandbox
"""
YAML_MAPPING = f"""\
{ONE}:
  name: Payments
  owner: ada@contoso.com
  env: prod
  managementGroup: corp
  tags: team=red;cost=42
{TWO}: {{name: Sandbox, tags: }}
"""
AS_AZURE_LISTS_THEM: dict[str, Any] = {
    "value": [
        {
            "id": f"/subscriptions/{ONE}",
            "subscriptionId": ONE,
            "displayName": "Payments",
            "owner": "ada@contoso.com",
            "Environment": "prod",
            "managementGroup": "corp",
            "state": "Enabled",
            "tags": {"team": "red", "cost": "42"},
        },
        {"id": f"/subscriptions/{TWO}", "displayName": "Sandbox", "tags": None, "owner": None},
    ]
}
CSV = f"""\
\ufeffSubscription ID,Subscription name,Owner,Environment,Management group,Tags,State
{ONE},Payments,ada@contoso.com,prod,corp,team=red; cost = 42,Enabled
{TWO.upper()},Sandbox,,,,,
"""
CSV_JSON_TAGS = f"""\
id,name,owner,environment,management_group,tags\r
{ONE},Payments,ada@contoso.com,prod,corp,"{{""team"": ""red"", ""cost"": 42}}"\r
{TWO},Sandbox,,,,\r
"""


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("s.yaml", YAML_LIST),
        ("s.yml", "subscriptions:\n" + YAML_LIST),
        ("s.YAML", YAML_MAPPING),
        ("s.json", json.dumps(AS_AZURE_LISTS_THEM)),
        ("s.json", json.dumps(AS_AZURE_LISTS_THEM["value"], indent="\t")),
        ("s.csv", CSV),
        ("s.csv", CSV_JSON_TAGS),
    ],
)
def test_formats_and_spellings(tmp_path: Path, name: str, text: str) -> None:
    file = tmp_path / name
    file.write_text(text, encoding="utf-8", newline="")
    assert load_subscriptions(file) == EXPECTED


MISTAKES = [
    ("s.txt", "", ["1: the file's name must end in .yaml, .json or .csv"]),
    ("s.yaml", "", ["1: not a list of subscriptions"]),
    ("s.yaml", "text", ["1: not a list of subscriptions"]),
    ("s.yaml", "- id: x\n  y: [", ["2: this is never closed"]),
    ("s.yaml", "- id: x\n\tname: y", ["2: a tab; YAML is indented with spaces"]),
    ("s.yaml", f"- id: {ONE}\n  name: a\n  name: b", ["3: this key stands on line 2 already"]),
    (
        "s.yaml",
        f"- id: {ONE}\n- name: x\n- 5\n- id: 123\n- id: {ONE}\n  tags: {{}}\n"
        f"- {{id: {TWO}, name: [1]}}",
        [
            "2: no id",
            "3: not a mapping with an id, a name, …",
            "4: '123' is no subscription id (a GUID)",
            f"5: subscription {ONE} stands on line 1 already",
            "7: `name` must be plain text",
        ],
    ),
    (
        "s.yaml",
        f"{ONE}: {{}}\n{ONE.replace('-', '')}:\n  name: x\n{TWO}: [1]",
        [
            f"2: '{ONE.replace('-', '')}' is no subscription id (a GUID)",
            "4: not a mapping with an id, a name, …",
        ],
    ),
    ("s.json", '[\n{"id": 1 2}\n]', ["2: not JSON: Expecting ',' delimiter"]),
    ("s.json", "[" * 100_000, ["1: nested too deeply"]),
    (
        "s.json",
        json.dumps([{"id": ONE}, {"id": ONE}, {"id": TWO, "tags": ["a"]}], indent="\t"),
        [
            f"5: subscription {ONE} stands on line 2 already",
            "8: `tags` must be a mapping from names to plain text",
        ],
    ),
    (
        "s.json",
        f'[{{"id": "{ONE}", "name": "\\ud83d"}}]',
        ["1: half of a surrogate pair, which no text can hold"],
    ),
    ("s.csv", "", ["1: the first line names no column `id`"]),
    ("s.csv", "name,owner\na,b\n", ["1: the first line names no column `id`"]),
    (
        "s.csv",
        f'id,name,tags\n{ONE},"two\nlines",\nbad,x,\n{TWO},x,novalue\n{TWO},x,,y\n{ONE},,\n',
        [
            "4: 'bad' is no subscription id (a GUID)",
            "5: `tags` must be key=value;key=value",
            "6: more columns than the header has",
            f"7: subscription {ONE} stands on line 2 already",
        ],
    ),
    ("s.csv", f'id,tags\n{ONE},"{{x"\n', ["2: `tags` begins as JSON, and is not"]),
    ("s.csv", f'id,name\n{ONE},"open\n', ["2: not CSV: unexpected end of data"]),
]


@pytest.mark.parametrize(("name", "text", "expected"), MISTAKES)
def test_every_mistake_is_told_with_its_line(
    tmp_path: Path, name: str, text: str, expected: list[str]
) -> None:
    file = tmp_path / name
    file.write_text(text, encoding="utf-8", newline="")
    with pytest.raises(SubscriptionsError) as refused:
        load_subscriptions(file)
    assert str(refused.value).splitlines() == [f"{file}:{line}" for line in expected]


def test_a_file_that_cannot_be_read_is_told_of(tmp_path: Path) -> None:
    with pytest.raises(SubscriptionsError, match=r"none\.csv:1: cannot be read: No such file"):
        load_subscriptions(tmp_path / "none.csv")
    (tmp_path / "latin.yaml").write_bytes("- id: x\n- name: é".encode("latin-1"))
    with pytest.raises(SubscriptionsError, match=r"latin\.yaml:2: not UTF-8 text"):
        load_subscriptions(tmp_path / "latin.yaml")


def alert(subscription_id: str) -> Alert:
    return Alert(kind="unknown", key=bytes(16), entity="e", subscription_id=subscription_id)


def test_alerts_get_their_subscription_and_unknown_ones_are_counted() -> None:
    alerts = [alert(ONE), alert("who"), alert(""), alert(TWO), alert("who")]
    batch = AlertBatch(Origin("s", "0"), 1, 5, None, 5, alerts, [])
    counts: list[int] = []
    enriched = enrich_batch(batch, EXPECTED, counts.append)
    unknown = Subscription("who", known=False)
    assert [a.subscription for a in enriched.alerts] == [
        EXPECTED[ONE],
        unknown,
        None,
        EXPECTED[TWO],
        unknown,
    ]
    assert counts == [2]


def test_nothing_is_counted_where_all_are_known() -> None:
    batch = AlertBatch(Origin("s", "0"), 1, 1, None, 1, [alert(ONE)], [])
    enrich_batch(batch, EXPECTED, lambda count: pytest.fail("none is unknown"))


def happened(subscription_id: str, event_ms: int) -> Alert:
    made = alert(subscription_id)
    made.event_ms = event_ms
    return made


def test_each_alert_gets_its_subscription_as_it_was_when_it_happened(tmp_path: Path) -> None:
    store = StateStore(str(tmp_path))
    then, now = Subscription(ONE, name="Shop"), Subscription(ONE, name="Market")
    keep(store, {ONE: then}, 1000)
    keep(store, {ONE: now, TWO: EXPECTED[TWO]}, 2000)
    told = [
        (happened(ONE, 2500), now),
        (happened(ONE, 1500), then),  # out of order
        (happened(TWO, 1999), Subscription(TWO, known=False)),  # not known by then
        (happened(TWO, 2000), EXPECTED[TWO]),
        (happened("", 1500), None),
        (happened(ONE, 999), then),  # before anything was known
        (happened("", 999), None),
        (happened("who", 3), Subscription("who", known=False)),
        (happened(ONE, 10**13), now),
    ]
    batch = AlertBatch(Origin("s", "0"), 1, 9, None, 9, [each for each, _ in told], [])
    unknown: list[int] = []
    later: list[int] = []
    enriched = enrich_batch_at(batch, History.load(store), unknown.append, later.append)
    assert enriched is batch
    assert [each.subscription for each in enriched.alerts] == [each for _, each in told]
    assert (unknown, later) == ([2], [2])


def test_with_one_snapshot_that_is_older_than_all_it_is_as_live(tmp_path: Path) -> None:
    store = StateStore(str(tmp_path))
    keep(store, EXPECTED, 1000)
    alerts = [[happened(name, 1000 + n) for n, name in enumerate((ONE, "who", TWO))] for _ in "12"]
    live, again = (AlertBatch(Origin("s", "0"), 1, 3, None, 3, each, []) for each in alerts)
    counts: list[int] = []
    enrich_batch(live, EXPECTED, counts.append)
    enrich_batch_at(
        again, History.load(store), counts.append, lambda count: pytest.fail("none is early")
    )
    assert again == live
    assert counts == [1, 1]


def test_without_snapshots_no_subscription_is_known_and_none_is_later(tmp_path: Path) -> None:
    batch = AlertBatch(Origin("s", "0"), 1, 1, None, 1, [happened(ONE, 5)], [])
    history = History.load(StateStore(str(tmp_path)))
    enrich_batch_at(batch, history, later=lambda count: pytest.fail("there is none"))
    assert batch.alerts[0].subscription == Subscription(ONE, known=False)
