"""Who wrote a foreign config: by its keys, before any value is read.

Owns the order in which the trainers are asked. Invariant: a config that fits nobody is an error that says
what was found, never a guess.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from registry.errors import UsageError
from train.importing.trainers import others, sections
from train.importing.trainers.torchtune import COMPONENT

Trainer = Literal["axolotl", "llama-factory", "trl", "torchtune"]
Form = Literal["axolotl", "axolotl-sections", "llama-factory-0", "llama-factory-1", "trl",
               "alignment-handbook", "torchtune"]  # fmt: skip
"""A trainer's config in one of its forms."""

NAMES: Mapping[Form, str] = {
    "axolotl": "Axolotl",
    "axolotl-sections": "Axolotl, in sections",
    "llama-factory-0": "LLaMA-Factory, version 0",
    "llama-factory-1": "LLaMA-Factory, version 1",
    "trl": "TRL",
    "alignment-handbook": "TRL, with a mixture as in alignment-handbook",
    "torchtune": "torchtune",
}
READ = "Axolotl's, LLaMA-Factory's, TRL's (alignment-handbook's too) and torchtune's are"
_AXOLOTL = frozenset({
    "base_model", "datasets", "pretraining_dataset", "adapter", "micro_batch_size", "sequence_len", "rl",
    "lora_r", "lora_target_linear", "lora_target_modules", "val_set_size", "num_epochs", "sample_packing",
    "dataset_prepared_path", "load_in_4bit", "learning_rate", "gradient_accumulation_steps", "lora_alpha",
})  # fmt: skip
_OLD_FACTORY = frozenset({
    "stage", "finetuning_type", "cutoff_len", "dataset_dir", "lora_target", "lora_rank", "pref_loss",
    "pref_beta", "quantization_bit", "do_train", "template",
})  # fmt: skip
_NEW_FACTORY = frozenset({
    "train_dataset", "peft_config", "dist_config", "kernel_config", "quant_config", "init_config",
    "cutoff_len", "micro_batch_size", "sample_backend", "model_class",
})  # fmt: skip
_TRL = frozenset({
    "dataset_name", "dataset_mixture", "dataset_mixer", "dataset_train_split", "use_peft", "lora_r",
    "per_device_train_batch_size", "datasets", "num_train_epochs", "learning_rate",
})  # fmt: skip
_KEYS_OF: Mapping[Trainer, frozenset[str]] = {
    "axolotl": _AXOLOTL,
    "llama-factory": _OLD_FACTORY | _NEW_FACTORY,
    "trl": _TRL,
    "torchtune": frozenset({"model", "dataset", "optimizer", "loss", "recipe"}),
}
TRAINER_OF: Mapping[Form, Trainer] = {
    "axolotl": "axolotl",
    "axolotl-sections": "axolotl",
    "llama-factory-0": "llama-factory",
    "llama-factory-1": "llama-factory",
    "trl": "trl",
    "alignment-handbook": "trl",
    "torchtune": "torchtune",
}
"""What `--from` calls the forms."""
_OURS = frozenset({"name", "data", "lora", "training", "method"})


def detect(path: Path, source: Mapping[str, Any], trainer: Trainer | None) -> Form:
    """Return whose config it is; `trainer` says it where the caller knows better.

    Raises: UsageError: it is not a training config, another trainer's, or nobody's that is known.
    """
    if trainer is not None:
        _refuse_wrong_trainer(path, source, trainer)
        return _form(trainer, source)
    if what := others.what_it_is(source):
        raise UsageError(str(path), f"is {what}", f"name a trainer's config: {READ} read")
    if (form := _found(source)) is not None:
        return form
    keys = ", ".join(list(source)[:8])
    fact = f"is not a config of a trainer that is known here (its keys: {keys})"
    raise UsageError(str(path), fact, f"{READ} read; name one with --from")


def _refuse_wrong_trainer(path: Path, source: Mapping[str, Any], trainer: Trainer) -> None:
    """Refuse a config whose keys are another trainer's than `trainer`, whom the caller names.

    Raises: UsageError.
    """
    form = _found(source)
    if form is None:
        return
    flat = sections.flattened(source)
    theirs = {one: len(keys & {*source, *flat}) for one, keys in _KEYS_OF.items()}
    found = TRAINER_OF[form]
    if found != trainer and theirs[found] > theirs[trainer]:
        fact = f"is {NAMES[form]}'s by its keys, not {trainer}'s"
        raise UsageError(str(path), fact, "leave --from out", param="from")


def refuse_other(path: Path, source: Mapping[str, Any]) -> None:
    """Refuse the config of a trainer that is recognised and not read, with what would carry over.

    Raises: UsageError.
    """
    who = others.whose_it_is(source)
    if who is None:
        return
    found = others.carried_over(source) or "nothing that is known"
    raise UsageError(
        str(path),
        f"is {who}'s config, which is not read",
        f"write a config of ours; what carries over: {found}",
    )


def _found(source: Mapping[str, Any]) -> Form | None:
    keys = set(source)
    if _has_components(source) and ({"dataset", "model", "optimizer"} & keys):
        return "torchtune"
    if "train_dataset" in keys and len(_NEW_FACTORY & keys) > 1:
        return "llama-factory-1"
    if len(_NEW_FACTORY & keys) > 2 and "model" in keys:
        return "llama-factory-1"
    if len(_OLD_FACTORY & keys) > 1 or ("stage" in keys and "dataset" in keys):
        return "llama-factory-0"
    if "model_name_or_path" in keys and len(_TRL & keys) > 0:
        return _form("trl", source)
    if "dataset_name" in keys and len(_TRL & keys) > 1:
        return "trl"
    return _axolotl(source)


def _axolotl(source: Mapping[str, Any]) -> Form | None:
    flat = sections.flattened(source)
    known = _AXOLOTL & set(flat)
    about = {"datasets", "pretraining_dataset", "base_model"} & known
    if not about or len(known) < 2 or len(_OURS & set(source)) > 3:
        return None
    return _form("axolotl", source)


def _form(trainer: Trainer, source: Mapping[str, Any]) -> Form:
    if trainer == "axolotl":
        return "axolotl-sections" if sections.is_sectioned(source) else "axolotl"
    if trainer == "llama-factory":
        old = {"stage", "finetuning_type", "model_name_or_path", "dataset"} & set(source)
        return "llama-factory-0" if old or "train_dataset" not in source else "llama-factory-1"
    if trainer == "trl" and {"dataset_mixture", "dataset_mixer"} & set(source):
        return "alignment-handbook"
    return trainer


def _has_components(source: Mapping[str, Any]) -> bool:
    return any(isinstance(value, dict) and COMPONENT in value for value in source.values())
