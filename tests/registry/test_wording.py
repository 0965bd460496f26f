"""What pydantic and click say is told in this product's words, wherever it is told."""

from __future__ import annotations

from typing import Any, Literal

import click
import pytest
from pydantic import BaseModel, Field, ValidationError, field_validator

from registry.wording import fact_of, option_fact


class Settings(BaseModel):
    name: str = ""
    rate: float = Field(default=1.0, gt=0)
    count: int = Field(default=1, ge=1, le=9)
    hosts: tuple[str, ...] = ()
    table: dict[str, int] = {}
    on: bool = False
    kind: Literal["a", "b"] = "a"
    word: str = Field(default="x", pattern="^x", min_length=1)

    @field_validator("hosts")
    @classmethod
    def _are_hosts(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if "?" in value:
            raise ValueError("'?' is not a host name")
        return value


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"hosts": "x"}, "must be a list, not 'x'"),
        ({"hosts": ["?"]}, "'?' is not a host name"),
        ({"table": [1]}, "must hold keys and values"),
        ({"count": "x"}, "must be a whole number, not 'x'"),
        ({"count": 1.5}, "must be a whole number, not 1.5"),
        ({"count": 0}, "must be greater than or equal to 1, not 0"),
        ({"rate": "x"}, "must be a number, not 'x'"),
        ({"on": "perhaps"}, "must be true or false, not 'perhaps'"),
        ({"kind": "c"}, "must be 'a' or 'b', not 'c'"),
        ({"word": "y"}, "must match pattern '^x', not 'y'"),
    ],
)
def test_a_fault_of_a_value_is_told_without_pydantics_own_words(given: dict[str, object], told: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Settings.model_validate(given)
    assert fact_of(caught.value.errors()[0]) == told


@pytest.mark.parametrize(
    ("kind", "value", "told"),
    [
        (click.IntRange(min=1), "x", "'x' is not a whole number"),
        (click.IntRange(min=1), "0", "0 is below the least, 1"),
        (click.FloatRange(0, 1), "2", "2.0 is not between 0 and 1"),
        (click.FLOAT, "x", "'x' is not a number"),
    ],
)
def test_a_fault_of_an_option_is_told_without_clicks_own_words(
    kind: click.ParamType[Any], value: str, told: str
) -> None:
    with pytest.raises(click.BadParameter) as caught:
        kind.convert(value, None, None)
    assert option_fact(caught.value.message.rstrip(".")) == told
