"""Training the trials of a sweep, rung by rung, and what is kept of them.

Owns the sweep's folder: `trials/<number>/` with checkpoints, and `results.json`, replaced after each trial of
each rung. Invariants: a trial goes on bit by bit where its last rung ended; a sweep that was stopped goes on
behind its last finished trial; nothing is registered.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from registry.errors import Conflict, UsageError, WardrobeError
from registry.names import BASE
from registry.settings.file import read_settings
from registry.storage import files
from registry.validation.canonical import canonical_json, sha256_hex
from train.config import TrainConfig, parse_config
from train.evaluation.formats.specs import LOWER_IS_BETTER
from train.loop.attempt import Attempt, Stopped
from train.loop.trainer import train
from train.loop.watching import OptimiserStep, TrainingEvaluation
from train.runs.run import prepare
from train.settings.keeping import EVAL_LOSS
from train.sweep.plan import Rung, Values, draw, make_rungs, survivors, with_values
from train.sweep.settings import SweepSettings

if TYPE_CHECKING:
    from registry.store import Registry

_RESULTS = "results.json"


@dataclass(frozen=True, slots=True)
class SweepTrial:
    """One trial: its values, the config file that it is, and the config as it is trained."""

    number: int
    values: Values
    document: Mapping[str, Any]
    config: TrainConfig


@dataclass(slots=True)
class _Watch:
    """Watches one trial; `until` is the step behind which it stops."""

    until: int
    metric: str
    tell: Callable[[int, int, float], None]
    done: int = 0
    value: float = math.nan
    requested: Callable[[], bool] = lambda: False

    def step(self, step: OptimiserStep) -> None:
        """Take a step."""
        self.done = step.number
        self.tell(self.done, step.total, step.loss)

    def evaluation(self, evaluation: TrainingEvaluation) -> None:
        """Take an evaluation."""
        found = evaluation.loss if self.metric == EVAL_LOSS else evaluation.scores.get(self.metric)
        self.value = math.nan if found is None else found

    def close(self, state: str) -> None:
        """Nothing."""

    def is_due(self) -> bool:
        """Tell whether the step that is ending is the last one of the rung, or somebody wants to stop."""
        # Asked before the step itself is told.
        return self.done + 1 >= self.until or self.requested()


@dataclass(slots=True)
class Sweep:
    """A sweep under way: `scores` are by rung and trial, `rungs` and `trials` are fixed.

    `start` is what `from: nearest` found for all, a version or the base; None where that is not asked.
    """

    settings: SweepSettings
    folder: Path
    rungs: tuple[Rung, ...]
    trials: list[SweepTrial]
    scores: list[dict[int, float]] = field(default_factory=list)
    start: str | None = None

    @property
    def higher_is_better(self) -> bool:
        """Tell which way the metric goes."""
        return self.settings.metric != EVAL_LOSS and self.settings.metric not in LOWER_IS_BETTER

    @property
    def best(self) -> SweepTrial | None:
        """Return the winner once the last rung is over."""
        if len(self.scores) < len(self.rungs) or not self.scores[-1]:
            return None
        (number,) = survivors(self.scores[-1], 1, higher_is_better=self.higher_is_better)
        return None if math.isnan(self.scores[-1][number]) else self.trials[number]

    def entrants(self, rung: int) -> list[int]:
        """Return the trials that a rung trains."""
        if rung == 0:
            return [trial.number for trial in self.trials][: self.rungs[0].trials]
        return survivors(
            self.scores[rung - 1], self.rungs[rung].trials, higher_is_better=self.higher_is_better
        )

    def keep(self) -> None:
        """Write the results."""
        document = {
            "sweep": self.settings.model_dump(mode="json"),
            "rungs": [{"trials": one.trials, "until": one.until} for one in self.rungs],
            "trials": [dict(trial.values) for trial in self.trials],
            "start": self.start,
            "scores": [
                {str(number): None if math.isnan(value) else value for number, value in scores.items()}
                for scores in self.scores
            ],
        }
        files.replace(self.folder / _RESULTS, (json.dumps(document, indent=2) + "\n").encode())


def open_sweep(settings: SweepSettings, folder: Path, registry: Registry) -> Sweep:
    """Return the sweep in `folder`: a new one, or one that was stopped; every trial's config is checked.

    Raises: UsageError: a trial's config is refused; Conflict: the folder holds another sweep.
    """
    shared = read_settings(settings.config, see="train/README.md").value
    rungs = make_rungs(settings)
    start = _found_start(folder)
    trials = _trials(_starting(shared, start), settings, rungs)
    prepared = prepare(trials[0].config, registry)
    if prepared.choice is not None:
        start = prepared.choice.version or BASE
        trials = _trials(_starting(shared, start), settings, rungs)
    if not prepared.held_out and settings.metric == EVAL_LOSS:
        fact = "compares trials by eval_loss, and the config names no data.eval"
        raise UsageError(str(settings.config), fact, "name a held-out file, or a metric of its suite")
    sweep = Sweep(settings, folder, rungs, trials, start=start)
    _restore(sweep)
    return sweep


def run_sweep(
    sweep: Sweep,
    registry: Registry,
    tell: Callable[[SweepTrial, int, int, float], None],
    requested: Callable[[], bool] = lambda: False,
) -> SweepTrial:
    """Train every rung and return the best trial; `tell` hears of each step.

    Raises:
        KeyboardInterrupt: `requested` said so; the sweep can go on.
        WardrobeError: no trial ended with a number.
    """
    for place, rung in enumerate(sweep.rungs):
        if place == len(sweep.scores):
            sweep.scores.append({})
        for number in sweep.entrants(place):
            if number not in sweep.scores[place]:
                sweep.scores[place][number] = _advance(
                    sweep, sweep.trials[number], rung, registry, tell, requested
                )
                sweep.keep()
        _drop(sweep, place)
    if (best := sweep.best) is None:
        raise WardrobeError(
            "sweep", "no trial ended with a number", "lower learning_rate, or look at the data"
        )
    written = yaml.safe_dump(_absolute(best), sort_keys=False)
    files.replace(sweep.folder / "best.yaml", written.encode())
    return best


def default_folder(path: Path, settings: SweepSettings) -> Path:
    """Return the folder of a sweep that is told none: beside its file, by its content."""
    digest = sha256_hex(canonical_json(settings.model_dump(mode="json")))
    return path.resolve().parent / f"{path.stem}-{digest[:8]}"


def _advance(
    sweep: Sweep,
    trial: SweepTrial,
    rung: Rung,
    registry: Registry,
    tell: Callable[[SweepTrial, int, int, float], None],
    requested: Callable[[], bool],
) -> float:
    run = prepare(trial.config, registry)
    folder = sweep.folder / "trials" / str(trial.number)
    checkpoints = folder / "checkpoints"
    kept = sorted(
        int(one.name) for one in checkpoints.glob("*") if one.name.isascii() and one.name.isdecimal()
    )
    watch = _Watch(
        rung.until,
        sweep.settings.metric,
        lambda *seen: tell(trial, *seen),
        kept[-1] if kept else 0,
        requested=requested,
    )
    attempt = Attempt(
        folder / "work", checkpoints, kept[-1] if kept else None, tuple(kept), (watch,), watch.is_due
    )
    out = folder / "adapter"
    shutil.rmtree(out, ignore_errors=True)
    try:
        train(run, attempt, out)
    except Stopped as stopped:
        if stopped.step < rung.until:
            raise
    except WardrobeError:
        return math.nan  # a guard stopped it: it diverged, which is an answer too
    return watch.value


def _found_start(folder: Path) -> str | None:
    """Return the start that this sweep found before it was stopped: the trials must go on from the same."""
    path = folder / _RESULTS
    found: Any = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return str(found["start"]) if found.get("start") else None


def _starting(shared: dict[str, Any], start: str | None) -> dict[str, Any]:
    """Return the config with what `from: nearest` found, which is then measured once for all trials."""
    if start is None:
        return shared
    rest = {key: value for key, value in shared.items() if key not in {"from", "nearest"}}
    return rest if start == BASE else {**rest, "from": start}


def _trials(shared: dict[str, Any], settings: SweepSettings, rungs: tuple[Rung, ...]) -> list[SweepTrial]:
    drawn = draw(settings, rungs[0].trials)
    return [_trial(number, values, shared, settings, rungs) for number, values in enumerate(drawn)]


def _trial(
    number: int, values: Values, shared: dict[str, Any], settings: SweepSettings, rungs: tuple[Rung, ...]
) -> SweepTrial:
    document = with_values(shared, {**values, "training.steps": settings.steps})
    subject = f"{settings.config} with {', '.join(f'{key}={value}' for key, value in values.items())}"
    folder = settings.config.resolve().parent
    parse_config(document, subject, folder)
    # What decides the weights stays as it is; a rung measures where it ends.
    trained = {
        **{key: value for key, value in document.items() if key not in {"early_stopping", "tracking"}},
        "evaluation": {"every": rungs[0].until},
        "checkpoints": {**_suite(document), "keep": 1},
    }
    return SweepTrial(number, values, document, parse_config(trained, subject, folder))


def _absolute(trial: SweepTrial) -> dict[str, Any]:
    """Return the trial's config file with the data's paths as they are found from anywhere."""
    data = trial.config.data.model_dump(mode="json", exclude_defaults=True)
    return {**trial.document, "data": data}


def _suite(document: Mapping[str, Any]) -> dict[str, Any]:
    asked = document.get("checkpoints")
    suite = asked.get("suite") if isinstance(asked, Mapping) else None
    return {} if suite is None else {"suite": suite}


def _restore(sweep: Sweep) -> None:
    path = sweep.folder / _RESULTS
    if not path.exists():
        files.make_directory(sweep.folder)
        sweep.keep()
        return
    found = json.loads(path.read_text(encoding="utf-8"))
    if found["sweep"] != sweep.settings.model_dump(mode="json"):
        raise Conflict(
            str(sweep.folder), "holds another sweep", "name another folder with --out", param="out"
        )
    sweep.scores = [
        {int(number): math.nan if value is None else value for number, value in scores.items()}
        for scores in found["scores"]
    ]


def _drop(sweep: Sweep, place: int) -> None:
    """Remove the checkpoints of the trials that do not go on."""
    last = place + 1 == len(sweep.rungs)
    going_on = set() if last else set(sweep.entrants(place + 1))
    for number in set(sweep.scores[place]) - going_on:
        shutil.rmtree(sweep.folder / "trials" / str(number), ignore_errors=True)
