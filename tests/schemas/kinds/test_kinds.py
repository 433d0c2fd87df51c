"""What holds for every kind: being found, telling, the two ways of decoding, identity."""

from __future__ import annotations

import pkgutil
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import schemas.kinds
from schemas.alert import SEVERITIES, STATUSES, Alert
from schemas.kinds import KINDS, _base, recognise, understand
from schemas.wrappers import unwrap
from tests.fixtures import defender_alert, encoded, security_alert, security_incident

MAKERS = {
    "defender_alert": defender_alert,
    "security_alert": security_alert,
    "security_incident": security_incident,
}
SIGNS = {
    "defender_alert": ("SystemAlertId", "Status", "ProcessingEndTime"),
    "security_alert": ("SystemAlertId", "Status", "ProcessingEndTime", "_ItemId"),
    "security_incident": ("TenantId", "IncidentName", "LastModifiedTime"),
}
every_kind = pytest.mark.parametrize("kind", MAKERS)


@pytest.fixture(autouse=True)
def forget() -> None:
    schemas.kinds._hints.clear()


def read(record: dict[str, Any]) -> Alert:
    return understand(encoded(record))


def test_kinds_are_the_files_of_the_folder() -> None:
    files = {info.name for info in pkgutil.iter_modules(schemas.kinds.__path__)}
    assert set(KINDS) == {name for name in files if name[0] != "_"}
    assert all(kind.name == name for name, kind in KINDS.items())


@every_kind
def test_a_record_is_told_by_one_kind_only(kind: str) -> None:
    raw = encoded(MAKERS[kind]())
    fields = _base.Fields(raw)
    assert [name for name, it in KINDS.items() if it.tells(fields)] == [kind]
    for name, it in KINDS.items():
        if name not in (kind, "unknown"):
            with pytest.raises(msgspec.ValidationError):
                it.strict(raw)


def test_real_records_are_told_by_one_kind_at_most(shared: Path) -> None:
    for file in (shared / "samples").rglob("*.*"):
        for raw in unwrap(file.read_bytes()):
            if isinstance(raw, bytes):
                fields = _base.Fields(raw)
                assert sum(it.tells(fields) for it in KINDS.values()) <= 1
                for name, it in KINDS.items():
                    try:
                        it.strict(raw)
                    except msgspec.DecodeError:
                        continue
                    assert name == "unknown" or it.tells(fields)


@every_kind
def test_the_fast_way_and_the_lenient_way_agree(kind: str) -> None:
    raw = encoded(MAKERS[kind]())
    it = KINDS[kind]
    assert it.strict(raw) == _base.lenient(it.row, _base.Fields(raw))


@every_kind
def test_a_kind_is_recognised_once_it_was_seen(kind: str) -> None:
    raw = encoded(MAKERS[kind]())
    assert recognise(raw) is None
    alert = understand(raw)
    assert recognise(raw) == alert
    assert alert.kind == kind
    assert alert.raw == raw


@every_kind
def test_a_hint_is_only_a_hint(kind: str) -> None:
    read(MAKERS[kind]())
    for other, make in MAKERS.items():
        first = next(iter(MAKERS[kind]()))
        record = {first: make().get(first, "x")} | make()
        assert read(record).kind == other
    assert recognise(encoded(MAKERS[kind](records=[1]))) is None
    assert recognise(encoded(MAKERS[kind]()) + b" x") is None
    assert recognise(encoded(MAKERS[kind](x="\u00e9"))[:-3] + b'\xff"}') is None


@every_kind
def test_keys_match_case_blind(kind: str) -> None:
    wanted = read(MAKERS[kind]())
    for change in (str.lower, str.upper, str.swapcase):
        record = {change(name): value for name, value in MAKERS[kind]().items()}
        found = read(record)
        assert found.kind == kind
        assert found.entity == wanted.entity
        assert (found.title, found.severity, found.status) == (
            *(wanted.title, wanted.severity, wanted.status),
        )
        assert (found.event_ms, found.start_ms, found.end_ms) == (
            *(wanted.event_ms, wanted.start_ms, wanted.end_ms),
        )
        assert found.subscription_id == wanted.subscription_id
        assert found.resource_ids == wanted.resource_ids
        assert (found.tactics, found.link) == (wanted.tactics, wanted.link)


def test_the_exact_spelling_goes_first() -> None:
    assert read(defender_alert(severity="Low")).severity == "high"
    assert read({"SEVERITY": "Low", "severity": "Low"} | defender_alert()).severity == "high"


@every_kind
def test_exact_repeats_share_the_key(kind: str) -> None:
    alert = read(MAKERS[kind]())
    assert alert.key == read(MAKERS[kind]()).key
    assert len(alert.key) == 16
    assert alert.event_id == alert.key.hex()


@pytest.mark.parametrize(
    ("kind", "sign"), [(k, sign) for k, signs in SIGNS.items() for sign in signs]
)
def test_updates_differ_in_the_key(kind: str, sign: str) -> None:
    before, after = read(MAKERS[kind]()), read(MAKERS[kind](**{sign: "changed"}))
    assert before.key != after.key


@every_kind
def test_an_update_is_of_the_same_entity(kind: str) -> None:
    before, after = read(MAKERS[kind]()), read(MAKERS[kind](Status="Resolved"))
    assert before.entity == after.entity
    assert after.status == "resolved"
    assert after.status_original == "Resolved"


@every_kind
def test_nothing_that_is_missing_is_fatal(kind: str) -> None:
    whole = MAKERS[kind]()
    signs = {"SystemAlertId", "AlertDisplayName", "AlertType", "AlertName", "Type"}
    for name in whole:
        alert = read({key: value for key, value in whole.items() if key != name})
        assert alert.kind == kind or name in signs
        assert alert.severity in SEVERITIES
        assert alert.status in STATUSES
        assert alert.entity
        nulled = read(whole | {name: None})
        assert (nulled.kind, nulled.severity) == (alert.kind, alert.severity)


@every_kind
def test_without_an_id_the_body_is_the_identity(kind: str) -> None:
    sign = "IncidentName" if kind == "security_incident" else "SystemAlertId"
    one, same = read(MAKERS[kind](**{sign: ""})), read(MAKERS[kind](**{sign: ""}))
    other = read(MAKERS[kind](**{sign: "", "Description": "another"}))
    assert one.key == same.key
    assert len(one.entity) == 32
    assert one.entity != other.entity
    assert one.key != other.key


wrong = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.text(st.characters(exclude_categories=("Cs",)), max_size=20),
    st.just("None"),
    st.just([]),
    st.just({"a": [1]}),
    st.just([{"AzureResourceId": 7}, "x", None]),
    st.just('[{"AzureResourceId":"/subscriptions/S1/x"}]'),
    st.just("{broken"),
)


@every_kind
@given(data=st.data())
def test_values_of_wrong_types_are_never_fatal(kind: str, data: st.DataObject) -> None:
    whole = MAKERS[kind]()
    names = data.draw(st.lists(st.sampled_from(sorted(set(whole) - {"Type"})), max_size=4))
    alert = read(whole | {name: data.draw(wrong) for name in names})
    assert alert.severity in SEVERITIES
    assert all(isinstance(value, str) for value in (alert.title, alert.version, alert.link))
    assert all(isinstance(word, str) for word in (*alert.resource_ids, *alert.tactics))
    msgspec.msgpack.decode(msgspec.msgpack.encode(alert), type=Alert)


def test_numbers_and_objects_become_text() -> None:
    alert = read(
        defender_alert(SystemAlertId=42, Severity=3, AlertDisplayName={"a": 1.50}, Description=True)
    )
    assert alert.entity == "42"
    assert (alert.severity, alert.severity_original) == ("unknown", "3")
    assert alert.title == '{"a":1.5}'
    assert alert.description == "true"


def test_the_last_of_duplicate_keys_counts() -> None:
    raw = encoded(defender_alert())[:-1] + b',"Severity":"Low"}'
    assert understand(raw).severity == "low"
    assert understand(raw[:-1] + b',"Status":7}').severity == "low"


def test_escaped_nuls_are_kept() -> None:
    assert read(defender_alert(AlertDisplayName="a\0b")).title == "a\0b"
