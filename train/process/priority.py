"""Less than everybody else: a process that takes only what of the processors nobody else wants.

Linux gives a process of `SCHED_IDLE` next to nothing while another one of its group can run. Sessions are
groups of their own where `autogroup` is on, which makes that meaningless between them, so the session's
group is put last, too. Elsewhere the process is made nicer.
"""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

IDLE = "WARDROBE_TRAIN_IDLE"
"""The variable that asks a training process for it."""
_NICEST = 19
_AUTOGROUP = Path("/proc/self/autogroup")


def step_back_if_asked() -> None:
    """Step back where the environment asks for it."""
    if os.environ.get(IDLE) == "1":
        step_back()


def step_back() -> None:
    """Take only what nobody else wants from now on; what the system refuses is left out."""
    with contextlib.suppress(OSError):
        os.nice(_NICEST - os.nice(0))
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
        if os.getsid(0) == os.getpid():
            # Its own session: its group may be put last without putting others there.
            with contextlib.suppress(OSError), _AUTOGROUP.open("w", encoding="ascii") as group:
                group.write(str(_NICEST))
