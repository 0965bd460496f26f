"""Log lines: their form, where they go, and that nobody waits for them."""

from __future__ import annotations

import json
import logging
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from serve import logs
from serve.settings import OUTPUT_VARIABLE, ServeSettings
from tests.fakes.served import wait_until


def settings(**changes: Any) -> ServeSettings:
    return ServeSettings(**changes)


def test_json_lines_have_time_level_logger_message_fields_and_the_exception(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "log.jsonl"
    end = logs.begin(settings(log_file=path, log_format="json"))
    try:
        logging.getLogger("wardrobe.router").info("all %s", "well", extra={logs.FIELDS: {"adapter": "sup"}})
        try:
            int("no\nway")
        except ValueError:
            logging.getLogger("registry.watcher").exception("it\nbroke")
    finally:
        end()
    first, second = [json.loads(line) for line in path.read_text().splitlines()]
    assert (first["level"], first["logger"], first["message"], first["adapter"]) == (
        "info", "wardrobe.router", "all well", "sup",
    )  # fmt: skip
    assert abs(first["at"] - second["at"]) < 60
    assert second["message"] == "it\nbroke"
    assert "ValueError: invalid literal" in second["error"]


def test_text_lines_name_the_level_only_where_it_matters(tmp_path: Path) -> None:
    path = tmp_path / "log"
    end = logs.begin(settings(log_file=path))
    logging.getLogger("wardrobe").info("hello")
    logging.getLogger("wardrobe").warning("two\nlines")
    end()
    first, second = path.read_text().splitlines()
    assert first[8:] == "  hello"
    assert second[8:] == "  warning: two\\nlines"


def test_the_level_is_a_setting_and_the_end_leaves_all_as_it_was(tmp_path: Path) -> None:
    before = [(logging.getLogger(name).level, list(logging.getLogger(name).handlers)) for name in logs.OURS]
    end = logs.begin(settings(log_file=tmp_path / "log", log_level="error"))
    logging.getLogger("wardrobe.router").warning("not this")
    logging.getLogger("wardrobe.router").error("but this")
    end()
    assert "not this" not in (tmp_path / "log").read_text()
    assert "but this" in (tmp_path / "log").read_text()
    after = [(logging.getLogger(name).level, list(logging.getLogger(name).handlers)) for name in logs.OURS]
    assert after == before


def test_the_launchers_output_is_inherited_by_its_descriptor(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    monkeypatch.setenv(OUTPUT_VARIABLE, str(writer))
    end = logs.begin(settings())
    logging.getLogger("wardrobe").info("over the pipe")
    end()
    os.close(writer)
    with os.fdopen(reader) as pipe:
        assert pipe.read().endswith("over the pipe\n")


def test_a_reader_that_has_gone_is_no_error(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    reader, writer = os.pipe()
    monkeypatch.setenv(OUTPUT_VARIABLE, str(writer))
    end = logs.begin(settings())
    os.close(reader)
    logging.getLogger("wardrobe").info("to nobody")
    end()
    os.close(writer)
    assert "Traceback" not in capsys.readouterr().err


def test_a_process_that_is_told_nothing_of_logs_is_left_as_it_is() -> None:
    before = list(logging.getLogger("wardrobe").handlers)
    logs.begin(settings())()
    assert logging.getLogger("wardrobe").handlers == before


def test_a_full_queue_drops_and_counts_and_never_waits() -> None:
    queued = logs.Queued(size=2)
    record = logging.LogRecord("wardrobe", logging.INFO, "", 0, "x", None, None)
    done = threading.Event()

    def log() -> None:
        for _ in range(5):
            queued.emit(record)
        done.set()

    threading.Thread(target=log, daemon=True).start()
    assert done.wait(10)
    assert queued.dropped == 3
    queued.close()


def test_a_moved_file_is_written_anew(tmp_path: Path) -> None:
    path = tmp_path / "log"
    end = logs.begin(settings(log_file=path))
    logging.getLogger("wardrobe").info("one")
    end()
    path.rename(tmp_path / "log.1")
    end = logs.begin(settings(log_file=path))
    logging.getLogger("wardrobe").info("two")
    end()
    assert "two" in path.read_text()
    assert "one" in (tmp_path / "log.1").read_text()


def test_a_file_that_cannot_be_written_costs_its_lines_and_is_told_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    full = tmp_path / "full"
    full.symlink_to("/dev/full")
    end = logs.begin(settings(log_file=full))
    for _ in range(3):
        logging.getLogger("wardrobe").info("hello")
    end()
    assert (
        capsys.readouterr().err
        == f"log_file {full} cannot be written (No space left on device): lines are lost\n"
    )


def test_a_file_whose_folder_is_away_is_written_again_when_it_is_back(tmp_path: Path) -> None:
    (tmp_path / "away").touch()
    path = tmp_path / "away" / "log"
    end = logs.begin(settings(log_file=path))
    log, [queued] = (
        logging.getLogger("wardrobe"),
        [one for one in logging.getLogger("wardrobe").handlers if isinstance(one, logs.Queued)],
    )
    log.info("lost")
    wait_until(queued.waiting.empty, "it is lost")
    (tmp_path / "away").unlink()
    (tmp_path / "away").mkdir()
    log.info("kept")
    end()
    assert "kept" in path.read_text()
