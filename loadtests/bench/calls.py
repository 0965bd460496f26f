"""Tool calls: train on made-up rows, and ask for held-out ones offline and through a server.

    python -m loadtests.bench.calls [--base DIR]

Prints and keeps, for the base and for the adapter, the share of held-out questions that are answered with
exactly the expected calls, and of answers whose arguments fit the schemas. Both ways must agree.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
import time
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from loadtests.bench.results import Figure, Interval, publish
from loadtests.bench.smart_home import rows
from loadtests.live import Live, wardrobe, wardrobe_json
from train.base_demo import NAME, make_demo_base

ROWS, HELD_OUT = 240, 40
TEMPLATE = "qwen2_5.jinja"
CONFIG = {
    "name": "home",
    "lora": {"rank": 16, "alpha": 32},
    "training": {"learning_rate": 1e-3, "steps": 24, "batch_size": 4, "max_length": 512},
    "seed": 7,
}
SUITE = {
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
LEARNT, SAME = 0.8, 0.95


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
        offline, server = measure(root, folder, "--offline"), served(root, folder)
    steps = CONFIG["training"]["steps"]  # type: ignore[index]
    notes = (
        f"{ROWS} rows, {HELD_OUT} held out, of five tools; {steps} steps of four rows in {seconds:.0f} s.",
        f"The base is the demo's with TRL's `{TEMPLATE}` as its chat template.",
    )
    return 0 if publish("tool-calls", figures(offline, server), notes=notes) else 1


def figures(offline: Mapping[str, Any], server: Mapping[str, Any]) -> list[Figure]:
    """Return what was found, and whether both ways agree."""
    found = [
        _share(f"{arm}, {way}: {name}", measured[arm]["figures"][name], LEARNT if arm == "home@1" else 0.0)
        for arm in ("base", "home@1")
        for name in ("calls", "names", "arguments")
        for way, measured in (("offline", offline), ("served", server))
    ]
    for arm in ("base", "home@1"):
        pairs = zip(offline[arm]["answers"], server[arm]["answers"], strict=True)
        equal = [one == other for one, other in pairs]
        share = sum(equal) / len(equal)
        value = Interval(share, share, share, len(equal))
        bar = SAME if arm == "home@1" else 0.0
        found.append(
            Figure(f"{arm}: answers equal offline and served", value, "share", f"≥ {bar:g}", share >= bar)
        )
    return found


def demo_base() -> Path:
    """Return the folder of the demo's base, made if it is not there."""
    folder = Path(os.environ.get("WARDROBE_CACHE") or ".cache") / NAME
    make_demo_base(folder)
    return folder.resolve()


def prepare(folder: Path, base: Path) -> Path:
    """Write base, rows, config and suite to `folder`; return the root."""
    shutil.copytree(base, folder / "base")
    template = files("trl").joinpath("chat_templates", TEMPLATE).read_text(encoding="utf-8")
    (folder / "base" / "chat_template.jinja").write_text(template, encoding="utf-8")
    _write(folder / "train.jsonl", rows(7, ROWS, held_out=False))
    _write(folder / "test.jsonl", rows(8, HELD_OUT, held_out=True))
    config = CONFIG | {"data": {"train": str(folder / "train.jsonl")}}
    (folder / "train.json").write_text(json.dumps(config))
    (folder / "suite.json").write_text(json.dumps(SUITE))
    wardrobe(folder / "root", "init", "--base", folder / "base")
    return folder / "root"


def measure(root: Path, folder: Path, *how: str) -> dict[str, Any]:
    """Ask adapter and base every held-out question; return their figures and answers."""
    out = folder / f"run{len(list(folder.glob('run*')))}"
    command = ("eval", "run", folder / "suite.json", "--model", "home@1", "--against", "base", "--out", out)
    printed = wardrobe_json(root, *how[:-1], *command, *how[-1:])
    lines = [json.loads(line) for line in (out / "items.jsonl").read_text().splitlines()]
    return {
        arm["label"]: {
            "figures": {name: figure["all"] for name, figure in arm["figures"].items()},
            "answers": [_said(line["arms"][arm["label"]]) for line in lines],
        }
        for arm in printed["arms"]
    }


def served(root: Path, folder: Path) -> dict[str, Any]:
    """The same through a server of its own."""
    server = Live.start(root, folder / "serve.log", *SERVER)
    try:
        server.wait_ready()
        return measure(root, folder, "--url", server.url, "--no-attest")
    finally:
        server.stop()


def _share(name: str, figure: Mapping[str, Any], bar: float) -> Figure:
    value = Interval(figure["value"], figure["low"], figure["high"], figure["items"])
    return Figure(name, value, "share", f"≥ {bar:g}", value.median >= bar)


def _said(answer: dict[str, Any]) -> list[Any]:
    return [answer["text"], [[call["name"], call["arguments"]] for call in answer["calls"]]]


def _write(path: Path, found: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in found), encoding="utf-8")


if __name__ == "__main__":
    raise SystemExit(main())
