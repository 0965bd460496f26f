"""A report in rows of text: what the terminal, the Markdown file and the HTML page show alike."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from loadtests.runner.results.documents import FigureGroup, Figures, Report, RolloutDocument

Row = tuple[str, ...]
MAX_ROWS = 40
_FAKE = " — this looks like a whole answer sent at once"
_SHORT_MS = 100.0
LATENCIES = ("ttft_ms", "ttft_service_ms", "tpot_ms", "e2e_ms", "e2e_service_ms", "lag_ms")
SPREAD_COLUMNS: Row = ("", "n#", "mean#", "p50#", "p90#", "p95#", "p99#", "p99.9#", "max#")
GROUP_COLUMNS: Row = (
    "who", "requests#", "errors#", "cancelled#", "goodput#", "TTFT p50#", "TTFT p95#", "TPOT p50#",
    "E2E p50#", "E2E p95#", "tokens/s#",
)  # fmt: skip


def number(value: float | None, digits: int = 1) -> str:
    """Return a number for people; `–` where there is none."""
    if value is None:
        return "–"
    return f"{value:,.0f}" if abs(value) >= 1_000 or digits == 0 else f"{value:.{digits}f}"


def percent(share: float | None) -> str:
    """Return a share in percent; `–` where there is none."""
    return "–" if share is None else f"{share:.2%}".replace(".00%", "%")


def verdict(report: Report) -> str:
    """Return the run's verdict in one sentence."""
    if report.partial:
        return "PARTIAL: the run was interrupted; what it saw until then is below"
    missed = [check.name for check in report.checks if not check.passed]
    if not missed:
        return f"PASSED: all {len(report.checks)} checks"
    return f"FAILED: {len(missed)} of {len(report.checks)} checks ({', '.join(missed)})"


def facts(report: Report) -> list[tuple[str, str]]:
    """Return the run in brief."""
    overall, goodput = report.overall, report.overall.goodput
    warm = f"after {number(report.warmup_seconds)} s of warm-up ({report.warmup.requests} requests left out)"
    kept = percent(goodput.rate)
    per_second = number(overall.requests_per_second, 2)
    chunks = overall.distributions["chunks_per_token"]
    share = overall.distributions["ttft_share"]
    rows = [
        ("scenario", f"{report.scenario['name']} (digest {report.scenario_digest}), by {report.tool}"),
        ("server", report.url),
        ("measured", f"{number(report.measured_seconds)} s {warm}"),
        ("requests", f"{overall.requests}: {overall.ok} ok, {_failed(overall)}"),
        ("offered / done", f"{number(report.keeping_up.offered_per_second, 2)} / {per_second} per second"),
        ("tokens", f"{number(overall.output_tokens_per_second)} out per second"),
        ("goodput", f"{kept} kept the SLO ({_slo(report)}), {number(goodput.per_second, 2)} per second"),
    ]
    if share is not None and chunks is not None:
        text = f"first text after {percent(share.p50)} of the time, {number(chunks.mean, 2)} pieces per token"
        rows.append(("streams", text + (_FAKE if _looks_whole(overall) else "")))
    rows.append(("in flight", f"at most {report.generator.peak_in_flight}"))
    generator = report.generator
    lag = f" (lag {generator.lag_statistic} {number(generator.lag_ms)} ms)"
    rows.append(("generator", generator.sentence + ("" if generator.saturated else lag)))
    rows.append(("server load", report.keeping_up.sentence))
    rows += [("rollout", _told(one)) for one in report.rollouts]
    if report.events:
        rows.append(("done to it", _done(report)))
    if overall.wrong_adapter:
        rows.append(("WRONG ADAPTER", f"{overall.wrong_adapter} answers name another adapter"))
    return rows


def spreads(figures: Figures) -> list[Row]:
    """Return the latencies' distributions, in milliseconds."""
    rows = []
    for name in LATENCIES:
        found = figures.distributions[name]
        if found is not None:
            values = (found.mean, found.p50, found.p90, found.p95, found.p99, found.p99_9, found.max)
            rows.append((name, str(found.n), *(number(value) for value in values)))
    return rows


def by_arm(report: Report) -> list[FigureGroup]:
    """Return the adapters' arms; none where all is of one arm, which the adapters themselves show."""
    return report.groups if len(report.arms) > 1 else []


def group_rows(groups: Sequence[FigureGroup]) -> list[Row]:
    """Return a row per group, the busiest first, at most 40 and a last one that says how many more."""
    ranked = sorted(groups, key=lambda one: -one.figures.requests)
    rows = [_group(one) for one in ranked[:MAX_ROWS]]
    if len(ranked) > MAX_ROWS:
        rest = sum(one.figures.requests for one in ranked[MAX_ROWS:])
        rows.append((f"{len(ranked) - MAX_ROWS} more", str(rest), *([""] * (len(GROUP_COLUMNS) - 2))))
    return rows


def rollout_rows(report: Report) -> list[Row]:
    """Return what each rollout came to and cost."""
    return [
        (
            one.canary,
            one.state,
            number(one.seconds_to_promoted),
            number(one.seconds_to_rolled_back),
            number(one.detection_seconds),
            str(one.canary_answers),
            str(one.canary_errors),
            number(one.late_canary_seconds, 2),
        )
        for one in report.rollouts
    ]


ROLLOUT_COLUMNS: Row = (
    "canary", "state", "to promoted s#", "to rolled back s#", "detection s#", "canary answers#",
    "canary errors#", "late s#",
)  # fmt: skip


def _told(rollout: RolloutDocument) -> str:
    took = [
        f"{word} after {number(seconds)} s"
        for word, seconds in (
            ("promoted", rollout.seconds_to_promoted),
            ("rolled back", rollout.seconds_to_rolled_back),
        )
        if seconds is not None
    ]
    met = f"{rollout.canary_answers} answers and {rollout.canary_errors} errors by the canary"
    return f"{rollout.canary}: {took[0] if took else f'last {rollout.state}'}; {met}"


def _done(report: Report) -> str:
    counts = Counter(one.action for one in report.events)
    failed = sum(bool(one.error) for one in report.events)
    told = ", ".join(f"{name} {count} times" if count > 1 else name for name, count in counts.items())
    return f"{told}; {failed} failed" if failed else told


def _group(group: FigureGroup) -> Row:
    figures = group.figures
    name = group.version or " | ".join(part for part in (group.adapter, group.arm) if part)
    ttft, tpot, e2e = (figures.distributions[one] for one in ("ttft_ms", "tpot_ms", "e2e_ms"))
    return (
        name,
        str(figures.requests),
        str(figures.errors),
        str(figures.cancelled),
        percent(figures.goodput.rate),
        number(ttft.p50 if ttft else None),
        number(ttft.p95 if ttft else None),
        number(tpot.p50 if tpot else None),
        number(e2e.p50 if e2e else None),
        number(e2e.p95 if e2e else None),
        number(figures.output_tokens_per_second),
    )


def _looks_whole(figures: Figures) -> bool:
    """Return True when streams of some length have their first text near their end."""
    share, whole = figures.distributions["ttft_share"], figures.distributions["e2e_service_ms"]
    if share is None or whole is None or share.p50 is None or whole.p50 is None:
        return False
    return share.p50 > 0.9 and whole.p50 > _SHORT_MS


def _failed(figures: Figures) -> str:
    text = f"{figures.errors} errors ({percent(figures.error_rate)}), {figures.cancelled} cancelled by us"
    return text + (f", {figures.unfinished} cut off by the interruption" if figures.unfinished else "")


def _slo(report: Report) -> str:
    slo = report.scenario["slo"]
    assert isinstance(slo, dict)
    parts = [f"{name.removesuffix('_ms').upper()} ≤ {limit:g} ms" for name, limit in slo.items() if limit]
    return ", ".join(parts) or "answered at all"
