"""The form of Axolotl's config that guides print: with sections, and with names of their own.

Owns which sections there are and what their names mean in the flat form. A text whose indentation got lost
has its sections as empty keys, with their settings behind them; it is put together again first.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_LORA = frozenset({"lora", "peft", "adapter", "qlora", "lora_config", "peft_config", "lora_params"})
_DATA = frozenset({"dataset", "data", "dataset_config"})
_QUANTIZATION = frozenset({"quantization", "quantization_config", "bnb", "bnb_config"})
_TRACKERS = frozenset({"wandb", "mlflow", "tensorboard"})
_EVALUATION: Mapping[str, str] = {
    "strategy": "eval_strategy", "steps": "eval_steps", "every": "eval_steps", "val_size": "val_set_size",
}  # fmt: skip
_SAVING: Mapping[str, str] = {
    "strategy": "save_strategy", "steps": "save_steps", "every": "save_steps", "dir": "output_dir",
    "path": "output_dir", "limit": "save_total_limit", "total_limit": "save_total_limit",
    "keep": "save_total_limit",
}  # fmt: skip
# What the names of a section mean in the flat form, beside those that mean the same everywhere.
_PLAIN: Mapping[str, Mapping[str, str]] = {
    "training": {},
    "train": {},
    "trainer": {},
    "training_args": {},
    "training_arguments": {},
    "hyperparameters": {},
    "hardware": {},
    "saving": _SAVING,
    "checkpointing": _SAVING,
    "output": _SAVING,
    "evaluation": _EVALUATION,
    "eval": _EVALUATION,
    "model": {"name": "base_model", "path": "base_model"},
    "logging": {"steps": "logging_steps", "project": "wandb_project", "wandb": "use_wandb"},
    "optimizer": {"type": "optimizer", "name": "optimizer"},
    "optimizer_config": {"type": "optimizer", "name": "optimizer"},
    "scheduler": {"type": "lr_scheduler", "name": "lr_scheduler"},
    "lr_scheduler": {"type": "lr_scheduler", "name": "lr_scheduler"},
}
SECTIONS = _LORA | _DATA | _QUANTIZATION | _TRACKERS | set(_PLAIN)
_ALSO_FLAT = frozenset({"adapter", "optimizer", "scheduler", "lr_scheduler", "peft", "deepspeed"})

_NAMES: Mapping[str, str] = {
    "epochs": "num_epochs",
    "num_train_epochs": "num_epochs",
    "per_device_train_batch_size": "micro_batch_size",
    "max_seq_length": "sequence_len",
    "max_seq_len": "sequence_len",
    "max_length": "sequence_len",
    "gradient_accumulation": "gradient_accumulation_steps",
    "lr": "learning_rate",
    "lr_scheduler_type": "lr_scheduler",
    "scheduler": "lr_scheduler",
    "optim": "optimizer",
    "dropout": "lora_dropout",
    "target_modules": "lora_target_modules",
    "modules_to_save": "lora_modules_to_save",
    "model_name": "base_model",
    "model_name_or_path": "base_model",
    "model": "base_model",
    "quant": "quantization_bits",
    "bits": "quantization_bits",
}
_LORA_NAMES: Mapping[str, str] = {
    "r": "lora_r",
    "rank": "lora_r",
    "lora_rank": "lora_r",
    "alpha": "lora_alpha",
    "use_dora": "peft_use_dora",
    "use_rslora": "peft_use_rslora",
}
_ENTRY = frozenset({
    "path", "type", "ds_type", "split", "data_files", "subset", "format", "roles", "chat_template",
})  # fmt: skip
_TRAIN_FILES = ("path", "train", "train_file", "train_path", "train_data", "file", "data_path")
_HELD_OUT_FILES = ("validation", "eval", "test", "val", "validation_file", "eval_file", "validation_path",
                   "eval_path", "val_path", "eval_data")  # fmt: skip


def is_sectioned(source: Mapping[str, Any]) -> bool:
    """Tell whether a config has sections, as mappings or (its indentation lost) as empty keys."""
    opened = [key for key, value in source.items() if key in SECTIONS and isinstance(value, dict)]
    return bool(opened) or _lost(source)


def flattened(source: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config as Axolotl writes it: sections opened, guides' names replaced."""
    if _lost(source):
        source = _indented(source)
    flat: dict[str, Any] = {}
    for key, value in source.items():
        _open(flat, key, value)
    return flat


def _open(flat: dict[str, Any], key: str, value: Any) -> None:
    if key in _DATA and not _is_empty(value):
        _open_data(flat, value)
    elif isinstance(value, dict) and key in _LORA:
        kind = next((value[name] for name in ("type", "method", "adapter", "name") if name in value), None)
        flat.setdefault("adapter", str(kind or ("qlora" if key == "qlora" else "lora")).lower())
        inner = {name: one for name, one in value.items() if name not in {"type", "method", "adapter"}}
        flat |= _renamed({**_NAMES, **_LORA_NAMES}, inner)
    elif isinstance(value, dict) and key in _QUANTIZATION:
        _open_quantization(flat, value)
    elif isinstance(value, dict) and key in _TRACKERS:
        flat |= {f"{key}_{name}": one for name, one in value.items() if name != "enabled"}
        flat[f"use_{key}"] = value.get("enabled", True)
    elif isinstance(value, dict) and key in _PLAIN:
        _open_plain(flat, value, {**_NAMES, **_PLAIN[key]})
    else:
        _put(flat, _NAMES.get(key, key), value)


def _open_plain(flat: dict[str, Any], section: Mapping[str, Any], names: Mapping[str, str]) -> None:
    renamed = {"batch_size": "micro_batch_size", **names}
    for name, value in section.items():
        if name in SECTIONS and (isinstance(value, dict) or (name in _DATA and not _is_empty(value))):
            _open(flat, name, value)
        else:
            _put(flat, renamed.get(name, name), value)


def _open_data(flat: dict[str, Any], value: Any) -> None:
    if not isinstance(value, dict):
        entries = value if isinstance(value, list) else [value]
        flat["datasets"] = [one if isinstance(one, dict) else {"path": one} for one in entries]
        return
    path = next((value[name] for name in _TRAIN_FILES if not _is_empty(value.get(name))), None)
    held_out = next((value[name] for name in _HELD_OUT_FILES if isinstance(value.get(name), str)), None)
    entry = {
        name: one for name, one in value.items() if name in _ENTRY or name.startswith(("field", "message_"))
    }
    if path is not None:
        flat["datasets"] = [{**entry, "path": path}]
    if held_out is not None:
        flat["test_datasets"] = [{**entry, "path": held_out}]
    taken = {*entry, *_TRAIN_FILES, *_HELD_OUT_FILES}
    for name, one in value.items():
        if name not in taken:
            _put(flat, _NAMES.get(name, name), one)


def _open_quantization(flat: dict[str, Any], section: Mapping[str, Any]) -> None:
    for name, value in section.items():
        if name.startswith("bnb_4bit_"):
            flat.setdefault("bnb_config_kwargs", {})[name] = value
        elif name in {"type", "quant_type", "method", "bits", "quant", "enabled"}:
            _put(
                flat, "quantization_bits", "4" if str(value).lower() in {"nf4", "4", "4bit", "fp4"} else value
            )
        else:
            _put(flat, _NAMES.get(name, name), value)


def _put(flat: dict[str, Any], key: str, value: Any) -> None:
    """Set a flat key; a value that asks for nothing replaces none that does."""
    if _is_empty(value) and key in flat:
        return
    flat[key] = value


def _renamed(table: Mapping[str, str], section: Mapping[str, Any]) -> dict[str, Any]:
    return {table.get(name, name): found for name, found in section.items()}


def _is_empty(value: Any) -> bool:
    return value is None or value in ("", [], {})


def _lost(source: Mapping[str, Any]) -> bool:
    # The flat form has these keys too, often empty.
    empty = [key for key, value in source.items() if key in SECTIONS - _ALSO_FLAT and value is None]
    return len(empty) > 1


def _indented(source: Mapping[str, Any]) -> dict[str, Any]:
    """Put the keys behind an empty section's name into it."""
    found: dict[str, Any] = {}
    place = found
    for key, value in source.items():
        if key in SECTIONS - _ALSO_FLAT and value is None:
            # A tracker stands inside the section for logging.
            place = found.setdefault(key, {})
        else:
            place[key] = value
    return found
