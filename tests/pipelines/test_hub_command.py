"""`alertbeam hub`: an event hub on this machine, until Ctrl-C; with publish and run, three
processes that know of each other by a connection string alone."""

from __future__ import annotations

import re
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.site import Site, alerts, stop, wait_for


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """Its own hub is not used: the command's is."""
    with Site(tmp_path / "site", partitions=1) as made:
        yield made


def announced(hub: subprocess.Popen[str]) -> str:
    """The connection string that it prints."""
    assert hub.stdout is not None
    for line in hub.stdout:
        if found := re.fullmatch(r"  export EVENT_HUB_CONNECTION='(.*)'\n", line):
            return found[1]
    raise AssertionError(f"it ended, with {hub.wait()}")


def test_hub_publish_and_run_are_three_processes(site: Site) -> None:
    sent = alerts(40)
    file = site.folder / "alerts.jsonl"
    file.write_bytes(b"\n".join(sent.values()))
    hub = site.start("hub", "--port", "0", "--folder", "events", "--partitions", "2")
    site.more["HUB"] = site.more["EVENT_HUB_CONNECTION"] = announced(hub)
    site.write()
    run = site.run("--quiet")
    code, output = site.command("publish", str(file))
    assert (code, output) == (0, f"{file}: 40 events\n40 events published\n")
    wait_for(lambda: site.syslog.received == 40 and site.hec.received == 40)

    # Ctrl-C on each; the hub goes first, and the run drains all the same.
    stop(hub, signal.SIGINT, timeout=10)
    assert hub.returncode == 0
    output = stop(run, signal.SIGINT, timeout=20)
    assert run.returncode == 0, output
    assert Counter(site.hec.ids()) == Counter(site.syslog.ids()) == Counter([*sent])
    assert all(account.holds for account in site.accounts().values())
    assert "Traceback" not in output

    # Its events survive, and so does where the run was.
    again = site.start("hub", "--port", site.more["HUB"].split(":")[2].split(";")[0],
                       "--folder", "events")  # fmt: skip
    announced(again)
    site.catch_up()
    assert site.syslog.received == 40
    stop(again, signal.SIGTERM, timeout=10)
    assert again.returncode == 0


def test_a_key_is_wanted_and_never_shown(site: Site) -> None:
    site.more["KEY"] = "a-key-that-is-secret"
    hub = site.start("hub", "--port", "0", "--folder", "new", "--key", "env:KEY")
    shown = announced(hub)
    assert "SharedAccessKey=<the key>" in shown
    site.more["HUB"] = shown.replace("<the key>", "another-key")
    site.write()
    code, output = site.call("run", "-c", str(site.settings), "--until-caught-up", "--quiet")
    assert code == 1 and "AuthenticationError" in output
    site.more["HUB"] = shown.replace("<the key>", site.more["KEY"])
    code, output = site.call("run", "-c", str(site.settings), "--until-caught-up", "--quiet")
    assert code == 0, output
    assert site.more["KEY"] not in stop(hub, signal.SIGINT) + output


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (
            ["--port", "{port}", "--folder", "new"],
            "port {port} on 127.0.0.1 is in use; choose another with --port",
        ),
        (["--port", "0", "--folder", "{used}"], "{used}: the folder is in use by another hub"),
        (
            ["--port", "0", "--folder", "new", "--name", "a/b"],
            "'a/b' cannot name a hub: letters, digits, ",
        ),
        (["--port", "0", "--key", "env:NONE"], "env:NONE: the environment variable NONE is not"),
        (["--port", "0", "--key", "secret"], ""),
        (["--port", "0", "--folder", "{file}/hub"], "{file}/hub: Not a directory"),
    ],
    ids=["port", "folder", "name", "no key", "a key itself", "no folder"],
)
def test_what_cannot_be_is_one_line(site: Site, arguments: list[str], told: str) -> None:
    file = site.folder / "file"
    file.touch()
    names = {"port": site.hub.port, "used": site.folder / "hub", "file": file}
    code, output = site.call("hub", *(argument.format(**names) for argument in arguments))
    assert code == 1
    assert output.startswith("alertbeam hub: " + told.format(**names)), output
    assert len(output.splitlines()) == 1
    assert "[Errno" not in output
