"""The real PEFT writes what `inspect` takes, and the real vLLM refuses the configs that it refuses."""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from registry.errors import InvalidAdapter
from registry.records import Limits
from registry.store import Registry
from registry.validation.adapter import InspectedAdapter, inspect
from registry.validation.base import read_base
from registry.validation.peft import check_servable, parse_config
from tests.fakes.adapters import ALL_LINEAR, Adapter

# Runs apart, so that Python's hash seed, which decides the order of PEFT's sets, can be chosen.
SAVE = """
import json, sys, torch, peft
from pathlib import Path
from transformers import LlamaConfig, LlamaForCausalLM
folder, cases = Path(sys.argv[1]), json.loads(sys.argv[2])
for tied in (True, False):
    torch.manual_seed(0)
    config = LlamaConfig(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, vocab_size=64, tie_word_embeddings=tied)
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder / f"base-{tied}")
for name, case in cases.items():
    model = LlamaForCausalLM.from_pretrained(folder / f"base-{case.pop('tied', True)}")
    lora = peft.get_peft_model(model, peft.LoraConfig(task_type="CAUSAL_LM", lora_alpha=16, **case))
    torch.manual_seed(0)
    for parameter, value in sorted(lora.named_parameters()):
        if "lora_" in parameter:
            torch.nn.init.normal_(value, std=0.02)
    lora.save_pretrained(folder / name)
"""
Case = dict[str, object]

TAKEN: dict[str, tuple[Case, tuple[str, ...]]] = {
    "all-linear": ({"r": 8, "target_modules": list(ALL_LINEAR)}, ALL_LINEAR),
    "by-word": ({"r": 4, "target_modules": "all-linear", "use_rslora": True, "tied": False}, ALL_LINEAR),
    "by-expression": ({"r": 4, "target_modules": r".*layers\.1.*(q|v)_proj"}, ("q_proj", "v_proj")),
    "two-ranks": (
        {"r": 4, "target_modules": ["q_proj", "v_proj"], "rank_pattern": {"layers.0.self_attn.q_proj": 8}},
        ("q_proj", "v_proj"),
    ),
    "embedding": (
        {"r": 4, "target_modules": ["q_proj", "embed_tokens"], "tied": False},
        ("embed_tokens", "q_proj"),
    ),
    "head": ({"r": 4, "target_modules": ["q_proj", "lm_head"], "tied": False}, ("lm_head", "q_proj")),
    "many-architectures": (
        {"r": 4, "target_modules": ["q_proj", "v_proj", "query_key_value", "c_attn", "W_pack", "dense"]},
        ("q_proj", "v_proj"),
    ),
    "head-alone": ({"r": 4, "target_modules": ["lm_head"], "tied": False}, ("lm_head",)),
    "one-layer": ({"r": 4, "target_modules": ["q_proj"], "layers_to_transform": [1]}, ("q_proj",)),
}
REFUSED: dict[str, tuple[Case, str]] = {
    "dora": ({"use_dora": True}, "bad_config"),
    "saved-module": ({"modules_to_save": ["lm_head"]}, "modules"),
    "olora": ({"init_lora_weights": "olora"}, "bad_config"),
    "tokens": ({"trainable_token_indices": [3, 5]}, "bad_config"),
    "lora-bias": ({"lora_bias": True}, "bad_config"),
    "bias": ({"bias": "all"}, "bad_config"),
    "rank": ({"r": 32}, "rank"),
}


def save(folder: Path, cases: dict[str, Case], *, hash_seed: int) -> Path:
    env = {**os.environ, "PYTHONHASHSEED": str(hash_seed), "HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, "-c", SAVE, str(folder), json.dumps(cases)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the real PEFT has saved every case, and their bases."""
    plain: Case = {"r": 4, "target_modules": ["q_proj"]}
    cases = {name: case for name, (case, _) in TAKEN.items()}
    cases |= {name: {**plain, **case} for name, (case, _) in REFUSED.items()}
    return save(tmp_path_factory.mktemp("peft"), cases, hash_seed=1)


def check(folder: Path, case: Case) -> InspectedAdapter:
    base = read_base(folder.parent / f"base-{case.get('tied', True)}", "base")
    return inspect(folder, base=base, limits=Limits(max_lora_rank=16), name="support")


@pytest.mark.training
def test_the_same_weights_saved_twice_by_peft_have_one_digest(saved: Path, tmp_path: Path) -> None:
    case, _ = TAKEN["all-linear"]
    again = save(tmp_path, {"all-linear": case}, hash_seed=2)
    folders = [saved / "all-linear", again / "all-linear"]
    written = [json.loads((folder / "adapter_config.json").read_text()) for folder in folders]
    assert written[0]["target_modules"] != written[1]["target_modules"], "PEFT's order is no longer random"
    assert written[0]["base_model_name_or_path"] != written[1]["base_model_name_or_path"]
    first, second = (check(folder, case) for folder in folders)
    assert first.digest == second.digest
    assert (first.rank, first.warnings) == (8, ())


@pytest.mark.training
@pytest.mark.parametrize("name", TAKEN)
def test_what_peft_saves_passes(saved: Path, name: str) -> None:
    case, leaves = TAKEN[name]
    found = check(saved / name, case)
    assert found.target_modules == tuple(sorted(leaves))
    expected = ("whole embeddings", "passed over, as PEFT and vLLM do")
    assert [one for one in found.warnings if not any(words in one for words in expected)] == []


LOAD = """
import sys
from peft import AutoPeftModelForCausalLM
for folder in sys.argv[1:]:
    model = AutoPeftModelForCausalLM.from_pretrained(folder)
    print(any(value.any() for name, value in model.named_parameters() if "lora_B" in name))
"""


@pytest.mark.training
def test_what_is_exported_loads_by_itself_in_peft(saved: Path, tmp_path: Path) -> None:
    registry = Registry.init(tmp_path / "root", saved / "base-True")
    for name, words in (("as-saved", ...), ("elsewhere", "/elsewhere/base"), ("nameless", None)):
        folder = Path(shutil.copytree(saved / "all-linear", tmp_path / name))
        config = json.loads((folder / "adapter_config.json").read_text())
        if words is not ...:
            config["base_model_name_or_path"] = words
            (folder / "adapter_config.json").write_text(json.dumps(config))
        registry.publish(name, folder, who="tester")
        registry.export(name, 1, tmp_path / "out" / name)
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, "-c", LOAD, *map(str, sorted((tmp_path / "out").iterdir()))]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=240, check=False)
    assert done.stdout.split() == ["True"] * 3, done.stderr[-2000:]


@pytest.mark.training
@pytest.mark.parametrize("name", REFUSED)
def test_what_peft_saves_and_vllm_cannot_serve_is_refused(saved: Path, name: str) -> None:
    case, reason = REFUSED[name]
    with pytest.raises(InvalidAdapter) as caught:
        check(saved / name, case)
    assert caught.value.reason == reason


CONFIGS: list[dict[str, object]] = [
    {}, {"use_rslora": True}, {"r": 16}, {"r": 17}, {"rank_pattern": {"q_proj": 16}},
    {"rank_pattern": {"q_proj": 17}}, {"use_dora": True}, {"bias": "all"}, {"lora_bias": True},
    {"init_lora_weights": "pissa_niter_4"}, {"init_lora_weights": "eva"}, {"init_lora_weights": "mica"},
    {"init_lora_weights": "loftq"}, {"alora_invocation_tokens": [1]},
    {"layer_replication": [[0, 1]]}, {"use_bdlora": {"nblocks": 2}}, {"use_qalora": True},
    {"modules_to_save": ["lm_head"]}, {"r": 0},
]  # fmt: skip
# Accepted by vLLM's check of the config, and wrong or refused later: ours is stricter on purpose.
STRICTER: list[dict[str, object]] = [
    {"peft_type": "IA3"}, {"trainable_token_indices": [1]}, {"modules_to_save": ["score"]},
    {"kasa_config": {"a": 1}}, {"init_lora_weights": "lora_ga"},
]  # fmt: skip


def vllm_accepts(changes: dict[str, object]) -> bool:
    from vllm.config.lora import LoRAConfig
    from vllm.lora.peft_helper import PEFTHelper

    try:
        PEFTHelper.from_dict(Adapter(config=changes).config_json()).validate_legal(
            LoRAConfig(max_lora_rank=16)
        )
    except ValueError:
        return False
    return True


def we_accept(changes: dict[str, object]) -> bool:
    try:
        config = parse_config(json.dumps(Adapter(config=changes).config_json()).encode(), "support")
        check_servable(config, Limits(max_lora_rank=16), "support")
    except InvalidAdapter:
        return False
    return True


@pytest.mark.engine
@pytest.mark.filterwarnings("ignore")
def test_the_config_check_agrees_with_vllms_own() -> None:
    logging.getLogger("vllm").setLevel(logging.ERROR)
    verdicts = {json.dumps(changes): (we_accept(changes), vllm_accepts(changes)) for changes in CONFIGS}
    assert {name: pair for name, pair in verdicts.items() if pair[0] != pair[1]} == {}
    assert sum(ours for ours, _ in verdicts.values()) == 6
    assert [(we_accept(changes), vllm_accepts(changes)) for changes in STRICTER] == [(False, True)] * 5


@pytest.mark.engine
@pytest.mark.filterwarnings("ignore")
def test_tensor_names_are_read_as_vllm_reads_them() -> None:
    from vllm.lora.utils import is_base_embedding_weights, parse_fine_tuned_lora_name

    from registry.validation.lora import pair_tensors
    from registry.validation.tensors import TensorInfo

    prefixes = [
        "base_model.model.model.layers.0.self_attn.q_proj",
        "model.layers.0.mlp.up_proj",
        "base_model.model.lm_head",
    ]
    for prefix in prefixes:
        names = (f"{prefix}.lora_A.weight", f"{prefix}.lora_B.weight")
        shapes = ((8, 4), (4, 8))
        tensors = [TensorInfo(name, "F32", shape, 0, 0) for name, shape in zip(names, shapes, strict=True)]
        (pair,) = pair_tensors(tensors, "support").pairs
        assert [parse_fine_tuned_lora_name(name) for name in names] == [
            (pair.module, True),
            (pair.module, False),
        ]
    strange = [
        "x",
        "base_model.model.a.bias",
        "base_model.model.a.lora_A.default.weight",
        "base_model.model.a.lora_magnitude_vector",
    ]
    for name in strange:
        with pytest.raises(ValueError, match="unsupported"):
            parse_fine_tuned_lora_name(name)
        with pytest.raises(InvalidAdapter):
            pair_tensors([TensorInfo(name, "F32", (2, 2), 0, 0)], "support")
    assert is_base_embedding_weights("base_model.model.model.embed_tokens.base_layer.weight")
