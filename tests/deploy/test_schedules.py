"""Ready-made schedules of `alertbeam replay --since-last`: cron, systemd and Kubernetes take them,
and alertbeam takes their commands and settings."""

from __future__ import annotations

import re
import shlex
import shutil
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
from jsonschema import ValidationError
from ruamel.yaml import YAML

from pipelines.settings import load
from tests.deploy.published import KUBERNETES, validator
from tests.deploy.test_systemd import COMMAND, EXPOSURE, analyze
from tests.site import call
from transforms.lease import LeaseError

DEPLOY = Path(__file__).parent.parent.parent / "deploy"
CRONTAB = DEPLOY / "cron" / "alertbeam-replay"
SERVICE = DEPLOY / "systemd" / "alertbeam-replay.service"
LIVE = DEPLOY / "systemd" / "alertbeam.service"
TIMER = DEPLOY / "systemd" / "alertbeam-replay.timer"
CRONJOB = DEPLOY / "kubernetes" / "replay-cronjob.yaml"
NAME, HISTORY = "scheduled", "history"


def taken(folder: Path, arguments: list[str]) -> None:
    """That alertbeam takes these arguments: it misses nothing but the settings."""
    missing = str(folder / "settings.yaml")
    code, output = call(folder, *[missing if a.endswith(".yaml") else a for a in arguments])
    assert code == 2, output
    assert missing in output and "there is no" not in output.replace(missing, ""), output


def options(arguments: list[str]) -> None:
    """What every schedule must say: one name for ever, and only what is new."""
    assert arguments[0] == "replay"
    assert {"--quiet", "--since-last"} <= {*arguments}
    assert arguments[arguments.index("--name") + 1] == NAME


# -------------------------------------------------------------------------------------- cron


def crontab() -> tuple[dict[str, str], list[str]]:
    """Its variables, and the fields of its one line: five of time, user, command (crontab(5))."""
    variables: dict[str, str] = {}
    lines = []
    for line in CRONTAB.read_text().splitlines():
        if found := re.fullmatch(r"(\w+)=(.*)", line):
            variables[found[1]] = found[2]
        elif line and not line.startswith("#"):
            lines.append(line.split(None, 6))
    (fields,) = lines
    return variables, fields


def test_cron_takes_its_name_its_times_and_its_command() -> None:
    variables, (minute, *rest, user, command) = crontab()
    assert re.fullmatch(r"[\w-]+", CRONTAB.name), "run-parts' names, which /etc/cron.d wants"
    assert CRONTAB.read_bytes().endswith(b"\n"), "cron ignores a last line without an end"
    assert (minute, rest, user) == ("*/15", ["*"] * 4, "alertbeam")
    assert "%" not in command, "cron makes line ends of them"
    assert not {"$", "`"} & {*"".join(variables.values())}, "cron expands nothing here"


def test_alertbeam_takes_the_command_of_the_crontab(tmp_path: Path) -> None:
    _, fields = crontab()
    found = re.search(rf"{COMMAND} (.*?) >>", fields[-1])
    assert found is not None
    arguments = shlex.split(found[1].replace("$HISTORY", HISTORY))
    options(arguments)
    taken(tmp_path, arguments)


@pytest.mark.parametrize(
    ("code", "mailed"), [(0, False), (1, True), (2, True), (LeaseError.exit_code, False)]
)
def test_cron_has_something_to_mail_only_of_a_run_that_failed(
    tmp_path: Path, code: int, mailed: bool
) -> None:
    program, env, log = tmp_path / "alertbeam", tmp_path / "replay.env", tmp_path / "log"
    program.write_text(f'#!/bin/sh\necho "told $# $KEY"\necho problem >&2\nexit {code}\n')
    program.chmod(0o755)
    env.write_text('HISTORY="one two"\nKEY=exported\n')
    variables, (*_, command) = crontab()
    for place, here in ((COMMAND, program), ("/etc/alertbeam/replay.env", env)):
        assert place in command
        command = command.replace(place, str(here))
    for _ in range(2):
        ran = subprocess.run(
            [variables["SHELL"], "-c", command],
            env={**variables, "LOG": str(log)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert ran.stderr == ""
        assert bool(ran.stdout) == mailed
    lines = log.read_text().splitlines()
    assert lines == ["told 9 exported", "problem"] * 2, "both paths are arguments, nothing is lost"
    if mailed:
        assert ran.stdout == log.read_text()


# ----------------------------------------------------------------------------------- systemd


@pytest.fixture
def units(tmp_path: Path) -> tuple[Path, Path]:
    """Both, with a command that is here."""
    for unit in (SERVICE, TIMER):
        text = unit.read_text().replace(COMMAND, str(shutil.which("true")))
        (tmp_path / unit.name).write_text(text)
    return tmp_path / SERVICE.name, tmp_path / TIMER.name


def lines(unit: Path, key: str) -> list[str]:
    return re.findall(rf"(?m)^{key}=(.*)$", unit.read_text())


def test_systemd_takes_both_units_without_a_word(units: tuple[Path, Path]) -> None:
    found = analyze("verify", "--man=no", *map(str, units))
    said = (found.stdout + found.stderr).splitlines()
    words = [line for line in said if "alertbeam-replay" in line]
    assert (found.returncode, words) == (0, [])


def test_the_replay_is_shut_in_as_the_run_is(units: tuple[Path, Path]) -> None:
    found = analyze("security", "--offline=true", "--no-pager", str(units[0]))
    level = re.search(r"exposure level for \S+: ([\d.]+)", found.stdout)
    assert level is not None, found
    assert float(level[1]) <= EXPOSURE
    live = LIVE.read_text().partition("DynamicUser=yes\n")[2].partition("[Install]")[0]
    assert live.strip() in SERVICE.read_text()


def test_the_replay_shares_user_and_state_folder_with_the_run() -> None:
    """systemd names a dynamic user after its unit, and gives a folder to one user at a time."""
    assert lines(SERVICE, "User") == [LIVE.stem] and not lines(LIVE, "User")
    for key in ("StateDirectory", "StateDirectoryMode", "WorkingDirectory", "LoadCredential"):
        assert lines(SERVICE, key) == lines(LIVE, key) != []


def test_alertbeam_takes_the_command_of_the_unit(tmp_path: Path) -> None:
    (line,) = lines(SERVICE, "ExecStart")
    command, *arguments = shlex.split(line)
    assert command == COMMAND and arguments[-1] == "$HISTORY", "systemd splits it into words"
    arguments[-1:] = [HISTORY, HISTORY]
    options(arguments)
    taken(tmp_path, arguments)


def test_one_that_finds_another_at_work_is_no_failure_and_all_else_is() -> None:
    assert lines(SERVICE, "SuccessExitStatus") == [str(LeaseError.exit_code)]
    assert lines(SERVICE, "Type") == ["oneshot"]
    assert not lines(SERVICE, "RemainAfterExit"), "a timer starts what has ended"


def test_a_missed_run_is_caught_up(units: tuple[Path, Path]) -> None:
    (when,) = lines(TIMER, "OnCalendar")
    assert analyze("calendar", when).returncode == 0
    assert lines(TIMER, "Persistent") == ["true"]
    assert lines(TIMER, "WantedBy") == ["timers.target"]
    assert SERVICE.stem == TIMER.stem, "a timer starts the service of its name"


def test_the_settings_of_the_units_readme_are_good_for_the_replay(tmp_path: Path) -> None:
    """As its `sed` makes them: with the credentials of its own unit."""
    page = LIVE.with_name("README.md").read_text()
    shown = re.search(r"```yaml\n(.*?)```", page, re.S)
    change = re.search(r"^\$ sed s/(\S+)/(\S+)/ settings\.yaml", page, re.M)
    assert shown is not None and change is not None
    text = shown[1].replace(change[1], change[2])
    loaded = [line.partition(":")[0] for line in lines(SERVICE, "LoadCredential")]
    assert re.findall(rf"/run/credentials/{SERVICE.name}/([\w-]+)", text) == loaded
    for name in loaded:
        (tmp_path / name).write_text("Endpoint=sb://a.b/;SharedAccessKeyName=a;SharedAccessKey=b")
    text = text.replace(f"/run/credentials/{SERVICE.name}", str(tmp_path))
    (tmp_path / "settings.yaml").write_text(text.replace("/var/lib/alertbeam", str(tmp_path)))
    load(tmp_path / "settings.yaml")


# -------------------------------------------------------------------------------- Kubernetes


def manifest(kind: str) -> dict[str, Any]:
    (found,) = [each for each in manifests() if each["kind"] == kind]
    return found


def manifests() -> list[dict[str, Any]]:
    return [*YAML(typ="safe").load_all(CRONJOB)]


def job() -> dict[str, Any]:
    found: dict[str, Any] = manifest("CronJob")["spec"]["jobTemplate"]["spec"]
    return found


def pod() -> dict[str, Any]:
    found: dict[str, Any] = job()["template"]["spec"]
    return found


@pytest.mark.parametrize("version", KUBERNETES)
@pytest.mark.parametrize(
    "kind", ["ServiceAccount", "ConfigMap", "PersistentVolumeClaim", "CronJob"]
)
def test_the_published_schema_takes_the_manifest(kind: str, version: str) -> None:
    found = manifest(kind)
    taken = validator(found["apiVersion"], kind, version)
    taken.validate(found)
    (found.get("spec") or found)["forgery"] = True
    with pytest.raises(ValidationError, match="forgery"):
        taken.validate(found)


def test_the_published_schema_sees_what_is_wrong_deep_inside() -> None:
    found = manifest("CronJob")
    taken = validator(found["apiVersion"], "CronJob")
    (container,) = found["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    container["securityContext"]["readOnlyRootFileSystem"] = True  # misspelt
    with pytest.raises(ValidationError, match="readOnlyRootFileSystem"):
        taken.validate(found)


def test_two_do_not_work_at_once_and_a_missed_one_is_not_made_up_for() -> None:
    spec = manifest("CronJob")["spec"]
    assert spec["concurrencyPolicy"] == "Forbid"
    assert spec["schedule"] == "*/15 * * * *" and spec["timeZone"] == "Etc/UTC"
    assert 0 < spec["startingDeadlineSeconds"] < 15 * 60, "so that not 100 count as missed"


def test_a_pod_is_followed_by_another_only_where_that_may_help() -> None:
    drained, final = job()["podFailurePolicy"]["rules"]
    assert pod()["restartPolicy"] == "Never", "which podFailurePolicy wants"
    assert drained["action"] == "Ignore"
    assert drained["onPodConditions"] == [{"type": "DisruptionTarget", "status": "True"}]
    assert final["action"] == "FailJob"
    assert final["onExitCodes"]["values"] == [2, LeaseError.exit_code]
    assert final["onExitCodes"]["containerName"] == pod()["containers"][0]["name"]
    assert 0 < job()["backoffLimit"] < 6


def test_the_pod_may_do_nothing_but_its_work() -> None:
    (container,) = pod()["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    context = pod()["securityContext"]
    assert context["runAsNonRoot"] is True and context["runAsUser"] > 0
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod()["automountServiceAccountToken"] is False
    assert not {"hostNetwork", "hostPID", "hostIPC"} & {*pod()}
    assert container["resources"]["limits"]["memory"]


def test_what_is_mounted_is_there_and_only_state_and_scratch_can_be_written() -> None:
    (container,) = pod()["containers"]
    volumes = {volume.pop("name"): volume for volume in pod()["volumes"]}
    mounts = {mount["name"]: mount for mount in container["volumeMounts"]}
    assert {*volumes} == {*mounts}
    assert {name for name, mount in mounts.items() if not mount.get("readOnly")} == {"state", "tmp"}
    assert volumes["settings"]["configMap"]["name"] == manifest("ConfigMap")["metadata"]["name"]
    claim = manifest("PersistentVolumeClaim")["metadata"]["name"]
    assert volumes["state"]["persistentVolumeClaim"]["claimName"] == claim
    assert pod()["serviceAccountName"] == manifest("ServiceAccount")["metadata"]["name"]
    mode = volumes["secrets"]["secret"]["defaultMode"]
    assert not mode & (stat.S_IWGRP | stat.S_IRWXO), "the Secret's files are not for all"


def test_its_settings_are_good_and_its_secret_has_what_they_name(tmp_path: Path) -> None:
    (text,) = manifest("ConfigMap")["data"].values()
    (container,) = pod()["containers"]
    places = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    page = CRONJOB.with_name("README.md").read_text()
    (line,) = re.findall(r"^\$ kubectl create secret generic (.*)$", page, re.M)
    secret, *files = line.split()
    names = [each.removeprefix("--from-file=") for each in files]
    assert secret == {v["name"]: v for v in pod()["volumes"]}["secrets"]["secret"]["secretName"]
    assert re.findall(rf"file:{places['secrets']}/([\w-]+)", text) == names
    for name in names:
        (tmp_path / name).write_text("Endpoint=sb://a.b/;SharedAccessKeyName=a;SharedAccessKey=b")
    text = text.replace(places["secrets"], str(tmp_path)).replace(places["state"], str(tmp_path))
    (tmp_path / "settings.yaml").write_text(text)
    load(tmp_path / "settings.yaml")


def test_alertbeam_takes_the_command_of_the_container(tmp_path: Path) -> None:
    (container,) = pod()["containers"]
    command, *arguments = [*container["command"], *container["args"]]
    assert command == "alertbeam"
    options(arguments)
    settings = arguments[arguments.index("-c") + 1]
    (name,) = manifest("ConfigMap")["data"]
    assert settings == f"/etc/alertbeam/{name}"
    taken(tmp_path, arguments)


def test_the_readme_applies_what_is_there() -> None:
    page = CRONJOB.with_name("README.md").read_text()
    (applied,) = re.findall(r"kubectl apply -f (\S+)", page)
    assert (DEPLOY.parent / applied).samefile(CRONJOB)
    (started,) = re.findall(r"--from=cronjob/(\S+)", page)
    assert started == manifest("CronJob")["metadata"]["name"]
