"""The figures of a run by name: what each means, its unit, and which direction is better.

One list for thresholds, comparisons and reports, so that a name means one thing everywhere.
"""

from __future__ import annotations

from difflib import get_close_matches

from registry.errors import UsageError

DISTRIBUTIONS = {
    "ttft_ms": "from the intended start to the first text (streams)",
    "ttft_service_ms": "from the sending to the first text (streams)",
    "tpot_ms": "per output token after the first: (end − first) / (tokens − 1), tokens as the server counts",
    "e2e_ms": "from the intended start to the end of the answer",
    "e2e_service_ms": "from the sending to the end of the answer",
    "lag_ms": "from the intended start to the sending: what the generator itself added",
    "ttft_share": "first text's time as a share of the whole (streams); near 1 = the stream is not one",
    "chunks_per_token": "pieces with text per output token (streams)",
}
"""Distributions; each has the statistics of `STATISTICS`."""
STATISTICS = {"p50": 50.0, "p90": 90.0, "p95": 95.0, "p99": 99.0, "p99_9": 99.9}
"""The quantiles, in percent."""
COUNTED = {
    "requests": "requests that were due in the measured time",
    "ok": "complete answers",
    "errors": "requests without a complete answer, but for those that the run cancelled",
    "errors.unexplained": "errors, but for requests open during a kill_replica; `refused` always counts",
    "errors.rate": "errors / (ok + errors)",
    "cancelled": "requests that the run itself cancelled",
    "unfinished": "requests that were in flight when the run was interrupted",
    "goodput.rate": "share of (ok + errors) that kept every SLO",
    "goodput.per_second": "requests that kept every SLO, per second",
    "requests_per_second": "complete answers per second",
    "output_tokens": "tokens of complete answers",
    "output_tokens_per_second": "tokens of complete answers, per second",
    "wrong_adapter": "answers that name another adapter than the one that was asked",
    "wrong_text": "answers that do not hold the text that `expect` names for their version",
    "actions.failed": "actions that failed, the warm-up included",
    "disruption_seconds": "from the first to the last failed request's intended start",
}
"""Plain figures."""
ROLLOUT = {
    "rollout.seconds_to_promoted": "from the rollout's start to `promoted`",
    "rollout.seconds_to_rolled_back": "from the rollout's start to `rolled_back`",
    "rollout.detection_seconds": "from the canary's first answer to the end of its weight",
    "rollout.canary_answers": "answers by the canary",
    "rollout.canary_errors": "failed requests of the canary's arm",
    "rollout.canary_share": "the canary's share of all answers, from the rollout's start to its end",
    "rollout.weights": "how many different weights above 0 it had",
    "rollout.setbacks": "how often its weight fell, or it began anew, before its end",
    "rollout.late_canary_seconds": "how long after the rollback a request still met the canary (0: none)",
}
"""Figures of the run's first rollout; without one they have no value."""
HIGHER_IS_BETTER = frozenset(
    {"ok", "goodput.rate", "goodput.per_second", "requests_per_second", "output_tokens_per_second"}
)


def known_metrics() -> list[str]:
    """Return every name that a threshold may have."""
    statistics = [*STATISTICS, "mean", "max"]
    spread = [f"{name}.{statistic}" for name in DISTRIBUTIONS for statistic in statistics]
    return [*spread, *COUNTED, *ROLLOUT]


def meanings() -> list[tuple[str, str]]:
    """Return every metric with its meaning; distributions once, with the names of their statistics."""
    statistics = "|".join([*STATISTICS, "mean", "max"])
    spread = [(f"{name}.{statistics}", meaning) for name, meaning in DISTRIBUTIONS.items()]
    return [*spread, *COUNTED.items(), *ROLLOUT.items()]


def check_metric(name: str, subject: str) -> str:
    """Return `name`.

    Raises: UsageError: when there is no such metric.
    """
    known = known_metrics()
    if name in known:
        return name
    near = get_close_matches(name, known, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(known)}"
    raise UsageError(subject, f"{name!r} is not a metric", hint)
