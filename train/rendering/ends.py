"""At which tokens the base's server ends an answer.

Owns what the model's own files say about it, read as vLLM reads it: the tokenizer's end-of-sequence token,
and `eos_token_id` of generation_config.json, or of config.json where there is no such file.
"""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from train.rendering.interface import Tokenizer

GENERATION_CONFIG = "generation_config.json"
_FILES = (GENERATION_CONFIG, "config.json")


def stops_of(tokenizer: Tokenizer) -> frozenset[int]:
    """Return the ids at which the server stops; those of the folder that the tokenizer was loaded from."""
    folder = getattr(tokenizer, "name_or_path", "")
    found = _from_folder(Path(folder)) if folder else frozenset()
    own = tokenizer.eos_token_id
    return found if own is None else found | {own}


@lru_cache(maxsize=8)
def _from_folder(folder: Path) -> frozenset[int]:
    for name in _FILES:
        try:
            written = json.loads((folder / name).read_bytes())
        except FileNotFoundError:
            continue
        except (OSError, ValueError):
            return frozenset()
        return frozenset(_ids(written) or _ids(written.get("text_config")))
    return frozenset()


def _ids(config: Any) -> list[int]:
    value = config.get("eos_token_id") if isinstance(config, dict) else None
    listed = value if isinstance(value, list) else [value]
    return [one for one in listed if isinstance(one, int) and not isinstance(one, bool)]
