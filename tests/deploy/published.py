"""What others publish, and deployments are held to: Kubernetes' schemas, the resources of Flink's
operator and of Prometheus', and the tools that check. `.ci/receivers` puts them in place; where one
is missing its tests are skipped, but not in CI."""

from __future__ import annotations

import functools
import json
import os
import zipfile
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator
from jsonschema.validators import validator_for
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012
from ruamel.yaml import YAML

from tests.transforms.sinks.daemons import UNPACKED

__all__ = ["KUBERNETES", "export", "place", "validator"]

KUBERNETES = ("1.31", "1.37")  # from, and the last that is published
CRDS = {
    "FlinkDeployment": "flinkdeployments.flink.apache.org-v1.yml",
    "PodMonitor": "podmonitors.yaml",
}

# A double, written from the Secrets Store CSI Driver's documentation ("SecretProviderClass"): what
# it is published in cannot be had everywhere.
SECRET_PROVIDER_CLASS = {
    "type": "object",
    "required": ["apiVersion", "kind", "metadata", "spec"],
    "additionalProperties": False,
    "properties": {
        "apiVersion": {"const": "secrets-store.csi.x-k8s.io/v1"},
        "kind": {"const": "SecretProviderClass"},
        "metadata": {"type": "object"},
        "spec": {
            "type": "object",
            "additionalProperties": False,
            "properties": {
                "provider": {"type": "string"},
                "parameters": {"type": "object", "additionalProperties": {"type": "string"}},
                "secretObjects": {"type": "array"},
            },
        },
    },
}


def place(receiver: str, name: str = "") -> Path:
    """What `.ci/receivers RECEIVER` put there."""
    found = UNPACKED / receiver / name
    if not (UNPACKED / receiver / ".complete").exists() and not os.environ.get("CI"):
        pytest.skip(f"not here: .ci/receivers {receiver}")
    return found


def _archive() -> zipfile.ZipFile:
    (wheel,) = place("kubernetes").glob("*.whl")
    return zipfile.ZipFile(wheel)


@functools.cache
def _of_kubernetes(version: str, name: str) -> Resource[Any]:
    path = f"kubernetes_validate/kubernetes-json-schema/v{version}.0-local-strict/{name}"
    with _archive() as archive:
        return Resource.from_contents(json.loads(archive.read(path)), DRAFT202012)


def _strict(schema: Any) -> Any:
    """A CRD's schema, without fields that it does not know: what the API server would drop."""
    if isinstance(schema, list):
        return [_strict(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: _strict(value) for key, value in schema.items() if not key.startswith("x-")}
    if schema.get("x-kubernetes-int-or-string"):
        made["type"] = ["integer", "string"]
    if isinstance(schema.get("properties"), dict) and schema.get("type") == "object":
        made["properties"] = {key: _strict(value) for key, value in schema["properties"].items()}
        if not schema.get("x-kubernetes-preserve-unknown-fields"):
            made.setdefault("additionalProperties", False)
    return made


@functools.cache
def _of_crd(kind: str) -> Any:
    if kind == "SecretProviderClass":
        return SECRET_PROVIDER_CLASS
    crd = YAML(typ="safe").load(place("operators", CRDS[kind]))
    schema = _strict(crd["spec"]["versions"][-1]["schema"]["openAPIV3Schema"])
    schema["properties"] |= {
        "apiVersion": {"const": f"{crd['spec']['group']}/{crd['spec']['versions'][-1]['name']}"},
        "kind": {"const": kind},
        "metadata": {"type": "object"},
    }
    return schema


def validator(api: str, kind: str, version: str = KUBERNETES[-1]) -> Any:
    """Of a kind of resource, as Kubernetes, or who defines it, publishes it."""
    if kind == "SecretProviderClass" or kind in CRDS:
        root = _of_crd(kind)
        return Draft7Validator(root)
    group, _, name = api.rpartition("/")
    suffix = f"{group.partition('.')[0]}-{name}" if group else name
    root = _of_kubernetes(version, f"{kind.lower()}-{suffix}.json").contents
    registry = Registry(retrieve=lambda uri: _of_kubernetes(version, Path(uri).name))  # type: ignore[call-arg]
    return validator_for(root)(root, registry=registry)


def export(version: str, folder: Path) -> str:
    """All of them as files; what kubeconform takes as `-schema-location`."""
    prefix = f"kubernetes_validate/kubernetes-json-schema/v{version}.0-local-strict/"
    with _archive() as archive:
        for name in archive.namelist():
            if name.startswith(prefix) and name.endswith(".json"):
                # They refer to each other by addresses of their own.
                schema = json.loads(archive.read(name).replace(b'"/api/_', b'"_'))
                schema.pop("$id", None)
                (folder / Path(name).name).write_text(json.dumps(schema))
    for kind in ("SecretProviderClass", *CRDS):
        crd = _of_crd(kind)
        group, _, name = str(crd["properties"]["apiVersion"]["const"]).rpartition("/")
        path = folder / f"{kind.lower()}-{group.partition('.')[0]}-{name}.json"
        path.write_text(json.dumps(crd))
    return f"{folder}/{{{{ .ResourceKind }}}}{{{{ .KindSuffix }}}}.json"
