"""Merging and converting on the real base: two or three training steps each, then the real store."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from registry.cli.main import run as command
from registry.store import Registry

pytestmark = [
    pytest.mark.training,
    pytest.mark.filterwarnings("ignore:bitsandbytes"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

Merge = Callable[..., dict[str, Any]]


@pytest.fixture
def root(base_folder: Path, tmp_path: Path) -> Path:
    Registry.init(tmp_path / "root", base_folder, name="smollm2")
    return tmp_path / "root"


@pytest.fixture
def merge(root: Path, capsys: pytest.CaptureFixture[str]) -> Merge:
    def call(*arguments: object) -> dict[str, Any]:
        capsys.readouterr()
        code = command(["--root", str(root), "train", "merge", *map(str, arguments), "--json"])
        captured = capsys.readouterr()
        assert code == 0, captured.err
        found: dict[str, Any] = json.loads(captured.out)
        return found

    return call


def ids(base: Path) -> Any:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base, local_files_only=True)
    rows = [f"Order {n}: where is my parcel? Ahoy! Parcel {n * 7} is at sea, matey." for n in range(4)]
    return tokenizer(rows, padding=True, return_tensors="pt").input_ids


def load(base: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, local_files_only=True)


def train(model: Any, rows: Any, rate: float) -> Any:
    optimiser = torch.optim.AdamW([one for one in model.parameters() if one.requires_grad], lr=rate)
    for _ in range(3):
        model(input_ids=rows, labels=rows).loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    return model


def adapter(base: Path, out: Path, **options: Any) -> Path:
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(1)
    modules = ["q_proj", "v_proj", "down_proj"]
    config = LoraConfig(r=8, lora_alpha=16, target_modules=modules, task_type="CAUSAL_LM", **options)
    train(get_peft_model(load(base), config), ids(base), 1e-3).save_pretrained(out)
    return out


def test_a_version_merges_into_a_model_within_the_tolerance(
    base_folder: Path, root: Path, merge: Merge, tmp_path: Path
) -> None:
    Registry.open(root).publish("support", adapter(base_folder, tmp_path / "trained"), who="tester")
    report = merge("support@1", tmp_path / "out", "--dtype", "float32")
    assert report["parity"]["kl"] <= report["parity"]["tolerance"]
    assert report["parity"]["effect"] > 0.1
    assert (tmp_path / "out" / "chat_template.jinja").read_bytes() == (
        base_folder / "chat_template.jinja"
    ).read_bytes()


@pytest.mark.parametrize(
    ("options", "residual", "lost"),
    [({"use_dora": True}, 0.4, 0.1), ({"init_lora_weights": "olora"}, 1e-3, 1e-3)],
    ids=["dora", "olora"],
)
def test_what_vllm_cannot_load_becomes_a_lora_that_registers_and_answers_alike(
    base_folder: Path,
    root: Path,
    merge: Merge,
    tmp_path: Path,
    options: dict[str, Any],
    residual: float,
    lost: float,
) -> None:
    source = adapter(base_folder, tmp_path / "trained", **options)
    arguments = ("--as", "lora", "--rank", 32, "--accept-residual", residual)
    report = merge(source, tmp_path / "out", *arguments)
    assert report["parity"]["lost"] < lost
    published = Registry.open(root).publish("support", tmp_path / "out", who="tester")
    assert (published.version.rank, published.warnings) == (32, ())


def test_a_full_fine_tune_becomes_a_lora_whose_residual_is_told(
    base_folder: Path, root: Path, merge: Merge, tmp_path: Path
) -> None:
    model = load(base_folder)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("_proj" in name)
    train(model, ids(base_folder), 2e-5).save_pretrained(tmp_path / "tuned")
    arguments = ("--as", "lora", "--rank", 32, "--accept-residual", 0.95)
    report = merge(tmp_path / "tuned", tmp_path / "out", *arguments)
    assert len(report["extraction"]["modules"]) == 210
    assert report["extraction"]["unheld"] == []
    assert 0.2 < report["extraction"]["residual"] < 0.95
    assert report["parity"]["lost"] < 0.95
    Registry.open(root).publish("support", tmp_path / "out", who="tester")


def test_the_gguf_file_answers_as_base_and_adapter(base_folder: Path, merge: Merge, tmp_path: Path) -> None:
    source = adapter(base_folder, tmp_path / "trained")
    report = merge(source, tmp_path / "out", "--as", "gguf", "--dtype", "float32")
    assert report["parity"]["kl"] <= 1e-8
    assert (tmp_path / "out" / "model.gguf").stat().st_size > 500_000_000
