"""What the drill measured, by the provider's own counts, the root and the report: each against its bar."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from loadtests.drills.migrate.command import CommandKill
from loadtests.drills.migrate.provider import Provider
from registry.records import Attestation
from registry.store import Registry
from train.jobs.store import Jobs
from train.migrating.recording import AT_ONCE

LONGEST_SECONDS = 1_200.0
VERDICTS = frozenset({"pass", "fail", "cannot_tell"})


@dataclass(frozen=True, slots=True)
class MigrationFigures:
    """Counts over the whole migration; `seconds` include the kills and every start after one.

    `fetched_again` and `asked_again` are of what was kept at an earlier kill; `asked_in_flight` were on their
    way when a kill came. `tokens_paid` is the provider's sum, `tokens_told` the command's.
    """

    seconds: float
    kills: tuple[str, ...]
    left_behind: int
    contents: int
    fetched_again: int
    prompts: int
    asked_again: int
    asked_in_flight: int
    tokens_paid: int
    tokens_told: int
    budget: int
    versions: int
    published_twice: int
    attested_twice: int
    unfinished: int
    resumed: Mapping[str, list[int]]
    verdicts: Mapping[str, str]
    sentences: Mapping[str, str]
    named: int

    def faults(self, kills: int, jobs: int) -> list[str]:
        """Return the bars that were missed, in words."""
        passed = sum(one == "pass" for one in self.verdicts.values())
        bars = {
            f"{self.seconds:.0f} s, at most {LONGEST_SECONDS:.0f}": self.seconds <= LONGEST_SECONDS,
            f"{len(self.kills)} kills of {kills}": len(self.kills) == kills,
            f"{self.left_behind} processes outlived a kill": not self.left_behind,
            f"{self.fetched_again} contents fetched again": not self.fetched_again,
            f"{self.asked_again} prompts asked again": not self.asked_again,
            f"{self.asked_in_flight} prompts asked twice": self.asked_in_flight <= AT_ONCE * kills,
            f"{self.tokens_paid} tokens of {self.budget}": self.tokens_paid <= self.budget,
            f"{self.versions} versions of {jobs} jobs": self.versions == jobs,
            f"{self.published_twice} published twice": not self.published_twice,
            f"{self.attested_twice} verdicts attested twice": not self.attested_twice,
            f"{self.unfinished} trainings did not end": not self.unfinished,
            f"verdicts {dict(self.verdicts)}": len(self.verdicts) == jobs
            and set(self.verdicts.values()) <= VERDICTS,
            f"{self.named} names for {passed} that passed": self.named == passed,
        }
        return [told for told, held in bars.items() if not held]


def measure(
    provider: Provider,
    registry: Registry,
    kills: Sequence[CommandKill],
    report: Mapping[str, Any],
    budget: int,
    seconds: float,
) -> MigrationFigures:
    """Count what there is after the command has ended by itself."""
    tasks = {job.id: task for task, job in provider.jobs.items()}
    names = {target: str(provider.jobs[task].fine_tuned_model) for task, target in provider.targets.items()}
    prompts = [((names[one.what[0]], one.what[1]), one.at) for one in provider.models.asked]
    contents = [(one.what[0].split("/")[-2], one.at) for one in provider.door.asked]
    asked_again = sum(_known(kills, "questions", what, at) for what, at in prompts)
    repeated = len(prompts) - len({what for what, _ in prompts})
    versions = [one for adapter in registry.adapters() for one in registry.versions(adapter)]
    lineages = Counter(
        _made_by(told)
        for one in versions
        for told in registry.attestations(one.adapter, one.number, "lineage")[:1]
    )
    attested = [len(registry.attestations(one.adapter, one.number, "migration")) for one in versions]
    trained = {one.id: one for one in Jobs(registry.root).all()}
    states = {name: trained[f"migrate-{name}"].status() for name in tasks if f"migrate-{name}" in trained}
    jobs = report.get("jobs", [])
    return MigrationFigures(
        seconds=round(seconds, 1),
        kills=tuple(kill.during for kill in kills),
        left_behind=sum(kill.left_behind for kill in kills),
        contents=len(contents),
        fetched_again=sum(_known(kills, "files", what, at) for what, at in contents),
        prompts=len(prompts),
        asked_again=asked_again,
        asked_in_flight=repeated - asked_again,
        tokens_paid=sum(one.tokens for one in provider.models.asked),
        tokens_told=int(report.get("tokens", 0)),
        budget=budget,
        versions=len(versions),
        published_twice=sum(count > 1 for count in lineages.values()),
        attested_twice=sum(count > 1 for count in attested),
        unfinished=sum(one.state.value != "succeeded" for one in states.values()) + len(tasks) - len(states),
        resumed={tasks[name]: list(one.resumed) for name, one in states.items()},
        verdicts={tasks[one["id"]]: str(one["verdict"]) for one in jobs},
        sentences={tasks[one["id"]]: one["sentence"] for one in jobs},
        named=len(registry.catalogue.tuned.survey()[0]),
    )


def _made_by(told: Attestation) -> str:
    lineage: dict[str, Any] = dict(told.body)
    return str(lineage["job"]["id"])


def _known(kills: Sequence[CommandKill], kind: str, what: object, at: float) -> bool:
    """Tell whether something was kept at a kill before `at`."""
    return any(kill.at < at and what in getattr(kill, kind) for kill in kills)
