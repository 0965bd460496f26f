"""A small real engine: it loads folders, counts, and answers from a hash instead of a network.

It passes the contract suite in `tests.contracts.engine`, as the adapter to vLLM does. Beyond the
protocol it has a few handles that tests turn: how long a load takes, what it refuses, whether it hangs, and
its death.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from registry.errors import NotServable
from serve.engine.interface import TOP_TOKENS, Abilities, EngineProgress
from serve.process_group import Activity

VOCABULARY = 256


class FakeEngine:
    """An `Engine` without a model; logs every `load` and `unload` in `calls` as (verb, name)."""

    def __init__(
        self,
        *,
        base_name: str = "base",
        capacity: int = 4,
        slots: int = 2,
        abilities: Abilities = Abilities(max_model_len=2048),  # noqa: B008 - frozen
    ) -> None:
        self.base_name = base_name
        self.abilities = abilities
        self.capacity = capacity
        self.slots = slots
        self.context_tokens = 1_000
        self.seats: int | None = None
        self.prompt_characters: int | None = None
        self.calls: list[tuple[str, str]] = []
        self.load_seconds = 0.0
        self.refusals: dict[str, str] = {}
        self.without_effect: set[str] = set()
        self.infinite: set[str] = set()
        self.pulses: list[bool] = []
        self.frozen = False
        self.unfinished = 0
        self.doing: Activity | None = None
        self.given_up = ""
        self._made = 0
        self._loaded: dict[str, bytes] = {}
        self._dead = False

    def die(self) -> None:
        """Die as an engine dies: for good."""
        self._dead = True

    def alive(self) -> bool:
        """Return False after `die` and `give_up`."""
        return not self._dead

    async def pulse(self, *, workers: bool) -> None:
        """Answer, unless `frozen`: then never."""
        self.pulses.append(workers)
        while self.frozen:  # noqa: ASYNC110 - a test's thread thaws it
            await asyncio.sleep(0.002)

    def progress(self) -> EngineProgress:
        """Return the `unfinished` that a test has set, and the scores so far."""
        return EngineProgress(self.unfinished, self._made)

    def activity(self) -> Activity | None:
        """Return what a test says that its processes are `doing`."""
        return self.doing

    def give_up(self, reason: str) -> None:
        """Be dead, and keep the reason."""
        self.given_up = reason
        self._dead = True

    def resident(self) -> frozenset[str]:
        """Return the loaded names."""
        return frozenset(self._loaded)

    async def load(self, name: str, path: Path) -> None:
        """Load `path` after `load_seconds`; refuse what `refusals` names and what is not an adapter."""
        self._check_alive(name)
        if name in self._loaded:
            return
        self.calls.append(("load", name))
        await asyncio.sleep(self.load_seconds)
        self._check_alive(name)
        if name in self.refusals:
            raise NotServable(name, self.refusals[name])
        self._loaded[name] = _fingerprint(name, path)

    async def unload(self, name: str) -> None:
        """Forget `name`."""
        self._check_alive(name)
        self.calls.append(("unload", name))
        await asyncio.sleep(0)
        self._loaded.pop(name, None)

    async def vet_items(self, items: bytes) -> str:
        """Refuse items that are not objects."""
        await asyncio.sleep(0)
        wrong = [number for number, one in enumerate(json.loads(items)) if not isinstance(one, dict)]
        return f"item {wrong[0]} is not an object" if wrong else ""

    def tokenize(self, text: str) -> list[int]:
        """Return the UTF-8 bytes."""
        return list(text.encode())

    async def score(self, name: str | None, prompts: Sequence[Sequence[int]]) -> list[dict[int, float]]:
        """Return log-probabilities that depend on the adapter's bytes and on the tokens before."""
        self._check_alive(name or self.base_name)
        if name is not None and name not in self._loaded:
            raise NotServable(name, "is not loaded")
        await asyncio.sleep(0)
        while self.frozen:  # noqa: ASYNC110 - a test's thread thaws it
            await asyncio.sleep(0.002)
        self._made += 1
        if name in self.infinite:
            return [dict.fromkeys(range(TOP_TOKENS), float("nan")) for _ in prompts]
        salt = b"" if name is None or name in self.without_effect else self._loaded[name]
        return [{next_: _score(salt, [*prompt, next_]) for next_ in range(TOP_TOKENS)} for prompt in prompts]

    def _check_alive(self, subject: str) -> None:
        if self._dead:
            raise NotServable(subject, "the engine is dead")


def _fingerprint(name: str, path: Path) -> bytes:
    try:
        json.loads((path / "adapter_config.json").read_bytes())
        weights = (path / "adapter_model.safetensors").read_bytes()
        json.loads(weights[8 : 8 + int.from_bytes(weights[:8], "little")])
    except (OSError, ValueError) as error:
        raise NotServable(name, f"cannot be read: {error}") from error
    return hashlib.blake2b(weights, digest_size=8).digest()


def _score(salt: bytes, tokens: Sequence[int]) -> float:
    text = ",".join(str(token) for token in tokens).encode()
    digest = hashlib.blake2b(salt + text, digest_size=4).digest()
    return -(1 + int.from_bytes(digest, "big") % 1000) / 100
