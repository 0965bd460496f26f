"""Behind a prompt that opens a thought and closes it at once, the answer is learnt as the server sends it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.train.bases import speaking
from tests.train.vllm_prompts import served_ids
from train.dataset.records import Conversation, RowMessage
from train.rendering.examples import render

ASKED = RowMessage("user", "one?", learn=False)
ANSWERED = RowMessage("assistant", "first", learn=True)
AGAIN = (RowMessage("user", "two?", learn=False), RowMessage("assistant", "second", learn=True))


def template(thought: str, before: str = "") -> str:
    """Return a template that writes `thought` in its prompt, and `before` in front of a written answer."""
    return (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n"
        f"{{% if m.role == 'assistant' %}}{before}{{% endif %}}"
        "{{ m.content }}<|im_end|>\n{% endfor %}"
        f"{{% if add_generation_prompt %}}<|im_start|>assistant\n{thought}{{% endif %}}"
    )


@pytest.mark.parametrize(
    ("thought", "before"),
    [
        ("<think>\n</think>", ""),
        ("<think>\n\n</think>\n\n", ""),
        ("<think></think>", "</think>"),
        ("<|channel>thought\n<channel|>", ""),
        ("<|START_THINKING|><|END_THINKING|>", ""),
        ("[THINK][/THINK]", ""),
    ],
)
def test_an_answer_goes_on_behind_a_thought_that_the_prompt_has_closed(
    tmp_path: Path, thought: str, before: str
) -> None:
    tokenizer = speaking(tmp_path / "base", template(thought, before), ("<|im_end|>",))
    examples = render(Conversation(1, (ASKED, ANSWERED, *AGAIN)), tokenizer)
    assert [one.answers for one in examples] == [(1,), (3,)]
    for one, said in zip(examples, ("first", "second"), strict=True):
        learnt = [label for label in one.labels if label >= 0]
        assert tokenizer.decode(learnt) == f"{said}<|im_end|>"
        asked = [ASKED, ANSWERED, *AGAIN][: one.answers[0]]
        sent = served_ids(tokenizer, [{"role": turn.role, "content": turn.content} for turn in asked])
        assert list(one.ids[: len(one.ids) - len(learnt)]) == sent


def test_a_thought_opened_in_capitals_is_closed_by_its_own_mark(tmp_path: Path) -> None:
    written = template("<|START_THINKING|>")
    tokenizer = speaking(tmp_path / "base", written + "{# <|END_THINKING|> #}", ("<|im_end|>",))
    (example,) = render(Conversation(1, (ASKED, ANSWERED)), tokenizer)
    learnt = tokenizer.decode([label for label in example.labels if label >= 0])
    assert learnt == "\n<|END_THINKING|>\n\nfirst<|im_end|>"
