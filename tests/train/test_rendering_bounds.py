"""A base's chat template that never ends, or fills the memory, is refused before it is rendered here."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from registry.errors import UsageError
from tests.train.bases import shipped_templates
from train.rendering.bounds import require_bounded

LOOP = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
GREEDY = "{{ 'x' * 10 ** 10 }}"
DOUBLING = (
    "{% set ns = namespace(x='x') %}{% for a in range(99) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}"
    "{{ ns.x }}"
)


def speaker(template: Any) -> Any:
    return SimpleNamespace(chat_template=template)


@pytest.mark.parametrize(
    ("template", "fact"),
    [
        (LOOP, "does not end in 3 s"),
        (GREEDY, "needs more than 1024 MiB"),
        (DOUBLING, "needs more than 1024 MiB"),
        ({"default": "{{ messages }}", "tool_use": GREEDY}, "needs more than 1024 MiB"),
    ],
)
def test_a_template_that_takes_too_much_is_refused_with_where_it_lies(template: Any, fact: str) -> None:
    with pytest.raises(UsageError, match=f"chat template.*{fact}.*chat_template.jinja"):
        require_bounded(speaker(template))


@pytest.mark.parametrize("template", [None, "", "{{ raise_exception('no') }}", "{% broken"])
def test_a_template_that_refuses_or_is_none_is_no_matter_of_bounds(template: Any) -> None:
    require_bounded(speaker(template))


def test_the_models_own_templates_are_within_the_bounds() -> None:
    require_bounded(speaker(shipped_templates()))
