"""Every write is whole, private, and inside the folder, whatever the names."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transforms.state_store import StateStore, StateStoreError, place, unplace

HOSTILE = [
    "..",
    ".",
    "/",
    "//",
    "",
    "../../etc/passwd",
    "/etc/passwd",
    ".hidden",
    "a\0b",
    "\n\r\t",
    "%",
    "%2e%2e",
    "%2F",
    "a/b",
    "a\\b",
    "-rf",
    "~",
    "$Default",
    "Ünïcødé 警告 🔥",
    "e\u0301",
    "\ud800",
    "x" * 255,
    "x" * 256,
    "x" * 1000,
    "%" * 300,
    "." * 300,
    "警" * 300,
    " leading and trailing ",
    "CON",
]


@pytest.fixture
def store(tmp_path: Path) -> StateStore:
    made = StateStore(str(tmp_path / "state"))
    made.prepare()
    return made


def modes(folder: Path) -> Iterator[tuple[str, int]]:
    for path in (folder, *folder.rglob("*")):
        yield ("folder" if path.is_dir() else "file"), stat.S_IMODE(path.stat().st_mode)


# ------------------------------------------------------------------------------------ names


@given(st.lists(st.text() | st.sampled_from(HOSTILE), min_size=1))
def test_names_of_any_kind_come_back_as_they_were(names: list[str]) -> None:
    path = place(*names)
    assert unplace(path) == names
    parts = path.split("/")
    assert not any(part in ("", ".", "..") or part.startswith(".") for part in parts)
    assert all(len(part.encode()) <= 250 for part in parts), "file systems end at 255 bytes"
    assert path.isascii() and "\0" not in path


@given(*[st.lists(st.text(max_size=8) | st.sampled_from(HOSTILE), min_size=1)] * 2)
def test_different_names_never_share_a_place(one: list[str], other: list[str]) -> None:
    assert (place(*one) == place(*other)) == (one == other)


@pytest.mark.parametrize("name", HOSTILE, ids=range(len(HOSTILE)))
def test_no_name_leaves_the_folder(store: StateStore, tmp_path: Path, name: str) -> None:
    path = place("accounts", name, "0.json")
    store.put(path, b"here")
    assert store.get(path) == b"here"
    assert list(store.list(place("accounts", name))) == [path]
    assert unplace(path) == ["accounts", name, "0.json"]
    written = [p for p in tmp_path.rglob("*") if p.is_file()]
    assert [p.is_relative_to(store.folder / "accounts") for p in written] == [True]


def test_plain_names_are_readable_in_the_folder() -> None:
    source = "contoso.servicebus.windows.net/defender/$Default"
    assert place("checkpoints", *source.split("/"), "checkpoint", "3") == (
        "checkpoints/contoso.servicebus.windows.net/defender/$Default/checkpoint/3"
    )


# ---------------------------------------------------------------------------- whole or not


def test_a_reader_sees_the_old_or_the_new_whole(store: StateStore) -> None:
    whole = [bytes([n]) * 200_000 for n in (1, 2)]
    store.put("a/b", whole[0])
    ended = threading.Event()

    def write() -> None:
        for turn in range(300):
            store.put("a/b", whole[turn % 2])
        ended.set()

    writer = threading.Thread(target=write)
    writer.start()
    seen = set()
    while not ended.is_set():
        seen.add(store.get("a/b"))
    writer.join()
    assert seen <= set(whole)


def test_a_write_that_fails_leaves_the_old_and_no_trace(
    store: StateStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put("a/b", b"old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="No space"):
        store.put("a/b", b"new")
    assert store.get("a/b") == b"old"
    assert [path.name for path in (store.folder / "a").iterdir()] == ["b"]


def test_what_a_killed_writer_left_is_no_object(store: StateStore) -> None:
    store.put("a/b", b"1")
    (store.folder / "a" / ".tmpx7k2").write_bytes(b"half")
    assert list(store.list("a")) == ["a/b"]


def test_objects_are_listed_in_order_and_folders_are_none(store: StateStore) -> None:
    for path in ("a/2", "a/1/x", "a/10", "b/1"):
        store.put(path, b"")
    assert list(store.list("a")) == ["a/1/x", "a/10", "a/2"]
    assert list(store.list("nothing")) == []


def test_what_is_not_there_is_none_and_deleting_it_is_fine(store: StateStore) -> None:
    store.put("a/b", b"")
    assert store.get("a") is None
    assert store.get("a/c") is None
    assert store.get("a/b/c") is None
    store.delete("a/c")
    store.delete("a/b")
    assert store.get("a/b") is None


# ----------------------------------------------------------------------------------- private


def test_only_the_owner_can_read_anything(tmp_path: Path) -> None:
    before = os.umask(0o000)
    try:
        store = StateStore(str(tmp_path / "state"))
        store.prepare()
        store.put("dead/a/b/c", b"payload")
        with store.lock("run"):
            found = set(modes(store.folder))
    finally:
        os.umask(before)
    assert found == {("folder", 0o700), ("file", 0o600)}


def test_a_file_url_is_a_folder(tmp_path: Path) -> None:
    StateStore(f"file://{tmp_path}/state").put("a", b"1")
    assert (tmp_path / "state" / "a").read_bytes() == b"1"


def test_a_store_can_be_pickled_to_a_worker(store: StateStore) -> None:
    import pickle

    store.put("a", b"1")
    assert pickle.loads(pickle.dumps(store)).get("a") == b"1"


# ------------------------------------------------------------------------------------ errors


def test_a_file_in_the_folders_place_is_told(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("")
    with pytest.raises(StateStoreError) as failure:
        StateStore(str(tmp_path / "state")).prepare()
    assert str(failure.value) == (
        f"the state folder {tmp_path / 'state'} cannot be written: it is not a folder"
    )


def test_a_file_above_the_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StateStoreError, match=r"file/state cannot be written: Not a directory"):
        StateStore(str(tmp_path / "file" / "state")).prepare()


def test_a_folder_that_takes_no_file_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mode bits do not stop root, who runs tests in containers: so the system call refuses."""

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("transforms.state_store.tempfile.mkstemp", refuse)
    with pytest.raises(StateStoreError, match=r"state cannot be written: Permission denied"):
        StateStore(str(tmp_path / "state")).prepare()


def test_preparing_leaves_nothing_behind(store: StateStore) -> None:
    store.prepare()
    assert list(store.folder.iterdir()) == []


# -------------------------------------------------------------------------------------- lock


def test_the_lock_refuses_a_second_holder_and_says_what_to_do(store: StateStore) -> None:
    with store.lock("run"):
        with pytest.raises(StateStoreError) as failure, store.lock("run"):
            pytest.fail("two hold it")
        assert str(failure.value) == (
            f"another `alertbeam run` works in the state folder {store.folder}: "
            "stop it first, or give this one a folder of its own"
        )
        with store.lock("redeliver"):
            pass
    with store.lock("run"):
        pass


def test_the_lock_holds_against_another_process_until_that_is_killed(store: StateStore) -> None:
    program = (
        "import sys, time\n"
        "from transforms.state_store import StateStore\n"
        "with StateStore(sys.argv[1]).lock('run'):\n"
        "    print('held', flush=True)\n"
        "    time.sleep(60)\n"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", program, str(store.folder)], stdout=subprocess.PIPE
    )
    try:
        assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
        with pytest.raises(StateStoreError, match="another `alertbeam run`"), store.lock("run"):
            pytest.fail("two hold it")
    finally:
        holder.kill()
        holder.communicate()
    with store.lock("run"):
        pass


def test_a_lock_is_no_object(store: StateStore) -> None:
    with store.lock("run"):
        assert list(store.list("")) == []
