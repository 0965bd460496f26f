"""The proof that a loaded version does something: it answers differently from the base, beyond noise.

vLLM serves the base's output without a word when none of an adapter's modules matched (vllm#34186), and
greedy texts prove nothing: they differ by batch size alone. So the log-probabilities of what may come next
after fixed prompts are compared, as the engine computes them for answers (`serve.router.residents.probing`).

Owns which versions are measured together and what becomes of the result. Invariants: what one short prompt
does not prove beyond doubt, and everything that is refused, was measured in turn, at length; a result is
attested once.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from pydantic import JsonValue

from registry.errors import CorruptStore, NotFound, StorageFailed, WardrobeError
from registry.records import Version
from serve.engine.interface import Engine
from serve.errors import LoadFailed
from serve.router.residents.probing import NOISE_FACTOR, ProbeScorer, Proof

MOST_TOGETHER = 8
"""Versions that are measured in one step: about 200 tokens, which other streams hardly notice."""

Found = asyncio.Future[Proof]


@dataclass(slots=True)
class Prover:
    """Proves versions on one engine: those that wait at once are measured together.

    `proved` tells whether some replica did it before; `attest` stores a result (blocking, in a thread).
    """

    engine: Engine
    proved: Callable[[Version], bool]
    attest: Callable[[Version, Mapping[str, JsonValue]], None]
    required: bool = True
    scorer: ProbeScorer = field(init=False)
    _waiting: list[tuple[str, Found]] = field(default_factory=list)
    _measuring: asyncio.Task[None] | None = None
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _unstored: dict[str, tuple[Version, dict[str, JsonValue]]] = field(default_factory=dict)
    _storing: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.scorer = ProbeScorer(self.engine)

    async def get_ready(self) -> None:
        """Ask the base what it answers, so that the first version need not wait for that."""
        if self.required:
            with contextlib.suppress(WardrobeError):  # whoever proves a version is told
                await self.scorer.refer()

    async def prove(self, version: Version) -> None:
        """Prove a loaded version, unless it is proved already, and have the result stored.

        Raises: LoadFailed: it cannot be told from the base.
        """
        if not self.required or self.proved(version) or self._passed(version):
            return
        proof = await self._measured(version.name)
        if not (proof.clear and proof.finite):
            proof = await self.scorer.measure_in_turn(version.name)
        self._unstored[version.name] = version, body_of(proof)
        storing = asyncio.create_task(self._store_soon(), name="store proofs")
        self._tasks.add(storing)
        storing.add_done_callback(self._tasks.discard)
        if not proof.passed:
            await asyncio.wait({storing})
            remedy = "check its target modules and weights, or set residency.require_proof = false"
            raise LoadFailed(version.name, proof.fact, remedy)

    async def _store_soon(self) -> None:
        with contextlib.suppress(StorageFailed):  # it is stored later; what was found holds here and now
            await asyncio.to_thread(self.store)

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

    async def _measured(self, name: str) -> Proof:
        found: Found = asyncio.get_running_loop().create_future()
        self._waiting.append((name, found))
        if self._measuring is None:
            self._measuring = asyncio.create_task(self._measure_all(), name="proofs")
        return await found

    async def _measure_all(self) -> None:
        """Measure who waits, and who comes meanwhile."""
        asked: list[tuple[str, Found]] = []
        try:
            while self._waiting:
                asked, self._waiting = self._waiting[:MOST_TOGETHER], self._waiting[MOST_TOGETHER:]
                try:
                    proofs = await self.scorer.measure([name for name, _ in asked])
                except Exception as error:  # noqa: BLE001 - told to each of those who wait
                    proofs = [error] * len(asked)
                for (_, found), proof in zip(asked, proofs, strict=True):
                    _tell(found, proof)
        finally:
            self._measuring = None
            for _, found in (*asked, *self._waiting):  # none, but where this was cancelled
                found.cancel()


def _tell(found: Found, proof: Proof | Exception) -> None:
    if found.done():  # who asked was cancelled
        return
    if isinstance(proof, Exception):
        found.set_exception(proof)
    else:
        found.set_result(proof)


def body_of(proof: Proof) -> dict[str, JsonValue]:
    """Return the attestation's body."""
    return {
        "passed": proof.passed,
        "difference": _json(proof.difference),
        "noise": _json(proof.noise),
        "noise_factor": NOISE_FACTOR,
        "consistency": _json(proof.consistency),
        "finite": proof.finite,
        "tokens": proof.tokens,
    }


def _json(value: float) -> float | None:
    return value if math.isfinite(value) else None
