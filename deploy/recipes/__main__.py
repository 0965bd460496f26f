"""Two trainings in full on real data, from rows to a judged adapter: `make recipes`.

    python -P -m deploy.recipes [medical] [legal] [--root recipes-data]

Every step is kept in the root's folder: a second run goes on where the first one stopped.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from deploy.examples import session
from deploy.examples.scores import score_logistic_regression
from deploy.examples.tasks import DemoTask, legal_task, medical_task
from deploy.recipes.asking import BASE, ask, ask_guards, write_pairs, write_replay
from deploy.recipes.materials import Materials
from deploy.recipes.report import AccuracyRow, guard_table, table, write_curve
from loadtests.live import Live
from registry.home import at_home
from train.model.base_demo import NAME

# The task, and a larger draw of the same data: what the task leaves out makes preference pairs.
TASKS: dict[str, Callable[[], tuple[DemoTask, DemoTask]]] = {
    "medical": lambda: (medical_task(), medical_task(per_label=300)),
    "legal": lambda: (legal_task(), legal_task(per_label=400)),
}
SHARES = (0.25, 0.5, 1.0)
REPLAY_SHARE = 0.1


def main(arguments: Sequence[str]) -> int:
    """Run the recipes."""
    parser = argparse.ArgumentParser(prog="python -m deploy.recipes", description=__doc__)
    parser.add_argument("tasks", nargs="*", metavar="TASK", default=list(TASKS), help=", ".join(TASKS))
    parser.add_argument("--root", type=at_home, default=Path("recipes-data"))
    options = parser.parse_args(arguments)
    if unknown := set(options.tasks) - set(TASKS):
        parser.error(f"no such recipe: {', '.join(sorted(unknown))}; there are {', '.join(TASKS)}")
    place = options.root.resolve()
    os.environ["WARDROBE_ROOT"] = str(place / "root")
    if not (place / "root" / "layout.json").exists():
        session.wardrobe("init", "--base", session.wardrobe("base", "demo", place / NAME))
    for name in options.tasks:
        (place / name).mkdir(exist_ok=True)
        play(Materials.of(place / name, *TASKS[name]()), place / "root")
    return 0


def play(recipe: Materials, root: Path) -> None:
    """Train on parts and on all, with preferences and with replay; ask everybody; write the report."""
    parts = {f"sft-{round(share * 100)}": share for share in SHARES}
    versions = {name: train(recipe.supervised(name, share)) for name, share in parts.items()}
    with Live.running(root, recipe.folder / "server.log") as server:
        write_replay(recipe, server.url)
        pairs = write_pairs(recipe, server.url, versions["sft-100"])
        # A general answer may be longer than the task's rows; such rows are left out.
        general = {"path": "replay.jsonl", "share": REPLAY_SHARE}
        versions["sft-replay"] = train(recipe.supervised("sft-replay", 1.0, replay=general, overflow="drop"))
        versions["dpo"] = train(recipe.preferences(versions["sft-100"]))
        plain, helped = recipe.suites()
        arms = {name: ask(recipe, server.url, plain, one)[0] for name, one in versions.items()}
        base = ask(recipe, server.url, helped, BASE, "--shots", str(recipe.shots))
        guards = ask_guards(recipe, server.url, versions)
    write_report(recipe, answers(recipe, arms, base), guards, pairs)


def train(configured: tuple[Path, str]) -> str:
    """Train, unless the version is there already; return `NAME@N`."""
    config, note = configured
    name = config.parent.name
    if note not in session.versions(name):
        print(f"training {config.stem}")
        session.wardrobe("train", "run", config)
    return f"{name}@{session.versions(name)[note]}"


def answers(
    recipe: Materials, arms: Mapping[str, dict[str, Any]], base: Sequence[dict[str, Any]]
) -> list[AccuracyRow]:
    """Return every row of the answers' table."""
    found = [
        AccuracyRow.of_arm("base, labels listed", None, base[0]),
        AccuracyRow.of_arm(f"base, labels and {recipe.shots} examples", None, base[1]),
    ]
    for share in SHARES:
        rows = recipe.part(share)
        cheap = score_logistic_regression(rows, recipe.task.held_out)
        found.append(AccuracyRow.of_score("TF-IDF, logistic regression", len(rows), cheap))
        found.append(AccuracyRow.of_arm("adapter", len(rows), arms[f"sft-{round(share * 100)}"]))
    rows = recipe.train
    found.append(AccuracyRow.of_arm("adapter, with replay", len(rows), arms["sft-replay"]))
    found.append(AccuracyRow.of_arm("adapter, then DPO", len(rows), arms["dpo"]))
    return found


def write_report(
    recipe: Materials, found: Sequence[AccuracyRow], guards: Mapping[str, dict[str, Any]], pairs: int
) -> None:
    """Write `report.md`, `curve.svg` and `results.json`, and print the tables."""
    cost = f"## What it cost\n\n{guard_table(guards)}\n![accuracy over rows](curve.svg)\n"
    text = f"# {recipe.task.title}\n\n{table(found)}\n{pairs} preference pairs.\n\n{cost}"
    (recipe.folder / "report.md").write_text(text, encoding="utf-8")
    kept = {"answers": [asdict(one) for one in found], "pairs": pairs, "guards": guards}
    (recipe.folder / "results.json").write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")
    write_curve(
        recipe.folder / "curve.svg",
        f"{recipe.task.title}: accuracy over training rows",
        [one for one in found if one.who == "adapter"],
        [one for one in found if one.who.startswith("TF-IDF")],
        found[1],
    )
    print(text)


if __name__ == "__main__":
    sys.exit(session.start(main))
