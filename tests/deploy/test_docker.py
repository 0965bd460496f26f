"""The images' file: the linter passes and bites, every target is closed, nothing unnamed gets in.

No container engine runs here: what a build does is not tested, see deploy/README.md.
"""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from deploy import companions

REPOSITORY = Path(__file__).resolve().parents[2]
DOCKER = REPOSITORY / "deploy" / "docker"
HADOLINT = Path(sys.executable).with_name("hadolint")
TARGETS = ("cpu", "gpu", "train")


def lint(file: Path) -> subprocess.CompletedProcess[str]:
    command: list[str | Path] = [HADOLINT, "--config", DOCKER / "hadolint.yaml", "--no-color", file]
    return subprocess.run(command, capture_output=True, text=True)


@dataclass
class Stage:
    """One stage of a Dockerfile: what it builds on, and its instructions."""

    base: str
    said: list[tuple[str, str]] = field(default_factory=list)


def stages() -> dict[str, Stage]:
    text = re.sub(r"^\s*#.*\n", "", (DOCKER / "Dockerfile").read_text(), flags=re.MULTILINE)
    found: dict[str, Stage] = {}
    stage = Stage("")
    for line in text.replace("\\\n", " ").splitlines():
        word, _, rest = line.strip().partition(" ")
        if word == "FROM":
            base, _, name = rest.partition(" AS ")
            stage = found[name] = Stage(base)
        elif word:
            stage.said.append((word, " ".join(rest.split())))
    return found


def instructions(target: str) -> dict[str, list[str]]:
    """Return what holds in `target`, the stages that it builds on included, oldest first."""
    every, name, said = stages(), target, list[tuple[str, str]]()
    while name in every:
        said = every[name].said + said
        name = every[name].base
    found: dict[str, list[str]] = {"FROM": [name]}
    for word, rest in said:
        found.setdefault(word, []).append(rest)
    return found


def test_the_linter_finds_nothing() -> None:
    done = lint(DOCKER / "Dockerfile")
    assert (done.returncode, done.stdout) == (0, "")


FAULTS = [
    ("FROM ${BASE} AS runtime", "FROM python AS runtime", "DL3006"),
    ("FROM ${BASE} AS runtime", "FROM python:latest AS runtime", "DL3007"),
    ("USER 10001:10001", "USER root", "DL3002"),
    ("WORKDIR /tmp", "WORKDIR tmp", "DL3000"),
    ("--no-install-recommends ", "", "DL3015"),
    ('ENTRYPOINT ["wardrobe"]', "ENTRYPOINT wardrobe", "DL3025"),
    ("apt-get install -y", "sudo apt-get install -y", "DL3004"),
    ("COPY . .", "ADD . .", "DL3020"),
]


@pytest.mark.parametrize(("right", "wrong", "rule"), FAULTS, ids=lambda text: text[:20])
def test_the_linter_finds_a_planted_fault(tmp_path: Path, right: str, wrong: str, rule: str) -> None:
    text = (DOCKER / "Dockerfile").read_text()
    assert right in text
    file = tmp_path / "Dockerfile"
    file.write_text(text.replace(right, wrong))
    done = lint(file)
    assert done.returncode == 1
    assert rule in done.stdout


@pytest.mark.parametrize("target", TARGETS)
def test_every_image_runs_as_nobody_s_root_with_its_own_environment(target: str) -> None:
    said = instructions(target)
    assert said["USER"] == ["10001:10001"]
    assert said["ENTRYPOINT"] == ['["wardrobe"]']
    assert said["STOPSIGNAL"] == ["SIGTERM"]
    assert [copy for copy in said["COPY"] if "--from=" in copy] == [
        f"--from=build-{target} /opt/wardrobe /opt/wardrobe"
    ]
    assert said["FROM"] == ["${BASE}"]
    assert all(packages in said["RUN"][0] for packages in ("g++", "libnuma1", "libtcmalloc-minimal4"))


@pytest.mark.parametrize("target", ["cpu", "gpu"])
def test_a_server_is_healthy_when_it_is_ready(target: str) -> None:
    said = instructions(target)
    assert "/readyz" in said["HEALTHCHECK"][0]
    assert said["CMD"] == ['["serve", "--host", "0.0.0.0"]']


def test_a_training_image_has_no_server_to_ask() -> None:
    assert instructions("train")["HEALTHCHECK"] == ["NONE"]


def test_the_base_image_is_pinned_by_its_tag() -> None:
    base = re.findall(r"^ARG BASE=(.*)$", (DOCKER / "Dockerfile").read_text(), re.MULTILINE)
    assert len(base) == 1
    assert re.fullmatch(r"python:3\.11\.\d+-slim-[a-z]+", base[0])


def test_no_image_is_given_a_secret() -> None:
    text = (DOCKER / "Dockerfile").read_text().lower()
    assert not re.findall(r"token|passw|secret=|api_key", text)


def test_only_named_files_get_into_a_build() -> None:
    lines = [line for line in (REPOSITORY / ".dockerignore").read_text().splitlines() if line[:1] != "#"]
    assert lines[0] == "*"
    allowed = [line.removeprefix("!").rstrip("/") for line in lines if line.startswith("!")]
    assert len(allowed) == 10
    assert all((REPOSITORY / name).exists() for name in allowed)
    # What the first layer copies by name, and what setuptools looks for, must be among them.
    copied = {name for _, rest in stages()["source"].said if "/" in rest for name in rest.split()[:-1]}
    assert {"pyproject.toml", "constraints.txt", "README.md", "LICENSE"} <= copied & set(allowed)


def test_companions_are_removed_from_the_environment_that_asks(capsys: pytest.CaptureFixture[str]) -> None:
    # This environment was set up already: nothing is left to remove.
    assert companions.main() == 0
    assert "removed" not in capsys.readouterr().out
