"""The lake: what is written is read back by pyarrow and by duckdb, here and from moto's S3 and
Microsoft's Azurite behind a gateway that fails."""

from __future__ import annotations

import errno
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import duckdb
import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from pydantic import ValidationError

from pipelines.local.receivers import Answer, Drip, Reply, Request, Reset
from schemas.alert import Alert
from schemas.entities import Details
from schemas.formats._ocsf_columns import CLASSES
from schemas.formats.ocsf import event
from schemas.kinds import details, understand
from schemas.receipt import Outcome
from tests.examples import EXAMPLES, encoded
from tests.schemas.formats.test_ocsf import any_alerts, mentions
from tests.transforms.sinks.alerts import HOSTILE, PARTITION, SOURCE, alert, identity, parcels
from tests.transforms.sinks.daemons import Storage, azurite, moto
from tests.transforms.sinks.doubles.security_lake import rows
from tests.transforms.sinks.test_file_objects import Gateway, Store
from transforms.delivery.engine import Engine
from transforms.secrets import SecretError
from transforms.sinks.base import (
    Accepted,
    Connection,
    EncodeError,
    Pending,
    Refresh,
    Retry,
    Split,
    Stop,
    Verdict,
)
from transforms.sinks.security_lake import SecurityLake, SecurityLakeSettings, parquet

D, OWED = Outcome.DELIVERED, Outcome.OWED
DAY = 86_400_000
SUBSCRIPTION = "11111111-2222-3333-4444-555555555555"
_encode = msgspec.json.Encoder().encode


def lake(folder: Path | str, **options: Any) -> SecurityLake:
    given = {"folder": folder, "region": "eu-central-1", "linger": 0, **options}
    return SecurityLake("lake", SecurityLakeSettings(**given))


def payloads(sink: SecurityLake, *numbers: int, **fields: Any) -> list[bytes]:
    return [sink.encode(alert(number, **fields), SOURCE, PARTITION) for number in numbers]


def send(connection: Connection, found: list[bytes], timeout: float = 5.0) -> Verdict:
    return connection.send(found, timeout)


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.parquet")}


def ids(found: dict[str, bytes]) -> list[str]:
    return sorted(row["metadata"]["uid"] for row in rows(found))


def known(*numbers: int) -> list[str]:
    return sorted(map(identity, numbers))


def read(data: bytes) -> list[Any]:
    found: list[Any] = pq.read_table(pa.BufferReader(data), partitioning=None).to_pylist()
    return found


def plain(value: Any) -> Any:
    """As it was written, without what a row has beside: what an event does not say."""
    if isinstance(value, dict):
        kept = {name: plain(inner) for name, inner in value.items() if inner is not None}
        return {name: inner for name, inner in kept.items() if inner != {}}
    return [plain(item) for item in value] if isinstance(value, list) else value


def back(row: dict[str, Any]) -> Any:
    """The event that a row was made from."""
    row = dict(row)
    if row["unmapped"] is not None:
        row["unmapped"] = dict(row["unmapped"])
    for name in ("evidences", "enrichments"):
        for item in row.get(name) or ():
            if item["data"] is not None:
                item["data"] = json.loads(item["data"])
    return plain(row)


def signed_in(number: int = 1) -> Alert:
    made = understand(encoded(EXAMPLES["entra_log"].record()))
    return msgspec.structs.replace(made, key=alert(number).key)


# ------------------------------------------------------------------------------ what a row says


class TestRows:
    @pytest.mark.parametrize("kind", EXAMPLES)
    def test_a_row_says_all_that_the_event_says(self, kind):
        made = understand(encoded(EXAMPLES[kind].record()))
        said = event(made, details(made))
        (row,) = read(parquet(said["class_uid"], [_encode(said)]))
        assert back(row) == plain(said)

    @given(alert=any_alerts, found=mentions)
    def test_whatever_is_mentioned_no_part_of_an_event_is_left_out(
        self, alert: Alert, found: Details
    ) -> None:
        said = json.loads(_encode(event(alert, found)))
        (row,) = read(parquet(said["class_uid"], [_encode(said)]))
        assert back(row) == plain(said)

    def test_a_class_has_its_columns_whatever_the_events_say(self):
        """A table of files that differ in their types cannot be read."""
        said = event(made := signed_in(), details(made))
        bare = {name: said[name] for name in ("class_uid", "time", "metadata")}
        one, two = (
            pq.ParquetFile(pa.BufferReader(parquet(said["class_uid"], [_encode(it)])))
            for it in (said, bare)
        )
        assert one.schema_arrow.equals(two.schema_arrow)

    def test_a_column_has_one_type_in_all_classes(self):
        found: dict[str, Any] = {}
        for uid in CLASSES:
            bare = {"class_uid": uid, "time": 0}
            for field in pq.read_schema(pa.BufferReader(parquet(uid, [_encode(bare)]))):
                assert field.type.equals(found.setdefault(field.name, field.type)), field.name
        assert len(found) > 60

    def test_text_is_kept_whatever_it_is(self, tmp_path):
        connection = lake(tmp_path).connect()
        assert send(connection, payloads(lake(tmp_path), 1, text=HOSTILE)) == Accepted()
        (row,) = rows(files(tmp_path))
        assert row["message"] == HOSTILE
        assert json.loads(row["raw_data"])["Description"] == HOSTILE

    def test_pages_end_at_a_megabyte_also_where_records_are_large(self):
        said = json.loads(payloads(lake("out"), 1)[0])
        many = [_encode(said | {"raw_data": f"{n}" + "x" * 60_000}) for n in range(100)]
        file = pq.ParquetFile(pa.BufferReader(parquet(2004, many)))
        chunks = [
            chunk
            for n in range(file.metadata.row_group(0).num_columns)
            if (chunk := file.metadata.row_group(0).column(n)).path_in_schema == "raw_data"
        ]
        assert len(chunks) == 1
        assert chunks[0].total_uncompressed_size > 6_000_000
        assert largest_page(parquet(2004, many), chunks[0]) <= 1 << 20


def largest_page(data: bytes, chunk: Any) -> int:
    """Bytes of the largest page of a column, uncompressed: from the pages' own headers, which begin
    with type, uncompressed and compressed size (Thrift's compact protocol, Parquet's
    PageHeader)."""

    def number(at: int) -> tuple[int, int]:
        value = shift = 0
        while True:
            byte = data[at]
            value |= (byte & 0x7F) << shift
            at, shift = at + 1, shift + 7
            if byte < 0x80:
                return (value >> 1) ^ -(value & 1), at

    at = chunk.dictionary_page_offset if chunk.has_dictionary_page else chunk.data_page_offset
    end, largest = at + chunk.total_compressed_size, 0
    while at < end:
        assert data[at] == 0x15, "a page's header begins with its type"
        _, there = number(at + 1)
        size, there = number(there + 1)
        packed, there = number(there + 1)
        largest = max(largest, size)
        marker = re.compile(rb"\x28\xb5\x2f\xfd").search(data, there)  # a frame of zstandard
        assert marker is not None
        at = marker.start() + packed
    return largest


# ------------------------------------------------------------------------------- where it lies


class TestLayout:
    def test_a_file_is_where_security_lake_wants_it(self, tmp_path):
        assert send(lake(tmp_path).connect(), payloads(lake(tmp_path), 1, 2)) == Accepted()
        (name,) = files(tmp_path)
        place = "ext/alertbeam-2004/region=eu-central-1/accountId=external/eventDay=20260921/"
        assert name.startswith(place)
        assert ids(files(tmp_path)) == known(1, 2)

    def test_classes_days_and_subscriptions_are_apart(self, tmp_path):
        sink = lake(tmp_path, by_subscription=True, source="ab", source_version="1.0")
        other = "22222222-2222-3333-4444-55555555555A"
        found = [
            *payloads(sink, 3, 1),
            *payloads(sink, 2, event_ms=1_790_000_000_000 + DAY),
            *payloads(sink, 4, subscription_id=other),
            *payloads(sink, 5, subscription_id=""),
            sink.encode(signed_in(6), SOURCE, PARTITION),
        ]
        assert send(sink.connect(), found) == Accepted()
        told = files(tmp_path)
        account = f"accountId=external_{SUBSCRIPTION}"
        lie = sorted(name.split("/", 1)[1].rpartition("/")[0] for name in told)
        there = "ab-2004/1.0/region=eu-central-1"
        assert [each for each in lie if each.startswith("ab-2004")] == [
            f"{there}/accountId=external/eventDay=20260921",
            f"{there}/{account}/eventDay=20260921",
            f"{there}/{account}/eventDay=20260922",
            f"{there}/accountId=external_{other.lower()}/eventDay=20260921",
        ]
        assert len(lie) == 5 and any(each.startswith("ab-3002/1.0") for each in lie)
        assert ids(told) == known(1, 2, 3, 4, 5, 6)

    @pytest.mark.parametrize("text", ["../../etc", "a/b", "", "x" * 65, "é", "..", HOSTILE])
    def test_no_text_leads_out_of_the_lake(self, tmp_path, text):
        sink = lake(tmp_path / "lake", by_subscription=True)
        assert send(sink.connect(), payloads(sink, 1, subscription_id=text)) == Accepted()
        (path,) = tmp_path.rglob("*.parquet")
        assert path.parent.parent.name == "accountId=external"

    @pytest.mark.parametrize(
        ("millis", "day"), [(0, "19700101"), (-1, "19691231"), (253_402_300_799_999, "99991231")]
    )
    def test_a_time_that_is_none_has_a_day_too(self, tmp_path, millis, day):
        sink = lake(tmp_path)
        assert send(sink.connect(), payloads(sink, 1, event_ms=millis)) == Accepted()
        assert [path.parent.name for path in tmp_path.rglob("*.parquet")] == [f"eventDay={day}"]

    def test_what_is_written_once_more_is_the_same_file(self, tmp_path):
        sink = lake(tmp_path)
        for connection in (sink.connect(), sink.connect()):
            assert send(connection, payloads(sink, 1, 2)) == Accepted()
        assert send(connection, payloads(sink, 1)) == Accepted()
        assert len(files(tmp_path)) == 2

    def test_only_its_owner_can_read_it_and_nothing_else_is_left(self, tmp_path):
        sink = lake(tmp_path / "lake")
        assert send(sink.connect(), payloads(sink, 1)) == Accepted()
        found = [path for path in tmp_path.rglob("*") if path.is_file()]
        assert [path.suffix for path in found] == [".parquet"]
        assert {path.stat().st_mode & 0o777 for path in found} == {0o600}
        assert (tmp_path / "lake" / "ext").stat().st_mode & 0o777 == 0o700


class TestClasses:
    def test_a_record_of_a_class_without_a_source_cannot_be_said(self, tmp_path):
        sink = lake(tmp_path, classes=[2004, 2005])
        assert payloads(sink, 1)
        with pytest.raises(EncodeError, match=r"no source for Authentication \(3002\)"):
            sink.encode(signed_in(), SOURCE, PARTITION)

    def test_a_class_that_no_record_is_of_is_refused(self):
        with pytest.raises(ValidationError, match="class 2001"):
            lake("out", classes=[2001])


def test_records_that_no_column_fits_are_looked_for_and_the_others_written(tmp_path):
    connection = lake(tmp_path).connect()
    good = payloads(lake(tmp_path), 1)
    bad = _encode(json.loads(good[0]) | {"severity_id": "high"})
    assert isinstance(send(connection, [*good, bad]), Split)
    assert isinstance(send(connection, [bad]), Split)
    assert send(connection, good) == Accepted()
    assert ids(files(tmp_path)) == known(1)


# -------------------------------------------------------------------------- written together


class TestWaiting:
    @pytest.fixture
    def now(self, monkeypatch: pytest.MonkeyPatch) -> list[float]:
        at = [1000.0]
        monkeypatch.setattr("transforms.sinks.security_lake.time.monotonic", lambda: at[0])
        return at

    def test_requests_wait_and_become_one_file(self, tmp_path, now):
        sink = lake(tmp_path, linger=4)
        connection = sink.connect()
        assert send(connection, payloads(sink, 0)) == Accepted(), "nothing waits for the unknown"
        handles = [send(connection, payloads(sink, n)) for n in (1, 2, 3)]
        assert all(isinstance(each, Pending) for each in handles)
        now[0] += 3.9
        assert connection.confirm(5) == {}
        assert ids(files(tmp_path)) == known(0)
        now[0] += 0.2
        told = connection.confirm(5)
        assert told == {each.handle: Accepted() for each in handles}  # type: ignore[union-attr]
        assert len(files(tmp_path)) == 2
        assert ids(files(tmp_path)) == known(0, 1, 2, 3)
        assert connection.confirm(5) == {}

    def test_enough_waits_no_longer(self, tmp_path, now):
        sink = lake(tmp_path, linger=4, max_bytes=5_000)
        connection = sink.connect()
        send(connection, payloads(sink, 0))
        send(connection, payloads(sink, 1))
        assert connection.confirm(5) == {}
        send(connection, payloads(sink, 2, 3, 4))
        assert len(connection.confirm(5)) == 2

    def test_it_waits_no_longer_where_somebody_waits_for_it(self, tmp_path, now):
        sink = lake(tmp_path, linger=300)
        connection = sink.connect()
        send(connection, payloads(sink, 0))
        send(connection, payloads(sink, 1))
        assert connection.confirm(5) == {}
        connection.hurry()
        assert len(connection.confirm(5)) == 1
        send(connection, payloads(sink, 2))
        assert connection.confirm(5) == {}

    def test_after_a_failure_nothing_waits_until_it_works_again(self, tmp_path, now, monkeypatch):
        sink = lake(tmp_path, linger=4)
        connection = sink.connect()
        send(connection, payloads(sink, 0))
        send(connection, payloads(sink, 1))
        now[0] += 5
        with monkeypatch.context() as broken:
            broken.setattr("os.fsync", fails)
            assert [*map(type, connection.confirm(5).values())] == [Retry]
            assert isinstance(send(connection, payloads(sink, 1)), Retry)
        assert send(connection, payloads(sink, 1)) == Accepted()
        assert isinstance(send(connection, payloads(sink, 2)), Pending)
        assert ids(files(tmp_path)) == known(0, 1)

    def test_of_what_failed_the_part_that_was_written_is_not_written_again(
        self, tmp_path, now, monkeypatch
    ):
        """Its records come again in other company: their files would bear other names."""
        sink = lake(tmp_path, linger=4)
        connection = sink.connect()
        send(connection, payloads(sink, 0))
        tomorrow = [payloads(sink, n, event_ms=1_790_000_000_000 + DAY) for n in (3, 4)]
        parts = [payloads(sink, 1) + tomorrow[0], payloads(sink, 2) + tomorrow[1]]
        for part in parts:
            send(connection, part)
        now[0] += 5
        with monkeypatch.context() as broken:
            broken.setattr("os.open", only_today)
            assert {*map(type, connection.confirm(5).values())} == {Retry}
        assert ids(files(tmp_path)) == known(0, 1, 2)
        assert [*map(type, (send(connection, part) for part in parts))] == [Accepted, Pending]
        now[0] += 5
        assert [*connection.confirm(5).values()] == [Accepted()]
        assert ids(files(tmp_path)) == known(0, 1, 2, 3, 4)

    def test_what_came_through_in_the_end_is_not_remembered(self, tmp_path, monkeypatch):
        sink = lake(tmp_path)
        connection = sink.connect()
        found = [*payloads(sink, 1), *payloads(sink, 2, event_ms=1_790_000_000_000 + DAY)]
        with monkeypatch.context() as broken:
            broken.setattr("os.open", only_today)
            assert isinstance(send(connection, found), Retry)
        assert send(connection, found) == Accepted()
        assert ids(files(tmp_path)) == known(1, 2)
        for path in tmp_path.rglob("*.parquet"):
            path.unlink()
        assert send(connection, found) == Accepted()
        assert ids(files(tmp_path)) == known(1, 2)

    def test_an_engine_delivers_what_waits(self, tmp_path):
        engine = Engine(lake(tmp_path, linger=300))
        outcomes = []
        for start in range(0, 60, 20):
            sent = parcels(engine.sink, range(start, start + 20))
            engine.submit(sent)
            engine.settle(0.01)
            outcomes.append(sent)
        engine.settle()
        engine.close()
        assert {parcel.outcome for sent in outcomes for parcel in sent} == {D}
        assert ids(files(tmp_path)) == known(*range(60))
        assert len(files(tmp_path)) == 2, "the first, and what waited"


def fails(*_: Any) -> Any:
    raise OSError(errno.ENOSPC, "No space left on device")


_OPEN = __import__("os").open


def only_today(path: Any, *more: Any) -> int:
    if "20260922" in str(path):
        fails()
    return int(_OPEN(path, *more))


# ------------------------------------------------------------------------------- read by others


class TestDuckdb:
    def test_it_reads_what_the_sink_says_how_to_find(self, tmp_path):
        sink = lake(tmp_path)
        found = payloads(sink, *range(20), text=HOSTILE)
        assert send(sink.connect(), [*found, sink.encode(signed_in(99), "", "")]) == Accepted()
        for number in (7, 99):
            row = duckdb.sql(sink.find(identity(number)) or "").fetchall()
            assert len(row) == 1
        assert duckdb.sql(sink.find("nobody's ' OR 1=1 --")).fetchall() == []

    def test_partitions_structs_lists_and_maps_are_what_they_are(self, tmp_path):
        sink = lake(tmp_path)
        made = understand(encoded(EXAMPLES["defender_alert"].record()))
        assert send(sink.connect(), [sink.encode(made, "", "")]) == Accepted()
        said = json.loads(sink.encode(made, "", ""))
        found = duckdb.sql(
            f"""SELECT "eventDay", region, "accountId", severity, finding_info.title,
            resources[1].uid, observables[1].value, unmapped, evidences[1].process.pid,
            to_timestamp(time / 1000) > TIMESTAMP '2020-01-01'
            FROM read_parquet('{tmp_path}/ext/**/*.parquet', hive_partitioning = true)"""
        ).fetchall()
        ((day, region, account, severity, title, uid, value, unmapped, _, recent),) = found
        assert (region, account, severity) == ("eu-central-1", "external", said["severity"])
        assert (title, uid) == (said["finding_info"]["title"], said["resources"][0]["uid"])
        assert value == said["observables"][0]["value"]
        assert len(str(day)) in (8, 10) and recent is True
        assert not said.get("unmapped") or dict(unmapped) == said["unmapped"]

    def test_every_kind_of_file_is_read_together(self, tmp_path):
        sink = lake(tmp_path)
        found = [
            sink.encode(understand(encoded(EXAMPLES[kind].record())), "", "") for kind in EXAMPLES
        ]
        assert send(sink.connect(), found) == Accepted()
        (told,) = duckdb.sql(
            f"SELECT count(*), count(DISTINCT class_uid) FROM read_parquet("
            f"'{tmp_path}/ext/*/**/*.parquet', union_by_name = true)"
        ).fetchall()
        assert told[0] == len(found)
        assert told[1] == len({json.loads(each)["class_uid"] for each in found}) > 8


# ------------------------------------------------------------------------------- object stores


@pytest.fixture(scope="module", params=[moto, azurite], ids=["s3", "azure"])
def storage(request: pytest.FixtureRequest, tmp_path_factory) -> Iterator[Storage]:
    with request.param(tmp_path_factory.mktemp("store")) as made:
        yield made


@pytest.fixture
def there(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lake]:
    with Gateway(storage.endpoint) as gateway:
        direct, through = urlsplit(storage.endpoint).netloc, gateway.address
        for name, value in storage.environment.items():
            monkeypatch.setenv(name, value.replace(direct, through))
        yield Lake(storage, gateway)


class Lake(Store):
    """A lake of its own in one of the two."""

    def lake(self, **options: Any) -> SecurityLake:
        return lake(self.url, **{"patience": 10.0, "timeout": 5.0, **options})

    def files(self) -> dict[str, bytes]:
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
        return {name.removeprefix(f"{folder}/"): data for name, data in found.items()}


class TestStores:
    def test_files_are_where_they_should_be_and_whole(self, there):
        sink = there.lake()
        found = [*payloads(sink, 1, 2), sink.encode(signed_in(3), "", "")]
        assert send(sink.connect(), found) == Accepted()
        assert len(there.files()) == 2
        assert ids(there.files()) == known(1, 2, 3)

    def test_a_request_that_breaks_leaves_each_row_once(self, there):
        sink = there.lake()
        connection = sink.connect()
        found = [*payloads(sink, 1, 2), *payloads(sink, 3, event_ms=1_790_000_000_000 + DAY)]
        for fault in (Reset(taken=True), Reset(), Drip(0.2)):
            there.gateway.fail(fault)
            assert isinstance(send(connection, found, timeout=0.6), Retry)
        there.gateway.heal()
        assert send(connection, found) == Accepted()
        assert ids(there.files()) == known(1, 2, 3)

    @pytest.mark.parametrize(
        ("status", "code", "verdict"),
        [(403, "AccessDenied", Refresh), (404, "NoSuchBucket", Stop), (503, "SlowDown", Retry)],
    )
    def test_what_its_refusals_mean(self, there, status, code, verdict):
        connection = there.lake().connect()
        there.gateway.fail(Answer(status, text=code))
        assert isinstance(send(connection, payloads(there.lake(), 1), timeout=1), verdict)
        there.gateway.heal()
        assert send(connection, payloads(there.lake(), 1)) == Accepted()

    def test_an_outage_is_owed_to_the_record_and_paid(self, there):
        engine = Engine(there.lake(patience=1.5, timeout=1), cool_down=(0.05, 0.1))
        deliver(engine, range(10), D)
        there.gateway.refuse()
        deliver(engine, range(10, 30), OWED)
        there.gateway.accept()
        until(lambda: engine.status().circuit != "open")
        deliver(engine, range(10, 30), D)
        engine.close()
        assert ids(there.files()) == known(*range(30))

    def test_the_probe_leaves_nothing(self, there):
        assert there.lake().check(5) == f"{there.url} can be written to"
        assert there.files() == {}


def deliver(engine: Engine, numbers: range, outcome: Outcome) -> None:
    sent = parcels(engine.sink, numbers)
    engine.submit(sent)
    engine.settle()
    assert {parcel.outcome for parcel in sent} == {outcome}


def until(check: Callable[[], bool], within: float = 15.0) -> None:
    import time

    end = time.monotonic() + within
    while not check():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.02)


class TestRole:
    """Security Lake makes a role for each custom source, which writes to that source alone."""

    @pytest.fixture(scope="class")
    def storage(self, tmp_path_factory) -> Iterator[Storage]:
        with moto(tmp_path_factory.mktemp("store")) as made:
            yield made

    ROLE = "arn:aws:iam::123456789012:role/AmazonSecurityLake-Provider-{source}-eu-central-1"

    @pytest.fixture
    def seen(self, there: Lake, monkeypatch: pytest.MonkeyPatch) -> list[Request]:
        seen: list[Request] = []
        respond = there.gateway.respond

        def watched(request: Request) -> Reply:
            seen.append(request)
            return respond(request)

        monkeypatch.setattr(there.gateway, "respond", watched)
        return seen

    def test_each_source_is_written_to_with_its_own_role(self, there, seen):
        sink = there.lake(role=self.ROLE, external_id="alertbeam")
        connection = sink.connect()
        found = [*payloads(sink, 1), sink.encode(signed_in(2), "", "")]
        assert send(connection, found) == Accepted()
        assert send(connection, payloads(sink, 3)) == Accepted()
        asked = [request.body.decode() for request in seen if request.method == "POST"]
        assert [re.search("Provider-(.*?)-eu-", body)[1] for body in asked] == [  # type: ignore[index]
            "alertbeam-2004",
            "alertbeam-3002",
        ]
        assert all("ExternalId=alertbeam" in body for body in asked)
        written = [request.headers for request in seen if request.method == "PUT"]
        assert len(written) == 3
        assert all("x-amz-security-token" in headers for headers in written)
        assert ids(there.files()) == known(1, 2, 3)

    def test_credentials_that_expired_are_asked_for_anew(self, there):
        for linger in (0.0, 0.1):
            engine = Engine(there.lake(role=self.ROLE, linger=linger))
            deliver(engine, range(3), D)
            there.gateway.fail(Answer(400, text="ExpiredToken"), 1)
            deliver(engine, range(3, 6), D)
            assert engine.status().openings == 0
            engine.close()
            assert {*ids(there.files())} == {*known(*range(6))}

    def test_they_are_asked_for_anew_for_what_waited_too(self, there, seen):
        sink = there.lake(role=self.ROLE, linger=0.01)
        connection = sink.connect()
        assert send(connection, payloads(sink, 1)) == Accepted()
        assert isinstance(send(connection, payloads(sink, 2)), Pending)
        there.gateway.fail(Answer(400, text="ExpiredToken"), 1)
        until(lambda: [*map(type, connection.confirm(5).values())] == [Refresh])
        assert send(connection, payloads(sink, 2)) == Accepted()
        assert [request.method for request in seen] == ["POST", "PUT", "POST", "PUT"]

    def test_a_role_that_may_not_be_assumed_is_told(self, there, monkeypatch):
        def refused(request: Request) -> Reply:
            return Reply(
                403,
                b"<ErrorResponse><Error><Code>AccessDenied</Code><Message>no</Message></Error>"
                b"</ErrorResponse>",
                {"Content-Type": "text/xml"},
            )

        monkeypatch.setattr(there.gateway, "respond", refused)
        sink = there.lake(role=self.ROLE)
        with pytest.raises(SecretError, match="AccessDenied"):
            sink.check(5)
        with pytest.raises(SecretError, match="AccessDenied"):
            send(sink.connect(), payloads(sink, 1))


# ------------------------------------------------------------------------------------ settings


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"folder": "ftp://a/b"}, "must be a local folder, or in s3://"),
        ({"region": "../x"}, "region"),
        ({"region": "EU"}, "region"),
        ({"source": "a name of fourteen"}, "source"),
        ({"source": "../up"}, "source"),
        ({"source_version": "1/2"}, "source_version"),
        ({"account": "a/b"}, "account"),
        ({"role": "arn:aws:iam::123456789012:role/x"}, "is of s3:// only"),
        ({"folder": "s3://a", "role": "somebody"}, "role"),
        ({"linger": 86_401}, "linger"),
        ({"max_bytes": 60_000_001}, "max_bytes"),
    ],
)
def test_what_is_wrong_is_refused(given, complaint):
    with pytest.raises(ValidationError, match=complaint):
        SecurityLakeSettings(**{"folder": "out", "region": "eu-central-1", **given})


def test_the_search_names_the_table_that_security_lake_makes():
    found = lake("s3://bucket", region="us-east-1").find("abc")
    assert found == (
        "SELECT * FROM amazon_security_lake_glue_db_us_east_1."
        "amazon_security_lake_table_us_east_1_ext_alertbeam_2004 WHERE metadata.uid = 'abc'"
    )
