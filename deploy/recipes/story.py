"""A recipe from beginning to end: rows, runs, questions, pairs, preference run, guards, report."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from deploy.demo.baseline import score_logistic_regression
from deploy.demo.product import DemoServer
from deploy.recipes.materials import SHARES, Materials, write_lines
from deploy.recipes.report import AccuracyRow, guard_table, table, write_curve
from deploy.recipes.steps import BASE, GUARDS, RecipeRun, shots_of

REFERENCES = "references"


def play(recipe: RecipeRun) -> None:
    """Run the whole recipe and write its report to `report.md` in its folder."""
    suites = recipe.materials.write_suites(recipe.folder)
    write_references(recipe.folder)
    versions = recipe.train_parts()
    server = DemoServer.start(recipe.product, recipe.folder / "server.log")
    try:
        server.wait_ready(lambda _: None)
        recipe.write_replay(server)
        pairs = recipe.write_pairs(server, versions["sft-100"])
        versions["sft-replay"] = recipe.train_with_replay()
        versions["dpo"] = recipe.train_preferences(versions["sft-100"])
        plain = {name: recipe.evaluate(server, str(suites["plain"]), one) for name, one in versions.items()}
        shots = shots_of(recipe.materials)
        helped = recipe.evaluate(server, str(suites["helped"]), BASE, shots=shots)
        guards = ask_guards(recipe, server, versions)
    finally:
        server.stop()
    answers = collect(recipe.materials, plain, helped, shots)
    write_report(recipe, answers, guards, pairs)


def ask_guards(
    recipe: RecipeRun, server: DemoServer, versions: Mapping[str, str]
) -> dict[str, dict[str, dict[str, Any]]]:
    """Ask the base and the versions that learnt everything each guard suite."""
    models = {BASE: BASE, **{name: versions[name] for name in ("sft-100", "sft-replay", "dpo")}}
    suites = (*GUARDS, str(recipe.folder / f"{REFERENCES}.yaml"))
    return {
        Path(suite).stem: {
            name: recipe.evaluate(server, suite, model)["arms"][0] for name, model in models.items()
        }
        for suite in suites
    }


def collect(
    materials: Materials, plain: Mapping[str, dict[str, Any]], helped: dict[str, Any], shots: int
) -> list[AccuracyRow]:
    """Return every row of the answers' table."""
    found = [
        AccuracyRow.of_arm("base, labels listed", None, helped["arms"][0]),
        AccuracyRow.of_arm(f"base, labels and {shots} examples", None, helped["arms"][1]),
    ]
    for share in SHARES:
        rows = materials.part(share)
        score = score_logistic_regression(rows, materials.task.held_out)
        found.append(AccuracyRow.of_score("TF-IDF, logistic regression", len(rows), score))
        found.append(AccuracyRow.of_arm("adapter", len(rows), plain[f"sft-{round(share * 100)}"]["arms"][0]))
    everything = len(materials.train)
    found.append(AccuracyRow.of_arm("adapter, with replay", everything, plain["sft-replay"]["arms"][0]))
    found.append(AccuracyRow.of_arm("adapter, then DPO", everything, plain["dpo"]["arms"][0]))
    return found


def write_report(
    recipe: RecipeRun,
    answers: list[AccuracyRow],
    guards: Mapping[str, Mapping[str, Mapping[str, Any]]],
    pairs: int,
) -> None:
    """Write `report.md` and `curve.svg`, and print the tables."""
    task = recipe.materials.task
    text = (
        f"# {task.title}\n\n{table(answers)}\n{pairs} preference pairs.\n\n"
        f"## What it cost\n\n{guard_table(guards)}\n![accuracy over rows](curve.svg)\n"
    )
    (recipe.folder / "report.md").write_text(text, encoding="utf-8")
    kept = {"answers": [asdict(one) for one in answers], "pairs": pairs, "guards": guards}
    (recipe.folder / "results.json").write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")
    write_curve(
        recipe.folder / "curve.svg",
        f"{task.title}: accuracy over training rows",
        [one for one in answers if one.who == "adapter"],
        [one for one in answers if one.who.startswith("TF-IDF")],
        answers[1],
    )
    recipe.tell(text)


def write_references(folder: Path) -> None:
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
    write_lines(folder / f"{REFERENCES}.jsonl", items)
    suite = {"name": REFERENCES, "items": f"{REFERENCES}.jsonl", "graders": [{"type": "perplexity"}]}
    (folder / f"{REFERENCES}.yaml").write_text(json.dumps(suite))
