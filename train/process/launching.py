"""One run over several processes: `accelerate launch` starts them, each of them is this same command.

Owns how the processes find one job and who speaks. Invariant: only the first process writes (record,
checkpoints, result) and publishes; the others read from a file which job it is and where it goes on.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from registry.errors import Missing, WardrobeError
from registry.foreign import python
from registry.storage import disk, files
from train.process.environment import environment
from train.process.interruption import forwarded

MEETING = "WARDROBE_TRAIN_MEETING"
"""The variable that names the file in which the first process says which job the run is."""
_PATIENCE_SECONDS = 600.0


def launch(options: Sequence[str], command: Sequence[str]) -> int:
    """Start `accelerate launch` with its own `options`; every process runs `wardrobe` with `command`.

    Returns the exit code. Each signal to this process reaches every other one once: they are in sessions of
    their own, and it is handed down.
    """
    with tempfile.TemporaryDirectory(prefix="wardrobe-launch-") as folder:
        line = python("-m", "train.runs.launcher", *options)
        line += ["-m", "train.process.launching", *command]
        variables = {**environment(os.environ), MEETING: str(Path(folder) / "job.json")}
        process = subprocess.Popen(line, env=variables, start_new_session=True)
        with forwarded(process.send_signal):
            return process.wait()


def is_launched() -> bool:
    """Tell whether this process is one of those that `launch` started."""
    return MEETING in os.environ


def follows() -> bool:
    """Tell whether this process is one of several and not the first."""
    return is_launched() and int(os.environ.get("RANK", "0")) > 0


def processes() -> int:
    """Return how many processes the run has."""
    return max(1, int(os.environ.get("WORLD_SIZE", "1"))) if MEETING in os.environ else 1


def any_process(flag: bool) -> bool:
    """Return whether any process of the run says so: a signal reaches them at different steps."""
    import torch.distributed as group

    if not (group.is_available() and group.is_initialized()):
        return flag
    found: list[bool | None] = [None] * group.get_world_size()
    group.all_gather_object(found, flag)
    return any(found)


def is_lost_process(error: BaseException) -> bool:
    """Tell whether an error of torch means that another process of the run is gone."""
    text = str(error).lower()
    return processes() > 1 and ("by peer" in text or "nccl" in text or "connection refused" in text)


def announce(job: str, resume_from: int | None) -> None:
    """Say which job the run is, if other processes wait for it."""
    if place := os.environ.get(MEETING):
        files.replace(Path(place), json.dumps({"job": job, "resume_from": resume_from}).encode())


def await_announcement() -> tuple[str, int | None]:
    """Return the job's id and the step that it goes on from.

    Raises: WardrobeError: the first process said nothing.
    """
    place = Path(os.environ[MEETING])
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while time.monotonic() < deadline:
        try:
            said = json.loads(disk.read(place))
        except Missing:
            time.sleep(0.2)
            continue
        return str(said["job"]), said["resume_from"]
    raise WardrobeError("training", "the first process began no job", "look at its error above")


if __name__ == "__main__":
    from registry.cli.main import main

    main()
