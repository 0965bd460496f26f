"""What the registry costs with 1,000 adapters of 10 versions each.

    python -m loadtests.bench.registry [--adapters 1000] [--versions 10]

Writes bench-results/registry.json and .md, and ends with 1 when a bar is missed. The times of fsync are
measured by themselves, as they say more about the disk than about the store.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from threading import Event

from loadtests.bench.results import MeasuredFigure, at_most, median_interval, publish
from registry import Registry, Watcher
from registry.foreign import python
from registry.names import parse_model
from tests.fakes.adapters import make_adapter
from tests.fakes.base import SMOLLM2, make_base

LIST_SECONDS = 1.0
RESOLVE_MICROSECONDS = 20.0
VISIBLE_SECONDS = 0.1
PUBLISH_MILLISECONDS = 100.0
ADAPTER_BYTES = 4_000_000
RESOLVES = 20_000
IDLE_SECONDS = 5.0

_WRITER = """
import sys, time
from pathlib import Path
from registry import Registry
registry = Registry.open(Path(sys.argv[1]))
print("ready", flush=True)
for line in sys.stdin:
    adapter, number = line.split()
    registry.promote(adapter, int(number), who="writer")
    print(time.time(), flush=True)
"""


def main() -> int:
    """Measure, write the results and return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--adapters", type=int, default=1000)
    parser.add_argument("--versions", type=int, default=10)
    parser.add_argument("--samples", type=int, default=15)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="wardrobe-bench-"))
    try:
        registry = fill(folder, options.adapters, options.versions)
        figures, notes = measure(registry, folder, options.samples)
    finally:
        shutil.rmtree(folder)
    notes.append(f"{options.adapters} adapters × {options.versions} versions")
    return 0 if publish("registry", figures, notes=notes) else 1


def fill(folder: Path, adapters: int, versions: int) -> Registry:
    """Make a root: one adapter is published, the others are copies of it with their own manifests."""
    registry = Registry.init(folder / "root", make_base(folder / "base", SMOLLM2), name="base")
    for seed in range(versions):
        trained = make_adapter(folder / "trained", shape=SMOLLM2, seed=seed, size_bytes=1000)
        registry.publish(name_of(0), trained, who="bench")
    first = registry.root / "adapters" / name_of(0)
    for number in range(1, adapters):
        copy = registry.root / "adapters" / name_of(number)
        shutil.copytree(first, copy, copy_function=os.link)
        for manifest in copy.glob("versions/*/manifest.json"):
            text = manifest.read_text().replace(name_of(0), name_of(number))
            manifest.parent.chmod(0o755)
            manifest.unlink()
            manifest.write_text(text)
    return registry


def name_of(number: int) -> str:
    """Return the name of adapter `number`."""
    return f"adapter-{number:04d}"


def measure(registry: Registry, folder: Path, samples: int) -> tuple[list[MeasuredFigure], list[str]]:
    """Return every figure and the notes beside them."""
    figures = [*_listing(registry, samples)]
    watcher = Watcher(registry)
    started = time.perf_counter()
    watcher.start()
    notes = [f"the first view takes {time.perf_counter() - started:.2f} s"]
    try:
        figures += [_resolving(watcher, samples), _visibility(registry, watcher, samples)]
        notes.append(_idling())
    finally:
        watcher.stop()
    published, note = _publishing(registry, folder, samples)
    return [*figures, published], [*notes, note]


def _listing(registry: Registry, samples: int) -> Iterator[MeasuredFigure]:
    times = [_timed(registry.summaries) for _ in range(samples)]
    yield at_most("list, in the process", median_interval(times), LIST_SECONDS, "s")
    command = [str(Path(sys.executable).parent / "wardrobe"), "--root", str(registry.root), "list", "--json"]
    expected = len(registry.adapters())

    def run() -> None:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert len(json.loads(done.stdout)) == expected

    times = [_timed(run) for _ in range(samples)]
    yield at_most("`wardrobe list`, from start to exit", median_interval(times), LIST_SECONDS, "s")


def _resolving(watcher: Watcher, samples: int) -> MeasuredFigure:
    chance = random.Random(1)
    names = list(watcher.view.adapters)
    models = [chance.choice(names) + chance.choice(["", "@1", "@7", "@stable"]) for _ in range(RESOLVES)]

    def resolve_all() -> None:
        for model in models:
            watcher.view.resolve(parse_model(model))

    times = [_timed(resolve_all) / RESOLVES * 1e6 for _ in range(samples)]
    return at_most("a model name → version, by the view", median_interval(times), RESOLVE_MICROSECONDS, "µs")


def _visibility(registry: Registry, watcher: Watcher, samples: int) -> MeasuredFigure:
    seen = Event()
    watcher.subscribe(lambda _: seen.set())
    delays = []
    with _writer(registry.root) as change:
        for number in range(samples):
            seen.clear()
            time.sleep(random.Random(number).uniform(0, 0.5))  # at any point of the poll
            written = change(name_of(number), 2)
            assert seen.wait(10)
            delays.append(time.time() - written)
            assert watcher.view.adapters[name_of(number)].aliases == {"stable": 2}
    return at_most("a change by another process → in the view", median_interval(delays), VISIBLE_SECONDS, "s")


@contextmanager
def _writer(root: Path) -> Iterator[Callable[[str, int], float]]:
    command = python("-c", _WRITER, str(root))
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        requests, answers = process.stdin, process.stdout
        assert answers.readline() == "ready\n"

        def change(adapter: str, number: int) -> float:
            requests.write(f"{adapter} {number}\n")
            requests.flush()
            return float(answers.readline())

        yield change
        requests.close()


def _idling() -> str:
    used = time.process_time()
    time.sleep(IDLE_SECONDS)
    share = (time.process_time() - used) / IDLE_SECONDS
    return f"the watcher uses {share:.1%} of one core while nothing changes"


def _publishing(registry: Registry, folder: Path, samples: int) -> tuple[MeasuredFigure, str]:
    own, waited = [], []
    for seed in range(samples):
        trained = make_adapter(
            folder / f"large-{seed}",
            shape=SMOLLM2,
            rank=16,
            seed=seed,
            size_bytes=ADAPTER_BYTES,
            modules=("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
        )
        with _timed_fsync() as fsyncs:
            total = _timed(partial(registry.publish, "published", trained, who="bench"))
        assert registry.versions("published")[-1].size_bytes > 0.95 * ADAPTER_BYTES
        own.append((total - sum(fsyncs)) * 1e3)
        waited.append(sum(fsyncs) * 1e3)
    value = median_interval(own)
    note = f"publishing waits {median_interval(waited)} ms more for {len(fsyncs)} fsyncs"
    return at_most("publish 4 MB, without fsync", value, PUBLISH_MILLISECONDS, "ms"), note


@contextmanager
def _timed_fsync() -> Iterator[list[float]]:
    times: list[float] = []
    plain = os.fsync

    def fsync(descriptor: int) -> None:
        times.append(_timed(lambda: plain(descriptor)))

    os.fsync = fsync  # type: ignore[assignment]
    try:
        yield times
    finally:
        os.fsync = plain


def _timed(act: Callable[[], object]) -> float:
    started = time.perf_counter()
    act()
    return time.perf_counter() - started


if __name__ == "__main__":
    sys.exit(main())
