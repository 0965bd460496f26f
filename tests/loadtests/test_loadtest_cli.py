"""`wardrobe loadtest`: exit codes, what is printed, wrong input, and Ctrl-C."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fakes.llm_server import LLMServer, llm_server
from tests.fakes.served import wait_until
from tests.fakes.terminal import Terminal

SHORT = (
    "--set", "warmup_seconds=0.2", "--set", "duration_seconds=1", "--set", "arrival.rate=30",
    "--set", "saturation_ms=30000", "--set", "adapters.names=[fast]",
)  # fmt: skip


def test_a_run_that_holds_its_bars_exits_0_and_leaves_its_folder(tmp_path: Path) -> None:
    with llm_server("fast") as (url, _):
        done = Terminal()("loadtest", "run", "smoke", "--url", url, "--out", tmp_path / "r", *SHORT)
    assert done.code == 0, done.err
    assert "PASSED: all 5 checks" in done.out
    assert f"report: {tmp_path / 'r' / 'report.html'}" in done.err
    assert (tmp_path / "r" / "junit.xml").exists()


def test_a_missed_bar_exits_1_and_is_named_in_the_json(tmp_path: Path) -> None:
    bar = ("--set", "thresholds=[{metric: ttft_ms.p50, at_most: 0.0001}]")
    with llm_server("fast") as (url, _):
        options = ("--url", f"{url}/v1", "--out", tmp_path / "r", "--json")
        done = Terminal()("loadtest", "run", "smoke", *options, *SHORT, *bar)
    assert done.code == 1
    assert done.json["passed"] is False
    assert [one["name"] for one in done.json["checks"] if not one["passed"]] == ["ttft_ms.p50"]


def test_two_runs_are_compared_and_a_bar_decides_the_exit_code(tmp_path: Path) -> None:
    terminal = Terminal()
    with llm_server("fast", "slow") as (url, _):
        for name, model in (("a", "fast"), ("b", "fast"), ("c", "slow")):
            changes = (*SHORT[:-1], f"adapters.names=[{model}]")
            terminal.ok("loadtest", "run", "smoke", "--url", url, "--out", tmp_path / name, *changes)
    same = terminal.ok("loadtest", "compare", tmp_path / "a", tmp_path / "b", "--json")
    assert same.json["comparable"] is True
    assert {one["metric"] for one in same.json["ratios"]} >= {"ttft_ms.p50", "e2e_ms.p95", "errors.rate"}
    other = terminal("loadtest", "compare", tmp_path / "a", tmp_path / "c", "--fail-on", "ttft_ms.p50>1.5")
    assert other.code == 1
    assert "warning: not comparable: other traffic: adapters differ" in other.err
    assert "FAILED ttft_ms.p50" in other.out


def test_the_packaged_scenarios_are_listed() -> None:
    listed = Terminal().ok("loadtest", "list", "--json").json
    assert len(listed) == 9
    metrics = Terminal().ok("loadtest", "list", "--metrics", "--json").json
    assert "ttft_ms.p95" in metrics
    assert "goodput.rate  " in Terminal().ok("loadtest", "list", "--metrics").out
    text = Terminal().ok("loadtest", "list").out
    assert all(one["name"] in text for one in listed)


def test_a_dry_run_says_what_would_be_sent_and_needs_no_server() -> None:
    done = Terminal().ok("loadtest", "run", "swap-churn", "--dry-run")
    assert "actions     swap churn-000, register churn-001" in done.out


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("smok",), 1, "smok: there is no such scenario; did you mean smoke?"),
        (("smoke", "--set", "arrival.rte=3"), 2, "unknown setting arrival.rte; did you mean arrival.rate?"),
        (("smoke", "--set", "duration_seconds=0.01"), 2, "none of them after the warm-up"),
        (("smoke", "--url", "nonsense"), 2, "--url: 'nonsense' is not an address"),
        (("smoke", "--url", "http://127.0.0.1:9"), 1, "http://127.0.0.1:9: cannot be reached"),
        (("smoke", "--root", "nowhere"), 2, "give --url http://host:port"),
    ],
)
def test_wrong_input_is_answered_with_its_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], code: int, words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    done = Terminal()("loadtest", "run", *arguments)
    assert (done.code, words in done.err) == (code, True), done.err
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_holds_something_is_not_written_into(tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("mine")
    with llm_server("fast") as (url, server):
        done = Terminal()("loadtest", "run", "smoke", "--url", url, "--out", tmp_path, *SHORT)
        assert server.seen == []
    assert done.code == 1
    assert "is there already and not empty" in done.err


def interrupted(url: str, server: LLMServer, folder: Path, model: str, number: int) -> tuple[int, str, str]:
    """Start a long run in a process of its own, send it a signal under load, and return how it ended."""
    command = [str(Path(sys.executable).parent / "wardrobe"), "loadtest", "run", "smoke", "--url", url]
    command += [
        "--out",
        str(folder),
        *SHORT[:-1],
        f"adapters.names=[{model}]",
        "--set",
        "duration_seconds=600",
    ]
    process = subprocess.Popen(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    wait_until(lambda: len(server.seen) > 20, "requests arrive", seconds=60)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_leaves_a_report_that_is_marked_partial(tmp_path: Path, number: int) -> None:
    with llm_server("fast") as (url, server):
        code, out, err = interrupted(url, server, tmp_path / "r", "fast", number)
    assert (code, "Traceback" in err) == (130, False), err
    assert "PARTIAL: the run was interrupted" in out
    report = json.loads((tmp_path / "r" / "report.json").read_text())
    assert (report["partial"], report["passed"]) == (True, False)
    assert report["overall"]["ok"] + report["warmup"]["ok"] > 10


def test_what_was_in_flight_at_the_interruption_is_no_error(tmp_path: Path) -> None:
    with llm_server("hang") as (url, server):
        interrupted(url, server, tmp_path / "r", "hang", signal.SIGINT)
    report = json.loads((tmp_path / "r" / "report.json").read_text())
    assert report["overall"]["unfinished"] > 0
    assert report["overall"]["errors"] == 0


def test_the_command_imports_nothing_heavy_until_it_runs() -> None:
    heavy = "{'aiohttp', 'locust', 'gevent', 'numpy', 'httpx'}"
    code = (
        f"import sys, loadtests.cli; found = {heavy} & set(sys.modules); sys.exit(str(found) if found else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
