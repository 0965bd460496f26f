"""Which pictures a run's page shows, from its report and a sample of its records."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TypedDict

from markupsafe import Markup

from loadtests.runner.records import OK, RequestRecord
from loadtests.runner.results.documents import Report
from registry.report.parts import part
from registry.report.plots import Curve, Plot, bars

MAX_DOTS = 1_500
_ADAPTERS = 24
_WEIGHT_FULL = 10_000
_COLOURS = {"stable": 0, "canary": 1, "base": 2, "direct": 3, "": 4}


class _Time(TypedDict):
    events: Sequence[tuple[float, str]]
    shaded_until: float
    across: tuple[float, float]


def plots(report: Report, sample: Sequence[RequestRecord]) -> Iterator[Plot]:
    """Yield the plots; `sample` is a part of the records, at most a few thousand."""
    time: _Time = {
        "events": [
            (one.at, f"{one.action} {one.subject} {one.error or one.detail}") for one in report.events
        ],
        "shaded_until": report.warmup_seconds,
        "across": (0.0, max(report.seconds, 1e-3)),
    }
    yield _latency("First text", "ttft_ms", report, sample, time)
    yield _latency("Whole answer", "e2e_ms", report, sample, time)
    yield _spread(report, sample)
    yield _traffic(report, time)
    flight = Curve("", [(one.at, one.in_flight) for one in report.timeline], "area", 0)
    yield _over_time("In flight, at most", "requests", [flight], time)
    for rollout in report.rollouts:
        # Once it is closed, the version that was promoted is the stable one: there is no canary to draw.
        end = next((one.at for one in rollout.changes if one.state == "closed"), report.seconds)
        shares = [(one.at, one.weight / _WEIGHT_FULL * 100) for one in rollout.changes if one.at < end]
        weight = Curve("weight of the canary", [(0.0, 0.0), *shares], "steps", 1, until=end)
        title = f"Rollout of {rollout.canary}: {rollout.state}"
        yield _over_time(title, "%", [weight, *_observed(rollout.adapter, sample)], time)
    lag = Curve("", [(one.at, 1_000 * (one.sent - one.at)) for one in sample], "dots", 4)
    limits = [(report.generator.limit_ms, "saturated")]
    yield _over_time("The generator's own delay", "ms", [lag], time, limits)


def _over_time(
    title: str, unit: str, curves: Sequence[Curve], time: _Time, limits: Sequence[tuple[float, str]] = ()
) -> Plot:
    up = (0.0, 1.08 * max((y for one in curves for _, y in one.points if math.isfinite(y)), default=1) or 1.0)
    return Plot(title, curves, unit=f"{unit} over seconds", up=up, limits=limits, **time)


def _latency(title: str, name: str, report: Report, sample: Sequence[RequestRecord], time: _Time) -> Plot:
    curves = []
    for arm in sorted({one.arm for one in sample}):
        own = [one for one in sample if one.arm == arm]
        points = [(one.at, value) for one in own if (value := _value(one, name)) is not None]
        curves.append(Curve(arm or "answers", points, "dots", _COLOURS.get(arm, 5)))
    slo = report.scenario["slo"]
    assert isinstance(slo, dict)
    limit = slo.get(name)
    limits = [(float(limit), "SLO")] if isinstance(limit, int | float) else []
    return _over_time(f"{title}, from the intended start", "ms", curves, time, limits)


def _spread(report: Report, sample: Sequence[RequestRecord]) -> Plot:
    measured = [one for one in sample if one.at >= report.warmup_seconds]
    curves = []
    for name in ("ttft_ms", "ttft_service_ms", "e2e_ms", "e2e_service_ms"):
        values = sorted(value for one in measured if (value := _value(one, name)) is not None)
        points = [(value, 100 * (rank + 1) / len(values)) for rank, value in enumerate(values)]
        curves.append(Curve(name, points[:: max(1, len(points) // 200)] + points[-1:]))
    most = max((x for one in curves for x, _ in one.points), default=1.0) or 1.0
    unit = "% of answers over ms"
    return Plot("Share of answers within a time", curves, unit=unit, across=(0.0, most), up=(0.0, 104.0))


def _traffic(report: Report, time: _Time) -> Plot:
    shown = [("due", "due", 5), ("answered", "ok", 0)]
    shown += [("errors", "errors", 1)] * any(one.errors for one in report.timeline)
    shown += [("cancelled by us", "cancelled", 2)] * any(one.cancelled for one in report.timeline)
    width = report.slice_seconds
    curves = [
        Curve(name, [(one.at, getattr(one, field) / width) for one in report.timeline], "steps", colour)
        for name, field, colour in shown
    ]
    return _over_time("Requests by when they were due", "per second", curves, time)


def _observed(adapter: str, sample: Sequence[RequestRecord]) -> Iterator[Curve]:
    own = [one for one in sorted(sample, key=lambda one: one.at) if one.adapter == adapter and one.arm]
    size = max(10, len(own) // 40)
    points = [
        (part[len(part) // 2].at, 100 * sum(one.arm == "canary" for one in part) / len(part))
        for part in (own[begin : begin + size] for begin in range(0, len(own), size))
        if len(part) >= size
    ]
    if points:
        yield Curve("share of the canary, observed", points, "line", 0)


def adapters(report: Report) -> Markup:
    """Return how often each adapter was asked; nothing where there is one."""
    ranked = sorted(report.adapters, key=lambda one: -one.figures.requests)[:_ADAPTERS]
    if len(ranked) < 2:
        return Markup()
    rows = []
    for one in ranked:
        spread = one.figures.distributions["e2e_ms"]
        text = f"{one.figures.requests} requests"
        if spread is not None and spread.p50 is not None:
            text += f", E2E p50 {spread.p50:,.0f} ms"
        if one.figures.errors:
            text += f", {one.figures.errors} errors"
        rows.append((one.adapter, float(one.figures.requests), text))
    return part("figure", "Adapters", "", bars("requests by adapter", rows), (), ())


def _value(record: RequestRecord, name: str) -> float | None:
    if record.outcome != OK:
        return None
    start = record.sent if "service" in name else record.at
    end = record.first if name.startswith("ttft") else record.ended
    return None if end is None else 1_000 * (end - start)
