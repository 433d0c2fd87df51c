"""Two pipelines on one consumer group, as processes: the second is refused, the first goes on."""

from __future__ import annotations

import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from azure.eventhub import EventHubConsumerClient
from azure.eventhub._eventprocessor.in_memory_checkpoint_store import InMemoryCheckpointStore

from tests.site import HUB, Site, alerts, stop, wait_for


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with Site(tmp_path, partitions=2) as made:
        made.write()
        yield made


def second(site: Site) -> str:
    """Other settings for the same hub and group: a state folder and an archive of their own."""
    path = site.folder / "second.yaml"
    text = site.settings.read_text().replace("state: state", "state: state-2")
    path.write_text(text.replace("folder: archive", "folder: archive-2"))
    return str(path)


def test_the_second_is_refused_while_the_first_runs_and_not_after_it_was_killed(site: Site) -> None:
    sent = alerts(3_000)
    bodies = list(sent.values())
    first = site.run()
    ended = threading.Event()

    def publish() -> None:
        while bodies and not ended.is_set():
            site.publish([bodies.pop() for _ in range(10) if bodies], 10)
            time.sleep(0.02)

    publisher = threading.Thread(target=publish)
    publisher.start()
    try:
        wait_for(lambda: site.hec.received)
        for more in ([], ["--until-caught-up"]):
            code, output = site.command("run", "-c", second(site), *more)
            assert code == 1, output
            assert (
                f"another alertbeam ({socket.gethostname()}/{first.pid}) reads hub {HUB}" in output
            )
            assert "az eventhubs eventhub consumer-group create" in output
            assert "Traceback" not in output
        assert first.poll() is None
    finally:
        ended.set()
        publisher.join()
    site.publish(bodies)
    wait_for(lambda: len(site.arrived()["splunk"]) == len(sent))
    site.wait_for_quiet()
    for sink, found in site.arrived().items():
        assert found == Counter([*sent]), f"{sink}: lost, made up, or delivered twice"
    assert not (site.folder / "archive-2").exists() or not site.archived("archive-2")
    assert all(account.holds for account in site.accounts().values())

    stop(first, signal.SIGKILL)
    code, output = site.command("run", "-c", second(site), "--until-caught-up")
    assert code == 0, output
    assert len(site.archived("archive-2")) == len(sent)


def test_a_consumer_with_an_epoch_is_not_disturbed_by_a_run_that_starts(site: Site) -> None:
    site.publish([b"{}"])
    client = EventHubConsumerClient.from_connection_string(
        site.hub.connection_string(HUB),
        "$Default",
        checkpoint_store=InMemoryCheckpointStore(),
        load_balancing_interval=0.2,
    )
    taken: list[bytes] = []
    errors: list[Exception] = []
    thread = threading.Thread(
        target=lambda: client.receive(
            on_event=lambda _, event: taken.append(b"".join(event.body)),
            on_error=lambda _, error: errors.append(error),
            starting_position="-1",
        ),
        daemon=True,
    )
    thread.start()
    try:
        held = site.hub.readers
        wait_for(lambda: all(held[HUB, "$default", partition] for partition in ("0", "1")))
        wait_for(lambda: taken)
        code, output = site.command("run", "-c", str(site.settings))
        assert code == 1, output
        assert "by an epoch (a Function, an SDK's event processor" in output
        assert "consumer_group: alertbeam" in output
        assert not errors
        site.write(
            sources="  - event_hubs: {hub: defender, connection_string: env:HUB, "
            "consumer_group: alertbeam}\n"
        )
        code, output = site.command("run", "-c", str(site.settings), "--until-caught-up")
        assert code == 0, output
        assert not errors
    finally:
        client.close()
        thread.join(30)
