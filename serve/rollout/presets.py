"""Policies as people write them: YAML files and the presets that ship with Wardrobe.

Owns the forms of a weight (`5%`, or basis points), the promotion written as a last step of 100 %, and
error messages that name the key, the file and the nearest known key. What a policy means is
`serve.rollout.decision.policy`'s. Invariant: a policy that is loaded has no key that nobody reads.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from registry.entries.rollouts import FULL_WEIGHT
from registry.errors import UsageError
from registry.home import at_home
from registry.misspelt import remedy_for
from registry.wording import fact_of
from registry.yaml_text import parse_yaml
from serve.rollout.decision.policy import Policy

DEFAULT = "default"
MAX_FILE_BYTES = 256 * 1024
_FOLDER = files("serve.rollout") / "presets"
_PERCENT = re.compile(r"(\d+(?:\.\d+)?)\s*%")
_BASIS_POINTS = re.compile(r"(\d+)\s*bp")
# 1 … 100 without a sign may be meant as percent or as basis points: a factor of 100 in users harmed.
_AMBIGUOUS = 100
_WEIGHTS = (("observe_base",), ("shadow", "share"))


def preset_names() -> list[str]:
    """Return the names of the policies that ship with Wardrobe."""
    found = (Path(entry.name) for entry in _FOLDER.iterdir())
    return sorted(path.stem for path in found if path.suffix == ".yaml")


def load_policy(source: str | Path) -> Policy:
    """Return the policy that `source` names: a preset, the path of a YAML file, or YAML text itself.

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
    return parse_policy(_read(path), text, name=path.stem)


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
    try:
        document = parse_yaml(text, _Loader)
    except yaml.YAMLError as error:
        raise UsageError(source, f"is no YAML: {_fault(error)}", "correct it", param="policy") from error
    if not isinstance(document, dict):
        fact = "holds no keys and values"
        raise UsageError(source, fact, "begin with `steps:`, or name a preset", param="policy")
    try:
        return Policy.model_validate({"name": name, **_in_basis_points(document, source)})
    except ValidationError as error:
        raise explained(error, source) from error


def explained(error: ValidationError, source: str) -> UsageError:
    """Return the first fault of a policy as an error that names the key and, if unknown, one near it."""
    # A misspelt key is the cause of what its right spelling now misses.
    faults = sorted(error.errors(), key=lambda fault: fault["type"] != "extra_forbidden")
    first = faults[0]
    path = tuple(first["loc"])
    key = ".".join(str(part) for part in path)
    if first["type"] != "extra_forbidden":
        where = f"{key}: " if key else ""
        return UsageError(source, f"{where}{fact_of(first)}", "correct it", param=key or "policy")
    return UsageError(source, f"unknown key {key}", remedy_for(Policy, path), param=key)


def _read(path: Path) -> str:
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise UsageError(str(path), f"is larger than {MAX_FILE_BYTES} bytes", "a policy is small")
        return path.read_text("utf-8")
    except OSError as error:
        fact = f"is not a preset, and as a file it cannot be read ({error.strerror or error})"
        raise UsageError(str(path), fact, _presets(), param="policy") from error
    except (UnicodeDecodeError, ValueError) as error:
        raise UsageError(repr(str(path)), "is not UTF-8 text", _presets(), param="policy") from error


def _fault(error: yaml.YAMLError) -> str:
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return " ".join(str(error).split())
    return f"line {error.problem_mark.line + 1}: {error.problem}"


def _presets() -> str:
    return f"give a YAML file or one of {', '.join(preset_names())}"


def _in_basis_points(document: dict[str, Any], source: str) -> dict[str, Any]:
    """Return the document with every weight in basis points and without the step that is the promotion."""
    result = dict(document)
    steps = document.get("steps")
    if isinstance(steps, list):
        weighed = [_with_weight(step, ("steps", str(i), "weight"), source) for i, step in enumerate(steps)]
        if len(weighed) > 1 and isinstance(weighed[-1], dict) and weighed[-1].get("weight") == FULL_WEIGHT:
            weighed.pop()
        _refuse_without_control(weighed, source)
        result["steps"] = weighed
    for path in _WEIGHTS:
        if len(path) == 1:
            result = _with_weight(result, path, source)
        elif path[0] in result:
            result[path[0]] = _with_weight(result[path[0]], path, source)
    return result


def _with_weight(part: Any, path: tuple[str, ...], source: str) -> Any:
    if not isinstance(part, dict) or path[-1] not in part:
        return part
    return {**part, path[-1]: _basis_points(part[path[-1]], ".".join(path), source)}


def _basis_points(value: Any, key: str, source: str) -> Any:
    if isinstance(value, str):
        if (percent := _PERCENT.fullmatch(value.strip())) is not None:
            points = float(percent[1]) * FULL_WEIGHT / 100
            if points != round(points):
                fact = f"{key}: {value} is not a whole number of basis points"
                raise UsageError(source, fact, "0.01% is the smallest share", param=key)
            return round(points)
        if (points_text := _BASIS_POINTS.fullmatch(value.strip())) is not None:
            return int(points_text[1])
    elif isinstance(value, float) or (type(value) is int and 0 < value <= _AMBIGUOUS):
        fact = f"{key}: {value} may mean percent or basis points"
        raise UsageError(source, fact, f"write {value}% or {value}bp", param=key)
    return value


def _refuse_without_control(steps: list[Any], source: str) -> None:
    for index, step in enumerate(steps):
        weight = step.get("weight") if isinstance(step, dict) else None
        if isinstance(weight, int) and weight > FULL_WEIGHT // 2:
            fact = f"steps.{index}.weight: {weight / 100:g}% leaves too few to compare with"
            remedy = "at most 50%; a last step of 100% stands for the promotion"
            raise UsageError(source, fact, remedy, param=f"steps.{index}.weight")


class _Loader(yaml.SafeLoader):
    """Refuses a key that is written twice, of which YAML would silently take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        found: set[object] = set()
        for key_node, _ in node.value:
            if key_node.value in found:
                fact = f"the key {key_node.value!r} stands there twice"
                raise yaml.constructor.ConstructorError(None, None, fact, key_node.start_mark)
            found.add(key_node.value)
        mapping: Mapping[Hashable, Any] = super().construct_mapping(node, deep=deep)
        return dict(mapping)
