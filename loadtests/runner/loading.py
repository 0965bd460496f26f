"""Scenario files: found by name or path, and changed by `--set`.

Invariant: a scenario that is loaded has no key that nobody reads, and what its files are (a trace, a
prompt file) is absolute.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from loadtests.runner.metrics import check_metric
from loadtests.runner.scenario import Scenario
from registry.errors import NotFound, UsageError
from registry.home import at_home
from registry.settings.bounds import Place
from registry.settings.file import SettingsFile, parse_settings, read_settings
from registry.settings.yaml_text import parse_yaml

_FOLDER = files("loadtests") / "scenarios"
_SEE = "loadtests/README.md"


def packaged() -> list[str]:
    """Return the names of the scenarios that ship with Wardrobe."""
    found = (Path(entry.name) for entry in _FOLDER.iterdir())
    return sorted(path.stem for path in found if path.suffix == ".yaml")


def load_scenario(source: str, changes: Sequence[str] = ()) -> Scenario:
    """Return the scenario that `source` names (a packaged one, or a path), with `key=value` changes.

    A dotted key reaches into blocks and lists (`thresholds.0.at_most=5`); the value is YAML.

    Raises: NotFound: no such scenario; UsageError: broken YAML, an unknown key, a value out of range.
    """
    file, folder = _open(source)
    changed = frozenset(_apply(file.value, change) for change in changes)
    return _anchored(_validated(replace(file, changed=changed)), folder)


def _open(source: str) -> tuple[SettingsFile, Path]:
    """Return the file of a scenario, and the folder that its paths count from."""
    if source in packaged():
        text = (_FOLDER / f"{source}.yaml").read_text("utf-8")
        return parse_settings(text, f"scenario {source}", see=_SEE), Path()
    path = at_home(source)
    if not path.exists():
        near = get_close_matches(str(path), packaged(), n=1)
        hint = f"did you mean {near[0]}?" if near else f"name a file, or one of {', '.join(packaged())}"
        raise NotFound(str(path), "there is no such scenario", hint)
    return read_settings(path, see=_SEE), path.resolve().parent


def _apply(document: dict[str, Any], change: str) -> Place:
    key, found, text = change.partition("=")
    if not found or not key:
        raise UsageError("--set", f"{change!r} is not KEY=VALUE", "write for instance arrival.rate=4")
    try:
        value = parse_yaml(text)
    except yaml.YAMLError as error:
        raise UsageError("--set", f"{change!r}: the value is not valid YAML", "quote it") from error
    block: Any = document
    place: Place = ()
    *parents, last = key.split(".")
    try:
        for name in parents:
            step: Any = int(name) if isinstance(block, list) else name
            block = block[step] if isinstance(block, list) else block.setdefault(step, {})
            place = (*place, step)
        step = int(last) if isinstance(block, list) else last
        block[step] = value
    except (AttributeError, IndexError, TypeError, ValueError) as error:
        raise UsageError("--set", f"{key} is not there", "see the scenario's file") from error
    return (*place, step)


def _validated(file: SettingsFile) -> Scenario:
    scenario = file.checked(Scenario)
    for index, bar in enumerate(scenario.thresholds):
        check_metric(bar.metric, f"{file.subject}: thresholds.{index}.metric")
    return scenario


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
