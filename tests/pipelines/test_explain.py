"""What `alertbeam explain` shows people, and says to machines."""

from __future__ import annotations

import hashlib
import io
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipelines import cli
from schemas.dead_letter import DeadLetter
from schemas.formats import FORMATS
from schemas.kinds import KINDS
from tests.fixtures import defender_alert, encoded, hostile, security_incident
from transforms.dead_letters import write_dead_letters
from transforms.state_store import StateStore

FIELDS = [
    "kind", "identity", "version", "time", "severity", "status", "title", "subscription_id",
    "resource_ids", "hosts", "users", "ips", "urls", "hashes", "tactics", "techniques", "product",
    "link", "raw_sha256",
]  # fmt: skip
SETTINGS = """\
sources: [{event_hubs: {namespace: a.b, hub: h}}]
subscriptions: {file: subscriptions.json}
digests: [{name: storms, window: {fixed: 5m}}]
sinks:
  - {file: {folder: out}, name: archive}
  - {syslog: {address: "127.0.0.1:9", format: cef}, name: siem, where: {severity: low}}
  - {syslog: {address: "127.0.0.1:9", max_bytes: 480, format: cef}, name: small}
  - {file: {folder: digests}, name: counts, send: digests}
state: state
"""
SUBSCRIPTIONS = '[{"id": "7f3c1e20-55aa-4b6b-9d0e-0123456789ab", "name": "Shop", "owner": "ann"}]'
ALERT = encoded(defender_alert())


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    Path("settings.yaml").write_text(SETTINGS, encoding="utf-8")
    Path("subscriptions.json").write_text(SUBSCRIPTIONS, encoding="utf-8")


def explain(
    capsys: pytest.CaptureFixture[str], body: bytes, *arguments: str
) -> tuple[int, str, str]:
    """Exit code, standard output, standard error."""
    Path("events").write_bytes(body)
    with pytest.raises(SystemExit) as ended:
        cli.main(["explain", "events", *arguments])
    out, err = capsys.readouterr()
    assert isinstance(ended.value.code, int)
    return ended.value.code, re.sub(r"\x1b\[[\d;]*m", "", out), err


def as_json(capsys: pytest.CaptureFixture[str], body: bytes, *more: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in explain(capsys, body, "--json", *more)[1].splitlines()]


def test_people_see_what_an_event_is_and_why(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = explain(capsys, ALERT)
    assert (code, err) == (0, "")
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert "1 defender_alert Suspicious download by a system account" in lines
    for line in (
        f"told by {KINDS['defender_alert'].told_by}",
        "identity 2517000000000000001_0a1b2c3d-1111-4222-8333-444455556666",
        "time 2026-03-04T10:13:14.987Z"
        " (activity 2026-03-04T10:11:12.123Z to 2026-03-04T10:12:00.500Z)",
        "severity high",
        "status new",
        "subscription 7f3c1e20-55aa-4b6b-9d0e-0123456789ab",
        "tactics Persistence, CredentialAccess",
    ):
        assert line in lines


def test_each_sink_says_what_it_is_sent_or_why_not(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = explain(capsys, ALERT, "-c", "settings.yaml")
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert "✓ archive (file) is sent:" in lines
    assert "✗ siem (syslog): severity is high, wanted is [low]" in lines
    assert "✓ small (syslog) is sent:" in lines
    assert "✗ counts (file): it gets digests, and this record counts in them" in lines
    assert any("CEF:0|Microsoft" in line for line in lines)
    assert any("Shop, ann" in line for line in lines if line.startswith("subscription"))


def test_machines_get_the_stable_fields_first(capsys: pytest.CaptureFixture[str]) -> None:
    (found,) = as_json(capsys, ALERT)
    assert list(found)[: len(FIELDS)] == FIELDS
    assert found["kind"] == "defender_alert"
    assert found["time"] == "2026-03-04T10:13:14.987Z"
    assert found["raw_sha256"] == hashlib.sha256(ALERT).hexdigest()
    (found,) = as_json(capsys, ALERT, "-c", "settings.yaml")
    assert found["sinks"]["siem"] == "severity is high, wanted is [low]"
    assert found["sinks"]["archive"] == "gets it"


def test_a_dead_letter_is_shown_and_makes_the_command_fail(
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, out, _ = explain(capsys, ALERT + b"\n{\n")
    assert code == 1
    assert "2  dead letter" in out
    assert "not JSON: it ends too early" in out
    code, out, _ = explain(capsys, b"{", "--json")
    assert code == 1
    assert json.loads(out) == {
        "kind": "dead_letter",
        "reason": "not JSON: it ends too early",
        "raw_sha256": hashlib.sha256(b"{").hexdigest(),
    }


def test_repairs_masked_secrets_and_repeats_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    secret = "https://a.example/?sig=abcdefghijklmnopqrstuvwxyz"
    alert = encoded(defender_alert(Description=secret))
    code, out, _ = explain(capsys, alert + b"\n" + alert + b"\n{'a': 1}")
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert code == 0
    assert lines.count("masked 1 secrets") == 2
    assert "repeat of record 1: sinks get it once" in lines
    assert "repaired single_quotes" in lines
    assert "abcdefghijklmnop" not in out
    found = as_json(capsys, alert + b"\n" + alert + b"\n{'a': 1}")
    assert [each["repeat_of"] for each in found] == [None, 1, None]
    assert [each["masked"] for each in found] == [1, 1, 0]
    assert found[0]["raw_sha256"] == hashlib.sha256(alert).hexdigest()
    assert found[2]["repairs"] == ["single_quotes"]


@pytest.mark.parametrize("form", FORMATS)
def test_a_record_is_written_in_any_format(form: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = explain(capsys, ALERT, "--as", form)
    assert (code, err) == (0, "")
    assert out.count("\n") == 1
    if FORMATS[form].media_type == "application/json":
        assert isinstance(json.loads(out), dict)


def test_an_unknown_format_is_answered_with_those_there_are(
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, _, err = explain(capsys, ALERT, "--as", "csv")
    assert code == 2
    assert "cef" in err


def test_what_differs_from_known_shapes_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    body = b"\n".join([encoded(defender_alert(RiskScore=7)), encoded(security_incident(Title=1))])
    code, out, _ = explain(capsys, body, "--drift")
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert code == 0
    assert "defender_alert RiskScore is new (number) 1" in lines
    assert "security_incident:SecurityIncident Title is now also number 1" in lines
    assert "nothing differs" in explain(capsys, ALERT, "--drift")[1]
    (found, _) = as_json(capsys, body)
    assert found["changes"] == ["defender_alert: RiskScore is new (number)"]


def test_where_the_state_holds_it_as_a_dead_letter_that_is_told(
    capsys: pytest.CaptureFixture[str],
) -> None:
    store = StateStore("state")
    letter = DeadLetter("a.b/h/$Default", "0", 7, 0, 1, "siem", "too long for this sink", ALERT)
    store.prepare()
    write_dead_letters(store, [letter])
    _, out, _ = explain(capsys, ALERT, "-c", "settings.yaml")
    assert "siem: too long for this sink" in out
    # The file of dead letters itself can be explained too.
    (path,) = Path("state").rglob("*.avro")
    (found,) = as_json(capsys, path.read_bytes())
    assert found["kind"] == "defender_alert"


def test_standard_input_is_read_where_the_file_is_a_dash(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(ALERT)))
    with pytest.raises(SystemExit) as ended:
        cli.main(["explain", "-", "--json"])
    assert ended.value.code == 0
    assert json.loads(capsys.readouterr().out)["kind"] == "defender_alert"


def test_hostile_text_does_nothing_to_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    for text in hostile():
        body = encoded(defender_alert(AlertDisplayName=text, CompromisedEntity=text, x=text))
        Path("events").write_bytes(body)
        for arguments in ([], ["-c", "settings.yaml"], ["--drift"]):
            with pytest.raises(SystemExit):
                cli.main(["explain", "events", *arguments])
            out = re.sub(r"\x1b\[[\d;]*m", "", capsys.readouterr().out)
            assert all(each.isprintable() or each == "\n" for each in out)
            assert "forged" not in [line.strip() for line in out.splitlines()]


def test_it_explains_without_waiting_for_beam() -> None:
    """Which takes two seconds to import."""
    Path("events").write_bytes(ALERT)
    script = """
import sys
from pipelines import cli
try:
    cli.main(["explain", "events", "-c", "settings.yaml"])
except SystemExit:
    print("apache_beam" in sys.modules)
"""
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"
