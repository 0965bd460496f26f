"""What is required of a version before `stable` moves to it: how attestations read, and who is held back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from registry.errors import Unproved, UsageError
from registry.records import Attestation
from registry.storage.root import SETTINGS
from registry.store import Registry
from registry.validation.requirements import (
    FORMATS,
    GateState,
    GateVerdict,
    Requirement,
    gate_verdict,
    parse_requirements,
    trained_goal,
)
from tests.fakes.adapters import make_adapter
from tests.fakes.control import admin_server
from tests.fakes.store import make_registry, publish, put
from tests.fakes.terminal import Terminal

GATE, PARITY = Requirement.GATE, Requirement.PARITY


def require(registry: Registry, *names: str) -> None:
    """Write what the root requires, as a person would."""
    path = registry.root / SETTINGS
    path.write_text(f"{path.read_text()}\n[publishing]\nrequire = {json.dumps(names)}\n")


def gate(
    registry: Registry, number: int, *, replaces: int | None = 1, verdict: str = "pass", **body: Any
) -> None:
    digest = registry.version("support", number).digest
    whole: dict[str, Any] = {
        "format": FORMATS[GATE],
        "verdict": verdict,
        "sentence": "as told",
        "goal_sha256": "g",
    }
    whole |= {"digest": digest, "replaces": replaces, **body}
    registry.attest("support", number, "gate", whole, who="tester")


def prove(registry: Registry, number: int, *, passed: bool = True, **body: Any) -> None:
    digest = registry.version("support", number).digest
    whole = {"format": FORMATS[PARITY], "passed": passed, "sentence": "as told", "digest": digest, **body}
    registry.attest("support", number, "parity", whole, who="tester")


def attested(at: float, **body: Any) -> Attestation:
    whole: dict[str, Any] = {
        "format": "wardrobe.gate/1",
        "verdict": "pass",
        "goal_sha256": "g",
        "digest": "d",
        "replaces": 2,
    }
    return Attestation("gate", 1, "tester", at, {**whole, **body})


def test_the_newest_fitting_gate_decides() -> None:
    older, newer = attested(1.0), attested(2.0, verdict="fail", sentence="worse")
    assert gate_verdict([newer, older]).verdict is GateVerdict.FAIL
    assert gate_verdict([newer, older]).sentence == "worse"
    assert gate_verdict([older, attested(2.0, goal_sha256="h", verdict="fail")], goal_sha256="g").passed
    assert gate_verdict([older], digest="other") == GateState(
        None, "no gate fits: the newest was held over the content d, not other"
    )
    assert gate_verdict([older], replaces=2).passed
    assert not gate_verdict([older], replaces=3).passed


def test_nothing_but_a_stored_pass_is_a_pass() -> None:
    proof = Attestation("proof", 1, "r1", 1.0, {"passed": True})
    broken = [
        attested(1.0, verdict="passed"),
        attested(1.0, format="other/1"),
        attested(1.0, goal_sha256=None),
    ]
    assert gate_verdict([]).verdict is None
    assert not gate_verdict([proof, *broken]).passed
    assert gate_verdict([attested(1.0, verdict="cannot_tell")]).verdict is GateVerdict.CANNOT_TELL


def test_why_no_gate_fits_is_told() -> None:
    assert gate_verdict([]).sentence == "no gate was held"
    told = gate_verdict([attested(1.0)], goal_sha256="h", replaces=3).sentence
    assert told == "no gate fits: the newest was held for the goal g, not h and against version 2, not 3"


def test_the_goal_is_the_newest_lineages() -> None:
    first = Attestation("lineage", 1, "t", 1.0, {"goal_sha256": "old"})
    assert trained_goal([]) is None
    assert trained_goal([first, Attestation("lineage", 2, "t", 2.0, {"goal_sha256": "new"})]) == "new"
    assert trained_goal([first, Attestation("lineage", 2, "t", 2.0, {})]) is None


def test_a_requirement_that_does_not_exist_is_named_with_the_nearest(tmp_path: Path) -> None:
    assert parse_requirements(["parity", "gate", "parity"], "x") == (PARITY, GATE)
    with pytest.raises(UsageError, match=r"'gates' is not a requirement; did you mean gate\?"):
        parse_requirements(["gates"], "x")
    registry = make_registry(tmp_path)
    put(registry)
    require(registry, "gates")
    with pytest.raises(UsageError, match=r"publishing\.require: 'gates' is not a requirement"):
        registry.promote("support", put(registry, seed=2).number, who="t")


def test_a_first_version_is_registered_and_says_why_it_is_not_stable(tmp_path: Path) -> None:
    registry = make_registry(tmp_path)
    require(registry, "parity")
    published = publish(registry)
    assert published.alias_moves == ()
    assert registry.aliases("support") == {}
    (warning,) = published.warnings
    assert warning == (
        "not made stable: parity: was not proved; `wardrobe train prove support@1`, "
        "then `wardrobe promote support@1`"
    )
    prove(registry, 1)
    again = publish(registry)
    assert not again.created
    assert registry.aliases("support") == {"stable": 1}


def test_an_unproved_version_asked_for_as_stable_stays_registered(tmp_path: Path) -> None:
    registry = make_registry(tmp_path)
    put(registry)
    require(registry, "gate")
    with pytest.raises(
        Unproved,
        match=r"is registered, but stable was not moved to it: gate: .*, then `wardrobe promote \S+`$",
    ):
        put(registry, seed=2, alias="stable")
    assert registry.version("support", 2).number == 2
    assert registry.aliases("support") == {"stable": 1}


def test_the_gate_must_be_of_this_content_this_goal_and_against_the_present_stable(tmp_path: Path) -> None:
    registry = make_registry(tmp_path)
    put(registry)
    put(registry, seed=2, lineage={"goal_sha256": "mine"})
    require(registry, "gate")

    def refused() -> str:
        with pytest.raises(Unproved) as error:
            registry.promote("support", 2, who="t")
        return str(error.value)

    assert "`wardrobe eval gate GOAL.yaml --model support@2 --replaces support@1`" in refused()
    gate(registry, 2, goal_sha256="mine", verdict="cannot_tell", sentence="40 more items")
    assert "gate: cannot tell: 40 more items" in refused()
    gate(registry, 2, goal_sha256="another")
    assert "cannot tell" in refused()  # the newest of its own goal still decides
    gate(registry, 2, goal_sha256="mine", replaces=7)
    assert "cannot tell" in refused()
    gate(registry, 2, goal_sha256="mine", digest="sha256:other")
    assert "cannot tell" in refused()
    gate(registry, 2, goal_sha256="mine", verdict="fail", sentence="worse than the base")
    assert "gate: failed: worse than the base" in refused()
    gate(registry, 2, goal_sha256="mine")
    assert registry.promote("support", 2, who="t").version == 2


def test_the_newest_proof_of_this_content_decides(tmp_path: Path) -> None:
    registry = make_registry(tmp_path)
    put(registry)
    put(registry, seed=2)
    require(registry, "parity")
    prove(registry, 2, digest="sha256:other")
    prove(registry, 2, format="other/1")
    with pytest.raises(Unproved, match="parity: was not proved"):
        registry.promote("support", 2, who="t")
    prove(registry, 2)
    prove(registry, 2, passed=False, sentence="off by 3 nats")
    with pytest.raises(Unproved, match="parity: failed: off by 3 nats"):
        registry.promote("support", 2, who="t")
    prove(registry, 2)
    assert registry.promote("support", 2, who="t").version == 2


def test_a_rollback_and_other_aliases_ask_nothing(tmp_path: Path) -> None:
    registry = make_registry(tmp_path)
    for seed in (1, 2):
        put(registry, seed=seed)
    registry.promote("support", 2, who="t")
    require(registry, "gate", "parity", "tokens")
    assert registry.set_alias("support", "night", 1, who="t").version == 1
    assert registry.promote("support", 2, who="t").seq == 2  # where it is already
    assert registry.rollback("support", who="t").version == 1


def test_a_force_is_recorded_in_the_log_with_the_version_and_in_the_audit(tmp_path: Path) -> None:
    registry = make_registry(tmp_path)
    put(registry)
    put(registry, seed=2)
    require(registry, "gate", "parity")
    move = registry.promote("support", 2, who="anna", force="the old one is down")
    assert move.why == "promote, forced past gate, parity: the old one is down"
    (force,) = registry.attestations("support", 2, "force")
    assert (force.who, force.body["why"]) == ("anna", "the old one is down")
    assert force.body["past"] == {"gate": "no gate was held", "parity": "was not proved"}
    told = [entry.detail for entry in registry.audit() if entry.who == "anna"]
    assert sorted(told) == ["force (the old one is down)", f"support@2 ({move.why})"]


def test_a_template_of_its_own_keeps_a_version_from_stable(tmp_path: Path) -> None:
    registry = make_registry(tmp_path)
    put(registry)
    folder = make_adapter(tmp_path / "own", seed=3, chat_template="{{ messages }}")
    published = registry.publish("support", folder, who="t")
    assert "chat requests to this version are refused" in published.warnings[0]
    with pytest.raises(Unproved, match="template: it has a chat template of its own"):
        registry.promote("support", 2, who="t")
    assert registry.promote("support", 2, who="t", force="completions only").version == 2


def test_init_again_keeps_what_is_required(tmp_path: Path) -> None:
    registry = make_registry(tmp_path)
    require(registry, "gate")
    again = Registry.init(registry.root, tmp_path / "base", name="renamed")
    assert again.base.name == "renamed"
    assert again.required() == (GATE,)


def commands(terminal: Terminal, registry: Registry, folder: Path) -> None:
    done = terminal("register", "support", str(make_adapter(folder / "new", seed=9)), "--require", "gate")
    assert (done.code, done.out[:9]) == (0, "support@1")
    assert "not made stable: gate: no gate was held" in done.err
    done = terminal("promote", "support@1")
    assert (done.code, registry.aliases("support")) == (0, {"stable": 1})  # the root itself asks nothing
    require(registry, "parity")
    terminal.ok("register", "support", str(make_adapter(folder / "newer", seed=10)))
    done = terminal("alias", "set", "support", "stable", "2")
    assert done.code == 1
    assert "support@2: parity: was not proved; `wardrobe train prove support@2`" in done.err
    assert terminal("promote", "support@2", "--force").code == 2
    assert terminal("promote", "support@2", "--why", "x").code == 2
    terminal.ok("promote", "support@2", "--force", "--why", "a test")
    assert "forced past parity: a test" in terminal.ok("history", "support").out


def test_the_commands_on_a_root(tmp_path: Path) -> None:
    registry = make_registry(tmp_path)
    commands(Terminal(("--root", str(registry.root))), registry, tmp_path)


def test_the_commands_over_http_by_a_server_that_ran_before_the_rule(tmp_path: Path) -> None:
    registry = make_registry(tmp_path)
    with admin_server(registry.root) as url:
        commands(Terminal(("--url", url)), registry, tmp_path)
