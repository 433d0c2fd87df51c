from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.alert import Alert, Subscription
from schemas.formats.ndjson import ndjson
from schemas.kinds import understand
from tests.fixtures import RESOURCE, SUBSCRIPTION, defender_alert, encoded, hostile


def alert(**overrides: object) -> Alert:
    made = understand(encoded(defender_alert()))
    made.sequence, made.index, made.enqueued_ms = 4711, 2, 1_772_619_195_001
    return msgspec.structs.replace(made, **overrides)


def read(made: Alert) -> dict[str, object]:
    """The line, read strictly: one line by anybody's reckoning."""
    line = ndjson(made, source="ns/hub/$Default", partition="3")
    text = line.decode()
    assert len(text.splitlines()) == 1
    assert not {"\u0085", "\u2028", "\u2029"} & set(text)
    msgspec.json.decode(line)
    found: dict[str, object] = json.loads(text)
    return found


def test_the_whole_line() -> None:
    known = Subscription(SUBSCRIPTION, "Shop", "ann", "production", "Retail", {"tier": "1"})
    assert read(alert(subscription=known)) == {
        "id": alert().event_id,
        "kind": "defender_alert",
        "entity": alert().entity,
        "version": alert().version,
        "time": "2026-03-04T10:13:14.987000Z",
        "enqueued": "2026-03-04T10:13:15.001000Z",
        "severity": "high",
        "status": "new",
        "title": "Suspicious download by a system account",
        "alert_type": "VM_SuspiciousDownload",
        "product": "Microsoft Defender for Cloud",
        "resource": "shop-vm-1",
        "tactics": ["Persistence", "CredentialAccess"],
        "subscription": {
            "id": SUBSCRIPTION,
            "name": "Shop",
            "owner": "ann",
            "environment": "production",
            "management_group": "Retail",
            "tags": {"tier": "1"},
            "known": True,
        },
        "source": "ns/hub/$Default",
        "partition": "3",
        "sequence": 4711,
        "index": 2,
        "raw": defender_alert(),
    }


def test_without_enrichment_the_subscription_is_its_id() -> None:
    assert read(alert())["subscription"] == msgspec.to_builtins(
        Subscription(SUBSCRIPTION, known=False)
    )
    assert read(alert(subscription_id=""))["subscription"] is None


def test_a_pretty_printed_record_becomes_one_line() -> None:
    raw = json.dumps(defender_alert(), indent=1).replace("\n", "\r\n").encode()
    assert read(alert(raw=raw))["raw"] == defender_alert()


@pytest.mark.parametrize("text", hostile())
@pytest.mark.parametrize("ascii_only", [True, False])
def test_text_stays_text(text: str, ascii_only: bool) -> None:
    record = defender_alert(AlertDisplayName=text, ExtendedProperties={text: RESOURCE})
    raw = json.dumps(record, ensure_ascii=ascii_only, indent=2).encode()
    found = read(understand(raw))
    assert found["raw"] == record
    assert found["title"] == text


values = st.recursive(
    st.none() | st.integers() | st.text(st.characters(exclude_categories=("Cs",))),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.just("k"), inner),
    max_leaves=6,
)


@given(values, st.sampled_from([None, 0, 3]), st.booleans())
def test_any_record_comes_back(value: object, indent: int | None, ascii_only: bool) -> None:
    raw = json.dumps({"a": value}, indent=indent, ensure_ascii=ascii_only).encode()
    assert read(understand(raw))["raw"] == {"a": value}


def test_what_is_no_object_cannot_be_said() -> None:
    with pytest.raises(ValueError, match="not a JSON object"):
        ndjson(alert(raw=b"[]"), source="", partition="")
