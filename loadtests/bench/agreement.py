"""What we and vLLM's own client measure of one server that answers in fixed times.

    python -m loadtests.bench.agreement TOKENIZER [--repeats 3]

The same requests, at the same moments, in turn. Writes bench-results/agreement.json and .md, and ends with 1
when a median of ours is a tenth above vLLM's. Below it may be: vLLM's client counts some time of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from loadtests.bench.results import MeasuredFigure, at_most, pair_ratio, publish
from loadtests.live import BIN
from loadtests.runner import prompts
from registry.foreign import python
from tests.fakes.llm_server import llm_server

REQUESTS, PER_SECOND, TOKENS = 12, 2, 16
TOLERANCE = 0.10
NAMES = {"ttft": "ttft_service_ms", "tpot": "tpot_ms", "e2e": "e2e_service_ms"}
"""Our name of each time that both measure."""


@dataclass(frozen=True, slots=True)
class ClientMeasurement:
    """What a client says of one run: medians in milliseconds, and exact counts."""

    answers: int
    input_tokens: int
    output_tokens: int
    medians: dict[str, float]


def write_questions(path: Path) -> Path:
    """Write the prompts of a run, one a line."""
    rows = [{"prompt": prompts.words(f"question {index}", 24)} for index in range(REQUESTS)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def by_vllm(url: str, model: str, questions: Path, tokenizer: Path) -> ClientMeasurement:
    """Ask by `vllm bench serve`; a huge burstiness makes its gaps constant."""
    options = {
        "backend": "openai", "base-url": url, "endpoint": "/v1/completions", "model": model,
        "tokenizer": tokenizer, "dataset-name": "custom", "dataset-path": questions,
        "custom-output-len": TOKENS, "num-prompts": REQUESTS, "request-rate": PER_SECOND,
        "burstiness": 1_000_000, "num-warmups": 2, "percentile-metrics": "ttft,tpot,e2el",
        "result-dir": questions.parent, "result-filename": "vllm.json",
    }  # fmt: skip
    command = python("-m", "loadtests.bench.vllm_serve")
    command += [text for name, value in options.items() for text in (f"--{name}", str(value))]
    command += [
        "--skip-chat-template",
        "--disable-shuffle",
        "--ignore-eos",
        "--save-result",
        "--disable-tqdm",
    ]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads((questions.parent / "vllm.json").read_text())
    return ClientMeasurement(
        found["completed"],
        found["total_input_tokens"],
        found["total_output_tokens"],
        {"ttft": found["median_ttft_ms"], "tpot": found["median_tpot_ms"], "e2e": found["median_e2el_ms"]},
    )


def by_us(url: str, model: str, questions: Path) -> ClientMeasurement:
    """Ask the same by `wardrobe loadtest run`."""
    changes = {
        "adapters": f"{{names: ['{model}']}}", "prompts": f"{{file: '{questions}'}}", "api": "completions",
        "max_tokens": f"{{mean: {TOKENS}}}", "arrival": f"{{process: constant, rate: {PER_SECOND}}}",
        "warmup_seconds": 1, "duration_seconds": REQUESTS / PER_SECOND, "thresholds": "[]",
    }  # fmt: skip
    command = [str(BIN / "wardrobe"), "loadtest", "run", "smoke", "--url", url, "--json"]
    command += ["--out", str(questions.parent / "ours")]
    command += [text for name, value in changes.items() for text in ("--set", f"{name}={value}")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    overall = json.loads(done.stdout)["overall"]
    medians = {name: overall["distributions"][ours]["p50"] for name, ours in NAMES.items()}
    return ClientMeasurement(overall["ok"], overall["prompt_tokens"], overall["output_tokens"], medians)


def main() -> int:
    """Measure, write, and return 0 when every bar was reached."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tokenizer", type=Path, help="a folder with a tokenizer, for vLLM's client")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    pairs: list[tuple[ClientMeasurement, ClientMeasurement]] = []
    with llm_server("slow") as (url, _):
        for _ in range(options.repeats):
            with tempfile.TemporaryDirectory(prefix="wardrobe-agreement-") as folder:
                questions = write_questions(Path(folder) / "questions.jsonl")
                pairs.append(
                    (by_vllm(url, "slow", questions, options.tokenizer), by_us(url, "slow", questions))
                )
    return 0 if publish("agreement", figures(pairs)) else 1


def figures(pairs: list[tuple[ClientMeasurement, ClientMeasurement]]) -> list[MeasuredFigure]:
    """Return our median of each time as a share of vLLM's, with its bar."""
    found = []
    for name in NAMES:
        ratio = pair_ratio(
            [ours.medians[name] for _, ours in pairs], [theirs.medians[name] for theirs, _ in pairs]
        )
        found.append(at_most(f"{name}: ours by vLLM's client's", ratio, 1 + TOLERANCE, "ratio"))
    return found


if __name__ == "__main__":
    sys.exit(main())
