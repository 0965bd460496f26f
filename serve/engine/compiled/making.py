"""`python -m serve.engine.compiled.making`: compile the model for the next start, out of everybody's way.

It is vLLM's own start of an engine, with the same options and variables, up to where the model has run
once, which compiles it, and there is no KV cache yet. The kernel gives it what nobody else wants, and kills
it first when memory is short. It ends with the launcher, whose line it holds.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from registry.priority import put_last
from serve.engine.compiled.code import CompiledCode
from serve.engine.cpu_lora.compilation import RECORD_VARIABLE
from serve.engine.handover import open_line
from serve.engine.lifetime import go_on_without_parent

_NEARLY_NOTHING = "1"
"""Bytes of a KV cache that is never made: the executor looks whether there is room for it."""


def main(argv: Sequence[str] | None = None) -> int:
    """Compile, leave a note, and return the exit code."""
    own = _own_arguments(argv)
    open_line(own.line)
    go_on_without_parent()  # which has it stand still for requests
    stand_back()
    code = CompiledCode.noted_at(own.note)
    code.path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=code.path.parent, prefix="making-") as folder:
        record = Path(folder) / "models"
        os.environ[RECORD_VARIABLE] = str(record)
        why = _compile(own.options, own.owned)
        models = [Path(line) for line in record.read_text().splitlines()] if record.exists() else []
    if models:
        code.note_made(models)
    else:
        code.note_unsuited(why or "vLLM compiles nothing with these options")
    return 0


def _own_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m serve.engine.compiled.making", allow_abbrev=False)
    parser.add_argument("--line", type=int, required=True, help="the socket pair to the supervisor")
    parser.add_argument("--note", type=Path, required=True, help="where to note what was made")
    parser.add_argument("--owned", default="{}", help="JSON of options that must come out unchanged")
    parser.add_argument("options", nargs="*", help="vLLM's options, after `--`")
    return parser.parse_args(argv)


def stand_back() -> None:
    """Compute and read only when nobody else wants to, and be killed first (Linux)."""
    put_last()  # of the disk's time, too
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


def _compile(options: Sequence[str], owned: str) -> str:
    """Have the model run once; return why it is not compiled, as far as that is known."""
    from serve.engine.child import vllm_arguments

    args = vllm_arguments([*options, "--kv-cache-memory-bytes", _NEARLY_NOTHING], json.loads(owned))

    from vllm.config import CompilationMode
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.usage.usage_lib import UsageContext
    from vllm.v1.engine.core import EngineCore
    from vllm.v1.executor import Executor

    # The context decides defaults that the compiled code's key holds.
    config = AsyncEngineArgs.from_cli_args(args).create_engine_config(UsageContext.OPENAI_API_SERVER)
    if config.compilation_config.mode == CompilationMode.NONE:
        return "vLLM's options forbid it"
    with contextlib.suppress(_Warm):
        EngineCore(config, _until_warm(Executor.get_class(config)), log_stats=False).shutdown()
    return ""


class _Warm(Exception):
    """The model has run."""


def _until_warm(executor: type[Any]) -> type[Any]:
    """Return vLLM's executor as one that ends the start once the model has run.

    What comes before decides on the compiled code's key, too: the layout of a KV cache, for one.
    """

    class UntilWarm(executor):
        def determine_available_memory(self) -> Any:
            try:
                super().determine_available_memory()
            finally:
                self.shutdown()
            raise _Warm

    return UntilWarm


if __name__ == "__main__":
    sys.exit(main())
