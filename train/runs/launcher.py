"""What stands behind `--`, read by accelerate's own parser, and what of it a run can take.

Owns the refusals of a launcher's settings: they come before any process is started, once. As a program
(`python -m train.runs.launcher OPTIONS -m train.process.launching …`) it is `accelerate launch`
without the traceback about a process that has said itself why it ended. Imports accelerate, and with it
torch, only when asked.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, NoReturn

from registry.errors import UsageError
from train.config import TrainConfig
from train.process.interruption import forwarded
from train.settings.starting import NEAREST

SUBJECT = "the launcher's options"


@dataclass(frozen=True, slots=True)
class Launch:
    """What `accelerate launch` would start: `processes` of this command, and how they share weights.

    `fsdp` is its version, 0 without it; `lone` says that one process is started, whatever `processes` says.
    """

    processes: int
    fsdp: int = 0
    deepspeed: bool = False
    lone: bool = False


def read_launch(options: Sequence[str]) -> Launch:
    """Read `options` as `accelerate launch` does, its configuration file included.

    Raises: UsageError: with accelerate's own words.
    """
    from accelerate.commands import launch

    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), _quiet():
            parsed = launch.launch_command_parser().parse_args([*options, "-m", "train.process.launching"])
            # NOTE: accelerate has no public call that reads options and configuration file into one.
            found, *_ = launch._validate_launch_command(parsed)  # noqa: SLF001
    except SystemExit as error:
        if not error.code:  # --help
            raise
        raise _refused(said.getvalue().strip().rpartition("error: ")[2]) from error
    except (ValueError, OSError, TypeError) as error:
        raise _refused(str(error)) from error
    return _launch_of(found)


def check_machine(config: TrainConfig, launch: Launch, *, gpu: bool) -> None:
    """Refuse what this machine would not do, though another may; `gpu`: it has one.

    Raises: UsageError.
    """
    name = config.name
    if launch.lone and launch.processes > 1:
        fact = f"is to run in {launch.processes} processes, of which accelerate would start one here"
        raise UsageError(name, fact, "use --multi_gpu, on CPUs too: the processes then talk by gloo")
    if launch.fsdp and not gpu:
        fact = (
            "is to run with FSDP on CPUs, where accelerate leaves it out: each process would hold the whole"
        )
        raise UsageError(name, fact, "use --multi_gpu without FSDP, or a machine with GPUs")


def check_launch(config: TrainConfig, launch: Launch) -> None:
    """Refuse what a run of `config` cannot do with several processes, on whatever machine.

    Raises: UsageError.
    """
    name = config.name
    if config.start == NEAREST:
        fact = "from: nearest is chosen by one process, and this run has several"
        remedy = "ask `wardrobe train check` without launcher which it is, and name it (from: NAME@N)"
        raise UsageError(name, fact, remedy, param="from")
    if launch.deepspeed and find_spec("deepspeed") is None:
        raise UsageError(
            name, "is to run with DeepSpeed, which is not installed", "use FSDP 2, or --multi_gpu"
        )
    if launch.deepspeed:
        fact = "is to run with DeepSpeed, whose checkpoints are pickles that a run would have to trust"
        raise UsageError(name, fact, "use FSDP 2 (fsdp_version: 2), which shares out weights too")
    if launch.fsdp:
        _check_fsdp(config, launch)


def _check_fsdp(config: TrainConfig, launch: Launch) -> None:
    name = config.name
    if launch.fsdp == 1:
        fact = "is to run with FSDP 1, which transformers is about to drop"
        raise UsageError(name, fact, "set fsdp_version: 2")
    if not config.method.shardable:
        fact = f"is to run with FSDP, which method {config.method.type} cannot"
        raise UsageError(name, fact, "use --multi_gpu without FSDP", param="method")
    if config.lora.kind != "lora" or config.quantization is not None:
        fact = "is to run with FSDP, which a conversion at the end or a quantised base cannot"
        raise UsageError(name, fact, "use lora.kind: lora without quantization, or --multi_gpu", param="lora")


def _launch_of(found: Any) -> Launch:
    sharing = bool(found.use_fsdp or found.use_deepspeed)
    several = bool(sharing or found.multi_gpu or found.tpu or found.use_megatron_lm) and not found.cpu
    by_mpi = getattr(found, "mpirun_hostfile", None) is not None
    return Launch(
        processes=max(1, int(found.num_processes or 1)),
        fsdp=int(found.fsdp_version or 1) if found.use_fsdp else 0,
        deepspeed=bool(found.use_deepspeed),
        lone=not several and not by_mpi,
    )


def _refused(words: str) -> UsageError:
    fact = f"accelerate refuses them ({' '.join(words.split())[:300]})"
    return UsageError(
        SUBJECT, fact, "see `accelerate launch --help`, or make a file with `accelerate config`"
    )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    from train.process.silence import quiet

    with quiet():
        yield


def main() -> NoReturn:
    """Start the processes as `sys.argv` says; exit with the code of the one that failed first."""
    # It would kill the processes 30 s after a signal; they stop behind a step, which may take longer.
    os.environ["PET_SIGNALS_TO_HANDLE"] = "SIGHUP,SIGQUIT"
    from accelerate.commands.launch import launch_command, launch_command_parser
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import run as _run  # noqa: F401  its loggers are made now

    # torch's agent tells at length that a process failed, which the process has said itself.
    for name in list(logging.root.manager.loggerDict):
        if name.startswith("torch.distributed"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        with forwarded(_signal_children):
            launch_command(launch_command_parser().parse_args())
    except ChildFailedError as error:
        _, first = error.get_first_failure()
        sys.exit(first.exitcode if first.exitcode > 0 else 128 - first.exitcode)
    except subprocess.CalledProcessError as error:
        sys.exit(error.returncode)
    sys.exit(0)


def _signal_children(number: int) -> None:
    import psutil

    for child in psutil.Process().children():
        with contextlib.suppress(psutil.NoSuchProcess):
            child.send_signal(number)


if __name__ == "__main__":
    main()
