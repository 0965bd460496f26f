"""The steps of the demo, in order, and what each one found.

Owns the order and the clock. Everything is done through `product` (the command line) and `asking` (the
official client); nothing here touches the registry's files.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from deploy.demo import asking, baseline, canary
from deploy.demo.data import DemoTask, legal_task, medical_task
from deploy.demo.product import DemoServer, Product
from deploy.demo.recipes import DemoTraining
from deploy.demo.report import Result
from deploy.demo.swap import Crowd, StableMove, SwapVerdict, judge

if TYPE_CHECKING:
    from openai import AsyncOpenAI

FIRST_ROWS = 480
# The whole of a held-out answer fits easily; a smaller cache starts faster.
SERVER_OPTIONS = ("--max-model-len", "1024")


@dataclass
class Story:
    """One run of the demo over `root`."""

    root: Path
    console: Console
    steps: list[tuple[str, str, float]] = field(default_factory=list)
    results: list[Result] = field(default_factory=list)
    rollouts: list[canary.CanaryResult] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.product = Product(self.root)
        self.folder = self.root / "demo"
        self.base_name = ""

    def prepare_root(self) -> None:
        """Make the base model and the root, where they are missing."""
        with self._step("base model") as done:
            base = self.product.run("base", "demo")
            done(f"SmolLM2-135M-Instruct in {Path(base).name}")
        with self._step("root") as done:
            self.base_name = self.product.ask("init", "--base", base)["base"]["name"]
            done(f"{self.root} for {self.base_name}")

    def prepare_data(self) -> None:
        """Read the packages, split, and train the cheap methods."""
        with self._step("data") as done:
            self.medical, self.legal = medical_task(), legal_task()
            done(", ".join(f"{t.name}: {len(t.train)} + {len(t.held_out)} held out" for t in self.tasks))
        with self._step("cheap methods") as done:
            self.recipes = [
                DemoTraining(self.medical, FIRST_ROWS),
                DemoTraining(self.medical, len(self.medical.train)),
                DemoTraining(self.legal, len(self.legal.train)),
            ]
            self._score_cheap_methods()
            done("TF-IDF with naive Bayes and logistic regression, on the same rows")

    def train(self) -> None:
        """Train the two first versions and, without registering it, medical's second."""
        first, second, legal = self.recipes
        for recipe in (first, legal):
            with self._step(f"train {recipe.task.name}") as done:
                done(self._train_version(recipe))
        with self._step("train medical again") as done:
            done(self._train_folder(second))
        with self._step("stable") as done:
            canary.end_open_rollout(self.product, first.task.name)
            done(", ".join(self._point_stable(recipe) for recipe in (first, legal)))

    def serve(self) -> DemoServer:
        """Start the server; the caller waits for it and stops it."""
        return DemoServer.start(self.product, self.folder / "server.log", *SERVER_OPTIONS)

    def wait_ready(self, server: DemoServer) -> None:
        """Wait until the server answers, showing the seconds."""
        with self._step("serve") as done, self.console.status("vLLM starts (about a minute)") as status:
            seconds = server.wait_ready(lambda s: status.update(f"vLLM starts (about a minute): {s:.0f} s"))
            done(f"vLLM with the router inside at {server.url}, ready after {seconds:.0f} s")

    async def ask_all(self, server: DemoServer) -> SwapVerdict:
        """Measure base and adapters, swap under load, measure the second version."""
        async with asking.connect(server.url) as client:
            with self._step("ask held-out rows") as done:
                for task, recipe in ((self.medical, self.recipes[0]), (self.legal, self.recipes[2])):
                    await self._score_base(client, task)
                    await self._score_adapter(client, task.name, recipe)
                done(f"base and adapters, {asking.CONCURRENCY} requests at a time")
            with self._step("swap under load") as done:
                verdict, second = await self._swap(client)
                done(
                    f"{verdict.requests} requests, {verdict.failures} failed, {verdict.wrong_versions} wrong"
                )
            with self._step("ask the second version") as done:
                await self._score_adapter(client, f"medical@{second}", self.recipes[1])
                done(f"medical@{second} by its number")
            await self._roll_out_both(client, second)
        return verdict

    @property
    def tasks(self) -> tuple[DemoTask, DemoTask]:
        """Return both tasks."""
        return self.medical, self.legal

    def _score_cheap_methods(self) -> None:
        for task in self.tasks:
            score = baseline.score_majority(task.train, task.held_out)
            self.results.append(Result(task, "most frequent label", 0, score, cheap=True))
        for recipe in self.recipes:
            train, held_out, rows = recipe.train, recipe.task.held_out, len(recipe.train)
            for who, score_of in (
                ("naive Bayes", baseline.score_naive_bayes),
                ("logistic regression", baseline.score_logistic_regression),
            ):
                self.results.append(Result(recipe.task, who, rows, score_of(train, held_out), cheap=True))

    def _train_version(self, recipe: DemoTraining) -> str:
        known = self.product.versions(recipe.task.name).get(recipe.note)
        if known is not None:
            return f"{recipe.task.name}@{known} is there already"
        told = self._train_on(recipe)
        return f"{told['adapter']}@{told['version']} registered; {_measured(told)}"

    def _train_folder(self, recipe: DemoTraining) -> str:
        folder = self._folder_of(recipe)
        if folder.is_dir():
            return f"{folder.name} is there already"
        return f"kept in a folder; {_measured(self._train_on(recipe, '--out', folder))}"

    def _train_on(self, recipe: DemoTraining, *options: str | Path) -> Any:
        """Train, from the checkpoint on that a Ctrl-C left, if there is one."""
        left = any(
            job["adapter"] == recipe.task.name
            and job["status"]["state"] == "interrupted"
            and job["checkpoints"]
            for job in self.product.ask("train", "jobs", "--all")
        )
        resume = ["--resume"] if left else []
        return self.product.ask("train", "run", recipe.write(self.folder), *options, *resume)

    def _point_stable(self, recipe: DemoTraining) -> str:
        # A run that was stopped in the middle of the swap, or other data before, left another version there.
        adapter = recipe.task.name
        number = self.product.versions(adapter)[recipe.note]
        if self.product.ask("show", adapter)["stable"] != number:
            self.product.run("promote", f"{adapter}@{number}")
        return f"{adapter}@{number}"

    def _folder_of(self, recipe: DemoTraining) -> Path:
        return self.folder / f"trained-{recipe.key}"

    async def _score_base(self, client: AsyncOpenAI, task: DemoTask) -> None:
        with self._bar(f"base model, {task.title}", len(task.held_out)) as tick:
            score = await asking.score_base(client, self.base_name, task, tick)
        self.results.append(Result(task, "base, helped", 0, score))

    async def _score_adapter(self, client: AsyncOpenAI, model: str, recipe: DemoTraining) -> None:
        with self._bar(f"{model}, {recipe.task.title}", len(recipe.task.held_out)) as tick:
            score = await asking.score_adapter(client, model, recipe.task, tick)
        number = self.product.versions(recipe.task.name)[recipe.note]
        self.results.append(Result(recipe.task, f"{recipe.task.name}@{number}", len(recipe.train), score))

    async def _swap(self, client: AsyncOpenAI) -> tuple[SwapVerdict, int]:
        first = self.product.versions("medical")[self.recipes[0].note]
        moves = [StableMove(first, time.monotonic(), time.monotonic())]
        async with Crowd(client, self.medical) as crowd:
            await crowd.wait_answers(16)
            recipe = self.recipes[1]
            order = ("register", "medical", self._folder_of(recipe), "--note", recipe.note)
            told = await asyncio.to_thread(self.product.ask, *order)
            second = int(told["version"])
            self.console.print(f"  registered medical@{second} while {len(crowd.asked)} answers had come")
            await crowd.wait_answers(16)
            moves.append(await self._move(second, "promote", f"medical@{second}"))
            await crowd.wait_answers(48)
            moves.append(await self._move(first, "rollback", "medical"))
            await crowd.wait_answers(48)
        return judge(crowd.asked, moves), second

    async def _roll_out_both(self, client: AsyncOpenAI, second: int) -> None:
        """Have the better version promoted by canary, and one with another task's answers taken back."""
        policy = canary.write_policy(self.folder, self.medical)
        with self._step("canary: a good version") as done:
            done(await self._roll_out(client, second, policy, "closed"))
        with self._step("canary: a bad version") as done:
            bad = await asyncio.to_thread(self._register_wrong)
            done(await self._roll_out(client, bad, policy, "rolled_back"))

    async def _roll_out(self, client: AsyncOpenAI, number: int, policy: Path, wanted: str) -> str:
        outcome = await canary.roll_out(client, self.product, self.medical, number, policy)
        self.rollouts.append(outcome)
        canary.require(outcome, wanted)
        return f"{outcome.version} {outcome.state} after {outcome.seconds:.0f} s: {outcome.sentence}"

    def _register_wrong(self) -> int:
        """Register legal's weights as a version of medical: well formed, and wrong for the task."""
        legal = self.recipes[2]
        folder = self.folder / "wrong"
        if not folder.is_dir():
            number = self.product.versions("legal")[legal.note]
            self.product.run("export", f"legal@{number}", folder)
        order = ("register", "medical", folder, "--note", "trained on licences, by mistake")
        return int(self.product.ask(*order)["version"])

    async def _move(self, version: int, *command: str) -> StableMove:
        began = time.monotonic()
        await asyncio.to_thread(self.product.run, *command)
        self.console.print(f"  wardrobe {' '.join(command)}")
        return StableMove(version, began, time.monotonic())

    @contextmanager
    def _step(self, name: str) -> Iterator[Callable[[str], None]]:
        self.console.print(f"[bold]{name}[/bold]")
        outcome: list[str] = []
        started = time.monotonic()
        yield outcome.append
        seconds = time.monotonic() - started
        self.steps.append((name, outcome[0], seconds))
        self.console.print(f"  {outcome[0]}  [dim]{seconds:.1f} s[/dim]", highlight=False)

    @contextmanager
    def _bar(self, label: str, total: int) -> Iterator[Callable[[], None]]:
        columns = (TextColumn("  {task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=self.console, disable=not self.console.is_terminal) as bar:
            task = bar.add_task(label, total=total)
            yield lambda: bar.advance(task)


def _measured(told: Any) -> str:
    losses = f"loss {told['first_loss']:.2f} → {told['last_loss']:.2f}"
    return f"{losses}, {told['tokens_per_second']:.0f} tokens/s"
