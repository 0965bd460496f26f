"""LoRA on the CPU, measured in the real vLLM: stock against ours, and ours against its own compiled base.

Three engines live side by side and take turns: ours with LoRA and our slots, ours with eight slots, and
ours with LoRA off. vLLM as it comes, with LoRA on, runs after them. Ratios within ours are taken within
one round, next to each other; rounds are repeated. Run it as
`python -m loadtests.bench.cpu_lora [--base DIR] [--rounds N]`; it exits 1 when a bar is missed.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from loadtests.adapters import LINEAR, write_ranked
from loadtests.bench.cpu_lora.engine import TOKENS, MeasuredEngine, running
from loadtests.bench.results import (
    MeasuredFigure,
    at_least,
    at_most,
    median_interval,
    pair_ratio,
    publish,
    table,
)
from loadtests.live import wardrobe
from registry import Registry
from serve.engine.environment import CPU_LORA_VARIABLE, engine_environment
from serve.engine.sizing.choice import CPU_SLOTS
from serve.settings import EngineSettings, ServeSettings

STOCK_ROUNDS = 3
PROMPT = 900
FEW_SLOTS = 8
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
    "32 streams, 16 adapters, a slot each": (STREAMS, 16),
}
OVER: Mapping[str, tuple[int, int]] = {"32 streams, 16 adapters over 8 slots": (STREAMS, 16)}
"""The row for which there are fewer slots than adapters."""

ALL_ROWS: Mapping[str, tuple[int, int]] = {**ROWS, **OVER}

SHARES: Mapping[str, tuple[float, ...]] = {
    "q, k, v, o, rank 16": (0.92, 0.95, 0.92, 0.80, 0.80),
    "all linear, rank 16": (0.85, 0.88, 0.82, 0.70, 0.70),
    "q, k, v, o, rank 64": (0.85, 0.90, 0.82, 0.60, 0.60),
}
TIMES_STOCK: Mapping[str, float] = {
    **dict(zip(ROWS, (2.5, 4.0, 4.0), strict=False)),
    **dict.fromkeys(OVER, 3.5),
}
OPTIONS = {
    "max_model_len": 1024,
    "max_num_seqs": STREAMS,
    "kv_cache_memory_bytes": 2**31,
    "enable_prefix_caching": False,
    "disable_log_stats": True,
}
LORA = {"enable_lora": True, "max_cpu_loras": 64}


def spread(adapters: Sequence[Path], streams: int, distinct: int) -> list[Path | None]:
    """Return the adapter of each stream, taken in turn from the first `distinct`."""
    return [adapters[stream % distinct] for stream in range(streams)]


def decode_round(
    arm: MeasuredEngine, groups: Mapping[str, Sequence[Path]], rows: Mapping[str, tuple[int, int]], slots: int
) -> None:
    """Measure each of `rows` of each group beside the base alone."""
    for group, adapters in groups.items():
        for row, (streams, distinct) in rows.items():
            chosen = spread(adapters, streams, distinct)
            arm.seconds(chosen[:slots], 1)  # into their slots
            arm.decode(f"base, {group}, {row}", [None] * streams)
            arm.decode(f"{group}, {row}", chosen)


def prefill_round(arm: MeasuredEngine, groups: Mapping[str, Sequence[Path]]) -> None:
    """Measure a long prompt with an adapter and without, and the base with half the streams."""
    first = next(iter(groups.values()))[0]
    arm.seconds([first], 1, prompt=PROMPT)
    arm.measured["base, prefill"].append(arm.seconds([None], 1, prompt=PROMPT))
    arm.measured["prefill"].append(arm.seconds([first], 1, prompt=PROMPT))
    arm.decode("base, 16 streams", [None] * (STREAMS // 2))


def stock_round(arm: MeasuredEngine, adapters: Sequence[Path]) -> None:
    """Measure the rows of the first group on vLLM as it comes."""
    for row in TIMES_STOCK:
        arm.decode(row, spread(adapters, *ALL_ROWS[row]))
    arm.decode("base", [None] * STREAMS)
    arm.measured["prefill"].append(arm.seconds([adapters[0]], 1, prompt=PROMPT))


def plain_pairs(on: MeasuredEngine, off: MeasuredEngine, pairs: int) -> None:
    """Measure the base with LoRA on and off, in turn, the order alternating."""
    for index in range(pairs):
        for arm in (on, off) if index % 2 else (off, on):
            arm.decode("base alone", [None] * STREAMS)


def against_base(ours: MeasuredEngine) -> list[MeasuredFigure]:
    """Return each row's share of the base within ours."""
    measured = ours.measured
    figures = [
        at_most("prefill of 900 tokens: time / base's", _ratio(measured, "prefill"), 1.06, "ratio"),
    ]
    for group, bars in SHARES.items():
        for row, bar in zip(ALL_ROWS, bars, strict=True):
            name = f"{group}, {row}"
            figures.append(at_least(f"{name}: share of the base", _ratio(measured, name), bar))
            figures.append(_plain(name, measured[name], "tok/s"))
    figures.append(_plain("base, 32 streams, LoRA on", measured[f"base, {_first()}, {_row(1)}"], "tok/s"))
    figures.append(_plain("base, 1 stream, LoRA on", measured[f"base, {_first()}, {_row(0)}"], "tok/s"))
    return [*figures, _plain("base, 16 streams, LoRA on", measured["base, 16 streams"], "tok/s")]


def against_stock(ours: MeasuredEngine, stock: MeasuredEngine) -> list[MeasuredFigure]:
    """Return ours over vLLM's own for the rows of the first group."""
    pairs = [
        (f"prefill of 900 tokens, {_first()}", stock.measured["prefill"], ours.measured["prefill"], 20.0)
    ]
    for row, bar in TIMES_STOCK.items():
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


def starts(seconds: Mapping[str, float]) -> list[MeasuredFigure]:
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


def _plain(name: str, values: Sequence[float], unit: str) -> MeasuredFigure:
    return MeasuredFigure(name, median_interval(values), unit, "–", reached=True)


def _first() -> str:
    return next(iter(GROUPS))


def _row(place: int) -> str:
    return list(ROWS)[place]


def written(folder: Path, registry: Registry) -> dict[str, list[Path]]:
    """Write the adapters of every group: twice as many as `FEW_SLOTS`."""
    return {
        group: [
            write_ranked(folder / f"{group}-{index}", registry.base, index, rank, modules)
            for index in range(2 * FEW_SLOTS)
        ]
        for group, (modules, rank) in GROUPS.items()
    }


def measure(base: Path, folder: Path, rounds: int) -> list[MeasuredFigure]:
    """Start the engines, measure, and return every figure."""
    groups = written(folder, Registry.init(folder / "root", base))
    settings = ServeSettings(root=folder / "root", engine=EngineSettings(compile="on"))
    environment = engine_environment(settings, os.environ)
    options = {**OPTIONS, "model": str(base)}
    started: dict[str, float] = {}
    on, alone = measure_ours(folder, environment, options, groups, rounds, started)
    print(table(against_base(on)), flush=True)
    of_stock = {**options, **LORA, "max_loras": FEW_SLOTS, "max_lora_rank": 16}
    with running(folder / "stock.log", {**os.environ, CPU_LORA_VARIABLE: "stock"}, of_stock) as stock:
        started["stock"] = stock.start_seconds
        stock.decode("warm", [None] * STREAMS, 2)
        for _ in range(STOCK_ROUNDS):
            stock_round(stock, groups[_first()])
    return [*against_stock(on, stock), *against_base(on), *alone, *starts(started)]


def measure_ours(
    folder: Path,
    environment: Mapping[str, str],
    options: Mapping[str, Any],
    groups: Mapping[str, Sequence[Path]],
    rounds: int,
    started: dict[str, float],
) -> tuple[MeasuredEngine, list[MeasuredFigure]]:
    """Measure our engines; return the one with LoRA, what was measured with few slots added to it."""
    ours = {**options, **LORA, "max_loras": CPU_SLOTS, "max_lora_rank": 64}
    with running(folder / "off.log", environment, options) as off:
        started["off"] = off.start_seconds
        with running(folder / "cold.log", environment, ours) as first:
            started["cold"] = first.start_seconds
        with (
            running(folder / "on.log", environment, ours) as on,
            running(folder / "few.log", environment, {**ours, "max_loras": FEW_SLOTS}) as few,
        ):
            started["warm"] = on.start_seconds
            warm_up(on, off, few)
            plain_pairs(on, off, rounds)
            for index in range(rounds):
                decode_round(on, groups, ROWS, CPU_SLOTS)
                decode_round(few, groups, OVER, FEW_SLOTS)
                prefill_round(on, groups)
                print(f"  round {index + 1} done", flush=True)
    on.measured.update(few.measured)
    return on, on_and_off(on, off)


def warm_up(*arms: MeasuredEngine) -> None:
    """Run each arm once, and forget it."""
    for arm in arms:
        arm.decode("warm", [None] * STREAMS)
        arm.measured.clear()


def on_and_off(on: MeasuredEngine, off: MeasuredEngine) -> list[MeasuredFigure]:
    """Return what LoRA costs those who do not use it."""
    ratio = pair_ratio(on.measured["base alone"], off.measured["base alone"])
    return [
        at_least("base alone, 32 streams, LoRA on / off, both compiled", ratio, 0.97),
        _plain("base alone, 32 streams, LoRA off", off.measured["base alone"], "tok/s"),
    ]


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
        f"base {options.base.name}, bf16; streams of {TOKENS} tokens, for stock too",
        f"stock: vLLM's defaults with LoRA on, {FEW_SLOTS} slots, rank 16",
        f"ours: compiled, rank 64, our {CPU_SLOTS} slots; over {FEW_SLOTS} slots in an engine of its own",
        "a batch never holds more adapters than slots: 16 over 8 runs 16 of the 32 streams at a time",
        "bars for rank 64, and for 16 adapters with a slot each, are our own",
        f"stock was run {STOCK_ROUNDS} times, in an engine of its own",
    ]
    return 0 if publish("cpu-lora", figures, notes=notes) else 1


if __name__ == "__main__":
    sys.exit(main())
