"""LLaMA-Factory's YAML, version 0 (0.9: llamafactory/hparams), into our config.

Owns its values and its defaults: where a default differs from ours, theirs is written out. Its data sets are
in `dataset_info`, why keys have no counterpart in `llama_factory_reasons`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from train.importing import shared
from train.importing.draft import Draft, KeyRule, adapter_name, names, number, positive, whole
from train.importing.sources import limit_of, set_rows, set_share
from train.importing.trainers.dataset_info import Info
from train.importing.trainers.llama_factory_reasons import LOST, SAME

_STAGES = {"sft": "supervised", "pt": "pretrain", "dpo": "dpo", "kto": "kto", "rm": "reward"}
_LOSSES = {"sigmoid": "sigmoid", "ipo": "ipo", "hinge": "hinge"}
_OTHER_ADAPTER = "is not what vLLM swaps: a LoRA of rank 8 on all linear modules is trained instead"

_DEFAULTS: Mapping[str, Any] = {
    "training.learning_rate": 5e-5,
    "training.max_length": 2048,
    "training.batch_size": 8,
    "training.schedule": "linear",
}
_RULES: Mapping[str, KeyRule] = {
    **shared.COMMON,
    "optim": KeyRule("training.optimiser", shared.optimiser),
    "lr_scheduler_type": KeyRule("training.schedule", shared.schedule),
    "per_device_train_batch_size": KeyRule("training.batch_size", whole),
    "cutoff_len": KeyRule("training.max_length", shared.length),
    "moe_aux_loss_coef": KeyRule("training.router_aux_loss_coef", number),
    "disable_gradient_checkpointing": KeyRule("training.gradient_checkpointing", lambda value: not value),
}


def translate(draft: Draft) -> None:
    """Fill in `draft.config` from LLaMA-Factory's keys.

    Raises: UsageError: a stage or kind of adapter that no config of ours can say, or no data set.
    """
    given = str(draft.take("output_dir", "", ours="name"))
    draft.set("name", adapter_name(given, draft.path.stem))
    _set_method(draft)
    _set_data(draft)
    _set_adapter(draft)
    for key, value in _DEFAULTS.items():
        draft.set(key, value)
    draft.set("training.grouping", "length" if draft.take("group_by_length") else "random")
    draft.follow(_RULES)
    shared.widen_batch(draft)
    shared.set_precision(draft)
    shared.set_length(draft, "num_train_epochs", 3.0)
    draft.set("training.warmup", 0.0)
    shared.set_warmup(draft)
    wanted = draft.take("packing", default=False), draft.take("neat_packing", default=False)
    shared.set_packing(draft, wanted=any(wanted))
    shared.set_keeping(draft)
    shared.set_trackers(draft, "report_to")
    draft.finish(LOST, SAME, f"{shared.UNKNOWN} (LLaMA-Factory)")


def _set_method(draft: Draft) -> None:
    stage = str(draft.take("stage", "sft", ours="method"))
    if stage == "ppo":
        remedy = "train a reward model (stage: rm), then use method: rloo or grpo with it; PPO left TRL"
        raise draft.refuse("stage", stage, remedy)
    if stage not in _STAGES:
        raise draft.refuse("stage", stage, f"it is one of {', '.join(_STAGES)}")
    method = _STAGES[stage]
    loss = str(draft.take("pref_loss", "sigmoid", ours="method.loss"))
    if method == "dpo" and loss == "orpo":
        method = "orpo"
    elif method == "dpo" and loss not in _LOSSES:
        raise draft.refuse("pref_loss", loss, f"use {', '.join(_LOSSES)} or orpo")
    draft.set("method", {"type": method})
    _set_loss(draft, method, loss)


def _set_loss(draft: Draft, method: str, loss: str) -> None:
    if method in {"dpo", "kto", "orpo"}:
        draft.follow({"pref_beta": KeyRule("method.beta", positive)})
    if method == "dpo":
        draft.set("method.loss", _LOSSES[loss])
        draft.follow({"pref_ftx": KeyRule("method.supervised_weight", number)})
        smoothing = number(draft.take("dpo_label_smoothing", 0.0))
        if smoothing > 0:
            reason = "is another loss (cDPO) than ours (loss: robust, with method.label_smoothing)"
            draft.lose("dpo_label_smoothing", smoothing, reason)
    if method == "kto":
        weights = {"kto_chosen_weight": "desirable_weight", "kto_rejected_weight": "undesirable_weight"}
        draft.follow({key: KeyRule(f"method.{ours}", positive) for key, ours in weights.items()})


def _set_data(draft: Draft) -> None:
    given = draft.take("dataset_dir", "data", ours="data.train")
    info = Info.of(draft, given)
    limit = limit_of(draft, "max_samples")
    wanted = names(draft.take("dataset", [], ours="data.train"))
    if not wanted:
        raise draft.refuse("dataset", "(none)", "name one at least: nothing here says what to train on")
    held_out = names(draft.take("eval_dataset", [], ours="data.eval"))
    for name in held_out[1:]:
        draft.lose("eval_dataset", name, "one held-out file is measured; join the files")
    shares = _shares(draft, len(wanted))
    rows = [info.rows("dataset", name, limit, share) for name, share in zip(wanted, shares, strict=True)]
    set_rows(draft, rows, info.rows("eval_dataset", held_out[0]) if held_out else None)
    set_share(draft, "val_size")
    if draft.take("mask_history", ours="data.answers"):
        draft.set("data.answers", "last")


def _shares(draft: Draft, count: int) -> list[float | None]:
    """Return the weight of each source; interleaving draws them by probability."""
    strategy = str(draft.take("mix_strategy", "concat"))
    given = names(draft.take("interleave_probs", []))
    if strategy == "concat":
        return [None] * count
    reason = "an epoch has as many rows as all sources together, drawn by their weights"
    draft.change("mix_strategy", strategy, reason)
    return [number(one) for one in given] if len(given) == count else [None] * count


def _set_adapter(draft: Draft) -> None:
    kind = str(draft.take("finetuning_type", "lora", ours="lora.kind"))
    if kind not in {"lora", "full", "freeze", "oft"}:
        raise draft.refuse("finetuning_type", kind, "use lora or full: vLLM swaps only LoRA")
    if kind in {"full", "freeze"}:
        draft.change("finetuning_type", kind, shared.FULL)
    if kind == "freeze":
        set_freeze(draft, "freeze_trainable_layers", llama_pro=bool(draft.take("use_llama_pro")))
    if kind == "oft":
        draft.change("finetuning_type", kind, _OTHER_ADAPTER)
    dora, pissa = draft.take("use_dora", ours="lora.kind"), draft.take("pissa_init", ours="lora.kind")
    full = kind in {"full", "freeze"}
    draft.set("lora.kind", "full" if full else "dora" if dora else "pissa" if pissa else "lora")
    if not full:
        rank = draft.take("lora_rank", 8, ours="lora.rank")
        alpha = draft.take("lora_alpha", 2 * whole(rank), ours="lora.alpha")
        shared.set_rank(draft, rank, alpha, draft.take("lora_dropout", 0.0, ours="lora.dropout"))
        draft.set(
            "lora.target_modules",
            shared.modules(draft.take("lora_target", "all", ours="lora.target_modules")),
        )
    for key in ("pissa_iter", "pissa_convert"):
        draft.take(key)  # how PiSSA begins is ours to choose, and it is always converted
    _set_quantization(draft, full=full)


def set_freeze(draft: Draft, key: str, *, llama_pro: bool = False) -> None:
    """Translate how many layers are trained: the last ones, or (LLaMA Pro) one behind each block.

    Raises: UsageError: no root is known, which says how many layers the base has.
    """
    count = int(number(draft.take(key, 2, ours="lora.layers")))
    modules = draft.take("freeze_trainable_modules", "all", ours="lora.target_modules")
    draft.lose("freeze_extra_modules", draft.take("freeze_extra_modules"), shared.WHOLE_MODULES)
    draft.set("lora.target_modules", shared.modules(modules))
    layers = draft.layers()
    if layers is None:
        remedy = "import where the root is (--root): its base says how many layers there are"
        raise draft.refuse(key, f"{count} (counted from the last layer)", remedy)
    if not 0 < abs(count) <= layers or (llama_pro and layers % count):
        raise draft.refuse(key, count, f"the root's base has {layers} layers")
    if llama_pro:
        step = layers // count
        draft.set("lora.layers", list(range(step - 1, layers, step)))
    else:
        draft.set("lora.layers", list(range(layers - count, layers) if count > 0 else range(-count)))


def _set_quantization(draft: Draft, *, full: bool) -> None:
    bits = draft.take("quantization_bit", ours="quantization")
    double = draft.take("double_quantization", default=True, ours="quantization.double")
    form = str(draft.take("quantization_type", "nf4", ours="quantization.type"))
    method = str(draft.take("quantization_method", "bnb", ours="quantization"))
    if bits is None:
        return
    if whole(bits) != 4 or method not in {"bnb", "bitsandbytes"} or full:
        reason = "bases are trained in bf16, fp16, fp32, or in NF4 by bitsandbytes under a LoRA"
        draft.change("quantization_bit", bits, reason)
        return
    if form != "nf4":
        draft.change("quantization_type", form, "NF4 is taken")
    draft.set("quantization", {"type": "nf4", "double": bool(double)})
