"""A scheduler of steps in a few lines: what `serve.engine.steps` relies on of vLLM's, and nothing else.

Requests that run come first in their order, then those that wait, by priority; each takes what is left of the
step's tokens. A request holds memory from its first token to its end, and one that finds none has to wait.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(eq=False)
class StepRequest:
    """One request: `prompt` tokens, then `answer` tokens, one per step."""

    request_id: str
    prompt: int
    answer: int = 1
    priority: int = 0
    arrival_time: float = 0.0
    num_computed_tokens: int = 0
    written: int = 0
    next_decode_eligible_step: int = 0
    first_token_step: int = 0

    @property
    def num_tokens(self) -> int:
        """Return the tokens that there are so far."""
        return self.prompt + self.written

    @property
    def is_prefill_chunk(self) -> bool:
        """Return whether its prompt has not been worked through."""
        return self.num_computed_tokens < self.prompt


@dataclass
class StepOutput:
    """What one step works on."""

    num_scheduled_tokens: dict[str, int]


class WaitingRequests(list[StepRequest]):
    """Those that wait, the lowest priority first."""

    def peek_request(self) -> StepRequest:
        """Return the next one."""
        return min(self, key=lambda one: (one.priority, one.arrival_time))


@dataclass
class StepScheduler:
    """Chooses what a step works on, and has it done at once; `memory` is in tokens."""

    max_num_scheduled_tokens: int = 2048
    max_num_active_reqs: int = 16
    memory: int = 10**9
    num_spec_tokens: int = 0
    current_step: int = 0
    running: list[StepRequest] = field(default_factory=list)
    waiting: WaitingRequests = field(default_factory=WaitingRequests)
    ended: list[StepRequest] = field(default_factory=list)

    def schedule(self) -> StepOutput:
        """Choose and work."""
        self.current_step += 1
        budget, given = self.max_num_scheduled_tokens, dict[str, int]()
        for one in self.running:
            if self.current_step >= one.next_decode_eligible_step and budget:
                given[one.request_id] = min(budget, one.num_tokens - one.num_computed_tokens)
                budget -= given[one.request_id]
        while self.waiting and budget and len(self.running) < self.max_num_active_reqs:
            one = self.waiting.peek_request()
            if one.prompt + one.answer > self.memory:
                break
            self.memory -= one.prompt + one.answer
            self.waiting.remove(one)
            self.running.append(one)
            given[one.request_id] = min(budget, one.num_tokens)
            budget -= given[one.request_id]
        for one in list(self.running):
            self._work(one, given.get(one.request_id, 0))
        return StepOutput(given)

    def _work(self, one: StepRequest, tokens: int) -> None:
        one.num_computed_tokens += tokens
        if tokens and not one.is_prefill_chunk:
            one.first_token_step = one.first_token_step or self.current_step
            one.written += 1
            if one.written >= one.answer:
                self.running.remove(one)
                self.memory += one.prompt + one.answer
                self.ended.append(one)
