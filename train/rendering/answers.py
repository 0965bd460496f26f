"""What the model must say after the server's prompt, for a conversation to go on as it is written.

Owns the text of an answer. Most templates write an answer right behind the prompt that the server sends, and
then it is what follows there. A template that opens a thought at the end of the prompt (`<think>`), and does
not write it down like that, leaves to say: the thought, its closing mark, and the answer. Where the prompt
has opened a thought and closed it at once, the answer alone is left to say.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from train.dataset.records import RowMessage
from train.rendering.interface import Unrenderable
from train.rendering.template import Template

_OPENED = re.compile(r"(<[\w:|-]*think[\w:|-]*>|<\|START_THINKING\|>|\[THINK\])\s*\Z")
# An empty thought, as it tells a model not to think: Qwen's and DeepSeek's, Cohere's, Gemma's, Mistral's.
_CLOSED = re.compile(
    r"(?:<(?P<mark>[\w:|-]*think[\w:|-]*)>\s*(?P<closing></(?P=mark)>)|<\|START_THINKING\|>\s*<\|END_THINKING\|>"
    r"|<\|channel>thought\s*<channel\|>|\[THINK\]\s*\[/THINK\])\s*\Z"
)
_THOUGHT = re.compile(r"\A\s*<think>(?P<thought>.*?)</think>\s*", re.DOTALL)
# Stands for a thought to see how the template closes one. No template changes plain letters.
_STAND_IN = "wardrobethought"


def answer_text(template: Template, messages: Sequence[RowMessage], prompt: str) -> str:
    """Return what follows `prompt`, the server's for all but the last of `messages`, which is the answer.

    It goes on to the end of what the template writes: behind the end of the turn, too. A thought is left out
    where the prompt has closed it already, as one for a model that is not to think does.

    Raises: Unrenderable: the template does not show the answer behind the prompt.
    """
    given, opened = messages[:-1], _OPENED.search(prompt)
    answer = messages[-1]
    if opened or template.takes_reasoning_apart:
        answer = thought_apart(answer)
    written = template.answered([*given, answer])
    if written.startswith(prompt):
        return written[len(prompt) :]
    if opened:
        return _opened_thought(template, [*given, answer], prompt, opened, written)
    if answer.reasoning:
        written = template.answered([*given, replace(answer, reasoning="")])
        if written.startswith(prompt):
            return written[len(prompt) :]
    return _behind_closed_thought(prompt, written)


def _behind_closed_thought(prompt: str, written: str) -> str:
    """Return the answer of `written`, which leaves out the empty thought at the end of `prompt`.

    Raises: Unrenderable: the prompt ends with none, or the answer is written behind something else.
    """
    closed = _CLOSED.search(prompt)
    if closed is None or not written.startswith(prompt[: closed.start()]):
        raise _other_beginning()
    return written[closed.start() :].removeprefix(closed.group("closing") or "")


def thought_apart(answer: RowMessage) -> RowMessage:
    """Return `answer` with a thought that its content begins with as its reasoning."""
    found = None if answer.reasoning else _THOUGHT.match(answer.content)
    if found is None:
        return answer
    return replace(answer, reasoning=found.group("thought").strip(), content=answer.content[found.end() :])


def _opened_thought(
    template: Template, messages: Sequence[RowMessage], prompt: str, opened: re.Match[str], written: str
) -> str:
    """Return the thought, its closing mark and the answer, behind a prompt that ends with an opened thought.

    An answer without a thought closes it at once, in the form in which the template closes one.
    """
    answer = messages[-1]
    if not answer.reasoning:
        shown = template.answered([*messages[:-1], replace(answer, reasoning=_STAND_IN)])
        if shown.startswith(prompt) and shown.count(_STAND_IN, len(prompt)) == 1:
            return shown[len(prompt) :].replace(_STAND_IN, "")
    if not written.startswith(prompt[: opened.start()]):
        raise _other_beginning()
    mark = opened.group(1)
    closing = mark.replace("START", "END") if "START" in mark else f"{mark[0]}/{mark[1:]}"
    rest = written[opened.start() :].removeprefix(mark)
    before, closed, after = rest.partition(closing)
    thought = answer.reasoning or (before if closed else "")
    thought = f"{thought.strip()}\n" if thought.strip() else "\n"
    return f"{thought}{closing}\n\n{(after if closed else rest).lstrip()}"


def _other_beginning() -> Unrenderable:
    return Unrenderable(
        "the chat template does not begin an answer as its generation prompt does",
        "mend the template's generation prompt: the server sends it before every answer",
    )
