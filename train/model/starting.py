"""What a run begins with when it goes on from a version (`from: NAME@N`).

Owns finding the version, and that the adapter which comes out has the version's shape: the weights are
trained on as they are, so rank and modules cannot change. Settings of the shape that the config does not
give are the version's; those that it gives must be equal.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from registry.errors import Quarantined, UsageError
from registry.names import parse_version
from registry.validation.peft import CONFIG_NAME
from train.config import ALL_LINEAR, TrainConfig
from train.model.targets import target_names, targeted_modules
from train.settings.adapter import LoraSettings
from train.settings.starting import NEAREST

if TYPE_CHECKING:
    from registry.records import Version
    from registry.store import Registry


def find_start(config: TrainConfig, registry: Registry) -> tuple[TrainConfig, Version | None]:
    """Return the config with the version's shape filled in, and the version; as it is, without `from`.

    Raises:
        NotFound: the version never existed or was deleted.
        Quarantined: it is quarantined.
        InvalidAdapter: its files are not what was registered.
        UsageError: the config wants another shape, or another kind than a plain LoRA.
    """
    if config.start is None or config.start == NEAREST:  # the latter is chosen once the rows are read
        return config, None
    return start_from(config, config.start, registry)


def start_from(config: TrainConfig, name: str, registry: Registry) -> tuple[TrainConfig, Version]:
    """Return the config with the shape of the version `name` (`NAME@N`) filled in, and the version.

    Raises: as `find_start`.
    """
    adapter, number = parse_version(name)
    version = registry.version(adapter, number)
    if (reason := registry.quarantined(adapter, number)) is not None:
        raise Quarantined(
            version.name, f"is quarantined: {reason}", "go on from another version", param="from"
        )
    registry.verify_version(version)
    shape = check_start(config, version, registry)
    return config.model_copy(update={"lora": shape.model_copy(update=_training_only(config))}), version


def check_start(config: TrainConfig, version: Version, registry: Registry) -> LoraSettings:
    """Return the version's shape, in which it can be trained on.

    Raises: UsageError: the config wants another shape, or another kind than a plain LoRA.
    """
    shape = _shape_of(version)
    _check_kind(config)
    _check_equal(config, shape, version, registry)
    return shape


def _shape_of(version: Version) -> LoraSettings:
    fields: Any = json.loads((version.path / CONFIG_NAME).read_text(encoding="utf-8"))
    layers = fields.get("layers_to_transform")
    return LoraSettings(
        rank=fields["r"],
        alpha=fields["lora_alpha"],
        rslora=fields.get("use_rslora") is True,
        target_modules=version.target_modules,
        layers=None if layers is None else tuple([layers] if isinstance(layers, int) else layers),
        rank_pattern=fields.get("rank_pattern") or {},
        alpha_pattern=fields.get("alpha_pattern") or {},
    )


def _training_only(config: TrainConfig) -> dict[str, object]:
    return {"dropout": config.lora.dropout}


def _check_kind(config: TrainConfig) -> None:
    if config.lora.kind != "lora":
        fact = f"lora.kind {config.lora.kind} cannot go on from a version, which is a plain LoRA"
        raise UsageError(config.name, fact, "use kind: lora, or leave `from` out", param="lora.kind")


def _check_equal(config: TrainConfig, shape: LoraSettings, version: Version, registry: Registry) -> None:
    for field in sorted(config.lora.model_fields_set - {"kind", "dropout", "convert_rank"}):
        wanted, found = getattr(config.lora, field), getattr(shape, field)
        if field == "target_modules":
            wanted, found = set(_names(wanted, config, registry)), set(found)
        if wanted != found:
            key = f"lora.{field}"
            fact = f"{key} is {_shown(wanted)}; {version.name}, on which it goes on, has {_shown(found)}"
            raise UsageError(config.name, fact, f"leave {key} out: it is taken over", param=key)


def _names(wanted: object, config: TrainConfig, registry: Registry) -> tuple[str, ...]:
    modules = registry.base.modules
    if wanted == ALL_LINEAR and modules:
        return target_names(config.lora, modules)
    if config.lora.target_pattern is not None and modules:
        return tuple({name.rpartition(".")[2] for name in targeted_modules(config.lora, modules)})
    return config.lora.target_modules if isinstance(config.lora.target_modules, tuple) else (str(wanted),)


def _shown(value: object) -> str:
    return ", ".join(sorted(map(str, value))) if isinstance(value, set) else str(value)
