"""What constrains an answer: that which unrolls to much is refused, and what people send is not."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import Raw

from serve.bounds.grammars import CONSTRAINTS, check_grammars
from serve.bounds.patterns import TOKEN, cost_of_pattern
from serve.bounds.rules import cost_of_grammar
from serve.errors import BadBody, TooComplex
from tests.serve.constraints import LIMITS, MANY_256, check, fields

REAL_PATTERNS = [
    r"^[a-zA-Z0-9._%+-]+@[a-zA-Z0-9.-]+\.[a-zA-Z]{2,}$",
    r"^\+?1?[-. ]?\(?\d{3}\)?[-. ]?\d{3}[-. ]?\d{4}$",
    r"^[^@\s]+@[^@\s]+\.[^@\s]+$",
    r"^(([a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9\-]*[a-zA-Z0-9])\.)*([A-Za-z0-9]|[A-Za-z0-9][A-Za-z0-9\-]*[A-Za-z0-9])$",
    r"^[0-9a-f]{8}-[0-9a-f]{4}-[1-5][0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$",
    r"^https?://[^\s/$.?#].[^\s]*$",
    r"^(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(?:-((?:0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*)(?:\.(?:0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*))*))?(?:\+([0-9a-zA-Z-]+(?:\.[0-9a-zA-Z-]+)*))?$",
    r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d+)?(Z|[+-]\d{2}:\d{2})$",
    r"^.{1,100}$",
    r"^[A-Z][a-z]+( [A-Z][a-z]+)*$",
    r"^[\w\s,.!?-]{1,200}$",
    r"^-?\d+(\.\d+)?([eE][+-]?\d+)?$",
    r"^[A-Z]{2}\d{2}[A-Z0-9]{11,30}$",
    r"^(\w+\s){0,9}\w+$",
    r"^#?([a-f0-9]{6}|[a-f0-9]{3})$",
    r"^\s*\S+\s+\S+\s*$",
    r"^\$[0-9]{1,3}(?:,?[0-9]{3})*(?:\.[0-9]{2})?$",
    r"^(?:[^,]{1,20},){0,10}[^,]{1,20}$",
    r"```json\n(.|\n)*\n```",
    r"Thought: .{1,200}\nAction: (search|answer)\[.{1,100}\]",
    r"^(?!.*\.\.)[a-z.]{3,30}$",
    r"^(([0-9]|[1-9][0-9]|1[0-9]{2}|2[0-4][0-9]|25[0-5])\.){3}([0-9]|[1-9][0-9]|1[0-9]{2}|2[0-4][0-9]|25[0-5])$",
]


def text(most: int) -> dict[str, Any]:
    return {"type": "string", "maxLength": most}


@pytest.mark.parametrize(
    ("constraint", "value"),
    [
        ("json", {"anyOf": [text(n + 1) for n in range(30)]}),
        ("json", {"type": "object", "properties": {f"p{n}": text(n + 1_000) for n in range(4)}}),
        ("json", {"anyOf": [{"type": "string", "minLength": n + 100} for n in range(6)]}),
        ("json", {"anyOf": [{"type": "string", "pattern": f"[^{n}]{{1,170}}"} for n in range(4)]}),
        ("json", {"items": {"anyOf": [{"properties": MANY_256 | {f"q{n}": {}}} for n in range(3)]}}),
        ("json", {"anyOf": [{"minimum": n, "maximum": 2 * n} for n in range(1_300)]}),
        ("json", {"anyOf": [{"type": "string", "format": "uri"}] * 650}),
        *(
            ("regex", one)
            for one in (
                ".?" * 9,
                ".{0,9}" * 2,
                "(.?){0,9}",
                "(.{1,9}){1,9}",
                "(.{1,9}[a-z])+",
                "." * 641,
                "[a-z]?" * 11,
                "(.|..)?" * 9,
                "(.|..){0,20}",
                "a|(b|.?.?.?)(.?.?.?)(.?.?.?)",
                "[^a]{1,200}b" * 4,
                "[ -~]{0,8}{0,8}",
            )
        ),
        ("grammar", "root ::=" + " a" * 11 + '\na ::= "" | [^x]'),
        ("grammar", "root ::=" + ' [^"]?' * 9),
        ("grammar", "start: /" + ".?" * 9 + "/"),
        ("grammar", 'start: /.{1,9}/ ~ 1..9 "a"'),
    ],
)
def test_what_unrolls_to_much_is_refused_however_few_bytes_it_has(constraint: str, value: Any) -> None:
    for body in fields(constraint, value):
        with pytest.raises(TooComplex, match=r"limits\.max_(repetitions|loops|properties)"):
            check(**body)


@pytest.mark.parametrize("pattern", REAL_PATTERNS)
def test_patterns_as_people_write_them_pass(pattern: str) -> None:
    for body in fields("regex", pattern) + fields("json", {"type": "string", "pattern": pattern}):
        check(**body)


def test_a_model_of_a_hundred_fields_with_some_lengths_and_long_enums_passes() -> None:
    optional = {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None}
    item = {"type": "object", "properties": {f"a{n}": {"type": "integer", "minimum": 0} for n in range(30)}}
    model = {
        "type": "object",
        "properties": {
            **{f"f{n}": {"title": f"F {n}", **optional} for n in range(100)},
            **{f"t{n}": text(200) for n in range(20)},
            "name": text(100),
            "about": text(5_000),
            "mail": {"type": "string", "format": "email"},
            "unit": {"anyOf": [text(n) for n in (8, 16, 32)] + [{"type": "null"}]},
            "kind": {"enum": [f"value {n}" for n in range(200)]},
            "items": {"type": "array", "maxItems": 100, "items": {"$ref": "#/$defs/item"}},
        },
        "$defs": {"item": item},
        "required": ["name", "kind"],
    }
    for body in fields("json", model):
        check(**body)


@pytest.mark.parametrize("choice", [None, "auto", "none", {"type": "auto"}, {"type": "none"}])
@pytest.mark.parametrize("strict", [None, False, "left out"])
def test_tools_unroll_to_nothing_where_none_is_forced_or_strict(choice: Any, strict: Any) -> None:
    schema = {"type": "object", "properties": {f"p{n}": text(n + 500) for n in range(10)}}
    function: dict[str, Any] = {"name": "f", "parameters": schema}
    if strict != "left out":
        function["strict"] = strict
    tools = [{"type": "function", "function": function}]
    check(tools=tools, tool_choice=choice)
    check(tools=tools)
    strict_one = {"type": "function", "function": {**function, "strict": True}}
    forced = ("required", {"type": "function", "function": {"name": "f"}}, {"type": "tool", "name": "f"})
    bodies: list[dict[str, Any]] = [{"tools": [strict_one]}]
    for body in (*bodies, *({"tools": tools, "tool_choice": one} for one in forced)):
        with pytest.raises(TooComplex, match="max_repetitions"):
            check(**body)


def test_fields_and_tools_share_the_bytes_and_descriptions_are_none() -> None:
    def tool(words: str, values: int) -> dict[str, Any]:
        schema = {"type": "object", "properties": {"a": {"enum": [f"{n:06}" for n in range(values)]}}}
        return {"type": "function", "function": {"name": "f", "description": words, "parameters": schema}}

    check(tools=[tool("x" * 10_000, 100) for _ in range(30)])
    half = [tool("", 4_000)]
    check(tools=half)
    with pytest.raises(TooComplex, match="max_grammar_bytes"):
        check(tools=half * 2)
    with pytest.raises(TooComplex, match="max_grammar_bytes"):
        check(tools=half, structured_outputs={"choice": [f"{n:06}" for n in range(4_000)]})


@pytest.mark.parametrize("name", sorted(CONSTRAINTS))
@pytest.mark.parametrize("number", [b"1e999", b"-1e999"])
def test_a_number_that_nothing_can_hold_is_refused_in_every_field(name: str, number: bytes) -> None:
    for value in (number, b"[" + number + b"]", b'{"json":{"minimum":' + number + b"}}"):
        with pytest.raises(BadBody) as caught:
            check_grammars({name: Raw(value)}, LIMITS)
        assert (caught.value.param, caught.value.http_status) == (name, 400)
    with pytest.raises(BadBody):
        check(structured_outputs={"json": '{"minimum": 1e999}'})


@pytest.mark.parametrize("sign", ["[", "(?<", "(?P<", "{0", "{", "(", "{1,", "\\", "[]", "(?"])
def test_a_pattern_is_read_in_as_many_steps_as_it_has_signs(sign: str) -> None:
    steps = [one.span() for one in TOKEN.finditer(sign * 1_000)]
    assert [begin for begin, _ in steps[1:]] == [end for _, end in steps[:-1]]
    assert steps[-1][1] == 1_000 * len(sign)
    cost_of_pattern(sign * 4_000)
    cost_of_grammar("root ::= " + sign * 4_000)
