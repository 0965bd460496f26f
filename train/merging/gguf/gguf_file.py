"""A merged model as one GGUF file, for llama.cpp, Ollama and LM Studio.

The `gguf` package writes the container but ships no converter; this is the small part of llama.cpp's own
(`convert_hf_to_gguf.py`) that the Llama architecture with a byte-level BPE tokenizer needs. Owns which models
that is: anything else is refused with llama.cpp's command. Invariant: what is written loads again with
transformers' own GGUF reader and answers alike (products.py compares it).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from registry.errors import UsageError
from train.rendering.template import template_of

if TYPE_CHECKING:
    import numpy as np

GGUF_NAME = "model.gguf"
QUANTIZED = ("q8_0", "q5_1", "q5_0", "q4_1", "q4_0")
"""The kinds of blocks (llama.cpp's names) that the `gguf` package itself makes; K-quants it only reads."""

_TYPES = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"} | {one: one.upper() for one in QUANTIZED}
_FILE_TYPES = {"float32": "ALL_F32", "bfloat16": "MOSTLY_BF16", "float16": "MOSTLY_F16"} | {
    one: f"MOSTLY_{one.upper()}" for one in QUANTIZED
}
_EMBEDDINGS = ("token_embd.weight", "output.weight")
_BLOCK = 32
# llama.cpp splits text by a named rule of its own; these are the tokenizer.json forms of the rules' regexes.
_BYTES: Mapping[str, object] = {"type": "ByteLevel", "use_regex": True}
_SPLITTERS: Mapping[str, list[Mapping[str, object]]] = {
    "gpt-2": [_BYTES],
    "smollm": [{"type": "Digits", "individual_digits": True}, _BYTES],
}


def check_exportable(base: Path) -> str:
    """Return llama.cpp's name of the base's way to split text.

    Raises: UsageError: when this writer does not know the model's architecture or tokenizer.
    """
    config = _read(base / "config.json")
    if config.get("architectures") != ["LlamaForCausalLM"]:
        raise _beyond(base, f"has the architecture {config.get('architectures')}")
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if isinstance(rope, dict) and rope.get("rope_type", "default") != "default":
        raise _beyond(base, f"scales its positions ({rope.get('rope_type')})")
    if config.get("attention_bias") or config.get("mlp_bias"):
        raise _beyond(base, "has biases")
    tokenizer = _read(base / "tokenizer.json")
    splitter = _splitter(tokenizer)
    if splitter is None:
        raise _beyond(base, "splits text by a rule that this writer does not know")
    return splitter


def write_gguf(model: Any, base: Path, dtype: str, path: Path) -> Path:
    """Write `model` (fp32) with the tokenizer of `base` to the new file `path`; return it.

    `dtype` is a float type or one of `QUANTIZED`. Takes the size of the file in memory. Vectors stay in fp32,
    embedding and head in 8 bits at least.
    """
    from gguf import GGUFWriter

    writer = GGUFWriter(path, "llama")
    _add_model(writer, model.config, dtype)
    _add_tokenizer(writer, base, check_exportable(base), model.config)
    for name, array, kind in _tensors(model, dtype):
        writer.add_tensor(name, array, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def load_gguf(path: Path) -> Any:
    """Load a GGUF file with transformers' own reader, in fp32."""
    import torch
    from transformers import AutoModelForCausalLM, GgufConfig

    from train.process.silence import quiet

    with quiet():
        return AutoModelForCausalLM.from_pretrained(
            path.parent,
            gguf_file=path.name,
            quantization_config=GgufConfig(dequantize=True),
            dtype=torch.float32,
            local_files_only=True,
        ).eval()


def _add_model(writer: Any, config: Any, dtype: str) -> None:
    from gguf import GGML_QUANT_VERSION, LlamaFileType

    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    writer.add_type("model")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(head)
    writer.add_value_length(head)
    writer.add_rope_dimension_count(head)
    writer.add_rope_freq_base(float(config.rope_parameters["rope_theta"]))
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    writer.add_file_type(LlamaFileType[_FILE_TYPES[dtype]])
    writer.add_quantization_version(GGML_QUANT_VERSION)


def _add_tokenizer(writer: Any, base: Path, splitter: str, config: Any) -> None:
    from gguf import TokenType
    from transformers import AutoTokenizer

    found = _read(base / "tokenizer.json")
    vocabulary: Any = found["model"]["vocab"] | {one["content"]: one["id"] for one in found["added_tokens"]}
    control = {one["id"] for one in found["added_tokens"] if one["special"]}
    own = {one["id"] for one in found["added_tokens"]} - control
    names = {number: token for token, number in vocabulary.items()}
    tokens = [names.get(number, f"[PAD{number}]") for number in range(config.vocab_size)]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(splitter)
    writer.add_token_list(tokens)
    writer.add_token_types([
        TokenType.CONTROL if number in control
        else TokenType.USER_DEFINED if number in own
        else TokenType.NORMAL if number in names
        else TokenType.UNUSED
        for number in range(config.vocab_size)
    ])  # fmt: skip
    merges = found["model"]["merges"]
    writer.add_token_merges([one if isinstance(one, str) else " ".join(one) for one in merges])
    tokenizer = AutoTokenizer.from_pretrained(base, local_files_only=True)
    for add, number in (
        (writer.add_bos_token_id, tokenizer.bos_token_id),
        (writer.add_eos_token_id, tokenizer.eos_token_id),
        (writer.add_unk_token_id, tokenizer.unk_token_id),
        (writer.add_pad_token_id, tokenizer.pad_token_id),
    ):
        if number is not None:
            add(number)
    writer.add_add_bos_token(tokenizer("a").input_ids[0] == tokenizer.bos_token_id)
    writer.add_add_space_prefix(value=False)
    if tokenizer.chat_template is not None:
        writer.add_chat_template(template_of(tokenizer))


def _tensors(model: Any, dtype: str) -> Iterator[tuple[str, np.ndarray, Any]]:
    from gguf import MODEL_ARCH, GGMLQuantizationType, get_tensor_name_map
    from gguf.quants import quantize

    config = model.config
    names = get_tensor_name_map(MODEL_ARCH.LLAMA, config.num_hidden_layers)
    for name, tensor in model.named_parameters():  # a tied head is not named twice
        array = tensor.detach().float().numpy()
        if name.endswith("q_proj.weight"):
            array = interleaved(array, config.num_attention_heads)
        elif name.endswith("k_proj.weight"):
            array = interleaved(array, config.num_key_value_heads)
        written = names.get_name(name, try_suffixes=(".weight",))
        assert written is not None, name
        kind = GGMLQuantizationType[_kind(written, array, dtype)]
        yield written, quantize(array, kind), kind


def _kind(name: str, array: np.ndarray, dtype: str) -> str:
    """Return the type of one tensor: whole blocks only, and embeddings, which everything reads, in 8 bits."""
    if array.ndim == 1:
        return "F32"
    if dtype in QUANTIZED and array.shape[-1] % _BLOCK:
        return "F16"
    return "Q8_0" if dtype in QUANTIZED and name in _EMBEDDINGS else _TYPES[dtype]


def interleaved(array: np.ndarray, heads: int) -> np.ndarray:
    """Reorder rows from halves (transformers) to pairs (llama.cpp), the way both rotate positions."""
    halves = array.reshape(heads, 2, array.shape[0] // heads // 2, *array.shape[1:])
    return halves.swapaxes(1, 2).reshape(array.shape)


def halved(array: np.ndarray, heads: int) -> np.ndarray:
    """Reorder rows back: from pairs to halves."""
    pairs = array.reshape(heads, array.shape[0] // heads // 2, 2, *array.shape[1:])
    return pairs.swapaxes(1, 2).reshape(array.shape)


def _splitter(tokenizer: Mapping[str, Any]) -> str | None:
    if tokenizer.get("model", {}).get("type") != "BPE" or tokenizer.get("normalizer") is not None:
        return None
    found = tokenizer.get("pre_tokenizer") or {}
    steps = found.get("pretokenizers", []) if found.get("type") == "Sequence" else [found]
    for name, wanted in _SPLITTERS.items():
        if len(steps) == len(wanted) and all(
            _has(step, one) for step, one in zip(steps, wanted, strict=True)
        ):
            return name
    return None


def _has(step: Mapping[str, Any], wanted: Mapping[str, object]) -> bool:
    return not step.get("add_prefix_space") and all(step.get(key) == value for key, value in wanted.items())


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _beyond(base: Path, fact: str) -> UsageError:
    remedy = (
        "merge with --as model and run llama.cpp's own converter: "
        "`python convert_hf_to_gguf.py OUT --outfile model.gguf`"
    )
    return UsageError(base.name, f"{fact}, which --as gguf does not write", remedy, param="as")
