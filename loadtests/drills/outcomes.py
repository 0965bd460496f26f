"""What the scenarios' drill found: one row of figures per scenario, kept as JSON and as a table.

Invariant: scenarios that were not run this time keep the row they had.
"""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from loadtests.bench.results import FOLDER
from loadtests.runner.results.documents import Report, RolloutDocument
from loadtests.runner.results.tables import number, percent, verdict

JSON_FILE = FOLDER / "drill-scenarios.json"
TABLE_FILE = FOLDER / "drill-scenarios.md"
_COLUMNS = (
    "scenario", "seconds", "requests", "errors", "goodput", "TTFT p50", "p95", "per token p50", "answer p50",
    "p95", "tokens/s", "lag", "checks",
)  # fmt: skip
_HEAD = """\
# The packaged scenarios on a real server

`make drill-scenarios`: vLLM with SmolLM2-135M on the processor, random adapters of rank 8, the load
generator on the same machine. Times are in milliseconds and count from when a request was due; *seconds* are
the measured ones; *goodput* is the share that kept the scenario's SLO; *lag* is the generator's own delay
(p99, or p95 of fewer than 100 requests). A *load* above the machine's cores means that other work made every
time longer: these figures show that the scenarios run, `serving.md` shows what the server can do.
"""


@dataclass(frozen=True, slots=True)
class ScenarioResult:
    """One scenario's run. `changed` is what the drill set otherwise than the scenario's file.

    `load_before` is the machine's load average when the run began, over a minute: what else it was doing.
    """

    scenario: str
    passed: bool
    verdict: str
    at: str
    machine: str
    load_before: float
    changed: list[str]
    seconds: float
    requests: int
    errors: int
    cancelled: int
    wrong_adapter: int
    goodput: float | None
    output_tokens_per_second: float | None
    lag_ms: float | None
    server: str
    milliseconds: dict[str, dict[str, float | None]]
    adapters: int
    checks: list[str]
    error_kinds: dict[str, int]
    rollouts: list[dict[str, Any]]
    actions: dict[str, int]
    failed_actions: list[str]


def outcome(name: str, report: Report, changed: Sequence[str], load_before: float) -> ScenarioResult:
    """Return the summary of one run."""
    overall = report.overall
    spreads = {
        metric: {key: None if value is None else round(value, 1) for key, value in spread}
        for metric, spread in overall.distributions.items()
        if spread is not None and metric.endswith("_ms")
    }
    done = [one.action for one in report.events if not one.error]
    return ScenarioResult(
        scenario=name,
        passed=report.passed,
        verdict=verdict(report),
        at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(report.started_at)),
        machine=f"{os.cpu_count()} CPUs ({platform.machine()})",
        load_before=round(load_before, 1),
        changed=list(changed),
        seconds=round(report.measured_seconds, 1),
        requests=overall.requests,
        errors=overall.errors,
        cancelled=overall.cancelled,
        wrong_adapter=overall.wrong_adapter,
        goodput=overall.goodput.rate,
        output_tokens_per_second=overall.output_tokens_per_second,
        lag_ms=report.generator.lag_ms,
        server=report.keeping_up.sentence,
        milliseconds=spreads,
        adapters=len(report.adapters),
        checks=[f"{'held' if one.passed else 'MISSED'}: {one.sentence} ({one.bar})" for one in report.checks],
        error_kinds={one.kind: one.count for one in report.errors},
        rollouts=[_rollout(one) for one in report.rollouts],
        actions={name: done.count(name) for name in sorted(set(done))},
        failed_actions=[f"{one.action} {one.subject}: {one.error}" for one in report.events if one.error],
    )


def keep(found: ScenarioResult) -> ScenarioResult:
    """Write the outcome, and those of the other scenarios, as JSON and as a table; return it."""
    known: dict[str, ScenarioResult] = {one.scenario: one for one in _kept()}
    known[found.scenario] = found
    rows = [known[name] for name in sorted(known)]
    FOLDER.mkdir(exist_ok=True)
    JSON_FILE.write_text(json.dumps([asdict(one) for one in rows], indent=2) + "\n")
    TABLE_FILE.write_text(table(rows))
    return found


def table(outcomes: Sequence[ScenarioResult]) -> str:
    """Return the outcomes as Markdown."""
    return "\n".join(_lines(outcomes)) + "\n"


def _kept() -> list[ScenarioResult]:
    if not JSON_FILE.exists():
        return []
    names = {one.name for one in fields(ScenarioResult)}
    # A file of another release's drill is not a part of this one's.
    return [ScenarioResult(**row) for row in json.loads(JSON_FILE.read_text()) if set(row) == names]


def _lines(outcomes: Sequence[ScenarioResult]) -> Iterator[str]:
    yield _HEAD
    yield "| " + " | ".join(_COLUMNS) + " |"
    yield "|---|" + "--:|" * (len(_COLUMNS) - 2) + "---|"
    for one in outcomes:
        yield "| " + " | ".join(_row(one)) + " |"
    for one in outcomes:
        yield f"\n## {one.scenario}\n"
        yield f"{one.verdict}. Adapters asked: {one.adapters}; {one.server}."
        yield f"{one.machine}, load {one.load_before} at its begin, {one.at}.\n"
        if one.changed:
            yield "Set otherwise than the file: " + ", ".join(f"`{text}`" for text in one.changed) + ".\n"
        yield from (f"- {text}" for text in _happened(one))
        yield from (f"- {text}" for text in one.checks)


def _row(one: ScenarioResult) -> Iterator[str]:
    yield f"`{one.scenario}`"
    yield number(one.seconds, 0)
    yield str(one.requests)
    yield str(one.errors)
    yield percent(one.goodput)
    for metric, quantile in (
        ("ttft_ms", "p50"), ("ttft_ms", "p95"), ("tpot_ms", "p50"), ("e2e_ms", "p50"), ("e2e_ms", "p95"),
    ):  # fmt: skip
        yield number(one.milliseconds.get(metric, {}).get(quantile), 0)
    yield number(one.output_tokens_per_second, 0)
    yield number(one.lag_ms)
    yield "held" if one.passed else "**missed**"


def _happened(one: ScenarioResult) -> Iterator[str]:
    for name, count in one.actions.items():
        yield f"{name}: {count} times" if count > 1 else f"{name}: once"
    yield from (f"failed: {text}" for text in one.failed_actions)
    yield from (f"{count} errors of the kind {kind}" for kind, count in one.error_kinds.items())
    for rollout in one.rollouts:
        told = [f"rollout of {rollout['canary']}: {rollout['state']}"]
        for key, name in (
            ("seconds_to_promoted", "s to its promotion"),
            ("seconds_to_rolled_back", "s to its rollback"),
            ("detection_seconds", "s from the canary's first answer to the end of its weight"),
        ):
            if rollout[key] is not None:
                told.append(f"{number(rollout[key])} {name}")
        told.append(f"{rollout['canary_answers']} answers by the canary, {rollout['canary_errors']} errors")
        if rollout["seconds_to_rolled_back"] is not None:
            told.append(f"met for {number(rollout['late_canary_seconds'], 2)} s after the decision")
        yield ", ".join(told)


def _rollout(rollout: RolloutDocument) -> dict[str, Any]:
    return rollout.model_dump(exclude={"changes"})
