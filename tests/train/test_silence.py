"""What the libraries say of themselves stays off the terminal; errors, and what we say, do not."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any

import pytest

from registry.cli import output
from registry.store import Registry
from tests.fakes.openai_server import write_suite
from tests.train.tiny import make_tiny_base, tiny_config, train, write_rows
from train.evaluation.formats.suites import load_suite
from train.evaluation.models.offline import OfflineModel
from train.process.silence import quiet

pytestmark = [pytest.mark.training, pytest.mark.timeout(300)]


def test_a_run_and_an_offline_evaluation_of_its_adapter_say_nothing(
    tmp_path: Path, tokenizer: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    write_rows(tmp_path)
    base = make_tiny_base(tmp_path / "base", tokenizer)
    registry = Registry.init(tmp_path / "root", base, name="tiny-base")
    capfd.readouterr()
    finished = train(registry, tiny_config(tmp_path, training={"steps": 2}, checkpoints={"every": None}))
    assert finished.published is not None
    suite = load_suite(
        write_suite(tmp_path / "s", [{"prompt": "Hi", "expected": "x"}], sampling={"max_tokens": 2})
    )
    model = OfflineModel(base, finished.published.version.path, "tiny")
    assert model.answer(suite.questions[0], suite).error is None
    said = capfd.readouterr()
    assert (said.out, said.err) == ("", "")


def test_remarks_and_warnings_are_kept_back_and_errors_are_not(caplog: pytest.LogCaptureFixture) -> None:
    with quiet():
        warnings.warn("deprecated", FutureWarning, stacklevel=1)
        logging.getLogger("bitsandbytes.backends").warning("pip install kernels")
        logging.getLogger("peft").error("broken")
    assert [record.getMessage() for record in caplog.records] == ["broken"]
    logging.getLogger("peft").warning("afterwards")
    assert caplog.records[-1].getMessage() == "afterwards"


def test_what_we_say_ourselves_passes(capsys: pytest.CaptureFixture[str]) -> None:
    with quiet():
        output.print_warning("rows are cut")
    assert capsys.readouterr().err == "warning: rows are cut\n"
