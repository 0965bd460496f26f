"""From what a client asked to the settings of a run: OpenAI's hyperparameters, and ours beside them.

Owns what `auto` and a multiplier mean here, and which keys of a training config a client may give. Invariant:
nothing that a client writes names a file of this machine: data are the job's own, a suite is one by name or
an uploaded file.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from registry.errors import UsageError
from registry.tuning.records import TuningRequest
from train.config import TrainConfig, parse_config
from train.evaluation.formats.library import known_suites
from train.settings.methods import LEARNING_RATES

EXTRAS = "x_wardrobe"
ANSWERS = 4
"""Answers drawn for each prompt of a reinforcement run, as `train run` draws them."""
_ROWS_AT_ONCE = 8
# Of a run that is served beside, a small batch is the shortest time that a request may wait.
_METHODS = {"supervised": "supervised", "dpo": "dpo", "reinforcement": "grpo"}
_OWN = frozenset({"name", "publish", "from"})
"""Keys of `x_wardrobe` that are no settings of the run: whoever made the job has read them."""
_NO_FILES = {
    "data": frozenset({"train", "replay"}),
    "checkpoints": frozenset({"suite"}),
}


def make_config(request: TuningRequest, train: Path, held_out: Path | None) -> TrainConfig:
    """Return the config of a job's run over its own copies of its files.

    Raises: UsageError: a setting that does not exist, or a value out of range, by its key.
    """
    extras = {key: value for key, value in request.extras.items() if key not in _OWN}
    _check_files(extras)
    settings = _merged(asked_settings(request), extras)
    settings["name"] = request.adapter
    if request.start is not None:
        settings["from"] = request.start
    data = settings.setdefault("data", {})
    data["train"] = str(train)
    if held_out is not None:
        data["eval"] = str(held_out)
    return parse_config(settings, EXTRAS, train.parent)


def hyperparameters(request: TuningRequest) -> Mapping[str, Any]:
    """Return what was asked under `method.<type>.hyperparameters`."""
    inner = request.method.get(str(request.method.get("type")))
    found = inner.get("hyperparameters") if isinstance(inner, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def resolved(config: TrainConfig) -> dict[str, Any]:
    """Return OpenAI's three hyperparameters as the run has them, for what was `auto`."""
    training = config.training
    rows = training.batch_size * training.accumulation
    answers = getattr(config.method, "answers", 1)
    return {
        "n_epochs": max(1, round(training.epochs)),
        "batch_size": max(1, rows // answers),
        "learning_rate_multiplier": round(config.learning_rate / LEARNING_RATES[config.method.type], 6),
    }


def publishes(request: TuningRequest) -> bool:
    """Tell whether the result becomes a version: unless `publish` is false."""
    return request.extras.get("publish") is not False


def asked_settings(request: TuningRequest) -> dict[str, Any]:
    """Return the settings of a training config that OpenAI's method and hyperparameters ask for.

    Raises: UsageError: a method that is not here, or one without its grader.
    """
    kind = str(request.method.get("type"))
    if kind not in _METHODS:
        raise UsageError("method.type", f"is {kind}", f"use {', '.join(_METHODS)}", param="method")
    asked = {key: value for key, value in hyperparameters(request).items() if value not in {"auto", None}}
    method: dict[str, Any] = {"type": _METHODS[kind]}
    training: dict[str, Any] = {}
    settings: dict[str, Any] = {"seed": request.seed, "method": method, "training": training}
    if "n_epochs" in asked:
        training["epochs"] = asked["n_epochs"]
    if "learning_rate_multiplier" in asked:
        rate = LEARNING_RATES[method["type"]]
        training["learning_rate"] = rate * float(asked["learning_rate_multiplier"])
    if kind == "dpo" and "beta" in asked:
        method["beta"] = asked["beta"]
    if kind == "reinforcement":
        _reinforce(request, asked, settings)
    elif "batch_size" in asked:
        training |= _split(int(asked["batch_size"]))
    return settings


def _reinforce(request: TuningRequest, asked: Mapping[str, Any], settings: dict[str, Any]) -> None:
    inner = request.method["reinforcement"]
    grader = inner.get("grader") if isinstance(inner, Mapping) else None
    if not isinstance(grader, Mapping):
        raise UsageError("method.reinforcement.grader", "is missing", "give a grader", param="method")
    answers = max(2, round(ANSWERS * float(asked.get("compute_multiplier", 1))))
    settings["method"] |= {"reward": {"graders": [_reward(grader)]}, "answers": answers}
    prompts = int(asked.get("batch_size", 2))
    settings["training"] |= {"batch_size": answers, "accumulation": prompts}
    if "eval_interval" in asked:
        settings["evaluation"] = {"every": int(asked["eval_interval"])}


def _reward(grader: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "openai", "name": "reward", "grader": dict(grader)}


def _split(rows: int) -> dict[str, int]:
    """Return the largest batch of at most 8 rows that `rows` is a multiple of, and how many make a step."""
    at_once = next(size for size in range(min(rows, _ROWS_AT_ONCE), 0, -1) if rows % size == 0)
    return {"batch_size": at_once, "accumulation": rows // at_once}


def _merged(ours: dict[str, Any], theirs: Mapping[str, Any]) -> dict[str, Any]:
    """Return `ours` with what `theirs` says otherwise, section by section."""
    merged = dict(ours)
    for key, value in theirs.items():
        before = merged.get(key)
        both = isinstance(before, dict) and isinstance(value, Mapping)
        merged[key] = _merged(before, value) if both and before is not None else value
    return merged


def _check_files(extras: Mapping[str, Any]) -> None:
    for section, keys in _NO_FILES.items():
        given = extras.get(section)
        for key in keys & set(given if isinstance(given, Mapping) else ()):
            raise _no_file(f"{section}.{key}", "names files of the server", "upload the rows as a file")
    data = extras.get("data")
    held_out = data.get("eval") if isinstance(data, Mapping) else None
    if held_out is not None and (not isinstance(held_out, Mapping) or "path" in held_out):
        raise _no_file("data.eval", "names files of the server", "give a validation_file, or {share: 0.1}")
    reward = _inside(extras, "method", "reward")
    if "model" in (reward if isinstance(reward, Mapping) else {}):
        raise _no_file("method.reward.model", "names files of the server", "use graders")
    graders = _inside(reward, "graders")
    if any("file" in one for one in graders or () if isinstance(one, Mapping)):
        raise _no_file("method.reward.graders", "names files of the server", "give the code as `source`")
    known = {suite.name for suite in known_suites()}
    for name in _suites(extras.get("goal")):
        if name not in known:
            raise _no_file("goal", f"names the suite {name}", f"use one of {', '.join(sorted(known))}")


def _inside(value: Any, *keys: str) -> Any:
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _suites(goal: Any) -> list[str]:
    if not isinstance(goal, Mapping):
        return []
    guards = goal.get("guards") or ()
    named = [goal.get("suite"), *(guard.get("suite") for guard in guards if isinstance(guard, Mapping))]
    return [str(name) for name in named if name is not None]


def _no_file(key: str, fact: str, remedy: str) -> UsageError:
    return UsageError(f"{EXTRAS}.{key}", fact, remedy, param=EXTRAS)
