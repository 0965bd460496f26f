"""`wardrobe eval` from end to end: a root, a server, the files that are left and the attestations."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from registry.cli.main import run as wardrobe
from registry.store import Registry
from tests.fakes.adapters import make_adapter
from tests.fakes.base import make_base
from tests.fakes.openai_server import OpenAIServer, last, openai_server, write_suite
from train.evaluation import GateVerdict, gate_verdict
from train.evaluation.formats.suites import load_suite
from train.evaluation.grading.grades import ModelAnswer
from train.evaluation.journal import AnswerJournal
from train.evaluation.models.served import ServedModel
from train.evaluation.runner import EvaluatedArm

ITEMS = [
    {"prompt": f"{n} <b>?</b>", "expected": str(n), "tags": {"parity": "odd" if n % 2 else "even"}}
    for n in range(40)
]


def right(chat: list[dict[str, str]]) -> str:
    return last(chat).split()[0]


def half_right(chat: list[dict[str, str]]) -> str:
    number = int(last(chat).split()[0])
    return str(number) if number % 2 else "<script>alert(1)</script>"


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    registry = Registry.init(tmp_path / "root", make_base(tmp_path / "base"), name="tiny")
    for seed in (1, 2):
        registry.publish("support", make_adapter(tmp_path / f"adapter-{seed}", seed=seed), who="tester")
    return registry


@pytest.fixture
def server(registry: Registry) -> Iterator[tuple[str, OpenAIServer]]:
    digests = {f"support@{n}": registry.version("support", n).digest for n in (1, 2)}
    models = {"tiny": half_right, "support@1": half_right, "support@2": right}
    with openai_server(models, digests=digests) as (url, running):
        yield url, running


def call(registry: Registry, url: str, *arguments: str) -> int:
    return wardrobe(["--root", str(registry.root), "--url", url, "eval", *arguments])


def test_run_compares_stores_and_reports(
    tmp_path: Path,
    registry: Registry,
    server: tuple[str, OpenAIServer],
    capsys: pytest.CaptureFixture[str],
) -> None:
    suite = write_suite(tmp_path / "suite", ITEMS, slices=["parity"], shots=ITEMS[:2])
    out = tmp_path / "out"
    arguments = [
        "run",
        str(suite),
        "--model",
        "support@2",
        "--against",
        "base",
        "--shots",
        "2",
        "--replicate",
    ]
    assert call(registry, server[0], *arguments, "--out", str(out), "--json") == 0
    printed = json.loads(capsys.readouterr().out)
    figures = {arm["label"]: arm["figures"]["exact"]["all"]["value"] for arm in printed["arms"]}
    assert figures == {"support@2": 1.0, "base": 0.5, "base +2 shots": 0.5, "support@2 again": 1.0}
    base = printed["arms"][1]["figures"]["exact"]
    assert (base["parity=even"]["value"], base["parity=odd"]["value"]) == (0.0, 1.0)
    assert base["all"]["method"] == "wilson"
    assert server[1].asked == {"support@2": 80, "tiny": 80}
    (stored,) = registry.attestations("support", 2, "evaluation")
    assert stored.body["suite_sha256"] == printed["suite_sha256"]
    assert stored.body["items_sha256"] == printed["items_sha256"]
    assert len((out / "items.jsonl").read_text().splitlines()) == 40
    assert call(registry, server[0], *arguments, "--out", str(out)) == 1
    assert "exists already" in capsys.readouterr().err


def test_report_reads_the_folder_back_and_answers_are_no_markup(
    tmp_path: Path,
    registry: Registry,
    server: tuple[str, OpenAIServer],
    capsys: pytest.CaptureFixture[str],
) -> None:
    suite = write_suite(tmp_path / "suite", ITEMS)
    out, html = tmp_path / "out", tmp_path / "page.html"
    assert call(registry, server[0], "run", str(suite), "--model", "base", "--out", str(out), "--json") == 0
    before = json.loads(capsys.readouterr().out)
    assert wardrobe(["eval", "report", str(out), "--html", str(html), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == before
    assert html.read_text() == (out / "report.html").read_text()
    assert "<script>" not in html.read_text()
    assert "&lt;script&gt;" in html.read_text()
    assert wardrobe(["eval", "report", str(out)]) == 0
    assert "0.500" in capsys.readouterr().out
    (out / "items.jsonl").write_text((out / "items.jsonl").read_text().replace("script", "skript"))
    assert wardrobe(["eval", "report", str(out)]) == 2
    assert "was changed after the run" in capsys.readouterr().err


def test_a_gate_passes_is_stored_and_is_read_by_whoever_requires_it(
    tmp_path: Path,
    registry: Registry,
    server: tuple[str, OpenAIServer],
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_suite(tmp_path / "suite", ITEMS)
    write_suite(tmp_path / "suite", ITEMS[:30], name="skill")
    goal = tmp_path / "suite" / "goal.yaml"
    goal.write_text("suite: task.yaml\nminimum_gain: 0.1\nguards: [{suite: skill.yaml, margin: 0.2}]\n")
    out = tmp_path / "gate"
    assert (
        call(registry, server[0], "gate", str(goal), "--model", "support@2", "--out", str(out), "--json") == 0
    )
    printed = json.loads(capsys.readouterr().out)
    assert (printed["verdict"], printed["replaces"], len(printed["checks"])) == ("pass", 1, 6)
    assert {path.name for path in out.iterdir()} == {"task", "skill", "gate.json", "gate.html"}
    state = gate_verdict(
        registry.attestations("support", 2),
        digest=registry.version("support", 2).digest,
        goal_sha256=printed["goal_sha256"],
        replaces=1,
    )
    assert state.verdict is GateVerdict.PASS
    assert len(registry.attestations("support", 2, "evaluation")) == 2


def test_a_gate_that_fails_or_cannot_tell_exits_with_one(
    tmp_path: Path,
    registry: Registry,
    server: tuple[str, OpenAIServer],
    capsys: pytest.CaptureFixture[str],
) -> None:
    suite = write_suite(tmp_path / "suite", ITEMS)
    goal = tmp_path / "goal.yaml"
    goal.write_text(f"goal: {{suite: {suite}, minimum_gain: 0.3}}\n")
    options = ["gate", str(goal), "--replaces", "support@2", "--model", "support@1", "--out"]
    assert call(registry, server[0], *options, str(tmp_path / "a")) == 1
    assert "support@1: FAIL" in capsys.readouterr().out
    goal.write_text(f"goal: {{suite: {suite}}}\n")
    small = [*options[:3], "base", "--model", "support@1", "--out"]
    assert call(registry, server[0], *small, str(tmp_path / "b")) == 2
    assert "names no version number" in capsys.readouterr().err
    assert (
        call(registry, server[0], "gate", str(goal), "--model", "support@1", "--out", str(tmp_path / "c"))
        == 1
    )
    assert "support@1: cannot tell (" in capsys.readouterr().out
    assert gate_verdict(registry.attestations("support", 1)).verdict is GateVerdict.CANNOT_TELL


def test_without_a_root_a_url_is_enough_and_nothing_is_stored(
    tmp_path: Path, server: tuple[str, OpenAIServer], capsys: pytest.CaptureFixture[str]
) -> None:
    suite = write_suite(tmp_path / "suite", ITEMS)
    options = ["--root", str(tmp_path / "none"), "--url", server[0], "eval"]
    run = [*options, "run", str(suite), "--model", "base", "--limit", "4", "--out", str(tmp_path / "out")]
    assert wardrobe(run) == 0
    assert "no root here" in capsys.readouterr().err
    assert server[1].asked == {"tiny": 4}
    assert wardrobe([*options, "gate", str(suite), "--model", "support@2"]) == 2


def test_answers_that_lie_beside_the_folder_are_not_asked_again(
    tmp_path: Path,
    registry: Registry,
    server: tuple[str, OpenAIServer],
    capsys: pytest.CaptureFixture[str],
) -> None:
    suite = load_suite(write_suite(tmp_path / "suite", ITEMS))
    out = tmp_path / "out"
    digest = registry.version("support", 2).digest
    arm = EvaluatedArm("support@2", ServedModel(server[0], "support@2"), 0, digest)
    for index in range(11):
        AnswerJournal(out).add(suite, arm, index, ModelAnswer(str(index)))
    path = str(tmp_path / "suite" / "task.yaml")
    assert call(registry, server[0], "run", path, "--model", "support@2", "--out", str(out)) == 0
    assert "going on with 11 answers of an interrupted run" in capsys.readouterr().err
    assert server[1].asked == {"support@2": 29}
    assert {path.name for path in tmp_path.glob("out*")} == {"out"}


def test_questions_without_an_answer_end_with_one(
    tmp_path: Path,
    registry: Registry,
    server: tuple[str, OpenAIServer],
    capsys: pytest.CaptureFixture[str],
) -> None:
    suite = write_suite(tmp_path / "suite", ITEMS[:3])
    server[1].failures[:] = [400]
    out = str(tmp_path / "out")
    assert (
        call(registry, server[0], "run", str(suite), "--model", "base", "--concurrency", "1", "--out", out)
        == 1
    )
    assert "base: 1 questions have no answer" in capsys.readouterr().err


def test_mistakes_are_named_before_anything_is_asked(
    tmp_path: Path, registry: Registry, capsys: pytest.CaptureFixture[str]
) -> None:
    suite = str(write_suite(tmp_path / "suite", ITEMS))
    url = "http://127.0.0.1:1"
    assert call(registry, url, "run", "refusal", "--model", "base") == 2
    assert "did you mean refusals?" in capsys.readouterr().err
    assert call(registry, url, "run", suite, "--model", "support@9") == 1
    assert "support@9" in capsys.readouterr().err
    assert call(registry, url, "run", suite, "--model", "support") == 2
    assert "write NAME@N" in capsys.readouterr().err
    assert call(registry, url, "run", suite, "--model", "base", "--against", "base") == 2
    assert wardrobe(["--root", str(registry.root), "eval", "run", suite, "--model", "base"]) == 2
    assert "start `wardrobe serve`, give --url" in capsys.readouterr().err


def test_the_harness_gets_the_right_command(
    registry: Registry, server: tuple[str, OpenAIServer], capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["harness", "--model", "support@2", "--tasks", "arc_easy", "--dry-run", "--", "--limit", "5"]
    assert call(registry, server[0], *arguments) == 0
    line = capsys.readouterr().out
    assert f"model=support@2,base_url={server[0]}/v1/completions" in line
    assert line.rstrip().endswith("--tasks arc_easy --limit 5")


def test_list_names_the_suites_and_what_they_need(capsys: pytest.CaptureFixture[str]) -> None:
    assert wardrobe(["eval", "list", "--json"]) == 0
    rows: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
    names = [row["name"] for row in rows]
    assert names[:3] == ["perturbations", "refusals", "mmlu-dev"]
    assert len(names) == 7


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys\nfrom registry.cli.main import run\nrun(['eval', 'gate', '--help'])\n"
        "print([name for name in ('numpy', 'scipy', 'torch', 'httpx', 'pydantic') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
