"""A wrapper's name in every tensor's name is taken off, and what is stored is what PEFT would have saved."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from registry.records import BaseModelInfo
from registry.store import Registry
from registry.validation.base import read_base
from tests.fakes.adapters import Tensors, make_adapter
from tests.fakes.base import make_base
from tests.registry.inspecting import WEIGHTS, adding, check, refusal, taken, tensor

PEFT = "base_model.model."


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> BaseModelInfo:
    return read_base(make_base(tmp_path_factory.mktemp("models") / "tiny"), "tiny")


def calling(rename: Callable[[str], str]) -> Callable[[Tensors], Tensors]:
    return lambda given: {rename(name): value for name, value in given.items()}


WRAPPED: dict[str, Callable[[str], str]] = {
    "DDP around PEFT": lambda name: f"module.{name}",
    "DDP inside PEFT": lambda name: name.replace(PEFT, f"{PEFT}module."),
    "torch.compile around PEFT": lambda name: f"_orig_mod.{name}",
    "torch.compile inside PEFT": lambda name: name.replace(PEFT, f"{PEFT}_orig_mod."),
    "torch.compile of each layer": lambda name: name.replace(".self_attn", "._orig_mod.self_attn"),
    "FSDP in every layer": lambda name: (
        "_fsdp_wrapped_module." + name.replace(".self_attn", "._fsdp_wrapped_module.self_attn")
    ),
    "checkpointed layers": lambda name: name.replace(".self_attn", "._checkpoint_wrapped_module.self_attn"),
    "several at once": lambda name: "_orig_mod.module." + name.replace(PEFT, f"{PEFT}_orig_mod.module."),
    "DDP over PEFT's prefix twice": lambda name: f"module.{PEFT}{name}",
    "a doubled model": lambda name: name.replace(f"{PEFT}model.", f"{PEFT}model.model."),
    "a class of one's own": lambda name: name.replace(PEFT, f"{PEFT}policy."),
    "TRL's value head": lambda name: name.replace(PEFT, "pretrained_model."),
    "the language model of a multimodal one": lambda name: name.replace(PEFT, f"{PEFT}language_model."),
}


@pytest.mark.parametrize("kind", WRAPPED)
def test_what_a_wrapper_put_before_the_names_is_taken_off_and_said(
    tmp_path: Path, base: BaseModelInfo, kind: str
) -> None:
    plain = check(make_adapter(tmp_path / "plain"), base)
    found = check(make_adapter(tmp_path / "a", mutate=calling(WRAPPED[kind])), base)
    (warning,) = found.warnings
    assert "8 tensors bore a wrapper's name" in warning
    assert "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight" in warning
    assert (found.digest, found.rank, found.target_modules) == (plain.digest, 8, ("q_proj", "v_proj"))


def test_what_is_published_is_the_clean_file_and_is_verified(registry: Registry, tmp_path: Path) -> None:
    plain = registry.publish("plain", make_adapter(tmp_path / "plain"), who="tester").version
    wrapped = make_adapter(tmp_path / "a", mutate=calling(WRAPPED["several at once"]))
    published = registry.publish("support", wrapped, who="tester")
    assert (published.version.path / WEIGHTS).read_bytes() == (plain.path / WEIGHTS).read_bytes()
    assert all(result.ok for result in registry.verify())
    assert registry.aliases("support") == {"stable": 1}


def test_names_that_the_base_has_are_left_as_they_are(tmp_path: Path, base: BaseModelInfo) -> None:
    for number, rename in enumerate((lambda n: n, lambda n: n.removeprefix(PEFT), lambda n: PEFT + n)):
        folder = make_adapter(tmp_path / str(number), mutate=calling(rename))
        found = check(folder, base)
        assert found.warnings == ()
        assert taken(found, WEIGHTS).head == b""
        assert taken(found, WEIGHTS).source == folder / WEIGHTS


def test_two_tensors_that_come_to_bear_one_name_are_refused(tmp_path: Path, base: BaseModelInfo) -> None:
    def twice(given: Tensors) -> Tensors:
        return {**given, **{f"module.{name}": value for name, value in given.items()}}

    error = refusal(make_adapter(tmp_path / "a", mutate=twice), base)
    assert (error.reason, "two tensors are" in error.fact) == ("modules", True)


@pytest.mark.parametrize(
    "rename",
    [
        lambda name: name.replace(PEFT, f"{PEFT}vision_tower."),
        lambda name: name.replace(PEFT, f"{PEFT}actor." if "layers.0" in name else f"{PEFT}critic."),
        lambda name: name.replace("self_attn", "attention"),
    ],
)
def test_what_cannot_be_told_apart_is_refused(
    tmp_path: Path, base: BaseModelInfo, rename: Callable[[str], str]
) -> None:
    error = refusal(make_adapter(tmp_path / "a", mutate=calling(rename)), base)
    assert (error.reason, "are not in the base" in error.fact) == ("modules", True)


def test_a_head_is_found_behind_the_same_wrapper(tmp_path: Path, base: BaseModelInfo) -> None:
    head = {
        f"{PEFT}policy.lm_head.lora_A.weight": tensor(8, 64),
        f"{PEFT}policy.lm_head.lora_B.weight": tensor(256, 8),
        f"{PEFT}policy.lm_head.base_layer.weight": tensor(256, 64),
    }
    wrap = calling(WRAPPED["a class of one's own"])
    config = {"target_modules": ["q_proj", "v_proj", "lm_head"]}
    folder = make_adapter(tmp_path / "a", config=config, mutate=lambda given: adding(**head)(wrap(given)))
    assert "lm_head" in check(folder, base).target_modules


def test_a_base_of_unknown_shapes_loses_the_wrappers_words_alone(tmp_path: Path, base: BaseModelInfo) -> None:
    packed = replace(base, modules={})
    digest = check(make_adapter(tmp_path / "plain"), packed).digest
    wrapped = make_adapter(tmp_path / "a", mutate=calling(WRAPPED["several at once"]))
    assert check(wrapped, packed).digest == digest
    own = make_adapter(tmp_path / "b", mutate=calling(WRAPPED["a class of one's own"]))
    assert check(own, packed).digest != digest


def test_a_module_of_the_base_that_is_called_like_a_wrapper_is_left_alone(
    tmp_path: Path, base: BaseModelInfo
) -> None:
    modules = {name.replace("model.", "module.", 1): shape for name, shape in base.modules.items()}
    folder = make_adapter(tmp_path / "a", prefix="base_model.model.module.")
    assert check(folder, replace(base, modules=modules)).warnings == ()


def test_full_names_among_the_targets_may_bear_the_wrapper_too(tmp_path: Path, base: BaseModelInfo) -> None:
    targets = [f"_orig_mod.model.layers.{n}.self_attn.{m}" for n in (0, 1) for m in ("q_proj", "v_proj")]
    wrap = calling(WRAPPED["torch.compile inside PEFT"])
    folder = make_adapter(tmp_path / "a", config={"target_modules": targets}, mutate=wrap)
    assert len(check(folder, base).warnings) == 1
