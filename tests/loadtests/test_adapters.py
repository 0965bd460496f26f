"""The adapters made for load are real ones: the registry takes them, and they have the wanted size."""

from __future__ import annotations

from pathlib import Path

import pytest

from loadtests.adapters import write_adapter
from registry.records import Limits
from registry.validation.adapter import inspect
from tests.fakes.base import SMOLLM2, base_record, make_base


@pytest.mark.parametrize("megabytes", [4, 20])
def test_the_registry_accepts_an_adapter_of_the_wanted_size(tmp_path: Path, megabytes: int) -> None:
    base = base_record(make_base(tmp_path / "base", SMOLLM2), SMOLLM2)
    folder = write_adapter(tmp_path / "adapter", base, 1, megabytes)
    size = (folder / "adapter_model.safetensors").stat().st_size
    assert 0.8 * megabytes * 1e6 < size <= megabytes * 1e6 + 100_000
    found = inspect(folder, base=base, limits=Limits(max_lora_rank=64), name="bench")
    assert len(found.target_modules) == 7


def test_another_seed_gives_another_digest(tmp_path: Path) -> None:
    base = base_record(make_base(tmp_path / "base", SMOLLM2), SMOLLM2)
    digests = {
        inspect(
            write_adapter(tmp_path / str(seed), base, seed, 1), base=base, limits=Limits(), name="bench"
        ).digest
        for seed in (1, 2)
    }
    assert len(digests) == 2
