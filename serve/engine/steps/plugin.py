"""Has vLLM use steps that groups share; vLLM calls `install` in each of its processes.

It is a `vllm.general_plugins` entry point. It does something only under our launcher, which says the size
of a piece, with the vLLM release that it is tested with, and where vLLM's own scheduler heeds priorities.
"""

from __future__ import annotations

import logging
import os
from typing import Any

from serve.engine.environment import STEP_TOKENS_VARIABLE
from serve.engine.machine import TESTED_RELEASE, is_tested

_log = logging.getLogger("vllm.wardrobe.steps")


def install() -> None:
    """Put our steps before vLLM's scheduler; calling it again changes nothing.

    NOTE: `scheduler_cls` would do it, but it must be a subclass of another class with async scheduling, which
    vLLM decides later. Remove when vLLM takes prompts by priority within a step.
    """
    tokens = int(os.environ.get(STEP_TOKENS_VARIABLE) or 0)
    if not tokens:
        return
    import vllm
    from vllm.config.scheduler import SchedulerConfig

    if not is_tested(vllm.__version__):
        _log.warning("vLLM %s is not %s.*: its own steps stay", vllm.__version__, TESTED_RELEASE)
        return
    if not hasattr(SchedulerConfig, "wardrobe_step_tokens"):
        replace(SchedulerConfig, tokens)


def replace(config: Any, tokens: int) -> None:
    """Have `config` choose its scheduler as before, with our steps where it heeds priorities."""
    chosen = config.get_scheduler_cls

    def get_scheduler_cls(self: Any) -> Any:
        from serve.engine.steps.scheduler import fair

        found = chosen(self)
        return fair(found, tokens) if self.policy == "priority" and self.scheduler_cls is None else found

    config.get_scheduler_cls = get_scheduler_cls
    config.wardrobe_step_tokens = tokens
