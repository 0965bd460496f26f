"""The load runner on the real server, and beside vLLM's own benchmark client on the same traffic.

Whether both measure the same times: `make bench-generator`.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from loadtests.bench.agreement import REQUESTS, TOKENS, by_us, by_vllm, write_questions
from loadtests.live import BIN, Live, wardrobe_json

LOCUSTFILE = Path(__file__).parents[2] / "loadtests" / "locustfile.py"


def test_we_and_vllms_own_client_count_the_same_on_the_real_server(
    live: Live, base_folder: Path, tmp_path: Path
) -> None:
    questions = write_questions(tmp_path / "questions.jsonl")
    theirs, ours = by_vllm(live.url, "support", questions, base_folder), by_us(live.url, "support", questions)
    assert (ours.answers, ours.output_tokens) == (theirs.answers, theirs.output_tokens)
    assert (ours.answers, ours.output_tokens) == (REQUESTS, REQUESTS * TOKENS)
    assert ours.input_tokens == theirs.input_tokens


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
