from __future__ import annotations

import contextlib
import glob
import importlib.util
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import GeneratorType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.transforms.sinks.daemons import Storage, moto
from transforms.read import filesystems
from transforms.read.filesystems import Found, HistoryError, find, open_file

HIDDEN = "it is hidden, or not finished, by its name"


def write(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * len(name))


def found(*where: object) -> list[str]:
    return sorted(each.url for each in find([str(one) for one in where]))


def below(folder: Path, *where: str) -> list[str]:
    """What is found of where, by its path in the folder."""
    return [url[len(str(folder)) + 1 :] for url in found(*(folder / one for one in where))]


def told(*where: str) -> tuple[list[str], list[tuple[str, str]], list[tuple[str, str]]]:
    """What is found, what is unreadable, and what is told apart."""
    closed: list[tuple[str, str]] = []
    apart: list[tuple[str, str]] = []
    urls = [
        each.url
        for each in find(where, lambda *said: closed.append(said), lambda *said: apart.append(said))
    ]
    return sorted(urls), sorted(closed), sorted(apart)


# ------------------------------------------------------------------------------ local folders


def test_a_folder_is_all_that_is_in_it(tmp_path):
    write(tmp_path, "a.json", "b/c.avro", "b/d/e/f.json")
    os.utime(tmp_path / "a.json", ns=(0, 1_772_600_767_123_999_999))
    every = {each.url: each for each in find([str(tmp_path)])}
    assert sorted(every) == [str(tmp_path / n) for n in ("a.json", "b/c.avro", "b/d/e/f.json")]
    assert every[str(tmp_path / "a.json")] == Found(str(tmp_path / "a.json"), 6, 1_772_600_767_123)


def test_files_are_handed_over_while_they_are_found(tmp_path):
    write(tmp_path, "a.json")
    assert isinstance(find([str(tmp_path)]), GeneratorType)


def test_a_file_may_be_named_by_path_or_url_and_is_found_by_its_whole_path(tmp_path, monkeypatch):
    write(tmp_path, "a b.json", "c.json")
    monkeypatch.chdir(tmp_path)
    path = str(tmp_path / "a b.json")
    quoted = path.replace(" ", "%20")
    for one in (path, "a b.json", f"file://{quoted}", f"file://localhost{quoted}"):
        assert found(one) == [path]


def test_what_is_named_twice_is_found_once(tmp_path):
    write(tmp_path, "a/b.json", "a/c/d.json", "a2/e.json", "a/.x/f.json")
    assert below(tmp_path, "a/c", "a", "a/c/d.json", "a/") == ["a/b.json", "a/c/d.json"]
    assert below(tmp_path, "a", "a2") == ["a/b.json", "a/c/d.json", "a2/e.json"]
    assert below(tmp_path, "a", "a/.x") == ["a/.x/f.json", "a/b.json", "a/c/d.json"]


@pytest.mark.parametrize(
    ("pattern", "wanted"),
    [
        ("*", ["a.json", "b.avro", "d/a.json", "d/e/a.json", "d/e/c.txt"]),
        ("*.json", ["a.json"]),
        ("**/*.json", ["a.json", "d/a.json", "d/e/a.json"]),
        ("**.json", ["a.json", "d/a.json", "d/e/a.json"]),
        ("d/*", ["d/a.json", "d/e/a.json", "d/e/c.txt"]),
        ("d/*/a*", ["d/e/a.json"]),
        ("*/e", ["d/e/a.json", "d/e/c.txt"]),
        ("**/e/**", ["d/e/a.json", "d/e/c.txt"]),
        ("?.json", ["a.json"]),
        ("[ab].*", ["a.json", "b.avro"]),
        ("[!a].*", ["b.avro"]),
        ("d/**/c.txt", ["d/e/c.txt"]),
    ],
)
def test_globs(tmp_path, pattern, wanted):
    write(tmp_path, "a.json", "b.avro", "d/a.json", "d/e/a.json", "d/e/c.txt")
    assert below(tmp_path, pattern) == wanted


def test_only_folders_that_a_glob_may_mean_are_opened(tmp_path, monkeypatch):
    write(tmp_path, "2025/01/a.json", "2026/03/a.json", "2026/04/a.json")
    opened = []
    scan = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: [opened.append(path), scan(path)][1])
    assert below(tmp_path, "2026/*/a.json") == ["2026/03/a.json", "2026/04/a.json"]
    assert sorted(opened) == [str(tmp_path / n) for n in ("2026", "2026/03", "2026/04")]


def test_a_name_with_wildcards_in_it_is_first_of_all_a_name(tmp_path):
    write(tmp_path, "a[1].json", "a1.json", "b*/c.json", "b2/c.json")
    assert below(tmp_path, "a[1].json") == ["a[1].json"]
    assert below(tmp_path, "b*") == ["b*/c.json"]


pieces = st.sampled_from(["a", "b", "ab", "a.b"])
parts = st.sampled_from(["*", "**", "a*", "?", "[ab]", "[!a]*", "a", "ab", "*b"])


@settings(max_examples=60)
@given(
    st.sets(st.lists(pieces, min_size=1, max_size=4).map("/".join), max_size=8),
    st.lists(parts, min_size=1, max_size=3),
)
def test_globs_mean_what_the_shells_mean(names, pattern):
    """And a folder that is meant is all that is in it."""
    with tempfile.TemporaryDirectory() as folder:
        for name in sorted(names, key=len, reverse=True):
            with contextlib.suppress(OSError):  # it is a folder already
                write(Path(folder), name)
        text = f"{folder}/{'/'.join(pattern)}"
        wanted = set()
        for path in glob.glob(text, recursive=True):  # noqa: PTH207 - another implementation
            inside = glob.glob(f"{path}/**", recursive=True) if os.path.isdir(path) else [path]  # noqa: PTH112, PTH207
            wanted |= {str(Path(each)) for each in inside if os.path.isfile(each)}  # noqa: PTH113
        urls: list[str] = []
        with contextlib.suppress(HistoryError):
            urls += found(text)
        assert urls == sorted(wanted)


def test_hidden_and_unfinished_names_are_told_apart_unless_they_are_named(tmp_path):
    write(tmp_path, "a.json", ".b.json", "_SUCCESS", "c.json~", "lost+found/h")
    write(tmp_path, "d/_temporary/0/e.json", ".f/g.json")
    urls, closed, apart = told(str(tmp_path))
    assert [urls, closed] == [[str(tmp_path / "a.json")], []]
    names = [".b.json", ".f", "_SUCCESS", "c.json~", "d/_temporary", "lost+found"]
    assert apart == [(str(tmp_path / name), HIDDEN) for name in names]
    assert below(tmp_path, ".b.json", ".f", "d/_temporary/*/*") == [
        ".b.json",
        ".f/g.json",
        "d/_temporary/0/e.json",
    ]


def test_a_pipe_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    write(tmp_path, "a.json")
    assert told(str(tmp_path)) == (
        [str(tmp_path / "a.json")], [], [(str(tmp_path / "pipe"), "it is no file")]
    )  # fmt: skip


def test_links_are_followed_but_in_no_circle(tmp_path):
    write(tmp_path, "in/a.json", "in/d/b.json", "out/c.json", "out/e/f.json")
    inside, outside = tmp_path / "in", tmp_path / "out"
    for link, to in [
        (inside / "d/up", inside), (inside / "d/top", "/"), (inside / "same", inside / "d"),
        (inside / "a2.json", "a.json"), (inside / "o", outside), (inside / "o2", outside),
        (outside / "round", outside), (outside / "back", inside), (inside / "self", "self"),
        (inside / "gone", "nowhere"), (inside / "f.json", outside / "e/f.json"),
    ]:  # fmt: skip
        link.symlink_to(to)
    urls, closed, apart = told(str(inside))
    by_link = [url[len(str(inside)) + 1 :] for url in urls]
    assert sorted(Path(url).name[0] for url in urls) == ["a", "b", "c", "f", "f"]
    assert {"a.json", "d/b.json", "f.json"} < {*by_link}  # under their own names, if they have one
    assert [Path(url).name for url, _ in closed] == ["gone", "self"]
    assert {Path(url).name for url, _ in apart} >= {"up", "top", "same", "a2.json", "round", "back"}


def test_what_hidden_names_hold_is_read_through_links(tmp_path):
    """As Kubernetes mounts a ConfigMap: `x.json -> ..data/x.json`."""
    write(tmp_path, "..2026/x.json")
    (tmp_path / "..data").symlink_to("..2026")
    (tmp_path / "x.json").symlink_to("..data/x.json")
    assert below(tmp_path, ".") == ["x.json"]


def test_a_glob_follows_links_too(tmp_path):
    write(tmp_path, "old/a.json", "now/b.json")
    (tmp_path / "now/link").symlink_to("../old")
    assert below(tmp_path, "now/*/a.json") == ["now/link/a.json"]


@pytest.fixture
def closed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Folders named `closed` are, also to root."""
    scan = os.scandir

    def refuse(path: str) -> Iterator[os.DirEntry[str]]:
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied", path)
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    yield


@pytest.mark.usefixtures("closed")
def test_a_folder_that_is_closed_to_us_is_told_and_the_rest_is_found(tmp_path):
    write(tmp_path, "a.json", "d/closed/b.json", "z/c.json")
    urls, unreadable, _ = told(str(tmp_path))
    assert urls == [str(tmp_path / "a.json"), str(tmp_path / "z/c.json")]
    assert unreadable == [(str(tmp_path / "d/closed"), "permission denied")]
    with pytest.raises(HistoryError, match=re.escape(f"{tmp_path}/d/closed: permission denied")):
        found(tmp_path)


@pytest.mark.usefixtures("closed")
def test_where_all_is_closed_to_us_that_is_what_is_said(tmp_path):
    write(tmp_path, "d/closed/b.json")
    assert told(str(tmp_path))[1] == [(str(tmp_path / "d/closed"), "permission denied")]
    with pytest.raises(HistoryError, match=r"permission denied \(the user that runs"):
        told(str(tmp_path / "d/closed"))


def test_what_vanishes_while_it_is_listed_was_not_there(tmp_path):
    write(tmp_path, "a.json", "b.json", "c/d.json")
    finding = find([str(tmp_path)])
    first = next(finding)
    for name in ("a.json", "b.json"):
        if not first.url.endswith(name):
            (tmp_path / name).unlink()
    (tmp_path / "c/d.json").unlink()
    (tmp_path / "c").rmdir()
    assert [*finding] == []


def test_a_name_that_is_no_text_can_be_written_down_and_opened(tmp_path):
    (Path(os.fsdecode(os.fsencode(tmp_path) + b"/a\xff b.json"))).write_bytes(b"{}")
    (only,) = found(tmp_path)
    assert only == f"file://{tmp_path}/a%FF%20b.json"
    with open_file(only) as file:
        assert file.read() == b"{}"
    assert found(only) == [only]


def test_a_name_in_any_script_is_kept_as_it_is(tmp_path):
    write(tmp_path, "ü/警報.json")
    assert below(tmp_path, "ü") == ["ü/警報.json"]


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("none", "/none: there is no such file or folder"),
        ("none/*.json", "/none/*.json: there is no such file or folder"),
        ("empty", "/empty: there is nothing to read"),
        ("full/*.avro", "/full/*.avro: there is nothing to read"),
        ("hidden", "/hidden: there is nothing to read (2 hidden names or links are passed over)"),
        ("full/[z-a]", "/full/[z-a]: its [ ] cannot be understood"),
    ],
)
def test_where_nothing_is_found_it_is_said(tmp_path, where, said):
    (tmp_path / "empty").mkdir()
    write(tmp_path, "full/a.json", "hidden/.a", "hidden/_b")
    with pytest.raises(HistoryError) as caught:
        found(tmp_path / "full", tmp_path / where)
    assert str(caught.value) == f"{tmp_path}{said}"
    assert caught.value.exit_code == 2


def test_a_name_cannot_forge_a_line(tmp_path):
    with pytest.raises(HistoryError) as caught:
        found(tmp_path / "a\nall is well\x1b[2J")
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("nfs://host/x", "nfs://host/x: must be a local path, or in azfs://, s3:// or gs://"),
        ("azfs://account", "azfs://account: must be azfs://account/container/path"),
        ("https://a.blob.core.windows.net/c/x", ": write it as azfs://account/container/path"),
        ("abfss://c@a.dfs.core.windows.net/x", ": write it as azfs://account/container/path"),
    ],
)
def test_urls_that_are_of_no_use_are_told(url, said):
    for ask in (found, open_file):
        with pytest.raises(HistoryError) as caught:
            ask(url)
        assert str(caught.value).endswith(said)


@pytest.mark.parametrize("scheme", ["s3", "gs"])
def test_a_package_that_is_missing_is_named(monkeypatch, scheme):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(HistoryError, match=re.escape(f"pip install 'alertbeam[{scheme}]'")):
        found(f"{scheme}://bucket/x")


def test_a_local_file_is_opened_plainly(tmp_path):
    (tmp_path / "a").write_bytes(bytes(range(256)) * 100)
    with open_file(str(tmp_path / "a")) as file:
        file.seek(25_000)
        assert file.read(10) == (bytes(range(256)) * 100)[25_000:25_010]
    with pytest.raises(FileNotFoundError, match=re.escape(str(tmp_path / "b"))):
        open_file(str(tmp_path / "b"))


# ------------------------------------------------------------------------ an object store: S3


@pytest.fixture(scope="module")
def _bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Storage]:
    with moto(tmp_path_factory.mktemp("s3")) as storage:
        yield storage


@pytest.fixture
def bucket(_bucket: Storage, monkeypatch: pytest.MonkeyPatch) -> Storage:
    for name, value in _bucket.environment.items():
        monkeypatch.setenv(name, value)
    boto3 = pytest.importorskip("boto3")
    client = boto3.client("s3")
    for key in ("x/a.json", "x/d/b.json", "x/_c.json", "x2/e.json", "x/folder/"):
        client.put_object(Bucket="alerts", Key=key, Body=b"x" * len(key))
    client.put_object(Bucket="alerts", Key="big", Body=os.urandom(9 * 1024 * 1024))
    return _bucket


def test_a_bucket_is_listed_and_read_through_beam(bucket):
    assert told("s3://alerts/x") == (
        ["s3://alerts/x/a.json", "s3://alerts/x/d/b.json"],
        [],
        [("s3://alerts/x/_c.json", HIDDEN)],
    )
    assert found("s3://alerts/**/*.json") == [
        "s3://alerts/x/a.json", "s3://alerts/x/d/b.json", "s3://alerts/x2/e.json"
    ]  # fmt: skip
    assert found("s3://alerts/x2/e.json") == ["s3://alerts/x2/e.json"]
    assert "s3://alerts/big" in found("s3://alerts")
    (one,) = find(["s3://alerts/x2/e.json"])
    assert one.size == 9 and one.modified_ms > 1_700_000_000_000
    with open_file(one.url) as file:
        assert file.seekable() and file.read() == b"x" * 9


def test_an_object_can_be_read_from_anywhere(bucket):
    with open_file("s3://alerts/big") as file:
        whole = file.read()
        assert len(whole) == 9 * 1024 * 1024
        for at in (0, 5_000_000, 17, len(whole) - 3, len(whole) + 5):
            file.seek(at)
            assert file.read(1000) == whole[at : at + 1000]


def test_an_object_that_is_not_there_is_said(bucket):
    with pytest.raises(HistoryError, match=r"^s3://alerts/none: there is nothing to read$"):
        found("s3://alerts/none")
    with pytest.raises(FileNotFoundError, match="s3://alerts/none"):
        open_file("s3://alerts/none")


def test_a_bucket_without_credentials_is_said(bucket, monkeypatch, tmp_path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    with pytest.raises(HistoryError, match=r"no credentials for it \(set AWS_ACCESS_KEY_ID and"):
        found("s3://alerts/x")


def test_no_options_of_a_pipeline_are_needed(bucket, monkeypatch):
    monkeypatch.setattr(filesystems.FileSystems, "_pipeline_options", None)
    with open_file("s3://alerts/x/a.json") as file:
        assert file.read() == b"x" * 8
