"""Make the base and the root, train three times, and register two versions.

    python deploy/examples/01_train.py

`medical` (480 rows) and `legal` (600 rows) are registered and become stable; a second `medical` (all 1,400
rows) is left in a folder: 03_swap.py registers it under load. A second run trains nothing again: the note of
a version holds a digest of its rows and settings. One that was stopped goes on from its checkpoint.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from deploy.examples import session
from deploy.examples.session import FOLDER, ROOT, wardrobe, wardrobe_json
from deploy.examples.tasks import DemoTask, legal_task, medical_task, write_rows

SETTINGS = Path(__file__).with_name("train.yaml")
FIRST_ROWS = 480


def main(_: Sequence[str]) -> int:
    """Do all that needs no server."""
    base = wardrobe("base", "demo")
    name = wardrobe_json("init", "--base", base)["base"]["name"]
    print(f"root {ROOT} for {name}, in {base}")
    medical, legal = medical_task(), legal_task()
    for task in (medical, legal):
        print(f"{task.name}: {task.title}, {len(task.train)} rows and {len(task.held_out)} held out")
    first = train_version(medical, FIRST_ROWS)
    other = train_version(legal, len(legal.train))
    folder, note = train_folder(medical, len(medical.train))
    end_open_rollout("medical")
    make_stable("medical", first)
    make_stable("legal", other)
    session.keep(
        base=name,
        medical={"version": first, "rows": FIRST_ROWS},
        legal={"version": other, "rows": len(legal.train)},
        better={"folder": str(folder), "note": note, "rows": len(medical.train)},
    )
    return 0


def write_training(task: DemoTask, rows: int, folder: Path) -> tuple[Path, str]:
    """Write the first `rows` rows and their configuration; return its path and the version's note."""
    data = folder / f"{task.name}-{rows}.jsonl"
    write_rows(task, task.train[:rows], data)
    digest = hashlib.sha256(SETTINGS.read_bytes() + data.read_bytes()).hexdigest()[:12]
    note = f"demo {digest}: {rows} rows"
    config = {"name": task.name, "note": note, "data": {"train": data.name}}
    path = data.with_suffix(".yaml")
    path.write_text(yaml.safe_dump({**config, **yaml.safe_load(SETTINGS.read_text())}, sort_keys=False))
    return path, note


def train_version(task: DemoTask, rows: int) -> int:
    """Train and register a version, unless it is there already; return its number."""
    config, note = write_training(task, rows, FOLDER)
    known = session.versions(task.name).get(note)
    if known is not None:
        print(f"{task.name}@{known} is there already")
        return known
    told = train(task, config)
    print(f"{told['adapter']}@{told['version']} registered; {measured(told)}")
    return int(told["version"])


def train_folder(task: DemoTask, rows: int) -> tuple[Path, str]:
    """Train into a folder, unless it is there already; return it and the note for a version of it."""
    config, note = write_training(task, rows, FOLDER)
    folder = FOLDER / f"trained-{note.split()[1].rstrip(':')}"
    if not folder.is_dir():
        print(f"{folder.name} holds {rows} rows' worth; {measured(train(task, config, '--out', folder))}")
    return folder, note


def train(task: DemoTask, config: Path, *options: str | Path) -> Any:
    """Train, from the checkpoint on that a Ctrl-C left, if there is one; return what was told."""
    print(f"wardrobe train run {config}")
    left = any(
        job["adapter"] == task.name and job["status"]["state"] == "interrupted" and job["checkpoints"]
        for job in wardrobe_json("train", "jobs", "--all")
    )
    return wardrobe_json("train", "run", config, *options, *(["--resume"] if left else []))


def measured(told: Any) -> str:
    """Return the losses and the speed of a training."""
    losses = f"loss {told['first_loss']:.2f} → {told['last_loss']:.2f}"
    return f"{losses}, {told['tokens_per_second']:.0f} tokens/s"


def end_open_rollout(adapter: str) -> None:
    """Abort what a run that was stopped in the middle of 04_canary.py left open."""
    if adapter in {one["adapter"] for one in wardrobe_json("rollout", "list") if one["open"]}:
        wardrobe("rollout", "abort", adapter, "--why", "an earlier demo was stopped")


def make_stable(adapter: str, number: int) -> None:
    """Promote the version, where a run that was stopped in 03_swap.py left another one stable."""
    if wardrobe_json("show", adapter)["stable"] != number:
        wardrobe("promote", f"{adapter}@{number}")
    print(f"stable: {adapter}@{number}")


if __name__ == "__main__":
    sys.exit(session.start(main))
