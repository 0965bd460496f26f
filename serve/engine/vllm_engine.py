"""The engine seam on the real vLLM: the objects that its API server keeps in `app.state`.

It owns no state but a lock; what is loaded is what vLLM's front end lists. It needs neither the public
load endpoint nor `VLLM_ALLOW_RUNTIME_LORA_UPDATING`. Invariant: after `unload`, and after a `load` that
failed, neither the front end nor the engine holds anything of that name.
"""

from __future__ import annotations

import asyncio
import re
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from registry.errors import NotServable
from serve.engine import handover
from serve.engine.interface import TOP_TOKENS, Abilities, EngineProgress
from serve.engine.signs import ProcessFamily, TokenCounter
from serve.process_group import Activity

_WORDS = 400
"""Characters of the engine's own message that an error repeats."""


_WRAPPED = re.compile(
    r"Worker failed with error (?P<quote>['\"])(?P<words>.*?)(?P=quote), please check", re.DOTALL
)


class VllmEngine:
    """`serve.engine.interface.Engine` over vLLM's `openai_serving_models` and `engine_client`."""

    def __init__(self, models: Any, client: Any, abilities: Abilities) -> None:
        self.abilities = abilities
        self._models = models
        self._client = client
        self._lora = client.vllm_config.lora_config
        # One load at a time: the engine loads one by one anyway, and what a failed load left behind
        # can then be told from what another one is just bringing in.
        self._loading = asyncio.Lock()
        self._given_up = False
        self._tally = TokenCounter.on(client)
        self._family = ProcessFamily() if _is_local(client.vllm_config.parallel_config) else None

    @classmethod
    def from_app(cls, app: Any) -> VllmEngine:
        """Build it from vLLM's API server (`app` in every ASGI scope): its state and its routes."""
        return cls(app.state.openai_serving_models, app.state.engine_client, read_abilities(app))

    @property
    def base_name(self) -> str:
        """Return the served name of the base model."""
        name: str = self._models.base_model_paths[0].name
        return name

    @property
    def capacity(self) -> int:
        """Return vLLM's `max_cpu_loras`."""
        capacity: int = self._lora.max_cpu_loras
        return capacity

    @property
    def slots(self) -> int:
        """Return vLLM's `max_loras`."""
        slots: int = self._lora.max_loras
        return slots

    @property
    def seats(self) -> int:
        """Return vLLM's `max_num_seqs`, or its `max_num_active_seqs`, of all data-parallel ranks."""
        config = self._client.vllm_config
        each = config.scheduler_config.max_num_active_seqs or config.scheduler_config.max_num_seqs
        return int(each * config.parallel_config.data_parallel_size)

    @property
    def context_tokens(self) -> int:
        """Return vLLM's `max_model_len`."""
        context: int = self._client.vllm_config.model_config.max_model_len
        return context

    @property
    def prompt_characters(self) -> int | None:
        """Return vLLM's own bound: it refuses what has more characters, after rendering it."""
        longest: int | None = getattr(self._client.get_tokenizer(), "max_chars_per_token", None)
        return longest * self.context_tokens if longest else None

    def alive(self) -> bool:
        """Return False once EngineCore has died, its output loop has ended, or it was given up."""
        return bool(self._client.is_running) and not self._client.errored and not self._given_up

    async def pulse(self, *, workers: bool) -> None:
        """Ask EngineCore, which answers between two steps, or through it its workers.

        NOTE: a worker of vLLM 0.32 spins for a second after each call (`SpinCondition.busy_loop_s`): asking
        workers all the time would keep a core busy on a server that has nothing to do.
        """
        await (self._client.list_loras() if workers else self._client.is_paused())

    def progress(self) -> EngineProgress:
        """Return the front end's unfinished requests, and the steps that made something of any."""
        unfinished: int = self._client.output_processor.get_num_unfinished_requests()
        return EngineProgress(unfinished, None if self._tally is None else self._tally.made)

    def activity(self) -> Activity | None:
        """Return what EngineCore, its workers and all that they start are doing, under the launcher."""
        return None if self._family is None else self._family.activity()

    def give_up(self, reason: str) -> None:
        """Count EngineCore as dead, and have this process end."""
        self._given_up = True
        handover.give_up(reason)

    def resident(self) -> frozenset[str]:
        """Return the names that vLLM's front end lists."""
        return frozenset(self._models.lora_requests)

    async def load(self, name: str, path: Path) -> None:
        """Load the folder `path` as `name`, into the engine's memory and a slot."""
        from vllm.entrypoints.serve.engine.protocol import ErrorResponse
        from vllm.entrypoints.serve.lora.protocol import LoadLoRAAdapterRequest

        async with self._loading:
            if name in self._models.lora_requests:
                return
            self._check_alive(name)
            # NOTE: never `load_inplace`: it sticks to the request, and every step re-reads the disk
            # (vllm#33791). A version is immutable, so there is nothing to reload.
            request = LoadLoRAAdapterRequest(lora_name=name, lora_path=str(path))
            answer = await self._models.load_lora_adapter(request)
            if isinstance(answer, ErrorResponse):
                await self._forget_strangers()
                raise NotServable(name, *_refusal_and_remedy(answer.error.message))

    async def unload(self, name: str) -> None:
        """Free `name` in the front end first, so that no new request finds it, then in the engine.

        NOTE: vLLM's own unload leaves the engine's copy for ever (vllm#54839). Remove `remove_lora`
        here when it no longer does.
        """
        request = self._models.lora_requests.pop(name, None)
        # A resolver's lock per name would otherwise stay for every version ever served.
        self._models.lora_resolver_lock.pop(name, None)
        if request is not None and self.alive():
            await self._client.remove_lora(request.lora_int_id)

    async def vet_items(self, items: bytes) -> str:
        """Hold the items against vLLM's own types, a few at a time; see `serve.engine.items`."""
        from serve.engine.items import vet

        return await vet(items)

    def tokenize(self, text: str) -> list[int]:
        """Return the base tokenizer's ids of `text`, without special tokens added."""
        ids: list[int] = self._client.get_tokenizer().encode(text, add_special_tokens=False)
        return ids

    async def score(self, name: str | None, prompts: Sequence[Sequence[int]]) -> list[dict[int, float]]:
        """Return the likeliest next tokens after each prompt, computed anew: the prefix cache is not read.

        NOTE: not by prompt log-probabilities, which leave an adapted lm_head out, or take it from another
        request of the same step (vllm#51594); nor by `logprob_token_ids`, which replaces the
        log-probabilities that other requests of the step asked for (vLLM 0.32, `vllm/v1/sample/sampler.py`).
        """
        request = None
        if name is not None:
            request = self._models.lora_requests.get(name)
            if request is None:
                raise NotServable(name, "is not loaded in the engine")
        self._check_alive(name or self.base_name)
        return [await self._score(prompt, request) for prompt in prompts]

    async def _score(self, prompt: Sequence[int], lora_request: Any) -> dict[int, float]:
        from vllm import SamplingParams

        allowed = self._client.vllm_config.model_config.max_logprobs
        count = TOP_TOKENS if allowed < 0 else min(TOP_TOKENS, allowed)
        outputs = self._client.generate(
            {"prompt_token_ids": list(prompt)},
            SamplingParams(
                max_tokens=1,
                temperature=0.0,
                logprobs=count,
                skip_reading_prefix_cache=True,
                detokenize=False,
            ),
            f"wardrobe-score-{uuid.uuid4().hex}",
            lora_request=lora_request,
        )
        found: Any = {}
        async for output in outputs:
            found = output.outputs[0].logprobs[0]
        return {int(token): float(entry.logprob) for token, entry in found.items()}

    async def _forget_strangers(self) -> None:
        """Remove what a failed load left in the engine: vLLM registers before it fills the slot."""
        if self.alive():
            known = {request.lora_int_id for request in self._models.lora_requests.values()}
            for identity in await self._identities() - known:
                await self._client.remove_lora(identity)

    async def _identities(self) -> set[int]:
        # NOTE: typed as a set upstream; it arrives as a list over the engine's socket.
        return set(await self._client.list_loras())

    def _check_alive(self, subject: str) -> None:
        if not self.alive():
            raise NotServable(subject, "the engine has died", "the launcher is restarting it")


def read_abilities(app: Any) -> Abilities:
    """Return what vLLM's API server was started to do, as its routes and arguments say.

    vLLM registers the routes of a task only where the model supports it, so they are its list of tasks.
    """
    config, args = app.state.engine_client.vllm_config.model_config, app.state.args
    # gpt-oss and Mistral's own tokenizer bring their tool format; everything else needs a parser.
    built_in = (
        config.hf_config.model_type == "gpt_oss"
        or type(app.state.engine_client.get_tokenizer()).__name__ == "MistralTokenizer"
    )
    paths = {str(getattr(route, "path", "")) for route in app.routes}
    if app.state.serving_structured_decisions is None:
        paths.discard("/v1/systemone")  # always a route, and a 501 where the model has no labels
    return Abilities(
        paths=frozenset(paths),
        max_model_len=config.max_model_len,
        calls_tools=built_in or bool(args.enable_auto_tool_choice and args.tool_call_parser),
        hosted_tools=app.state.tool_server is not None,
        prioritises=app.state.engine_client.vllm_config.scheduler_config.policy == "priority",
    )


def _is_local(parallel: Any) -> bool:
    """Return whether every worker is a process below this one: Ray's, and other machines', cannot be seen."""
    return parallel.distributed_executor_backend in {None, "mp", "uni"} and parallel.nnodes == 1


def _refusal_and_remedy(message: str) -> tuple[str, str]:
    """Return the engine's own words, without the layers that they were passed through, and what helps."""
    wrapped = _WRAPPED.search(message)
    words = " ".join((wrapped["words"] if wrapped else message).split()) or "no reason given"
    # The registry took it: so it is within the limit, and beyond the slots of the server's start only.
    beyond = "is greater than max_lora_rank" in words
    remedy = "restart the server: it chooses the rank of its slots anew" if beyond else "see the engine's log"
    return f"refused by the engine: {words[:_WORDS]}", remedy
