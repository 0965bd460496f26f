"""Packed rows lose no token, and each part is trained as if it stood alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.store import Registry
from tests.fakes.llama import load_llama, make_llama
from tests.train.tiny import ROWS, make_tiny_base, tiny_config, train, write_rows
from train.epoch.encoding import IGNORED, Example
from train.methods.packing import TOKENS, collate, pack_stream, pack_whole
from train.runs.run import prepare

LIMIT = 32


@dataclass(frozen=True)
class Document:
    """What packing needs of an item."""

    input_ids: tuple[int, ...]
    labels: tuple[int, ...]

    @property
    def length(self) -> int:
        return len(self.input_ids)


def documents(longest: int) -> st.SearchStrategy[list[Document]]:
    ids = st.lists(st.integers(3, 250), min_size=1, max_size=longest).map(tuple)
    return st.lists(ids.map(lambda found: Document(found, found)), min_size=1, max_size=20)


@given(documents(LIMIT))
def test_every_row_is_in_exactly_one_pack_whole_and_within_the_limit(rows: list[Document]) -> None:
    packs = pack_whole(rows, LIMIT)
    parts = []
    for pack in packs:
        assert len(pack.input_ids) == len(pack.labels) == sum(pack.lengths) <= LIMIT
        at = 0
        for length in pack.lengths:
            parts.append(pack.input_ids[at : at + length])
            assert pack.labels[at] == IGNORED
            assert pack.labels[at + 1 : at + length] == pack.input_ids[at + 1 : at + length]
            at += length
    assert sorted(parts) == sorted(row.input_ids for row in rows)


@given(documents(LIMIT))
def test_no_two_packs_could_have_been_one(rows: list[Document]) -> None:
    lengths = sorted(sum(pack.lengths) for pack in pack_whole(rows, LIMIT))
    assert len(lengths) < 2 or lengths[0] + lengths[1] > LIMIT


@given(documents(5 * LIMIT))
def test_documents_end_to_end_keep_every_token_in_order(rows: list[Document]) -> None:
    packs = pack_stream(rows, LIMIT)
    assert [token for pack in packs for token in pack.input_ids] == [
        token for row in rows for token in row.input_ids
    ]
    assert all(pack.labels == pack.input_ids for pack in packs)
    assert {len(pack.input_ids) for pack in packs[:-1]} <= {LIMIT}
    assert 0 < len(packs[-1].input_ids) <= LIMIT


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return load_llama(make_llama(tmp_path_factory.mktemp("llama") / "base"))


def test_a_batch_of_packs_has_the_loss_of_its_rows_alone(model: Any) -> None:
    rows = examples([7, 12, 5, 20, 3, 9, 16, 2])
    packs = pack_whole(rows, LIMIT)
    assert len(packs) < len(rows) / 2
    batch = collate([vars_of(pack) for pack in packs], padding=1)
    assert batch.pop(TOKENS) == sum(row.length for row in rows)
    packed, learnt = loss(model, **batch)
    alone = [loss(model, **collated(row)) for row in rows]
    assert learnt == sum(count for _, count in alone)
    assert packed == pytest.approx(sum(total for total, _ in alone), rel=1e-5)


def test_the_position_ids_are_what_keeps_the_parts_apart(model: Any) -> None:
    (pack,) = pack_whole(examples([7, 12, 5]), LIMIT)
    batch = collate([vars_of(pack)], padding=1)
    batch.pop(TOKENS)
    apart, _ = loss(model, **batch)
    together, _ = loss(model, input_ids=batch["input_ids"], labels=batch["labels"])
    assert abs(apart - together) > 1e-3


def examples(lengths: list[int]) -> list[Example]:
    rows = []
    for number, length in enumerate(lengths, start=1):
        ids = tuple(3 + (number * 31 + place * 17) % 240 for place in range(length))
        asked = max(1, length // 3)
        rows.append(Example(number, ids, (IGNORED,) * asked + ids[asked:], truncated=False))
    return rows


def vars_of(pack: Any) -> dict[str, Any]:
    return {"input_ids": pack.input_ids, "labels": pack.labels, "seq_lengths": pack.lengths}


def collated(row: Example) -> dict[str, Any]:
    import torch

    return {"input_ids": torch.tensor([row.input_ids]), "labels": torch.tensor([row.labels])}


def loss(model: Any, *, input_ids: Any, labels: Any, position_ids: Any = None) -> tuple[float, int]:
    """Return the summed loss of a batch, and of how many tokens."""
    import torch

    with torch.no_grad():
        logits = model(input_ids=input_ids, position_ids=position_ids, use_cache=False).logits
    targets = labels[:, 1:].reshape(-1)
    found = torch.nn.functional.cross_entropy(
        logits[:, :-1].reshape(len(targets), -1), targets, ignore_index=IGNORED, reduction="sum"
    )
    return float(found), int((targets != IGNORED).sum())


@pytest.mark.training
def test_a_packed_epoch_has_every_token_once_in_fewer_steps(tokenizer: Any, tmp_path: Path) -> None:
    write_rows(tmp_path)
    registry = Registry.init(
        tmp_path / "root", make_tiny_base(tmp_path / "base", tokenizer), name="tiny-base"
    )
    settings = tiny_config(
        tmp_path,
        method={"type": "supervised", "packing": True},
        training={"steps": None, "epochs": 1, "batch_size": 1, "max_length": 256},
        checkpoints={"every": None},
    )
    found = train(registry, settings)
    assert found.published is not None
    assert found.result.tokens == prepare(settings, registry).mixture.shares["train"].tokens
    assert found.result.steps < ROWS / 3
    assert found.result.eval_loss is not None
