"""History in Azure Blob Storage, as Azurite plays it."""

from __future__ import annotations

import gzip
import json
import os
import random
import re
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest
from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import PipelineOptions
from azure.storage.blob import BlobClient, BlobServiceClient, ContentSettings

from pipelines.replay import Asked, Replay
from pipelines.settings import HistorySettings, load
from schemas.batch import Record
from tests.transforms.sinks.daemons import Storage, azurite
from transforms.capture import row, write_capture
from transforms.read import filesystems
from transforms.read.filesystems import Found, HistoryError, find, open_file
from transforms.read.history import read_part
from transforms.read.listing import parts_of

NAME = "AZURE_STORAGE_CONNECTION_STRING"
TOP = "azfs://alertbeam/history"
MIB = 1024 * 1024
BIG = random.Random(7).randbytes(10 * MIB + 17)


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Storage]:
    with azurite(tmp_path_factory.mktemp("azurite")) as found:
        with BlobServiceClient.from_connection_string(found.environment[NAME]) as client:
            container = client.create_container("history")
            for name in ("a.json", "d/b.json", "d/e/c.avro", "d2/f.json", "_tmp/g.json", "[1]"):
                container.upload_blob(name, b"x" * len(name))
            container.upload_blob("big", BIG)
            container.upload_blob("none", b"")
            container.upload_blob("folders/x", b"", metadata={"hdi_isfolder": "true"})
            container.upload_blob("folders/x/y.json", b"{}")
            packed = ContentSettings(content_encoding="gzip")
            container.upload_blob("packed/a.gz", gzip.compress(b"{}"), content_settings=packed)
        yield found


@pytest.fixture(autouse=True)
def reachable(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(NAME, storage.environment[NAME])


@pytest.fixture
def container(storage: Storage) -> Iterator[Any]:
    with BlobServiceClient.from_connection_string(storage.environment[NAME]) as client:
        yield client.get_container_client("history")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """The ranges that are asked for, each where it begins and how long it is."""
    ranges: list[tuple[int, int]] = []
    download = BlobClient.download_blob

    def count(self: BlobClient, offset: int, length: int, **how: Any) -> Any:
        ranges.append((offset, length))
        return download(self, offset, length, **how)

    monkeypatch.setattr(BlobClient, "download_blob", count)
    return ranges


def found(*where: str) -> list[str]:
    return sorted(each.url.removeprefix(f"{TOP}/") for each in find(where))


# ------------------------------------------------------------------------------ what there is


def test_a_folder_is_all_that_is_in_it():
    assert found(f"{TOP}/d") == found(f"{TOP}/d/") == ["d/b.json", "d/e/c.avro"]
    assert {"a.json", "d/b.json", "d2/f.json", "big"} < {*found(TOP)}


@pytest.fixture(params=["UTC", "Europe/Berlin", "Australia/Sydney"])  # summer in one of them
def zone(request: pytest.FixtureRequest) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZ", request.param)
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("zone")
@pytest.mark.parametrize("where", ["d/b.json", "d", "*/b.json"])
def test_a_blob_is_found_with_its_size_and_time_in_any_time_zone(container, where):
    blob = container.get_blob_client("d/b.json").get_blob_properties()
    modified_ms = int(blob.last_modified.timestamp() * 1000)
    assert Found(f"{TOP}/d/b.json", 8, modified_ms) in [*find([f"{TOP}/{where}"])]


@pytest.mark.parametrize(
    ("pattern", "wanted"),
    [
        ("*.json", ["a.json"]),
        ("d*/*.json", ["d/b.json", "d2/f.json"]),
        ("**/*.avro", ["d/e/c.avro"]),
        ("d?/*", ["d2/f.json"]),
        ("*/e", ["d/e/c.avro"]),
    ],
)
def test_globs(pattern, wanted):
    assert found(f"{TOP}/{pattern}") == wanted


def test_hidden_names_are_told_apart():
    apart: list[tuple[str, str]] = []
    [*find([TOP], apart=lambda *said: apart.append(said))]
    why = "it is hidden, or not finished, by its name"
    assert apart == [(f"{TOP}/_tmp/g.json", why)]
    assert found(f"{TOP}/_tmp") == ["_tmp/g.json"]


def test_what_stands_for_a_folder_is_no_file():
    """In an account with a hierarchical namespace: Data Lake Storage Gen2."""
    assert found(f"{TOP}/folders") == found(f"{TOP}/folders/x") == ["folders/x/y.json"]


def test_what_is_archived_is_told(container):
    container.upload_blob("old/a.json", b"{}", overwrite=True)
    container.upload_blob("old/b.json", b"{}", overwrite=True)
    container.get_blob_client("old/a.json").set_standard_blob_tier("Archive")
    closed: list[tuple[str, str]] = []
    urls = [each.url for each in find([f"{TOP}/old"], lambda *said: closed.append(said))]
    assert urls == [f"{TOP}/old/b.json"]
    assert closed == [(f"{TOP}/old/a.json", "it is in the archive tier: rehydrate it")]
    container.delete_blob("old/a.json")
    container.delete_blob("old/b.json")


def test_more_than_a_page_is_listed_page_by_page(container, monkeypatch):
    for number in range(12):
        container.upload_blob(f"many/{number:02}.json", b"{}", overwrite=True)
    listed = type(container).list_blobs
    pages = lambda self, **how: listed(self, results_per_page=5, **how)  # noqa: E731
    monkeypatch.setattr(type(container), "list_blobs", pages)
    assert found(f"{TOP}/many") == [f"many/{number:02}.json" for number in range(12)]


# ---------------------------------------------------------------------------------- reading


def test_a_big_blob_is_downloaded_once_in_pieces(asked):
    with open_file(f"{TOP}/big") as file:
        assert b"".join(iter(lambda: file.read(MIB), b"")) == BIG
    assert [offset for offset, _ in asked] == [0, 4 * MIB, 8 * MIB]
    asked.clear()
    with open_file(f"{TOP}/big") as file:
        assert file.read() == BIG
    assert [offset for offset, _ in asked] == [0, 4 * MIB, 8 * MIB]


@pytest.mark.parametrize("size", [1, 1000, 4 * MIB, 4 * MIB + 1, 9 * MIB])
def test_pieces_of_any_size_are_downloaded_once(asked, size):
    got = bytearray()
    with open_file(f"{TOP}/big") as file:
        for _ in range(3):
            got += file.read(size)
    assert got == BIG[: 3 * size]
    assert sum(min(length, len(BIG) - offset) for offset, length in asked) <= 3 * size + 8 * MIB
    assert len({offset for offset, _ in asked}) == len(asked)


def test_a_blob_can_be_read_from_anywhere(asked):
    chance = random.Random(3)
    with open_file(f"{TOP}/big") as file:
        assert file.seekable()
        for _ in range(20):
            at, size = chance.randrange(len(BIG) + 10), chance.randrange(3 * MIB)
            assert file.seek(at) == at
            assert file.read(size) == BIG[at : at + size]
            assert file.tell() == at + len(BIG[at : at + size])
        assert file.seek(-5, os.SEEK_END) == len(BIG) - 5
        assert file.read() == BIG[-5:]
        asked.clear()
        file.seek(0)
        file.read(64 * 1024)
        file.seek(100)
        assert file.read(MIB) == BIG[100 : 100 + MIB]
    assert len(asked) == 1


def test_a_blob_can_be_measured_before_it_is_read():
    with open_file(f"{TOP}/big") as file:
        assert file.seek(0, os.SEEK_END) == len(BIG)


def test_an_empty_blob_is_empty():
    with open_file(f"{TOP}/none") as file:
        assert file.read() == b""
        assert file.seek(0, os.SEEK_END) == 0


def test_a_blob_is_read_as_it_is_stored_whatever_its_encoding():
    """Places in it would not be those that were listed."""
    with open_file(f"{TOP}/packed/a.gz") as file:
        assert gzip.decompress(file.read()) == b"{}"


def test_what_was_appended_is_read_by_who_opens_it_then(container):
    blob = container.get_blob_client("grows.json")
    blob.create_append_blob()
    blob.append_block(b'{"a":1}\n')
    with open_file(f"{TOP}/grows.json") as before:
        blob.append_block(b'{"a":2}\n')
        assert before.read() == b'{"a":1}\n'
    with open_file(f"{TOP}/grows.json") as after:
        after.seek(8)
        assert after.read() == b'{"a":2}\n'
    container.delete_blob("grows.json")


def test_a_blob_with_any_name_is_found_and_opened(container):
    for name in ("a b/ü#%41?&.json", "x/" + "y" * 900):
        container.upload_blob(f"odd/{name}", b"{}", overwrite=True)
    urls = [each.url for each in find([f"{TOP}/odd"])]
    assert len(urls) == 2
    for url in urls:
        with open_file(url) as file:
            assert file.read() == b"{}"


def test_what_capture_wrote_is_found_placed_and_read(container):
    records = [Record(n, 0, 1_772_600_768_000 + n, b'{"n":%d}' % n) for n in range(50)]
    data = write_capture(map(row, records))
    container.upload_blob("space/hub/0/2026/03/04/05/06/07.avro", data, overwrite=True)
    (part,) = parts_of(find([f"{TOP}/space"])).parts
    assert (part.at_ms, part.size) == (1_772_600_767_000, len(data))
    chunks = [*read_part(part, 0)]
    bodies = [record.body for chunk in chunks for record in chunk.records]
    assert bodies == [record.body for record in records]
    assert not any(chunk.unread for chunk in chunks)


def test_a_blob_that_vanished_is_unread_and_nothing_else(container):
    container.upload_blob("gone/a.json", b'{"a":1}\n', overwrite=True)
    (part,) = parts_of(find([f"{TOP}/gone"])).parts
    container.delete_blob("gone/a.json")
    (chunk,) = read_part(part, 0)
    assert [(u.url, u.offset, u.size) for u in chunk.unread] == [(part.url, 0, 8)]
    assert "BlobNotFound" in chunk.unread[0].why


# ---------------------------------------------------------------------------- a whole replay


def alert(number: int) -> bytes:
    fields = {"AlertType": "VM_Test", "SystemAlertId": str(number), "Severity": "High"}
    at = "2026-03-04T05:06:07Z"
    return json.dumps({**fields, "AlertDisplayName": "A", "TimeGenerated": at}).encode()


def test_a_replay_reads_what_is_there_and_then_what_was_added(container, tmp_path):
    for partition in range(2):
        rows = [row(Record(n, 0, 1_772_600_768_000, alert(100 * partition + n))) for n in range(50)]
        path = f"all/space/hub/{partition}/2026/03/04/05/06/07.avro"
        container.upload_blob(path, write_capture(rows), overwrite=True)
    blob = container.get_blob_client("all/y=2026/m=03/d=04/h=05/m=05/PT05M.json")
    blob.create_append_blob()
    blob.append_block(alert(200) + b"\n" + alert(201) + b"\n")
    file = tmp_path / "settings.yaml"
    file.write_text("sinks: [{file: {folder: out}}]\nstate: state\n")

    def replayed() -> list[int]:
        about = Asked((f"{TOP}/all",))
        replay = Replay(load(file, HistorySettings), about, "azfs", say=lambda line: None)
        replay.store.prepare()
        assert replay.run().well
        lines = b"".join(out.read_bytes() for out in (tmp_path / "out").rglob("*.ndjson"))
        return sorted(int(json.loads(line)["raw"]["SystemAlertId"]) for line in lines.splitlines())

    first = [*range(50), *range(100, 150), 200, 201]
    assert replayed() == first
    blob.append_block(alert(202) + b"\n")
    assert replayed() == [*first, 202]
    assert replayed() == [*first, 202]


# --------------------------------------------------------------------------------- refusals


def test_what_is_not_there_is_said():
    with pytest.raises(HistoryError) as caught:
        found("azfs://alertbeam/nowhere/x")
    assert str(caught.value) == (
        "azfs://alertbeam/nowhere/x: it is not there: ContainerNotFound (HTTP 404)"
    )
    with pytest.raises(HistoryError, match=r"history/none/x: there is nothing to read$"):
        found(f"{TOP}/none/x")
    with pytest.raises(FileNotFoundError, match=re.escape(f"BlobNotFound (HTTP 404): '{TOP}/x'")):
        open_file(f"{TOP}/x")


def test_a_wrong_key_is_said_with_what_to_do(monkeypatch):
    wrong = re.sub("AccountKey=[^;]+", "AccountKey=d3Jvbmc=", os.environ[NAME])
    monkeypatch.setenv(NAME, wrong)
    with pytest.raises(HistoryError) as caught:
        found(f"{TOP}/d")
    said = str(caught.value)
    assert said.startswith(f"{TOP}/d: refused: AuthorizationFailure (HTTP 403) (set {NAME}, or ")
    assert "Storage Blob Data Reader" in said and "d3Jvbmc" not in said
    with pytest.raises(ConnectionRefusedError, match=re.escape(TOP)):
        open_file(f"{TOP}/a.json")


def test_a_connection_string_of_another_account_is_not_used(monkeypatch):
    with pytest.raises(HistoryError, match=f"azfs://another: {NAME} is of another account"):
        found("azfs://another/history/x")
    monkeypatch.setenv(NAME, "AccountName=alertbeam;AccountKey")
    with pytest.raises(HistoryError, match=f"^{NAME} cannot be understood$"):
        found(TOP)


def test_a_pipelines_connection_string_is_used_too(monkeypatch):
    options = PipelineOptions([f"--azure_connection_string={os.environ[NAME]}"])
    monkeypatch.delenv(NAME)
    monkeypatch.setattr(FileSystems, "_pipeline_options", options)
    assert found(f"{TOP}/a.json") == ["a.json"]


def test_no_credentials_at_all_are_said(monkeypatch):
    from azure.identity import CredentialUnavailableError, DefaultAzureCredential

    def refuse(self: Any, *scopes: str, **how: Any) -> None:
        raise CredentialUnavailableError("nobody is logged in")

    monkeypatch.setattr(DefaultAzureCredential, "get_token", refuse)
    monkeypatch.setattr(DefaultAzureCredential, "get_token_info", refuse)
    monkeypatch.delenv(NAME)
    with pytest.raises(HistoryError, match=f"no credentials for it: .* \\(set {NAME}, or "):
        found(f"{TOP}/d")


def test_a_store_that_cannot_be_reached_is_said(monkeypatch):
    with socket.socket() as taken:  # bound, and nobody listens
        taken.bind(("127.0.0.1", 0))
        where = f"http://127.0.0.1:{taken.getsockname()[1]}"
        monkeypatch.setenv(NAME, re.sub("http://[^/]+", where, os.environ[NAME]))
        monkeypatch.setattr(filesystems, "_AZURE", {"retry_total": 0})
        with pytest.raises(HistoryError, match=f"^{TOP}/d: the store failed: "):
            found(f"{TOP}/d")
        with pytest.raises(OSError, match=re.escape(f"{TOP}/a.json")):
            open_file(f"{TOP}/a.json")
