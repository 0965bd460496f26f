"""The tool and reasoning parsers that a base gets by its family and chat template."""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

import pytest

from serve.engine.parsers.choice import choose, describe, parser_options
from serve.engine.parsers.family import ModelFamily
from serve.engine.parsers.table import NEVER_REASONING, NEVER_TOOLS, REASONING, TOOLS, Format

QWEN25 = '{% if tools %}# Tools <tools>{{ tools }}</tools> <tool_call>\\n{"name": x}</tool_call>{% endif %}'
CODER = "{% if tools %}<tool_call>\\n<function=f>\\n<parameter=p>{% endif %}"
LLAMA31 = '{% if tools is not none %}{"name": f, "parameters": d}<|python_tag|>{% endif %}'
LLAMA32 = '{% if tools is not none %}{"name": f, "parameters": d}{% endif %}'
MISTRAL = "{% if tools %}[AVAILABLE_TOOLS]{{ tools }}[/AVAILABLE_TOOLS]{% endif %}[TOOL_CALLS]"
GLM = "{% if tools %}<tool_call>f<arg_key>k</arg_key><arg_value>v</arg_value></tool_call>{% endif %}"
HYBRID = (
    QWEN25
    + "{% if add_generation_prompt %}{% if enable_thinking is false %}<think></think>{% endif %}{% endif %}"
)
THINKING = QWEN25 + "{% if add_generation_prompt %}assistant<think>{% endif %}"
INSTRUCT = QWEN25 + "{% if m.reasoning_content %}<think>{% endif %}{% if add_generation_prompt %}a{% endif %}"
R1 = "{{ messages }}{% if add_generation_prompt %}<｜Assistant｜><think>\\n{% endif %}"
SMOL = "{% for message in messages %}{{ message.content }}{% endfor %}"
THINK = ("<think>", "</think>")
Files = Mapping[str, str] | None


def base(
    folder: Path, model_type: str, template: str, tokens: tuple[str, ...] = (), files: Files = None
) -> Path:
    """Write what the choice reads of a base model's folder."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"model_type": model_type}))
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": template} if template else {}))
    added = [{"content": token} for token in tokens]
    (folder / "tokenizer.json").write_text(json.dumps({"added_tokens": added}, ensure_ascii=False))
    for name, text in (files or {}).items():
        (folder / name).write_text(text)
    return folder


def chosen(folder: Path, template: str | None = None) -> tuple[str | None, str | None]:
    found = choose(folder, template)
    tools, reasoning = found.tools, found.reasoning
    return (tools.parser if tools else None), (reasoning.parser if reasoning else None)


@pytest.mark.parametrize(
    ("model_type", "template", "tokens", "tools", "reasoning"),
    [
        ("qwen2", QWEN25, (), "hermes", None),
        ("llama", QWEN25, (), "hermes", None),
        ("qwen3", HYBRID, THINK, "hermes", "qwen3"),
        ("qwen3", THINKING, THINK, "hermes", "qwen3"),
        ("qwen3", INSTRUCT, THINK, "hermes", None),
        ("qwen3_moe", CODER, (), "qwen3_xml", None),
        ("qwen2", THINKING, THINK, "hermes", "deepseek_r1"),
        ("qwen2", R1, THINK, None, "deepseek_r1"),
        ("qwen2", R1, (), None, None),
        ("smollm3", HYBRID, THINK, "hermes", None),
        ("llama", LLAMA31, ("<|python_tag|>",), "llama3_json", None),
        ("llama", LLAMA32, ("<|python_tag|>",), "llama3_json", None),
        ("llama", LLAMA31, (), None, None),
        ("mistral", MISTRAL, ("[TOOL_CALLS]",), "mistral", None),
        ("mistral", MISTRAL, (), None, None),
        ("glm4_moe", GLM, (), "glm47", None),
        ("granitemoehybrid", QWEN25, (), "granite4", None),
        ("llama", SMOL, (), None, None),
        ("llama", SMOL + "<tool_call>", (), None, None),
        ("gpt_oss", "", (), "openai", "openai_gptoss"),
        ("deepseek_v32", "", (), "deepseek_v32", "deepseek_v3"),
        ("", "", (), None, None),
    ],
)  # fmt: skip
def test_a_base_gets_the_parsers_of_its_family_and_template(
    tmp_path: Path,
    model_type: str,
    template: str,
    tokens: tuple[str, ...],
    tools: str | None,
    reasoning: str | None,
) -> None:
    assert chosen(base(tmp_path, model_type, template, tokens)) == (tools, reasoning)


@pytest.mark.parametrize("one", TOOLS, ids=lambda one: f"{one.parser}-{one.types[:1]}-{one.marks[:1]}")
def test_no_tool_format_is_hidden_by_one_before_it(tmp_path: Path, one: Format) -> None:
    if one.package and find_spec(one.package) is None:
        assert not one.fits(choose_family(tmp_path, one))
        return
    assert chosen(written(tmp_path, one, "{% if tools %}"))[0] == one.parser


@pytest.mark.parametrize("one", REASONING, ids=lambda one: f"{one.parser}-{one.types[:1]}-{one.marks[:1]}")
def test_no_way_of_thinking_is_hidden_by_one_before_it(tmp_path: Path, one: Format) -> None:
    if one.package and find_spec(one.package) is None:
        return
    before = "{% if add_generation_prompt %}<think>" if one.always else "{% if enable_thinking %}"
    assert chosen(written(tmp_path, one, before))[1] == one.parser


def written(folder: Path, one: Format, before: str) -> Path:
    return base(folder, (one.types or ("other",))[0], before + " ".join(one.marks), one.tokens)


def choose_family(folder: Path, one: Format) -> ModelFamily:
    return ModelFamily.read(written(folder, one, "{% if tools %}"))


def test_mistrals_own_tokenizer_has_the_format_in_it(tmp_path: Path) -> None:
    assert chosen(base(tmp_path, "mistral", "", files={"tekken.json": "{}"}))[0] == "mistral"


def test_a_template_beside_the_tokenizer_and_one_for_tools_are_read(tmp_path: Path) -> None:
    folder = base(tmp_path / "a", "llama", SMOL, files={"chat_template.jinja": QWEN25})
    assert chosen(folder)[0] == "hermes"
    several = [{"name": "default", "template": SMOL}, {"name": "tool_use", "template": QWEN25}]
    other = base(
        tmp_path / "b", "llama", "", files={"tokenizer_config.json": json.dumps({"chat_template": several})}
    )
    assert chosen(other)[0] == "hermes"


def test_the_template_that_vllm_is_told_to_use_decides(tmp_path: Path) -> None:
    folder = base(tmp_path / "base", "llama", SMOL)
    file = tmp_path / "tools.jinja"
    file.write_text(QWEN25)
    for given in (str(file), QWEN25):
        assert parser_options({"chat_template": given}, folder)["tool_call_parser"] == "hermes"


def test_what_was_named_stays_and_calls_are_parsed_where_a_parser_is_named(tmp_path: Path) -> None:
    folder = base(tmp_path, "qwen3", HYBRID, THINK)
    every = {"tool_call_parser": "hermes", "enable_auto_tool_choice": True, "reasoning_parser": "qwen3"}
    assert parser_options({}, folder) == every
    named = parser_options({"tool_call_parser": "xlam", "reasoning_parser": ""}, folder)
    assert named == {"enable_auto_tool_choice": True}
    assert "enable_auto_tool_choice" not in parser_options({"enable_auto_tool_choice": False}, folder)
    plain = base(tmp_path, "llama", SMOL)
    assert parser_options({}, plain) == {}
    assert parser_options({"tool_call_parser": "hermes"}, plain) == {"enable_auto_tool_choice": True}


def test_the_line_of_the_check_names_parser_reason_and_the_way_to_another(tmp_path: Path) -> None:
    folder = base(tmp_path, "qwen3", HYBRID, THINK)
    line = describe({}, folder, automatic=True)
    assert "tools: hermes, by `<tool_call>` in the chat template; reasoning: qwen3, by `<think>`" in line
    assert "(to choose others, set tool_call_parser and reasoning_parser under [vllm]; to have none, " in line
    assert "tools: xlam, as set" in describe({"tool_call_parser": "xlam"}, folder, automatic=True)
    assert "tools: none, engine.parsers is off" in describe({}, folder, automatic=False)
    plain = describe({}, base(tmp_path, "llama", SMOL), automatic=True)
    assert "tools: none, its chat template shows no tools to the model: requests with tools get 400" in plain


@pytest.mark.parametrize("broken", ["config.json", "tokenizer_config.json", "tokenizer.json"])
def test_a_folder_that_cannot_be_read_has_no_format_and_is_no_error(tmp_path: Path, broken: str) -> None:
    folder = base(tmp_path, "llama", SMOL)
    for content in (b"", b"[]", b"{", b"\xff\xfe", b"[" * 100_000):
        (folder / broken).write_bytes(content)
        assert chosen(folder) == (None, None)
    (folder / broken).unlink()
    assert chosen(folder) == chosen(tmp_path / "nothing") == (None, None)


def registered(module: str, table: str) -> set[str]:
    """Return the names in one of the installed vLLM's registries, without importing it."""
    spec = find_spec("vllm")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    source = (Path(spec.submodule_search_locations[0]) / module / "__init__.py").read_text()
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == table:
            assert isinstance(node.value, ast.Dict)
            return {str(ast.literal_eval(key)) for key in node.value.keys if key is not None}
    raise AssertionError(f"{module} has no {table}")


def test_the_table_is_what_the_installed_vllm_has() -> None:
    tools = registered("tool_parsers", "_TOOL_PARSERS_TO_REGISTER")
    assert {one.parser for one in TOOLS} | set(NEVER_TOOLS) == tools
    thoughts = registered("reasoning", "_REASONING_PARSERS_TO_REGISTER")
    assert {one.parser for one in REASONING} | set(NEVER_REASONING) == thoughts
