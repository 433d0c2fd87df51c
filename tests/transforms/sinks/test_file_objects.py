"""The file sink on object stores: moto's S3 and Microsoft's Azurite, behind a gateway that fails;
and, where its client is installed, a double of Google Cloud Storage.
"""

from __future__ import annotations

import http.client
import importlib.util
import json
import logging
import re
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import pytest
from pydantic import ValidationError

from pipelines.local.receivers import (
    Answer,
    Drip,
    HalfClose,
    HttpReceiver,
    Reply,
    Request,
    Reset,
    Silence,
)
from pipelines.settings import SettingsError, load
from schemas.receipt import Outcome
from tests.transforms.sinks.alerts import HOSTILE, PARTITION, SOURCE, alert, identity, parcels
from tests.transforms.sinks.daemons import Storage, azurite, moto
from transforms.delivery.engine import Engine
from transforms.secrets import SecretError
from transforms.sinks.base import Accepted, Connection, Refresh, Retry, Stop
from transforms.sinks.file import File, FileSettings

D, OWED = Outcome.DELIVERED, Outcome.OWED


class Gateway(HttpReceiver):
    """The way to the real store. Faults are about objects, not about probes."""

    def __init__(self, endpoint: str) -> None:
        super().__init__(max_bytes=16_000_000)
        self._host = urlsplit(endpoint).netloc

    def faulty(self, request: Request) -> bool:
        return request.method == "PUT" and "probe" not in request.path

    def respond(self, request: Request) -> Reply:
        target = quote(request.path)
        if request.query:
            target += f"?{urlencode(request.query)}"
        there = http.client.HTTPConnection(self._host, timeout=10)
        fields = {name: value for name, value in request.headers.items() if name != "expect"}
        there.request(request.method, target, request.body, fields)
        answer = there.getresponse()
        body = answer.read()
        there.close()
        mine = {"date", "server", "content-length", "connection", "keep-alive", "transfer-encoding"}
        told = {name: value for name, value in answer.getheaders() if name.lower() not in mine}
        return Reply(answer.status, body, told)

    def refused(self, fault: Answer) -> Reply:
        code = fault.text or "ServerBusy"
        body = f"<Error><Code>{code}</Code><Message>nothing to repeat</Message></Error>"
        told = {"Content-Type": "application/xml", "x-ms-error-code": code}
        return Reply(fault.status, body.encode(), told)


class Store:
    """A folder of its own in one of the two, and the way there."""

    def __init__(self, storage: Storage, gateway: Gateway) -> None:
        self.storage, self.gateway = storage, gateway
        self.url = f"{storage.url}/{uuid.uuid4().hex}/lake"

    def sink(self, name: str = "lake", **options: Any) -> File:
        given = {"patience": 10.0, "timeout": 5.0, "folder": self.url, **options}
        return File(name, FileSettings(**given))

    def objects(self) -> dict[str, bytes]:
        """By name."""
        bucket, _, folder = self.url.split("://")[1].partition("/")
        if self.url.startswith("s3"):
            import boto3

            client = boto3.client("s3", endpoint_url=self.storage.endpoint)
            listed = client.list_objects_v2(Bucket=bucket, Prefix=folder).get("Contents", [])
            found = {
                o["Key"]: client.get_object(Bucket=bucket, Key=o["Key"])["Body"].read()
                for o in listed
            }
        else:
            from azure.storage.blob import ContainerClient

            container, _, folder = folder.partition("/")
            given = self.storage.environment["AZURE_STORAGE_CONNECTION_STRING"]
            with ContainerClient.from_connection_string(given, container) as client:
                found = {
                    name: client.download_blob(name).readall()
                    for name in client.list_blob_names(name_starts_with=folder)
                }
        return {name.rpartition("/")[2]: data for name, data in found.items()}

    def ids(self) -> list[str]:
        """In the order of the objects' names."""
        found = [data for _, data in sorted(self.objects().items())]
        assert all(data.endswith(b"\n") for data in found), "every object is whole"
        return [json.loads(line)["id"] for line in b"".join(found).split(b"\n")[:-1]]


@pytest.fixture(scope="module", params=[moto, azurite], ids=["s3", "azure"])
def storage(request: pytest.FixtureRequest, tmp_path_factory) -> Iterator[Storage]:
    with request.param(tmp_path_factory.mktemp("store")) as made:
        yield made


@pytest.fixture
def store(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    with Gateway(storage.endpoint) as gateway:
        direct, through = urlsplit(storage.endpoint).netloc, gateway.address
        for name, value in storage.environment.items():
            monkeypatch.setenv(name, value.replace(direct, through))
        yield Store(storage, gateway)


def send(connection: Connection, *numbers: int, timeout: float = 5.0) -> Any:
    made = File("lake", FileSettings(folder=Path()))
    return connection.send([made.encode(alert(n), SOURCE, PARTITION) for n in numbers], timeout)


def deliver(engine: Engine, numbers: range, text: str = "text") -> list[Outcome | None]:
    sent = parcels(engine.sink, numbers, text)
    engine.submit(sent)
    engine.settle()
    return [parcel.outcome for parcel in sent]


def eventually(check: Callable[[], bool], within: float = 5.0) -> None:
    until = time.monotonic() + within
    while not check():
        assert time.monotonic() < until, "it did not come about"
        time.sleep(0.02)


# ------------------------------------------------------------------------- what is written


def test_a_request_is_an_object_with_a_name_of_its_own(store):
    connection = store.sink().connect()
    assert [send(connection, 1, 2), send(connection, 3)] == [Accepted()] * 2
    names = sorted(store.objects())
    assert len({*names}) == 2
    for number, name in enumerate(names):
        assert re.fullmatch(rf"lake-\d{{8}}T\d{{6}}Z-[0-9a-f]{{12}}-{number:06}\.ndjson", name)
    assert store.ids() == [identity(n) for n in (1, 2, 3)], "names sort by time"


def test_hostile_alerts_arrive_as_they_are(store):
    engine = Engine(store.sink())
    assert deliver(engine, range(30), HOSTILE) == [D] * 30
    engine.close()
    assert store.ids() == [identity(n) for n in range(30)]
    lines = b"".join(store.objects().values()).split(b"\n")
    assert json.loads(lines[0])["raw"]["Description"] == HOSTILE


def test_objects_are_cut_at_the_limit_and_a_larger_record_goes_alone(store):
    assert store.sink().limits.max_bytes == 8_000_000
    sink = store.sink(max_bytes=20_000)
    engine = Engine(sink, linger=1.0)
    assert deliver(engine, range(20), "x" * 1_000) == [D] * 20
    assert deliver(engine, range(20, 21), "x" * 30_000) == [D]
    engine.close()
    sizes = sorted(map(len, store.objects().values()))
    assert len(sizes) > 3
    assert all(size <= 20_000 for size in sizes[:-1]) and sizes[-1] > 60_000
    assert sorted(store.ids()) == sorted(identity(n) for n in range(21))


def test_eight_megabytes_go_in_one_object(store):
    sink = store.sink(timeout=20)
    payload = sink.encode(alert(1, text="x" * 3_999_000), SOURCE, PARTITION)
    assert sink.connect().send([payload], 20) == Accepted()
    assert [*store.objects().values()] == [payload + b"\n"]


def test_the_same_records_again_are_another_object(store):
    """Two events may have the same bytes; only what failed is written over."""
    connection = store.sink().connect()
    assert [send(connection, 1), send(connection, 1)] == [Accepted()] * 2
    assert store.ids() == [identity(1)] * 2


def test_sinks_and_senders_share_a_folder(store):
    engines = [Engine(store.sink(name, concurrency=2)) for name in ("one", "two")]
    for start in (0, 20, 40):
        for offset, engine in enumerate(engines):
            assert (
                deliver(engine, range(start + 100 * offset, start + 100 * offset + 20)) == [D] * 20
            )
    for engine in engines:
        engine.close()
    assert sorted(store.ids()) == sorted(
        identity(n) for start in (0, 100) for n in range(start, start + 60)
    )


def test_the_probe_needs_no_right_to_delete_and_leaves_nothing_where_it_has_it(store):
    sink = store.sink()
    assert sink.check(5) == f"{store.url} can be written to"
    assert store.objects() == {}
    respond = store.gateway.respond

    def kept(request: Request) -> Reply:
        return Reply(403) if request.method == "DELETE" else respond(request)

    store.gateway.respond = kept
    sink.probe(5)
    sink.probe(5)
    assert [*store.objects()] == [".lake.probe"], "one, however often it asks"


def test_it_says_where_a_record_is(store):
    assert store.sink().find("abc") == f"look for abc in the objects {store.url}/lake-*"


# ---------------------------------------------------------------------------- when it fails


@pytest.mark.parametrize(
    ("status", "code", "verdict"),
    [
        (400, "ExpiredToken", Refresh),
        (401, "InvalidAuthenticationInfo", Refresh),
        (403, "AccessDenied", Refresh),
        (404, "NoSuchBucket", Stop),
        (405, "MethodNotAllowed", Stop),
        (409, "OperationAborted", Retry),
    ],
)
def test_what_its_refusals_mean(store, status, code, verdict):
    connection = store.sink().connect()
    store.gateway.fail(Answer(status, text=code))
    found = send(connection, 1)
    assert isinstance(found, verdict)
    assert found.reason == f"{store.url}: {code} (HTTP {status})", "and none of its own words"
    assert store.objects() == {}


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_store_is_waited_out(store, status):
    """By its library, or by the engine."""
    connection = store.sink().connect()
    store.gateway.fail(Answer(status))
    assert isinstance(send(connection, 1, timeout=0.3), Retry)
    store.gateway.heal()
    assert send(connection, 1) == Accepted()
    assert store.ids() == [identity(1)]


@pytest.mark.parametrize(
    "fault",
    [Reset(), Reset(taken=True), HalfClose(), Drip(0.2), Silence()],
    ids=["reset", "reset after taking", "half-closed", "drip", "silence"],
)
def test_a_request_that_breaks_leaves_one_object_once_it_is_through(store, fault):
    connection = store.sink().connect()
    assert send(connection, 0) == Accepted()
    store.gateway.fail(fault)
    started = time.monotonic()
    assert isinstance(send(connection, 1, 2, timeout=0.4), Retry)
    assert time.monotonic() - started < 1
    store.gateway.heal()
    assert send(connection, 1, 2) == Accepted()
    assert store.ids() == [identity(n) for n in (0, 1, 2)]


def test_after_a_failure_another_request_has_another_name(store):
    connection = store.sink().connect()
    store.gateway.fail(Reset(taken=True))
    assert isinstance(send(connection, 1, 2, timeout=0.4), Retry)
    store.gateway.heal()
    assert send(connection, 1) == Accepted(), "its half; what came through stays as it is"
    assert {*store.ids()} == {identity(1), identity(2)} or store.ids() == [identity(1)]
    assert send(connection, 2) == Accepted()
    assert {*store.ids()} == {identity(1), identity(2)}


def test_an_outage_is_owed_to_the_record_and_paid(store):
    engine = Engine(store.sink(patience=1.5, timeout=1), cool_down=(0.05, 0.1))
    assert deliver(engine, range(10)) == [D] * 10
    store.gateway.refuse()
    started = time.monotonic()
    assert deliver(engine, range(10, 30)) == [OWED] * 20
    assert time.monotonic() - started < 2
    assert store.ids() == [identity(n) for n in range(10)]
    store.gateway.accept()
    eventually(lambda: engine.status().circuit != "open", within=15)
    assert deliver(engine, range(10, 30)) == [D] * 20
    engine.close()
    assert {*store.ids()} == {identity(n) for n in range(30)}


def test_a_bucket_that_is_not_there_owes_everything(store):
    folder = re.sub(
        r"/alerts/", "/no-such-bucket/", store.url.replace("s3://alerts", "s3://nobody")
    )
    sink = store.sink(folder=folder)
    verdict = send(sink.connect(), 1)
    assert isinstance(verdict, Stop)
    assert re.search(r"(NoSuchBucket|ContainerNotFound) \(HTTP 404\)", verdict.reason)
    with pytest.raises(OSError, match="HTTP 404"):
        sink.check(5)


def test_no_secret_is_in_a_reason_or_a_log(store, caplog, monkeypatch):
    caplog.set_level(logging.DEBUG)
    given = store.storage.environment
    secret = (
        given.get("AWS_SECRET_ACCESS_KEY")
        or re.search("AccountKey=([^;]+)", given["AZURE_STORAGE_CONNECTION_STRING"])[1]
    )
    engine = Engine(store.sink(patience=1.5, timeout=1))
    deliver(engine, range(3))
    store.gateway.fail(Answer(403, text="AccessDenied"))
    sent = parcels(engine.sink, range(3))
    engine.submit(sent)
    engine.settle()
    engine.close()
    assert all(parcel.reason for parcel in sent)
    assert secret not in f"{sent!r} {engine.status()!r} {caplog.text}"


class TestCredentials:
    def test_a_wrong_key_is_refused_and_read_anew(self, tmp_path, monkeypatch):
        with azurite(tmp_path) as storage:
            right = storage.environment["AZURE_STORAGE_CONNECTION_STRING"]
            wrong = re.sub("AccountKey=[^;]+", "AccountKey=" + "d3Jvbmc=", right)
            monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", wrong)
            sink = File("lake", FileSettings(folder=f"{storage.url}/x", patience=5, timeout=2))
            with pytest.raises(OSError, match=r"AuthorizationFailure \(HTTP 403\)") as caught:
                sink.check(5)
            assert "d3Jvbmc" not in str(caught.value)
            connection = sink.connect()
            assert isinstance(send(connection, 1), Refresh)
            monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", right)
            engine = Engine(sink)
            assert deliver(engine, range(3)) == [D] * 3
            engine.close()

    def test_a_connection_string_of_another_account_is_not_written_to(self, monkeypatch):
        text = "AccountName=another;AccountKey=d3Jvbmc=;EndpointSuffix=core.windows.net"
        monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", text)
        sink = File("lake", FileSettings(folder="azfs://ours/alerts/x"))
        for ask in (sink.connect, lambda: sink.check(1)):
            with pytest.raises(SecretError, match="not of the account ours") as caught:
                ask()
            assert "d3Jvbmc" not in str(caught.value)
        signed = "BlobEndpoint=https://ours.blob.core.windows.net;SharedAccessSignature=sv=1&sig=x"
        monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", signed)
        sink.connect().close()

    @pytest.mark.parametrize(
        ("name", "value", "url"),
        [
            ("AWS_PROFILE", "nobody", "s3://alerts/x"),
            ("AZURE_STORAGE_CONNECTION_STRING", "AccountName=ours;AccountKey", "azfs://ours/own/x"),
        ],
    )
    def test_what_cannot_be_used_is_told_without_quoting_it(self, monkeypatch, name, value, url):
        monkeypatch.setenv(name, value)
        sink = File("lake", FileSettings(folder=url))
        for ask in (sink.connect, lambda: sink.check(1)):
            with pytest.raises(SecretError, match="credentials cannot be used") as caught:
                ask()
            assert value not in str(caught.value)

    def test_none_at_all_are_told(self, monkeypatch, tmp_path):
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
        monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        verdict = send(File("lake", FileSettings(folder="s3://alerts/x")).connect(), 1)
        assert isinstance(verdict, Refresh)
        assert verdict.reason == (
            "s3://alerts/x: no credentials in the environment (NoCredentialsError)"
        )


class Google(HttpReceiver):
    """A double of Google Cloud Storage, written from "Objects: insert" (multipart uploads) and
    "Objects: delete" of its JSON API; buckets: `ours` alone."""

    def __init__(self) -> None:
        super().__init__(max_bytes=16_000_000)
        self.objects: dict[str, bytes] = {}

    def respond(self, request: Request) -> Reply:
        upload = re.fullmatch("/upload/storage/v1/b/([^/]+)/o", request.path)
        delete = re.fullmatch("/storage/v1/b/ours/o/(.+)", request.path)
        if request.method == "DELETE" and delete and self.objects.pop(delete[1], None) is not None:
            return Reply(204)
        if request.method != "POST" or not upload or upload[1] != "ours":
            return self.refused(Answer(404, text="The specified bucket does not exist."))
        kind, _, boundary = request.headers["content-type"].partition('; boundary="')
        parts = request.body.split(b"--" + boundary.rstrip('"').encode())
        asked = kind, request.query.get("uploadType"), len(parts)
        if asked != ("multipart/related", "multipart", 4):
            return self.refused(Answer(400, text="not a multipart upload"))
        described, data = (part.partition(b"\r\n\r\n")[2][:-2] for part in parts[1:3])
        name = json.loads(described)["name"]
        self.objects[name] = data
        return Reply(200, {"bucket": "ours", "name": name, "size": str(len(data))})

    def refused(self, fault: Answer) -> Reply:
        return Reply(fault.status, {"error": {"code": fault.status, "message": fault.text}})


class TestGoogle:
    @pytest.fixture(autouse=True)
    def google(self, monkeypatch) -> Iterator[Google]:
        pytest.importorskip("google.cloud.storage", reason="needs google-cloud-storage")
        with Google() as double:
            monkeypatch.setenv("STORAGE_EMULATOR_HOST", double.url)
            yield double

    def test_a_request_is_an_object(self, google):
        sink = File("lake", FileSettings(folder="gs://ours/a"))
        assert sink.check(5) == "gs://ours/a can be written to"
        assert google.objects == {}
        connection = sink.connect()
        assert [send(connection, 1, 2), send(connection, 3)] == [Accepted()] * 2
        assert all(re.fullmatch(r"a/lake-[0-9TZ]+-\w{12}-\d{6}\.ndjson", n) for n in google.objects)
        lines = b"".join(data for _, data in sorted(google.objects.items())).split(b"\n")[:-1]
        assert [json.loads(line)["id"] for line in lines] == [identity(n) for n in (1, 2, 3)]

    def test_what_failed_is_written_over(self, google):
        connection = File("lake", FileSettings(folder="gs://ours/a")).connect()
        google.fail(Reset(taken=True), 1)
        assert isinstance(send(connection, 1), Retry)
        assert send(connection, 1) == Accepted()
        assert len(google.objects) == 1

    @pytest.mark.parametrize(("status", "verdict"), [(403, Refresh), (404, Stop), (503, Retry)])
    def test_what_its_refusals_mean(self, google, status, verdict):
        connection = File("lake", FileSettings(folder="gs://ours/a")).connect()
        google.fail(Answer(status, text="\x1b[31m words of its own"))
        found = send(connection, 1)
        assert isinstance(found, verdict)
        assert f"(HTTP {status})" in found.reason and "words" not in found.reason


# ------------------------------------------------------------------------------- its settings


def settings(folder: str) -> FileSettings:
    return FileSettings(folder=folder)  # type: ignore[arg-type]


@pytest.mark.parametrize("url", ["s3://bucket", "s3://a.b-c/d/e/", "azfs://account/container/x"])
def test_urls_are_kept_as_they_are(url):
    assert settings(url).folder == url


@pytest.mark.parametrize("folder", ["out", "/out", "./s3:/x", "C:\\out"])
def test_folders_are_paths(folder):
    assert settings(folder).folder == Path(folder)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://bucket/x", "must be a local folder, or in s3://, gs:// or azfs://"),
        ("hdfs://x/y", "must be a local folder, or in s3://, gs:// or azfs://"),
        ("s3://", "must be s3://bucket/path"),
        ("s3:///x", "must be s3://bucket/path"),
        ("azfs://account", "must be azfs://account/container/path"),
        ("azfs://account/container?sig=x", "must be azfs://account/container/path"),
        ("S3://bucket", "must be a local folder, or in s3://, gs:// or azfs://"),
    ],
)
def test_other_urls_are_refused(url, said):
    with pytest.raises(ValidationError, match=re.escape(said)) as caught:
        settings(url)
    assert "sig=x" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "package"),
    [
        ("s3://our/x", "boto3"),
        ("gs://our/x", "google-cloud-storage"),
        ("azfs://our/own/x", "azure-storage-blob"),
    ],
)
def test_a_package_that_is_missing_is_named(url, package, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValidationError, match=f"pip install {package}$|pip install {package} "):
        settings(url)


def test_a_settings_file_may_name_either(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = """\
sources: [{event_hubs: {namespace: a.b, hub: h}}]
sinks:
  - {file: {folder: "s3://bucket/path"}, name: lake}
  - {file: {folder: out}}
state: state
"""
    file = tmp_path / "settings.yaml"
    file.write_text(text)
    found = [entry.settings.folder for entry in load(file).sinks]
    assert found == ["s3://bucket/path", tmp_path / "out"]
    file.write_text(text.replace("s3:", "ftp:"))
    with pytest.raises(SettingsError) as caught:
        load(file)
    assert "3:21: sinks[0].file.folder: must be a local folder, or in s3://" in str(caught.value)
