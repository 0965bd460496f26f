"""The seam between the router and an engine: what the router may ask, and nothing of vLLM.

`serve.engine.vllm_engine` implements it on the real vLLM, `tests.fakes` on a few lines of Python; both
pass the same contract suite.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from serve.process_group import Activity

TOP_TOKENS = 20
"""How many tokens `Engine.score` tells of: what vLLM gives anybody, unless `--max-logprobs` says less."""


@dataclass(frozen=True, slots=True)
class Abilities:
    """What an engine was started to do; it does not change while it lives.

    `paths` are those that its API server answers, None where that is not known: all. `max_model_len` is the
    context in tokens. `calls_tools` says that calls of tools are parsed out of answers, `hosted_tools` that
    the server runs some itself; `prioritises` that requests of a lower `priority` come first.
    """

    paths: frozenset[str] | None = None
    max_model_len: int | None = None
    calls_tools: bool = True
    hosted_tools: bool = False
    prioritises: bool = False


@dataclass(frozen=True, slots=True)
class EngineProgress:
    """How far the engine has come: requests that it has `unfinished`, and what it has `made` of any so far.

    `made` grows with every token and every piece of a prompt; None where that is not known.
    """

    unfinished: int
    made: int | None


class Engine(Protocol):
    """An engine that holds one base model and up to `capacity` adapters.

    Every method is safe to call from one event loop; `load` and `unload` of the same name are never
    called at the same time (the residency sees to that).
    """

    @property
    def base_name(self) -> str:
        """Return the served name of the base model."""
        ...

    @property
    def capacity(self) -> int:
        """Return how many adapters can be held at once (vLLM: `max_cpu_loras`)."""
        ...

    @property
    def slots(self) -> int:
        """Return how many adapters one batch can mix (vLLM: `max_loras`)."""
        ...

    @property
    def abilities(self) -> Abilities:
        """Return what the engine can do."""
        ...

    @property
    def seats(self) -> int | None:
        """Return how many requests run at once (vLLM: `max_num_seqs`); None where there is no bound."""
        ...

    @property
    def context_tokens(self) -> int:
        """Return how many tokens a prompt and its answer can have together (vLLM: `max_model_len`)."""
        ...

    @property
    def prompt_characters(self) -> int | None:
        """Return the most characters that a prompt can have: the context in tokens × the longest token.

        None where the engine cannot say (a tokenizer that drops or merges text without bound).
        """
        ...

    def alive(self) -> bool:
        """Return False once the engine has died or was given up; it never comes back in this process."""
        ...

    async def pulse(self, *, workers: bool) -> None:
        """Return once the engine has answered, and with `workers` those who compute for it.

        It answers between two steps, idle or busy; one that hangs never does. What it raises is an answer
        too. It costs next to nothing without `workers`, and may keep a core busy for a second with them.
        """
        ...

    def progress(self) -> EngineProgress:
        """Return how far the engine has come."""
        ...

    def activity(self) -> Activity | None:
        """Return what the engine's processes are doing, this one left out; None where nobody can tell."""
        ...

    def give_up(self, reason: str) -> None:
        """Count the engine as dead from now on, because it hangs; the launcher ends this process soon."""
        ...

    def resident(self) -> frozenset[str]:
        """Return the names that are loaded now."""
        ...

    async def load(self, name: str, path: Path) -> None:
        """Load the adapter folder `path` under `name`; a name that is loaded already is left alone.

        Raises: NotServable: when the engine refuses it (the fact holds the engine's words); nothing
        stays loaded then.
        """
        ...

    async def unload(self, name: str) -> None:
        """Free `name` in the engine and in its front end; a name that is not loaded is not an error."""
        ...

    async def vet_items(self, items: bytes) -> str:
        """Return why the engine would refuse the `input` of a Responses request, '' where it would not.

        `items` is a JSON list. It stops at the first wrong item, and yields to the loop meanwhile.
        """
        ...

    def tokenize(self, text: str) -> list[int]:
        """Return the base tokenizer's ids of `text`, without special tokens added."""
        ...

    async def score(self, name: str | None, prompts: Sequence[Sequence[int]]) -> list[dict[int, float]]:
        """Return what may come next after each prompt: the likeliest tokens' natural log-probabilities.

        At most `TOP_TOKENS` per prompt, by the path that generates answers: it alone applies every module
        of an adapter whatever else the engine runs. `name` is a loaded adapter, or None for the base model.
        The prompts are scored one after the other, each in a batch of its own as far as other traffic
        allows.
        """
        ...
