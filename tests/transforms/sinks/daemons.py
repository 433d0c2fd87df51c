"""The real rsyslog and syslog-ng on free ports of 127.0.0.1, with a configuration of their own.

`.ci/receivers` unpacks them; those that are installed do as well. Where one is missing its tests
are skipped, but not in CI.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

import pytest

UNPACKED = Path(
    os.environ.get("ALERTBEAM_DAEMONS")
    or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "alertbeam" / "daemons"
)

RSYSLOG = """
global(workDirectory="{folder}" defaultNetstreamDriverCAFile="{cert}"
       defaultNetstreamDriverCertFile="{cert}" defaultNetstreamDriverKeyFile="{key}")
module(load="imtcp")
module(load="imudp")
input(type="imtcp" address="127.0.0.1" port="{tcp}")
input(type="imtcp" address="127.0.0.1" port="{lf}")
input(type="imtcp" address="127.0.0.1" port="{tls}"
      streamDriver.name="gtls" streamDriver.mode="1" streamDriver.authMode="anon")
input(type="imudp" address="127.0.0.1" port="{udp}")
template(name="parsed" type="string"
         string="%syslogfacility-text%\\t%syslogseverity-text%\\t%app-name%\\t%msgid%\\t%rawmsg%\\n")
action(type="omfile" file="{out}" template="parsed")
"""

SYSLOG_NG = """
@version: 3.38
options {{ keep-hostname(yes); stats-freq(0); }};
source in {{
  syslog(transport("tcp") ip("127.0.0.1") port({tcp}));
  syslog(transport("tls") ip("127.0.0.1") port({tls})
         tls(key-file("{key}") cert-file("{cert}") peer-verify(optional-untrusted)));
  network(transport("tcp") ip("127.0.0.1") port({lf}) flags(syslog-protocol));
  syslog(transport("udp") ip("127.0.0.1") port({udp}));
}};
destination out {{
  file("{out}" template("$FACILITY\\t$LEVEL\\t$PROGRAM\\t$MSGID\\t$SDATA $MSG\\n"));
}};
log {{ source(in); destination(out); }};
"""

# The parts of every message, as a line of JSON. CEF: liblognorm, in mmnormalize. LEEF: mmfields,
# which the documentation offers for such formats.
RSYSLOG_PARTS = """
global(workDirectory="{folder}" maxMessageSize="16k"
       parser.escapeControlCharactersOnReceive="off")
module(load="imtcp")
module(load="mmnormalize")
module(load="mmfields")
module(load="mmpstrucdata")
input(type="imtcp" address="127.0.0.1" port="{tcp}")
template(name="parts" type="list" option.jsonf="on") {{
  property(outname="pri" name="pri" format="jsonf")
  property(outname="time" name="timereported" dateFormat="rfc3339" format="jsonf")
  property(outname="host" name="hostname" format="jsonf")
  property(outname="app" name="app-name" format="jsonf")
  property(outname="procid" name="procid" format="jsonf")
  property(outname="msgid" name="msgid" format="jsonf")
  property(outname="msg" name="msg" format="jsonf")
  property(outname="parts" name="$!" format="jsonf")
}}
if $msg startswith "CEF:" then {{
  action(type="mmnormalize" rule="rule=:%.:cef%" useRawMsg="off" path="$!cef")
}} else if $msg startswith "LEEF:" then {{
  action(type="mmfields" separator="\t" jsonRoot="!leef")
}}
action(type="mmpstrucdata")
action(type="omfile" file="{out}" template="parts")
"""

# The header and the attributes of LEEF: csv-parser, twice.
SYSLOG_NG_PARTS = """
@version: 3.38
options {{ keep-hostname(yes); stats-freq(0); }};
source in {{ syslog(transport("tcp") ip("127.0.0.1") port({tcp})); }};
parser leef {{
  csv-parser(columns({header}) delimiters("|") flags(greedy) dialect(escape-none) quote-pairs(''));
  csv-parser(columns({attributes}) template("${{leef.6}}")
             delimiters("\t") dialect(escape-none) quote-pairs(''));
}};
destination out {{
  file("{out}" time-zone("UTC") frac-digits(3) template("$(format-json --scope none
    pri=$PRI time=$S_ISODATE host=$HOST app=$PROGRAM procid=$PID msgid=$MSGID msg=$MSG
    --key .SDATA.* --key leef.*)\n"));
}};
log {{ source(in); if (match("^LEEF:" value("MSG"))) {{ parser(leef); }}; destination(out); }};
"""
_NAMES = {
    "header": ", ".join(f'"leef.{place}"' for place in range(7)),
    "attributes": ", ".join(f'"leef.{place}"' for place in range(10, 60)),
}


class Daemon:
    """One of the two, running. `program`: rsyslog or syslog-ng."""

    def __init__(
        self, program: str, folder: Path, cert: Path, key: Path, template: str = ""
    ) -> None:
        self.folder = folder
        self.out = folder / "out"
        self.tcp, self.tls, self.lf, self.udp = (_free(kind) for kind in (1, 1, 1, 2))
        self._config = folder / "config"
        template = template or (RSYSLOG if program == "rsyslog" else SYSLOG_NG)
        self._config.write_text(template.format(**vars(self), **_NAMES, cert=cert, key=key))
        self._ports = [self.tcp, self.tls] if "{tls}" in template else [self.tcp]
        self._command, self._env = _command(program, folder, self._config)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> Daemon:
        log = (self.folder / "log").open("ab")
        self._process = subprocess.Popen(
            self._command, env=self._env, stdout=log, stderr=subprocess.STDOUT, cwd=self.folder
        )
        log.close()
        until = time.monotonic() + 10
        for port in self._ports:
            while True:
                try:
                    socket.create_connection(("127.0.0.1", port), 1).close()
                    break
                except OSError:
                    said = (self.folder / "log").read_text(errors="replace")
                    assert self._process.poll() is None, said
                    assert time.monotonic() < until, said
                    time.sleep(0.01)
        return self

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def lines(self) -> list[list[str]]:
        """Facility, severity, program, message id, and the message, of every event."""
        if not self.out.exists():
            return []
        text = self.out.read_text(encoding="utf-8", errors="replace")
        return [line.split("\t", 4) for line in text.split("\n")[:-1]]


def missing(program: str) -> None:
    """Skip the test without the program; in CI, fail it."""
    if _binary(program) is None:
        said = f"{program} is not here: run .ci/receivers"
        if os.environ.get("CI"):
            pytest.fail(said)
        pytest.skip(said)


def _binary(program: str) -> str | None:
    name = "rsyslogd" if program == "rsyslog" else program
    unpacked = UNPACKED / program / "usr" / "sbin" / name
    if unpacked.exists():
        return str(unpacked)
    return shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"]))


def _command(program: str, folder: Path, config: Path) -> tuple[list[str], dict[str, str]]:
    binary = _binary(program)
    assert binary is not None
    root = UNPACKED / program
    libraries = {str(found.parent) for found in root.rglob("*.so*")}
    env = {**os.environ, "LD_LIBRARY_PATH": os.pathsep.join(sorted(libraries))}
    if program == "rsyslog":
        command = [binary, "-n", "-f", str(config), "-i", str(folder / "pid")]
        for found in root.rglob("imtcp.so"):
            command += ["-M", str(found.parent)]
        return command, env
    command = [binary, "--foreground", "--no-caps", "--stderr", "--cfgfile", str(config)]
    for option in ("persist-file", "control", "pidfile"):
        command += [f"--{option}", str(folder / option)]
    for found in root.rglob("libsyslogformat.so"):
        command += ["--module-path", str(found.parent)]
    return command, env


def _free(kind: int) -> int:
    with socket.socket(socket.AF_INET, socket.SocketKind(kind)) as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])
