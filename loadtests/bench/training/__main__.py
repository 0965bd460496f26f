"""How fast training is: ours against a plain TRL script, TRL's defaults and LLaMA-Factory.

    python -m loadtests.bench.training [--steps 30] [--rounds 3] [--llamafactory PYTHON]

The arms train the same rows with the same seed, batch and number of steps, one process each, in turn. The
speed is tokens of the rows (not padding) per second of training; start-up is left out. `--llamafactory`
names the interpreter of an environment that has it (`pip install llamafactory` into one of its own: it pins
other versions). Writes bench-results/training.json and .md, and ends with 1 when a bar is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.examples.tasks import legal_task, medical_task, write_rows
from loadtests.bench.results import MeasuredFigure, at_least, at_most, median_interval, pair_ratio, publish
from loadtests.bench.training.arm import BATCH, LEARNING_RATE, MAX_LENGTH, RANK, SEED
from registry.foreign import python
from train.model.base_demo import NAME, make_demo_base
from train.process.environment import environment

SAME, DEFAULTS, LENGTHS, PEER = 0.98, 2.5, 1.5, 1.0
_WARDROBE = str(Path(sys.executable).parent / "wardrobe")
# The order of the rows alone moves it about so far after 30 steps.
LOSS_NOISE = 0.15
HELD_OUT = 140


@dataclass(frozen=True, slots=True)
class Ran:
    """One run: tokens per second, its adapter's loss on held-out answers, and the tokens of its rows."""

    speed: float
    loss: float
    tokens: float


@dataclass(frozen=True, slots=True)
class TrainingBench:
    """The files that all arms share."""

    folder: Path
    base: Path
    steps: int

    def ours(self, rows: Path, **training: object) -> Ran:
        """Run `wardrobe train run`."""
        config = {
            "name": "bench",
            "data": {"train": str(rows)},
            "lora": {"rank": RANK},
            "seed": SEED,
            "training": {
                "learning_rate": LEARNING_RATE,
                "batch_size": BATCH,
                "max_length": MAX_LENGTH,
                "steps": self.steps,
                **training,
            },
        }
        path = self.folder / "config.json"
        path.write_text(json.dumps(config))
        out = Path(tempfile.mkdtemp(dir=self.folder)) / "adapter"
        command = [_WARDROBE, "--root", str(self.folder / "root"), "train", "run", str(path)]
        told = _last_json([*command, "--out", str(out), "--json"], os.environ)
        return self._ran(told["tokens"] / told["train_seconds"], out, told["tokens"])

    def trl(self, rows: Path, *options: str, steps: int | None = None, preload: bool = True) -> Ran:
        """Run the plain script; with `preload`, under the same allocator and threads as ours."""
        count = self.steps if steps is None else steps
        module = python("-m", "loadtests.bench.training.arm")
        out = tempfile.mkdtemp(dir=self.folder)
        command = [*module, str(self.base), str(rows), out, "--steps", str(count), *options]
        told = _last_json(command, environment(os.environ) if preload else os.environ)
        return self._ran(told["tokens"] / told["seconds"], Path(out), told["tokens"])

    def llamafactory(self, python: Path, rows: Path, tokens: float) -> Ran:
        """Run LLaMA-Factory on the same rows; `tokens` went through ours in as many steps."""
        out = Path(tempfile.mkdtemp(dir=self.folder))
        conversations = [json.loads(line) for line in rows.read_text().splitlines()]
        (out / "rows.json").write_text(json.dumps(conversations))
        tags = {"role_tag": "role", "content_tag": "content", "user_tag": "user"}
        tags = {**tags, "assistant_tag": "assistant", "system_tag": "system"}
        form = {"formatting": "sharegpt", "columns": {"messages": "messages"}, "tags": tags}
        info = {"rows": {"file_name": "rows.json", **form}}
        (out / "dataset_info.json").write_text(json.dumps(info))
        (out / "config.yaml").write_text(json.dumps(self._peer_settings(out)))
        launcher = "from llamafactory.train.tuner import run_exp; run_exp()"
        command = [str(python), "-P", "-c", launcher, str(out / "config.yaml")]
        _run(command, environment(os.environ))
        state = json.loads((out / "adapter" / "trainer_state.json").read_text())["log_history"]
        seconds = next(entry["train_runtime"] for entry in state if "train_runtime" in entry)
        return self._ran(tokens / seconds, out / "adapter", tokens)

    def _ran(self, speed: float, adapter: Path, tokens: float) -> Ran:
        module = python("-m", "loadtests.bench.training.arm", "--score")
        held_out = str(self.folder / "held-out.jsonl")
        told = _last_json([*module, str(self.base), held_out, str(adapter)], environment(os.environ))
        return Ran(speed, told["loss"], tokens)

    def _peer_settings(self, out: Path) -> dict[str, object]:
        return {
            "model_name_or_path": str(self.base),
            "stage": "sft",
            "do_train": True,
            "finetuning_type": "lora",
            "lora_rank": RANK,
            "lora_alpha": 2 * RANK,
            "lora_target": "all",
            "dataset": "rows",
            "dataset_dir": str(out),
            "template": "smollm2",
            "cutoff_len": MAX_LENGTH,
            "output_dir": str(out / "adapter"),
            "per_device_train_batch_size": BATCH,
            "learning_rate": LEARNING_RATE,
            "lr_scheduler_type": "linear",
            "max_steps": self.steps,
            "seed": SEED,
            "logging_steps": 1,
            "save_strategy": "no",
            "report_to": "none",
            "disable_gradient_checkpointing": True,
            "pure_bf16": False,
            "infer_dtype": "bfloat16",
            "bf16": True,
            "use_cpu": True,
            "preprocessing_num_workers": 1,
        }


def main() -> int:
    """Measure, write the results and return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--llamafactory", type=Path, metavar="PYTHON")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="wardrobe-bench-") as folder:
        bench = TrainingBench(Path(folder), _base(), options.steps)
        _prepare(bench)
        ran = measure(bench, options.rounds, options.llamafactory)
    notes = [
        f"{name}: {statistics.median(one.speed for one in runs):.0f} tokens/s, "
        f"held-out loss {statistics.median(one.loss for one in runs):.3f} ({len(runs)} runs)"
        for name, runs in ran.items()
    ]
    return 0 if publish("training", figures(ran), notes=notes) else 1


def measure(bench: TrainingBench, rounds: int, peer: Path | None) -> dict[str, list[Ran]]:
    """Run every arm once a round; the defaults and the random order take fewer steps or rows."""
    rows, mixed = bench.folder / "rows.jsonl", bench.folder / "mixed.jsonl"
    arms: dict[str, Callable[[], Ran]] = {
        "ours": lambda: bench.ours(rows),
        "TRL, same settings": lambda: bench.trl(rows, "--length"),
        "ours, mixed rows": lambda: bench.ours(mixed),
        "TRL, mixed rows, random order": lambda: bench.trl(mixed),
        "TRL's defaults": lambda: bench.trl(rows, "--defaults", preload=False),
    }
    ran: dict[str, list[Ran]] = {name: [] for name in arms}
    for number in range(rounds):
        order = list(arms.items()) if number % 2 == 0 else list(reversed(arms.items()))
        for name, run in order:
            ran[name].append(run())
            print(f"round {number + 1}: {name}: {ran[name][-1]}", flush=True)
        if peer is not None:
            tokens = ran["ours"][-1].tokens
            ran.setdefault("LLaMA-Factory", []).append(bench.llamafactory(peer, rows, tokens))
            print(f"round {number + 1}: LLaMA-Factory: {ran['LLaMA-Factory'][-1]}", flush=True)
    return ran


def figures(ran: Mapping[str, list[Ran]]) -> list[MeasuredFigure]:
    """Hold what was measured against the bars."""
    speed = {name: [one.speed for one in runs] for name, runs in ran.items()}
    loss = {name: median_interval([one.loss for one in runs]) for name, runs in ran.items()}
    found = [
        at_least(
            "tokens/s against a plain TRL script, same settings",
            pair_ratio(speed["ours"], speed["TRL, same settings"]),
            SAME,
        ),
        at_least(
            "tokens/s against TRL's defaults", pair_ratio(speed["ours"], speed["TRL's defaults"]), DEFAULTS
        ),
        at_least(
            "like lengths together against random order, rows of mixed length",
            pair_ratio(speed["ours, mixed rows"], speed["TRL, mixed rows, random order"]),
            LENGTHS,
        ),
    ]
    for other in ("TRL, same settings", "TRL's defaults", "LLaMA-Factory"):
        if other in loss:
            apart = median_interval(
                [abs(a.loss - b.loss) for a, b in zip(ran["ours"], ran[other], strict=True)]
            )
            found.append(at_most(f"held-out loss apart from {other}", apart, LOSS_NOISE, "nats"))
    if "LLaMA-Factory" in speed:
        found.append(
            at_least(
                "tokens/s against LLaMA-Factory", pair_ratio(speed["ours"], speed["LLaMA-Factory"]), PEER
            )
        )
    return found


def _base() -> Path:
    folder = Path(os.environ.get("WARDROBE_CACHE") or ".cache") / NAME
    make_demo_base(folder)
    return folder.resolve()


def _prepare(bench: TrainingBench) -> None:
    medical, legal = medical_task(), legal_task()
    count = bench.steps * BATCH
    write_rows(medical, medical.train[:count], bench.folder / "rows.jsonl")
    write_rows(medical, medical.held_out[:HELD_OUT], bench.folder / "held-out.jsonl")
    lines = []
    for task in (medical, legal):
        path = bench.folder / f"{task.name}.jsonl"
        write_rows(task, task.train[: count // 2], path)
        lines += path.read_text().splitlines(keepends=True)
    random.Random(SEED).shuffle(lines)
    (bench.folder / "mixed.jsonl").write_text("".join(lines))
    command = [_WARDROBE, "--root", str(bench.folder / "root"), "init", "--base", str(bench.base)]
    subprocess.run(command, check=True, capture_output=True)


def _run(command: list[str], variables: Mapping[str, str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, env=dict(variables), check=False)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)}\nended with {done.returncode}:\n{done.stderr[-3000:]}")
    return done.stdout


def _last_json(command: list[str], variables: Mapping[str, str]) -> Any:
    printed = _run(command, variables)
    # The arm's document is the last line, behind transformers' own; the command's is indented.
    last = printed.strip().splitlines()[-1]
    return json.loads(last if last.startswith("{") else printed[printed.index("{\n") :])


if __name__ == "__main__":
    raise SystemExit(main())
