"""Every test sees the same machine: `isolation` says what is left of it, and here it is put around them."""

from __future__ import annotations

import gc
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import hypothesis
import pytest

from tests import isolation

# Now, because libraries read their variables when they are imported.
PLACE = isolation.enter()
OWNED = frozenset(isolation.isolated({}, PLACE))
# Until all tests are imported: that makes a million objects and no garbage, and it would look at them all.
gc.disable()
# A busy machine fails no test: examples may take their time.
hypothesis.settings.register_profile(
    "wardrobe", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("wardrobe")
LONG = (
    "test_ray", "test_nearest", "test_merging_cli", "test_merging_extraction", "test_merging_forms",
    "test_evaluation_gate", "test_observability_live", "test_isolation", "test_docs", "test_actions",
)  # fmt: skip
"""The files that take longest beside those that train, the longest first."""


def pytest_configure(config: pytest.Config) -> None:
    """Keep the folders of the tests with the others, unless pytest was told a place."""
    config.option.basetemp = config.option.basetemp or PLACE.folder / "tests"
    if getattr(config.option, "numprocesses", None):
        # This process runs no tests. Those that do are its children, and make a place of their own.
        isolation.replace_environment(isolation.OUTSIDE)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Import only what may hold a test for the real vLLM where nothing else is asked for."""
    if config.option.markexpr != "engine" or not collection_path.match("test_*.py"):
        return None
    marked = collection_path.parent.name == "e2e" or "mark.engine" in collection_path.read_text()
    return None if marked else True


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Return one process more than there are cores: now and then a test waits for another process."""
    return len(os.sched_getaffinity(0)) + 1


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Begin with the long files where several processes share them, so that all end together."""
    if hasattr(config, "workerinput"):
        items.sort(key=_place)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Collect garbage again, but look no more at what was imported, which takes a second each time."""
    gc.freeze()
    gc.enable()


def pytest_unconfigure() -> None:
    """Remove all of it, and let the interpreter end as it would have."""
    gc.unfreeze()
    shutil.rmtree(PLACE.folder, ignore_errors=True)


@pytest.fixture(scope="session", autouse=True)
def away_from_the_checkout() -> Iterator[None]:
    """Leave the checkout before the first fixture is made, and return for pytest's own last words."""
    started = Path.cwd()
    os.chdir(PLACE.here)
    yield
    os.chdir(started)


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """Fail a test that leaves a file where it works, another working folder, or a variable of ours."""
    os.chdir(PLACE.here)
    given = dict(os.environ)
    yield
    found = Path.cwd(), [path.name for path in PLACE.here.iterdir()], _ours(os.environ)
    _tidy(given)
    assert found == (PLACE.here, [], _ours(given))


@pytest.fixture(scope="session")
def base_folder() -> Path:
    """Return the packaged base model as a normal model folder, kept from session to session."""
    from train.model.base_demo import NAME, is_complete

    folder = isolation.CACHE / NAME
    with isolation.alone("base"):  # the other processes that share the tests wait for the one that makes it
        if not is_complete(folder):
            # In a process of its own: this one then needs no gigabyte for torch.
            subprocess.run(["wardrobe", "base", "demo", folder], check=True, stdout=subprocess.DEVNULL)
    return folder


def _place(item: pytest.Item) -> int:
    if item.get_closest_marker("training") is not None:
        return 0
    return 1 + (LONG.index(item.path.stem) if item.path.stem in LONG else len(LONG))


def _tidy(given: dict[str, str]) -> None:
    os.chdir(PLACE.here)
    for path in PLACE.here.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    for name in {*_ours(os.environ)} - {*given}:
        del os.environ[name]
    os.environ.update(_ours(given))


def _ours(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that the product reads, and those that the isolation sets."""
    return {n: value for n, value in environment.items() if n in OWNED or n.startswith("WARDROBE_")}
