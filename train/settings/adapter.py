"""The shape of what is trained: LoRA and its kin, the base's precision while it trains."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from registry.settings.models import Strict

ALL_LINEAR = "all-linear"
Kind = Literal["lora", "dora", "pissa", "full"]

NOT_SERVABLE = {
    "prefix": "prefix tuning changes the attention cache",
    "prefix-tuning": "prefix tuning changes the attention cache",
    "prompt": "prompt tuning adds virtual tokens",
    "prompt-tuning": "prompt tuning adds virtual tokens",
    "p-tuning": "p-tuning adds virtual tokens",
    "bottleneck": "bottleneck (Houlsby) adapters add layers to the model",
    "houlsby": "bottleneck (Houlsby) adapters add layers to the model",
    "ia3": "IA3 scales activations",
    "adalora": "AdaLoRA's SVD form is not a LoRA that vLLM loads",
    "loha": "LoHa multiplies two products entry by entry",
    "lokr": "LoKr is a Kronecker product",
    "oft": "OFT rotates the weights",
    "boft": "BOFT rotates the weights",
    "vera": "VeRA's shared matrices are not a LoRA that vLLM loads",
}
"""Ways of fine-tuning that vLLM 0.32 cannot swap while it runs, and why."""

_SAID_ELSEWHERE = {
    "qlora": "use kind: lora with quantization: {type: nf4}",
    "rslora": "use kind: lora with rslora: true",
    "freeze": "use kind: full with layers: [...], which trains the weights of these layers alone",
}


def _targets(value: Any) -> Any:
    """Return `all-linear`, one expression or a tuple of names; anything else is refused in one sentence."""
    fact = "must be all-linear, a list of module names ([q_proj, v_proj]) or one expression over whole names"
    if isinstance(value, list | tuple) and all(isinstance(name, str) and name.strip() for name in value):
        if not value:
            raise ValueError(f"{fact}; the list is empty")
        return ALL_LINEAR if list(value) == [ALL_LINEAR] else tuple(value)
    if isinstance(value, str) and value.strip():
        return value
    raise ValueError(f"{fact}, not {value!r}")


Targets = Annotated[str | tuple[str, ...], BeforeValidator(_targets)]
"""`all-linear`, the names of modules, or one regular expression that a module's whole name must match."""


class LoraSettings(Strict):
    """The shape of the adapter.

    `kind`: `lora` is served as it is trained; `dora`, `pissa` and `full` (every weight of the target
    modules) are trained and then turned into a plain LoRA of `convert_rank` (default: `rank`) by SVD of the
    weight difference, with the residual reported. `alpha` defaults to twice the rank; `rslora` scales by
    alpha/√rank. `target_modules` is `all-linear`, a list of names of modules, or one regular expression
    that must match a module's whole name, as in PEFT; `layers` keeps to these layers (from 0).
    `rank_pattern` and `alpha_pattern` map module names, whole or their ends, to their own values.
    `accept_residual` is the share of what was learnt (Frobenius norm) that a conversion may leave out; a
    larger one fails the run. Without it a loss is only reported.
    """

    kind: Kind = "lora"
    rank: int = Field(default=16, ge=1, le=512)
    alpha: Annotated[int | float, Field(gt=0)] | None = None
    dropout: float = Field(default=0.0, ge=0, lt=1)
    target_modules: Targets = ALL_LINEAR
    layers: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)] | None = None
    rslora: bool = False
    rank_pattern: dict[str, Annotated[int, Field(ge=1, le=512)]] = Field(default_factory=dict)
    alpha_pattern: dict[str, Annotated[int | float, Field(gt=0)]] = Field(default_factory=dict)
    convert_rank: int | None = Field(default=None, ge=1, le=512)
    accept_residual: float | None = Field(default=None, ge=0, le=1)

    @field_validator("layers")
    @classmethod
    def _sorted_layers(cls, value: tuple[int, ...] | None) -> tuple[int, ...] | None:
        return None if value is None else tuple(sorted(set(value)))

    @model_validator(mode="before")
    @classmethod
    def _refuse_what_cannot_be_served(cls, value: Any) -> Any:
        kind = value.get("kind") if isinstance(value, dict) else None
        if isinstance(kind, str) and (why := NOT_SERVABLE.get(kind.lower().replace("_", "-"))):
            raise ValueError(f"kind {kind} cannot be served: {why}, and vLLM swaps only LoRA; use kind: lora")
        if isinstance(kind, str) and (said := _SAID_ELSEWHERE.get(kind.lower())):
            raise ValueError(f"kind {kind} is said in another way here: {said}")
        return value

    @model_validator(mode="after")
    def _refuse_what_is_not_read(self) -> Self:
        if self.kind == "lora":
            for key in ("convert_rank", "accept_residual"):
                if getattr(self, key) is not None:
                    raise ValueError(f"{key} is for dora, pissa and full: a plain LoRA is not converted")
        if self.kind == "full":
            for key in ("alpha", "dropout", "rslora", "rank_pattern", "alpha_pattern"):
                if getattr(self, key):
                    raise ValueError(f"{key} has no meaning with kind full, which trains no LoRA")
        return self

    @property
    def target_pattern(self) -> str | None:
        """Return the expression that names the modules, None where a list or `all-linear` does."""
        named = self.target_modules
        return named if isinstance(named, str) and named != ALL_LINEAR else None

    @property
    def converted_rank(self) -> int:
        """Return the rank of the plain LoRA that a conversion makes."""
        return self.convert_rank or max(self.rank, *self.rank_pattern.values(), 1)

    @property
    def scale_alpha(self) -> float:
        """Return `alpha`, or its default of twice the rank."""
        return self.alpha if self.alpha is not None else 2 * self.rank

    @property
    def highest_rank(self) -> int:
        """Return the largest rank of the adapter that comes out."""
        if self.kind != "lora":
            return self.converted_rank
        return max(self.rank, *self.rank_pattern.values(), 1)


class Quantization(Strict):
    """The base in 4 bits while it trains (QLoRA). The adapter is served on the unquantised base.

    `double` quantises the scales too; `compute` is the type of the products.
    """

    type: Literal["nf4"] = "nf4"
    double: bool = True
    compute: Literal["bf16", "fp16", "fp32"] = "bf16"
