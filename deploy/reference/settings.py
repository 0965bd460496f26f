"""The pages of settings, from the typed settings themselves: name, type, default, meaning."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import json
import types
from collections.abc import Iterator
from enum import Enum
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from deploy.reference.tables import code, page, sentence, table
from registry.records import Limits, Retention

_SERVER = """\
`wardrobe serve` takes them in this order, the later ones win: defaults, a file (`--config FILE`, TOML, YAML
or JSON, else `serve.toml` in the root), the environment (`WARDROBE_PORT`, `WARDROBE_LIMITS__MAX_BODY_BYTES`),
flags. An unknown key is an error that names the file, the line and the nearest known one. Options of vLLM
itself go into `[vllm]` under their own names, or behind `--` on the command line."""

_ROOT = """\
`wardrobe.toml` in the root, written by `wardrobe init`: what the registry and every server of the root
share."""

_NEEDS = "What a version needs before it becomes `stable`: `gate`, `parity`, `tokens`."

_CURRENCY = "What prices are in, such as EUR. Without `[prices]` usage has no money."
_PRICES = (
    "Of a million tokens, by pattern of the adapter's name (`base`: the base model): `input`, `output`, and "
    "`cached_input` where what the prefix cache had costs less. The longest pattern that fits counts."
)

_SHARED = table(
    ("key", "type", "default", ""),
    (
        ("`base.name`", "text", "by the path", "The name that the base is served under (`init --name`)."),
        ("`base.path`", "path", "`init --base`", "The folder of the base model."),
        ("`publishing.require`", "list of text", "`[]`", _NEEDS),
        ("`prices.currency`", "text", "", _CURRENCY),
        ("`prices.per_million.PATTERN`", "table", "", _PRICES),
    ),
)

_POLICY = """\
`wardrobe rollout start NAME@N --policy FILE`: YAML, TOML or JSON, or a preset's name. Weights are
shares (`10%`) or basis points."""

_TRAINING = """\
`wardrobe train run CONFIG`: YAML, TOML or JSON. An unknown key is an error that names the nearest known
one. What the methods need and mean: [train/README.md](../../train/README.md)."""


def render_settings() -> str:
    """Return the page of the server's, the root's and the rollouts' settings."""
    from serve.rollout.policy import Policy
    from serve.settings import ServeSettings
    from serve.tuning_settings import WebhookReceiver

    return page(
        "Settings",
        "## Server",
        _SERVER,
        _fields(ServeSettings),
        "## Root",
        _ROOT,
        _SHARED,
        *_table_of("limits", Limits),
        *_table_of("retention", Retention),
        "## Rollout policy",
        _POLICY,
        *_sections(Policy),
        "## WebhookReceiver",
        *_sections(WebhookReceiver),
    )


def render_training() -> str:
    """Return the page of a training's configuration."""
    from train.config import TrainConfig

    return page("Training configuration", _TRAINING, *_sections(TrainConfig))


def _table_of(name: str, kind: type[Limits | Retention]) -> tuple[str, str]:
    told = _told(kind)
    rows = [
        (code(one.name), "whole number", code(str(one.default)), told.get(one.name, ""))
        for one in dataclasses.fields(kind)
    ]
    return table((f"key of `[{name}]`", "type", "default", ""), rows), sentence(kind.__doc__)


def _told(kind: type[Limits | Retention]) -> dict[str, str]:
    """Return the text under each field of a dataclass, which Python itself does not keep."""
    body = ast.parse(inspect.getsource(kind)).body[0]
    assert isinstance(body, ast.ClassDef), "the source of a class"
    found: dict[str, str] = {}
    for one, after in pairwise(body.body):
        match one, after:
            case ast.AnnAssign(target=ast.Name(id=key)), ast.Expr(value=ast.Constant(value=str(text))):
                found[key] = sentence(text)
    return found


def _fields(model: type[BaseModel]) -> str:
    return table(("setting", "type", "default", ""), _flat(model, ""))


def _flat(model: type[BaseModel], prefix: str) -> Iterator[tuple[str, str, str, str]]:
    """Yield a row for each setting, nested ones under their full name."""
    for name, field in model.model_fields.items():
        below = field.annotation
        if isinstance(below, type) and issubclass(below, BaseModel):
            yield from _flat(below, f"{prefix}{name}.")
        else:
            yield _row(f"{prefix}{name}", field)


def _sections(model: type[BaseModel]) -> Iterator[str]:
    """Yield a table for `model`, then one for each model that its fields name, once."""
    waiting, told = [model], set[type[BaseModel]]()
    while waiting:
        one = waiting.pop(0)
        if one in told:
            continue
        told.add(one)
        rows = [_row(field.alias or name, field) for name, field in one.model_fields.items()]
        if one is not model:
            yield f"### {one.__name__}"
        yield inspect.cleandoc(one.__doc__ or "")
        yield table(("key", "type", "default", ""), rows)
        waiting.extend(below for field in one.model_fields.values() for below in _models(field.annotation))


def _row(name: str, field: FieldInfo) -> tuple[str, str, str, str]:
    limits = [_limit(one) for one in field.metadata]
    type_name = _type(field.annotation)
    bounds = ", ".join(filter(None, limits))
    return (
        code(name),
        f"{type_name}, {bounds}" if bounds else type_name,
        _default(field),
        sentence(field.description),
    )


def _limit(bound: object) -> str:
    for sign, word in (("ge", "≥"), ("gt", ">"), ("le", "≤"), ("lt", "<"), ("max_length", "at most")):
        value = getattr(bound, sign, None)
        if value is not None:
            return f"{word} {value}"
    return ""


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "needed"
    value = field.default
    if field.default_factory is not None or value is PydanticUndefined:
        return "empty"
    if isinstance(value, BaseModel):
        return "its own defaults"
    return "" if value is None else code(_literal(value))


def _literal(value: Any) -> str:
    if isinstance(value, tuple | list) and value and isinstance(value[0], BaseModel):
        return f"{len(value)} of them"
    if isinstance(value, Enum):
        return str(value.value)
    return str(value) if isinstance(value, Path) else json.dumps(value, ensure_ascii=False, default=str)


def _type(annotation: Any) -> str:
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type(inner[0])
    if origin is Literal:
        return " or ".join(code(json.dumps(one)) for one in inner)
    if origin in {Union, types.UnionType}:
        return " or ".join(_type(one) for one in inner if one is not type(None))
    if origin in {list, tuple, set, frozenset}:
        return f"list of {_type(inner[0])}" if inner else "list"
    if origin is dict or annotation is dict:
        return "table"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return f"[{annotation.__name__}](#{annotation.__name__.lower()})"
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return " or ".join(code(str(one.value)) for one in annotation)
    names = {"str": "text", "int": "whole number", "float": "number", "bool": "yes or no", "Path": "path"}
    name = getattr(annotation, "__name__", str(annotation))
    return names.get(name, name)


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _models(inner)
