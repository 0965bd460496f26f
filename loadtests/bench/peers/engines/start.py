"""How the two servers are started and ended: the same interpreter, base folder and engine options.

What differs is what differs for their users. vLLM is started as its documentation says, once as it is and
once tuned by hand; `wardrobe serve` brings an allocator, OpenMP, thread placement, its LoRA kernels and
compiled code with it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from loadtests.live import Live, becomes_ready, free_port
from registry import Registry
from registry.foreign import python
from serve.engine.machine import this_machine

ALLOWED_PLUGINS = "lora_filesystem_resolver,lora_hf_hub_resolver"
"""vLLM's own: naming them keeps out ours, which are installed beside it in the same environment."""


@dataclass(frozen=True, slots=True)
class BenchServer:
    """A running server: its address, the process that leads it, and how long it took to be ready."""

    url: str
    pid: int
    start_seconds: float


@dataclass(frozen=True, slots=True)
class Sizes:
    """What both engines are started with: slots of a batch, adapters in memory, largest rank."""

    slots: int
    resident: int
    rank: int
    streams: int = 32

    def options(self) -> tuple[str, ...]:
        """Return vLLM's options, the same for both.

        NOTE: without a size, vLLM's KV cache takes nine tenths of a CPU machine's memory.
        """
        return (
            *("--max-model-len", "1024", "--max-num-seqs", str(self.streams)),
            *("--max-loras", str(self.slots), "--max-cpu-loras", str(self.resident)),
            *("--kv-cache-memory-bytes", str(2**31), "--disable-uvicorn-access-log"),
        )


def bare_environment(inherited: Mapping[str, str]) -> dict[str, str]:
    """Return what a user of vLLM sets to load adapters while it runs, and nothing of ours."""
    kept = {name: value for name, value in inherited.items() if not name.startswith("WARDROBE_")}
    wanted = {"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True", "VLLM_PLUGINS": ALLOWED_PLUGINS}
    return {**kept, **wanted, "VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1"}


def tuned_environment(inherited: Mapping[str, str]) -> dict[str, str]:
    """Return what a user can set besides, to have the allocator, OpenMP and thread placement of ours.

    NOTE: compilation is not among it: with LoRA on the CPU vLLM 0.32 switches its own off
    (`CpuPlatform.check_and_update_config`), and its LoRA kernels are what they are.
    """
    machine = this_machine()
    threads = {
        "VLLM_CPU_OMP_THREADS_BIND": ",".join(str(core) for core in machine.cores),
        "KMP_BLOCKTIME": "0",
        "OMP_WAIT_POLICY": "passive",
        "TOKENIZERS_PARALLELISM": "false",
    }
    found = [str(path) for library in machine.libraries if (path := library.find())]
    preload = {"LD_PRELOAD": ":".join(found)} if found else {}
    return bare_environment(inherited) | ({} if machine.accelerator else threads) | preload


def bare_command(base: Path, name: str, port: int, sizes: Sizes) -> list[str]:
    """Return the command line of vLLM's API server; the `vllm` command is missing in the CPU wheel."""
    return [
        *python("-m", "vllm.entrypoints.openai.api_server", "--model", str(base)),
        *("--served-model-name", name, "--host", "127.0.0.1", "--port", str(port)),
        *("--enable-lora", "--max-lora-rank", str(sizes.rank), *sizes.options()),
    ]


@contextlib.contextmanager
def running_bare(
    base: Path, name: str, log: Path, sizes: Sizes, *, tuned: bool = False
) -> Iterator[BenchServer]:
    """Start vLLM, give it once it is healthy, and end it.

    Raises: RuntimeError: it ended, or was not healthy in time.
    """
    port, began = free_port(), time.monotonic()
    with log.open("wb") as file:
        process = subprocess.Popen(
            bare_command(base, name, port, sizes),
            stdout=file,
            stderr=subprocess.STDOUT,
            env=(tuned_environment if tuned else bare_environment)(os.environ),
            start_new_session=True,
        )
    try:
        url = f"http://127.0.0.1:{port}"
        if not becomes_ready(process, f"{url}/health"):
            raise RuntimeError(f"vLLM did not start:\n{log.read_text()[-4000:]}")
        yield BenchServer(url, process.pid, time.monotonic() - began)
    finally:
        end_group(process)


@contextlib.contextmanager
def running_ours(registry: Registry, log: Path, sizes: Sizes, cache: Path | None) -> Iterator[BenchServer]:
    """Start `wardrobe serve` on the registry's root, give it once it is ready, and end it.

    It compiles before it serves, into `cache`: only the first start on a machine pays for it. Without a
    cache it does what it does by itself (`engine.compile = auto`, the root's own cache).
    """
    environment = {"WARDROBE_ENGINE__COMPILE": "auto"}
    if cache is not None:
        environment = {
            "WARDROBE_ENGINE__COMPILE": "on",
            "VLLM_CACHE_ROOT": str((cache / "peers-vllm").absolute()),
            "NUMBA_CACHE_DIR": str((cache / "peers-numba").absolute()),
        }
    began = time.monotonic()
    with Live.running(registry.root, log, *sizes.options(), environment=environment) as live:
        yield BenchServer(live.url, live.process.pid, time.monotonic() - began)


def end_group(process: subprocess.Popen[bytes], seconds: float = 20) -> None:
    """End a process that leads a group, and whatever is left of the group."""
    process.send_signal(signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(seconds)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(seconds)
