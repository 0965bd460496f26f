"""One real server and one real training for the whole session; nothing here is a fake.

The base model and the trained marker adapters are kept in the session's cache, so a second run starts sooner.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from loadtests.live import Live, wardrobe
from loadtests.markers import marker_adapters
from registry.foreign import PACKAGES
from tests.isolation import CACHE

# Files in this order: the ones that kill the session's server come last.
LAST = ("test_recovery.py", "test_next_start.py")
STRANGERS = (*PACKAGES, "vllm", "torch", "logging", "types", "random", "tokenizers", "datasets", "json")
SERVER_OPTIONS = (
    "--max-model-len", "1024", "--max-num-seqs", "16", "--max-loras", "4", "--max-cpu-loras", "6",
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark everything here as needing the engine; run it after all else, the disruptive files last."""
    here = Path(__file__).parent

    def place(item: pytest.Item) -> int:
        if here not in item.path.parents:
            return 0
        return 2 + LAST.index(item.path.name) if item.path.name in LAST else 1

    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.engine)
            item.add_marker(pytest.mark.timeout(600))
    items.sort(key=place)


@pytest.fixture(scope="session")
def markers(base_folder: Path) -> dict[str, Path]:
    """Adapters trained by `wardrobe train run` to answer everything with their own marker text.

    `make test` finds those of tests/loadtests/test_markers.py.
    """
    return marker_adapters(CACHE, base_folder)


@pytest.fixture(scope="session")
def live(
    base_folder: Path, markers: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Live]:
    """The session's server: `support` has @1 (alpha, stable) and @2 (bravo); `coding` has @1 (bravo)."""
    folder = tmp_path_factory.mktemp("live")
    root = folder / "root"
    wardrobe(root, "init", "--base", base_folder)
    wardrobe(root, "register", "support", markers["alpha"])
    wardrobe(root, "register", "support", markers["bravo"])
    wardrobe(root, "register", "coding", markers["bravo"])
    # Of all the folders to start a server in, one that has every name which could be imported instead.
    for name in STRANGERS:
        (folder / "cwd" / name).mkdir(parents=True)
        (folder / "cwd" / name / "__init__.py").write_text("raise SystemExit('a stranger was imported')")
    server = Live.start(
        root,
        folder / "serve.log",
        *SERVER_OPTIONS,
        environment={"WARDROBE_ENGINE__HANG_SECONDS": "10"},
        cwd=folder / "cwd",
    )
    try:
        server.wait_ready()
        yield server
    finally:
        server.close_clients()
        if server.process.poll() is None:
            server.stop()
