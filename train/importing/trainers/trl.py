"""TRL's YAML (1.x: `trl sft --config`), and alignment-handbook's, which adds mixtures to it, into our config.

Owns its values and its defaults: where a default differs from ours, theirs is written out. The YAML does not
say which trainer it is for: the caller's `method`, keys that only one trainer has, or the folder say it, and
where nothing does supervised training is taken, with a warning.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from train.importing import shared
from train.importing.draft import (
    Draft,
    KeyRule,
    adapter_name,
    is_empty,
    names,
    number,
    positive,
    switch,
    whole,
)
from train.importing.sources import ForeignRows, set_rows, set_share
from train.importing.trainers.trl_reasons import LOST, SAME

METHODS = {
    "sft": "supervised", "supervised": "supervised", "dpo": "dpo", "kto": "kto", "orpo": "orpo",
    "reward": "reward",
}  # fmt: skip
_LOSSES = {"sigmoid": "sigmoid", "ipo": "ipo", "hinge": "hinge", "robust": "robust"}
_RATES = {"supervised": 2e-5, "dpo": 1e-6, "kto": 1e-6, "orpo": 1e-6, "reward": 1e-4}
_DEFAULTS: Mapping[str, Any] = {
    "training.max_length": 1024,
    "training.batch_size": 8,
    "training.schedule": "linear",
    "training.warmup": 0.0,
    "training.grouping": "random",
}
_RULES: Mapping[str, KeyRule] = {
    **shared.COMMON,
    "optim": KeyRule("training.optimiser", shared.optimiser),
    "lr_scheduler_type": KeyRule("training.schedule", shared.schedule),
    "per_device_train_batch_size": KeyRule("training.batch_size", whole),
    "max_seq_length": KeyRule("training.max_length", shared.length),
    "max_length": KeyRule("training.max_length", shared.length),
    "gradient_checkpointing": KeyRule("training.gradient_checkpointing", switch),
}
# Keys that only one of TRL's trainers has.
_ONLINE = frozenset({"reward_funcs", "num_generations", "reward_model_path", "reward_model_name_or_path"})
_SIGNS: Mapping[str, frozenset[str]] = {
    "kto": frozenset({"desirable_weight", "undesirable_weight"}),
    "dpo": frozenset({
        "loss_type", "precompute_ref_log_probs", "ref_model_init_kwargs", "rpo_alpha", "f_divergence_type",
    }),
    "reward": frozenset({"center_rewards_coefficient"}),
    "supervised": frozenset({
        "packing", "assistant_only_loss", "completion_only_loss", "dataset_text_field", "max_seq_length",
        "neftune_noise_alpha", "padding_free", "dataset_kwargs",
    }),
}  # fmt: skip


def translate(draft: Draft) -> None:
    """Fill in `draft.config` from TRL's keys.

    Raises: UsageError: a trainer or a loss that no config of ours can say, or no data set.
    """
    given = str(draft.take("output_dir", ours="name") or draft.source.get("hub_model_id") or "")
    draft.set("name", adapter_name(given, draft.path.stem))
    method = _method(draft)
    draft.set("method", {"type": method})
    _set_method_values(draft, method)
    _set_data(draft)
    _set_adapter(draft)
    for key, value in _DEFAULTS.items():
        draft.set(key, value)
    draft.set("training.learning_rate", _RATES[method])
    if draft.take("group_by_length"):
        draft.set("training.grouping", "length")
    draft.follow(_RULES)
    shared.widen_batch(draft)
    shared.set_precision(draft)
    shared.set_length(draft, "num_train_epochs", 3.0)
    shared.set_warmup(draft)
    shared.set_packing(draft, wanted=draft.take("packing", default=False))
    _say_what_is_learnt(draft, method)
    shared.set_keeping(draft)
    shared.set_trackers(draft, "report_to")
    draft.finish(LOST, SAME, f"{shared.UNKNOWN} (TRL)")


def _method(draft: Draft) -> str:
    if found := sorted(_ONLINE & set(draft.source)):
        raise draft.refuse(found[0], draft.source[found[0]], shared.GRADERS)
    if draft.method is not None:
        return METHODS[draft.method]
    if (folder := _named_by_folder(draft)) is not None:
        draft.ignore("trainer", f"{folder}, by the file's folder", "name another with --method")
        return folder
    for method, signs in _SIGNS.items():
        if signs & set(draft.source):
            return method
    if "beta" in draft.source:
        remedy = "DPO, KTO and ORPO have it: say which with --method dpo, kto or orpo"
        raise draft.refuse("beta", draft.source["beta"], remedy)
    reason = "the file does not say which of TRL's trainers it is for; name another with --method"
    draft.change("trainer", "sft", reason)
    return "supervised"


def _named_by_folder(draft: Draft) -> str | None:
    parts = [draft.path.stem.lower(), draft.path.resolve().parent.name.lower()]
    words = {word for part in parts for word in part.replace("-", "_").split("_")}
    found = {METHODS[word] for word in words & set(METHODS)}
    return found.pop() if len(found) == 1 else None


def _set_method_values(draft: Draft, method: str) -> None:
    if method in {"dpo", "kto", "orpo"}:
        draft.follow({"beta": KeyRule("method.beta", positive)})
    if method == "dpo":
        given = draft.take("loss_type", "sigmoid", ours="method.loss")
        kinds = [given] if isinstance(given, str) else list(given)
        if len(kinds) != 1 or kinds[0] not in _LOSSES:
            raise draft.refuse("loss_type", given, f"use one of {', '.join(_LOSSES)}")
        draft.set("method.loss", _LOSSES[kinds[0]])
        smoothing = number(draft.take("label_smoothing", 0.0, ours="method.label_smoothing"))
        if kinds[0] == "robust":
            draft.set("method.label_smoothing", smoothing)
        elif smoothing:
            draft.lose("label_smoothing", smoothing, "is read by loss: robust only")
        draft.follow({"rpo_alpha": KeyRule("method.supervised_weight", number)})
    if method == "kto":
        weights = ("desirable_weight", "undesirable_weight")
        draft.follow({key: KeyRule(f"method.{key}", positive) for key in weights})
    if method == "reward":
        draft.follow({"center_rewards_coefficient": KeyRule("method.centre", positive)})


def _set_data(draft: Draft) -> None:
    rows, share = _mixture(draft)
    test = str(draft.take("dataset_test_split", "test", ours="data.eval"))
    if not rows and (name := draft.take("dataset_name", ours="data.train")):
        split, subset = draft.take("dataset_train_split", "train"), draft.take("dataset_config")
        rows = [ForeignRows("dataset_name", str(name), split=split, subset=subset, columns=_columns(draft))]
    if not rows:
        raise draft.refuse("dataset_name", "(none)", "name one: nothing here says what to train on")
    for key in ("dataset_name", "dataset_config", "dataset_train_split"):
        draft.lose(key, draft.source.pop(key, None), "the mixture wins")
    strategy = str(draft.source.get("eval_strategy", draft.source.get("do_eval", "no")))
    measured = strategy.lower() not in {"no", "false"}
    held_out = ForeignRows("dataset_test_split", rows[0].given, split=test, subset=rows[0].subset)
    has_parts = draft.folders.place(rows[0].given).has_parts
    if share is not None:
        draft.source["test_split_size"] = share
    kept = measured and share is None and has_parts
    if not kept and measured and share is None:
        reason = "one file has no part of that name: name held-out rows as data.eval"
        draft.lose("dataset_test_split", test, reason)
    set_rows(draft, rows, held_out if kept else None)
    set_share(draft, "test_split_size")


def _columns(draft: Draft) -> dict[str, str]:
    text = draft.take("dataset_text_field", ours="data.train")
    return {} if text in {None, "text"} else {"text": str(text)}


def _mixture(draft: Draft) -> tuple[list[ForeignRows], Any]:
    """Return the data sets of a mixture in any of its three forms, and the share that it holds out."""
    mixture = draft.take("dataset_mixture", ours="data.train")
    mixture = dict(mixture) if isinstance(mixture, dict) else {}
    listed = draft.take("datasets", ours="data.train") or mixture.get("datasets") or []
    if isinstance(listed, dict) or not isinstance(listed, list):
        raise draft.refuse("datasets", listed, "it is a list of data sets")
    share = mixture.get("test_split_size")
    if mixture.get("seed") is not None:
        draft.ignore("dataset_mixture.seed", mixture["seed"], "rows are drawn by the run's seed")
    rows = [_entry(draft, f"datasets[{at}]", one) for at, one in enumerate(listed) if isinstance(one, dict)]
    return rows or _mixer(draft), share


def _entry(draft: Draft, key: str, entry: Mapping[str, Any]) -> ForeignRows:
    given = entry.get("path") or entry.get("id")
    if is_empty(given):
        raise draft.refuse(key, dict(entry), "name its path")
    weight = entry.get("weight", entry.get("fraction"))
    if weight is not None and number(weight) != 1:
        reason = "is a share of its rows there; here it weighs the source in the mixture (data.train, weight)"
        draft.change(f"{key}.weight", weight, reason)
    files = entry.get("data_files") or ()
    known = {"path", "id", "name", "config", "split", "columns", "weight", "fraction", "data_files"}
    for name in sorted(set(entry) - known):
        draft.lose(f"{key}.{name}", entry[name], f"{shared.UNKNOWN} (TRL)")
    return ForeignRows(
        key=key,
        given=str(given),
        split=entry.get("split"),
        subset=entry.get("name") or entry.get("config"),
        files=[files] if isinstance(files, str) else list(files),
        weight=None if weight is None or number(weight) == 1 else number(weight),
    )


def _mixer(draft: Draft) -> list[ForeignRows]:
    mixer = draft.take("dataset_mixer", ours="data.train")
    splits = names(draft.take("dataset_splits", [], ours="data.train"))
    if not isinstance(mixer, dict):
        return []
    train = next((name for name in splits if "train" in name), "train")
    if test := next((name for name in splits if "test" in name), None):
        draft.source.setdefault("dataset_test_split", test)
    for given, share in mixer.items():
        if number(share) < 1:
            draft.change(f"dataset_mixer.{given}", share, "is a share of its rows there; here it is a weight")
    return [
        ForeignRows(
            "dataset_mixer", str(given), split=train, weight=number(share) if number(share) < 1 else None
        )
        for given, share in mixer.items()
    ]


def _set_adapter(draft: Draft) -> None:
    if not draft.take("use_peft", default=False, ours="lora.kind"):
        draft.set("lora.kind", "full")
        draft.change("use_peft", "(not given)", shared.FULL)
        for key in [name for name in draft.source if name.startswith("lora_")]:
            draft.lose(key, draft.take(key), "nothing is an adapter without `use_peft: true`")
        if four := draft.take("load_in_4bit"):
            draft.change("load_in_4bit", four, "all weights cannot be trained in 4 bits")
        return
    draft.set("lora.kind", "dora" if draft.take("use_dora", ours="lora.kind") else "lora")
    rank, alpha = draft.take("lora_r", 16, ours="lora.rank"), draft.take("lora_alpha", 32, ours="lora.alpha")
    shared.set_rank(draft, rank, alpha, draft.take("lora_dropout", 0.05, ours="lora.dropout"))
    named = draft.take("lora_target_modules", ours="lora.target_modules")
    if is_empty(named):
        reason = "theirs leaves the modules to PEFT (often q_proj and v_proj); all linear ones are taken"
        draft.change("lora_target_modules", "(not given)", reason)
    draft.set("lora.target_modules", "all-linear" if is_empty(named) else shared.modules(named))
    double = draft.take("use_bnb_nested_quant", default=False, ours="quantization.double")
    if draft.take("load_in_4bit", ours="quantization"):
        form = draft.take("bnb_4bit_quant_type", "nf4", ours="quantization.type")
        if form != "nf4":
            draft.change("bnb_4bit_quant_type", form, "NF4 is taken")
        draft.set("quantization", {"type": "nf4", "double": bool(double)})


def _say_what_is_learnt(draft: Draft, method: str) -> None:
    answers = draft.take("assistant_only_loss"), draft.take("completion_only_loss")
    if method == "supervised" and not any(answers):
        reason = "theirs learns the questions of a conversation too; here only its answers are learnt"
        draft.change("assistant_only_loss", "(not given)", reason)
