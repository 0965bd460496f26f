"""Hundreds of adapters, each proved by one shared step, alone, and in turn: no verdict may differ.

    python -m loadtests.bench.proofs [--runs 12 --steps 20 --each 12]

Trained on the real base for 1, 2, … steps at three learning rates, random at seven scales, and such as change
nothing or are not finite; on a real engine, idle and beside four streams. "In turn" is what decides wherever
one step is not clear, and it refuses alone. Writes bench-results/proofs.json and .md.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import httpx

from loadtests.bench.engine import running_engine
from loadtests.bench.proofs import adapters
from loadtests.bench.proofs.door import Measured
from loadtests.bench.results import MeasuredFigure, MedianInterval, publish
from loadtests.live import wardrobe
from registry import Registry
from serve.router.residents.proof import MOST_TOGETHER

DOOR = "loadtests.bench.proofs.door.ProofDoor"
BASE = Path(".cache/smollm2-135m-instruct")
OPTIONS = ("--max-model-len", "512", "--max-loras", "8", "--max-cpu-loras", "16")
STREAMS = 4


async def measure(url: str, made: Sequence[tuple[str, Path]], model: str, *, streams: int) -> Measured:
    """Prove all adapters, a few at a time, beside `streams` endless streams of the base."""
    found: Measured = {}
    async with httpx.AsyncClient(base_url=url, timeout=300) as client:
        busy = [asyncio.create_task(_stream(client, model, number)) for number in range(streams)]
        for begin in range(0, len(made), MOST_TOGETHER):
            few = [(name, str(folder)) for name, folder in made[begin : begin + MOST_TOGETHER]]
            answer = await client.post("/prove", json={"adapters": few})
            found |= answer.raise_for_status().json()
        for one in busy:
            one.cancel()
        await asyncio.gather(*busy, return_exceptions=True)
    return found


async def _stream(client: httpx.AsyncClient, model: str, number: int) -> None:
    body = {"model": model, "prompt": f"Story {number}", "max_tokens": 200, "ignore_eos": True}
    while True:
        (await client.post("/v1/completions", json=body)).raise_for_status()


def figures(case: str, found: Measured) -> list[MeasuredFigure]:
    """Return how many verdicts are of one step, and how many of those in turn says otherwise."""
    result = []
    for place, way in enumerate(("together", "alone")):
        pairs = [(one[place], one[2]) for one in found.values()]
        decided = [
            (one["passed"], turn["passed"])
            for one, turn in pairs
            if one is not None and turn is not None and one["clear"] and one["finite"]
        ]
        changed = sum(one != turn for one, turn in decided)
        result += [
            _count(
                f"{case}, {way}: versions proved by one step", len(decided), f"of {len(found)}", held=True
            ),
            _count(f"{case}, {way}: of these refused in turn", changed, "0", held=not changed),
        ]
    bad = {name: one for name, one in found.items() if name.startswith(("zero", "nan", "mismatched"))}
    passed = sum(bool(way and way["passed"]) for one in bad.values() for way in one)
    result.append(
        _count(
            f"{case}: zero, mismatched and NaN ({len(bad)}) proved in any way", passed, "0", held=not passed
        )
    )
    return result


def _count(name: str, number: int, bar: str, *, held: bool) -> MeasuredFigure:
    return MeasuredFigure(name, MedianInterval(number, number, number, 1), "versions", bar, held)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, publish, and return 1 where a verdict differs."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--base", type=Path, default=BASE)
    parser.add_argument("--runs", type=int, default=12, help="trainings")
    parser.add_argument("--steps", type=int, default=20, help="adapters of each training, one per step")
    parser.add_argument("--each", type=int, default=12, help="random adapters of each scale")
    given = parser.parse_args(argv)
    if not given.base.exists():
        wardrobe(given.base.parent, "base", "demo", given.base)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="wardrobe-proofs-")))
        registry = Registry.init(folder / "root", given.base.absolute())
        made = [
            *adapters.trained(folder / "made", given.base, runs=given.runs, steps=given.steps),
            *adapters.random(folder / "made", registry.base, each=given.each),
            *adapters.without_effect(folder / "made", registry.base, each=4),
        ]
        url = stack.enter_context(
            running_engine(registry.root, folder / "engine.log", OPTIONS, middleware=DOOR)
        )
        found = []
        # Beside streams a proof in turn takes seconds: a third of the adapters, of every kind.
        for case, some, streams in (("idle", made, 0), (f"beside {STREAMS} streams", made[::3], STREAMS)):
            found += figures(case, asyncio.run(measure(url, some, registry.base.name, streams=streams)))
    notes = [
        f"{given.runs * given.steps} trained (q, v; rank 8; rates 1e-3 to 1e-5; 1 to {given.steps} steps)",
        f"{given.each} random ones of each scale {', '.join(f'{one:g}' for one in adapters.SCALES)} of ±0.01",
        "what one step does not prove is measured in turn: its verdict is the old one",
    ]
    return 0 if publish("proofs", found, notes=notes) else 1


if __name__ == "__main__":
    sys.exit(main())
