"""The commands refuse early and in words, and their help loads nothing heavy."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from registry.cli.main import run as wardrobe
from train.cli import print_samples
from train.loop.watching import OptimiserStep
from train.model.base_demo import packaged_weights
from train.runs.progress import RunProgress

HEAVY = ("torch", "transformers", "trl", "peft", "datasets")


def test_help_and_a_bad_config_load_nothing_heavy(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("name: a\n")
    code = (
        "import sys\nfrom registry.cli.main import run\n"
        f"print(run(['train', 'run', '--help']), run(['train', 'check', {str(config)!r}]))\n"
        f"print([name for name in {HEAVY} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert done.stdout.splitlines()[-2:] == ["0 1", "[]"]
    assert "Wardrobe root" in done.stderr


def test_a_config_is_refused_before_anything_is_opened(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("name: a\ndata: {train: x}\nrnk: 3\n")
    assert wardrobe(["--root", str(tmp_path / "none"), "train", "run", str(config)]) == 2
    assert "unknown setting rnk; did you mean lora.rank?" in capsys.readouterr().err


def test_training_over_http_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert wardrobe(["train", "run", "x", "--url", "http://127.0.0.1:1"]) == 2
    assert "works on a root" in capsys.readouterr().err


def test_base_demo_prints_the_path_of_a_folder_that_is_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert packaged_weights().is_file()
    folder = tmp_path / "base" / "smollm2-135m-instruct"
    folder.mkdir(parents=True)
    for name in ("config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja"):
        (folder / name).write_text("")
    assert wardrobe(["--root", str(tmp_path), "base", "demo"]) == 0
    assert capsys.readouterr().out.strip() == str(folder)
    assert wardrobe(["--root", str(tmp_path), "base", "demo", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"path": str(folder), "created": False}


def test_a_sample_is_shown_on_two_lines(capsys: pytest.CaptureFixture[str]) -> None:
    print_samples([("Which chapter?", "first\nsecond")])
    assert capsys.readouterr().err.splitlines() == ["> Which chapter?", "  first\\nsecond"]


def optimiser_step(number: int, total: int, loss: float, tokens: int) -> OptimiserStep:
    return OptimiserStep(number, total, loss, tokens, 0.0, 0.0, {})


def test_without_a_terminal_progress_is_about_ten_lines(capsys: pytest.CaptureFixture[str]) -> None:
    held: list[bool] = []
    with RunProgress("support", lambda: held.append(True)) as progress:
        assert progress.position == "before the first step"
        for step in range(1, 101):
            progress.step(optimiser_step(step, 100, 1.5, 100 * step))
        assert progress.position == "at step 100 of 100"
        progress.publishing()
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 10
    assert lines[0].startswith("support: step 10/100  loss 1.500")
    assert held == [True]


def test_a_first_step_tells_neither_speed_nor_time_left_as_neither_is_known(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with RunProgress("support", lambda: None) as progress:
        progress.step(optimiser_step(1, 3, 2.0, 50))
        progress.step(optimiser_step(2, 3, 1.5, 100))
        progress.step(optimiser_step(3, 3, 1.25, 150))
    first, second, last = capsys.readouterr().err.splitlines()
    assert first == "support: step 1/3  loss 2.000"
    assert second.startswith("support: step 2/3  loss 1.500  ")
    assert second.endswith(" s left")
    assert last.endswith(" tokens/s")  # nothing is left
