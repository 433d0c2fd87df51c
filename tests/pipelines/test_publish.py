"""`alertbeam publish`: files go to a hub as they are, and what is wrong is one line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import fastavro
import pytest

from tests.site import HUB, Site, alerts
from transforms.capture import CAPTURE_SCHEMA


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with Site(tmp_path, partitions=2, key="the-right-key-0123456789") as made:
        made.write()
        made.more["EVENT_HUB_CONNECTION"] = made.hub.connection_string(HUB)
        yield made


def stored(site: Site) -> int:
    """Events in the hub."""
    return sum(site.hub.partition_info(HUB, p).last_sequence_number + 1 for p in "01")


def test_what_is_published_arrives_as_it_was(site: Site) -> None:
    first, second, third = (alerts(3, seed=seed) for seed in (1, 2, 3))
    (site.folder / "own").mkdir()
    (site.folder / "own" / "lines.jsonl").write_bytes(b"\n".join([*first.values(), b"not JSON"]))
    wrapped = b'{"records": [%s]}' % b",".join(second.values())
    (site.folder / "own" / "wrapped.json").write_bytes(wrapped)
    with (site.folder / "capture.avro").open("wb") as file:
        rows = [
            {"SequenceNumber": n, "Offset": "", "EnqueuedTimeUtc": "", "SystemProperties": {},
             "Properties": {}, "Body": body}
            for n, body in enumerate(third.values())
        ]  # fmt: skip
        fastavro.writer(file, fastavro.parse_schema(CAPTURE_SCHEMA), rows)
    code, output = site.call("publish", "own", "capture.avro")
    assert code == 0
    assert output.splitlines() == [
        "own/lines.jsonl: 4 events",
        "own/wrapped.json: 1 events",
        "capture.avro: 3 events",
        "8 events published",
    ]
    site.catch_up()
    bodies = {json.dumps(line["raw"], sort_keys=True) for line in site.archived()}
    sent = [*first.values(), *second.values(), *third.values()]
    assert bodies == {json.dumps(json.loads(body), sort_keys=True) for body in sent}
    assert site.accounts()["archive"].outcomes.dead == 1


def test_more_than_a_batch_holds_goes_in_several(site: Site) -> None:
    lines = [json.dumps({"number": n, "text": "x" * 900}) for n in range(3_000)]
    (site.folder / "many.jsonl").write_text("\n".join(lines))
    code, output = site.call("publish", "many.jsonl")
    assert code == 0
    assert output.endswith("3,000 events published\n")
    assert stored(site) == 3_000


def test_an_event_just_below_the_limit_is_taken(site: Site) -> None:
    (site.folder / "large.jsonl").write_bytes(b'{"text": "%s"}\n{}' % (b"x" * 1_040_000))
    assert site.call("publish", "large.jsonl")[0] == 0
    assert stored(site) == 2


def test_a_line_that_is_too_large_is_told_and_those_before_it_are_in(site: Site) -> None:
    (site.folder / "large.jsonl").write_bytes(b"{}\n{}\n%s\n{}" % (b"x" * 1_500_000))
    code, output = site.call("publish", "large.jsonl")
    assert code == 1
    assert output == (
        "alertbeam publish: large.jsonl: event 3 has 1,500,000 bytes; a hub takes 1 MB at most\n"
    )
    assert stored(site) == 2


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["none.jsonl"], "none.jsonl: there is no such file or folder"),
        (["a.jsonl", "--connection", "env:NONE"], "env:NONE: the environment variable NONE is not"),
        (["a.jsonl", "--connection", "env:NO_HOST"], "Failed to initiate the connection"),
        (["a.jsonl", "--connection", "env:REFUSED"], "Failed to initiate the connection"),
        (["a.jsonl", "--connection", "env:WRONG_KEY"], "CBS Token authentication failed."),
        (["a.jsonl", "--connection", "env:NO_HUB"], "The messaging entity "),
        (["a.jsonl", "--connection", "env:NONSENSE"], "Connection string is "),
        (["broken.avro"], ""),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else "",
)
def test_what_cannot_be_is_one_line(site: Site, arguments: list[str], told: str) -> None:
    good = site.hub.connection_string(HUB)
    site.more |= {
        "NO_HOST": good.replace("127.0.0.1", "no-such-host.invalid"),
        "REFUSED": good.replace(f":{site.hub.port}", ":1"),
        "WRONG_KEY": good.replace("the-right", "the-wrong"),
        "NO_HUB": good.replace(f"={HUB}", "=nowhere"),
        "NONSENSE": "nonsense",
    }
    (site.folder / "a.jsonl").write_text("{}")
    (site.folder / "broken.avro").write_bytes(b"Obj\x01 and then nothing of the kind")
    code, output = site.call("publish", *arguments)
    assert code == 1
    assert output.startswith(f"alertbeam publish: {told}"), output
    assert len(output.splitlines()) == 1
    assert "key-0123456789" not in output and "[Errno 2]" not in output
    assert stored(site) == 0
