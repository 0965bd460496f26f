"""What is merged: a version of the root, a PEFT folder or a fully fine-tuned model's folder.

Owns telling them apart, their identity, and refusing what cannot be merged, before any weight is read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING

from registry.errors import InvalidAdapter, NotFound, UsageError
from registry.home import at_home
from registry.names import parse_model
from registry.validation.canonical import canonical_json, sha256_hex
from registry.validation.fit import check_base_named
from registry.validation.identity import WEIGHTS_NAME
from registry.validation.peft import CONFIG_NAME, parse_config
from train.epoch.rows import hash_file

if TYPE_CHECKING:
    from pydantic import JsonValue

    from registry.records import BaseModelInfo
    from registry.store import Registry

# Initialisations that change the base in a way that can be computed again from the base alone.
_REPEATABLE = frozenset({"pissa", "olora"})
# Those that leave the base as it is.
_HARMLESS = frozenset({"gaussian", "eva", "orthogonal", "mica"})


class SourceKind(Enum):
    """What a folder holds."""

    ADAPTER = "adapter"
    MODEL = "model"


@dataclass(frozen=True, slots=True)
class MergeSource:
    """One source: its `name` for people, its folder, and `digest` (`sha256:…`).

    A version's digest is the registry's; a folder's is made of the hashes of its weights and config.
    `initial` is the adapter as it was before training, needed where its initialisation cannot be repeated.
    """

    name: str
    folder: Path
    kind: SourceKind
    digest: str
    initial: Path | None = None


def find_source(text: str, registry: Registry, initial: Path | None = None) -> MergeSource:
    """Return the source that `text` names: a folder, else a version `NAME@N` (or alias) of the root.

    Raises: NotFound, InvalidAdapter, UsageError.
    """
    folder = at_home(text)
    if folder.is_dir():
        return _from_folder(text, folder.resolve(), registry.base, initial)
    if "/" in text or "@" not in text:
        fact = "is not a folder, nor a version of the root (NAME@N)"
        raise NotFound(text, fact, "give an adapter folder, or see `wardrobe list`", param="source")
    version = registry.resolve(parse_model(text))
    registry.verify_version(version)
    return MergeSource(version.name, version.path, SourceKind.ADAPTER, version.digest, initial)


def _from_folder(text: str, folder: Path, base: BaseModelInfo, initial: Path | None) -> MergeSource:
    if (folder / CONFIG_NAME).is_file():
        _check_adapter(text, folder, base)
        if initial is None:
            _check_init(text, folder)
        elif not (initial / CONFIG_NAME).is_file():
            raise NotFound(str(initial), f"holds no {CONFIG_NAME}", "give a PEFT adapter folder")
        return MergeSource(
            text, folder, SourceKind.ADAPTER, _digest(folder, [CONFIG_NAME, WEIGHTS_NAME]), initial
        )
    if (folder / "config.json").is_file():
        _check_same_architecture(text, folder, base)
        weights = sorted(path.name for path in folder.glob("*.safetensors"))
        return MergeSource(text, folder, SourceKind.MODEL, _digest(folder, ["config.json", *weights]))
    fact = f"holds neither {CONFIG_NAME} nor config.json"
    raise UsageError(text, fact, "give a PEFT adapter folder or a model folder", param="source")


def _check_adapter(text: str, folder: Path, base: BaseModelInfo) -> None:
    config = parse_config((folder / CONFIG_NAME).read_bytes(), text)
    check_base_named(config, base, text)
    if not (folder / WEIGHTS_NAME).is_file():
        fact = f"holds no {WEIGHTS_NAME}; weights in a pickle (.bin) are not read"
        remedy = "save the adapter again with PEFT's save_pretrained"
        raise InvalidAdapter(text, fact, remedy, reason="pickle")


def _check_init(text: str, folder: Path) -> None:
    init = _init_of(folder)
    if not isinstance(init, str) or init in _HARMLESS | _REPEATABLE:
        return
    fact = f"init_lora_weights is {init!r}, which changed the base in a way that its files do not tell"
    remedy = "give the adapter as it was saved before its first step (--initial DIR)"
    raise InvalidAdapter(text, fact, remedy, reason="bad_config", param="init_lora_weights")


def _init_of(folder: Path) -> object:
    init = json.loads((folder / CONFIG_NAME).read_text(encoding="utf-8")).get("init_lora_weights", True)
    return init.lower() if isinstance(init, str) else init


def _check_same_architecture(text: str, folder: Path, base: BaseModelInfo) -> None:
    mine, own = _read(folder / "config.json"), _read(base.path / "config.json")
    for field in ("model_type", "architectures"):
        if mine.get(field) != own.get(field):
            fact = f"{field} is {mine.get(field)!r}; the base {base.name}'s is {own.get(field)!r}"
            raise InvalidAdapter(text, fact, "give a fine-tune of the root's base", reason="base_mismatch")


def _read(path: Path) -> Mapping[str, JsonValue]:
    try:
        found: Mapping[str, JsonValue] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UsageError(str(path), f"is not JSON: {error}", "save the model again") from error
    return found


def _digest(folder: Path, names: list[str]) -> str:
    hashes: dict[str, JsonValue] = {name: hash_file(folder / name) for name in names}
    return f"sha256:{sha256_hex(canonical_json(hashes))}"
