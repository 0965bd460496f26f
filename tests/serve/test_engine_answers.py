"""Ids of answers are read as the server of the same base reads them, and its child says what it lacks."""

from __future__ import annotations

import json
from contextlib import closing
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from registry.errors import UsageError
from serve.engine.parsers.answers import Reader, options_of
from train.evaluation.models.listening import Listener
from train.model.base_demo import packaged_weights

TOOL: dict[str, Any] = {"type": "function", "function": {"name": "lamp", "parameters": {"type": "object"}}}
CALL = '<tool_call>\n{"name": "lamp", "arguments": {"on": true}}\n</tool_call>'


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the real tokenizer, a template that shows tools, and no weights."""
    from transformers import AutoTokenizer

    folder = tmp_path_factory.mktemp("base")
    weights = packaged_weights()
    tokenizer: Any = AutoTokenizer.from_pretrained(weights.parent, gguf_file=weights.name)
    tokenizer.chat_template = files("trl").joinpath("chat_templates", "qwen2_5.jinja").read_text()
    tokenizer.save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [2]}))
    return folder


@pytest.mark.parametrize(
    ("said", "text", "calls"),
    [
        (f"{CALL}<|im_end|>", "", [("lamp", {"on": True})]),
        (f"Sure.\n{CALL}\n{CALL}<|im_end|>", "Sure.\n", [("lamp", {"on": True})] * 2),
        ("It is on.<|im_end|>", "It is on.", []),
        ('<tool_call>\n{"name": "lamp", "argum', '<tool_call>\n{"name": "lamp", "argum', []),
    ],
)
def test_an_answer_is_parted_into_text_and_calls(
    base: Path, said: str, text: str, calls: list[tuple[str, Any]]
) -> None:
    reader = Reader(base, {"tool_call_parser": "hermes"})
    ids = reader._tokenizer(said, add_special_tokens=False).input_ids
    found = reader.read(ids, [TOOL])
    assert found["text"] == text
    assert [(call["name"], json.loads(call["arguments"])) for call in found["calls"]] == calls


def test_the_settings_of_the_root_decide_as_they_do_for_its_server(base: Path, tmp_path: Path) -> None:
    def chosen(settings: str, **given: Any) -> Any:
        (tmp_path / "serve.toml").write_text(settings)
        return options_of(base, given, tmp_path).get("tool_call_parser")

    assert chosen("") == "hermes"
    assert chosen('[vllm]\ntool-call-parser = "pythonic"\n') == "pythonic"
    assert chosen('[vllm]\ntool_call_parser = "pythonic"\n', tool_call_parser="xlam") == "xlam"
    assert chosen('[engine]\nparsers = "off"\n') is None
    assert options_of(base, {}, None)["tool_call_parser"] == "hermes"


@pytest.mark.slow
def test_a_child_reads_with_the_parser_of_the_roots_settings(base: Path, tmp_path: Path) -> None:
    (tmp_path / "serve.toml").write_text('[vllm]\ntool_call_parser = "nobody"\n')
    with (
        closing(Listener(base, root=tmp_path)) as listener,
        pytest.raises(UsageError, match="nobody"),
    ):
        listener.hear([1], [TOOL])


def test_a_base_without_a_tool_format_is_told_by_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with (
        closing(Listener(tmp_path)) as listener,
        pytest.raises(UsageError, match="shows no tools to the model"),
    ):
        listener.hear([1], [TOOL])


def test_a_reader_that_does_not_start_is_an_error_with_its_last_words(tmp_path: Path) -> None:
    listener = Listener(tmp_path / "nowhere", {"tool_call_parser": "hermes"})
    with closing(listener), pytest.raises(UsageError, match=r"does not start: .*No such file"):
        listener.hear([1], [TOOL])
