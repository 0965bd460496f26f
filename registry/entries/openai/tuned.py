"""Tuned models: the names `ft:…` that fine-tuning jobs give to what they made.

Owns `models/`: one file for each name, which says the version that answers by it, and a mark `….deleted`
beside it once the name was deleted. Invariants: a name leads to one version for good and is never given
again, not even after its deletion; neither file ever changes; the version itself is untouched by both.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING
from urllib.parse import quote

from registry.errors import Conflict, CorruptStore, Missing, NotFound, StorageFailed
from registry.storage import disk, files
from registry.storage.entry import Entry, encode_claim
from registry.storage.root import Root

if TYPE_CHECKING:
    from pydantic import JsonValue

CHECKPOINT = ":ckpt-step-"
"""Between a model's name and the number of steps after which the checkpoint was taken."""

_FOLDER = "models"
_RECORD, _DELETED = ".json", ".deleted"
_LONGEST = 200
"""Bytes of a file's name; file systems take 255, and a mark or a temporary name adds some."""


@dataclass(frozen=True, slots=True)
class TunedModel:
    """A name, the version `adapter@version` with this digest that answers by it, and who made it when.

    `job` is the id of the training job, `who` the id of the key that asked for it, `created` in UNIX seconds.
    """

    name: str
    adapter: str
    version: int
    digest: str
    job: str
    who: str
    created: float

    @property
    def target(self) -> str:
        """Return the name of the version."""
        return f"{self.adapter}@{self.version}"


class TunedModels:
    """The tuned models of one root."""

    def __init__(self, root: Root, clock: Callable[[], float] = time.time) -> None:
        self.folder = root.path / _FOLDER
        self._changes = root.path / "changes"
        self._clock = clock
        self._known: dict[str, TunedModel] = {}

    def add(self, model: TunedModel) -> TunedModel:
        """Give a version a name; the same again changes nothing, and a deleted name stays deleted.

        Raises: Conflict: the name leads to another version; StorageFailed.
        """
        fields: dict[str, JsonValue] = {
            "name": model.name,
            "adapter": model.adapter,
            "version": model.version,
            "digest": model.digest,
            "job": model.job,
            "who": model.who,
            "created": model.created,
        }
        path = self._path(model.name, _RECORD)
        files.make_directory(self.folder)
        if not files.claim(path, encode_claim(fields)):
            known = self._read(path)
            if (known.target, known.digest) != (model.target, model.digest):
                raise Conflict(model.name, f"leads to {known.target} already", "choose another name")
            return known
        self._mark(model.adapter)
        return model

    def find(self, name: str) -> TunedModel:
        """Return the model of that name.

        Raises: NotFound: it never existed, or was deleted; CorruptStore; StorageFailed.
        """
        try:
            model = self._read(self._path(name, _RECORD))
        except Missing:
            raise NotFound(name, "there is no such model", "see GET /v1/models", param="model") from None
        if disk.exists(self._path(name, _DELETED)):
            raise NotFound(name, "was deleted", "see GET /v1/models", param="model")
        return model

    def survey(self) -> tuple[Mapping[str, TunedModel], Mapping[str, str]]:
        """Return every model by its name, and what is wrong with those whose file cannot be read.

        What was read once is not read again. Raises: StorageFailed: they cannot be listed.
        """
        there = set(disk.names(self.folder))
        found: dict[str, TunedModel] = {}
        problems: dict[str, str] = {}
        for file in sorted(there):
            if not file.endswith(_RECORD) or file.removesuffix(_RECORD) + _DELETED in there:
                continue
            try:
                model = self._known.get(file) or self._read(self.folder / file)
            except (CorruptStore, StorageFailed) as error:
                problems[f"{_FOLDER}/{file}"] = str(error)
                continue
            self._known[file] = found[model.name] = model
        return MappingProxyType(found), MappingProxyType(problems)

    def leading_to(self, adapter: str, number: int) -> list[str]:
        """Return the names that a version answers by.

        Raises: StorageFailed: they cannot be listed.
        """
        models, _ = self.survey()
        return [one.name for one in models.values() if (one.adapter, one.version) == (adapter, number)]

    def remove(self, name: str, *, who: str) -> TunedModel:
        """Take a name out of use for good, and return what it was; its version stays as it is.

        Raises: NotFound: it never existed, or was deleted; CorruptStore; StorageFailed.
        """
        model = self.find(name)
        fields: dict[str, JsonValue] = {"who": who, "at": self._clock()}
        if not files.claim(self._path(name, _DELETED), encode_claim(fields)):
            raise NotFound(name, "was deleted", "see GET /v1/models", param="model")
        self._mark(model.adapter)
        return model

    def _mark(self, adapter: str) -> None:
        """Wake the watchers, which look at this folder by themselves as well."""
        try:
            files.touch(self._changes / adapter)
        except StorageFailed:
            return  # the change itself is on the disk: a moment later they find it

    def _read(self, path: Path) -> TunedModel:
        entry = Entry.read(path)
        model = TunedModel(
            name=entry.text("name"),
            adapter=entry.text("adapter"),
            version=entry.integer("version"),
            digest=entry.text("digest"),
            job=entry.text("job"),
            who=entry.text("who"),
            created=entry.number("created"),
        )
        if self._path(model.name, _RECORD).name != path.name:
            raise CorruptStore(str(path), f"holds the name {model.name}", "restore it from a backup")
        return model

    def _path(self, name: str, suffix: str) -> Path:
        return self.folder / f"{_file_name(name)}{suffix}"


def _file_name(name: str) -> str:
    """Return the name as one component of a path: escaped, and where that is too long ended by its hash."""
    escaped = quote(name, safe="")
    if len(escaped) <= _LONGEST:
        return escaped
    digest = sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:32]
    return f"{escaped[: _LONGEST - len(digest) - 1]}~{digest}"
