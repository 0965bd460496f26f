"""Axolotl's YAML (0.19: axolotl/utils/schemas) into our config; flat, or nested as guides print it.

Owns its keys, its values and its defaults: where a default differs from ours, theirs is written out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from train.importing import shared
from train.importing.draft import Draft, Rule, Unusable, adapter_name, names, number, whole
from train.importing.places import local_path

_SECTIONS = frozenset({
    "model", "training", "train", "trainer", "hyperparameters", "optimizer_config", "data", "dataset_config",
    "quantization", "output", "evaluation", "logging", "checkpointing", "hardware",
})  # fmt: skip
_LORA_SECTIONS = frozenset({"lora", "peft", "adapter", "qlora", "lora_config"})
_LORA_ROWS: Mapping[str, str] = {
    "r": "lora_r",
    "rank": "lora_r",
    "alpha": "lora_alpha",
    "dropout": "lora_dropout",
}
# What guides call things in the nested form, and transformers' own names.
_OTHER_NAMES = {
    "epochs": "num_epochs",
    "num_train_epochs": "num_epochs",
    "batch_size": "micro_batch_size",
    "per_device_train_batch_size": "micro_batch_size",
    "max_seq_length": "sequence_len",
    "max_length": "sequence_len",
    "gradient_accumulation": "gradient_accumulation_steps",
    "lr": "learning_rate",
    "lr_scheduler_type": "lr_scheduler",
    "scheduler": "lr_scheduler",
    "optim": "optimizer",
    "dropout": "lora_dropout",
    "target_modules": "lora_target_modules",
    "name": "base_model",
}
_METHODS = {"dpo": "dpo", "ipo": "dpo", "kto": "kto", "orpo": "orpo"}
_TEXT_TYPES = ("completion", "pretrain")
_NO_LIST = frozenset({"path", "type", "ds_type", "split", "train_on_split", "data_files", "name"})

_RULES: Mapping[str, Rule] = {
    **shared.COMMON,
    "optimizer": Rule("training.optimiser", shared.optimiser),
    "lora_alpha": Rule("lora.alpha", shared.positive),
    "lora_dropout": Rule("lora.dropout", number),
    "peft_layers_to_transform": Rule(
        "lora.layers", lambda value: [value] if isinstance(value, int) else value
    ),
    "lora_rank_pattern": Rule("lora.rank_pattern"),
    "lora_alpha_pattern": Rule("lora.alpha_pattern"),
    "gradient_checkpointing": Rule("training.gradient_checkpointing", bool),
}
_REASONS: Mapping[str, str] = {
    "base_model*": shared.BASE,
    "model_*": shared.BASE,
    "is_*": shared.BASE,
    "revision*": shared.HUB,
    "trust_remote_code": "no code is run that comes with a model",
    "tokenizer*": "the base's own tokenizer is used",
    "chat_template*": shared.TEMPLATE,
    "default_system_message": shared.TEMPLATE,
    "special_tokens": shared.TOKENS,
    "tokens": shared.TOKENS,
    "added_tokens*": shared.TOKENS,
    "embedding_*": shared.TOKENS,
    "lora_modules_to_save": "vLLM serves no whole modules beside a LoRA",
    "lora_model_dir": "register that adapter, then say `from: NAME@N`",
    "lora_fan_in_fan_out": "PEFT finds it out",
    "load_in_8bit": "bases are trained in bf16, fp16, fp32 or NF4; not in 8 bits",
    "train_on_inputs": shared.ANSWERS,
    "roles_to_train": shared.ANSWERS,
    "train_on_eos": shared.ANSWERS,
    "val_set_size": shared.SPLIT,
    "evals_per_epoch": shared.PART_OF_RUN,
    "saves_per_epoch": shared.PART_OF_RUN,
    "eval_strategy": shared.PART_OF_RUN,
    "evaluation_strategy": shared.PART_OF_RUN,
    "save_strategy": shared.PART_OF_RUN,
    "output_dir": shared.PLACE,
    "dataset_prepared_path": "prepared rows are not kept: they are made anew each time",
    "eval_batch_size": "evaluation uses training.batch_size",
    "eval_sample_packing": "follows method.packing",
    "pad_to_sequence_len": "a batch is padded to its longest row",
    "sample_packing_*": "follows method.packing",
    "logging_steps": "every step is logged",
    "wandb_*": "tracking.project is all that is said to W&B; the rest is its own environment's",
    "mlflow_*": "tracking.project is all that is said to MLflow; the rest is its own environment's",
    "hub_*": shared.HUB,
    "push_*": shared.HUB,
    "flash_attention": shared.SPEED,
    "sdp_attention": shared.SPEED,
    "xformers_attention": shared.SPEED,
    "eager_attention": shared.SPEED,
    "attn_*": shared.SPEED,
    "tf32": shared.SPEED,
    "torch_compile*": shared.SPEED,
    "liger_*": shared.SPEED,
    "cut_cross_entropy": shared.SPEED,
    "plugins": shared.SPEED,
    "lora_mlp_kernel": shared.SPEED,
    "lora_qkv_kernel": shared.SPEED,
    "lora_o_kernel": shared.SPEED,
    "gradient_checkpointing_kwargs": shared.SPEED,
    "deepspeed": shared.MANY,
    "fsdp*": shared.MANY,
    "ddp*": shared.MANY,
    "local_rank": shared.MANY,
    "resume_from_checkpoint": "say `train run --resume`",
    "auto_resume_from_checkpoints": "say `train run --resume`",
    "strict": "an unknown key is always an error here",
    "debug": "`train check` shows what a run would do",
    "relora*": "ReLoRA is not here",
    "loraplus_*": "LoRA+ is not here",
    "neftune_*": "NEFTune is not here",
    "noisy_embedding_alpha": "NEFTune is not here",
}


def translate(draft: Draft) -> None:
    """Fill in `draft.config` from Axolotl's keys.

    Raises: UsageError: a method or kind of adapter that no config of ours can say.
    """
    draft.source = flattened(draft.source)
    _set_name(draft)
    _set_method_and_data(draft)
    _set_adapter(draft)
    draft.set("training.batch_size", whole(draft.take("micro_batch_size", 1)))
    draft.set("training.max_length", whole(draft.take("sequence_len", 512)))
    draft.set("training.grouping", "length" if draft.take("group_by_length") else "random")
    _set_schedule(draft)
    draft.follow(_RULES)
    shared.set_precision(draft)
    shared.set_steps(draft, draft.take("num_epochs", 1.0))
    shared.set_packing(draft, wanted=draft.take("sample_packing", default=False))
    shared.set_keeping(draft)
    _set_tracking(draft)
    draft.finish(_REASONS, f"{shared.UNKNOWN} (Axolotl)")


def flattened(source: Mapping[str, Any]) -> dict[str, Any]:
    """Return a nested config as Axolotl writes it: sections opened, guides' names replaced."""
    flat: dict[str, Any] = {}
    for key, value in source.items():
        if isinstance(value, dict) and key in _LORA_SECTIONS:
            flat.setdefault("adapter", value.get("type", "qlora" if key == "qlora" else "lora"))
            flat |= _renamed({**_OTHER_NAMES, **_LORA_ROWS}, value)
            flat.pop("type", None)
        elif isinstance(value, dict) and key in _SECTIONS:
            flat |= _renamed(_OTHER_NAMES, value)
        else:
            flat[key if key == "name" else _OTHER_NAMES.get(key, key)] = value
    return flat


def _renamed(table: Mapping[str, str], section: Mapping[str, Any]) -> dict[str, Any]:
    return {table.get(name, name): found for name, found in section.items()}


def _set_name(draft: Draft) -> None:
    given = str(draft.source.get("output_dir") or draft.source.get("hub_model_id") or "")
    draft.set("name", adapter_name(given, draft.subject.rpartition("/")[2].partition(".")[0]))
    draft.source.pop("output_dir", None)


def _set_method_and_data(draft: Draft) -> None:
    rl = draft.take("rl")
    text = draft.take("pretraining_dataset")
    entries = _entries(draft.take("datasets")) + _entries(text)
    if rl is not None and rl not in _METHODS:
        raise draft.refuse("rl", rl, "use dpo, kto or orpo; for rewards method: grpo or rloo with graders")
    kinds = {_is_text(entry) for entry in entries} | ({True} if text else set())
    if len(kinds) > 1:
        raise draft.refuse("datasets", "plain text beside conversations", "train one after the other (from)")
    method = _METHODS[rl] if rl is not None else "pretrain" if kinds == {True} else "supervised"
    draft.set("method", {"type": method})
    _set_method_values(draft, rl)
    draft.set("data.train", [_source(draft, f"datasets[{at}]", one) for at, one in enumerate(entries)])
    if not entries:
        raise draft.refuse("datasets", "(none)", "name one at least")
    for at, entry in enumerate(_entries(draft.take("test_datasets"))):
        if at == 0:
            draft.set("data.eval", _source(draft, f"test_datasets[{at}]", entry)["path"])
        else:
            draft.leave(f"test_datasets[{at}]", entry, "one held-out file is measured; join the files")
    strategy = {"drop": "drop", "truncate": "truncate", "raise": "error"}
    if method != "pretrain":
        draft.set("data.overflow", strategy.get(str(draft.take("excess_length_strategy", "drop")), "drop"))


def _set_method_values(draft: Draft, rl: str | None) -> None:
    if rl is None:
        return
    if rl == "ipo":
        draft.set("method.loss", "ipo")
    rules = {"rl_beta": "beta", "dpo_beta": "beta", "orpo_alpha": "beta"}
    if rl == "kto":
        rules |= {
            "kto_desirable_weight": "desirable_weight",
            "kto_undesirable_weight": "undesirable_weight",
        }
    if rl in {"dpo", "ipo"}:
        rules["rpo_alpha"] = "supervised_weight"
    draft.follow({key: Rule(f"method.{ours}", shared.positive) for key, ours in rules.items()})


def _entries(value: Any) -> list[dict[str, Any]]:
    found = value if isinstance(value, list) else [] if value is None else [value]
    return [entry if isinstance(entry, dict) else {"path": str(entry)} for entry in found]


def _is_text(entry: Mapping[str, Any]) -> bool:
    return str(entry.get("type", "")).startswith(_TEXT_TYPES)


def _source(draft: Draft, place: str, entry: Mapping[str, Any]) -> dict[str, Any]:
    files = entry.get("data_files")
    given = files[0] if isinstance(files, list) and files else files or entry.get("path", "")
    path, reason = local_path(str(given))
    if reason:
        draft.leave(f"{place}.path", given, reason)
    for more in files[1:] if isinstance(files, list) else ():
        draft.leave(f"{place}.data_files", more, "one file is a source; join the files, or add sources")
    if entry.get("split", "train") not in {"train", "test", "validation"}:
        draft.leave(f"{place}.split", entry["split"], "a part of a file is a file of its own")
    for key in sorted(set(entry) - _NO_LIST):
        reason = (
            "what a row is, is known by its keys (train/dataset/README.md); rename them where they differ"
        )
        draft.leave(f"{place}.{key}", entry[key], reason)
    return {"path": path}


def _set_adapter(draft: Draft) -> None:
    adapter = draft.take("adapter")
    if isinstance(adapter, str) and adapter not in {"lora", "qlora"}:
        raise draft.refuse("adapter", adapter, "use lora or qlora: vLLM swaps only LoRA")
    draft.set("lora.kind", _kind(draft, adapter))
    if adapter:
        draft.set("lora.rank", whole(draft.take("lora_r", 8)))
        linear, named = draft.take("lora_target_linear"), draft.take("lora_target_modules")
        if linear or not named or named == "all-linear":
            named = "all-linear"
        draft.set("lora.target_modules", named if named == "all-linear" else names(named))
    else:
        _leave_lora(draft)
    four = draft.take("load_in_4bit", default=False)
    if adapter == "qlora" or (adapter and four):
        kwargs = draft.take("bnb_config_kwargs", {})
        draft.set("quantization.type", "nf4")
        draft.set("quantization.double", bool(kwargs.get("bnb_4bit_use_double_quant", True)))
    elif four:
        draft.leave("load_in_4bit", four, "all weights cannot be trained in 4 bits")


def _kind(draft: Draft, adapter: Any) -> str:
    dora, init = draft.take("peft_use_dora"), str(draft.take("peft_init_lora_weights", ""))
    if not adapter:
        return "full"
    if init.lower().startswith("pissa"):
        return "pissa"
    if init.lower() not in {"", "true", "gaussian"}:
        draft.leave("peft_init_lora_weights", init, "only PEFT's own start and PiSSA are here")
    return "dora" if dora else "lora"


def _leave_lora(draft: Draft) -> None:
    for key in [name for name in draft.source if name.startswith(("lora_", "peft_"))]:
        draft.leave(key, draft.take(key), "nothing is an adapter without `adapter: lora`")


def _set_schedule(draft: Draft) -> None:
    given = draft.take("lr_scheduler", "cosine")
    try:
        draft.set("training.schedule", shared.schedule(given))
    except Unusable as reason:
        draft.leave("lr_scheduler", given, str(reason))


def _set_tracking(draft: Draft) -> None:
    project = draft.take("wandb_project")
    experiment = draft.take("mlflow_experiment_name")
    found = ["wandb"] if draft.take("use_wandb", project) else []
    found += ["mlflow"] if draft.take("use_mlflow", experiment) else []
    found += ["tensorboard"] if draft.take("use_tensorboard") else []
    if found:
        draft.set("tracking.to", found)
    if project or experiment:
        draft.set("tracking.project", str(project or experiment))
