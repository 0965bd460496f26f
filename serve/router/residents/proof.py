"""The proof that a loaded version does something: it answers differently from the base, beyond noise.

vLLM serves the base's output without a word when none of an adapter's modules matched (vllm#34186), and
greedy texts prove nothing: they differ by batch size alone. So the log-probabilities of what may come next
after fixed prompts are compared, as the engine computes them for answers. The difference is the mean
absolute one over all tokens. The noise is the same figure between the base now and the base as measured
before, the largest seen. An adapter that was trained for a few steps differs by little more than that: then
both are measured `ROUNDS` times, and what differs in the same way each time is not noise.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean, stdev

from pydantic import JsonValue

from registry.errors import CorruptStore, NotFound, StorageFailed
from registry.records import Version
from serve.engine.interface import Engine
from serve.errors import LoadFailed

PROBES = (
    "The patient was admitted with chest pain and shortness of breath, and a history of",
    "Question: how do I return an item that arrived damaged?\nAnswer: You can",
    "def parse(line: str) -> dict[str, int]:\n    key, _, value = line.partition(",
    "This license does not permit the redistribution of modified copies unless the",
)
"""Prose, dialogue, code and law: an adapter that changes anything changes one of them."""

NOISE_FACTOR = 3.0
SMALLEST_NOISE = 1e-6
"""In nats. A deterministic engine has no noise, and three times nothing would prove nothing."""

ROUNDS = 4
CONSISTENT = 4.0
"""Standard errors; noise alone reached 3.5 in 20,000 simulated proofs, with logits in steps of bfloat16."""

_FEWEST_TOKENS = 20

Scores = Sequence[Mapping[int, float]]
"""Per prompt, the likeliest next tokens and their natural log-probabilities."""


@dataclass(frozen=True, slots=True)
class Proof:
    """What was measured, in nats per token."""

    difference: float
    noise: float
    finite: bool
    tokens: int
    consistency: float = 0.0
    """Standard errors by which the difference is the same each time; 0 where it was measured once."""

    @property
    def clear(self) -> bool:
        """Return True when one measurement is enough."""
        return not self.finite or self.difference > NOISE_FACTOR * self.noise

    @property
    def passed(self) -> bool:
        """Return True when the version's answers are finite and differ from the base's beyond noise."""
        return self.finite and (self.clear or self.consistency >= CONSISTENT)

    @property
    def fact(self) -> str:
        """Return the result as a sentence's end."""
        if not self.finite:
            return "its log-probabilities are not all finite"
        return (
            f"its answers differ from the base's by {self.difference:.2g} nats per token, which is not more "
            f"than {NOISE_FACTOR:g} times the base's own noise of {self.noise:.2g}, and not in the same way "
            f"each time ({self.consistency:.1f} of {CONSISTENT:g} standard errors)"
        )

    def body(self) -> dict[str, JsonValue]:
        """Return the attestation's body."""
        return {
            "passed": self.passed,
            "difference": _json(self.difference),
            "noise": _json(self.noise),
            "noise_factor": NOISE_FACTOR,
            "consistency": _json(self.consistency),
            "finite": self.finite,
            "tokens": self.tokens,
        }


@dataclass(slots=True)
class Prover:
    """Proves versions on one engine, and remembers what the base answered.

    `proved` tells whether some replica did it before; `attest` stores a result (blocking, in a thread).
    """

    engine: Engine
    proved: Callable[[Version], bool]
    attest: Callable[[Version, Mapping[str, JsonValue]], None]
    required: bool = True
    _unstored: dict[str, tuple[Version, dict[str, JsonValue]]] = field(default_factory=dict)
    _base: list[dict[int, float]] | None = None
    _noise: float = SMALLEST_NOISE
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    _storing: threading.Lock = field(default_factory=threading.Lock)

    async def prove(self, version: Version) -> None:
        """Prove a loaded version, unless it is proved already, and store the result.

        Raises: LoadFailed: it cannot be told from the base.
        """
        if not self.required or self.proved(version) or self._passed(version):
            return
        async with self._lock:
            proof = await self._measure(version.name)
        self._unstored[version.name] = version, proof.body()
        with contextlib.suppress(StorageFailed):  # it is stored later; what was found holds here and now
            await asyncio.to_thread(self.store)
        if not proof.passed:
            remedy = "check its target modules and weights, or set residency.require_proof = false"
            raise LoadFailed(version.name, proof.fact, remedy)

    def _passed(self, version: Version) -> bool:
        waiting = self._unstored.get(version.name)
        return waiting is not None and waiting[1]["passed"] is True

    def store(self) -> None:
        """Store the results that are not stored yet; blocks.

        Raises: StorageFailed: what could not be stored waits.
        """
        with self._storing:  # a load's own thread and the one that stores again may come at once
            for name, (version, body) in list(self._unstored.items()):
                with contextlib.suppress(NotFound, CorruptStore):  # deleted or damaged meanwhile
                    self.attest(version, body)
                self._unstored.pop(name, None)

    async def _measure(self, name: str) -> Proof:
        prompts = [self.engine.tokenize(text) for text in PROBES]
        if self._base is None:
            self._base = await self.engine.score(None, prompts)
        before, scores = self._base, await self.engine.score(name, prompts)
        self._base = await self.engine.score(None, prompts)
        self._noise = max(self._noise, difference(self._base, before))
        finite = all(math.isfinite(value) for row in (*scores, *self._base) for value in row.values())
        proof = Proof(difference(scores, self._base), self._noise, finite, sum(map(len, scores)))
        return proof if proof.clear else await self._measure_again(name, prompts, proof, scores)

    async def _measure_again(
        self, name: str, prompts: Sequence[Sequence[int]], proof: Proof, scores: Scores
    ) -> Proof:
        assert self._base is not None, "measured with the first round"
        rounds: list[tuple[Scores, Scores]] = [(scores, self._base)]
        while len(rounds) < ROUNDS:
            scores = await self.engine.score(name, prompts)
            self._base = await self.engine.score(None, prompts)
            rounds.append((scores, self._base))
        return replace(proof, consistency=consistency(rounds))


def difference(left: Scores, right: Scores) -> float:
    """Return the mean absolute difference over all tokens that either side lists, in nats; never too much.

    A token that one side does not list is at most as likely there as the last one that it does list.
    """
    rows = zip(left, right, strict=True)
    apart = [_apart(one, other, token) for one, other in rows for token in {**one, **other}]
    return math.fsum(apart) / len(apart) if apart else 0.0


def consistency(rounds: Sequence[tuple[Scores, Scores]]) -> float:
    """Return by how many standard errors a version differs from the base in the same way in every round.

    A round is (version, base). Two rounds' differences of one token have the same sign and size where the
    version has an effect, and their product is 0 on average where there is only noise: the mean product over
    all tokens, in its own standard errors. What a whole prompt has in common is taken off.
    """
    products: list[float] = []
    for prompt in range(len(rounds[0][0])):
        sides = [side[prompt] for one in rounds for side in one]
        tokens = set(sides[0]).intersection(*sides)
        lists = [
            _centred([one[prompt][token] - base[prompt][token] for token in tokens]) for one, base in rounds
        ]
        products += [
            math.fsum(of) ** 2 - math.fsum(value**2 for value in of) for of in zip(*lists, strict=True)
        ]
    if len(products) < _FEWEST_TOKENS:
        return 0.0
    mean, error = fmean(products), stdev(products) / math.sqrt(len(products))
    return mean / error if error else 0.0


def _centred(values: Sequence[float]) -> list[float]:
    middle = fmean(values) if values else 0.0
    return [value - middle for value in values]


def _apart(one: Mapping[int, float], other: Mapping[int, float], token: int) -> float:
    if token in one and token in other:
        return abs(one[token] - other[token])
    told, silent = (one, other) if token in one else (other, one)
    return max(0.0, told[token] - min(silent.values())) if silent else 0.0


def _json(value: float) -> float | None:
    return value if math.isfinite(value) else None
