"""A root with one version and a server on it; a file that needs others has fixtures of the same names."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from registry.store import Registry
from tests.fakes.served import Served, make_root, publish, serve


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    """A root with `support@1`, its stable."""
    registry = make_root(tmp_path)
    publish(registry, tmp_path, "support", 1)
    return registry


@pytest.fixture
def served(registry: Registry, tmp_path: Path) -> Iterator[Served]:
    """A server on `registry`."""
    with serve(registry, tmp_path) as server:
        yield server
