"""The guide from OpenAI fine-tuning: its Python runs as it stands, beside a worker."""

from __future__ import annotations

import re
import threading
from pathlib import Path

import pytest

from registry.store import Registry
from registry.tuning.machine import JobState
from tests.fakes.served import BASE, serve
from tests.fakes.tuner import Tuner

GUIDE = Path(__file__).resolve().parents[2] / "docs/how-to/openai-fine-tuning.md"
BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)


def test_the_blocks_of_the_guide_run_one_after_the_other(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    examples = BLOCK.findall(GUIDE.read_text())
    assert len(examples) == 2
    monkeypatch.chdir(tmp_path)
    Path("rows.jsonl").write_text('{"messages": []}\n' * 10)
    tuner, over = Tuner(registry, tmp_path), threading.Event()

    def work() -> None:
        while not over.wait(0.05):
            for job in tuner.jobs.in_state(JobState.VALIDATING):
                tuner.run(job.id)

    with serve(registry, tmp_path) as served:
        monkeypatch.setenv("WARDROBE_URL", str(served.client.base_url))
        monkeypatch.setenv("WARDROBE_KEY", "none")
        monkeypatch.setenv("WARDROBE_BASE", BASE)
        worker = threading.Thread(target=work)
        worker.start()
        try:
            space: dict[str, object] = {"__name__": "example"}
            for one in examples:
                exec(compile(one.replace("sleep(1)", "sleep(0.1)"), GUIDE.name, "exec"), space)
        finally:
            over.set()
            worker.join()
    said = capsys.readouterr().out
    assert "The job has successfully completed" in said
    assert f"ft:{BASE}:wardrobe:support:" in said
