"""No setting is read by nothing: each key of the config is looked at by code outside its declaration."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import train
from train.config import known_keys

PACKAGE = Path(train.__file__).parent
# Filled in before the types see it (presets), or a tag that chooses a class instead of being read.
REASONED = {
    "preset": "train.presets reads it from the file's text, before it is a setting",
    "quantization.type": "a tag: nf4 is the only kind, and its presence is what is read",
}


def reads() -> Iterator[str]:
    """Yield every attribute that the code reads, and what it asks of `getattr`."""
    for path in PACKAGE.rglob("*.py"):
        if "importing" in path.parts:  # writes configs, reads none
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
                yield node.attr
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "getattr":
                names = (one.value for one in node.args if isinstance(one, ast.Constant))
                yield from (name for name in names if isinstance(name, str))


READ = frozenset(reads())


def test_the_walk_sees_the_package() -> None:
    assert len(READ) > 500
    assert len(known_keys()) > 80
    assert set(REASONED) <= set(known_keys())


@pytest.mark.parametrize("key", [key for key in known_keys() if key not in REASONED])
def test_a_setting_is_read_by_the_code(key: str) -> None:
    leaf = key.rpartition(".")[2]
    assert {"from": "start"}.get(leaf, leaf) in READ
