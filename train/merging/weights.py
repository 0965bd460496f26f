"""A model folder's weights, one tensor at a time.

Owns how a weight is found by the name that the model's class gives it. Invariant: no more than the tensor
asked for is in memory.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from registry.errors import UsageError
from registry.validation.architectures import INPUT_EMBEDDING, OUTPUT_EMBEDDING

if TYPE_CHECKING:
    from torch import Tensor

HEAD = f"{OUTPUT_EMBEDDING}.weight"
_INDEX = "model.safetensors.index.json"
_SINGLE = "model.safetensors"


class FolderWeights(Mapping[str, "Tensor"]):
    """The weights in `folder` by name, read when asked for and in the dtype that they are stored in.

    A head that is tied to the embedding is there under its own name, too.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files = _files_by_name(folder)
        self._open: dict[str, Any] = {}
        self.tied_to = self._tied_to()

    def __getitem__(self, name: str) -> Tensor:
        if name == HEAD and self.tied_to is not None:
            name = self.tied_to
        file = self._files[name]
        if file not in self._open:
            from safetensors import safe_open

            self._open[file] = safe_open(self._folder / file, framework="pt")
        return self._open[file].get_tensor(name)

    def __iter__(self) -> Iterator[str]:
        yield from sorted(self._files)
        if self.tied_to is not None:
            yield HEAD

    def __len__(self) -> int:
        return len(self._files) + (self.tied_to is not None)

    def _tied_to(self) -> str | None:
        embeddings = [name for name in self._files if name.endswith(f"{INPUT_EMBEDDING}.weight")]
        return embeddings[0] if embeddings and HEAD not in self._files else None


def _files_by_name(folder: Path) -> dict[str, str]:
    if (folder / _INDEX).is_file():
        index = json.loads((folder / _INDEX).read_text(encoding="utf-8"))
        return {str(name): str(file) for name, file in index["weight_map"].items()}
    path = folder / _SINGLE
    if not path.is_file():
        remedy = "give a model folder as transformers saves it, or a PEFT adapter folder"
        raise UsageError(str(folder), f"holds no {_SINGLE}", remedy)
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            return dict.fromkeys(file.keys(), _SINGLE)
    except SafetensorError as error:
        raise UsageError(str(path), f"cannot be read ({error})", "save the model again") from error
