"""Code that is compiled beside an engine: when, how often, with whom it ends. The compilation is a fake."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import functools
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from serve.engine.compiled.code import CompiledCode
from serve.engine.environment import COMPILE_VARIABLE, NOTE_VARIABLE
from serve.launcher.compiling import ATTEMPTS, BackgroundCompiler, CompilingOptions
from serve.process_group import group_members
from tests.fakes.launched import launched, wait

MIB = 2**20


@dataclass
class Beside:
    """A compiler over a cache of its own; `mode` is what its process does, `free` the memory in bytes."""

    cache: Path
    mode: str = "make"
    free: int | None = None
    lines: list[str] = field(default_factory=list)
    started: int = 0

    def compiler(self) -> BackgroundCompiler:
        """Return the compiler of one server."""
        options = CompilingOptions(
            making=self._making,
            argv=("--max-loras", "8"),
            fingerprint="sha256:0",
            environment={**os.environ, "VLLM_CACHE_ROOT": str(self.cache)},
            lasting=self.cache,
            log_folders=[lambda: self.cache / "logs"],
            memory_bytes=100 * MIB,
            available=lambda: self.free,
            retry_seconds=0.01,
        )
        return BackgroundCompiler(options, self.lines.append)

    def _making(self, line: int, note: Path) -> list[str]:
        self.started += 1
        command = [sys.executable, "-m", "tests.fakes.making"]
        return [*command, "--line", str(line), "--note", str(note), self.mode]


def in_loop(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Return `test` as a function that runs in a loop of its own."""

    @functools.wraps(test)
    def run(*arguments: object, **named: object) -> None:
        asyncio.run(test(*arguments, **named))  # type: ignore[arg-type]

    return run


@pytest.fixture
def beside(tmp_path: Path) -> Beside:
    return Beside(tmp_path)


@contextlib.asynccontextmanager
async def running(compiler: BackgroundCompiler) -> AsyncIterator[None]:
    """Let it run beside the block, and end it as the supervisor does."""
    task = asyncio.create_task(compiler.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})


async def until(compiler: BackgroundCompiler, words: str) -> None:
    async with asyncio.timeout(20):
        while words not in compiler.note:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def code_of(compiler: BackgroundCompiler) -> CompiledCode:
    found = compiler._code
    assert found is not None
    return found


@in_loop
async def test_the_first_engine_serves_uncompiled_and_the_next_takes_what_was_made(beside: Beside) -> None:
    compiler = beside.compiler()
    assert compiler.choose({}) == {COMPILE_VARIABLE: "later"}
    await compiler.run()
    assert "faster code is ready; a restart takes it: `systemctl restart" in compiler.note
    assert compiler.choose({}) == {COMPILE_VARIABLE: "made", NOTE_VARIABLE: str(code_of(compiler).path)}
    await compiler.run()
    assert compiler.note == ""
    assert beside.started == 1


@in_loop
async def test_an_engine_that_could_not_use_its_code_has_it_made_anew(beside: Beside) -> None:
    compiler = beside.compiler()
    compiler.choose({})
    await compiler.run()
    compiler.choose({})
    code_of(compiler).note_failed("it was refused")  # as the engine does
    await compiler.run()
    assert "ready" in compiler.note
    assert beside.started == 2


@in_loop
async def test_a_failure_is_told_once_with_its_reason_and_not_tried_for_ever(beside: Beside) -> None:
    beside.mode = "fail"
    for server in range(ATTEMPTS + 2):
        compiler = beside.compiler()
        compiler.choose({})
        await compiler.run()
        if server < ATTEMPTS:
            assert "failed: RuntimeError: the compiler is broken; see" in compiler.note
            assert compiler.note.endswith("the server goes on without")
    assert beside.started == ATTEMPTS
    assert f"could not be compiled, {ATTEMPTS} times" in compiler.note
    assert "set engine.compile = off, or remove" in compiler.note
    assert len(beside.lines) == 2 * ATTEMPTS + 2, "said once per server"


@in_loop
async def test_it_waits_for_memory_and_says_so(beside: Beside) -> None:
    beside.free = 99 * MIB
    compiler = beside.compiler()
    compiler.choose({})
    async with running(compiler):
        await until(compiler, "takes 100 MiB of memory, 99 MiB are free")
        assert beside.started == 0
        beside.free = 100 * MIB
        await until(compiler, "faster code is ready")
    assert sum("99 MiB are free" in line for line in beside.lines) == 1


@in_loop
async def test_one_compiles_in_a_cache_and_the_others_take_it(beside: Beside) -> None:
    first, second = beside.compiler(), beside.compiler()
    first.choose({})
    second.choose({})
    lock = code_of(first).path.parent / "lock"
    lock.parent.mkdir()
    with lock.open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        async with running(first):
            await until(first, "another server of this root compiles")
            assert beside.started == 0
    await asyncio.gather(first.run(), second.run())
    assert beside.started == 1
    assert "ready" in first.note
    assert "ready" in second.note


@in_loop
async def test_nothing_is_compiled_that_would_be_lost(beside: Beside, tmp_path: Path) -> None:
    compiler = beside.compiler()
    compiler.choose({"VLLM_CACHE_ROOT": str(tmp_path / "temporary")})
    await compiler.run()
    assert "cache cannot be written, so it would be lost" in compiler.note
    assert beside.started == 0


@in_loop
async def test_a_configuration_that_cannot_be_compiled_is_left_alone(beside: Beside) -> None:
    compiler = beside.compiler()
    compiler.choose({})
    code_of(compiler).note_unsuited("its options forbid it")
    await compiler.run()
    assert beside.started == 0
    assert compiler.note == ""


@in_loop
async def test_a_disk_that_takes_no_lock_is_told_and_tried_again(beside: Beside) -> None:
    (beside.cache / "wardrobe-compiled").write_text("not a folder")
    compiler = beside.compiler()
    compiler.choose({})
    async with running(compiler):
        await until(compiler, "is not compiled yet")
        (beside.cache / "wardrobe-compiled").unlink()
        await until(compiler, "faster code is ready")


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_compilation_ends_with_its_server_and_leaves_no_process(
    tmp_path: Path, end: signal.Signals
) -> None:
    with launched(tmp_path / "logs", COMPILING=str(tmp_path / "cache")) as launcher:
        wait(lambda: list(tmp_path.glob("cache/wardrobe-compiled/*.began")) != [], "a compilation")
        group = next(
            int(entry.parent.name)
            for entry in Path("/proc").glob("[0-9]*/cmdline")
            if str(tmp_path / "cache").encode() in (_read(entry)) and b"fakes.making" in _read(entry)
        )
        assert len(group_members(group)) == 2
        launcher.process.send_signal(end)
        launcher.process.wait(20)
        wait(lambda: not group_members(group), "its end")
    assert not list(tmp_path.glob("cache/wardrobe-compiled/*.json")), "a half-done one was noted"


def _read(entry: Path) -> bytes:
    try:
        return entry.read_bytes()
    except OSError:
        return b""
