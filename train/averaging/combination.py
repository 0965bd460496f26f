"""The average of what adapters change, as one plain LoRA: the weighted sum of scale·B·A, module by module.

Owns the linear algebra and the choice of the rank. Invariant: but for what the residual tells, and fp32's
rounding, the result changes every weight of the base by exactly the weighted mean of the sources' changes;
a module that a source does not adapt counts as a change of nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from registry.errors import InvalidAdapter
from registry.validation.intake.modules import Modules
from registry.validation.lora import LoraPair, pair_tensors
from registry.validation.patterns import PatternTable
from registry.validation.tensors import TensorInfo
from train.averaging.sources import AveragingSource, weights_of
from train.merging.extraction import Extraction, check_rank, measure, next_up, root_sum, write_lora
from train.merging.factors import Factors, factorise_product

if TYPE_CHECKING:
    from torch import Tensor

    from registry.records import BaseModelInfo

# A direction that is smaller than this share of its module is rounding of the fp32 factors, not learnt.
_ROUNDING = 1e-6


@dataclass(frozen=True, slots=True)
class Average:
    """An averaged LoRA: `extraction` tells rank and residual, `exact_rank` would leave nothing out.

    `norms` are the Frobenius norms of what each source changes. `agreement` is the average's norm over the
    weighted mean of theirs: 1 where all change the same way, 1/√n for n equal ones that share nothing, near 0
    where they undo each other.
    """

    extraction: Extraction
    exact_rank: int
    norms: tuple[float, ...]
    agreement: float


def average(
    sources: Sequence[AveragingSource],
    shares: Sequence[float],
    base: BaseModelInfo,
    out: Path,
    *,
    rank: int | None,
    max_rank: int,
    accept_residual: float,
) -> Average:
    """Write the average of `sources`, weighed by `shares`, as a PEFT LoRA into the folder `out`.

    `rank` None takes the rank that holds all of it, or `max_rank` where that is too much. Memory: the factors
    of all sources, and one module's in fp64.

    Raises: UsageError: a rank outside 1 to `max_rank`; InvalidAdapter: the average would leave out more than
    `accept_residual`, the sources cancel out, or one holds experts in one tensor.
    """
    check_rank(rank, max_rank)
    read = [dict(_changes(source, base)) for source in sources]
    held: dict[str, Factors] = {}
    by_source: list[list[float]] = [[] for _ in sources]
    for module in sorted({name for changes in read for name in changes}):
        parts = [(place, *changes[module]) for place, changes in enumerate(read) if module in changes]
        norms_here = {place: product_norm(left, right) for place, left, right in parts}
        for place, norm in norms_here.items():
            by_source[place].append(norm)
        factors = _combined([(shares[place], left, right) for place, left, right in parts])
        if factors.norm > _ROUNDING * max(norms_here.values()):
            held[module] = factors
    norms = tuple(map(root_sum, by_source))
    if not held:
        fact = "the sources cancel out: their average changes nothing"
        raise InvalidAdapter("average", fact, "look at the weights and the sources", reason="modules")
    exact = max(_own_rank(factors) for factors in held.values())
    found = measure(rank or min(exact, max_rank), held, (), accept_residual)
    _check_residual(found, exact, max_rank)
    write_lora(out, found.rank, held, base)
    mean = sum(share * norm for share, norm in zip(shares, norms, strict=True))
    return Average(found, exact, norms, found.norm / mean)


def product_norm(left: Tensor, right: Tensor) -> float:
    """Return the Frobenius norm of `left @ right` without making the matrix."""
    inner = (left.double().T @ left.double()) * (right.double() @ right.double().T)
    return math.sqrt(max(0.0, float(inner.sum())))


def _changes(source: AveragingSource, base: BaseModelInfo) -> Iterator[tuple[str, tuple[Tensor, Tensor]]]:
    """Yield each module's base name with the factors of its change: (out, r) scaled, and (r, in)."""
    from safetensors.torch import load

    tensors = load(weights_of(source))
    infos = [TensorInfo(name, "F32", tuple(tensor.shape), 0, 0) for name, tensor in tensors.items()]
    names, scale = Modules(base.modules), _Scale(source)
    for pair in pair_tensors(infos, source.name).pairs:
        if pair.is_fused_experts:
            fact = f"{pair.module} holds all experts of a layer in one tensor, which is not averaged"
            remedy = "average adapters without experts"
            raise InvalidAdapter(source.name, fact, remedy, reason="modules")
        a, b = tensors[pair.a.name].float(), tensors[pair.b.name].float()
        if pair.embedding:  # its weight lies transposed in PEFT
            a, b = b.T, a.T
        yield names.find(pair.module) or pair.module, (b * scale.of(pair), a)


class _Scale:
    """What a source multiplies B·A with, by module: alpha over the rank, or over its root (rsLoRA)."""

    def __init__(self, source: AveragingSource) -> None:
        config = source.config
        self._alpha, self._alphas = float(config.alpha), PatternTable(_floats(config.alpha_pattern))
        self._rooted = config.fields.get("use_rslora") is True

    def of(self, pair: LoraPair) -> float:
        alpha = self._alphas.find(pair.pattern_name, self._alpha)
        return alpha / (math.sqrt(pair.rank) if self._rooted else pair.rank)


def _floats(pattern: Mapping[str, float]) -> dict[str, float]:
    return {name: float(value) for name, value in pattern.items()}


def _combined(parts: Sequence[tuple[float, Tensor, Tensor]]) -> Factors:
    """Return the factors of the weighted sum of products, from all of them side by side."""
    import torch

    left = torch.cat([share * one.double() for share, one, _ in parts], dim=1)
    right = torch.cat([one.double() for _, _, one in parts], dim=0)
    return factorise_product(left, right)


def _own_rank(factors: Factors) -> int:
    return max(1, int((factors.values > _ROUNDING * factors.norm).sum()))


def _check_residual(found: Extraction, exact: int, max_rank: int) -> None:
    accepted = found.accepted_residual
    if found.residual <= accepted:
        return
    fact = f"leaves out {found.residual:.3f} of the average (Frobenius norm); accepted is {accepted:g}"
    ways = [f"accept it (--accept-residual {next_up(found.residual)})"]
    if found.rank < min(exact, max_rank):
        ways.insert(0, f"give --rank up to {min(exact, max_rank)}")
    if exact > max_rank:
        ways.append(f"raise max_lora_rank in wardrobe.toml (rank {exact} leaves nothing out)")
    subject = f"LoRA of rank {found.rank}"
    raise InvalidAdapter(subject, fact, ", or ".join(ways), reason="rank", param="rank")
