"""The load runner on the real server, and beside vLLM's own benchmark client on the same traffic."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from loadtests.live import BIN, Live, wardrobe_json
from loadtests.runner import prompts
from tests.fakes.llm_server import llm_server

REQUESTS, PER_SECOND, TOKENS = 12, 2, 16
EXACT = 0.10
"""On a server that answers in fixed times, medians differ by the tools alone."""
REAL = {"ttft": 0.60, "tpot": 0.40, "e2e": 0.40}
"""On the real one, by what else the machine did in the two times too: seconds, not minutes, are measured."""
LOCUSTFILE = Path(__file__).parents[2] / "loadtests" / "locustfile.py"


@dataclass(frozen=True)
class Found:
    """What a tool says of one run: medians in milliseconds, and exact counts."""

    answers: int
    input_tokens: int
    output_tokens: int
    medians: dict[str, float]


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    path = tmp_path / "questions.jsonl"
    rows = [{"prompt": prompts.words(f"question {index}", 24)} for index in range(REQUESTS)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def by_vllm(url: str, model: str, questions: Path, tokenizer: Path) -> Found:
    """Ask by `vllm bench serve`; a huge burstiness makes its gaps constant."""
    options = {
        "backend": "openai", "base-url": url, "endpoint": "/v1/completions", "model": model,
        "tokenizer": tokenizer, "dataset-name": "custom", "dataset-path": questions,
        "custom-output-len": TOKENS, "num-prompts": REQUESTS, "request-rate": PER_SECOND,
        "burstiness": 1_000_000, "num-warmups": 2, "percentile-metrics": "ttft,tpot,e2el",
        "result-dir": questions.parent, "result-filename": "vllm.json",
    }  # fmt: skip
    command = [sys.executable, "-m", "loadtests.bench.vllm_serve"]
    command += [text for name, value in options.items() for text in (f"--{name}", str(value))]
    command += [
        "--skip-chat-template",
        "--disable-shuffle",
        "--ignore-eos",
        "--save-result",
        "--disable-tqdm",
    ]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=180, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads((questions.parent / "vllm.json").read_text())
    names = {"ttft": "median_ttft_ms", "tpot": "median_tpot_ms", "e2e": "median_e2el_ms"}
    return Found(
        found["completed"],
        found["total_input_tokens"],
        found["total_output_tokens"],
        {name: found[key] for name, key in names.items()},
    )


def by_us(url: str, model: str, questions: Path) -> Found:
    """Ask the same by `wardrobe loadtest run`."""
    changes = {
        "adapters": f"{{names: ['{model}']}}", "prompts": f"{{file: '{questions}'}}", "api": "completions",
        "max_tokens": f"{{mean: {TOKENS}}}", "arrival": f"{{process: constant, rate: {PER_SECOND}}}",
        "warmup_seconds": 1, "duration_seconds": REQUESTS / PER_SECOND, "thresholds": "[]",
    }  # fmt: skip
    command = [str(BIN / "wardrobe"), "loadtest", "run", "smoke", "--url", url, "--json"]
    command += ["--out", str(questions.parent / "ours")]
    command += [text for name, value in changes.items() for text in ("--set", f"{name}={value}")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    overall = json.loads(done.stdout)["overall"]
    names = {"ttft": "ttft_service_ms", "tpot": "tpot_ms", "e2e": "e2e_service_ms"}
    return Found(
        overall["ok"],
        overall["prompt_tokens"],
        overall["output_tokens"],
        {name: overall["distributions"][key]["p50"] for name, key in names.items()},
    )


def test_we_and_vllms_own_client_measure_the_same_on_a_server_of_fixed_times(
    base_folder: Path, questions: Path
) -> None:
    with llm_server("slow") as (url, _):
        theirs, ours = by_vllm(url, "slow", questions, base_folder), by_us(url, "slow", questions)
    assert (ours.answers, ours.output_tokens) == (theirs.answers, theirs.output_tokens) == (12, 192)
    assert ours.medians == pytest.approx(theirs.medians, rel=EXACT)


def test_we_and_vllms_own_client_agree_on_the_real_server(
    live: Live, base_folder: Path, questions: Path
) -> None:
    theirs, ours = by_vllm(live.url, "support", questions, base_folder), by_us(live.url, "support", questions)
    assert (ours.answers, ours.output_tokens) == (theirs.answers, theirs.output_tokens) == (12, 192)
    assert ours.input_tokens == theirs.input_tokens
    for name, tolerance in REAL.items():
        assert ours.medians[name] == pytest.approx(theirs.medians[name], rel=tolerance), (ours, theirs)


def test_the_smoke_scenario_holds_its_bars_on_the_real_server(live: Live, tmp_path: Path) -> None:
    slow = ("--set", "slo={ttft_ms: 10000, tpot_ms: 2000}", "--set", "saturation_ms=1000")
    found = wardrobe_json(
        live.root, "loadtest", "run", "smoke", "--out", tmp_path / "run", "--set", "duration_seconds=8",
        "--set", "adapters.names=[support, coding]", *slow,
    )  # fmt: skip
    assert found["passed"] is True
    assert {(one["adapter"], one["arm"]) for one in found["groups"]} == {
        ("support", "stable"), ("coding", "stable"),
    }  # fmt: skip
    assert {one["version"] for one in found["versions"]} == {"support@1", "coding@1"}
    # A router that kept a stream back would show here: first text near the end, few pieces.
    assert found["overall"]["distributions"]["chunks_per_token"]["mean"] > 0.5
    assert found["overall"]["distributions"]["ttft_share"]["p50"] < 0.9


def test_locust_tells_adapters_apart_on_the_real_server(live: Live, tmp_path: Path) -> None:
    command = [str(BIN / "locust"), "-f", str(LOCUSTFILE), "--headless", "--host", live.url, "--only-summary"]
    command += ["--adapters", "support,coding", "--popularity", "distinct", "--max-output-tokens", "8"]
    command += ["-u", "2", "-r", "2", "-t", "5s", "--report", str(tmp_path / "ours")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "support|stable" in done.stdout + done.stderr
    report = json.loads((tmp_path / "ours" / "report.json").read_text())
    assert {one["adapter"] for one in report["adapters"]} == {"support", "coding"}
    assert (report["overall"]["errors"], report["overall"]["wrong_adapter"]) == (0, 0)


POLICY = """\
name: half
steps: [{weight: 50%, min_units: 1000, min_seconds: 600}, {weight: 100%}]
guard: {window_seconds: 20, min_requests: 30, latency_factor: 20}
"""


def test_the_bad_canary_drill_takes_it_back_on_the_real_server_and_loses_nobody(
    live: Live, markers: dict[str, Path], tmp_path: Path
) -> None:
    for name in ("alpha", "bravo"):
        wardrobe_json(live.root, "register", "drilled", markers[name])
    (tmp_path / "half.yaml").write_text(POLICY)
    changes = {
        "adapters": "{names: [drilled]}", "warmup_seconds": 1, "duration_seconds": 45, "slo": "{}",
        "arrival": "{process: constant, rate: 4}", "max_tokens": "{mean: 4}", "saturation_ms": 1000,
        "actions.0": f"{{action: rollout, adapter: drilled, version: 2, policy: '{tmp_path}/half.yaml', "
        "at_seconds: 2}",
    }  # fmt: skip
    options = [text for name, value in changes.items() for text in ("--set", f"{name}={value}")]
    found = wardrobe_json(live.root, "loadtest", "run", "bad-canary", "--out", tmp_path / "run", *options)
    assert found["passed"] is True
    (rollout,) = found["rollouts"]
    assert (rollout["canary"], rollout["state"]) == ("drilled@2", "rolled_back")
    assert rollout["changes"][-1]["reason"] == "feedback"
    assert rollout["canary_answers"] > 0
    assert found["overall"]["errors"] == 0
    sys.stderr.write(f"{json.dumps({name: rollout[name] for name in rollout if name != 'changes'})}\n")
