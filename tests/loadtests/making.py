"""Scenarios, records and runs for the tests of load tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from loadtests.runner.plan import ArrivalPlan
from loadtests.runner.records import OK, RequestRecord, read_records
from loadtests.runner.results.documents import Report
from loadtests.runner.results.report import Facts, build_report
from loadtests.runner.run import run
from loadtests.runner.scenario import Scenario
from loadtests.runner.target import ServerTarget


def scenario(**changes: Any) -> Scenario:
    """Return a short scenario: 50 constant arrivals a second for a second, no warm-up."""
    document: dict[str, Any] = {
        "name": "test",
        "about": "A test.",
        "warmup_seconds": 0,
        "duration_seconds": 1.0,
        "arrival": {"process": "constant", "rate": 50},
        "adapters": {"names": ["fast"]},
        "prompts": {"tokens": {"mean": 8}},
        "max_tokens": {"mean": 10},
        "saturation_ms": 30_000,  # a busy machine is not a finding of a test
    }
    return Scenario.model_validate({**document, **changes})


def record(at: float, **fields: Any) -> RequestRecord:
    """Return a complete streamed answer of 10 tokens: sent at once, first text after 0.1 s, end after 1 s."""
    found = RequestRecord(
        0, at, "support", 10, stream=True, sent=at, first=at + 0.1, ended=at + 1.0, outcome=OK
    )
    found.output_tokens = found.pieces = 10
    found.status, found.version, found.arm = 200, "support@1", "stable"
    for name, value in fields.items():
        setattr(found, name, value)
    return found


def report_of(records: list[RequestRecord], made: Scenario | None = None, **facts: Any) -> Report:
    """Return the report of `records`."""
    made = made or scenario(duration_seconds=10)
    known = {"tool": "test", "url": "http://h", "started_at": 0.0, "end_seconds": 10.0, **facts}
    return build_report(Facts(scenario=made, **known), records)


def play(url: str, folder: Path, made: Scenario) -> tuple[Report, list[RequestRecord]]:
    """Run a scenario against `url` and return the report and the records."""
    folder.mkdir(parents=True, exist_ok=True)
    done = run(ArrivalPlan(made), ServerTarget(url), folder)
    return done.report, list(read_records(folder / "requests.jsonl"))
