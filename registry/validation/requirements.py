"""What must have been found out about a version before `stable` may move to it. Pure and light.

Owns the names of requirements, the formats of the attestations that meet them, and how those are read;
not how a verdict is reached (that is `train`'s) and not where a requirement is asked for. Invariants:
only a stored pass reads as a pass, a broken or foreign attestation reads as none; what was found of other
content, of another goal, or against another version than the one to be replaced, does not count.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from enum import StrEnum
from typing import Protocol

from registry.errors import Unproved, UsageError
from registry.records import Version
from registry.validation.chat_template import TEMPLATE_NAME

LINEAGE = "lineage"
FORCE = "force"
TEMPLATE = "template"


class Requirement(StrEnum):
    """What can be required of a version; each is also the kind of the attestation that meets it."""

    GATE = "gate"
    PARITY = "parity"
    TOKENS = "tokens"


FORMATS = {kind: f"wardrobe.{kind.value}/1" for kind in Requirement}
"""The field `format` of each kind's body."""


class GateVerdict(StrEnum):
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

    verdict: GateVerdict | None
    sentence: str
    goal_sha256: str | None = None
    at: float | None = None

    @property
    def passed(self) -> bool:
        """Tell whether the version may go on."""
        return self.verdict is GateVerdict.PASS


@dataclass(frozen=True, slots=True)
class UnmetRequirement:
    """One requirement that a version does not meet: which, why, and the command that may change that."""

    requirement: str
    sentence: str
    remedy: str


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
    gates = [one for one in attestations if one.kind == Requirement.GATE and _is_gate(one.body)]
    fitting = [one for one in gates if not _misfits(one.body, wanted)]
    if not fitting:
        return GateState(None, _no_gate(_newest(gates), wanted))
    last = _newest(fitting)
    assert last is not None
    return GateState(
        GateVerdict(str(last.body["verdict"])),
        str(last.body.get("sentence") or last.body["verdict"]),
        str(last.body["goal_sha256"]),
        last.at,
    )


def trained_goal(attestations: Iterable[Attested]) -> str | None:
    """Return the hash of the goal that a version was trained for, None where its lineage names none."""
    found = _newest([one for one in attestations if one.kind == LINEAGE])
    goal = None if found is None else found.body.get("goal_sha256")
    return goal if isinstance(goal, str) else None


def lacks(
    version: Version,
    attestations: Sequence[Attested],
    required: Iterable[Requirement],
    replaces: int | None,
) -> list[UnmetRequirement]:
    """Return what of `required` the version does not meet, to replace the version number `replaces`.

    A chat template of its own is always a lack: the server renders with the base's.
    """
    found = [_lack(kind, version, attestations, replaces) for kind in dict.fromkeys(required)]
    return [lack for lack in (_template(version), *found) if lack is not None]


def parse_requirements(values: Iterable[object], subject: str) -> tuple[Requirement, ...]:
    """Return the requirements that `values` name, each once.

    Raises: UsageError: naming the first that is none.
    """
    found = []
    for value in values:
        try:
            found.append(Requirement(str(value)))
        except ValueError as error:
            near = get_close_matches(str(value), list(Requirement), n=1)
            allowed = f"allowed: {', '.join(Requirement)}"
            remedy = f"did you mean {near[0]}?" if near else allowed
            fact = f"{value!r} is not a requirement"
            raise UsageError(subject, fact, remedy, param="require") from error
    return tuple(dict.fromkeys(found))


def refusal(version: Version, found: Sequence[UnmetRequirement], *, force: str) -> Unproved:
    """Return the refusal of a version for what it lacks; `force` is the option that overrides it."""
    fact = "; ".join(f"{lack.requirement}: {lack.sentence}" for lack in found)
    commands = dict.fromkeys(lack.remedy for lack in found)
    return Unproved(version.name, fact, f"{', then '.join(commands)}; or force it with {force}")


def names(found: Iterable[UnmetRequirement]) -> str:
    """Return the names of what is lacking, for a log."""
    return ", ".join(lack.requirement for lack in found)


def _lack(
    kind: Requirement, version: Version, attestations: Sequence[Attested], replaces: int | None
) -> UnmetRequirement | None:
    if kind is not Requirement.GATE:
        return _proof_lack(kind, version, attestations)
    against = None if replaces == version.number else replaces
    goal = trained_goal(attestations)
    state = gate_verdict(attestations, digest=version.digest, goal_sha256=goal, replaces=against)
    if state.passed:
        return None
    other = f" --replaces {version.adapter}@{against}" if against else ""
    said = {GateVerdict.FAIL: "failed: ", GateVerdict.CANNOT_TELL: "cannot tell: "}
    sentence = said[state.verdict] + state.sentence if state.verdict else state.sentence
    return UnmetRequirement(
        kind.value, sentence, f"`wardrobe eval gate GOAL.yaml --model {version.name}{other}`"
    )


def _proof_lack(
    kind: Requirement, version: Version, attestations: Sequence[Attested]
) -> UnmetRequirement | None:
    remedy = f"`wardrobe train prove {version.name}`"
    mine = [one for one in attestations if one.kind == kind and one.body.get("format") == FORMATS[kind]]
    last = _newest([one for one in mine if one.body.get("digest") == version.digest])
    if last is None:
        return UnmetRequirement(kind.value, "was not proved", remedy)
    if last.body.get("passed") is True:
        return None
    return UnmetRequirement(
        kind.value, f"failed: {last.body.get('sentence') or 'no reason is stored'}", remedy
    )


def _template(version: Version) -> UnmetRequirement | None:
    if not any(file.path == TEMPLATE_NAME for file in version.files):
        return None
    sentence = "it has a chat template of its own, and the server renders with the base's"
    return UnmetRequirement(TEMPLATE, sentence, f"register it without {TEMPLATE_NAME}")


def _newest(attestations: Sequence[Attested]) -> Attested | None:
    found = max(enumerate(attestations), key=lambda pair: (pair[1].at, pair[0]), default=None)
    return None if found is None else found[1]


def _is_gate(body: Mapping[str, object]) -> bool:
    known = body.get("format") == FORMATS[Requirement.GATE] and body.get("verdict") in set(GateVerdict)
    return known and isinstance(body.get("goal_sha256"), str)


def _misfits(body: Mapping[str, object], wanted: Mapping[str, object]) -> list[str]:
    return [name for name, value in wanted.items() if value is not None and body.get(name) != value]


def _no_gate(last: Attested | None, wanted: Mapping[str, object]) -> str:
    """Return why no gate fits: there is none, or what the newest one was held over."""
    if last is None:
        return "no gate was held"
    told = []
    for name in _misfits(last.body, wanted):
        found, asked = last.body.get(name), wanted[name]
        if name == "replaces":
            told.append(f"against version {found if found is not None else 'none'}, not {asked}")
        else:
            told.append(f"{_LABELS[name]} {str(found)[:19]}, not {str(asked)[:19]}")
    return f"no gate fits: the newest was held {' and '.join(told)}"


_LABELS = {"digest": "over the content", "goal_sha256": "for the goal"}
