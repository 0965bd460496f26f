"""When requests are due: the processes have the statistics that they are named after, and seeds hold."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from loadtests.runner.arrivals import draw_times, read_trace
from loadtests.runner.scenario import Arrival
from registry.errors import NotFound, UsageError


def gaps(seconds: float = 2_000.0, **fields: object) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    times = draw_times(Arrival.model_validate(fields), seconds, np.random.default_rng(7))
    assert (np.diff(times) >= 0).all()
    assert times[0] >= 0
    assert times[-1] < seconds
    return np.diff(times)


def test_constant_arrivals_are_equally_far_apart_and_begin_at_once() -> None:
    times = draw_times(Arrival(process="constant", rate=4), 2.0, np.random.default_rng(0))
    assert times == pytest.approx([0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75])


def test_poisson_gaps_are_exponential_with_the_wanted_rate() -> None:
    found = gaps(process="poisson", rate=5)
    assert found.mean() == pytest.approx(1 / 5, rel=0.03)
    assert stats.kstest(found, "expon", args=(0, 1 / 5)).pvalue > 0.01


def test_gamma_gaps_have_the_burstiness_as_their_shape() -> None:
    found = gaps(process="gamma", rate=5, burstiness=0.25)
    assert found.mean() == pytest.approx(1 / 5, rel=0.06)
    assert found.var() / found.mean() ** 2 == pytest.approx(1 / 0.25, rel=0.1)
    assert stats.kstest(found, "gamma", args=(0.25, 0, 0.2 / 0.25)).pvalue > 0.01


def test_a_burstiness_of_one_is_the_poisson_process_itself() -> None:
    poisson = draw_times(Arrival(process="poisson", rate=3), 50, np.random.default_rng(1))
    gamma = draw_times(Arrival(process="gamma", rate=3, burstiness=1.0), 50, np.random.default_rng(1))
    assert gamma == pytest.approx(poisson)


def test_stages_have_their_own_rates_and_repeat() -> None:
    arrival = Arrival.model_validate(
        {"process": "poisson", "stages": [{"rate": 100, "seconds": 10}, {"rate": 10, "seconds": 20}]}
    )
    times = draw_times(arrival, 60, np.random.default_rng(3))
    counts = [int(((times >= low) & (times < low + 10)).sum()) for low in (0, 10, 20, 30, 40, 50)]
    assert counts == pytest.approx([1_000, 100, 100, 1_000, 100, 100], rel=0.3)


def test_another_seed_gives_other_times_and_the_same_seed_the_same() -> None:
    arrival = Arrival(process="poisson", rate=10)
    first, again, other = (draw_times(arrival, 10, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert (first == again).all()
    assert len(first) != len(other) or (first != other).any()


def write(folder: Path, *rows: object) -> Path:
    path = folder / "trace.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_trace_of_ours_is_read_in_order_without_later_turns(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        {"at": 2.0, "model": "b", "prompt_tokens": 7, "max_tokens": 3, "turn": 0, "status": 200},
        {"at": 1.0, "model": "a"},
        {"at": 3.0, "model": "b", "turn": 1},
        {"at": 99.0, "model": "late"},
    )
    found = read_trace(path, 10.0, speed=2.0)
    assert [(one.at, one.model, one.prompt_tokens, one.max_tokens) for one in found] == [
        (0.5, "a", None, None),
        (1.0, "b", 7, 3),
    ]


def test_a_trace_in_the_form_of_mooncake_is_read_with_its_shared_blocks(tmp_path: Path) -> None:
    row = {"timestamp": 1500, "input_length": 1030, "output_length": 5, "hash_ids": [1, 2, 3]}
    (found,) = read_trace(write(tmp_path, row), 10.0, speed=1.0)
    assert (found.at, found.prompt_tokens, found.max_tokens, found.blocks) == (1.5, 1030, 5, (1, 2, 3))


@pytest.mark.parametrize(
    ("rows", "text"),
    [
        ([{"when": 1}], "trace.jsonl:1: is not an arrival"),
        ([{"at": 1}, "hello"], "trace.jsonl:2: is not an arrival"),
        ([{"at": 50}], "holds no arrival within 10 s"),
    ],
)
def test_a_broken_trace_is_named_with_its_line(tmp_path: Path, rows: list[object], text: str) -> None:
    with pytest.raises(UsageError, match=text):
        read_trace(write(tmp_path, *rows), 10.0, 1.0)


def test_a_trace_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="there is no such trace"):
        read_trace(tmp_path / "none.jsonl", 10.0, 1.0)
