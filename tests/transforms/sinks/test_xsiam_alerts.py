"""The sink of XSIAM's and XDR's alerts against a strict tenant: keys, codes, limits, addresses."""

from __future__ import annotations

import hashlib
import pickle
import re
import time
import types
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import ValidationError

from pipelines.local.receivers import Answer
from schemas.receipt import Outcome
from tests.transforms.sinks.alerts import HOSTILE, PARTITION, SOURCE, alert, identity, parcels
from tests.transforms.sinks.doubles.xsiam import Saying
from tests.transforms.sinks.doubles.xsiam_alerts import Tenant
from transforms.delivery.cortex import signed
from transforms.delivery.engine import Engine
from transforms.sinks.base import Accepted, Refresh, Retry, Shrink, Split, Stop, Verdict
from transforms.sinks.xsiam_alerts import XsiamAlerts, XsiamAlertsSettings

KEY = "c0ffee-api-key"


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEY", KEY)


@pytest.fixture
def tenant() -> Iterator[Tenant]:
    with Tenant(KEY) as made:
        yield made


def sink(there: Tenant | str, **options: Any) -> XsiamAlerts:
    url = there if isinstance(there, str) else there.url
    given = {"url": url, "key": "env:KEY", "key_id": "7", "patience": 1.0}
    return XsiamAlerts("xdr", XsiamAlertsSettings(**{**given, **options}))


def payload(made: XsiamAlerts, number: int = 1, **fields: Any) -> bytes:
    return made.encode(alert(number, **fields), SOURCE, PARTITION)


def send(made: XsiamAlerts, *payloads: bytes) -> Verdict:
    connection = made.connect()
    try:
        return connection.send(payloads or (payload(made),), 0.5)
    finally:
        connection.close()


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"url": "http://api-a.example"}, "unencrypted"),
        ({"key": "hunter2"}, "as a reference"),
        ({"key_id": "hunter2"}, "pattern"),
        ({"key_id": ""}, "pattern"),
        ({"key_type": "hunter2"}, "standard"),
        ({"unknown_address": "hunter2"}, "no IPv4 address"),
        ({"unknown_address": "::1"}, "no IPv4 address"),
    ],
)
def test_settings_that_are_wrong_are_told_and_not_repeated(given, complaint):
    with pytest.raises(ValidationError, match=complaint) as caught:
        sink("https://a", **given)
    assert "hunter2" not in str(caught.value)


def test_sixty_in_a_request_and_six_hundred_a_minute():
    limits = sink("https://a").limits
    assert limits.max_records == 60
    assert limits.rate.records == 10


def test_more_than_sixty_are_refused_and_halved(tenant):
    made = sink(tenant)
    payloads = [payload(made, n) for n in range(61)]
    assert isinstance(send(made, *payloads), Split)
    assert isinstance(send(made, *payloads[:60]), Accepted)
    assert tenant.ids() == [identity(n) for n in range(60)]


def test_the_pace_of_the_api_is_kept():
    """A second's worth at once, and one request more that owes; the next one waits."""
    with Tenant(KEY, per_minute=25) as tenant:
        engine = Engine(sink(tenant))
        engine.submit(parcels(engine.sink, range(40)))
        engine.settle(within=0.4)
        requests, received = tenant.requests, tenant.received
        engine.close()
    assert requests <= 2
    assert 10 <= received <= 20


def test_what_the_quota_refuses_is_waited_for(tenant):
    tenant.per_minute = 3
    made = sink(tenant)
    payloads = [payload(made, n) for n in range(4)]
    assert isinstance(send(made, *payloads), Retry)
    assert isinstance(send(made, *payloads[:3]), Accepted)


def test_an_advanced_key_signs_each_request_anew(monkeypatch):
    with Tenant(KEY, key_type="advanced") as tenant:
        assert isinstance(send(sink(tenant)), Refresh)
        made = sink(tenant, key_type="advanced")
        connection = made.connect()
        for n in range(3):
            assert isinstance(connection.send([payload(made, n)], 0.5), Accepted)
        connection.close()
        assert "takes the key" in made.check(0.5)
        wrong = types.SimpleNamespace(time=lambda: time.time() - 3600)
        monkeypatch.setattr("transforms.delivery.cortex.time", wrong)
        verdict = send(made)
    assert isinstance(verdict, Refresh)
    assert "this machine's clock" in verdict.reason


def test_the_headers_of_both_types_of_keys():
    assert signed("secret", "7", False) == {"Authorization": "secret", "x-xdr-auth-id": "7"}
    assert signed("secret", "", False) == {"Authorization": "secret"}
    one, two = signed("secret", "7", True), signed("secret", "7", True)
    assert one["x-xdr-nonce"] != two["x-xdr-nonce"]
    assert re.fullmatch("[A-Za-z0-9]{64}", one["x-xdr-nonce"])
    made = f"secret{one['x-xdr-nonce']}{one['x-xdr-timestamp']}"
    assert one["Authorization"] == hashlib.sha256(made.encode()).hexdigest()


@pytest.mark.parametrize(
    ("status", "verdict"),
    [
        *((status, Stop) for status in (302, 307, 402, 403, 404, 405)),
        *((status, Split) for status in (400, 422)),
        *((status, Retry) for status in (408, 429, 500, 502, 503, 504)),
        (401, Refresh),
        (413, Shrink),
    ],
)
def test_every_status_has_its_meaning(tenant, status, verdict):
    tenant.fail(Answer(status, text="because"))
    got = send(sink(tenant))
    assert isinstance(got, verdict)
    assert got.reason.startswith(f"HTTP {status}: because")


def test_a_role_that_may_not_is_told_what_it_lacks(tenant):
    tenant.fail(Answer(403, text="Insufficient permissions for api key"))
    verdict = send(sink(tenant))
    assert isinstance(verdict, Stop)
    assert "External Alerts Mapping" in verdict.reason


@pytest.mark.parametrize("said", [{"reply": True}, {"reply": {"count": 1}}, True])
def test_taken_is_what_any_edition_calls_so(tenant, said):
    tenant.fail(Saying(said))
    assert isinstance(send(sink(tenant)), Accepted)


@pytest.mark.parametrize(
    "said",
    [b"", b"<html>", False, {}, {"reply": False}, {"reply": None}, {"reply": {"err_code": 500}}],
)
def test_a_success_that_does_not_say_so_is_none(tenant, said):
    tenant.fail(Saying(said, taken=False))
    assert isinstance(send(sink(tenant)), Stop)


def test_an_address_that_is_not_known_is_empty_or_what_the_settings_say(tenant):
    for made in (sink(tenant), sink(tenant, unknown_address="0.0.0.0")):
        assert isinstance(send(made, payload(made, text=HOSTILE)), Accepted)
    said = [(one["local_ip"], one["remote_ip"]) for one in tenant.alerts()]
    assert said == [("", ""), ("0.0.0.0", "0.0.0.0")]


def test_a_status_update_is_an_alert_of_its_own(tenant):
    made = sink(tenant)
    first, then = alert(1, status="new"), alert(2, entity="entity-1", status="resolved")
    for one in (first, then):
        assert isinstance(send(made, made.encode(one, SOURCE, PARTITION)), Accepted)
    assert tenant.ids() == [identity(1), identity(2)]
    assert "Status: resolved" in tenant.alerts()[1]["alert_description"]


def test_what_is_said_shorter_keeps_its_ids(tenant):
    made, large = sink(tenant), alert(1, text='"' * 100_000)
    for most in (3_000, 20_000):
        said = made.shrink(large, SOURCE, PARTITION, most)
        assert said is not None
        assert most // 4 < len(said) <= most
        assert isinstance(send(made, said), Accepted)
    assert tenant.ids() == [identity(1)] * 2
    assert made.shrink(large, SOURCE, PARTITION, 300) is None
    assert made.shrink(alert(1), SOURCE, PARTITION, 3_000) is None


def test_one_that_is_refused_is_dead_and_the_others_arrive(tenant):
    class Picky(Tenant):
        def respond(self, request: Any) -> Any:
            if identity(2).encode() in request.body:
                return self.refused(Answer(400, text="not this one"))
            return super().respond(request)

    with Picky(KEY) as picky:
        engine = Engine(sink(picky, patience=5))
        sent = parcels(engine.sink, range(5))
        engine.submit(sent)
        engine.close()
        outcomes = [parcel.outcome for parcel in sent]
        assert outcomes == [Outcome.DEAD if n == 2 else Outcome.DELIVERED for n in range(5)]
        assert "not this one" in sent[2].reason


def test_the_check_tells_a_wrong_key_and_sends_no_alert(tenant, monkeypatch):
    assert "may insert alerts" in sink(tenant).check(1)
    assert tenant.requests == 0
    monkeypatch.setenv("KEY", "another")
    with pytest.raises(OSError, match="HTTP 401"):
        sink(tenant).check(1)


def test_a_role_that_may_not_ask_for_health_does_not_matter(tenant):
    tenant.fail(Answer(403, text="Insufficient permissions"), on="/public_api/v1/healthcheck")
    sink(tenant).probe(1)
    tenant.fail(Answer(503), on="/public_api/v1/healthcheck")
    with pytest.raises(OSError, match="HTTP 503"):
        sink(tenant).probe(1)


def test_neither_the_key_nor_what_is_made_of_it_shows(tenant):
    class Echo(Tenant):
        def respond(self, request: Any) -> Any:
            return self.refused(Answer(403, text=f"no: {request.headers['authorization']}"))

    for key_type in ("standard", "advanced"):
        with Echo(KEY) as echo:
            made = sink(echo, key_type=key_type)
            verdict = send(made)
        assert isinstance(verdict, Stop)
        assert "no: ***" in verdict.reason
        assert KEY not in f"{made!r} {made.settings!r} {pickle.dumps(made)!r}"
