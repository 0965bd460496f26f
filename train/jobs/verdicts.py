"""What became of a job's version: its lineage, and what was found out about it since. Reads, never judges."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from registry.errors import NotFound, WardrobeError
from registry.records import Attestation
from registry.validation.requirements import FORCE, LINEAGE
from train.jobs.records import JobDetail


@dataclass(frozen=True, slots=True)
class VerdictLine:
    """One thing that was found out: `verdict` is pass, fail or cannot_tell, else None."""

    kind: str
    verdict: str | None
    sentence: str
    who: str
    at: float


@dataclass(frozen=True, slots=True)
class Aftermath:
    """What is known of a job's version; `problems` say what cannot be read, or that the version is gone."""

    lineage: Mapping[str, object] = field(default_factory=dict)
    found: tuple[VerdictLine, ...] = ()
    problems: tuple[str, ...] = ()


def aftermath(root: Path, job: JobDetail) -> Aftermath:
    """Return what the store knows of the version that `job` made; nothing of a job that made none."""
    number = job.status.version
    if number is None:
        return Aftermath()
    # A page of a run is shown also where its version is deleted or damaged: the run was as it was.
    try:
        return _read(root, job.adapter, number)
    except WardrobeError as error:
        return Aftermath(problems=(str(error),))


def _read(root: Path, adapter: str, number: int) -> Aftermath:
    from registry.store import Registry

    registry = Registry.open(root)
    problems = []
    try:
        registry.version(adapter, number)
    except NotFound:
        problems.append(f"{adapter}@{number} was deleted")
    attested, broken = registry.catalogue.attestations.survey(adapter, number)
    reason = registry.quarantined(adapter, number)
    if reason is not None:
        problems.append(f"{adapter}@{number} is in quarantine: {reason}")
    lineage = next((one.body for one in reversed(attested) if one.kind == LINEAGE), {})
    found = tuple(_found(one) for one in attested if one.kind != LINEAGE)
    return Aftermath(lineage, found, (*problems, *(str(error) for error in broken)))


def _found(one: Attestation) -> VerdictLine:
    body = one.body
    verdict = str(body["verdict"]) if "verdict" in body else None
    if verdict is None and isinstance(body.get("passed"), bool):
        verdict = "pass" if body["passed"] else "fail"
    sentence = str(body.get("sentence") or body.get("why") or "; ".join(_figures(body)))
    return VerdictLine(one.kind, verdict if one.kind != FORCE else None, sentence, one.who, one.at)


def _figures(body: Mapping[str, object]) -> Iterator[str]:
    """Yield the figures of an attested evaluation in words."""
    arm = body.get("arm")
    figures = arm.get("figures") if isinstance(arm, dict) else None
    for name, slices in figures.items() if isinstance(figures, dict) else ():
        whole = slices.get("all") if isinstance(slices, dict) else None
        if isinstance(whole, dict) and isinstance(whole.get("value"), int | float):
            limits = (whole.get("low"), whole.get("high"))
            shown = " to ".join(f"{limit:.3f}" for limit in limits if isinstance(limit, int | float))
            yield f"{body.get('suite')}: {name} {whole['value']:.3f} ({shown}) of {whole.get('items')} items"
