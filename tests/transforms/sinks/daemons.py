"""Real receivers on free ports of 127.0.0.1: each a process of its own, with a folder of its own.

`.ci/receivers` puts them in place; an rsyslog or syslog-ng that is installed does as well. Where
one is missing its tests are skipped, but not in CI.

Daemon: rsyslog and syslog-ng. Collector: OpenTelemetry's. Kafka: Apache's. azurite(), moto():
object stores, for as long as a `with` lasts.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from azure.storage.blob import BlobServiceClient

UNPACKED = Path(
    os.environ.get("ALERTBEAM_DAEMONS")
    or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "alertbeam" / "daemons"
)
COLLECTOR = "opentelemetry/collector"

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
# Whoever comes in the clear may do anything. The user `alertbeam` may write to topics whose names
# do not begin with `closed`.
KAFKA = """
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=CLEAR://127.0.0.1:{clear},SASL://127.0.0.1:{sasl},TLS://127.0.0.1:{tls},\
CONTROLLER://127.0.0.1:{controller}
listener.security.protocol.map=CLEAR:PLAINTEXT,SASL:SASL_PLAINTEXT,TLS:SASL_SSL,CONTROLLER:PLAINTEXT
controller.listener.names=CONTROLLER
inter.broker.listener.name=CLEAR
broker.heartbeat.interval.ms=100
broker.session.timeout.ms=1000
sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-512
listener.name.sasl.plain.sasl.jaas.config={plain} user_alertbeam="{password}";
listener.name.tls.plain.sasl.jaas.config={plain} user_alertbeam="{password}";
listener.name.sasl.scram-sha-512.sasl.jaas.config={scram};
listener.name.tls.scram-sha-512.sasl.jaas.config={scram};
ssl.keystore.type=PEM
ssl.keystore.location={folder}/keystore.pem
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS
log.dirs={folder}/data
auto.create.topics.enable=true
offsets.topic.replication.factor=1
group.initial.rebalance.delay.ms=0
"""
_MODULE = "org.apache.kafka.common.security"
_JAVA = ["-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
_JAVA += ["-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"]
_NAMES = {
    "header": ", ".join(f'"leef.{place}"' for place in range(7)),
    "attributes": ", ".join(f'"leef.{place}"' for place in range(10, 60)),
}


class Server:
    """A program that runs until it is killed. It listens on `ports`; what it says is in `log`."""

    def __init__(
        self, command: Sequence[str], folder: Path, ports: Sequence[int], env: Mapping[str, str]
    ) -> None:
        self.folder = folder
        self._command = command
        self._ports = ports
        self._env = {**os.environ, **env}
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> Server:
        """Returns when it can be connected to."""
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command, env=self._env, stdout=log, stderr=log, cwd=self.folder
            )
        until = time.monotonic() + 30
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

    def __enter__(self) -> Server:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.kill()


class Daemon(Server):
    """rsyslog or syslog-ng."""

    def __init__(
        self, program: str, folder: Path, cert: Path, key: Path, template: str = ""
    ) -> None:
        self.folder = folder
        self.out = folder / "out"
        self.tcp, self.tls, self.lf, self.udp = (_free(kind) for kind in (1, 1, 1, 2))
        config = folder / "config"
        template = template or (RSYSLOG if program == "rsyslog" else SYSLOG_NG)
        config.write_text(template.format(**vars(self), **_NAMES, cert=cert, key=key))
        ports = [self.tcp, self.tls] if "{tls}" in template else [self.tcp]
        command, env = _command(program, folder, config)
        super().__init__(command, folder, ports, env)

    def lines(self) -> list[list[str]]:
        """Facility, severity, program, message id, and the message, of every event."""
        if not self.out.exists():
            return []
        text = self.out.read_text(encoding="utf-8", errors="replace")
        return [line.split("\t", 4) for line in text.split("\n")[:-1]]


class Collector(Server):
    """The OpenTelemetry Collector's receiver of Splunk's HTTP Event Collector.

    options: its own, as `splunkhecreceiver` documents them.
    """

    def __init__(self, folder: Path, token: str, **options: Any) -> None:
        self.out = folder / "out"
        port = _free(1)
        self.url = f"{'https' if 'tls' in options else 'http'}://127.0.0.1:{port}"
        config = {"endpoint": f"127.0.0.1:{port}", "auth": {"authenticator": "token"}, **options}
        command = [str(UNPACKED / COLLECTOR), str(self.out), json.dumps(config)]
        super().__init__(command, folder, [port], {"TOKEN": token})

    def kill(self) -> None:
        super().kill()
        if self.out.exists():  # a line that is torn was not answered
            os.truncate(self.out, self.out.read_bytes().rfind(b"\n") + 1)

    def lines(self) -> list[dict[str, Any]]:
        """Of every event: resource, attributes, body, time (epoch milliseconds)."""
        whole = self.out.read_bytes().split(b"\n")[:-1] if self.out.exists() else []
        return [json.loads(line) for line in whole]


class Kafka(Server):
    """A cluster of one broker. `clear`, `sasl`, `tls`: ports of its listeners, the last two for the
    user `alertbeam` with this password (PLAIN; SCRAM once it is told of it).
    """

    def __init__(self, folder: Path, cert: Path, key: Path, password: str) -> None:
        self.folder, self.password = folder, password
        self.clear, self.sasl, self.tls, self.controller = (_free(1) for _ in range(4))
        self.plain = f"{_MODULE}.plain.PlainLoginModule required"
        self.scram = f"{_MODULE}.scram.ScramLoginModule required"
        (folder / "keystore.pem").write_text(key.read_text() + cert.read_text())
        config = folder / "server.properties"
        config.write_text(KAFKA.format(**vars(self)))
        java = ["java", *_JAVA, "-cp", f"{UNPACKED / 'kafka' / 'lib'}/*"]
        tool = [*java, "kafka.tools.StorageTool", "format", "--cluster-id", "A" * 22]
        made = subprocess.run([*tool, "--config", str(config)], capture_output=True, text=True)
        assert made.returncode == 0, made.stderr
        ports = [self.clear, self.sasl, self.tls]
        super().__init__([*java, "kafka.Kafka", str(config)], folder, ports, {})

    def hold(self) -> None:
        """Be silent, until it goes on. All its threads are stopped when this returns: one that was
        still running could answer.
        """
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self._process.pid, os.WSTOPPED)

    def go_on(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)


@dataclasses.dataclass(frozen=True)
class Storage:
    """An object store that runs.

    endpoint: its HTTP address. url: an empty bucket or container, as Beam names it.
    environment: where its clients find the endpoint and the credentials.
    """

    endpoint: str
    url: str
    environment: Mapping[str, str]


@contextlib.contextmanager
def azurite(folder: Path) -> Iterator[Storage]:
    """Azure Blob Storage, as Microsoft's emulator plays it; what it stores is in `folder`."""
    missing("azurite")
    program, port = UNPACKED / "azurite", _free(1)
    key = base64.b64encode(os.urandom(64)).decode()
    command = [str(program / "node"), str(program / "node_modules/azurite/dist/src/blob/main.js")]
    command += ["--skipApiVersionCheck", "--disableTelemetry", "--location", str(folder)]
    command += ["--blobHost", "127.0.0.1", "--blobPort", str(port)]
    endpoint = f"http://127.0.0.1:{port}/alertbeam"
    given = f"AccountName=alertbeam;AccountKey={key};BlobEndpoint={endpoint};"
    with Server(command, folder, [port], {"AZURITE_ACCOUNTS": f"alertbeam:{key}"}):
        with BlobServiceClient.from_connection_string(given) as client:
            client.create_container("alerts").close()
        found = {"AZURE_STORAGE_CONNECTION_STRING": given}
        yield Storage(endpoint, "azfs://alertbeam/alerts", found)


@contextlib.contextmanager
def moto(folder: Path) -> Iterator[Storage]:
    """Amazon S3, as moto plays it: in memory."""
    missing("moto")
    port = _free(1)
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    endpoint = f"http://127.0.0.1:{port}"
    with Server(command, folder, [port], {"PYTHONPATH": str(UNPACKED / "moto")}):
        made = urllib.request.Request(f"{endpoint}/alerts", method="PUT")
        urllib.request.urlopen(made, timeout=10).close()
        names = {"AWS_ACCESS_KEY_ID": "alertbeam", "AWS_SECRET_ACCESS_KEY": "of-a-double"}
        found = {"AWS_ENDPOINT_URL": endpoint, "AWS_DEFAULT_REGION": "us-east-1", **names}
        yield Storage(endpoint, "s3://alerts", found)


def missing(program: str) -> None:
    """Skip the test without the program; in CI, fail it."""
    found = UNPACKED / program
    here = found.is_file() or (found / ".complete").exists()
    if not here and _installed(program) is None:
        said = f"{program} is not here: run .ci/receivers"
        if os.environ.get("CI"):
            pytest.fail(said)
        pytest.skip(said)


def _installed(program: str) -> str | None:
    name = "rsyslogd" if program == "rsyslog" else program
    return shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"]))


def _command(program: str, folder: Path, config: Path) -> tuple[list[str], dict[str, str]]:
    root = UNPACKED / program
    unpacked = root / "usr" / "sbin" / ("rsyslogd" if program == "rsyslog" else program)
    binary = str(unpacked) if unpacked.exists() else _installed(program)
    assert binary is not None
    libraries = {str(found.parent) for found in root.rglob("*.so*")}
    env = {"LD_LIBRARY_PATH": os.pathsep.join(sorted(libraries))}
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
