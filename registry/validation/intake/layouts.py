"""Folders that hold no adapter: what they hold instead, and where the adapter is.

Owns the names by which training tools, download caches and other formats are recognised, and the search for
an adapter further down. Reads names only, and few of them. Invariant: a folder that is suggested holds a
config and weights.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from registry.errors import InvalidAdapter
from registry.validation.identity import WEIGHTS_NAME
from registry.validation.peft import CONFIG_NAME

PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
"""Endings of files that can run code when they are read."""

# What trainers leave beside an adapter, in pickles that are not weights.
_NO_WEIGHTS = re.compile(
    r"training_args|optimizer|scheduler|rng_state|scaler|random_states|custom_checkpoint"
)
_ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".7z", ".rar", ".tar.xz", ".tar.zst")
_UNFINISHED = (".aria2", ".crdownload", ".download", ".incomplete", ".part", ".partial", ".tmp")
_SHARD = re.compile(
    r"adapter_model[-_.]\d+[-_]of[-_]\d+\.safetensors|adapter_model\.safetensors\.index\.json"
)
_CHECKPOINT = re.compile(r"(checkpoint|global_step|step|epoch|iter(ation)?)[-_=]?\d+|\d+_adapters$")
_LAST_NUMBER = re.compile(r"(\d+)\D*$")
_SEARCHED_LEVELS = 3
_SEARCHED_ENTRIES = 5_000
_PLAIN = "give the folder that PEFT's save_pretrained wrote"
_JOIN = (
    "join them into one adapter_model.safetensors (load each with safetensors.torch.load_file, save all with "
    "save_file), or save again with PEFT's save_pretrained, which writes one file"
)
_MLX = (
    "it is in MLX's own format: convert it to PEFT's (names `….lora_A.weight`, matrices transposed, "
    "`r`, `lora_alpha` = scale x rank), or train with PEFT"
)


@dataclass(frozen=True, slots=True)
class _Other:
    """Weights in another form: which names tell of it, what it is, and the way out."""

    matches: Callable[[str], bool]
    what: str
    remedy: str


_OTHERS = (
    _Other(lambda name: _SHARD.fullmatch(name) is not None, "the adapter in several files (shards)", _JOIN),
    _Other(
        lambda name: name.startswith(WEIGHTS_NAME) and name.endswith(_UNFINISHED),
        "a download that was not finished",
        "let it finish, or download it again",
    ),
    _Other(
        lambda name: name in {f"{WEIGHTS_NAME}.dvc", "dvc.yaml", "dvc.lock"},
        "DVC's pointer to the weights",
        "run `dvc pull` in its repository",
    ),
    _Other(lambda name: name == "adapters.safetensors", "an MLX adapter", _MLX),
    _Other(
        lambda name: name.endswith((".gguf", ".ggml")),
        "a llama.cpp adapter or model",
        "give the PEFT folder that it was converted from",
    ),
    _Other(
        lambda name: name == "pytorch_lora_weights.safetensors",
        "a LoRA of diffusers, for a model that makes images",
        "give a LoRA of this language model",
    ),
    _Other(
        lambda name: name.endswith(_ARCHIVES), "an archive", "unpack it, and give the folder that comes out"
    ),
)


def explain_missing(folder: Path, names: frozenset[str], subject: str) -> InvalidAdapter:
    """Return why `folder`, which holds `names`, is not an adapter's, with what it is and the way out."""
    missing = CONFIG_NAME if CONFIG_NAME not in names else WEIGHTS_NAME
    fact, remedy = f"{folder} holds no {missing}", _PLAIN
    reason = "bad_config" if missing == CONFIG_NAME else "modules"
    pickles = sorted(name for name in names if _is_pickled_weights(name))
    other = next(((one, name) for one in _OTHERS for name in sorted(names) if one.matches(name)), None)
    within = list(_adapters_within(folder))
    if WEIGHTS_NAME not in names and any(name.startswith("adapter") for name in pickles):
        return pickled(next(name for name in pickles if name.startswith("adapter")), subject)
    if WEIGHTS_NAME not in names and other is not None:
        fact, remedy = f"{fact}, but {other[1]}: {other[0].what}", other[0].remedy
    elif within:
        remedy = _suggest(folder, within)
    elif WEIGHTS_NAME not in names and pickles:
        return pickled(pickles[0], subject)
    elif "config.json" in names:
        remedy = "this is a whole model; give the folder of a LoRA adapter for it"
    elif missing == WEIGHTS_NAME and (strange := _safetensors(names)):
        fact = f"{fact}, but {strange[0]}"
        remedy = f"rename it to {WEIGHTS_NAME} if PEFT wrote it, or save again with PEFT's save_pretrained"
    elif checkpoints := sorted(filter(_is_checkpoint, names), key=_number):
        remedy = f"its checkpoints hold no adapter either ({checkpoints[-1]} is the newest); {_PLAIN}"
    elif missing == CONFIG_NAME and WEIGHTS_NAME in names:
        remedy = f"copy the {CONFIG_NAME} that PEFT wrote beside the weights into it"
    return InvalidAdapter(subject, fact, remedy, reason=reason)


def explain_no_folder(path: Path, error: OSError, subject: str) -> InvalidAdapter:
    """Return why `path` is not a folder that can be read, with the way out."""
    fact = f"{path} cannot be read as a folder: {error.strerror}"
    remedy = "give the folder of a PEFT adapter"
    if path.is_file():
        fact = f"{path} is a file"
        remedy = f"give its folder, {path.parent}"
        if path.name.endswith(_ARCHIVES):
            fact, remedy = f"{path} is an archive", "unpack it, and give the folder that comes out"
    elif isinstance(error, PermissionError):
        remedy = "give this user the right to read it (`chmod a+rx`), or run this as its owner"
    elif path.is_symlink():
        fact = f"{path} is a link to {os.path.realpath(path)}, which is not there"
    elif hint := elsewhere(path):
        remedy = hint
    return InvalidAdapter(subject, fact, remedy, reason="path")


def elsewhere(path: Path) -> str | None:
    """Return what to do where `path` is an address or a repository of the Hub, not a folder; else None."""
    text = str(path)
    if re.match(r"[a-z][a-z0-9+.-]+:/", text):
        return "download it first, and give the folder"
    if re.fullmatch(r"[A-Za-z0-9][\w.-]*/[\w.-]+", text):
        return f"if that is a repository of the Hub, give the folder that `hf download {text}` prints"
    return None


def pickled(file_name: str, subject: str) -> InvalidAdapter:
    """Return the refusal of pickled weights."""
    fact = f"{file_name} holds pickled weights, which can run code when read; only safetensors is taken"
    remedy = "save with PEFT's save_pretrained(safe_serialization=True)"
    return InvalidAdapter(subject, fact, remedy, reason="pickle", param="files")


def _is_pickled_weights(name: str) -> bool:
    return name.endswith(PICKLES) and _NO_WEIGHTS.match(name) is None


def _is_checkpoint(name: str) -> bool:
    return name.endswith("/") and re.match(r"checkpoint|global_step|step|epoch|iter", name) is not None


def _safetensors(names: Iterable[str]) -> list[str]:
    return sorted(name for name in names if name.endswith(".safetensors"))


def _suggest(folder: Path, within: list[Path]) -> str:
    main = _hub_snapshot(folder, within)
    if main is not None:
        return f"this is a download cache; give its snapshot {main}"
    numbered = [path for path in within if _CHECKPOINT.match(path.name)]
    if numbered:
        newest = max(numbered, key=lambda path: (_number(path.name), -len(path.parts)))
        others = [path for path in within if path not in numbered]
        also = f" (or {others[0]})" if others else ""
        return f"give one of its checkpoints, for instance the newest, {newest}{also}"
    if len(within) == 1:
        told = "PEFT saves an adapter that is not called default in a folder of its name"
        return f"the adapter is in a folder below: give {within[0]} ({told})"
    shown = ", ".join(str(path) for path in within[:3])
    more = f" and {len(within) - 3} more" if len(within) > 3 else ""
    return f"it holds several adapters below: give one of {shown}{more}"


def _hub_snapshot(folder: Path, within: list[Path]) -> Path | None:
    """Return the snapshot of a Hub repository's cache that `main` names, else the last one written."""
    return newest_snapshot(folder, [path for path in within if path.parent == folder / "snapshots"])


def newest_snapshot(folder: Path, snapshots: list[Path]) -> Path | None:
    """Return the one of `snapshots` that `main` of a Hub's cache names, else the last one written."""
    if not snapshots:
        return None
    try:
        named = folder / "snapshots" / (folder / "refs" / "main").read_text().strip()
    except (OSError, UnicodeDecodeError):
        named = None
    return named if named in snapshots else max(snapshots, key=lambda path: path.stat().st_mtime)


def _number(name: str) -> int:
    found = _LAST_NUMBER.search(name)
    # Bounded, as Python refuses to read numbers of thousands of digits.
    return int(found[1][:18]) if found else -1


def _adapters_within(folder: Path) -> Iterator[Path]:
    """Yield the folders below that hold an adapter, the nearest first; looks at a bounded number."""
    level, looked_at = [folder], 0
    for _ in range(_SEARCHED_LEVELS):
        below: list[Path] = []
        for parent in level:
            for child in _folders(parent):
                looked_at += 1
                if looked_at > _SEARCHED_ENTRIES:
                    return
                if (child / CONFIG_NAME).is_file() and (child / WEIGHTS_NAME).is_file():
                    yield child
                else:
                    below.append(child)
        level = below


def _folders(parent: Path) -> list[Path]:
    try:
        with os.scandir(parent) as entries:
            return sorted(parent / entry.name for entry in entries if entry.is_dir())
    except OSError:  # one that may not be read holds nothing to suggest
        return []
