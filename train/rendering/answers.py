"""What the model must say after the server's prompt, for a conversation to go on as it is written.

Owns the text of an answer. Most templates write an answer right behind the prompt that the server sends, and
then it is what follows there. A template that opens a thought at the end of the prompt (`<think>`), and does
not write it down like that, leaves to say: the thought, its closing mark, and the answer.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from train.dataset.records import Message
from train.rendering.interface import Unrenderable
from train.rendering.template import Template

_OPENED = re.compile(r"(<[\w:|-]*think[\w:|-]*>|\[THINK\])\s*$")
_THOUGHT = re.compile(r"^\s*(?:<think>)?(?P<thought>.*?)</think>", re.DOTALL)
# Stands for a thought to see how the template closes one. No template changes plain letters.
_STAND_IN = "wardrobethought"


def answer_text(template: Template, messages: Sequence[Message], prompt: str) -> str:
    """Return what follows `prompt`, the server's for all but the last of `messages`, which is the answer.

    It goes on to the end of what the template writes: behind the end of the turn, too.

    Raises: Unrenderable: the template does not show the answer behind the prompt.
    """
    written = template.answered(messages)
    if written.startswith(prompt):
        return written[len(prompt) :]
    answer = messages[-1]
    found = _opened_thought(written, prompt, answer)
    if not answer.reasoning:
        thinking = replace(answer, reasoning=_STAND_IN)
        shown = template.answered([*messages[:-1], thinking])
        if shown.startswith(prompt) and shown.count(_STAND_IN, len(prompt)) == 1:
            return shown[len(prompt) :].replace(_STAND_IN, "")
    if found is None:
        raise Unrenderable(
            "the chat template does not begin an answer as its generation prompt does",
            "mend the template's generation prompt: the server sends it before every answer",
        )
    return found


def _opened_thought(written: str, prompt: str, answer: Message) -> str | None:
    """Return the thought, its closing mark and the answer, where `prompt` ends with an opened thought."""
    opened = _OPENED.search(prompt)
    if opened is None or not written.startswith(prompt[: opened.start()]):
        return None
    mark = opened.group(1)
    closing = f"{mark[0]}/{mark[1:]}"
    rest = written[opened.start() :].removeprefix(mark)
    before, closed, after = rest.partition(closing)
    inside = _THOUGHT.match(answer.content)
    thought = answer.reasoning or (inside.group("thought") if inside else "") or (before if closed else "")
    thought = f"{thought.strip()}\n" if thought.strip() else "\n"
    return f"{thought}{closing}\n\n{(after if closed else rest).lstrip()}"
