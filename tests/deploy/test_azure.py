"""The templates of deploy/azure make what the sink sends to; Bicep and ARM say the same."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines.settings import load
from schemas.formats import asim as formats
from schemas.kinds import understand
from tests.examples import EXAMPLES, encoded
from tests.schemas.formats.test_asim import ALIASES, TABLE
from transforms.sinks.sentinel import Sentinel, SentinelSettings

FOLDER = Path(__file__).parents[2] / "deploy" / "azure"
README = (FOLDER / "README.md").read_text(encoding="utf-8")
BICEP = (FOLDER / "sentinel.bicep").read_text(encoding="utf-8")
ARM: dict[str, Any] = json.loads((FOLDER / "sentinel.json").read_text(encoding="utf-8"))
COLUMNS: dict[str, list[dict[str, str]]] = json.loads(
    (FOLDER / "columns.json").read_text(encoding="utf-8")
)
RESERVED = {"_ResourceId", "id", "_SubscriptionId", "TenantId", "Type", "UniqueId", "Title"}
TYPES = {"string", "int", "long", "real", "boolean", "datetime", "dynamic"}


def types(table: str) -> dict[str, str]:
    return {column["name"]: column["type"] for column in COLUMNS[table]}


def sink(form: str) -> Sentinel:
    return Sentinel("s", SentinelSettings(**{**Sentinel.example, "format": form}))


def test_the_custom_table_has_the_columns_of_the_row():
    assert types("AlertBeam_CL") == formats.COLUMNS
    assert all(len(column["description"]) > 5 for column in COLUMNS["AlertBeam_CL"])


def test_the_normalized_stream_has_columns_of_the_table_and_all_that_a_row_may_have():
    declared = types("ASimAlertEventLogs")
    assert declared.items() <= TABLE.items()
    written = set(re.findall(r'"([A-Z][A-Za-z0-9]+)"(?=:|\] =)', ASIM))
    written |= set(re.findall(r"\b([A-Z][A-Za-z]+)=", ASIM))
    assert {*declared, *ALIASES} == written


@pytest.mark.parametrize("table", COLUMNS)
def test_the_names_and_types_are_some_that_a_stream_may_have(table):
    for name, kind in types(table).items():
        assert re.fullmatch("[A-Za-z][A-Za-z0-9_]{0,44}", name)
        assert name not in RESERVED
        assert kind in TYPES
    assert len(types(table)) == len(COLUMNS[table]), "a name comes twice"
    assert types(table)["TimeGenerated"] == "datetime"


@pytest.mark.parametrize("name", EXAMPLES)
def test_no_example_has_a_field_that_is_not_declared(name):
    known = understand(encoded(EXAMPLES[name].record()))
    assert json.loads(sink("sentinel_row").encode(known, "", "")).keys() <= {*types("AlertBeam_CL")}
    assert json.loads(sink("asim").encode(known, "", "")).keys() <= {
        *types("ASimAlertEventLogs"),
        *ALIASES,
    }


def test_the_streams_are_those_that_the_sink_sends_to_by_itself():
    made = ARM["variables"]
    assert [*made["streams"]] == ["Custom-AlertBeam_CL"]
    assert [*made["asimStreams"]] == ["Custom-ASimAlertEventLogs"]
    assert sink("sentinel_row").target.endswith(", Custom-AlertBeam_CL")
    assert sink("asim").target.endswith(", Custom-ASimAlertEventLogs")
    for flow in (*made["flows"], *made["asimFlows"]):
        assert flow["transformKql"] == "source"
    assert made["asimFlows"][0]["outputStream"] == "Microsoft-ASimAlertEventLogs"


def test_the_arm_template_has_the_columns_and_refers_only_to_what_it_declares():
    assert ARM["variables"]["columns"] == COLUMNS
    text = json.dumps(ARM)
    for declared in ("parameters", "variables"):
        assert set(re.findall(rf"{declared}\('(\w+)'\)", text)) == ARM[declared].keys()
    for inside in re.findall(r'"\[([^"\[]*)\]"', text):
        assert inside.count("(") == inside.count(")"), inside


def test_bicep_says_what_the_arm_template_says():
    parameters = re.findall(r"(?m)^param (\w+) (\w+)", BICEP)
    assert parameters == [(name, it["type"]) for name, it in ARM["parameters"].items()]
    told = [text.replace("\\'", "'") for text in re.findall(r"(?m)^@description\('(.*)'\)$", BICEP)]
    assert told == [it["metadata"]["description"] for it in ARM["parameters"].values()]
    made = re.findall(r"(?m)^resource \w+ '([\w./]+)@([\d-]+)' = \{", BICEP)
    assert made == [(it["type"], it["apiVersion"]) for it in ARM["resources"]]
    assert re.findall(r"(?m)^output (\w+) ", BICEP) == [*ARM["outputs"]]
    assert "loadJsonContent('columns.json')" in BICEP
    for word in _words(ARM["variables"]["flows"] + ARM["variables"]["asimFlows"]):
        assert f"'{word}'" in BICEP
    role = re.search("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", ARM["variables"]["role"])
    assert role is not None
    assert f"'{role[0]}'" in BICEP
    assert BICEP.count("{") == BICEP.count("}")


def test_the_role_is_on_the_rule_alone():
    (role,) = (it for it in ARM["resources"] if it["type"].endswith("/roleAssignments"))
    assert "dataCollectionRules" in role["scope"]


def test_the_settings_of_the_readme_are_good(tmp_path):
    shown = re.search(r"```yaml\n(.*?)```", README, re.DOTALL)
    assert shown is not None
    secret = tmp_path / "entra-secret"
    secret.write_text("s")
    settings = {
        **yaml.safe_load(shown[1].replace("/etc/alertbeam/secrets/entra-secret", str(secret))),
        "sources": [{"event_hubs": {"hub": "h", "namespace": "a.servicebus.windows.net"}}],
        "state": str(tmp_path / "state"),
    }
    file = tmp_path / "settings.yaml"
    file.write_text(yaml.safe_dump(settings))
    (found,) = load(file).sinks
    assert found.name == "sentinel"


def test_the_parameters_of_the_readme_are_those_of_the_template():
    table = README.partition("## Parameters")[2]
    assert re.findall(r"(?m)^\| `(\w+)` \|", table) == [*ARM["parameters"]]
    for given in re.findall(r" -p (.*)", README):
        assert {pair.partition("=")[0] for pair in given.split()} <= ARM["parameters"].keys()
    needed = {name for name, it in ARM["parameters"].items() if "defaultValue" not in it}
    assert needed == {"workspace", "principal"}


def _words(it: Any) -> set[str]:
    if isinstance(it, dict):
        return set().union(*map(_words, it.values()))
    if isinstance(it, list):
        return set().union(*map(_words, it))
    return {it}


ASIM = (
    Path(formats.__file__)
    .read_text(encoding="utf-8")
    .partition("def asim(")[2]
    .partition("def sentinel_row(")[0]
)
