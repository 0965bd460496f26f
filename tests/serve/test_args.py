"""vLLM's command line: our defaults, the user's options, and what nobody may set."""

from __future__ import annotations

import argparse
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from registry.errors import UsageError
from registry.records import BaseModelInfo, Limits
from serve.engine.args import (
    OWNED,
    EngineArguments,
    engine_arguments,
    options,
)
from serve.engine.child import _import_parsers
from serve.engine.machine import HostFacts
from serve.engine.sizing.choice import CPU_SLOTS, RESIDENTS, SLOTS, servable_rank
from serve.settings import EngineSettings, ServeSettings
from tests.fakes.base import make_base

BASE = BaseModelInfo("smol", Path("/models/smol"), "sha256:0", None, {})


GPU = HostFacts(accelerator=True, cores=tuple(range(32)), memory_bytes=2**38, libraries=())
CPU = HostFacts(accelerator=False, cores=(0, 1), memory_bytes=2**35, libraries=())


def build(
    *extra: str, limits: Limits | None = None, machine: HostFacts = GPU, **given: Any
) -> EngineArguments:
    return engine_arguments(ServeSettings(**given), BASE, limits or Limits(), machine, extra=extra)


def value(arguments: EngineArguments, flag: str) -> str | None:
    """Return what vLLM's parser would take for `flag`: the value after its last appearance."""
    places = [place for place, argument in enumerate(arguments.argv) if argument == flag]
    return arguments.argv[places[-1] + 1] if places else None


def test_the_defaults_size_lora_for_more_than_one_adapter() -> None:
    arguments = build(host="127.0.0.1", port=8001)
    assert value(arguments, "--max-loras") == str(SLOTS)
    assert value(arguments, "--max-cpu-loras") == str(RESIDENTS)
    assert value(arguments, "--max-lora-rank") == "32"
    assert value(arguments, "--model") == "/models/smol"
    assert value(arguments, "--served-model-name") == "smol"
    assert (value(arguments, "--host"), value(arguments, "--port")) == ("127.0.0.1", "8001")
    assert "--enable-lora" in arguments.argv


def test_the_cpu_gets_more_slots() -> None:
    assert value(build(machine=CPU), "--max-loras") == str(CPU_SLOTS)
    assert value(build("--max-loras", "3", machine=CPU), "--max-loras") == "3"


def test_settings_and_command_line_replace_the_defaults_under_vllms_names() -> None:
    arguments = build("--max-loras", "3", vllm={"max_model_len": 512, "max-cpu-loras": 5})
    assert value(arguments, "--max-loras") == "3"
    assert value(arguments, "--max-cpu-loras") == "5"
    assert value(arguments, "--max-model-len") == "512"
    assert arguments.argv.count("--max-loras") == 1


@pytest.mark.parametrize("given", [("--max-loras", "64"), ("--max-loras=64",)])
def test_residents_are_never_fewer_than_slots(given: tuple[str, ...]) -> None:
    assert value(build(*given), "--max-cpu-loras") == "64"
    assert value(build(vllm={"max_loras": 64}), "--max-cpu-loras") == "64"


def test_the_command_line_comes_after_the_settings() -> None:
    arguments = build("--max-model-len", "64", vllm={"max_model_len": 512})
    assert value(arguments, "--max-model-len") == "64"


def test_values_of_every_kind_are_spelled_as_vllm_reads_them() -> None:
    given = {
        "enforce_eager": True,
        "enable_prefix_caching": False,
        "compilation_config": {"mode": 0},
        "lora_target_modules": ["q_proj", "v_proj"],
        "seed": None,
    }
    text = " ".join(build(vllm=given).argv)
    assert "--enforce-eager --no-enable-prefix-caching" in text
    assert '--compilation-config {"mode": 0}' in text
    assert "--lora-target-modules q_proj v_proj" in text
    assert "--seed" not in text


@pytest.mark.parametrize("name", sorted(OWNED))
@pytest.mark.parametrize("how", ["settings", "flag", "equals", "negated", "underscores"])
def test_an_owned_option_is_refused_by_name_with_the_reason(name: str, how: str) -> None:
    dashed = name.replace("_", "-")
    extra = {
        "settings": (),
        "flag": (f"--{dashed}", "1"),
        "equals": (f"--{dashed}=1",),
        "negated": (f"--no-{dashed}",),
        "underscores": (f"--{name}", "1"),
    }[how]
    with pytest.raises(UsageError) as refused:
        build(*extra, vllm={dashed: 1} if how == "settings" else {})
    assert refused.value.subject == f"vllm option {name}"
    assert refused.value.remedy == OWNED[name]


def test_a_short_form_and_a_bare_argument_are_refused_too() -> None:
    with pytest.raises(UsageError, match="api_server_count"):
        build("-asc", "2")
    with pytest.raises(UsageError, match="is not an option"):
        build("some-model", "--max-loras", "2")


def test_what_looks_like_an_option_is_told_from_a_number() -> None:
    argv = ["--a-b", "-1", "--no-c", "--d.e=2", "--f", "x", "y", "-tp", "2"]
    assert list(options(argv)) == [("a_b", "-1"), ("c", ""), ("d", "2"), ("f", "x"), ("tp", "2")]
    assert list(options([])) == []


@pytest.mark.parametrize(("limit", "rank"), [(1, 1), (2, 8), (16, 16), (24, 32), (300, 320), (512, 512)])
def test_the_rank_is_the_next_one_that_vllm_takes(limit: int, rank: int) -> None:
    assert servable_rank(limit) == rank


def test_a_rank_beyond_vllm_is_refused() -> None:
    with pytest.raises(UsageError, match="max_lora_rank 513 exceeds 512"):
        build(limits=Limits(max_lora_rank=513))


def test_the_cache_on_the_cpu_is_sized_unless_the_user_does() -> None:
    flag = "--kv-cache-memory-bytes"
    assert value(build(machine=CPU), flag) == str(2**32)
    assert value(build(machine=replace(CPU, memory_bytes=2**30)), flag) == str(2**30)
    assert value(build(flag, "7", machine=CPU), flag) == "7"
    assert value(build("--gpu-memory-utilization", "0.5", machine=CPU), flag) is None
    assert value(build(machine=replace(CPU, cache_sized=True)), flag) is None
    assert value(build(machine=GPU), flag) is None


@pytest.mark.parametrize(("choice", "eager"), [("off", True), ("auto", False), ("on", False)])
def test_compilation_is_a_setting(choice: str, eager: bool) -> None:
    settings = EngineSettings.model_validate({"compile": choice})
    assert ("--enforce-eager" in build(engine=settings).argv) is eager


@pytest.mark.slow
def test_vllms_own_parser_takes_all_of_it_and_gives_the_owned_values_back() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from vllm.entrypoints.launchers.cli_args import make_arg_parser
        from vllm.utils.argparse_utils import FlexibleArgumentParser
    from serve.engine.child import _confirm

    arguments = build("--max-num-seqs", "4", vllm={"max_model_len": 512, "enforce_eager": True})
    parser = make_arg_parser(FlexibleArgumentParser())
    args = parser.parse_args(list(arguments.argv))
    _confirm(args, arguments.owned)
    assert (args.max_num_seqs, args.max_model_len, args.enforce_eager) == (4, 512, True)
    known = {action.dest for action in parser._actions}
    assert set(OWNED) <= known, "an owned option that vLLM does not know any more"
    abbreviated = parser.parse_args([*arguments.argv, "--hos", "0.0.0.0"])
    with pytest.raises(UsageError, match="host"):
        _confirm(abbreviated, arguments.owned)


def test_the_parsers_of_the_base_are_defaults_that_the_user_replaces_or_switches_off(tmp_path: Path) -> None:
    folder = make_base(tmp_path / "base", chat_template="{% if tools %}<tool_call>{% endif %}")

    def built(*extra: str, **given: Any) -> EngineArguments:
        return engine_arguments(ServeSettings(model=folder, **given), BASE, Limits(), GPU, extra=extra)

    assert value(built(), "--tool-call-parser") == "hermes"
    assert "--enable-auto-tool-choice" in built().argv
    assert value(built("--tool-call-parser", "xlam"), "--tool-call-parser") == "xlam"
    assert built("--tool-call-parser", "xlam").argv.count("--tool-call-parser") == 1
    assert value(built(vllm={"tool_call_parser": "xlam"}), "--tool-call-parser") == "xlam"
    off = built(engine=EngineSettings(parsers="off")).argv
    assert not {"--tool-call-parser", "--enable-auto-tool-choice", "--reasoning-parser"} & set(off)
    assert "--no-enable-auto-tool-choice" in built(vllm={"enable_auto_tool_choice": False}).argv
    assert value(build(), "--tool-call-parser") is None


def test_a_parser_of_the_users_own_is_imported_before_its_name_is_looked_up(tmp_path: Path) -> None:
    plugin = tmp_path / "mine.py"
    plugin.write_text(
        "from vllm.tool_parsers import ToolParser, ToolParserManager\n\n"
        "@ToolParserManager.register_module('mine_of_a_test')\nclass Mine(ToolParser):\n    pass\n"
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from vllm.tool_parsers import ToolParserManager
    assert "mine_of_a_test" not in ToolParserManager.list_registered()
    _import_parsers(argparse.Namespace(tool_parser_plugin=str(plugin), reasoning_parser_plugin=None))
    assert "mine_of_a_test" in ToolParserManager.list_registered()
