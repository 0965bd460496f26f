"""The loss of the new rows under the base and under each candidate: one model, one adapter at a time.

Owns which tokens are measured (those that the run would learn) and that the base is itself again after each
adapter. The only file of this package that knows torch.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from train.config import TrainConfig
from train.epoch.encoding import IGNORED, Example
from train.epoch.items import TrainingItem
from train.methods.paired.kto import RatedAnswer
from train.methods.paired.pairs import Pair
from train.model.loading import ADAPTER, load_base, precision_of
from train.process.silence import quiet

Tokens = tuple[tuple[int, ...], tuple[int, ...]]
"""Ids and labels of one row; a label is `IGNORED` where nothing is measured."""


def measurable(item: TrainingItem, limit: int) -> Tokens | None:
    """Return the ids and labels that tell how well a row is known; None where it has no good answer.

    Of preference pairs the chosen answer counts, of rated answers the liked ones. At most `limit` tokens.
    """
    if isinstance(item, Example):
        ids, labels = item.input_ids, item.labels
    elif isinstance(item, Pair):
        ids, labels = _behind(item.prompt_ids, item.chosen_ids)
    elif isinstance(item, RatedAnswer) and item.liked:
        ids, labels = _behind(item.prompt_ids, item.answer_ids)
    else:
        return None
    ids, labels = ids[:limit], labels[:limit]
    return (ids, labels) if any(label != IGNORED for label in labels[1:]) else None


class Scales:
    """The base in memory, which weighs rows with and without an adapter; `close` frees it."""

    def __init__(self, config: TrainConfig, base: Path, rows: Sequence[Tokens]) -> None:
        with quiet():
            self._model = load_base(base, precision_of(config), config.quantization).eval()
        self._rows = rows
        _to_device(self._model)

    def base(self) -> float:
        """Return the base's mean loss per measured token, in nats."""
        return mean_loss(self._model, self._rows)

    def under(self, folder: Path) -> float:
        """Return the mean loss with the adapter in `folder` on the base.

        Raises: RuntimeError, ValueError, KeyError: PEFT cannot load it.
        """
        from peft import PeftConfig, PeftModel

        shape = PeftConfig.from_pretrained(str(folder))
        shape.base_model_name_or_path = self._model.name_or_path
        with quiet():
            adapted = PeftModel.from_pretrained(self._model, str(folder), ADAPTER, config=shape).eval()
            try:
                return mean_loss(adapted, self._rows)
            finally:
                self._model = adapted.unload()
                if hasattr(self._model, "peft_config"):
                    del self._model.peft_config

    def close(self) -> None:
        """Free the model."""
        del self._model
        gc.collect()


def mean_loss(model: Any, rows: Sequence[Tokens]) -> float:
    """Return the mean loss over all measured tokens of all rows, in nats."""
    import torch

    total, count = 0.0, 0
    with torch.no_grad():
        for ids, labels in rows:
            batch = torch.tensor([ids], device=model.device)
            places = [place for place, label in enumerate(labels[1:]) if label != IGNORED]
            scores = model(input_ids=batch, use_cache=False).logits[0, places].float()
            wanted = torch.tensor([labels[place + 1] for place in places], device=model.device)
            total += float(torch.nn.functional.cross_entropy(scores, wanted, reduction="sum"))
            count += len(places)
    return total / count


def _behind(prompt: tuple[int, ...], answer: tuple[int, ...]) -> Tokens:
    return (*prompt, *answer), (*(IGNORED for _ in prompt), *answer)


def _to_device(model: Any) -> None:
    from train.process.environment import device_has_gpu

    if device_has_gpu() and getattr(model, "hf_quantizer", None) is None:
        model.to("cuda")


def sample(items: Sequence[TrainingItem], limit: int, rows: int, keys: Iterator[bytes]) -> list[Tokens]:
    """Return at most `rows` measurable rows of `items`, drawn by `keys` (one per item), in their order."""
    drawn = sorted(
        (key, place, tokens)
        for place, (item, key) in enumerate(zip(items, keys, strict=False))
        if (tokens := measurable(item, limit)) is not None
    )[:rows]
    return [tokens for _, _, tokens in sorted(drawn, key=lambda one: one[1])]
