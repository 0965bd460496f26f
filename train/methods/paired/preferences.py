"""DPO and ORPO: learning from pairs of a better and a worse answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from train.config import TrainConfig
from train.dataset.containers.place import Where
from train.dataset.forms.mapping import PLAIN, RowMapping
from train.epoch.duration import Epoch
from train.epoch.encoding import Tokenizer
from train.epoch.items import ItemFile, TrainingItem
from train.methods.interface import Method, TrainerInputs
from train.methods.paired.pair_losses import dpo_loss, orpo_loss
from train.methods.paired.pair_trainer import make_pair_trainer
from train.methods.paired.pairs import pair_epoch, read_pairs
from train.settings.methods import Dpo, Orpo


class _PairMethod(Method):
    """What both have in common: their rows, and an adapter as the result."""

    def read(
        self, path: Where, tokenizer: Tokenizer, config: TrainConfig, reading: RowMapping = PLAIN
    ) -> ItemFile[TrainingItem]:
        """Return every pair, rendered with the base's template.

        Raises: UsageError: naming file and row.
        """
        return read_pairs(path, tokenizer, config, reading)

    def epoch(self, items: Sequence[TrainingItem], config: TrainConfig) -> Epoch:
        """Return the pairs, with the tokens of both answers."""
        del config
        return pair_epoch(items)


class DpoMethod(_PairMethod):
    """Direct preference optimisation against the frozen start: the base, or the version of `from`."""

    def build(self, inputs: TrainerInputs) -> Any:
        """Return the trainer."""
        settings = inputs.run.config.method
        assert isinstance(settings, Dpo)

        def loss(policy: Any, start: Any) -> Any:
            return dpo_loss(policy, start, settings)

        return make_pair_trainer(inputs, loss, reference=True)


class OrpoMethod(_PairMethod):
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
