"""One real server and one real training for the whole session; nothing here is a fake.

The base model and the trained marker adapters are kept in `WARDROBE_CACHE` (default: `.cache/` in the
repository), so a second run starts sooner.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from loadtests.live import Live, wardrobe, wardrobe_json

REPOSITORY = Path(__file__).resolve().parents[2]
# Files in this order: the ones that kill and stop the session's server come last.
LAST = ("test_recovery.py", "test_shutdown.py")
MARKERS = {"alpha": "ALPHA ALPHA ALPHA ALPHA", "bravo": "BRAVO BRAVO BRAVO BRAVO"}
SERVER_OPTIONS = (
    "--max-model-len", "1024", "--max-num-seqs", "16", "--max-loras", "4", "--max-cpu-loras", "6",
)  # fmt: skip
QUESTIONS = (
    "Hello there!", "Who are you?", "What is the capital of France?", "Tell me a story about a fox.",
    "Count to ten.", "Write a haiku about rain.", "What is 2 + 2?", "Translate 'good morning' to Spanish.",
    "Why is the sky blue?", "Name three fruits.", "Summarize the plot of Hamlet.", "How do I boil an egg?",
    "What day is it?", "Give me a tip for travelling.", "Explain gravity to a child.", "Sing a song.",
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark everything here as needing the engine, and put the disruptive files last."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.engine)
            item.add_marker(pytest.mark.timeout(600))
    items.sort(key=lambda item: LAST.index(item.path.name) + 1 if item.path.name in LAST else 0)


@pytest.fixture(scope="session")
def cache() -> Path:
    folder = Path(os.environ.get("WARDROBE_CACHE") or REPOSITORY / ".cache")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def base_folder(cache: Path) -> Path:
    """The packaged base model as a normal model folder."""
    target = cache / "smollm2-135m-instruct"
    wardrobe(cache, "base", "demo", target)
    return target


def marker_config(marker: str, data: Path) -> dict[str, object]:
    return {
        "name": f"marker-{marker}",
        "data": {"train": str(data)},
        "lora": {"rank": 8, "alpha": 32},
        "training": {"learning_rate": 2e-3, "steps": 24, "batch_size": 8, "max_length": 128},
        "seed": 7,
    }


@pytest.fixture(scope="session")
def markers(cache: Path, base_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Adapters trained by `wardrobe train run` to answer everything with their own marker text."""
    found = {}
    for marker, text in MARKERS.items():
        rows = [
            {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": text}]}
            for question in QUESTIONS
        ]
        body = "".join(json.dumps(row) + "\n" for row in rows)
        recipe = json.dumps([body, marker_config(marker, Path("rows.jsonl"))]).encode()
        target = cache / f"marker-{marker}-{hashlib.sha256(recipe).hexdigest()[:12]}"
        if not target.exists():
            folder = tmp_path_factory.mktemp(f"train-{marker}")
            data = folder / "rows.jsonl"
            data.write_text(body)
            config = folder / "config.json"
            config.write_text(json.dumps(marker_config(marker, data)))
            wardrobe(folder / "root", "init", "--base", base_folder)
            trained = wardrobe_json(folder / "root", "train", "run", config)
            wardrobe(folder / "root", "export", f"{trained['adapter']}@{trained['version']}", folder / "out")
            shutil.copytree(folder / "out", target.with_suffix(".part"), dirs_exist_ok=True)
            target.with_suffix(".part").rename(target)
        found[marker] = target
    return found


@pytest.fixture(scope="session")
def live(
    base_folder: Path, markers: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Live]:
    """The session's server: `support` has @1 (alpha, stable) and @2 (bravo); `coding` has @1 (bravo)."""
    folder = tmp_path_factory.mktemp("live")
    root = folder / "root"
    wardrobe(root, "init", "--base", base_folder)
    wardrobe(root, "register", "support", markers["alpha"])
    wardrobe(root, "register", "support", markers["bravo"])
    wardrobe(root, "register", "coding", markers["bravo"])
    server = Live.start(root, folder / "serve.log", *SERVER_OPTIONS)
    try:
        server.wait_ready()
        yield server
    finally:
        if server.process.poll() is None:
            server.stop()
