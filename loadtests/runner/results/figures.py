"""The figures of a selection of requests: distributions, errors, goodput, rates.

Pure arithmetic on columns. Quantiles are those of complete answers, interpolated linearly; one that rests
on fewer than one request beyond it is None (the 99th percentile needs a hundred).
"""

from __future__ import annotations

import numpy as np

from loadtests.runner.metrics import STATISTICS
from loadtests.runner.records import CANCELLED, ERROR, OK, UNFINISHED
from loadtests.runner.results.columns import Column, Mask, RequestColumns
from loadtests.runner.results.documents import Distribution, Figures, Goodput
from loadtests.runner.scenario import Slo

MILLI = 1_000.0


def measure(columns: RequestColumns, mask: Mask, slo: Slo, seconds: float, explained: Mask) -> Figures:
    """Return the figures of the requests in `mask`; `seconds` is what rates are per.

    `explained` is where an error was the run's own doing.
    """
    ok = mask & columns.ended_as(OK)
    errors = mask & columns.ended_as(ERROR)
    judged = int(ok.sum() + errors.sum())
    tokens = float(columns.output_tokens[ok].sum())
    failed_at = columns.at[errors]
    return Figures(
        requests=int(mask.sum()),
        ok=int(ok.sum()),
        errors=int(errors.sum()),
        error_rate=_ratio(float(errors.sum()), judged),
        cancelled=int((mask & columns.ended_as(CANCELLED)).sum()),
        unfinished=int((mask & columns.ended_as(UNFINISHED)).sum()),
        wrong_adapter=int((mask & columns.wrong_adapter).sum()),
        wrong_text=int((mask & columns.wrong_text).sum()),
        unexplained_errors=int((errors & ~explained).sum()),
        goodput=_goodput(columns, ok, judged, slo, seconds),
        requests_per_second=_ratio(float(ok.sum()), seconds),
        prompt_tokens=int(columns.prompt_tokens[ok].sum()),
        output_tokens=int(tokens),
        output_tokens_per_second=_ratio(tokens, seconds),
        disruption_seconds=float(np.ptp(failed_at)) if len(failed_at) else 0.0,
        distributions={
            name: distribution(values[np.isfinite(values)])
            for name, values in samples(columns, ok, mask).items()
        },
    )


def samples(columns: RequestColumns, ok: Mask, sent: Mask) -> dict[str, Column]:
    """Return the values behind each distribution, NaN where a request has none.

    All are of the requests in `ok`, but for the generator's lag, which is of all in `sent`.
    """
    at, first, ended = columns.at[ok], columns.first[ok], columns.ended[ok]
    left, tokens = columns.sent[ok], columns.output_tokens[ok]
    streams = columns.stream[ok]
    with np.errstate(divide="ignore", invalid="ignore"):
        # n ≤ 1 has no time between tokens; a server without usage has no n.
        tpot = np.where(tokens > 1, (ended - first) / (tokens - 1), np.nan)
        share = (first - left) / (ended - left)
        pieces = np.where(streams & (tokens > 0), columns.pieces[ok] / tokens, np.nan)
    return {
        "ttft_ms": (first - at) * MILLI,
        "ttft_service_ms": (first - left) * MILLI,
        "tpot_ms": tpot * MILLI,
        "e2e_ms": (ended - at) * MILLI,
        "e2e_service_ms": (ended - left) * MILLI,
        "lag_ms": (columns.sent[sent] - columns.at[sent]) * MILLI,
        "ttft_share": share,
        "chunks_per_token": pieces,
    }


def distribution(values: Column) -> Distribution | None:
    """Return the distribution of `values`, None without any."""
    if not len(values):
        return None
    quantiles = {name: _quantile(values, percent) for name, percent in STATISTICS.items()}
    return Distribution(n=len(values), mean=float(values.mean()), max=float(values.max()), **quantiles)


def kept_slo(columns: RequestColumns, ok: Mask, slo: Slo) -> Mask:
    """Return, for the requests in `ok`, which of them kept every SLO; a missing figure breaks none."""
    found = samples(columns, ok, ok)
    kept = np.ones(int(ok.sum()), dtype=bool)
    for name, limit in (("ttft_ms", slo.ttft_ms), ("tpot_ms", slo.tpot_ms), ("e2e_ms", slo.e2e_ms)):
        if limit is not None:
            kept &= ~(found[name] > limit)
    return kept


def figure(figures: Figures, metric: str) -> float | None:
    """Return the figure that `metric` names (not those of rollouts), None where it has no value."""
    name, _, statistic = metric.partition(".")
    if name in figures.distributions:
        found = figures.distributions[name]
        return None if found is None else getattr(found, statistic)
    plain = {
        "errors.rate": figures.error_rate,
        "errors.unexplained": figures.unexplained_errors,
        "goodput.rate": figures.goodput.rate,
        "goodput.per_second": figures.goodput.per_second,
    }
    return plain[metric] if metric in plain else getattr(figures, metric)


def _goodput(columns: RequestColumns, ok: Mask, judged: int, slo: Slo, seconds: float) -> Goodput:
    kept = int(kept_slo(columns, ok, slo).sum())
    return Goodput(kept=kept, rate=_ratio(kept, judged), per_second=_ratio(kept, seconds))


def _quantile(values: Column, percent: float) -> float | None:
    if len(values) * (100.0 - percent) / 100.0 < 1.0 - 1e-9:
        return None
    return float(np.percentile(values, percent))


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None
