"""Nobody decides alone: an alarm that a client can make is one only if it stands without each source.

What a client can make up at will: scores, broken forms (by its prompts) and slow answers (by long ones). Such
a metric fails where the whole evidence fails and so does what is left without any one source. Where they
disagree, one source alone raises the alarm or hides it, and which of them is honest no count can tell: the
metric is `disputed`, the rollout holds, and a person decides (a hold that nobody ends becomes a pause).
Failures of a version are none that a client can make (`serve.outcomes`), so the error rate needs nobody's
agreement.

Invariant: a metric fails only where its own e-value reaches 1/alpha, so no false alarm is added.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from serve.rollout.statistics import verdicts
from serve.rollout.statistics.judgement import MetricCheck, MetricVerdict

MADE_BY_CLIENTS = frozenset({"feedback", "format", "first_token", "per_token"})
"""Metrics whose values one client can choose."""


def corroborate(whole: MetricCheck, without: Mapping[str, MetricCheck]) -> MetricCheck:
    """Return the check of a metric, disputed where one source alone makes or hides its alarm.

    `without` are the checks of the same metric on the evidence without each source, by its name.
    """
    if whole.metric not in MADE_BY_CLIENTS or not without:
        return whole
    level = _LEVELS.get(whole.verdict, 0)
    odd = [name for name, check in without.items() if _disagrees(level, _LEVELS.get(check.verdict, 0))]
    if not odd:
        return whole
    name = odd[0]
    rest = verdicts.e_value(without[name].log_e, whole.alpha)
    what = "raises this alarm" if level else "hides an alarm"
    sentence = f"{whole.sentence}; {name} alone {what} (without it: {rest}), so a person has to decide"
    return replace(whole, verdict=MetricVerdict.SUSPICIOUS, sentence=sentence, disputed=True)


_LEVELS = {MetricVerdict.SUSPICIOUS: 1, MetricVerdict.FAIL: 2}


def _disagrees(whole: int, rest: int) -> bool:
    """Return whether an alarm is weaker without a source, or is proof only without it."""
    return rest < whole or (not whole and rest == _LEVELS[MetricVerdict.FAIL])
