"""Whether an answer is the new weights' own after training into the same folder again (vllm#42125).

vLLM keeps the keys and values of prompts by the adapter's name and path. Where both stay, a prompt that
was asked before is answered from what the old weights made of it. The distance between answers is the
largest difference of the first token's log-probabilities, in nats.
"""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Mapping
from pathlib import Path

from loadtests.adapters import write_ranked
from loadtests.bench.peers.engines.arms import EngineArm
from loadtests.bench.peers.engines.asking import BenchQuestion, ask
from loadtests.bench.peers.engines.ledger import LedgerRow, SampleLedger
from loadtests.bench.peers.engines.spread import ATTENTION
from registry.records import BaseModelInfo

PROMPT = "The story of a small town by the sea, its people and their boats. " * 17
"""Some 280 tokens: two whole blocks of vLLM's cache on the CPU, seventeen on a GPU."""

RANK = 32
TOP = 20
PATIENCE_SECONDS = 60.0


async def answers_after_overwriting(
    arm: EngineArm, folder: Path, base: BaseModelInfo, ledger: SampleLedger
) -> None:
    """Overwrite a served adapter's folder, swap, and compare with the same weights under fresh names."""
    kind = ", load_inplace" if "inplace" in arm.label else ""
    name = f"retrained{'-inplace' * bool(kind)}"
    old, new = (write_ranked(folder / f"{name}-{seed}", base, seed, RANK, ATTENTION) for seed in (501, 502))
    served = Path(shutil.copytree(old, folder / name))
    await arm.publish(name, served)
    before = await first_logprobs(arm, name)
    shutil.copytree(new, served, dirs_exist_ok=True)
    staged = await arm.stage(name, served)
    await arm.swap(staged)
    await _until_shown(arm, name, staged.model)
    after = await first_logprobs(arm, name)
    fresh = []
    for place in (1,) if kind else (1, 2):
        await arm.publish(f"{name}-fresh-{place}", new)
        fresh.append(await first_logprobs(arm, f"{name}-fresh-{place}"))
    title = f"retrained into the same folder{kind}: the answer's distance"
    ledger.add(LedgerRow(f"{title} from the new weights'", "nats"), [distance(after, fresh[0])])
    ledger.add(LedgerRow(f"{title} from the old weights'", "nats"), [distance(after, before)])
    if len(fresh) > 1:
        ledger.add(
            LedgerRow("the same weights under two fresh names: the answers' distance", "nats"),
            [distance(*fresh)],
        )


def distance(one: Mapping[str, float], other: Mapping[str, float]) -> float:
    """Return the largest difference over the tokens that both name.

    Raises: ValueError: they name no common token.
    """
    return max(abs(one[token] - other[token]) for token in one.keys() & other.keys())


async def first_logprobs(arm: EngineArm, model: str) -> dict[str, float]:
    """Return the likeliest first tokens of the answer to `PROMPT` with their log-probabilities."""
    body = {"model": model, "prompt": PROMPT, "max_tokens": 1, "temperature": 0, "logprobs": TOP}
    until = time.monotonic() + PATIENCE_SECONDS
    while True:
        async with arm.session.post(f"{arm.url}/v1/completions", json=body) as response:
            if response.status == 200:
                return read_logprobs(await response.json())
            if time.monotonic() > until:
                raise RuntimeError(f"{model}: {response.status} {await response.text()}")
        await asyncio.sleep(0.1)


def read_logprobs(
    answer: Mapping[str, list[Mapping[str, Mapping[str, list[dict[str, float]]]]]],
) -> dict[str, float]:
    """Return the first token's log-probabilities of a completion."""
    return dict(answer["choices"][0]["logprobs"]["top_logprobs"][0])


async def _until_shown(arm: EngineArm, name: str, model: str) -> None:
    """Wait until a server that names its versions names this one."""
    until = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < until:
        reply = await ask(arm.session, arm.url, BenchQuestion(name, "Hello", 1, chat=False))
        if reply.ok and reply.version in {"", model}:
            return
        await asyncio.sleep(0.05)
    raise TimeoutError(f"{arm.label}: {name}: no answer by {model}")
