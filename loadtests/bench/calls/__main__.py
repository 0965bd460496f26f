"""Tool calls: train on made-up rows, and ask for held-out ones offline and through a server.

    python -m loadtests.bench.calls [--base DIR]

Prints and keeps, for the base and for the adapter, the share of held-out questions that are answered with
exactly the expected calls, and of answers whose arguments fit the schemas. Offline, where answers come one by
one, the first 14 questions are asked; there both ways must give the same verdicts. Then the same rows are
uploaded and trained over OpenAI's fine-tuning API, and the same questions are asked of that model.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from loadtests.bench.calls.over_api import STREAMED, ask, tune
from loadtests.bench.calls.smart_home import rows
from loadtests.bench.results import MeasuredFigure, MedianInterval, publish
from loadtests.live import Live, wardrobe, wardrobe_json
from train.model.base_demo import NAME, make_demo_base

ROWS, HELD_OUT, OFFLINE = 240, 40, 14
TEMPLATE = "qwen2_5.jinja"
CONFIG: dict[str, Any] = {
    "name": "home",
    "lora": {"rank": 16, "alpha": 32},
    "training": {"learning_rate": 1e-3, "steps": 24, "batch_size": 4, "max_length": 512},
    "seed": 7,
}
SUITE: dict[str, Any] = {
    "name": "home",
    "items": "test.jsonl",
    "sampling": {"max_tokens": 96},
    "graders": [
        {"type": "calls"},
        {"type": "calls", "name": "names", "arguments": False},
        {"type": "arguments"},
    ],
}
SERVER = ("--max-model-len", "1024", "--max-num-seqs", "8", "--max-loras", "2")
LEARNT, SAME = 0.5, 0.95
API = "over the API, served"


def main() -> int:
    """Run everything; 1 where a bar is missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--base", type=Path, help="the base model's folder (default: the demo's)")
    base = parser.parse_args().base or demo_base()
    with tempfile.TemporaryDirectory(prefix="wardrobe-calls-") as name:
        folder = Path(name)
        root = prepare(folder, base)
        started = time.monotonic()
        wardrobe(root, "train", "run", folder / "train.json")
        seconds = time.monotonic() - started
        offline = measure(root, folder, "offline", "--limit", str(OFFLINE), "--offline")
        server = served(root, folder)
    steps = CONFIG["training"]["steps"]
    notes = (
        f"{ROWS} rows, {HELD_OUT} held out, of five tools; {steps} steps of four rows in {seconds:.0f} s.",
        f"The base is the demo's with TRL's `{TEMPLATE}` as its chat template.",
        f"Over the API: the job took {server.seconds:.0f} s beside the server, from create to succeeded.",
    )
    return 0 if publish("tool-calls", figures(offline, server), notes=notes) else 1


@dataclass(frozen=True, slots=True)
class ServedCalls:
    """What one server gave: the arms by name, `API` among them.

    `streamed` is the share of answers that call the same in pieces, `seconds` what the job over the API took.
    """

    arms: Mapping[str, Any]
    streamed: float
    seconds: float


def figures(offline: Mapping[str, Any], server: ServedCalls) -> list[MeasuredFigure]:
    """Return what was found, and whether both ways agree on the questions that were asked in both."""
    found = [
        _share(f"{arm}, {way}: {name}", measured[arm]["figures"][name], bar)
        for arm, bar in (("base", 0.0), ("home@1", LEARNT))
        for name in ("calls", "names", "arguments")
        for way, measured in (("served", server.arms), ("offline", offline))
    ]
    found += [
        _share(f"{API}: {name}", server.arms[API]["figures"][name], LEARNT)
        for name in ("calls", "names", "arguments")
    ]
    equal = [
        (f"{arm}: verdicts equal offline and served", *_equal(offline[arm], server.arms[arm]))
        for arm in ("base", "home@1")
    ]
    equal.append((f"{API}: calls equal whole and streamed", server.streamed, STREAMED))
    return [*found, *(_at_least(*one) for one in equal)]


def _equal(one: Mapping[str, Any], other: Mapping[str, Any]) -> tuple[float, int]:
    """Return on what share of the questions that both were asked the verdicts are equal, and of how many."""
    same = [first == second for first, second in zip(one["verdicts"], other["verdicts"], strict=False)]
    return sum(same) / len(same), len(same)


def _at_least(name: str, share: float, count: int) -> MeasuredFigure:
    value = MedianInterval(share, share, share, count)
    return MeasuredFigure(name, value, "share", f"≥ {SAME:g}", share >= SAME)


def demo_base() -> Path:
    """Return the folder of the demo's base, made if it is not there."""
    folder = Path(os.environ.get("WARDROBE_CACHE") or ".cache") / NAME
    make_demo_base(folder)
    return folder.resolve()


def training_rows() -> list[dict[str, Any]]:
    """Return the rows that are trained."""
    return rows(7, ROWS, held_out=False)


def held_out_rows() -> list[dict[str, Any]]:
    """Return the rows whose questions are asked."""
    return rows(8, HELD_OUT, held_out=True)


def prepare(folder: Path, base: Path) -> Path:
    """Write base, rows, config and suite to `folder`; return the root."""
    shutil.copytree(base, folder / "base")
    template = files("trl").joinpath("chat_templates", TEMPLATE).read_text(encoding="utf-8")
    (folder / "base" / "chat_template.jinja").write_text(template, encoding="utf-8")
    _write(folder / "train.jsonl", training_rows())
    _write(folder / "test.jsonl", held_out_rows())
    config = CONFIG | {"data": {"train": str(folder / "train.jsonl")}}
    (folder / "train.json").write_text(json.dumps(config))
    (folder / "suite.json").write_text(json.dumps(SUITE))
    wardrobe(folder / "root", "init", "--base", folder / "base")
    return folder / "root"


def measure(root: Path, folder: Path, name: str, *options: str, url: str | None = None) -> dict[str, Any]:
    """Ask adapter and base the held-out questions; return their figures and verdicts."""
    out, server = folder / name, ("--url", url) if url else ()
    command = ("eval", "run", folder / "suite.json", "--model", "home@1", "--against", "base", "--out", out)
    printed = wardrobe_json(root, *server, *command, "--no-attest", *options)
    lines = [json.loads(line) for line in (out / "items.jsonl").read_text().splitlines()]
    return {
        arm["label"]: {
            "figures": {name: figure["all"] for name, figure in arm["figures"].items()},
            "verdicts": [_verdicts(line["arms"][arm["label"]]) for line in lines],
        }
        for arm in printed["arms"]
    }


def served(root: Path, folder: Path) -> ServedCalls:
    """Ask both through a server, and what that server trains over its API."""
    with Live.running(root, folder / "serve.log", *SERVER) as server:
        arms = measure(root, folder, "served", url=server.url)
        model, seconds = tune(server, training_rows(), CONFIG)
        found, streamed = ask(server, model, held_out_rows(), SUITE)
        return ServedCalls(arms | {API: found}, streamed, seconds)


def _share(name: str, figure: Mapping[str, Any], bar: float) -> MeasuredFigure:
    value = MedianInterval(figure["value"], figure["low"], figure["high"], figure["items"])
    return MeasuredFigure(name, value, "share", f"≥ {bar:g}", value.median >= bar)


def _verdicts(answer: dict[str, Any]) -> dict[str, float]:
    return {name: grade["score"] for name, grade in answer["grades"].items()}


def _write(path: Path, found: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in found), encoding="utf-8")


if __name__ == "__main__":
    raise SystemExit(main())
