"""A real store for every test that asks for one, and the commands beside its files and over a server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from registry.store import Registry
from tests.fakes.base import make_base
from tests.fakes.clock import Clock
from tests.fakes.control import admin_server
from tests.fakes.store import make_registry, with_reserve
from tests.fakes.terminal import Terminal


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return make_registry(tmp_path)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "root"
    Registry.init(with_reserve(path), make_base(tmp_path / "tiny"))
    return path


@pytest.fixture(params=["root", "url"])
def wardrobe(request: pytest.FixtureRequest, root: Path) -> Iterator[Terminal]:
    if request.param == "root":
        yield Terminal(("--root", str(root)))
        return
    with admin_server(root) as url:
        yield Terminal(("--url", url))
