"""A user's folder holds modules of our names: none of them is run, and they are told by file."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

import registry
from registry.errors import UsageError
from registry.foreign import PACKAGES, SAFE_PATH, beside, python, require_own, warnings

REPOSITORY = Path(registry.__file__).resolve().parents[1]
STRANGERS = "raise SystemExit('somebody else was imported')\n"
FORMS = ("file", "package", "folder")
# Modules of other names that would break our children: of the library, of vLLM, of the training.
OTHERS = ("vllm", "torch", "logging", "types", "random", "tokenizers", "datasets", "json", "accelerate")


def plant(folder: Path, name: str, form: str) -> Path:
    """Put a module of that name into `folder`, and return it."""
    folder.mkdir(exist_ok=True)
    if form == "file":
        (folder / f"{name}.py").write_text(STRANGERS)
        return folder / f"{name}.py"
    (folder / name).mkdir()
    if form == "package":
        (folder / name / "__init__.py").write_text(STRANGERS)
    return folder / name


def run(
    command: list[str], folder: Path, path: Path | None = None, **more: str
) -> subprocess.CompletedProcess[str]:
    """Run a command in `folder`, with `path` first on PYTHONPATH."""
    paths = [str(one) for one in (path, REPOSITORY) if one is not None]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), **more}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=100
    )


@pytest.mark.parametrize("form", FORMS)
def test_a_working_directory_with_all_our_names_and_others_stops_no_child(tmp_path: Path, form: str) -> None:
    for name in (*PACKAGES, *OTHERS):
        plant(tmp_path, name, form)
    engine = run(python("-m", "serve.engine.child", "--help"), tmp_path)
    assert "the listening socket" in engine.stdout, engine.stderr
    worker = run(python("-m", "train.process.launching", "--version"), tmp_path)
    assert worker.stdout.startswith("wardrobe "), worker.stderr
    program = REPOSITORY / "deploy" / "ray" / "parent_death.py"
    command = [sys.executable, "-P", str(program), "true"]
    with subprocess.Popen(command, cwd=tmp_path, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as ended:
        assert ended.wait(100) == 0
    told = run(python("-m", "wardrobe_llm", "--version"), tmp_path)
    assert told.stdout.startswith("wardrobe "), told.stderr


def test_what_a_child_starts_itself_does_not_look_there_either(tmp_path: Path) -> None:
    """vLLM starts `python -m vllm…`, `python -c …` and spawns workers; they have the environment only."""
    plant(tmp_path, "json", "file")
    spawn = (
        "import multiprocessing, sys, time; context = multiprocessing.get_context('spawn');"
        "one = context.Process(target=time.sleep, args=(0,)); one.start(); one.join(); sys.exit(one.exitcode)"
    )
    for command in (["-c", "import json"], ["-m", "json.tool", "--help"], ["-c", spawn]):
        done = run([sys.executable, *command], tmp_path, None, **SAFE_PATH)
        assert done.returncode == 0, done.stderr
        assert "somebody else" not in done.stderr


@pytest.mark.parametrize("form", ["file", "package"])
@pytest.mark.parametrize("name", PACKAGES)
def test_a_module_of_our_name_on_pythonpath_is_refused_by_file(tmp_path: Path, name: str, form: str) -> None:
    place = plant(tmp_path / "theirs", name, form)
    needs = {"registry": "list", "serve": "serve", "train": "train", "loadtests": "loadtest", "deploy": ""}[
        name
    ]
    command = python("-m", "wardrobe_llm", *([needs, "--help"] if needs else ["--version"]))
    done = run(command, tmp_path, tmp_path / "theirs")
    if not needs:  # no command imports it
        assert done.returncode == 0, done.stderr
        return
    assert done.returncode == 2, done.stdout + done.stderr
    fact = f"error: package {name}: {place} is imported in place of Wardrobe's own"
    assert done.stderr == f"{fact}; take {place.parent} off PYTHONPATH, or rename it\n"


def test_commands_that_do_not_need_the_package_work_on(tmp_path: Path) -> None:
    plant(tmp_path / "theirs", "train", "file")
    done = run(python("-m", "wardrobe_llm", "loadtest", "list"), tmp_path, tmp_path / "theirs")
    assert done.returncode == 0, done.stderr
    helped = run(python("-m", "wardrobe_llm", "--help"), tmp_path, tmp_path / "theirs")
    assert helped.returncode == 0
    assert "theirs/train.py" in helped.stdout.replace("\n", "").replace(" ", "")


@pytest.mark.parametrize("form", ["file", "package"])
@pytest.mark.parametrize("name", PACKAGES)
def test_a_module_of_our_name_in_the_working_directory_is_told_by_file(
    tmp_path: Path, name: str, form: str
) -> None:
    place = plant(tmp_path, name, form)
    assert [(one.name, one.place) for one in beside(tmp_path)] == [(name, place.resolve())]
    [told] = warnings(tmp_path)
    assert told.startswith(f"{place} has the name of Wardrobe's package {name}")
    assert "python -P -m" in told


def test_a_folder_of_data_with_our_name_is_no_news(tmp_path: Path) -> None:
    """`train/` and `test/` are where data lies; a folder without `__init__.py` gives way to a package."""
    for name in PACKAGES:
        plant(tmp_path, name, "folder")
    assert beside(tmp_path) == []


def test_our_own_checkout_is_nobody_elses() -> None:
    assert beside(REPOSITORY) == []
    assert warnings(REPOSITORY) == []
    for name in (*PACKAGES, "json", "no_such_module"):
        require_own(name)


def test_a_package_that_is_not_ours_is_an_error_with_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = plant(tmp_path, "deploy", "file")
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in [name for name in sys.modules if name.partition(".")[0] == "deploy"]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(UsageError, match=f"{place} is imported in place of"):
        require_own("deploy")


def starts_of_python() -> Iterator[tuple[Path, int, str]]:
    """Every list in our code that begins a Python: `sys.executable` or "…python" and what follows it."""
    for package in PACKAGES:
        for path in sorted((REPOSITORY / package).rglob("*.py")):
            source = path.read_text()
            for node in ast.walk(ast.parse(source)):
                if not isinstance(node, ast.List | ast.Tuple):
                    continue
                words = [ast.unparse(one) for one in node.elts]
                for word, following in pairwise(words):
                    is_python = (
                        word == "sys.executable" or "python" in word.partition("(")[2] or word == "python"
                    )
                    if is_python and following.startswith(("'-", "*sys.orig_argv")):
                        yield path.relative_to(REPOSITORY), node.lineno, following


def test_every_python_that_we_start_leaves_its_working_directory_out() -> None:
    found = list(starts_of_python())
    assert len(found) > 8
    # Its own command line again, with the environment that says so.
    same = [(path, following) for path, _, following in found if following == "*sys.orig_argv[1:]"]
    assert same == [(Path("train/process/environment.py"), "*sys.orig_argv[1:]")]
    others = [one for one in found if one[2] not in {"'-P'", "'-I'", "*sys.orig_argv[1:]"}]
    assert others == []
