"""Configs that are recognised and not read: other trainers', other programs', and files that are none.

Owns by which keys each is known, and what of a trainer's config has a counterpart here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from train.importing.draft import is_empty, shown

Sign = Callable[[Mapping[str, Any]], bool]
_EXAMPLES = 14


def _has(*keys: str) -> Sign:
    return lambda source: set(keys) <= set(source)


def _within(section: str, *keys: str) -> Sign:
    def found(source: Mapping[str, Any]) -> bool:
        inner = source.get(section)
        return isinstance(inner, dict) and bool(set(keys) & set(inner))

    return found


NO_CONFIGS: tuple[tuple[str, Sign], ...] = (
    ("a config of accelerate's: hand it on with `train run CONFIG -- --config_file FILE`",
     _has("compute_environment")),
    ("a config of accelerate's: hand it on with `train run CONFIG -- --config_file FILE`",
     _has("distributed_type")),
    ("a config of DeepSpeed's, not of a training", _has("zero_optimization")),
    ("a workflow, not a training config", _has("jobs", "name")),
    ("a workflow, not a training config", _has("jobs", "on")),
    ("a Kubernetes manifest, not a training config", _has("apiVersion", "kind")),
    ("a Docker Compose file, not a training config", _has("services")),
    ("settings of pre-commit, not a training config", _has("repos")),
    ("an OpenAPI document, not a training config", _has("openapi")),
    ("a conda environment, not a training config", _has("channels", "dependencies")),
    ("a model's config.json, not a training config", _has("architectures", "model_type")),
    ("an adapter's adapter_config.json, not a training config", _has("peft_type")),
    ("a task of lm-evaluation-harness, not a training config", _has("task", "doc_to_text")),
    ("a config of mergekit's: see `wardrobe train merge`", _has("merge_method")),
    ("a config of Axolotl's for a cloud, which says where to train and not what", _has("gpu", "secrets")),
    ("a config of ms-swift's for sampling, which trains nothing", _has("sampler_engine")),
    ("a config of ms-swift's for sampling, which trains nothing", _has("sampler_type")),
    ("a job of SkyPilot's, which says where to train and not what", _has("resources", "run")),
    ("a config of Oumi's for inference or evaluation, which trains nothing", _has("model", "generation")),
    ("a config of Oumi's for inference or evaluation, which trains nothing", _has("inference_config")),
    ("a config of LLaMA-Factory's for inference, which trains nothing", _has("infer_backend")),
    ("a config of LLaMA-Factory's for merging: see `wardrobe train merge`", _has("export_dir")),
    ("a config of LLaMA-Factory's for merging: see `wardrobe train merge`",
     _within("peft_config", "export_dir")),
    ("a config of LLaMA-Factory's for evaluation: see `wardrobe eval run`",
     lambda source: bool(source.get("do_predict")) and "dataset" not in source),
)  # fmt: skip
"""What a file is that trains nothing, and how it is known."""

TRAINERS: tuple[tuple[str, Sign], ...] = (
    ("AutoTrain", _has("task", "base_model", "params")),
    ("AutoTrain", _has("task", "base_model", "project_name")),
    ("Unsloth", _within("training", "training_type", "random_seed", "train_on_completions")),
    ("Unsloth", _within("lora", "finetune_vision_layers", "finetune_language_layers", "use_loftq")),
    ("LitGPT", _has("checkpoint_dir", "train")),
    ("LitGPT", _within("data", "class_path")),
    ("LitGPT", _within("train", "lr_warmup_steps", "max_tokens", "lr_warmup_fraction")),
    ("mlx-lm", _has("lora_parameters")),
    ("mlx-lm", _has("model", "iters")),
    ("mlx-lm", _has("fine_tune_type")),
    ("ms-swift", _has("train_type")),
    ("ms-swift", _has("tuner_type")),
    ("ms-swift", _has("rlhf_type")),
    ("Ludwig", _has("input_features", "output_features")),
    ("OpenRLHF", _has("micro_train_batch_size")),
    ("verl", _has("actor_rollout_ref")),
    ("NeMo", _has("exp_manager")),
    ("LLM Foundry", _has("train_loader")),
    ("Oumi", _within("training", "trainer_type")),
    ("H2O LLM Studio", _has("llm_backbone")),
    ("transformers' run_clm", _has("train_file", "model_name_or_path")),
    ("open-instruct", _has("with_tracking")),
    ("open-instruct", _has("model_name_or_path", "dataset_mix_dir")),
    ("open-instruct", _has("model_name_or_path", "checkpointing_steps")),
    ("open-instruct", _has("model_name_or_path", "use_slow_tokenizer")),
    ("LLM-Finetuning-Toolkit", _has("ablation", "lora")),
    ("LLM-Finetuning-Toolkit", _within("model", "hf_model_ckpt")),
    ("LLM-Finetuning-Toolkit", _within("training", "sft_args")),
    ("Oumi", _has("tuning")),
    ("verl (EasyR1)", _has("worker", "algorithm", "trainer")),
    ("nanotron", _has("data_stages", "parallelism")),
    ("xtuner", _has("train_dataloader", "optim_wrapper")),
    ("kohya's scripts (diffusion)", _has("network_dim")),
    ("diffusers", _has("instance_data_dir")),
)  # fmt: skip
"""Trainers whose configs are known by their keys and not read."""

_COUNTERPARTS: Mapping[str, tuple[str, ...]] = {
    "data.train": ("dataset", "path", "train_file", "dataset_path", "local_dataset", "data", "json_path"),
    "lora.rank": ("lora_r", "lora_rank", "rank", "r"),
    "lora.alpha": ("lora_alpha", "alpha"),
    "lora.dropout": ("lora_dropout", "dropout"),
    "lora.target_modules": ("target_modules", "lora_target_modules"),
    "quantization": ("quantization", "quantize", "load_in_4bit"),
    "training.learning_rate": ("learning_rate", "lr"),
    "training.epochs": ("num_train_epochs", "num_epochs", "epochs"),
    "training.steps": ("max_steps", "iters"),
    "training.batch_size": (
        "per_device_train_batch_size", "micro_batch_size", "batch_size", "micro_train_batch_size",
    ),
    "training.accumulation": ("gradient_accumulation_steps", "gradient_accumulation"),
    "training.max_length": ("max_seq_length", "max_length", "model_max_length", "max_seq_len", "block_size"),
    "training.schedule": ("lr_scheduler_type", "lr_scheduler", "scheduler"),
    "training.warmup": ("warmup_steps", "warmup_ratio", "lr_warmup_steps", "warmup"),
    "training.weight_decay": ("weight_decay",),
    "training.optimiser": ("optim", "optimizer"),
    "seed": ("seed", "random_seed"),
}  # fmt: skip


def what_it_is(source: Mapping[str, Any]) -> str | None:
    """Return what a file is that is not a training config, None where it may be one."""
    return next((what for what, sign in NO_CONFIGS if sign(source)), None)


def whose_it_is(source: Mapping[str, Any]) -> str | None:
    """Return the trainer whose config it is and that is not read, None where it is none of these."""
    return next((who for who, sign in TRAINERS if sign(source)), None)


def carried_over(source: Mapping[str, Any]) -> str:
    """Return our keys with the values that another trainer's config has for them, as a part of a sentence."""
    leaves = dict(_leaves(source))
    found = []
    for ours, theirs in _COUNTERPARTS.items():
        value = next((leaves[key] for key in theirs if not is_empty(leaves.get(key))), None)
        if value is not None:
            found.append(f"{ours} {shown(value, 40)}")
    return ", ".join(found[:_EXAMPLES])


def _leaves(section: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in section.items():
        if isinstance(value, dict):
            yield from _leaves(value)
        else:
            yield str(key), value
