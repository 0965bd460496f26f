"""A proof of one version: the server is asked, the reference computed, both attested.

Owns the order: the server first, because it may refuse at once and the reference takes memory and time.
Invariant: every answer that counts says that the very content of the version gave it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from registry.errors import WardrobeError
from registry.records import Version
from registry.store import Registry
from registry.validation.canonical import sha256_hex
from registry.validation.chat_template import TEMPLATE_NAME
from registry.validation.requirements import FORMATS, Requirement
from train.epoch.encoding import Tokenizer
from train.evaluation.models.served import ServedModel
from train.proving.documents import DeviationDocument, ParityDocument, ProofDocument, TokensDocument
from train.proving.parity import TOLERANCE_FACTOR, ServedParity, compare
from train.proving.probes import CONVERSATIONS, TOOL_ROWS, probes_sha256
from train.proving.prompts import Deviation, ProofPrompt, deviation, tool_prompts, training_prompts, whole_ids
from train.proving.reference import refer, served_dtype
from train.rendering.template import template_of

Advance = Callable[[int], None]

STEPS = 5
"""How often `prove` tells of progress: served version, served base, prompts, reference, done."""


@dataclass(frozen=True, slots=True)
class Witness:
    """Who is asked: the version and the base, both at one server."""

    version: ServedModel
    base: ServedModel


def prove(
    registry: Registry,
    version: Version,
    witness: Witness,
    advance: Advance,
    *,
    dtype: str | None = None,
    reference: Path | None = None,
) -> ProofDocument:
    """Prove a version through its server; stores nothing.

    `dtype` is what the server computes in, default what it does without being told; `reference` is the
    PEFT folder to compare with, default the version's own files.

    Raises: InvalidAdapter: its files are not as published; Unanswered: the server does not answer, or
    another content did; UsageError: no tokenizer, or transformers is not installed.
    """
    from train.dataset.rendering import load_tokenizer_of

    registry.verify_version(version)
    base = Path(registry.base.path)
    tokenizer = load_tokenizer_of(base)
    prompts = whole_ids(CONVERSATIONS, tokenizer)
    served = [witness.version.token_log_probabilities(ids) for ids in prompts]
    advance(1)
    served_base = [witness.base.token_log_probabilities(ids) for ids in prompts]
    advance(1)
    tokens = prove_tokens(registry, version, witness.version, tokenizer)
    advance(1)
    chosen = dtype or served_dtype(base)
    references = refer(base, reference or version.path, prompts, chosen)
    advance(1)
    parity = _parity(registry, version, compare(served, served_base, references), chosen)
    advance(1)
    passed = parity.passed and tokens.passed
    return ProofDocument(version=version.name, passed=passed, stored=False, parity=parity, tokens=tokens)


def attest(registry: Registry, version: Version, proof: ProofDocument, who: str) -> ProofDocument:
    """Store both proofs with their version, passed or not, and return the document that says so."""
    for kind, body in ((Requirement.PARITY, proof.parity), (Requirement.TOKENS, proof.tokens)):
        registry.attest(version.adapter, version.number, kind, body.model_dump(mode="json"), who=who)
    return proof.model_copy(update={"stored": True})


def prove_tokens(
    registry: Registry, version: Version, model: ServedModel, tokenizer: Tokenizer
) -> TokensDocument:
    """Compare the server's prompts with those that training renders; a server that refuses is a fault."""
    recorded = registry.base.chat_template_sha256
    template = sha256_hex(template_of(tokenizer).encode()) if tokenizer.chat_template else None
    prompts, left_out = _prompts(tokenizer) if template else ([], [])
    fault = _template_fault(version, template, recorded)
    found: list[tuple[ProofPrompt, Deviation]] = []
    if not fault:
        try:
            found = _deviations(model, prompts)
        except WardrobeError as error:
            fault = str(error)
    if not fault and found:
        first = found[0][1]
        fault = f"{len(found)} of {len(prompts)} prompts differ, the first from token {first.position + 1} on"
    told = f"{len(prompts)} prompts have the same token ids in training and serving"
    return TokensDocument(
        format=FORMATS[Requirement.TOKENS],
        passed=not fault,
        sentence=fault or told,
        digest=version.digest,
        template_sha256=template,
        recorded_template_sha256=recorded,
        prompts=len(prompts),
        tokens=sum(len(prompt.ids) for prompt in prompts),
        probes_sha256=probes_sha256(),
        left_out=left_out,
        deviations=[_describe(prompt, one) for prompt, one in found],
    )


def _parity(registry: Registry, version: Version, found: ServedParity, dtype: str) -> ParityDocument:
    source = f"{TOLERANCE_FACTOR:g} times what rounding the PEFT reference to {dtype} does to the same tokens"
    return ParityDocument(
        format=FORMATS[Requirement.PARITY],
        passed=found.passed,
        sentence=found.sentence,
        digest=version.digest,
        base_fingerprint=registry.base.fingerprint,
        dtype=dtype,
        tokens=found.tokens,
        probes_sha256=probes_sha256(),
        difference=_json(found.difference),
        largest_difference=_json(found.largest),
        tolerance=found.tolerance,
        tolerance_from=source,
        base_difference=_json(found.base_difference),
        base_tolerance=found.base_tolerance,
        distance_from_base=_json(found.distance),
        effect=_json(found.effect),
        effect_error=_json(found.effect_error),
    )


def _template_fault(version: Version, template: str | None, recorded: str | None) -> str:
    if any(file.path == TEMPLATE_NAME for file in version.files):
        return "it has a chat template of its own, and the server renders with the base's"
    if template is None:
        return "the base has no chat template, so no conversation can be rendered"
    if template != recorded:
        return f"the base's chat template is {template[:12]} now, the root recorded {str(recorded)[:12]}"
    return ""


def _prompts(tokenizer: Tokenizer) -> tuple[list[ProofPrompt], list[str]]:
    plain, left_out = training_prompts(CONVERSATIONS, tokenizer)
    called, more = tool_prompts(TOOL_ROWS, tokenizer)
    return plain + called, left_out + more


def _deviations(model: ServedModel, prompts: Sequence[ProofPrompt]) -> list[tuple[ProofPrompt, Deviation]]:
    found = []
    for number, prompt in enumerate(prompts):
        different = deviation(number, prompt, model.prompt_ids(prompt.messages, prompt.tools))
        if different is not None:
            found.append((prompt, different))
    return found


def _describe(prompt: ProofPrompt, found: Deviation) -> DeviationDocument:
    return DeviationDocument(
        messages=list(prompt.messages),
        position=found.position,
        trained=list(found.trained),
        served=list(found.served),
    )


def _json(value: float) -> float | None:
    return value if math.isfinite(value) else None
