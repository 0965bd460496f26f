"""What trainers on transformers say alike: its own arguments, and why keys have no counterpart here."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from train.importing.draft import Draft, Instead, KeyRule, is_empty, names, number, positive, switch, whole

_OPTIMISERS: Mapping[str, str] = {
    "adamw_torch": "adamw",
    "adamw_torch_fused": "adamw",
    "adamw_hf": "adamw",
    "adamw": "adamw",
    "paged_adamw": "adamw",
    "paged_adamw_32bit": "adamw",
    "adamw_8bit": "adamw_8bit",
    "adamw_bnb_8bit": "adamw_8bit",
    "adamw_torch_8bit": "adamw_8bit",
    "paged_adamw_8bit": "adamw_8bit",
}
_SCHEDULES: Mapping[str, str] = {
    "linear": "linear",
    "cosine": "cosine",
    "constant": "constant",
    "constant_with_warmup": "constant",
}
_PATTERN = re.compile(r"[\\^$*+?()\[\]{}|]")
_TRACKERS = frozenset({"wandb", "mlflow", "tensorboard"})

BASE = "the base is the root's: `wardrobe init --base FOLDER`"
CODE = "no code is run that comes with a model"
TEMPLATE = "the base's own chat template is used, in training as in serving"
TOKENS = "new or changed tokens change the vocabulary, which vLLM does not swap with an adapter"
WHOLE_MODULES = "vLLM serves no whole modules beside a LoRA: they are not trained"
SPEED = "how fast the device computes is not part of what is learnt"
MANY = "more than one device is a matter of `accelerate launch`, not of the config"
HUB = "nothing is sent to a hub"
PLACE = "versions are kept in the root, not in a folder of the config's"
ANSWERS = "only answers are learnt, with their end of turn (`method: pretrain` learns plain text whole)"
HELD_OUT = "no held-out rows are named: set data.eval, to a file or to {share: 0.05}"
PREPARED = "prepared rows are not kept: they are made anew each time"
PROCESSES = "how many processes read is not part of what is learnt"
LOGGING = "every step is logged"
RESUME = "say `train run --resume`"
PICTURES = "only text is trained: rows with pictures, sound or video are refused"
GRADERS = "its rewards are Python functions, which no config carries: write `method: grpo` with graders"
FULL = "every weight of the linear modules is trained and then becomes a LoRA, which is what vLLM swaps"
UNKNOWN = "has no counterpart that we know of"


def optimiser(value: Any) -> str | Instead:
    """Translate the name of an optimiser."""
    name = str(value)
    if name in _OPTIMISERS:
        return _OPTIMISERS[name]
    nearest = "adamw_8bit" if name.startswith(("adamw", "paged_adamw")) and "bit" in name else "adamw"
    return Instead(nearest, f"only AdamW, with states in 32 or 8 bits, is here; {nearest} is taken")


def schedule(value: Any) -> str | Instead:
    """Translate the name of a schedule."""
    name = str(value)
    if name in _SCHEDULES:
        return _SCHEDULES[name]
    nearest = "cosine" if name.startswith(("cosine", "one_cycle")) else "linear"
    return Instead(nearest, f"only constant, linear and cosine are here; {nearest} is taken")


def modules(value: Any) -> Any:
    """Translate names of modules: a list, text with commas, or a pattern, which stays one text."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, list):
        found = [str(name) for name in value]
        if any(_PATTERN.search(name) for name in found):
            return "|".join(f"(?:{_as_pattern(name)})" for name in found)
        return found
    text = str(value).strip()
    if text in {"all-linear", "all", "all_linear"}:
        return "all-linear"
    return text if _PATTERN.search(text) else names(text)


def _as_pattern(name: str) -> str:
    return name if _PATTERN.search(name) else rf"(?:.*\.)?{re.escape(name)}"


def length(value: Any) -> int | Instead:
    """Translate a number of tokens; none and -1 stand for the model's own."""
    found = number(value)
    return int(found) if found >= 2 else Instead(None, "is not at least 2; the default is taken")


COMMON: Mapping[str, KeyRule] = {
    "gradient_accumulation_steps": KeyRule("training.accumulation", whole),
    "learning_rate": KeyRule("training.learning_rate", positive),
    "weight_decay": KeyRule("training.weight_decay", number),
    "max_grad_norm": KeyRule("training.max_grad_norm", positive),
    "seed": KeyRule("seed", lambda value: int(number(value))),
    "use_rslora": KeyRule("lora.rslora", switch),
}


def widen_batch(draft: Draft) -> None:
    """Give KTO, which compares the rows of a batch, two at once where theirs has one; a step stays."""
    if draft.get("method.type") != "kto" or draft.get("training.batch_size") != 1:
        return
    times = draft.get("training.accumulation", 1)
    draft.set("training.batch_size", 2)
    draft.set("training.accumulation", max(1, times // 2))
    reason = "kto compares the rows of a batch: 2 are taken, and half as many batches for a step"
    draft.change("batch size", 1, reason)


def set_precision(draft: Draft) -> None:
    """Translate the switches for the precision; `auto` where none is on."""
    full = [draft.take(key, ours="training.precision") for key in ("bf16", "bfloat16")]
    half = [draft.take(key, ours="training.precision") for key in ("fp16", "float16")]
    single = [draft.take(key, ours="training.precision") for key in ("float32", "fp32")]
    if any(str(value).lower() in {"true", "full"} for value in full):
        draft.set("training.precision", "bf16")
    elif any(str(value).lower() == "true" for value in half):
        draft.set("training.precision", "fp16")
    elif any(str(value).lower() == "true" for value in single):
        draft.set("training.precision", "fp32")


def set_length(draft: Draft, key: str, default: float) -> None:
    """Translate the length of the run: epochs by `key`, and `max_steps`, which wins where it is above 0."""
    epochs = number(draft.take(key, default, ours="training.epochs"))
    if epochs > 0:
        draft.set("training.epochs", epochs)
    steps = draft.take("max_steps", ours="training.steps")
    if steps is not None and number(steps) > 0:
        draft.put("training.steps", steps, "max_steps", whole)


def set_warmup(draft: Draft) -> None:
    """Translate the warm-up: whole steps, or a share of all steps; steps win, as in transformers."""
    steps = draft.take("warmup_steps", ours="training.warmup")
    share = draft.take("warmup_ratio", ours="training.warmup")
    if steps is not None and number(steps) > 0:
        found = number(steps)
        draft.set("training.warmup", int(found) if found >= 1 else found)
    elif share is not None and number(share) < 1:
        draft.set("training.warmup", number(share))
    elif share is not None:
        draft.change("warmup_ratio", share, "is not a share below 1; the default is taken")


def set_keeping(draft: Draft) -> None:
    """Translate when it is measured and kept, which checkpoint is the result, and when a run ends early."""
    best = draft.source.get("save_strategy") == "best"
    for ours, strategies, steps, per_epoch in (
        ("evaluation.every", ("eval_strategy", "evaluation_strategy"), "eval_steps", "evals_per_epoch"),
        ("checkpoints.every", ("save_strategy",), "save_steps", "saves_per_epoch"),
    ):
        every = _every(draft, ours, strategies, steps, per_epoch)
        if every is not None:
            draft.set(ours, every)
    keep = draft.take("save_total_limit", ours="checkpoints.keep")
    if keep is not None and number(keep) >= 1:
        draft.put("checkpoints.keep", keep, "save_total_limit", whole)
    _set_best(draft, best=best)


def _every(draft: Draft, ours: str, strategies: tuple[str, ...], steps: str, per_epoch: str) -> Any:
    found = [str(draft.take(key, "", ours=ours)) for key in strategies]
    strategy = next((one for one in found if one), "")
    count, often = draft.take(steps, ours=ours), draft.take(per_epoch, ours=ours)
    if strategy in {"no", "False"}:
        return None
    if often is not None and number(often) > 0:
        return {"per_epoch": max(1, round(number(often)))}
    if strategy == "epoch":
        return {"per_epoch": 1}
    if count is None or number(count) <= 0:
        return 500 if strategy == "steps" and steps == "save_steps" else None
    if number(count) >= 1:
        return int(number(count))
    return _share_of_run(draft, steps, number(count))


def _share_of_run(draft: Draft, key: str, share: float) -> Any:
    """Return what a share of the whole run is in steps, or in parts of an epoch."""
    if (steps := draft.get("training.steps")) is not None:
        return max(1, round(share * steps))
    times = 1 / (share * draft.get("training.epochs", 3.0))
    found = max(1, round(times))
    if abs(found - times) > 1e-6:
        draft.change(key, share, f"is a share of the run; {found} times in an epoch is taken")
    return {"per_epoch": found}


def _set_best(draft: Draft, *, best: bool) -> None:
    wanted = draft.take("load_best_model_at_end", ours="checkpoints.best_by")
    patience = None
    for key in ("early_stopping_patience", "early_stopping_steps"):
        patience = draft.take(key, patience, ours="early_stopping.patience")
    metric = draft.take("metric_for_best_model")
    draft.take("greater_is_better")
    if draft.get("data.eval") is None:
        draft.lose("load_best_model_at_end", wanted, HELD_OUT)
        draft.lose("early_stopping_patience", patience, HELD_OUT)
        measured = next((one for one in draft.seen if one.ours == "evaluation.every"), None)
        if measured is not None and draft.get("evaluation.every") is not None:
            draft.lose(measured.key, measured.value, HELD_OUT)
        return
    if wanted or best or patience:
        draft.set("checkpoints.best_by", "eval_loss")
    if metric not in {None, "loss", "eval_loss"} and (wanted or patience):
        draft.change("metric_for_best_model", metric, "the held-out loss decides (checkpoints.best_by)")
    if patience:
        draft.put("early_stopping.patience", patience, "early_stopping_patience", whole)


def set_packing(draft: Draft, *, wanted: object) -> None:
    """Translate packing: plain text is always packed, preferences never."""
    if draft.get("method.type") == "supervised":
        draft.set("method.packing", bool(wanted))


def set_trackers(draft: Draft, key: str) -> None:
    """Translate the list of trackers that transformers takes."""
    given = draft.take(key, [], ours="tracking.to")
    wanted = [name for name in names(given) if not is_empty(name) and name != "all"]
    found = [name for name in dict.fromkeys(wanted) if name in _TRACKERS]
    for name in wanted:
        if name not in found:
            draft.ignore(key, name, "trackers are tensorboard, wandb, mlflow and prometheus")
    if found:
        draft.set("tracking.to", found)


def set_rank(draft: Draft, rank: Any, alpha: Any, dropout: Any, *, key: str = "lora_r") -> None:
    """Set the shape of the LoRA."""
    draft.put("lora.rank", rank, key, whole)
    draft.put("lora.alpha", alpha, "lora_alpha", positive)
    draft.put("lora.dropout", dropout, "lora_dropout", number)
