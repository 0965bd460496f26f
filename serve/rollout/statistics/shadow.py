"""Which one of a pair failed: shadowed requests that only one arm answered well.

A pair that both or neither answered says nothing; of the others the canary's share is at most ½ when it
fails no more often than stable (McNemar's pairs as an e-process, `derivations.md` 4).
"""

from __future__ import annotations

from collections.abc import Mapping

from serve.rollout.statistics.share import log_harm_e


def log_pairs_e(pairs: Mapping[str, int], margin: float = 1.0) -> float:
    """Return the log e-value that the canary fails alone more than `margin` times as often as stable."""
    null = margin / (1 + margin)
    return float(log_harm_e(pairs.get("canary_failed", 0), pairs.get("stable_failed", 0), null))
