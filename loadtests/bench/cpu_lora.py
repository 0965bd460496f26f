"""LoRA on the CPU, measured in the real vLLM: stock against ours, and ours against its own compiled base.

Three engines live side by side and take turns: ours with LoRA, ours with LoRA off, and vLLM as it comes
with LoRA on. Ratios within ours are taken within one round, next to each other; rounds are repeated. Run
it as `python -m loadtests.bench.cpu_lora [--base DIR] [--rounds N]`; it exits 1 when a bar is missed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from loadtests.bench.adapters import LINEAR, write_ranked
from loadtests.bench.cpu_lora_arm import MARK
from loadtests.bench.results import Figure, at_least, at_most, median_interval, pair_ratio, publish, table
from loadtests.live import wardrobe
from registry import Registry
from serve.engine.environment import CPU_LORA_VARIABLE, engine_environment
from serve.settings import EngineSettings, ServeSettings

TOKENS = 24
STOCK_TOKENS = 16
STOCK_ROUNDS = 2
PROMPT = 900
SLOTS = 8
STREAMS = 32
ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
GROUPS: Mapping[str, tuple[tuple[str, ...], int]] = {
    "q, k, v, o, rank 16": (ATTENTION, 16),
    "all linear, rank 16": (LINEAR, 16),
    "q, k, v, o, rank 64": (ATTENTION, 64),
}
ROWS: Mapping[str, tuple[int, int]] = {
    "1 stream": (1, 1),
    "32 streams, one adapter": (STREAMS, 1),
    "32 streams, 8 adapters": (STREAMS, 8),
    "32 streams, 16 adapters over 8 slots": (STREAMS, 16),
}
SHARES: Mapping[str, tuple[float, ...]] = {
    "q, k, v, o, rank 16": (0.92, 0.95, 0.92, 0.80),
    "all linear, rank 16": (0.85, 0.88, 0.82, 0.70),
    "q, k, v, o, rank 64": (0.85, 0.90, 0.82, 0.60),
}
TIMES_STOCK = (2.5, 4.0, 4.0, 3.5)
OPTIONS = {
    "max_model_len": 1024,
    "max_num_seqs": STREAMS,
    "kv_cache_memory_bytes": 2**31,
    "enable_prefix_caching": False,
    "disable_log_stats": True,
}
LORA = {"enable_lora": True, "max_loras": SLOTS, "max_cpu_loras": 64}


@dataclass
class Arm:
    """A running engine and what was measured on it, by the name of the row."""

    process: subprocess.Popen[str]
    log: Path
    start_seconds: float = 0.0
    measured: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def answer(self) -> float:
        """Wait for the engine's next figure; raise RuntimeError when it has ended."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith(MARK):
                return float(line.removeprefix(MARK))
        raise RuntimeError(f"an engine ended:\n{self.log.read_text()[-4000:]}")

    def seconds(self, adapters: Sequence[Path | None], tokens: int, **more: int) -> float:
        """Run one batch and return its seconds."""
        assert self.process.stdin is not None
        asked = {"adapters": [path and str(path) for path in adapters], "tokens": tokens, **more}
        self.process.stdin.write(json.dumps(asked) + "\n")
        self.process.stdin.flush()
        return self.answer()

    def decode(self, row: str, adapters: Sequence[Path | None], tokens: int = TOKENS) -> None:
        """Measure tokens per second."""
        self.measured[row].append(len(adapters) * tokens / self.seconds(adapters, tokens))


@contextlib.contextmanager
def running(log: Path, environment: Mapping[str, str], options: Mapping[str, Any]) -> Iterator[Arm]:
    """Start an engine with its log in `log`, yield it once it takes batches, and end it."""
    command = [sys.executable, "-m", "loadtests.bench.cpu_lora_arm", json.dumps(options)]
    began = time.monotonic()
    with log.open("w") as file:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=file,
            env={**environment, "VLLM_LOGGING_STREAM": "ext://sys.stderr"},
            text=True,
        )
    arm = Arm(process, log)
    try:
        arm.answer()
        arm.start_seconds = time.monotonic() - began
        print(f"  {log.stem}: {arm.start_seconds:.0f} s to start", flush=True)
        yield arm
    finally:
        assert process.stdin is not None
        process.stdin.close()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()


def spread(adapters: Sequence[Path], streams: int, distinct: int) -> list[Path | None]:
    """Return the adapter of each stream, taken in turn from the first `distinct`."""
    return [adapters[stream % distinct] for stream in range(streams)]


def our_round(arm: Arm, groups: Mapping[str, Sequence[Path]]) -> None:
    """Measure each row of each group beside the base alone."""
    for group, adapters in groups.items():
        for row, (streams, distinct) in ROWS.items():
            chosen = spread(adapters, streams, distinct)
            arm.seconds(chosen[:SLOTS], 1)  # into their slots
            arm.decode(f"base, {group}, {row}", [None] * streams)
            arm.decode(f"{group}, {row}", chosen)
    first = next(iter(groups.values()))[0]
    arm.seconds([first], 1, prompt=PROMPT)
    arm.measured["base, prefill"].append(arm.seconds([None], 1, prompt=PROMPT))
    arm.measured["prefill"].append(arm.seconds([first], 1, prompt=PROMPT))
    arm.decode("base, 16 streams", [None] * (STREAMS // 2))


def stock_round(arm: Arm, adapters: Sequence[Path]) -> None:
    """Measure the rows of the first group on vLLM as it comes."""
    for row, (streams, distinct) in ROWS.items():
        arm.decode(row, spread(adapters, streams, distinct), STOCK_TOKENS)
    arm.decode("base", [None] * STREAMS, STOCK_TOKENS)
    arm.measured["prefill"].append(arm.seconds([adapters[0]], 1, prompt=PROMPT))


def plain_pairs(on: Arm, off: Arm, pairs: int) -> None:
    """Measure the base with LoRA on and off, in turn, the order alternating."""
    for index in range(pairs):
        for arm in (on, off) if index % 2 else (off, on):
            arm.decode("base alone", [None] * STREAMS)


def against_base(ours: Arm) -> list[Figure]:
    """Return each row's share of the base within ours."""
    measured = ours.measured
    figures = [
        at_most("prefill of 900 tokens: time / base's", _ratio(measured, "prefill"), 1.06, "ratio"),
    ]
    for group, bars in SHARES.items():
        for row, bar in zip(ROWS, bars, strict=True):
            name = f"{group}, {row}"
            figures.append(at_least(f"{name}: share of the base", _ratio(measured, name), bar))
            figures.append(_plain(name, measured[name], "tok/s"))
    figures.append(_plain("base, 32 streams, LoRA on", measured[f"base, {_first()}, {_row(1)}"], "tok/s"))
    figures.append(_plain("base, 1 stream, LoRA on", measured[f"base, {_first()}, {_row(0)}"], "tok/s"))
    return [*figures, _plain("base, 16 streams, LoRA on", measured["base, 16 streams"], "tok/s")]


def against_stock(ours: Arm, stock: Arm) -> list[Figure]:
    """Return ours over vLLM's own for the rows of the first group."""
    pairs = [
        (f"prefill of 900 tokens, {_first()}", stock.measured["prefill"], ours.measured["prefill"], 20.0)
    ]
    for row, bar in zip(ROWS, TIMES_STOCK, strict=True):
        pairs.append((f"{_first()}, {row}", ours.measured[f"{_first()}, {row}"], stock.measured[row], bar))
    base = ours.measured[f"base, {_first()}, {_row(1)}"]
    pairs.append(("base alone, 32 streams", base, stock.measured["base"], 2.2))
    figures = []
    for name, over, under, bar in pairs:
        count = min(len(over), len(under))
        figures.append(
            at_least(f"{name}: times stock", pair_ratio(over[:count], under[:count]), bar, "times")
        )
        values = over if name.startswith("prefill") else under
        figures.append(_plain(f"{name}, stock", values, "s" if values is over else "tok/s"))
    return figures


def starts(seconds: Mapping[str, float]) -> list[Figure]:
    """Return how long the engines took to start, without compiled code and with it."""
    share = median_interval([seconds["cold"] / seconds["off"]])
    return [
        at_most("first start, compiled, LoRA on / off", share, 1, "ratio"),
        _plain("first start, compiled, LoRA on", [seconds["cold"]], "s"),
        _plain("first start, compiled, LoRA off", [seconds["off"]], "s"),
        at_most("later start, compiled, LoRA on", median_interval([seconds["warm"]]), 60, "s"),
        _plain("start of stock, uncompiled", [seconds["stock"]], "s"),
    ]


def _ratio(measured: Mapping[str, Sequence[float]], name: str) -> Any:
    return pair_ratio(measured[name], measured[f"base, {name}"])


def _plain(name: str, values: Sequence[float], unit: str) -> Figure:
    return Figure(name, median_interval(values), unit, "–", reached=True)


def _first() -> str:
    return next(iter(GROUPS))


def _row(place: int) -> str:
    return list(ROWS)[place]


def written(folder: Path, registry: Registry) -> dict[str, list[Path]]:
    """Write the adapters of every group: twice as many as there are slots."""
    return {
        group: [
            write_ranked(folder / f"{group}-{index}", registry.base, index, rank, modules)
            for index in range(2 * SLOTS)
        ]
        for group, (modules, rank) in GROUPS.items()
    }


def measure(base: Path, folder: Path, rounds: int) -> list[Figure]:
    """Start the engines, measure, and return every figure."""
    groups = written(folder, Registry.init(folder / "root", base))
    settings = ServeSettings(root=folder / "root", engine=EngineSettings(compile="on"))
    ours_of = engine_environment(settings, os.environ)
    options = {**OPTIONS, "model": str(base)}
    with_lora = {**options, **LORA, "max_lora_rank": 64}
    started: dict[str, float] = {}
    with running(folder / "off.log", ours_of, options) as off:
        started["off"] = off.start_seconds
        with running(folder / "cold.log", ours_of, with_lora) as first:
            started["cold"] = first.start_seconds
        with running(folder / "on.log", ours_of, with_lora) as on:
            started["warm"] = on.start_seconds
            plain_pairs(on, off, 1)
            for arm in (on, off):
                arm.measured.clear()
            plain_pairs(on, off, rounds)
            for index in range(rounds):
                our_round(on, groups)
                print(f"  round {index + 1} done", flush=True)
            print(table(against_base(on)), flush=True)
    stock_of = {**os.environ, CPU_LORA_VARIABLE: "stock"}
    with running(folder / "stock.log", stock_of, {**options, **LORA, "max_lora_rank": 16}) as stock:
        started["stock"] = stock.start_seconds
        stock.decode("warm", [None] * STREAMS, 2)
        for _ in range(STOCK_ROUNDS):
            stock_round(stock, groups[_first()])
    alone = pair_ratio(on.measured["base alone"], off.measured["base alone"])
    figures = [at_least("base alone, 32 streams, LoRA on / off, both compiled", alone, 0.97)]
    figures.append(_plain("base alone, 32 streams, LoRA off", off.measured["base alone"], "tok/s"))
    return [*against_stock(on, stock), *against_base(on), *figures, *starts(started)]


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and write the results; return 1 when a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base", type=Path, default=Path(".cache/smollm2-135m-instruct"))
    parser.add_argument("--rounds", type=int, default=7, help="pairs of each ratio (at least 7)")
    options = parser.parse_args(argv)
    wardrobe(Path(".cache"), "base", "demo", options.base)
    with tempfile.TemporaryDirectory(prefix="wardrobe-bench-") as scratch:
        figures = measure(options.base.absolute(), Path(scratch), options.rounds)
    notes = [
        f"base {options.base.name}, bf16; streams of {TOKENS} tokens ({STOCK_TOKENS} for stock)",
        "stock: vLLM's defaults with LoRA on, 8 slots, rank 16; ours: 8 slots, largest rank 64, compiled",
        "a batch never holds more adapters than slots: 16 over 8 runs 16 of the 32 streams at a time",
        f"stock was run {STOCK_ROUNDS} times, in an engine of its own",
    ]
    return 0 if publish("cpu-lora", figures, notes=notes) else 1


if __name__ == "__main__":
    sys.exit(main())
