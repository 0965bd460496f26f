"""Axolotl's YAML (0.19: axolotl/utils/schemas) into our config; flat, or in sections as guides print it.

Owns its values and its defaults: where a default differs from ours, theirs is written out. Its data sets are
in `axolotl_rows`, why keys have no counterpart in `axolotl_reasons`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from train.importing import shared
from train.importing.draft import Draft, KeyRule, adapter_name, is_empty, number, positive, switch, whole
from train.importing.trainers.axolotl_reasons import LOST, SAME
from train.importing.trainers.axolotl_rows import set_data
from train.importing.trainers.sections import flattened, is_sectioned

_PREFERENCES = {"dpo": "dpo", "ipo": "dpo", "kto": "kto", "orpo": "orpo"}
_REFUSED = {
    "ebft": "energy-based fine-tuning is not here; the nearest is `method: rloo` with a grader",
    "gdpo": shared.GRADERS,
    "grpo": shared.GRADERS,
    "simpo": "use dpo, or orpo, which needs no reference either",
}
_RULES: Mapping[str, KeyRule] = {
    **shared.COMMON,
    "optimizer": KeyRule("training.optimiser", shared.optimiser),
    "peft_use_rslora": KeyRule("lora.rslora", switch),
    "peft_layers_to_transform": KeyRule(
        "lora.layers", lambda value: [value] if isinstance(value, int) else value
    ),
    "lora_rank_pattern": KeyRule("lora.rank_pattern"),
    "lora_alpha_pattern": KeyRule("lora.alpha_pattern"),
    "gradient_checkpointing": KeyRule("training.gradient_checkpointing", switch),
}


def translate(draft: Draft) -> None:
    """Fill in `draft.config` from Axolotl's keys.

    Raises: UsageError: a method or kind of adapter that no config of ours can say.
    """
    sectioned = is_sectioned(draft.source)
    draft.source = flattened(draft.source)
    given = str(draft.take("output_dir", ours="name") or draft.source.get("hub_model_id") or "")
    draft.set("name", adapter_name(given, draft.path.stem))
    _set_method(draft)
    set_data(draft, sectioned=sectioned)
    _set_adapter(draft)
    _set_batch(draft)
    _set_max_length(draft, sectioned=sectioned)
    draft.set(
        "training.grouping", "length" if draft.take("group_by_length", ours="training.grouping") else "random"
    )
    draft.put(
        "training.schedule",
        draft.take("lr_scheduler", "cosine", ours="training.schedule"),
        "lr_scheduler",
        shared.schedule,
    )
    draft.follow(_RULES)
    shared.widen_batch(draft)
    shared.set_precision(draft)
    shared.set_length(draft, "num_epochs", 1.0)
    shared.set_warmup(draft)
    shared.set_packing(draft, wanted=draft.take("sample_packing", default=False, ours="method.packing"))
    shared.set_keeping(draft)
    _set_tracking(draft)
    draft.finish(LOST, SAME, f"{shared.UNKNOWN} (Axolotl)")


def _set_method(draft: Draft) -> None:
    rl = draft.take("rl", ours="method")
    _refuse_other_models(draft)
    if rl is not None and rl not in _PREFERENCES:
        remedy = _REFUSED.get(str(rl), "use dpo, ipo, kto or orpo")
        raise draft.refuse("rl", rl, remedy)
    if rl is None:
        reward = draft.take("reward_model", ours="method")
        if reward:
            draft.set("method", {"type": "reward"})
            draft.take("num_labels")
            draft.take("model_type")
            draft.follow({"center_rewards_coefficient": KeyRule("method.centre", positive)})
        return
    draft.set("method", {"type": _PREFERENCES[rl]})
    if rl == "ipo":
        draft.set("method.loss", "ipo")
    rules = {"rl_beta": "beta", "dpo_beta": "beta", "orpo_alpha": "beta"}
    if rl == "kto":
        rules |= {"kto_desirable_weight": "desirable_weight", "kto_undesirable_weight": "undesirable_weight"}
    if rl in {"dpo", "ipo"}:
        rules["rpo_alpha"] = "supervised_weight"
    draft.follow({key: KeyRule(f"method.{ours}", positive) for key, ours in rules.items()})


def _refuse_other_models(draft: Draft) -> None:
    source = draft.source
    if source.get("process_reward_model"):
        remedy = "reward models of whole answers are here (`method: reward`), of single steps are not"
        raise draft.refuse("process_reward_model", source["process_reward_model"], remedy)
    plugins = str(source.get("plugins", ""))
    if source.get("diffusion") or "diffusion" in plugins:
        remedy = "a diffusion language model is none that vLLM serves with a LoRA: leave the key out to train"
        raise draft.refuse("diffusion", source.get("diffusion", plugins), f"{remedy} it as a usual one")
    if "SequenceClassification" in str(source.get("model_type", "")) and not source.get("reward_model"):
        remedy = "train the label as an answer of a conversation"
        raise draft.refuse("model_type", source["model_type"], remedy)


def _set_adapter(draft: Draft) -> None:
    adapter = draft.take("adapter", ours="lora.kind")
    if not adapter and draft.get("method.type") == "reward":
        draft.change(
            "adapter", "(none)", "a reward model is a LoRA with a head: rank 16 on all linear modules"
        )
        draft.set("lora", {"kind": "lora"})
        return
    if isinstance(adapter, str) and adapter.lower() not in {"lora", "qlora"}:
        raise draft.refuse("adapter", adapter, "use lora or qlora: vLLM swaps only LoRA")
    draft.set("lora.kind", _kind(draft, adapter))
    if adapter:
        _set_lora(draft)
    else:
        draft.change("adapter", "(none)", shared.FULL)
        for key in [name for name in draft.source if name.startswith(("lora_", "peft_"))]:
            draft.lose(key, draft.take(key), "nothing is an adapter without `adapter: lora`")
    _set_quantization(draft, adapter)


def _set_lora(draft: Draft) -> None:
    rank = draft.take("lora_r", ours="lora.rank")
    if rank is None:
        draft.change("lora_r", "(not given)", "8 is taken, PEFT's default")
    draft.put("lora.rank", 8 if rank is None else rank, "lora_r", whole)
    draft.follow(
        {
            "lora_alpha": KeyRule("lora.alpha", positive),
            "lora_dropout": KeyRule("lora.dropout", number),
        }
    )
    linear = draft.take("lora_target_linear", ours="lora.target_modules")
    named = draft.take("lora_target_modules", ours="lora.target_modules")
    if is_empty(named) and not linear:
        reason = "theirs leaves the modules to PEFT; all linear ones are taken"
        draft.change("lora_target_modules", "(not given)", reason)
    draft.set("lora.target_modules", "all-linear" if linear or is_empty(named) else shared.modules(named))


def _set_quantization(draft: Draft, adapter: Any) -> None:
    bits = (
        str(draft.take("quantization_bits", "", ours="quantization")).lower().removesuffix("bit").rstrip("-")
    )
    four = draft.take("load_in_4bit", default=False, ours="quantization") or bits in {"4", "nf4", "int4"}
    double = draft.take("double_quant", ours="quantization.double")
    kwargs = draft.take("bnb_config_kwargs", {}, ours="quantization")
    if bits == "8":
        draft.source.setdefault("load_in_8bit", True)
    if str(adapter).lower() == "qlora" or (adapter and four):
        given = kwargs.get("bnb_4bit_use_double_quant") if isinstance(kwargs, dict) else None
        chosen = next((value for value in (double, given) if value is not None), True)
        draft.set("quantization", {"type": "nf4", "double": bool(chosen)})
    elif four:
        draft.change("load_in_4bit", four, "all weights cannot be trained in 4 bits")


def _kind(draft: Draft, adapter: Any) -> str:
    dora = draft.take("peft_use_dora", ours="lora.kind")
    init = str(draft.take("peft_init_lora_weights", "", ours="lora.kind"))
    if not adapter:
        return "full"
    if init.lower().startswith("pissa"):
        return "pissa"
    if init.lower() not in {"", "true", "gaussian"}:
        draft.change("peft_init_lora_weights", init, "only PEFT's own start and PiSSA are here")
    return "dora" if dora else "lora"


def _set_batch(draft: Draft) -> None:
    """Translate the rows at once; `batch_size`, where it stands alone or beside, counts a whole step."""
    micro, total = draft.take("micro_batch_size", ours="training.batch_size"), draft.take("batch_size")
    if micro is None and total is not None:
        micro, total = total, None
    draft.put("training.batch_size", 1 if micro is None else micro, "micro_batch_size", whole)
    if total is not None and "gradient_accumulation_steps" not in draft.source:
        times = max(1, round(number(total) / draft.get("training.batch_size")))
        draft.set("training.accumulation", times)


def _set_max_length(draft: Draft, *, sectioned: bool) -> None:
    """Translate the longest row; a guide that says none does not mean Axolotl's own 512 tokens."""
    given = draft.take("sequence_len", ours="training.max_length")
    if given is None and sectioned:
        draft.change("sequence_len", "(not given)", "the default is taken: training.max_length 1024")
        return
    if given is None:
        draft.change("sequence_len", "(not given)", "512 is taken, Axolotl's default")
    draft.put("training.max_length", 512 if given is None else given, "sequence_len", shared.length)


def _set_tracking(draft: Draft) -> None:
    project = draft.take("wandb_project", ours="tracking.project")
    experiment = draft.take("mlflow_experiment_name", ours="tracking.project")
    found = ["wandb"] if draft.take("use_wandb", project, ours="tracking.to") else []
    found += ["mlflow"] if draft.take("use_mlflow", experiment, ours="tracking.to") else []
    found += ["tensorboard"] if draft.take("use_tensorboard", ours="tracking.to") else []
    shared.set_trackers(draft, "report_to")
    found += [name for name in draft.get("tracking.to", []) if name not in found]
    if found:
        draft.set("tracking.to", found)
    if project or experiment:
        draft.set("tracking.project", str(project or experiment))
