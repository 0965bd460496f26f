"""The rows that are measured are the longest and the median ones, and the sums follow from the steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from registry.store import Registry
from tests.train.tiny import make_tiny_base, tiny_config, train, write_rows
from train.epoch.encoding import Example
from train.runs.estimate import chosen, estimate
from train.runs.run import prepare

pytestmark = [pytest.mark.training, pytest.mark.timeout(600)]


def example(length: int) -> Example:
    return Example(length, tuple(range(length)), tuple(range(length)), truncated=False)


def test_the_longest_rows_come_first_and_then_those_of_median_length() -> None:
    rows = chosen([example(length) for length in range(1, 101)], 4)
    lengths = [row.length for row in rows]
    assert lengths[:4] == [100, 99, 98, 97]
    assert len(lengths) == 12
    assert all(45 <= length <= 56 for length in lengths[4:])


def test_few_rows_are_measured_more_than_once() -> None:
    assert [row.length for row in chosen([example(2), example(5)], 4)][:2] == [5, 2]
    assert len(chosen([example(2), example(5)], 4)) == 2 + 8


def test_an_estimate_is_kept_and_the_run_records_its_own_figures_beside_it(
    tmp_path: Path, tokenizer: Any
) -> None:
    write_rows(tmp_path)
    base = make_tiny_base(tmp_path / "base", tokenizer)
    registry = Registry.init(tmp_path / "root", base, name="tiny-base")
    config = tiny_config(tmp_path, training={"steps": 5}, checkpoints={"best_by": "eval_loss"})
    found = estimate(prepare(config, registry), registry, price_per_hour=3600.0)
    assert found.steps == 5
    assert len(found.measured_seconds) == 3
    assert found.cost == pytest.approx(found.seconds, abs=0.06)
    assert found.peak_memory_bytes > 10_000_000
    assert registry.adapters() == []
    finished = train(registry, config)
    summary: Any = finished.job.status().summary
    assert summary["estimate"]["seconds"] == found.seconds
    assert summary["steps"] == 5
