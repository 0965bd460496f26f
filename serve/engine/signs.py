"""Signs of life of vLLM's engine that cost it nothing: what its steps made, what its processes do.

`TokenCounter` hears of every step in the front end, as vLLM's own loggers do; `ProcessFamily` reads /proc.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

from serve.engine.environment import SUPERVISED_VARIABLE
from serve.process_group import Activity, activity, group_members

FAMILY_SECONDS = 10.0
"""How often the group is looked through for new members: that reads all of /proc."""


class TokenCounter:
    """One of vLLM's stat loggers (`vllm.v1.metrics.loggers.StatLoggerBase`): `made` grows with each output.

    A step of a prompt alone has no output; it fills the KV cache instead.
    """

    __slots__ = ("_used", "made")

    def __init__(self) -> None:
        self.made = 0
        self._used = 0.0

    @classmethod
    def on(cls, client: Any) -> TokenCounter | None:
        """Return one that hears of the steps of vLLM's `client`, None where it keeps no statistics."""
        manager = getattr(client, "logger_manager", None)
        if manager is None:
            return None
        tally = cls()
        # NOTE: vLLM takes classes only, and by an entry point that every vLLM of this environment would load.
        manager.stat_loggers.append(tally)
        return tally

    def record(self, scheduler_stats: Any, iteration_stats: Any, **_: Any) -> None:
        """Take in one step's statistics."""
        if iteration_stats is not None:
            self.made += 1
        if scheduler_stats is not None and scheduler_stats.kv_cache_usage != self._used:
            self._used = scheduler_stats.kv_cache_usage
            self.made += 1

    def log(self) -> None:
        """Log nothing."""

    def log_engine_initialized(self) -> None:
        """Log nothing."""

    def record_sleep_state(self, *_: Any) -> None:
        """Take no note of it."""

    def record_admission_rejection(self, *_: Any) -> None:
        """Take no note of it."""


class ProcessFamily:
    """The processes of this one's group, itself left out, where the launcher made it a group of its own."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._known: list[int] = []
        self._looked_at = -FAMILY_SECONDS
        self._ours = os.environ.get(SUPERVISED_VARIABLE) == "1" and os.getpgrp() == os.getpid()

    def activity(self) -> Activity | None:
        """Return what they do now; None without the launcher, or where that cannot be read."""
        if not self._ours:
            return None
        now = self._clock()
        if now - self._looked_at >= FAMILY_SECONDS:
            try:
                members = group_members(os.getpgrp())
            except OSError:
                return None
            self._known = [process for process in members if process != os.getpid()]
            self._looked_at = now
        return activity(self._known) if self._known else None
