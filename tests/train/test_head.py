"""Only learnt positions are scored, and the loss and every gradient stay what they were."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.train.small_trainings import build_small, make_tiny_base, quiet
from train.model.head import scored_where_learnt

pytestmark = pytest.mark.training


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory, tokenizer: Any) -> Path:
    return make_tiny_base(tmp_path_factory.mktemp("head") / "base", tokenizer)


@pytest.mark.parametrize("method", ["supervised", "dpo"])
def test_fewer_positions_are_scored_to_the_same_loss_and_gradients(
    base: Path, tmp_path: Path, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch
    from trl.trainer import utils

    _, trainer, _ = build_small(tmp_path, base, method)
    batch = trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))
    scored: list[int] = []
    function = utils._ChunkedLogProbFunction.apply

    class Counting:
        @staticmethod
        def apply(hidden: Any, *others: Any) -> Any:
            scored.append(hidden.shape[0])
            return function(hidden, *others)

    monkeypatch.setattr(utils, "_ChunkedLogProbFunction", Counting)

    def run() -> tuple[float, list[Any], int]:
        scored.clear()
        trainer.model.zero_grad()
        with quiet():
            loss = trainer.compute_loss(trainer.model, dict(batch))
        loss.backward()
        found = [one.grad.clone() for one in trainer.model.parameters() if one.grad is not None]
        return loss.item(), found, sum(scored)

    trainer.model.train()
    whole, gradients, everywhere = run()
    with scored_where_learnt():
        compact, others, learnt = run()
    assert 0 < learnt < everywhere / 2
    assert compact == pytest.approx(whole, rel=1e-6)
    assert len(gradients) == len(others) > 0
    for one, other in zip(gradients, others, strict=True):
        assert torch.allclose(one, other, rtol=1e-4, atol=1e-7)
    assert utils._use_triton(torch.device("cpu")) is False
