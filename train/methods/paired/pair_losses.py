"""The losses over preference pairs, as functions of log-probabilities.

Owns the formulas, which are tested against TRL's own. Invariant: every loss is one number per pair, so its
mean over a step is the same in one batch as in several of equal size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from train.settings.methods import Dpo, Orpo


@dataclass(frozen=True, slots=True)
class PairScores:
    """Tensors [pairs]: the answers' summed log-probabilities (nats) and their numbers of tokens."""

    chosen: Any
    rejected: Any
    chosen_tokens: Any
    rejected_tokens: Any


@dataclass(frozen=True, slots=True)
class PairLoss:
    """Tensors [pairs]: the loss, and the implicit rewards that it compares; `notes` are for the log."""

    loss: Any
    chosen_reward: Any
    rejected_reward: Any
    notes: dict[str, Any]


def dpo_loss(policy: PairScores, start: PairScores, settings: Dpo) -> PairLoss:
    """Return the loss of `policy` against the frozen `start`.

    `supervised_weight` adds the chosen answer's mean loss per token (RPO, arXiv 2404.19733, eq. 1).
    """
    chosen, rejected = policy.chosen - start.chosen, policy.rejected - start.rejected
    loss = _preference_loss(chosen, rejected, policy, settings)
    notes = {"logps/chosen": policy.chosen, "logps/rejected": policy.rejected}
    if settings.supervised_weight:
        supervised = -policy.chosen / policy.chosen_tokens
        notes["nll_loss"] = supervised
        loss = loss + settings.supervised_weight * supervised
    return PairLoss(loss, settings.beta * chosen, settings.beta * rejected, notes)


def orpo_loss(policy: PairScores, settings: Orpo) -> PairLoss:
    """Return the supervised loss of the chosen answer with the odds ratio (arXiv 2403.07691, eq. 6 and 7)."""
    from torch.nn.functional import logsigmoid

    chosen = policy.chosen / policy.chosen_tokens
    rejected = policy.rejected / policy.rejected_tokens
    log_odds = (chosen - rejected) - (_log_complement(chosen) - _log_complement(rejected))
    loss = -chosen - settings.beta * logsigmoid(log_odds)
    notes = {"nll_loss": -chosen, "log_odds_chosen": log_odds}
    return PairLoss(loss, settings.beta * chosen, settings.beta * rejected, notes)


def _log_complement(log_probability: Any) -> Any:
    """Return log(1 − p) of log p, without the loss of digits near p = 1 (Mächler 2012)."""
    import torch

    near_one = log_probability > -0.6931
    # The branch that is not taken must not make a gradient that is not a number.
    small = torch.where(near_one, log_probability, -0.1)
    large = torch.where(near_one, -1.0, log_probability)
    return torch.where(near_one, torch.log(-torch.expm1(small)), torch.log1p(-large.exp()))


def _preference_loss(chosen: Any, rejected: Any, policy: PairScores, settings: Dpo) -> Any:
    from torch import relu
    from torch.nn.functional import logsigmoid

    logits = settings.beta * (chosen - rejected)
    match settings.loss:
        case "sigmoid":
            return -logsigmoid(logits)
        case "hinge":
            return relu(1 - logits)
        case "robust":
            flip = settings.label_smoothing
            return (flip * logsigmoid(-logits) - (1 - flip) * logsigmoid(logits)) / (1 - 2 * flip)
        case "ipo":
            # Per token, as its authors confirmed to TRL; sums would let long answers rule.
            gap = chosen / policy.chosen_tokens - rejected / policy.rejected_tokens
            return (gap - 1 / (2 * settings.beta)) ** 2
