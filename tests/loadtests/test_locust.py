"""The locust file in a real locust: users, the shapes, a scenario, and our own report from its events.

In processes of their own: locust patches the sockets of whoever imports it.
"""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from loadtests.runner.scenario import Popularity
from loadtests.swarm.options import popularity_of
from loadtests.swarm.shapes import users_at
from registry.errors import UsageError
from tests.fakes.llm_server import llm_server
from tests.loadtests.making import play, scenario

pytestmark = pytest.mark.slow

FILE = Path(__file__).parents[2] / "loadtests" / "locustfile.py"


def locust(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).parent / "locust"), "-f", str(FILE), "--headless", "--only-summary"]
    return subprocess.run(
        [*command, *arguments], cwd=folder, capture_output=True, text=True, timeout=120, check=False
    )


def report(folder: Path) -> Any:
    return json.loads((folder / "report.json").read_text())


def test_users_of_several_adapters_are_told_by_adapter_and_arm(tmp_path: Path) -> None:
    names = ["slow-a", "pairs-b", "slow-c", "cut-d"]
    with llm_server(*names, arms={"slow-c": "canary"}) as (url, server):
        done = locust(
            tmp_path, "--host", url, "--adapters", ",".join(names), "--popularity", "distinct", "-u", "4",
            "-r", "4", "-t", "3s", "--csv", "run", "--html", "run.html", "--json-file", "run.json",
            "--report", "ours",
        )  # fmt: skip
    assert done.returncode == 1, done.stderr  # locust's own rule: `cut-d` failed
    with (tmp_path / "run_stats.csv").open() as file:
        table = list(csv.DictReader(file))
    rows = {(row["Type"], row["Name"]) for row in table}
    answers = [row for row in table if row["Type"] == "E2E"]
    (total,) = [row for row in table if row["Name"] == "Aggregated"]
    assert int(total["Request Count"]) == sum(int(row["Request Count"]) for row in answers)
    # Its times are whole answers', not milliseconds a token.
    assert float(total["Min Response Time"]) == min(float(row["Min Response Time"]) for row in answers)
    assert {("TTFT", "slow-c|canary"), ("TPOT", "pairs-b|stable"), ("E2E", "slow-a|stable")} <= rows
    assert ("E2E", "cut-d|stable") in rows
    assert (tmp_path / "run.html").exists()
    found = report(tmp_path / "ours")
    assert found["tool"] == "locust, closed loop"
    assert found["partial"] is False
    # Locust's CSV loses the end of a run; the raw events do not.
    whole = found["overall"]["requests"]
    assert whole == len((tmp_path / "ours/requests.jsonl").read_text().splitlines())
    # A user that is stopped may have been about to send.
    assert 0 <= whole - len(server.seen) <= 4
    assert {one["kind"] for one in found["errors"]} == {"cut"}
    by_adapter = {one["adapter"]: one["figures"] for one in found["adapters"]}
    assert by_adapter["pairs-b"]["distributions"]["chunks_per_token"]["mean"] == 0.5


def test_a_request_is_one_request_in_the_aggregated_row(tmp_path: Path) -> None:
    made = scenario(adapters={"names": ["slow"]}, max_tokens={"mean": 5}, duration_seconds=0.5)
    (tmp_path / "s.yaml").write_text(json.dumps(made.model_dump(mode="json")))
    with llm_server("slow") as (url, server):
        done = locust(tmp_path, "--host", url, "--scenario", "s.yaml")
    assert done.returncode == 0, done.stderr
    printed = done.stdout + done.stderr
    asked = len(server.seen)
    assert asked > 0
    for kind in ("E2E", "TTFT", "TPOT"):
        assert re.search(rf"^{kind} +slow\|stable +{asked} ", printed, re.MULTILINE), printed
    assert re.search(rf"^ +Aggregated +{asked} ", printed, re.MULTILINE), printed


def test_the_same_scenario_sends_the_same_requests_in_both_tools(tmp_path: Path) -> None:
    path = tmp_path / "both.yaml"
    made = scenario(
        name="both", adapters={"names": ["fast-a", "fast-b"], "popularity": {"zipf": 1.0}},
        cancel={"ratio": 0.2, "after_seconds": [5, 5]}, warmup_seconds=0.5,
        thresholds=[{"metric": "errors", "at_most": 0}],
    )  # fmt: skip
    path.write_text(json.dumps(made.model_dump(mode="json")))
    with llm_server("fast-a", "fast-b") as (url, server):
        done = locust(tmp_path, "--host", url, "--scenario", "both.yaml", "--report", "swarm")
        assert done.returncode == 0, done.stderr
        by_locust = sorted(json.dumps(body["messages"]) + body["model"] for body in server.seen)
        server.seen.clear()
        play(url, tmp_path / "runner", made)
        by_runner = sorted(json.dumps(body["messages"]) + body["model"] for body in server.seen)
    assert by_locust == by_runner
    assert len(by_locust) == 75
    ours, theirs = report(tmp_path / "runner"), report(tmp_path / "swarm")
    assert ours["scenario_digest"] == theirs["scenario_digest"]
    assert (ours["overall"]["ok"], theirs["overall"]["ok"]) == (50, 50)
    assert (theirs["tool"], theirs["passed"], theirs["partial"]) == ("locust", True, False)


def test_a_missed_threshold_of_the_scenario_is_locusts_exit_code(tmp_path: Path) -> None:
    made = scenario(thresholds=[{"metric": "e2e_ms.p50", "at_most": 0.0001}])
    (tmp_path / "s.yaml").write_text(json.dumps(made.model_dump(mode="json")))
    with llm_server("fast") as (url, _):
        done = locust(tmp_path, "--host", url, "--scenario", "s.yaml", "--report", "r")
    assert done.returncode == 1
    assert report(tmp_path / "r")["passed"] is False


def test_clients_that_leave_are_counted_apart_by_locust_too(tmp_path: Path) -> None:
    made = scenario(
        adapters={"names": ["slow"]}, max_tokens={"mean": 60}, duration_seconds=0.5,
        cancel={"ratio": 0.5, "after_seconds": [0.05, 0.1]},
    )  # fmt: skip
    (tmp_path / "s.yaml").write_text(json.dumps(made.model_dump(mode="json")))
    with llm_server("slow") as (url, server):
        done = locust(tmp_path, "--host", url, "--scenario", "s.yaml", "--report", "r")
    assert done.returncode == 0, done.stderr
    found = report(tmp_path / "r")["overall"]
    assert 0 < server.left <= found["cancelled"]  # one may leave before the server has seen it come
    assert found["errors"] == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "needs either --scenario or --adapters"),
        (("--adapters", "a", "--scenario", "smoke"), "needs either --scenario or --adapters"),
        (("--adapters", "a", "--popularity", "zip:1"), "'zip:1' is none of uniform, distinct"),
        (("--scenario", "nothing"), "nothing: there is no such scenario"),
    ],
)
def test_wrong_options_end_locust_with_a_sentence(
    tmp_path: Path, arguments: tuple[str, ...], words: str
) -> None:
    done = locust(tmp_path, "--host", "http://127.0.0.1:9", "-t", "1s", *arguments)
    assert done.returncode in {1, 2}
    assert words in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ("step", [2, 2, 4, 4, 6, 6, 8, 8, 10, 10]),
        ("spike", [2, 2, 2, 2, 10, 10, 2, 2, 2, 2]),
        ("soak", [1, 10, 10, 10, 10, 10, 10, 10, 10, 10]),
    ],
)
def test_a_shape_is_a_function_of_the_time(shape: str, expected: list[int]) -> None:
    assert [users_at(shape, second, 10, 10) for second in range(10)] == expected
    assert users_at(shape, 10, 10, 10) is None
    assert users_at(shape, 0, 10, 1) == 1


def test_a_shape_drives_the_users_of_a_real_locust(tmp_path: Path) -> None:
    with llm_server("fast") as (url, _):
        done = locust(
            tmp_path, "--host", url, "--adapters", "fast", "--shape", "step", "-u", "5", "-t", "5s",
            "--report", "r",
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    # A busy machine may sleep through a step; it never goes back.
    steps = [int(users) for users in re.findall(r"updating to (\d+) users", done.stderr)]
    assert steps == sorted(set(steps))
    assert len(steps) >= 2
    assert set(steps) <= {1, 2, 3, 4, 5}
    assert report(tmp_path / "r")["overall"]["ok"] > 0


def test_a_popularity_can_be_written_in_a_word() -> None:
    assert popularity_of("zipf:1.2") == Popularity(zipf=1.2)
    assert popularity_of("weights:3,1") == Popularity(weights=(3.0, 1.0))
    assert popularity_of("distinct") == Popularity(distinct=True)
    assert popularity_of("uniform") == Popularity()
    with pytest.raises(UsageError):
        popularity_of("weights:3,x")
