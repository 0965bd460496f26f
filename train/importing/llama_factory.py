"""LLaMA-Factory's YAML (0.9: llamafactory/hparams) into our config.

Owns its keys, its values and its defaults: where a default differs from ours, theirs is written out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from train.importing import shared
from train.importing.draft import Draft, Rule, Unusable, adapter_name, names, number, whole
from train.importing.places import local_path

_STAGES = {"sft": "supervised", "pt": "pretrain", "dpo": "dpo", "kto": "kto", "rm": "reward"}
_LOSSES = {"sigmoid": "sigmoid", "ipo": "ipo", "hinge": "hinge"}
_INFO = "dataset_info.json"

_DEFAULTS: Mapping[str, Any] = {
    "training.learning_rate": 5e-5,
    "training.max_length": 2048,
    "training.batch_size": 8,
    "training.schedule": "linear",
}
_RULES: Mapping[str, Rule] = {
    **shared.COMMON,
    "optim": Rule("training.optimiser", shared.optimiser),
    "per_device_train_batch_size": Rule("training.batch_size", whole),
    "cutoff_len": Rule("training.max_length", whole),
    "disable_gradient_checkpointing": Rule("training.gradient_checkpointing", lambda value: not value),
}
_REASONS: Mapping[str, str] = {
    "model_name_or_path": shared.BASE,
    "model_*": shared.BASE,
    "trust_remote_code": "no code is run that comes with a model",
    "template": shared.TEMPLATE,
    "default_system": "write it into the rows as a system message",
    "enable_thinking": shared.TEMPLATE,
    "tool_format": shared.TEMPLATE,
    "adapter_name_or_path": "register that adapter, then say `from: NAME@N`",
    "create_new_adapter": "an adapter goes on (`from: NAME@N`) or is new",
    "additional_target": "vLLM serves no whole modules beside a LoRA",
    "do_train": "`train run` trains",
    "do_eval": "data.eval is measured when there is one",
    "do_predict": "see `wardrobe eval run`",
    "predict_with_generate": "see `wardrobe eval run`",
    "compute_accuracy": "see `wardrobe eval run`",
    "train_on_prompt": shared.ANSWERS,
    "mask_history": "give earlier answers `weight: 0` in the rows",
    "val_size": shared.SPLIT,
    "eval_strategy": shared.PART_OF_RUN,
    "evaluation_strategy": shared.PART_OF_RUN,
    "save_strategy": shared.PART_OF_RUN,
    "per_device_eval_batch_size": "evaluation uses training.batch_size",
    "eval_on_each_dataset": "one held-out file is measured",
    "overwrite_output_dir": shared.PLACE,
    "output_dir": shared.PLACE,
    "save_only_model": "a checkpoint always holds what a run needs to go on",
    "resume_from_checkpoint": "say `train run --resume`",
    "overwrite_cache": "prepared rows are not kept: they are made anew each time",
    "tokenized_path": "prepared rows are not kept: they are made anew each time",
    "streaming": "rows are read as they lie in the file",
    "buffer_size": "rows are read as they lie in the file",
    "interleave_probs": "give the sources a weight",
    "preprocessing_num_workers": "how many processes read is not part of what is learnt",
    "dataloader_num_workers": "how many processes read is not part of what is learnt",
    "logging_steps": "every step is logged",
    "plot_loss": "the job keeps its losses (metrics.jsonl); tracking.to tensorboard draws them",
    "run_name": "the job has an id",
    "ddp*": shared.MANY,
    "deepspeed": shared.MANY,
    "fsdp*": shared.MANY,
    "ray_*": shared.MANY,
    "flash_attn": shared.SPEED,
    "enable_liger_kernel": shared.SPEED,
    "use_unsloth*": shared.SPEED,
    "tf32": shared.SPEED,
    "use_cache": shared.SPEED,
    "use_*": "is not here",
    "pure_bf16": "the adapter is always in fp32",
    "upcast_*": "norms compute in fp32 by themselves",
    "resize_vocab": shared.TOKENS,
    "add_tokens": shared.TOKENS,
    "add_special_tokens": shared.TOKENS,
    "new_special_tokens*": shared.TOKENS,
    "rope_scaling": "the base is served as it is",
    "hf_hub_token": shared.HUB,
    "ms_hub_token": shared.HUB,
    "push_to_hub": shared.HUB,
    "export_*": "see `wardrobe export` and `wardrobe train merge`",
    "loraplus_*": "LoRA+ is not here",
    "neftune_*": "NEFTune is not here",
    "galore_*": "GaLore is not here",
    "ref_model*": "the reference is the start of the run",
    "reward_model*": "method.reward.model names a reward model",
}


def translate(draft: Draft) -> None:
    """Fill in `draft.config` from LLaMA-Factory's keys.

    Raises: UsageError: a stage or kind of adapter that no config of ours can say.
    """
    given = str(draft.take("output_dir", ""))
    draft.set("name", adapter_name(given, draft.subject.rpartition("/")[2].partition(".")[0]))
    _set_method(draft)
    _set_data(draft)
    _set_adapter(draft)
    for key, value in _DEFAULTS.items():
        draft.set(key, value)
    draft.set("training.grouping", "length" if draft.take("group_by_length") else "random")
    _set_schedule(draft)
    draft.follow(_RULES)
    shared.set_precision(draft)
    shared.set_steps(draft, draft.take("num_train_epochs", 3.0))
    draft.config["training"].setdefault("warmup", 0.0)
    wanted = draft.take("packing", default=False), draft.take("neat_packing", default=False)
    shared.set_packing(draft, wanted=any(wanted))
    shared.set_keeping(draft)
    _set_tracking(draft)
    draft.finish(_REASONS, f"{shared.UNKNOWN} (LLaMA-Factory)")


def _set_method(draft: Draft) -> None:
    stage = str(draft.take("stage", "sft"))
    if stage == "ppo":
        remedy = "train a reward model (stage: rm), then use method: rloo or grpo with it; PPO left TRL"
        raise draft.refuse("stage", stage, remedy)
    if stage not in _STAGES:
        raise draft.refuse("stage", stage, f"it is one of {', '.join(_STAGES)}")
    method = _STAGES[stage]
    loss = str(draft.take("pref_loss", "sigmoid"))
    if method == "dpo" and loss == "orpo":
        method = "orpo"
    elif method == "dpo" and loss not in _LOSSES:
        raise draft.refuse("pref_loss", loss, f"use {', '.join(_LOSSES)} or orpo")
    draft.set("method", {"type": method})
    if method == "dpo":
        draft.set("method.loss", _LOSSES[loss])
    if method in {"dpo", "kto", "orpo"}:
        draft.follow({"pref_beta": Rule("method.beta", shared.positive)})
    if method == "dpo":
        draft.follow({"pref_ftx": Rule("method.supervised_weight", number)})
        _set_smoothing(draft)
    if method == "kto":
        weights = {"kto_chosen_weight": "desirable_weight", "kto_rejected_weight": "undesirable_weight"}
        draft.follow({key: Rule(f"method.{ours}", shared.positive) for key, ours in weights.items()})


def _set_smoothing(draft: Draft) -> None:
    smoothing = number(draft.take("dpo_label_smoothing", 0.0))
    if smoothing > 0:
        reason = "is another loss (cDPO) than ours (loss: robust, with method.label_smoothing)"
        draft.leave("dpo_label_smoothing", smoothing, reason)


def _set_data(draft: Draft) -> None:
    folder = str(draft.take("dataset_dir", "data"))
    limit = draft.take("max_samples")
    sources = []
    for name in names(draft.take("dataset", [])):
        source: dict[str, Any] = {"path": _path(draft, "dataset", folder, name), "name": _label(name)}
        if limit is not None:
            source["limit"] = whole(limit)
        sources.append(source)
    if not sources:
        raise draft.refuse("dataset", "(none)", "name one at least")
    draft.set("data.train", sources)
    for at, name in enumerate(names(draft.take("eval_dataset", []))):
        if at == 0:
            draft.set("data.eval", _path(draft, "eval_dataset", folder, name))
        else:
            draft.leave("eval_dataset", name, "one held-out file is measured; join the files")
    strategy = str(draft.take("mix_strategy", "concat"))
    if strategy != "concat":
        reason = "sources are drawn by data.temperature and their weights"
        draft.leave("mix_strategy", strategy, reason)


def _path(draft: Draft, key: str, folder: str, name: str) -> str:
    """Return the file of a data set: as `dataset_info.json` beside the rows says, else by its name."""
    info = Path(draft.subject).parent / folder / _INFO
    try:
        entry = json.loads(info.read_text(encoding="utf-8")).get(name, {}) if info.is_file() else {}
    except ValueError:
        entry = {}
    if file := entry.get("file_name"):
        path, reason = local_path(f"{folder}/{file}")
        draft.leave(key, name, reason)
        return path
    path = f"{folder}/{name}.jsonl"
    draft.leave(key, name, f"{folder}/{_INFO} names no file for it: put its rows into {path}")
    return path


def _label(name: str) -> str:
    return f"{name}-rows" if name in {"eval", "replay"} else name


def _set_adapter(draft: Draft) -> None:
    kind = str(draft.take("finetuning_type", "lora"))
    if kind not in {"lora", "full"}:
        remedy = "use lora, or full with lora.layers for a freeze of the others: vLLM swaps only LoRA"
        raise draft.refuse("finetuning_type", kind, remedy)
    dora, pissa = draft.take("use_dora"), draft.take("pissa_init")
    draft.set("lora.kind", "full" if kind == "full" else "dora" if dora else "pissa" if pissa else "lora")
    if kind == "lora":
        rank = whole(draft.take("lora_rank", 8))
        draft.set("lora.rank", rank)
        draft.set("lora.alpha", shared.positive(draft.take("lora_alpha", 2 * rank)))
        draft.set("lora.dropout", number(draft.take("lora_dropout", 0.0)))
        targets = draft.take("lora_target", "all")
        draft.set("lora.target_modules", "all-linear" if targets == "all" else names(targets))
    for key in ("pissa_iter", "pissa_convert"):
        draft.take(key)  # how PiSSA begins is ours to choose, and it is always converted
    _set_quantization(draft, kind)


def _set_quantization(draft: Draft, kind: str) -> None:
    bits, double = draft.take("quantization_bit"), draft.take("double_quantization", default=True)
    form, method = str(draft.take("quantization_type", "nf4")), str(draft.take("quantization_method", "bnb"))
    if bits is None:
        return
    if whole(bits) != 4 or method not in {"bnb", "bitsandbytes"} or kind != "lora":
        reason = "bases are trained in bf16, fp16, fp32, or in NF4 by bitsandbytes under a LoRA"
        draft.leave("quantization_bit", bits, reason)
        return
    if form != "nf4":
        draft.leave("quantization_type", form, "NF4 is taken")
    draft.set("quantization", {"type": "nf4", "double": bool(double)})


def _set_schedule(draft: Draft) -> None:
    given = draft.take("lr_scheduler_type", "linear")
    try:
        draft.set("training.schedule", shared.schedule(given))
    except Unusable as reason:
        draft.leave("lr_scheduler_type", given, str(reason))


def _set_tracking(draft: Draft) -> None:
    given = draft.take("report_to", [])
    wanted = [name for name in names(given) if name not in {"none", "all"}]
    found = [name for name in wanted if name in {"wandb", "mlflow", "tensorboard"}]
    for name in wanted:
        if name not in found:
            draft.leave("report_to", name, "trackers are tensorboard, wandb, mlflow and prometheus")
    if found:
        draft.set("tracking.to", found)
