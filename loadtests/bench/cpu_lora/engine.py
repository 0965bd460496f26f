"""A vLLM of the CPU LoRA benchmark in a process of its own: started, asked for batches, and ended.

It knows nothing of what is measured; `cpu_lora_arm` is what runs in the process.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from loadtests.bench.cpu_lora.arm import MARK
from registry.foreign import python

TOKENS = 64
"""Of each stream, unless told otherwise."""


@dataclass
class MeasuredEngine:
    """A running engine and what was measured on it, by the name of the row."""

    process: subprocess.Popen[str]
    log: Path
    start_seconds: float = 0.0
    measured: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def answer(self) -> float:
        """Wait for the engine's next figure; raise RuntimeError when it has ended."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith(MARK):
                return float(line.removeprefix(MARK))
        raise RuntimeError(f"an engine ended:\n{self.log.read_text()[-4000:]}")

    def seconds(self, adapters: Sequence[Path | None], tokens: int, **more: int) -> float:
        """Run one batch and return its seconds."""
        assert self.process.stdin is not None
        asked = {"adapters": [path and str(path) for path in adapters], "tokens": tokens, **more}
        self.process.stdin.write(json.dumps(asked) + "\n")
        self.process.stdin.flush()
        return self.answer()

    def decode(self, row: str, adapters: Sequence[Path | None], tokens: int = TOKENS) -> None:
        """Measure tokens per second."""
        self.measured[row].append(len(adapters) * tokens / self.seconds(adapters, tokens))


@contextlib.contextmanager
def running(
    log: Path, environment: Mapping[str, str], options: Mapping[str, Any]
) -> Iterator[MeasuredEngine]:
    """Start an engine with its log in `log`, yield it once it takes batches, and end it."""
    command = python("-m", "loadtests.bench.cpu_lora.arm", json.dumps(options))
    began = time.monotonic()
    with log.open("w") as file:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=file,
            env={**environment, "VLLM_LOGGING_STREAM": "ext://sys.stderr"},
            text=True,
        )
    arm = MeasuredEngine(process, log)
    try:
        arm.answer()
        arm.start_seconds = time.monotonic() - began
        print(f"  {log.stem}: {arm.start_seconds:.0f} s to start", flush=True)
        yield arm
    finally:
        assert process.stdin is not None
        process.stdin.close()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
