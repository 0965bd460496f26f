"""Two canary rollouts under load: a better version is promoted by itself, a bad one is taken back.

Clients ask held-out rows, each request a conversation of its own, and keep who answered. The live status
is the product's own `wardrobe rollout status --watch`. Owns the policy that the demo uses.
"""

from __future__ import annotations

import asyncio
import itertools
import re
import subprocess
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import httpx
import yaml

from deploy.demo.data import DemoRow, DemoTask
from deploy.demo.product import Product
from registry.errors import WardrobeError
from serve.rollout.decision.policy import FormatMetric, PolicyMetrics
from serve.rollout.presets import load_policy

if TYPE_CHECKING:
    from openai import AsyncOpenAI

CLIENTS = 8
WARM_ANSWERS = 40
"""Answers by stable before a rollout starts, so that there is something to compare with."""

_ANSWER_TOKENS = 12


@dataclass(frozen=True, slots=True)
class CanaryResult:
    """How one rollout went: its last record, and what the clients saw meanwhile."""

    version: str
    state: str
    reason: str
    sentence: str
    seconds: float
    answers: dict[str, int]
    failures: int
    first_error: str | None


@dataclass
class Asking:
    """The clients; a context manager that stops them at its end."""

    client: AsyncOpenAI
    task: DemoTask
    answers: Counter[str] = field(default_factory=Counter)
    errors: list[str] = field(default_factory=list)
    _stop: asyncio.Event = field(default_factory=asyncio.Event)
    _news: asyncio.Event = field(default_factory=asyncio.Event)
    _running: list[asyncio.Task[None]] = field(default_factory=list)
    _numbers: itertools.count[int] = field(default_factory=itertools.count)

    async def __aenter__(self) -> Self:
        self._running = [asyncio.create_task(self._ask_on(number)) for number in range(CLIENTS)]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stop.set()
        await asyncio.gather(*self._running)

    async def wait_answers(self, count: int) -> None:
        """Wait until `count` answers have come."""
        while self.answers.total() + len(self.errors) < count:
            self._news.clear()
            await self._news.wait()

    async def _ask_on(self, number: int) -> None:
        for row in itertools.islice(itertools.cycle(self.task.held_out), number, None):
            if self._stop.is_set():
                return
            await self._ask(row)
            self._news.set()

    async def _ask(self, row: DemoRow) -> None:
        import openai

        try:
            said = await self.client.chat.completions.create(
                model=self.task.name,
                messages=self.task.messages(row),
                temperature=0,
                max_tokens=_ANSWER_TOKENS,
                extra_headers={"x-session-id": f"demo-{time.monotonic_ns()}-{next(self._numbers)}"},
            )
        except (openai.OpenAIError, httpx.HTTPError) as error:
            self.errors.append(f"{type(error).__name__}: {error}")
            await asyncio.sleep(0.5)
        else:
            self.answers[said.model] += 1


async def roll_out(
    client: AsyncOpenAI, product: Product, task: DemoTask, number: int, policy: Path
) -> CanaryResult:
    """Roll `number` out under load to its end, showing the live status, and return how it went."""
    name = f"{task.name}@{number}"
    async with Asking(client, task) as asking:
        await asking.wait_answers(WARM_ANSWERS)
        began = time.monotonic()
        # The demo may run again on the day on which it took this version back.
        order = ("rollout", "start", name, "--policy", policy, "--force")
        await asyncio.to_thread(product.run, *order)
        watch = product.command("rollout", "status", task.name, "--watch")
        # It ends with 1, and says so, when the version was taken back: here that may be what is wanted.
        quiet = subprocess.DEVNULL
        await asyncio.to_thread(subprocess.run, watch, stdin=quiet, stderr=quiet, check=False)
        seconds = time.monotonic() - began
    status = await asyncio.to_thread(product.ask, "rollout", "status", task.name)
    return CanaryResult(
        version=name,
        state=status["state"],
        reason=status["reason"],
        sentence=_verdict(status["decisions"]) or status["sentence"],
        seconds=seconds,
        answers=dict(sorted(asking.answers.items())),
        failures=len(asking.errors),
        first_error=asking.errors[0] if asking.errors else None,
    )


def _verdict(decisions: list[dict[str, Any]]) -> str:
    """Return the sentence of the decision that promoted the version or took it back."""
    found = [one["sentence"] for one in decisions if one["event"] in {"promote", "guard"}]
    return str(found[-1]) if found else ""


def end_open_rollout(product: Product, adapter: str) -> None:
    """Abort what a run that was stopped in the middle left open."""
    opened = {one["adapter"] for one in product.ask("rollout", "list") if one["open"]}
    if adapter in opened:
        product.run("rollout", "abort", adapter, "--why", "an earlier demo was stopped")


def write_policy(folder: Path, task: DemoTask) -> Path:
    """Write the preset `fast` with a form that answers must have, and return its path.

    An answer has to begin with one of the task's labels.
    """
    labels = "|".join(re.escape(label) for label in task.labels)
    form = FormatMetric(kind="regex", pattern=rf"^\s*(?:{labels})")
    metrics = PolicyMetrics(format=form)
    policy = load_policy("fast").model_copy(
        update={"name": "demo", "cooldown_seconds": 5.0, "metrics": metrics}
    )
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "rollout.yaml"
    path.write_text(yaml.safe_dump(policy.model_dump(mode="json"), sort_keys=False, allow_unicode=True))
    return path


def require(outcome: CanaryResult, *states: str) -> None:
    """Pass when the rollout ended in one of `states`.

    Raises: WardrobeError: with its last sentence.
    """
    if outcome.state not in states:
        fact = f"its rollout ended {outcome.state} ({outcome.reason}): {outcome.sentence}"
        raise WardrobeError(outcome.version, fact, "see `wardrobe rollout explain`")
