"""`python -m deploy.recipes [medical] [legal] [--root DIR]`: what `make recipes` runs."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from deploy.demo.data import DemoTask, legal_task, medical_task
from deploy.demo.product import Product
from deploy.recipes.materials import Materials
from deploy.recipes.steps import RecipeRun
from deploy.recipes.story import play
from registry.errors import WardrobeError
from registry.home import at_home
from train.model.base_demo import NAME

# The task, and a larger draw of the same data: what the task leaves out makes preference pairs.
TASKS: dict[str, Callable[[], tuple[DemoTask, DemoTask]]] = {
    "medical": lambda: (medical_task(), medical_task(per_label=300)),
    "legal": lambda: (legal_task(), legal_task(per_label=400)),
}


def main() -> int:
    """Run the recipes and return the exit code; a second run goes on where the first one stopped."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tasks", nargs="*", metavar="TASK", default=list(TASKS), help=", ".join(TASKS))
    parser.add_argument("--root", type=at_home, default=Path("recipes-data"))
    options = parser.parse_args()
    if unknown := set(options.tasks) - set(TASKS):
        parser.error(f"no such recipe: {', '.join(sorted(unknown))}; there are {', '.join(TASKS)}")
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        for name in options.tasks:
            play(_recipe(options.root.resolve(), name))
    except KeyboardInterrupt:
        print("stopped; what was finished is kept")
        return 130
    except WardrobeError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _recipe(root: Path, name: str) -> RecipeRun:
    product = Product(root / "root")
    if not (product.root / "layout.json").exists():
        base = product.run("base", "demo", root / NAME)
        product.run("init", "--base", base)
    folder = root / name
    folder.mkdir(parents=True, exist_ok=True)
    return RecipeRun(Materials.of(*TASKS[name]()), product, folder, lambda text: print(text, flush=True))


if __name__ == "__main__":
    raise SystemExit(main())
