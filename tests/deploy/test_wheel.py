"""What the wheel installs works without what stays in the repository."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from setuptools import find_packages

from tests.checkout import REPOSITORY

STARTED = {"deploy.companions", "deploy.verify", "deploy.ray.app"}
KEPT_BACK = {"bench", "checks", "drills", "examples", "observability", "recipes", "reference"}
PROJECT: dict[str, Any] = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())


@cache
def installed() -> dict[str, Path]:
    """Return the modules that the wheel holds, by dotted name."""
    setuptools = PROJECT["tool"]["setuptools"]
    found = setuptools["packages"]["find"]
    packages = find_packages(str(REPOSITORY), include=found["include"], exclude=found["exclude"])
    files = [path for name in packages for path in (REPOSITORY / name.replace(".", "/")).glob("*.py")]
    files += [REPOSITORY / f"{name}.py" for name in setuptools["py-modules"]]
    dotted = {".".join(path.relative_to(REPOSITORY).with_suffix("").parts): path for path in files}
    return {name.removesuffix(".__init__"): path for name, path in dotted.items()}


@cache
def kept_back() -> tuple[str, ...]:
    """Return the modules that stay in the repository."""
    roots = ("registry", "serve", "train", "deploy", "loadtests")
    files = [path for root in roots for path in (REPOSITORY / root).rglob("*.py")]
    dotted = {".".join(path.relative_to(REPOSITORY).with_suffix("").parts) for path in files}
    return tuple(sorted({name.removesuffix(".__init__") for name in dotted} - installed().keys()))


def needed(tree: ast.AST) -> Iterator[str]:
    """Yield every module that a file imports, wherever, and every one that it names in a command."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Constant) and re.fullmatch(r"[a-z_]+(\.\w+)+", str(node.value)):
            yield str(node.value)


def test_benchmarks_drills_the_demo_and_generators_are_not_installed() -> None:
    assert {name.split(".")[1] for name in kept_back()} == KEPT_BACK


def test_nothing_that_is_installed_needs_a_module_that_is_not() -> None:
    absent = set(kept_back())
    found = {
        f"{name}: {module}"
        for name, path in installed().items()
        for module in needed(ast.parse(path.read_text()))
        if module in absent
    }
    assert found == set()


def test_every_entry_point_is_installed() -> None:
    groups = [PROJECT["project"]["scripts"], *PROJECT["project"]["entry-points"].values()]
    modules = {value.partition(":")[0] for group in groups for value in group.values()}
    assert modules <= installed().keys()


def test_every_package_with_data_is_installed_and_its_data_exists() -> None:
    for package, patterns in PROJECT["tool"]["setuptools"]["package-data"].items():
        assert package in installed()
        folder = installed()[package].parent
        assert all(list(folder.glob(pattern)) for pattern in patterns)


def test_modules_that_images_units_and_pods_start_are_installed() -> None:
    files = ("docker/Dockerfile", "systemd/wardrobe.service", "verify/cluster.sh", "ray/serve.yaml")
    text = "".join((REPOSITORY / "deploy" / name).read_text() for name in files)
    started = set(re.findall(r"-m (deploy[\w.]*)|import_path: ([\w.]+)", text))
    assert {one or other for one, other in started} == STARTED
    assert installed().keys() >= STARTED | {"deploy.verify.__main__"}
