"""YAML of anybody is a tree of a bounded size, or an error."""

from __future__ import annotations

import pytest
import yaml

from registry.settings.bounds import DEEPEST, MOST_CHARACTERS
from registry.settings.yaml_text import parse_yaml


def test_anchors_that_multiply_are_refused_before_anybody_walks_them() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{at}: &a{at} [{', '.join([f'*a{at - 1}'] * 10)}]" for at in range(1, 30)]
    with pytest.raises(yaml.YAMLError, match="stand for more than 1000000 values"):
        parse_yaml("\n".join(lines))


def test_merges_that_multiply_are_refused_before_anybody_waits_for_them() -> None:
    levels = ["a0: &a0 {k: 1}"]
    levels += [f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 10)}]}}" for n in range(1, 10)]
    with pytest.raises(yaml.YAMLError, match="merges"):
        parse_yaml("\n".join(levels))
    assert parse_yaml("\n".join(levels[:4])) == {f"a{n}": {"k": 1} for n in range(4)}


def test_a_few_anchors_are_what_they_stand_for() -> None:
    assert parse_yaml("a: &a {b: [1]}\nc: *a\n") == {"a": {"b": [1]}, "c": {"b": [1]}}


@pytest.mark.parametrize(
    ("text", "fact"),
    [
        ("a: &a [*a]", "contains itself"),
        ("[" * (DEEPEST + 1) + "]" * (DEEPEST + 1), "nested too deep"),
        ("#" * (MOST_CHARACTERS + 1), "characters"),
    ],
)
def test_what_cannot_be_walked_is_refused(text: str, fact: str) -> None:
    with pytest.raises(yaml.YAMLError, match=fact):
        parse_yaml(text)
