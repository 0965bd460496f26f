from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from registry.errors import InvalidAdapter, Missing, StorageFailed
from registry.storage.hashes import Hashes
from registry.store import Registry
from tests.fakes.store import put

SIZE = 4_000_000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    made = tmp_path / "weights"
    made.write_bytes(os.urandom(SIZE))
    return made


def later() -> float:
    """Return a time at which what was just written is long settled."""
    return time.time() + 60


def read_bytes(act: Callable[[], object]) -> int:
    """Return how many bytes this process read while it acted."""

    def total() -> int:
        lines = Path("/proc/self/io").read_text().splitlines()
        return int(next(line.split()[1] for line in lines if line.startswith("rchar")))

    before = total()
    act()
    return total() - before


def real(path: Path) -> tuple[int, str]:
    data = path.read_bytes()
    return len(data), hashlib.sha256(data).hexdigest()


def flip(path: Path, where: int = 7) -> None:
    """Flip a byte in place and put the mtime back, as soon as the file system's clock has gone on."""
    state = path.stat()
    while path.stat().st_ctime_ns == state.st_ctime_ns:
        os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    with path.open("r+b") as file:
        file.seek(where)
        byte = file.read(1)[0]
        file.seek(where)
        file.write(bytes([byte ^ 1]))
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert path.stat().st_mtime_ns == state.st_mtime_ns


def test_a_file_that_has_not_changed_is_not_read_again(path: Path) -> None:
    hashes = Hashes(clock=later)
    assert read_bytes(lambda: hashes.of(path)) >= SIZE
    assert read_bytes(lambda: hashes.of(path)) < SIZE / 10
    assert hashes.of(path) == real(path)


def test_afresh_reads_it_always(path: Path) -> None:
    hashes = Hashes(clock=later)
    hashes.of(path)
    assert read_bytes(lambda: hashes.of(path, afresh=True)) >= SIZE


def test_a_flipped_byte_is_found_whose_writer_put_the_mtime_back(path: Path) -> None:
    hashes = Hashes(clock=later)
    before = hashes.of(path)
    flip(path)
    assert hashes.of(path) == real(path) != before


def test_another_file_of_the_same_size_and_times_under_the_name_is_found(path: Path) -> None:
    hashes = Hashes(clock=later)
    before = hashes.of(path)
    state, other = path.stat(), path.with_name("other")
    other.write_bytes(os.urandom(SIZE))
    os.utime(other, ns=(state.st_atime_ns, state.st_mtime_ns))
    other.rename(path)
    assert hashes.of(path) == real(path) != before


def test_what_was_written_just_now_is_not_remembered(path: Path) -> None:
    hashes = Hashes()
    hashes.of(path)
    assert read_bytes(lambda: hashes.of(path)) >= SIZE


def test_what_changes_while_it_is_hashed_is_not_remembered(path: Path) -> None:
    def clock() -> float:  # it is asked between the first look and the reading
        flip(path)
        return later()

    hashes = Hashes(clock=clock)
    hashes.of(path)
    hashes._clock = later
    assert hashes.of(path) == real(path)


def test_the_memory_is_bounded_and_forgets_the_oldest(tmp_path: Path) -> None:
    hashes = Hashes(most=2, clock=later)
    paths = [tmp_path / str(number) for number in range(3)]
    for number, path in enumerate(paths):
        path.write_bytes(bytes([number]) * SIZE)
        hashes.of(path)
    assert read_bytes(lambda: hashes.of(paths[2])) < SIZE / 10
    assert read_bytes(lambda: hashes.of(paths[0])) >= SIZE


def test_threads_may_ask_at_once(tmp_path: Path) -> None:
    hashes = Hashes(most=3, clock=later)
    paths = [tmp_path / str(number) for number in range(8)]
    for path in paths:
        path.write_bytes(os.urandom(1000))
    wanted = [real(path) for path in paths]
    found: list[list[tuple[int, str]]] = []
    threads = [
        threading.Thread(target=lambda: found.extend([hashes.of(p) for p in paths] for _ in range(20)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [wanted] * 80


def test_what_is_no_plain_file_is_refused_though_it_was_hashed_before(path: Path) -> None:
    hashes = Hashes(clock=later)
    hashes.of(path)
    path.rename(path.with_name("elsewhere"))
    with pytest.raises(Missing):
        hashes.of(path)
    path.symlink_to(path.with_name("elsewhere"))
    with pytest.raises(StorageFailed):
        hashes.of(path)


def test_a_second_load_reads_no_weights_and_verify_reads_them_all(registry: Registry) -> None:
    version = put(registry)
    registry.catalogue.versions._hashes = Hashes(clock=later)
    load = read_bytes(lambda: registry.verify_version(version))
    again = read_bytes(lambda: registry.verify_version(version))
    assert load - again >= version.size_bytes * 0.9
    assert read_bytes(lambda: registry.verify("support", 1)) >= load * 0.9


def test_a_version_that_was_loaded_before_is_refused_when_a_byte_of_it_changes(registry: Registry) -> None:
    version = put(registry)
    registry.catalogue.versions._hashes = Hashes(clock=later)
    registry.verify_version(version)
    weights = version.path / "adapter_model.safetensors"
    weights.chmod(0o644)
    registry.verify_version(version)
    flip(weights, 500)
    with pytest.raises(InvalidAdapter, match="sha256"):
        registry.verify_version(version)
