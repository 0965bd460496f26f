"""The real engine's process with `EngineDoor` in place of the router, and an `Engine` that speaks to it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from loadtests.live import START_SECONDS
from registry.errors import NotServable
from registry.foreign import python
from registry.records import BaseModelInfo, Limits
from serve.engine.args import engine_arguments
from serve.engine.environment import engine_environment
from serve.engine.interface import Abilities, EngineProgress
from serve.launcher.listener import listen
from serve.process_group import Activity
from serve.settings import EngineSettings, ServeSettings

DOOR = "tests.fakes.middleware.EngineDoor"
REPOSITORY = Path(__file__).resolve().parents[2]


class RemoteEngine:
    """`serve.engine.interface.Engine`, each call passed on to the `VllmEngine` in the other process."""

    def __init__(self, url: str) -> None:
        self.http = httpx.Client(base_url=url, timeout=120)

    def call(self, verb: str, **arguments: object) -> Any:
        """Call one verb of the door and return its answer."""
        answer = self.http.post(f"/engine/{verb}", json=arguments)
        body = answer.json()
        if answer.status_code != 200:
            raise NotServable(body["subject"], body["fact"])
        return body["answer"]

    @property
    def base_name(self) -> str:
        return str(self.call("info")["base_name"])

    @property
    def capacity(self) -> int:
        return int(self.call("info")["capacity"])

    @property
    def slots(self) -> int:
        return int(self.call("info")["slots"])

    @property
    def abilities(self) -> Abilities:
        found = self.call("info")["abilities"]
        return Abilities(**{**found, "paths": frozenset(found["paths"])})

    @property
    def context_tokens(self) -> int:
        return int(self.call("info")["context_tokens"])

    @property
    def prompt_characters(self) -> int | None:
        found: int | None = self.call("info")["prompt_characters"]
        return found

    async def vet_items(self, items: bytes) -> str:
        return str(self.call("vet_items", items=items.decode()))

    def alive(self) -> bool:
        return bool(self.call("info")["alive"])

    def resident(self) -> frozenset[str]:
        return frozenset(self.call("info")["resident"])

    def ids(self) -> list[int]:
        """Return the ids that the engine's process holds."""
        found: list[int] = self.call("ids")
        return found

    async def pulse(self, *, workers: bool) -> None:
        self.call("pulse", workers=workers)

    def progress(self) -> EngineProgress:
        return EngineProgress(**self.call("progress"))

    def activity(self) -> Activity | None:
        found = self.call("activity")
        return Activity({int(process): ticks for process, ticks in found["ticks"].items()}) if found else None

    def give_up(self, reason: str) -> None:
        raise NotImplementedError("it would end the engine of all tests")

    async def load(self, name: str, path: Path) -> None:
        self.call("load", name=name, path=str(path))

    async def unload(self, name: str) -> None:
        self.call("unload", name=name)

    def tokenize(self, text: str) -> list[int]:
        tokens: list[int] = self.call("tokenize", text=text)
        return tokens

    async def score(self, name: str | None, prompts: Sequence[Sequence[int]]) -> list[dict[int, float]]:
        scores = self.call("score", name=name, prompts=[list(one) for one in prompts])
        return [{int(token): value for token, value in one.items()} for one in scores]


def door_settings(
    port: int, root: Path, cpu_lora: str = "grouped", *, compiled: bool, **vllm: Any
) -> ServeSettings:
    """Return the settings that the door's engine is started with."""
    return ServeSettings(
        port=port,
        root=root,
        engine=EngineSettings.model_validate({"cpu_lora": cpu_lora, "compile": "on" if compiled else "off"}),
        vllm={"max_model_len": 1024, "max_num_seqs": 16, **vllm},
    )


@contextmanager
def opened(
    base: Path, log: Path, *, cpu_lora: str = "grouped", compiled: Path | None = None, **vllm: Any
) -> Iterator[RemoteEngine]:
    """Start the engine's process as the launcher does, and end it with everything it started.

    It is compiled when `compiled` is given: the root whose cache keeps the compiled code.
    """
    with listen("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        settings = door_settings(port, compiled or log.parent, cpu_lora, compiled=bool(compiled), **vllm)
        arguments = engine_arguments(settings, BaseModelInfo("base", base, "", None, {}), Limits())
        ours, theirs = socket.socketpair()
        command = python("-m", "serve.engine.child", "--fd", str(listener.fileno()))
        command += ["--line", str(theirs.fileno()), "--middleware", DOOR]
        command += ["--owned", json.dumps(dict(arguments.owned)), "--", *arguments.argv]
        with log.open("wb") as output, ours, theirs:
            process = subprocess.Popen(
                command,
                # The door is one of the tests' modules, which are in the checkout only.
                env={**engine_environment(settings, os.environ), "PYTHONPATH": _paths()},
                pass_fds=(listener.fileno(), theirs.fileno()),
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            theirs.close()
            try:
                ours.settimeout(START_SECONDS)
                assert ours.recv(64).startswith(b"started"), log.read_text()[-3000:]
                engine = RemoteEngine(f"http://127.0.0.1:{settings.port}")
                with engine.http:
                    yield engine
            finally:
                ours.sendall(b"drain 1\n")
                _end(process)


def _paths() -> str:
    before = [path for path in [os.environ.get("PYTHONPATH")] if path]
    return os.pathsep.join([str(REPOSITORY), *before])


def _end(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(20)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
