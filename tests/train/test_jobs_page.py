"""The page of a job is whole in every state, shows what was measured, and stays small for a long run."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from pydantic import JsonValue

from registry.cli.main import run as wardrobe
from registry.store import Registry
from tests.fakes.adapters import make_adapter
from tests.fakes.base import base_record, make_base
from tests.outline import assert_harmless
from train.config import TrainConfig
from train.jobs.drawing import spread
from train.jobs.plan import make_plan
from train.jobs.records import RunState
from train.jobs.store import Job, Jobs

HOSTILE = "</pre><script>alert(1)</script>\u202e"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return Registry.init(tmp_path / "root", make_base(tmp_path / "base"), name="tiny").root


def make_job(root: Path, **changes: object) -> Job:
    asked = TrainConfig.model_validate({"name": "support", "data": {"train": "rows.jsonl"}, **changes})
    plan = make_plan(asked, base_record(root.parent / "base"), {"train": "ab"})
    document: dict[str, JsonValue] = asked.model_dump(mode="json", by_alias=True)
    return Jobs(root).create("support", "supervised", "tiny", document, plan, who=HOSTILE)


def page_of(root: Path, job: Job) -> str:
    target = root.parent / "out" / "job.html"
    assert wardrobe(["--root", str(root), "train", "show", job.id, "--html", str(target)]) == 0
    page = target.read_text()
    assert_harmless(page)
    return page


def test_a_run_that_succeeded_shows_curves_evaluations_answers_and_the_step_taken(root: Path) -> None:
    job = make_job(root, evaluation={"samples": [HOSTILE]})
    job.begin()
    for step in range(1, 13):
        job.advance(
            step, 12, step * 40, {"step": step, "loss": 3 / step, "grad_norm": 1.0 + step, "odd": step}
        )
        if step % 4 == 0:
            line: dict[str, JsonValue] = {
                "step": step, "eval_loss": 2 / step, "suite": "task", "scores": {"exact": step / 12},
            }  # fmt: skip
            job.evaluated(line, [{"step": step, "prompt": HOSTILE, "answer": f"{HOSTILE} at {step}"}])
    summary = {"taken": 8, "why": "the best by exact", "eval_loss": 0.25, "warnings": [HOSTILE]}
    job.end(RunState.SUCCEEDED, summary=summary)
    page = page_of(root, job)
    for text in ("Loss by step", "held-out", "Gradient norm", "odd", "exact, of the suite", "taken: step 8"):
        assert text in page
    assert page.count(">taken<") == 2  # the row of the table and the mark in the plot
    assert "2 earlier answers" in page
    assert page.index("at 12</pre>") < page.index("at 4</pre>")
    assert "max_grad_norm: 1.0" in page


@pytest.mark.parametrize("state", [RunState.FAILED, RunState.INTERRUPTED, RunState.RUNNING])
def test_a_run_in_any_state_with_and_without_steps_has_a_page(root: Path, state: RunState) -> None:
    empty, some = make_job(root), make_job(root)
    for job in (empty, some):
        job.begin()
    some.advance(1, 9, 40, {"step": 1, "loss": 2.0})
    some.flush()
    if state is not RunState.RUNNING:
        (some.checkpoints / "1").mkdir(parents=True)
        for job in (empty, some):
            job.end(state, error=HOSTILE)
    said = page_of(root, empty)
    assert "No step was logged yet." in said
    assert "Verdicts" not in said
    assert state.value in said
    page = page_of(root, some)
    assert "Loss by step" in page
    assert ("goes on from step 1" in page) is (state is RunState.INTERRUPTED)
    for job in (empty, some):
        job.end(RunState.FAILED)


def test_what_is_no_number_is_told_and_breaks_nothing(root: Path) -> None:
    job = make_job(root)
    job.begin()
    job.advance(1, 9, 40, {"step": 1, "loss": 2.0, "grad_norm": None})
    job.advance(2, 9, 40, {"step": 2, "loss": math.nan, "grad_norm": 1.0})
    job.end(RunState.FAILED, error="the loss is not a number")
    with (job.folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": "x", "loss": [1]}\n{"loss": 1.0}\n{"step": 3, "loss": 1e999}\n{"torn')
        file.write(f'\n{{"step": 4, "loss": {"9" * 400}, "{HOSTILE[:5]}": 1}}\n')
        file.write('{"kind": "evaluation", "step": 4, "eval_loss": "x", "scores": 3}\n')
    page = page_of(root, job)
    assert "training is not a finite number at 3 steps, first at step 2." in page
    assert "grad_norm is not a finite number at 1 step, first at step 1." in page


def test_the_page_of_100_000_steps_stays_under_a_megabyte(root: Path) -> None:
    job = make_job(root)
    job.begin()
    count = 100_000
    job.end(RunState.SUCCEEDED, step=count, steps=count, summary={"taken": 31_500})
    lines = [f'{{"step": {n}, "loss": {1 + 1 / n}, "grad_norm": {n % 7}}}' for n in range(1, count + 1)]
    lines += [
        f'{{"kind": "evaluation", "step": {n}, "eval_loss": 1.0, "scores": {{"a": 1}}}}'
        for n in range(500, count + 1, 500)
    ]
    (job.folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    answers = (json.dumps({"step": n, "prompt": "P", "answer": "A" * 9_000}) for n in range(500))
    (job.folder / "samples.jsonl").write_text("\n".join(answers))
    page = page_of(root, job)
    assert len(page) < 200_000
    assert "41 of 200 evaluations" in page
    assert ">31,500<" in page
    assert "12 earlier answers of 499" in page


def test_very_many_measurements_are_named_and_not_all_drawn(root: Path) -> None:
    job = make_job(root)
    job.begin()
    many: dict[str, JsonValue] = {f"metric_{n}": n for n in range(40)}
    job.advance(1, 1, 40, {"step": 1, "loss": 2.0, **many})
    job.end(RunState.SUCCEEDED)
    page = page_of(root, job)
    assert page.count("<figure>") == 25
    assert "Also measured, in metrics.jsonl: metric_24" in page


def succeeded(root: Path, tmp_path: Path) -> tuple[Job, Registry]:
    registry = Registry.open(root)
    registry.publish("support", make_adapter(tmp_path / "stable", seed=2), who="t")
    counts = {"rows": 1_234, "tokens": 9_876, "learnt_tokens": 55}
    source: JsonValue = {"path": HOSTILE, "sha256": "ab" * 32, **counts}
    facts: dict[str, JsonValue] = {"data": {"train": source}, "mixture": {"train": {"rows": 77}}}
    registry.publish("support", make_adapter(tmp_path / "adapter", seed=1), who="t", lineage=facts)
    job = make_job(root)
    job.begin()
    job.end(RunState.SUCCEEDED, version=2)
    return job, registry


def test_data_and_verdicts_are_those_of_the_version(root: Path, tmp_path: Path) -> None:
    job, registry = succeeded(root, tmp_path)
    assert "None yet: wardrobe eval gate" in page_of(root, job)
    gate: dict[str, JsonValue] = {"verdict": "cannot_tell", "sentence": f"too few {HOSTILE}"}
    registry.attest("support", 2, "gate", gate, who="ann")
    registry.attest("support", 2, "parity", {"passed": True, "sentence": "agrees"}, who="ann")
    whole: JsonValue = {"value": 0.5, "low": 0.25, "high": 0.75, "items": 9}
    arm: dict[str, JsonValue] = {"figures": {"exact": {"all": whole}}}
    registry.attest("support", 2, "evaluation", {"suite": "task", "arm": arm}, who="ann")
    page = page_of(root, job)
    for text in ("1,234", "9,876", ">77<", "abababababab", "cannot tell", "agrees"):
        assert text in page
    assert "task: exact 0.500 (0.250 to 0.750) of 9 items" in page


def test_a_version_that_is_gone_barred_or_damaged_is_told_on_the_page(root: Path, tmp_path: Path) -> None:
    job, registry = succeeded(root, tmp_path)
    registry.quarantine("support", 2, "leaks names", who="ann")
    assert "support@2 is in quarantine: leaks names" in page_of(root, job)
    registry.attest("support", 2, "gate", {"verdict": "pass"}, who="ann")
    (root / "adapters/support/attestations/2/gate-1.json").write_text("{")
    assert "gate-1.json" in page_of(root, job)
    registry.delete("support", 2, who="ann")
    assert "support@2 was deleted" in page_of(root, job)


def test_show_refuses_a_folder_as_its_page(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    job = make_job(root)
    job.begin()
    job.end(RunState.FAILED)
    assert wardrobe(["--root", str(root), "train", "show", job.id, "--html", str(root)]) == 2
    assert "is a folder" in capsys.readouterr().err


def test_an_even_choice_keeps_the_first_and_the_last() -> None:
    assert spread(range(5), 9) == [0, 1, 2, 3, 4]
    assert spread(range(100), 4) == [0, 33, 66, 99]
