"""Checkpoints in Azurite, Microsoft's emulator of Blob Storage, beside the SDK's own store of them
and its own consumers of a hub.
"""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import re
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from azure.core.credentials import AccessToken
from azure.core.exceptions import ClientAuthenticationError, HttpResponseError
from azure.eventhub import EventHubConsumerClient, _client_base
from azure.eventhub._pyamqp import client as pyamqp_client
from azure.eventhub.extensions.checkpointstoreblob import BlobCheckpointStore
from azure.storage.blob import ContainerClient, generate_container_sas
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipelines.local.receivers import certificate
from schemas.batch import Origin
from schemas.kinds import understand
from schemas.receipt import Outcomes
from tests.site import HUB, alerts, site, wait_for
from tests.transforms.sinks.daemons import UNPACKED, Server, Storage, azurite, missing
from transforms import checkpoints
from transforms.account import Settled, account_path, begin, checkpoint
from transforms.checkpoints import (
    CheckpointError,
    Position,
    Publisher,
    others,
    publish,
    publishing,
    take_over,
)
from transforms.read import access as access_module
from transforms.read.access import EventHubsAccess
from transforms.state_store import StateStore

NAMESPACE, HUB_NAME, GROUP = "contoso.servicebus.windows.net", "Defender", "$Default"
SOURCE = f"{NAMESPACE}/{HUB_NAME}/{GROUP}"
LOWER = SOURCE.lower()
SINKS = ("splunk", "archive")

_numbers = itertools.count()


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Storage]:
    with azurite(tmp_path_factory.mktemp("azurite")) as made:
        yield made


class Blobs:
    """A container of its own: what is in it, and the SDK's store in it."""

    def __init__(self, storage: Storage) -> None:
        self.string = storage.environment["AZURE_STORAGE_CONNECTION_STRING"]
        self.name = f"checkpoints-{next(_numbers)}"
        self.client = ContainerClient.from_connection_string(self.string, self.name)
        self.client.create_container()
        self.sdk = BlobCheckpointStore.from_connection_string(self.string, self.name)

    def theirs(self, partition: str, sequence: int, offset: str) -> None:
        """As an SDK's consumer writes it."""
        self.sdk.update_checkpoint(
            {
                "fully_qualified_namespace": NAMESPACE,
                "eventhub_name": HUB_NAME,
                "consumer_group": GROUP,
                "partition_id": partition,
                "sequence_number": sequence,
                "offset": offset,
            }
        )

    def listed(self) -> dict[str, Position]:
        """As an SDK's consumer reads them."""
        found = self.sdk.list_checkpoints(NAMESPACE, HUB_NAME, GROUP)
        return {
            one["partition_id"]: Position(one["sequence_number"], one["offset"]) for one in found
        }

    def put(self, name: str, metadata: dict[str, str] | None = None, data: bytes = b"") -> None:
        self.client.upload_blob(name, data, overwrite=True, metadata=metadata)

    def metadata(self, name: str) -> dict[str, str]:
        return dict(self.client.get_blob_client(name).get_blob_properties().metadata)


@pytest.fixture
def blobs(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> Iterator[Blobs]:
    made = Blobs(storage)
    monkeypatch.setenv("STORAGE", made.string)
    yield made
    made.sdk.close()
    made.client.close()


def access(blobs: Blobs, **fields: Any) -> EventHubsAccess:
    given = {"container": blobs.name, "connection_string": "env:STORAGE", **fields}
    return EventHubsAccess(hub=HUB_NAME, namespace=NAMESPACE, checkpoints=given)


@pytest.fixture
def store(tmp_path: Path) -> StateStore:
    return StateStore(str(tmp_path / "state"))


def settle(store: StateStore, sink: str, partition: str, sequence: int, offset: str) -> None:
    """As the account of a sink writes where it is."""
    account = Settled(sequence, sequence, 0, Outcomes(), 0, offset)
    store.put(account_path(sink, SOURCE, partition), msgspec.json.encode(account))


def free() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


# ----------------------------------------------------------------------- between theirs and ours


def test_what_the_sdk_wrote_is_read(blobs: Blobs) -> None:
    given = {str(n): Position(n * 1000, str(n * 2_700_000)) for n in range(5)}
    for partition, position in given.items():
        blobs.theirs(partition, *position)
    found = others(access(blobs), SOURCE)
    assert {partition: taken[:2] for partition, taken in found.items()} == given
    assert found["3"].blob == f"{LOWER}/checkpoint/3"


def test_what_was_published_is_read_by_the_sdk(blobs: Blobs) -> None:
    given = {"0": Position(0, "0"), "1": Position(2**61, "149:2:81"), "31": Position(7, "x y")}
    assert publish(access(blobs), SOURCE, given) == {}
    assert blobs.listed() == given
    moved = {"0": Position(5, "5000")}
    assert publish(access(blobs), SOURCE, moved) == {}
    assert blobs.listed() == given | moved
    assert {blob.size for blob in blobs.client.list_blobs()} == {0}


def test_checkpoints_of_other_hubs_and_groups_are_not_ours(blobs: Blobs) -> None:
    here = {"offset": "9", "sequencenumber": "9"}
    for name in (
        f"{NAMESPACE}/defender2/{GROUP.lower()}/checkpoint/0",
        f"{NAMESPACE}/defender/{GROUP.lower()}2/checkpoint/0",
        f"{LOWER}/ownership/0",
        f"{LOWER}/checkpoint/deeper/0",
        f"0/{LOWER}/checkpoint/0",
        f"{GROUP}/0",
    ):
        blobs.put(name, here)
    assert others(access(blobs), SOURCE) == {}
    assert publish(access(blobs), SOURCE, {"0": Position(1, "1")}) == {}
    assert blobs.metadata(f"{LOWER}/checkpoint/0") == {"offset": "1", "sequencenumber": "1"}


def test_names_as_go_and_java_write_them_are_read_and_kept_up(blobs: Blobs) -> None:
    verbatim = f"{SOURCE}/checkpoint/0"
    blobs.put(verbatim, {"Offset": "100", "SequenceNumber": "10"})
    assert others(access(blobs), SOURCE)["0"][:2] == (10, "100")
    assert publish(access(blobs), SOURCE, {p: Position(20, "200") for p in "01"}) == {}
    assert blobs.metadata(verbatim) == {"offset": "200", "sequencenumber": "20"}
    assert blobs.listed() == {p: Position(20, "200") for p in "01"}
    names = set(blobs.client.list_blob_names())
    assert f"{SOURCE}/checkpoint/1" not in names, "nobody looks there"


def test_of_several_the_one_written_last_holds_however_far_it_is(blobs: Blobs) -> None:
    here = {"offset": "900", "sequencenumber": "90"}
    lease = b'{"Offset":"900","SequenceNumber":90}'
    blobs.put(f"{SOURCE}/checkpoint/0", here)
    blobs.theirs("1", 90, "900")
    blobs.put(f"{SOURCE}/2", data=lease)
    time.sleep(1.1)  # the service's clock has seconds
    blobs.theirs("0", 10, "100")
    blobs.put(f"{SOURCE}/checkpoint/1", {"offset": "100", "sequencenumber": "10"})
    blobs.theirs("2", 10, "100")
    found = {p: taken.sequence for p, taken in others(access(blobs), SOURCE).items()}
    assert found == {"0": 10, "1": 10, "2": 10}


@pytest.mark.parametrize(
    ("lease", "sequence"),
    [
        (
            {
                "PartitionId": "0",
                "Owner": "o",
                "Epoch": 386,
                "Offset": "85919",
                "SequenceNumber": 9,
            },
            9,
        ),
        ({"Offset": "0", "SequenceNumber": 0}, 0),
        ({"Offset": None, "SequenceNumber": 5}, 5),
        ({"Offset": "85919", "SequenceNumber": None}, None),
        ({"Offset": "85919", "SequenceNumber": -1}, None),
        ([1, 2], None),
    ],
)
def test_a_lease_of_azure_functions_is_read(blobs: Blobs, lease: Any, sequence: int | None) -> None:
    name = f"{SOURCE}/0"
    blobs.put(name, data=json.dumps(lease).encode())
    taken = others(access(blobs), SOURCE)["0"]
    assert (taken.sequence, taken.blob) == (sequence, name)
    assert bool(taken.why) == (sequence is None)
    before = blobs.client.download_blob(name).readall()
    publish(access(blobs), SOURCE, {"0": Position(10, "1")})
    assert blobs.client.download_blob(name).readall() == before, "a lease is never written"


@pytest.mark.parametrize(
    "lease", [{"Offset": "", "SequenceNumber": 0}, {"Offset": None}, {"PartitionId": "0"}]
)
def test_a_lease_that_was_only_taken_is_no_checkpoint(blobs: Blobs, lease: Any) -> None:
    """Event 0 was not dealt with: its number in there is a zero that nobody set."""
    blobs.put(f"{SOURCE}/0", data=json.dumps(lease).encode())
    assert others(access(blobs), SOURCE) == {}


GARBAGE = [
    {},
    {"sequencenumber": ""},
    {"sequencenumber": "soon"},
    {"sequencenumber": "-1"},
    {"sequencenumber": "-9223372036854775808"},  # what .NET says for none
    {"sequencenumber": "1e3"},
    {"sequencenumber": "9" * 19},
    {"sequencenumber": "9" * 400},
    {"other": "5"},
    {"offset": "no offset"},
]


@pytest.mark.parametrize("metadata", GARBAGE)
def test_garbage_is_no_position_and_is_written_over(blobs: Blobs, metadata: Any) -> None:
    blobs.put(f"{LOWER}/checkpoint/0", metadata)
    taken = others(access(blobs), SOURCE)["0"]
    assert taken.sequence is None
    assert 0 < len(taken.why) < 100
    assert publish(access(blobs), SOURCE, {"0": Position(3, "30")}) == {}
    assert blobs.listed() == {"0": Position(3, "30")}


def test_an_offset_alone_is_told_of_and_left(blobs: Blobs) -> None:
    """Where it lies, only the hub knows: it may be ahead."""
    name = f"{LOWER}/checkpoint/0"
    blobs.put(name, {"offset": "500", "sequencenumber": ""})
    assert others(access(blobs), SOURCE)["0"][:2] == (None, "500")
    left = publish(access(blobs), SOURCE, {"0": Position(3, "30"), "1": Position(4, "40")})
    assert left.keys() == {"0"}
    assert blobs.metadata(name)["offset"] == "500"
    assert publish(access(blobs), SOURCE, {"0": Position(3, "30")}, explicit=True) == {}
    assert blobs.listed() == {"0": Position(3, "30"), "1": Position(4, "40")}


@pytest.mark.parametrize("offset", ["", " 5", "5\n", "5\r\nx: y", "Ünï"])
def test_a_position_without_an_offset_that_can_be_written_is_not(blobs: Blobs, offset: str) -> None:
    """The SDK for Python goes on at the offset alone: without one it would begin anew."""
    blobs.theirs("0", 1, "10")
    given = {"0": Position(2, offset), "1": Position(3, offset)}
    assert publish(access(blobs), SOURCE, given, explicit=True) == {}
    assert blobs.listed() == {"0": Position(1, "10")}


# ----------------------------------------------------------------------------------- only onwards


@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(
        st.tuples(st.sampled_from(["theirs", "ours", "explicit"]), st.integers(0, 9)), max_size=8
    )
)
def test_a_checkpoint_steps_back_only_when_told_to(
    blobs: Blobs, steps: list[tuple[str, int]]
) -> None:
    partition = uuid.uuid4().hex
    expected = None
    for who, number in steps:
        position = Position(number, f"{number}00")
        if who == "theirs":
            blobs.theirs(partition, *position)
            expected = position
            continue
        explicit = who == "explicit"
        left = publish(access(blobs), SOURCE, {partition: position}, explicit=explicit)
        if expected is not None and number < expected.sequence and not explicit:
            assert left[partition][:2] == expected
        else:
            assert left == {}
            expected = position
    assert blobs.listed().get(partition) == expected


@pytest.mark.parametrize("there", [True, False])
def test_who_writes_at_the_same_time_is_not_overwritten(
    blobs: Blobs, monkeypatch: pytest.MonkeyPatch, there: bool
) -> None:
    if there:
        blobs.theirs("0", 1, "100")
    listed = checkpoints._checkpoints

    def then_theirs(*args: Any) -> Any:
        found = [*listed(*args)]
        blobs.theirs("0", 9, "900")
        return found

    monkeypatch.setattr(checkpoints, "_checkpoints", then_theirs)
    left = publish(access(blobs), SOURCE, {"0": Position(5, "500")})
    assert left["0"][:2] == (9, "900")
    assert blobs.listed() == {"0": Position(9, "900")}


def test_a_checkpoint_that_was_deleted_meanwhile_is_made_again(
    blobs: Blobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    blobs.theirs("0", 1, "100")
    listed = checkpoints._checkpoints

    def then_gone(*args: Any) -> Any:
        found = [*listed(*args)]
        blobs.client.delete_blob(f"{LOWER}/checkpoint/0")
        return found

    monkeypatch.setattr(checkpoints, "_checkpoints", then_gone)
    assert publish(access(blobs), SOURCE, {"0": Position(5, "500")}) == {}
    assert blobs.listed() == {"0": Position(5, "500")}


# -------------------------------------------------------------------------------------- take over


def test_a_partition_without_an_account_begins_after_the_checkpoint(
    blobs: Blobs, store: StateStore
) -> None:
    blobs.theirs("0", 41, "4100")
    blobs.theirs("2", 7, "700")
    said: list[str] = []
    take_over(access(blobs), SOURCE, store, SINKS, ["0", "1"], said.append)
    assert checkpoint(store, SINKS, Origin(SOURCE, "0")) == 41
    assert checkpoint(store, SINKS, Origin(SOURCE, "1")) is None
    assert checkpoint(store, SINKS, Origin(SOURCE, "2")) is None, "it was not asked for"
    assert [*store.list("accounts")] == [account_path(sink, SOURCE, "0") for sink in sorted(SINKS)]
    assert len(said) == 1
    assert f"{SOURCE}/0: begins at event 42" in said[0]


def test_our_own_account_is_the_authority_and_what_is_ahead_is_said(
    blobs: Blobs, store: StateStore
) -> None:
    positions = {"0": 10, "1": 20, "2": 30}
    for partition, position in positions.items():
        begin(store, SINKS, Origin(SOURCE, partition), position)
    for partition, theirs in (("0", 9), ("1", 20), ("2", 99)):
        blobs.theirs(partition, theirs, "5")
    said: list[str] = []
    take_over(access(blobs), SOURCE, store, SINKS, positions, said.append)
    assert {p: checkpoint(store, SINKS, Origin(SOURCE, p)) for p in positions} == positions
    assert said == [
        f"{SOURCE}/2: another consumer went on to event 99, this pipeline is at 30; "
        "`--from checkpoint` goes on there"
    ]


def test_without_a_place_for_checkpoints_nothing_is_asked(store: StateStore) -> None:
    alone = EventHubsAccess(hub=HUB_NAME, namespace=NAMESPACE)
    take_over(alone, SOURCE, store, SINKS, ["0"], pytest.fail)
    with publishing({SOURCE: alone}, store, SINKS, pytest.fail):
        pass
    assert [*store.list("accounts")] == []


@pytest.mark.parametrize("metadata", [*GARBAGE[:3], {"offset": "500"}])
def test_where_to_begin_is_never_guessed(
    blobs: Blobs, store: StateStore, metadata: dict[str, str]
) -> None:
    blobs.put(f"{LOWER}/checkpoint/0", metadata)
    with pytest.raises(CheckpointError, match="where to begin cannot be told") as error:
        take_over(access(blobs), SOURCE, store, SINKS, ["0"], pytest.fail)
    assert f"{LOWER}/checkpoint/0" in str(error.value)
    assert "--from" in str(error.value)
    assert [*store.list("accounts")] == []
    begin(store, SINKS, Origin(SOURCE, "0"), 5)
    take_over(access(blobs), SOURCE, store, SINKS, ["0"], pytest.fail)


def test_without_the_service_only_a_partition_with_an_account_is_read(
    blobs: Blobs, store: StateStore
) -> None:
    wrong = access(blobs, container="no-such-container")
    begin(store, SINKS, Origin(SOURCE, "0"), 5)
    said: list[str] = []
    take_over(wrong, SOURCE, store, SINKS, ["0"], said.append)
    assert len(said) == 1
    with pytest.raises(CheckpointError, match="no such container"):
        take_over(wrong, SOURCE, store, SINKS, ["0", "1"], pytest.fail)


# ------------------------------------------------------------------------------------- refusals


def test_a_wrong_container_is_told_in_one_line(blobs: Blobs) -> None:
    wrong = access(blobs, container="no-such-container")
    for ask in (others, lambda *to: publish(*to, {"0": Position(1, "1")})):
        with pytest.raises(CheckpointError) as error:
            ask(wrong, SOURCE)
        assert str(error.value) == (
            "the checkpoints in no-such-container: there is no such container: create it, "
            "or correct `container`"
        )


def test_a_container_that_is_deleted_while_it_is_written_is_told(
    blobs: Blobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "_checkpoints", lambda *args: [])
    blobs.client.delete_container()
    with pytest.raises(CheckpointError, match="no such container"):
        publish(access(blobs), SOURCE, {"0": Position(1, "1")})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda s: s.replace("AccountKey=", "AccountKey=AAAA"), "HTTP 403.: is env:STORAGE a key"),
        (lambda s: re.sub("AccountKey=[^;]*", "AccountKey=abcde", s), "no connection string of"),
        (lambda s: "Endpoint=sb://x/;SharedAccessKey=abcd", "no connection string of Azure Sto"),
        (lambda s: "nonsense", "no connection string of Azure Storage"),
        (lambda s: "", "STORAGE is not set, or empty"),
        (lambda s: s.partition("BlobEndpoint=")[0] + "BlobEndpoint=http://127.0.0.1:9/alertbeam;",
         "does not answer"),
    ],
    ids=["key", "no key", "another", "nonsense", "none", "nobody there"],
)  # fmt: skip
def test_a_wrong_connection_string_is_told_in_one_line_without_it(
    blobs: Blobs, monkeypatch: pytest.MonkeyPatch, change: Callable[[str], str], said: str
) -> None:
    monkeypatch.setenv("STORAGE", change(blobs.string))
    key = blobs.string.partition("AccountKey=")[2].partition(";")[0]
    for ask in (others, lambda *to: publish(*to, {"0": Position(1, "1")})):
        with pytest.raises(CheckpointError, match=said) as error:
            ask(access(blobs), SOURCE)
        assert key not in str(error.value)
        assert "abcd" not in str(error.value)
        assert "\n" not in str(error.value)
        assert len(str(error.value)) < 300


def test_a_signature_that_may_only_read_is_told_that_it_may_not_write(
    blobs: Blobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    blobs.theirs("0", 1, "100")
    signature = generate_container_sas(
        "alertbeam",
        blobs.name,
        blobs.client.credential.account_key,
        permission="rl",
        expiry=datetime.now(timezone.utc) + timedelta(hours=1),
    )
    endpoint = blobs.client.primary_endpoint.rpartition("/")[0]
    string = f"BlobEndpoint={endpoint};SharedAccessSignature={signature}"
    monkeypatch.setenv("STORAGE", string)
    assert others(access(blobs), SOURCE)["0"][:2] == (1, "100")
    with pytest.raises(CheckpointError, match="or a signature to list, read and write") as error:
        publish(access(blobs), SOURCE, {"0": Position(2, "200")})
    assert signature not in str(error.value)


def test_what_an_identity_lacks_is_said() -> None:
    by_url = EventHubsAccess(
        hub=HUB_NAME,
        namespace=NAMESPACE,
        checkpoints={"container": "https://contoso.blob.core.windows.net/checkpoints"},
    )
    line = checkpoints._plain(by_url, ClientAuthenticationError("DefaultAzureCredential failed …"))
    assert "azure-identity has no credential" in line
    refusal = HttpResponseError("…")
    refusal.status_code, refusal.error_code = 403, "AuthorizationPermissionMismatch"
    line = checkpoints._plain(by_url, refusal)
    assert "AuthorizationPermissionMismatch (HTTP 403): this identity needs the role " in line


def token(**changes: Any) -> AccessToken:
    """As Entra makes them, but for the signature, which Azurite does not look at."""
    now = int(time.time())
    issuer = "https://sts.windows.net/00000000-0000-4000-8000-000000000000/"
    claims = {"aud": "https://storage.azure.com", "iss": issuer, "iat": now}
    claims |= {"nbf": now - 60, "exp": now + 3600}
    parts = ({"alg": "RS256", "typ": "JWT"}, claims | changes)
    text = [base64.urlsafe_b64encode(json.dumps(part).encode()).decode() for part in parts]
    return AccessToken(".".join([*(part.rstrip("=") for part in text), "c2ln"]), now + 3600)


def test_a_container_by_its_url_is_reached_with_an_identity(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing("azurite")
    cert, key = certificate(tmp_path / "certificates")
    port = free()
    program = UNPACKED / "azurite"
    command = [str(program / "node"), str(program / "node_modules/azurite/dist/src/blob/main.js")]
    command += ["--skipApiVersionCheck", "--disableTelemetry", "--location", str(tmp_path)]
    command += ["--blobHost", "127.0.0.1", "--blobPort", str(port), "--oauth", "basic"]
    command += ["--cert", str(cert), "--key", str(key)]
    account = base64.b64encode(b"k" * 64).decode()
    endpoint = f"https://127.0.0.1:{port}/contoso"
    string = f"AccountName=contoso;AccountKey={account};BlobEndpoint={endpoint};"
    given = SimpleNamespace(get_token=lambda *scopes, **options: token())
    monkeypatch.setattr(access_module, "identity", lambda credential: given)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(cert))
    ours = EventHubsAccess(
        hub=HUB_NAME, namespace=NAMESPACE, checkpoints={"container": f"{endpoint}/kept"}
    )
    with Server(command, tmp_path, [port], {"AZURITE_ACCOUNTS": f"contoso:{account}"}):
        with pytest.raises(CheckpointError, match="there is no such container"):
            others(ours, SOURCE)
        with ContainerClient.from_connection_string(string, "kept") as client:
            client.create_container()
        assert publish(ours, SOURCE, {"0": Position(5, "500")}) == {}
        assert others(ours, SOURCE)["0"][:2] == (5, "500")
        given.get_token = lambda *scopes, **options: token(aud="https://elsewhere.example")
        with pytest.raises(CheckpointError, match="of the same tenant") as error:
            others(ours, SOURCE)
        assert f"the checkpoints in {endpoint}/kept: " in str(error.value)


# ------------------------------------------------------------------------------------- publishing


def running(blobs: Blobs, store: StateStore, said: list[str], **options: Any) -> Publisher:
    return Publisher(access(blobs, every=0.02), SOURCE, store, SINKS, said.append, **options)


def test_the_least_position_of_the_sinks_is_published_as_it_moves_and_at_the_end(
    blobs: Blobs, store: StateStore
) -> None:
    said: list[str] = []
    settle(store, "splunk", "0", 50, "5000")
    settle(store, "archive", "0", 40, "4000")
    settle(store, "removed", "0", 1, "100")
    with running(blobs, store, said):
        wait_for(lambda: blobs.listed() == {"0": Position(40, "4000")})
        settle(store, "archive", "0", 60, "6000")
        settle(store, "archive", "1", 3, "300")
        both = {"0": Position(50, "5000"), "1": Position(3, "300")}
        wait_for(lambda: blobs.listed() == both)
    slow = Publisher(access(blobs, every=3600), SOURCE, store, SINKS, said.append)
    with slow:
        settle(store, "splunk", "0", 60, "6000")
    assert blobs.listed()["0"] == Position(60, "6000")
    assert said == []


def test_a_sink_that_was_given_its_position_leaves_the_offset_to_one_that_got_there(
    blobs: Blobs, store: StateStore
) -> None:
    settle(store, "splunk", "0", 50, "5000")
    settle(store, "archive", "0", 50, "")
    settle(store, "splunk", "1", 70, "7000")
    settle(store, "archive", "1", 60, "")
    with publishing({SOURCE: access(blobs)}, store, SINKS, pytest.fail):
        pass
    assert blobs.listed() == {"0": Position(50, "5000")}


def test_only_what_moved_is_written(blobs: Blobs, store: StateStore) -> None:
    for partition in "01":
        for sink in SINKS:
            settle(store, sink, partition, 5, "500")
    said: list[str] = []
    with running(blobs, store, said):
        wait_for(lambda: len(blobs.listed()) == 2)
        blobs.client.delete_blob(f"{LOWER}/checkpoint/0")
        for sink in SINKS:
            settle(store, sink, "1", 6, "600")
        wait_for(lambda: blobs.listed() == {"1": Position(6, "600")})


def test_a_checkpoint_that_is_ahead_is_said_once_and_left_until_it_is_passed(
    blobs: Blobs, store: StateStore
) -> None:
    blobs.theirs("0", 55, "5500")
    said: list[str] = []
    with running(blobs, store, said):
        for sequence in (40, 45, 50):
            for sink in SINKS:
                settle(store, sink, "0", sequence, f"{sequence}00")
                settle(store, sink, "1", sequence, f"{sequence}00")
            wait_for(lambda n=sequence: blobs.listed().get("1", (0,))[0] == n)
            assert blobs.listed()["0"] == Position(55, "5500")
        for sink in SINKS:
            settle(store, sink, "0", 56, "5600")
        wait_for(lambda: blobs.listed()["0"] == Position(56, "5600"))
    assert len(said) == 1
    assert "went on to event 55, this pipeline is at 4" in said[0]


def test_a_run_that_was_told_where_to_begin_steps_back_once(
    blobs: Blobs, store: StateStore
) -> None:
    blobs.theirs("0", 55, "5500")
    said: list[str] = []
    for sink in SINKS:
        settle(store, sink, "0", 10, "")  # where it was told to begin
    with running(blobs, store, said, explicit=True):
        for sink in SINKS:
            settle(store, sink, "0", 12, "1200")
        wait_for(lambda: blobs.listed() == {"0": Position(12, "1200")})
        blobs.theirs("0", 99, "9900")
        for sink in SINKS:
            settle(store, sink, "0", 13, "1300")
        wait_for(lambda: said)
    assert blobs.listed() == {"0": Position(99, "9900")}, "by then it was another's"


class Relay:
    """A way to the service that can be cut, or hang."""

    def __init__(self, port: int) -> None:
        self._to = port
        self.state = "up"
        self._open: list[socket.socket] = []
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                here, _ = self._server.accept()
                self._open.append(here)
                if self.state == "down":
                    here.close()
                elif self.state == "up":
                    there = socket.create_connection(("127.0.0.1", self._to))
                    self._open.append(there)
                    for ends in ((here, there), (there, here)):
                        threading.Thread(target=self._carry, args=ends, daemon=True).start()

    def _carry(self, one: socket.socket, other: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := one.recv(65_536):
                if self.state == "up":
                    other.sendall(data)
        with contextlib.suppress(OSError):
            other.shutdown(socket.SHUT_RDWR)

    def cut(self, state: str) -> None:
        self.state = state
        if state == "down":
            self.hang_up()

    def hang_up(self) -> None:
        for one in self._open:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        self._open.clear()

    def close(self) -> None:
        self.hang_up()
        self._server.close()


@pytest.fixture
def relay(blobs: Blobs, monkeypatch: pytest.MonkeyPatch) -> Iterator[Relay]:
    port = int(blobs.string.partition("127.0.0.1:")[2].partition("/")[0])
    made = Relay(port)
    monkeypatch.setenv("STORAGE", blobs.string.replace(f":{port}/", f":{made.port}/"))
    yield made
    made.close()


def test_a_service_that_is_down_is_said_once_and_tried_again(
    blobs: Blobs, store: StateStore, relay: Relay
) -> None:
    said: list[str] = []
    with running(blobs, store, said):
        for sink in SINKS:
            settle(store, sink, "0", 1, "100")
        wait_for(lambda: blobs.listed() == {"0": Position(1, "100")})
        relay.cut("down")
        for sequence in (2, 3):
            for sink in SINKS:
                settle(store, sink, "0", sequence, f"{sequence}00")
            time.sleep(0.1)
        assert len(said) == 1
        assert said[0].startswith("checkpoints are not published for now: the checkpoints in ")
        assert "does not answer" in said[0]
        assert blobs.listed() == {"0": Position(1, "100")}
        relay.cut("up")
        wait_for(lambda: blobs.listed() == {"0": Position(3, "300")})
    assert [line.rpartition(": ")[2] for line in said[1:]] == ["checkpoints are published again"]


def test_a_run_that_ends_while_the_service_is_silent_ends(
    blobs: Blobs, store: StateStore, relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(access_module._PATIENCE, "read_timeout", 0.2)
    relay.cut("silent")
    said: list[str] = []
    for sink in SINKS:
        settle(store, sink, "0", 1, "100")
    began = time.monotonic()
    with running(blobs, store, said):
        wait_for(lambda: said)
    assert time.monotonic() - began < 3
    assert len(said) == 1


def test_a_key_that_was_changed_is_read_anew(
    blobs: Blobs, store: StateStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STORAGE", blobs.string.replace("AccountKey=", "AccountKey=AAAA"))
    said: list[str] = []
    for sink in SINKS:
        settle(store, sink, "0", 1, "100")
    with running(blobs, store, said):
        wait_for(lambda: said)
        monkeypatch.setenv("STORAGE", blobs.string)
        wait_for(lambda: blobs.listed() == {"0": Position(1, "100")})


def test_a_state_folder_that_cannot_be_read_does_not_end_it(
    blobs: Blobs, store: StateStore
) -> None:
    said: list[str] = []
    path = account_path("splunk", SOURCE, "0")
    store.put(path, b"{")
    with running(blobs, store, said):
        wait_for(lambda: said)
        store.delete(path)
        settle(store, "archive", "0", 1, "100")
        wait_for(lambda: blobs.listed() == {"0": Position(1, "100")})


# --------------------------------------------------------------------- one consumer after another


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The SDK polls with naps of 50 ms while it opens; naps of 1 ms do as well."""
    naps = SimpleNamespace(time=time.time, sleep=lambda seconds: time.sleep(min(seconds, 0.001)))
    for module in (_client_base, pyamqp_client):
        monkeypatch.setattr(module, "time", naps)


def consume(
    connection_string: str, blobs: Blobs, enough: Callable[[dict[str, list[int]]], bool], most: int
) -> dict[str, list[int]]:
    """Run the SDK's consumer until it has seen enough. Sequence numbers by partition, up to
    `most`: what comes after that is neither told nor checkpointed."""
    seen: dict[str, list[int]] = {}
    done = threading.Event()
    client = EventHubConsumerClient.from_connection_string(
        connection_string,
        GROUP,
        eventhub_name=HUB,
        checkpoint_store=BlobCheckpointStore.from_connection_string(blobs.string, blobs.name),
        load_balancing_interval=0.2,
        load_balancing_strategy="greedy",
    )

    def on_event(context: Any, event: Any) -> None:
        if event is not None and event.sequence_number <= most:
            seen.setdefault(context.partition_id, []).append(event.sequence_number)
            context.update_checkpoint(event)
        if enough(seen):
            done.set()

    thread = threading.Thread(
        target=client.receive, args=(on_event,), kwargs={"starting_position": "-1"}, daemon=True
    )
    thread.start()
    assert done.wait(60), seen
    client.close()
    thread.join(30)
    return seen


@pytest.mark.usefixtures("quick")
def test_theirs_ours_and_theirs_again_each_goes_on_exactly_where_the_other_stopped(
    blobs: Blobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    partitions, half, count = 2, 20, 40
    bodies = list(alerts(partitions * count + partitions * 10).values())
    with site(tmp_path, partitions) as place:
        monkeypatch.setenv("STORAGE", blobs.string)
        place.write(sinks=[{"file": {"folder": "archive"}}])
        events = iter(bodies)
        ids: dict[tuple[str, int], str] = {}

        def fill(first: int, number: int) -> None:
            for partition in range(partitions):
                some = [next(events) for _ in range(number)]
                place.hub.publish(HUB, some, partition)
                for sequence, body in enumerate(some, first):
                    ids[str(partition), sequence] = understand(body).event_id

        fill(0, count)
        hub = place.hub.connection_string(HUB)

        def all_at(last: int) -> Callable[[dict[str, list[int]]], bool]:
            return lambda seen: [s[-1] for s in seen.values()] == [last] * partitions

        first = consume(hub, blobs, all_at(half - 1), most=half - 1)
        assert first == {str(p): [*range(half)] for p in range(partitions)}

        source, ours = place.source, access(blobs)
        said: list[str] = []
        take_over(ours, source, place.store, ["file"], first, said.append)
        with publishing({source: ours}, place.store, ["file"], said.append):
            place.catch_up()
        assert all("begins at event 20" in line for line in said)
        assert sorted(line["id"] for line in place.archived()) == sorted(
            ids[str(p), n] for p in range(partitions) for n in range(half, count)
        )

        fill(count, 10)
        last = consume(hub, blobs, all_at(count + 9), most=count + 9)
        assert last == {str(p): [*range(count, count + 10)] for p in range(partitions)}
