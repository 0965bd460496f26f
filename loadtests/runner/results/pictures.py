"""Which pictures a run's page shows, from its report and a sample of its records."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypedDict

from loadtests.runner.records import OK, RequestRecord
from loadtests.runner.results.documents import Report
from loadtests.runner.results.plots import Plot, PlotSeries, Point, bars, steps

MAX_DOTS = 1_500
_ADAPTERS = 24
_WEIGHT_FULL = 10_000
_COLOURS = {"stable": 0, "canary": 1, "base": 2, "direct": 3, "": 4}


class _Frame(TypedDict):
    x_name: str
    marks: Sequence[tuple[float, str]]
    shaded_until: float
    x_max: float


def pictures(report: Report, sample: Sequence[RequestRecord]) -> Iterator[str]:
    """Yield SVG documents; `sample` is a part of the records, at most a few thousand."""
    marks = [(one.at, f"{one.action} {one.subject} {one.error or one.detail}") for one in report.events]
    frame: _Frame = {
        "x_name": "seconds", "marks": marks, "shaded_until": report.warmup_seconds,
        "x_max": max(report.seconds, 1e-3),
    }  # fmt: skip
    yield _latency("First text", "ttft_ms", report, sample, frame)
    yield _latency("Whole answer", "e2e_ms", report, sample, frame)
    yield _spread(report, sample)
    yield _traffic(report, frame)
    flight = steps([(one.at, one.in_flight) for one in report.timeline], report.seconds)
    title = "In flight, at most"
    yield Plot(title, y_name="requests", series=[PlotSeries("", flight, 0, "area")], **frame).svg()
    for rollout in report.rollouts:
        # Once it is closed, the version that was promoted is the stable one: there is no canary to draw.
        end = next((one.at for one in rollout.changes if one.state == "closed"), report.seconds)
        shares = [(one.at, one.weight / _WEIGHT_FULL * 100) for one in rollout.changes if one.at < end]
        series = [PlotSeries("weight of the canary", steps([(0.0, 0.0), *shares], end), 1)]
        title = f"Rollout of {rollout.canary}: {rollout.state}"
        series += _observed(rollout.adapter, sample)
        yield Plot(title, y_name="%", series=series, **frame).svg()
    yield _lag(sample, report, frame)
    yield _adapters(report)


def _latency(title: str, name: str, report: Report, sample: Sequence[RequestRecord], frame: _Frame) -> str:
    series = []
    for arm in sorted({one.arm for one in sample}):
        own = [one for one in sample if one.arm == arm]
        points = [(one.at, value) for one in own if (value := _value(one, name)) is not None]
        if points:
            series.append(PlotSeries(arm or "answers", points, _COLOURS.get(arm, 5), "dots"))
    slo = report.scenario["slo"]
    assert isinstance(slo, dict)
    limit = slo.get(name)
    limits = [(float(limit), "SLO")] if isinstance(limit, int | float) else []
    return Plot(f"{title}, from the intended start", y_name="ms", series=series, limits=limits, **frame).svg()


def _spread(report: Report, sample: Sequence[RequestRecord]) -> str:
    measured = [one for one in sample if one.at >= report.warmup_seconds]
    series = []
    names = ("ttft_ms", "ttft_service_ms", "e2e_ms", "e2e_service_ms")
    for colour, name in enumerate(names):
        values = sorted(value for one in measured if (value := _value(one, name)) is not None)
        points = [(value, 100 * (rank + 1) / len(values)) for rank, value in enumerate(values)]
        series.append(PlotSeries(name, points[:: max(1, len(points) // 400)] + points[-1:], colour))
    return Plot("Share of answers within a time", "ms", "%", series, y_max=104).svg()


def _traffic(report: Report, frame: _Frame) -> str:
    width = report.slice_seconds

    def rate(name: str) -> list[Point]:
        return steps([(one.at, getattr(one, name) / width) for one in report.timeline], report.seconds)

    series = [PlotSeries("due", rate("due"), 5), PlotSeries("answered", rate("ok"), 0)]
    if any(one.errors for one in report.timeline):
        series.append(PlotSeries("errors", rate("errors"), 1))
    if any(one.cancelled for one in report.timeline):
        series.append(PlotSeries("cancelled by us", rate("cancelled"), 2))
    return Plot("Requests by when they were due", y_name="per second", series=series, **frame).svg()


def _observed(adapter: str, sample: Sequence[RequestRecord]) -> Iterator[PlotSeries]:
    own = [one for one in sorted(sample, key=lambda one: one.at) if one.adapter == adapter and one.arm]
    size = max(10, len(own) // 40)
    points = [
        (part[len(part) // 2].at, 100 * sum(one.arm == "canary" for one in part) / len(part))
        for part in (own[begin : begin + size] for begin in range(0, len(own), size))
        if len(part) >= size
    ]
    if points:
        yield PlotSeries("share of the canary, observed", points, 0, "line")


def _lag(sample: Sequence[RequestRecord], report: Report, frame: _Frame) -> str:
    points = [(one.at, 1_000 * (one.sent - one.at)) for one in sample]
    limits = [(report.generator.limit_ms, "saturated")]
    title = "The generator's own delay"
    return Plot(title, y_name="ms", series=[PlotSeries("", points, 4, "dots")], limits=limits, **frame).svg()


def _adapters(report: Report) -> str:
    ranked = sorted(report.adapters, key=lambda one: -one.figures.requests)[:_ADAPTERS]
    if len(ranked) < 2:
        return ""
    rows = []
    for one in ranked:
        spread = one.figures.distributions["e2e_ms"]
        text = f"{one.figures.requests} requests"
        if spread is not None and spread.p50 is not None:
            text += f", E2E p50 {spread.p50:,.0f} ms"
        if one.figures.errors:
            text += f", {one.figures.errors} errors"
        rows.append((one.adapter, float(one.figures.requests), text))
    return bars("Adapters", "requests", rows)


def _value(record: RequestRecord, name: str) -> float | None:
    if record.outcome != OK:
        return None
    start = record.sent if "service" in name else record.at
    end = record.first if name.startswith("ttft") else record.ended
    return None if end is None else 1_000 * (end - start)
