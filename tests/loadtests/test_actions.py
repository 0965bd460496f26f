"""What a run does to a server while it loads it: the real router and admin API over a fake engine."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from loadtests.runner.plan import ArrivalPlan
from loadtests.runner.results.documents import Report
from loadtests.runner.run import run as run_plan
from loadtests.runner.target import ServerTarget
from registry.entries.keys import KeyStore
from registry.entries.rights import Scope
from registry.errors import Denied, UsageError
from tests.fakes.llm_server import llm_server
from tests.fakes.served import Served, make_root, publish, serve, wait_until
from tests.loadtests.making import play, scenario


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    registry = make_root(tmp_path)
    for seed in (1, 2):
        publish(registry, tmp_path, "support", seed)
    with serve(registry, tmp_path) as found:
        yield found


def run(
    served: Served, folder: Path, *actions: dict[str, Any], seconds: float = 1.5, **changes: Any
) -> Report:
    made = scenario(
        adapters={"names": ["support"]},
        arrival={"process": "constant", "rate": 20},
        duration_seconds=seconds,
        actions=actions,
        **changes,
    )
    report, _ = play(str(served.client.base_url), folder, made)
    return report


def test_stable_is_swapped_back_and_forth_and_both_versions_answer(served: Served, tmp_path: Path) -> None:
    swap = {"action": "swap", "adapter": "support", "every_seconds": 0.4}
    report = run(served, tmp_path / "run", swap)
    details = [one.detail for one in report.events]
    assert details[:3] == ["support@2", "support@1", "support@2"]
    assert not any(one.error for one in report.events)
    assert {one.version for one in report.versions} == {"support@1", "support@2"}
    assert (report.overall.errors, report.overall.wrong_adapter) == (0, 0)


def test_new_versions_are_registered_and_old_ones_of_the_run_deleted(served: Served, tmp_path: Path) -> None:
    register = {"action": "register", "adapter": "support", "every_seconds": 0.25, "keep": 2}
    report = run(served, tmp_path / "run", register, seconds=2.5)
    made = [one.detail for one in report.events]
    assert made[:4] == ["support@3", "support@4", "support@5", "support@6"]
    numbers = [one.number for one in served.registry.versions("support")]
    assert numbers[:2] == [1, 2]
    assert len(numbers) == 4
    assert report.overall.errors == 0


def test_a_rollout_begins_during_the_load_and_is_followed_to_its_end(served: Served, tmp_path: Path) -> None:
    report = run(
        served,
        tmp_path / "run",
        {"action": "rollout", "adapter": "support", "version": 2, "at_seconds": 0.2},
        {"action": "abort", "adapter": "support", "at_seconds": 1.2},
        seconds=2.5,
    )
    assert [(one.action, one.error) for one in report.events] == [("rollout", ""), ("abort", "")]
    (rollout,) = report.rollouts
    assert (rollout.canary, rollout.state) == ("support@2", "rolled_back")
    assert rollout.seconds_to_rolled_back is not None
    assert rollout.changes[-1].weight == 0


def test_an_action_that_fails_is_told_and_ends_nothing(served: Served, tmp_path: Path) -> None:
    report = run(
        served,
        tmp_path / "run",
        {"action": "swap", "adapter": "nobody", "at_seconds": 0.1},
        {"action": "command", "run": [sys.executable, "-c", "raise SystemExit('no')"], "at_seconds": 0.1},
        {"action": "kill_replica", "at_seconds": 0.1},
        seconds=1.0,
    )
    by_action = {one.action: one.error for one in report.events}
    assert "nobody" in by_action["swap"]
    assert "exit 1: no" in by_action["command"]
    assert "none of 1 live replicas is a process of this machine" in by_action["kill_replica"]
    assert report.overall.errors == 0


def test_the_process_of_a_replica_on_this_machine_is_killed(tmp_path: Path) -> None:
    registry = make_root(tmp_path)
    publish(registry, tmp_path, "support", 1)
    sleeper = [sys.executable, "-c", "import time; time.sleep(600)", "serve.engine.child"]
    with serve(registry, tmp_path) as served, subprocess.Popen(sleeper) as victim:
        beat = served.registry.replicas()[0][0]
        served.registry.beat(replace(beat, replica="r2", pid=victim.pid))
        report = run(served, tmp_path / "run", {"action": "kill_replica", "at_seconds": 0.1}, seconds=0.5)
        assert victim.wait(10) == -signal.SIGKILL
    assert [(one.detail, one.error) for one in report.events] == [(f"r2, process {victim.pid}", "")]


@contextmanager
def sleeping() -> Iterator[subprocess.Popen[bytes]]:
    """A process that looks like a replica's server, and does nothing."""
    command = [sys.executable, "-c", "import time; time.sleep(600)", "serve.engine.child"]
    with subprocess.Popen(command) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize(("comes_back", "said"), [(True, ""), (False, "r2: is not ready again after 1 s")])
def test_a_kill_waits_until_the_replica_is_ready_again(tmp_path: Path, comes_back: bool, said: str) -> None:
    registry = make_root(tmp_path)
    publish(registry, tmp_path, "support", 1)
    kill = {
        "action": "kill_replica",
        "process": "engine",
        "at_seconds": 0.1,
        "back_seconds": 20 if comes_back else 1,
    }
    with serve(registry, tmp_path) as served, sleeping() as victim, sleeping() as successor:
        beat = replace(served.registry.replicas()[0][0], replica="r2", pid=victim.pid)
        served.registry.beat(beat)

        def follow() -> None:
            victim.wait()
            served.registry.beat(replace(beat, pid=successor.pid))

        if comes_back:
            Thread(target=follow).start()
        bar = {"metric": "actions.failed", "at_most": 0}
        report = run(served, tmp_path / "run", kill, seconds=1, thresholds=[bar])
        assert victim.wait(10) == -signal.SIGKILL
    assert report.events[0].error.startswith(said)
    assert bool(report.events[0].error) is not comes_back, report.events[0].error
    assert report.passed is comes_back


def test_answers_that_lack_the_text_of_their_version_are_counted_and_copies_speak_as_their_source(
    served: Served, tmp_path: Path
) -> None:
    register = {"action": "register", "adapter": "support", "version": 2, "at_seconds": 0.1}
    swap = {"action": "swap", "adapter": "support", "at_seconds": 0.6}
    bar = {"metric": "wrong_text", "at_most": 0}
    for folder, second, passed in (("right", "", True), ("wrong", "nobody says this", False)):
        expect = {"support@1": "", "support@2": second}
        report = run(served, tmp_path / folder, register, swap, seconds=2.5, expect=expect, thresholds=[bar])
        assert [one.error for one in report.events] == ["", ""]
        assert (report.overall.wrong_text == 0, report.passed) == (passed, passed)
        served.registry.set_alias("support", "stable", 1, who="t")


def test_a_command_of_ones_own_is_run_with_its_arguments(served: Served, tmp_path: Path) -> None:
    command = [sys.executable, "-c", "print('done ' + __import__('sys').argv[1])", "a b"]
    report = run(
        served, tmp_path / "run", {"action": "command", "run": command, "at_seconds": 0.1}, seconds=1
    )
    assert [(one.detail, one.error) for one in report.events] == [("done a b", "")]


def test_an_action_that_outlasts_the_traffic_is_in_the_report_with_its_end(
    served: Served, tmp_path: Path
) -> None:
    command = [sys.executable, "-c", "import time; time.sleep(2); print('late')"]
    report = run(
        served, tmp_path / "run", {"action": "command", "run": command, "at_seconds": 0.1}, seconds=0.5
    )
    assert [(one.detail, one.error) for one in report.events] == [("late", "")]


def test_a_server_without_an_admin_api_is_refused_unless_another_is_named(
    served: Served, tmp_path: Path
) -> None:
    made = scenario(actions=[{"action": "kill_replica", "at_seconds": 0.1}])
    admin = str(served.client.base_url)
    with llm_server("fast") as (url, server):
        with pytest.raises(UsageError, match=r"has no admin API.*--admin-url"):
            run_plan(ArrivalPlan(made), ServerTarget(url), tmp_path)
        assert server.seen == []
        done = run_plan(ArrivalPlan(made), ServerTarget(url, admin_url=admin), tmp_path)
    assert done.report.overall.ok == 50
    assert "none of 1 live replicas" in done.report.events[0].error


def test_a_scenario_of_commands_alone_needs_no_admin_api(tmp_path: Path) -> None:
    command = {"action": "command", "run": [sys.executable, "-c", "print('done')"], "at_seconds": 0.1}
    with llm_server("fast") as (url, _):
        report, _ = play(url, tmp_path, scenario(actions=[command]))
    assert [(one.detail, one.error) for one in report.events] == [("done", "")]


def test_ratings_go_to_the_server_by_the_arm_that_answered(served: Served, tmp_path: Path) -> None:
    report = run(served, tmp_path / "run", feedback={"ratio": 1.0, "scores": {"stable": 0.9}}, seconds=0.5)
    assert report.feedback_sent == report.overall.ok == 10


def test_a_server_with_keys_refuses_a_run_without_one_before_its_first_request(
    served: Served, tmp_path: Path
) -> None:
    KeyStore(served.registry.root).create((Scope.INFER,), who="tester")
    wait_until(lambda: served.runtime.keys.enabled, "keys are in force")
    with pytest.raises(Denied, match="answered 401"):
        run(served, tmp_path / "run")
