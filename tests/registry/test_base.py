"""A base's record: a fingerprint that survives a move, and the shapes of what can carry a LoRA."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from registry.errors import NotFound, UsageError
from registry.validation.base import read_base
from registry.validation.canonical import sha256_hex
from tests.fakes.base import CHAT_TEMPLATE, TINY, make_base, write_base_weights
from tests.fakes.safetensors import TensorSpec


def edit(path: Path, **changes: object) -> None:
    fields = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({name: value for name, value in fields.items() if value is not ...}))


def test_a_model_folder_gives_its_name_shapes_and_template(tmp_path: Path) -> None:
    base = read_base(make_base(tmp_path / "m", tied=False), "tiny")
    assert (base.name, base.path) == ("tiny", tmp_path / "m")
    assert base.fingerprint.startswith("sha256:")
    assert len(base.fingerprint) == 71
    assert base.chat_template_sha256 == sha256_hex(CHAT_TEMPLATE.encode())
    assert base.modules == TINY.modules(tied=False)
    assert base.modules["model.layers.1.self_attn.k_proj"] == (32, 64)


def test_a_tied_model_has_a_head_of_its_embeddings_shape(tmp_path: Path) -> None:
    base = read_base(make_base(tmp_path / "m"), "tiny")
    assert base.modules["lm_head"] == base.modules["model.embed_tokens"] == (256, 64)


@pytest.mark.parametrize(
    ("architecture", "kept"),
    [
        ("LlamaForCausalLM", {"model.embed_tokens", "lm_head"}),
        ("CohereForCausalLM", {"model.embed_tokens"}),
        ("Qwen2ForCausalLM", set()),
        ("SomethingNew", set()),
    ],
)
@pytest.mark.parametrize("tied", [True, False])
def test_embeddings_are_listed_where_vllm_adapts_them(
    tmp_path: Path, architecture: str, kept: set[str], tied: bool
) -> None:
    folder = make_base(tmp_path / "m", tied=tied, config={"architectures": [architecture]})
    found = set(read_base(folder, "tiny").modules)
    assert found - set(TINY.modules(tied=False)) == set()
    assert found & {"model.embed_tokens", "lm_head"} == kept


def test_shards_and_one_file_give_the_same_record(tmp_path: Path) -> None:
    one = read_base(make_base(tmp_path / "m"), "tiny")
    shutil.rmtree(tmp_path / "m")
    many = read_base(make_base(tmp_path / "m", shards=3), "tiny")
    assert one == many
    assert (tmp_path / "m" / "model-00003-of-00003.safetensors").exists()


def test_a_nested_language_model_keeps_its_names(tmp_path: Path) -> None:
    base = read_base(make_base(tmp_path / "m", prefix="model.language_model."), "tiny")
    assert base.modules["model.language_model.layers.0.mlp.down_proj"] == (64, 128)


@pytest.mark.parametrize(
    "packed",
    [
        {"model.layers.0.self_attn.q_proj.qweight": TensorSpec("U8", (8, 64))},
        {"model.layers.0.self_attn.q_proj.weight_packed": TensorSpec("U8", (64, 8))},
        {"model.layers.0.self_attn.q_proj.weight": TensorSpec("U8", (2048, 1))},
    ],
)
def test_packed_weights_leave_the_shapes_unknown(tmp_path: Path, packed: dict[str, TensorSpec]) -> None:
    folder = make_base(tmp_path / "m")
    write_base_weights(folder, {**packed, "model.embed_tokens.weight": TensorSpec("BF16", (256, 64))})
    base = read_base(folder, "tiny")
    assert base.modules == {}
    assert base.fingerprint.startswith("sha256:")


@pytest.mark.parametrize("dtype", ["F8_E4M3", "I8", "F32", "F16"])
def test_one_value_per_element_is_not_packed(tmp_path: Path, dtype: str) -> None:
    folder = make_base(tmp_path / "m")
    weights = {"model.layers.0.self_attn.q_proj.weight": TensorSpec(dtype, (64, 64))}
    write_base_weights(folder, {**weights, "model.layers.0.x.weight_scale_inv": TensorSpec("F32", (1, 1))})
    assert read_base(folder, "tiny").modules == {"model.layers.0.self_attn.q_proj": (64, 64)}


def test_a_folder_without_safetensors_leaves_the_shapes_unknown(tmp_path: Path) -> None:
    folder = make_base(tmp_path / "m")
    (folder / "model.safetensors").unlink()
    assert read_base(folder, "tiny").modules == {}


def test_moving_or_saving_again_does_not_change_the_fingerprint(tmp_path: Path) -> None:
    folder = make_base(tmp_path / "m")
    before = read_base(folder, "tiny")
    edit(
        folder / "config.json",
        _name_or_path="/elsewhere",
        transformers_version="6.0",
        torch_dtype=...,
        dtype="float32",
    )
    edit(folder / "tokenizer_config.json", name_or_path="/elsewhere", padding_side="left", is_local=True)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(dict(reversed(config.items())), indent=7))
    moved = folder.rename(tmp_path / "other")
    assert read_base(moved, "renamed").fingerprint == before.fingerprint


def test_a_template_in_its_own_file_is_the_same_template(tmp_path: Path) -> None:
    folder = make_base(tmp_path / "m")
    before = read_base(folder, "tiny")
    edit(folder / "tokenizer_config.json", chat_template=...)
    assert read_base(folder, "tiny").chat_template_sha256 is None
    assert read_base(folder, "tiny").fingerprint != before.fingerprint
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE)
    assert read_base(folder, "tiny") == before


def test_the_default_of_several_templates_counts(tmp_path: Path) -> None:
    named = [{"name": "tool_use", "template": "x"}, {"name": "default", "template": CHAT_TEMPLATE}]
    folder = make_base(tmp_path / "m")
    expected = read_base(folder, "tiny").chat_template_sha256
    edit(folder / "tokenizer_config.json", chat_template=named)
    assert read_base(folder, "tiny").chat_template_sha256 == expected
    edit(folder / "tokenizer_config.json", chat_template=named[:1])
    assert read_base(folder, "tiny").chat_template_sha256 is None


CHANGES: list[Callable[[Path], object]] = [
    lambda folder: edit(folder / "config.json", hidden_size=65),
    lambda folder: edit(folder / "config.json", rope_parameters={"rope_theta": 1}),
    lambda folder: edit(folder / "config.json", quantization_config={"bits": 4}),
    lambda folder: edit(folder / "tokenizer_config.json", eos_token="<|other|>"),
    lambda folder: edit(folder / "tokenizer_config.json", chat_template="other"),
    lambda folder: edit(folder / "tokenizer.json", version="2.0"),
    lambda folder: (folder / "tokenizer.json").unlink(),
    lambda folder: (folder / "tokenizer.model").write_bytes(b"x"),
]


@pytest.mark.parametrize("change", CHANGES)
def test_another_config_tokenizer_or_template_is_another_base(
    tmp_path: Path, change: Callable[[Path], object]
) -> None:
    folder = make_base(tmp_path / "m")
    before = read_base(folder, "tiny").fingerprint
    change(folder)
    assert read_base(folder, "tiny").fingerprint != before


def test_a_folder_of_links_as_a_hub_cache_has_it_is_a_base(tmp_path: Path) -> None:
    real = make_base(tmp_path / "blobs")
    snapshot = tmp_path / "snapshot"
    snapshot.mkdir()
    for file in real.iterdir():
        (snapshot / file.name).symlink_to(file)
    assert read_base(snapshot, "tiny").modules == read_base(real, "tiny").modules


def test_a_missing_folder_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="is not a folder"):
        read_base(tmp_path / "absent", "tiny")
    (tmp_path / "file").write_text("x")
    with pytest.raises(NotFound, match="is not a folder"):
        read_base(tmp_path / "file", "tiny")


BREAKAGES: list[tuple[Callable[[Path], object], str]] = [
    (lambda folder: (folder / "config.json").write_text("{"), "is not valid JSON"),
    (lambda folder: (folder / "config.json").write_text("[]"), "is not a JSON object"),
    (lambda folder: (folder / "config.json").write_text("[" * 9999), "deeply"),
    (lambda folder: (folder / "tokenizer_config.json").write_bytes(b"\xff"), "is not valid JSON"),
    (lambda folder: (folder / "model.safetensors").write_bytes(b""), "is empty"),
    (lambda folder: (folder / "model.safetensors").write_bytes(b"\xff" * 100), "claims"),
    (lambda folder: (folder / "model.safetensors.index.json").write_text("{}"), "no weight_map"),
]


@pytest.mark.parametrize(("breakage", "fact"), BREAKAGES)
def test_a_broken_folder_is_wrong_usage_with_the_file_named(
    tmp_path: Path, breakage: Callable[[Path], object], fact: str
) -> None:
    folder = make_base(tmp_path / "m")
    breakage(folder)
    with pytest.raises(UsageError, match=fact) as caught:
        read_base(folder, "tiny")
    assert str(folder) in caught.value.subject
    assert caught.value.remedy


@pytest.mark.parametrize("name", ["../outside.safetensors", "/etc/passwd", "absent.safetensors", ".."])
def test_an_index_cannot_name_a_file_outside_the_folder(tmp_path: Path, name: str) -> None:
    folder = make_base(tmp_path / "m", shards=2)
    shutil.copy(folder / "model-00001-of-00002.safetensors", tmp_path / "outside.safetensors")
    edit(folder / "model.safetensors.index.json", weight_map={"model.embed_tokens.weight": name})
    with pytest.raises(UsageError, match="which is not in the folder"):
        read_base(folder, "tiny")
