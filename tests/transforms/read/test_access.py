"""How a hub is reached: what the settings may say, and that no secret is in them."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
from azure.identity import ClientSecretCredential, DefaultAzureCredential
from pydantic import ValidationError

from transforms.entra import ClientSecret, EntraCredential
from transforms.read.access import BlobCheckpoints, EventHubsAccess
from transforms.secrets import SecretError

STRING = (
    "Endpoint=sb://contoso.servicebus.windows.net/;SharedAccessKeyName=listen;"
    "SharedAccessKey=a2V5LXRoYXQtbm9ib2R5LXNlZXM="
)
KEY = "a2V5LXRoYXQtbm9ib2R5LXNlZXM="
STORAGE = f"DefaultEndpointsProtocol=https;AccountName=contoso;AccountKey={KEY};"
STORAGE += "EndpointSuffix=core.windows.net"
CONTAINER = "https://contoso.blob.core.windows.net/checkpoints"


def entra(**fields: Any) -> EventHubsAccess:
    return EventHubsAccess(hub="defender", namespace="contoso.servicebus.windows.net", **fields)


def test_a_connection_string_is_read_from_where_the_reference_leads(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "string").write_text(STRING + "\n")
    monkeypatch.setenv("HUB", STRING)
    for reference in ("env:HUB", f"file:{tmp_path}/string"):
        access = EventHubsAccess(hub="defender", connection_string=reference, consumer_group="siem")
        client = access.client()
        assert client.eventhub_name == "defender"
        assert client._consumer_group == "siem"
        assert client._address.hostname == "contoso.servicebus.windows.net"


def test_a_secret_is_read_anew_for_each_client(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HUB", STRING)
    access = EventHubsAccess(hub="defender", connection_string="env:HUB")
    access.client()
    monkeypatch.setenv("HUB", STRING.replace("contoso", "fabrikam"))
    assert access.client()._address.hostname == "fabrikam.servicebus.windows.net"


def test_a_reference_that_leads_nowhere_is_told_when_it_is_needed() -> None:
    access = EventHubsAccess(hub="defender", connection_string="env:NO_SUCH_VARIABLE")
    with pytest.raises(SecretError, match="NO_SUCH_VARIABLE"):
        access.client()


def test_nothing_that_can_be_printed_or_shipped_holds_the_secret(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HUB", STRING)
    access = EventHubsAccess(hub="defender", connection_string="env:HUB")
    access.client()
    for shown in (repr(access), str(access), access.model_dump_json(), repr(pickle.dumps(access))):
        assert KEY not in shown
    assert pickle.loads(pickle.dumps(access)) == access
    assert hash(pickle.loads(pickle.dumps(access))) == hash(access)


def test_without_anything_said_azure_finds_the_identity() -> None:
    assert isinstance(entra().client()._credential, DefaultAzureCredential)


def test_an_application_has_its_own_credential(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", KEY)
    secret = ClientSecret(tenant_id="t" * 8, client_id="c", secret="env:SECRET")
    access = entra(credential=EntraCredential(client_secret=secret))
    assert isinstance(access.client()._credential, ClientSecretCredential)
    assert KEY not in repr(access)
    assert hash(access) == hash(pickle.loads(pickle.dumps(access)))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, "give either `namespace`"),
        ({"namespace": "n", "connection_string": "env:X"}, "give either `namespace`"),
        ({"connection_string": STRING}, "a secret is given as a reference"),
        ({"connection_string": "env:X", "prefetch": 0}, "greater than or equal to 1"),
        ({"connection_string": "env:X", "start": "yesterday"}, "'earliest' or 'latest'"),
        ({"connection_string": "env:X", "nonsense": 1}, "nonsense"),
        ({"connection_string": "env:X", "hub": ""}, "at least 1 character"),
        ({"namespace": "n", "credential": {"password": KEY}}, "client_secret"),
    ],
)
def test_a_mistake_is_named_and_a_pasted_secret_is_not_repeated(
    fields: dict[str, Any], said: str
) -> None:
    with pytest.raises(ValidationError) as error:
        EventHubsAccess(**{"hub": "defender", **fields})
    assert said in str(error.value)
    assert KEY not in str(error.value)


def test_what_is_not_said_has_its_default() -> None:
    access = entra()
    assert (access.consumer_group, access.start, access.prefetch) == ("$Default", "earliest", 3000)


# ---------------------------------------------------------------------------------- checkpoints


def test_checkpoints_are_in_a_container_of_the_account_that_the_secret_names(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("STORAGE", STORAGE)
    with BlobCheckpoints(container="checkpoints", connection_string="env:STORAGE").client() as one:
        assert one.url == CONTAINER


def test_checkpoints_by_url_are_reached_with_the_same_kinds_of_identity(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SECRET", KEY)
    secret = ClientSecret(tenant_id="t" * 8, client_id="c", secret="env:SECRET")
    for credential, kind in (
        ("default", DefaultAzureCredential),
        (EntraCredential(client_secret=secret), ClientSecretCredential),
    ):
        with BlobCheckpoints(container=f"{CONTAINER}/", credential=credential).client() as one:
            assert one.url == CONTAINER
            assert isinstance(one.credential, kind)


def test_settings_of_checkpoints_hold_no_secret_and_are_shipped_with_the_hub(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("STORAGE", STORAGE)
    given = {"container": "checkpoints", "connection_string": "env:STORAGE"}
    access = entra(checkpoints=given)
    assert access.checkpoints is not None
    access.checkpoints.client().close()
    for shown in (repr(access), str(access), access.model_dump_json(), repr(pickle.dumps(access))):
        assert KEY not in shown
    assert pickle.loads(pickle.dumps(access)) == access
    assert hash(pickle.loads(pickle.dumps(access))) == hash(access)
    assert access.checkpoints.every == 5
    assert entra().checkpoints is None


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"container": "checkpoints"}, "`container` is https://ACCOUNT"),
        ({"container": CONTAINER.replace("https", "http")}, "`container` is https://ACCOUNT"),
        ({"container": "https://contoso.blob.core.windows.net"}, "`container` is https://ACCOUNT"),
        ({"container": f"{CONTAINER}?sv=2024&sig={KEY}"}, "is a secret"),
        ({"container": CONTAINER, "connection_string": "env:X"}, "`container` is a name"),
        ({"container": "a--b", "connection_string": "env:X"}, "`container` is a name"),
        ({"container": "$logs", "connection_string": "env:X"}, "`container` is a name"),
        ({"container": "ab", "connection_string": "env:X"}, "`container` is a name"),
        ({"container": "c" * 64, "connection_string": "env:X"}, "`container` is a name"),
        ({"container": "Checkpoints", "connection_string": "env:X"}, "`container` is a name"),
        ({"container": "checkpoints", "connection_string": STORAGE}, "given as a reference"),
        ({"container": CONTAINER, "every": 0}, "greater than 0"),
        ({"container": CONTAINER, "nonsense": 1}, "nonsense"),
        ({}, "container"),
    ],
)
def test_a_mistake_about_checkpoints_is_named_and_no_secret_repeated(
    fields: dict[str, Any], said: str
) -> None:
    with pytest.raises(ValidationError) as error:
        entra(checkpoints=fields)
    assert said in str(error.value)
    assert KEY not in str(error.value)


@pytest.mark.parametrize(
    "url",
    [CONTAINER, f"{CONTAINER}/", "https://127.0.0.1:10000/devstoreaccount1/a-1", "https://h/abc"],
)
def test_a_container_may_be_at_any_host(url: str) -> None:
    assert BlobCheckpoints(container=url).container == url
