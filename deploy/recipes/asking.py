"""What is asked of a recipe's models, and the rows that are made of their answers; each result is kept."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deploy.examples import session
from deploy.recipes.materials import Materials, write_lines, write_suite

BASE, GUARDS = "base", ("mmlu-dev", "bbh", "refusals")


def ask(recipe: Materials, url: str, suite: Path | str, model: str, *options: str) -> list[dict[str, Any]]:
    """Ask a model a suite, unless it was asked already; return the arms of the result."""
    out = results(recipe, suite, model)
    if not (out / "run.json").exists():
        print(f"{suite}: asking {model}")
        order = ("eval", "run", suite, "--model", model, "--url", url, "--out", out, "--no-attest")
        session.wardrobe(*order, *options)
    found: list[dict[str, Any]] = json.loads((out / "run.json").read_text())["arms"]
    return found


def results(recipe: Materials, suite: Path | str, model: str) -> Path:
    """Return the folder of a result."""
    return recipe.folder / "results" / f"{Path(suite).stem}-{model.replace('@', '-')}"


def texts(recipe: Materials, url: str, suite: Path, model: str) -> list[str]:
    """Ask a model a suite and return its answers."""
    ask(recipe, url, suite, model)
    lines = (results(recipe, suite, model) / "items.jsonl").read_text().splitlines()
    return [str(json.loads(line)["arms"][model]["text"]).strip() for line in lines]


def write_replay(recipe: Materials, url: str) -> None:
    """Write general rows: the base's own answers to general questions, so that it stays what it was."""
    from train.evaluation.formats.library import find_suite

    prompts = [str(item.prompt) for item in find_suite("mt-bench").items if not item.expected]
    items = [{"id": str(number), "prompt": prompt} for number, prompt in enumerate(prompts)]
    sampling = {"temperature": 0, "max_tokens": 160}
    suite = write_suite(recipe.folder, "general", items, sampling=sampling, graders=[{"type": "stops"}])
    said = zip(prompts, texts(recipe, url, suite, BASE), strict=True)
    rows = [
        {"messages": [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]}
        for prompt, answer in said
        if answer
    ]
    write_lines(recipe.folder / "replay.jsonl", rows)


def write_pairs(recipe: Materials, url: str, model: str) -> int:
    """Ask `model` the spare rows; each wrong answer becomes a pair with the right one; return how many.

    The pairs are verifiable: the right answer is the data's, the rejected one was really given.
    """
    suite = recipe.suite("spare", recipe.spare, system=recipe.task.instruction, graders=[{"type": "exact"}])
    said = zip(recipe.spare, texts(recipe, url, suite, model), strict=True)
    pairs = [
        {
            "prompt": recipe.task.messages(row),
            "chosen": [{"role": "assistant", "content": row.label}],
            "rejected": [{"role": "assistant", "content": answer}],
        }
        for row, answer in said
        if answer not in {"", row.label}
    ]
    write_lines(recipe.folder / "pairs.jsonl", pairs)
    return len(pairs)


def ask_guards(recipe: Materials, url: str, versions: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Ask the base and the versions that learnt everything each guard suite."""
    models = {BASE: BASE, **{name: versions[name] for name in ("sft-100", "sft-replay", "dpo")}}
    suites = (*GUARDS, write_references(recipe.folder))
    return {
        Path(suite).stem: {name: ask(recipe, url, suite, model)[0] for name, model in models.items()}
        for suite in suites
    }


def write_references(folder: Path) -> Path:
    """Write a suite of general questions with written answers: how likely the model finds them.

    Perplexity moves long before a small model's right answers do. MT-Bench's first turns that have a
    reference (NVIDIA's package, Apache-2.0).
    """
    from train.evaluation.formats.library import find_suite

    items = [
        {"id": item.id, "prompt": item.prompt, "expected": item.expected}
        for item in find_suite("mt-bench").items
        if item.expected
    ]
    return write_suite(folder, "references", items, graders=[{"type": "perplexity"}])
