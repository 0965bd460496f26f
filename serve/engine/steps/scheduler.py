"""Steps that groups share: prompts in the order of the router's tags, and those that yield in small pieces.

vLLM's own scheduler works on prompts in the order in which it began them, and fills a step with as much of
them as fits: who comes meanwhile waits for that step, and shares the next ones. Here the prompt with the
lowest tag is first, the others that were begun stand still, and one that yields takes `step_tokens` of a step
at most. Answers that are being written go on in every step. Requests without a tag are vLLM's business alone.

Imported by vLLM's engine process only, after vLLM. Invariant: a step that holds prompts back for one that
waits is followed by one that does not, when that one got nothing.
"""

from __future__ import annotations

from typing import Any, TypeVar

from serve.engine.steps.tags import TAGGED, YIELDS

S = TypeVar("S", bound=type)


def fair(scheduler: S, step_tokens: int) -> S:
    """Return a subclass of a scheduler of vLLM whose steps groups share."""
    return type("Fair" + scheduler.__name__, (FairSteps, scheduler), {"step_tokens": step_tokens})  # type: ignore[return-value]


class FairSteps:
    """What is put before vLLM's `Scheduler`; it uses its lists and never keeps a request of its own."""

    step_tokens: int
    current_step: int
    max_num_scheduled_tokens: int
    max_num_active_reqs: int
    num_spec_tokens: int
    running: list[Any]
    waiting: Any
    _in_vain: tuple[str, int] = ("", 0)

    def schedule(self, *arguments: Any, **named: Any) -> Any:
        """Choose what the next step works on."""
        begun = [one for one in self.running if one.is_prefill_chunk]
        head = self.waiting.peek_request() if self.waiting else None
        if not any(one.priority >= TAGGED for one in begun) and (head is None or head.priority < TAGGED):
            return super().schedule(*arguments, **named)  # type: ignore[misc]
        if head is not None and (
            self._in_vain == (head.request_id, len(self.running))
            or len(self.running) >= self.max_num_active_reqs
        ):
            head = None
        begun.sort(key=_order)
        comes_first = head is not None and (not begun or _order(head) < _order(begun[0]))
        whole = self.max_num_scheduled_tokens
        self.max_num_scheduled_tokens = min(whole, self._budget(begun))
        self._hold(begun, comes_first=comes_first)
        self.running.sort(key=_writing_first)
        try:
            output = super().schedule(*arguments, **named)  # type: ignore[misc]
        finally:
            self.max_num_scheduled_tokens = whole
        if comes_first and head is not None and head.request_id not in output.num_scheduled_tokens:
            self._in_vain = head.request_id, len(self.running)  # it is tried again when one has ended
        return output

    def _budget(self, begun: list[Any]) -> int:
        """Return the tokens of a step: answers, and of prompts all that does not yield, or else a piece."""
        prompts = [*begun, *self.waiting]
        yielding = [one.priority >= TAGGED and one.priority & YIELDS for one in prompts]
        if not any(yielding):
            return self.max_num_scheduled_tokens
        urgent: int = sum(
            one.num_tokens - one.num_computed_tokens
            for one, yields in zip(prompts, yielding, strict=True)
            if not yields
        )
        writing = (len(self.running) - len(begun)) * (1 + self.num_spec_tokens)
        return writing + max(urgent, self.step_tokens)

    def _hold(self, begun: list[Any], *, comes_first: bool) -> None:
        """Have those of `begun` stand still for whom the step has nothing left."""
        room = 0 if comes_first else self.max_num_scheduled_tokens
        for one in begun:
            if room <= 0:
                # What vLLM asks of every request that runs; it counts the step up before it looks.
                one.next_decode_eligible_step = self.current_step + 2
            room -= one.num_tokens - one.num_computed_tokens


def _order(request: Any) -> tuple[int, float]:
    return request.priority, request.arrival_time


def _writing_first(request: Any) -> tuple[bool, int]:
    return request.is_prefill_chunk, request.priority
