"""What checking a large data set costs: a million rows, in a process of its own.

    python -m loadtests.bench.dataset [--rows 1000000] [--rendered 20000] [--base DIR]

Generates a file with known repeats, near repeats, leaked addresses and wrongly decoded texts, runs
`wardrobe data check` on it, compares what was found with what was planted, and reads the peak memory of
the process from the kernel. Writes bench-results/data.json and .md, and ends with 1 when a bar is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from loadtests.bench.results import (
    MeasuredFigure,
    MedianInterval,
    at_least,
    at_most,
    median_interval,
    publish,
)
from registry.foreign import python

MEGABYTES = 2000.0
SECONDS = 600.0
VOCABULARY = 20_000
# One row in so many has the fault.
REPEATED, NEAR, ADDRESSED, MISREAD = 101, 103, 107, 109
FOUND = {
    "D-DUPLICATE": "exact repeats",
    "D-NEAR": "near repeats",
    "D-EMAIL": "addresses",
    "D-MOJIBAKE": "misread",
}


@dataclass(frozen=True, slots=True)
class Measured:
    """One check: seconds, peak resident megabytes, and how often each finding was made."""

    seconds: float
    megabytes: float
    found: Counter[str]


def main() -> int:
    """Measure, write the results and return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rendered", type=int, default=20_000)
    parser.add_argument("--base", type=Path, help="also check that many rows on this base's template")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="wardrobe-bench-") as folder:
        figures, notes = measure(Path(folder), options.rows)
        if options.base is not None:
            more, note = measure_rendered(Path(folder), options.rendered, options.base)
            figures, notes = [*figures, more], [*notes, note]
    return 0 if publish("data", figures, notes=notes) else 1


def measure(folder: Path, rows: int) -> tuple[list[MeasuredFigure], list[str]]:
    """Return the figures of a check of `rows` rows, and the notes beside them."""
    path = folder / "rows.jsonl"
    planted = generate(path, rows)
    size = path.stat().st_size
    result = run_check(path)
    shares = [
        at_least(f"{name} found, of {planted[rule]:,} planted", one(result.found[rule] / planted[rule]), 0.98)
        for rule, name in FOUND.items()
    ]
    figures = [
        at_most(f"peak memory, {rows:,} rows", one(result.megabytes), MEGABYTES, "MB"),
        at_most(f"seconds, {rows:,} rows", one(result.seconds), SECONDS, "s"),
        *shares,
    ]
    strange = {rule: count for rule, count in result.found.items() if rule not in FOUND}
    notes = [
        f"the file has {size / 1e6:.0f} MB; {rows / result.seconds:,.0f} rows/s, one process",
        f"findings besides (near repeats ask the same and answer otherwise): {strange or 'none'}",
    ]
    return figures, notes


def measure_rendered(folder: Path, rows: int, base: Path) -> tuple[MeasuredFigure, str]:
    """Return the peak memory of a check that also renders every row, and its speed."""
    path = folder / "rendered.jsonl"
    generate(path, rows)
    result = run_check(path, "--base", str(base.resolve()))
    figure = at_most(f"peak memory on the template, {rows:,} rows", one(result.megabytes), MEGABYTES, "MB")
    return figure, f"on the template of {base.name}: {rows / result.seconds:,.0f} rows/s, start included"


def generate(path: Path, rows: int) -> Counter[str]:
    """Write `rows` rows to `path` and return how many have each fault."""
    chance = random.Random(20_261_122)
    words = [f"{chance.choice('bdfgklmnprstvz')}{chance.choice('aeiou')}{n:x}" for n in range(VOCABULARY)]
    planted: Counter[str] = Counter()
    question, answer, fault = "", "", list[str]()
    with path.open("w", encoding="utf-8") as file:
        for number in range(1, rows + 1):
            if number % REPEATED == 0:
                planted["D-DUPLICATE"] += 1
            elif number % NEAR == 0:
                answer += f" {words[number % VOCABULARY]}"
                planted["D-NEAR"] += 1
            else:
                question = " ".join(chance.choices(words, k=chance.randint(8, 40)))
                answer = " ".join(chance.choices(words, k=chance.randint(10, 80)))
                answer, fault = _spoilt(answer, number)
            planted.update(fault)
            row = {"instruction": f"Answer in one paragraph: {question}?", "input": "", "output": answer}
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    return planted


def run_check(path: Path, *options: str) -> Measured:
    """Check the file at `path` in a process of its own."""
    program = "from registry.cli.main import main; main()"
    command = python("-c", program, "data", "check", str(path), "--json", *options)
    output = path.with_suffix(".found.json")
    started = time.perf_counter()
    with output.open("wb") as file, subprocess.Popen(command, stdout=file, cwd=path.parent) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.perf_counter() - started
    if process.returncode not in {0, 1}:
        raise RuntimeError(f"the check ended with {process.returncode}")
    found = Counter({one["id"]: one["count"] for one in json.loads(output.read_bytes())["findings"]})
    return Measured(seconds, usage.ru_maxrss / 1000, found)


def one(value: float) -> MedianInterval:
    """Return a single measurement as an interval of one sample."""
    return median_interval([value])


def _spoilt(answer: str, number: int) -> tuple[str, list[str]]:
    if number % ADDRESSED == 0:
        return f"{answer} user{number}@example.com", ["D-EMAIL"]
    if number % MISREAD == 0:
        return f"{answer} cafÃ© crÃ¨me", ["D-MOJIBAKE"]
    return answer, []


if __name__ == "__main__":
    sys.exit(main())
