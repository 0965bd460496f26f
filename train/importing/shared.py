"""What Axolotl and LLaMA-Factory say alike: values of transformers' own arguments, and why keys have no
counterpart here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from train.importing.draft import Draft, Rule, Unusable, number, whole

_OPTIMISERS: Mapping[str, str] = {
    "adamw_torch": "adamw",
    "adamw_torch_fused": "adamw",
    "adamw_hf": "adamw",
    "adamw": "adamw",
    "paged_adamw_32bit": "adamw",
    "adamw_8bit": "adamw_8bit",
    "adamw_bnb_8bit": "adamw_8bit",
    "paged_adamw_8bit": "adamw_8bit",
}
_SCHEDULES: Mapping[str, str] = {
    "linear": "linear",
    "cosine": "cosine",
    "constant": "constant",
    "constant_with_warmup": "constant",
}

BASE = "the base is the root's: `wardrobe init --base FOLDER`"
TEMPLATE = "the base's own chat template is used, in training as in serving"
TOKENS = "new or changed tokens change the vocabulary, which vLLM does not swap with an adapter"
SPEED = "how fast the device computes is not part of what is learnt; kernels are chosen by the device"
MANY = "more than one device is a matter of `accelerate launch`, not of the config"
HUB = "nothing is loaded from or sent to a hub"
PLACE = "versions are kept in the root, not in a folder of the config's"
ANSWERS = "only answers are learnt, with their end of turn (`method: pretrain` learns plain text whole)"
SPLIT = "held-out rows are a file of their own: `wardrobe data split`, then data.eval"
PART_OF_RUN = "evaluation and checkpoints are counted in steps: evaluation.every, checkpoints.every"
WARMUP = "ours is a share of all steps: set training.warmup"
UNKNOWN = "has no counterpart that we know of"


def optimiser(value: Any) -> str:
    """Translate the name of an optimiser."""
    if str(value) not in _OPTIMISERS:
        raise Unusable("only AdamW and AdamW with 8-bit states are here; AdamW is taken")
    return _OPTIMISERS[str(value)]


def schedule(value: Any) -> str:
    """Translate the name of a schedule."""
    if str(value) not in _SCHEDULES:
        raise Unusable("only constant, linear and cosine are here; linear is taken")
    return _SCHEDULES[str(value)]


def positive(value: Any) -> float:
    """Read a number that our settings want above 0."""
    found = number(value)
    if found <= 0:
        raise Unusable("is not above 0, which ours must be; the default is taken")
    return found


COMMON: Mapping[str, Rule] = {
    "gradient_accumulation_steps": Rule("training.accumulation", whole),
    "learning_rate": Rule("training.learning_rate", positive),
    "weight_decay": Rule("training.weight_decay", number),
    "max_grad_norm": Rule("training.max_grad_norm", positive),
    "warmup_ratio": Rule("training.warmup", number),
    "seed": Rule("seed", lambda value: int(number(value))),
    "save_total_limit": Rule("checkpoints.keep", whole),
    "use_rslora": Rule("lora.rslora", bool),
    "peft_use_rslora": Rule("lora.rslora", bool),
}


def set_precision(draft: Draft) -> None:
    """Translate the switches for the precision; `auto` where none is on."""
    full, half = draft.take("bf16"), draft.take("fp16")
    single = draft.take("float32") or draft.take("fp32")
    if full is True or str(full).lower() in {"true", "full"}:
        draft.set("training.precision", "bf16")
    elif half is True or str(half).lower() == "true":
        draft.set("training.precision", "fp16")
    elif single:
        draft.set("training.precision", "fp32")


def set_steps(draft: Draft, epochs: Any) -> None:
    """Translate the length of the run, and a warm-up that is counted in steps where the steps are known."""
    draft.set("training.epochs", number(epochs))
    steps = draft.take("max_steps")
    if steps is not None and number(steps) > 0:
        draft.set("training.steps", whole(steps))
    warmup = draft.take("warmup_steps")
    if warmup is None or number(warmup) == 0 or draft.has("training.warmup"):
        return
    if draft.has("training.steps"):
        share = number(warmup) / whole(steps)
        draft.set("training.warmup", round(min(share, 0.99), 4))
    else:
        draft.leave("warmup_steps", warmup, WARMUP)


def set_keeping(draft: Draft) -> None:
    """Translate when it is measured and kept; what counts in parts of an epoch or of the run is named."""
    for key, ours in (("eval_steps", "evaluation.every"), ("save_steps", "checkpoints.every")):
        value = draft.take(key)
        if value is None:
            continue
        if number(value) >= 1 and number(value) == int(number(value)):
            draft.set(ours, int(number(value)))
        else:
            draft.leave(key, value, PART_OF_RUN)
    best, patience = draft.take("load_best_model_at_end"), None
    for key in ("early_stopping_patience", "early_stopping_steps"):
        patience = draft.take(key, patience)
    if not draft.has("data.eval"):
        draft.leave("load_best_model_at_end", best, SPLIT)
        draft.leave("early_stopping_patience", patience, SPLIT)
        if draft.config.get("evaluation", {}).pop("every", None) is not None:
            draft.leave("eval_steps", "set", SPLIT)
            draft.config.pop("evaluation")
        return
    if best:
        draft.set("checkpoints.best_by", "eval_loss")
    if patience:
        draft.set("early_stopping.patience", whole(patience))


def set_packing(draft: Draft, *, wanted: object) -> None:
    """Translate packing: plain text is always packed, preferences never."""
    if draft.config["method"]["type"] == "supervised":
        draft.set("method.packing", bool(wanted))
