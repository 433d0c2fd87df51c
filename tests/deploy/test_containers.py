"""The container files: linted, and their steps tried without a container engine, which nobody here
has: each stage's COPY and RUN in one clean folder that stands for the image's root."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import json
import os
import re
import shlex
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import pytest

from tests.deploy.command import parsed
from tests.deploy.published import place
from tests.site import wait_for

ROOT = Path(__file__).parent.parent.parent
CONTAINERS = ROOT / "deploy" / "containers"
ALERTBEAM, FLINK = CONTAINERS / "Dockerfile", CONTAINERS / "flink.Dockerfile"
FILES = pytest.mark.parametrize("file", [ALERTBEAM, FLINK], ids=lambda path: path.name)
MINE = r"(?<![\w/-])(/opt/alertbeam|/src|/var/lib/alertbeam|/var/lib/flink)\b"


class Stage(NamedTuple):
    name: str
    base: str
    steps: list[tuple[str, str]]

    def last(self, instruction: str) -> str:
        found = [text for what, text in self.steps if what == instruction]
        return found[-1] if found else ""


def stages(file: Path) -> list[Stage]:
    """Each FROM and what follows it; arguments that stand before the first one are put in."""
    text = re.sub(r"(?m)^\s*#.*\n", "", file.read_text())
    values: dict[str, str] = {}
    made: list[Stage] = []
    for line in re.sub(r"\\\n\s*", "", text).splitlines():
        what, _, rest = line.strip().partition(" ")
        if what == "ARG" and not made:
            key, _, values[key] = rest.partition("=")
        elif what == "FROM":
            base, _, name = re.sub(r"\$\{(\w+)\}", lambda m: values[m[1]], rest).partition(" AS ")
            made.append(Stage(name, base, []))
        elif what:
            made[-1].steps.append((what, rest))
    return made


def stage(name: str) -> Stage:
    return {each.name: each for each in stages(ALERTBEAM)}[name]


UID_GID = stage("workers").last("USER").split(":")


# -------------------------------------------------------------------------------- what they say


def hadolint(file: Path) -> list[dict[str, object]]:
    program = place("hadolint", "bin/hadolint")
    ran = subprocess.run(
        [program, "--no-fail", "--format", "json", file], capture_output=True, text=True, check=True
    )
    found: list[dict[str, object]] = json.loads(ran.stdout)
    return found


@FILES
def test_hadolint_has_nothing_to_say(file: Path) -> None:
    assert hadolint(file) == []


def test_hadolint_sees_what_is_wrong(tmp_path: Path) -> None:
    text = ALERTBEAM.read_text().replace("FROM workers AS cli", "FROM python AS cli\nUSER root")
    (tmp_path / "Dockerfile").write_text(text + "RUN cd /tmp && sudo apt-get install thing\n")
    codes = {each["code"] for each in hadolint(tmp_path / "Dockerfile")}
    assert {"DL3006", "DL3002", "DL3003", "DL3004"} <= codes


@FILES
def test_what_they_build_on_is_pinned(file: Path) -> None:
    found = stages(file)
    names = {each.name for each in found}
    for each in found:
        if each.base not in names:
            tag = each.base.partition("@")[0].partition(":")[2]
            assert re.match(r"\d+\.\d+\.\d+", tag), f"{each.base}: no full version"
            digest = each.base.partition("@")[2]
            assert not digest or re.fullmatch("sha256:[0-9a-f]{64}", digest)


@pytest.mark.parametrize(
    ("found", "user"),
    [(stage("workers"), "10001:10001"), (stage("cli"), ""), (stages(FLINK)[-1], "9999:9999")],
    ids=lambda value: value.name or "flink" if isinstance(value, Stage) else "",
)
def test_what_runs_is_no_root_has_a_label_and_is_looked_after(found: Stage, user: str) -> None:
    assert found.last("USER") == user, "the command's image is the workers'"
    assert "org.opencontainers.image.title" in found.last("LABEL")
    assert found.last("HEALTHCHECK")


@FILES
def test_there_is_no_secret_in_them(file: Path) -> None:
    """Nothing is given at the build, neither is a file of secrets within its reach."""
    assert not re.search(r"(?i)secret|password|token|connection_string", file.read_text())
    ignored = file.with_name(f"{file.name}.dockerignore").read_text().splitlines()
    taken = [line[1:] for line in ignored if line.startswith("!")]
    assert "*" in ignored
    assert not {path for path in taken if re.search(r"env|state|\.git|out", path)}
    sources = {
        source
        for each in stages(file)
        for what, rest in each.steps
        if what == "COPY" and "--from" not in rest
        for source in rest.split()[:-1]
    }
    kept = {path.name for pattern in taken for path in ROOT.glob(pattern)}
    assert {Path(source).name for source in sources} <= kept, "what is copied is in the context"


def test_alertbeam_takes_the_command_of_the_workers() -> None:
    entry, command = (json.loads(stage("workers").last(w)) for w in ("ENTRYPOINT", "CMD"))
    options = parsed([*entry, *command])
    assert (options["listen"], options["port"]) == ("127.0.0.1", 50000)
    assert (options["health"], options["metrics"]) == ("0.0.0.0:8081", "0.0.0.0:9100")
    assert {*stage("workers").last("EXPOSE").split()} == {"8081", "9100"}, "nobody else's is 50000"


def test_the_job_servers_jar_is_the_one_that_maven_builds() -> None:
    pom = ElementTree.parse(ROOT / "deploy" / "flink" / "pom.xml")
    names = {"m": "http://maven.apache.org/POM/4.0.0"}
    folder = pom.findtext("m:build/m:directory", namespaces=names)
    name = pom.findtext("m:build/m:finalName", namespaces=names)
    assert folder is not None and name is not None
    (moved,) = re.findall(r"mv (\S+) (\S+)", stage("job-server").last("RUN"))
    made = Path(folder.replace("${project.basedir}/", "")) / f"{name}.jar"
    assert made.match(moved[0]), (made, moved)
    (_, variable) = re.findall(r"(\w+_JOB_SERVER_JAR)=(\S+)", stage("cli").last("ENV"))[0]
    copied = [rest for what, rest in stage("cli").steps if what == "COPY" and moved[1] in rest]
    assert copied == [f"--from=job-server {moved[1]} {variable}"]


def locked(path: Path) -> dict[str, set[str]]:
    """Each pinned package, with the hashes that it may have."""
    packages = re.findall(
        r"(?m)^(\S+==[^\\\n]+?) *\\\n((?:    --hash=\S+(?: \\)?\n)+)", path.read_text()
    )
    return {name: {*re.findall(r"--hash=(\S+)", hashes)} for name, hashes in packages}


def test_the_images_packages_are_those_that_the_tests_ran_with() -> None:
    """`make lock` writes both; the image's has no developers' tools."""
    image, project = locked(CONTAINERS / "requirements.lock"), locked(ROOT / "requirements.lock")
    assert {name: image[name] for name in image if image[name] != project.get(name)} == {}
    names = {name.partition("==")[0] for name in image}
    assert {"apache-beam", "azure-eventhub", "confluent-kafka", "boto3"} <= names
    assert not {"pytest", "ruff", "mypy", "hypothesis", "duckdb"} & names
    assert {*(name.partition("==")[0] for name in locked(CONTAINERS / "build.lock"))} == {
        "setuptools"
    }


# ------------------------------------------------------------------------------------- dry runs


def dry_run(found: Stage, root: Path, here: str, **environment: str) -> None:
    """Do what a stage does: COPY of the context, and RUN, as this user. Paths that are the image's
    own lie under `root`; an owner is nobody's to give away here."""

    def mapped(text: str) -> str:
        return re.sub(MINE, lambda match: f"{root}{match[1]}", text)

    folder = Path(mapped(here))
    for what, rest in found.steps:
        if what == "WORKDIR":
            folder = Path(mapped(rest))
        folder.mkdir(parents=True, exist_ok=True)
        if what == "COPY" and not rest.startswith("--from="):
            *sources, into = mapped(rest).split()
            for source in sources:
                place_at = folder / into
                if (ROOT / source).is_dir():
                    ignore = shutil.ignore_patterns("__pycache__")
                    shutil.copytree(ROOT / source, place_at, dirs_exist_ok=True, ignore=ignore)
                else:
                    if into.endswith("/"):
                        place_at.mkdir(parents=True, exist_ok=True)
                    shutil.copy(ROOT / source, place_at)
        if what == "RUN":
            ran = subprocess.run(
                ["sh", "-ec", re.sub(r" -[og] \d+", "", mapped(rest))],
                cwd=folder,
                env={**environment, "HOME": str(root)},
                capture_output=True,
                text=True,
                check=False,
            )
            assert ran.returncode == 0, f"RUN {rest}\n{ran.stdout}{ran.stderr}"


@pytest.fixture(scope="module")
def image() -> Iterator[Path]:
    """The root of the workers' image, as far as it is ours, where its user may enter."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        root.chmod(0o755)
        (root / "python").mkdir()
        (root / "python" / "python").symlink_to(python())
        outside = {key: os.environ[key] for key in os.environ if key.startswith(("PIP_", "SSL_"))}
        path = f"{root}/python:{os.environ['PATH']}"
        for name in ("build", "workers"):
            dry_run(stage(name), root, "/", **outside, PATH=path, PIP_CACHE_DIR=pip_cache())
        if as_user():
            shutil.chown(root / "var/lib/alertbeam", *map(int, UID_GID))
        yield root


@functools.cache
def python() -> Path:
    """Debian's, as in the image, if that is here; else the one that runs this."""
    debian = Path("/usr/bin/python3.11")
    made = [debian, "-c", "import ensurepip"]
    if debian.exists() and subprocess.run(made, stderr=subprocess.DEVNULL).returncode == 0:
        return debian
    return Path(getattr(sys, "_base_executable", sys.executable)).resolve()


def pip_cache() -> str:
    ran = [sys.executable, "-m", "pip", "cache", "dir"]
    return subprocess.run(ran, capture_output=True, text=True, check=True).stdout.strip()


def run_in(image: Path, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """As the image would: nothing of this environment; where root may, as the image's user."""
    return subprocess.run(
        [*as_user(), *command],
        cwd=image / "var" / "lib" / "alertbeam",
        env={"PATH": f"{image}/opt/alertbeam/bin:/usr/bin:/bin", "HOME": "/tmp", **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def as_user() -> list[str]:
    """… which needs a Python that is not root's own."""
    hidden = any(not folder.stat().st_mode & stat.S_IXOTH for folder in python().parents)
    if os.geteuid() or hidden or shutil.which("setpriv") is None:
        return []
    uid, gid = UID_GID
    return ["setpriv", f"--reuid={uid}", f"--regid={gid}", "--clear-groups"]


@pytest.mark.timeout(900)
def test_the_steps_install_alertbeam_and_nothing_else(image: Path) -> None:
    told = run_in(image, "alertbeam", "--version")
    assert (told.returncode, told.stdout) == (0, "alertbeam 0.1.0\n"), told
    installed = image.glob("opt/alertbeam/lib/*/site-packages/*.dist-info")
    there = {path.name.partition("-")[0] for path in installed}
    assert "alertbeam" in there and not {"pip", "pytest", "ruff"} & there
    assert importlib.util.find_spec("pytest"), "which this environment has"


@pytest.mark.timeout(900)
def test_what_is_installed_reads_settings_and_writes_nothing_but_its_own(image: Path) -> None:
    settings = image / "var/lib/alertbeam/settings.yaml"
    settings.write_text(
        "sources:\n  - event_hubs: {hub: defender, connection_string: env:HUB}\n"
        "sinks:\n  - file: {folder: /var/lib/alertbeam/archive}\nstate: state\n"
    )
    hub = "Endpoint=sb://127.0.0.1:1;SharedAccessKeyName=a;SharedAccessKey=b;EntityPath=defender"
    told = run_in(image, "alertbeam", "validate", str(settings), HUB=hub)
    assert told.returncode == 0, told
    wrong = run_in(image, "alertbeam", "validate", str(settings))
    assert wrong.returncode == 2 and "HUB" in wrong.stdout + wrong.stderr


@contextlib.contextmanager
def pool(image: Path) -> Iterator[list[int]]:
    """The image's own command, on other ports."""
    ports = []
    for _ in range(3):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            ports.append(free.getsockname()[1])
    entry, command = (json.loads(stage("workers").last(w)) for w in ("ENTRYPOINT", "CMD"))
    text = shlex.join([*entry, *command, "--port", str(ports[0])])
    for port, other in (("8081", ports[1]), ("9100", ports[2])):
        text = text.replace(f"0.0.0.0:{port}", f"127.0.0.1:{other}")
    process = subprocess.Popen(
        [*as_user(), *shlex.split(text)],
        cwd=image / "var/lib/alertbeam",
        env={"PATH": f"{image}/opt/alertbeam/bin:/usr/bin:/bin", "HOME": "/tmp"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield ports
    finally:
        process.terminate()
        try:
            process.wait(30)
        finally:
            process.kill()


@pytest.mark.timeout(900)
def test_the_health_check_tells_a_pool_that_is_up_from_one_that_is_not(image: Path) -> None:
    _, _, text = stage("workers").last("HEALTHCHECK").partition("CMD ")
    command = json.loads(text)
    with pool(image) as (_, health, _):
        check = [part.replace("8081", str(health)) for part in command]
        wait_for(lambda: run_in(image, *check).returncode == 0, 60)
    assert run_in(image, *check).returncode != 0


def test_flinks_steps_put_azures_file_system_where_flink_looks_for_it(tmp_path: Path) -> None:
    """In a folder that has what Flink's `opt` has of it."""
    home = tmp_path / "flink"
    (home / "plugins").mkdir(parents=True)
    (home / "opt").symlink_to(place("operators"))
    (found,) = stages(FLINK)
    dry_run(found, tmp_path, str(home), PATH=os.environ["PATH"])
    (jar,) = (home / "plugins/azure-fs-hadoop").iterdir()
    assert jar.stat().st_size > 1_000_000
    assert (tmp_path / "var/lib/flink").is_dir()
