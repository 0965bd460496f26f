"""What is asked: texts of a wanted length, seeded, or the lines of a file.

A word of the list is about one token for the usual tokenizers; what the server counted is in the report.
Invariant: two requests share a prefix only where the scenario says so, since a text begins with words of
its own (a cached prefix would make a server look faster than it is).
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from loadtests.runner.scenario import Length
from registry.errors import NotFound, UsageError

Message = Mapping[str, str]
BLOCK_TOKENS = 512
_TEXT = """
time year people way day man thing woman life child world school state family student group country
problem hand part place case week company system program question work government number night point
home water room mother area money story fact month lot right study book eye job word business issue
side kind head house service friend father power hour game line end member law car city community
name president team minute idea kid body information back parent face others level office door health
person art war history party result change morning reason research girl guy moment air teacher force
education foot boy age policy music market sense nation plan college interest death experience effect
"""
_WORDS = _TEXT.split()


def draw_lengths(length: Length, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return `count` lengths in tokens."""
    if length.kind == "fixed":
        return np.full(count, length.mean, dtype=np.int64)
    if length.kind == "uniform":
        return rng.integers(length.low, length.high, count, endpoint=True)
    # The mean of exp(N(m, s)) is exp(m + s²/2).
    centre = np.log(length.mean) - length.sigma**2 / 2
    drawn = np.rint(rng.lognormal(centre, length.sigma, count)).astype(np.int64)
    return np.clip(drawn, length.low, length.high)


def words(seed: str, count: int) -> str:
    """Return `count` words that `seed` decides."""
    return " ".join(random.Random(seed).choices(_WORDS, k=max(1, count)))


@lru_cache(maxsize=1_024)
def shared_words(seed: str, count: int) -> str:
    """Return `count` words that `seed` decides, kept since many requests share them."""
    return words(seed, count)


def conversation(own_seed: str, shared_seed: str, tokens: int, shared: float) -> list[Message]:
    """Return the messages of one question; `shared` of the tokens are a system prompt."""
    common = round(tokens * shared)
    question: Message = {"role": "user", "content": words(own_seed, tokens - common)}
    if common == 0:
        return [question]
    return [{"role": "system", "content": shared_words(shared_seed, common)}, question]


def recorded_conversation(own_seed: str, tokens: int, blocks: tuple[int, ...]) -> list[Message]:
    """Return one message of `tokens` words whose beginning is the trace's shared blocks."""
    parts = [shared_words(f"block {block}", BLOCK_TOKENS) for block in blocks[:-1]]
    parts.append(words(own_seed, tokens - BLOCK_TOKENS * len(parts)))
    return [{"role": "user", "content": " ".join(parts)}]


def read_prompts(path: Path) -> list[list[Message]]:
    """Return the conversations of a JSON Lines file: rows with `messages`, or with `prompt`.

    An assistant's last message is left out: it is what is asked for.

    Raises: NotFound: no file; UsageError: a row without either, or no row.
    """
    try:
        lines = path.read_text("utf-8").splitlines()
    except FileNotFoundError as error:
        raise NotFound(str(path), "there is no such file of prompts", "correct prompts.file") from error
    rows = [_row(line, f"{path}:{number}") for number, line in enumerate(lines, 1) if line.strip()]
    if not rows:
        raise UsageError(str(path), "holds no prompts", "write {prompt: …} or {messages: […]}")
    return rows


def _row(text: str, where: str) -> list[Message]:
    try:
        row = json.loads(text)
        if "messages" not in row:
            return [{"role": "user", "content": str(row["prompt"])}]
        found: list[Message] = [
            {"role": str(one["role"]), "content": str(one["content"])} for one in row["messages"]
        ]
        if found[-1]["role"] == "assistant":
            found.pop()
        return found if found[-1]["content"] else []
    except (ValueError, TypeError, KeyError, IndexError) as error:
        raise UsageError(where, "is not a prompt", "write {prompt: …} or {messages: […]}") from error
