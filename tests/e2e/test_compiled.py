"""A compiled server with adapters: the same answers, base rows untouched, and a cache that is used again."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contracts.engine import NOISE, TEXT, difference, run
from tests.contracts.engine import folders as folders  # noqa: PLC0414 - a fixture, used by name
from tests.e2e.door import RemoteEngine, opened
from tests.e2e.test_engine_facts import check_against_peft, generate
from tests.isolation import CACHE


@pytest.fixture(scope="module")
def root() -> Path:
    """A root whose compiled code outlives the test run, so that only the first run waits for it."""
    folder = CACHE / "compiled"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="module")
def engine(base_folder: Path, root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RemoteEngine]:
    with opened(base_folder, tmp_path_factory.mktemp("door") / "engine.log", compiled=root) as found:
        yield found


def test_the_model_is_compiled_although_lora_is_on(engine: RemoteEngine, root: Path) -> None:
    assert engine.call("info")["compilation"] in {"2", "CompilationMode.DYNAMO_TRACE_ONCE"}
    assert list(root.glob("cache/*/vllm/torch_compile_cache/torch_aot_compile/*/rank_0_0/model"))


def test_compiled_scores_equal_those_of_peft(
    engine: RemoteEngine, base_folder: Path, folders: dict[str, Path]
) -> None:
    check_against_peft(engine, base_folder, folders["one"])


def test_compiled_base_rows_stay_while_adapters_share_every_step(
    engine: RemoteEngine, folders: dict[str, Path]
) -> None:
    prompts = [engine.tokenize(TEXT)]
    alone = run(engine.score(None, prompts))[0]
    for name in ("one", "two"):
        run(engine.load(name, folders[name]))
    adapted = {name: run(engine.score(name, prompts))[0] for name in ("one", "two")}
    assert difference(adapted["one"], alone) > 3 * NOISE
    streams = [threading.Thread(target=generate, args=(engine, name, 120)) for name in ("one", "two", "base")]
    for stream in streams:
        stream.start()
    time.sleep(0.5)
    for _ in range(3):
        assert difference(run(engine.score(None, prompts))[0], alone) < 3 * NOISE
        for name in ("one", "two"):
            assert difference(run(engine.score(name, prompts))[0], adapted[name]) < 3 * NOISE
    assert any(stream.is_alive() for stream in streams), "nothing shared a step with the scores"
    for stream in streams:
        stream.join()
    for name in ("one", "two"):
        run(engine.unload(name))
