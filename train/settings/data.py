"""Which rows are trained on: files, their weights in a mixture, replay, and what happens to long rows."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, Field, model_validator

from registry.home import HomePath
from registry.settings.models import Strict
from train.dataset.checks.acceptance import checked_acceptance
from train.dataset.containers.place import DataPath, absolute, label_of
from train.dataset.forms.mapping import RowMapping, checked_columns

Accepted = Annotated[tuple[str, ...], AfterValidator(lambda given: checked_acceptance(given).written)]
"""Findings that a person has looked at: `[D-MEDIA, "D-SECRET:66"]`."""
Overflow = Literal["truncate", "error", "drop"]
Answers = Literal["all", "last"]
ColumnNames = Annotated[dict[str, str], AfterValidator(checked_columns)]
"""Our keys of a form by the columns that stand for them: `{prompt: frage, completion: antwort}`."""

_Located = TypeVar("_Located", "TrainingSource", "EvalData", "Replay")
EVAL = "eval"
REPLAY = "replay"
"""The labels of the held-out file and of the replay file, which no source may have."""


class TrainingSource(Strict):
    """One file of rows, or a folder, a pattern, a data set of the hub (`hf://org/name`).

    `split` is the part of a data set that has several. `name` is the task it stands for in reports (default:
    the file's stem, with the split behind it). `weight` multiplies its share in a mixture; `limit` takes at
    most so many of its rows, drawn with the run's seed. `columns` names our key of a form, then the file's
    column: `{prompt: frage, completion: antwort}`.
    """

    path: HomePath
    name: str = ""
    split: str | None = None
    weight: float = Field(default=1.0, gt=0, le=1_000_000)
    limit: int | None = Field(default=None, ge=1)
    columns: ColumnNames = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _from_path(cls, value: Any) -> Any:
        return {"path": value} if isinstance(value, str | Path) else value

    @property
    def label(self) -> str:
        """Return the name that reports use."""
        return self.name or label_of(self.place)

    @property
    def place(self) -> DataPath:
        """Return where its rows lie."""
        return DataPath(self.path, self.split)

    @property
    def reading(self) -> RowMapping:
        """Return how its rows are to be read."""
        return RowMapping(self.columns)


class EvalData(Strict):
    """Held-out rows: those of another source, or `share` of the rows of each source of `train`.

    A share is taken as `wardrobe data split` takes it: rows that are equal, nearly equal or ask the same
    stay together.
    """

    path: HomePath | None = None
    split: str | None = None
    columns: ColumnNames = Field(default_factory=dict)
    share: float | None = Field(default=None, gt=0, lt=1)

    @model_validator(mode="before")
    @classmethod
    def _from_path(cls, value: Any) -> Any:
        return {"path": value} if isinstance(value, str | Path) else value

    @model_validator(mode="after")
    def _one_of_both(self) -> EvalData:
        if (self.path is None) == (self.share is None):
            raise ValueError("eval is a path or a share: give one of them")
        if self.share is not None and (self.split is not None or self.columns):
            raise ValueError("eval has a share, which is taken of the rows of train: leave the rest out")
        return self

    @property
    def place(self) -> DataPath | None:
        """Return where its rows lie; None where they are a share of the others."""
        return None if self.path is None else DataPath(self.path, self.split)


class Replay(Strict):
    """Rows of general data mixed in against forgetting: `share` of all rows of an epoch come from it."""

    path: HomePath
    share: float = Field(default=0.1, gt=0, lt=1)
    columns: ColumnNames = Field(default_factory=dict)


class DataSettings(Strict):
    """Where the rows lie: in the containers and forms of train/dataset.

    `train` is one file or a list of sources. With several, `temperature` T draws each task in proportion to
    (rows × weight)^(1/T): 1 keeps the sizes, large values make all tasks equal; an epoch has as many rows as
    all sources together. `overflow` says what
    happens to a row that is longer than `max_length`: its end is cut off with a warning (`truncate`), the
    run is refused (`error`), or the row is left out and listed (`drop`). `answers` says which answers of a
    conversation are learnt: `all`, or only the `last`. `accept` names findings of `data check` that a person
    has looked at: with `D-MEDIA` the text of rows with pictures is learnt.
    """

    train: tuple[TrainingSource, ...] = Field(min_length=1)
    eval: EvalData | None = None
    temperature: float = Field(default=1.0, ge=1, le=1_000)
    replay: Replay | None = None
    overflow: Overflow = "truncate"
    accept: Accepted = ()
    answers: Answers = "all"

    @model_validator(mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        if isinstance(value, dict) and isinstance(value.get("train"), str | Path):
            return {**value, "train": [{"path": value["train"], "name": "train"}]}
        if isinstance(value, dict) and isinstance(value.get("train"), dict | TrainingSource):
            return {**value, "train": [value["train"]]}
        return value

    @model_validator(mode="after")
    def _names_differ(self) -> DataSettings:
        labels = [source.label for source in self.train]
        for label in labels:
            if labels.count(label) > 1:
                raise ValueError(f"train names two sources {label!r}: give them different names")
            if label in {EVAL, REPLAY}:
                raise ValueError(f"a source is called {label!r}, which is kept for another file: name it")
        return self

    @property
    def files(self) -> dict[str, DataPath]:
        """Return where the rows lie by label: the sources', `eval` (unless a share) and `replay`."""
        found = {source.label: source.place for source in self.train}
        if self.eval is not None and self.eval.place is not None:
            found[EVAL] = self.eval.place
        return found if self.replay is None else {**found, REPLAY: DataPath(self.replay.path)}

    @property
    def readings(self) -> dict[str, RowMapping]:
        """Return how every file of `files` is to be read, by its label."""
        mapped: dict[str, ColumnNames] = {source.label: source.columns for source in self.train}
        if self.eval is not None:
            mapped[EVAL] = self.eval.columns
        if self.replay is not None:
            mapped[REPLAY] = self.replay.columns
        accepted = checked_acceptance(self.accept).kinds
        return {label: RowMapping(mapped.get(label, {}), accepted) for label in self.files}

    def resolved(self, folder: Path) -> DataSettings:
        """Return the same settings with every path absolute, counted from `folder`."""
        return self.model_copy(
            update={
                "train": tuple(_resolved(one, folder) for one in self.train),
                "eval": self.eval and _resolved(self.eval, folder),
                "replay": self.replay and _resolved(self.replay, folder),
            }
        )


def _resolved(one: _Located, folder: Path) -> _Located:
    return one if one.path is None else one.model_copy(update={"path": absolute(folder, one.path)})
