"""The compose file: compose-spec's own loader takes it, alertbeam takes its commands and settings,
and nothing of it is open to the network."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from pipelines.local.hub import EmbeddedHub
from pipelines.settings import load
from tests.deploy.command import parsed
from tests.deploy.published import place
from tests.deploy.test_containers import ALERTBEAM, FLINK, stage

COMPOSE = ALERTBEAM.parent.parent / "compose" / "compose.yaml"
README = COMPOSE.with_name("README.md")


def load_compose(file: Path) -> subprocess.CompletedProcess[str]:
    kept = {key: value for key, value in os.environ.items() if key != "EVENT_HUB_CONNECTION"}
    ran = [place("helm", "compose"), file]
    return subprocess.run(ran, env=kept, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    """As Docker Compose understands them."""
    read = load_compose(COMPOSE)
    assert (read.returncode, read.stderr) == (0, "")
    found: dict[str, Any] = json.loads(read.stdout)["services"]
    return found


def written() -> Any:
    return YAML(typ="safe").load(COMPOSE)


@pytest.mark.parametrize(
    ("right", "wrong", "said"),
    [
        ("read_only: true", "readonly: true", "readonly"),
        ("network_mode: service:taskmanager", "network_mode: service:task", "task"),
        ("{jobmanager: {condition:", "{jobmaster: {condition:", "jobmaster"),
        ('"127.0.0.1:8081:8081"', '"127.0.0.1:8081:eighty"', "eighty"),
    ],
)
def test_the_loader_sees_what_is_wrong(tmp_path: Path, right: str, wrong: str, said: str) -> None:
    text = COMPOSE.read_text()
    assert right in text
    file = tmp_path / "compose.yaml"
    file.write_text(text.replace(right, wrong))
    read = load_compose(file)
    assert read.returncode != 0 and said in read.stderr


def test_this_machine_alone_reaches_it(services: dict[str, Any]) -> None:
    published = [port for each in services.values() for port in each.get("ports", ())]
    assert {(port["host_ip"], int(port["published"])) for port in published} == {
        ("127.0.0.1", 8081),
        ("127.0.0.1", 9100),
    }


def test_no_container_may_do_more_than_its_work(services: dict[str, Any]) -> None:
    for name, each in services.items():
        user, _, _ = each["user"].partition(":")
        assert int(user) > 0, name
        assert each["cap_drop"] == ["ALL"] and "no-new-privileges:true" in each["security_opt"]
        assert not {"privileged", "cap_add", "pid", "ipc", "devices"} & {*each}, name
        if user == "10001":
            assert each["read_only"] is True and "/tmp:mode=1777" in each["tmpfs"]


def test_what_speaks_to_the_hub_and_the_workers_shares_the_taskmanagers_network(
    services: dict[str, Any],
) -> None:
    shared = {name for name, each in services.items() if "network_mode" in each}
    assert shared == {"workers", "hub", "cli"}
    assert {services[name]["network_mode"] for name in shared} == {"service:taskmanager"}


def test_alertbeam_takes_the_commands(services: dict[str, Any]) -> None:
    hub = parsed(["alertbeam", *services["hub"]["command"]])
    assert hub["partitions"] == 4 and hub["folder"].is_relative_to("/var/lib/alertbeam")
    shown = re.findall(r"(?m)^\$ docker compose run --rm (?:.* )?cli (.*)$", README.read_text())
    assert len(shown) > 3
    for line in shown:
        parsed(["alertbeam", *shlex.split(line, comments=True)])


def test_the_embedded_hubs_address_is_the_one_that_is_given(
    services: dict[str, Any], tmp_path: Path
) -> None:
    given = services["workers"]["environment"]["EVENT_HUB_CONNECTION"]
    with_port = parsed(["alertbeam", *services["hub"]["command"]])
    hub = EmbeddedHub(tmp_path, {with_port["name"]: with_port["partitions"]}, port=0).start()
    try:
        expected = hub.connection_string(with_port["name"]).replace(
            f":{hub.port};", f":{with_port['port']};"
        )
    finally:
        hub.stop()
    assert given == expected


def test_the_settings_are_good_and_every_path_is_in_the_volume(
    services: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mounts = {each["target"]: each for each in services["workers"]["volumes"]}
    settings = Path(mounts["/etc/alertbeam/settings.yaml"]["source"])
    assert settings.samefile(COMPOSE.with_name("settings.yaml"))
    text = settings.read_text()
    assert {*re.findall(r"(?<=[ {:])/[\w/]+", text)} == {
        "/var/lib/alertbeam/archive",
        "/var/lib/alertbeam/state",
    }
    for key, value in services["workers"]["environment"].items():
        monkeypatch.setenv(key, value)
    (tmp_path / "settings.yaml").write_text(text.replace("/var/lib/alertbeam", str(tmp_path)))
    load(tmp_path / "settings.yaml")


def test_what_is_kept_lies_where_the_images_made_a_folder_for_it(services: dict[str, Any]) -> None:
    """A volume takes its owner from there."""
    made = {
        "alertbeam": re.findall(r"install .*?-o (\d+) .*?(/\S+)", stage("workers").last("RUN")),
        "flink": re.findall(r"install .*?-o (\d+) .*?(/\S+)", FLINK.read_text()),
    }
    for name, each in services.items():
        for volume in each["volumes"]:
            if volume["type"] == "volume":
                user = each["user"].partition(":")[0]
                assert made[volume["source"]] == [(user, volume["target"])], name


def test_flinks_properties_survive_the_images_entry_point() -> None:
    """It splits each line at the first colon, and drops all white space."""
    lines = written()["x-properties"].splitlines()
    pairs = dict(line.split(": ", 1) for line in lines)
    assert len(pairs) == len(lines)
    assert not any(re.search(r"\s|\$", value) for value in pairs.values())
    services = written()["services"]
    assert services["taskmanager"]["environment"]["HEALTH_PORT"] == pairs["taskmanager.rpc.port"]
    places = [value for key, value in pairs.items() if key.endswith(".dir")]
    assert places and all(place.startswith("file:///var/lib/flink/") for place in places)
