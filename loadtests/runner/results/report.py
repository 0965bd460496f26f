"""The report of a run, computed from its records: groups, verdicts, errors, timeline, checks.

Pure: records and facts in, one document out. Invariants: nothing due in the warm-up is in a figure, and a
run whose generator was saturated, or that was interrupted, never passes.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from loadtests.runner.actions import ActionEvent, RolloutChange
from loadtests.runner.ramp import rollouts
from loadtests.runner.records import ERROR, OK, RequestRecord
from loadtests.runner.results.columns import Mask, RequestColumns
from loadtests.runner.results.documents import (
    ErrorKind,
    EventDocument,
    FigureGroup,
    Figures,
    Generator,
    GeneratorHost,
    Keeping,
    Report,
)
from loadtests.runner.results.figures import measure
from loadtests.runner.results.timeline import peak_in_flight, timeline
from loadtests.runner.results.verdicts import checks
from loadtests.runner.scenario import Scenario

NOT_TRAFFIC = {"name", "about", "needs", "thresholds", "slo", "prepare", "saturation_ms", "expect"}
"""Keys that say how a run is judged or described, not what traffic it is."""
_GREW = 1.5
_GREW_MS_PER_SECOND = 10.0
"""A queue grows with the time: less than 1 % of the run is noise, however small the times are."""
_MIN_THIRD = 10
_LAGS = ("p99", "p95", "p90", "max")


@dataclass(frozen=True)
class Facts:
    """What is known of a run beside its records; `end_seconds` is when its last answer had come."""

    scenario: Scenario
    tool: str
    url: str
    started_at: float
    end_seconds: float
    partial: bool = False
    shed: int = 0
    feedback_sent: int = 0
    events: Sequence[ActionEvent] = ()
    changes: Sequence[RolloutChange] = ()


def build_report(facts: Facts, records: Iterable[RequestRecord]) -> Report:
    """Return the report of a run."""
    columns = RequestColumns.of(records)
    scenario = facts.scenario
    begin = scenario.warmup_seconds
    measured = columns.at >= begin
    last = float(columns.ended[measured].max()) if measured.any() else begin
    end = max(min(scenario.total_seconds, facts.end_seconds), last)
    seconds = max(end - begin, 1e-9) if measured.any() else 0.0

    kills = [(one.at, one.at + one.seconds) for one in facts.events if one.action == "kill_replica"]
    # A refused connection is never a kill's doing: the launcher holds the port.
    explained = columns.open_within(kills) & ~columns.is_("error", "refused")

    def figures(mask: Mask) -> Figures:
        return measure(columns, mask, scenario.slo, seconds, explained)

    overall = figures(measured)
    generator = _generator(facts, columns, overall)
    groups = _groups(columns, measured, figures)
    found = rollouts(columns, facts.changes, facts.events)
    failed = sum(bool(one.error) for one in facts.events)
    bars = checks(scenario, overall, groups, found, generator, partial=facts.partial, failed_actions=failed)
    width, moments = timeline(columns, max(end, scenario.total_seconds if not facts.partial else end))
    return Report(
        tool=facts.tool,
        scenario=scenario.model_dump(mode="json"),
        scenario_digest=digest(scenario),
        url=facts.url,
        started_at=facts.started_at,
        seconds=facts.end_seconds,
        warmup_seconds=begin,
        measured_seconds=seconds,
        partial=facts.partial,
        machine=GeneratorHost(
            cpus=os.cpu_count() or 0, python=platform.python_version(), system=platform.system()
        ),
        generator=generator,
        keeping_up=_keeping(scenario, columns, measured),
        overall=overall,
        warmup=measure(columns, ~measured, scenario.slo, begin, explained),
        adapters=[one for one in groups if one.adapter and not one.arm and not one.version],
        arms=[one for one in groups if one.arm and not one.adapter],
        groups=[one for one in groups if one.adapter and one.arm],
        versions=[one for one in groups if one.version],
        errors=_errors(columns, measured),
        events=[EventDocument(**asdict(event)) for event in facts.events],
        rollouts=found,
        feedback_sent=facts.feedback_sent,
        checks=bars,
        passed=all(bar.passed for bar in bars),
        slice_seconds=width,
        timeline=moments,
    )


def digest(scenario: Scenario) -> str:
    """Return what identifies a scenario's traffic: equal digests, equal traffic."""
    shape = scenario.model_dump(mode="json", exclude=NOT_TRAFFIC)
    for action in shape["actions"]:
        del action["process"], action["back_seconds"]
    return hashlib.sha256(json.dumps(shape, sort_keys=True).encode()).hexdigest()[:16]


def _groups(columns: RequestColumns, measured: Mask, figures: Callable[[Mask], Figures]) -> list[FigureGroup]:
    found: list[FigureGroup] = []
    for adapter in columns.values("adapter", measured):
        own = measured & columns.is_("adapter", adapter)
        found.append(FigureGroup(adapter=adapter, figures=figures(own)))
        found += [
            FigureGroup(adapter=adapter, arm=arm, figures=figures(own & columns.is_("arm", arm)))
            for arm in columns.values("arm", own)
        ]
    for word in ("arm", "version"):
        found += [
            FigureGroup.model_validate({word: name, "figures": figures(measured & columns.is_(word, name))})
            for name in columns.values(word, measured)
        ]
    return found


def _generator(facts: Facts, columns: RequestColumns, overall: Figures) -> Generator:
    lag = overall.distributions["lag_ms"]
    # Few requests have no 99th percentile, and one that the machine held up is not a generator that is too
    # slow.
    known = [(name, value) for name in _LAGS if (value := getattr(lag, name, None)) is not None]
    statistic, worst = known[0] if known else (_LAGS[0], None)
    limit = facts.scenario.saturation_ms
    saturated = facts.shed > 0 or (worst is not None and worst > limit)
    sentence = "the generator kept time"
    if facts.shed:
        sentence = f"{facts.shed} requests were not begun: {facts.scenario.max_in_flight} were in flight"
    elif saturated:
        sentence = (
            f"the generator was late by {worst:.0f} ms ({statistic}; limit {limit:g} ms): the figures are "
            "its own, not the server's; give it a quieter machine, or another than the server's"
        )
    return Generator(
        saturated=saturated,
        lag_ms=worst,
        lag_statistic=statistic,
        limit_ms=limit,
        shed=facts.shed,
        peak_in_flight=peak_in_flight(columns),
        sentence=sentence,
    )


def _keeping(scenario: Scenario, columns: RequestColumns, measured: Mask) -> Keeping:
    """Compare the first third of the measured time with the last: a growing queue shows as growing times."""
    length = scenario.duration_seconds
    offered = float(measured.sum()) / length
    thirds = []
    for low in (0.0, 2 / 3):
        begin = scenario.warmup_seconds + low * length
        inside = measured & (columns.at >= begin) & (columns.at < begin + length / 3)
        took = (columns.ended - columns.at)[inside & columns.ended_as(OK)]
        thirds.append(float(np.median(took)) * 1_000 if len(took) >= _MIN_THIRD else None)
    first, last = thirds
    grown = _GREW_MS_PER_SECOND * length
    kept = None if first is None or last is None else last <= max(_GREW * first, first + grown)
    sentence = {
        None: f"too few answers to tell (needs {_MIN_THIRD} in the first and in the last third)",
        True: "the server kept up with the load",
        False: f"the server fell behind: answers of the last third took {_GREW:g} times those of the first, "
        "or more; the times depend on how long the run was",
    }[kept]
    return Keeping(
        kept_up=kept,
        offered_per_second=offered,
        first_third_ms=first,
        last_third_ms=last,
        sentence=sentence,
    )


def _errors(columns: RequestColumns, measured: Mask) -> list[ErrorKind]:
    found = []
    for kind in columns.values("error", measured & columns.ended_as(ERROR)):
        mask = measured & columns.is_("error", kind)
        at = columns.at[mask]
        detail = columns.details.get(kind, "")
        found.append(
            ErrorKind(
                kind=kind, count=len(at), first_at=float(at.min()), last_at=float(at.max()), detail=detail
            )
        )
    return sorted(found, key=lambda one: -one.count)
