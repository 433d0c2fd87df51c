from __future__ import annotations

import base64
import functools
import http.client
import json
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from pydantic import ValidationError

from pipelines.local.receivers import Answer
from schemas.formats import FORMATS
from schemas.kinds import understand
from tests.examples import EXAMPLES, changed, encoded
from tests.transforms.sinks.alerts import HOSTILE, PARTITION, SOURCE, alert, identity, parcels
from tests.transforms.sinks.doubles.elasticsearch import (
    ElasticsearchReceiver,
    Items,
    OpenSearchReceiver,
    Page,
)
from transforms.secrets import SecretError
from transforms.sinks.base import (
    Accepted,
    Refresh,
    RejectItems,
    Retry,
    Shrink,
    Stop,
    Verdict,
)
from transforms.sinks.elasticsearch import Elasticsearch, ElasticsearchSettings
from transforms.sinks.opensearch import OpenSearch, OpenSearchSettings

KEY = "c0ffee-key-that-nobody-may-see"
INDEX = "logs-alertbeam.alerts-default"
JSON = [name for name, form in FORMATS.items() if form.media_type == "application/json"]


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("KEY", KEY)


@pytest.fixture
def cluster() -> Iterator[ElasticsearchReceiver]:
    with ElasticsearchReceiver(authorization=f"ApiKey {KEY}") as receiver:
        yield receiver


def sink(url: str = "https://x", **options: Any) -> Elasticsearch:
    given = {"api_key": "env:KEY", "patience": 0.5, "timeout": 0.5, **options}
    return Elasticsearch("siem", ElasticsearchSettings(url=url, **given))


def send(to: Elasticsearch, payloads: list[bytes] | None = None) -> Verdict:
    if payloads is None:
        payloads = [parcel.payload for parcel in parcels(to, range(4))]
    connection = to.connect()
    try:
        return connection.send(payloads, 2.0)
    finally:
        connection.close()


def parts(payload: bytes) -> tuple[Any, Any]:
    """The action and the document."""
    action, document = payload.split(b"\n")
    return json.loads(action), json.loads(document)


class TestSettings:
    @pytest.mark.parametrize(
        "name", ["alerts", "logs-alertbeam.alerts-prod", ".hidden", "ä", "a_b"]
    )
    def test_names_that_elasticsearch_takes(self, name):
        assert sink(index=name).settings.index == name

    @pytest.mark.parametrize(
        "name",
        [
            "",
            ".",
            "..",
            "Alerts",
            "a b",
            "a,b",
            "a*",
            "a/b",
            "a:b",
            "-a",
            "_a",
            "+a",
            "a\n",
            "é" * 128,
        ],
    )
    def test_names_that_it_does_not_take_are_refused(self, name):
        with pytest.raises(ValidationError, match="an index"):
            sink(index=name)

    def test_the_default_is_a_name_of_the_data_stream_scheme(self):
        kind, dataset, namespace = sink().settings.index.split("-")
        assert (kind, namespace) == ("logs", "default")
        assert dataset.startswith("alertbeam.")

    @pytest.mark.parametrize("options", [
        {"username": "u"},
        {"password": "env:KEY"},
        {"api_key": "env:KEY", "username": "u", "password": "env:KEY"},
        {"username": "u:v", "password": "env:KEY"},
    ])  # fmt: skip
    def test_credentials_that_are_half_or_double_are_refused(self, options):
        with pytest.raises(ValidationError):
            sink(**{"api_key": None, **options})

    def test_a_pasted_key_is_refused_and_not_repeated(self):
        with pytest.raises(ValidationError) as caught:
            sink(api_key="hunter2-hunter2")
        assert "hunter2" not in str(caught.value)

    @pytest.mark.parametrize("name", ["cef", "leef", "rfc5424", "none"])
    def test_a_format_that_makes_no_object_is_refused(self, name):
        with pytest.raises(ValidationError, match="no such format of JSON"):
            sink(format=name)

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            ({"api_key": "env:KEY"}, f"ApiKey {KEY}"),
            ({"api_key": "env:PAIR"}, f"ApiKey {base64.b64encode(b'id:key').decode()}"),
            (
                {"username": "jürgen", "password": "env:PASSWORD"},
                f"Basic {base64.b64encode('jürgen:pass wörd'.encode()).decode()}",
            ),
            ({}, ""),
        ],
    )
    def test_credentials_are_said_as_elasticsearch_wants_them(
        self, cluster, monkeypatch, options, said
    ):
        monkeypatch.setenv("PAIR", "id:key")
        monkeypatch.setenv("PASSWORD", "pass wörd")
        cluster.authorization = said
        assert isinstance(send(sink(cluster.url, **{"api_key": None, **options})), Accepted)

    def test_a_key_that_no_header_can_hold_is_not_sent_and_not_shown(self, monkeypatch):
        monkeypatch.setenv("KEY", "hunter2\r\nX: y")
        with pytest.raises(SecretError) as caught:
            sink().connect()
        assert "hunter2" not in str(caught.value)

    @pytest.mark.parametrize("index", [INDEX, "logs-a-b", "metrics-a.b-c"])
    def test_documents_of_a_data_stream_cannot_be_the_same(self, index):
        with pytest.raises(ValidationError, match="data stream, whose documents never change"):
            sink(index=index, updates="same_document")

    def test_where_documents_change_an_index_is_to_be_named(self):
        with pytest.raises(ValidationError, match="give an `index` such as alertbeam-alerts"):
            sink(updates="same_document")
        assert sink(updates="same_document", index="logs").settings.index == "logs"


class TestEncoding:
    def test_a_record_is_an_action_and_a_document(self):
        action, document = parts(sink().encode(alert(1), SOURCE, PARTITION))
        assert action == {"create": {"_id": identity(1)}}
        assert document["@timestamp"] == "2026-09-21T14:13:20.001Z"
        assert document["microsoft"]["event_id"] == identity(1)

    @pytest.mark.parametrize("form", JSON)
    @pytest.mark.parametrize("example", sorted(EXAMPLES))
    def test_every_kind_in_every_format_is_one_line_with_a_time(self, form, example):
        made = understand(encoded(EXAMPLES[example].record()))
        _, document = parts(sink(format=form).encode(made, SOURCE, PARTITION))
        assert document["@timestamp"].endswith("Z")

    @pytest.mark.parametrize(
        ("raw", "time"),
        [
            (b"{}", "2026-09-21T14:13:20.001Z"),
            (b"{ }", "2026-09-21T14:13:20.001Z"),
            (b'{\r\n "a": 1\n}', "2026-09-21T14:13:20.001Z"),
            (b'{"@timestamp": "2020-01-01T00:00:00Z"}', "2020-01-01T00:00:00Z"),
            (b'{"a": {"@timestamp": 1}}', "2026-09-21T14:13:20.001Z"),
            (b'{"a": "@timestamp"}', "2026-09-21T14:13:20.001Z"),
        ],
    )
    def test_a_raw_record_is_given_a_time_only_if_it_has_none(self, raw, time):
        payload = sink(format="raw").encode(alert(1, raw=raw), SOURCE, PARTITION)
        _, document = parts(payload)
        assert document == {"@timestamp": time, **json.loads(raw)}

    def test_an_alert_without_any_time_still_has_one(self):
        payload = sink().encode(alert(1, event_ms=0, enqueued_ms=0), SOURCE, PARTITION)
        assert parts(payload)[1]["@timestamp"].startswith("1970-01-01T00:00:00.")

    @pytest.mark.parametrize(
        "example", [name for name, module in EXAMPLES.items() if module.RESOLVED]
    )
    def test_what_may_change_is_the_same_document_through_all_its_versions(self, example):
        module, to = EXAMPLES[example], sink(updates="same_document", index="alerts")
        changes = module.RESOLVED.items()
        first = module.record()
        then = functools.reduce(lambda it, change: changed(it, *change), changes, first)
        said = []
        for record, at in ((first, 1_790_000_000_000), (then, 1_790_000_000_001)):
            made = understand(encoded(record))
            made.enqueued_ms = at
            said.append(parts(to.encode(made, SOURCE, PARTITION))[0]["index"])
        assert said[0]["_id"] == said[1]["_id"] != identity(1)
        assert [each["version"] for each in said] == [1_790_000_000_000, 1_790_000_000_001]
        assert {each["version_type"] for each in said} == {"external_gte"}

    def test_lines_of_a_log_that_share_an_id_are_documents_of_their_own(self):
        to = sink(updates="same_document", index="alerts")
        lines = [EXAMPLES["resource_log"].record(resultType=text) for text in ("a", "b")]
        made = [understand(encoded(line)) for line in lines]
        assert made[0].entity == made[1].entity
        said = [parts(to.encode(one, SOURCE, PARTITION))[0]["index"]["_id"] for one in made]
        assert said == [one.event_id for one in made]

    def test_of_one_entity_and_two_kinds_there_are_two_documents(self):
        to = sink(updates="same_document", index="alerts")
        made = [alert(1, kind=kind) for kind in ("defender_alert", "security_alert")]
        first, second = (to.encode(one, SOURCE, PARTITION).split(b"\n")[0] for one in made)
        assert first != second

    def test_what_has_neither_entity_nor_enqueued_time_is_sent_too(self):
        to = sink(updates="same_document", index="alerts")
        action, _ = parts(to.encode(alert(1, entity="", enqueued_ms=0), SOURCE, PARTITION))
        assert action["index"]["_id"] == identity(1)
        assert action["index"]["version"] == alert(1).event_ms

    @pytest.mark.parametrize("form", JSON)
    @pytest.mark.parametrize("most", [16_000, 6_000, 3_000])
    def test_what_is_too_large_is_said_shorter_in_its_format(self, form, most):
        to, large = sink(format=form), alert(1, text=HOSTILE * 1000)
        most = min(most, len(to.encode(large, SOURCE, PARTITION)) - 1)
        short = to.shrink(large, SOURCE, PARTITION, most)
        assert short is not None and len(short) <= most
        assert parts(short)[0] == {"create": {"_id": identity(1)}}
        assert b"shortened" in short or form not in ("raw", "ndjson", "ecs")

    @pytest.mark.parametrize("example", sorted(EXAMPLES))
    def test_a_shortened_document_of_every_kind_is_of_its_format(self, example):
        made = understand(encoded(EXAMPLES[example].record()))
        short = sink().shrink(msgspec.structs.replace(made), SOURCE, PARTITION, 4_000)
        assert short is not None
        _, document = parts(short)
        assert document["event"]["id"] == made.entity or not made.entity
        assert json.loads(document["event"]["original"])["shortened"] is True

    def test_where_nothing_fits_nothing_is_made_up(self):
        assert sink().shrink(alert(1), SOURCE, PARTITION, 100) is None


class TestAnswers:
    """What the cluster's answers mean; the contract suite has the outcomes in the engine."""

    def test_what_is_new_and_what_is_there_are_both_delivered(self, cluster):
        to = sink(cluster.url)
        assert send(to) == Accepted(said="HTTP 200: created")
        assert send(to) == Accepted(said="HTTP 200: it was there already")
        assert cluster.ids() == [identity(n) for n in range(4)]

    def test_of_each_document_it_is_told_what_became_of_it(self, cluster):
        to = sink(cluster.url, format="raw")
        cluster.longs = {"port"}
        made = [
            alert(0, raw=b'{"port": 1}'),
            alert(1, raw=b'{"port": "a secret of the alert"}'),
            alert(2, raw=b'{"a": 1, "a": 2}'),
            alert(0, raw=b'{"port": 1}'),
            alert(3, raw=b'{"port": 3}'),
        ]
        verdict = send(to, [to.encode(one, SOURCE, PARTITION) for one in made])
        assert isinstance(verdict, RejectItems)
        assert (verdict.taken, list(verdict.again)) == (True, [])
        assert dict(verdict.reasons) == {
            1: "HTTP 400: document_parsing_exception: failed to parse field [port] of type [long]",
            2: "HTTP 400: document_parsing_exception: failed to parse",
        }
        assert cluster.ids() == [identity(0), identity(3)]

    def test_what_was_not_taken_for_now_is_named(self, cluster):
        cluster.fail(Items(429, "es_rejected_execution_exception", first=2))
        assert send(sink(cluster.url)) == RejectItems({}, taken=True, again=(0, 1))
        assert cluster.ids() == [identity(2), identity(3)]

    def test_if_nothing_was_taken_for_now_it_says_why(self, cluster):
        cluster.fail(Items(429, "es_rejected_execution_exception", "queue capacity = 1000"))
        assert send(sink(cluster.url)) == Retry(
            "HTTP 429: es_rejected_execution_exception: queue capacity = 1000"
        )

    def test_what_holds_for_all_documents_stops(self, cluster):
        verdict = send(sink(cluster.url, pipeline="typo"))
        assert isinstance(verdict, Stop) and "pipeline with id [typo]" in verdict.reason
        cluster.may_write = False
        verdict = send(sink(cluster.url))
        assert isinstance(verdict, Stop) and "unauthorized" in verdict.reason
        assert cluster.ids() == []

    def test_a_pipeline_that_there_is_is_asked_for(self, cluster):
        cluster.pipelines = {"geo ip"}
        assert isinstance(send(sink(cluster.url, pipeline="geo ip")), Accepted)

    def test_a_document_changes_and_what_comes_late_does_not_turn_it_back(self, cluster):
        to = sink(cluster.url, updates="same_document", index="alerts")
        first, then, last = (
            to.encode(alert(n, entity="one", status=status), SOURCE, PARTITION)
            for n, status in ((1, "new"), (2, "in_progress"), (3, "resolved"))
        )

        def shown() -> list[str]:
            return [it["microsoft"]["event_id"] for it in cluster.documents("alerts").values()]

        assert send(to, [first]) == Accepted(said="HTTP 200: created")
        assert send(to, [then, last]) == Accepted(said="HTTP 200: created")
        assert shown() == [identity(3)]
        assert send(to, [first, then]) == Accepted(said="HTTP 200: it was there already")
        assert send(to, [last]) == Accepted(said="HTTP 200: created"), "as often as one likes"
        assert shown() == [identity(3)]

    def test_a_data_stream_by_another_name_stops_it(self, cluster):
        cluster.data_streams = {"alerts"}
        to = sink(cluster.url, updates="same_document", index="alerts")
        verdict = send(to)
        assert isinstance(verdict, Stop)
        assert "only write ops with an op_type of create are allowed" in verdict.reason
        send(sink(cluster.url, index="alerts"))
        with pytest.raises(ConnectionError, match="alerts is a data stream, whose documents never"):
            to.check(1.0)

    def test_the_index_is_the_one_of_the_settings(self, cluster):
        assert isinstance(send(sink(cluster.url, index="älerts")), Accepted)
        assert [*cluster.documents("älerts")] == [identity(n) for n in range(4)]

    @pytest.mark.parametrize("gzip", [True, False])
    def test_it_may_be_compressed(self, cluster, gzip):
        assert isinstance(send(sink(cluster.url, gzip=gzip)), Accepted)

    @pytest.mark.parametrize(
        ("fault", "verdict"),
        [
            (Answer(401), Refresh),
            (Answer(403), Stop),
            (Answer(400), Stop),
            (Answer(503), Retry),
            (Page(413), Shrink),
            (Page(200), Stop),
            (Page(200, b'{"ok":true}'), Stop),
            (Page(200, b'{"errors":false,"items":[]}'), Retry),
            (Page(200, b'{"errors":false,"items":[{},{},{},{}]}'), Retry),
            (Page(302), Stop),
            (Page(502), Retry),
            (Page(429), Retry),
        ],
    )
    def test_a_request_that_is_refused_as_a_whole_kills_no_record(self, cluster, fault, verdict):
        cluster.fail(fault)
        assert isinstance(send(sink(cluster.url)), verdict)
        assert cluster.ids() == []

    def test_a_hostile_answer_is_one_short_line(self, cluster):
        evil = "\x1b[31m\r\nforged " + KEY + "x" * 10_000
        cluster.fail(Answer(403, text=evil))
        verdict = send(sink(cluster.url))
        assert isinstance(verdict, Stop)
        cluster.fail(Items(400, "evil\n", evil))
        refused = send(sink(cluster.url))
        assert isinstance(refused, RejectItems)
        for said in (verdict.reason, *refused.reasons.values()):
            assert said.isprintable() and len(said) < 220 and KEY not in said

    def test_an_answer_for_as_many_as_one_request_holds_is_read_to_its_end(self, cluster):
        to = sink(cluster.url, format="raw")
        cluster.longs = {"port"}
        bad = alert(0, raw=b'{"port": "x"}')
        payloads = [
            to.encode(msgspec.structs.replace(bad, key=n.to_bytes(16, "big")), SOURCE, PARTITION)
            for n in range(to.limits.max_records)
        ]
        verdict = send(to, payloads)
        assert isinstance(verdict, RejectItems)
        assert verdict.reasons.keys() == {*range(to.limits.max_records)}


class TestCheck:
    def test_it_tells_what_it_found(self, cluster):
        to = sink(cluster.url)
        assert to.check(1.0) == (
            "Elasticsearch 9.2.0; beam may write; "
            f"{INDEX} is not there yet: the first alert makes it"
        )
        send(to)
        assert to.check(1.0) == f"Elasticsearch 9.2.0; beam may write; {INDEX} is a data stream"
        assert len(cluster.ids()) == 4

    def test_without_security_it_says_that_it_cannot_tell(self, cluster):
        cluster.authorization = ""
        assert "it does not tell what the credentials may do" in sink(
            cluster.url, api_key=None
        ).check(1.0)

    def test_who_may_not_write_is_told_what_it_takes(self, cluster):
        cluster.may_write = False
        with pytest.raises(ConnectionError, match=r"beam may not write .* `create_doc`"):
            sink(cluster.url).check(1.0)
        with pytest.raises(ConnectionError, match=r"beam may not write .* `index`, and"):
            sink(cluster.url, updates="same_document", index="alerts").check(1.0)

    def test_a_wrong_key_is_told_from_a_cluster_that_is_down(self, cluster, monkeypatch):
        monkeypatch.setenv("KEY", "another")
        to = sink(cluster.url)
        for ask in (to.check, to.probe):
            with pytest.raises(ConnectionError, match="HTTP 401: security_exception"):
                ask(1.0)
        cluster.refuse()
        with pytest.raises(ConnectionRefusedError):
            to.probe(1.0)

    @pytest.mark.parametrize("status", [200, 302, 400, 404, 503])
    def test_something_else_at_the_address_is_not_taken_for_it(self, cluster, status):
        cluster.fail(Page(status))
        with pytest.raises(ConnectionError, match=f"HTTP {status}"):
            sink(cluster.url).probe(1.0)


class TestOpenSearch:
    def opensearch(self, url: str, **options: Any) -> OpenSearch:
        given = {"username": "beam", "password": "env:KEY", "timeout": 0.5, **options}
        return OpenSearch("siem", OpenSearchSettings(url=url, **given))

    def test_it_is_found_by_its_name_and_asks_for_a_user(self):
        with OpenSearchReceiver(authorization=said_basic("beam", KEY)) as receiver:
            to = self.opensearch(receiver.url)
            assert send(to) == Accepted(said="HTTP 200: created")
            assert to.check(1.0) == (
                "OpenSearch 3.3.0; it does not tell what the credentials may do; "
                "alertbeam-alerts is an index"
            )
            receiver.authorization = "another"
            with pytest.raises(ConnectionError, match="HTTP 401: Unauthorized"):
                to.check(1.0)

    def test_an_api_key_is_refused(self):
        with pytest.raises(ValidationError, match="no API key"):
            self.opensearch("https://x", api_key="env:KEY")


def said_basic(user: str, password: str) -> str:
    return f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"


NDJSON = "application/x-ndjson"
SAID: dict[str, tuple[str, str, bytes, int | list[int]]] = {
    "taken": ("/t/_bulk", NDJSON, b'{"create":{"_id":"a"}}\n{"x":1}\n', [201]),
    "named in the action": ("/_bulk", NDJSON, b'{"create":{"_index":"t","_id":"b"}}\n{}\n', [201]),
    "as JSON": ("/t/_bulk", "application/json", b'{"create":{"_id":"c"}}\n{}\n', [201]),
    "twice": ("/t/_bulk", NDJSON, b'{"create":{"_id":"d"}}\n{}\n' * 2, [201, 409]),
    "an empty line": ("/t/_bulk", NDJSON, b'{"create":{"_id":"e"}}\n{}\n\n', [201]),
    "not an object": ("/t/_bulk", NDJSON, b'{"create":{"_id":"f"}}\n[1]\n', [400]),
    "half a document": (
        "/t/_bulk", NDJSON,
        b'{"create":{"_id":"g"}}\n{"x":\n{"create":{"_id":"h"}}\n{"x":2}\n', [400, 201],
    ),
    "a name twice": ("/t/_bulk", NDJSON, b'{"create":{"_id":"i"}}\n{"y":1,"y":2}\n', [400]),
    "NaN": ("/t/_bulk", NDJSON, b'{"create":{"_id":"j"}}\n{"z":NaN}\n', [400]),
    "not UTF-8": ("/t/_bulk", NDJSON, b'{"create":{"_id":"k"}}\n{"s":"\xff"}\n', [400]),
    "an empty name": ("/t/_bulk", NDJSON, b'{"create":{"_id":"l"}}\n{"":1}\n', [400]),
    "too deep": (
        "/t/_bulk", NDJSON,
        b'{"create":{"_id":"m"}}\n' + b'{"a":' * 21 + b"1" + b"}" * 21 + b"\n", [400],
    ),
    "a bad index name": ("/T/_bulk", NDJSON, b'{"create":{"_id":"n"}}\n{}\n', [400]),
    "no such pipeline": ("/t/_bulk?pipeline=no", NDJSON, b'{"create":{"_id":"o"}}\n{}\n', [400]),
    "no newline at the end": ("/t/_bulk", NDJSON, b'{"create":{"_id":"p"}}\n{}', 400),
    "no action": ("/t/_bulk", NDJSON, b"nonsense\n{}\n", 400),
    "no such action": ("/t/_bulk", NDJSON, b'{"make":{"_id":"q"}}\n{}\n', 400),
    "no such parameter": ("/t/_bulk?no=1", NDJSON, b'{"create":{"_id":"r"}}\n{}\n', 400),
    "no index": ("/_bulk", NDJSON, b'{"create":{"_id":"s"}}\n{}\n', 400),
    "a long id": ("/t/_bulk", NDJSON, b'{"create":{"_id":"%b"}}\n{}\n' % (b"x" * 513), 400),
    "nothing": ("/t/_bulk", NDJSON, b"", 400),
    "no documents": ("/t/_bulk", NDJSON, b"\n", 400),
    "put in place": ("/t/_bulk", NDJSON, b'{"index":{"_id":"u"}}\n{}\n' * 2, [201, 200]),
    "an older version": (
        "/t/_bulk", NDJSON,
        b'{"index":{"_id":"v","version":7,"version_type":"external_gte"}}\n{}\n'
        b'{"index":{"_id":"v","version":6,"version_type":"external_gte"}}\n{}\n', [201, 409],
    ),
    "the same version": (
        "/t/_bulk", NDJSON,
        b'{"index":{"_id":"w","version":7,"version_type":"external_gte"}}\n{}\n' * 2, [201, 200],
    ),
    "the same version, wanted newer": (
        "/t/_bulk", NDJSON,
        b'{"index":{"_id":"x","version":7,"version_type":"external"}}\n{}\n' * 2, [201, 409],
    ),
    "a newer version": (
        "/t/_bulk", NDJSON,
        b'{"index":{"_id":"y","version":7,"version_type":"external_gte"}}\n{}\n'
        b'{"index":{"_id":"y","version":1790000000000,"version_type":"external_gte"}}\n{}\n',
        [201, 200],
    ),
    "a version of no type": (
        "/t/_bulk", NDJSON, b'{"index":{"_id":"z","version":7}}\n{}\n', 400,
    ),
    "a version of a new document": (
        "/t/_bulk", NDJSON,
        b'{"create":{"_id":"A","version":7,"version_type":"external_gte"}}\n{}\n', 400,
    ),
    "no such type of version": (
        "/t/_bulk", NDJSON, b'{"index":{"_id":"B","version":7,"version_type":"x"}}\n{}\n', 400,
    ),
    "a negative version": (
        "/t/_bulk", NDJSON,
        b'{"index":{"_id":"C","version":-7,"version_type":"external_gte"}}\n{}\n', 400,
    ),
    "as text": ("/t/_bulk", "text/plain", b'{"create":{"_id":"t"}}\n{}\n', 406),
}  # fmt: skip
"""Path, media type and body of a request; what is said of the whole, or of each document."""


def said_of(address: str, name: str) -> int | list[int]:
    path, media_type, body, _ = SAID[name]
    connection = http.client.HTTPConnection(address, timeout=10)
    try:
        connection.request("POST", path, body, {"Content-Type": media_type})
        response = connection.getresponse()
        answer = json.loads(response.read())
    finally:
        connection.close()
    if response.status != 200:
        assert answer["error"] and answer["status"] == response.status
        return response.status
    statuses = [said["status"] for item in answer["items"] for said in item.values()]
    assert answer["errors"] is (max(statuses) > 299)
    return statuses


@pytest.mark.parametrize("name", SAID)
def test_the_double_takes_and_refuses_what_it_should(cluster, name):
    """The same as the real server does, in test_elasticsearch_server.py."""
    cluster.authorization = ""
    assert said_of(cluster.address, name) == SAID[name][3]


def test_the_double_says_no_more_than_what_is_asked_for(cluster):
    cluster.fail(Items(400, "x", "y", first=1))
    to = sink(cluster.url)
    connection = http.client.HTTPConnection(cluster.address, timeout=10)
    body = b"".join(parcel.payload + b"\n" for parcel in parcels(to, range(2)))
    headers = {"Content-Type": NDJSON, "Authorization": f"ApiKey {KEY}"}
    path = "/t/_bulk?filter_path=errors,items.*.status,items.*.error.type"
    connection.request("POST", path, body, headers)
    assert json.loads(connection.getresponse().read()) == {
        "errors": True,
        "items": [{"create": {"status": 400, "error": {"type": "x"}}}, {"create": {"status": 201}}],
    }
    connection.close()


def test_the_double_refuses_more_than_its_content_length(cluster):
    cluster.max_bytes = 100
    assert isinstance(send(sink(cluster.url, gzip=False)), Shrink)
    assert isinstance(send(sink(cluster.url, gzip=True)), Shrink)
