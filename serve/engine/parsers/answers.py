"""Answers read as a server with the same base reads them: token ids in, text, thoughts and calls out.

A program of its own (`python -m serve.engine.parsers.answers --base DIR`), for whoever generates without a
server: one JSON object per line and way. It starts with the parsers that it chose, and ends with its input.
Owns no format: vLLM's own parser class does the work, made as vLLM's chat endpoint makes it.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from serve.engine.parsers.choice import REASONING_OPTION, TOOL_OPTION, choose, parser_options


class Reader:
    """vLLM's parser for one base model.

    Raises: ValueError: vLLM knows no parser of a name.
    """

    def __init__(self, base: Path, options: dict[str, Any]) -> None:
        config = json.loads((base / "config.json").read_text(encoding="utf-8"))
        from vllm.parser import ParserManager
        from vllm.tokenizers import get_tokenizer

        self._tokenizer: Any = get_tokenizer(str(base))
        self._stops = _stops(base, self._tokenizer)
        self._parser: Any = ParserManager.get_parser(
            tool_parser_name=options.get(TOOL_OPTION),
            reasoning_parser_name=options.get(REASONING_OPTION),
            enable_auto_tools=options.get(TOOL_OPTION) is not None,
            model_name=str(base),
            is_harmony=config.get("model_type") == "gpt_oss",
            tokenizer=self._tokenizer,
        )

    def read(self, ids: list[int], tools: list[dict[str, Any]]) -> dict[str, Any]:
        """Return `text`, `reasoning` and `calls` of an answer; the token that ended it is none of it."""
        from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest

        question = [{"role": "user", "content": ""}]
        request: Any = ChatCompletionRequest.model_validate(
            {"messages": question} | ({"tools": tools} if tools else {})
        )
        parser = None
        if self._parser is not None:
            parser = self._parser(self._tokenizer, request.tools, chat_template_kwargs={})
            request = parser.adjust_request(request)
        said = ids[:-1] if ids and ids[-1] in self._stops else ids
        text = self._tokenizer.decode(said, skip_special_tokens=request.skip_special_tokens)
        if parser is None:
            return {"text": text, "reasoning": "", "calls": []}
        thoughts, content, calls = parser.parse(
            text, request, enable_auto_tools=True, model_output_token_ids=said
        )
        found = [{"name": call.name, "arguments": call.arguments} for call in calls or ()]
        return {"text": content or "", "reasoning": thoughts or "", "calls": found if tools else []}


def options_of(base: Path, given: dict[str, Any], root: Path | None) -> dict[str, Any]:
    """Return the options as a server of `root` would have them: its settings, those `given`, then what fits.

    Raises: UsageError: the root's settings cannot be read.
    """
    automatic = True
    if root is not None:
        from serve.settings import load_settings

        settings = load_settings({"root": root})
        given = {**{key.replace("-", "_"): value for key, value in settings.vllm.items()}, **given}
        automatic = settings.engine.parsers == "auto"
    return {**(parser_options(given, base) if automatic else {}), **given}


def main(arguments: list[str]) -> None:
    """Answer each line of the input with one line, until it ends."""
    parser = argparse.ArgumentParser(prog="serve.engine.parsers.answers")
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--options", type=json.loads, default={})
    parser.add_argument("--root", type=Path)
    given = parser.parse_args(arguments)
    # vLLM logs to the standard output, which is ours alone here.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    options = options_of(given.base, given.options, given.root)
    if not options.get(TOOL_OPTION):
        _write(answers, {"tools": None, "why_no_tools": choose(given.base).why_no_tools})
        return
    reader = Reader(given.base, options)
    _write(answers, {"tools": options[TOOL_OPTION], "why_no_tools": ""})
    for asked in _lines(sys.stdin):
        _write(answers, reader.read(asked["ids"], asked["tools"]))


def _lines(source: IO[str]) -> Iterator[Any]:
    for line in source:
        yield json.loads(line)


def _write(target: IO[str], value: object) -> None:
    target.write(f"{json.dumps(value)}\n")
    target.flush()


def _stops(base: Path, tokenizer: Any) -> set[int]:
    """Return the tokens at which vLLM stops: the tokenizer's and those of generation_config.json."""
    path = base / "generation_config.json"
    told = json.loads(path.read_text(encoding="utf-8")).get("eos_token_id") if path.is_file() else None
    more = told if isinstance(told, list) else [told]
    return {one for one in (tokenizer.eos_token_id, *more) if isinstance(one, int)}


if __name__ == "__main__":
    main(sys.argv[1:])
