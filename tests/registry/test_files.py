from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from registry.errors import CorruptStore, Occupied, StorageFailed
from registry.storage import disk, files
from registry.storage.hashes import Hashes
from tests.fakes.store import without_links

both_kinds = pytest.mark.parametrize("links", [True, False], ids=["links", "no-links"])


def contents(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


@both_kinds
def test_a_claim_is_won_once(links: bool, tmp_path: Path) -> None:
    with without_links(not links):
        assert files.claim(tmp_path / "1.json", b"first")
        assert not files.claim(tmp_path / "1.json", b"second")
    assert disk.read(tmp_path / "1.json") == b"first"
    assert contents(tmp_path) == ["1.json"]


@pytest.mark.parametrize("first", [True, False], ids=["links-first", "folder-first"])
def test_writers_with_and_without_links_exclude_each_other(first: bool, tmp_path: Path) -> None:
    with without_links(not first):
        assert files.claim(tmp_path / "1.json", b"first")
    with without_links(first):
        assert not files.claim(tmp_path / "1.json", b"second")
    assert disk.read(tmp_path / "1.json") == b"first"
    assert disk.entry_numbers(tmp_path) == [1]


def test_a_link_that_succeeded_is_ours_although_the_mount_says_that_it_exists(tmp_path: Path) -> None:
    """NFS repeats a request whose answer was lost, and then reports EEXIST for its own first try."""

    def answer_is_lost(label: str) -> None:
        if label == "link 1.json":
            (temporary,) = tmp_path.glob(".*.tmp")
            os.link(temporary, tmp_path / "1.json")

    with files.watch_steps(answer_is_lost):
        assert files.claim(tmp_path / "1.json", b"token")
    assert disk.read(tmp_path / "1.json") == b"token"


@both_kinds
def test_entries_are_numbered_and_a_lost_race_is_decided_again(links: bool, tmp_path: Path) -> None:
    log = tmp_path / "log"
    asked: list[int] = []

    def build(seq: int) -> bytes:
        asked.append(seq)
        if len(asked) == 1:
            assert files.append_entry(log, lambda _: b"the other") == 1
        return b"ours"

    with without_links(not links):
        assert files.append_entry(log, build) == 2
    assert asked == [1, 2]
    assert [disk.read(log / f"{seq}.json") for seq in disk.entry_numbers(log)] == [b"the other", b"ours"]


def test_only_finished_entries_count(tmp_path: Path) -> None:
    for name in ("2.json", "10.json", ".3.json.ab.tmp", "x.json", "04.json", "5.txt", "proof-7.json"):
        (tmp_path / name).write_bytes(b"")
    assert disk.entry_numbers(tmp_path) == [2, 10]
    assert disk.entry_numbers(tmp_path, prefix="proof-") == [7]
    assert disk.entry_numbers(tmp_path / "absent") == []


def test_a_replaced_file_is_the_old_one_until_the_last_step(tmp_path: Path) -> None:
    path = tmp_path / "file"
    files.replace(path, b"old")
    seen = []
    with files.watch_steps(lambda _: seen.append(path.read_bytes())):
        files.replace(path, b"new")
    assert seen[0] == b"old"
    assert path.read_bytes() == b"new"
    assert contents(tmp_path) == ["file"]


def test_a_folder_is_never_published_onto_another_not_even_an_empty_one(tmp_path: Path) -> None:
    for target in ("empty", "full"):
        staged = tmp_path / f"staged-{target}"
        staged.mkdir()
        (staged / "file").write_bytes(b"mine")
        (tmp_path / target).mkdir()
        if target == "full":
            (tmp_path / target / "file").write_bytes(b"theirs")
        with pytest.raises(Occupied):
            files.publish_directory(staged, tmp_path / target)
        assert (staged / "file").read_bytes() == b"mine"
    assert (tmp_path / "full" / "file").read_bytes() == b"theirs"


def test_a_folder_that_appears_just_before_the_rename_is_kept(tmp_path: Path) -> None:
    staged, target = tmp_path / "staged", tmp_path / "1"
    staged.mkdir()

    def be_faster(label: str) -> None:
        if label == "rename to 1":
            target.mkdir()
            (target / "file").write_bytes(b"theirs")

    with files.watch_steps(be_faster), pytest.raises(Occupied):
        files.publish_directory(staged, target)
    assert (target / "file").read_bytes() == b"theirs"


def test_a_published_folder_is_read_only_and_can_still_be_moved_and_removed(tmp_path: Path) -> None:
    staged = tmp_path / "staged"
    staged.mkdir()
    files.stage(staged / "file", b"x")
    files.publish_directory(staged, tmp_path / "1")
    assert stat.S_IMODE((tmp_path / "1").stat().st_mode) == 0o555
    assert stat.S_IMODE((tmp_path / "1" / "file").stat().st_mode) == 0o444
    files.move(tmp_path / "1", tmp_path / "trash")
    files.remove_tree(tmp_path / "trash")
    assert contents(tmp_path) == []


def test_a_copy_tells_the_size_and_hash_of_what_it_wrote(tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"weights" * 1000)
    size, sha256 = files.copy_new(tmp_path / "source", tmp_path / "target")
    assert (size, sha256) == Hashes().of(tmp_path / "target")
    assert size == 7000


def test_neither_a_symlink_nor_a_pipe_is_read(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    (tmp_path / "link").symlink_to(tmp_path / "secret")
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "pipe"):
        with pytest.raises((StorageFailed, CorruptStore)):
            disk.read(tmp_path / name)
        with pytest.raises(StorageFailed):
            files.copy_new(tmp_path / name, tmp_path / f"copy-{name}")
        assert not (tmp_path / f"copy-{name}").exists()


def test_every_touch_leaves_another_mark(tmp_path: Path) -> None:
    marks = set()
    for _ in range(100):
        files.touch(tmp_path / "mark")
        status = (tmp_path / "mark").stat()
        marks.add((status.st_ino, status.st_mtime_ns))
    assert len(marks) == 100


def test_a_refusal_names_the_path_the_reason_and_the_remedy(tmp_path: Path) -> None:
    def refuse(_: str) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with files.watch_steps(refuse), pytest.raises(StorageFailed) as caught:
        files.make_directory(tmp_path / "new")
    assert str(caught.value) == (
        f"{tmp_path}/new: the file system refused (No space left on device); "
        "free space on the disk; `wardrobe gc --apply --now`, which needs no room, removes what deleted"
        " versions hold, if any"
    )
    assert caught.value.http_status == 507


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes files for others")
def test_what_root_makes_belongs_to_the_owner_of_its_folder(tmp_path: Path) -> None:
    os.chown(tmp_path, 1234, 1235)
    (tmp_path / "source").write_bytes(b"x")
    files.replace(tmp_path / "replaced", b"x")
    files.stage(tmp_path / "staged", b"x")
    files.copy_new(tmp_path / "source", tmp_path / "copied")
    files.append_lines(tmp_path / "appended", b"x\n")
    files.touch(tmp_path / "touched")
    files.make_directory(tmp_path / "made" / "inner")
    files.append_entry(tmp_path / "log", lambda _: b"x")
    with without_links():
        files.claim(tmp_path / "claimed.json", b"x")
    made = [path for path in tmp_path.rglob("*") if path.name != "source"]
    assert len(made) == 11
    assert {(path.stat().st_uid, path.stat().st_gid) for path in made} == {(1234, 1235)}
