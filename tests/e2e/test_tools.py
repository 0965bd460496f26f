"""Tools over the real engine: its prompts are training's, and its calls are those that are read offline."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import closing
from importlib.resources import files
from pathlib import Path

import pytest

from loadtests.live import Live, wardrobe
from tests.e2e.conftest import SERVER_OPTIONS
from train.dataset.rendering import load_tokenizer_of
from train.evaluation.models.listening import Listener
from train.evaluation.models.served import ServedModel
from train.proving.probes import CONVERSATIONS, TOOL_ROWS
from train.proving.prompts import deviation, tool_prompts, training_prompts

FORCED = {"type": "function", "function": {"name": "note"}}


@pytest.fixture(scope="module")
def calling(base_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Live, Path]]:
    """A server whose base has Qwen2.5's template, and the base's folder."""
    folder = tmp_path_factory.mktemp("calling")
    base = folder / "base"
    shutil.copytree(base_folder, base)
    template = files("trl").joinpath("chat_templates", "qwen2_5.jinja").read_text(encoding="utf-8")
    (base / "chat_template.jinja").write_text(template)
    wardrobe(folder / "root", "init", "--base", base)
    server = Live.start(folder / "root", folder / "serve.log", *SERVER_OPTIONS)
    try:
        server.wait_ready()
        yield server, base
    finally:
        server.close_clients()
        server.stop()


def test_prompts_with_tools_calls_and_results_have_the_token_ids_that_training_renders(
    calling: tuple[Live, Path],
) -> None:
    server, base = calling
    tokenizer = load_tokenizer_of(base)
    plain, _ = training_prompts(CONVERSATIONS, tokenizer)
    prompts, left_out = tool_prompts(TOOL_ROWS, tokenizer)
    assert (len(prompts), left_out) == (5, [])
    with closing(ServedModel(server.url, "base")) as model:
        for number, prompt in enumerate(plain + prompts):
            assert deviation(number, prompt, model.prompt_ids(prompt.messages, prompt.tools)) is None


def test_what_the_server_reads_as_calls_is_read_so_offline(calling: tuple[Live, Path]) -> None:
    server, base = calling
    (prompt, *_), _ = tool_prompts(TOOL_ROWS, load_tokenizer_of(base))
    body = {
        "model": "base", "messages": list(prompt.messages), "tools": list(prompt.tools), "max_tokens": 64,
        "temperature": 0, "return_token_ids": True, "tool_choice": FORCED,
    }  # fmt: skip
    with closing(ServedModel(server.url, "base")) as model:
        choice = model._post("/v1/chat/completions", body)["choices"][0]
    served = [
        (call["function"]["name"], call["function"]["arguments"]) for call in choice["message"]["tool_calls"]
    ]
    with closing(Listener(base)) as listener:
        heard = listener.hear(choice["token_ids"], prompt.tools)
    assert served
    assert [(call.name, call.arguments) for call in heard.calls] == served
