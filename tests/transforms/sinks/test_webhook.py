"""The webhook sink against a strict endpoint: signatures, idempotency, forms, refusals, secrets."""

from __future__ import annotations

import base64
import json
import pickle
import re
import time
import types
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pydantic import ValidationError

from pipelines.local.receivers import Answer, Drip, HalfClose, Reply, Request, Reset, certificate
from schemas.formats import FORMATS
from schemas.receipt import Outcome
from tests.transforms.sinks.alerts import HOSTILE, PARTITION, SOURCE, alert, identity, parcels
from tests.transforms.sinks.doubles.webhook import Endpoint
from transforms.delivery.engine import Engine
from transforms.secrets import SecretError
from transforms.sinks.base import Accepted, Refresh, Retry, Shrink, Split, Stop, Verdict
from transforms.sinks.webhook import Webhook, WebhookSettings, sign

KEY = b"a key of 24 bytes or more"
SECRET = f"whsec_{base64.b64encode(KEY).decode()}"
D, DEAD, OWED = Outcome.DELIVERED, Outcome.DEAD, Outcome.OWED


@pytest.fixture(autouse=True)
def secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIGNING", SECRET)


def endpoint(**options: Any) -> Endpoint:
    return Endpoint(KEY, **options)


@pytest.fixture
def hook() -> Iterator[Endpoint]:
    with endpoint() as made:
        yield made


def sink(there: Endpoint | str, **options: Any) -> Webhook:
    url = there if isinstance(there, str) else f"{there.url}/hook"
    given: dict[str, Any] = {"url": url, "secret": "env:SIGNING", "patience": 0.5, "timeout": 0.3}
    if "secret_url" in options:
        del given["url"]
    return Webhook("hook", WebhookSettings(**{**given, **options}))


def send(webhook: Webhook, *payloads: bytes) -> Verdict:
    """What one request comes to."""
    connection = webhook.connect()
    try:
        return connection.send(payloads or (payload(webhook),), 0.3)
    finally:
        connection.close()


def payload(webhook: Webhook, number: int = 1, **fields: Any) -> bytes:
    return webhook.encode(alert(number, **fields), SOURCE, PARTITION)


@pytest.fixture
def deliver() -> Iterator[Callable[..., list[Outcome | None]]]:
    engines: list[Engine] = []

    def run(webhook: Webhook, count: int = 3, **options: Any) -> list[Outcome | None]:
        engines.append(Engine(webhook, cool_down=(0.03, 0.1)))
        sent = parcels(webhook, range(count), **options)
        engines[-1].submit(sent)
        engines[-1].settle()
        return [parcel.outcome for parcel in sent]

    yield run
    for engine in engines:
        engine.close()


class TestSettings:
    @pytest.mark.parametrize(
        ("given", "complaint"),
        [
            ({}, "either `url` or `secret_url`"),
            ({"url": "https://a/b", "secret_url": "env:X"}, "either `url` or `secret_url`"),
            ({"url": "http://hook.example/b"}, "unencrypted"),
            ({"url": "https://user:hunter2@a/b"}, "no user, password"),
            ({"url": "https://a/b?sig=hunter2"}, "give such a URL as `secret_url`"),
            ({"url": "https://a/b c"}, "printable ASCII"),
            ({"url": "https://a/b\r\nX-Forged: hunter2"}, "printable"),
            ({"url": "https://ä/b"}, "printable ASCII"),
            ({"secret_url": "https://a/hunter2"}, "a secret is given as a reference"),
            ({"url": "https://a/b", "secret": "hunter2"}, "a secret is given as a reference"),
            ({"url": "https://a/b", "headers": {"X-Key": "hunter2"}}, "as a reference"),
            ({"url": "https://a/b", "headers": {"X Key": "env:X"}}, "no name of a header"),
            ({"url": "https://a/b", "headers": {"X:\r\nY": "env:X"}}, "no name of a header"),
            ({"url": "https://a/b", "headers": {"": "env:X"}}, "no name of a header"),
            ({"url": "https://a/b", "headers": {"HOST": "env:X"}}, "set by alertbeam itself"),
            ({"url": "https://a/b", "headers": {"Webhook-Id": "env:X"}}, "set by alertbeam"),
            ({"url": "https://a/b", "headers": {"a": "env:X", "A": "env:Y"}}, "twice"),
            ({"url": "https://a/b", "format": "nonsense"}, "no such format"),
            ({"url": "https://a/b", "format": "cef", "batch": "array"}, "an array holds JSON"),
        ],
    )
    def test_what_is_wrong_is_refused_without_repeating_what_may_be_secret(self, given, complaint):
        with pytest.raises(ValidationError, match=complaint) as caught:
            WebhookSettings(**given)
        assert "hunter2" not in str(caught.value)

    def test_a_url_without_a_path_means_the_root(self):
        assert sink("https://hook.example").settings.url == "https://hook.example/"

    @pytest.mark.parametrize(
        ("value", "complaint"),
        [
            ("http://hook.example/hunter2", "unencrypted"),
            ("hook.example/hunter2", "a URL is needed"),
            ("https://u:hunter2@hook.example", "no user, password"),
            ("https://hook.example/?sig=hunter2#x", "no fragment"),
            ("https://hook.example/hunter2\r\nX-Forged: y", "printable"),
        ],
    )
    def test_a_secret_address_is_held_to_the_same_rules_once_it_is_known(
        self, monkeypatch, value, complaint
    ):
        monkeypatch.setenv("HOOK", value)
        webhook = sink("", secret_url="env:HOOK")
        for use in (webhook.connect, lambda: webhook.check(1), lambda: webhook.probe(1)):
            with pytest.raises(SecretError, match=f"env:HOOK: .*{complaint}") as caught:
                use()
            assert "hunter2" not in str(caught.value)

    @pytest.mark.parametrize("value", ["whsec_", "whsec_hunter2!"])
    def test_a_signing_secret_that_is_no_base64_is_told_not_used(self, monkeypatch, value):
        monkeypatch.setenv("SIGNING", value)
        with pytest.raises(SecretError, match=r"env:SIGNING: .*base64") as caught:
            sink("https://a").connect()
        assert "hunter2" not in str(caught.value)

    @pytest.mark.parametrize("value", ["hunter2\r\nX-Forged: 1", "hunter2 ü"])
    def test_a_header_that_would_forge_another_is_not_sent(self, monkeypatch, value):
        monkeypatch.setenv("AUTH", value)
        with pytest.raises(SecretError, match="env:AUTH: ") as caught:
            sink("https://a", headers={"Authorization": "env:AUTH"}).connect()
        assert "hunter2" not in str(caught.value)


class TestSignature:
    def test_it_is_the_one_that_the_standards_own_libraries_expect(self):
        key = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
        made = sign(key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
        assert made == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="

    def test_the_endpoint_knows_the_standards_own_example(self, monkeypatch):
        """The double's verification is held to the same vector, apart from the sink."""
        strict = Endpoint(base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"))
        identity, stamp = "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330
        signature = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
        headers = {
            "content-type": "application/json",
            "idempotency-key": f'"{identity}"',
            "webhook-id": identity,
            "webhook-timestamp": str(stamp),
            "webhook-signature": f"v2,AAAA v1,BBBB {signature}",
        }
        request = Request("POST", "/hook", {}, headers, b'{"test": 2432232314}')
        for now, status in ((0, 200), (300, 200), (301, 400), (-301, 400)):
            monkeypatch.setattr(time, "time", lambda now=now: stamp + now)
            assert strict.respond(request).status == status
        monkeypatch.setattr(time, "time", lambda: stamp)
        forged = Request("POST", "/hook", {}, headers, b'{"test": 2432232315}')
        assert strict.respond(forged).status == 401

    @pytest.mark.parametrize(
        ("secret", "key"),
        [
            (SECRET, KEY),
            (SECRET.rstrip("="), KEY),
            ("simply a passphrase", b"simply a passphrase"),
        ],
    )
    def test_a_secret_is_whsec_and_base64_or_the_key_as_it_is(self, monkeypatch, secret, key):
        monkeypatch.setenv("SIGNING", secret)
        with Endpoint(key) as hook:
            assert isinstance(send(sink(hook)), Accepted)

    def test_with_another_key_it_is_refused_and_after_a_change_it_is_taken(self, hook, monkeypatch):
        monkeypatch.setenv("SIGNING", "another")
        assert isinstance(send(sink(hook)), Refresh)
        monkeypatch.setenv("SIGNING", SECRET)
        assert isinstance(send(sink(hook)), Accepted)

    def test_without_a_secret_nothing_is_signed(self):
        with Endpoint() as hook:
            assert isinstance(send(sink(hook, secret=None)), Accepted)
            assert "webhook-signature" not in hook.seen[-1].headers

    def test_a_later_attempt_bears_a_later_time_and_the_same_id(self, hook, monkeypatch):
        webhook, now = sink(hook), time.time()
        for later in (0, 7):
            monkeypatch.setattr(time, "time", lambda later=later: now + later)
            assert isinstance(send(webhook), Accepted)
        first, second = hook.seen
        stamps = [int(request.headers["webhook-timestamp"]) for request in (first, second)]
        assert stamps[1] - stamps[0] == 7
        assert first.headers["webhook-id"] == second.headers["webhook-id"]
        assert first.headers["webhook-signature"] != second.headers["webhook-signature"]

    def test_the_body_is_signed_as_it_was_before_compression(self, hook):
        webhook = sink(hook, gzip=True)
        assert isinstance(send(webhook), Accepted)
        assert hook.seen[-1].headers["content-encoding"] == "gzip"
        assert hook.ids() == [identity(1)]


class TestIdempotency:
    def test_a_repeat_is_known_by_its_key_also_after_a_restart(self, hook):
        for webhook in (sink(hook), sink(hook), pickle.loads(pickle.dumps(sink(hook)))):
            assert isinstance(send(webhook), Accepted)
        assert (hook.ids(), hook.repeats) == ([identity(1)], 2)

    def test_no_two_bodies_share_a_key(self, hook):
        webhook = sink(hook)
        for number in range(20):
            assert isinstance(send(webhook, payload(webhook, number)), Accepted)
        assert len({request.headers["idempotency-key"] for request in hook.seen}) == 20

    def test_the_endpoint_refuses_a_key_with_another_body(self, hook):
        send(sink(hook))
        (first,) = hook.seen
        hook.key = None
        assert hook.respond(first).status == 200
        other = Request("POST", "/hook", {}, first.headers, b'{"id": "forged"}')
        assert hook.respond(other).status == 422

    def test_what_was_taken_before_the_connection_broke_is_not_taken_twice(self, hook, deliver):
        hook.fail(Reset(taken=True), times=1)
        assert deliver(sink(hook), 5) == [D] * 5
        assert hook.ids() == [identity(n) for n in range(5)]
        assert hook.repeats == 1


class TestForms:
    def test_one_alert_a_request_unless_told_otherwise(self, hook, deliver):
        assert deliver(sink(hook), 5) == [D] * 5
        assert hook.requests == 5
        assert hook.ids() == [identity(n) for n in range(5)]

    @pytest.mark.parametrize("batch", ["array", "lines"])
    def test_several_in_a_request_never_more_than_the_settings_say(self, batch, deliver):
        with endpoint(batch=batch, max_bytes=10_000) as hook:
            webhook = sink(hook, batch=batch, max_bytes=10_000, max_records=7, patience=5)
            assert deliver(webhook, 100) == [D] * 100
            assert hook.ids() == [identity(n) for n in range(100)]
            sizes = [len(request.body) for request in hook.seen]
        assert hook.requests < 50
        assert max(sizes) <= 10_000
        counts = [request.body.count(b'"SystemAlertId"') for request in hook.seen]
        assert max(counts) == 7

    @pytest.mark.parametrize("batch", ["array", "lines"])
    def test_a_full_request_holds_the_bytes_that_it_may_and_not_one_more(self, batch):
        with endpoint(batch=batch) as hook:
            webhook = sink(hook, batch=batch)
            payloads = [payload(webhook, n) for n in range(3)]
            assert isinstance(send(webhook, *payloads), Accepted)
            assert len(hook.seen[-1].body) == sum(map(len, payloads)) + 3 + (batch == "array")
        filled = sink(hook, batch=batch, max_bytes=1_000_000).limits.max_bytes
        assert filled + (batch == "array") <= 1_000_000

    @pytest.mark.parametrize("batch", ["one", "array", "lines"])
    @pytest.mark.parametrize(
        "name", [name for name, form in FORMATS.items() if form.media_type == "application/json"]
    )
    def test_every_json_format_is_taken_in_every_form(self, batch, name):
        with endpoint(batch=batch) as hook:
            webhook = sink(hook, batch=batch, format=name)
            hostile = {"text": HOSTILE, "alert_type": HOSTILE, "resource": HOSTILE}
            assert isinstance(send(webhook, payload(webhook, 1, **hostile)), Accepted)
            assert hook.received == 1

    @pytest.mark.parametrize("name", ["cef", "rfc5424"])
    def test_text_is_sent_as_text(self, name):
        class Text(Endpoint):
            def respond(self, request: Request) -> Reply:
                self.seen.append(request)
                return Reply(204)

        with Text() as hook:
            webhook = sink(hook, format=name, batch="lines")
            assert isinstance(send(webhook, payload(webhook, 1, text=HOSTILE), b"x"), Accepted)
        (request,) = hook.seen
        assert request.headers["content-type"] == "text/plain; charset=utf-8"
        assert request.body.count(b"\n") == 2

    def test_a_raw_record_over_several_lines_is_one_line_among_lines(self):
        raw = b'{\r\n  "id": "x",\n  "text": "a\\nb"\n}'
        with endpoint(batch="lines") as hook:
            webhook = sink(hook, batch="lines", format="raw")
            assert isinstance(send(webhook, payload(webhook, raw=raw)), Accepted)
            assert hook.records() == [json.loads(raw)]
        assert payload(sink("https://a", format="raw"), raw=raw) == raw

    def test_headers_are_sent_with_the_values_that_their_references_lead_to(self, monkeypatch):
        monkeypatch.setenv("AUTH", "Bearer hunter2")
        monkeypatch.setenv("TENANT", "contoso")
        wanted = {"Authorization": "Bearer hunter2", "X-Tenant": "contoso"}
        with endpoint(headers=wanted) as hook:
            headers = {"Authorization": "env:AUTH", "X-Tenant": "env:TENANT"}
            assert isinstance(send(sink(hook, headers=headers)), Accepted)
            assert isinstance(send(sink(hook)), Refresh)

    def test_a_secret_address_may_have_a_query(self, hook, monkeypatch):
        monkeypatch.setenv("HOOK", f"{hook.url}/hook?sig=a%2Fb&sv=1")
        assert isinstance(send(sink("", secret_url="env:HOOK")), Accepted)
        assert hook.seen[-1].query == {"sig": "a/b", "sv": "1"}

    def test_a_record_that_is_too_large_is_said_shorter_where_it_is_json(self):
        large = alert(1, text="x" * 100_000)
        said = sink("https://a").shrink(large, SOURCE, PARTITION, 2_000)
        assert said is not None
        assert len(said) <= 2_000
        assert identity(1) in json.dumps(json.loads(said))
        assert sink("https://a").shrink(large, SOURCE, PARTITION, 20) is None
        assert sink("https://a", format="cef").shrink(large, SOURCE, PARTITION, 2_000) is None


class TestVerdicts:
    @pytest.mark.parametrize(
        ("status", "verdict"),
        [
            *((status, Accepted) for status in (200, 201, 202, 204)),
            *((status, Stop) for status in (301, 302, 303, 307, 308, 403, 404, 405, 410)),
            *((status, Retry) for status in (408, 409, 425, 429, 500, 502, 503, 504)),
            *((status, Split) for status in (400, 422)),
            (401, Refresh),
            (413, Shrink),
        ],
    )
    def test_every_status_has_its_meaning(self, hook, status, verdict):
        hook.fail(Answer(status, text="because"))
        got = send(sink(hook))
        assert isinstance(got, verdict)
        assert f"HTTP {status}" in (got.said if isinstance(got, Accepted) else got.reason)

    def test_a_redirect_is_not_followed_and_said_to_be_one(self, hook):
        with endpoint() as elsewhere:
            hook.fail(Answer(307, headers=(("Location", f"{elsewhere.url}/hook"),)))
            verdict = send(sink(hook))
            assert isinstance(verdict, Stop)
            assert "redirects are not followed" in verdict.reason
            assert elsewhere.connections == 0

    @pytest.mark.parametrize("status", [409, 429, 503])
    def test_a_pause_that_is_asked_for_is_passed_on(self, hook, status):
        hook.fail(Answer(status, headers=(("Retry-After", "17"),)))
        verdict = send(sink(hook))
        assert isinstance(verdict, Retry)
        assert verdict.after == 17

    def test_a_body_is_quoted_in_a_line_of_200_printable_characters_at_most(self, hook):
        hook.fail(Answer(400, text="\x1b[31mred\r\n\u202e" + "x" * 5_000))
        verdict = send(sink(hook))
        assert isinstance(verdict, Split)
        assert verdict.reason.isprintable()
        assert "red" in verdict.reason
        assert len(verdict.reason.partition(": ")[2]) == 200

    @pytest.mark.parametrize("fault", [HalfClose(), Reset(), Drip(0.1)])
    def test_no_answer_is_a_failure_within_the_time(self, hook, fault):
        hook.fail(fault)
        started = time.monotonic()
        with pytest.raises(OSError):
            send(sink(hook))
        assert time.monotonic() - started < 0.6

    def test_a_record_that_is_refused_is_dead_and_the_others_arrive(self, deliver):
        class Picky(Endpoint):
            def respond(self, request: Request) -> Reply:
                if identity(2).encode() in request.body:
                    return Reply(422, {"error": "not this one"})
                return super().respond(request)

        for batch in ("one", "lines", "array"):
            with Picky(KEY, batch=batch) as hook:
                assert deliver(sink(hook, batch=batch, patience=5), 5) == [D, D, DEAD, D, D]
                assert hook.ids() == [identity(n) for n in (0, 1, 3, 4)]


class TestSecrets:
    @pytest.mark.parametrize("said", ["authorization", "x-pin", "path", "target", "sig", "key"])
    def test_an_endpoint_that_repeats_what_it_was_sent_tells_nobody_our_secrets(
        self, monkeypatch, said
    ):
        target = "/hook/T000/hidden%2Fpart?sig=s3cr3ts3cr3t%3D"
        monkeypatch.setenv("AUTH", "Bearer hunter2-hunter2.c0ffee")
        monkeypatch.setenv("PIN", "4-71")

        class Echo(Endpoint):
            def respond(self, request: Request) -> Reply:
                assert request.query["sig"] == "s3cr3ts3cr3t="
                repeated = {"path": request.path, "target": target, "key": SECRET}
                repeated |= {**request.headers, **request.query}
                return Reply(403, {"error": "refused: " + repeated.get(said, "")})

        with Echo() as hook:
            monkeypatch.setenv("HOOK", hook.url + target)
            headers = {"Authorization": "env:AUTH", "X-Pin": "env:PIN"}
            verdict = send(sink("", secret_url="env:HOOK", headers=headers))
        assert isinstance(verdict, Stop)
        assert "refused" in verdict.reason
        for part in ("hunter2", "c0ffee", "4-71", "hidden", "s3cr3t", SECRET[6:20]):
            assert part not in verdict.reason

    def test_they_are_in_no_pickle_and_no_repr(self, monkeypatch):
        monkeypatch.setenv("HOOK", "https://hook.example/hunter2")
        monkeypatch.setenv("AUTH", "hunter2")
        webhook = sink("", secret_url="env:HOOK", headers={"Authorization": "env:AUTH"})
        connection = webhook.connect()
        shown = f"{webhook!r} {webhook.settings!r} {connection!r} {pickle.dumps(webhook)!r}"
        assert "hunter2" not in shown
        assert SECRET not in shown


class TestCheck:
    def test_it_connects_and_sends_nothing_and_says_what_it_cannot_know(self, hook):
        webhook = sink(hook)
        webhook.probe(1)
        said = webhook.check(1)
        assert "can be reached" in said
        assert "certificate" not in said
        assert "alertbeam sinks test hook" in said
        assert (hook.requests, len(hook.seen)) == (0, 0)
        hook.refuse()
        for ask in (webhook.probe, webhook.check):
            with pytest.raises(OSError):
                ask(1)

    def test_it_tells_whether_the_certificate_was_verified(self, tmp_path):
        cert, key = certificate(tmp_path)
        with endpoint(tls=(cert, key)) as hook:
            assert "certificate is verified" in sink(hook, tls={"ca": str(cert)}).check(1)
            assert "verified" not in sink(hook, tls={"verify": False}).check(1)
            with pytest.raises(OSError):
                sink(hook).check(1)
            assert isinstance(send(sink(hook, tls={"ca": str(cert)})), Accepted)

    def test_a_secret_that_is_missing_is_told(self, hook, monkeypatch):
        monkeypatch.delenv("SIGNING")
        with pytest.raises(SecretError, match="SIGNING is not set"):
            sink(hook).check(1)

    def test_what_to_look_for(self):
        assert identity(1) in sink("https://a").find(identity(1))
        assert identity(1) not in sink("https://a", format="raw").find(identity(1))


@pytest.mark.parametrize("hours", [-1, 1])
def test_where_our_clock_is_wrong_the_records_are_not_to_blame(
    hook: Endpoint, monkeypatch: pytest.MonkeyPatch, hours: int
) -> None:
    """The endpoint refuses the signature's time, some with 400: as dead letters they were lost."""
    wrong = types.SimpleNamespace(time=lambda: time.time() + hours * 3600)
    monkeypatch.setattr("transforms.sinks.webhook.time", wrong)
    hook.fail(Answer(400))
    verdict = send(sink(hook))
    assert isinstance(verdict, Retry)
    assert re.search(r"this machine's clock is 3,(599|60[0-2]) s ", verdict.reason)
    assert ("ahead of" if hours > 0 else "behind") in verdict.reason


def test_a_refusal_while_our_clock_is_right_is_about_the_records(hook: Endpoint) -> None:
    hook.fail(Answer(400))
    assert not isinstance(send(sink(hook)), Retry)
