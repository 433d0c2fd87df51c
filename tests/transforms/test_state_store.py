"""Every write is whole, private, and inside the folder, whatever the names."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.site import Site, alerts, wait_for
from transforms import state_store as state_store_module
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
    (store.folder / "a" / ".new-px7k2").write_bytes(b"half")
    assert list(store.list("a")) == ["a/b"]


def test_what_killed_writers_left_long_ago_is_swept_and_nothing_else(store: StateStore) -> None:
    store.put("a/b", b"1")
    kept = ["a/b", "a/.new-now", ".run.lock", "a/.nfs0001", "a/new-x"]
    swept = [".new-top", "a/.new-old", "a/c/.new-old"]
    for path in (*kept, *swept):
        (store.folder / path).parent.mkdir(exist_ok=True)
        (store.folder / path).touch()
        if path != "a/.new-now":
            os.utime(store.folder / path, (0, 0))
    store.prepare()
    found = {p.relative_to(store.folder).as_posix() for p in store.folder.rglob("*")}
    assert found == {"a", "a/c", *kept}


def test_a_write_under_way_is_named_as_the_sweep_looks_for(store: StateStore) -> None:
    names: list[str] = []

    def kept(self: StateStore, folder: Path) -> None:
        names.extend(path.name for path in folder.iterdir())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "replace", lambda self, _: names.append(self.name))
        patch.setattr(StateStore, "_keep", kept)
        store.put("a", b"")
    assert names[0].startswith(".new-")


def test_objects_are_listed_in_order_and_folders_are_none(store: StateStore) -> None:
    for path in ("a/2", "a/1/x", "a/10", "b/1"):
        store.put(path, b"")
    assert list(store.list("a")) == ["a/1/x", "a/10", "a/2"]
    assert list(store.list("nothing")) == []


def test_a_large_folder_is_listed_in_the_order_of_its_folders_and_names(store: StateStore) -> None:
    paths = [f"a/{one}/{two}" for one in ("0", "0-", "00", "0.") for two in ("x", "x-", "x$")]
    for path in paths:
        store.put(path, b"", sync=False)
    assert [*store.list("a")] == sorted(paths, key=lambda path: path.split("/"))


def test_what_is_not_there_is_none_and_deleting_it_is_fine(store: StateStore) -> None:
    store.put("a/b", b"")
    assert store.get("a") is None
    assert store.get("a/c") is None
    assert store.get("a/b/c") is None
    store.delete("a/c")
    store.delete("a/b")
    assert store.get("a/b") is None


# --------------------------------------------------------------------------- power failures


class Disk:
    """What of the store's folders a power failure leaves: files and names that were synced.

    Follows the store's own system calls: what is there, and what of that is on disk.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self.names: dict[str, set[str]] = {}  # by folder: what it holds on disk
        self.contents: dict[int, bytes] = {}  # by inode: what was synced of a file
        self.inodes: dict[str, int] = {}  # by path, of the names on disk
        self.folder = folder
        sync = os.fsync

        def fsync(descriptor: int) -> None:
            sync(descriptor)
            path = Path(f"/proc/self/fd/{descriptor}").readlink()
            if path.is_dir():
                self.names[str(path)] = {each.name for each in path.iterdir()}
                for each in path.iterdir():
                    self.inodes[str(each)] = each.stat().st_ino
            else:
                self.contents[path.stat().st_ino] = path.read_bytes()

        monkeypatch.setattr("transforms.state_store.os.fsync", fsync)

    def holds(self, path: str) -> bytes | None:
        """An object after a power failure, if its name and the names of its folders are there."""
        whole = self.folder / path
        for each in (whole, *whole.parents):
            if each == self.folder.parent:
                break
            if each.name not in self.names.get(str(each.parent), ()):
                return None
        return self.contents.get(self.inodes[str(whole)])


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Disk:
    state_store_module._kept.clear()
    return Disk(monkeypatch, tmp_path / "state")


def test_what_was_put_with_sync_is_there_after_a_power_failure(disk: Disk) -> None:
    store = StateStore(str(disk.folder))
    for path in ("a", "b/c/d/e", "b/c/d/f", "b/c/g"):
        store.put(path, path.encode())
        assert disk.holds(path) == path.encode()
    store.put("b/c/g", b"new")
    assert disk.holds("b/c/g") == b"new"


def test_folders_that_a_write_without_sync_made_are_there_too(disk: Disk) -> None:
    store = StateStore(str(disk.folder))
    store.put("a/b/1", b"", sync=False)
    store.put("a/b/2", b"2")
    assert disk.holds("a/b/2") == b"2"


def test_folders_that_another_process_made_are_there_too(disk: Disk) -> None:
    (disk.folder / "a" / "b").mkdir(parents=True)
    StateStore(str(disk.folder)).put("a/b/1", b"1")
    assert disk.holds("a/b/1") == b"1"


def test_folders_that_were_removed_and_made_anew_are_there_too(disk: Disk) -> None:
    store = StateStore(str(disk.folder))
    store.put("a/b/1", b"1")
    (disk.folder / "a" / "b" / "1").unlink()
    (disk.folder / "a" / "b").rmdir()
    disk.names[str(disk.folder / "a")] = set()
    store.put("a/b/1", b"2")
    assert disk.holds("a/b/1") == b"2"


def test_what_was_deleted_does_not_come_back(disk: Disk) -> None:
    store = StateStore(str(disk.folder))
    store.put("a/b", b"1")
    store.delete("a/b")
    assert disk.holds("a/b") is None
    store.delete("a/b")


def test_an_ancestor_that_could_not_be_synced_is_tried_again(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = StateStore(str(disk.folder))
    real, failing = state_store_module._sync, [disk.folder / "a"]

    def sync(folder: Path) -> None:
        if folder in failing:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(folder)

    monkeypatch.setattr(state_store_module, "_sync", sync)
    with pytest.raises(StateStoreError, match="Input/output error"):
        store.put("a/b/c", b"1")
    failing.clear()
    store.put("a/b/c", b"2")
    assert disk.holds("a/b/c") == b"2"


def test_folders_above_the_store_may_be_closed_to_us(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = state_store_module._sync

    def sync(folder: Path) -> None:
        if not folder.is_relative_to(disk.folder):
            raise PermissionError(errno.EACCES, "Permission denied")
        real(folder)

    monkeypatch.setattr(state_store_module, "_sync", sync)
    StateStore(str(disk.folder)).put("a/b", b"1")


def test_a_file_system_that_syncs_no_folders_is_one_too(
    store: StateStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.fsync

    def fsync(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "Invalid argument")
        real(descriptor)

    monkeypatch.setattr("transforms.state_store.os.fsync", fsync)
    store.put("a/b", b"1")


def test_without_sync_nothing_waits_for_the_disk(
    store: StateStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transforms.state_store.os.fsync", lambda _: pytest.fail("it waits"))
    store.put("a/b", b"1", sync=False)
    store.delete("a/b", sync=False)


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


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.ENOSPC, "No space left on device (make room there)"),
        (errno.EROFS, "Read-only file system (mount it for writing)"),
        (errno.EACCES, "Permission denied (the user that runs this must own it)"),
        (errno.EIO, "Input/output error (its disk or mount fails, see the kernel's log)"),
        (errno.ESTALE, "Stale file handle (mount it again)"),
        (errno.EMFILE, "Too many open files"),
    ],
)
def test_what_the_system_refuses_is_told_with_the_folder_and_what_to_do(
    store: StateStore, monkeypatch: pytest.MonkeyPatch, number: int, advice: str
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    store.put("a/b", b"")
    for name in ("tempfile.mkstemp", "Path.unlink", "Path.read_bytes", "os.scandir"):
        monkeypatch.setattr(f"transforms.state_store.{name}", refuse)
    for what, act in (
        ("written", lambda: store.put("a/b", b"")),
        ("written", lambda: store.delete("a/b")),
        ("read", lambda: store.get("a/b")),
        ("read", lambda: list(store.list("a"))),
    ):
        with pytest.raises(StateStoreError) as failure:
            act()
        assert str(failure.value) == f"the state folder {store.folder} cannot be {what}: {advice}"
        assert failure.value.errno == number


def test_a_folder_that_was_unmounted_is_not_begun_anew(store: StateStore, tmp_path: Path) -> None:
    """What lies below a mount is an empty folder: positions begun there would skip events."""
    store.put("accounts/a/0.json", b"1")
    store.folder.rename(tmp_path / "away")
    store.folder.mkdir()
    with pytest.raises(StateStoreError, match=r"it is another folder than it was \(mount it again"):
        store.put("accounts/a/0.json", b"2")
    store.folder.rmdir()
    with pytest.raises(StateStoreError, match=r"No such file .* \(was it removed, or unmounted"):
        store.put("accounts/a/0.json", b"2")
    (tmp_path / "away").rename(store.folder)
    store.put("accounts/b/0.json", b"2")


def test_a_slow_write_is_told(
    store: StateStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(state_store_module, "_SLOW_SECONDS", 0.01)
    monkeypatch.setattr(StateStore, "_keep", lambda *_: time.sleep(0.02))
    store.put("a/b", b"")
    assert f"the state folder {store.folder} is slow: a write took 0 s" in caplog.text


def test_a_store_that_fails_for_a_while_costs_shifts_and_no_alert(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("pipelines.run._RETRY_SECONDS", (0.1, 0.2))
    with Site(tmp_path) as site:
        site.write()
        before, during = alerts(20), alerts(20, seed=2)
        with site.running() as run:
            said: list[str] = run.said  # type: ignore[attr-defined]
            site.publish(list(before.values()))
            wait_for(lambda: all(len(ids) == 20 for ids in site.arrived().values()))
            with monkeypatch.context() as patch:
                patch.setattr(StateStore, "_make", refuse)
                site.publish(list(during.values()))
                wait_for(lambda: sum("failed" in line for line in said) >= 2)
            wait_for(lambda: all(len(set(ids)) == 40 for ids in site.arrived().values()))
        failed = [line for line in said if "failed" in line]
        assert all("\n" not in line and "No space left on device" in line for line in failed)
        assert all(account.holds for account in site.accounts().values())
        assert all(set(ids) == {*before, *during} for ids in site.arrived().values())


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
