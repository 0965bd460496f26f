"""What a proof says: the bodies of the attestations `parity` and `tokens`, and what `prove --json` prints."""

from __future__ import annotations

from pydantic import JsonValue

from registry.api.documents import Document


class ParityDocument(Document):
    """The body of `parity`; differences in nats per token, null where they are not finite.

    `effect` is the share of what the adapter changes that the served answers show, with its standard error.
    """

    format: str
    passed: bool
    sentence: str
    digest: str
    base_fingerprint: str
    dtype: str
    tokens: int
    probes_sha256: str
    difference: float | None
    largest_difference: float | None
    tolerance: float
    tolerance_from: str
    base_difference: float | None
    base_tolerance: float
    distance_from_base: float | None
    effect: float | None
    effect_error: float | None


class DeviationDocument(Document):
    """One prompt that differs: the first position, and up to eight ids from there on."""

    messages: list[dict[str, JsonValue]]
    position: int
    trained: list[int]
    served: list[int]


class TokensDocument(Document):
    """The body of `tokens`; `left_out` are conversations that the template cannot render."""

    format: str
    passed: bool
    sentence: str
    digest: str
    template_sha256: str | None
    recorded_template_sha256: str | None
    prompts: int
    tokens: int
    probes_sha256: str
    left_out: list[str]
    deviations: list[DeviationDocument]


class ProofDocument(Document):
    """Both proofs of one version, and whether they were stored with it."""

    version: str
    passed: bool
    stored: bool
    parity: ParityDocument
    tokens: TokensDocument
