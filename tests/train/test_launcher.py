"""What stands behind `--` is read once, before any process starts; what no run can do is refused."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from registry.errors import UsageError
from tests.train.tiny import tiny_config, write_rows
from train.loop.guards import weight_sums
from train.model.sharding import is_shared_out, put, whole_weights
from train.process.environment import use_one_gpu
from train.runs.launcher import Launch, check_launch, check_machine, read_launch

_FSDP = """\
distributed_type: FSDP
fsdp_config: {{fsdp_version: {version}, fsdp_auto_wrap_policy: TRANSFORMER_BASED_WRAP}}
num_processes: 3
"""


def _file(folder: Path, text: str) -> list[str]:
    path = folder / "launch.yaml"
    path.write_text(f"compute_environment: LOCAL_MACHINE\nmixed_precision: 'no'\n{text}")
    return ["--config_file", str(path)]


def test_options_and_file_are_read_as_accelerate_reads_them(tmp_path: Path) -> None:
    assert read_launch(["--multi_gpu", "--num_processes", "4"]) == Launch(4)
    assert read_launch(_file(tmp_path, _FSDP.format(version=2))) == Launch(3, fsdp=2)
    options = [*_file(tmp_path, _FSDP.format(version=1)), "--num_processes", "2"]
    assert read_launch(options) == Launch(2, fsdp=1)
    deepspeed = "distributed_type: DEEPSPEED\ndeepspeed_config: {zero_stage: 2}\nnum_processes: 2\n"
    assert read_launch(_file(tmp_path, deepspeed)) == Launch(2, deepspeed=True)
    assert read_launch(["--cpu", "--num_processes", "2"]).lone


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--bogus"], "unrecognized arguments: --bogus"),
        (["--multi_gpu", "--use_fsdp"], "only use one of"),
        (["--config_file", "absent.yaml"], "absent.yaml"),
    ],
)
def test_what_accelerate_refuses_is_one_error_with_its_words(options: list[str], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        read_launch(options)


@pytest.mark.parametrize(
    ("launch", "changes", "words"),
    [
        (Launch(2, deepspeed=True), {}, "DeepSpeed"),
        (Launch(2, fsdp=1), {}, "FSDP 1"),
        (Launch(2, fsdp=2), {"lora": {"kind": "dora"}}, "conversion"),
        (Launch(2, fsdp=2), {"method": "reward"}, "method reward"),
        (Launch(2), {"from": "nearest"}, "nearest"),
    ],
)
def test_what_several_processes_cannot_do_is_refused(
    tmp_path: Path, launch: Launch, changes: dict[str, Any], words: str
) -> None:
    write_rows(tmp_path)
    with pytest.raises(UsageError, match=words):
        check_launch(tiny_config(tmp_path, **changes), launch)


def test_what_accelerate_would_leave_out_in_silence_is_refused(tmp_path: Path) -> None:
    write_rows(tmp_path)
    config = tiny_config(tmp_path)
    with pytest.raises(UsageError, match="leaves it out"):
        check_machine(config, Launch(2, fsdp=2), gpu=False)
    with pytest.raises(UsageError, match="would start one here"):
        check_machine(config, Launch(2, lone=True), gpu=False)
    check_machine(config, Launch(2, fsdp=2), gpu=True)
    check_machine(config, Launch(2), gpu=False)


def test_a_run_of_one_process_sees_one_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    for before, after in ((None, "0"), ("3,1", "3"), ("", "")):
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        if before is not None:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", before)
        use_one_gpu()
        assert os.environ["CUDA_VISIBLE_DEVICES"] == after
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.setenv("LOCAL_RANK", "1")  # one of several shares them out
    use_one_gpu()
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "0,1"


def test_weights_in_pieces_are_read_and_written_whole() -> None:
    import torch
    from torch.distributed import HashStore, destroy_process_group, init_process_group
    from torch.distributed.fsdp import fully_shard

    init_process_group("gloo", store=HashStore(), rank=0, world_size=1)
    try:
        model = torch.nn.Sequential(torch.nn.Linear(4, 3, bias=False), torch.nn.Linear(3, 2, bias=False))
        model[0].requires_grad_(requires_grad=False)
        before = model[1].weight.detach().clone()
        assert not is_shared_out(model)
        fully_shard(model)
        assert is_shared_out(model)
        weights = whole_weights(model)
        assert list(weights) == ["1.weight"]
        assert type(weights["1.weight"]) is torch.Tensor
        assert torch.equal(weights["1.weight"], before)
        put(model[1].weight, 2 * before)
        assert torch.equal(whole_weights(model)["1.weight"], 2 * before)
        assert weight_sums(model)["1.weight"][0] == pytest.approx(2 * float(before.sum()))
    finally:
        destroy_process_group()
