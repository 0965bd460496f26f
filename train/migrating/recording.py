"""The old model's answers to the held-out questions, while it still gives them.

Owns what is asked and how often. Invariants: a question whose answer is kept is never asked again, so a
killed recording loses at most those in flight, and an interrupted one waits for none; what all answers cost
is counted from what is kept, so the budget holds over any number of calls; once it is spent nothing more is
asked.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from registry.storage import files
from train.dataset.records import ToolCall
from train.evaluation.grading.grades import ModelAnswer
from train.migrating.account import ModelGone, PromptRefused
from train.migrating.folder import MigratedJob
from train.migrating.interface import AccountFailed

AT_ONCE = 4
"""Questions in flight: what a kill may lose, and what may be asked beyond the budget."""
_TEXT_MODELS = ("babbage", "davinci", "curie", "ada")
"""Bases whose fine-tunes take a text, not a conversation."""


class Answerer(Protocol):
    """Whoever answers in the old model's name."""

    def ask(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Return the answer to a prompt. Raises: AccountFailed."""


@dataclass(slots=True)
class TokenBudget:
    """Tokens of prompts and answers that may be spent in all, and those that were."""

    total: int
    spent: int = 0

    @property
    def over(self) -> bool:
        """Tell whether nothing more may be asked."""
        return self.spent >= self.total


@dataclass(frozen=True, slots=True)
class OldModel:
    """A fine-tuned model of the account: its name, the base below it, and how long an answer may be."""

    name: str
    base: str
    answer_tokens: int

    def request(self, item: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        """Return where and with what an item is asked."""
        body: dict[str, Any] = {"model": self.name, "temperature": 0}
        if self.base.startswith(_TEXT_MODELS):
            return "completions", {
                **body, "prompt": item["messages"][-1]["content"], "max_tokens": self.answer_tokens
            }  # fmt: skip
        tools = {"tools": item["tools"]} if item.get("tools") else {}
        limit = {"max_completion_tokens": self.answer_tokens}
        return "chat/completions", {**body, **limit, "messages": item["messages"], **tools}


def recorded(job: MigratedJob) -> dict[str, ModelAnswer]:
    """Return the answers that are kept, by the ids of their questions; a refused question has an `error`.

    Raises: StorageFailed.
    """
    found: dict[str, ModelAnswer] = {}
    for row in job.rows(job.answers):
        try:
            found[str(row["id"])] = ModelAnswer.read(row["answer"])
        except (KeyError, TypeError):
            continue  # a line that a kill tore, or that somebody changed: it is asked again
    return found


def spent(jobs: Iterable[MigratedJob]) -> int:
    """Return the tokens that all kept answers cost.

    Raises: StorageFailed.
    """
    answers = (one for job in jobs for one in recorded(job).values())
    return sum(one.prompt_tokens + one.completion_tokens for one in answers)


def record(job: MigratedJob, model: OldModel, account: Answerer, budget: TokenBudget, count: int) -> str:
    """Ask the first `count` questions that have no answer yet; return why it ended early, else nothing.

    Raises: Denied; AccountFailed: what was answered before is kept; StorageFailed.
    """
    known = recorded(job)
    waiting = [item for item in job.rows(job.items)[:count] if item["id"] not in known]
    while waiting:
        if budget.over:
            return f"the budget of {budget.total:,} tokens is spent; give a greater --budget to go on"
        batch, waiting = waiting[:AT_ONCE], waiting[AT_ONCE:]
        try:
            _ask(job, model, account, budget, batch)
        except ModelGone as error:
            return f"{model.name} {error.fact}"
    return ""


def _ask(
    job: MigratedJob, model: OldModel, account: Answerer, budget: TokenBudget, batch: list[dict[str, Any]]
) -> None:
    """Ask some questions beside each other and keep every answer, before the first failure is raised."""
    answers: dict[str, ModelAnswer] = {}
    failures: list[Exception] = []

    def ask(item: Mapping[str, Any]) -> None:
        try:
            answers[item["id"]] = _answer(model, account, item)
        except Exception as error:  # noqa: BLE001 - it is raised where it can be seen
            failures.append(error)

    # Daemons: whoever ends this process waits for no answer.
    threads = [threading.Thread(target=ask, args=(item,), daemon=True) for item in batch]
    for thread in threads:
        thread.start()
    try:
        for thread in threads:
            thread.join()
    finally:
        _keep(job, dict(answers), budget)
    if failures:
        raise failures[0]


def _keep(job: MigratedJob, answers: Mapping[str, ModelAnswer], budget: TokenBudget) -> None:
    budget.spent += sum(one.prompt_tokens + one.completion_tokens for one in answers.values())
    lines = [json.dumps({"id": name, "answer": asdict(one)}).encode() for name, one in answers.items()]
    if lines:
        files.append_lines(job.answers, b"\n".join(lines) + b"\n")


def _answer(model: OldModel, account: Answerer, item: Mapping[str, Any]) -> ModelAnswer:
    path, body = model.request(item)
    try:
        return _read(account.ask(path, body))
    except PromptRefused as refusal:
        if "temperature" not in refusal.fact:
            return ModelAnswer("", finish="error", error=refusal.fact)
    # Models that reason take no temperature but their own.
    try:
        return _read(account.ask(path, {key: one for key, one in body.items() if key != "temperature"}))
    except PromptRefused as refusal:
        return ModelAnswer("", finish="error", error=refusal.fact)


def _read(found: Mapping[str, Any]) -> ModelAnswer:
    try:
        choice, usage = found["choices"][0], found.get("usage") or {}
        message = choice.get("message") or {}
        text = choice["text"] if "text" in choice else message.get("content")
        return ModelAnswer(
            text=text or "",
            finish=str(choice.get("finish_reason") or ""),
            prompt_tokens=int(usage.get("prompt_tokens") or 0),
            completion_tokens=int(usage.get("completion_tokens") or 0),
            calls=tuple(_call(one["function"]) for one in message.get("tool_calls") or ()),
        )
    except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
        raise AccountFailed("the answer", f"is not OpenAI-shaped ({error!r})", "check --base-url") from error


def _call(function: Mapping[str, Any]) -> ToolCall:
    return ToolCall(function["name"], function.get("arguments") or "{}")
