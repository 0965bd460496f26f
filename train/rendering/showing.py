"""Whether a chat template shows a row's tools, calls and results.

Owns the test: the row is rendered once more with marks in their place, and every mark must be there. A
template that leaves one out would teach an adapter to call what it was never shown, or to answer nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from train.dataset.records import Conversation, RowMessage, ToolCall
from train.rendering.interface import Tokenizer, Unrenderable
from train.rendering.template import Template

_REMEDY = (
    "give the base a chat template that shows tools (chat_template.jinja in its folder), or take them out "
    "of the row"
)
_MARK = "zqmark"


class ToolsHidden(Unrenderable):
    """The chat template leaves out a tool, a call or a result."""


def require_shown(row: Conversation, tokenizer: Tokenizer) -> None:
    """Check that the template shows everything about tools that `row` has.

    Raises: ToolsHidden: naming what is left out.
    """
    marks: dict[str, str] = {}
    turns = [_marked(number, turn, marks) for number, turn in enumerate(row.messages, start=1)]
    tools = [_marked_tool(number, tool, marks) for number, tool in enumerate(row.tools)]
    if not marks:
        return
    template = Template(tokenizer, tools)
    try:
        text: str | None = template.answered(turns)
    except Unrenderable:
        # It refuses the row, a turn of role tool perhaps. Does it show tools to a question at all?
        marks = {mark: what for mark, what in marks.items() if mark.startswith(f"{_MARK}t")}
        text = _question(template)
    if text is None:
        return
    if hidden := [what for mark, what in marks.items() if mark not in text]:
        more = f", nor {len(hidden) - 1} other of its calls, results and tools" if len(hidden) > 1 else ""
        raise ToolsHidden(f"the chat template does not show {hidden[0]}{more}", _REMEDY)


def _question(template: Template) -> str | None:
    """Return what the template shows to a bare question; None where it refuses that too."""
    try:
        return template.prompt([RowMessage("user", "…", learn=False)])
    except Unrenderable:
        return None


def _marked(number: int, turn: RowMessage, marks: dict[str, str]) -> RowMessage:
    """Return the turn with marks for the names and arguments of its calls, or for the result that it is."""
    if turn.role == "tool":
        marks[f"{_MARK}{number}rz"] = f"the tool's result in turn {number}"
        return replace(turn, content=f"{_MARK}{number}rz")
    calls = tuple(_marked_call(number, index, call, marks) for index, call in enumerate(turn.calls))
    return replace(turn, calls=calls) if calls else turn


def _marked_call(number: int, index: int, call: ToolCall, marks: dict[str, str]) -> ToolCall:
    name, value = f"{_MARK}{number}n{index}z", f"{_MARK}{number}a{index}z"
    marks[name] = f"the call of {call.name} in turn {number}"
    marks[value] = f"the arguments of {call.name} in turn {number}"
    return replace(call, name=name, arguments=f'{{"value": "{value}"}}')


def _marked_tool(number: int, tool: Mapping[str, Any], marks: dict[str, str]) -> dict[str, Any]:
    mark = f"{_MARK}t{number}z"
    marks[mark] = f"the tool {tool['function']['name']}"
    return {**tool, "function": {**tool["function"], "name": mark}}
