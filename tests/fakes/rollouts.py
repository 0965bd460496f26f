"""Records of rollouts for tests: small, complete, and changed by keyword."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from registry.records import RolloutEntry
from serve.rollout.policy import Policy, RampStep
from serve.rollout.recording.evidence import ArmTally

ROLLOUT = "00112233445566aa"

POLICY = Policy(
    name="test",
    steps=(
        RampStep(weight=1_000, min_units=30, min_seconds=5),
        RampStep(weight=5_000, min_units=30, min_seconds=5),
    ),
)

BASE = RolloutEntry(
    adapter="support",
    rollout=ROLLOUT,
    seq=2,
    state="ramping",
    event="loaded",
    who="replica r1",
    at=1_000.0,
    began=990.0,
    state_since=1_000.0,
    step_since=1_000.0,
    stable=1,
    canary=2,
    stable_digest="sha256:" + "1" * 64,
    canary_digest="sha256:" + "2" * 64,
    weight=1_000,
    base_weight=0,
    shadow=0,
    held_weight=0,
    step=0,
    resumes="",
    reason="",
    sentence="",
    forced=False,
    policy=POLICY.model_dump(mode="json"),
    baseline={"first_token": [0.1, 0.2, 0.4], "per_token": [0.02, 0.03, 0.05], "requests": 500},
    facts={},
)


def make_entry(policy: Policy | None = None, **changes: Any) -> RolloutEntry:
    """Return a record of a rollout from support@1 to support@2 in its first step."""
    if policy is not None:
        changes["policy"] = policy.model_dump(mode="json")
    return replace(BASE, **changes)


def unit(number: int) -> str:
    """Return the digest of a unit."""
    return f"{number:016x}"


def units(count: int, begin: int = 0) -> list[str]:
    """Return the digests of `count` units."""
    return [unit(begin + number) for number in range(count)]


def tally(count: int, *, failed: list[str] | None = None, begin: int = 0) -> ArmTally:
    """Return an arm that served `count` units once each, of which `failed` did."""
    lost = len(failed or [])
    return ArmTally(
        requests=count,
        units=count,
        sketch=units(count, begin),
        outcomes={"ok": count - lost, "engine_error": lost},
        failed=failed or [],
    )
