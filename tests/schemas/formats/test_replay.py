"""A replayed alert says so where the format has a place for it, and differs in nothing else."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.alert import Alert, Subscription
from schemas.formats import FORMATS
from schemas.formats._shortened import shortened
from schemas.formats.asim import sentinel_row
from schemas.formats.hec import hec
from schemas.formats.ocsf import ocsf
from schemas.formats.servicenow import servicenow_event
from schemas.formats.stamped import stamped
from schemas.kinds import understand
from tests.examples import EXAMPLES
from tests.fixtures import SUBSCRIPTION, defender_alert, encoded
from tests.strategies import alerts, texts

NAME = "march.2026_new-siem"
MARKS = {
    "asim": (b'"replay":"%b",',),
    "cef": (b"AlertbeamReplay=%b ",),
    "cef_iot": (b"AlertbeamReplay=%b ",),
    "ecs": (b',"labels":{"replay":"%b"}',),
    "graph": (),
    "hec": (b'"alertbeam_replay":"%b",',),
    "hec_cim": (b'"alertbeam_replay":"%b",',),
    "leef": (b"replay=%b\t",),
    "logrhythm": (b',"tag8":"%b"',),
    "logz_io": (b',"labels":{"replay":"%b"}',),
    "ndjson": (b',"replay":"%b"',),
    "ocsf": (b',"labels":["replay:%b"]',),
    "power_bi": (),
    "raw": (),
    "rfc3164": (b'replay="%b" ',),
    "rfc5424": (b' replay="%b"',),
    "sentinel_row": (b'"AlertbeamReplay":"%b",',),
    "servicenow_event": (rb"\"AlertbeamReplay\":\"%b\",",),
    "servicenow_incident": (rb"Replay: %b\n",),
    "servicenow_security_incident": (rb"Replay: %b\n",),
    "stamped": (b',"alertbeam_replay":"%b"',),
    "xsiam_alert": (rb"Replay: %b\n",),
    "xsoar": (rb"Replay: %b\n", b'{"type":"Replay","value":"%b"},'),
}
"""By format, what a replayed alert has more than the same one that came live."""


def alert(kind: str = "defender_alert", **overrides: object) -> Alert:
    made = understand(encoded(EXAMPLES[kind].record()))
    made.sequence, made.enqueued_ms = 4711, 1_772_619_195_001
    made.subscription = Subscription(SUBSCRIPTION, "Shop", "ann", "production", "Retail")
    return msgspec.structs.replace(made, **overrides)


def replayed(made: Alert, name: str = NAME) -> Alert:
    return msgspec.structs.replace(made, replay=name)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("kind", ["defender_alert", "iot_alert"])
def test_without_its_mark_a_replayed_alert_is_the_live_one(name: str, kind: str) -> None:
    made = alert(kind, description="short", link="")
    if name == "rfc3164":  # 1,024 bytes
        made.raw = b"{}"
    said = FORMATS[name].say(replayed(made))
    for mark in MARKS[name]:
        mark %= NAME.encode()
        assert said.count(mark) == 1
        said = said.replace(mark, b"")
    assert said == FORMATS[name].say(made)


@pytest.mark.parametrize("name", FORMATS)
@given(made=alerts(), replay=st.one_of(st.from_regex(r"\A[A-Za-z0-9._-]{1,80}\Z"), texts))
def test_a_replayed_alert_of_any_name_is_one_well_formed_record(
    name: str, made: Alert, replay: str
) -> None:
    form = FORMATS[name]
    made = replayed(made, replay)
    said = form.say(made)
    text = said.decode()
    if name != "raw":
        assert len(text.splitlines()) == 1 or form.media_type == "application/json"
        assert not {"\n", "\r"} & set(text)
    if form.max_bytes is not None:
        assert len(said) <= form.max_bytes
    if form.media_type == "application/json":
        assert isinstance(json.loads(text), dict)
    if not MARKS[name]:
        assert said == form.say(replayed(made, ""))


def test_in_splunks_shape_raw_it_is_an_indexed_field_as_the_event_is_the_record_alone() -> None:
    live, again = (json.loads(hec(each, shape="raw")) for each in (alert(), replayed(alert())))
    assert again.pop("fields") == {**live.pop("fields"), "alertbeam_replay": NAME}
    assert again == live


def test_splunk_finds_it_before_the_record_which_may_be_longer_than_it_looks_into() -> None:
    event = json.loads(hec(replayed(alert())))["event"]
    assert list(event)[:2] == ["alertbeam_replay", "body"]
    event = json.loads(hec(replayed(alert()), shape="cim"))["event"]
    assert next(iter(event)) == "alertbeam_replay"


def test_labels_that_the_record_has_stay() -> None:
    with_labels = alert("graph_incident")
    before = json.loads(ocsf(with_labels))["metadata"].get("labels", [])
    assert before
    said: Any = json.loads(ocsf(replayed(with_labels)))
    assert said["metadata"]["labels"] == [*before, f"replay:{NAME}"]


def test_no_record_can_pass_itself_off_as_replayed() -> None:
    forged = {"Replay": "x", "AlertbeamReplay": "x", "alertbeam_replay": "x"}
    made = understand(encoded({**defender_alert(), **forged}))
    assert b'"alertbeam_replay"' not in stamped(made)
    assert json.loads(stamped(replayed(made)))["alertbeam_replay"] == NAME
    row = understand(encoded({**EXAMPLES["log_analytics"].record(), **forged}))
    assert "x" in json.loads(sentinel_row(row))["Attributes"].values()
    assert "AlertbeamReplay" not in json.loads(sentinel_row(row)).get("Attributes", {})
    info = json.loads(json.loads(servicenow_event(row))["additional_info"])
    assert "AlertbeamReplay" not in info


def test_a_record_said_shorter_still_tells() -> None:
    assert json.loads(shortened(replayed(alert()), 2000))["replay"] == NAME
    assert "replay" not in json.loads(shortened(alert(), 2000))
