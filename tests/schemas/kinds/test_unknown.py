from __future__ import annotations

import pytest

from schemas.kinds import recognise, understand
from tests.fixtures import RESOURCE, SUBSCRIPTION, encoded


def test_an_unknown_record_is_forwarded_as_it_is() -> None:
    raw = b'{ "anything" : [1, {"goes": null}] }'
    alert = understand(raw)
    assert alert.kind == "unknown"
    assert alert.raw == raw
    assert alert.key == understand(raw).key != understand(b'{"anything":2}').key
    assert (alert.severity, alert.status, alert.event_ms) == ("unknown", "unknown", 0)
    assert recognise(raw) is None  # it is looked at anew each time


@pytest.mark.parametrize("time", ["time", "TimeGenerated", "TIME"])
@pytest.mark.parametrize("place", ["resourceId", "ResourceId", "id"])
def test_a_time_and_a_resource_are_read(time: str, place: str) -> None:
    alert = understand(encoded({time: "2026-03-04T10:13:14Z", place: RESOURCE}))
    assert alert.event_ms == 1_772_619_194_000
    assert alert.subscription_id == SUBSCRIPTION
    assert alert.resource_ids == (RESOURCE,)
    assert alert.resource == "shop-vm-1"


def test_an_id_that_is_no_resource_is_not_taken_for_one() -> None:
    assert understand(b'{"id":"42","resourceId":"/tenants/x"}').resource_ids == ()


@pytest.mark.parametrize("raw", [b"{}", b'{"time":{}}', b'{"Type":7}', b'{"id":null,"":""}'])
def test_any_object_will_do(raw: bytes) -> None:
    assert understand(raw).kind == "unknown"
