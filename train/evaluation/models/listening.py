"""Answers without a server, read as a server reads them: a child process with vLLM's own parser.

Owns the child and its protocol (`serve/engine/parsers/answers.py`): no code is shared with the server, and
vLLM is in no process that trains. It is started when the first answer is read and ends with this process.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from registry.errors import UsageError
from registry.foreign import python
from train.dataset.records import ToolCall

_PROGRAM = "serve.engine.parsers.answers"


@dataclass(frozen=True, slots=True)
class Heard:
    """An answer as its reader told it."""

    text: str
    reasoning: str
    calls: tuple[ToolCall, ...]


@dataclass(slots=True)
class Listener:
    """Reads answers of the base in `base`, in the format that a server would choose for it.

    `options` are vLLM's options that decide it where somebody set them; before them count those of the server
    settings of `root`, where there is one. Safe to use from several threads.
    """

    base: Path
    options: Mapping[str, Any] = field(default_factory=dict)
    root: Path | None = None
    _child: subprocess.Popen[str] | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def hear(self, ids: Sequence[int], tools: Sequence[Mapping[str, Any]]) -> Heard:
        """Return what the token ids of an answer say and which of `tools` they call.

        Raises: UsageError: there is no vLLM here, or it knows no tool format of the base.
        """
        with self._lock:
            child = self._child or self._start()
            found = _ask(child, {"ids": list(ids), "tools": list(tools)})
        calls = tuple(ToolCall(call["name"], call["arguments"]) for call in found["calls"])
        return Heard(found["text"], found["reasoning"], calls)

    def close(self) -> None:
        """End the child; the next answer starts another."""
        with self._lock:
            self._end()

    def _end(self) -> None:
        if self._child is not None:
            self._child.communicate()
            self._child = None

    def _start(self) -> subprocess.Popen[str]:
        command = python(
            "-m", _PROGRAM, "--base", str(self.base), "--options", json.dumps(dict(self.options))
        )
        if self.root is not None:
            command += ["--root", str(self.root)]
        with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as said:
            pipe = subprocess.PIPE
            self._child = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=said, text=True)
            line = _line(self._child)
            if not line:
                self._end()
                said.seek(0)
                last = next(iter(said.read().strip().splitlines()[-1:]), "it said nothing")
                fact = f"are read by vLLM's own parser, which does not start: {last[:200]}"
                raise UsageError("tool calls", fact, "install vLLM here, or evaluate through a server")
        if not (told := json.loads(line))["tools"]:
            self._end()
            remedy = "give the base a chat template of a known format, or set tool_call_parser under [vllm]"
            raise UsageError("tool calls", f"cannot be read: {told['why_no_tools']}", remedy)
        return self._child


def _ask(child: subprocess.Popen[str], question: object) -> Any:
    assert child.stdin is not None
    child.stdin.write(f"{json.dumps(question)}\n")
    child.stdin.flush()
    if not (line := _line(child)):
        fact = f"ended with {child.wait()} while it read an answer"
        raise UsageError("vLLM's parser of tool calls", fact, "evaluate through a server")
    return json.loads(line)


def _line(child: subprocess.Popen[str]) -> str:
    assert child.stdout is not None
    return child.stdout.readline()
