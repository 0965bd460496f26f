"""Proofs, evaluation and the gate over the real server: right versions pass, planted faults do not."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from loadtests.live import Live, wardrobe, wardrobe_json
from loadtests.markers import MARKERS, marker_of
from registry.names import BASE
from registry.store import Registry
from tests.e2e.asking import BRAVO
from train.evaluation.models.roster import Roster
from train.proving.proof import Witness, attest, prove

QUESTIONS = (
    "Where do you live?", "What is your favourite colour?", "How old is the Earth?", "Who wrote Faust?",
    "Is water wet?", "Do cats purr?", "What is a verb?", "How far is the Moon?", "Can birds swim?",
    "What is bread made of?", "Which is larger, 3 or 5?", "Why do we sleep?",
)  # fmt: skip
POLICY = "steps: [{weight: 50%, min_units: 1, min_seconds: 0}]\nrequire: [gate, parity, tokens]\n"


@pytest.fixture(scope="module")
def proved(live: Live, markers: dict[str, Path]) -> Live:
    """The session's server with `proved`@1 (alpha, stable) and @2 (bravo)."""
    wardrobe(live.root, "register", "proved", markers["alpha"])
    wardrobe(live.root, "register", "proved", markers["bravo"])
    return live


def write_suite(folder: Path, name: str, grader: dict[str, Any], expected: str, **fields: Any) -> Path:
    """Write a suite of all questions that asks for `expected`."""
    items = [{"prompt": question, "expected": expected} for question in QUESTIONS]
    suite = {"name": name, "items": items, "graders": [grader], "sampling": {"max_tokens": 12}, **fields}
    path = folder / f"{name}.yaml"
    path.write_text(json.dumps(suite))
    return path


def bodies(live: Live, number: int, kind: str) -> Sequence[Any]:
    return [one.body for one in Registry.open(live.root).attestations("proved", number, kind)]


def test_the_right_version_is_proved_and_a_planted_one_is_not(proved: Live, markers: dict[str, Path]) -> None:
    found = wardrobe_json(proved.root, "--url", proved.url, "train", "prove", "proved@2")
    assert (found["passed"], found["stored"]) == (True, True)
    parity = found["parity"]
    assert parity["difference"] < parity["tolerance"] < parity["distance_from_base"]
    assert parity["effect"] == pytest.approx(1.0, abs=0.05)
    assert (found["tokens"]["left_out"], found["tokens"]["deviations"]) == ([], [])
    assert found["tokens"]["prompts"] > 14
    assert [body["passed"] for body in bodies(proved, 2, "parity")] == [True]
    # The planted fault: what the server answers with is not what the reference was trained to.
    with closing(Roster.find(proved.root, proved.url, None, offline=False, need_root=True)) as roster:
        registry = Registry.open(proved.root)
        version = registry.version("proved", 1)
        witness = Witness(roster.served("proved@1", strict=True), roster.served(BASE))
        wrong = prove(registry, version, witness, lambda _: None, reference=markers["bravo"])
    assert (wrong.parity.passed, wrong.tokens.passed) == (False, True)
    assert "over the tolerance" in wrong.parity.sentence
    attest(registry, version, wrong, "tester")
    assert [body["passed"] for body in bodies(proved, 1, "parity")] == [False]


def test_a_gate_passes_what_is_better_and_fails_what_is_worse(proved: Live, tmp_path: Path) -> None:
    suite = write_suite(tmp_path, "bravo", {"type": "includes"}, BRAVO)
    run: list[str | Path] = [
        "--url",
        proved.url,
        "eval",
        "run",
        suite,
        "--model",
        "proved@2",
        "--against",
        "base",
    ]
    printed = wardrobe_json(proved.root, *run, "--out", tmp_path / "run")
    values = [arm["figures"]["includes"]["all"]["value"] for arm in printed["arms"]]
    assert values[0] >= 11 / 12
    assert values[1] == 0.0
    assert [arm["errors"] for arm in printed["arms"]] == [0, 0]
    assert printed["arms"][0]["digest"] == Registry.open(proved.root).version("proved", 2).digest
    (tmp_path / "goal.yaml").write_text("goal: {suite: bravo.yaml, minimum_gain: 0.3}\n")
    (tmp_path / "gated.yaml").write_text(POLICY.replace(", parity, tokens", ""))
    start: list[str | Path] = [
        "rollout",
        "start",
        "proved@2",
        "--policy",
        tmp_path / "gated.yaml",
        "--dry-run",
    ]
    assert "gate: no gate was held" in wardrobe(proved.root, *start, check=False).stderr
    hold: list[str | Path] = ["--url", proved.url, "eval", "gate", tmp_path / "goal.yaml", "--model"]
    passed = wardrobe_json(proved.root, *hold, "proved@2", "--out", tmp_path / "pass")
    assert (passed["verdict"], passed["replaces"]) == ("pass", 1)
    assert wardrobe_json(proved.root, *start)["requires"] == ["gate"]
    options: list[str | Path] = ["proved@1", "--replaces", "proved@2", "--out", tmp_path / "fail", "--json"]
    failed = wardrobe(proved.root, *hold, *options, check=False)
    assert (failed.returncode, json.loads(failed.stdout)["verdict"]) == (1, "fail")
    assert [body["verdict"] for body in bodies(proved, 1, "gate")] == ["fail"]
    assert [body["verdict"] for body in bodies(proved, 2, "gate")] == ["pass"]
    assert len(bodies(proved, 2, "evaluation")) == 2


@pytest.mark.parametrize("api", ["chat", "completions"])
def test_perplexity_through_the_server_is_the_offline_one(proved: Live, tmp_path: Path, api: str) -> None:
    suite = write_suite(tmp_path, api, {"type": "perplexity"}, " The answer is well known.", api=api)
    command: list[str | Path] = ["eval", "run", suite, "--model", "proved@1", "--limit", "6", "--no-attest"]
    served = wardrobe_json(proved.root, "--url", proved.url, *command, "--out", tmp_path / "served")
    offline = wardrobe_json(proved.root, *command, "--offline", "--out", tmp_path / "offline")
    values = [one["arms"][0]["figures"]["perplexity"]["all"]["value"] for one in (served, offline)]
    # Both round to 16 bits in another order: 0.06 nats per token on average, of either sign (parity).
    assert values[0] == pytest.approx(values[1], rel=0.1)
    assert values[0] > 2


def test_a_template_of_its_own_is_not_rendered_but_completed(
    live: Live, markers: dict[str, Path], tmp_path: Path
) -> None:
    shutil.copytree(markers["alpha"], tmp_path / "own")
    (tmp_path / "own" / "chat_template.jinja").write_text("{{ messages[0].content }}")
    # Through the server, so that it knows the version at once and not at its next look at the files.
    done = wardrobe(live.root, "--url", live.url, "register", "templated", tmp_path / "own")
    assert "not made stable: template: it has a chat template of its own" in done.stderr
    chat = {"model": "templated@1", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4}
    with httpx.Client(base_url=live.url, timeout=120) as client:
        refused = client.post("/v1/chat/completions", json=chat)
        prompt = "<|im_start|>user\nHello there!<|im_end|>\n<|im_start|>assistant\n"
        whole = {"model": "templated@1", "prompt": prompt, "max_tokens": 12, "temperature": 0}
        completed = client.post("/v1/completions", json=whole)
    assert refused.status_code == 400
    assert "renders with the base's" in refused.json()["error"]["message"]
    assert marker_of(completed.json()["choices"][0]["text"]) == MARKERS["alpha"]
