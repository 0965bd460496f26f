"""What the attestations of a version say about its gate. Pure and light: for whoever requires a gate.

Owns the three verdicts and how the newest gate is found. Not how a verdict is reached: that is `gate.py`.
Invariant: nothing but a stored `pass` reads as a pass; a broken or foreign attestation reads as none.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

GATE = "gate"
EVALUATION = "evaluation"
FORMAT = "wardrobe.gate/1"


class Verdict(StrEnum):
    """How a gate ended."""

    PASS = "pass"  # noqa: S105  a verdict
    FAIL = "fail"
    CANNOT_TELL = "cannot_tell"


class Attested(Protocol):
    """What is read of an attestation (`registry.records.Attestation` or its document)."""

    @property
    def kind(self) -> str:
        """Return its kind."""

    @property
    def at(self) -> float:
        """Return when it was written, UNIX seconds."""

    @property
    def body(self) -> Mapping[str, object]:
        """Return what it says."""


@dataclass(frozen=True, slots=True)
class GateState:
    """The gate of a version as it stands: `verdict` None means that no gate fits the question.

    `sentence` is for people; `goal_sha256` and `at` are those of the gate that decided.
    """

    verdict: Verdict | None
    sentence: str
    goal_sha256: str | None = None
    at: float | None = None

    @property
    def passed(self) -> bool:
        """Tell whether the version may go on."""
        return self.verdict is Verdict.PASS


def gate_verdict(
    attestations: Iterable[Attested],
    *,
    digest: str | None = None,
    goal_sha256: str | None = None,
    replaces: int | None = None,
) -> GateState:
    """Return what the newest fitting gate says; attestations of other kinds are passed over.

    With `digest`, a gate of other content does not fit; with `goal_sha256`, one of another goal; with
    `replaces`, one that was not held against that version's number.
    """
    wanted = {"digest": digest, "goal_sha256": goal_sha256, "replaces": replaces}
    fitting = [one for one in attestations if one.kind == GATE and _fits(one.body, wanted)]
    if not fitting:
        return GateState(None, _missing(wanted))
    last = max(enumerate(fitting), key=lambda pair: (pair[1].at, pair[0]))[1]
    return GateState(
        Verdict(str(last.body["verdict"])),
        str(last.body.get("sentence") or last.body["verdict"]),
        str(last.body["goal_sha256"]),
        last.at,
    )


def _fits(body: Mapping[str, object], wanted: Mapping[str, object]) -> bool:
    if body.get("format") != FORMAT or body.get("verdict") not in set(Verdict):
        return False
    found = {
        "digest": body.get("digest"),
        "goal_sha256": body.get("goal_sha256"),
        "replaces": body.get("replaces"),
    }
    if not isinstance(found["goal_sha256"], str):
        return False
    return all(value is None or found[name] == value for name, value in wanted.items())


def _missing(wanted: Mapping[str, object]) -> str:
    asked = [f"{name.replace('_', ' ')} {value}" for name, value in wanted.items() if value is not None]
    return "no gate was held" + (f" for {', '.join(asked)}" if asked else "")
