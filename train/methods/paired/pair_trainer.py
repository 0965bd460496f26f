"""TRL's DPO trainer over pairs that are token ids already, with our losses.

Owns the way of a batch of pairs through the model, and what is logged. TRL's own preparation of rows is
skipped; its sampler, collator and reference are used.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from train.methods.finishing import REFERENCE, finish
from train.methods.interface import TrainerInputs
from train.methods.paired.pair_losses import PairLoss, PairScores
from train.methods.paired.pairs import pair_rows

Loss = Callable[[PairScores, PairScores | None], PairLoss]
"""From the policy's scores and the start's (None where the method has no reference) to the loss."""


def make_pair_trainer(inputs: TrainerInputs, loss: Loss, *, reference: bool) -> Any:
    """Return a trainer that minimises `loss`; with `reference` the start's scores are made too."""
    from trl import DPOConfig

    settings = DPOConfig(
        **inputs.arguments,
        max_length=inputs.run.config.training.max_length,
        remove_unused_columns=False,  # `length` is for the sampler
        disable_dropout=inputs.run.config.lora.dropout == 0,
    )
    trainer = _trainer_class()(
        model=inputs.model,
        args=settings,
        train_dataset=pair_rows(inputs.run.items),
        eval_dataset=pair_rows(inputs.run.held_out) if inputs.run.held_out else None,
        processing_class=inputs.tokenizer,
        peft_config=inputs.peft_config,
        callbacks=list(inputs.callbacks),
    )
    trainer.pair_loss, trainer.has_reference = loss, reference
    return finish(trainer)


def _trainer_class() -> type[Any]:
    import torch
    from trl import DPOTrainer
    from trl.trainer.utils import use_adapter

    class PairTrainer(DPOTrainer):
        """Takes the rows as they are, and computes the loss that it was given."""

        pair_loss: Loss
        has_reference: bool

        def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
            return dataset

        def _compute_loss(self, model: Any, inputs: Any, return_outputs: bool) -> Any:
            policy, balance = self._scores(model, inputs)
            start = self._start(inputs) if self.has_reference else None
            found = self.pair_loss(policy, start)
            self._note(found, inputs)
            loss = found.loss.mean()
            if balance is not None:
                loss = loss + self.router_aux_loss_coef * balance
            return (loss, None) if return_outputs else loss

        def _scores(self, model: Any, inputs: Any) -> tuple[PairScores, Any]:
            mask = inputs["completion_mask"]
            extra = {"output_router_logits": True} if self.aux_loss_enabled else {}
            outputs = model(
                input_ids=inputs["input_ids"],
                attention_mask=inputs["attention_mask"],
                labels=inputs["input_ids"].masked_fill(mask == 0, -100),
                use_cache=False,
                fused_lm_head=True,
                **extra,
            )
            chosen, rejected = outputs.log_probs.sum(dim=1).chunk(2)
            chosen_tokens, rejected_tokens = mask[:, 1:].sum(dim=1).chunk(2)
            balance = outputs.aux_loss if self.aux_loss_enabled else None
            return PairScores(chosen, rejected, chosen_tokens, rejected_tokens), balance

        def _start(self, inputs: Any) -> PairScores:
            with torch.no_grad():
                if self.ref_model is not None:
                    return self._scores(self.ref_model, inputs)[0]
                model = self.accelerator.unwrap_model(self.model)
                with use_adapter(model, REFERENCE if REFERENCE in model.peft_config else None):
                    return self._scores(self.model, inputs)[0]

        def _note(self, found: PairLoss, inputs: Any) -> None:
            log = self._metrics["train" if self.model.training else "eval"]
            chosen, rejected = found.chosen_reward.detach(), found.rejected_reward.detach()
            figures = {
                "rewards/chosen": chosen,
                "rewards/rejected": rejected,
                "rewards/margins": chosen - rejected,
                "rewards/accuracies": (chosen > rejected).float(),
                **found.notes,
            }
            for name, value in figures.items():
                log[name].append(self.accelerator.gather(value.detach()).mean().item())
            if self.model.training:
                tokens = self.accelerator.gather(inputs["attention_mask"].sum()).sum().item()
                self._total_train_tokens += int(tokens)
            log["num_tokens"] = [self._total_train_tokens]

    return PairTrainer
