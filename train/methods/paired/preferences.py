"""DPO and ORPO: learning from pairs of a better and a worse answer."""

from __future__ import annotations

from typing import Any

from train.methods.interface import TrainerInputs
from train.methods.paired.pair_losses import dpo_loss, orpo_loss
from train.methods.paired.pair_trainer import make_pair_trainer
from train.methods.paired.pairs import PairMethod
from train.settings.methods import Dpo, Orpo


class DpoMethod(PairMethod):
    """Direct preference optimisation against the frozen start: the base, or the version of `from`."""

    def build(self, inputs: TrainerInputs) -> Any:
        """Return the trainer."""
        settings = inputs.run.config.method
        assert isinstance(settings, Dpo)

        def loss(policy: Any, start: Any) -> Any:
            return dpo_loss(policy, start, settings)

        return make_pair_trainer(inputs, loss, reference=True)


class OrpoMethod(PairMethod):
    """Supervised loss and odds ratio in one; nothing is frozen."""

    def build(self, inputs: TrainerInputs) -> Any:
        """Return the trainer."""
        settings = inputs.run.config.method
        assert isinstance(settings, Orpo)

        def loss(policy: Any, _start: Any) -> Any:
            return orpo_loss(policy, settings)

        trainer = make_pair_trainer(inputs, loss, reference=False)
        trainer.ref_model = None
        return trainer
