"""The files behind a place: one, those of a folder, those of a pattern; and the parts of a data set.

Owns the layouts of folders: what `save_to_disk` of Hugging Face's datasets writes, a snapshot of its hub
with the `configs` of its README, shards and splits told by names, any folder of data files. Invariants:
the files come in one order, numbers in names counted as numbers; a folder of several parts is never read
as one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from glob import has_magic
from pathlib import Path
from typing import Any

from registry.errors import UsageError
from train.dataset.containers import cards
from train.dataset.containers.kinds import TABLE_SUFFIXES, TEXT_SUFFIXES, suffix_of
from train.dataset.containers.place import DataPath, Where, hub_name, place_of, shown_path

Parts = Mapping[str, tuple[Path, ...]]
WHOLE = ""
"""The name of the one part of a folder that has no parts."""
_SUFFIXES = frozenset(
    {".json", ".jsonl", ".ndjson", ".jsonlines", ".parquet", ".pq", ".arrow", ".feather", *TABLE_SUFFIXES}
)
_ABOUT = frozenset((
    "state.json", "dataset_info.json", "dataset_infos.json", "dataset_dict.json", "manifest.json",
    "config.json",
))  # fmt: skip
_SHARD = re.compile(r"(.+?)-\d{5}-of-\d{5}$")
_WORDS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "dev", "val"), "validation"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
}
_WORD = re.compile(rf"(?<![a-z])({'|'.join(sorted(_WORDS, key=len, reverse=True))})(?![a-z])")


@dataclass(frozen=True, slots=True)
class Files:
    """The files of a place, in order; `key` is the part to take inside of the one file."""

    paths: tuple[Path, ...]
    key: str | None = None


def find_files(where: Where) -> Files:
    """Return the files that `where` means.

    Raises: UsageError: there are none, or several parts and none is named.
    """
    place = place_of(where)
    path = _on_disk(place.path)
    if path.is_dir():
        return Files(_choose(place, find_parts(path)))
    if has_magic(str(path)) and not path.exists():
        return _matching(place, path)
    return Files((path,), place.split)


def places_in(where: Where) -> tuple[DataPath, ...]:
    """Return `where` as one place, or a place for each part where it is a data set of several.

    Raises: UsageError: its files cannot be found.
    """
    place = place_of(where)
    path = _on_disk(place.path)
    if place.split is not None or not path.is_dir():
        return (place,)
    names = _told(find_parts(path))
    return (place,) if len(names) < 2 else tuple(DataPath(place.path, name) for name in names)


def find_parts(folder: Path) -> Parts:
    """Return the data files of `folder` by the part that they belong to.

    A part of a configuration that is not the default one is called CONFIGURATION/PART.

    Raises: UsageError: it holds no data file.
    """
    if (folder / "dataset_dict.json").is_file():
        names = _object(folder / "dataset_dict.json").get("splits", [])
        return {str(name): _saved(folder / str(name)) for name in names}
    if (folder / "state.json").is_file():
        return {WHOLE: _saved(folder)}
    declared = cards.read_configs(folder)
    found = _declared(folder, declared) if declared else _by_names(folder, _data_files(folder))
    if not any(found.values()):
        remedy = "name a folder with .jsonl, .json, .csv, .parquet, .arrow or .txt files"
        raise UsageError(str(folder), "holds no data file", remedy)
    return found


def in_order(paths: Iterable[Path]) -> tuple[Path, ...]:
    """Return the paths by name, `part-2` before `part-10`."""
    return tuple(sorted(paths, key=lambda path: [_numbered(one) for one in re.split(r"(\d+)", str(path))]))


def _numbered(text: str) -> tuple[int, str]:
    return (int(text), "") if text.isdecimal() else (-1, text)


def _on_disk(path: Path) -> Path:
    if hub_name(path) is not None:
        from train.dataset.containers.hub import fetch_snapshot

        return fetch_snapshot(path)
    return _snapshot_of_cache(path) if (path / "refs").is_dir() and (path / "snapshots").is_dir() else path


def _snapshot_of_cache(path: Path) -> Path:
    """Return the newest snapshot in a repository's folder of the hub's cache."""
    main = path / "refs" / "main"
    if main.is_file():
        return path / "snapshots" / main.read_text(encoding="utf-8").strip()
    found = sorted((path / "snapshots").iterdir())
    return found[-1] if len(found) == 1 else path / "snapshots"


def _matching(place: DataPath, pattern: Path) -> Files:
    anchor = Path(pattern.anchor) if pattern.anchor else Path()
    relative = str(pattern.relative_to(anchor)) if pattern.anchor else str(pattern)
    found = in_order(path for path in anchor.glob(relative) if path.is_file())
    if not found:
        raise UsageError(str(pattern), "matches no file", "correct the pattern, or name a file or a folder")
    return Files(_choose(place, _by_names(anchor, found)) if place.split else found)


def _choose(place: DataPath, parts: Parts) -> tuple[Path, ...]:
    subject, names = shown_path(place.path), _told(parts)
    if place.split is None:
        if len(names) > 1:
            fact = f"has the parts {', '.join(names)}"
            raise UsageError(subject, fact, f"name one: split: {names[0]}", param="split")
        return parts[names[0]]
    wanted = place.split if place.split in parts else _WORDS.get(place.split.lower(), place.split)
    if wanted not in parts:
        told = f"its parts are {', '.join(sorted(parts))}" if set(parts) != {WHOLE} else "it has no parts"
        raise UsageError(subject, f"has no part {place.split!r}; {told}", "correct split", param="split")
    return parts[wanted]


def _told(parts: Parts) -> list[str]:
    """Return the names to choose from: those of the default configuration where there is one."""
    return [name for name in parts if "/" not in name] or list(parts)


def _saved(folder: Path) -> tuple[Path, ...]:
    """Return the files of a data set that `save_to_disk` wrote into `folder`."""
    entries = _object(folder / "state.json").get("_data_files")
    if not isinstance(entries, list) or not entries:
        raise UsageError(str(folder / "state.json"), "names no data files", "save the data set again")
    return tuple(folder / Path(str(entry["filename"])).name for entry in entries)


def _object(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(str(path), f"cannot be read ({error})", "save the data set again") from error
    return found if isinstance(found, dict) else {}


def _declared(folder: Path, configs: Sequence[cards.Config]) -> dict[str, tuple[Path, ...]]:
    found: dict[str, tuple[Path, ...]] = {}
    for config in configs:
        below = folder / config.folder
        if config.patterns:
            parts = {split: _globbed(below, patterns) for split, patterns in config.patterns.items()}
        else:
            parts = _by_names(below, _data_files(below))
        prefix = "" if config.default or len(configs) == 1 else f"{config.name}/"
        found |= {f"{prefix}{split}": files for split, files in parts.items() if files}
    return found


def _globbed(folder: Path, patterns: Sequence[str]) -> tuple[Path, ...]:
    found = (path for pattern in patterns for path in folder.glob(pattern))
    return in_order({path for path in found if path.is_file()})


def _data_files(folder: Path) -> tuple[Path, ...]:
    paths = [path for path in folder.rglob("*") if _is_shown(path.relative_to(folder)) and path.is_file()]
    found = [path for path in paths if suffix_of(path) in _SUFFIXES and path.name not in _ABOUT]
    # Beside data files a text is about them; alone it is the data.
    return in_order(found or (path for path in paths if _is_document(path)))


def _is_shown(path: Path) -> bool:
    return not any(part.startswith((".", "cache-", "__")) for part in path.parts)


def _is_document(path: Path) -> bool:
    about = path.stem.upper() in {"README", "LICENSE", "NOTICE", "CHANGELOG"}
    return suffix_of(path) in TEXT_SUFFIXES and not about and not path.name.endswith(".rows.txt")


def _by_names(folder: Path, files: Sequence[Path]) -> dict[str, tuple[Path, ...]]:
    """Group files by the part that their names tell; one part without a name where none does."""
    shards = [_SHARD.match(path.name.split(".")[0]) for path in files]
    names = [shard[1] if shard else "" for shard in shards]
    if not all(names):
        names = [_word(path.relative_to(folder)) for path in files]
    told = {name for name in names if name}
    if not told:
        return {WHOLE: tuple(files)}
    others = [path.name for path, name in zip(files, names, strict=True) if not name]
    if others and len(told) == 1:
        return {WHOLE: tuple(files)}
    if others:
        fact = f"has files of the parts {', '.join(sorted(told))}, and of none: {', '.join(others[:3])}"
        raise UsageError(
            str(folder), fact, "name the files by a pattern, or put them into folders of their own"
        )
    grouped = {name: [p for p, n in zip(files, names, strict=True) if n == name] for name in sorted(told)}
    return {name: tuple(found) for name, found in grouped.items()}


def _word(path: Path) -> str:
    found = _WORD.search(str(path).lower())
    return _WORDS[found[1]] if found else ""
