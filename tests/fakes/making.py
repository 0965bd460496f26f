"""A compilation without a compiler: `python -m tests.fakes.making --line M --note PATH MODE`.

MODE `make` notes one file of code, `fail` ends with an error, `hang` waits, with a helper in its group.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from serve.engine.compiled.code import CompiledCode
from serve.engine.handover import open_line
from tests.fakes.child import HELPER


def main() -> int:
    """Do as MODE says."""
    line, note, mode = int(sys.argv[2]), Path(sys.argv[4]), sys.argv[5]
    open_line(line)
    if mode == "hang":
        subprocess.Popen([sys.executable, "-c", HELPER])
        note.with_suffix(".began").write_text("")
        time.sleep(600)
    if mode == "fail":
        sys.stderr.write("RuntimeError: the compiler is broken\n")
        return 1
    code = CompiledCode.noted_at(note)
    code.note_made([make_code(code.cache)])
    return 0


def make_code(cache: Path) -> Path:
    """Put one model's code in `cache` and return its path."""
    model = cache / "torch_compile_cache" / "torch_aot_compile" / "abc" / "rank_0_0" / "model"
    model.parent.mkdir(parents=True, exist_ok=True)
    model.write_bytes(b"code")
    (model.parent.parent / "kernel.so").write_bytes(b"kernel")
    return model


if __name__ == "__main__":
    sys.exit(main())
