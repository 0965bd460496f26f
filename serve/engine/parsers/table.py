"""The tool and reasoning parsers of vLLM 0.32, and by what a base model shows that one is its own.

From vLLM's documentation of tool calling and reasoning, and the markers in the parsers' source. The first
row that fits is taken, so what is particular stands before what is common. A test compares the names with
vLLM's registry, the ones that are never chosen included.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec

from serve.engine.parsers.family import ModelFamily


@dataclass(frozen=True, slots=True)
class Format:
    """One parser: taken when the model's type is one of `types` (any, where there is none), the template has
    every mark of `marks` and none of `without`, and the tokenizer knows `tokens`.

    `bare` says that no template is needed: vLLM renders this family itself. `always`: only where no request
    can switch thinking off, since the parser does not see it. `package` must be importable.
    """

    parser: str
    types: tuple[str, ...] = ()
    marks: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    tokens: tuple[str, ...] = ()
    bare: bool = False
    always: bool = False
    package: str = ""

    def fits(self, family: ModelFamily) -> bool:
        """Return True when the model shows this format."""
        return (
            (not self.types or family.model_type in self.types)
            and all(mark in family.template for mark in self.marks)
            and not any(mark in family.template for mark in self.without)
            and (not self.always or family.always_thinks)
            and all(family.knows(token) for token in self.tokens)
            and (not self.package or find_spec(self.package) is not None)
        )

    @property
    def evidence(self) -> str:
        """Return by what it was known, for people."""
        if self.marks:
            return f"`{self.marks[0]}` in the chat template"
        return f"model_type {self.types[0]}" if self.types else "its tokenizer"


_QWEN = ("qwen3", "qwen3_moe", "qwen3_next", "qwen3_5", "qwen3_5_moe", "qwen3_vl", "qwen3_vl_moe")
_GLM = ("glm4_moe", "glm4_moe_lite", "glm4v_moe", "glm_moe_dsa")
_THINK = ("<think>", "</think>")

TOOLS: tuple[Format, ...] = (
    Format("openai", ("gpt_oss",), bare=True),
    Format("deepseek_v32", ("deepseek_v32",), bare=True),
    Format("deepseek_v4", ("deepseek_v4",), bare=True),
    Format("deepseek_v41", ("deepseek_v41",), bare=True),
    Format("kimi_k3", ("kimi_k3",), bare=True),
    Format("kimi_k2", marks=("<|tool_calls_section_begin|>",), tokens=("<|tool_calls_section_begin|>",)),
    Format("deepseek_v3", marks=("<｜tool▁calls▁begin｜>", "```json"), tokens=("<｜tool▁calls▁begin｜>",)),
    Format("deepseek_v31", marks=("<｜tool▁calls▁begin｜>",), tokens=("<｜tool▁calls▁begin｜>",)),
    Format("step3", marks=("<｜tool_calls_begin｜>",)),
    Format("step3p5", ("step3p5", "step3p7"), ("<tool_call>",)),
    Format("mimo", ("mimo", "mimo_v2", "mimo_v2_flash"), ("<tool_call>", "<function=")),
    Format("ling3", ("bailing_moe_v3", "bailing_moe_v3_vl"), ("<tool_call>",)),
    Format("hy_v4", ("hy_v4",), ("<tool_calls",)),
    Format("hy_v3", ("hy_v3",), ("<tool_calls",)),
    Format("plamo3", ("plamo3",)),
    Format("inkling", ("inkling",)),
    Format("muse_glimmer", ("muse_glimmer",)),
    Format("k2_horizon", marks=("<ifm|tool_calls>",)),
    Format("seed_oss", marks=("<seed:tool_call>",)),
    Format("minimax_m2", marks=("<minimax:tool_call>",)),
    Format("minimax_m3", ("minimax_m3", "minimax_m3_sparse")),
    Format("longcat", marks=("<longcat_tool_call>",)),
    Format("dots", marks=("<dots_function_call>",)),
    Format("gemma4", marks=("<|tool_call>",)),
    Format("functiongemma", marks=("<start_function_call>",)),
    Format("apertus", marks=("<|tools_prefix|>",)),
    Format("gigachat3", marks=("<|function_call|>",)),
    Format("gigachat3", marks=("function call<|role_sep|>",)),
    Format("lfm2", marks=("<|tool_list_start|>",), tokens=("<|tool_call_start|>", "<|tool_call_end|>")),
    Format("olmo3", marks=("<function_calls>",)),
    Format("internlm", marks=("<|plugin|>",)),
    Format("cohere_command4", ("cohere2_moe",), ("<|START_ACTION|>",), package="cohere_melody"),
    Format("cohere_command3", ("cohere2",), ("<|START_ACTION|>",), package="cohere_melody"),
    Format("granite-20b-fc", ("gpt_bigcode",), ("<function_call>",)),
    Format("granite", marks=("<|tool_call|>",)),
    Format("granite4", ("granitemoehybrid", "granite", "granitemoe"), ("<tool_call>",)),
    Format("ernie45", ("ernie4_5", "ernie4_5_moe"), ("<tool_call>",)),
    Format("jamba", ("jamba",), ("<tool_calls>",), tokens=("<tool_calls>", "</tool_calls>")),
    Format("hunyuan_a13b", ("hunyuan_v1_moe", "hunyuan_v1_dense", "hunyuan"), ("<tool_calls>",)),
    Format("phi4_mini_json", marks=("functools",)),
    Format("minicpm5", ("minicpm", "minicpm3", "minicpm5"), ("<function name=",)),
    Format("llama4_pythonic", ("llama4", "llama4_text"), ("<|python_start|>",)),
    Format("llama4_json", ("llama4", "llama4_text"), ("parameters",), tokens=("<|python_tag|>",)),
    Format("mistral", marks=("[TOOL_CALLS]",), tokens=("[TOOL_CALLS]",)),
    Format("glm47", marks=("<arg_key>",)),
    Format("qwen3_xml", marks=("<tool_call>", "<function=")),
    Format("hermes", marks=("<tool_call>",)),
    Format("llama3_json", marks=("<|python_tag|>",), tokens=("<|python_tag|>",)),
    Format("llama3_json", ("llama", "mllama"), ('"parameters"',), tokens=("<|python_tag|>",)),
    Format("pythonic", marks=("[func_name1(",)),
)
"""Tool formats; those without `bare` are taken only where the template shows a request's tools."""

REASONING: tuple[Format, ...] = (
    Format("openai_gptoss", ("gpt_oss",), bare=True),
    Format("deepseek_v3", ("deepseek_v32",), bare=True),
    Format("deepseek_v4", ("deepseek_v4",), bare=True),
    Format("deepseek_v41", ("deepseek_v41",), bare=True),
    Format("kimi_k3", ("kimi_k3",), bare=True),
    Format("kimi_k2", ("kimi_k2", "kimi_k25"), tokens=_THINK),
    Format("minimax_m2_append_think", ("minimax_m2",), tokens=_THINK),
    Format("minimax_m3", ("minimax_m3", "minimax_m3_sparse"), ("<mm:think>",)),
    Format("step3", ("step3_vl", "step3_text"), tokens=_THINK),
    Format("step3p5", ("step3p5", "step3p7"), tokens=_THINK),
    Format("mimo", ("mimo", "mimo_v2", "mimo_v2_flash"), tokens=_THINK),
    Format("ling3", ("bailing_moe_v3", "bailing_moe_v3_vl"), ("<think>",), tokens=_THINK),
    Format("hy_v4", ("hy_v4",), ("<think",)),
    Format("hy_v3", ("hy_v3",), ("<think",)),
    Format("plamo3", ("plamo3",), ("<think",)),
    Format("inkling", ("inkling",)),
    Format("muse_glimmer", ("muse_glimmer",)),
    Format("k2_horizon", marks=("<ifm|think",)),
    Format("seed_oss", marks=("<seed:think>",)),
    Format("gemma4", ("gemma4", "gemma4_text", "gemma4_unified"), ("<|channel>",)),
    Format("cohere_command4", ("cohere2_moe",), ("<|START_THINKING|>",), package="cohere_melody"),
    Format("cohere_command3", ("cohere2",), ("<|START_THINKING|>",), package="cohere_melody"),
    Format("granite", ("granite", "granitemoe"), ("Here is my thought process",)),
    Format("ernie45", ("ernie4_5", "ernie4_5_moe", "ernie4_5_moe_vl"), ("<think>",), tokens=_THINK),
    Format("hunyuan_a13b", ("hunyuan_v1_moe", "hunyuan_v1_dense", "hunyuan"), ("<think>",)),
    Format("nemotron_v3", ("nemotron_h",), ("<think>",), tokens=_THINK),
    Format("olmo3", ("olmo3",), ("<think>",)),
    Format("glm45", _GLM, ("<think>",), tokens=_THINK),
    Format("qwen3", _QWEN, ("<think>",), tokens=_THINK),
    Format("deepseek_v3", ("deepseek_v3",), ("</think>", "thinking"), tokens=_THINK),
    Format("mistral", marks=("[THINK]",), tokens=("[THINK]", "[/THINK]")),
    Format("deepseek_r1", marks=("<think>",), tokens=_THINK, always=True),
)
"""Ways to mark thoughts; those without `bare` are taken only where the template lets the model think."""

NEVER_TOOLS = ("glm45", "hf", "poolside_v1", "qwen3_coder", "qwen3_json", "xlam")
"""Second names of others (glm45, qwen3_coder, qwen3_json), what is told by a name alone (xlam, poolside_v1),
and `hf`, which takes its format from the tokenizer and cannot be mixed with a parser of another name."""

NEVER_REASONING = ("glm47", "granite_thinking_parser", "hf", "holo2", "minicpmv", "minimax_m2", "poolside_v1")
"""The same for thoughts."""
