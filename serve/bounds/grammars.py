"""What constrains an answer: grammars, regular expressions, schemas, choices (pure)."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Raw

from serve.errors import TooComplex

_FIELDS = ("structured_outputs", "response_format", "text", "output_config")


def check_grammars(fields: Mapping[str, Raw], most: int) -> None:
    """Pass when what constrains the answer has at most `most` bytes.

    Raises: TooComplex.
    """
    for name in _FIELDS:
        if name in fields and len(bytes(fields[name])) > most:
            fact = f"has {len(bytes(fields[name]))} bytes, and {most} are allowed"
            raise TooComplex(name, fact, "send a smaller one, or raise limits.max_grammar_bytes", param=name)
