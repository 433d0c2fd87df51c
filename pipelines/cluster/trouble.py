"""What usually goes wrong on a cluster, each told in one line with what to do.

Looked for in what Flink's REST API and Beam's job server say: stack traces of Java with tracebacks
of Python in them. Sources: the texts of Flink 1.19's and Beam 2.70-2.77's own exceptions, most of
them as a real cluster said them (tests/cluster/test_trouble.py).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from transforms.delivery.line import printable

__all__ = ["explain", "in_log", "root_cause", "told"]

_MOST = 100_000  # characters of a text that are looked at: a traceback may stand far down
_SHOWN = 120  # characters of what a text says that are repeated

_Says = str | Callable[[Mapping[str, str]], str]


def _java(found: Mapping[str, str]) -> str:
    needs, has = (int(found[each]) - 44 for each in ("needs", "has"))  # JVM specification, 4.1
    return (
        f"Java {has} is too old for what was compiled for Java {needs}: let JAVA_HOME be JDK 17, "
        "here for the job server and for Flink on the cluster"
    )


# The first that fits is told: the particular before the general.
_TROUBLES: tuple[tuple[str, _Says], ...] = (
    (
        r"ModuleNotFoundError: No module named "
        r"'(?P<what>(?:pipelines|transforms|schemas)\b[\w.]*)'",
        "the workers lack alertbeam itself ({what}): install the same wheel in the worker pools' "
        "environment, and start them anew",
    ),
    (
        r"(?:ModuleNotFoundError|ImportError): (?P<what>[^\n]+)",
        "the workers lack a library ({what}): install alertbeam's wheel with all it requires in "
        "the worker pools' environment, and start them anew",
    ),
    (
        r"Submission environment: (?:beam:version:sdk_base:)?(?P<here>\S+?)\.? "
        r"Runtime environment: (?:beam:version:sdk_base:)?(?P<there>\S+?)\.?(?:\s|$)",
        "Beam or Python differ: submitted with {here}, the workers have {there}: install the same "
        "in both",
    ),
    (
        r"the state folder (?P<folder>[^\n]{1,400}?) cannot be (?:written|read|locked): "
        r"(?P<why>[^\n]+)",
        "the workers cannot use the state folder {folder}: {why}. All workers and this command "
        "need one shared folder, at the same path, that their user owns",
    ),
    (
        r"(?P<ref>(?:env|file):\S+): (?:the environment variable \S+ is not set|"
        r"cannot be read|the file is empty)",
        "a secret is missing on the workers: {ref}. Give it to the worker pools (their "
        "environment, not only yours), and start them anew",
    ),
    (
        r"HubError: (?P<why>[^\n]+)",
        "the workers cannot read the hub: {why}. What `alertbeam validate --connect` says here "
        "must hold on the workers too: credentials, network, firewall",
    ),
    (
        r"class file version (?P<needs>\d+)\.\d+\).{0,400}?class file versions up to (?P<has>\d+)",
        _java,
    ),
    (
        r'InaccessibleObjectException|does not "?(?:opens|exports) (?P<what>java[\w.]*|sun[\w.]*)',
        "Java 17 keeps its modules closed: leave `env.java.opts.all` in Flink's configuration as "
        "it was delivered (--add-opens=java.base/java.lang=ALL-UNNAMED and the others), and give "
        "the same to the job server",
    ),
    (
        r"(?:InvalidClassException: org\.apache\.(?:flink|beam)|"
        r"(?:NoSuchMethodError|NoSuchFieldError|NoClassDefFoundError|ClassNotFoundException)"
        r":? [^\n]{0,80}?org[./]apache[./]flink)[^\n]*",
        "the job server's jar is for another version of Flink than the cluster's: take the one "
        "for the version that `alertbeam flink list` shows",
    ),
    (
        r"larger than the maximum permitted memory-backed state",
        "checkpoints are too large for the JobManager's memory: set a folder for them "
        "(execution.checkpointing.dir in Flink's configuration, state.checkpoints.dir before "
        "1.20), which all of the cluster reaches",
    ),
    (
        r"OutOfMemoryError: (?P<what>[^\n]+)",
        "a JVM is out of memory ({what}): raise taskmanager.memory.process.size "
        "(jobmanager.memory.process.size), or read less at once",
    ),
    (
        r"Cannot map (?:checkpoint/)?savepoint state for operator",
        "the savepoint has state of a step that the settings no longer have (a sink that was "
        "removed?): resume with --allow-non-restored; that step's state is dropped, the accounts "
        "stay in the state folder",
    ),
    (
        r"Cannot map operator \S+ with max parallelism (?P<was>\d+) to new program with max "
        r"parallelism (?P<now>\d+)",
        "--max_parallelism was {was} when the savepoint was made, and is {now}: it cannot be "
        "changed over a savepoint",
    ),
    (
        r"Cannot find (?:checkpoint or savepoint file/directory|meta data file '_metadata' in "
        r"directory) '(?P<path>[^'\n]+)'",
        "there is no savepoint or checkpoint at {path} (was it discarded, or is the folder not "
        "shared?): give the newest with --from, or start cold with `alertbeam run`: that goes on "
        "at what is settled in the state folder, without loss",
    ),
    (
        r"Config key \[(?P<key>[\w.-]+)\] is not set",
        "Flink has no folder for savepoints: give one with --savepoints, or set {key} in its "
        "configuration",
    ),
    (
        r"Could not find a file system implementation for scheme '(?P<scheme>[\w+.-]+)'",
        "Flink lacks the plugin for {scheme}://: put its jar (for abfss and wasbs "
        "flink-azure-fs-hadoop) into a folder of its own under plugins/, and start Flink anew",
    ),
    (
        r"Not all required tasks are currently running",
        "not all of the job's tasks run: it is starting or restarting. Wait until it is RUNNING; "
        "`alertbeam flink list` shows it",
    ),
    (
        r"ExternalEnvironmentFactory.{0,8000}?"
        r"(?:Connection refused|Connection timed out|connection timed out|No route to host): "
        r"(?P<where>\S+)",
        "no worker pool answers at {where}: one must run beside each TaskManager "
        "(`alertbeam worker-pool`), at the address of --environment_config as TaskManagers see it",
    ),
    (
        r"ExternalEnvironmentFactory.{0,8000}?(?:UnknownHostException|Unable to resolve host):? "
        r"(?P<where>\S+)",
        "the TaskManagers do not know the worker pool's host {where}: it is the address of "
        "--environment_config as they see it",
    ),
    (
        r"BeamFnExternalWorkerPool.{0,4000}?UNAVAILABLE|"
        r"UNAVAILABLE.{0,4000}?BeamFnExternalWorkerPool",
        "the worker pool does not answer: one must run beside each TaskManager "
        "(`alertbeam worker-pool`), at the address of --environment_config as TaskManagers see it",
    ),
    (
        r"NoResourceAvailableException|Slot request bulk is not fulfillable",
        "there are not enough free slots: start more TaskManagers, stop another job, or lower "
        "--parallelism",
    ),
    (
        r"Checkpoint expired before completing",
        "a checkpoint took longer than its timeout: something holds the stream up (a sink that "
        "takes nothing, too little CPU); raise --checkpoint_timeout_millis if that is meant",
    ),
    (
        r"Connection refused:? (?P<where>[^\s)]*:\d+)",
        "nothing listens at {where}: is it up, and is that its address?",
    ),
    (
        r"UnknownHostException: (?P<host>[^\s:]+)",
        "the host {host} is not known",
    ),
    (
        r"No such file or directory: '?(?P<what>(?:[^\s']*/)?java)\b",
        "there is no Java ({what}): the job server needs JDK 17, found by JAVA_HOME or PATH",
    ),
)

_COMPILED = tuple((re.compile(pattern, re.DOTALL), says) for pattern, says in _TROUBLES)

_CAUSED_BY = "\nCaused by: "
_TRACEBACK = "Traceback (most recent call last):"
_INVOCATION = re.compile(r"Error during job invocation [^\n]*\n((?:(?!\[)[^\n]*\n?)*)")
_FRAME = re.compile(r"\n\s+(?:at \S|\.\.\. \d+ more)")
_PACKAGE = re.compile(r"\b(?:[a-z_][\w$]*\.)+(?=[A-Z])")


def explain(text: str) -> str:
    """What is known to be wrong where this was said, and what to do, in one line; empty if it is
    none of the usual."""
    text = text[:_MOST]
    for pattern, says in _COMPILED:
        if found := pattern.search(text):
            parts = {
                name: printable(part or "", _SHOWN) for name, part in found.groupdict().items()
            }
            return says(parts) if callable(says) else says.format_map(parts)
    return ""


def root_cause(text: str) -> str:
    """A stack trace in one line: the last cause, a Python traceback in it by its last line."""
    text = text[:_MOST].strip()
    cause = text.rpartition(_CAUSED_BY)[2]
    if _TRACEBACK not in cause and _TRACEBACK in text:
        cause = text[text.rindex(_TRACEBACK) :].partition(_CAUSED_BY)[0]
    said, traceback, frames = cause.rpartition(_TRACEBACK)
    if traceback:
        lines = ["  ", *_before_frames(frames).splitlines()]
        last = max(n for n, line in enumerate(lines) if line.startswith("  "))  # a frame's
        cause = " ".join(lines[last + 1 :]).strip() or said
    return printable(_PACKAGE.sub("", " ".join(_before_frames(cause).split())))


def told(text: str) -> str:
    """What is wrong where this was said: explained if it is known, else as it was said."""
    return explain(text) or root_cause(text)


def in_log(log: str) -> str:
    """What ended the last job in a job server's log, as it was said; empty if none was ended."""
    found = _INVOCATION.findall(log[-_MOST:])
    return str(found[-1]) if found else ""


def _before_frames(text: str) -> str:
    """What stands before the first line `at org.…`."""
    found = _FRAME.search(text)
    return text[: found.start()] if found else text
