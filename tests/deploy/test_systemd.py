"""systemd takes the unit, and the run speaks to it as it wants it: sd_notify(3)."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.notify import notify
from pipelines.settings import load
from tests.site import Site, alerts, call, wait_for

UNIT = Path(__file__).parent.parent.parent / "deploy" / "systemd" / "alertbeam.service"
COMMAND = "/opt/alertbeam/bin/alertbeam"
EXPOSURE = 2.0  # systemd's own scale: 0 is none, 10 is all


class Manager:
    """The service manager's socket."""

    def __init__(self, address: str) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.sock.bind(address)
        self.sock.settimeout(30)
        self.told: list[str] = []

    def wait_for(self, line: str) -> None:
        while line not in self.told:
            self.told += self.sock.recv(4096).decode().splitlines()


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Manager]:
    made = Manager(str(tmp_path / "notify"))
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    yield made
    made.sock.close()


def test_a_run_is_ready_when_it_reads_then_alive_then_stopping(
    tmp_path: Path, manager: Manager
) -> None:
    with Site(tmp_path) as site:
        site.write()
        running = site.run("--quiet")
        site.publish(list(alerts(4).values()))
        manager.wait_for("READY=1")
        assert manager.told[0] == "READY=1"
        manager.wait_for("WATCHDOG=1")
        wait_for(lambda: site.hec.received == 4)
        running.send_signal(signal.SIGTERM)
        manager.wait_for("STOPPING=1")
        output, _ = running.communicate(timeout=30)
        assert running.returncode == 0, output


def test_a_run_that_cannot_start_is_never_ready(tmp_path: Path, manager: Manager) -> None:
    with Site(tmp_path) as site:
        site.write()
        site.hub.refuse_hub("defender")
        code, output = site.call("run", "-c", str(site.settings))
        assert code == 1, output
    manager.sock.setblocking(False)
    with pytest.raises(BlockingIOError):
        manager.sock.recv(4096)


def test_an_abstract_socket_is_one_too(monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"alertbeam-test-{os.getpid()}"
    manager = Manager(f"\0{name}")
    monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}")
    notify("STATUS=one line", "READY=1")
    manager.wait_for("READY=1")
    assert manager.told == ["STATUS=one line", "READY=1"]
    manager.sock.close()


@pytest.mark.parametrize("address", ["", "/nobody/listens", "vsock:2:1", "@nobody"])
def test_where_nobody_listens_nothing_happens(
    monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    notify("READY=1")


def test_a_manager_that_reads_nothing_holds_up_nobody(manager: Manager) -> None:
    for _ in range(5000):  # more than a socket's queue holds
        notify("WATCHDOG=1")


# ------------------------------------------------------------------------------------ the unit


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """With a command that is here."""
    made = tmp_path / UNIT.name
    made.write_text(UNIT.read_text().replace(COMMAND, str(shutil.which("true"))))
    return made


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    program = shutil.which("systemd-analyze")
    if program is None and not os.environ.get("CI"):
        pytest.skip("no systemd-analyze here (Debian's package systemd)")
    assert program is not None, "Debian's package systemd is wanted"
    return subprocess.run([program, *arguments], capture_output=True, text=True, check=False)


def test_systemd_takes_the_unit_without_a_word(unit: Path) -> None:
    found = analyze("verify", "--man=no", str(unit))
    words = [line for line in (found.stdout + found.stderr).splitlines() if unit.name in line]
    assert (found.returncode, words) == (0, [])


def test_the_unit_leaves_little_open(unit: Path) -> None:
    found = analyze("security", "--offline=true", "--no-pager", str(unit))
    level = re.search(r"exposure level for \S+: ([\d.]+)", found.stdout)
    assert level is not None, found
    assert float(level[1]) <= EXPOSURE


def test_its_command_line_is_one_that_we_take(tmp_path: Path) -> None:
    line = re.search(r"^ExecStart=(.*)$", UNIT.read_text(), re.M)
    assert line is not None
    command, *arguments = shlex.split(line[1])
    assert command == COMMAND
    missing = str(tmp_path / "settings.yaml")
    code, output = call(tmp_path, *[a if "/" not in a else missing for a in arguments])
    assert code == 2
    assert missing in output, "only the settings are missing"


def test_the_settings_that_its_readme_shows_are_valid_and_use_its_secrets(tmp_path: Path) -> None:
    text = UNIT.with_name("README.md").read_text()
    shown = re.search(r"```yaml\n(.*?)```", text, re.S)
    assert shown is not None
    loaded = re.findall(r"^LoadCredential=([^:]+):", UNIT.read_text(), re.M)
    assert re.findall(r"/run/credentials/alertbeam.service/([\w-]+)", shown[1]) == loaded
    for name in loaded:
        (tmp_path / name).write_text("Endpoint=sb://a.b/;SharedAccessKeyName=a;SharedAccessKey=b")
    text = shown[1].replace("/run/credentials/alertbeam.service", str(tmp_path))
    (tmp_path / "settings.yaml").write_text(text.replace("/var/lib/alertbeam", str(tmp_path)))
    load(tmp_path / "settings.yaml")


def test_the_units_watchdog_leaves_the_run_time_to_act_itself() -> None:
    from pipelines.watchdog import GAVE_UP, SECONDS

    text = UNIT.read_text()
    minutes = re.search(r"^WatchdogSec=(\d+)min$", text, re.M)
    prevents = re.search(r"^RestartPreventExitStatus=(.*)$", text, re.M)
    assert minutes is not None and int(minutes[1]) * 60 > 2 * SECONDS
    assert prevents is not None and str(GAVE_UP) in prevents[1].split()
