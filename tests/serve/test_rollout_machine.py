from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import JsonValue

from registry.entries.rollouts import FULL_WEIGHT
from registry.errors import Conflict
from registry.records import RolloutEntry, Version
from serve.rollout.decision.machine import (
    IllegalMove,
    begin,
    denied,
    denied_until,
    is_suspended,
    legal_place,
    transition,
)
from serve.rollout.decision.states import Event, EventType, RolloutState
from serve.rollout.policy import Policy, RampStep, Shadow
from serve.rollout.recording.evidence import Baseline

STEPS = tuple(RampStep(weight=weight, min_units=1, min_seconds=1) for weight in (500, 2_500, 5_000))
POLICY = Policy(steps=STEPS, observe_base=300)
SHADOWED = POLICY.model_copy(update={"shadow": Shadow(share=700)})
BASELINE: Mapping[str, JsonValue] = {"baseline": {"requests": 7}}


def version(number: int) -> Version:
    return Version(
        "support", number, f"sha256:{number}", 1.0, "", "anna", 8, ("q_proj",), 1, (), Path("/nowhere")
    )


def started(policy: Policy = POLICY, *, now: float = 100.0, stable: int = 1, canary: int = 2) -> RolloutEntry:
    return begin(
        "support",
        version(canary),
        version(stable) if stable else None,
        policy,
        who="anna",
        now=now,
        seq=1,
        rollout_id="0011223344556677",
        baseline=Baseline(requests=5),
    )


def happen(
    entry: RolloutEntry, *occasions: str, policy: Policy = POLICY, at: float | None = None, reason: str = ""
) -> RolloutEntry:
    for name in occasions:
        facts = BASELINE if name == "baseline" else {}
        event = Event(EventType(name), "bert", reason, f"it was {name}", facts)
        entry = transition(entry, event, policy, entry.at + 10 if at is None else at)
    return entry


def refused(entry: RolloutEntry, occasion: str, policy: Policy = POLICY) -> str:
    with pytest.raises(IllegalMove) as caught:
        happen(entry, occasion, policy=policy)
    assert caught.value.http_status == 409
    return str(caught.value)


REACHED: dict[str, tuple[str, ...]] = {
    "preloading": (),
    "shadow": ("loaded",),
    "ramping": ("loaded", "shadowed"),
    "hold": ("loaded", "shadowed", "hold"),
    "suspended": ("loaded", "shadowed", "suspect"),
    "paused": ("loaded", "shadowed", "pause"),
    "paused suspended": ("loaded", "shadowed", "pause", "suspect"),
    "promoted": ("loaded", "shadowed", "promote"),
    "rolled_back": ("abort",),
    "closed": ("loaded", "shadowed", "promote", "cooled"),
}
ENDS = {"guard": "rolled_back", "abort": "rolled_back", "supersede": "rolled_back"}
LEGAL: dict[str, dict[str, str]] = {
    "preloading": {
        **ENDS,
        "baseline": "preloading",
        "loaded": "shadow",
        "pause": "paused",
        "timeout": "rolled_back",
    },
    "shadow": {
        **ENDS,
        "baseline": "shadow",
        "shadowed": "ramping",
        "hold": "hold",
        "suspect": "hold",
        "pause": "paused",
    },
    "ramping": {
        **ENDS,
        "baseline": "ramping",
        "advance": "ramping",
        "hold": "hold",
        "suspect": "hold",
        "pause": "paused",
        "promote": "promoted",
    },
    "hold": {
        **ENDS,
        "baseline": "hold",
        "suspect": "hold",
        "clear": "ramping",
        "pause": "paused",
        "promote": "promoted",
        "timeout": "paused",
    },
    "suspended": {
        **ENDS,
        "baseline": "hold",
        "clear": "ramping",
        "pause": "paused",
        "promote": "promoted",
        "timeout": "rolled_back",
    },
    "paused": {
        **ENDS,
        "baseline": "paused",
        "suspect": "paused",
        "resume": "ramping",
        "promote": "promoted",
    },
    "paused suspended": {
        **ENDS,
        "baseline": "paused",
        "clear": "paused",
        "resume": "hold",
        "promote": "promoted",
    },
    "promoted": {**ENDS, "suspect": "hold", "pause": "paused", "cooled": "closed"},
    "rolled_back": {},
    "closed": {},
}


@pytest.mark.parametrize("occasion", list(EventType))
@pytest.mark.parametrize("place", REACHED)
def test_every_state_takes_or_refuses_every_occasion(place: str, occasion: EventType) -> None:
    entry = happen(started(SHADOWED), *REACHED[place], policy=SHADOWED)
    wanted = LEGAL[place].get(occasion.value)
    if wanted is None:
        message = refused(entry, occasion.value, SHADOWED)
        assert f"is {entry.state} and takes no {occasion.value}" in message
        assert message.startswith("support@2: ")
        return
    after = happen(entry, occasion.value, policy=SHADOWED)
    assert after.state == wanted
    assert (after.seq, after.event, after.who) == (entry.seq + 1, occasion.value, "bert")
    assert after.sentence == f"it was {occasion.value}"


def test_the_table_names_all_eight_states() -> None:
    assert {place.split()[0] for place in LEGAL} - {"suspended"} == {state.value for state in RolloutState}


def test_a_refusal_names_what_a_person_can_do() -> None:
    ramping = happen(started(), "loaded")
    assert refused(ramping, "resume") == (
        "support@2: its rollout is ramping and takes no resume; possible now: pause, promote, abort"
    )
    assert refused(happen(ramping, "abort"), "abort").endswith("start a new rollout")


def test_it_begins_with_no_weight_and_every_field_set() -> None:
    entry = started(now=100.0)
    assert (entry.state, entry.weight, entry.step, entry.seq) == ("preloading", 0, -1, 1)
    assert (entry.at, entry.began, entry.state_since, entry.step_since) == (100.0, 100.0, 100.0, 100.0)
    assert (entry.stable, entry.canary, entry.stable_digest) == (1, 2, "sha256:1")
    assert Policy.model_validate(dict(entry.policy)) == POLICY
    assert entry.baseline["requests"] == 5
    assert entry.sentence == "anna started support@2 against support@1"


def test_without_stable_the_base_model_is_the_control() -> None:
    entry = started(stable=0)
    assert (entry.stable, entry.stable_digest) == (0, "")
    assert entry.sentence.endswith("against the base model")


def test_a_stable_version_is_no_canary() -> None:
    with pytest.raises(Conflict, match="support@2: is the stable version already"):
        started(stable=2)


def test_it_ramps_step_by_step_and_beyond_the_last_only_by_promotion() -> None:
    entry = happen(started(), "loaded")
    seen = []
    while True:
        seen.append((entry.step, entry.weight, entry.base_weight))
        if entry.step == 2:
            break
        entry = happen(entry, "advance")
    assert seen == [(0, 500, 300), (1, 2_500, 300), (2, 5_000, 300)]
    assert "takes no advance" in refused(entry, "advance")
    promoted = happen(entry, "promote")
    assert (promoted.weight, promoted.base_weight, promoted.step) == (FULL_WEIGHT, 0, 2)
    assert (promoted.stable, promoted.serving) == (1, 2)
    closed = happen(promoted, "cooled")
    assert (closed.weight, closed.serving, closed.open) == (0, 2, False)


def test_a_shadow_comes_before_the_first_weight() -> None:
    shadow = happen(started(SHADOWED), "loaded", policy=SHADOWED)
    assert (shadow.state, shadow.weight, shadow.shadow, shadow.step) == ("shadow", 0, 700, -1)
    ramping = happen(shadow, "shadowed", policy=SHADOWED)
    assert (ramping.weight, ramping.shadow, ramping.step) == (500, 0, 0)
    held = happen(shadow, "hold", policy=SHADOWED)
    assert (held.shadow, held.resumes) == (700, "shadow")
    suspended = happen(held, "suspect", policy=SHADOWED)
    assert (suspended.shadow, suspended.resumes) == (0, "shadow")
    assert happen(suspended, "clear", policy=SHADOWED).shadow == 700
    assert "takes no promote" in refused(held, "promote", SHADOWED)


def test_a_hold_keeps_the_weight_and_a_suspicion_takes_it() -> None:
    ramping = happen(started(), "loaded", "advance")
    held = happen(ramping, "hold", reason="insufficient")
    assert (held.weight, held.base_weight, held.held_weight) == (2_500, 300, 0)
    assert (held.resumes, held.reason) == ("ramping", "insufficient")
    suspended = happen(held, "suspect", at=held.at + 50)
    assert (suspended.weight, suspended.base_weight, suspended.held_weight) == (0, 0, 2_500)
    assert (suspended.resumes, suspended.reason) == ("ramping", "suspect")
    assert suspended.state_since == held.at + 50
    back = happen(suspended, "clear")
    assert (back.state, back.weight, back.held_weight, back.step) == ("ramping", 2_500, 0, 1)


def test_resuming_a_suspended_pause_does_not_give_the_weight_back() -> None:
    paused = happen(started(), "loaded", "pause", "suspect")
    assert (paused.state, paused.weight, paused.held_weight, paused.resumes) == ("paused", 0, 500, "hold")
    held = happen(paused, "resume")
    assert (held.state, held.weight, held.held_weight, held.reason) == ("hold", 0, 500, "suspect")
    assert (held.resumes, happen(held, "clear").weight) == ("ramping", 500)
    cleared = happen(paused, "clear")
    assert (cleared.state, cleared.weight, cleared.resumes) == ("paused", 500, "ramping")
    assert happen(cleared, "resume").state == "ramping"


def test_a_pause_of_a_hold_looks_at_the_evidence_anew() -> None:
    held = happen(started(), "loaded", "hold")
    paused = happen(held, "pause")
    assert (paused.resumes, paused.weight) == ("ramping", 500)
    suspended = happen(held, "suspect")
    again = happen(suspended, "pause", "resume")
    assert (again.state, again.held_weight, again.resumes) == ("hold", 500, "ramping")


def test_guards_stay_armed_while_paused() -> None:
    paused = happen(started(), "loaded", "pause")
    for occasion in ("guard", "abort", "supersede"):
        ended = happen(paused, occasion)
        assert (ended.state, ended.weight, ended.base_weight, ended.resumes) == ("rolled_back", 0, 0, "")


def test_a_promotion_is_taken_back_or_suspended_like_any_weight() -> None:
    promoted = happen(started(), "loaded", "promote")
    ended = happen(promoted, "guard")
    assert (ended.state, ended.weight, ended.serving) == ("rolled_back", 0, 1)
    suspended = happen(promoted, "suspect")
    assert (suspended.held_weight, suspended.resumes, suspended.serving) == (10_000, "promoted", 1)
    assert happen(suspended, "clear").state == "promoted"
    paused = happen(promoted, "pause")
    assert (paused.weight, paused.serving) == (10_000, 2)
    assert happen(paused, "resume").state == "promoted"


@pytest.mark.parametrize(
    ("reason", "action", "wanted"),
    [
        ("insufficient", "rollback", "paused"),
        ("imbalance", "rollback", "paused"),
        ("suspicious", "rollback", "rolled_back"),
        ("suspicious", "pause", "paused"),
    ],
)
def test_a_hold_that_lasts_too_long_ends_by_its_reason(reason: str, action: str, wanted: str) -> None:
    policy = POLICY.model_copy(update={"hold_action": action})
    held = happen(started(), "loaded", policy=policy)
    held = happen(held, "hold", policy=policy, reason=reason)
    after = happen(held, "baseline", "timeout", policy=policy)
    assert after.state == wanted
    if wanted == "paused":
        assert (after.weight, after.resumes) == (500, "ramping")


def test_a_suspicion_that_lasts_too_long_never_gives_the_weight_back() -> None:
    policy = POLICY.model_copy(update={"hold_action": "pause"})
    suspended = happen(started(), "loaded", "suspect", policy=policy)
    paused = happen(suspended, "timeout", policy=policy)
    assert (paused.state, paused.weight, paused.held_weight, paused.resumes) == ("paused", 0, 500, "hold")
    assert happen(suspended, "timeout").state == "rolled_back"


def test_a_preload_that_lasts_too_long_says_so() -> None:
    assert happen(started(), "timeout", reason="whatever").reason == "preload"


def test_a_baseline_changes_nothing_else() -> None:
    held = happen(started(), "loaded", "hold", reason="suspicious")
    after = happen(held, "baseline")
    assert after.baseline == {"requests": 7}
    assert after.facts == {}
    same = {"seq", "event", "at", "sentence", "baseline", "facts"}
    for name in (field.name for field in fields(RolloutEntry)):
        if name not in same:
            assert getattr(after, name) == getattr(held, name), name
    with pytest.raises(ValueError, match="holds the new baseline"):
        transition(held, Event(EventType.BASELINE, "bert"), POLICY, 1.0)


def test_the_time_of_a_pause_or_a_suspicion_is_no_dwell() -> None:
    ramping = happen(started(now=0.0), "loaded", at=10.0)
    assert ramping.step_since == 10.0
    held = happen(ramping, "hold", at=20.0)
    cleared = happen(held, "clear", at=30.0)
    assert cleared.step_since == 10.0  # a hold gathers evidence on
    paused = happen(cleared, "pause", at=40.0)
    resumed = happen(happen(happen(paused, "baseline", at=50.0), "suspect", at=55.0), "resume", at=60.0)
    assert resumed.step_since == 30.0
    moving = happen(resumed, "clear", at=100.0)
    assert (moving.step_since, moving.state_since) == (70.0, 100.0)
    assert happen(moving, "advance", at=110.0).step_since == 110.0


def test_a_clock_that_is_behind_does_not_turn_time_back() -> None:
    ramping = happen(started(now=100.0), "loaded", at=50.0)
    assert (ramping.at, ramping.step_since) == (100.0, 100.0)


OCCASIONS = st.lists(st.sampled_from(list(EventType)), max_size=40)
POLICIES = st.builds(
    Policy,
    steps=st.sampled_from([STEPS[:1], STEPS[:2], STEPS]),
    shadow=st.sampled_from([None, Shadow(share=700)]),
    observe_base=st.sampled_from([0, 300]),
    hold_action=st.sampled_from(["rollback", "pause"]),
)


@settings(max_examples=400, deadline=None)
@given(occasions=OCCASIONS, policy=POLICIES, gaps=st.lists(st.floats(-5, 50), min_size=40, max_size=40))
def test_whatever_happens_the_record_stays_consistent(
    occasions: list[EventType], policy: Policy, gaps: list[float]
) -> None:
    entry = started(policy)
    for occasion, gap in zip(occasions, gaps, strict=False):
        event = Event(occasion, "bert", facts=BASELINE if occasion is EventType.BASELINE else {})
        if legal_place(entry, occasion, policy) is None:
            with pytest.raises(IllegalMove):
                transition(entry, event, policy, entry.at)
            continue
        before, entry = entry, transition(entry, event, policy, entry.at + gap)
        _check_step(before, entry)
        _check_record(entry, policy)


def _check_step(before: RolloutEntry, after: RolloutEntry) -> None:
    assert after.seq == before.seq + 1
    assert before.step <= after.step <= before.step + 1
    assert after.at >= before.at
    assert before.step_since <= after.step_since <= after.at
    assert before.state_since <= after.state_since <= after.at
    fixed = ("adapter", "rollout", "began", "stable", "canary", "stable_digest", "canary_digest", "policy")
    assert all(getattr(before, name) == getattr(after, name) for name in fixed)
    if is_suspended(before) and after.weight:
        assert after.event in {"clear", "promote"}
    if after.weight > before.weight:
        assert after.event in {"loaded", "shadowed", "advance", "clear", "promote"}
    if after.state in {"hold", "paused"} and before.state != after.state and before.weight:
        assert before.weight in {after.weight, after.held_weight}


def _check_record(entry: RolloutEntry, policy: Policy) -> None:
    weights = {0, FULL_WEIGHT} | ({policy.steps[entry.step].weight} if entry.step >= 0 else set())
    assert {entry.weight, entry.held_weight} <= weights
    assert not (entry.weight and entry.held_weight)
    assert entry.base_weight in {0, policy.observe_base}
    assert not (entry.base_weight and entry.weight in {0, FULL_WEIGHT})
    assert entry.shadow in {0, policy.shadow.share if policy.shadow else 0}
    assert not (entry.shadow and entry.weight)
    assert bool(entry.resumes) == (entry.state in {"hold", "paused"})
    if entry.state == "ramping":
        assert entry.weight == policy.steps[entry.step].weight
    if entry.state == "promoted":
        assert entry.weight == FULL_WEIGHT
    if entry.state not in {"hold", "paused"}:
        assert entry.held_weight == 0
    if not entry.open:
        assert (entry.weight, entry.shadow, entry.base_weight) == (0, 0, 0)
    legal = {occasion for occasion in EventType if legal_place(entry, occasion, policy)}
    assert (EventType.ABORT in legal) == entry.open
    assert bool(legal) == entry.open
    assert EventType.START not in legal


@settings(max_examples=100, deadline=None)
@given(occasions=OCCASIONS, policy=POLICIES)
def test_the_same_events_make_the_same_records(occasions: list[EventType], policy: Policy) -> None:
    first, second = started(policy), started(policy)
    for occasion in occasions:
        if legal_place(first, occasion, policy) is not None and occasion is not EventType.BASELINE:
            first = transition(first, Event(occasion, "bert"), policy, 200.0)
            second = transition(second, Event(occasion, "bert"), policy, 200.0)
    assert first == second


def test_waiting_for_replicas_in_vain_denies_nothing() -> None:
    log = [started(), happen(started(), "timeout")]
    assert denied_until(log, "sha256:2") == 0.0
    held = happen(started(), "loaded", "suspect")
    assert denied_until([held, happen(held, "timeout")], "sha256:2") > 0


def log_of(*ends: tuple[str, float]) -> list[RolloutEntry]:
    log = []
    for occasion, at in ends:
        entry = happen(started(now=at), "loaded", at=at)
        if occasion == "cooled":
            entry = happen(entry, "promote", at=at)
        log += [entry, happen(entry, occasion, at=at, reason="errors")]
    return log


@pytest.mark.parametrize(
    ("ends", "until"),
    [
        ((), 0.0),
        ((("guard", 1_000.0),), 87_400.0),
        ((("abort", 1_000.0),), 87_400.0),
        ((("supersede", 1_000.0),), 0.0),
        ((("guard", 1_000.0), ("supersede", 2_000.0)), 87_400.0),
        ((("guard", 1_000.0), ("cooled", 2_000.0)), 0.0),
        ((("guard", 1_000.0), ("guard", 2_000.0)), 88_400.0),
    ],
)
def test_a_content_that_was_rolled_back_is_refused_for_a_day(
    ends: tuple[tuple[str, float], ...], until: float
) -> None:
    assert denied_until(log_of(*ends), "sha256:2") == until
    assert denied_until(log_of(*ends), "sha256:9") == 0.0


def test_a_denial_says_what_was_found_and_when_it_ends() -> None:
    log = log_of(("guard", 1_000.0))
    found = denied(log, version(2), 1_000.0 + 3 * 3600)
    assert str(found) == (
        "support@2: was rolled back 3 h ago (errors: it was guard);"
        " register a better one, wait 21 h, or force it with --force"
    )
    assert denied(log, version(2), 87_400.0) is None
    assert denied(log, version(3), 1_001.0) is None
    # The same content under another number is the same version.
    assert denied(log, replace(version(3), digest="sha256:2"), 1_001.0) is not None
