"""Why a rollout went as it did: every entry of the log in a line, with its numbers, and who moved what."""

from __future__ import annotations

from pathlib import Path

from pydantic import JsonValue

from registry.records import RolloutEntry
from serve.rollout.decision.states import EventType
from serve.rollout.display.explain import (
    decisions,
    explained,
    history,
    moved,
    numbers,
    share,
    told,
)
from serve.rollout.documents import version_name
from tests.fakes.driving import drive, make_root
from tests.fakes.rollouts import make_entry
from tests.fakes.terminal import Terminal

OTHER = "f" * 16


def log() -> list[RolloutEntry]:
    """Return a rollout that was superseded, and one that an alarm ended."""
    return [
        make_entry(rollout=OTHER, seq=1, state="preloading", event="start", who="ana", weight=0, step=-1),
        make_entry(rollout=OTHER, seq=2, state="rolled_back", event="supersede", who="bo", weight=0),
        make_entry(seq=3, state="preloading", event="start", who="bo", weight=0, step=-1, forced=True),
        make_entry(seq=4, event="loaded", reason="loaded", sentence="every live replica holds both"),
        make_entry(
            seq=5, state="rolled_back", event="guard", weight=0, reason="errors", sentence="9 of 40 failed",
            facts={"log_e": 4.123456, "needed": 0, "arm": {"stable": 0.01, "canary": None}, "list": [1, 0.5]},
        ),
    ]  # fmt: skip


def test_every_decision_tells_what_it_left_and_where_it_led() -> None:
    found = decisions(log())
    assert [one.previous for one in found] == ["", "preloading", "", "preloading", "ramping"]
    assert moved(found[4]) == "ramping → rolled_back at 0%"
    assert moved(found[3]) == "preloading → ramping at 10%"
    assert moved(found[2]) == "preloading at 0%"


def test_an_advance_names_the_weight_that_it_led_to() -> None:
    entries = [make_entry(seq=1), make_entry(seq=2, event="advance", weight=5000, step=1)]
    assert told(decisions(entries)[1]) == "advance, ramping at 50%"


def test_a_decision_is_told_with_reason_and_sentence() -> None:
    found = [told(one) for one in decisions(log())]
    assert found[2] == "start (forced), preloading at 0%"
    assert found[3] == "loaded, preloading → ramping at 10%: every live replica holds both"
    assert found[4] == "guard (errors), ramping → rolled_back at 0%: 9 of 40 failed"


def test_the_numbers_of_one_thing_stand_in_one_line() -> None:
    assert numbers(log()[4].facts) == ["log_e 4.123, needed 0, list 1 0.5", "arm: stable 0.01, canary -"]
    facts: dict[str, JsonValue] = {"errors.alpha": 0.02, "step_units": 257, "errors.log_e": -0.0}
    assert numbers(facts) == ["errors: alpha 0.02, log_e 0", "step_units 257"]
    assert numbers({}) == []


def test_explain_tells_one_rollout_and_history_all() -> None:
    whole = history("support", log())
    last = explained(log(), log()[-1].rollout)
    assert [one.seq for one in whole.decisions] == [1, 2, 3, 4, 5]
    assert [one.seq for one in last.decisions] == [3, 4, 5]
    assert (last.stable, last.canary) == ("support@1", "support@2")
    assert last.decisions == whole.decisions[2:]


def test_names_and_shares() -> None:
    assert (version_name("support", 3), version_name("support", 0)) == ("support@3", "base")
    assert (share(0), share(1), share(250), share(10_000)) == ("0%", "0.01%", "2.5%", "100%")


def test_the_commands_print_who_when_why_and_the_numbers(tmp_path: Path) -> None:
    registry = make_root(tmp_path)
    wardrobe = Terminal(("--root", str(registry.root)))
    wardrobe.ok("rollout", "start", "support@2", "--note", "ticket 7\x1b[31m")
    drive(registry, EventType.LOADED, EventType.ADVANCE)
    wardrobe.ok("rollout", "abort", "support", "--why", "the tone")
    text = wardrobe.ok("rollout", "explain", "support").out
    lines = text.splitlines()
    assert lines[0].endswith("support@2 against support@1")
    assert "ticket 7\\x1b[31m" in lines[1]
    assert "replica r1  loaded, preloading → ramping at 1%: because of loaded" in text
    assert "    units 7" in lines
    assert lines[-1].endswith("aborted it: the tone")
    wardrobe.ok("rollout", "start", "support@3")
    rows = wardrobe.ok("rollout", "history", "support").out.splitlines()
    assert len(rows) == 6
    assert rows[0].split() == ["WHEN", "CANARY", "EVENT", "TO", "WHO", "WHY"]
    assert "ramping → rolled_back at 0%" in rows[4]
    assert wardrobe.ok("rollout", "explain", "support").out.startswith("rollout ")
    assert len(wardrobe.ok("--json", "rollout", "explain", "support").json["decisions"]) == 1
