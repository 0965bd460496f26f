"""A folder that holds no adapter is told what it holds, and where the adapter is."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from registry.errors import InvalidAdapter, NotFound
from registry.records import BaseModelInfo
from registry.validation.adapter import uploadable
from registry.validation.base import read_base
from tests.fakes.adapters import make_adapter
from tests.fakes.base import make_base
from tests.registry.inspecting import WEIGHTS, refusal


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> BaseModelInfo:
    return read_base(make_base(tmp_path_factory.mktemp("models") / "tiny"), "tiny")


def checkpoints(folder: Path, *names: str) -> None:
    for name in names:
        make_adapter(folder / name)


@pytest.mark.parametrize(
    ("names", "newest"),
    [
        (("checkpoint-500", "checkpoint-1000", "checkpoint-1500"), "checkpoint-1500"),
        (("checkpoint-99", "checkpoint-100"), "checkpoint-100"),
        (("epoch_2", "epoch_10", "epoch_9"), "epoch_10"),
        (("global_step200", "global_step1000"), "global_step1000"),
        (("epoch=1-step=900", "epoch=0-step=1000"), "epoch=0-step=1000"),
        (("0000100_adapters", "0000900_adapters", "0001000_adapters"), "0001000_adapters"),
    ],
)
def test_the_newest_checkpoint_is_suggested_by_its_number(
    tmp_path: Path, base: BaseModelInfo, names: tuple[str, ...], newest: str
) -> None:
    checkpoints(tmp_path / "run", *names)
    error = refusal(tmp_path / "run", base)
    assert error.remedy == (
        f"give one of its checkpoints, for instance the newest, {tmp_path / 'run' / newest}"
    )


def test_a_number_in_a_name_makes_no_checkpoint(tmp_path: Path, base: BaseModelInfo) -> None:
    checkpoints(tmp_path / "all", "r8", "r64", "steps-for-v2")
    shown = ", ".join(str(tmp_path / "all" / name) for name in ("r64", "r8", "steps-for-v2"))
    assert refusal(tmp_path / "all", base).remedy == f"it holds several adapters below: give one of {shown}"


def test_a_checkpoint_without_an_adapter_is_not_suggested(tmp_path: Path, base: BaseModelInfo) -> None:
    checkpoints(tmp_path / "run", "checkpoint-500", "checkpoint-1000")
    (tmp_path / "run" / "checkpoint-1000" / WEIGHTS).unlink()
    (tmp_path / "run" / "checkpoint-2000").mkdir()
    assert str(tmp_path / "run" / "checkpoint-500") in refusal(tmp_path / "run", base).remedy
    (tmp_path / "run" / "checkpoint-500" / WEIGHTS).unlink()
    remedy = refusal(tmp_path / "run", base).remedy
    assert "hold no adapter either (checkpoint-2000/ is the newest)" in remedy


def test_a_final_adapter_beside_the_checkpoints_is_named_too(tmp_path: Path, base: BaseModelInfo) -> None:
    checkpoints(tmp_path / "run", "checkpoint-500", "final")
    remedy = refusal(tmp_path / "run", base).remedy
    assert "checkpoint-500" in remedy
    assert f"(or {tmp_path / 'run' / 'final'})" in remedy


def test_an_adapter_that_is_not_called_default_is_found_in_its_folder(
    tmp_path: Path, base: BaseModelInfo
) -> None:
    make_adapter(tmp_path / "out" / "support")
    (tmp_path / "out" / "README.md").write_text("x")
    remedy = refusal(tmp_path / "out", base).remedy
    assert f"give {tmp_path / 'out' / 'support'} " in remedy
    make_adapter(tmp_path / "out" / "critic")
    remedy = refusal(tmp_path / "out", base).remedy
    assert f"give one of {tmp_path / 'out' / 'critic'}, {tmp_path / 'out' / 'support'}" in remedy


def test_a_repository_in_the_hubs_cache_leads_to_the_snapshot_of_its_main(
    tmp_path: Path, base: BaseModelInfo
) -> None:
    cache = tmp_path / "models--acme--support"
    for name in ("aaaa", "bbbb"):
        make_adapter(cache / "snapshots" / name)
    os.utime(cache / "snapshots" / "aaaa", (1, 1))
    assert str(cache / "snapshots" / "bbbb") in refusal(cache, base).remedy
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text("aaaa\n")
    assert str(cache / "snapshots" / "aaaa") in refusal(cache, base).remedy


def only(*names: str, config: str = "{}") -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        folder.mkdir()
        (folder / "adapter_config.json").write_text(config)
        for name in names:
            (folder / name).write_bytes(b"x")

    return write


@pytest.mark.parametrize(
    ("write", "fact", "remedy"),
    [
        (
            only("adapter_model-00001-of-00002.safetensors", "adapter_model.safetensors.index.json"),
            "several files (shards)",
            "join them",
        ),
        (only("adapters.safetensors"), "an MLX adapter", "convert it to PEFT's"),
        (only("support-f16.gguf"), "a llama.cpp adapter", "converted from"),
        (only("adapter_model.safetensors.dvc"), "DVC's pointer", "dvc pull"),
        (only("adapter_model.safetensors.incomplete"), "a download that was not finished", "again"),
        (only("pytorch_lora_weights.safetensors"), "diffusers", "language model"),
        (only("adapter.zip"), "an archive", "unpack"),
        (only("lora.safetensors"), "but lora.safetensors", "rename it to adapter_model.safetensors"),
    ],
)
def test_weights_in_another_form_are_called_by_it(
    tmp_path: Path, base: BaseModelInfo, write: Callable[[Path], None], fact: str, remedy: str
) -> None:
    write(tmp_path / "a")
    error = refusal(tmp_path / "a", base)
    assert error.reason == "modules"
    assert error.fact.startswith(f"{tmp_path / 'a'} holds no {WEIGHTS}")
    assert fact in error.fact
    assert remedy in error.remedy


@pytest.mark.parametrize(
    "name", ["adapter_model.bin", "adapter.pt", "epoch=1.ckpt", "pytorch_model.bin", "lit_model.pth"]
)
def test_pickled_weights_of_any_name_are_refused_unread(
    tmp_path: Path, base: BaseModelInfo, name: str
) -> None:
    only(name, "optimizer.pt", "training_args.bin", "rng_state_0.pth")(tmp_path / "a")
    error = refusal(tmp_path / "a", base)
    assert (error.reason, error.fact.startswith(name)) == ("pickle", True)


def test_what_a_trainer_pickles_beside_an_adapter_is_not_taken_for_its_weights(
    tmp_path: Path, base: BaseModelInfo
) -> None:
    only("optimizer.pt", "training_args.bin", "scheduler.pt", "rng_state.pth")(tmp_path / "a")
    assert refusal(tmp_path / "a", base).reason == "modules"


def test_an_mlx_config_beside_weights_of_our_name_is_called_mlx(tmp_path: Path, base: BaseModelInfo) -> None:
    config = '{"fine_tune_type":"lora","num_layers":16,"lora_parameters":{"rank":8,"scale":20.0}}'
    only(WEIGHTS, config=config)(tmp_path / "a")
    assert "MLX" in refusal(tmp_path / "a", base).fact


def test_a_file_in_place_of_a_folder_names_the_folder(tmp_path: Path, base: BaseModelInfo) -> None:
    folder = make_adapter(tmp_path / "a")
    error = refusal(folder / WEIGHTS, base)
    assert (error.fact, error.remedy) == (f"{folder / WEIGHTS} is a file", f"give its folder, {folder}")
    (tmp_path / "a.tar.gz").write_bytes(b"x")
    assert "unpack it" in refusal(tmp_path / "a.tar.gz", base).remedy


@pytest.mark.parametrize(
    ("path", "remedy"),
    [
        ("acme/support-lora", "`hf download acme/support-lora`"),
        ("https://example.com/acme/support-lora", "download it first"),
        ("s3://bucket/support", "download it first"),
        ("./absent", "give the folder of a PEFT adapter"),
        ("/nowhere/absent", "give the folder of a PEFT adapter"),
    ],
)
def test_what_lies_elsewhere_is_to_be_fetched_first(
    tmp_path: Path, base: BaseModelInfo, monkeypatch: pytest.MonkeyPatch, path: str, remedy: str
) -> None:
    monkeypatch.chdir(tmp_path)
    given = Path(path) if path != "./absent" else tmp_path / path
    assert remedy in refusal(given, base).remedy
    with pytest.raises(NotFound) as caught:
        read_base(given)
    assert remedy.replace("the folder of a PEFT adapter", "a model folder") in caught.value.remedy


def test_a_link_to_a_folder_that_is_gone_is_told(tmp_path: Path, base: BaseModelInfo) -> None:
    (tmp_path / "latest").symlink_to("gone")
    assert refusal(tmp_path / "latest", base).fact == (
        f"{tmp_path / 'latest'} is a link to {tmp_path / 'gone'}, which is not there"
    )


def test_an_upload_is_told_the_same_before_anything_is_sent(tmp_path: Path) -> None:
    checkpoints(tmp_path / "run", "checkpoint-9", "checkpoint-10")
    with pytest.raises(InvalidAdapter, match=r"checkpoint-10$"):
        uploadable(tmp_path / "run", "support")


def test_a_config_without_weights_in_a_loop_of_folders_is_answered(
    tmp_path: Path, base: BaseModelInfo
) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "up").symlink_to(tmp_path / "a")
    assert "holds no adapter_config.json" in refusal(tmp_path / "a", base).fact
