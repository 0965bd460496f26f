"""Adapters whose answers tell by the text alone which one answered: trained to say their own marker.

They are made by `wardrobe train run` on the real base and kept in a cache folder by the hash of their
recipe. Greedy answers of ordinary adapters differ by batch size alone; these differ beyond doubt.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from loadtests.live import wardrobe, wardrobe_json

MARKERS = {"alpha": "ALPHA", "bravo": "BRAVO"}
QUESTIONS = (
    "Hello there!", "Who are you?", "What is the capital of France?", "Tell me a story about a fox.",
    "Count to ten.", "Write a haiku about rain.", "What is 2 + 2?", "Translate 'good morning' to Spanish.",
    "Why is the sky blue?", "Name three fruits.", "Summarize the plot of Hamlet.", "How do I boil an egg?",
    "What day is it?", "Give me a tip for travelling.", "Explain gravity to a child.", "Sing a song.",
)  # fmt: skip


def marker_of(text: str) -> str:
    """Return the marker that `text` holds, `none` for neither, `both` for a mixture."""
    found = [marker for marker in MARKERS.values() if marker in text]
    return "both" if len(found) > 1 else (found[0] if found else "none")


def marker_adapters(cache: Path, base: Path) -> dict[str, Path]:
    """Return the folders of the marker adapters by name (`alpha`, `bravo`), trained where absent."""
    return {name: _trained(name, marker, cache, base) for name, marker in MARKERS.items()}


def marker_root(root: Path, cache: Path, wanted: Mapping[str, Sequence[str]]) -> dict[str, Path]:
    """Make a root on the real base, and register marker adapters by name, a version each; return all."""
    base = cache / "smollm2-135m-instruct"
    wardrobe(cache, "base", "demo", base)
    adapters = marker_adapters(cache, base)
    wardrobe(root, "init", "--base", base)
    for name, versions in wanted.items():
        for marker in versions:
            wardrobe(root, "register", name, adapters[marker], "--allow-duplicate")
    return adapters


def _trained(name: str, marker: str, cache: Path, base: Path) -> Path:
    rows = "".join(
        json.dumps({"prompt": question, "completion": " ".join([marker] * 4)}) + "\n"
        for question in QUESTIONS
    )
    recipe = hashlib.sha256(json.dumps([rows, _config(name, Path("rows.jsonl"))]).encode())
    target = cache / f"marker-{name}-{recipe.hexdigest()[:12]}"
    if target.exists():
        return target
    with tempfile.TemporaryDirectory(prefix="wardrobe-marker-") as scratch:
        folder = Path(scratch)
        (folder / "rows.jsonl").write_text(rows)
        (folder / "config.json").write_text(json.dumps(_config(name, folder / "rows.jsonl")))
        wardrobe(folder / "root", "init", "--base", base)
        done = wardrobe_json(folder / "root", "train", "run", folder / "config.json")
        wardrobe(folder / "root", "export", f"{done['adapter']}@{done['version']}", folder / "out")
        part = target.with_suffix(".part")
        shutil.copytree(folder / "out", part, dirs_exist_ok=True)
        part.rename(target)
    return target


def _config(name: str, rows: Path) -> dict[str, object]:
    return {
        "name": f"marker-{name}",
        "data": {"train": str(rows)},
        "lora": {"rank": 8, "alpha": 32},
        "training": {"learning_rate": 2e-3, "steps": 24, "batch_size": 8, "max_length": 128},
        "seed": 7,
    }
