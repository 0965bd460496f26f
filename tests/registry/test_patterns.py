"""Patterns match a suffix at a dot, the first wins, and none can run for ever."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.validation.patterns import PatternTable, depends_on_order

MODULE = "model.layers.0.self_attn.q_proj"


def peft_match(patterns: dict[str, int], module: str, default: int) -> int:
    """PEFT's own rule (`peft.utils.other.get_pattern_key`), which vLLM repeats."""
    matching = (value for key, value in patterns.items() if re.match(rf"(.*\.)?({key})$", module))
    return next(matching, default)


@pytest.mark.parametrize(
    ("patterns", "found"),
    [
        ({}, 8),
        ({"q_proj": 4}, 4),
        ({"self_attn.q_proj": 4}, 4),
        ({MODULE: 4}, 4),
        ({"proj": 4}, 8),
        ({"k_proj": 4}, 8),
        ({"q_proj": 4, "self_attn.q_proj": 16}, 4),
        ({"self_attn.q_proj": 16, "q_proj": 4}, 16),
        ({"^model.layers.0.self_attn.q_proj": 4}, 4),
        ({"^layers.0.self_attn.q_proj": 4}, 8),
        ({r"layers\.0\..*(q|v)_proj": 4}, 4),
        ({"(?:q|k)_proj": 4}, 4),
        ({r".*\.[qk]_proj": 4, "q_proj": 2}, 4),
        ({"q_proj": 2, r".*\.[qk]_proj": 4}, 2),
    ],
)
def test_the_first_pattern_that_matches_a_suffix_wins(patterns: dict[str, int], found: int) -> None:
    assert PatternTable(patterns).find(MODULE, 8) == found
    assert peft_match(patterns, MODULE, 8) == found


names = st.lists(st.sampled_from(["model", "layers", "0", "1", "q_proj", "k_proj"]), min_size=1, max_size=4)


@given(
    patterns=st.dictionaries(names.map(".".join), st.integers(1, 64), max_size=6), module=names.map(".".join)
)
def test_plain_names_match_as_peft_matches_them(patterns: dict[str, int], module: str) -> None:
    assert PatternTable(patterns).find(module, 99) == peft_match(patterns, module, 99)


@pytest.mark.parametrize(
    "key",
    [
        "(a+)+$",
        "(a|a)*b",
        "(.*a){9}",
        r"(a)\1",
        "(?=a)b",
        "(?i)q",
        "a?a?a?aaa",
        "(a|b)(c|d)(e|f)",
        ".*.*.*",
        "[",
        "x" * 256 + "*",
    ],
)
def test_an_expression_that_is_costly_or_broken_is_refused(key: str) -> None:
    with pytest.raises(ValueError, match="expression"):
        PatternTable({key: 1})


def test_too_many_expressions_are_refused() -> None:
    with pytest.raises(ValueError, match="holds 65 expressions; at most 64"):
        PatternTable({f"a{number}.*": 1 for number in range(65)})


def test_a_full_table_of_costly_expressions_stays_cheap() -> None:
    table = PatternTable({f".*a.*{number}x": 1 for number in range(64)})
    begin = time.thread_time()
    for _ in range(10):
        assert table.find("a." * 40, 8) == 8
    assert time.thread_time() - begin < 10


def test_only_overlapping_patterns_depend_on_their_order() -> None:
    assert depends_on_order({"v_proj": 4, "q_proj": 8}, [MODULE]) is None
    assert depends_on_order({"a.*": 4, "q_proj": 8}, [MODULE]) is None
    assert depends_on_order({"self_attn.q_proj": 4, "q_proj": 8}, [MODULE]) == MODULE
    assert depends_on_order({"self_attn.q_proj": 8, "q_proj": 8}, [MODULE]) is None
    assert depends_on_order({}, [MODULE]) is None
