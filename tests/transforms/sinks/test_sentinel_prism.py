"""The Sentinel sink's requests against Microsoft's OpenAPI description 2023-01-01, served by Prism.

The description: openapi/logs_ingestion.json, specification/monitor/data-plane/Ingestion of
Azure/azure-rest-api-specs, without its reference to an example. It says no more of a row than that
it is an object: what a stream declares, the double knows. Prism does not read gzip.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.transforms.entra import EntraReceiver
from tests.transforms.sinks.alerts import HOSTILE, PARTITION, SOURCE, alert
from tests.transforms.sinks.daemons import UNPACKED, Server, missing
from tests.transforms.sinks.doubles.sentinel import RULE, SCOPE
from transforms.sinks.base import Accepted, Connection, Retry
from transforms.sinks.sentinel import Sentinel, SentinelSettings

DESCRIPTION = Path(__file__).parent / "openapi" / "logs_ingestion.json"
SECRET = "s3cret"


@pytest.fixture(scope="module")
def prism(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Its address."""
    missing("prism")
    program = UNPACKED / "prism"
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    main = program / "node_modules/@stoplight/prism-cli/dist/index.js"
    command = [str(program / "node"), str(main)]
    command += ["mock", "--errors", "--host", "127.0.0.1", "--port", str(port), str(DESCRIPTION)]
    with Server(command, tmp_path_factory.mktemp("prism"), [port], {}):
        yield f"http://127.0.0.1:{port}"


@pytest.fixture
def entra() -> Iterator[EntraReceiver]:
    with EntraReceiver(secret=SECRET, scopes={SCOPE}) as made:
        yield made


@pytest.fixture
def connect(prism, entra, monkeypatch):
    monkeypatch.setenv("SECRET", SECRET)
    opened: list[Connection] = []

    def make(form: str) -> tuple[Sentinel, Connection]:
        given = {
            "endpoint": prism,
            "rule": RULE,
            "format": form,
            "gzip": False,
            "credential": entra.credential("env:SECRET"),
        }
        sink = Sentinel("s", SentinelSettings.model_validate(given))
        opened.append(sink.connect())
        return sink, opened[-1]

    yield make
    for connection in opened:
        connection.close()


@pytest.mark.parametrize("form", ["sentinel_row", "asim"])
def test_a_request_is_what_microsoft_describes(connect, form):
    sink, connection = connect(form)
    rows = [sink.encode(alert(n, text=HOSTILE), SOURCE, PARTITION) for n in range(3)]
    found = connection.send(rows, 10.0)
    assert isinstance(found, Accepted), found
    assert found.said == "HTTP 204: No Content"
    assert isinstance(connection.send(rows[:1], 10.0), Accepted), "on the same connection"


def test_a_request_that_is_not_is_told_from_one_that_is(connect):
    _, connection = connect("sentinel_row")
    found = connection.send([b'"no object"'], 10.0)
    assert isinstance(found, Retry), "Prism's answer to it is a 500"


def test_the_check_is_a_request_that_microsoft_describes(connect):
    sink, _ = connect("asim")
    assert "HTTP 204" in sink.check(10.0)
