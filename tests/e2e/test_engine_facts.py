"""What we build on in vLLM 0.32, held by the real thing: when one of these fails, upstream has changed."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest

from registry.errors import NotServable
from serve.engine.interface import TOP_TOKENS
from serve.engine.sizing.costs import VLLM_RANKS
from serve.process_group import TICKS_PER_SECOND
from serve.router.residents import probing
from serve.watchdog.watch import WORKING_SHARE
from tests.contracts.engine import NOISE, TEXT, EngineContract, difference, run
from tests.contracts.engine import folders as folders  # noqa: PLC0414 - a fixture, used by name
from tests.e2e.door import RemoteEngine, opened
from tests.fakes.adapters import Adapter
from tests.fakes.base import SMOLLM2


@pytest.fixture(scope="module")
def engine(base_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RemoteEngine]:
    with opened(base_folder, tmp_path_factory.mktemp("door") / "engine.log") as found:
        yield found


class TestVllmEngine(EngineContract):
    """The real engine keeps the contract."""


def generate(engine: RemoteEngine, model: str, tokens: int = 48, **more: object) -> httpx.Response:
    body = {
        "model": model,
        "prompt": "Once upon a time",
        "max_tokens": tokens,
        "temperature": 0,
        "ignore_eos": True,
    }
    return httpx.post(f"{engine.http.base_url}/v1/completions", json={**body, **more}, timeout=120)


def test_unloading_frees_the_engine_and_vllms_own_unload_does_not(
    engine: RemoteEngine, folders: dict[str, Path]
) -> None:
    before = engine.ids()
    run(engine.load("one", folders["one"]))
    assert len(engine.ids()) == len(before) + 1
    run(engine.unload("one"))
    assert engine.ids() == before
    run(engine.load("one", folders["one"]))
    left = engine.call("vllm_unload", name="one")
    assert "one" not in engine.resident()
    assert engine.ids() == sorted({*before, left}), "vllm#54839 is mended: VllmEngine.unload can be simpler"
    engine.call("remove", id=left)
    assert engine.ids() == before


def spent(engine: RemoteEngine, seconds: float) -> float:
    """The share of a core that the engine's processes used for the next `seconds`."""
    before = engine.activity()
    began = time.monotonic()
    time.sleep(seconds)
    after = engine.activity()
    assert before is not None
    assert after is not None
    assert len(after.ticks) >= 2, "EngineCore and its worker are seen"
    ticks = sum(after.ticks[process] - before.ticks.get(process, 0) for process in after.ticks)
    return ticks / TICKS_PER_SECOND / (time.monotonic() - began)


def test_an_idle_engine_computes_nothing_and_a_pulse_costs_it_next_to_nothing(engine: RemoteEngine) -> None:
    """What the watchdog takes for computing; a worker spins for a second after each call, so not at once."""
    time.sleep(2)
    assert spent(engine, 2) < WORKING_SHARE
    pulses = threading.Thread(target=lambda: [run(engine.pulse(workers=False)) for _ in range(20)])
    pulses.start()
    assert spent(engine, 2) < WORKING_SHARE
    pulses.join()


def test_a_busy_engine_is_seen_to_compute(engine: RemoteEngine) -> None:
    asking = threading.Thread(target=generate, args=(engine, engine.base_name, 400))
    asking.start()
    try:
        assert spent(engine, 1) > WORKING_SHARE
    finally:
        asking.join()


def test_loading_works_without_the_runtime_flag_and_opens_no_route(engine: RemoteEngine) -> None:
    paths = engine.call("info")["paths"]
    assert "/v1/chat/completions" in paths
    assert not [path for path in paths if "lora" in path or path.startswith("/adapters")]


def test_a_rank_over_the_limit_is_refused_in_the_engines_words(engine: RemoteEngine, tmp_path: Path) -> None:
    folder = Adapter(shape=SMOLLM2, rank=64).write(tmp_path / "wide")
    with pytest.raises(NotServable) as refused:
        run(engine.load("wide", folder))
    assert refused.value.fact == "refused by the engine: LoRA rank 64 is greater than max_lora_rank 32."
    assert engine.resident() == frozenset()


def test_an_engine_that_is_told_so_is_not_compiled(engine: RemoteEngine) -> None:
    """The compiled one is in `test_compiled.py`."""
    assert engine.call("info")["compilation"] in {"0", "CompilationMode.NONE"}


def test_base_scores_stay_while_adapters_share_every_step(
    engine: RemoteEngine, folders: dict[str, Path]
) -> None:
    prompts = [engine.tokenize(TEXT)]
    alone = run(engine.score(None, prompts))[0]
    for name in ("one", "two"):
        run(engine.load(name, folders[name]))
    adapted = {name: run(engine.score(name, prompts))[0] for name in ("one", "two")}
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


def test_served_scores_equal_those_of_peft(
    engine: RemoteEngine, base_folder: Path, folders: dict[str, Path]
) -> None:
    check_against_peft(engine, base_folder, folders["one"])


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`")  # PEFT, of merging
def test_an_adapted_head_is_applied_as_peft_does(
    engine: RemoteEngine, base_folder: Path, folders: dict[str, Path]
) -> None:
    check_against_peft(engine, base_folder, folders["head"])


def test_an_adapted_head_is_scored_and_answers_alike_whatever_else_runs(
    engine: RemoteEngine, folders: dict[str, Path]
) -> None:
    """Also prompt log-probabilities, which vLLM's own wrapper leaves out there, or fails on for good."""
    prompts = [engine.tokenize(TEXT)]
    for name in ("head", "one"):
        run(engine.load(name, folders[name]))
    base, head = (run(engine.score(name, prompts))[0] for name in (None, "head"))
    prompt_alone = {model: prompt_log_probabilities(engine, model) for model in ("base", "head", "one")}
    assert difference(head, base) > 3 * NOISE
    assert apart(prompt_alone["head"], prompt_alone["base"]) > 3 * NOISE
    streams = [
        threading.Thread(target=generate, args=(engine, name, 150)) for name in ("one", "head", "base")
    ]
    for stream in streams:
        stream.start()
    time.sleep(0.5)
    for _ in range(3):
        assert difference(run(engine.score(None, prompts))[0], base) < 3 * NOISE
        assert difference(run(engine.score("head", prompts))[0], head) < 3 * NOISE
        for model, known in prompt_alone.items():
            assert apart(prompt_log_probabilities(engine, model), known) < 3 * NOISE
    assert any(stream.is_alive() for stream in streams), "nothing shared a step with the scores"
    for stream in streams:
        stream.join()
    for name in ("head", "one"):
        run(engine.unload(name))


def prompt_log_probabilities(engine: RemoteEngine, model: str) -> list[float]:
    body = {"model": model, "prompt": TEXT, "max_tokens": 1, "temperature": 0, "prompt_logprobs": 0}
    answer = httpx.post(f"{engine.http.base_url}/v1/completions", json=body, timeout=120)
    positions = answer.json()["choices"][0]["prompt_logprobs"]
    return [next(iter(position.values()))["logprob"] for position in positions[1:]]


def apart(left: list[float], right: list[float]) -> float:
    return sum(abs(a - b) for a, b in zip(left, right, strict=True)) / len(left)


def check_against_peft(engine: RemoteEngine, base: Path, adapter: Path) -> None:
    """Compare the mean over the tokens: single ones differ more, the base's as much as the adapter's."""
    tokens = engine.tokenize(TEXT)
    prompts = [tokens[:end] for end in range(2, len(tokens) + 1)]
    run(engine.load("it", adapter))
    served = [run(engine.score(name, prompts)) for name in (None, "it")]
    run(engine.unload("it"))
    reference = peft_scores(base, adapter, prompts)
    noise, error = (probing.difference(*pair) for pair in zip(served, reference, strict=True))
    assert probing.difference(*reference) > 10 * error
    assert error < max(0.1, 3 * noise)


def peft_scores(base: Path, adapter: Path, prompts: list[list[int]]) -> list[list[dict[int, float]]]:
    """Return what `Engine.score` would say of the base and of the adapter, by PEFT in 32 bits."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    ids = torch.tensor([prompts[-1]])
    found = []
    for _ in range(2):
        with torch.no_grad():
            likeliest = model(ids).logits[0].log_softmax(-1).topk(TOP_TOKENS)
        rows = zip(likeliest.indices.tolist(), likeliest.values.tolist(), strict=True)
        ends = [dict(zip(*row, strict=True)) for row in rows]
        found.append([ends[len(prompt) - 1] for prompt in prompts])
        model = PeftModel.from_pretrained(model, adapter) if len(found) == 1 else model
    return found


def test_the_prefix_cache_tells_versions_apart_by_name_and_path() -> None:
    from vllm.v1.core.kv_cache_utils import _gen_lora_extra_hash_keys

    request = SimpleNamespace(lora_request=SimpleNamespace(lora_name="support@3", lora_path="/versions/3"))
    assert _gen_lora_extra_hash_keys(request) == [("lora", "support@3", "/versions/3")]


def test_vllms_defaults_are_the_ones_that_bite() -> None:
    from typing import get_args

    from vllm.config.lora import LoRAConfig, MaxLoRARanks

    config = LoRAConfig()
    assert (config.max_loras, config.max_cpu_loras, config.max_lora_rank) == (1, 1, 16)
    assert get_args(MaxLoRARanks) == VLLM_RANKS
