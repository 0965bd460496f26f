"""What the README shows is run: every `bash` block, in order, in one root."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.checkout import REPOSITORY, tracked_files
from tests.fakes.adapters import make_adapter
from tests.fakes.base import make_base

BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.DOTALL | re.MULTILINE)


def blocks(language: str) -> list[str]:
    text = (REPOSITORY / "README.md").read_text()
    return [body for found, body in BLOCK.findall(text) if found == language]


def test_the_blocks_run_as_they_stand_one_after_the_other(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base")
    first = make_adapter(tmp_path / "first", seed=1)
    second = make_adapter(tmp_path / "second", seed=2)
    scripts = blocks("bash")
    assert len(scripts) == 2
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "BASE": str(base),
        "ADAPTER": str(first),
        "OTHER_ADAPTER": str(second),
        "WARDROBE_ROOT": str(tmp_path / "root"),
    }
    done = subprocess.run(
        ["bash", "-euxc", "\n".join(scripts)],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "support@1" in done.stdout
    assert "support@2" in done.stdout
    assert "not today" in done.stdout.splitlines()[-1]


def test_every_make_target_of_the_readme_exists() -> None:
    makefile = (REPOSITORY / "Makefile").read_text()
    named = set(re.findall(r"make ([a-z-]+)", (REPOSITORY / "README.md").read_text()))
    assert {"demo", "setup", "test"} <= named
    assert [target for target in sorted(named) if f"\n{target}:" not in makefile] == []


def test_every_link_of_the_readmes_leads_somewhere() -> None:
    readmes = [path for path in tracked_files() if path.suffix == ".md"]
    assert len(readmes) >= 6
    broken = [
        f"{readme.relative_to(REPOSITORY)} → {target}"
        for readme in readmes
        for target in re.findall(r"\]\(([^)#]+)\)", readme.read_text())
        if "://" not in target and not (readme.parent / target).exists()
    ]
    assert broken == []


def test_every_file_that_contributing_names_is_there() -> None:
    text = (REPOSITORY / "CONTRIBUTING.md").read_text()
    named = set(re.findall(r"`((?:registry|serve|train|deploy|loadtests|tests|docs)/[\w./*-]+)`", text))
    assert len(named) >= 20
    missing = {name for name in named if not [*REPOSITORY.glob(name)] and "NAME" not in name}
    assert missing == set()


def test_the_readme_is_one_page_of_at_most_600_words() -> None:
    assert len((REPOSITORY / "README.md").read_text().split()) <= 600


def test_every_verb_of_the_tables_is_a_command() -> None:
    pages = [REPOSITORY / "README.md", REPOSITORY / "docs" / "commands.md"]
    table = [row for page in pages for row in re.findall(r"^\| (`.+?) \|", page.read_text(), re.MULTILINE)]
    verbs = {verb.split()[0] for row in table for verb in re.findall(r"`([^`]+)`", row)}
    assert len(verbs) >= 15
    done = subprocess.run(
        [Path(sys.executable).parent / "wardrobe", "--help"], capture_output=True, text=True, check=True
    )
    listed = {line.split()[0] for line in done.stdout.splitlines() if line.startswith("  ")}
    assert verbs - listed == set()
