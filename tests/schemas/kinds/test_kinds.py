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
from schemas.kinds import KINDS, _base, details, recognise, understand
from schemas.wrappers import unwrap
from tests.examples import EXAMPLES, changed, encoded
from tests.fixtures import defender_alert
from tests.schemas.kinds import read

every_kind = pytest.mark.parametrize("kind", EXAMPLES)
resolvable = pytest.mark.parametrize("kind", [k for k, it in EXAMPLES.items() if it.RESOLVED])


@pytest.fixture(autouse=True)
def forget() -> None:
    for memory in (schemas.kinds._hints, schemas.kinds._closer_hints, schemas.kinds._asking):
        memory.clear()


def test_kinds_are_the_files_of_the_folder() -> None:
    files = {info.name for info in pkgutil.iter_modules(schemas.kinds.__path__)}
    assert set(KINDS) == {name for name in files if name[0] != "_"}
    assert all(kind.name == name for name, kind in KINDS.items())


def _strictly(kind: _base.Kind[Any], raw: bytes) -> str | None:
    """What a kind that was only hinted at makes of a record: refuses it, or reads it as its own
    or, where columns alone do not tell them apart, hands it over to the other kind."""
    try:
        row = kind.strict(raw)
    except msgspec.DecodeError:
        return None
    return kind.read(row, raw).kind


@every_kind
def test_a_record_is_told_by_one_kind_only(kind: str) -> None:
    raw = encoded(EXAMPLES[kind].record())
    fields = _base.Fields(raw)
    telling = [name for name, it in KINDS.items() if it.tells(fields)]
    assert telling[:1] == [kind]
    assert all(KINDS[name].general for name in telling[1:])
    for it in KINDS.values():
        if not it.general:
            assert _strictly(it, raw) in (None, kind)


def test_every_kind_has_an_example() -> None:
    assert set(EXAMPLES) == set(KINDS) - {"unknown"}


@every_kind
def test_details_never_fail(kind: str) -> None:
    record = EXAMPLES[kind].record()
    alert = read(record)
    found = details(alert)
    assert found == details(alert)
    assert len(found.entities) == len(set(map(repr, found.entities)))
    for entity in found.entities:
        assert entity.name or entity.id or entity.path or entity.hashes or entity.command_line


def test_real_records_are_told_by_one_kind_at_most(shared: Path) -> None:
    for file in (shared / "samples").rglob("*.*"):
        for raw in unwrap(file.read_bytes()):
            if isinstance(raw, bytes):
                fields = _base.Fields(raw)
                assert sum(it.tells(fields) for it in KINDS.values() if not it.general) <= 1
                for it in KINDS.values():
                    read_as = None if it.general else _strictly(it, raw)
                    assert read_as is None or KINDS[read_as].tells(fields)


@every_kind
def test_the_fast_way_and_the_lenient_way_agree(kind: str) -> None:
    raw = encoded(EXAMPLES[kind].record())
    it = KINDS[kind]
    assert it.strict(raw) == _base.lenient(it.row, _base.Fields(raw))


@every_kind
def test_a_kind_is_recognised_once_it_was_seen(kind: str) -> None:
    raw = encoded(EXAMPLES[kind].record())
    assert recognise(raw) is None
    alert = understand(raw)
    assert KINDS[kind].general or recognise(raw) == alert
    assert alert.kind == kind
    assert alert.raw == raw
    assert alert.key == _base.key(kind, alert.entity, alert.version)


def test_keys_are_the_same_in_every_release() -> None:
    """The example's: sinks remember them."""
    assert read(EXAMPLES["defender_alert"].record()).key.hex() == "e00126a4d9a8c10b764313925f9b7704"
    assert _base.key("kind", "entity", "version").hex() == "1e28ae63372ed7fe2739a277c41100d5"


@every_kind
def test_a_hint_is_only_a_hint(kind: str) -> None:
    read(EXAMPLES[kind].record())
    for other, it in EXAMPLES.items():
        record = it.record()
        first = next(iter(EXAMPLES[kind].record()))
        if first in record:
            assert read({first: record[first]} | record).kind == other
    assert recognise(encoded(EXAMPLES[kind].record(records=[1]))) is None
    assert recognise(encoded(EXAMPLES[kind].record()) + b" x") is None
    assert recognise(encoded(EXAMPLES[kind].record(x="\u00e9"))[:-3] + b'\xff"}') is None


def _tries(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The kinds whose rows are tried, from now on."""
    tried: list[str] = []
    for kind in KINDS.values():

        def strict(raw: bytes, kind: _base.Kind[Any] = kind) -> Any:
            tried.append(kind.name)
            return msgspec.json.decode(raw, type=kind.row)

        monkeypatch.setitem(vars(kind), "strict", strict)
    return tried


def test_kinds_that_begin_alike_are_hinted_at_by_more(monkeypatch: pytest.MonkeyPatch) -> None:
    raws = {kind: encoded(EXAMPLES[kind].record()) for kind in ("activity_log", "entra_log", "xdr")}
    assert len({raw[:12] for raw in raws.values()}) == 1
    for raw in (*raws.values(), *raws.values()):
        understand(raw)
    tried = _tries(monkeypatch)
    for kind, raw in raws.items():
        later = raw.replace(b"2026-03-04T10", b"2027-12-31T23")
        assert understand(later).kind == kind
    assert tried == list(raws)


@every_kind
def test_no_row_is_tried_in_vain_for_what_is_read_leniently(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for other in EXAMPLES.values():
        understand(encoded(other.record()))
    raw = encoded(EXAMPLES[kind].record(records=[1]))
    alert = understand(raw)
    tried = _tries(monkeypatch)
    assert understand(raw) == alert
    assert tried == ([] if alert.kind == "unknown" else [kind])


@given(st.lists(st.tuples(*[st.sampled_from(sorted(EXAMPLES))] * 2, st.randoms()), max_size=8))
def test_of_records_with_the_same_keys_each_is_told_by_what_it_holds(mixed: Any) -> None:
    """Which kinds are asked depends on the keys alone, and on nothing that was asked before."""
    for one, other, chance in mixed:
        donor = {name.lower(): value for name, value in EXAMPLES[other].record().items()}
        whole = EXAMPLES[one].record()
        for _ in range(2):
            values = (
                chance.choice((value, donor.get(name.lower(), value), None))
                for name, value in whole.items()
            )
            fields = _base.Fields(encoded(dict(zip(whole, values, strict=True))))
            telling = [it for it in KINDS.values() if it.tells(fields)]
            assert schemas.kinds._wanting(fields) == (telling[0] if telling else None)


@every_kind
def test_keys_match_case_blind(kind: str) -> None:
    wanted = read(EXAMPLES[kind].record())
    for change in (str.lower, str.upper, str.swapcase):
        record = {change(name): value for name, value in EXAMPLES[kind].record().items()}
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
    alert = read(EXAMPLES[kind].record())
    assert alert.key == read(EXAMPLES[kind].record()).key
    assert len(alert.key) == 16
    assert alert.event_id == alert.key.hex()


@pytest.mark.parametrize(
    ("kind", "path"),
    [(k, path) for k, it in EXAMPLES.items() for path in (*it.IDENTITY, *it.VERSION)],
)
def test_identity_and_version_make_the_key(kind: str, path: str) -> None:
    it = EXAMPLES[kind]
    before, after = read(it.record()), read(changed(it.record(), path, "2026-09-09T09:09:09Z"))
    assert before.key != after.key
    assert (before.entity != after.entity) == (path in it.IDENTITY)


@resolvable
def test_an_update_is_of_the_same_entity(kind: str) -> None:
    it = EXAMPLES[kind]
    record = it.record()
    before = read(record)
    for path, value in it.RESOLVED.items():
        record = changed(record, path, value)
    after = read(record)
    assert before.entity == after.entity
    assert before.key != after.key
    assert after.status == "resolved"
    assert after.status_original in it.RESOLVED.values()


@every_kind
def test_nothing_that_is_missing_is_fatal(kind: str) -> None:
    """What tells the kind may be among it: then another kind, or unknown, takes the record."""
    whole = EXAMPLES[kind].record()
    for name in whole:
        rest = {other: value for other, value in whole.items() if other != name}
        for record in (rest, whole | {name: None}):
            alert = read(record)
            assert alert.severity in SEVERITIES
            assert alert.status in STATUSES
            assert alert.entity
            details(alert)


@every_kind
def test_without_an_id_the_body_is_the_identity(kind: str) -> None:
    record = EXAMPLES[kind].record()
    for path in EXAMPLES[kind].IDENTITY:
        record = changed(record, path, "")
    one, same, other = read(record), read(record), read(record | {"zzz": "another"})
    assert one.key == same.key
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
    whole = EXAMPLES[kind].record()
    names = data.draw(st.lists(st.sampled_from(sorted(whole)), max_size=4))
    alert = read(whole | {name: data.draw(wrong) for name in names})
    details(alert)
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


def test_sinks_that_ask_after_each_other_share_the_answer() -> None:
    alert = read(defender_alert(Description="asked about twice"))
    assert details(alert) is details(msgspec.structs.replace(alert, severity="low"))
    assert details(alert) is not details(read(defender_alert(Description="another")))
    long = read(defender_alert(Description="x" * 20_000))
    assert details(long) == details(long)
    assert details(long) is not details(long), "what is long is not kept"
