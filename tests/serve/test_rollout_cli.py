"""The rollout commands on a root and, with --url, over a real server: the same answers, both ways."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from registry.store import Registry
from serve.rollout.decision.states import EventType
from tests.fakes.control import admin_server
from tests.fakes.driving import arm, drive, make_root, seen
from tests.fakes.terminal import Done, Terminal

POLICY = """\
steps:
  - {weight: 10%, min_units: 30, min_seconds: 5}
  - {weight: 50%, min_units: 30, min_seconds: 5}
"""


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return make_root(tmp_path)


@pytest.fixture(params=["root", "url"])
def wardrobe(request: pytest.FixtureRequest, registry: Registry) -> Iterator[Terminal]:
    if request.param == "root":
        yield Terminal(("--root", str(registry.root)))
        return
    with admin_server(registry.root) as url:
        yield Terminal(("--url", url))


def test_start_begins_and_says_how_to_watch(wardrobe: Terminal, registry: Registry) -> None:
    done = wardrobe.ok("rollout", "start", "support@2", "--note", "ticket 7")
    assert re.match(r"support@2: rollout [0-9a-f]{16} against support@1 has begun\n", done.out)
    assert "wardrobe rollout status support --watch" in done.out
    entry = registry.rollout("support")
    assert entry is not None
    assert (entry.state, entry.stable, entry.canary, entry.weight) == ("preloading", 1, 2, 0)
    assert entry.sentence.endswith("ticket 7")
    assert entry.policy["name"] == "default"


def test_the_fields_that_a_rollout_always_tells(wardrobe: Terminal) -> None:
    started = wardrobe.ok("--json", "rollout", "start", "support@2", "--policy", "fast").json
    assert (started["superseded"], started["warnings"]) == (None, [])
    status = wardrobe.ok("--json", "rollout", "status", "support").json
    wanted = {
        "adapter": "support", "state": "preloading", "stable": "support@1", "canary": "support@2",
        "weight": 0, "step": -1, "reason": "start", "policy": "fast", "open": True, "forced": False,
    }  # fmt: skip
    assert {name: status[name] for name in wanted} == wanted
    assert set(status["arms"]) == {"stable", "canary"}
    assert [step["weight"] for step in status["steps"]] == [1000, 5000]


def test_a_policy_file_is_read_here_and_sent(wardrobe: Terminal, tmp_path: Path) -> None:
    path = tmp_path / "ramp.yaml"
    path.write_text(POLICY)
    wardrobe.ok("rollout", "start", "support@2", "--policy", path)
    status = wardrobe.ok("--json", "rollout", "status", "support").json
    assert (status["policy"], [step["weight"] for step in status["steps"]]) == ("ramp", [1000, 5000])
    path.write_text(POLICY.replace("min_units: 30", "min_unit: 30", 1))
    done = wardrobe("rollout", "start", "support@3", "--policy", path)
    assert done.code == 2
    assert f"error: {path}:2: unknown setting steps.0.min_unit; did you mean steps.0.min_units?" in done.err


def test_dry_run_prints_the_plan_and_changes_nothing(wardrobe: Terminal, registry: Registry) -> None:
    done = wardrobe.ok("rollout", "start", "support@2", "--dry-run")
    assert "about 13,000 requests of support" in done.out
    assert re.search(
        r"10% +200 +600 s +2,000 +167 failures, 1,513 canary requests +22 failures, 154 canary", done.out
    )
    assert "nothing was changed" in done.out
    plan = wardrobe.ok("--json", "rollout", "start", "support@2", "--dry-run").json
    assert [step["requests"] for step in plan["steps"]] == [5000, 2000, 2000, 2000, 2000]
    assert {one["metric"]: one["alpha"] for one in plan["metrics"]} == {
        "errors": 0.02, "latency": 0.015, "feedback": 0.01, "format": 0.005,
    }  # fmt: skip
    assert registry.rollout("support") is None
    low = wardrobe.ok("--json", "rollout", "start", "support@2", "--dry-run", "--policy", "low-traffic").json
    assert (low["shadow_requests"], low["requests"]) == (500, 900)


def test_the_verbs_move_it_and_keep_who_and_why(wardrobe: Terminal, registry: Registry) -> None:
    wardrobe.ok("rollout", "start", "support@2", "--policy", "fast")
    drive(registry, EventType.LOADED)
    assert wardrobe.ok("rollout", "pause", "support", "--why", "lunch").out == (
        "support@2: paused; paused, 10% of the traffic meets it\n"
    )
    assert wardrobe.ok("--json", "rollout", "resume", "support").json["state"] == "ramping"
    done = wardrobe.ok("--json", "rollout", "promote", "support", "--why", "trust me").json
    assert (done["state"], done["weight"], done["stable"]) == ("promoted", 10_000, "support@1")
    assert registry.aliases("support")["stable"] == 2
    assert wardrobe.ok("--json", "rollout", "abort", "support").json["state"] == "rolled_back"
    assert registry.aliases("support")["stable"] == 1
    told = wardrobe.ok("--json", "rollout", "explain", "support").json["decisions"]
    assert [one["event"] for one in told] == ["start", "loaded", "pause", "resume", "promote", "abort"]
    assert told[2]["sentence"].endswith("paused it: lunch")
    assert told[4]["sentence"].endswith("trust me")
    assert [one["previous"] for one in told] == ["", "preloading", "ramping", "paused", "ramping", "promoted"]


def test_a_new_rollout_supersedes_and_says_so(wardrobe: Terminal, registry: Registry) -> None:
    wardrobe.ok("rollout", "start", "support@2")
    assert (
        "supersedes  the open rollout of support@2"
        in wardrobe.ok("rollout", "start", "support@3", "--dry-run").out
    )
    assert "support@2: its rollout was superseded\n" in wardrobe.ok("rollout", "start", "support@3").out
    events = [(one.canary, one.event, one.state) for one in registry.rollout_log("support")]
    assert events == [
        (2, "start", "preloading"), (2, "supersede", "rolled_back"), (3, "start", "preloading"),
    ]  # fmt: skip
    again = wardrobe.ok("--json", "rollout", "start", "support@2").json
    assert again["superseded"] == "support@3"
    assert not again["status"]["forced"]


def test_a_rollout_after_a_promotion_is_compared_with_the_promoted_version(
    wardrobe: Terminal, registry: Registry
) -> None:
    wardrobe.ok("rollout", "start", "support@2", "--policy", "fast")
    drive(registry, EventType.LOADED, EventType.PROMOTE)
    started = wardrobe.ok("--json", "rollout", "start", "support@3").json
    assert (started["superseded"], started["status"]["stable"]) == ("support@2", "support@2")
    assert registry.aliases("support")["stable"] == 2
    assert [one.state for one in registry.rollout_log("support")][-2:] == ["closed", "preloading"]


def test_a_version_that_was_rolled_back_is_refused_unless_forced(
    wardrobe: Terminal, registry: Registry
) -> None:
    wardrobe.ok("rollout", "start", "support@2")
    wardrobe.ok("rollout", "abort", "support", "--why", "it swears")
    refused = wardrobe("--json", "rollout", "start", "support@2")
    assert refused.code == 1
    assert "was rolled back" in refused.err
    assert "it swears" in refused.err
    assert "--force" in refused.err
    forced = wardrobe.ok("rollout", "start", "support@2", "--force")
    assert "(forced)" in forced.out
    assert registry.rollout("support").forced  # type: ignore[union-attr]
    assert "start (forced)" in wardrobe.ok("rollout", "explain", "support").out
    wardrobe.ok("rollout", "start", "support@3", "--force")
    assert not registry.rollout("support").forced  # type: ignore[union-attr]


def test_without_stable_the_base_model_is_the_control(wardrobe: Terminal) -> None:
    done = wardrobe.ok("rollout", "start", "raw@1", "--policy", "fast")
    assert "the base model is the control" in done.err
    status = wardrobe.ok("--json", "rollout", "status", "raw").json
    assert (status["stable"], status["canary"]) == ("base", "raw@1")


def test_a_version_with_the_content_of_stable_is_an_a_a_test(wardrobe: Terminal, registry: Registry) -> None:
    trained = registry.root.parent / "trained-1"
    registry.publish("support", trained, who="tester", allow_duplicate=True)
    done = wardrobe.ok("rollout", "start", "support@4")
    assert "compares a version with itself" in done.err


def test_list_has_the_last_rollout_of_every_adapter(wardrobe: Terminal) -> None:
    assert wardrobe.ok("--json", "rollout", "list").json == []
    wardrobe.ok("rollout", "start", "support@2")
    wardrobe.ok("rollout", "start", "raw@1")
    found = wardrobe.ok("--json", "rollout", "list").json
    assert [(one["canary"], one["state"], one["stable"]) for one in found] == [
        ("raw@1", "preloading", "base"), ("support@2", "preloading", "support@1"),
    ]  # fmt: skip
    assert len(wardrobe.ok("rollout", "list").out.splitlines()) == 3
    assert "open rollouts   raw@1 preloading at 0%, support@2 preloading at 0%" in wardrobe.ok("status").out
    wardrobe.ok("rollout", "abort", "raw")
    assert [one["canary"] for one in wardrobe.ok("--json", "status").json["rollouts"]] == [2]


@pytest.mark.parametrize(
    ("arguments", "code", "kind", "text"),
    [
        (("start", "support@9"), 1, "not_found", "support@9"),
        (("start", "support"), 2, "invalid_name", "support"),
        (("start", "nothing@1"), 1, "not_found", "nothing"),
        (("start", "support@1"), 1, "conflict", "support@1: is the stable version already; name another"),
        (("start", "support@3"), 1, "quarantined", "support@3: is quarantined (it swears)"),
        (("start", "support@2", "--policy", "fsat"), 2, "invalid_request", "default, fast, low-traffic"),
        (("status", "support"), 1, "not_found", "support: has had no rollout; start one"),
        (("status", "../x"), 2, "invalid_name", "../x"),
        (("pause", "support"), 1, "not_found", "has had no rollout"),
        (("abort", "nothing"), 1, "not_found", "nothing: there is no such adapter; adapters: "),
        (("explain", "support"), 1, "not_found", "has had no rollout"),
        (("history", "support"), 1, "not_found", "has had no rollout"),
        (("explode", "support"), 2, "invalid_request", "explode"),
        (("start",), 2, "invalid_request", "NAME@N"),
    ],
)
def test_refusals_have_the_same_code_and_exit_both_ways(
    wardrobe: Terminal, registry: Registry, arguments: tuple[str, ...], code: int, kind: str, text: str
) -> None:
    registry.quarantine("support", 3, "it swears", who="tester")
    done = wardrobe("--json", "rollout", *arguments)
    assert (done.code, done.out) == (code, "")
    assert done.err.startswith("error: ")
    assert text in done.err
    assert f'"code": "{kind}"' in done.err.splitlines()[-1]
    assert registry.rollout("support") is None


def test_a_move_that_the_state_does_not_take_names_both(wardrobe: Terminal) -> None:
    wardrobe.ok("rollout", "start", "support@2")
    done = wardrobe("--json", "rollout", "resume", "support")
    assert done.code == 1
    assert "support@2: its rollout is preloading and takes no resume; possible now: pause, abort" in done.err
    assert '"code": "illegal_move"' in done.err
    again = wardrobe("rollout", "start", "support@2")
    assert again.code == 1
    assert "is being rolled out already (preloading at 0%); abort that first" in again.err


def test_a_refused_start_leaves_the_open_rollout_alone(wardrobe: Terminal, registry: Registry) -> None:
    wardrobe.ok("rollout", "start", "support@2")
    for name in ("support@1", "support@9", "support@2"):
        assert wardrobe("rollout", "start", name).code == 1
    assert len(registry.rollout_log("support")) == 1


SCRIPT = (
    ("start", "support@2", "--dry-run"), ("start", "support@2", "--note", "x"), ("status", "support"),
    ("LOADED",), ("SEEN",), ("status", "support"), ("list",), ("pause", "support", "--why", "y"),
    ("resume", "support"), ("start", "support@3"), ("abort", "support"), ("abort", "support"),
    ("start", "support@3"), ("start", "support@3", "--force"), ("explain", "support"),
    ("history", "support"), ("status", "support", "--watch", "--nope"), ("start", "raw@1"), ("list",),
)  # fmt: skip


def test_a_whole_session_prints_the_same_both_ways(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGNAME", "anonymous")  # as who comes without a key
    roots = []
    for name in ("direct", "served"):
        (tmp_path / name).mkdir()
        roots.append(make_root(tmp_path / name))
    with admin_server(roots[1].root) as url:
        terminals = (Terminal(("--root", str(roots[0].root))), Terminal(("--url", url)))
        for line in SCRIPT:
            if line == ("LOADED",):
                _ = [drive(root, EventType.LOADED) for root in roots]
                continue
            if line == ("SEEN",):
                for root in roots:
                    seen(root, stable=arm(900, failed=9), canary=arm(40, failed=4, begin=2000, score=0.5))
                continue
            for form in ((), ("--json",)):
                answers = [_masked(wardrobe("rollout", *line, *form)) for wardrobe in terminals]
                assert answers[0] == answers[1], (line, answers)


def _masked(done: Done) -> tuple[int, str, str]:
    """Leave out what is allowed to differ: the time and the rollout's id."""
    out, err = done.out, done.err
    masks = (
        (r'"(at|now|began|state_since|step_since|evidence_age)": [0-9.e-]+', r'"\1"'),
        (r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", "TIME"), (r"\d\d:\d\d:\d\d", "TIME"),
        (r"\b[0-9a-f]{16}\b", "ID"), (r"(\d+ of )?\d+(\.\d)? s\b", "N s"), (r" +", " "),
    )  # fmt: skip
    for pattern, word in masks:
        out, err = re.sub(pattern, word, out), re.sub(pattern, word, err)
    return done.code, out, err


def test_help_is_light_and_names_every_verb() -> None:
    code = (
        "import sys, json\n"
        "from registry.cli.main import run\n"
        "run(['rollout', '--help'])\n"
        "print(json.dumps([name for name in ('numpy', 'scipy', 'fastapi', 'httpx', 'rich')"
        " if name in sys.modules]))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    verbs = [
        "abort",
        "explain",
        "history",
        "list",
        "pause",
        "promote",
        "resume",
        "simulate",
        "start",
        "status",
    ]
    listed = [line.split()[0] for line in done.stdout.splitlines() if line.startswith("  ") and line.split()]
    assert [verb for verb in verbs if verb not in listed] == []
    assert json.loads(done.stdout.splitlines()[-1]) == []


def test_status_of_a_rollout_under_way_shows_both_arms(wardrobe: Terminal, registry: Registry) -> None:
    wardrobe.ok("rollout", "start", "support@2", "--policy", "fast")
    drive(registry, EventType.LOADED)
    seen(registry, stable=arm(300, failed=3), canary=arm(20, failed=1, begin=1000, score=0.9))
    text = wardrobe.ok("rollout", "status", "support").out
    assert "support@2  ramping at 10%" in text
    assert "● 10% ── ○ 50% ── ○ 100%" in text
    assert re.search(r"units +█+─+ +20 of 30", text)
    assert re.search(r"failed \(first of a unit\) +1.00% \(0.34-2.90%\)  3 of 300 +5.00% \(", text)
    assert "20 of 30 canary units at 10%" in text
    assert "r1: live" in text
    status: dict[str, Any] = wardrobe.ok("--json", "rollout", "status", "support").json
    assert status["arms"]["canary"]["errors"]["count"] == 1
    assert status["needed"] == 10
    assert status["now"] <= time.time()
