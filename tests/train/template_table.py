"""What each shipped template can be trained on: measured, for the reference's page on templates.

`python -m tests.train.template_table` writes the page's table anew; a test compares it with what is measured.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from deploy.reference.templates import TABLE
from tests.train.bases import ends_of, shipped_templates, speaking
from train.dataset.records import Conversation, RowMessage, ToolCall
from train.rendering.examples import render
from train.rendering.interface import Unrenderable

_TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Tell the weather.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


def measured(tokenizer: Any) -> dict[str, str]:
    """Return a word per kind of conversation."""
    return {
        "one answer": _how(tokenizer, Conversation(1, _turns())),
        "two answers": _how(tokenizer, Conversation(1, _turns(again=True))),
        "system": _how(
            tokenizer, Conversation(1, (RowMessage("system", "Be short.", learn=False), *_turns()))
        ),
        "tools": _how(tokenizer, Conversation(1, _calling(), (_TOOL,))),
        "reasoning": _reasoning(tokenizer),
    }


def _how(tokenizer: Any, row: Conversation) -> str:
    try:
        return "yes" if len(render(row, tokenizer)) == 1 else "own examples"
    except Unrenderable as error:
        return f"no: {error.remedy}"


def _reasoning(tokenizer: Any) -> str:
    examples = render(Conversation(1, _turns(again=True, thought="Hm.")), tokenizer)
    hidden = sum(len(one.thoughtless) for one in examples)
    return {0: "learnt", 2: "left out"}.get(hidden, "in part")


def _turns(*, again: bool = False, thought: str = "") -> tuple[RowMessage, ...]:
    def pair(question: str, answer: str) -> tuple[RowMessage, RowMessage]:
        return RowMessage("user", question, learn=False), RowMessage(
            "assistant", answer, learn=True, reasoning=thought
        )

    return pair("one?", "first") + (pair("two?", "second") if again else ())


def _calling() -> tuple[RowMessage, ...]:
    call = ToolCall("get_weather", '{"city": "Oslo"}', "call00001")
    return (
        RowMessage("user", "Is it cold in Oslo?", learn=False),
        RowMessage("assistant", "", learn=True, calls=(call,)),
        RowMessage("tool", '{"degrees": 3}', learn=False, call_id="call00001", name="get_weather"),
        RowMessage("assistant", "It has 3 degrees.", learn=True),
    )


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        table = {
            name: measured(speaking(Path(folder) / name, template, ends_of(name)))
            for name, template in shipped_templates().items()
        }
    TABLE.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
