"""Where an engine's words and compiled code go, and what happens when they cannot."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable
from pathlib import Path

import pytest

from serve.launcher.output.engine_log import TAIL_BYTES, EngineLog
from serve.launcher.output.log_file import RETRY_SECONDS, LogFile
from serve.launcher.output.logs import KEEP, earlier_part, next_log
from serve.launcher.output.places import Places


class Told(list[str]):
    """What was said."""

    def __call__(self, text: str) -> None:
        self.append(text)


def nowhere() -> Path:
    """A folder that is not there to be named."""
    raise FileNotFoundError(errno.ENOENT, "No such file or directory", "/nowhere")


def full(folder: Path) -> Path:
    """Make the log of `folder` one that takes nothing: a real ENOSPC."""
    path = folder / "engine-000001.log"
    path.unlink()
    path.symlink_to("/dev/full")
    return path


def test_logs_are_numbered_and_old_ones_go(tmp_path: Path) -> None:
    for number in range(1, KEEP + 4):
        path = next_log(tmp_path)
        assert path.name == f"engine-{number:06d}.log"
        path.touch()
        earlier_part(path).touch()
    assert len(list(tmp_path.iterdir())) == 2 * KEEP


def test_many_large_logs_are_fewer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serve.launcher.output.logs.KEEP_BYTES", 1000)
    for _ in range(5):
        next_log(tmp_path).write_bytes(b"x" * 400)
    next_log(tmp_path)
    assert [file.name for file in sorted(tmp_path.iterdir())] == ["engine-000004.log", "engine-000005.log"]


def test_a_log_that_grows_goes_on_in_a_new_part_and_never_takes_more_than_two(tmp_path: Path) -> None:
    file = LogFile([lambda: tmp_path], Told(), part_bytes=1000)
    for number in range(105):
        file.write(b"%099d\n" % number)
    assert sum(one.stat().st_size for one in tmp_path.iterdir()) <= 2000
    assert file.path is not None
    assert b"%099d" % 99 in earlier_part(file.path).read_bytes()
    file.write(b"the last words\n")
    assert file.path.read_bytes().endswith(b"the last words\n")


def test_a_full_disk_sends_the_log_elsewhere_and_nothing_is_lost(tmp_path: Path) -> None:
    told = Told()
    first, second = tmp_path / "first", tmp_path / "second"
    file = LogFile([lambda: first, lambda: second], told)
    file.write(b"one\n")
    full(first)
    for word in (b"two\n", b"three\n"):
        file.write(word)
    assert (second / "engine-000001.log").read_bytes() == b"two\nthree\n"
    assert told == [
        f"the engine's log cannot be written to {first}/engine-000001.log (No space left on device)",
        f"the engine's log goes to {second}/engine-000001.log",
    ]


def test_the_first_place_is_taken_again_when_it_has_room(tmp_path: Path) -> None:
    now = [0.0]
    first, second = tmp_path / "first", tmp_path / "second"
    file = LogFile([lambda: first, lambda: second], Told(), clock=lambda: now[0])
    file.write(b"one\n")
    full(first)
    file.write(b"two\n")
    (first / "engine-000001.log").unlink()
    now[0] = RETRY_SECONDS
    file.write(b"three\n")
    assert (first / "engine-000001.log").read_bytes() == b"three\n"
    assert (second / "engine-000001.log").read_bytes() == b"two\n"


def test_what_no_place_takes_is_counted_in_the_log_when_there_is_one_again(tmp_path: Path) -> None:
    now = [0.0]
    told = Told()
    file = LogFile([lambda: tmp_path], told, clock=lambda: now[0])
    file.write(b"one\n")
    path = full(tmp_path)
    file.write(b"12345")
    file.write(b"67890")
    path.unlink()
    now[0] = RETRY_SECONDS
    file.write(b"two\n")
    assert path.read_text() == "[wardrobe: 10 bytes are missing here: they could not be written]\ntwo\n"
    assert told[-1] == "the engine's log is kept in memory only"
    assert len(told) == 2


def test_a_place_that_cannot_be_named_is_no_error(tmp_path: Path) -> None:
    told = Told()
    file = LogFile([nowhere], told)
    file.write(b"one\n")
    assert file.path is None
    assert told == [
        "the engine's log cannot be written to /nowhere (No such file or directory)",
        "the engine's log is kept in memory only",
    ]


def test_a_log_that_was_removed_is_begun_again(tmp_path: Path) -> None:
    file = LogFile([lambda: tmp_path], Told())
    file.write(b"one\n")
    assert file.path is not None
    file.path.unlink()
    file.write(b"two\n")
    assert file.path.read_bytes() == b"two\n"


def printed(command: str, file: LogFile) -> EngineLog:
    """Run a shell's command into a log, to its end."""

    async def play() -> EngineLog:
        log = EngineLog(file)
        process = await asyncio.create_subprocess_exec("sh", "-c", command, stdout=log.descriptor)
        log.follow()
        await process.wait()
        await log.close()
        return log

    return asyncio.run(play())


def test_everything_that_is_printed_is_written_and_its_end_is_known(tmp_path: Path) -> None:
    log = printed("seq 100000; echo the end", LogFile([lambda: tmp_path], Told()))
    text = (tmp_path / "engine-000001.log").read_text()
    assert text == "".join(f"{number}\n" for number in range(1, 100_001)) + "the end\n"
    assert log.words().endswith("100000\nthe end\n")
    assert len(log.words()) <= 2 * TAIL_BYTES


def test_who_prints_more_than_any_disk_takes_is_not_held_up(tmp_path: Path) -> None:
    class Slow(LogFile):
        def write(self, data: bytes) -> None:
            while data and not done:
                pass

    done: list[bool] = []
    file = Slow([nowhere], Told())

    async def play() -> str:
        log = EngineLog(file)
        process = await asyncio.create_subprocess_exec(
            "sh", "-c", "head -c 30000000 /dev/zero; echo the end", stdout=log.descriptor
        )
        log.follow()
        await asyncio.wait_for(process.wait(), 20)
        done.append(True)
        await log.close()
        return log.words()

    assert asyncio.run(play()).endswith("the end\n")


def test_closing_a_log_twice_changes_nothing_and_leaves_no_descriptor(tmp_path: Path) -> None:
    def descriptors() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    async def play() -> None:
        before = descriptors()
        log = EngineLog(LogFile([lambda: tmp_path], Told()))
        await log.close()
        await log.close()
        assert descriptors() == before

    asyncio.run(play())


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "layout.json").touch()
    return tmp_path / "root"


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary folders are made."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder


def named(folder: Callable[[], Path]) -> Path | None:
    try:
        return folder()
    except OSError:
        return None


def test_logs_and_compiled_code_lie_in_the_root(root: Path, temporary: Path) -> None:
    told = Told()
    places = Places(root, "r1", told)
    assert named(places.log_folders()[0]) == places.logs == root / "logs" / "r1"
    assert places.caches() == root / "cache"
    assert told == []
    assert list(temporary.iterdir()) == []


def test_nothing_is_made_where_the_root_is_away(tmp_path: Path, temporary: Path) -> None:
    """A bare mount point takes writes, and loses them behind the mount when it comes back."""
    bare = tmp_path / "bare"
    bare.mkdir()
    told = Told()
    places = Places(bare, "r1", told)
    assert named(places.log_folders()[0]) is None
    other = places.caches()
    assert other is not None
    assert temporary in other.parents
    assert list(bare.iterdir()) == []
    assert told[0].startswith(
        f"compiled code goes to {other} and is made anew: {bare}/cache cannot be written"
    )


def test_a_root_without_room_sends_compiled_code_elsewhere_told_once(
    root: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serve.launcher.output.places.ROOM_BYTES", 2**60)
    told = Told()
    places = Places(root, "r1", told)
    first, second = places.caches(), places.caches()
    assert first == second
    assert first is not None
    assert temporary in first.parents
    assert len(told) == 1
    first.mkdir()
    places.close()
    assert not first.exists()


def test_what_was_compiled_before_is_taken_along(
    root: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serve.launcher.output.places.ROOM_BYTES", 2**60)
    (root / "cache" / "vllm").mkdir(parents=True)
    (root / "cache" / "vllm" / "kernel.so").write_bytes(b"code")
    told = Told()
    other = Places(root, "r1", told).caches()
    assert other is not None
    assert temporary in other.parents
    assert (other / "vllm" / "kernel.so").read_bytes() == b"code"
    assert told[0].startswith(f"compiled code goes to {other}: {root}/cache has ")


def test_a_root_that_only_can_be_read_sends_both_elsewhere(root: Path, temporary: Path) -> None:
    (root / "cache").touch()  # root may write anywhere, but not make a folder of a file
    (root / "logs").touch()
    places = Places(root, "r1", Told())
    assert places.caches() != root / "cache"
    file = LogFile(places.log_folders(), Told())
    file.write(b"one\n")
    assert file.path is not None
    assert temporary in file.path.parents


def test_without_any_place_vllm_is_left_to_its_own(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", "/nowhere")
    (root / "cache").touch()
    assert Places(root, "r1", Told()).caches() is None
