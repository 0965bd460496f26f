"""What a foreign config says of its data sets into `data.train` and `data.eval`.

Owns what a split with a slice means here, that no two sources share a name, and what is said of rows that
are not on this machine. Knows no trainer: each brings its data sets as `ForeignRows`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import Any

from train.importing.draft import Draft, number, whole
from train.importing.places import DataLocation, count_rows, first_row, is_elsewhere
from train.importing.reading import fill_in
from train.settings.data import EVAL, REPLAY

_SLICED = re.compile(r"([\w.-]+)\[(.*)\]")
_FIRST_ROWS = re.compile(r":(\d+)")
_FIRST_SHARE = re.compile(r":(\d+(?:\.\d+)?)%")
_LAST_SHARE = re.compile(r"(\d+(?:\.\d+)?)%:")
_USUAL_SHARE = 0.05


@dataclass(frozen=True, slots=True)
class ForeignRows:
    """One data set of a foreign config.

    `key` is where the config names it, `given` what it says there: a path or a name on a hub. `files` are
    the files of it that are meant (all, where none), `subset` a configuration of the hub's. `columns` maps
    our keys to theirs. `label` names the source where the trainer names it.
    """

    key: str
    given: str
    split: str | None = None
    subset: str | None = None
    files: Sequence[str] = ()
    columns: Mapping[str, str] = field(default_factory=dict)
    limit: int | None = None
    weight: float | None = None
    label: str | None = None

    @property
    def part(self) -> str:
        """Return the split without its slice."""
        found = _SLICED.fullmatch(self.split or "")
        return found[1] if found else self.split or "train"

    @property
    def slice(self) -> str:
        """Return the slice of the split (`:10%`), "" where all of it is meant."""
        found = _SLICED.fullmatch(self.split or "")
        return found[2].strip() if found else ""


def set_rows(draft: Draft, train: Sequence[ForeignRows], held_out: ForeignRows | None = None) -> None:
    """Set `data.train` and, where given, `data.eval`."""
    rest = _rest_share(train, held_out)
    found = [
        source
        for rows in _joined(draft, train)
        for source in _sources(draft, rows, whole_part=rest is not None)
    ]
    draft.set("data.train", _named(found))
    if rest is not None:
        draft.set("data.eval", {"share": rest})
    elif held_out is not None:
        source = _sources(draft, held_out, whole_part=True)[0]
        source.pop("name", None)
        draft.set("data.eval", source["path"] if set(source) == {"path"} else source)


def set_share(draft: Draft, key: str) -> None:
    """Set `data.eval` from a size of held-out rows: a share, or (from 1) a number of rows.

    A number becomes a share of the rows that are found on this machine; where they are not, 5 % is taken.
    """
    value = draft.take(key, ours="data.eval")
    size = number(value) if value is not None else 0.0
    if size <= 0:
        return
    if draft.get("data.eval") is not None:
        draft.ignore(key, value, "held-out rows are named, which wins")
        return
    if size < 1:
        draft.set("data.eval", {"share": round(size, 6)})
        return
    counts = [count_rows(draft.folders.find(str(one["path"]))) for one in draft.get("data.train", [])]
    known = [count for count in counts if count]
    if len(known) == len(counts) and sum(known) > size:
        draft.set("data.eval", {"share": round(size / sum(known), 6)})
        return
    draft.set("data.eval", {"share": _USUAL_SHARE})
    reason = f"how many rows there are is not known here: a share of {_USUAL_SHARE} is held out instead"
    draft.change(key, value, reason)


def _joined(draft: Draft, train: Sequence[ForeignRows]) -> list[ForeignRows]:
    """Return the data sets, with those that are slices of one part as one: else its rows would come twice."""
    found: list[ForeignRows] = []
    for rows in train:
        whole_set = replace(rows, key="", split=rows.part)
        others = [one for one in train if one.slice and replace(one, key="", split=one.part) == whole_set]
        if not rows.slice or len(others) == 1:
            found.append(rows)
        elif rows is others[0]:
            slices = ", ".join(str(one.split) for one in others)
            draft.change(f"{rows.key}.split", slices, "they are one source here, with all its rows")
            found.append(replace(rows, split=rows.part))
    return found


def _rest_share(train: Sequence[ForeignRows], held_out: ForeignRows | None) -> float | None:
    """Return the share that is held out where both are slices of one data set that add up to it."""
    if held_out is None or len(train) != 1 or held_out.given != train[0].given:
        return None
    first, last = _FIRST_SHARE.fullmatch(train[0].slice), _LAST_SHARE.fullmatch(held_out.slice)
    if first is None or last is None or first[1] != last[1] or train[0].part != held_out.part:
        return None
    return round(1 - float(first[1]) / 100, 6)


def _sources(draft: Draft, rows: ForeignRows, *, whole_part: bool = False) -> list[dict[str, Any]]:
    given = fill_in(str(draft.path), rows.key, rows.given)
    files = [fill_in(str(draft.path), rows.key, one) for one in rows.files]
    # A reader's name (json, csv) with files is those files; a hub's name with files is that data set's.
    if files and (PurePosixPath(files[0]).suffix and _is_reader(given)):
        return [_source(draft, rows, draft.folders.place(one)) for one in files]
    place = draft.folders.place(given)
    if files and place.found is not None and place.found.is_dir():
        return [_source(draft, rows, draft.folders.place(f"{given}/{one}")) for one in files]
    if files:
        draft.lose(f"{rows.key}.data_files", files, "all files of the data set are read")
    return [_source(draft, rows, place, whole_part=whole_part)]


def _is_reader(given: str) -> bool:
    return given in {"json", "csv", "parquet", "text", "arrow"}


def _source(
    draft: Draft, rows: ForeignRows, place: DataLocation, *, whole_part: bool = False
) -> dict[str, Any]:
    source: dict[str, Any] = {"path": place.path}
    _say_where(draft, rows, place)
    if place.has_parts:
        # A part of a configuration other than the default one is called by both names.
        other = rows.subset not in {None, "", "default"}
        source["split"] = f"{rows.subset}/{rows.part}" if other else rows.part
    elif rows.part != "train":
        draft.lose(f"{rows.key}.split", rows.split, "a file has no parts: all its rows are taken")
    if columns := _columns(rows, place):
        source["columns"] = columns
    if rows.weight is not None:
        source["weight"] = rows.weight
    limit = rows.limit if whole_part else _limit(draft, rows, place)
    if limit is not None:
        source["limit"] = limit
    if rows.label:
        source["name"] = rows.label
    return source


def _columns(rows: ForeignRows, place: DataLocation) -> dict[str, str]:
    """Return the mapping, without what the file itself shows to be called as ours is."""
    row = first_row(place.found)
    if row is None:
        return dict(rows.columns)
    return {
        ours: theirs
        for ours, theirs in rows.columns.items()
        if theirs.split(".")[0] in row or ours not in row
    }


def _limit(draft: Draft, rows: ForeignRows, place: DataLocation) -> int | None:
    if not rows.slice:
        return rows.limit
    key, count = f"{rows.key}.split", count_rows(place.found)
    found = _FIRST_ROWS.fullmatch(rows.slice)
    share = _FIRST_SHARE.fullmatch(rows.slice)
    limit = int(found[1]) if found else None
    if share and count:
        limit = max(1, round(count * float(share[1]) / 100))
    if limit is None:
        draft.lose(key, rows.split, "all its rows are taken; set the source's limit for fewer")
        return rows.limit
    draft.change(key, rows.split, f"{limit} rows are drawn by the seed, not the first ones")
    return min(limit, rows.limit or limit)


def _say_where(draft: Draft, rows: ForeignRows, place: DataLocation) -> None:
    if place.hub or place.found is not None:
        return
    if is_elsewhere(place.path):
        draft.lose(rows.key, rows.given, "rows are read from this machine: download them and name the file")
    else:
        reason = "no such file in the working directory, beside the config or above it: correct the path"
        draft.lose(rows.key, rows.given, reason)


def _named(sources: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Give sources a name where theirs would be kept for another file, or be another source's."""
    taken: set[str] = set()
    for source in sources:
        given = source.get("name") or PurePosixPath(str(source["path"])).stem
        label, number_ = str(given), 2
        if label in {EVAL, REPLAY}:
            label = f"{label}-rows"
        while label in taken:
            label, number_ = f"{given}-{number_}", number_ + 1
        taken.add(label)
        if label != PurePosixPath(str(source["path"])).stem:
            source["name"] = label
        else:
            source.pop("name", None)
    return sources


def limit_of(draft: Draft, key: str) -> int | None:
    """Return how many rows of each data set are wanted at most, by a foreign key."""
    value = draft.take(key, ours="data.train")
    return None if value is None else whole(value)
