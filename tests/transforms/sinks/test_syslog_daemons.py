"""What rsyslog and syslog-ng, as Debian ships them, make of what the syslog sink sends."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines.local.receivers import certificate
from schemas.receipt import Outcome
from tests.transforms.sinks.alerts import HOSTILE, identity, parcels
from tests.transforms.sinks.daemons import Daemon, missing
from transforms.delivery.engine import Engine
from transforms.sinks.arcsight import Arcsight, ArcsightSettings
from transforms.sinks.syslog import Syslog, SyslogSettings

# rsyslog writes a tab as #011 unless told otherwise.
ID = re.compile(r'(?:event_id="|\|8\|externalId=|(?:\t|#011)externalId=)([0-9a-f]{32})')


@pytest.fixture(params=["rsyslog", "syslog-ng"])
def daemon(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Daemon]:
    missing(request.param)
    running = Daemon(request.param, tmp_path, *certificate(tmp_path))
    running.start()
    yield running
    running.kill()


@pytest.fixture
def deliver() -> Iterator[Callable[..., list[Outcome | None]]]:
    engines: dict[str, Engine] = {}

    def run(to: Syslog, numbers: range, text: str = HOSTILE) -> list[Outcome | None]:
        engine = engines.setdefault(to.settings.address, Engine(to, cool_down=(0.05, 0.2)))
        run.engine = engine  # type: ignore[attr-defined]
        sent = parcels(to, numbers, text=text)
        engine.submit(sent)
        engine.settle()
        return [parcel.outcome for parcel in sent]

    yield run
    for engine in engines.values():
        engine.close()


def sink(daemon: Daemon, protocol: str, **options: Any) -> Syslog:
    if protocol == "tls":
        options["tls"] = {"ca": f"file:{daemon.folder / 'localhost.pem'}"}
    else:
        options["protocol"] = protocol
    port = daemon.lf if options.get("framing") == "lf" else getattr(daemon, protocol)
    given = {"address": f"127.0.0.1:{port}", "patience": 3.0, **options}
    return Syslog("siem", SyslogSettings(**given))


def ids(daemon: Daemon, count: int, within: float = 5.0) -> list[str]:
    """The id of every event, once `count` have come, and nothing has for a while."""
    until = time.monotonic() + within
    while len(daemon.lines()) < count and time.monotonic() < until:
        time.sleep(0.02)
    time.sleep(0.1)
    found = (ID.search(line[4]) for line in daemon.lines())
    return [match[1] if match else "an event without an id" for match in found]


@pytest.mark.parametrize("form", ["rfc5424", "cef", "leef"])
@pytest.mark.parametrize("way", ["tcp", "tls", "udp", "lf"])
def test_every_alert_is_one_event_whatever_it_says(daemon, deliver, way, form):
    framing = {"framing": "lf"} if way == "lf" else {}
    to = sink(daemon, "tcp" if way == "lf" else way, format=form, **framing)
    count = 40 if way == "udp" else 200  # as many datagrams as a socket's buffer holds
    assert set(deliver(to, range(count))) == {Outcome.DELIVERED}
    assert ids(daemon, count) == [identity(n) for n in range(count)]


def test_the_header_is_understood(daemon, deliver):
    deliver(sink(daemon, "tcp", facility="local3", app_name="beam"), range(1), text="tame")
    ids(daemon, 1)
    assert daemon.lines()[0][:4] == ["local3", "err", "beam", "defender_alert"]


@pytest.mark.parametrize("form", ["rfc5424", "cef"])
def test_the_longest_message_of_the_default_fits_their_defaults(daemon, deliver, form):
    """Over their limit rsyslog splits a message and syslog-ng loses it and the next."""
    to = sink(daemon, "tcp", format=form)
    long = "ünbounded " * 3000
    assert len(parcels(to, range(1), text=long)[0].payload) == 8000 or form == "cef"
    assert set(deliver(to, range(20), text=long)) == {Outcome.DELIVERED}
    assert ids(daemon, 20) == [identity(n) for n in range(20)]


def test_after_a_crash_and_a_restart_nothing_is_missing(daemon, deliver):
    to = sink(daemon, "tcp", patience=0.5)
    assert set(deliver(to, range(100), text="tame")) == {Outcome.DELIVERED}
    ids(daemon, 100)
    daemon.kill()
    outcomes = deliver(to, range(100, 120), text="tame")
    assert set(outcomes) == {Outcome.OWED}
    daemon.start()
    until = time.monotonic() + 5
    while deliver.engine.status().circuit == "open" and time.monotonic() < until:
        time.sleep(0.01)
    assert set(deliver(to, range(100, 120), text="tame")) == {Outcome.DELIVERED}
    assert set(ids(daemon, 120)) == {identity(n) for n in range(120)}


def test_an_rfc3164_header_is_understood(daemon, deliver):
    to = sink(daemon, "tcp", format="rfc3164", facility="local3", app_name="beam", framing="lf")
    assert set(deliver(to, range(50))) == {Outcome.DELIVERED}
    assert ids(daemon, 50) == [identity(n) for n in range(50)]
    assert {(line[0], line[1], line[2]) for line in daemon.lines()} == {("local3", "err", "beam")}


@pytest.mark.parametrize("header", ["rfc3164", "rfc5424"])
def test_what_is_made_for_arcsight_passes_through_a_relay(daemon, deliver, header):
    tls = {"ca": f"file:{daemon.folder / 'localhost.pem'}"}
    given = {"address": f"127.0.0.1:{daemon.tls}", "tls": tls, "framing": "octet"}
    to = Arcsight("siem", ArcsightSettings(**given, header=header, patience=3.0))
    assert set(deliver(to, range(50))) == {Outcome.DELIVERED}
    assert ids(daemon, 50) == [identity(n) for n in range(50)]


# Servers that want to know who comes, and trust one certificate.
WHO_COMES = {
    "rsyslog": """
global(workDirectory="{folder}" defaultNetstreamDriverCAFile="{folder}/client.pem"
       defaultNetstreamDriverCertFile="{cert}" defaultNetstreamDriverKeyFile="{key}")
module(load="imtcp")
input(type="imtcp" address="127.0.0.1" port="{tcp}")
input(type="imtcp" address="127.0.0.1" port="{tls}"
      streamDriver.name="gtls" streamDriver.mode="1" streamDriver.authMode="x509/certvalid")
template(name="parsed" type="string"
         string="%syslogfacility-text%\\t%syslogseverity-text%\\t%app-name%\\t%msgid%\\t%rawmsg%\\n")
action(type="omfile" file="{out}" template="parsed")
""",
    "syslog-ng": """
@version: 3.38
options {{ keep-hostname(yes); stats-freq(0); }};
source in {{
  syslog(transport("tcp") ip("127.0.0.1") port({tcp}));
  syslog(transport("tls") ip("127.0.0.1") port({tls})
         tls(key-file("{key}") cert-file("{cert}") ca-file("{folder}/client.pem")
             peer-verify(required-trusted)));
}};
destination out {{
  file("{out}" template("$FACILITY\\t$LEVEL\\t$PROGRAM\\t$MSGID\\t$SDATA $MSG\\n"));
}};
log {{ source(in); destination(out); }};
""",
}


@pytest.mark.parametrize("program", WHO_COMES)
def test_a_client_certificate_is_wanted_and_shown(program, deliver, tmp_path):
    missing(program)
    client, key = certificate(tmp_path, "client")
    certificate(tmp_path, "stranger")
    running = Daemon(program, tmp_path, *certificate(tmp_path), WHO_COMES[program])
    running.start()
    try:
        ca = {"ca": f"file:{tmp_path / 'localhost.pem'}"}
        shown = {**ca, "cert": f"file:{client}", "key": f"file:{key}"}
        wrong = {**ca, "cert": f"{tmp_path}/stranger.pem", "key": f"{tmp_path}/stranger.key"}
        known, nobody, stranger = (
            Syslog("siem", SyslogSettings(address=f"127.0.0.1:{running.tls}", tls=tls))
            for tls in (shown, ca, wrong)
        )
        assert "its certificate is verified" in known.check(2)
        for refused in (nobody, stranger):
            with pytest.raises(OSError):
                refused.check(2)
        assert set(deliver(known, range(20))) == {Outcome.DELIVERED}
        assert ids(running, 20) == [identity(n) for n in range(20)]
    finally:
        running.kill()
