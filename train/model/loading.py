"""The model that is trained: the base in its precision, and the adapter on it.

Owns loading, precision, quantisation and the shape of the adapter; knows no method and no step. Invariant:
nothing here reads anything but the base's folder, the version that the run starts from, and the config;
what is trained is in fp32.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from registry.validation.base import read_base
from train.config import ALL_LINEAR, TrainConfig
from train.model.adapted_head import plain_head
from train.model.experts import experts_of
from train.model.targets import target_names, targeted_modules
from train.rendering.bounds import require_bounded
from train.settings.adapter import Quantization

ADAPTER = "default"
_DTYPES = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}
# A product of four power iterations instead of the whole SVD: PiSSA's paper finds no difference (arXiv
# 2404.02948, section 5), and 210 modules take seconds instead of minutes.
_PISSA = "pissa_niter_4"


def load_tokenizer(base: Path) -> Any:
    """Return the base's tokenizer, from its folder only.

    Raises: UsageError: its chat template never ends, or fills the memory.
    """
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base, local_files_only=True)
    require_bounded(tokenizer)
    return tokenizer


def make_model(config: TrainConfig, base: Path, start: Path | None = None) -> tuple[Any, Any | None]:
    """Return the model and the PEFT config, as `train.methods.interface.Workshop` wants them.

    `start` is the folder of the version that the run goes on with. The caller has set the seed: the
    adapter's first weights are random.
    """
    model = load_base(base, precision_of(config), config.quantization, config.training.router_aux_loss_coef)
    if start is not None:
        return load_start(model, config, start), None
    if config.lora.kind == "full":
        free_targets(model, config, base)
        return model, None
    return model, lora_config(config, base)


def precision_of(config: TrainConfig) -> str:
    """Return the precision of the base's weights: `bf16`, `fp16` or `fp32`.

    `auto` is fp32 where the base's own weights are trained (full) or changed (PiSSA): updates that are
    smaller than a weight's last bit in bf16 would vanish.
    """
    if config.training.precision != "auto":
        return config.training.precision
    return "fp32" if config.lora.kind in {"full", "pissa"} else "bf16"


def load_base(
    base: Path,
    precision: str = "bf16",
    quantization: Quantization | None = None,
    router_aux_loss_coef: float | None = None,
) -> Any:
    """Return the base in `precision`, or quantised with the rest of it in `precision`; its folder only.

    `router_aux_loss_coef` is the weight of the routers' loss, where the base has routers.
    """
    from transformers import AutoModelForCausalLM

    extra = {} if quantization is None else {"quantization_config": _packed(quantization), **_placed()}
    if router_aux_loss_coef is not None:
        extra["router_aux_loss_coef"] = router_aux_loss_coef
        extra["output_router_logits"] = router_aux_loss_coef > 0
    model = AutoModelForCausalLM.from_pretrained(
        base,
        dtype=_dtype(precision),
        local_files_only=True,
        attn_implementation="sdpa",
        **extra,
    )
    return plain_head(model)


def load_start(model: Any, config: TrainConfig, start: Path) -> Any:
    """Put the version's adapter in the folder `start` on `model`, trainable and in fp32; the PEFT model."""
    from peft import PeftConfig, PeftModel

    shape = PeftConfig.from_pretrained(str(start))
    shape.lora_dropout = config.lora.dropout
    # The store keeps the base's fingerprint there, for which PEFT would ask a hub when it saves.
    shape.base_model_name_or_path = model.name_or_path
    adapted = PeftModel.from_pretrained(model, str(start), ADAPTER, is_trainable=True, config=shape)
    if config.quantization is not None:
        # NOTE: TRL 1.16 rounds every adapter on a 4-bit base to bf16, and these weights are learnt already.
        # It looks at this attribute only; whoever else needs it has read it by now.
        model.is_loaded_in_4bit = False
    return adapted


def free_targets(model: Any, config: TrainConfig, base: Path) -> None:
    """Let the weights of the target modules be trained, and freeze everything else.

    Only those changes can become a LoRA: embeddings, norms and biases stay as they are.
    """
    targets = targeted_modules(config.lora, read_base(base, base.name).modules)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.removesuffix(".weight") in targets)


def lora_config(config: TrainConfig, base: Path) -> Any:
    """Return the adapter's PEFT config; an expression or layers are held against the base's names."""
    from peft import LoraConfig

    lora = config.lora
    modules: Any = lora.target_modules
    whole = lora.layers is None and lora.target_pattern is None
    if not whole or (modules == ALL_LINEAR and experts_of(base)):
        modules = target_names(lora, read_base(base, base.name).modules)
    return LoraConfig(
        r=lora.rank,
        lora_alpha=lora.scale_alpha,
        lora_dropout=lora.dropout,
        target_modules=modules if isinstance(modules, str) else list(modules),
        layers_to_transform=None if lora.layers is None else list(lora.layers),
        rank_pattern=dict(lora.rank_pattern),
        alpha_pattern=dict(lora.alpha_pattern),
        use_rslora=lora.rslora,
        use_dora=lora.kind == "dora",
        init_lora_weights=_PISSA if lora.kind == "pissa" else True,
        task_type="CAUSAL_LM",
    )


def _packed(quantization: Quantization) -> Any:
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=quantization.type,
        bnb_4bit_use_double_quant=quantization.double,
        bnb_4bit_compute_dtype=_dtype(quantization.compute),
    )


def _placed() -> dict[str, Any]:
    from train.process.environment import device_has_gpu

    return {} if device_has_gpu() else {"device_map": {"": "cpu"}}


def _dtype(precision: str) -> Any:
    import torch

    return getattr(torch, _DTYPES[precision])
