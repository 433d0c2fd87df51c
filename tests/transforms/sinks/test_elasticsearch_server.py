"""What a real OpenSearch makes of what the elasticsearch sink sends, and whether the double that
stands in for Elasticsearch says the same."""

from __future__ import annotations

import json
import socket
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from schemas.batch import Origin
from schemas.kinds import understand
from schemas.receipt import Outcome
from tests.examples import EXAMPLES, encoded
from tests.transforms.sinks.alerts import HOSTILE, PARTITION, SOURCE, alert, identity, parcels
from tests.transforms.sinks.daemons import UNPACKED, Server, missing
from tests.transforms.sinks.test_elasticsearch import JSON, SAID, said_of
from transforms.delivery.engine import Engine
from transforms.delivery.parcel import Parcel
from transforms.sinks.base import Accepted, RejectItems, Retry, Stop, Verdict
from transforms.sinks.elasticsearch import Elasticsearch, ElasticsearchSettings

D, DEAD, OWED = Outcome.DELIVERED, Outcome.DEAD, Outcome.OWED
MOST = 8_000_000  # http.max_content_length


class OpenSearch(Server):
    """One node, put together by .ci/receivers.d/opensearch."""

    def __init__(self, folder: Any) -> None:
        missing("opensearch")
        with socket.create_server(("127.0.0.1", 0)) as sock:
            self.port = sock.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        home = UNPACKED / "opensearch"
        java = ["java", "-Xms512m", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
        settings = {
            "path.home": folder,
            "network.host": "127.0.0.1",
            "http.port": self.port,
            "transport.port": 0,
            "discovery.type": "single-node",
            "http.max_content_length": f"{MOST}b",
            "cluster.routing.allocation.disk.threshold_enabled": "false",
        }
        command = [*java, f"-Djava.io.tmpdir={folder}", "-cp", f"{home}:{home}/lib/*", "Server"]
        command += [f"{name}={value}" for name, value in settings.items()]
        super().__init__(command, folder, [self.port], {})

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(self.url + path, data, headers, method=method)
        with urllib.request.urlopen(request, timeout=30) as response:
            return json.loads(response.read() or b"null")

    def documents(self, index: str) -> dict[str, Any]:
        """What the index holds, by id."""
        self.ask("POST", f"/{index}/_refresh")
        found = self.ask("GET", f"/{index}/_search?size=10000")["hits"]["hits"]
        made = {hit["_id"]: hit["_source"] for hit in found}
        assert len(made) == len(found), "an id is there twice"
        return made


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[OpenSearch]:
    with OpenSearch(tmp_path_factory.mktemp("opensearch")) as running:
        # A data stream is what matches logs-*-*, with fields of the types that ECS gives them, as
        # Elasticsearch has it from the start.
        keyword = {"type": "keyword", "ignore_above": 1024}
        kinds: dict[str, Any] = {
            "@timestamp": {"type": "date"},
            "message": {"type": "match_only_text"},
            "event": {
                "properties": {
                    "original": {"type": "keyword", "index": False, "doc_values": False},
                    **{key: {"type": "date"} for key in ("created", "start", "end")},
                    **{key: {"type": "long"} for key in ("severity", "duration")},
                    "code": keyword,
                }
            },
            "related": {"properties": {"ip": {"type": "ip"}}},
            **{
                side: {"properties": {"ip": {"type": "ip"}, "port": {"type": "long"}}}
                for side in ("source", "destination")
            },
            "host": {"properties": {"ip": {"type": "ip"}}},
            "process": {"properties": {"pid": {"type": "long"}, "start": {"type": "date"}}},
        }
        texts = {"strings": {"match_mapping_type": "string", "mapping": keyword}}
        template = {
            "index_patterns": ["logs-*-*"],
            "data_stream": {},
            "priority": 200,
            "template": {"mappings": {"properties": kinds, "dynamic_templates": [texts]}},
        }
        running.ask("PUT", "/_index_template/ecs", template)
        bare = {"index_patterns": ["logs-as.*-*"], "data_stream": {}, "priority": 300}
        running.ask("PUT", "/_index_template/bare", bare)
        yield running


@pytest.fixture
def deliver(server) -> Iterator[Callable[..., list[Outcome | None]]]:
    engines: list[Engine] = []

    def run(to: Elasticsearch, sent: list[Parcel]) -> list[Outcome | None]:
        engines.append(Engine(to, cool_down=(0.03, 0.1)))
        engines[-1].submit(sent)
        engines[-1].settle()
        return [parcel.outcome for parcel in sent]

    yield run
    for engine in engines:
        engine.close()


def sink(server: OpenSearch, index: str, **options: Any) -> Elasticsearch:
    given = {"url": server.url, "index": index, "patience": 20, "timeout": 20, **options}
    return Elasticsearch("siem", ElasticsearchSettings(**given))


def sent_to(to: Elasticsearch, payload: bytes = b"", timeout: float = 10.0) -> Verdict:
    """What one record comes to."""
    connection = to.connect()
    try:
        return connection.send([payload or parcels(to, range(1))[0].payload], timeout)
    finally:
        connection.close()


@pytest.mark.parametrize("index", ["an-index", "logs-a.data_stream-default"])
def test_everything_arrives_once_by_its_id_also_when_it_is_sent_twice(server, deliver, index):
    to = sink(server, index)
    for numbers in (range(3000), range(2500, 3500)):
        sent = parcels(to, numbers)
        assert set(deliver(to, sent)) == {D}
    assert server.documents(index).keys() == {identity(n) for n in range(3500)}


def test_a_document_changes_and_what_comes_late_does_not_turn_it_back(server, deliver):
    to = sink(server, "changes", updates="same_document")
    first = parcels(to, range(300))
    made = [
        alert(n + 1000, entity=f"entity-{n}", status="resolved", enqueued_ms=1_790_000_100_000)
        for n in range(200)
    ]
    then = [Parcel(n, 0, to.encode(one, SOURCE, PARTITION), one) for n, one in enumerate(made)]
    for sent in (first[:200], then, first, then):  # the last two: late, and once more
        assert set(deliver(to, sent)) == {D}
    found = server.documents("changes").values()
    shown = {it["microsoft"]["event_id"] for it in found}
    assert shown == {identity(n) for n in (*range(1000, 1200), *range(200, 300))}
    assert len(found) == 300


def test_an_alias_of_an_index_changes_documents_and_a_data_stream_stops_it(server):
    server.ask("PUT", "/behind", {"aliases": {"before": {}}})
    to = sink(server, "before", updates="same_document")
    for _ in range(2):
        assert isinstance(sent_to(to), Accepted)
    assert len(server.documents("behind")) == 1
    template = {"index_patterns": ["stream*"], "data_stream": {}, "priority": 400}
    server.ask("PUT", "/_index_template/stream", template)
    verdict = sent_to(sink(server, "stream", updates="same_document"))
    assert isinstance(verdict, Stop) and "op_type of create" in verdict.reason
    with pytest.raises(ConnectionError, match="is a data stream"):
        sink(server, "stream", updates="same_document").check(10.0)


def test_whatever_an_alert_says_is_one_document(server, deliver):
    to = sink(server, "hostile")
    made = [
        alert(n, text=HOSTILE, alert_type=HOSTILE, resource=HOSTILE, entity=HOSTILE)
        for n in range(20)
    ]
    sent = [Parcel(n, 0, to.encode(one, SOURCE, PARTITION), one) for n, one in enumerate(made)]
    assert deliver(to, sent) == [D] * 20
    found = server.documents("hostile")
    assert found.keys() == {identity(n) for n in range(20)}
    assert found[identity(7)]["message"] == HOSTILE


@pytest.mark.parametrize("index", ["ecs-dynamic", "logs-ecs.typed-default"])
def test_every_kind_as_ecs_fits_into_one_index(server, deliver, index):
    """With types as they come, and with those that ECS gives them: no mapping conflict."""
    to = sink(server, index)
    made = [understand(encoded(EXAMPLES[name].record())) for name in sorted(EXAMPLES)]
    sent = [Parcel(n, 0, to.encode(one, SOURCE, PARTITION), one) for n, one in enumerate(made)]
    assert set(deliver(to, sent)) == {D}, [p.reason for p in sent if p.reason]
    assert server.documents(index).keys() == {one.event_id for one in made}
    for one in made:
        short = to.shrink(one, SOURCE, PARTITION, 4_000)
        assert short is not None
        renamed = short.replace(b'"_id":"', b'"_id":"short-', 1)
        assert isinstance(sent_to(to, renamed), Accepted)


def test_every_kind_fits_the_template_that_the_page_gives(server, deliver):
    page = Path("docs/sinks/opensearch.md").read_text(encoding="utf-8")
    template = page.partition("PUT _index_template/alertbeam\n")[2].partition("```")[0]
    server.ask("PUT", "/_index_template/alertbeam", json.loads(template))
    to = sink(server, "alertbeam-alerts")
    made = [understand(encoded(EXAMPLES[name].record())) for name in sorted(EXAMPLES)]
    sent = [Parcel(n, 0, to.encode(one, SOURCE, PARTITION), one) for n, one in enumerate(made)]
    assert set(deliver(to, sent)) == {D}, [p.reason for p in sent if p.reason]
    fields = server.ask("GET", "/alertbeam-alerts/_mapping")["alertbeam-alerts"]["mappings"]
    assert fields["properties"]["related"]["properties"]["ip"] == {"type": "ip"}


@pytest.mark.parametrize("form", JSON)
def test_every_format_is_taken_by_a_data_stream(server, deliver, form):
    to = sink(server, f"logs-as.{form}-default", format=form)
    sent = parcels(to, range(3), text=HOSTILE)
    assert set(deliver(to, sent)) == {D}, [parcel.reason for parcel in sent]


def test_a_mapping_conflict_rejects_exactly_the_documents_that_it_is_about(server, deliver):
    to = sink(server, "conflicts", format="raw")
    raws = [
        b'{"port": 1}',
        b'{"port": "what the alert says"}',
        b'{"port": {"a": 1}}',
        b'{"port": 4}',
    ]
    made = [alert(n, raw=raw) for n, raw in enumerate(raws)]
    sent = [Parcel(n, 0, to.encode(one, SOURCE, PARTITION), one) for n, one in enumerate(made)]
    assert deliver(to, sent) == [D, DEAD, DEAD, D]
    assert sent[1].reason == (
        "HTTP 400: mapper_parsing_exception: failed to parse field [port] of type [long]"
    )
    assert server.documents("conflicts").keys() == {identity(0), identity(3)}


def test_more_than_its_content_length_is_halved_and_one_too_large_is_said_shorter(server, deliver):
    to = sink(server, "large", max_bytes=30_000_000, gzip=False)
    sent = parcels(to, range(40), text="x" * 200_000)
    sent += parcels(to, range(40, 41), text="y" * 5_000_000)
    sent[-1].origin = Origin(SOURCE, PARTITION)
    assert sum(len(parcel.payload) for parcel in sent[:-1]) > MOST
    assert len(sent[-1].payload) > MOST
    assert deliver(to, sent) == [D] * 41
    found = server.documents("large")
    assert found.keys() == {identity(n) for n in range(41)}
    assert found[identity(39)]["message"] == "x" * 200_000
    assert json.loads(found[identity(40)]["event"]["original"])["shortened"] is True


def test_what_it_acknowledged_outlives_its_sudden_death(server, deliver):
    """kill -9 while alerts come in: what is missing is owed, and paid it is there once."""
    to = sink(server, "crash", patience=2, timeout=2, max_bytes=100_000)
    patient = sink(server, "crash")
    sent = parcels(to, range(2000), text="x" * 500)
    assert set(deliver(patient, sent[:500])) == {D}
    engine = Engine(to)
    engine.submit(sent[500:1000])
    engine.settle()
    engine.submit(sent[1000:])
    server.kill()
    engine.settle()
    engine.close()
    assert {parcel.outcome for parcel in sent} == {D, OWED}
    server.start()
    server.ask("GET", "/_cluster/health/crash?wait_for_status=yellow&timeout=30s")
    taken = {identity(parcel.sequence) for parcel in sent if parcel.outcome is D}
    assert taken <= server.documents("crash").keys()
    owed = [Parcel(p.sequence, 0, p.payload, p.alert) for p in sent if p.outcome is OWED]
    assert set(deliver(patient, owed)) == {D}
    assert server.documents("crash").keys() == {identity(n) for n in range(2000)}


@pytest.mark.parametrize(
    ("block", "verdict", "reason"),
    [
        ("write", Stop, "HTTP 403: cluster_block_exception: "),
        ("read_only_allow_delete", Retry, "HTTP 429: cluster_block_exception: "),  # disk is full
    ],
)
def test_an_index_that_takes_nothing_kills_no_record(server, block, verdict, reason):
    index = f"blocked-{block}"
    server.ask("PUT", f"/{index}", {"settings": {f"index.blocks.{block}": True}})
    found = sent_to(sink(server, index))
    assert isinstance(found, verdict) and found.reason.startswith(reason)


def test_what_it_cannot_do_in_time_it_says_in_time(server):
    """Here: write to two shards where there is one."""
    settings = {"index.write.wait_for_active_shards": "2"}
    server.ask("PUT", "/waits?wait_for_active_shards=1", {"settings": settings})
    verdict = sent_to(sink(server, "waits"), timeout=1.0)
    assert isinstance(verdict, Retry)
    assert verdict.reason.startswith("HTTP 503: unavailable_shards_exception: ")


def test_settings_that_are_wrong_kill_no_record(server):
    server.ask("PUT", "/closed")
    server.ask("POST", "/closed/_close")
    for to, reason in (
        (sink(server, "closed"), "index_closed_exception"),
        (sink(server, "piped", pipeline="typo"), "pipeline with id [typo] does not exist"),
    ):
        verdict = sent_to(to)
        assert isinstance(verdict, Stop) and reason in verdict.reason


def test_a_pipeline_that_fails_for_a_document_kills_it_alone(server):
    fails = {"processors": [{"fail": {"message": "not this one"}}]}
    server.ask("PUT", "/_ingest/pipeline/fails", fails)
    assert sent_to(sink(server, "piped", pipeline="fails")) == RejectItems(
        {0: "HTTP 500: fail_processor_exception: not this one"}, taken=True
    )


def test_the_check_tells_what_it_found(server):
    assert sink(server, "checked").check(10.0) == (
        "OpenSearch 2.19.5; it does not tell what the credentials may do; "
        "checked is not there yet: the first alert makes it"
    )
    server.ask("PUT", "/checked")
    assert sink(server, "checked").check(10.0).endswith("; checked is an index")
    server.ask("POST", "/_aliases", {"actions": [{"add": {"index": "checked", "alias": "other"}}]})
    assert sink(server, "other").check(10.0).endswith("; other is an alias")
    server.ask("PUT", "/_data_stream/logs-checked-default")
    assert sink(server, "logs-checked-default").check(10.0).endswith(" is a data stream")


@pytest.mark.parametrize(
    "given",
    [{"index": "logs-found-default"}, {"index": "found", "updates": "same_document"}],
    ids=str,
)
def test_what_is_sent_is_found_as_the_sink_says(server, deliver, given):
    to = sink(server, **given)
    assert deliver(to, parcels(to, range(3))) == [D] * 3
    server.ask("POST", f"/{to.settings.index}/_refresh")
    query = to.find(identity(1)).partition("; GET ")[2]
    (hit,) = server.ask("GET", query)["hits"]["hits"]
    assert hit["_source"]["microsoft"]["event_id"] == identity(1)


@pytest.mark.parametrize("name", SAID)
def test_it_takes_and_refuses_what_the_double_does(server, name):
    try:
        server.ask("DELETE", "/t")
    except urllib.error.HTTPError as error:
        assert error.code == 404
    assert said_of(f"127.0.0.1:{server.port}", name) == SAID[name][3]
