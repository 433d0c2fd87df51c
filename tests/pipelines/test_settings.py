"""What settings say, and that every mistake in them is told at once, at its line and column."""

from __future__ import annotations

import json
import os
import pickle
import stat
from pathlib import Path
from typing import Any

import pytest

from pipelines.settings import Mistake, SettingsError, json_schema, load
from transforms.sinks.base import Sink, sinks

CONNECTION = "Endpoint=sb://Contoso.servicebus.windows.net/;SharedAccessKeyName=k;SharedAccessKey=s"
TOKEN = "hunter2-hunter2"

GOOD = """\
sources:
  - event_hubs:
      namespace: contoso.servicebus.windows.net
      hub: defender
      credential: {client_secret: {tenant_id: t, client_id: c, secret: "file:secret"}}
      start: latest
  - event_hubs: {hub: iot, consumer_group: alertbeam, connection_string: env:EVENT_HUB_CONNECTION}
subscriptions: {file: subscriptions.yaml}
deduplicate: {horizon: 2d}
digests:
  - name: storms
    window: {fixed: 5m}
    by: [subscription, severity, "tag:team"]
    early: 30s
  - {name: shifting, window: {sliding: {size: 10m, every: 300}}, lateness: 0, samples: 0}
  - {name: quiet, window: {session: 1.5h}}
sinks:
  - splunk_hec: {url: "https://splunk:8088", token: env:SPLUNK_TOKEN, index: security}
    where:
      severity: {at_least: Medium}
      any: [{kind: "defender_*"}, {not: {status: resolved}}]
  - file: {folder: ./out}
    name: archive
  - file: {folder: /digests}
    name: counts
    send: digests
state: ./state
shift: 5m
"""

MINIMAL = """\
sources: [{event_hubs: {namespace: a.b, hub: h}}]
sinks: [{file: {folder: out}}]
state: state
"""


@pytest.fixture(autouse=True)
def _surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EVENT_HUB_CONNECTION", CONNECTION)
    monkeypatch.setenv("SPLUNK_TOKEN", TOKEN)
    monkeypatch.delenv("NOPE", raising=False)
    Path("secret").write_text("s\n", encoding="utf-8")
    Path("subscriptions.yaml").write_text("[]", encoding="utf-8")


def write(text: str | bytes, name: str = "settings.yaml") -> Path:
    path = Path(name)
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def mistakes(text: str | bytes) -> list[str]:
    """What `load` says of a file, without the file's name."""
    with pytest.raises(SettingsError) as refused:
        load(write(text))
    lines = str(refused.value).splitlines()
    assert all(line.startswith("settings.yaml:") for line in lines)
    assert TOKEN not in str(refused.value)
    return [line.removeprefix("settings.yaml:") for line in lines]


# What settings say


def test_everything_that_may_be_said(tmp_path: Path) -> None:
    settings = load(write(GOOD))
    first, second = settings.sources
    assert first.name == "contoso.servicebus.windows.net/defender/$Default"
    assert second.name == "contoso.servicebus.windows.net/iot/alertbeam"
    assert (first.event_hubs.start, second.event_hubs.start) == ("latest", "earliest")
    assert settings.deduplicate.horizon == 2 * 86_400
    storms, shifting, quiet = settings.digests
    assert (storms.window.fixed, storms.early, storms.lateness) == (300, 30, 3600)
    assert storms.by == ("subscription", "severity", "tag:team")
    assert shifting.window.sliding is not None
    assert (shifting.window.sliding.size, shifting.window.sliding.every) == (600, 300)
    assert (quiet.window.session, quiet.samples, shifting.samples) == (5400, 5, 0)
    assert [sink.name for sink in settings.sinks] == ["splunk_hec", "archive", "counts"]
    assert [sink.send for sink in settings.sinks] == ["alerts", "alerts", "digests"]
    assert settings.shift == 300
    assert settings.state == tmp_path / "state"


def test_what_may_be_left_out() -> None:
    settings = load(write(MINIMAL))
    assert settings.deduplicate.horizon == 86_400
    assert settings.deduplicate.shards == 1
    assert (settings.subscriptions, settings.digests, settings.shift) == (None, (), None)
    assert settings.sinks[0].where is None


def test_paths_are_relative_to_the_settings_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "etc"
    folder.mkdir()
    for name in ("secret", "subscriptions.yaml"):
        Path(name).rename(folder / name)
    settings = load(write(GOOD, "etc/settings.yaml"))
    assert settings.subscriptions is not None
    assert settings.subscriptions.file == folder / "subscriptions.yaml"
    assert settings.state == folder / "state"
    assert settings.sinks[1].file.folder == folder / "out"
    assert settings.sinks[2].file.folder == Path("/digests")
    credential: Any = settings.sources[0].event_hubs.credential
    monkeypatch.chdir("/")
    assert credential.client_secret.secret.resolve().reveal() == "s"


@pytest.mark.parametrize("state", ["{0}/a b", "file://{0}/a%20b", "file:{0}/a%20b"])
def test_the_state_folder_is_made_for_its_owner_alone(tmp_path: Path, state: str) -> None:
    text = MINIMAL.replace("state: state", f"state: {state.format(tmp_path)}")
    folder = load(write(text)).state
    assert folder == tmp_path / "a b"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert load(write(text)).state == folder


def test_nothing_is_made_while_there_are_mistakes(tmp_path: Path) -> None:
    mistakes(MINIMAL + "shift: x")
    assert not (tmp_path / "state").exists()


def test_settings_can_be_pickled_and_hold_no_secret() -> None:
    settings = load(write(GOOD))
    pickled = pickle.dumps(settings)
    assert pickle.loads(pickled) == settings
    for shown in (pickled.decode("latin-1"), repr(settings), settings.model_dump_json()):
        assert TOKEN not in shown
        assert "SharedAccessKey=" not in shown
        assert "SPLUNK_TOKEN" in shown


def test_sinks_are_built_by_their_kind() -> None:
    built = [sink.build() for sink in load(write(GOOD)).sinks]
    assert [(sink.kind, sink.name) for sink in built] == [
        ("splunk_hec", "splunk_hec"),
        ("file", "archive"),
        ("file", "counts"),
    ]
    assert all(isinstance(pickle.loads(pickle.dumps(sink)), Sink) for sink in built)


# Mistakes: changes to good settings, and what is said of them

SHAPES: list[tuple[str | bytes, list[str]]] = [
    ("", ["1:1: the file is empty"]),
    ("# nothing\n---\n", ["1:1: the file is empty"]),
    ("text", ["1:1: must be a mapping of keys to values"]),
    ("[]", ["1:1: must be a mapping of keys to values"]),
    ("a: [1, 2\nb: 3\n", ["2:2: a comma or a closing bracket is missing before this"]),
    ("a: [1, 2\n", ["1:4: this is never closed"]),
    ("a: 'x\n", ["1:4: this is never closed"]),
    ("a:\n\tb: 1\n", ["2:1: a tab; YAML is indented with spaces"]),
    (
        "a: b: c",
        ["1:5: a ':' that cannot stand here: check the indentation, or put the value in quotes"],
    ),
    ("- a\nb: 1", ["2:1: this does not belong to the block above: check the indentation"]),
    ("a: 1\n---\nb: 2\n", ["2:1: a second document (---); one is expected"]),
    (
        f"a: *{TOKEN}",
        ["1:4: an alias (*) without its anchor (&); text that begins so needs quotes"],
    ),
    (f"a: !{TOKEN}!x b", ["1:4: found undefined tag handle '…'"]),
    ("a: @x", ["1:4: a character that cannot begin a value: put the text in quotes"]),
    ("a: &x [*x]", ["1:4: an alias to what it is a part of"]),
    ("a:\n  - b\x01", ["2:6: a control character"]),
    ("[" * 20_000, ["1:1: nested too deeply"]),
    (b"a: 1\nb: \xff\n", ["2:4: not UTF-8 text"]),
    ("sources: 1\nsinks: []\nstate: s".encode("utf-16"), ["1:1: not UTF-8 text"]),
    (
        "{}",
        [
            "1:1: sinks: this key is required",
            "1:1: sources: this key is required",
            "1:1: state: this key is required",
        ],
    ),
]


@pytest.mark.parametrize(("text", "expected"), SHAPES)
def test_what_is_no_settings_file(text: str | bytes, expected: list[str]) -> None:
    assert mistakes(text) == expected


def test_a_file_that_cannot_be_read() -> None:
    for path, reason in (("none.yaml", "No such file or directory"), (".", "Is a directory")):
        with pytest.raises(SettingsError) as refused:
            load(path)
        assert str(refused.value) == f"{path}:1:1: cannot be read: {reason}"


def test_a_byte_order_mark_is_no_mistake() -> None:
    assert load(write(b"\xef\xbb\xbf" + MINIMAL.encode())).state.name == "state"


LINES = GOOD.splitlines()

CHANGES: list[tuple[int, str, list[str]]] = [
    # line (from 1), what it becomes, what is said of it
    (1, "surces:", ['1:1: surces: unknown key; did you mean "sources"?']),
    (4, "      hub: defender\n      hub: x", [
        "5:7: sources[0].event_hubs.hub: this key stands on line 4 already"
    ]),
    (
        3,
        "      namespace: sb://contoso.servicebus.windows.net/",
        [
            "3:18: sources[0].event_hubs.namespace: must be a full host name, without sb:// or /: "
            "NAME.servicebus.windows.net"
        ],
    ),
    (4, "      hub: 5", ["4:12: sources[0].event_hubs.hub: must be text (put it in quotes)"]),
    (4, "      hub:", [
        "4:7: sources[0].event_hubs.hub: is empty: give a value, or leave the key out"
    ]),
    (5, "", []),
    (
        5,
        "      credential: defualt",
        [
            "5:19: sources[0].event_hubs.credential: must be 'default'; did you mean \"default\"?",
        ],
    ),
    (
        5,
        "      credential: {client_secret: {tenant_id: t, client_id: c}}",
        ["5:20: sources[0].event_hubs.credential.client_secret.secret: this key is required"],
    ),
    (
        5,
        "      credential: {client_secret: {tenant_id: t, client_id: c, secret: s}}",
        [
            "5:72: sources[0].event_hubs.credential.client_secret.secret: a secret is given as a "
            "reference: env:NAME (an environment variable) or file:/path (a file that holds "
            "nothing else)"
        ],
    ),
    (
        6,
        "      start: erliest",
        [
            "6:14: sources[0].event_hubs.start: must be 'earliest' or 'latest'; "
            'did you mean "earliest"?'
        ],
    ),
    (
        7,
        "  - event_hubs: {hub: iot}",
        [
            "7:17: sources[1].event_hubs: give either `namespace` (with azure-identity) or "
            "`connection_string` (a reference)"
        ],
    ),
    (
        7,
        "  - event_hubs: {hub: iot, connection_string: env:NOPE}",
        [
            "7:47: sources[1].event_hubs.connection_string: env:NOPE: the environment variable "
            "NOPE is not set, or empty"
        ],
    ),
    (
        7,
        "  - event_hubs: {hub: iot, connection_string: env:SPLUNK_TOKEN}",
        [
            "7:47: sources[1].event_hubs.connection_string: env:SPLUNK_TOKEN: holds no connection "
            "string of Event Hubs (Endpoint=sb://…;SharedAccessKeyName=…;SharedAccessKey=…)"
        ],
    ),
    (
        7,
        "  - event_hubs: {hub: defender, connection_string: env:EVENT_HUB_CONNECTION}",
        ["7:5: sources[1]: sources[0] reads the same event hub"],
    ),
    (7, "  - kafka: {hub: x}", [
        "7:5: sources[1].event_hubs: this key is required",
        "7:5: sources[1].kafka: unknown key (known here: deduplicate, event_hubs)",
    ]),
    (
        9,
        "deduplicate: {horizon: 24x, shards: 0}",
        [
            "9:24: deduplicate.horizon: must be a duration, such as 90s, 5m, 24h, 7d, or a number "
            "of seconds",
            "9:37: deduplicate.shards: must be greater than or equal to 1",
        ],
    ),
    (9, "deduplicate: {horizon: 0}", ["9:24: deduplicate.horizon: must be longer than 0s"]),
    (9, "deduplicate: {horizon: 999d}", [
        "9:24: deduplicate.horizon: must not be longer than 366d"
    ]),
    (9, "deduplicate: 24h", ["9:14: deduplicate: must be a mapping of keys to values"]),
    (9, "deduplicate:", ["9:1: deduplicate: is empty: give a value, or leave the key out"]),
    (11, "  - name: a/b", [
        "11:11: digests[0].name: a name is up to 64 letters, digits, - and _, "
        "and starts with no sign"
    ]),
    (11, "  - name: quiet", [
        "16:12: digests[2].name: digests[0] has the name quiet too: give each digest its own"
    ]),
    (
        12,
        "    window: {}",
        ["12:13: digests[0].window: needs exactly one kind of window (fixed, sliding, session)"],
    ),
    (
        12,
        "    window: {fixed: 5m, session: 5m}",
        [
            "12:13: digests[0].window: needs exactly one kind of window (fixed, sliding, session), "
            "not fixed and session"
        ],
    ),
    (12, "    window: 5m", ["12:13: digests[0].window: must be a mapping of keys to values"]),
    (
        12,
        "    window: {sliding: {size: 5m, evry: 1m}}",
        ['12:34: digests[0].window.sliding.evry: unknown key; did you mean "every"?'],
    ),
    (
        12,
        "    window: {sliding: {size: 5m, every: 6m}}",
        [
            "12:23: digests[0].window.sliding: `every` is longer than `size`: alerts between "
            "windows would not count"
        ],
    ),
    (
        13,
        "    by: [sevrity, 'tag:', nonsense]",
        [
            '13:10: digests[0].by[0]: digests cannot count by this; did you mean "severity"?',
            '13:19: digests[0].by[1]: digests cannot count by this; did you mean "tag:NAME"?',
            "13:27: digests[0].by[2]: digests cannot count by this (known here: alert_type, "
            "environment, kind, management_group, product, resource, severity, status, "
            "subscription, subscription_name, tactic, tag:NAME)",
        ],
    ),
    (13, "    by: [kind, kind]", ["11:5: digests[0]: `by` names a key twice"]),
    (13, "    by: severity", ["13:9: digests[0].by: must be a list"]),
    (14, "    early: -5", [
        "14:12: digests[0].early: must be a duration, such as 90s, 5m, 24h, 7d, or a number of "
        "seconds"
    ]),
    (
        18,
        "  - splunk_hec: {url: https://s, tokn: x}",
        ['18:34: sinks[0].splunk_hec.tokn: unknown key; did you mean "token"?'],
    ),
    (
        18,
        "  - splunk_hec: {url: https://s}",
        ["18:5: sinks[0].splunk_hec.token: this key is required"],
    ),
    (
        18,
        f"  - splunk_hec: {{url: https://s, token: {TOKEN}}}",
        [
            "18:41: sinks[0].splunk_hec.token: a secret is given as a reference: env:NAME (an "
            "environment variable) or file:/path (a file that holds nothing else)"
        ],
    ),
    (
        18,
        "  - splunk_hec: {url: https://s, token: file:none, index: 5, patience: 0}",
        [
            "18:41: sinks[0].splunk_hec.token: file:HERE/none: cannot be read: "
            "No such file or directory",
            "18:59: sinks[0].splunk_hec.index: must be text (put it in quotes)",
            "18:72: sinks[0].splunk_hec.patience: must be greater than 0",
        ],
    ),
    (
        18,
        "  - splunk_hec: {url: https://s, token: env:SPLUNK_TOKEN, tls: {ca: none.pem}}",
        ["18:69: sinks[0].splunk_hec.tls.ca: there is no such file: HERE/none.pem"],
    ),
    (
        18,
        "  - splunk_hec: {url: https://s, token: env:SPLUNK_TOKEN, tls: {ca: file:secret}}",
        [
            "18:64: sinks[0].splunk_hec.tls: its certificates cannot be used: "
            "[X509: NO_CERTIFICATE_OR_CRL_FOUND] no certificate or crl found (_ssl.c:N)"
        ],
    ),
    (18, "  - splunk_hce: {url: https://s}", [
        '18:5: sinks[0].splunk_hce: unknown key; did you mean "splunk_hec"?'
    ]),
    (18, "  - name: splunk", ["18:5: sinks[0]: needs exactly one system (KINDS)"]),
    (18, "  - splunk_hec: {url: https://s, token: env:SPLUNK_TOKEN}\n    file: {folder: x}", [
        "18:5: sinks[0]: needs exactly one system (KINDS), not file and splunk_hec"
    ]),
    (
        20,
        "      severity: [hihg, Low]",
        [
            "20:18: sinks[0].where.severity[0]: must be 'unknown', 'informational', 'low', "
            "'medium', 'high' or 'critical'; did you mean \"high\"?"
        ],
    ),
    (
        20,
        "      severity: lwo",
        [
            "20:17: sinks[0].where.severity: must be 'unknown', 'informational', 'low', "
            "'medium', 'high' or 'critical'; did you mean \"low\"?"
        ],
    ),
    (
        20,
        "      severity: {at_lest: low}",
        ['20:18: sinks[0].where.severity.at_lest: unknown key; did you mean "at_least"?'],
    ),
    (20, "      severity: []", ["20:17: sinks[0].where.severity: must not be empty"]),
    (
        20,
        "      status: InProgress",
        [
            "20:15: sinks[0].where.status: must be 'unknown', 'new', 'in_progress', 'resolved' or "
            "'dismissed'; did you mean \"in_progress\"?"
        ],
    ),
    (20, "      tag: {team: 5}", [
        "20:19: sinks[0].where.tag.team: must be text (put it in quotes)"
    ]),
    (20, "      tga: {team: red}", ['20:7: sinks[0].where.tga: unknown key; did you mean "tag"?']),
    (
        21,
        "      any: [{kind: defnder_alert}, {not: {statsu: new}}]",
        [
            '21:20: sinks[0].where.any[0].kind: no such kind of event; did you mean '
            '"defender_alert"?',
            '21:43: sinks[0].where.any[1].not.statsu: unknown key; did you mean "status"?',
        ],
    ),
    (21, "      any: []", ["21:12: sinks[0].where.any: must not be empty"]),
    (21, "      any: {kind: unknown}", ["21:12: sinks[0].where.any: must be a list"]),
    (21, "      kind: !k unknown", [
        "21:13: sinks[0].where.kind: a YAML tag; plain values are expected"
    ]),
    (
        23,
        "    name: Counts",
        ["25:11: sinks[2].name: sinks[1] has the name counts too: give each sink its own"],
    ),
    (
        23,
        "    name: parse",
        ["23:11: sinks[1].name: this name is taken by a step of the pipeline; choose another"],
    ),
    (
        26,
        "    send: digest",
        ["26:11: sinks[2].send: must be 'alerts' or 'digests'; did you mean \"digests\"?"],
    ),
    (
        25,
        "    where: {kind: unknown}",
        ["24:5: sinks[2]: `where` chooses alerts; this sink gets digests"],
    ),
    (27, "state: azfs://a/b", [
        "27:8: state: must be a local folder: file:///path, or a plain path"
    ]),
    (8, 'subscriptions: {file: "a\\ud800.csv"}', [
        "8:23: subscriptions.file: a character that no text can hold (NUL, or half of a surrogate "
        "pair)",
    ]),
    (27, "state: secret", ["27:8: state: HERE/secret is not a folder"]),
    (27, "state: a/b", ["27:8: state: cannot be made: there is no folder HERE/a"]),
    (27, "state: secret/b", ["27:8: state: cannot be made: there is no folder HERE/secret"]),
    (27, 'state: "a\\0b"', [
        "27:8: state: a character that no text can hold (NUL, or half of a surrogate pair)"
    ]),
    (8, "subscriptions: {file: none.yaml}", [
        "8:23: subscriptions.file: HERE/none.yaml:1: cannot be read: No such file or directory"
    ]),
    (8, "subscriptions: {file: bad.yaml}", [
        "8:23: subscriptions.file: HERE/bad.yaml:1: no id",
        "8:23: subscriptions.file: HERE/bad.yaml:2: not a mapping with an id, a name, …",
    ]),
]  # fmt: skip


@pytest.mark.parametrize(("line", "text", "expected"), CHANGES)
def test_mistakes(tmp_path: Path, line: int, text: str, expected: list[str]) -> None:
    Path("bad.yaml").write_text("- name: x\n- 5\n", encoding="utf-8")
    changed = "\n".join([*LINES[: line - 1], text, *LINES[line:]])
    said = mistakes(changed) if expected else load(write(changed)) and []
    kinds = ", ".join(sinks())
    assert [re_line(each) for each in said] == [
        each.replace("HERE", str(tmp_path)).replace("KINDS", kinds) for each in expected
    ]


def re_line(text: str) -> str:
    """OpenSSL's messages hold a line number of CPython's source."""
    head, found, tail = text.partition("(_ssl.c:")
    return head + found + "N)" if found and tail else text


def test_all_mistakes_come_at_once_by_line() -> None:
    text = """\
sources: []
sinks:
  - splunk_hec: {url: ftp://splunk, token: hunter2-hunter2}
  - file: {folder: out}
    send: digests
    where: {severity: hihg}
  - file: {}
state: /nowhere/at/all
shift: soon
"""
    assert mistakes(text) == [
        "1:10: sources: must not be empty",
        "3:23: sinks[0].splunk_hec.url: a URL is needed: https://host:port",
        "3:44: sinks[0].splunk_hec.token: a secret is given as a reference: env:NAME (an "
        "environment variable) or file:/path (a file that holds nothing else)",
        "5:11: sinks[1].send: there are no `digests` to send",
        "6:23: sinks[1].where.severity: must be 'unknown', 'informational', 'low', 'medium', "
        "'high' or 'critical'; did you mean \"high\"?",
        "7:5: sinks[2]: sinks[1] has the name file too: give each sink its own",
        "7:5: sinks[2].file.folder: this key is required",
        "8:8: state: cannot be made: there is no folder /nowhere/at",
        "9:8: shift: must be a duration, such as 90s, 5m, 24h, 7d, or a number of seconds",
    ]


def test_a_state_folder_that_may_not_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if os.geteuid() == 0:
        # Root may write anywhere: what its owner's mode bits say is what others would hear.
        monkeypatch.setattr(
            os, "access", lambda path, mode: Path(path).stat().st_mode >> 6 & mode == mode
        )
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    for state, said in (("closed", "cannot be written to"), ("closed/x", "cannot be made")):
        found = mistakes(MINIMAL.replace("state: state", f"state: {state}"))
        assert len(found) == 1
        assert said in found[0]


def test_mistakes_are_data_too() -> None:
    with pytest.raises(SettingsError) as refused:
        load(write(MINIMAL.replace("state:", "stat:")))
    assert refused.value.mistakes == [
        Mistake(3, 1, "stat", "unknown key", "state"),
    ]


# For editors


def test_the_schema_covers_every_sink_and_knows_no_null() -> None:
    schema = json_schema()
    entry = schema["$defs"]["SinkEntry"]
    assert set(sinks()) <= set(entry["properties"])
    assert entry["oneOf"] == [{"required": [kind]} for kind in sinks()]
    assert schema["required"] == ["sources", "sinks", "state"]
    assert schema["additionalProperties"] is False
    assert '"null"' not in json.dumps(schema)


def test_the_schema_says_what_the_keys_are_for() -> None:
    schema = json_schema()
    parts = {"Settings": schema, **schema["$defs"]}
    silent = [
        f"{name}.{key}"
        for name, part in parts.items()
        for key, field in part["properties"].items()
        if not field.get("description") and "$ref" not in field
    ]
    assert not silent


@pytest.mark.parametrize(
    ("sink", "loops"),
    [
        ('event_hubs: {hub: Defender, namespace: "contoso.servicebus.windows.net"}', True),
        ("event_hubs: {hub: defender, connection_string: env:EVENT_HUB_CONNECTION}", True),
        ("event_hubs: {hub: elsewhere, connection_string: env:EVENT_HUB_CONNECTION}", False),
        ('kafka: {brokers: "contoso.servicebus.windows.net:9093", topic: defender}', True),
        ('kafka: {brokers: "contoso.servicebus.windows.net:9093", topic: others}', False),
        ("fabric_eventstream: {connection_string: env:EVENTSTREAM}", True),
    ],
)
def test_a_sink_that_writes_to_the_hub_that_is_read_is_refused(
    sink: str, loops: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVENTSTREAM", f"{CONNECTION};EntityPath=defender")
    text = GOOD.replace("file: {folder: ./out}\n    name: archive", sink)
    if loops:
        where = text[: text.index(sink)].count("\n") + 1
        assert mistakes(text) == [
            f"{where}:5: sinks[1]: it writes to the event hub that sources[0] reads: each alert "
            "would come back for ever"
        ]
    else:
        load(write(text))
