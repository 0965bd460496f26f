"""Compiled code without a start that waits for it: an engine takes what is there, else it is made beside it.

Owns whether an engine starts compiled (`engine.compile = auto`, on a CPU) and the one process that compiles.
Invariants: one compilation at a time in a cache, by a lock that dies with who holds it; none outlives the
launcher; one that failed `ATTEMPTS` times is left alone, and each failure is told once.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from serve.engine.compiled.code import CodeNote, CompiledCode, code_key
from serve.engine.environment import COMPILE_VARIABLE, NOTE_VARIABLE
from serve.engine.memory import available_bytes
from serve.launcher.child.processes import EngineProcess, spawn
from serve.launcher.output.aside import aside
from serve.launcher.output.engine_log import EngineLog
from serve.launcher.output.log_file import Folder, LogFile
from serve.launcher.output.logs import reason
from serve.launcher.yielding import Yielding, to_group

ATTEMPTS = 3
"""Failures of one configuration after which nobody tries again."""

RESTART = "`systemctl restart wardrobe`, `kubectl rollout restart`, or end it and run `wardrobe serve` again"
"""How a server is restarted; requests in flight finish, the port stays open for those that come meanwhile."""

_DISK_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class CompilingOptions:
    """What is compiled, and with what.

    `making` builds the process's command line from the line's descriptor and the note's path; `argv` is
    vLLM's; `fingerprint` the base's. `lasting` is VLLM_CACHE_ROOT while the root takes writes: what is
    compiled elsewhere is lost with this server. `memory_bytes` is what a compilation takes.
    """

    making: Callable[[int, Path], Sequence[str]]
    argv: Sequence[str]
    fingerprint: str
    environment: Mapping[str, str]
    lasting: Path
    log_folders: Sequence[Folder]
    memory_bytes: int
    available: Callable[[], int | None] = available_bytes
    retry_seconds: float = 60.0


@dataclass(slots=True, eq=False)
class BackgroundCompiler:
    """Decides how each engine starts, and compiles while one serves; `say` tells the operator.

    `note` is one sentence for `wardrobe status`, '' where there is nothing to tell; `changed` is called when
    it is another.
    """

    options: CompilingOptions
    say: Callable[[str], None]
    changed: Callable[[], None] = lambda: None
    note: str = ""
    yielding: Yielding | None = None
    _code: CompiledCode | None = None
    _taken: bool = False
    _variables: Mapping[str, str] = field(default_factory=dict)
    _told: set[str] = field(default_factory=set)

    def choose(self, overlay: Mapping[str, str]) -> dict[str, str]:
        """Return the variables that an engine starts with beside `overlay`; it may wait for a disk."""
        self._variables = {**self.options.environment, **overlay}
        key = code_key(self.options.argv, self._variables, self.options.fingerprint)
        self._code = CompiledCode(Path(self._variables["VLLM_CACHE_ROOT"]), key)
        self._taken = self._code.read().state == "made"
        if not self._taken:
            return {COMPILE_VARIABLE: "later"}
        return {COMPILE_VARIABLE: "made", NOTE_VARIABLE: str(self._code.path)}

    async def run(self) -> None:
        """Compile beside an engine that is ready and is not; wait for memory, and for other servers."""
        code = self._code
        self._tell("")
        if code is None or (self._taken and (await self._read(code)).state == "made"):
            return
        while not await self._settled(code):  # noqa: ASYNC110 - memory and other servers' locks tell nobody
            await asyncio.sleep(self.options.retry_seconds)

    async def _settled(self, code: CompiledCode) -> bool:
        """Try once; return whether nothing is left to try while this engine lives."""
        if code.cache != self.options.lasting:
            self._tell("faster code is not compiled: the root's cache cannot be written, so it would be lost")
            return True
        if self._known(code, await self._read(code)):
            return True
        free = self.options.available()
        if free is not None and free < self.options.memory_bytes:
            need, has = self.options.memory_bytes // 2**20, free // 2**20
            self._tell(
                f"faster code is not compiled yet: that takes {need} MiB of memory, {has} MiB are free"
            )
            return False
        try:
            with _lock(code) as descriptor:
                if descriptor is None:
                    self._tell("another server of this root compiles; this one looks again once a minute")
                    return False
                return await self._compile(code, descriptor)
        except (
            OSError,
            RuntimeError,
        ) as error:  # no memory, no descriptors, no disk: as it may be for a while
            self._tell(f"faster code is not compiled yet: {error}; trying again")
            return False

    @staticmethod
    async def _read(code: CompiledCode) -> CodeNote:
        return await aside(code.read, _DISK_SECONDS, CodeNote())

    def _known(self, code: CompiledCode, note: CodeNote) -> bool:
        """Tell what is known already; return whether that is all there is to do."""
        if note.state == "made":
            self._tell(f"faster code is ready; a restart takes it: {RESTART}")
        elif note.state == "failed" and note.failures >= ATTEMPTS:
            tried = f"faster code could not be compiled, {note.failures} times: {note.why}"
            self._tell(f"{tried}; set engine.compile = off, or remove {code.path} to have it tried again")
        else:
            return note.state == "unsuited"
        return True

    async def _compile(self, code: CompiledCode, lock: int) -> bool:
        if self._known(code, await self._read(code)):  # by who held the lock before
            return True
        began = time.monotonic()
        self._tell("faster code is being compiled at the lowest priority, for the next start")
        log = EngineLog(LogFile(self.options.log_folders, self._said_once))
        child = await self._spawn(code, log, lock)
        standing = self.yielding.holding(to_group(child.process.pid)) if self.yielding else nullcontext()
        with standing:
            try:
                ended = await child.process.wait()
            finally:
                ended_with = await child.end()
        if ended == 0:
            self._said_once(f"compiled in {time.monotonic() - began:.0f} s")
            self._known(code, await self._read(code))
            return True
        why = reason(log.words()) if ended_with >= 0 else "killed from outside; was memory short?"
        await aside(lambda: code.note_failed(why), _DISK_SECONDS, None)
        where = f"see {log.path}" if log.path else "its log is lost"
        self._tell(f"compiling faster code failed: {why}; {where}; the server goes on without")
        return True

    async def _spawn(self, code: CompiledCode, log: EngineLog, lock: int) -> EngineProcess:
        variables = {**self._variables, COMPILE_VARIABLE: "on"}
        try:
            return await spawn(
                lambda _, line: self.options.making(line, code.path), None, variables, log, also=(lock,)
            )
        except BaseException:
            await log.close()
            raise

    def _tell(self, text: str) -> None:
        if text != self.note:
            self.note = text
            self.changed()
            self._said_once(text)

    def _said_once(self, text: str) -> None:
        if text and text not in self._told:
            self._told.add(text)
            self.say(text)


@contextlib.contextmanager
def _lock(code: CompiledCode) -> Iterator[int | None]:
    """Hold the cache's lock: give its descriptor, or None while somebody else compiles there.

    Raises: OSError.
    """
    code.path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(code.path.parent / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
        else:
            yield descriptor
    finally:
        os.close(descriptor)
