"""A rollout begins only with what the root and its policy require of the version, unless it is forced."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import JsonValue

from registry.errors import Unproved, UsageError
from registry.store import Registry
from registry.validation.requirements import FORMATS, Requirement
from serve.rollout.decision.states import EventType
from serve.rollout.policy import Policy
from serve.rollout.presets import load_preset, parse_policy
from serve.rollout.start import RolloutRequest, plan, start
from tests.fakes.control import admin_server
from tests.fakes.driving import drive, make_root
from tests.fakes.terminal import Terminal

GATED = "steps: [{weight: 50%, min_units: 1, min_seconds: 0}]\nrequire: [gate]\n"


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return make_root(tmp_path)


def order(number: int, policy: Policy | None = None, **more: object) -> RolloutRequest:
    return RolloutRequest("support", number, policy or parse_policy(GATED, "test"), "anna", **more)  # type: ignore[arg-type]


def hold_gate(registry: Registry, number: int, replaces: int) -> None:
    body: dict[str, JsonValue] = {
        "format": FORMATS[Requirement.GATE],
        "verdict": "pass",
        "goal_sha256": "g",
        "digest": registry.version("support", number).digest,
        "replaces": replaces,
    }
    registry.attest("support", number, "gate", body, who="t")


def test_a_policy_that_requires_a_gate_refuses_without_and_begins_with_one(registry: Registry) -> None:
    with pytest.raises(Unproved, match=r"gate: no gate was held; .*--model support@2 --replaces support@1"):
        start(registry, order(2), lambda: 1.0)
    with pytest.raises(Unproved, match="or force it with --force --why TEXT"):
        plan(registry, order(2), 1.0)
    assert registry.rollout("support") is None
    hold_gate(registry, 2, replaces=1)
    assert plan(registry, order(2), 1.0).requires == ("gate",)
    start(registry, order(2), lambda: 1.0)
    entry = registry.rollout("support")
    assert entry is not None
    assert (entry.forced, entry.facts) == (False, {"required": ["gate"], "lacking": []})


def test_a_refused_start_leaves_the_open_rollout_alone(registry: Registry) -> None:
    start(registry, order(2, load_preset("fast")), lambda: 1.0)
    with pytest.raises(Unproved):
        start(registry, order(3), lambda: 2.0)
    entry = registry.rollout("support")
    assert entry is not None
    assert (entry.canary, entry.open) == (2, True)


def test_the_gate_counts_against_what_a_promoted_rollout_made_stable(registry: Registry) -> None:
    start(registry, order(2, load_preset("fast")), lambda: 1.0)
    for occasion in (EventType.LOADED, EventType.PROMOTE):
        drive(registry, occasion)
    hold_gate(registry, 3, replaces=1)
    with pytest.raises(Unproved, match="held against version 1, not 2"):
        start(registry, order(3), lambda: 3.0)
    hold_gate(registry, 3, replaces=2)
    assert start(registry, order(3), lambda: 3.0).superseded == "support@2"


def test_a_force_needs_a_reason_and_is_recorded_twice(registry: Registry) -> None:
    with pytest.raises(UsageError, match="add --why TEXT"):
        start(registry, order(2, forced=True), lambda: 1.0)
    begun = start(registry, order(2, forced=True, note="ticket 7"), lambda: 1.0)
    assert "forced past gate: no gate was held" in begun.warnings
    entry = registry.rollout("support")
    assert entry is not None
    assert entry.forced
    assert entry.sentence == "anna started support@2 against support@1, forced past gate: ticket 7"
    assert entry.facts == {"required": ["gate"], "lacking": ["gate"]}
    (force,) = registry.attestations("support", 2, "force")
    assert (force.who, force.body["action"], force.body["why"]) == ("anna", "rollout", "ticket 7")


def test_the_promotion_that_ends_a_rollout_asks_no_more(registry: Registry) -> None:
    start(registry, order(2, forced=True, note="why not"), lambda: 1.0)
    for occasion in (EventType.LOADED, EventType.PROMOTE, EventType.COOLED):
        drive(registry, occasion)
    assert registry.aliases("support")["stable"] == 2


def test_a_requirement_that_does_not_exist_is_named() -> None:
    with pytest.raises(UsageError, match=r"require\.0: must be 'gate', .* not 'x'"):
        parse_policy(GATED.replace("[gate]", "[x]"), "policy.yaml")


@pytest.mark.parametrize("remote", [False, True])
def test_the_command_refuses_and_takes_a_reason(registry: Registry, tmp_path: Path, remote: bool) -> None:
    (tmp_path / "gated.yaml").write_text(GATED)
    command = ("rollout", "start", "support@2", "--policy", str(tmp_path / "gated.yaml"))

    def call(terminal: Terminal) -> None:
        refused = terminal(*command)
        assert refused.code == 1
        assert "`wardrobe eval gate GOAL.yaml --model support@2 --replaces support@1`" in refused.err
        assert terminal(*command, "--force").code == 2
        done = terminal.ok(*command, "--force", "--why", "ticket 7")
        assert "(forced)" in done.out
        assert "forced past gate" in done.err
        assert "lacking gate" in terminal.ok("rollout", "explain", "support").out

    if not remote:
        call(Terminal(("--root", str(registry.root))))
        return
    with admin_server(registry.root) as url:
        call(Terminal(("--url", url)))
