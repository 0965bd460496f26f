"""A compiled server with adapters: the same answers, base rows untouched, and a cache that is used again.

Its base is the real one's first layers: vLLM compiles each, and thirty take four minutes on two cores.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from registry.foreign import python
from registry.records import BaseModelInfo, Limits
from serve.engine.args import engine_arguments
from serve.engine.compiled.code import CompiledCode
from serve.engine.environment import engine_environment
from tests.contracts.engine import NOISE, TEXT, difference, run, strong_adapter
from tests.e2e.door import RemoteEngine, door_settings, opened
from tests.e2e.test_engine_facts import check_against_peft, generate
from tests.fakes.base import SMOLLM2
from tests.isolation import CACHE

SHAPE = replace(SMOLLM2, layers=4)


@pytest.fixture(scope="module")
def base(base_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real base with the first of its layers alone."""
    from safetensors import safe_open
    from safetensors.torch import save_file

    folder = tmp_path_factory.mktemp("base") / "shallow"
    shutil.copytree(base_folder, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "num_hidden_layers": SHAPE.layers}))
    deep = tuple(f".layers.{layer}." for layer in range(SHAPE.layers, config["num_hidden_layers"]))
    with safe_open(base_folder / "model.safetensors", "pt") as weights:
        kept = [name for name in weights.keys() if not any(layer in name for layer in deep)]  # noqa: SIM118
        save_file(
            {name: weights.get_tensor(name) for name in kept}, folder / "model.safetensors", {"format": "pt"}
        )
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two adapters for that base, whose effect is beyond doubt."""
    root = tmp_path_factory.mktemp("adapters")
    return {name: strong_adapter(root / name, seed, SHAPE) for seed, name in enumerate(("one", "two"), 1)}


@pytest.fixture(scope="module")
def root() -> Path:
    """A root whose compiled code outlives the test run, so that only the first run waits for it."""
    folder = CACHE / "compiled"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="module")
def engine(base: Path, root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RemoteEngine]:
    with opened(base, tmp_path_factory.mktemp("door") / "engine.log", compiled=root) as found:
        yield found


def test_the_model_is_compiled_although_lora_is_on(engine: RemoteEngine, root: Path) -> None:
    assert engine.call("info")["compilation"] in {"2", "CompilationMode.DYNAMO_TRACE_ONCE"}
    assert list(root.glob("cache/*/vllm/torch_compile_cache/torch_aot_compile/*/rank_0_0/model"))


def test_compiled_scores_equal_those_of_peft(
    engine: RemoteEngine, base: Path, folders: dict[str, Path]
) -> None:
    check_against_peft(engine, base, folders["one"])


def test_compiled_base_rows_stay_while_adapters_share_every_step(
    engine: RemoteEngine, folders: dict[str, Path]
) -> None:
    prompts = [engine.tokenize(TEXT)]
    alone = run(engine.score(None, prompts))[0]
    for name in ("one", "two"):
        run(engine.load(name, folders[name]))
    adapted = {name: run(engine.score(name, prompts))[0] for name in ("one", "two")}
    assert difference(adapted["one"], alone) > 3 * NOISE
    over = threading.Event()

    def keep_generating(name: str) -> None:
        while not over.is_set():
            generate(engine, name, 120).raise_for_status()

    streams = [threading.Thread(target=keep_generating, args=(name,)) for name in ("one", "two", "base")]
    for stream in streams:
        stream.start()
    time.sleep(0.5)
    try:
        for _ in range(3):
            assert difference(run(engine.score(None, prompts))[0], alone) < 3 * NOISE
            for name in ("one", "two"):
                assert difference(run(engine.score(name, prompts))[0], adapted[name]) < 3 * NOISE
        assert all(stream.is_alive() for stream in streams), "a stream failed"
    finally:
        over.set()
        for stream in streams:
            stream.join()
    for name in ("one", "two"):
        run(engine.unload(name))


def test_what_is_made_beside_the_serving_is_what_an_engine_looks_for(
    engine: RemoteEngine, base: Path, root: Path, tmp_path: Path
) -> None:
    """The same options and variables give the same key: nothing is compiled a second time."""
    models = "cache/*/vllm/torch_compile_cache/torch_aot_compile/*/rank_0_0/model"
    before = set(root.glob(models))
    settings = door_settings(port=0, root=root, compiled=True)
    environment = engine_environment(settings, os.environ)
    code = CompiledCode(Path(environment["VLLM_CACHE_ROOT"]), f"of-a-test-{os.getpid()}")
    arguments = engine_arguments(settings, BaseModelInfo("base", base, "", None, {}), Limits())
    ours, theirs = socket.socketpair()
    own = ["--line", str(theirs.fileno()), "--note", str(code.path)]
    own += ["--owned", json.dumps(dict(arguments.owned))]
    with ours, theirs, (tmp_path / "making.log").open("wb") as log:
        done = subprocess.run(
            python("-m", "serve.engine.compiled.making", *own, "--", *arguments.argv),
            env=environment,
            pass_fds=(theirs.fileno(),),
            stdout=log,
            stderr=log,
            start_new_session=True,
            timeout=300,
        )
    assert done.returncode == 0, (tmp_path / "making.log").read_text()[-4000:]
    assert code.read().state == "made"
    assert set(root.glob(models)) == before
    code.path.unlink()
