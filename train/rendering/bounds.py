"""That a base's chat template ends: tried once per template, in a process whose time and memory are limited.

A template runs the code of whoever wrote it, in this process. Owns the trial before that; what it is made of
is `registry.validation.intake`'s, which compares templates.
"""

from __future__ import annotations

from functools import lru_cache

from registry.errors import UsageError
from registry.validation.intake.rendering import runs_away
from train.rendering.interface import Tokenizer


def require_bounded(tokenizer: Tokenizer) -> None:
    """Refuse a tokenizer of which a chat template does not end with short conversations.

    Raises: UsageError.
    """
    found = tokenizer.chat_template
    texts = found.values() if isinstance(found, dict) else [found] if found else []
    if fact := _runs_away(tuple(map(str, texts))):
        raise UsageError(
            "the base's chat template",
            f"{fact} on conversations of a few words",
            "mend the template in the base's folder (chat_template.jinja, tokenizer_config.json)",
        )


@lru_cache(maxsize=32)
def _runs_away(texts: tuple[str, ...]) -> str | None:
    return runs_away(texts) if texts else None
