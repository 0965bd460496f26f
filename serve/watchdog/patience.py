"""When an engine counts as hung: a function of what each look at it showed, without a clock.

Signs of life are answers to pulses and things made of requests. Where both are missing, the processes tell
how long to wait: those that are stopped or do nothing get `hang_seconds`, those that compute ten times as
much, because a long prompt on a slow machine, or a kernel that is compiled, looks the same from outside.
"""

from __future__ import annotations

from dataclasses import dataclass

WORKING_FACTOR = 10
"""vLLM's own limit on one step is 300 s (VLLM_EXECUTE_MODEL_TIMEOUT_SECONDS): ten times our default."""


@dataclass(frozen=True, slots=True)
class HealthSample:
    """What one look showed, `seconds` after the last one.

    `late`: the pulse that was sent before is unanswered. `unfinished` requests are in the engine;
    `progressed`: something was made of any since the last look. `working`: the engine's processes compute
    or wait for a disk, None where that cannot be seen. `stopped` names processes that a signal stopped.
    `held`: a debugger holds one. `loading_seconds` is what a load that is going on may take, 0 without one.
    """

    seconds: float
    late: bool = False
    unfinished: int = 0
    progressed: bool = False
    working: bool | None = None
    stopped: tuple[str, ...] = ()
    held: bool = False
    loading_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class HangVerdict:
    """Why the engine counts as hung, in words for everybody, and the detail for the operator."""

    reason: str
    detail: str = ""


@dataclass(slots=True)
class HangDetector:
    """Adds up how long signs of life are missing; all ages are in seconds of looks."""

    hang_seconds: float
    silent: float = 0.0
    """How long the pulse has been unanswered."""
    stuck: float = 0.0
    """How long requests have waited while nothing was made of any."""
    still: float = 0.0
    """How long, of that, nothing has computed."""
    halted: float = 0.0
    """How long a process of the engine has been stopped."""

    @property
    def age(self) -> float:
        """Return how long any sign of life has been missing."""
        return max(self.silent, self.stuck, self.halted)

    def take(self, look: HealthSample) -> HangVerdict | None:
        """Take in one look; return why the engine counts as hung, None while it does not."""
        if look.held:
            return None
        seconds = look.seconds
        stuck = look.unfinished > 0 and not look.progressed
        missing = look.late or stuck
        working = look.working is not False and not look.stopped
        self.silent = self.silent + seconds if look.late and not look.progressed else 0.0
        self.stuck = self.stuck + seconds if stuck else 0.0
        self.still = self.still + seconds if missing and not working else 0.0
        self.halted = self.halted + seconds if look.stopped else 0.0
        return self._judge(look)

    def _judge(self, look: HealthSample) -> HangVerdict | None:
        short = max(self.hang_seconds, look.loading_seconds)
        long = max(self.hang_seconds * WORKING_FACTOR, look.loading_seconds)
        if self.halted >= self.hang_seconds:
            fact = f"a process of it has been stopped for {self.hang_seconds:g} s"
            return HangVerdict(fact, ", ".join(look.stopped))
        if self.silent >= short and self.still >= short:
            return HangVerdict(f"it has not answered for {short:g} s and computes nothing")
        if self.silent >= long:
            return HangVerdict(f"it has not answered for {long:g} s")
        waiting = f"{look.unfinished} requests wait"
        if self.stuck >= short and self.still >= short:
            return HangVerdict(
                f"it has made nothing of its requests for {short:g} s and computes nothing", waiting
            )
        if self.stuck >= long:
            return HangVerdict(f"it has made nothing of its requests for {long:g} s", waiting)
        return None
