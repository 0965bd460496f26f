"""torchtune's YAML (recipes/configs) into our config.

Owns what its components (`_component_: torchtune.models.…`) mean: which adapter a model's builder makes,
which rows a data set's builder reads, which method a loss stands for. Its recipe is not in the file, so what
is trained is known by the loss.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from train.dataset.forms.mapping import FIXED
from train.importing import shared
from train.importing.draft import Draft, KeyRule, adapter_name, is_empty, number, positive, switch, whole
from train.importing.reading import refers
from train.importing.sources import ForeignRows, set_rows
from train.importing.trainers.torchtune_rows import CHATS, COLUMNS, PREFERENCES, SOURCES, TEXT

COMPONENT = "_component_"
_OTHER_RECIPES: Mapping[str, str] = {
    "teacher_model": "distillation is not here: train on the teacher's answers",
    "kd_loss": "distillation is not here: train on the teacher's answers",
    "grpo_samples": shared.GRADERS,
    "reward_functions": shared.GRADERS,
    "orchestration": shared.GRADERS,
    "ppo_epochs": "PPO is not here: train a reward model, then use method: rloo or grpo with it",
}
_MODULES = {"q_proj": "q_proj", "k_proj": "k_proj", "v_proj": "v_proj", "output_proj": "o_proj"}
_FUSED = {
    "q_proj": "qkv_proj", "k_proj": "qkv_proj", "v_proj": "qkv_proj",
    "gate_proj": "gate_up_proj", "up_proj": "gate_up_proj",
}  # fmt: skip
_MLP = ("gate_proj", "up_proj", "down_proj")
_MULTIMODAL = ("vision", "multimodal", "flamingo")

LOST: Mapping[str, str] = {
    "quantizer": "quantisation is not trained for; the base is served as it is",
    "optimizer_in_bwd": "a step is taken behind each accumulation",
    "collate_fn": shared.PICTURES,
}
SAME: Mapping[str, str] = {
    "checkpointer": shared.BASE,
    "output_dir": shared.PLACE,
    "device": shared.SPEED,
    "compile": shared.SPEED,
    "enable_activation_offloading": shared.SPEED,
    "fsdp*": shared.MANY,
    "custom_sharded_layers": shared.MANY,
    "tensor_parallel_*": shared.MANY,
    "data_parallel_*": shared.MANY,
    "memory_efficient_fsdp_wrap": shared.MANY,
    "use_distributed_state_dict": shared.MANY,
    "use_flex": shared.SPEED,
    "low_cpu_ram": shared.SPEED,
    "ac_mode": shared.SPEED,
    "ac_option": shared.SPEED,
    "resume_from_checkpoint": shared.RESUME,
    "save_*": "a checkpoint always holds what a run needs to go on",
    "batch_size_val": "evaluation uses training.batch_size",
    "log_*": shared.LOGGING,
    "metric_logger": shared.LOGGING,
    "profiler": shared.SPEED,
    "loss": "the method says what the loss is",
    "shuffle": "rows are drawn by the seed",
    "tokenizer": "the base's own tokenizer is used",
}


def translate(draft: Draft) -> None:
    """Fill in `draft.config` from torchtune's keys.

    Raises: UsageError: a recipe, a data set or an adapter that no config of ours can say.
    """
    _resolve(draft)
    for key, why in _OTHER_RECIPES.items():
        if not is_empty(draft.source.get(key)):
            raise draft.refuse(key, draft.source[key], why)
    draft.set("name", adapter_name(str(draft.take("output_dir", "", ours="name")), draft.path.stem))
    _set_method(draft)
    _set_data(draft)
    _set_adapter(draft)
    _set_training(draft)
    _set_optimiser(draft)
    _set_tracking(draft)
    draft.finish(LOST, SAME, f"{shared.UNKNOWN} (torchtune)")


def component(value: Any) -> str:
    """Return the last name of a component, "" where the value is none."""
    return str(value.get(COMPONENT, "")).rpartition(".")[2] if isinstance(value, dict) else ""


def _resolve(draft: Draft) -> None:
    """Fill in whole values that refer to another key (`${batch_size}`)."""
    for key, value in draft.source.items():
        if (name := refers(value)) is not None and name in draft.source:
            draft.source[key] = draft.source[name]


def _set_method(draft: Draft) -> None:
    loss = draft.source.get("loss")
    if isinstance(loss, dict) and component(loss) == "DPOLoss":
        draft.set("method", {"type": "dpo"})
        draft.put("method.beta", loss.get("beta", 0.1), "loss.beta", positive)
        if number(loss.get("label_smoothing", 0)) > 0:
            reason = "is another loss (cDPO) than ours (loss: robust, with method.label_smoothing)"
            draft.lose("loss.label_smoothing", loss["label_smoothing"], reason)
        draft.take("loss", ours="method")
        return
    if component(loss) in {"PPOLoss", "GRPOSimpleLoss", "RSOLoss", "SimPOLoss"}:
        raise draft.refuse("loss", component(loss), "use DPO's, or a supervised recipe")
    kind = component(draft.source.get("dataset"))
    draft.set("method", {"type": "pretrain" if kind in TEXT else "supervised"})


def _set_data(draft: Draft) -> None:
    given, held_out = draft.take("dataset", ours="data.train"), draft.take("dataset_val", ours="data.eval")
    entries = given if isinstance(given, list) else [given]
    if is_empty(given):
        raise draft.refuse("dataset", "(none)", "name one: nothing here says what to train on")
    rows = [_rows(draft, "dataset", entry) for entry in entries]
    set_rows(draft, rows, None if is_empty(held_out) else _rows(draft, "dataset_val", held_out))
    packed = any(isinstance(entry, dict) and entry.get("packed") for entry in entries)
    shared.set_packing(draft, wanted=packed)
    every = draft.take("run_val_every_n_steps", ours="evaluation.every")
    if every is not None and draft.get("data.eval") is not None:
        draft.put("evaluation.every", every, "run_val_every_n_steps", whole)


def _rows(draft: Draft, key: str, entry: Any) -> ForeignRows:
    kind = component(entry)
    if not kind or (kind not in SOURCES and is_empty(entry.get("source"))):
        raise draft.refuse(key, entry, "it names no source of rows that is known")
    if any(word in str(entry[COMPONENT]) for word in _MULTIMODAL):
        draft.lose(key, entry[COMPONENT], shared.PICTURES)
    columns = dict(COLUMNS.get(kind, {}))
    columns |= {_our_key(kind, name): str(column) for name, column in (entry.get("column_map") or {}).items()}
    if kind == "chat_dataset":
        sharegpt = str(entry.get("conversation_style")) == "sharegpt"
        columns["conversations" if sharegpt else "messages"] = str(
            entry.get("conversation_column", "messages")
        )
    if kind in TEXT and entry.get("column"):
        columns["text"] = str(entry["column"])
    if kind in {"alpaca_dataset", "alpaca_cleaned_dataset", "grammar_dataset", "samsum_dataset"}:
        reason = (
            "theirs writes a prompt of its own around the row; here it is a turn in the base's chat template"
        )
        draft.change(f"{key}.{COMPONENT}", kind, reason)
    if learnt := entry.get("train_on_input", kind in {"alpaca_dataset", "alpaca_cleaned_dataset"}):
        draft.lose(f"{key}.train_on_input", learnt, shared.ANSWERS)
    if (text := entry.get("new_system_prompt")) and kind not in CHATS:
        columns["system"] = f"{FIXED}{text}"
    elif text:
        draft.lose(f"{key}.new_system_prompt", text, "write it into the rows as a system message")
    files = entry.get("data_files") or ()
    return ForeignRows(
        key=key,
        given=str(entry.get("source") or SOURCES[kind]),
        split=entry.get("split") or entry.get("partition"),
        subset=entry.get("name") or entry.get("subset"),
        files=[files] if isinstance(files, str) else list(files),
        columns={ours: theirs for ours, theirs in columns.items() if ours != theirs},
    )


def _our_key(kind: str, name: str) -> str:
    if kind in PREFERENCES or "alpaca" in kind:
        return name
    return {"input": "prompt", "output": "completion"}.get(name, name)


def _set_adapter(draft: Draft) -> None:
    model = draft.take("model", ours="lora")
    if not isinstance(model, dict) or not component(model):
        raise draft.refuse("model", model, "it is a component: {_component_: torchtune.models.…}")
    built = component(model)
    if any(word in str(model[COMPONENT]) for word in _MULTIMODAL):
        draft.lose("model", model[COMPONENT], shared.PICTURES)
    if "lora" not in built:
        draft.set("lora.kind", "full")
        draft.change("model", built, shared.FULL)
        return
    draft.set("lora.kind", "dora" if model.get("use_dora") or "dora" in built else "lora")
    shared.set_rank(
        draft, model.get("lora_rank", 8), model.get("lora_alpha", 16), model.get("lora_dropout", 0.0)
    )
    draft.set("lora.target_modules", _targets(draft, model))
    if built.startswith("qlora") or model.get("quantize_base"):
        draft.set("quantization", {"type": "nf4", "double": True})


def _targets(draft: Draft, model: Mapping[str, Any]) -> list[str]:
    found = [
        _MODULES.get(str(name), str(name)) for name in model.get("lora_attn_modules", ("q_proj", "v_proj"))
    ]
    if model.get("apply_lora_to_mlp"):
        found += _MLP
    if model.get("apply_lora_to_output"):
        found.append("lm_head")
    if any(word in str(model.get(COMPONENT)) for word in ("phi3", "phi4")):
        draft.change(
            "model.lora_attn_modules", found, "Phi's fused modules (qkv_proj, gate_up_proj) are taken"
        )
        found = [_FUSED.get(name, name) for name in found]
    return list(dict.fromkeys(found))


def _set_training(draft: Draft) -> None:
    draft.put("training.batch_size", draft.take("batch_size", 1), "batch_size", whole)
    draft.set("training.grouping", "random")
    draft.set("training.precision", {"bf16": "bf16", "fp16": "fp16", "fp32": "fp32"}.get(
        str(draft.take("dtype", "bf16", ours="training.precision")), "auto"
    ))  # fmt: skip
    shared.set_length(draft, "epochs", 1)
    per_epoch = draft.take("max_steps_per_epoch", ours="training.steps")
    if per_epoch is not None:
        steps = whole(per_epoch) * max(1, round(draft.get("training.epochs", 1)))
        draft.set("training.steps", steps)
        draft.change("max_steps_per_epoch", per_epoch, f"{steps} steps in all")
    tokenizer = draft.source.get("tokenizer")
    length = tokenizer.get("max_seq_len") if isinstance(tokenizer, dict) else None
    if length is None:
        draft.change(
            "tokenizer.max_seq_len", "(none)", "2048 is taken: set training.max_length for longer rows"
        )
    draft.put(
        "training.max_length", 2048 if length is None else length, "tokenizer.max_seq_len", shared.length
    )
    if draft.take("clip_grad_norm", ours="training.max_grad_norm") is None:
        draft.change("clip_grad_norm", "(none)", "gradients are always clipped, at 1.0")
    draft.follow(
        {
            "gradient_accumulation_steps": KeyRule("training.accumulation", whole),
            "enable_activation_checkpointing": KeyRule("training.gradient_checkpointing", switch),
            "seed": KeyRule("seed", lambda value: int(number(value))),
        }
    )


def _set_optimiser(draft: Draft) -> None:
    optimiser = draft.take("optimizer", {}, ours="training.optimiser")
    name = component(optimiser)
    kinds = {"AdamW": "adamw", "PagedAdamW": "paged_adamw", "PagedAdamW8bit": "paged_adamw_8bit",
             "AdamW8bit": "adamw_8bit"}  # fmt: skip
    draft.put("training.optimiser", kinds.get(name, name), "optimizer", shared.optimiser)
    if "lr" not in optimiser:
        raise draft.refuse("optimizer.lr", "(none)", "name the rate")
    draft.put("training.learning_rate", optimiser["lr"], "optimizer.lr", positive)
    # torch's AdamW decays by 0.01 where nothing is said.
    draft.set("training.weight_decay", number(optimiser.get("weight_decay", 0.01)))
    for key in sorted(set(optimiser) - {COMPONENT, "lr", "weight_decay", "fused", "foreach"}):
        draft.lose(f"optimizer.{key}", optimiser[key], "AdamW's own constants are kept: 0.9, 0.999, 1e-8")
    schedule = draft.take("lr_scheduler", ours="training.schedule")
    draft.set("training.warmup", 0.0)
    if is_empty(schedule):
        draft.set("training.schedule", "constant")
        return
    kind = "cosine" if "cosine" in component(schedule) else component(schedule)
    draft.put("training.schedule", kind, "lr_scheduler", shared.schedule)
    draft.source["warmup_steps"] = schedule.get("num_warmup_steps")
    shared.set_warmup(draft)


def _set_tracking(draft: Draft) -> None:
    logger = draft.source.get("metric_logger")
    found = {"WandBLogger": "wandb", "TensorBoardLogger": "tensorboard"}.get(component(logger))
    if found and isinstance(logger, dict):
        draft.take("metric_logger", ours="tracking.to")
        draft.set("tracking.to", [found])
        if logger.get("project"):
            draft.set("tracking.project", str(logger["project"]))
