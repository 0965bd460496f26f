"""A file appears whole or not at all, belongs to a key, and is gone when it has expired."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path

import pytest

from registry.entries.openai.files import PREFIX, FileStore
from registry.entries.openai.ids import derived_id, made_at, new_id
from registry.errors import DiskFull, NotFound
from registry.storage import files
from registry.store import Registry
from tests.fakes.clock import Clock


@pytest.fixture
def store(registry: Registry, clock: Clock) -> FileStore:
    return FileStore(registry.root, clock)


def make(store: FileStore, content: bytes = b"{}\n", **options: object) -> str:
    given: dict[str, object] = {"who": "alice", **options}
    return store.create("fine-tune", "rows.jsonl", [content], **given).id  # type: ignore[arg-type]


def left(registry: Registry) -> list[str]:
    return [path.name for name in ("staging", "files") for path in (registry.root / name).glob("*")]


def test_a_file_is_found_with_all_that_is_known_of_it(store: FileStore) -> None:
    info = store.create("batch", "a b.jsonl", [b"on", b"e\n"], who="alice", lifetime_seconds=3600)
    assert store.info(info.id) == info
    assert (info.bytes, info.created_at, info.filename, info.purpose, info.who) == (
        4, 1000, "a b.jsonl", "batch", "alice",
    )  # fmt: skip
    assert (info.status, info.status_details, info.expires_at) == ("processed", None, 4600)
    assert store.content(info.id).read_bytes() == b"one\n"
    assert len(info.id) == len("file-") + 24


def test_a_file_may_come_from_a_path(store: FileStore, tmp_path: Path, registry: Registry) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(b"step\n")
    info = store.create("fine-tune-results", path.name, path, who="alice")
    assert store.content(info.id).read_bytes() == path.read_bytes()
    assert left(registry) == [info.id]


def test_the_newest_come_first_and_each_key_sees_its_own(store: FileStore, clock: Clock) -> None:
    first = make(store)
    clock.now += 1
    second, other = make(store), make(store, who="ben")
    assert [one.id for one in store.list(who="alice")] == [second, first]
    assert [one.id for one in store.list(who="ben")] == [other]
    assert len(store.list()) == 3
    assert store.list(purpose="batch") == []


def test_an_expired_file_is_not_found_and_then_collected(
    registry: Registry, store: FileStore, clock: Clock
) -> None:
    kept, expired = make(store), make(store, lifetime_seconds=3600)
    clock.now += 3600
    with pytest.raises(NotFound, match=f"^No such File object: {expired}$"):
        store.content(expired)
    assert [one.id for one in store.list()] == [kept]
    assert registry.tidy() == [f"files/{expired}"]
    assert left(registry) == [kept]


@pytest.mark.parametrize("name", ["file-1", "../files", "file-" + "a" * 24, "", "file-" + "é" * 24])
def test_an_id_that_nobody_was_given_is_not_found(store: FileStore, name: str) -> None:
    for ask in (store.info, store.content, store.delete):
        with pytest.raises(NotFound, match="No such File object"):
            ask(name)


def test_a_deleted_file_leaves_nothing_and_stays_with_who_reads_it(
    registry: Registry, store: FileStore
) -> None:
    name = make(store, b"rows\n")
    with store.content(name).open("rb") as reader:
        store.delete(name)
        assert reader.read() == b"rows\n"
    with pytest.raises(NotFound):
        store.info(name)
    assert left(registry) == []


def test_a_file_that_was_deleted_elsewhere_is_not_found_here(registry: Registry, store: FileStore) -> None:
    name = make(store)
    FileStore(registry.root).delete(name)
    with pytest.raises(NotFound):
        store.info(name)


def test_a_derived_id_is_made_once(store: FileStore) -> None:
    name = derived_id(PREFIX, 990.5, "batch_1", "output")
    assert name == derived_id(PREFIX, 990.5, "batch_1", "output")
    assert name != derived_id(PREFIX, 990.5, "batch_1", "error")
    first = store.create("batch_output", "o.jsonl", [b"1"], who="alice", file_id=name)
    again = store.create("batch_output", "o.jsonl", [b"2"], who="alice", file_id=name)
    assert first == again
    assert first.created_at == 990
    assert store.content(name).read_bytes() == b"1"


def test_a_full_disk_at_any_step_leaves_nothing_behind(registry: Registry, store: FileStore) -> None:
    make(store)
    before, failed, wanted = left(registry), 0, 0

    def refuse(name: str) -> None:
        nonlocal wanted
        wanted -= 1
        if wanted < 0 and not name.startswith(("unlink", "rmdir", "chmod")):
            raise OSError(errno.ENOSPC, "No space left on device")

    for number in range(10):
        wanted = number
        with files.watch_steps(refuse):
            try:
                make(store)
            except DiskFull:
                failed += 1
                assert left(registry) == before
            else:
                break
    assert failed >= 3


def test_content_that_breaks_off_leaves_nothing_behind(registry: Registry, store: FileStore) -> None:
    def broken() -> Iterator[bytes]:
        yield b"half"
        raise ValueError("the client left")

    with pytest.raises(ValueError, match="the client left"):
        store.create("batch", "x.jsonl", broken(), who="alice")
    assert left(registry) == []


def test_one_damaged_file_hides_no_other(registry: Registry, store: FileStore) -> None:
    kept, damaged = make(store), make(store)
    meta = registry.root / "files" / damaged / "meta.json"
    meta.chmod(0o644)
    meta.write_text("{")
    assert [one.id for one in FileStore(registry.root).list()] == [kept]


def test_ids_sort_by_when_they_were_made() -> None:
    times = [0.0, 1.0, 999.999, 1_000.0, 1_700_000_000.0, 1_700_000_000.001, 4_000_000_000.0]
    ids = [new_id("batch_", at) for at in times]
    assert sorted(ids) == ids
    assert [made_at(one) for one in ids] == times
    assert [made_at(derived_id("file-", at, "x")) for at in times] == times
    assert len({new_id("file-", 1.0) for _ in range(100)}) == 100
