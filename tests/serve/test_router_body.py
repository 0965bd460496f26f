"""The body: what is read, what is refused, and that the rest stays the client's own bytes."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from serve.errors import BadBody
from serve.protocol.body import (
    SERVER_PATH_FIELDS,
    cap_tokens,
    join_fields,
    parse_fields,
)
from serve.protocol.paths import ENDPOINTS

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(body=st.dictionaries(st.text(), JSON, max_size=5), spaced=st.booleans(), escaped=st.booleans())
def test_rewriting_changes_the_model_and_nothing_else(
    body: dict[str, object], spaced: bool, escaped: bool
) -> None:
    body = {**body, "model": "support"}
    text = json.dumps(body, ensure_ascii=escaped, indent=1 if spaced else None).encode(
        "utf-8", "surrogatepass"
    )
    fields = parse_fields(text, frozenset())
    fields["model"] = Raw(b'"support@3"')
    assert json.loads(join_fields(fields)) == {**body, "model": "support@3"}


def test_the_bytes_of_every_other_value_stay_as_the_client_wrote_them() -> None:
    values = (
        b"1e400",
        b"123456789012345678901234567890",
        b"0.10",
        b'"\\u00e9\\/"',
        b'{"b": 1,\n "a":2, "a":3}',
    )
    for value in values:
        fields = parse_fields(b'{"model":"a", "x": ' + value + b"}", frozenset())
        fields["model"] = Raw(b'"a@1"')
        assert join_fields(fields) == b'{"model":"a@1","x":' + value + b"}"


@pytest.mark.parametrize(
    "text",
    [
        b'{"model":"evil","model":"support"}',
        b'{"model":"evil","mod\\u0065l":"support"}',
        b'{"x":{"model":"support"},"model":"evil"}',
        b'{"x":"\\"model\\":\\"support\\"","model":"evil"}',
    ],
)
def test_what_goes_on_has_one_model_however_it_was_spelled(text: bytes) -> None:
    fields = parse_fields(text, frozenset())
    fields["model"] = Raw(b'"support@3"')
    pairs = json.loads(join_fields(fields), object_pairs_hook=list)
    assert [value for key, value in pairs if key == "model"] == ["support@3"]


@pytest.mark.parametrize(
    "text", [b"", b"[1]", b'"x"', b"{", b'{"model":"x"} {}', b'{"a":NaN}', b"\xff\xfe{\x00}\x00"]
)
def test_what_is_no_json_object_is_refused(text: bytes) -> None:
    with pytest.raises(BadBody, match="is not a JSON object"):
        parse_fields(text, frozenset())


@pytest.mark.parametrize("name", sorted(SERVER_PATH_FIELDS))
def test_a_field_that_names_a_path_of_the_server_is_refused_by_name(name: str) -> None:
    with pytest.raises(BadBody, match=name) as caught:
        parse_fields(json.dumps({"model": "support", name: None}).encode(), SERVER_PATH_FIELDS)
    assert caught.value.param == name


def test_an_escaped_spelling_of_such_a_field_is_refused_too() -> None:
    with pytest.raises(BadBody):
        parse_fields(b'{"lora\\u005fpath":"/etc"}', SERVER_PATH_FIELDS)


CAPS = sorted({endpoint.cap_fields for endpoint in ENDPOINTS.values() if endpoint.cap_fields})
CHAT = ("max_completion_tokens", "max_tokens")


def capped(body: dict[str, object], names: tuple[str, ...]) -> dict[str, object]:
    """Return what goes on of a body where an answer may have 50 tokens."""
    fields = parse_fields(json.dumps(body).encode(), frozenset())
    cap_tokens(fields, names, 50)
    forwarded: dict[str, object] = json.loads(join_fields(fields))
    return forwarded


@pytest.mark.parametrize("names", CAPS)
@pytest.mark.parametrize("value", [51, 5_000.0, 1e30, "5000", " 5_000.0", "1e4", "x", [1], {}, 0.5])
def test_every_field_that_caps_an_answer_is_held_to_the_limit_however_its_number_is_written(
    names: tuple[str, ...], value: object
) -> None:
    for name in names:
        for before, after in (({}, {"max_tokens_": 1}), (dict.fromkeys(names, 1), {}), ({}, {"n": 1})):
            body = {**before, name: value, **after}
            with pytest.raises(BadBody) as caught:
                capped(body, names)
            assert caught.value.param == name


@pytest.mark.parametrize("names", CAPS)
def test_a_missing_limit_of_tokens_becomes_the_servers_whatever_other_fields_say(
    names: tuple[str, ...],
) -> None:
    foreign: dict[str, object] = {name: 1 for one in CAPS for name in one if name not in names}
    bodies: list[dict[str, object]] = [{}, foreign, {**foreign, "min_tokens": 2}, dict.fromkeys(names)]
    for body in bodies:
        assert capped(body, names) == {**body, names[0]: 50}


@pytest.mark.parametrize("value", [50, 50.0, "50", 1, "0", -1])
def test_a_lower_limit_of_tokens_goes_on_as_the_client_wrote_it(value: object) -> None:
    for body in ({name: value} for name in CHAT):
        assert capped(body, CHAT) == body
    assert capped({CHAT[0]: value, CHAT[1]: None}, CHAT) == {CHAT[0]: value, CHAT[1]: None}


def test_of_a_field_that_came_twice_the_last_is_held_to_the_limit_and_goes_on() -> None:
    fields = parse_fields(b'{"max_tokens":5000,"max\\u005ftokens":7}', frozenset())
    cap_tokens(fields, CHAT, 50)
    assert join_fields(fields) == b'{"max_tokens":7}'
    with pytest.raises(BadBody, match="5000 exceeds this server's 50"):
        cap_tokens(parse_fields(b'{"max_tokens":7,"max_tokens":5000}', frozenset()), CHAT, 50)


@pytest.mark.parametrize("number", [b"1e999", b"-1e999", b'"' + b"9" * 5_000 + b'"'])
def test_a_number_that_nobody_can_read_caps_nothing(number: bytes) -> None:
    with pytest.raises(BadBody, match="is not a whole number"):
        cap_tokens(parse_fields(b'{"max_tokens":' + number + b"}", frozenset()), CHAT, 50)


def test_more_tokens_than_an_answer_may_have_cannot_be_its_least() -> None:
    with pytest.raises(BadBody, match="min_tokens: 51 exceeds this server's 50"):
        capped({"max_tokens": 5, "min_tokens": "51"}, CHAT)
