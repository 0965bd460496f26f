"""A PEFT config is parsed strictly, refused where vLLM cannot serve it, and spelt in one way only."""

from __future__ import annotations

import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.errors import InvalidAdapter
from registry.records import Limits
from registry.validation.peft import LoraConfig, canonical_config, check_servable, parse_config
from tests.fakes.adapters import Adapter

FINGERPRINT = "sha256:" + "b" * 64


def written(**changes: object) -> bytes:
    return json.dumps(Adapter(config=changes).config_json()).encode()


def parse(**changes: object) -> LoraConfig:
    return parse_config(written(**changes), "support")


def refusal(**changes: object) -> InvalidAdapter:
    with pytest.raises(InvalidAdapter) as caught:
        check_servable(parse(**changes), Limits(max_lora_rank=32), "support")
    assert caught.value.subject == "support"
    assert caught.value.remedy
    return caught.value


def test_what_peft_writes_is_read() -> None:
    config = parse(
        rank_pattern={"q_proj": 4}, alpha_pattern={"v_proj": 8.5}, target_modules=["v_proj", "q_proj"]
    )
    assert (config.rank, config.alpha, config.highest_rank) == (8, 16, 8)
    assert config.target_modules == ("q_proj", "v_proj")
    assert (dict(config.rank_pattern), dict(config.alpha_pattern)) == ({"q_proj": 4}, {"v_proj": 8.5})
    check_servable(config, Limits(), "support")


@pytest.mark.parametrize(
    "changes",
    [
        {"use_rslora": True},
        {"rank_pattern": {"q_proj": 32}, "alpha_pattern": {"q_proj": 64}},
        {"rank_pattern": None, "alpha_pattern": None},
        {"r": 1}, {"r": 3}, {"r": 12}, {"r": 32},
        {"lora_alpha": 0.5}, {"lora_alpha": 0},
        {"target_modules": "all-linear"},
        {"target_modules": r".*\.(q|v)_proj"},
        {"target_modules": [], "target_parameters": ["mlp.experts.gate_up_proj"]},
        {"modules_to_save": []},
        {"layers_to_transform": [0]},
        {"init_lora_weights": "gaussian"}, {"init_lora_weights": "eva"}, {"init_lora_weights": "Orthogonal"},
        {"init_lora_weights": False},
        {"task_type": None},
        {"some_later_field": {"a": 1}},
        {"bias": ...}, {"use_dora": ...}, {"init_lora_weights": ...},
    ],
)  # fmt: skip
def test_what_vllm_serves_rightly_is_accepted(changes: dict[str, object]) -> None:
    check_servable(parse(**changes), Limits(max_lora_rank=32), "support")


@pytest.mark.parametrize(
    ("changes", "reason", "words"),
    [
        ({"use_dora": True}, "bad_config", ["DoRA", "`wardrobe train merge DIR OUT --as lora`"]),
        ({"modules_to_save": ["lm_head"]}, "modules", ["modules_to_save", "lm_head"]),
        ({"modules_to_save": ["score"]}, "modules", ["modules_to_save", "score"]),
        ({"lora_bias": True}, "bad_config", ["lora_bias"]),
        ({"bias": "all"}, "bad_config", ["'all'", "'none'"]),
        ({"bias": "lora_only"}, "bad_config", ["'lora_only'"]),
        (
            {"init_lora_weights": "pissa"},
            "bad_config",
            ["'pissa'", "changes the base's own weights", "`wardrobe train merge DIR OUT --as lora`"],
        ),
        ({"init_lora_weights": "pissa_niter_16"}, "bad_config", ["'pissa_niter_16'"]),
        ({"init_lora_weights": "olora"}, "bad_config", ["'olora'"]),
        ({"init_lora_weights": "corda"}, "bad_config", ["'corda'"]),
        ({"init_lora_weights": "loftq"}, "bad_config", ["'loftq'"]),
        ({"init_lora_weights": "lora_ga"}, "bad_config", ["'lora_ga'"]),
        ({"init_lora_weights": "next_year"}, "bad_config", ["'next_year'"]),
        ({"alora_invocation_tokens": [1, 2]}, "bad_config", ["activated LoRA", "alora_invocation_tokens"]),
        ({"layer_replication": [[0, 2], [1, 2]]}, "bad_config", ["layer_replication"]),
        ({"trainable_token_indices": [5]}, "bad_config", ["trainable_token_indices"]),
        ({"trainable_token_indices": {"embed_tokens": [5]}}, "bad_config", ["trainable_token_indices"]),
        ({"use_bdlora": {"nblocks": 2}}, "bad_config", ["use_bdlora"]),
        ({"use_qalora": True}, "bad_config", ["use_qalora"]),
        ({"arrow_config": {"top_k": 3}}, "bad_config", ["arrow_config"]),
        ({"kasa_config": {"beta": 1}}, "bad_config", ["kasa_config"]),
        ({"monteclora_config": {"x": 1}}, "bad_config", ["monteclora_config"]),
        ({"r": 64}, "rank", ["64", "max_lora_rank 32", "r <= 32"]),
        ({"rank_pattern": {"q_proj": 33}}, "rank", ["33", "rank_pattern", "max_lora_rank 32"]),
        ({"r": 64, "rank_pattern": {"q_proj": 8, "v_proj": 8}}, "rank", ["64"]),
    ],
)
def test_what_vllm_cannot_serve_is_refused_with_fact_limit_and_remedy(
    changes: dict[str, object], reason: str, words: list[str]
) -> None:
    error = refusal(**changes)
    assert error.reason == reason
    assert all(word in str(error) for word in words), str(error)


@pytest.mark.parametrize("kind", ["IA3", "ADALORA", "LOHA", "PROMPT_TUNING", "lora", None, 1, ...])
def test_another_kind_of_adapter_is_refused(kind: object) -> None:
    with pytest.raises(InvalidAdapter, match="only 'LORA' can be served") as caught:
        parse(peft_type=kind)
    assert caught.value.reason == "bad_config"


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"r": 0}, "r is 0"),
        ({"r": -8}, "r is -8"),
        ({"r": "8"}, "r is '8'"),
        ({"r": 8.5}, "r is 8.5"),
        ({"r": 1e300}, "r is 1e+300"),
        ({"r": True}, "r is True"),
        ({"r": ...}, "r is missing"),
        ({"lora_alpha": ...}, "lora_alpha is missing"),
        ({"lora_alpha": "16"}, "lora_alpha is '16'"),
        ({"lora_alpha": 10**400}, "lora_alpha is 1000"),
        ({"target_modules": None}, "target_modules is missing"),
        ({"target_modules": ""}, "target_modules is ''"),
        ({"target_modules": ["q_proj", 1]}, "target_modules is ['q_proj', 1]"),
        ({"target_modules": {"q_proj": 1}}, "target_modules is {'q_proj': 1}"),
        ({"rank_pattern": {"q_proj": 0}}, "rank_pattern.q_proj is 0"),
        ({"rank_pattern": {"q_proj": 1.5}}, "rank_pattern.q_proj is 1.5"),
        ({"rank_pattern": ["q_proj"]}, "rank_pattern is ['q_proj']"),
        ({"rank_pattern": {"(a+)+": 8}}, "rank_pattern holds an expression"),
        ({"alpha_pattern": {"q_proj": None}}, "alpha_pattern.q_proj is missing"),
        ({"alpha_pattern": {"(a+)+": 8}}, "alpha_pattern holds an expression"),
        ({"base_model_name_or_path": 5}, "base_model_name_or_path is 5"),
    ],
)
def test_a_field_of_the_wrong_kind_is_named(changes: dict[str, object], field: str) -> None:
    with pytest.raises(InvalidAdapter) as caught:
        parse(**changes)
    assert caught.value.reason == "bad_config"
    assert field in caught.value.fact


@pytest.mark.parametrize(
    "data",
    [b"", b"[]", b"null", b"{", b'{"r": NaN}', b'{"r": 1, "r": 2}', b"\xff", b'{"a":"\\udc00"}', b"[" * 9999],
)
def test_bytes_that_are_no_json_object_are_refused(data: bytes) -> None:
    with pytest.raises(InvalidAdapter, match=r"adapter_config\.json is not") as caught:
        parse_config(data, "support")
    assert caught.value.reason == "bad_config"


@given(
    data=st.binary(max_size=300) | st.text(alphabet='{}[]":,r 0189.e-NaTrueflsn', max_size=60).map(str.encode)
)
def test_no_bytes_escape_as_anything_but_invalid_adapter(data: bytes) -> None:
    with pytest.raises(InvalidAdapter):
        parse_config(data, "support")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(-1e9, 1e9) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip


@given(field=st.sampled_from(sorted(Adapter().config_json())), value=json_values)
def test_no_value_of_any_field_escapes_as_anything_but_invalid_adapter(field: str, value: object) -> None:
    data = json.dumps({**Adapter().config_json(), field: value}).encode()
    try:
        config = parse_config(data, "support")
        check_servable(config, Limits(), "support")
    except InvalidAdapter:
        return
    canonical_config(config, FINGERPRINT)


def test_the_order_of_keys_and_sets_and_the_place_of_the_base_do_not_reach_the_bytes() -> None:
    modules: list[object] = ["q_proj", "k_proj", "v_proj", "o_proj", "up_proj"]
    sets: dict[str, list[object]] = {"exclude_modules": ["lm_head", "x"], "layers_to_transform": [10, 9, 1]}
    spellings = set()
    rng = random.Random(5)
    for number in range(20):
        fields = Adapter(config={**sets, "target_modules": modules}).config_json()
        for values in (modules, *sets.values()):
            rng.shuffle(values)
        pairs = list(fields.items())
        rng.shuffle(pairs)
        fields = {**dict(pairs), "base_model_name_or_path": f"/somewhere/{number}"}
        data = json.dumps(fields, indent=number % 3).encode()
        spellings.add(canonical_config(parse_config(data, "support"), FINGERPRINT))
    assert len(spellings) == 1
    canonical = json.loads(spellings.pop())
    assert canonical["base_model_name_or_path"] == FINGERPRINT
    assert canonical["target_modules"] == ["k_proj", "o_proj", "q_proj", "up_proj", "v_proj"]
    assert canonical["layers_to_transform"] == [1, 9, 10]


def test_lists_whose_order_means_something_keep_it() -> None:
    parameters = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
    canonical = json.loads(canonical_config(parse(target_parameters=parameters), FINGERPRINT))
    assert canonical["target_parameters"] == parameters


def test_a_canonical_config_is_its_own_canonical_form() -> None:
    once = canonical_config(parse(), FINGERPRINT)
    assert canonical_config(parse_config(once, "support"), FINGERPRINT) == once


@pytest.mark.parametrize(
    "changes", [{"r": 16}, {"lora_alpha": 17}, {"use_rslora": True}, {"target_modules": ["q_proj"]}]
)
def test_another_config_has_other_bytes(changes: dict[str, object]) -> None:
    assert canonical_config(parse(**changes), FINGERPRINT) != canonical_config(parse(), FINGERPRINT)
