"""Steps that groups share: who is first, how small a flood's pieces are, and that nothing stands still."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from serve.engine.steps.plugin import replace
from serve.engine.steps.scheduler import FairSteps, fair
from serve.engine.steps.tags import LAST, TAGGED, YIELDS, tag
from tests.fakes.steps import StepRequest, StepScheduler

PIECE = 64
Fair = fair(StepScheduler, PIECE)


def flood(number: int, answer: int = 20) -> StepRequest:
    return StepRequest(f"flood {number}", 900, answer, tag(number * 900.0, yields=True), float(number))


def test_tags_are_ordered_by_what_was_given_and_a_batch_comes_after_everybody() -> None:
    tags = [tag(start, yields=yields) for start in (0.0, 1.0, 900.0, 1e15) for yields in (False, True)]
    assert tags == sorted(set(tags))
    assert all(TAGGED <= one < LAST for one in [*tags, tag(1e30, yields=True)])
    assert [bool(one & YIELDS) for one in tags[:2]] == [False, True]


def test_a_flood_goes_in_pieces_one_prompt_at_a_time_and_answers_go_on() -> None:
    engine = Fair()
    engine.waiting += [flood(number) for number in range(6)]
    sizes = []
    for _ in range(80):
        before = {one.request_id: one.is_prefill_chunk for one in engine.running}
        given_tokens = engine.schedule().num_scheduled_tokens
        prompts = [name for name, tokens in given_tokens.items() if before.get(name, True)]
        writing = [name for name, begun in before.items() if not begun]
        sizes.append(sum(given_tokens.values()) - len(writing))
        assert set(writing) <= set(given_tokens), "an answer stood still"
        assert len(prompts) <= 2, "the end of one, and the beginning of the next"
    assert max(sizes) <= PIECE
    assert [one.request_id for one in engine.ended] == [
        f"flood {number}" for number in range(len(engine.ended))
    ]


def test_who_comes_beside_a_flood_has_its_first_token_in_the_next_step() -> None:
    engine = Fair()
    engine.waiting += [flood(number) for number in range(6)]
    for _ in range(20):
        engine.schedule()
    light = StepRequest("light", 300, 5, tag(0.0, yields=False), 99.0)
    engine.waiting.append(light)
    given_tokens = engine.schedule().num_scheduled_tokens
    assert light.first_token_step == engine.current_step
    begun = [name for name, tokens in given_tokens.items() if tokens > 1]
    assert begun == ["light"], "a prompt of the flood shared its step"


def test_requests_without_a_tag_are_left_to_vllm() -> None:
    engine, plain = Fair(), StepScheduler()
    for one in (engine, plain):
        one.waiting += [StepRequest(str(number), 900, 3, 0, float(number)) for number in range(6)]
    for _ in range(12):
        assert engine.schedule() == plain.schedule()
    assert len(engine.ended) == 6


@given(
    asked=st.lists(
        st.tuples(
            st.integers(1, 1_500),
            st.integers(1, 30),
            st.integers(0, 3_000),
            st.booleans(),
            st.integers(0, 40),
        ),
        min_size=1,
        max_size=25,
    ),
    places=st.integers(1, 6),
    memory=st.integers(1_600, 6_000),
    tagged=st.integers(0, 25),
)
@settings(max_examples=300, deadline=None)
def test_every_request_comes_to_its_end_whatever_room_there_is(
    asked: list[tuple[int, int, int, bool, int]], places: int, memory: int, tagged: int
) -> None:
    engine = Fair(max_num_active_reqs=places, memory=memory)
    coming = []
    for number, (prompt, answer, start, yields, step) in enumerate(asked):
        priority = tag(start, yields=yields) if number < tagged else 0
        coming.append((step, StepRequest(str(number), prompt, answer, priority, float(number))))
    for step in range(3_000):
        engine.waiting += [one for due, one in coming if due == step]
        engine.schedule()
        if len(engine.ended) == len(coming):
            break
    assert len(engine.ended) == len(coming), "some stand still for ever"
    assert engine.memory == memory
    assert engine.max_num_scheduled_tokens == 2048


class Config:
    """As much of vLLM's scheduler config as the plugin touches."""

    def __init__(self, policy: str, scheduler_cls: str | None = None) -> None:
        self.policy, self.scheduler_cls = policy, scheduler_cls

    def get_scheduler_cls(self) -> type:
        return StepScheduler


def test_the_plugin_leaves_other_policies_and_other_schedulers_alone() -> None:
    class Patched(Config):
        pass

    replace(Patched, PIECE)
    chosen = Patched("priority").get_scheduler_cls()
    assert issubclass(chosen, FairSteps)
    assert issubclass(chosen, StepScheduler)
    assert chosen.__dict__["step_tokens"] == PIECE
    assert Patched("fcfs").get_scheduler_cls() is StepScheduler
    assert Patched("priority", "mine").get_scheduler_cls() is StepScheduler
