"""A mixture has exactly the rows that its settings say, the same ones on every machine."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from train.epoch.items import ItemFile, TrainingItem
from train.epoch.mixture import Mixture, counts_of, mix, replay_rows
from train.settings.data import DataSettings


@dataclass(frozen=True)
class Row:
    """An item that says where it is from."""

    file: str
    row: int
    length: int = 3
    learnt: int = 2
    truncated: bool = False


def files(sizes: dict[str, int]) -> dict[str, ItemFile[TrainingItem]]:
    return {
        name: ItemFile(tuple(Row(name, number + 1) for number in range(size))) for name, size in sizes.items()
    }


def settings(sizes: dict[str, int], **changes: object) -> DataSettings:
    sources = [{"path": f"{name}.jsonl", "name": name} for name in sizes if name != "replay"]
    return DataSettings.model_validate({"train": sources, **changes})


def origin(item: Any) -> str:
    return str(item.file)


def counted(mixture: Mixture) -> dict[str, int]:
    found = [origin(item) for item in mixture.items]
    return {name: found.count(name) for name in mixture.shares}


SIZES = st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 40), min_size=1, max_size=6)


@given(SIZES, st.integers(0, 3))
def test_without_weights_every_row_comes_once(sizes: dict[str, int], seed: int) -> None:
    mixture = mix(files(sizes), settings(sizes), seed)
    assert counted(mixture) == sizes
    assert len(set(mixture.items)) == sum(sizes.values())


@given(SIZES, st.floats(1, 100), st.data())
def test_the_counts_follow_size_weight_and_temperature_and_add_up(
    sizes: dict[str, int], temperature: float, data: st.DataObject
) -> None:
    weights = {name: data.draw(st.floats(0.1, 10)) for name in sizes}
    sources = [{"path": name, "name": name, "weight": weights[name]} for name in sizes]
    given_settings = DataSettings.model_validate({"train": sources, "temperature": temperature})
    counts = counts_of(sizes, given_settings)
    total = sum(sizes.values())
    assert sum(counts.values()) == total
    assert min(counts.values()) >= 1
    raw = {name: (sizes[name] * weights[name]) ** (1 / temperature) for name in sizes}
    exact = {name: value * total / sum(raw.values()) for name, value in raw.items()}
    # One for the rounding, and one for each task that would have had no row at all.
    lifted = sum(value < 1 for value in exact.values())
    assert all(abs(counts[name] - exact[name]) <= 1 + lifted for name in sizes)


def test_a_high_temperature_makes_all_tasks_equal() -> None:
    sizes = {"small": 10, "large": 90}
    assert counts_of(sizes, settings(sizes, temperature=1000)) == {"small": 50, "large": 50}
    assert counts_of(sizes, settings(sizes, temperature=2)) == {"small": 25, "large": 75}


def test_a_task_drawn_beyond_its_size_repeats_evenly() -> None:
    sizes = {"small": 4, "large": 16}
    mixture = mix(files(sizes), settings(sizes, temperature=1000), 0)
    rows = [item.row for item in mixture.items if origin(item) == "small"]
    assert sorted(rows.count(number) for number in range(1, 5)) == [2, 2, 3, 3]
    assert mixture.shares["small"].passes == 2.5
    assert (mixture.shares["small"].tokens, mixture.shares["small"].learnt_tokens) == (30, 20)


@given(st.integers(1, 500), st.floats(0.01, 0.9))
def test_replay_is_its_share_of_all_rows(rows: int, share: float) -> None:
    found = replay_rows(rows, share)
    assert found >= 1
    assert found == 1 or abs(found - share * (rows + found)) <= 0.5


def test_replayed_rows_come_on_top_and_are_spread_over_the_epoch() -> None:
    sizes = {"own": 90, "replay": 40}
    mixture = mix(files(sizes), settings(sizes, replay={"path": "r.jsonl", "share": 0.1}), 0)
    assert counted(mixture) == {"own": 90, "replay": 10}
    places = [at for at, item in enumerate(mixture.items) if origin(item) == "replay"]
    assert min(places) < 30
    assert max(places) > 70


def test_a_limit_takes_some_rows_of_a_file_in_its_order_and_others_with_another_seed() -> None:
    limited = DataSettings.model_validate({"train": [{"path": "a", "name": "a", "limit": 5}]})
    first, second = (mix(files({"a": 50}), limited, seed).items for seed in (0, 1))
    assert len(first) == len(second) == 5
    assert first != second
    assert [item.row for item in first] == sorted(item.row for item in first)


def test_one_file_alone_keeps_its_order() -> None:
    mixture = mix(files({"a": 20}), settings({"a": 20}), 7)
    assert [item.row for item in mixture.items] == list(range(1, 21))


def test_the_order_is_the_same_on_every_machine() -> None:
    sizes = {"a": 30, "b": 20, "replay": 5}
    changes = {"temperature": 2, "replay": {"path": "r", "share": 0.2}}
    mixture = mix(files(sizes), settings(sizes, **changes), 42)
    written = ",".join(f"{origin(item)}{item.row}" for item in mixture.items)
    assert hashlib.sha256(written.encode()).hexdigest()[:16] == "25760744c99608c6"


@pytest.mark.parametrize("seed", [0, 1])
def test_the_same_seed_gives_the_same_order(seed: int) -> None:
    sizes = {"a": 30, "b": 20}
    assert mix(files(sizes), settings(sizes), seed) == mix(files(sizes), settings(sizes), seed)
    assert mix(files(sizes), settings(sizes), 2).items != mix(files(sizes), settings(sizes), seed).items
