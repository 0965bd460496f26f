"""Names: of adapters, of aliases, of replicas, and the `model` field of a request.

Owns the grammar and nothing else: no disk, no lookup. Invariant: a parsed name is safe as one path
component.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from registry.errors import InvalidName

NAME_PATTERN = r"[a-z0-9][a-z0-9._-]{0,62}"
"""An adapter's name, whole; for documents that describe it."""

_NAME = re.compile(NAME_PATTERN)
_REPLICA = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_NUMBER = re.compile(r"[1-9][0-9]{0,8}")

STABLE = "stable"
CANARY = "canary"
TUNED_PREFIX = "ft:"
"""What the name of a tuned model begins with; no adapter's does."""

BASE = "base"
"""The word for the base model in commands and in response ids; no adapter may take it."""

_MAX_BASE_CHARS = 255


@dataclass(frozen=True, slots=True)
class ModelRef:
    """A parsed model name: `NAME` (both None), `NAME@N` (version) or `NAME@ALIAS` (alias)."""

    adapter: str
    version: int | None = None
    alias: str | None = None

    def __str__(self) -> str:
        suffix = self.version if self.version is not None else self.alias
        return self.adapter if suffix is None else f"{self.adapter}@{suffix}"


def check_adapter_name(name: str) -> str:
    """Return `name` if an adapter may be called so.

    Raises: InvalidName.
    """
    if _NAME.fullmatch(name) is None:
        fact = "is not a name: 1 to 63 of a-z 0-9 . _ - are allowed, beginning with a letter or digit"
        raise InvalidName(repr(name), fact, "choose another name", param="name")
    return name


def check_base_name(name: str) -> str:
    """Return `name` if a base may be served by it: any text of one line that is not an adapter's reference.

    Raises: InvalidName.
    """
    if not name or name != name.strip() or len(name) > _MAX_BASE_CHARS or not name.isprintable():
        fact = f"is not a base's name: 1 to {_MAX_BASE_CHARS} characters of one line, without spaces around"
        raise InvalidName(repr(name), fact, "choose another with --name", param="name")
    if "@" in name:
        fact = "is not a base's name: NAME@N and NAME@ALIAS are versions of adapters"
        raise InvalidName(repr(name), fact, "choose another with --name", param="name")
    return name


def means_base(adapter: str, base: str) -> bool:
    """Whether an adapter of that name could not be told from the base: letters count alike in both cases.

    Requests are compared exactly, and the base comes first; people and clients are less exact.
    """
    return adapter.casefold() in {BASE, base.casefold()}


def check_alias_name(alias: str) -> str:
    """Return `alias` if an alias may be called so (the same grammar, and not all digits).

    Raises: InvalidName.
    """
    if _NAME.fullmatch(alias) is None or alias.isdigit():
        fact = "is not an alias: 1 to 63 of a-z 0-9 . _ - are allowed, and not only digits"
        raise InvalidName(repr(alias), fact, "choose another alias", param="alias")
    return alias


def check_replica_name(replica: str) -> str:
    """Return `replica` if a replica may be called so.

    Raises: InvalidName.
    """
    if _REPLICA.fullmatch(replica) is None:
        raise InvalidName(repr(replica), "is not a replica's name", "use letters, digits, . _ -")
    return replica


def parse_model(text: str) -> ModelRef:
    """Parse `NAME`, `NAME@N` or `NAME@ALIAS`.

    Raises: InvalidName: for anything else, `NAME@0` and `NAME@` included.
    """
    adapter, at, suffix = text.partition("@")
    check_adapter_name(adapter)
    if not at:
        return ModelRef(adapter)
    if _NUMBER.fullmatch(suffix):
        return ModelRef(adapter, version=int(suffix))
    return ModelRef(adapter, alias=check_alias_name(suffix))


def parse_version(text: str) -> tuple[str, int]:
    """Parse `NAME@N` into the adapter's name and the version's number.

    Raises: InvalidName: when the number is missing or is an alias.
    """
    ref = parse_model(text)
    if ref.version is None:
        raise InvalidName(repr(text), "names no version number", "write NAME@N, for instance support@3")
    return ref.adapter, ref.version
