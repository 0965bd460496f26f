"""The rules of the house, held by the code itself: sizes, docstrings, public names, what a file may name."""

from __future__ import annotations

import ast
import importlib
import itertools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.checkout import PACKAGES, REGISTRY_ROOMS, REPOSITORY, tracked_files

MODULES = sorted(path for package in PACKAGES for path in (REPOSITORY / package).rglob("*.py"))
# Packages whose `__init__` is a door: it lists its public names and nothing else.
DOORS = ("registry", "serve", "train")


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def test_the_walk_finds_the_modules() -> None:
    assert len(MODULES) > 50


def test_no_module_is_longer_than_400_lines() -> None:
    long = {
        str(path.relative_to(REPOSITORY)): n
        for path in MODULES
        if (n := len(path.read_text().splitlines())) > 400
    }
    assert long == {}


def test_at_most_one_function_in_a_hundred_is_longer_than_50_lines() -> None:
    sizes = [
        ((node.end_lineno or node.lineno) - node.lineno + 1, f"{path.name}:{node.name}")
        for path in MODULES
        for node in functions(path)
    ]
    long = [size for size in sizes if size[0] > 50]
    assert len(long) <= len(sizes) / 100, long


def test_every_public_module_class_and_function_has_a_docstring() -> None:
    bare = []
    for path in MODULES:
        tree = ast.parse(path.read_text())
        if ast.get_docstring(tree) is None:
            bare.append(str(path.relative_to(REPOSITORY)))
        for node in tree.body:
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                continue
            if not node.name.startswith("_") and ast.get_docstring(node) is None:
                bare.append(f"{path.relative_to(REPOSITORY)}:{node.name}")
    assert bare == []


def test_a_public_class_has_a_name_that_no_other_has() -> None:
    homes: dict[str, list[str]] = {}
    for path in MODULES:
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                homes.setdefault(node.name, []).append(str(path.relative_to(REPOSITORY)))
    assert len(homes) > 500
    assert {name: found for name, found in homes.items() if len(found) > 1} == {}


def test_a_class_has_no_name_that_was_given_up_for_the_words_of_the_field() -> None:
    given_up = {
        "BaseModel", "Course", "Desk", "Door", "Follower", "Guard", "Hearing", "Keeper", "Lack", "Looks",
        "Occasion", "Race", "Wish", "Work", "Workshop",
    }  # fmt: skip
    found = {
        node.name
        for path in MODULES
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.ClassDef)
    }
    assert found & given_up == set()


# Pairs of one shape: OpenAI's error in three places (a client's, a relay's, the hot path's), the counts of a
# load test's action, what the rollout's documents add to what its decision holds, and a request that changes
# some of a group.
MIRRORED = 6


def fields(path: Path) -> Iterator[tuple[str, frozenset[str]]]:
    """Yield each class with the names of its fields."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ClassDef):
            named = (one.target for one in node.body if isinstance(one, ast.AnnAssign))
            yield f"{path.stem}.{node.name}", frozenset(one.id for one in named if isinstance(one, ast.Name))


def test_few_classes_hold_the_fields_of_another() -> None:
    every = [one for path in MODULES for one in fields(path) if len(one[1]) >= 3]
    pairs = [
        f"{name} ~ {other}"
        for (name, mine), (other, theirs) in itertools.combinations(every, 2)
        if len(mine & theirs) >= 0.8 * max(len(mine), len(theirs))
    ]
    assert len(pairs) <= MIRRORED, pairs


@pytest.mark.parametrize("name", DOORS)
def test_the_door_of_a_package_exports_what_it_says(name: str) -> None:
    package = importlib.import_module(name)
    names = list(package.__all__)
    assert names == sorted(names, key=lambda text: (text[0].islower(), text))
    assert all(hasattr(package, exported) for exported in names)


def test_no_tracked_file_is_larger_than_a_megabyte() -> None:
    files = tracked_files()
    assert len(files) > 50
    assert [path.name for path in files if path.stat().st_size > 1_000_000] == []


def test_no_tracked_file_names_a_package_registry_host_or_a_path_of_a_machine() -> None:
    hosts = (
        "py" + "pi.org",
        "python" + "hosted.org",
        "npm" + "js.org",
        "npm" + "js.com",
        "deb." + "debian.org",
    )
    machine = re.compile("/" + "work/|/" + "root/|/home/" + r"[a-z]+/|/tmp/" + "w/")
    found = []
    for path in tracked_files():
        text = path.read_text(errors="replace")
        if any(host in text for host in hosts) or machine.search(text):
            found.append(str(path.relative_to(REPOSITORY)))
    assert found == []


# What may ask the file system itself: the seam, and what reads the folders of its user.
DISK = ("disk", "files", "placing", "syncing", "mount")
MACHINE = ("priority",)  # /proc is no root
USERS = ("folder", "base", "publish", "transfer", "versions", "collect", "adapter", "file")
RAW = {
    "chmod", "exists", "glob", "is_dir", "is_file", "is_symlink", "iterdir", "lstat", "mkdir", "open",
    "read_bytes", "read_text", "rename", "rglob", "rmdir", "scandir", "stat", "touch", "unlink", "walk",
    "write_bytes", "write_text",
}  # fmt: skip


def test_the_registry_reads_and_writes_its_root_through_one_seam() -> None:
    found = []
    rooms = [REPOSITORY / "registry", *((REPOSITORY / "registry" / room) for room in REGISTRY_ROOMS)]
    paths = sorted(path for room in rooms for path in room.glob("*.py"))
    assert len(paths) > 50
    for path in paths:
        if path.stem in {*DISK, *MACHINE, *USERS}:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            owner = node.func.value.id if isinstance(node.func.value, ast.Name) else ""
            if node.func.attr == "exists" and node.args:
                continue  # of a catalogue, not of a path
            if node.func.attr in RAW and owner not in {"disk", "files", "cls", "Root"}:
                found.append(f"{path.name}:{node.lineno} {node.func.attr}")
    assert found == []


# Threads and tasks outside of the one runner, each with the reason why it may end, or how it is told.
OTHER_WORK = {
    "registry/background.py": "the runner itself",
    "serve/batches/asking.py": "one per line that is asked; it is awaited, or cancelled when a client comes",
    "serve/batches/gate.py": "looks while lines are in flight, and ends with the last one",
    "serve/batches/run.py": "one per line of a batch, and the writer of its answers; each end is looked at",
    "serve/batches/runner.py": "one per batch in hand; one that fails is taken up again by the next turn",
    "serve/connections/acceptor.py": "one per connection that arrives",
    "serve/connections/protocol.py": "one per request",
    "serve/engine/handover.py": "the line to the launcher: its end ends the process",
    "serve/engine/lifetime.py": "waits for the end of another process, and ends its own",
    "serve/groups/seating.py": "one per request that waits: whether its client leaves",
    "serve/launcher": "the launcher's own waiting, one child at a time",
    "serve/rollout/webhooks.py": "one per URL; a message that fails ends nothing",
    "serve/router/doubts.py": "one request each",
    "serve/router/residents/proof.py": "one step for all that wait; its failure is theirs",
    "serve/router/residents/residency.py": "one load each; its failure is kept in the slot",
    "serve/router/shadow.py": "one request each",
    "serve/router/telemetry/tracing.py": "the exporter's shutdown",
    "serve/watchdog/watch.py": "one pulse or probe each; that it raises is an answer",
}


def test_work_that_goes_on_is_run_by_one_runner() -> None:
    found: dict[str, int] = {}
    for path in MODULES:
        name = str(path.relative_to(REPOSITORY))
        if not name.startswith(("registry/", "serve/")):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            called = node.func
            what = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
            if what in {"Thread", "create_task", "ensure_future", "Timer"}:
                found[name] = node.lineno
    told = {
        name: line for name, line in found.items() if not any(name.startswith(known) for known in OTHER_WORK)
    }
    assert told == {}
    assert all(any(name.startswith(known) for name in found) for known in OTHER_WORK)
