"""What the statistics say of the evidence: values only, shown to people and acted on by the proposal."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class MetricVerdict(StrEnum):
    """One metric's answer. `insufficient` is neither: hold, never promote, never fail."""

    PASS = "pass"  # noqa: S105 - a verdict
    SUSPICIOUS = "suspicious"
    FAIL = "fail"
    INSUFFICIENT = "insufficient"


@dataclass(frozen=True, slots=True)
class MetricCheck:
    """One metric at one look.

    `log_e` is the natural logarithm of the e-value, against -ln(`alpha`); `stable` and `canary` are the
    compared values (rate, mean score …) or None; `needed` is how many canary units more would let it
    speak (0: it speaks; never infinite); `sentence` tells it with its numbers. Of a metric that is not
    `required` (fewer than half of the units give it a value) "insufficient" blocks nothing; its alarms count.
    `disputed`: one source of evidence alone makes its alarm, or hides one.
    """

    metric: str
    verdict: MetricVerdict
    log_e: float
    alpha: float
    sentence: str
    stable: float | None = None
    canary: float | None = None
    needed: int = 0
    required: bool = True
    disputed: bool = False


@dataclass(frozen=True, slots=True)
class Certificate:
    """Whether the last step may promote: `how` is `certificate`, `bound`, `no_harm` or ''.

    For `no_harm` the units are there and nothing is suspicious; the seconds are for whoever has a clock.
    """

    reached: bool
    how: str
    sentence: str
    needed: int


@dataclass(frozen=True, slots=True)
class Judgement:
    """Everything at one look: metrics, sample-ratio mismatch (`imbalance`), and the certificate."""

    checks: tuple[MetricCheck, ...]
    imbalance: MetricCheck
    certificate: Certificate

    @property
    def worst(self) -> MetricVerdict:
        """Return the gravest verdict: fail, suspicious, insufficient (of required metrics), pass."""
        order = (MetricVerdict.FAIL, MetricVerdict.SUSPICIOUS, MetricVerdict.INSUFFICIENT, MetricVerdict.PASS)
        found = {
            one.verdict
            for one in self.checks
            if one.required or one.verdict is not MetricVerdict.INSUFFICIENT
        }
        return next((verdict for verdict in order if verdict in found), MetricVerdict.INSUFFICIENT)
