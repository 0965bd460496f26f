"""The name that a base is served by when nobody gave one: out of its path, past what names nothing.

Download caches, trainers and containers keep models in folders called after a commit, a step or "model".
Owns which of a path's parts mean something; reads nothing. Spelling is kept: repositories and clients tell
`SmolLM2-135M-Instruct` from `smollm2-135m-instruct`.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

_CACHED = re.compile(r"models--(?:[^/]+--)?([^/]+)")
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/([\w.-]+)")
_HASH = re.compile(r"[0-9a-f]{12,64}|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_STEP = re.compile(r"(?:checkpoint|ckpt|epoch|step|global_step|iter)[-_=]?\d*|v?\d+", re.IGNORECASE)
# What says how a model was made, not which: it stays, behind the name above it.
_STATES = frozenset(
    {"merged", "final", "best", "last", "fused", "dequantized", "merged_model", "final_model"}
)
_NOTHING = frozenset({
    "", "app", "artifacts", "checkpoints", "current", "data", "export", "hf", "hf_model", "home",
    "huggingface", "latest", "main", "master", "ml", "mnt", "model", "model_dir", "models", "opt", "original",
    "out", "output", "outputs", "pytorch", "result", "results", "root", "run", "runs", "saved_model",
    "snapshot", "snapshots", "srv", "tmp", "transformers", "usr", "var", "volume", "volumes", "weights",
    "workspace",
})  # fmt: skip
_LEVELS = 3


def propose_name(folder: Path, recorded: str | None = None) -> str:
    """Return the served name of the base in `folder`: a part of its path that names a model.

    `recorded` is what the model's own config says that it was loaded from, asked where the path says
    nothing. Where that says nothing either, the folder's own name is returned.
    """
    parts = [part for part in folder.resolve().parts if part != os.sep]
    name = _of_cache(parts) or _of_leaf(parts) or _of_record(recorded) or _of_parents(parts)
    return (name or (parts[-1] if parts else "base")).replace("@", "-")


def same_base(named: str, name: str, folder: Path) -> bool:
    """Whether `named`, a path or a repository in some config, means the base `name` in `folder`."""
    known = {name.rpartition("/")[2], folder.name, propose_name(folder)}
    parts = [part for part in named.replace("\\", "/").split("/") if part]
    said = {parts[-1], _of_cache(parts) or parts[-1]} if parts else set()
    return not {one.casefold() for one in known}.isdisjoint(one.casefold() for one in said)


def name_for_export(named: str | None, name: str, folder: Path) -> str:
    """Return what an exported config calls the base `name` in `folder`, so that tools can load it.

    The adapter's own words `named`, where they lead somewhere: a model's folder on this machine, or a
    repository of the Hub (`ORG/NAME`). Else the base's folder; where that is not here, the words or its name.
    """
    if named and (_REPOSITORY.fullmatch(named) or (Path(named) / "config.json").is_file()):
        return named
    return str(folder) if folder.is_dir() else named or name


def _of_cache(parts: list[str]) -> str | None:
    """Return the repository's name out of a path of the Hub's cache, `…/models--ORG--NAME/snapshots/REV`."""
    found = (_CACHED.fullmatch(part) for part in reversed(parts))
    return next((match[1] for match in found if match), None)


def _of_leaf(parts: list[str]) -> str | None:
    return parts[-1] if parts and _means_something(parts[-1]) else None


def _of_record(recorded: str | None) -> str | None:
    match = _REPOSITORY.fullmatch(recorded or "")
    return match[1] if match and _means_something(match[1]) else None


def _of_parents(parts: list[str]) -> str | None:
    above = next((part for part in parts[-2 : -2 - _LEVELS : -1] if _means_something(part)), None)
    if above is None:
        return None
    leaf = parts[-1]
    told = leaf.lower() in _STATES or (_STEP.fullmatch(leaf) is not None and _HASH.fullmatch(leaf) is None)
    return f"{above}-{leaf}" if told else above


def _means_something(part: str) -> bool:
    plain = part.lower()
    named = plain not in _NOTHING and plain not in _STATES
    return named and _HASH.fullmatch(part) is None and _STEP.fullmatch(part) is None
