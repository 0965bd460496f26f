"""Every form of a merge keeps what was learnt, or says how much it loses: files, blocks, adapters, rows."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from registry.cli.main import run as command
from registry.store import Registry
from tests.fakes.base import TINY
from tests.fakes.llama import logits, make_llama
from tests.train.test_merging_cli import adapter
from tests.train.test_merging_gguf import byte_tokenizer
from train.merging.gguf.gguf_file import QUANTIZED, halved, interleaved
from train.merging.staging import new_file

Run = Callable[..., tuple[int, Any, str]]

TEMPLATE = (
    "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)
ROWS = [{"prompt": f"the {n}?", "completion": f"that {n * 7}"} for n in range(5)]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tokenizers.pre_tokenizers import ByteLevel

    folder = make_llama(tmp_path_factory.mktemp("base") / "tiny", replace(TINY, vocab=320))
    byte_tokenizer(folder, [ByteLevel(add_prefix_space=False)])
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    return folder


@pytest.fixture
def run(base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    Registry.init(tmp_path / "root", base, name="tiny")

    def call(*arguments: object) -> tuple[int, Any, str]:
        code = command(["--root", str(tmp_path / "root"), "train", "merge", *map(str, arguments), "--json"])
        captured = capsys.readouterr()
        return code, json.loads(captured.out) if code == 0 else None, captured.err

    return call


def distance(one: Any, other: Any) -> float:
    return float((logits(one) - logits(other)).abs().max())


def test_rows_of_the_users_are_measured_before_and_after(base: Path, run: Run, tmp_path: Path) -> None:
    model = adapter(base, tmp_path / "trained")
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    code, report, told = run(tmp_path / "trained", tmp_path / "out", "--data", tmp_path / "mine.jsonl")
    assert code == 0, told
    found = report["loss"]
    assert (found["file"], found["rows"]) == ("mine.jsonl", 5)
    assert found["after"] == pytest.approx(found["before"], rel=1e-5)
    assert found["before"] != pytest.approx(found["base"], rel=1e-3)
    assert report["warnings"] == []
    # The same figure by hand: mean over the tokens of the answers and their end.
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base)
    losses: list[float] = []
    for row in ROWS:
        before = tokenizer(f"user: {row['prompt']}<|end|>assistant: ", add_special_tokens=False).input_ids
        whole = before + tokenizer(f"{row['completion']}<|end|>", add_special_tokens=False).input_ids
        with torch.inference_mode():
            scores = torch.log_softmax(model(torch.tensor([whole])).logits[0].float(), dim=-1)
        losses += [-float(scores[at - 1, whole[at]]) for at in range(len(before), len(whole))]
    assert found["tokens"] == len(losses)
    assert found["before"] == pytest.approx(sum(losses) / len(losses), rel=1e-4)


def test_a_loss_that_rises_by_more_than_one_percent_is_a_warning(
    base: Path, run: Run, tmp_path: Path
) -> None:
    adapter(base, tmp_path / "trained", lora_alpha=64)
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    arguments = (tmp_path / "trained", tmp_path / "out.gguf", "--as", "gguf", "--quantize", "q4_0")
    code, report, told = run(*arguments, "--data", tmp_path / "mine.jsonl")
    assert code == 0, told
    loss, warnings = report["loss"], report["warnings"]
    rose = loss["after"] > loss["before"] * 1.01
    assert bool(warnings) == rose
    assert not rose or "the loss on mine.jsonl rose by" in warnings[0]


def test_without_rows_what_is_lost_of_the_logits_is_a_warning(base: Path, run: Run, tmp_path: Path) -> None:
    adapter(base, tmp_path / "trained")
    arguments = (tmp_path / "trained", tmp_path / "out", "--as", "gguf", "--quantize", "q4_0")
    code, report, told = run(*arguments)
    assert code == 0, told
    assert report["parity"]["lost"] > 0.01
    assert "of what training changed is lost in q4_0; --as gguf-lora keeps all of it" in report["warnings"][0]


def test_a_name_that_ends_in_gguf_is_the_file_itself_with_its_report_beside(
    base: Path, run: Run, tmp_path: Path
) -> None:
    from train.merging.gguf.gguf_file import load_gguf

    model = adapter(base, tmp_path / "trained")
    code, report, told = run(tmp_path / "trained", tmp_path / "pinto.gguf", "--as", "gguf")
    assert code == 0, told
    assert (tmp_path / "pinto.gguf").is_file()
    assert report["size_bytes"] == (tmp_path / "pinto.gguf").stat().st_size
    assert json.loads((tmp_path / "pinto.merge.json").read_text())["form"] == "gguf"
    assert distance(load_gguf(tmp_path / "pinto.gguf"), model) < 1e-4
    assert run(tmp_path / "trained", tmp_path / "pinto.gguf", "--as", "gguf")[0] == 1


def test_a_file_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> None:
        with new_file(tmp_path / "x.gguf", "merge.json") as folder:
            (folder / "model.gguf").write_text("half")
            raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        fail()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", QUANTIZED)
def test_blocks_are_smaller_and_read_by_an_independent_reader(
    base: Path, run: Run, tmp_path: Path, kind: str
) -> None:
    from gguf import GGUFReader

    adapter(base, tmp_path / "trained")
    code, report, told = run(tmp_path / "trained", tmp_path / "q.gguf", "--as", "gguf", "--quantize", kind)
    assert code == 0, told
    assert report["dtype"] == kind
    tensors = {one.name: one.tensor_type.name for one in GGUFReader(tmp_path / "q.gguf").tensors}
    assert tensors["blk.0.attn_q.weight"] == kind.upper()
    assert tensors["token_embd.weight"] == "Q8_0"
    assert tensors["blk.0.attn_norm.weight"] == "F32"
    assert report["parity"]["kl"] < (1e-3 if kind == "q8_0" else 0.2)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"use_rslora": True, "rank_pattern": {"q_proj": 2}, "alpha_pattern": {"down_proj": 3}},
        {"target_modules": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]},
    ],
    ids=["plain", "patterns", "all"],
)
def test_an_adapter_is_written_in_llama_cpps_form(
    base: Path, run: Run, tmp_path: Path, options: dict[str, Any]
) -> None:
    from gguf import GGUFReader

    adapter(base, tmp_path / "trained", **options)
    code, report, told = run(tmp_path / "trained", tmp_path / "a.gguf", "--as", "gguf-lora")
    assert code == 0, told
    assert report["parity"]["kl"] < 1e-8
    assert report["parity"]["lost"] < 1e-3
    reader = GGUFReader(tmp_path / "a.gguf")
    fields = {
        name: reader.get_field(name) for name in ("general.type", "adapter.type", "general.architecture")
    }
    assert {name: field.contents() for name, field in fields.items() if field} == {
        "general.type": "adapter", "adapter.type": "lora", "general.architecture": "llama",
    }  # fmt: skip
    names = {one.name for one in reader.tensors}
    assert {"blk.0.attn_q.weight.lora_a", "blk.1.ffn_down.weight.lora_b"} <= names
    # The rows of a query are in pairs, as the base's own rows are in a GGUF file.
    from safetensors.torch import load_file

    ours = load_file(tmp_path / "trained" / "adapter_model.safetensors")
    b = ours["base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight"].float().numpy()
    written = next(one.data for one in reader.tensors if one.name == "blk.0.attn_q.weight.lora_b")
    config = json.loads((base / "config.json").read_text())
    scaled = interleaved(b, config["num_attention_heads"])
    assert np.corrcoef(written.ravel(), scaled.ravel())[0, 1] == pytest.approx(1.0, abs=1e-6)
    assert not np.allclose(written, b * (np.abs(written).max() / np.abs(b).max()))


def test_halves_and_pairs_are_each_others_inverse() -> None:
    rows = np.arange(48.0).reshape(16, 3)
    assert np.array_equal(halved(interleaved(rows, 2), 2), rows)
    assert not np.array_equal(interleaved(rows, 2), rows)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"use_dora": True}, "is not a plain LoRA (DoRA); make it one first"),
        ({"init_lora_weights": "pissa"}, "is not a plain LoRA (pissa); make it one first"),
        ({"target_modules": ["lm_head", "q_proj"]}, "adapts lm_head, which llama.cpp cannot adapt"),
    ],
    ids=["dora", "pissa", "head"],
)
@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`")
@pytest.mark.filterwarnings("ignore:Setting `save_embedding_layers`")
def test_what_llama_cpp_has_no_form_for_is_refused_with_the_way_out(
    base: Path, run: Run, tmp_path: Path, options: dict[str, Any], words: str
) -> None:
    adapter(base, tmp_path / "trained", **options)
    code, _, told = run(tmp_path / "trained", tmp_path / "a.gguf", "--as", "gguf-lora")
    assert code == 1
    assert words in told
    assert not (tmp_path / "a.gguf").exists()
