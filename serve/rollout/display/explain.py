"""Why a rollout went as it did: every entry of its log as a document, and in sentences with its numbers.

Pure functions of log entries; the log itself is the registry's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from pydantic import JsonValue

from registry.records import RolloutEntry
from serve.rollout.documents import DecisionDocument, ExplainDocument, RolloutHistory, version_name

_MAX_DEPTH = 2
_FULL = 100


def share(weight: int) -> str:
    """Return basis points as percent."""
    return f"{weight / _FULL:g}%"


def standing(state: str, weight: int) -> str:
    """Return a state with the share that meets the canary; a closed rollout sends nobody anywhere."""
    return state if state == "closed" else f"{state} at {share(weight)}"


def decisions(log: Sequence[RolloutEntry]) -> list[DecisionDocument]:
    """Return each entry as a document; `previous` is the state before it, '' where a rollout begins."""
    before: RolloutEntry | None = None
    found = []
    for entry in log:
        same = before is not None and before.rollout == entry.rollout
        previous = before.state if same and before is not None else ""
        found.append(DecisionDocument.of(entry, previous=previous))
        before = entry
    return found


def explained(log: Sequence[RolloutEntry], rollout: str) -> ExplainDocument:
    """Return every decision of one rollout; `log` is the adapter's and holds at least one entry of it."""
    found = [entry for entry in log if entry.rollout == rollout]
    last = found[-1]
    return ExplainDocument(
        adapter=last.adapter,
        rollout=rollout,
        stable=version_name(last.adapter, last.stable),
        canary=version_name(last.adapter, last.canary),
        decisions=decisions(found),
    )


def history(adapter: str, log: Sequence[RolloutEntry]) -> RolloutHistory:
    """Return every decision of every rollout of one adapter."""
    return RolloutHistory(adapter=adapter, decisions=decisions(log))


def moved(decision: DecisionDocument) -> str:
    """Return what a decision did, in a few words: `ramping → hold at 5%`."""
    now = standing(decision.state, decision.weight)
    if decision.previous and decision.previous != decision.state:
        return f"{decision.previous} → {now}"
    return now


def told(decision: DecisionDocument) -> str:
    """Return a decision in a line: what, why, and `forced` where a person overrode a refusal."""
    reason = f" ({decision.reason})" if decision.reason not in {"", decision.event} else ""
    sentence = f": {decision.sentence}" if decision.sentence else ""
    forced = " (forced)" if decision.forced and decision.event == "start" else ""
    return f"{decision.event}{reason}{forced}, {moved(decision)}{sentence}"


def numbers(facts: Mapping[str, JsonValue]) -> list[str]:
    """Return the facts of a decision, those of one thing (`errors.alpha`, or nested) in one line."""
    lines: dict[str, list[str]] = {}
    for name, value in _flat(facts, "", 0):
        subject, _, fact = name.rpartition(".")
        lines.setdefault(subject, []).append(f"{fact} {_short(value)}")
    return [
        f"{subject}: {', '.join(found)}" if subject else ", ".join(found) for subject, found in lines.items()
    ]


def _flat(facts: Mapping[str, JsonValue], prefix: str, depth: int) -> Iterator[tuple[str, JsonValue]]:
    for name, value in facts.items():
        if isinstance(value, dict) and depth < _MAX_DEPTH:
            yield from _flat(value, f"{prefix}{name}.", depth + 1)
        else:
            yield f"{prefix}{name}", value


def _short(value: JsonValue) -> str:
    if isinstance(value, float):
        return f"{value + 0.0:.4g}"  # the sum makes no negative zero
    if isinstance(value, list):
        return " ".join(_short(item) for item in value) or "-"
    return "-" if value is None else str(value)
