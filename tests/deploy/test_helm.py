"""The Helm chart: helm takes it, Kubernetes' and the operators' published schemas take what it
makes, alertbeam takes the commands and settings in it, and it leaves little open."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
import shutil
import subprocess
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import ValidationError
from ruamel.yaml import YAML

from pipelines.settings import load
from tests.deploy.command import parsed
from tests.deploy.published import KUBERNETES, export, place, validator
from tests.deploy.test_compose import written
from tests.deploy.test_containers import ALERTBEAM, stage
from tests.deploy.test_schedules import CRONJOB

CHART = ALERTBEAM.parent.parent / "helm" / "alertbeam"
VALUES = {path.name.removesuffix("-values.yaml"): path for path in CHART.glob("ci/*-values.yaml")}
EACH = pytest.mark.parametrize("values", sorted(VALUES))
MAIN = "flink-main-container"

Resource = dict[str, Any]


def helm(*arguments: object) -> subprocess.CompletedProcess[str]:
    ran = [str(each) for each in (place("helm", "helm"), *arguments)]
    return subprocess.run(ran, capture_output=True, text=True, check=False)


def template(values: str, *more: str, version: str = KUBERNETES[-1]) -> str:
    made = helm(
        "template", "alerts", CHART, "--namespace", "security", "--kube-version", version,
        "--values", VALUES[values], *more,
    )  # fmt: skip
    assert (made.returncode, made.stderr) == (0, "")
    return made.stdout


@functools.cache
def made(values: str, *more: str) -> list[Resource]:
    found = [*YAML(typ="safe").load_all(template(values, *more))]
    return [each for each in found if each]


def one(values: str, kind: str, *more: str) -> Resource:
    (found,) = (each for each in made(values, *more) if each["kind"] == kind)
    return found


def kinds(values: str, *more: str) -> list[str]:
    return [each["kind"] for each in made(values, *more)]


def flink_pod(values: str, role: str, *more: str) -> Resource:
    found: Resource = one(values, "FlinkDeployment", *more)["spec"][role]["podTemplate"]
    return found


def pods(values: str) -> Iterator[tuple[str, Resource]]:
    """All pod templates that it makes, by what they are."""
    for each in made(values):
        if each["kind"] == "FlinkDeployment":
            yield "jobmanager", each["spec"]["jobManager"]["podTemplate"]
            yield "taskmanager", each["spec"]["taskManager"]["podTemplate"]
        if each["kind"] == "Deployment":
            yield "client", each["spec"]["template"]
        if each["kind"] == "CronJob":
            yield "replay", each["spec"]["jobTemplate"]["spec"]["template"]


def containers(pod: Resource) -> list[Resource]:
    return [*pod["spec"].get("initContainers", ()), *pod["spec"]["containers"]]


def named(items: list[Resource], name: str) -> Resource:
    (found,) = (each for each in items if each["name"] == name)
    return found


# ---------------------------------------------------------------------------- it is what it says


@EACH
def test_helm_has_nothing_to_say(values: str) -> None:
    said = helm("lint", "--strict", CHART, "--values", VALUES[values])
    assert said.returncode == 0, said.stdout + said.stderr
    assert not re.findall(r"\[(?:WARNING|ERROR)\].*", said.stdout)


def test_every_values_file_is_there() -> None:
    assert {*VALUES} == {"least", "azure", "session"}
    everything = {kind for values in VALUES for kind in kinds(values)}
    assert everything == {
        "ConfigMap", "CronJob", "Deployment", "FlinkDeployment", "NetworkPolicy",
        "PersistentVolumeClaim", "PodDisruptionBudget", "PodMonitor", "Role", "RoleBinding",
        "SecretProviderClass", "ServiceAccount",
    }  # fmt: skip


@pytest.mark.parametrize("version", KUBERNETES)
@EACH
def test_the_published_schemas_take_what_it_makes(values: str, version: str) -> None:
    for each in YAML(typ="safe").load_all(template(values, version=f"{version}.0")):
        taken = validator(each["apiVersion"], each["kind"], version)
        taken.validate(each)
        (each.get("spec") or each)["forgery"] = True
        with pytest.raises(ValidationError, match="forgery"):
            taken.validate(each)


@pytest.mark.parametrize("version", KUBERNETES)
@EACH
def test_flinks_pods_are_what_kubernetes_takes_for_pods(values: str, version: str) -> None:
    """The operator's own schema knows their fields; Kubernetes' knows which must be there."""
    for role in ("jobManager", "taskManager"):
        pod = flink_pod(values, role)
        for each in pod["spec"]["containers"]:
            each["image"] = "put in by the operator"
        validator("v1", "Pod", version).validate(pod)
    made.cache_clear()


def test_kubeconform_has_nothing_to_say(tmp_path: Path) -> None:
    location = export(KUBERNETES[-1], tmp_path)
    program = [place("helm", "kubeconform"), "-strict", "-summary", "-schema-location", location]

    def told(text: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(program, input=text, capture_output=True, text=True, check=False)

    said = told("".join(template(values) for values in VALUES))
    assert said.returncode == 0, said.stdout
    assert "Invalid: 0, Errors: 0, Skipped: 0" in said.stdout
    assert f" {sum(len(made(values)) for values in VALUES)} resources" in said.stdout
    text = template("azure", "--show-only", "templates/replay.yaml")
    wrong = told(text.replace("readOnlyRootFilesystem", "readOnlyRootFileSystem"))
    assert wrong.returncode != 0 and "readOnlyRootFileSystem" in wrong.stdout


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"checkpoints.dir": ""}, "checkpoints.dir: name a folder"),
        ({"checkpoints.dir": "checkpoints"}, "checkpoints"),
        ({"checkpoints.dir": "file:///var/lib/flink"}, "which existingClaim is mounted at"),
        ({"checkpoints.azure.keySecret.name": ""}, "checkpoints.azure.keySecret.name"),
        ({"checkpoints.azure.auth": "managedIdentity"}, "needs clientId and tenantId"),
        ({"secrets.keyVault.name": ""}, "say existingSecret, secretProviderClass or keyVault"),
        ({"serviceAccount.workloadIdentity": ""}, "secrets.keyVault: it needs tenantId"),
        ({"settings": "state: /tmp/state"}, "which is the shared volume"),
        ({"settings": "state: [1"}, "settings: not YAML"),
        ({"replay.history": "null"}, "replay.history"),
        ({"job.upgradeMode": "hope"}, "upgradeMode"),
        ({"flink.taskslots": "2"}, "taskslots"),
        ({"images.flink.digest": "sha256:short"}, "digest"),
        ({"env[0].nmae": "TYPO"}, "nmae"),
    ],
)
def test_what_cannot_work_is_refused(changes: dict[str, str], said: str) -> None:
    more = [word for key, value in changes.items() for word in ("--set", f"{key}={value}")]
    refused = helm("template", "alerts", CHART, "--values", VALUES["azure"], *more)
    assert refused.returncode != 0
    assert said in refused.stderr, refused.stderr


def test_the_defaults_alone_are_refused_with_what_is_missing() -> None:
    refused = helm("template", "alerts", CHART)
    assert refused.returncode != 0
    assert "checkpoints.dir: name a folder" in refused.stderr


def test_every_value_is_told_what_it_may_be() -> None:
    """values.yaml and values.schema.json know the same names."""

    def names(value: Any, at: str = "") -> set[str]:
        if not isinstance(value, dict) or not value:
            return {at}
        return set().union(*(names(each, f"{at}.{key}") for key, each in value.items()))

    def known(schema: Any, at: str = "") -> set[str]:
        if "properties" not in schema:
            return {at}
        inner = schema["properties"].items()
        return set().union(*(known(each, f"{at}.{key}") for key, each in inner))

    values = YAML(typ="safe").load(CHART / "values.yaml")
    schema = json.loads((CHART / "values.schema.json").read_text())
    of_schema = known(schema) - {".global"}
    there = {re.sub(r"(resources\.(?:requests|limits)).*", r"\1", name) for name in names(values)}
    assert there - of_schema == set()
    assert {name for name in of_schema - there if not name.endswith(".claims")} == set()


# ------------------------------------------------------------------------- it leaves little open


@EACH
def test_a_pod_may_do_nothing_but_its_work(values: str) -> None:
    for what, pod in pods(values):
        spec = pod["spec"]
        assert spec["automountServiceAccountToken"] is False, what
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & {*spec}
        for each in containers(pod):
            uid = 9999 if each["name"] == MAIN else 10001
            assert each["securityContext"] == {
                "runAsNonRoot": True,
                "runAsUser": uid,
                "runAsGroup": uid,
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }, (what, each["name"])
            if each["name"] != MAIN:  # whose the operator sets, from `resource`
                assert {"requests", "limits"} == {*each["resources"]}
                assert each["resources"]["limits"]["memory"]


@EACH
def test_secrets_are_where_alertbeam_is_and_the_clusters_token_where_flink_is(values: str) -> None:
    for what, pod in pods(values):
        for each in containers(pod):
            mounts = {mount["name"] for mount in each["volumeMounts"]}
            if each["name"] == MAIN:
                assert "kubernetes" in mounts and not {"secrets", "state", "settings"} & mounts
            else:
                assert {"secrets", "state", "settings"} <= mounts, what
                assert "kubernetes" not in mounts


@EACH
def test_what_is_mounted_is_there_and_what_is_there_is_mounted(values: str) -> None:
    names = {(each["kind"], each["metadata"]["name"]) for each in made(values)}
    for what, pod in pods(values):
        volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
        assert len(volumes) == len(pod["spec"]["volumes"]), what
        used = {mount["name"] for each in containers(pod) for mount in each["volumeMounts"]}
        assert used == {*volumes}, what
        for each in containers(pod):
            at = [mount["mountPath"] for mount in each["volumeMounts"]]
            assert len(at) == len({*at})
        if "settings" in volumes:
            assert ("ConfigMap", volumes["settings"]["configMap"]["name"]) in names
            claim = volumes["state"]["persistentVolumeClaim"]["claimName"]
            assert ("PersistentVolumeClaim", claim) in names or values == "session"
    accounts = {each["spec"].get("serviceAccountName") for what, each in pods(values)} - {None}
    accounts.add(one(values, "FlinkDeployment")["spec"]["serviceAccount"])
    assert accounts == {one(values, "ServiceAccount")["metadata"]["name"]}
    bound = one(values, "RoleBinding")
    assert bound["roleRef"]["name"] == one(values, "Role")["metadata"]["name"]
    assert {each["name"] for each in bound["subjects"]} == accounts


def test_secrets_come_from_wherever_they_are() -> None:
    volumes = {v: named(flink_pod(v, "taskManager")["spec"]["volumes"], "secrets") for v in VALUES}
    assert volumes["least"]["secret"] == {"secretName": "alertbeam", "defaultMode": 0o440}
    assert volumes["session"]["csi"]["volumeAttributes"] == {"secretProviderClass": "alerts"}
    vault = one("azure", "SecretProviderClass")
    assert volumes["azure"]["csi"]["volumeAttributes"] == {
        "secretProviderClass": vault["metadata"]["name"]
    }
    assert vault["spec"]["parameters"]["keyvaultName"] == "contoso-alerts"
    objects = YAML(typ="safe").load(vault["spec"]["parameters"]["objects"])["array"]
    kept = [YAML(typ="safe").load(each)["objectName"] for each in objects]
    settings = one("azure", "ConfigMap")["data"]["settings.yaml"]
    assert re.findall(r"file:/run/secrets/alertbeam/([\w-]+)", settings) == kept
    for values in ("least", "session"):
        assert "SecretProviderClass" not in kinds(values)


@EACH
def test_no_secret_is_in_what_it_makes(values: str) -> None:
    for each in made(values):
        assert each["kind"] != "Secret"
    for _, pod in pods(values):
        for container in containers(pod):
            for variable in container.get("env", ()):
                assert variable == {"name": "HOME", "value": "/tmp"} or "valueFrom" in variable


def test_the_storage_accounts_key_comes_by_the_environment_alone() -> None:
    configuration = one("azure", "FlinkDeployment")["spec"]["flinkConfiguration"]
    key = "fs.azure.account.key.contosoflink.dfs.core.windows.net"
    assert configuration[key] == "${env.AZURE_STORAGE_KEY}"
    for role in ("jobManager", "taskManager"):
        (container,) = flink_pod("azure", role)["spec"]["containers"]
        assert container["env"] == [
            {
                "name": "AZURE_STORAGE_KEY",
                "valueFrom": {"secretKeyRef": {"name": "storage", "key": "account-key"}},
            }
        ]


def opened(values: str, tmp_path: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """The folder of checkpoints, by the Hadoop in Flink's plugin and the chart's configuration."""
    if shutil.which("java") is None and not os.environ.get("CI"):
        pytest.skip("no Java here")
    found = one(values, "FlinkDeployment")["spec"]["flinkConfiguration"]
    pairs = [f"{key}={value}" for key, value in found.items() if key.startswith("fs.azure.")]
    return subprocess.run(
        ["java", "-XX:TieredStopAtLevel=1", "-cp", place("operators", "*"),
         Path(__file__).with_name("Checkpoints.java"), found["state.checkpoints.dir"], *pairs],
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), **environment},
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_hadoop_puts_in_the_key_where_the_configuration_names_the_variable(tmp_path: Path) -> None:
    good = opened("azure", tmp_path, AZURE_STORAGE_KEY="YSBrZXk=")
    assert good.returncode == 0, good.stderr
    assert good.stdout == "fs.azure.account.key.contosoflink.dfs.core.windows.net=YSBrZXk=\n"
    missing = opened("azure", tmp_path)
    assert missing.returncode != 0 and "SimpleKeyProvider" in missing.stderr


def test_hadoop_knows_the_provider_of_the_nodes_identity(tmp_path: Path) -> None:
    good = opened("session", tmp_path)
    assert good.returncode == 0, good.stderr
    assert "oauth2.MsiTokenProvider" in good.stdout


@EACH
def test_all_pods_are_the_policys_and_reach_what_they_need(values: str) -> None:
    policy = one(values, "NetworkPolicy")["spec"]
    wanted = policy["podSelector"]["matchLabels"].items()
    for what, pod in pods(values):
        assert wanted <= pod["metadata"]["labels"].items(), what
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert (
        policy["ingress"][0]["from"]
        == policy["egress"][0]["to"]
        == [{"podSelector": policy["podSelector"]}]
    )
    out = {port["port"] for rule in policy["egress"] for port in rule.get("ports", ())}
    assert {53, 443, 5671, 6443} <= out
    assert (80 in out) == (values == "session"), "the node's identity"
    assert ({8088, 6514} <= out) == (values == "azure"), "sinks elsewhere"
    come = {port["port"] for rule in policy["ingress"] for port in rule.get("ports", ())}
    assert come == {8081, 9249, 9100}, "nobody from outside reaches the workers' port"


def test_the_policy_may_be_left_out() -> None:
    assert "NetworkPolicy" not in kinds("least", "--set", "networkPolicy.enabled=false")


# ---------------------------------------------------------------------------- it does what is meant


@EACH
def test_alertbeam_takes_every_command(values: str) -> None:
    seen = set()
    for _, pod in pods(values):
        for each in containers(pod):
            if each.get("command", ["sleep"])[0] == "alertbeam":
                parsed([*each["command"], *each.get("args", ())])
                seen.add(each["name"])
    assert seen == {"workers"} | ({"jar"} if values != "session" else set()) | (
        {"replay"} if values == "azure" else set()
    )


@EACH
def test_alertbeam_takes_the_settings(
    values: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = one(values, "ConfigMap")["data"]["settings.yaml"]
    for name in re.findall(r"file:/run/secrets/alertbeam/([\w-]+)", text):
        (tmp_path / name).write_text("Endpoint=sb://a.b/;SharedAccessKeyName=a;SharedAccessKey=b")
    text = text.replace("/run/secrets/alertbeam", str(tmp_path))
    (tmp_path / "settings.yaml").write_text(text.replace("/var/lib/alertbeam", str(tmp_path)))
    load(tmp_path / "settings.yaml")


def test_a_settings_file_comes_through_to_the_byte(tmp_path: Path) -> None:
    text = '# mine\nsinks:\n  - file: {folder: "/ä # }}{{"}\n\nstate: /var/lib/alertbeam/state\n'
    (tmp_path / "settings.yaml").write_text(text)
    found = one("least", "ConfigMap", "--set-file", f"settings={tmp_path}/settings.yaml")
    assert found["data"]["settings.yaml"].strip() == text.strip()


def test_other_settings_are_another_job_and_another_client() -> None:
    def marks(*more: str) -> set[str]:
        pod = one("least", "Deployment", *more)["spec"]["template"]
        of_job = flink_pod("least", "jobManager", *more)["metadata"]["annotations"]
        return {of_job["alertbeam/settings"], pod["metadata"]["annotations"]["alertbeam/settings"]}

    (before,) = marks()
    (after,) = marks("--set", "settings=state: /var/lib/alertbeam/other")
    assert before != after
    assert after == hashlib.sha256(b"state: /var/lib/alertbeam/other").hexdigest()


def test_the_job_is_made_where_flink_looks_for_it() -> None:
    pod, job = flink_pod("azure", "jobManager"), one("azure", "FlinkDeployment")["spec"]["job"]
    jar = named(pod["spec"]["initContainers"], "jar")
    options = parsed([*jar["command"], *jar["args"]])
    assert job["jarURI"] == f"local://{options['output']}"
    assert options["parallelism"] == job["parallelism"] == 4
    assert options["options"] == ["--max_parallelism=128"]
    (flink,) = pod["spec"]["containers"]
    for each, read_only in ((jar, None), (flink, True)):
        mount = named(each["volumeMounts"], "job")
        assert options["output"].is_relative_to(mount["mountPath"])
        assert mount.get("readOnly") == read_only
    assert job | {"jarURI": ""} == {
        "jarURI": "",
        "entryClass": "org.apache.beam.runners.flink.FlinkPipelineRunner",
        "parallelism": 4,
        "state": "running",
        "upgradeMode": "savepoint",
        "allowNonRestoredState": True,
        "savepointTriggerNonce": 7,
    }


def test_a_session_has_no_job_and_no_jar() -> None:
    assert "job" not in one("session", "FlinkDeployment")["spec"]
    assert "initContainers" not in flink_pod("session", "jobManager")["spec"]
    assert "PodDisruptionBudget" not in kinds("session")


@EACH
def test_the_worker_pool_is_a_sidecar_that_restarts_and_is_asked_how_it_is(values: str) -> None:
    workers = named(flink_pod(values, "taskManager")["spec"]["initContainers"], "workers")
    assert workers["restartPolicy"] == "Always"
    options = parsed(workers["command"])
    assert options["listen"] == "127.0.0.1", "nobody outside the pod may tell it what to run"
    ports = {port["name"]: port["containerPort"] for port in workers["ports"]}
    assert options["health"] == f"0.0.0.0:{ports['health']}"
    assert options["metrics"] == f"0.0.0.0:{ports['metrics']}"
    asked = {
        probe: workers[f"{probe}Probe"]["httpGet"]["path"]
        for probe in ("startup", "liveness", "readiness")
    }
    assert asked == {"startup": "/healthz", "liveness": "/healthz", "readiness": "/readyz"}
    grace = flink_pod(values, "taskManager")["spec"]["terminationGracePeriodSeconds"]
    assert options["grace"] < grace


@EACH
def test_the_images_are_those_that_the_container_files_make(values: str) -> None:
    labels = {
        each.last("LABEL").partition('title="')[2].partition('"')[0]
        for each in (stage("workers"), stage("cli"))
    }
    names = {
        each["image"].rpartition("/")[2].partition("@")[0].partition(":")[0]
        for _, pod in pods(values)
        for each in containers(pod)
        if "image" in each
    }
    assert names <= labels == {"alertbeam", "alertbeam-cli"}
    image = one(values, "FlinkDeployment")["spec"]["image"]
    assert image.endswith("alertbeam-flink:0.1.0")


def test_a_digest_goes_before_a_tag() -> None:
    workers = named(flink_pod("azure", "taskManager")["spec"]["initContainers"], "workers")
    assert re.fullmatch(r"contoso\.example/alertbeam@sha256:0{63}1", workers["image"])


@EACH
def test_flink_keeps_everything_in_the_folder_and_outlives_its_jobmanager(values: str) -> None:
    found = one(values, "FlinkDeployment")["spec"]["flinkConfiguration"]
    folder = YAML(typ="safe").load(VALUES[values])["checkpoints"]["dir"].rstrip("/")
    assert found["state.checkpoints.dir"] == f"{folder}/checkpoints"
    assert found["state.savepoints.dir"] == f"{folder}/savepoints"
    assert found["high-availability.storageDir"] == f"{folder}/ha"
    assert found["high-availability.type"] == "kubernetes"
    assert all(isinstance(value, str) for value in found.values())
    assert found["state.checkpoints.num-retained"] == ("5" if values == "azure" else "3")


def test_flink_knows_every_key() -> None:
    """Each is a constant of one of the classes that declare Flink's options. What begins with
    fs.azure is Hadoop's, kubernetes.operator the operator's, metrics.reporter.NAME a plugin's."""
    keys = set(dict(line.split(": ", 1) for line in written()["x-properties"].splitlines()))
    for values in VALUES:
        keys |= {*one(values, "FlinkDeployment")["spec"]["flinkConfiguration"]}
    keys = {k for k in keys if not k.startswith(("fs.", "kubernetes.operator.", "metrics.rep"))}
    (dist,) = place("flink", "lib").glob("flink-dist-*.jar")
    with zipfile.ZipFile(dist) as archive:
        options = [name for name in archive.namelist() if re.search(r"Options?\.class$", name)]
        declared = b"".join(map(archive.read, options))
    constant = {key: b"\x01" + len(key).to_bytes(2, "big") + key.encode() for key in keys}
    assert len(keys) > 12
    assert {key for key in keys if constant[key] not in declared} == set()


@pytest.mark.parametrize(
    ("parallelism", "slots", "available"),
    [(1, 1, None), (2, 1, 1), (4, 2, 1), (5, 2, 2), (2, 4, None)],
)
def test_a_drained_node_takes_one_taskmanager_at_a_time(
    parallelism: int, slots: int, available: int | None
) -> None:
    more = ("--set", f"job.parallelism={parallelism}", "--set", f"flink.taskSlots={slots}")
    budgets = [each for each in made("least", *more) if each["kind"] == "PodDisruptionBudget"]
    assert [each["spec"]["minAvailable"] for each in budgets] == [available] * bool(available)
    for each in budgets:
        assert each["spec"]["selector"]["matchLabels"] == {
            "app": "alerts",
            "component": "taskmanager",
            "type": "flink-native-kubernetes",
        }, "the labels that Flink's own Kubernetes integration puts there"


def test_prometheus_finds_the_ports() -> None:
    monitor = one("azure", "PodMonitor")
    assert monitor["metadata"]["labels"]["release"] == "prometheus"
    asked = {each["port"] for each in monitor["spec"]["podMetricsEndpoints"]}
    for role in ("jobManager", "taskManager"):
        pod = flink_pod("azure", role)
        ports = {p["name"]: p["containerPort"] for c in containers(pod) for p in c.get("ports", ())}
        annotated = int(pod["metadata"]["annotations"]["prometheus.io/port"])
        assert annotated in {ports[name] for name in asked if name in ports}
    configuration = one("azure", "FlinkDeployment")["spec"]["flinkConfiguration"]
    assert configuration["metrics.reporter.prom.port"] == str(ports["flink-metrics"])


def test_replay_is_the_cronjob_that_is_there_without_helm() -> None:
    """deploy/kubernetes has it by itself, and says why it is as it is."""
    mine, plain = one("azure", "CronJob")["spec"], YAML(typ="safe").load_all(CRONJOB.read_text())
    (theirs,) = (each["spec"] for each in plain if each["kind"] == "CronJob")
    pod, their_pod = (each["jobTemplate"]["spec"].pop("template") for each in (mine, theirs))
    assert mine == theirs
    (container,), (their,) = pod["spec"]["containers"], their_pod["spec"]["containers"]
    for key in ("name", "command", "resources"):
        assert container[key] == their[key], key
    assert container["args"][:3] == their["args"][:3]
    assert {m["name"]: m["mountPath"] for m in container["volumeMounts"]} == {
        m["name"]: m["mountPath"] for m in their["volumeMounts"]
    }
    for key in ("restartPolicy", "terminationGracePeriodSeconds", "automountServiceAccountToken"):
        assert pod["spec"][key] == their_pod["spec"][key]
    made.cache_clear()


NOTES = """
apiVersion: v1
kind: ConfigMap
metadata: {name: notes}
data: {notes: {{ tpl (.Files.Get "NOTES.txt") . | toJson }}}
"""


def test_what_the_notes_and_the_readme_say_alertbeam_takes(tmp_path: Path) -> None:
    """`helm template` leaves the notes out, and `helm install` wants a cluster even for a try."""
    chart = tmp_path / "alertbeam"
    shutil.copytree(CHART, chart)
    (chart / "templates" / "NOTES.txt").rename(chart / "NOTES.txt")
    (chart / "templates" / "notes.yaml").write_text(NOTES)
    notes = {}
    for values, file in VALUES.items():
        shown = helm(
            "template", "alerts", chart, "--values", file, "--show-only", "templates/notes.yaml"
        )
        notes[values] = YAML(typ="safe").load(shown.stdout)["data"]["notes"]
    texts = [*notes.values(), (CHART / "README.md").read_text()]
    commands = [line for text in texts for line in re.findall(r"-- (alertbeam .*)", text)]
    assert len(commands) == 4 + 2 + 2 + 3
    for line in commands:
        parsed(line.split())
    assert "--cluster alerts-rest:8081" in notes["session"]
    assert "savepoint" in notes["least"] and "savepoint" not in notes["session"]
    assert "alerts-state stays" in notes["least"] and "stays" not in notes["session"]


def test_a_long_name_is_one_that_flink_takes() -> None:
    name = "alerts-of-the-security-operations-centre-europe-west"
    found = helm("template", name, CHART, "--values", VALUES["azure"])
    for each in YAML(typ="safe").load_all(found.stdout):
        if each["kind"] == "FlinkDeployment":
            assert len(each["metadata"]["name"]) <= 45
        assert len(each["metadata"]["name"]) <= 52, "a CronJob's"
