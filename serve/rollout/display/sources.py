"""Whose evidence it is, as people read it: each key's part, and what was left out and why. Pure functions."""

from __future__ import annotations

from collections.abc import Iterator

from serve.rollout.documents import SourceDocument
from serve.rollout.policy import EvidenceShares
from serve.rollout.recording.attributing import give_shares
from serve.rollout.recording.evidence import Evidence
from serve.rollout.recording.sources import Source

_TOLD_SHARE = 0.1
"""Of a source's units: less left out than this is not worth a sentence."""


def sources(evidence: Evidence) -> list[SourceDocument]:
    """Return what each key gave, most first."""
    units = sum(part.units for part in evidence.parts.values())
    ratings = sum(part.ratings for part in evidence.parts.values())
    return [
        SourceDocument(
            group=(source := Source.read(label)).group,
            key=source.key,
            units=part.units,
            units_left_out=part.units_left_out,
            units_share=part.units / units if units else 0.0,
            ratings=part.ratings,
            ratings_left_out=part.ratings_left_out,
            ratings_share=part.ratings / ratings if ratings else 0.0,
        )
        for label, part in evidence.parts.items()
    ]


def left_out(evidence: Evidence, shares: EvidenceShares) -> Iterator[str]:
    """Yield a sentence for each source of which much was left out, with what would change it."""
    for name, part in give_shares(evidence.parts).items():
        kind = "key" if "/" in name else "group"
        told = [
            f"{out:,} of {out + taken:,} {what}"
            for what, taken, out in (
                ("units", part.units, part.units_left_out),
                ("ratings", part.ratings, part.ratings_left_out),
            )
            if out > _TOLD_SHARE * (out + taken)
        ]
        if told:
            yield (
                f"{' and '.join(told)} of the {kind} {name} were left out: at most "
                f"{shares.share_of(name):.0%} of the evidence may be one {kind}'s, and the others sent too "
                f"few (`evidence` in the policy, `wardrobe groups set GROUP --no-evidence`)"
            )
