"""LLaMA-Factory's dataset_info.json: where a data set lies and what its columns are called.

Owns where that file is looked for, and what `columns`, `formatting`, `ranking` and `tags` mean in our forms
(llamafactory/data/parser.py).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from registry.errors import UsageError
from train.importing import shared
from train.importing.draft import Draft, is_empty, shown, whole
from train.importing.sources import ForeignRows

_FILE = "dataset_info.json"
# Their name of a column -> our key, by the form of the rows.
_ALPACA = {"prompt": "instruction", "query": "input", "response": "output", "history": "history"}
_BOTH = {"system": "system", "tools": "tools", "chosen": "chosen", "rejected": "rejected", "kto_tag": "label"}
_MEDIA = ("images", "videos", "audios")
_ROLES = {
    "user_tag": frozenset({"human", "user"}),
    "assistant_tag": frozenset({"gpt", "assistant"}),
    "observation_tag": frozenset({"observation", "tool"}),
    "function_tag": frozenset({"function_call", "tool_calls"}),
    "system_tag": frozenset({"system"}),
}
_KNOWN = frozenset({
    "file_name", "hf_hub_url", "ms_hub_url", "om_hub_url", "script_url", "cloud_file_name", "formatting",
    "ranking", "subset", "split", "folder", "num_samples", "columns", "tags", "file_sha1",
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Info:
    """The data sets that a folder lists; `folder` is as the config names it, `listed` None where none is."""

    draft: Draft
    folder: str
    listed: Mapping[str, Any] | None

    @classmethod
    def of(cls, draft: Draft, given: Any) -> Self:
        """Read the list of `dataset_dir`, where that is on this machine.

        Raises: UsageError: the file is no JSON object.
        """
        if isinstance(given, dict):
            return cls(draft, "", given)
        folder = str(given)
        found = draft.folders.find(f"{folder}/{_FILE}") or draft.folders.find(_FILE)
        if folder == "ONLINE" or folder.startswith("REMOTE:") or found is None:
            return cls(draft, folder, None)
        return cls(draft, str(found.parent), _read(found))

    def rows(self, key: str, name: str, limit: int | None = None, weight: float | None = None) -> ForeignRows:
        """Return what the list says of the data set `name`; a file is guessed where it says nothing."""
        if self.listed is None:
            return self._guess(key, name, limit, weight)
        entry = self.listed.get(name)
        if not isinstance(entry, dict):
            self.draft.lose(key, name, f"{self.folder}/{_FILE} does not have it: name the file")
            return ForeignRows(
                f"{key}.{name}", f"{self.folder}/{name}.json", limit=limit, weight=weight, label=name
            )
        at_most = entry.get("num_samples")
        if at_most is not None:
            limit = min(whole(at_most), limit or whole(at_most))
        place = f"{key}.{name}"
        self._say_rest(place, entry)
        return ForeignRows(
            key=place,
            given=self._given(place, entry),
            split=entry.get("split"),
            subset=entry.get("subset"),
            columns=self._columns(place, entry),
            limit=limit,
            weight=weight,
            label=name,
        )

    def _guess(self, key: str, name: str, limit: int | None, weight: float | None) -> ForeignRows:
        if self.folder == "ONLINE" or "/" in name:
            return ForeignRows(f"{key}.{name}", name, limit=limit, weight=weight)
        if self.folder.startswith("REMOTE:"):
            reason = f"where its rows lie is said by {_FILE} of {self.folder[7:]} on the hub: name the file"
        else:
            reason = f"where its rows lie is said by {self.folder}/{_FILE}, which is not here: name the file"
        self.draft.lose(key, name, reason)
        folder = "data" if self.folder.startswith("REMOTE:") else self.folder
        return ForeignRows(f"{key}.{name}", f"{folder}/{name}.json", limit=limit, weight=weight, label=name)

    def _given(self, place: str, entry: Mapping[str, Any]) -> str:
        hub = entry.get("hf_hub_url") or entry.get("ms_hub_url") or entry.get("om_hub_url")
        if not is_empty(hub):
            if "hf_hub_url" not in entry:
                reason = "rows are read from files or the Hugging Face hub, where it may have another name"
                self.draft.lose(place, hub, reason)
            return str(hub)
        given = entry.get("file_name") or entry.get("script_url") or entry.get("cloud_file_name")
        if is_empty(given):
            raise self.draft.refuse(place, shown(dict(entry)), f"{_FILE} names no file for it")
        if "script_url" in entry and "file_name" not in entry:
            self.draft.lose(f"{place}.script_url", given, shared.CODE)
        return str(given) if "://" in str(given) else str(Path(self.folder) / str(given))

    def _columns(self, place: str, entry: Mapping[str, Any]) -> dict[str, str]:
        given = entry.get("columns") or {}
        turns = str(entry.get("formatting", "alpaca")) != "alpaca"
        table = {**_BOTH, **({"messages": self._turns(place, entry)} if turns else _ALPACA)}
        if self.draft.get("method.type") == "pretrain":
            table["prompt"] = "text"
        found = {}
        for theirs, column in given.items():
            if theirs in _MEDIA:
                self.draft.lose(f"{place}.columns.{theirs}", column, shared.PICTURES)
            elif theirs in table and table[theirs] != column:
                found[table[theirs]] = str(column)
            elif theirs not in table:
                reason = f"is not a column of this form ({entry.get('formatting', 'alpaca')})"
                self.draft.lose(f"{place}.columns.{theirs}", column, reason)
        return found

    def _turns(self, place: str, entry: Mapping[str, Any]) -> str:
        """Return our key of the conversation, by what its messages call their role and content."""
        tags = entry.get("tags") or {}
        openai = str(entry.get("formatting")) == "openai"
        role = tags.get("role_tag", "role" if openai else "from")
        ours, content = ("messages", "content") if role == "role" else ("conversations", "value")
        if role not in {"role", "from"}:
            self.draft.lose(f"{place}.tags.role_tag", role, "a message's role is read from 'role' or 'from'")
        if tags.get("content_tag", content) != content:
            reason = f"a message's content is read from {content!r}: rename it in the rows"
            self.draft.lose(f"{place}.tags.content_tag", tags["content_tag"], reason)
        for tag, known in _ROLES.items():
            if tags.get(tag, next(iter(known))) not in known:
                reason = f"is not a role that is known ({', '.join(sorted(known))}): rename it in the rows"
                self.draft.lose(f"{place}.tags.{tag}", tags[tag], reason)
        return ours

    def _say_rest(self, place: str, entry: Mapping[str, Any]) -> None:
        for key in sorted(set(entry) - _KNOWN):
            self.draft.lose(f"{place}.{key}", entry[key], f"{shared.UNKNOWN} (LLaMA-Factory)")
        if not is_empty(entry.get("folder")):
            self.draft.lose(f"{place}.folder", entry["folder"], "all folders of the data set are read")
        ranking, method = bool(entry.get("ranking")), self.draft.get("method.type")
        if ranking and method not in {"dpo", "orpo", "reward"}:
            self.draft.lose(f"{place}.ranking", ranking, f"its rows are pairs, which {method} does not read")


def _read(path: Path) -> Mapping[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(str(path), f"cannot be read as JSON ({error})", "correct the file") from error
    if not isinstance(found, dict):
        raise UsageError(str(path), "is not a list of data sets by name", "correct the file")
    return found
