"""Three servers over one root: one arm per unit everywhere, and one record per step."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from registry.api.operation import LocalClient
from registry.store import Registry
from serve.rollout.documents import StartRequest, WhyRequest
from serve.rollout.operations import abort_rollout, start_rollout
from serve.rollout.policy import Policy, Promotion, RampStep
from tests.fakes.served import Served, make_root, publish, serve

POLICY = Policy(
    name="quick",
    steps=(
        RampStep(weight=2_000, min_units=20, min_seconds=4),
        RampStep(weight=5_000, min_units=20, min_seconds=4),
    ),
    promotion=Promotion(no_harm_units=60, no_harm_seconds=0),
    cooldown_seconds=1,
)


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    registry = make_root(tmp_path)
    for seed in (1, 2):
        publish(registry, tmp_path, "support", seed)
    return registry


@pytest.fixture
def replicas(registry: Registry, tmp_path: Path) -> Iterator[list[Served]]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(serve(registry, tmp_path, replica=f"r{n}")) for n in range(3)]


def ask_everybody(replicas: list[Served], number: int) -> list[tuple[str, int]]:
    """Ask every server in the name of one session; return each one's arm and the log's last seq after it."""
    found = []
    for server in replicas:
        body = {"model": "support", "messages": [{"role": "user", "content": "Hello"}]}
        answer = server.client.post(
            "/v1/chat/completions", json=body, headers={"x-session-id": f"session-{number}"}
        )
        assert answer.status_code == 200, answer.text
        entry = server.registry.rollout("support")
        assert entry is not None
        found.append((answer.headers["x-wardrobe-arm"], entry.seq))
    return found


def state(registry: Registry) -> str:
    entry = registry.rollout("support")
    assert entry is not None
    return entry.state


def test_three_servers_agree_on_every_unit_and_move_once_per_step(
    replicas: list[Served], registry: Registry
) -> None:
    start_rollout(LocalClient(registry, "ann"), "support", StartRequest(version=2, policy=POLICY))
    asked, split = 0, 0
    by_weight: Counter[tuple[int, str]] = Counter()
    ends = time.monotonic() + 60
    while state(registry) not in {"promoted", "closed"}:
        assert time.monotonic() < ends, state(registry)
        before = registry.rollout("support")
        assert before is not None
        answers = ask_everybody(replicas, asked)
        asked += 1
        if {seq for _, seq in answers} != {before.seq} or time.time() - before.at < 2:
            continue  # it moved while they were asked, or a watcher has not looked since
        split += 1
        assert len({arm for arm, _ in answers}) == 1, answers
        by_weight[before.weight, answers[0][0]] += 1
    assert split > 50
    for weight in (2_000, 5_000):
        total = by_weight[weight, "canary"] + by_weight[weight, "stable"]
        share, spread = weight / 10_000, 4 * (0.25 / max(total, 1)) ** 0.5
        assert total == 0 or abs(by_weight[weight, "canary"] / total - share) < spread
    events = [entry.event for entry in registry.rollout_log("support") if entry.event != "baseline"]
    assert events[:4] == ["start", "loaded", "advance", "promote"]
    assert len(events) <= 5


def test_an_abort_reaches_every_server_within_a_second(replicas: list[Served], registry: Registry) -> None:
    slow = POLICY.model_copy(update={"steps": (RampStep(weight=5_000, min_units=10_000, min_seconds=0),)})
    ann = LocalClient(registry, "ann")
    start_rollout(ann, "support", StartRequest(version=2, policy=slow))
    ends = time.monotonic() + 30
    while state(registry) != "ramping":
        assert time.monotonic() < ends
        time.sleep(0.1)
    time.sleep(1)
    arms = {arm for number in range(30) for arm, _ in ask_everybody(replicas, number)}
    assert arms == {"stable", "canary"}
    abort_rollout(ann, "support", WhyRequest(why="test"))
    time.sleep(1)
    assert {arm for number in range(30) for arm, _ in ask_everybody(replicas, number)} == {"stable"}
