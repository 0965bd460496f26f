"""Whether a chat template shows a row's tools, calls and results.

Owns the test: the row is rendered once more with marks in their place, and every mark must be there. A
template that leaves one out would teach an adapter to call what it was never shown, or to answer nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import TemplateError

from train.dataset.records import Row

REMEDY = (
    "give the base a chat template that shows tools (chat_template.jinja in its folder), or take them out "
    "of the row"
)
_MARK = "zqmark"


class ToolsHidden(ValueError):
    """The chat template leaves out a tool, a call or a result."""


def require_shown(row: Row, tokenizer: Any) -> None:
    """Check that the template of a transformers tokenizer shows everything about tools that `row` has.

    Raises: ToolsHidden: naming what is left out.
    """
    marks: dict[str, str] = {}
    chat = [_marked(number, message.chat(), marks) for number, message in enumerate(row.messages, start=1)]
    tools = [_marked_tool(number, tool, marks) for number, tool in enumerate(row.tools)]
    if not marks:
        return
    try:
        text = _rendered(tokenizer, chat, tools)
    except TemplateError:
        return  # It refuses the row itself, or the marks: the row's own rendering tells.
    if hidden := [what for mark, what in marks.items() if mark not in text]:
        raise ToolsHidden(f"the chat template does not show {_listed(hidden)}")


def _marked(number: int, turn: dict[str, Any], marks: dict[str, str]) -> dict[str, Any]:
    """Return the turn with marks for the names and arguments of its calls, or for the result that it is."""
    for index, call in enumerate(turn.get("tool_calls", ())):
        name, value = f"{_MARK}{number}n{index}", f"{_MARK}{number}a{index}"
        marks[name] = f"the call of {call['function']['name']} in turn {number}"
        marks[value] = f"the arguments of {call['function']['name']} in turn {number}"
        call["function"] = {"arguments": {"value": value}, "name": name}
    if turn["role"] == "tool":
        turn["content"] = f"{_MARK}{number}r"
        marks[turn["content"]] = f"the tool's result in turn {number}"
    return turn


def _marked_tool(number: int, tool: Mapping[str, Any], marks: dict[str, str]) -> dict[str, Any]:
    mark = f"{_MARK}t{number}"
    marks[mark] = f"the tool {tool['function']['name']}"
    return {**tool, "function": {**tool["function"], "name": mark}}


def _rendered(tokenizer: Any, chat: list[dict[str, Any]], tools: list[dict[str, Any]]) -> str:
    given: dict[str, Any] = {"tools": tools} if tools else {}
    return str(tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=False, **given))


def _listed(hidden: Sequence[str]) -> str:
    more = f" and {len(hidden) - 1} more" if len(hidden) > 1 else ""
    return f"{hidden[0]}{more}"
