"""What a process has freed does not stay with it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from pipelines import memory

pytestmark = pytest.mark.skipif(
    not memory._of_glibc("malloc_trim"), reason="the C library is not glibc"
)

# Each says what stayed, in MiB. What is kept lies between what is freed.
_BEGIN = """
from pathlib import Path
import threading
from pipelines.memory import give_back, stay_small

def resident():
    said = Path("/proc/self/status").read_text()
    return int(said.partition("VmRSS:")[2].split()[0]) / 1024

def around(size, count):
    held = [(bytearray(b"x" * size), bytearray(b"x" * 2_000)) for _ in range(count)]
    return [kept for _, kept in held]
"""
_LARGE = """
del_me = bytes(b"x" * (30 << 20))
del del_me
before = resident()
kept = around(1 << 20, 40)
print(resident() - before)
"""
_SMALL = """
before = resident()
kept = around(60_000, 600)
{}
print(resident() - before)
"""


def stays(*parts: str) -> float:
    said = subprocess.run(
        [sys.executable, "-c", "".join((_BEGIN, *parts))],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return float(said.stdout)


def test_large_buffers_go_back_as_soon_as_they_are_freed() -> None:
    assert stays(_LARGE) > 30, "what glibc does by itself"
    assert stays("stay_small()", _LARGE) < 5


def test_what_is_free_between_what_is_kept_goes_back_when_that_is_said() -> None:
    assert stays(_SMALL.format("")) > 25
    assert stays(_SMALL.format("give_back()")) < 8


def test_threads_share_few_arenas() -> None:
    count = """
import ctypes, tempfile
gate = threading.Barrier(12)
def work():
    held = bytearray(b"x" * 4_000)
    gate.wait(30)
threads = [threading.Thread(target=work) for _ in range(12)]
for each in threads: each.start()
for each in threads: each.join()
libc = ctypes.CDLL(None)
libc.fopen.restype = ctypes.c_void_p
with tempfile.NamedTemporaryFile() as file:
    to = ctypes.c_void_p(libc.fopen(file.name.encode(), b"w"))
    libc.malloc_info(0, to)
    libc.fclose(to)
    print(Path(file.name).read_text().count("<heap "))
"""
    assert stays(count) > 2, "what glibc does by itself"
    assert stays("stay_small()", count) <= 2


def test_where_the_c_library_is_another_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_of_glibc", lambda name: None)
    memory.stay_small()
    memory.give_back()
