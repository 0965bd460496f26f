"""A base's served name is taken from the part of its path that names a model."""

from __future__ import annotations

from pathlib import Path

import pytest

from registry.validation.intake.base_names import name_for_export, propose_name, same_base

REVISION = "12fd25f77366fa6b3b4b768ec3050bf629380bac"


@pytest.mark.parametrize(
    ("path", "name"),
    [
        (
            f"/c/hub/models--HuggingFaceTB--SmolLM2-135M-Instruct/snapshots/{REVISION}",
            "SmolLM2-135M-Instruct",
        ),
        (f"/c/models--gpt2/snapshots/{REVISION}", "gpt2"),
        ("/c/models--acme--a.b_c/snapshots/main", "a.b_c"),
        ("/c/models--acme--x", "x"),
        (f"/models/Qwen3-8B/snapshots/{REVISION}", "Qwen3-8B"),
        (f"/models/Qwen3-8B/{REVISION}", "Qwen3-8B"),
        ("/models/Qwen3-8B/0123456789ab", "Qwen3-8B"),
        ("/c/modelscope/hub/models/Qwen/Qwen3-8B", "Qwen3-8B"),
        ("/models/smollm2-135m-instruct", "smollm2-135m-instruct"),
        ("/models/base", "base"),
        ("/runs/support-sft/checkpoint-1000", "support-sft-checkpoint-1000"),
        ("/runs/support-sft/merged", "support-sft-merged"),
        ("/runs/support-sft/final", "support-sft-final"),
        ("/srv/llama-3.1-8b/model", "llama-3.1-8b"),
        ("/srv/llama-3.1-8b/1", "llama-3.1-8b-1"),
        ("/data/artifacts/4f0c9a6e-1111-4222-8333-444455556666/model", "model"),
        ("/opt/ml/model", "model"),
        ("/mnt/models", "models"),
        ("/models/llama@v2", "llama-v2"),
        ("/models/deadbeef", "deadbeef"),
    ],
)
def test_the_part_of_the_path_that_names_a_model_is_the_name(path: str, name: str) -> None:
    assert propose_name(Path(path)) == name


def test_where_the_path_says_nothing_the_models_own_config_is_asked() -> None:
    assert propose_name(Path("/opt/ml/model"), "HuggingFaceTB/SmolLM2-135M") == "SmolLM2-135M"
    for useless in ("/elsewhere/of/model", "Some Free Text", "acme/model", "", None):
        assert propose_name(Path("/opt/ml/model"), useless) == "model"
    assert propose_name(Path("/models/mine"), "HuggingFaceTB/SmolLM2-135M") == "mine"


def test_a_relative_path_is_named_by_the_folder_that_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "llama").mkdir()
    monkeypatch.chdir(tmp_path / "llama")
    assert propose_name(Path()) == "llama"
    assert propose_name(Path("../llama/")) == "llama"


@pytest.mark.parametrize(
    ("named", "same"),
    [
        ("HuggingFaceTB/SmolLM2-135M-Instruct", True),
        ("/home-of/someone/SMOLLM2-135m-instruct/", True),
        (f"/c/models--HuggingFaceTB--SmolLM2-135M-Instruct/snapshots/{REVISION}", True),
        ("C:\\models\\SmolLM2-135M-Instruct", True),
        ("HuggingFaceTB/SmolLM2-135M", False),
        ("other", False),
    ],
)
def test_the_base_is_known_by_its_name_in_any_case_and_place(named: str, same: bool) -> None:
    assert same_base(named, "smollm2-135m-instruct", Path("/models/base")) is same
    cached = Path(f"/c/models--HuggingFaceTB--SmolLM2-135M-Instruct/snapshots/{REVISION}")
    assert same_base(named, "chat", cached) is same


def test_an_export_names_the_base_in_words_that_lead_somewhere(tmp_path: Path) -> None:
    base = tmp_path / "smollm2"
    base.mkdir()
    (base / "config.json").write_text("{}")
    for kept in ("HuggingFaceTB/SmolLM2-135M-Instruct", "acme/llama.v2", str(base)):
        assert name_for_export(kept, "chat", base) == kept
        assert name_for_export(kept, "chat", tmp_path / "moved") == kept
    for lost in ("smollm2", "gpt2", "/nowhere/llama", "./llama", "C:\\llama", "a/b/c"):
        assert name_for_export(lost, "chat", base) == str(base)
        assert name_for_export(lost, "chat", tmp_path / "moved") == lost
    for nothing in (None, ""):
        assert name_for_export(nothing, "chat", base) == str(base)
        assert name_for_export(nothing, "chat", tmp_path / "moved") == "chat"
