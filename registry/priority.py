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

_NICEST = 19


def put_last(pid: int = 0) -> None:
    """Let a process (0: this one) and what it starts take only what nobody else wants from now on.

    Its session's group is put last where it leads it, so that nobody else is. What the system refuses, or a
    process that has ended, is left out.
    """
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, pid, _NICEST)
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            os.sched_setscheduler(pid, os.SCHED_IDLE, os.sched_param(0))
        with contextlib.suppress(OSError):
            if os.getsid(pid) == (pid or os.getpid()):
                Path(f"/proc/{pid or 'self'}/autogroup").write_text(str(_NICEST), encoding="ascii")
