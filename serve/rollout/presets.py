"""Policies as people write them: YAML files and the presets that ship with Wardrobe.

Owns the forms of a weight (`5%`, or basis points) and the promotion written as a last step of 100 %. How a
file is read is `registry.settings`', what a policy means is `serve.rollout.policy`'s.
"""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path
from typing import Any

from registry.entries.rollouts import FULL_WEIGHT
from registry.errors import UsageError
from registry.home import at_home
from registry.settings.bounds import Place
from registry.settings.file import SettingsFile, parse_settings, read_settings
from serve.rollout.policy import Policy

DEFAULT = "default"
_SEE = "serve/rollout/README.md"
_FOLDER = files("serve.rollout") / "presets"
_PERCENT = re.compile(r"(\d+(?:\.\d+)?)\s*%")
_BASIS_POINTS = re.compile(r"(\d+)\s*bp")
# 1 … 100 without a sign may be meant as percent or as basis points: a factor of 100 in users harmed.
_AMBIGUOUS = 100


def preset_names() -> list[str]:
    """Return the names of the policies that ship with Wardrobe."""
    found = (Path(entry.name) for entry in _FOLDER.iterdir())
    return sorted(path.stem for path in found if path.suffix == ".yaml")


def load_policy(source: str | Path) -> Policy:
    """Return the policy that `source` names: a preset, the path of a file, or YAML text itself.

    A name of a preset means the preset, also where a file is called so (write `./fast` for the file);
    text is taken for YAML when it has more than one line.

    Raises: UsageError: no such preset or file, or what `parse_policy` raises.
    """
    text = str(source)
    if text in preset_names():
        return load_preset(text)
    if isinstance(source, str) and "\n" in source:
        return parse_policy(source, "policy")
    path = at_home(source)
    return _policy(read_settings(path, see=_SEE, absent=_presets()), path.stem)


def load_preset(name: str) -> Policy:
    """Return the preset `name`; never reads another file, so a server may be asked for one.

    Raises: UsageError: there is no such preset.
    """
    if name not in preset_names():
        raise UsageError("policy", f"there is no preset {name!r}", _presets(), param="policy")
    return parse_policy((_FOLDER / f"{name}.yaml").read_text("utf-8"), f"preset {name}", name=name)


def parse_policy(text: str, source: str, *, name: str = "custom") -> Policy:
    """Return the policy that YAML `text` describes; `source` is what errors call it.

    Raises: UsageError: broken YAML, an unknown key, an ambiguous weight, a value out of range.
    """
    return _policy(parse_settings(text, source, see=_SEE), name)


def _policy(file: SettingsFile, name: str) -> Policy:
    return file.checked(Policy, {"name": name, **_in_basis_points(file)})


def _presets() -> str:
    return f"give a YAML file or one of {', '.join(preset_names())}"


def _in_basis_points(file: SettingsFile) -> dict[str, Any]:
    """Return the content with every weight in basis points and without the step that is the promotion."""
    result: dict[str, Any] = dict(file.value)
    if isinstance(steps := result.get("steps"), list):
        weighed = [_with_weight(file, step, ("steps", i, "weight")) for i, step in enumerate(steps)]
        if len(weighed) > 1 and isinstance(weighed[-1], dict) and weighed[-1].get("weight") == FULL_WEIGHT:
            weighed.pop()
        _refuse_without_control(file, weighed)
        result["steps"] = weighed
    result |= _with_weight(file, result, ("observe_base",))
    if "shadow" in result:
        result["shadow"] = _with_weight(file, result["shadow"], ("shadow", "share"))
    return result


def _with_weight(file: SettingsFile, part: Any, place: Place) -> Any:
    key = place[-1]
    if not isinstance(part, dict) or key not in part:
        return part
    return {**part, key: _basis_points(file, part[key], place)}


def _basis_points(file: SettingsFile, value: Any, place: Place) -> Any:
    if isinstance(value, str):
        if (percent := _PERCENT.fullmatch(value.strip())) is not None:
            points = float(percent[1]) * FULL_WEIGHT / 100
            if points != round(points):
                fact = f"{value} is not a whole number of basis points"
                raise file.refuse(place, fact, "0.01% is the smallest share")
            return round(points)
        if (points_text := _BASIS_POINTS.fullmatch(value.strip())) is not None:
            return int(points_text[1])
    elif isinstance(value, float) or (type(value) is int and 0 < value <= _AMBIGUOUS):
        fact = f"{value} may mean percent or basis points"
        raise file.refuse(place, fact, f"write {value}% or {value}bp")
    return value


def _refuse_without_control(file: SettingsFile, steps: list[Any]) -> None:
    for index, step in enumerate(steps):
        weight = step.get("weight") if isinstance(step, dict) else None
        if isinstance(weight, int) and weight > FULL_WEIGHT // 2:
            fact = f"{weight / 100:g}% leaves too few to compare with"
            remedy = "at most 50%; a last step of 100% stands for the promotion"
            raise file.refuse(("steps", index, "weight"), fact, remedy)
