"""Tokens from a double of Entra's token endpoint: asked for, renewed, refused, never shown."""

from __future__ import annotations

import base64
import json
import logging
import os
import pickle
import time
from collections.abc import Iterator

import pytest
import requests
from pydantic import ValidationError

from pipelines.local.receivers import Answer, Reset, Silence
from tests.transforms.entra import CLIENT, TENANT, EntraReceiver
from transforms.entra import Bearer, ClientSecret, Credential, EntraCredential
from transforms.secrets import SecretError

SECRET = "s3cret+of%an application/"
SCOPE = "https://monitor.azure.com/.default"
HOUR = 3599


@pytest.fixture(autouse=True)
def secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", SECRET)


@pytest.fixture
def entra() -> Iterator[EntraReceiver]:
    with EntraReceiver(secret=SECRET, scopes={SCOPE}, lifetime=HOUR) as made:
        yield made


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch):
    """Let so many seconds pass."""
    real, passed = time.time, [0.0]
    monkeypatch.setattr(time, "time", lambda: real() + passed[0])

    def pass_(seconds: float) -> None:
        passed[0] += seconds

    return pass_


def credential(entra: EntraReceiver, **other: str) -> Credential:
    given = entra.credential("env:SECRET")["client_secret"]
    return EntraCredential(client_secret=ClientSecret(**{**given, **other}))


def bearer(entra: EntraReceiver, scope: str = SCOPE, timeout: float = 5.0, **other: str) -> Bearer:
    return Bearer(credential(entra, **other), scope, timeout)


def test_a_token_is_asked_for_by_its_scope_and_known(entra):
    assert entra.knows(bearer(entra).header(), SCOPE)
    (form,) = entra.asked
    assert (form["grant_type"], form["client_id"], form["scope"]) == (
        "client_credentials",
        CLIENT,
        SCOPE,
    )
    assert "client_secret" not in form


def test_a_token_of_one_service_is_none_of_another(entra):
    other = "https://analysis.windows.net/powerbi/api/.default"
    entra.scopes = {SCOPE, other}
    header = bearer(entra, other).header()
    assert entra.knows(header, other)
    assert not entra.knows(header, SCOPE)


def test_a_token_is_kept_and_renewed_minutes_before_its_end(entra, later):
    made = bearer(entra)
    first = made.header()
    later(HOUR - 400)
    assert made.header() == first
    assert len(entra.asked) == 1
    later(150)
    second = made.header()
    assert second != first
    assert entra.knows(second, SCOPE)
    assert entra.knows(first, SCOPE), "renewed while it was still good"
    assert len(entra.asked) == 2


@pytest.mark.parametrize("trouble", ["down", "refusing"])
def test_a_token_that_is_still_good_is_used_while_none_can_be_had(entra, later, trouble):
    made = bearer(entra)
    first = made.header()
    if trouble == "down":
        entra.refuse()
    else:
        entra.secret = "another"
    later(HOUR - 100)
    assert made.header() == first
    before = time.time()
    assert [made.header() for _ in range(50)] == [first] * 50
    assert time.time() - before < 1, "it asked each time"
    later(110)
    with pytest.raises((SecretError, ConnectionError)):
        made.header()


def test_a_token_for_less_than_the_margin_is_not_asked_for_each_time(entra):
    entra.lifetime = 200
    made = bearer(entra)
    assert len({made.header() for _ in range(20)}) == 1
    assert len(entra.asked) == 1


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"client_id": "someone-else"}, "AADSTS700016.*someone-else"),
        ({"tenant_id": "elsewhere.example"}, "(?i)tenant"),
    ],
)
def test_what_is_wrong_is_named(entra, wrong, said):
    with pytest.raises(SecretError, match=said) as caught:
        bearer(entra, **wrong).header()
    assert SECRET not in str(caught.value)


def test_a_wrong_secret_is_named_by_its_reference_with_what_to_do(entra, caplog, monkeypatch):
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("SECRET", "hunter2")
    said = r"env:SECRET.*AADSTS7000215.*the client secret value"
    with pytest.raises(SecretError, match=said) as caught:
        bearer(entra).header()
    assert "hunter2" not in str(caught.value) + caplog.text
    assert str(caught.value).isprintable()


def test_a_missing_secret_is_named_by_its_reference(entra, monkeypatch):
    monkeypatch.delenv("SECRET")
    with pytest.raises(SecretError, match="env:SECRET"):
        bearer(entra)


def test_a_service_that_the_tenant_does_not_know_is_named(entra):
    with pytest.raises(SecretError, match=r"AADSTS500011.*monitor\.azure\.us"):
        bearer(entra, "https://monitor.azure.us/.default").header()


def test_nobody_there_is_a_failure_of_the_connection(entra):
    entra.refuse()
    started = time.monotonic()
    with pytest.raises(ConnectionError, match=r"env:SECRET.*monitor\.azure\.com"):
        bearer(entra, timeout=1.0).header()
    assert time.monotonic() - started < 2


@pytest.mark.parametrize("fault", [Silence(), Reset()], ids=["silent", "reset"])
def test_who_never_answers_is_given_up_in_time(entra, fault):
    made = bearer(entra, timeout=0.6)
    entra.fail(fault)
    started = time.monotonic()
    with pytest.raises(ConnectionError):
        made.header()
    assert time.monotonic() - started < 2
    entra.heal()
    assert entra.knows(made.header(), SCOPE)


@pytest.mark.parametrize("status", [500, 503])
def test_a_failure_of_its_own_is_one_of_the_connection(entra, status):
    entra.fail(Answer(status))
    with pytest.raises(ConnectionError):
        bearer(entra).header()


def test_who_is_not_certified_is_asked_for_nothing(entra):
    with pytest.MonkeyPatch.context() as without:
        without.delenv("REQUESTS_CA_BUNDLE")
        with pytest.raises(ConnectionError, match=r"(?i)certificate"):
            bearer(entra).header()
    assert not entra.asked


def test_a_token_shows_nowhere(entra, caplog):
    caplog.set_level(logging.DEBUG)
    made = bearer(entra)
    token = made.header().removeprefix("Bearer ")
    shown = f"{made!r} {made} {caplog.text}"
    assert token not in shown
    assert SECRET not in shown
    for packed in (pickle.dumps, lambda it: pickle.dumps([it]), lambda it: it.__reduce__()):
        with pytest.raises(TypeError, match="cannot be pickled"):
            packed(made)
    assert made.hide(f"not for {token}!") == "not for ***!"


def test_the_settings_of_a_credential_refuse_what_cannot_be_one_without_repeating_it():
    for wrong in ({"tenant_id": "hunter2/../x"}, {"client_id": "hunter2 "}, {"authority": "a/b"}):
        given = {"tenant_id": TENANT, "client_id": CLIENT, "secret": "env:SECRET", **wrong}
        with pytest.raises(ValidationError) as caught:
            ClientSecret(**given)
        assert "hunter2" not in str(caught.value)


class TestDouble:
    """It refuses what Entra would refuse."""

    @pytest.fixture
    def ask(self, entra):
        def post(path: str = f"/{TENANT}/oauth2/v2.0/token", **form: str | None):
            given = {
                "grant_type": "client_credentials",
                "client_id": CLIENT,
                "client_secret": SECRET,
                "scope": SCOPE,
                **form,
            }
            return requests.post(entra.url + path, data=given, timeout=5)

        return post

    def test_it_gives_a_token_that_says_what_it_is_for(self, ask):
        answer = ask()
        assert answer.status_code == 200
        claims = answer.json()["access_token"].split(".")[1]
        assert json.loads(base64.urlsafe_b64decode(claims + "==="))["aud"] == SCOPE[:-9]

    @pytest.mark.parametrize(
        ("form", "status", "error", "code"),
        [
            ({"grant_type": "password"}, 400, "unsupported_grant_type", 70003),
            ({"client_id": "x"}, 400, "unauthorized_client", 700016),
            ({"client_secret": "x"}, 401, "invalid_client", 7000215),
            ({"client_secret": None}, 400, "invalid_request", 900144),
            ({"scope": "https://monitor.azure.com"}, 400, "invalid_scope", 1002012),
            ({"scope": "https://nobody/.default"}, 400, "invalid_resource", 500011),
        ],
    )
    def test_it_refuses(self, ask, form, status, error, code):
        answer = ask(**form)
        said = answer.json()
        assert (answer.status_code, said["error"], said["error_codes"]) == (status, error, [code])
        assert said["error_description"].startswith(f"AADSTS{code}: ")
        assert SECRET not in answer.text

    def test_it_knows_one_tenant_and_its_two_pages(self, ask):
        assert ask(path="/other/oauth2/v2.0/token").json()["error"] == "invalid_tenant"
        assert ask(path=f"/{TENANT}/oauth2/token").status_code == 404

    def test_it_trusts_no_token_after_its_end(self, entra, later):
        header = bearer(entra).header()
        later(HOUR + 1)
        assert not entra.knows(header, SCOPE)

    def test_the_environment_is_as_it_was_when_the_last_one_stops(self, entra):
        with EntraReceiver(secret=SECRET, scopes={SCOPE}):
            assert os.environ["REQUESTS_CA_BUNDLE"] == str(entra.ca)
        assert os.environ["REQUESTS_CA_BUNDLE"] == str(entra.ca)
        entra.stop()
        assert os.environ.get("REQUESTS_CA_BUNDLE") != str(entra.ca)
