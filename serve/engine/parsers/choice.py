"""The parsers that a server is started with where nobody named others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import JsonValue

from serve.engine.parsers.family import ModelFamily
from serve.engine.parsers.table import REASONING, TOOLS, Format

TOOL_OPTION, AUTO_OPTION, REASONING_OPTION = "tool_call_parser", "enable_auto_tool_choice", "reasoning_parser"


@dataclass(frozen=True, slots=True)
class ParserChoice:
    """The formats of a base; None where it shows none that vLLM parses. `why_no_tools` is for people."""

    tools: Format | None
    reasoning: Format | None
    why_no_tools: str = ""


def choose(folder: Path, template: str | None = None) -> ParserChoice:
    """Return what fits the base in `folder`; `template` is the one that replaces its own."""
    family = ModelFamily.read(folder, template)
    tools = _mistral(family) or _first(TOOLS, family, shown=family.renders_tools)
    why = ""
    if tools is None:
        why = (
            "its chat template has no tool format that is known here"
            if family.renders_tools
            else "its chat template shows no tools to the model"
        )
    return ParserChoice(tools, _first(REASONING, family, shown=family.thinks), why)


def parser_options(given: Mapping[str, JsonValue], folder: Path) -> dict[str, JsonValue]:
    """Return the options that name the parsers, without those that were `given`."""
    choice = choose(folder, _given_template(given))
    found: dict[str, JsonValue] = {}
    if TOOL_OPTION not in given and choice.tools is not None:
        found[TOOL_OPTION] = choice.tools.parser
    if AUTO_OPTION not in given and (TOOL_OPTION in given or choice.tools is not None):
        # vLLM parses no call at all without it, forced ones included.
        found[AUTO_OPTION] = True
    if REASONING_OPTION not in given and choice.reasoning is not None:
        found[REASONING_OPTION] = choice.reasoning.parser
    return found


def describe(given: Mapping[str, JsonValue], folder: Path, *, automatic: bool) -> str:
    """Return in one line which parsers a server gets, why, and how to have others."""
    choice = (
        choose(folder, _given_template(given))
        if automatic
        else ParserChoice(None, None, "engine.parsers is off")
    )
    tools = _told(given.get(TOOL_OPTION), choice.tools)
    thoughts = _told(given.get(REASONING_OPTION), choice.reasoning) or "none"
    if not tools:
        tools = f"none, {choice.why_no_tools}: requests with tools get 400"
    others = f"to choose others, set {TOOL_OPTION} and {REASONING_OPTION} under [vllm]"
    return f"tools: {tools}; reasoning: {thoughts} ({others}; to have none, set engine.parsers = off)"


def _told(named: JsonValue, chosen: Format | None) -> str:
    if named:
        return f"{named}, as set"
    return f"{chosen.parser}, by {chosen.evidence}" if chosen is not None and named is None else ""


def _first(table: tuple[Format, ...], family: ModelFamily, *, shown: bool) -> Format | None:
    return next((one for one in table if (shown or one.bare) and one.fits(family)), None)


def _mistral(family: ModelFamily) -> Format | None:
    return Format("mistral") if family.is_mistral else None


def _given_template(given: Mapping[str, JsonValue]) -> str | None:
    """Return the text of the template that vLLM is told to use: a file, or the template itself."""
    value = given.get("chat_template")
    if not isinstance(value, str):
        return None
    try:
        return Path(value).read_text(encoding="utf-8", errors="replace")
    except (OSError, ValueError):
        return value
