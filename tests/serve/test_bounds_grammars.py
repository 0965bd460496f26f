"""What constrains an answer: what it costs, told from its text, and whether anything satisfies it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from registry.errors import WardrobeError
from serve.bounds.patterns import cost_of_pattern
from serve.bounds.rules import cost_of_grammar, is_endless
from serve.bounds.schemas import is_endless as is_endless_schema
from serve.errors import BadBody, TooComplex
from tests.serve.constraints import MANY, check, fields

JSON_GRAMMAR = r"""
root ::= object
value ::= object | array | string | number | ("true" | "false" | "null") ws
object ::= "{" ws (string ":" ws value ("," ws string ":" ws value)*)? "}" ws
array ::= "[" ws (value ("," ws value)*)? "]" ws   # as in JSON
string ::= "\"" ([^"\\] | "\\" (["\\/bfnrt] | "u" [0-9a-fA-F] [0-9a-fA-F]))* "\"" ws
number ::= ("-"? ([0-9] | [1-9] [0-9]*)) ("." [0-9]+)? ([eE] [-+]? [0-9]+)? ws
ws ::= ([ \t\n] ws)?
"""
TREE = {
    "type": "object",
    "properties": {"v": {"type": "string"}, "c": {"type": "array", "items": {"$ref": "#"}}},
    "required": ["v", "c"],
}


@pytest.mark.parametrize(
    ("pattern", "loops"),
    [
        (r"[a-zA-Z0-9._%+-]+@[a-zA-Z0-9.-]+\.[a-zA-Z]{2,}", 3),
        (r"\d{4}-\d{2}-\d{2}", 3),
        (r"(?:a|b)(?P<n>c)(?=d)(?!e)(?<=f)\?\*\{\}", 0),
        (r"a*?b+?c??d{1,2}?", 4),
        (r"[*+?{}]\[*", 1),
        (r"(((a+)+)+)+", 4),
        ('{"name": "x"}', 0),
        ("", 0),
    ],
)
def test_the_loops_of_a_regular_expression_are_its_repetitions(pattern: str, loops: int) -> None:
    assert cost_of_pattern(pattern).loops == loops


def test_the_loops_of_a_grammar_are_its_repetitions_and_a_share_of_its_references() -> None:
    assert 14 <= cost_of_grammar(JSON_GRAMMAR).loops <= 24
    assert cost_of_grammar("root ::= " + "a " * 80 + '\na ::= "x*+?"').loops == 10
    assert cost_of_grammar('start: WORD+ "!"\n%import common.WORD').loops == 1


@pytest.mark.parametrize(
    "grammar",
    [
        *(
            "root ::= root",
            "root ::= a\na ::= b\nb ::= a",
            'root ::= "x" root',
            "root ::= root root | a\na ::= root",
        ),
        *("start: start", 'start: "(" start ")"', "?start: a\na: start"),
    ],
)
def test_a_grammar_that_only_ever_refers_on_is_told_apart(grammar: str) -> None:
    assert is_endless(grammar)
    with pytest.raises(BadBody, match="no answer satisfies it"):
        check(structured_outputs={"grammar": grammar})


@pytest.mark.parametrize(
    "grammar",
    [
        *(
            JSON_GRAMMAR,
            'root ::= root "a" | "b"',
            'root ::= "x" root?',
            'root ::= ("x" root)*',
            "root ::= unknown",
        ),
        *('start: "a" | "(" start ")"', "no grammar at all", "", 'root ::= a\na ::= "root ::= root"'),
    ],
)
def test_a_grammar_that_can_end_passes(grammar: str) -> None:
    assert not is_endless(grammar)
    check(structured_outputs={"grammar": grammar})


ENDLESS: list[dict[str, Any]] = [
    {"$ref": "#"},
    {"anyOf": [{"$ref": "#"}]},
    {"allOf": [{"type": "object"}, {"$ref": "#"}]},
    {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}},
    {"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]},
    {"type": "array", "items": {"$ref": "#"}, "minItems": 1},
    {"type": "object", "properties": {"a": {"oneOf": [{"$ref": "#"}]}}, "required": ["a"]},
    {"anyOf": [{"$ref": "#"}, {"$ref": "#/anyOf/0"}, False]},
    {"allOf": [{"$ref": "#/a"}, {"$ref": "#/a"}, {}], "a": {"$ref": "#"}},
]


@pytest.mark.parametrize("schema", ENDLESS)
def test_a_schema_that_only_ever_refers_on_is_refused_in_every_field(schema: dict[str, Any]) -> None:
    assert is_endless_schema(schema)
    for body in fields("json", schema):
        with pytest.raises(BadBody, match="no answer satisfies it"):
            check(**body)


@pytest.mark.parametrize(
    "schema",
    [
        TREE,
        {"type": "object", "properties": {"json": {"$ref": "#"}, "schema": {"$ref": "#"}}},
        {
            "anyOf": [
                {"type": "null"},
                {"type": "object", "properties": {"n": {"$ref": "#"}}, "required": ["n"]},
            ]
        },
        {"$ref": "#/$defs/a~1b", "$defs": {"a/b": {"type": "string"}}},
        {"$ref": "#/$defs/none"},
        {"$ref": "#/a/²", "a": [{"$ref": "#"}]},
        {"$ref": "#/a/" + "9" * 5_000, "a": [1]},
        {"anyOf": [{"$ref": "#"}, True]},
        {"properties": {"a": {"$ref": "#/properties/a"}}},
        {"properties": {f"p{n}": {"type": "string", "pattern": r"^\d{4}-\d\d$"} for n in range(100)}},
        {"$ref": "https://example.org/schema"},
        {"enum": ["$ref", "#"], "default": {"$ref": "#"}},
        {"type": "array", "prefixItems": [{"type": "string"}], "items": {"$ref": "#"}, "minItems": 1},
        {
            "properties": {
                "pattern": {"type": "string"},
                "properties": {"type": "object"},
                "$ref": {"type": "string"},
            }
        },
        {},
    ],
)
def test_a_schema_that_can_be_satisfied_passes_in_every_field(schema: dict[str, Any]) -> None:
    assert not is_endless_schema(schema)
    for body in fields("json", schema):
        check(**body)


@pytest.mark.parametrize(
    ("constraint", "value"),
    [
        ("regex", "(ab|c)*" * 33),
        ("regex", "a" * 8_193),
        ("grammar", "root ::= " + '("a" | "b")* ' * 33),
        ("grammar", "root ::= " + "a " * 300 + '\na ::= "" | [a-z] a'),
        ("grammar", 'root ::= "' + "a" * 8_193 + '"'),
        ("choice", [f"{n:06}" for n in range(9_000)]),
        ("json", {"type": "string", "pattern": "(ab|c)*" * 33}),
        ("json", {"type": "object", "patternProperties": {"^(ab|c)*" + "(ab|c)*" * 33: {}}}),
        ("json", {"properties": {f"p{n}": {"type": "string", "pattern": "a+b+c+"} for n in range(43)}}),
        ("json", MANY),
        ("json", {"type": "array", "items": {"anyOf": [MANY]}}),
        ("json", {"enum": [f"{n:06}" for n in range(9_000)]}),
        (
            "structural_tag",
            {"type": "structural_tag", "format": {"type": "regex", "pattern": "(ab|c)*" * 33}},
        ),
        ("structural_tag", json.dumps({"structures": [{"begin": "a", "schema": MANY, "end": "b"}]})),
    ],
)
def test_what_takes_the_engine_long_is_refused_in_every_field(constraint: str, value: Any) -> None:
    for body in fields(constraint, value):
        with pytest.raises(TooComplex) as caught:
            check(**body)
        assert caught.value.param == next(iter(body))


class Counted(dict[str, Any]):
    """An object of JSON that counts how often it is read."""

    reads = 0

    def get(self, key: str, default: Any = None) -> Any:
        Counted.reads += 1
        return super().get(key, default)


def chain(length: int, last: Any) -> Counted:
    """Return a schema whose references name each other one after the other."""
    links = {f"{n}": Counted(allOf=[Counted({"$ref": f"#/d/{n + 1}"})]) for n in range(length)}
    return Counted({"$ref": "#/d/0", "d": Counted({**links, f"{length}": last})})


@pytest.mark.parametrize("last", [{}, {"$ref": "#"}])
def test_each_link_of_a_chain_of_references_is_read_a_few_times_however_long_it_is(last: Any) -> None:
    counts = []
    for length in (100, 1_000):
        Counted.reads = 0
        assert is_endless_schema(chain(length, last)) == bool(last)
        counts.append(Counted.reads)
    assert counts[1] < 11 * counts[0]


NAMES = ["title", "description", "default", "enum", "const", "examples", "x"]
HOLDERS = ["properties", "$defs", "definitions", "patternProperties", "dependentSchemas"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("holder", HOLDERS)
def test_a_schema_is_looked_at_whatever_its_name(holder: str, name: str) -> None:
    for costly in (MANY, {"type": "string", "pattern": "(ab|c)*" * 33}):
        for body in fields("json", {"type": "object", holder: {name: costly}}):
            with pytest.raises(TooComplex):
                check(**body)


@pytest.mark.parametrize("name", NAMES[:-1])
def test_a_value_is_no_schema_unless_a_reference_names_it(name: str) -> None:
    check(structured_outputs={"json": {name: MANY}})
    for ref in (f"#/{name}", "#/%64efault"):
        with pytest.raises(TooComplex):
            check(structured_outputs={"json": {name: MANY, "anyOf": [{"$ref": ref}]}})


def test_a_forced_tools_parameters_are_looked_at_as_well() -> None:
    tool = {
        "type": "function",
        "function": {"name": "f", "parameters": {"type": "string", "pattern": "a+" * 33}},
    }
    with pytest.raises(TooComplex, match="33 repetitions"):
        check(tools=[tool])


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 65 + "1" + "}" * 65, "not json"])
def test_a_schema_in_a_string_is_parsed_within_the_same_limits(text: str) -> None:
    with pytest.raises(WardrobeError) as caught:
        check(structured_outputs={"json": text})
    assert caught.value.http_status == 400


@pytest.mark.parametrize(
    "value", [None, 5, "text", [], {"json": None}, {"regex": 5}, {"json_schema": 5}, {"format": []}]
)
def test_what_is_no_constraint_is_left_to_the_engine(value: Any) -> None:
    for name in ("structured_outputs", "response_format", "text", "output_config", "tools"):
        check(**{name: value})
