"""LLaMA-Factory's YAML, version 1 (src/llamafactory/v1/config), into our config.

Its data sets are a file, a name on a hub, or a YAML that lists several (v1/core/data_engine). It learns the
last answer of each prefix of a conversation, which is what learning every answer comes to.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from train.importing import shared
from train.importing.draft import Draft, KeyRule, adapter_name, is_empty, number, positive, switch, whole
from train.importing.reading import read_settings
from train.importing.sources import ForeignRows, set_rows
from train.importing.trainers.llama_factory import set_freeze
from train.importing.trainers.llama_factory_reasons import LOST, SAME

_DEFAULTS: Mapping[str, Any] = {
    "training.learning_rate": 1e-4,
    "training.max_length": 2048,
    "training.batch_size": 1,
    "training.schedule": "constant",
    "training.warmup": 0.0,
    "training.grouping": "random",
}
_RULES: Mapping[str, KeyRule] = {
    **shared.COMMON,
    "micro_batch_size": KeyRule("training.batch_size", whole),
    "cutoff_len": KeyRule("training.max_length", shared.length),
    "enable_activation_checkpointing": KeyRule("training.gradient_checkpointing", switch),
}
_PAIRS = frozenset({"pair", "dpo", "preference"})


def translate(draft: Draft) -> None:
    """Fill in `draft.config` from the keys of version 1.

    Raises: UsageError: a kind of adapter that no config of ours can say, or no data set.
    """
    given = str(draft.take("output_dir", "", ours="name"))
    draft.set("name", adapter_name(given, draft.path.stem))
    _set_method_and_data(draft)
    _set_adapter(draft)
    for key, value in _DEFAULTS.items():
        draft.set(key, value)
    _set_optimiser(draft)
    draft.follow(_RULES)
    total = draft.take("global_batch_size", ours="training.accumulation")
    if total is not None:
        draft.set("training.accumulation", max(1, round(number(total) / draft.get("training.batch_size"))))
    shared.set_precision(draft)
    shared.set_length(draft, "num_train_epochs", 3.0)
    epochs = draft.take("save_epochs", ours="checkpoints.every")
    if epochs is not None and number(epochs) > 0:
        draft.set("checkpoints.every", {"per_epoch": max(1, round(1 / number(epochs)))})
    shared.set_keeping(draft)
    draft.finish(LOST, SAME, f"{shared.UNKNOWN} (LLaMA-Factory)")


def _set_method_and_data(draft: Draft) -> None:
    given = draft.take("train_dataset", ours="data.train")
    if is_empty(given):
        raise draft.refuse("train_dataset", "(none)", "name one: nothing here says what to train on")
    train, pairs = _rows(draft, "train_dataset", str(given))
    loss = str(draft.take("pref_loss", "sigmoid" if pairs else "", ours="method"))
    if loss and loss not in {"sigmoid", "orpo"}:
        raise draft.refuse("pref_loss", loss, "use sigmoid or orpo")
    method = "orpo" if loss == "orpo" else "dpo" if pairs or loss else "supervised"
    draft.set("method", {"type": method})
    if method != "supervised":
        draft.follow({"pref_beta": KeyRule("method.beta", positive)})
    if method == "dpo":
        draft.follow({"pref_ftx": KeyRule("method.supervised_weight", number)})
    held_out = draft.take("eval_dataset", ours="data.eval")
    found = [] if is_empty(held_out) else _rows(draft, "eval_dataset", str(held_out))[0]
    for rows in found[1:]:
        draft.lose("eval_dataset", rows.given, "one held-out file is measured; join the files")
    set_rows(draft, train, found[0] if found else None)


def _rows(draft: Draft, key: str, given: str) -> tuple[list[ForeignRows], bool]:
    """Return the data sets that `given` names, and whether their rows are pairs."""
    if PurePosixPath(given).suffix not in {".yaml", ".yml"}:
        return [ForeignRows(key, given)], "dpo" in PurePosixPath(given).name.lower()
    found = draft.folders.find(given)
    if found is None:
        reason = "no such file here, which lists the data sets: its rows are looked for beside it"
        draft.lose(key, given, reason)
        label = PurePosixPath(given).stem
        return [ForeignRows(key, str(PurePosixPath(given).with_suffix(".jsonl")))], "dpo" in label.lower()
    listed = {
        name: one for name, one in read_settings(found).items() if isinstance(one, dict) and "path" in one
    }
    if not listed:
        raise draft.refuse(key, given, "it lists no data set with a path")
    rows = [_entry(draft, f"{key}.{name}", name, one) for name, one in listed.items()]
    return rows, any(str(one.get("converter")) in _PAIRS for one in listed.values())


def _entry(draft: Draft, key: str, label: str, entry: Mapping[str, Any]) -> ForeignRows:
    weight, size = entry.get("weight"), entry.get("size")
    if entry.get("source", "hf_hub") not in {"hf_hub", "local"}:
        draft.lose(f"{key}.source", entry["source"], "rows are read from files or the Hugging Face hub")
    return ForeignRows(
        key=key,
        given=str(entry["path"]),
        split=entry.get("split"),
        limit=None if size is None else whole(size),
        weight=None if weight is None else number(weight),
        label=label,
    )


def _set_adapter(draft: Draft) -> None:
    peft = draft.take("peft_config", {}, ours="lora") or {}
    if not isinstance(peft, dict):
        raise draft.refuse("peft_config", peft, "it is a section: {name: lora, r: 16}")
    kind = str(peft.get("name", "full")).lower()
    if kind not in {"lora", "full", "freeze"}:
        raise draft.refuse("peft_config.name", kind, "use lora: vLLM swaps only LoRA")
    draft.set("lora.kind", "lora" if kind == "lora" else "full")
    if kind != "lora":
        draft.change("peft_config", kind if peft else "(none)", shared.FULL)
    if kind == "freeze":
        draft.source |= {key: value for key, value in peft.items() if key.startswith("freeze_")}
        set_freeze(draft, "freeze_trainable_layers")
    if kind == "lora":
        rank = peft.get("r", 8)
        shared.set_rank(draft, rank, peft.get("lora_alpha", 16), peft.get("lora_dropout", 0.05))
        draft.set("lora.target_modules", shared.modules(peft.get("target_modules", "all")))
    known = {"name", "r", "lora_alpha", "lora_dropout", "target_modules"}
    for key in sorted(set(peft) - known):
        if not key.startswith("freeze_"):
            draft.lose(f"peft_config.{key}", peft[key], LOST.get(key, f"{shared.UNKNOWN} (LLaMA-Factory)"))
    quant = draft.take("quant_config", ours="quantization")
    if isinstance(quant, dict) and str(quant.get("quantization_bit", 4)) == "4" and kind == "lora":
        draft.set("quantization", {"type": "nf4", "double": bool(quant.get("double_quantization", True))})
    elif not is_empty(quant):
        draft.change("quant_config", quant, "bases are trained in bf16, fp16, fp32, or in NF4 under a LoRA")


def _set_optimiser(draft: Draft) -> None:
    for key, ours, convert in (
        ("optim_config", "training.optimiser", shared.optimiser),
        ("lr_scheduler_config", "training.schedule", shared.schedule),
    ):
        section = draft.take(key, ours=ours)
        if isinstance(section, dict):
            draft.put(ours, section.get("name", ""), key, convert)
