"""Two runs beside each other: ratios with intervals, and whether they may be compared at all.

Requests of one moment share its luck, so a run is resampled in blocks of time, not request by request
(which would give intervals that are far too narrow), and the same blocks of the plan are drawn in both
runs, so that what the plan itself brings cancels. Blocks tell how steady a run was within itself;
what another day or machine would add, only a repeated run can tell.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from loadtests.runner.metrics import DISTRIBUTIONS, HIGHER_IS_BETTER, STATISTICS, check_metric
from loadtests.runner.records import ERROR, FILE, OK, read_records
from loadtests.runner.results.columns import Mask, RequestColumns
from loadtests.runner.results.documents import Ratio, Report, RunComparison
from loadtests.runner.results.figures import figure, kept_slo, samples
from loadtests.runner.results.report import NOT_TRAFFIC
from loadtests.runner.run import REPORT
from loadtests.runner.scenario import Slo
from registry.errors import NotFound, UsageError

BLOCKS = 12
WIDEN = 1.17
"""Twelve blocks tell their own spread badly: Student's t over the normal, and the variance's bias."""
DRAWS = 1_000
NEGLIGIBLE = 0.01
"""A ratio nearer to 1 is `same`, however sure it is."""
_SEED = 20_261_122
_BAR = re.compile(r"([a-z0-9_.]+)\s*([<>])\s*([0-9.]+)")
_NAMES = ("ttft_ms", "tpot_ms", "e2e_ms", "ttft_service_ms", "e2e_service_ms")
COMPARED = (
    *(f"{name}.{quantile}" for name in _NAMES for quantile in ("p50", "p95", "p99")),
    "errors.rate", "goodput.rate", "requests_per_second", "output_tokens_per_second",
)  # fmt: skip
Draws = NDArray[np.float64]


@dataclass(frozen=True)
class Bar:
    """`METRIC>RATIO` or `METRIC<RATIO`: what B / A must not do."""

    metric: str
    above: bool
    limit: float

    @classmethod
    def parse(cls, text: str) -> Bar:
        """Return the bar that `text` writes.

        Raises: UsageError: no such form, or no such metric.
        """
        found = _BAR.fullmatch(text.strip())
        if found is None:
            raise UsageError(
                "--fail-on", f"{text!r} does not read METRIC>RATIO", "write for instance 'ttft_ms.p95>1.1'"
            )
        metric = check_metric(found[1], "--fail-on")
        if metric not in COMPARED:
            raise UsageError("--fail-on", f"{metric} is not compared", f"compared: {', '.join(COMPARED)}")
        return cls(metric, found[2] == ">", float(found[3]))

    def missed(self, ratio: Ratio) -> bool:
        """Return True when the ratio breaks the bar and its interval is on the same side of 1."""
        if ratio.ratio is None:  # from nothing to something: there is no ratio, but a verdict
            return self.above and ratio.verdict == "worse"
        if ratio.low is None or ratio.high is None:
            return False
        beyond = ratio.ratio > self.limit if self.above else ratio.ratio < self.limit
        return beyond and (ratio.low > 1 if self.above else ratio.high < 1)


@dataclass(frozen=True)
class FinishedRun:
    """A run's folder, read."""

    folder: Path
    report: Report
    columns: RequestColumns

    @classmethod
    def read(cls, folder: Path) -> FinishedRun:
        """Read a folder that `loadtest run` or our locust file wrote.

        Raises: NotFound: it is none; UsageError: a report of another format.
        """
        try:
            report = Report.model_validate_json((folder / REPORT).read_text("utf-8"))
            return cls(folder, report, RequestColumns.of(read_records(folder / FILE)))
        except OSError as error:
            fact = f"holds no {Path(error.filename or REPORT).name}"
            raise NotFound(str(folder), fact, "name the folder of a finished run") from error
        except ValidationError as error:
            raise UsageError(str(folder / REPORT), "has another format", "run it again") from error


def compare(a: FinishedRun, b: FinishedRun, bars: Sequence[Bar] = ()) -> RunComparison:
    """Return B against A. Bars are judged only where the runs are comparable."""
    obstacles = _obstacles(a.report, b.report)
    draws = [_draws(run) for run in (a, b)]
    ratios = [
        _ratio(metric, figure(a.report.overall, metric), figure(b.report.overall, metric), draws)
        for metric in COMPARED
    ]
    by_name = {ratio.metric: ratio for ratio in ratios}
    failed = [
        f"{bar.metric}: {_said(by_name[bar.metric])}, bar {'>' if bar.above else '<'} {bar.limit:g}"
        for bar in bars
        if bar.missed(by_name[bar.metric])
    ]
    return RunComparison(
        a=str(a.folder),
        b=str(b.folder),
        comparable=not obstacles,
        obstacles=obstacles,
        ratios=ratios,
        failed=failed,
    )


def _obstacles(a: Report, b: Report) -> list[str]:
    found = []
    if a.scenario_digest != b.scenario_digest:
        keys = sorted({*a.scenario, *b.scenario} - NOT_TRAFFIC)
        other = [key for key in keys if a.scenario.get(key) != b.scenario.get(key)]
        found.append(f"other traffic: {', '.join(other)} differ")
    if a.scenario["slo"] != b.scenario["slo"]:
        found.append("other SLOs: goodput means something else")
    if a.tool != b.tool:
        found.append(f"other tools: {a.tool}, {b.tool}")
    for name, report in (("A", a), ("B", b)):
        if report.generator.saturated:
            found.append(f"{name}: {report.generator.sentence}")
        if report.partial:
            found.append(f"{name} was interrupted")
        if not report.overall.ok:
            found.append(f"{name} has no answers")
    return found


def _ratio(metric: str, a: float | None, b: float | None, draws: Sequence[dict[str, Draws]]) -> Ratio:
    if a is None or b is None:
        return Ratio(metric=metric, a=a, b=b, ratio=None, low=None, high=None, verdict="unknown")
    if a == 0:
        return _from_nothing(metric, b, draws)
    ratio, low, high = b / a, None, None
    if metric in draws[0] and metric in draws[1]:
        with np.errstate(divide="ignore", invalid="ignore"):
            spread = draws[1][metric] / draws[0][metric]
        low, high = interval(spread)
    verdict = "unknown" if low is None or high is None else "same"
    if low is not None and high is not None and (low > 1 or high < 1) and abs(ratio - 1) > NEGLIGIBLE:
        verdict = "better" if (ratio > 1) == (metric in HIGHER_IS_BETTER) else "worse"
    return Ratio.model_validate(
        {"metric": metric, "a": a, "b": b, "ratio": ratio, "low": low, "high": high, "verdict": verdict}
    )


def interval(spread: Draws) -> tuple[float | None, float | None]:
    """Return the 95 % interval of resampled ratios, None where most of them have no value."""
    known = spread[np.isfinite(spread) & (spread > 0)]
    if len(known) <= DRAWS // 2:
        return None, None
    low, middle, high = np.quantile(np.log(known), [0.025, 0.5, 0.975])
    return float(np.exp(middle + WIDEN * (low - middle))), float(np.exp(middle + WIDEN * (high - middle)))


def _from_nothing(metric: str, b: float, draws: Sequence[dict[str, Draws]]) -> Ratio:
    """Return the verdict on a figure that was 0 in A, by whether it is surely above 0 in B."""
    verdict = "same" if b == 0 else "unknown"
    if metric in draws[1] and float(np.nanquantile(draws[1][metric], 0.025)) > 0:
        verdict = "better" if metric in HIGHER_IS_BETTER else "worse"
    return Ratio.model_validate(
        {"metric": metric, "a": 0.0, "b": b, "ratio": None, "low": None, "high": None, "verdict": verdict}
    )


def _draws(run: FinishedRun) -> dict[str, Draws]:
    """Return each metric's values over resampled blocks of the run's measured time."""
    columns, report = run.columns, run.report
    begin, length = report.warmup_seconds, max(report.measured_seconds, 1e-9)
    measured = columns.at >= begin
    ok = measured & columns.ended_as(OK)
    block = np.clip(((columns.at - begin) / length * BLOCKS).astype(int), 0, BLOCKS - 1)
    used = np.flatnonzero(np.bincount(block[measured], minlength=BLOCKS))
    if len(used) < 2:
        return {}
    rng = np.random.default_rng(_SEED)
    weights = np.zeros((DRAWS, BLOCKS))
    weights[:, used] = rng.multinomial(len(used), np.full(len(used), 1 / len(used)), size=DRAWS)
    values = samples(columns, ok, measured)
    found = {
        f"{name}.{quantile}": _quantiles(values[name], block[ok], weights, STATISTICS[quantile] / 100)
        for name in DISTRIBUTIONS
        if name in _NAMES
        for quantile in ("p50", "p95", "p99")
    }
    return found | _rates(columns, ok, measured, block, weights, report)


def _quantiles(values: Draws, blocks: NDArray[np.int64], weights: Draws, share: float) -> Draws:
    """Return a quantile of `values` for each row of block weights."""
    known = np.isfinite(values)
    order = np.argsort(values[known])
    ranked, place = values[known][order], blocks[known][order]
    if not len(ranked):
        return np.full(len(weights), np.nan)
    found = np.empty(len(weights))
    for row, weight in enumerate(weights):
        total = np.cumsum(weight[place])
        found[row] = ranked[min(int(np.searchsorted(total, share * total[-1])), len(ranked) - 1)]
    return found


def _rates(
    columns: RequestColumns,
    ok: Mask,
    measured: Mask,
    block: NDArray[np.int64],
    weights: Draws,
    report: Report,
) -> dict[str, Draws]:
    def per_block(mask: Mask, amounts: Draws | None = None) -> Draws:
        chosen = None if amounts is None else amounts[mask]
        return np.asarray(weights @ np.bincount(block[mask], weights=chosen, minlength=BLOCKS))

    errors = measured & columns.ended_as(ERROR)
    kept = ok.copy()
    kept[ok] = kept_slo(columns, ok, Slo.model_validate(report.scenario["slo"]))
    judged = per_block(ok) + per_block(errors)
    with np.errstate(divide="ignore", invalid="ignore"):
        return {
            "errors.rate": per_block(errors) / judged,
            "goodput.rate": per_block(kept) / judged,
            "requests_per_second": per_block(ok) / report.measured_seconds,
            "output_tokens_per_second": per_block(ok, columns.output_tokens) / report.measured_seconds,
        }


def _said(ratio: Ratio) -> str:
    if ratio.ratio is None or ratio.low is None or ratio.high is None:
        return f"{ratio.a:g} → {ratio.b:g}"
    return f"{ratio.ratio:.3f} [{ratio.low:.3f}, {ratio.high:.3f}]"
