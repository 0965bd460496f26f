"""What was found out about a version, as verdicts with a sentence each (pure).

The rules are those of `registry.validation.requirements`: only a stored pass of this very content is a pass.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from registry.api.documents import VersionDetail
from registry.records import Attestation
from registry.validation.requirements import FORCE, FORMATS, Requirement, gate_verdict, trained_goal

_NOT_YET = "cannot_tell"
_PROOF = "proof"


@dataclass(frozen=True, slots=True)
class ToldVerdict:
    """One verdict: `verdict` is pass, fail, or cannot_tell where nothing was found out yet."""

    subject: str
    verdict: str
    sentence: str
    at: float | None = None


def verdicts(version: VersionDetail) -> list[ToldVerdict]:
    """Return what is known of a version, in the order in which one asks."""
    return list(_each(version))


def _each(version: VersionDetail) -> Iterator[ToldVerdict]:
    known = version.attestations
    if version.quarantined is not None:
        yield ToldVerdict("quarantine", "fail", f"It may not be served: {version.quarantined}.")
    yield _proof(known)
    gate = gate_verdict(known, digest=version.digest, goal_sha256=trained_goal(known))
    said = _NOT_YET if gate.verdict is None else gate.verdict.value
    yield ToldVerdict("gate", said, _sentence(gate.sentence), gate.at)
    for kind, name in ((Requirement.PARITY, "parity"), (Requirement.TOKENS, "tokens")):
        last = _newest(known, kind.value)
        fits = last is not None and last.body.get("format") == FORMATS[kind]
        if last is None or not fits or last.body.get("digest") != version.digest:
            remedy = f"`wardrobe train prove {version.adapter}@{version.version}` does"
            yield ToldVerdict(name, _NOT_YET, f"Nobody has held it against PEFT; {remedy}.")
            continue
        passed = last.body.get("passed") is True
        text = str(last.body.get("sentence") or "no reason is stored")
        yield ToldVerdict(name, "pass" if passed else "fail", _sentence(text), last.at)
    for told in known:
        if told.kind == FORCE:
            why = str(told.body.get("why") or "no reason is stored")
            yield ToldVerdict(
                "forced", "fail", _sentence(f"{told.who} moved stable all the same: {why}"), told.at
            )
    for problem in version.problems:
        yield ToldVerdict("unreadable", "fail", problem)


def _proof(known: list[Attestation]) -> ToldVerdict:
    last = _newest(known, _PROOF)
    if last is None:
        return ToldVerdict(
            _PROOF, _NOT_YET, "No server has loaded it and found that it changes the answer yet."
        )
    if last.body.get("passed") is True:
        text = "A server found that it answers unlike the base model, beyond noise."
        return ToldVerdict(_PROOF, "pass", text, last.at)
    return ToldVerdict(_PROOF, "fail", "A server could not tell its answers from the base model's.", last.at)


def _newest(known: list[Attestation], kind: str) -> Attestation | None:
    return max((one for one in known if one.kind == kind), key=lambda one: (one.at, one.seq), default=None)


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}".rstrip(".") + "."
