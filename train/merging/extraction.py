"""A plain LoRA out of any trained weights: the difference to the base, cut to a rank, with what that loses.

Owns which differences a LoRA can hold, the choice of the rank, and the residual. Invariant: what is written
passes `wardrobe register` on a root of the same base, and every difference is either in it or in the
residual.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from registry.errors import InvalidAdapter, UsageError
from registry.records import BaseModelInfo
from registry.validation.architectures import INPUT_EMBEDDING
from registry.validation.base import read_base
from train.merging.changes import find_changes
from train.merging.factors import Factors, factorise, frobenius
from train.merging.weights import FolderWeights

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

ACCEPTED_RESIDUAL = 0.05


@dataclass(frozen=True, slots=True)
class ModuleResidual:
    """One module of the LoRA: the norm of its difference, and which part of that the LoRA leaves out."""

    module: str
    norm: float
    residual: float


@dataclass(frozen=True, slots=True)
class Unheld:
    """A changed weight that no LoRA can hold (a norm, a bias, an embedding that takes none)."""

    name: str
    norm: float


@dataclass(frozen=True, slots=True)
class Extraction:
    """What an extracted LoRA holds, and what it lost. Norms are Frobenius norms of differences to the base.

    `norm` is that of all differences together; `residual` is the norm of everything the LoRA leaves out,
    relative to it: 0 is exact, 1 is nothing kept, up to `accepted_residual` was accepted.
    """

    rank: int
    norm: float
    residual: float
    accepted_residual: float
    modules: tuple[ModuleResidual, ...]
    unheld: tuple[Unheld, ...]

    @property
    def unheld_share(self) -> float:
        """The part of the residual that a higher rank cannot mend."""
        return root_sum(one.norm for one in self.unheld) / self.norm


def extract_lora(
    base: Path,
    changed: Module | Mapping[str, Tensor],
    out: Path,
    *,
    rank: int | None = None,
    max_rank: int,
    accept_residual: float = ACCEPTED_RESIDUAL,
    advance: Callable[[int], object] | None = None,
) -> Extraction:
    """Write what `changed` learnt on the model folder `base` as a plain PEFT LoRA into the folder `out`.

    `changed` is the model in memory as training left it: a PEFT model (DoRA, PiSSA, OLoRA, KaSA, a LoRA of
    another rank, quantised bases too), a fully fine-tuned one, or tensors by the base's names (what is
    missing is unchanged). It is not modified. `rank` None takes the least rank up to `max_rank` whose
    residual is within `accept_residual`. `advance` is called with 1 per changed weight.

    Takes, beside the model: the largest weight and its difference in fp32, and the factors of every module
    up to the rank. An initialisation that changes the base (PiSSA) is best trained on an fp32 base: the
    rounding of a bf16 one is not a part of what was learnt and is left out.

    Raises: InvalidAdapter: when the residual is larger than `accept_residual` (reason `rank`), when
    nothing changed, or for the reasons of `find_changes`; `out` then has no new file. UsageError: for a
    rank outside 1 to `max_rank`, or a base with packed weights.
    """
    check_rank(rank, max_rank)
    record = read_base(base, base.name)
    if not record.modules:
        fact = "has packed weights, from which no difference can be taken"
        raise UsageError(str(base), fact, "give the base in bf16, fp16 or fp32")
    held: dict[str, Factors] = {}
    unheld: list[Unheld] = []
    for change in find_changes(changed, FolderWeights(base)):
        module = change.name.removesuffix(".weight")
        if module in record.modules and change.name.endswith(".weight"):
            held[module] = factorise(change.delta, rank or max_rank)
        else:
            unheld.append(Unheld(change.name, frobenius(change.delta)))
        if advance is not None:
            advance(1)
    if rank is None:
        rank = _least_rank(held, unheld, max_rank, accept_residual)
    extraction = measure(rank, held, unheld, accept_residual)
    _check_residual(extraction, max_rank)
    write_lora(out, rank, held, record)
    return extraction


def check_rank(rank: int | None, max_rank: int) -> None:
    """Refuse a rank that this root could not take; None is one that is still to be chosen.

    Raises: UsageError.
    """
    if rank is not None and not 1 <= rank <= max_rank:
        fact = f"{rank} is not within 1 to {max_rank}, the root's max_lora_rank"
        raise UsageError("--rank", fact, "give a rank within it, or raise it", param="rank")


def _least_rank(
    held: Mapping[str, Factors], unheld: Sequence[Unheld], max_rank: int, accept_residual: float
) -> int:
    for rank in range(1, max_rank):
        if measure(rank, held, unheld, accept_residual).residual <= accept_residual:
            return rank
    return max_rank


def measure(
    rank: int, held: Mapping[str, Factors], unheld: Sequence[Unheld], accept_residual: float
) -> Extraction:
    """Return what a LoRA of this rank would hold of the changes, and what it leaves out.

    Raises: InvalidAdapter: nothing changed.
    """
    if not held and not unheld:
        fact = "every one is the base's own: nothing was learnt"
        raise InvalidAdapter("weights", fact, "train it first", reason="modules")
    left_out = {module: factors.left_out(rank) for module, factors in held.items()}
    lost = [one.norm for one in unheld]
    norm = root_sum([*lost, *(factors.norm for factors in held.values())])
    modules = tuple(
        ModuleResidual(module, factors.norm, left_out[module] / factors.norm)
        for module, factors in sorted(held.items())
    )
    found = tuple(sorted(unheld, key=lambda one: one.norm, reverse=True))
    residual = root_sum([*lost, *left_out.values()]) / norm
    return Extraction(rank, norm, residual, accept_residual, modules, found)


def _check_residual(found: Extraction, max_rank: int) -> None:
    if found.modules and found.residual <= found.accepted_residual:
        return
    fact = f"leaves out {found.residual:.3f} of what was learnt (Frobenius norm)"
    fact += f"; accepted is {found.accepted_residual:g}"
    if found.unheld:
        names = ", ".join(one.name for one in found.unheld[:3])
        more = len(found.unheld) - 3
        fact += f"; {found.unheld_share:.3f} of it is in weights that no LoRA holds: {names}"
        fact += f" and {more} more" if more > 0 else ""
    ways = ["serve it merged (--as model)", f"accept it (--accept-residual {next_up(found.residual)})"]
    if found.rank < max_rank:
        ways.insert(0, f"give --rank up to {max_rank}")
    subject = f"LoRA of rank {found.rank}"
    raise InvalidAdapter(subject, fact, ", or ".join(ways), reason="rank", param="rank")


def write_lora(out: Path, rank: int, held: Mapping[str, Factors], base: BaseModelInfo) -> None:
    """Write the factors, cut to `rank`, as a plain PEFT LoRA with a scale of 1 into the folder `out`."""
    from peft import LoraConfig
    from safetensors.torch import save_file

    tensors: dict[str, Tensor] = {}
    for module, factors in held.items():
        tensors |= _pair(module, *factors.product(rank))
    config = LoraConfig(
        r=rank,
        lora_alpha=rank,  # a scale of 1
        target_modules=_targets(list(held), base),
        task_type="CAUSAL_LM",
        inference_mode=True,
        base_model_name_or_path=base.fingerprint,
    )
    out.mkdir(parents=True, exist_ok=True)
    path = out / "adapter_model.safetensors"
    save_file(tensors, path, metadata={"format": "pt"})
    path.chmod(0o644)  # safetensors writes for the owner alone; whoever registers it may be another user
    config.save_pretrained(out)


def _pair(module: str, b: Tensor, a: Tensor) -> dict[str, Tensor]:
    prefix = f"base_model.model.{module}"
    if module.rpartition(".")[2] == INPUT_EMBEDDING:
        # An embedding's weight lies transposed in PEFT: its A looks a token up.
        return {
            f"{prefix}.lora_embedding_A": b.T.contiguous(),
            f"{prefix}.lora_embedding_B": a.T.contiguous(),
        }
    return {f"{prefix}.lora_A.weight": a, f"{prefix}.lora_B.weight": b}


def _targets(held: Sequence[str], base: BaseModelInfo) -> list[str]:
    """Return short names where every module of that name is held, whole names elsewhere."""
    partial = {_leaf(module) for module in base.modules if module not in held}
    return sorted({module if _leaf(module) in partial else _leaf(module) for module in held})


def _leaf(module: str) -> str:
    return module.rpartition(".")[2]


def next_up(residual: float) -> str:
    """Return a residual to accept, just above this one, as it is typed."""
    return f"{min(1.0, residual + 0.005):.2f}"


def root_sum(norms: Iterable[float]) -> float:
    """Return the Frobenius norm of all together."""
    return math.sqrt(sum(norm * norm for norm in norms))
