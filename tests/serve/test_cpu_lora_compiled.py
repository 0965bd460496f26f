"""The LoRA operators inside compiled code, and when vLLM's compilation is kept on."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from serve.engine.compiled.code import CompiledCode
from serve.engine.cpu_lora import compilation, operator
from serve.engine.environment import COMPILE_VARIABLE, NOTE_VARIABLE
from tests.fakes.making import make_code
from tests.serve.test_cpu_lora import (
    BASE,
    INPUTS,
    RANK,
    SLOTS,
    Layer,
    batches,
    close,
    dense,
    grouped,
    make_layer,
    set_rows,
)

if TYPE_CHECKING:
    from serve.engine.cpu_lora.wrapper import GroupedPunicaWrapper

WIDTHS = (80, 16, 16)


class FakeLayer:
    """What `operator.place` needs of a linear layer of vLLM."""

    def __init__(self, name: str, weights: Layer) -> None:
        self.base_layer = SimpleNamespace(prefix=name)
        self.lora_a_stacked, self.lora_b_stacked = weights.a, weights.b

    def reset_lora(self, index: int) -> None:
        for tensor in (*self.lora_a_stacked, *self.lora_b_stacked):
            tensor[index] = 0

    def set_lora(self, index: int, seed: int) -> None:
        self.reset_lora(index)
        fresh = make_layer(seed, torch.bfloat16, WIDTHS)
        for own, other in zip(
            (*self.lora_a_stacked, *self.lora_b_stacked), (*fresh.a, *fresh.b), strict=True
        ):
            own[index].copy_(other[index])


@pytest.fixture(scope="module")
def wrapper() -> GroupedPunicaWrapper:
    return grouped([BASE])


@pytest.fixture(scope="module")
def layer(wrapper: GroupedPunicaWrapper) -> FakeLayer:
    return FakeLayer("model.layers.0.qkv_proj", make_layer(1, torch.bfloat16, WIDTHS))


@pytest.fixture(scope="module")
def compiled(wrapper: GroupedPunicaWrapper, layer: FakeLayer) -> Any:
    """A module's output and something behind it, compiled once for any number of rows."""
    site = operator.place(layer, wrapper)

    def forward(x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        output = y * 2
        site.add_lora_linear(output, x, layer.lora_a_stacked, layer.lora_b_stacked, 1.0, WIDTHS)
        return output, output + 1

    return torch.compile(forward, fullgraph=True, dynamic=True)


@pytest.mark.slow
@settings(deadline=None, max_examples=60)
@given(batches, st.integers(0, 2**31), st.booleans())
def test_compiled_batches_equal_dense_arithmetic(
    wrapper: GroupedPunicaWrapper, layer: FakeLayer, compiled: Any, slots: list[int], seed: int, swap: bool
) -> None:
    if swap:
        layer.set_lora(seed % SLOTS, seed)
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(len(slots), INPUTS, generator=generator).bfloat16()
    y = torch.randn(len(slots), sum(WIDTHS), generator=generator).bfloat16()
    set_rows(wrapper, slots, prefill=seed % 2 == 0)
    output, behind = compiled(x, y)
    expected = dense(y * 2, x, Layer(layer.lora_a_stacked, layer.lora_b_stacked), slots)
    assert close(output, expected, torch.bfloat16)
    assert torch.equal(behind, output + 1), "what follows was computed before the adapter's part"
    base = [row for row, slot in enumerate(slots) if slot == BASE]
    assert torch.equal(output[base], (y * 2)[base]), "a row of the base model was touched"


def test_the_operators_keep_the_rules_of_operators(wrapper: GroupedPunicaWrapper, layer: FakeLayer) -> None:
    operator.place(layer, wrapper)
    set_rows(wrapper, [0, 1, BASE], prefill=False)
    x, y = torch.randn(3, INPUTS).bfloat16(), torch.randn(3, sum(WIDTHS)).bfloat16()
    linear = torch.ops.wardrobe.add_lora_linear.default
    torch.library.opcheck(linear, (y, x, layer.base_layer.prefix))
    embedding = torch.ops.wardrobe.add_lora_embedding.default
    b = layer.lora_b_stacked[0]
    looked_up, rows = torch.randn(3, RANK).bfloat16(), torch.randn(3, WIDTHS[0]).bfloat16()
    torch.library.opcheck(embedding, (rows, looked_up, b, wrapper._number))


class Listener(TorchDispatchMode):
    """Notes the operators that pass the dispatcher."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.heard.append(str(func))
        return func(*args, **(kwargs or {}))


def test_a_call_passes_the_dispatcher_where_somebody_listens(
    wrapper: GroupedPunicaWrapper, layer: FakeLayer
) -> None:
    layer.set_lora(0, 3)
    operator.place(layer, wrapper)
    set_rows(wrapper, [0, BASE], prefill=False)
    x, before = torch.randn(2, INPUTS).bfloat16(), torch.randn(2, sum(WIDTHS)).bfloat16()
    heard, unheard = before.clone(), before.clone()
    linear = torch.ops.wardrobe.add_lora_linear.default
    with Listener() as listener:
        linear(heard, x, layer.base_layer.prefix)
    linear(unheard, x, layer.base_layer.prefix)
    assert listener.heard == ["wardrobe.add_lora_linear.default"]
    assert torch.equal(heard, unheard)
    assert torch.equal(unheard[1], before[1])
    assert not torch.equal(unheard[0], before[0])


def test_a_site_stands_in_for_its_wrapper(wrapper: GroupedPunicaWrapper, layer: FakeLayer) -> None:
    site = operator.place(layer, wrapper)
    assert site.token_lora_indices is not None
    with pytest.raises(AttributeError):
        _ = site.nothing_of_the_kind


class FakePlatform:
    """The one rule of vLLM's CPU platform that matters here."""

    @classmethod
    def check_and_update_config(cls, vllm_config: Any) -> None:
        from vllm.config import CompilationMode

        config = vllm_config.compilation_config
        if config.mode == CompilationMode.VLLM_COMPILE:
            config.mode = CompilationMode.DYNAMO_TRACE_ONCE
        if vllm_config.lora_config is not None:
            config.mode = CompilationMode.NONE


def checked(mode: str = "VLLM_COMPILE", **lora: Any) -> tuple[str, list[str]]:
    """Return the mode that comes out of a kept platform, and what was said."""
    from vllm.config import CompilationMode

    said: list[str] = []
    platform = type("Platform", (FakePlatform,), {})
    config = SimpleNamespace(
        compilation_config=SimpleNamespace(mode=CompilationMode[mode]),
        lora_config=SimpleNamespace(**lora) if "none" not in lora else None,
        additional_config={},
    )
    compilation.keep(platform, said.append)
    compilation.keep(platform, said.append)
    platform.check_and_update_config(config)  # type: ignore[attr-defined]
    return config.compilation_config.mode.name, said


def test_compilation_stays_on_with_lora_and_is_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(COMPILE_VARIABLE, raising=False)
    monkeypatch.setenv("CXX", "sh")  # any command that exists
    mode, said = checked()
    assert mode == "DYNAMO_TRACE_ONCE"
    assert len(said) == 1
    assert "compiled" in said[0]


@pytest.mark.parametrize(
    ("lora", "choice", "reason"),
    [
        ({}, "off", "WARDROBE_COMPILE=off"),
        ({}, "later", "there is no compiled code for this configuration yet"),
        ({"fully_sharded_loras": True}, "on", "fully_sharded_loras is on"),
        ({"enable_tower_connector_lora": True}, "on", "enable_tower_connector_lora is on"),
    ],
)
def test_where_it_must_not_be_compiled_it_says_why(
    monkeypatch: pytest.MonkeyPatch, lora: dict[str, Any], choice: str, reason: str
) -> None:
    monkeypatch.setenv(COMPILE_VARIABLE, choice)
    mode, said = checked(**lora)
    assert mode == "NONE"
    assert said == [f"LoRA on the CPU: the model is not compiled: {reason}"]


def test_without_a_compiler_or_a_cache_it_falls_back(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(COMPILE_VARIABLE, "auto")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    mode, said = checked()
    assert mode == "NONE"
    assert "no C++ compiler" in said[0]
    monkeypatch.setenv("VLLM_DISABLE_COMPILE_CACHE", "1")
    compiler = tmp_path / "g++"
    compiler.touch()
    compiler.chmod(0o755)
    assert checked()[0] == "NONE"
    monkeypatch.setenv(COMPILE_VARIABLE, "on")
    assert checked()[0] == "DYNAMO_TRACE_ONCE"


def test_without_lora_or_when_told_to_be_eager_vllm_decides_alone() -> None:
    assert checked(none=True) == ("DYNAMO_TRACE_ONCE", [])
    assert checked("NONE") == ("NONE", [])


def test_code_that_vllm_kept_can_be_loaded_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """vLLM asks the loaded code for a method that only its own backend's code has."""
    from vllm.compilation import decorators

    def compiled() -> None:
        """Stand for code of inductor."""

    assert not hasattr(compiled, "finalize_loading")
    found = SimpleNamespace(_artifacts=SimpleNamespace(compiled_fn=compiled))
    load = torch.compiler.load_compiled_function
    seen: list[Any] = []

    def original(model: Any, path: str) -> Any:
        loaded = torch.compiler.load_compiled_function(path)
        seen.append(loaded._artifacts.compiled_fn.finalize_loading(model))
        return loaded

    monkeypatch.setattr(decorators, "_try_load_aot_compiled_fn", original)
    monkeypatch.setattr(torch.compiler, "load_compiled_function", lambda _path: found)
    compilation.mend_loading()
    compilation.mend_loading()
    assert decorators._try_load_aot_compiled_fn(SimpleNamespace(), "model") is found
    assert seen == [None]
    monkeypatch.undo()
    assert torch.compiler.load_compiled_function is load


def test_who_was_promised_compiled_code_and_cannot_use_it_runs_uncompiled(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It is noted as a failure, so that it is made anew; compiling here would keep everybody waiting."""
    from vllm.compilation import decorators

    code = CompiledCode(tmp_path, "key")
    code.note_made([make_code(tmp_path)])
    record = tmp_path / "record"
    monkeypatch.setenv(COMPILE_VARIABLE, "made")
    monkeypatch.setenv(NOTE_VARIABLE, str(code.path))
    monkeypatch.setenv(compilation.RECORD_VARIABLE, str(record))
    monkeypatch.setattr(decorators, "_try_load_aot_compiled_fn", lambda _model, _path: None)
    compilation.mend_loading()
    model = SimpleNamespace(forward=lambda x, *, y: (x, y))
    found = decorators._try_load_aot_compiled_fn(model, "a/model")
    assert found is not None
    assert found(model, 1, y=2) == (1, 2)
    assert (code.read().state, code.read().failures) == ("failed", 1)
    assert record.read_text() == "a/model\n"
    monkeypatch.setenv(COMPILE_VARIABLE, "on")
    assert decorators._try_load_aot_compiled_fn(model, "a/model") is None
