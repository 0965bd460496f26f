"""How a version's next-token scores are taken on an engine, and compared with the base's.

A step that computes more rows uses other kernels, and moves a score by some hundredths of a nat: as much as
a small adapter does. So a version is compared with the base as the same step computed both, or with the base
as it was alone in a step, where the version was alone, too. There an adapter without effect differs by
exactly nothing on a CPU, and one short prompt is enough for most others. For the rest `measure_in_turn` takes
its time.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean, stdev

from serve.engine.interface import Engine

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

REFERENCE_SECONDS = 600.0
"""How long what the base answers alone is believed before it is asked again."""

_FEWEST_TOKENS = 20

NextTokens = Mapping[int, float]
"""The likeliest next tokens after one prompt and their natural log-probabilities."""

Scores = Sequence[NextTokens]
"""The same per prompt."""


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


@dataclass(slots=True)
class ProbeScorer:
    """Scores probes on one engine; remembers what the base answered, and the noise between its answers."""

    engine: Engine
    clock: Callable[[], float] = time.monotonic
    _alone: NextTokens | None = None
    _alone_at: float = -math.inf
    _alone_noise: float = SMALLEST_NOISE
    _shared_noise: float = SMALLEST_NOISE
    _base: list[dict[int, float]] | None = None
    _noise: float = SMALLEST_NOISE
    _one_at_a_time: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def measure(self, names: Sequence[str]) -> list[Proof | Exception]:
        """Score the first probe of each version, and return what was found or what the engine raised.

        A single version on an idle engine has a step of its own; else all share a step with the base.
        """
        if len(names) == 1:
            proof = await self.measure_alone(names[0])
            if proof is not None:
                return [proof]
        return await self.measure_together(names)

    async def refer(self) -> None:
        """Ask the base alone, so that a version can be; it may find no moment when the engine is idle."""
        for _ in range(1 if self._alone is not None else 2):
            found = await self._score_alone(None)
            if found is None:
                return
            if self._alone is not None:
                self._alone_noise = max(self._alone_noise, difference([found], [self._alone]))
                self._alone_at = self.clock()
            self._alone = found

    async def measure_alone(self, name: str) -> Proof | None:
        """Score the first probe of a version in a step of its own, None where something else shared it."""
        if self.clock() - self._alone_at > REFERENCE_SECONDS:
            await self.refer()
        if self._alone is None or self._alone_at == -math.inf:
            return None
        scores = await self._score_alone(name)
        return None if scores is None else _compared(scores, [self._alone], self._alone_noise)

    async def _score_alone(self, name: str | None) -> NextTokens | None:
        """Return the scores of the first probe, None where something else was computed meanwhile."""
        before = self.engine.progress()
        if before.unfinished or before.made is None:
            return None
        scores = await self._score(name)
        after = self.engine.progress()
        return scores if not after.unfinished and after.made == before.made + 1 else None

    async def measure_together(self, names: Sequence[str]) -> list[Proof | Exception]:
        """Score the first probe of each version, and of the base three times around them, at once."""
        # What is asked while a step runs shares the next one; the first may still get a step of its own. With
        # two before the versions and one behind, two of the three share the versions' step.
        asked: list[str | None] = [None, None, *names, None]
        found = await asyncio.gather(*map(self._score, asked), return_exceptions=True)
        anchors: list[NextTokens] = []
        for one in (found[0], found[1], found[-1]):
            if isinstance(one, BaseException):
                raise one
            anchors.append(one)
        noise = min(difference(anchors[:1], anchors[1:2]), difference(anchors[1:2], anchors[2:]))
        self._shared_noise = max(self._shared_noise, noise)
        return [_judged(one, anchors, self._shared_noise) for one in found[2:-1]]

    async def _score(self, name: str | None) -> NextTokens:
        [scores] = await self.engine.score(name, [self.engine.tokenize(PROBES[0])])
        return scores

    async def measure_in_turn(self, name: str) -> Proof:
        """Score every probe of a version and of the base one after the other, again where that says nothing.

        The noise is the difference between the base now and the base before, the largest seen. What differs
        by little more is measured `ROUNDS` times: what differs in the same way each time is not noise.
        """
        async with self._one_at_a_time:
            prompts = [self.engine.tokenize(text) for text in PROBES]
            if self._base is None:
                self._base = await self.engine.score(None, prompts)
            before, scores = self._base, await self.engine.score(name, prompts)
            self._base = await self.engine.score(None, prompts)
            self._noise = max(self._noise, difference(self._base, before))
            finite = _finite(*scores, *self._base)
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


def _judged(
    found: NextTokens | BaseException, anchors: Sequence[NextTokens], noise: float
) -> Proof | Exception:
    if isinstance(found, Exception):
        return found
    if isinstance(found, BaseException):
        raise found
    return _compared(found, anchors, noise)


def _compared(scores: NextTokens, anchors: Sequence[NextTokens], noise: float) -> Proof:
    """Return what the nearest of the base's answers proves: one of them shared the version's step."""
    nearest = min(difference([scores], [anchor]) for anchor in anchors)
    return Proof(nearest, noise, _finite(scores, *anchors), len(scores))


def _finite(*rows: NextTokens) -> bool:
    return all(math.isfinite(value) for row in rows for value in row.values())


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


def _apart(one: NextTokens, other: NextTokens, token: int) -> float:
    if token in one and token in other:
        return abs(one[token] - other[token])
    told, silent = (one, other) if token in one else (other, one)
    return max(0.0, told[token] - min(silent.values())) if silent else 0.0
