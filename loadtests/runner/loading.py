"""Scenario files: found by name or path, read from YAML, changed by `--set`, and faults explained.

Invariant: a scenario that is loaded has no key that nobody reads, and what its files are (a trace, a
prompt file) is absolute.
"""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from loadtests.runner.metrics import check_metric
from loadtests.runner.scenario import Scenario
from registry.errors import NotFound, UsageError
from registry.home import at_home
from registry.misspelt import remedy_for
from registry.wording import fact_of
from registry.yaml_text import parse_yaml

_FOLDER = files("loadtests") / "scenarios"


def packaged() -> list[str]:
    """Return the names of the scenarios that ship with Wardrobe."""
    found = (Path(entry.name) for entry in _FOLDER.iterdir())
    return sorted(path.stem for path in found if path.suffix == ".yaml")


def load_scenario(source: str, changes: Sequence[str] = ()) -> Scenario:
    """Return the scenario that `source` names (a packaged one, or a path), with `key=value` changes.

    A dotted key reaches into blocks and lists (`thresholds.0.at_most=5`); the value is YAML.

    Raises: NotFound: no such scenario; UsageError: broken YAML, an unknown key, a value out of range.
    """
    if source in packaged():
        text, folder, label = (_FOLDER / f"{source}.yaml").read_text("utf-8"), Path(), f"scenario {source}"
    else:
        path = at_home(source)
        text, folder, label = _read(path), path.resolve().parent, source
    document = _parse(text, label)
    for change in changes:
        _apply(document, change)
    return _anchored(_validated(document, label), folder)


def _read(path: Path) -> str:
    if not path.is_file():
        near = get_close_matches(str(path), packaged(), n=1)
        hint = f"did you mean {near[0]}?" if near else f"name a file, or one of {', '.join(packaged())}"
        raise NotFound(str(path), "there is no such scenario", hint)
    try:
        return path.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(str(path), "is not UTF-8 text", "name a YAML file") from error


def _parse(text: str, label: str) -> dict[str, Any]:
    try:
        document = parse_yaml(text)
    except yaml.YAMLError as error:
        fault = " ".join(str(error).split())
        raise UsageError(label, f"is no YAML: {fault}", "correct it") from error
    if not isinstance(document, dict):
        raise UsageError(label, "holds no keys and values", "see loadtests/README.md for an example")
    return document


def _apply(document: dict[str, Any], change: str) -> None:
    key, found, text = change.partition("=")
    if not found or not key:
        raise UsageError("--set", f"{change!r} is no KEY=VALUE", "write for instance arrival.rate=4")
    try:
        value = parse_yaml(text)
    except yaml.YAMLError as error:
        raise UsageError("--set", f"{change!r}: the value is no YAML", "quote it") from error
    place: Any = document
    *parents, last = key.split(".")
    try:
        for name in parents:
            place = place[int(name)] if isinstance(place, list) else place.setdefault(name, {})
        place[int(last) if isinstance(place, list) else last] = value
    except (AttributeError, IndexError, TypeError, ValueError) as error:
        raise UsageError("--set", f"{key} is not there", "see the scenario's file") from error


def _validated(document: dict[str, Any], label: str) -> Scenario:
    try:
        scenario = Scenario.model_validate(document)
    except ValidationError as error:
        raise _explained(error, label) from error
    for index, bar in enumerate(scenario.thresholds):
        check_metric(bar.metric, f"{label}: thresholds.{index}.metric")
    return scenario


def _explained(error: ValidationError, label: str) -> UsageError:
    # A misspelt key is the cause of what its right spelling now misses.
    first = min(error.errors(), key=lambda fault: fault["type"] != "extra_forbidden")
    path = first["loc"]
    key = ".".join(str(part) for part in path)
    if first["type"] != "extra_forbidden":
        where = f"{key}: " if key else ""
        return UsageError(label, f"{where}{fact_of(first)}", "correct it", param=key or None)
    return UsageError(label, f"unknown key {key}", remedy_for(Scenario, path), param=key)


def _anchored(scenario: Scenario, folder: Path) -> Scenario:
    arrival, prompts = scenario.arrival, scenario.prompts
    actions = tuple(
        one.model_copy(update={"policy": str(folder / one.policy)}) if _is_file(folder, one.policy) else one
        for one in scenario.actions
    )
    if arrival.trace is not None:
        arrival = arrival.model_copy(update={"trace": str(folder / at_home(arrival.trace))})
    if prompts.file is not None:
        prompts = prompts.model_copy(update={"file": str(folder / at_home(prompts.file))})
    return scenario.model_copy(update={"arrival": arrival, "prompts": prompts, "actions": actions})


def _is_file(folder: Path, name: str) -> bool:
    return name.endswith((".yaml", ".yml")) and "\n" not in name and (folder / name).is_file()
