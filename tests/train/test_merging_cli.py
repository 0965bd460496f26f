"""`wardrobe train merge` on a whole Llama in miniature, through the command line and a real root."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from registry.cli.main import run as command
from registry.store import Registry
from tests.fakes.llama import load_llama, logits, make_llama, train_steps

pytestmark = [
    pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`"),
    pytest.mark.filterwarnings("ignore:Setting `save_embedding_layers`"),
]

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_llama(tmp_path_factory.mktemp("base") / "tiny")


@pytest.fixture
def root(base: Path, tmp_path: Path) -> Path:
    Registry.init(tmp_path / "root", base, name="tiny")
    return tmp_path / "root"


@pytest.fixture
def run(root: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    def call(*arguments: object) -> tuple[int, str, str]:
        code = command(["--root", str(root), "train", "merge", *map(str, arguments)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def adapter(base: Path, out: Path, **options: Any) -> Any:
    """Train an adapter, save its folder, and return its model."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(1)
    targets = ["q_proj", "k_proj", "down_proj"]
    given = {"r": 4, "lora_alpha": 8, "target_modules": targets, "task_type": "CAUSAL_LM"} | options
    model = get_peft_model(load_llama(base), LoraConfig(**given))
    initial = out.with_name(out.name + "-initial")
    model.save_pretrained(initial)
    train_steps(model).save_pretrained(out)
    return model


def distance(one: Any, other: Any) -> float:
    return float((logits(one) - logits(other)).abs().max())


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"use_dora": True},
        {"init_lora_weights": "pissa"},
        {"rank_pattern": {"q_proj": 2}, "use_rslora": True},
        {"target_modules": ["lm_head", "q_proj"]},
        {"modules_to_save": ["norm"]},
    ],
    ids=str,
)
def test_a_merged_folder_is_a_model_that_answers_as_base_and_adapter(
    base: Path, run: Run, tmp_path: Path, options: dict[str, Any]
) -> None:
    model = adapter(base, tmp_path / "trained", **options)
    code, printed, told = run(tmp_path / "trained", tmp_path / "out", "--dtype", "float32")
    assert (code, printed.strip()) == (0, str(tmp_path / "out")), told
    assert distance(load_llama(tmp_path / "out"), model) < 1e-4 < distance(load_llama(base), model)
    assert (tmp_path / "out" / "tokenizer.json").read_bytes() == (base / "tokenizer.json").read_bytes()
    report = json.loads((tmp_path / "out" / "merge.json").read_text())
    assert report["parity"]["kl"] < report["parity"]["tolerance"]
    assert (report["form"], report["dtype"], report["source"]) == ("model", "float32", "trained")


def test_a_version_of_the_root_is_merged_into_float32_which_loses_nothing(
    base: Path, root: Path, run: Run, tmp_path: Path
) -> None:
    adapter(base, tmp_path / "trained")
    version = Registry.open(root).publish("support", tmp_path / "trained", who="tester").version
    code, printed, told = run("support@1", tmp_path / "out", "--json")
    assert code == 0, told
    report = json.loads(printed)
    assert (report["source"], report["source_digest"]) == ("support@1", version.digest)
    assert report["dtype"] == "float32"
    assert json.loads((tmp_path / "out" / "config.json").read_text())["dtype"] == "float32"
    assert report["size_bytes"] == (tmp_path / "out" / "model.safetensors").stat().st_size
    assert report["warnings"] == []


def test_a_chat_template_of_the_adapter_wins_over_the_bases(base: Path, run: Run, tmp_path: Path) -> None:
    adapter(base, tmp_path / "trained")
    (tmp_path / "trained" / "chat_template.jinja").write_text("{{ messages[0]['content'] }}!")
    assert run(tmp_path / "trained", tmp_path / "out", "--dtype", "float32")[0] == 0
    assert (tmp_path / "out" / "chat_template.jinja").read_text() == "{{ messages[0]['content'] }}!"


def test_a_merge_that_loses_what_was_learnt_is_refused_and_leaves_nothing(
    base: Path, run: Run, tmp_path: Path
) -> None:
    model = adapter(base, tmp_path / "trained")
    with torch.no_grad():  # so small that bf16 rounds it away
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.mul_(1e-5)
    model.save_pretrained(tmp_path / "small")
    code, _, told = run(tmp_path / "small", tmp_path / "out", "--dtype", "bfloat16")
    assert code == 1
    assert "merged model in bfloat16: does not answer as base and adapter do" in told
    assert "--dtype float16 or float32" in told
    assert not [path for path in tmp_path.iterdir() if "out" in path.name]


@pytest.mark.parametrize(
    "init", [{"use_dora": True}, {"init_lora_weights": "pissa"}, {"lora_alpha": 3}], ids=str
)
def test_a_folder_becomes_a_lora_that_registers(
    base: Path, root: Path, run: Run, tmp_path: Path, init: dict[str, Any]
) -> None:
    model = adapter(base, tmp_path / "trained", **init)
    code, printed, told = run(
        *(tmp_path / "trained", tmp_path / "out", "--as", "lora"),
        *("--rank", 32, "--accept-residual", 0.1, "--json"),
    )
    assert code == 0, told
    report = json.loads(printed)
    assert report["extraction"]["residual"] <= 0.1
    assert report["parity"]["lost"] < 0.2
    published = Registry.open(root).publish("support", tmp_path / "out", who="tester")
    assert published.warnings == ()
    from peft import PeftModel

    plain = PeftModel.from_pretrained(load_llama(base), tmp_path / "out")
    assert distance(plain, model) < 0.2 * distance(load_llama(base), model)


def test_a_full_fine_tune_becomes_a_lora_within_the_share_that_is_accepted(
    base: Path, run: Run, tmp_path: Path
) -> None:
    train_steps(load_llama(base), rate=3e-3).save_pretrained(tmp_path / "tuned")
    code, _, told = run(tmp_path / "tuned", tmp_path / "out", "--as", "lora", "--rank", 16)
    assert code == 1
    assert "LoRA of rank 16: leaves out" in told
    assert not (tmp_path / "out").exists()
    code, _, told = run(
        tmp_path / "tuned", tmp_path / "out", "--as", "lora", "--rank", 32, "--accept-residual", 0.9
    )
    assert code == 0, told
    assert "warning: model.norm.weight changed, which no LoRA holds" in told


@pytest.mark.parametrize("init", ["pissa_niter_2", "pissa"])
def test_an_initialisation_that_cannot_be_repeated_needs_the_adapter_before_training(
    base: Path, run: Run, tmp_path: Path, init: str
) -> None:
    model = adapter(base, tmp_path / "trained", init_lora_weights=init)
    code, _, told = run(tmp_path / "trained", tmp_path / "first", "--as", "lora")
    assert ("--initial DIR" in told, code) == ((True, 1) if init == "pissa_niter_2" else (False, 0))
    initial = tmp_path / "trained-initial"
    code, _, told = run(
        tmp_path / "trained", tmp_path / "out", "--as", "lora", "--rank", 8, "--initial", initial
    )
    assert code == 0, told
    from peft import PeftModel

    plain = PeftModel.from_pretrained(load_llama(base), tmp_path / "out")
    assert distance(plain, model) < 1e-2 * distance(load_llama(base), model)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["support@7", "OUT"], 1, "support"),
        (["nowhere", "OUT"], 1, "is not a folder, nor a version of the root"),
        (["BASE", "OUT"], 2, "is a whole model already"),
        (["EMPTY", "OUT"], 2, "holds neither adapter_config.json nor config.json"),
        (["ADAPTER", "EMPTY"], 1, "exists already"),
        (["ADAPTER", "OUT", "--rank", "8"], 2, "--rank: is for --as lora"),
        (["ADAPTER", "OUT", "--as", "lora", "--rank", "64"], 2, "64 is not within 1 to 32"),
        (["ADAPTER", "OUT", "--as", "lora", "--rank", "0"], 2, "a whole number of at least 1, or auto"),
        (["ADAPTER", "OUT", "--as", "lora", "--rank", "٣"], 2, "a whole number of at least 1, or auto"),
        (["ADAPTER", "OUT", "--as", "lora", "--dtype", "float16"], 2, "is for --as model and gguf"),
        (["ADAPTER", "OUT", "--quantize", "q8_0"], 2, "--quantize: is for --as gguf, not --as model"),
        (
            ["ADAPTER", "OUT", "--as", "gguf", "--quantize", "q4_0", "--dtype", "float16"],
            2,
            "one of them out",
        ),
        (["BASE", "OUT", "--as", "gguf-lora"], 2, "is a whole model, and no adapter"),
        (["BASE", "OUT", "--as", "lora"], 1, "nothing was learnt"),
        (["ADAPTER", "OUT", "--as", "gguf"], 2, "convert_hf_to_gguf.py"),
    ],
    ids=str,
)
def test_what_cannot_be_merged_is_refused_with_the_way_out(
    base: Path, run: Run, tmp_path: Path, arguments: list[str], code: int, words: str
) -> None:
    (tmp_path / "empty").mkdir()
    adapter(base, tmp_path / "adapter")
    places = {
        "OUT": tmp_path / "out", "BASE": base, "EMPTY": tmp_path / "empty", "ADAPTER": tmp_path / "adapter"
    }  # fmt: skip
    found, _, told = run(*[places.get(one, one) for one in arguments])
    assert found == code
    assert words in told
    assert not (tmp_path / "out").exists()


def test_an_adapter_that_peft_would_load_in_part_is_refused(base: Path, run: Run, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    adapter(base, tmp_path / "trained")
    path = tmp_path / "trained" / "adapter_model.safetensors"
    tensors = load_file(path)
    renamed = {name.replace("layers.1.", "layers.1.inner."): value for name, value in tensors.items()}
    save_file(renamed, path, metadata={"format": "pt"})
    code, _, told = run(tmp_path / "trained", tmp_path / "out")
    assert code == 1
    assert "tensors that no module of the base takes" in told


def test_an_adapter_of_another_base_is_refused(run: Run, tmp_path: Path) -> None:
    from dataclasses import replace

    from tests.fakes.base import TINY

    other = make_llama(tmp_path / "other", replace(TINY, hidden=32))
    adapter(other, tmp_path / "trained")
    code, _, told = run(tmp_path / "trained", tmp_path / "out")
    assert code == 1
    assert "does not load on the base" in told
