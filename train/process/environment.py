"""The environment of a training process: fast allocator, fast threads, no hub.

Owns the variables that must be set before Python starts (`LD_PRELOAD`) or before torch is imported. With
tcmalloc and libiomp5 preloaded a step on the CPU takes about half the time (README: speed). Invariant: a
process is replaced at most once, and only by the very same command.
"""

from __future__ import annotations

import os
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path

from registry.foreign import SAFE_PATH

DONE = "WARDROBE_TRAIN_PRELOADED"
_TCMALLOC = ("libtcmalloc_minimal.so.4", "libtcmalloc.so.4")
_LIBRARY_FOLDERS = ("/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/lib")

OFFLINE = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}


def preloads() -> tuple[Path, ...]:
    """Return the libraries worth preloading that exist here: an allocator and an OpenMP runtime."""
    if sys.platform != "linux":
        return ()
    found = (_find(_TCMALLOC, _LIBRARY_FOLDERS), _find(("libiomp5.so",), (f"{sys.prefix}/lib",)))
    return tuple(path for path in found if path is not None)


def environment(current: Mapping[str, str]) -> dict[str, str]:
    """Return `current` with the libraries preloaded and the hub switched off; set values stay.

    No Python below imports from its working directory: a user's own `train.py` may lie there.
    """
    old = [name for name in current.get("LD_PRELOAD", "").split(":") if name]
    names = {Path(name).name for name in old}
    new = [str(path) for path in preloads() if path.name not in names]
    merged = {**OFFLINE, **current, **SAFE_PATH, DONE: "1"}
    if new or old:
        merged["LD_PRELOAD"] = ":".join(new + old)
    return merged


def replace_process() -> None:
    """Start this very command again with the libraries preloaded; return where that is done or useless.

    Never returns when it acts: the process id stays, so whoever waits for it or stops it notices nothing.
    """
    if os.environ.get(DONE) or not preloads():
        return
    command = [sys.executable, *sys.orig_argv[1:]]
    os.execve(sys.executable, command, environment(os.environ))  # noqa: S606  our own command line


def use_one_gpu() -> None:
    """Show this process one GPU alone, the first, unless it is one of several that share them out.

    transformers would otherwise give each visible GPU `batch_size` rows by DataParallel, unasked: a step
    would have more rows than was said. It must be called before torch looks for GPUs.
    """
    if "LOCAL_RANK" not in os.environ:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        os.environ["CUDA_VISIBLE_DEVICES"] = "0" if visible is None else visible.partition(",")[0]


def device_has_gpu() -> bool:
    """Tell whether torch sees a CUDA device; imports torch."""
    import torch

    return bool(torch.cuda.is_available())


def _find(names: tuple[str, ...], folders: tuple[str, ...]) -> Path | None:
    multiarch = sysconfig.get_config_var("MULTIARCH")
    places = (f"/usr/lib/{multiarch}", *folders) if multiarch else folders
    for folder in places:
        for name in names:
            if (path := Path(folder) / name).is_file():
                return path
    return None
