"""What goes wrong usually is explained in a line that says what to do.

`troubles/` holds what Flink 1.19.3 really said, with Beam's job server 2.70 and workers of 2.77;
paths are made up, and long runs of frames shortened. The texts in this file are from their sources.
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from pipelines.cluster.trouble import explain, in_log, root_cause, told

TROUBLES = Path(__file__).parent / "troubles"
AT = "\n\tat org.apache.flink.runtime.taskmanager.Task.run(Task.java:1)\n"

TEXTS = [
    (
        "java.lang.RuntimeException: Error received from SDK harness for instruction 1: Traceback "
        "(most recent call last):\n  File x\nModuleNotFoundError: No module named "
        f"'pipelines.cluster'\n{AT}",
        "the workers lack alertbeam itself (pipelines.cluster)",
    ),
    (
        f"ModuleNotFoundError: No module named 'confluent_kafka'\n{AT}",
        "the workers lack a library (No module named 'confluent_kafka')",
    ),
    (
        "RuntimeError: Pipeline construction environment and pipeline runtime environment are not "
        "compatible. If you use a custom container image, check that the Python interpreter minor "
        "version and the Apache Beam version in your image match the versions used at pipeline "
        "construction time. Submission environment: beam:version:sdk_base:apache/"
        "beam_python3.11_sdk:2.77.0. Runtime environment: beam:version:sdk_base:apache/"
        f"beam_python3.12_sdk:2.76.0.\n{AT}",
        "submitted with apache/beam_python3.11_sdk:2.77.0, the workers have "
        "apache/beam_python3.12_sdk:2.76.0:",
    ),
    (
        "transforms.state_store.StateStoreError: the state folder /srv/state cannot be written: "
        f"Permission denied (the user that runs this must own it) [while running 'x']\n{AT}",
        "the workers cannot use the state folder /srv/state: Permission denied",
    ),
    (
        "transforms.secrets.SecretError: env:SPLUNK_TOKEN: the environment variable SPLUNK_TOKEN "
        f"is not set, or empty\n{AT}",
        "a secret is missing on the workers: env:SPLUNK_TOKEN.",
    ),
    (
        f"transforms.read.sdk.HubError: the hub refuses the credentials\n{AT}",
        "the workers cannot read the hub: the hub refuses the credentials.",
    ),
    (
        "java.lang.UnsupportedClassVersionError: org/apache/beam/X has been compiled by a more "
        "recent version of the Java Runtime (class file version 61.0), this version of the Java "
        "Runtime only recognizes class file versions up to 55.0",
        "Java 11 is too old for what was compiled for Java 17: ",
    ),
    (
        "java.lang.reflect.InaccessibleObjectException: Unable to make field private final byte[] "
        'java.lang.String.value accessible: module java.base does not "opens java.lang" to unnamed '
        "module @4e800f52",
        "Java 17 keeps its modules closed",
    ),
    (
        "Caused by: java.io.InvalidClassException: org.apache.flink.streaming.api.graph.X; local "
        "class incompatible: stream classdesc serialVersionUID = -1, local class serialVersionUID "
        "= 2",
        "the job server's jar is for another version of Flink",
    ),
    (
        "java.lang.NoSuchMethodError: 'void org.apache.flink.api.common.X.y()'",
        "the job server's jar is for another version of Flink",
    ),
    (
        "java.io.IOException: Size of the state is larger than the maximum permitted memory-backed "
        "state. Size=41943040, maxSize=5242880. Consider using a different checkpoint storage.",
        "checkpoints are too large for the JobManager's memory",
    ),
    ("java.lang.OutOfMemoryError: Java heap space\n", "a JVM is out of memory (Java heap space)"),
    (
        "java.lang.IllegalStateException: Failed to rollback to checkpoint/savepoint file:/s. "
        "Cannot map checkpoint/savepoint state for operator 8a4f to the new program, because the "
        "operator is not available in the new program.",
        "resume with --allow-non-restored",
    ),
    (
        "java.lang.IllegalStateException: Failed to rollback to checkpoint/savepoint Checkpoint "
        "Metadata. Max parallelism mismatch between checkpoint/savepoint state and new program. "
        "Cannot map operator e48a with max parallelism 128 to new program with max parallelism 9.",
        "--max_parallelism was 128 when the savepoint was made, and is 9",
    ),
    (
        "java.io.FileNotFoundException: Cannot find checkpoint or savepoint file/directory "
        "'file:/c/chk-7' on file system 'file'.",
        "there is no savepoint or checkpoint at file:/c/chk-7 ",
    ),
    (
        "org.apache.flink.core.fs.UnsupportedFileSystemSchemeException: Could not find a file "
        "system implementation for scheme 'abfss'. The scheme is directly supported by Flink",
        "Flink lacks the plugin for abfss://",
    ),
    (
        "org.apache.beam.vendor.grpc.v1p69p0.io.grpc.StatusRuntimeException: UNAVAILABLE: io "
        "exception\n\tat org.apache.beam.model.fnexecution.v1.BeamFnExternalWorkerPoolGrpc"
        "$BeamFnExternalWorkerPoolBlockingStub.startWorker(BeamFnExternalWorkerPoolGrpc.java:1)"
        "\n\tat org.apache.beam.runners.fnexecution.environment.ExternalEnvironmentFactory"
        ".createEnvironment(ExternalEnvironmentFactory.java:1)\nCaused by: org.apache.beam.vendor"
        ".grpc.v1p69p0.io.netty.channel.AbstractChannel$AnnotatedConnectException: Connection "
        "refused: localhost/127.0.0.1:50000\n",
        "no worker pool answers at localhost/127.0.0.1:50000: ",
    ),
    (
        "org.apache.flink.runtime.jobmanager.scheduler.NoResourceAvailableException: Could not "
        "acquire the minimum required resources.",
        "there are not enough free slots",
    ),
    (
        "org.apache.flink.shaded.netty4.io.netty.channel.AbstractChannel$AnnotatedConnect"
        "Exception: Connection refused: localhost/127.0.0.1:8081",
        "nothing listens at localhost/127.0.0.1:8081",
    ),
    ("java.net.UnknownHostException: jobmanager: Name or service not known", "host jobmanager "),
    ("[Errno 2] No such file or directory: 'java'", "there is no Java (java)"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "says"), TEXTS, ids=[says[:40] for _, says in TEXTS])
def test_the_usual_is_explained(text: str, says: str) -> None:
    line = explain(f"java.lang.Exception: outer{AT}Caused by: {text}")
    assert says in line
    assert line.isprintable()


def test_what_is_not_usual_is_told_as_it_was_said() -> None:
    text = f"java.lang.Exception: outer{AT}Caused by: org.example.OddException: the odd\n one{AT}"
    assert explain(text) == ""
    assert told(text) == root_cause(text) == "OddException: the odd one"


def test_the_last_line_of_a_traceback_is_the_cause() -> None:
    text = (
        "java.util.concurrent.ExecutionException: java.lang.RuntimeException: Error received from "
        "SDK harness for instruction 3: Traceback (most recent call last):\n"
        '  File "a.py", line 1, in b\n    c()\nKeyError: 1\n\n'
        "During handling of the above exception, another exception occurred:\n\n"
        'Traceback (most recent call last):\n  File "d.py", line 1, in e\n    f()\n'
        f"transforms.x.OddError: it is\nodd [while running 'Parse']\n{AT}"
        f"Caused by: java.lang.RuntimeException: again{AT}"
    )
    assert root_cause(text) == "OddError: it is odd [while running 'Parse']"


def test_in_a_log_what_ended_the_last_job_is_found() -> None:
    server = (
        "[flink-runner-job-invoker-1] ERROR org.apache.beam.runners.jobsubmission.JobInvocation"
    )
    log = (
        f"{server} - Error during job invocation a_1.\njava.lang.OutOfMemoryError: Java heap\n"
        f"\tat a.b(C)\n[main] INFO x - y\n{server} - Error during job invocation a_2.\n"
        "java.lang.IllegalArgumentException: The scheme (hdfs://, file://, etc) is null.\n"
        "\tat a.b(C)\n[grpc] ERROR x - Encountered Unexpected Exception for Invocation a_2\n"
        "java.lang.IllegalStateException: Stream is already completed\n"
    )
    cause = "IllegalArgumentException: The scheme (hdfs://, file://, etc) is null."
    assert told(in_log(log)) == cause
    assert in_log("[main] INFO x - y\n") == ""
    assert told("") == ""


@pytest.mark.parametrize("text", ["", "\n\n", "Traceback (most recent call last):", "\tat a.b(C)"])
def test_a_text_that_says_nothing_is_no_trouble(text: str) -> None:
    assert explain(text) == ""
    assert root_cause(text).isprintable()


@pytest.mark.parametrize(
    "text",
    [
        "the state folder \x1b[2J\r{why} cannot be read: {0}{folder.x}\x07",
        "OutOfMemoryError: " + "\x1b]0;x\x07" * 1_000,
        "HubError: {__class__}",
    ],
)
def test_what_is_repeated_is_one_short_printable_line(text: str) -> None:
    line = explain(text)
    assert line.isprintable() and 0 < len(line) < 600


@pytest.mark.parametrize(
    "piece", ["UNAVAILABLE ", "ExternalEnvironmentFactory ", "class file version 61.0) ", "x" * 80,
              "the state folder ", "Traceback (most recent call last):\n", "\nCaused by: "],
)  # fmt: skip
def test_a_text_made_to_be_slow_is_not(piece: str) -> None:
    text = piece * (400_000 // len(piece))
    began = time.process_time()
    told(text)
    assert time.process_time() - began < 10


SAID = {
    "removed": "resume with --allow-non-restored",
    "maxpar": "--max_parallelism was 128 when the savepoint was made, and is 64",
    "nopath": "there is no savepoint or checkpoint at file:/nowhere/savepoint-1 ",
    "nopath2": "there is no savepoint or checkpoint at file:/srv/elsewhere ",
    "slots": "there are not enough free slots",
    "state": "the workers cannot use the state folder /proc/alertbeam/state: ",
    "secret": "a secret is missing on the workers: env:NOT_THERE.",
    "module": "the workers lack a library (No module named 'sorting_x')",
    "abfss": "Flink lacks the plugin for abfss://",
    "pool": "no worker pool answers at worker-pool/127.0.0.2:57537: ",
    "bug": "ValueError: the odd one [while running 'ParDo(Fails)']",
}


@pytest.mark.parametrize("name", SAID)
def test_what_was_really_said_is_told_in_a_line(name: str) -> None:
    line = told((TROUBLES / f"{name}.txt").read_text(encoding="utf-8"))
    assert SAID[name] in line
    assert line.isprintable()


def test_every_text_that_was_kept_is_tested() -> None:
    assert {path.stem for path in TROUBLES.iterdir()} == set(SAID)
