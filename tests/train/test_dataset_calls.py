"""Tools and calls in every form that people write are the same row, and a faulty one is named."""

from __future__ import annotations

import json
from typing import Any

import pytest
from openai.types.chat import ChatCompletion

from train.dataset import RowForm, canonical, read_sample
from train.dataset.checks.uses import inspect_calls, require_uses
from train.dataset.forms.calls import read_tools
from train.dataset.records import CanonicalRow, Malformed, RowMessage, ToolCall

SCHEMA: dict[str, Any] = {"type": "object", "properties": {"on": {"type": "boolean"}}, "required": ["on"]}
FUNCTION: dict[str, Any] = {"name": "lamp", "description": "Switch it.", "parameters": SCHEMA}
TOOL: dict[str, Any] = {"type": "function", "function": FUNCTION}
FILLED = {"on": {"type": "boolean", "enum": None}, "city": None}
ASK = {"role": "user", "content": "Light on"}
SAID = {"role": "assistant", "content": "It is on."}
OBJECT: dict[str, Any] = {"name": "lamp", "arguments": {"on": True}}
TEXT: dict[str, Any] = {"name": "lamp", "arguments": '{"on": true}'}
CALLED = ToolCall("lamp", '{"on": true}', "c1")
NUMBERED = ToolCall("lamp", '{"on": true}', "call00001")
TURN = RowMessage("assistant", "", learn=True, calls=(CALLED,))


def turn(call: object, **keys: object) -> dict[str, object]:
    return {"role": "assistant", "tool_calls": [call], **keys}


def part(**keys: object) -> dict[str, object]:
    return {"role": "assistant", "content": [keys]}


def row(*messages: object, **keys: object) -> dict[str, object]:
    return {"messages": [ASK, *messages], "tools": [TOOL], **keys}


ANSWER = turn({"id": "c1", **OBJECT})


def rules(sample: CanonicalRow) -> list[str]:
    return [rule for rule, _ in (*sample.notes, *inspect_calls(sample))]


CALLS: list[tuple[dict[str, object], ToolCall]] = [
    (turn({"id": "c1", "type": "function", "function": TEXT}), CALLED),
    (turn({"id": "c1", "type": "function", "function": OBJECT}, content=None), CALLED),
    (turn({"id": "c1", "type": "function", "function": OBJECT}, content=""), CALLED),
    (turn({"id": "c1", "function": OBJECT, "type": None, "index": 0}, refusal=None, audio=None), CALLED),
    (turn({"type": "function", "function": OBJECT}), NUMBERED),
    (turn(OBJECT), NUMBERED),
    (turn({"name": "lamp", "parameters": {"on": True}, "id": "c1"}), CALLED),
    ({"role": "assistant", "tool_calls": json.dumps([{"id": "c1", **TEXT}])}, CALLED),
    ({"role": "assistant", "function_call": TEXT}, NUMBERED),
    ({"role": "assistant", "function_call": TEXT, "content": None, "tool_calls": []}, NUMBERED),
    ({"role": "assistant", "function_call": json.dumps(OBJECT)}, NUMBERED),
    ({"role": "function_call", "content": json.dumps(OBJECT)}, NUMBERED),
    (part(type="tool_call", value=json.dumps(OBJECT)), NUMBERED),
    (part(type="tool_use", id="c1", name="lamp", input={"on": True}), CALLED),
    ({"from": "function_call", "value": json.dumps(OBJECT)}, NUMBERED),
    ({"from": "function_call", "value": json.dumps([TEXT])}, NUMBERED),
]  # fmt: skip


@pytest.mark.parametrize(("written", "call"), CALLS)
def test_a_call_is_an_answer_that_is_learnt_however_it_is_written(
    written: dict[str, object], call: ToolCall
) -> None:
    sample = read_sample(row(written))
    assert sample.messages[1:] == (RowMessage("assistant", "", learn=True, calls=(call,)),)
    assert set(rules(sample)) <= {"D-CALL-ID"}
    again = read_sample(canonical(sample))
    assert (again.messages, again.tools) == (sample.messages, sample.tools)


TOOLS: list[dict[str, object]] = [
    {"tools": [TOOL]},
    {"tools": json.dumps([TOOL])},
    {"tools": [json.dumps(TOOL)]},
    {"tools": [FUNCTION]},
    {"tools": json.dumps([FUNCTION])},
    {"tools": json.dumps(FUNCTION)},
    {"functions": [FUNCTION], "tools": None},
    {"tools": [{"type": "function", **FUNCTION}]},
    {"tools": [{"name": "lamp", "description": "Switch it.", "input_schema": SCHEMA}]},
    {"tools": [{"type": "function", "function": {**FUNCTION, "parameters": json.dumps(SCHEMA)}}]},
    # A table gives every tool the keys of all tools.
    {
        "tools": [
            {
                "type": "function",
                "function": {
                    **FUNCTION,
                    "strict": None,
                    "parameters": {**SCHEMA, "properties": FILLED},
                },
            }
        ]
    },
]  # fmt: skip


@pytest.mark.parametrize("written", TOOLS)
def test_tools_are_openais_however_they_are_written(written: dict[str, Any]) -> None:
    sample = read_sample({"messages": [ASK, SAID], **written})
    found = sample.tools[0]
    properties = found["function"]["parameters"]["properties"]
    assert properties["on"]["type"] == "boolean"
    assert set(properties) == {"on"}
    assert (found["type"], found["function"]["name"], found["function"]["description"]) == (
        "function",
        "lamp",
        "Switch it.",
    )
    assert read_sample(canonical(sample)).tools == sample.tools


@pytest.mark.parametrize("empty", [[], "", "[]", None])
def test_no_tools_are_no_tools(empty: object) -> None:
    sample = read_sample({"messages": [ASK, SAID], "tools": empty})
    assert (sample.tools, canonical(sample)) == ((), {"messages": [ASK, SAID]})


@pytest.mark.parametrize(
    "tool",
    [
        TOOL,
        {"type": "function", "function": {"name": "lamp"}},
        {"type": "function", "function": {**FUNCTION, "strict": True, "more": 1}, "other": 2},
        {"type": "function", "function": {"parameters": {"b": 1, "a": 2}, "name": "n", "strict": False}},
    ],
)
def test_a_tool_is_key_by_key_what_vllm_gives_its_template(tool: dict[str, Any]) -> None:
    from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionToolsParam

    served = ChatCompletionToolsParam.model_validate(tool).model_dump()
    assert json.dumps(read_tools([tool])[0]) == json.dumps(served)


def test_a_turn_is_key_by_key_what_vllm_gives_its_template() -> None:
    from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
    from vllm.renderers.chat_utils import _AssistantParser, _postprocess_messages

    message = turn({"id": "c1", "type": "function", "function": TEXT})
    request: Any = ChatCompletionRequest.model_validate({"messages": [ASK, message]})
    served: Any = [
        {"role": "assistant", "tool_calls": list(_AssistantParser(request.messages[1])["tool_calls"])}
    ]
    _postprocess_messages(served)
    mine = read_sample(row(message)).messages[1].chat()
    assert json.dumps(mine["tool_calls"]) == json.dumps(served[0]["tool_calls"])


def test_what_the_openai_client_dumps_is_read_as_it_was_said() -> None:
    call = {"id": "c1", "type": "function", "function": TEXT}
    choice = {"index": 0, "finish_reason": "tool_calls", "message": {"role": "assistant", "content": None}}
    choice["message"] = {"role": "assistant", "content": None, "refusal": None, "tool_calls": [call]}
    answer = ChatCompletion.model_validate(
        {"id": "x", "created": 1, "model": "m", "object": "chat.completion", "choices": [choice]}
    )
    dumped = answer.choices[0].message.model_dump()
    assert dumped["audio"] is None
    assert read_sample(row(dumped)).messages[1] == TURN
    plain = {**dumped, "tool_calls": None, "content": "It is on.", "annotations": [], "reasoning": ""}
    assert read_sample(row(plain)).messages[1] == RowMessage("assistant", "It is on.", learn=True)


def test_results_are_never_learnt_and_know_their_calls() -> None:
    asked = {"role": "assistant", "tool_calls": [{"id": one, **OBJECT} for one in ("c1", "c2")]}
    results = [{"role": "tool", "tool_call_id": one, "content": one} for one in ("c2", "c1")]
    sample = read_sample(row(asked, *results, SAID))
    assert [(one.role, one.learn, one.call_id) for one in sample.messages[1:]] == [
        ("assistant", True, ""),
        ("tool", False, "c2"),
        ("tool", False, "c1"),
        ("assistant", True, ""),
    ]
    assert rules(sample) == []


@pytest.mark.parametrize(
    "result",
    [
        {"role": "tool", "content": "ok"},
        {"role": "tool", "name": "lamp", "content": [{"type": "text", "text": "ok"}]},
        {"role": "function", "name": "lamp", "content": "ok"},
        {"from": "observation", "value": "ok"},
        {"role": "ipython", "content": "ok"},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "call00001", "content": "ok"}]},
    ],
)
def test_a_result_without_an_id_belongs_to_the_call_that_waits(result: dict[str, object]) -> None:
    sample = read_sample(row({"role": "assistant", "function_call": TEXT}, result, SAID))
    found = sample.messages[2]
    assert (found.role, found.content, found.call_id) == ("tool", "ok", "call00001")
    assert rules(sample) == ["D-CALL-ID"]


def test_a_result_that_is_an_object_is_its_json() -> None:
    call = turn({"id": "c1", "function": OBJECT})
    sample = read_sample(row(call, {"role": "tool", "content": {"state": "on"}}, SAID))
    assert sample.messages[2].content == '{"state": "on"}'


FAULTS: list[tuple[dict[str, object], str, str]] = [
    (row(turn({**OBJECT, "arguments": "{on: 1}"})), "messages[1].tool_calls[0] (lamp)", "D-CALL"),
    (row(turn({"function": {"name": "lamp", "arguments": "[1]"}})), "not a JSON object", "D-CALL"),
    (row(turn({"function": {"name": "lamp", "arguments": '{"on": NaN}'}})), "no JSON", "D-CALL"),
    (row(turn({"function": {"arguments": "{}"}})), "names no tool", "D-CALL"),
    (row(turn("lamp")), "messages[1].tool_calls[0]", "D-CALL"),
    (row(turn({**OBJECT, "nmae": "x"})), "unknown keys ['nmae']", "D-CALL"),
    (row(turn({"type": "custom", "custom": {"name": "x"}})), "custom", "D-CALL"),
    (row({**turn(OBJECT), "role": "user"}), "only the assistant calls", "D-CALL"),
    (row({"from": "function_call", "value": "lamp on"}), "messages[1].value", "D-CALL"),
    (row({"role": "assistant", "content": None}), "messages[1].content is null", "D-SCHEMA"),
    (row({"role": "assistant", "content": " ", "tool_calls": []}), 'content is " "', "D-EMPTY"),
    (row(SAID, tools="lamp"), "tools", "D-SCHEMA"),
    (row(SAID, tools=["lamp"]), "tools[0]", "D-SCHEMA"),
    (row(SAID, tools=[{"type": "web_search"}]), "only functions can be called", "D-SCHEMA"),
    (row(SAID, tools=[{"function": {"parameters": {}}}]), "has no name", "D-SCHEMA"),
    (row({**SAID, "tool_call_id": "c1"}), "its role is assistant", "D-SCHEMA"),
    (row({**SAID, "weight": 2}), "not 0 or 1", "D-SCHEMA"),
    (row({**SAID, "weight": 0, "train": True}), "contradict", "D-SCHEMA"),
    ({"messages": [{**ASK, "train": True}, SAID]}, "only the assistant's turns are learnt", "D-SCHEMA"),
    ({"messages": [{**ASK, "reasoning": "x"}, SAID]}, "only the assistant thinks", "D-SCHEMA"),
    (row({**SAID, "reasoning": "x", "thinking": "y"}), "reasoning twice", "D-SCHEMA"),
    ({"query": "Light on", "answers": "[]", "tools": [TOOL]}, "calls nothing", "D-EMPTY"),
]  # fmt: skip


@pytest.mark.parametrize(("written", "fact", "rule"), FAULTS)
def test_a_faulty_call_is_named_with_its_message(written: dict[str, object], fact: str, rule: str) -> None:
    with pytest.raises(Malformed) as caught:
        read_sample(written)
    assert fact in str(caught.value)
    assert caught.value.rule == rule


@pytest.mark.parametrize(
    ("messages", "tools", "rule"),
    [
        ([turn({"id": "c1", "name": "oven", "arguments": {}})], [TOOL], "D-TOOL"),
        ([ANSWER], "[]", "D-NO-TOOLS"),
        ([turn({"id": "c1", "name": "lamp", "arguments": {"on": "yes"}})], [TOOL], "D-ARGUMENTS"),
        ([{"role": "tool", "content": "ok"}, SAID], [TOOL], "D-RESULT"),
        ([ANSWER, {"role": "tool", "tool_call_id": "c9", "content": ""}], [TOOL], "D-RESULT"),
        ([ANSWER, ASK, SAID], [TOOL], "D-NO-RESULT"),
    ],
)  # fmt: skip
def test_a_call_that_does_not_fit_is_a_finding(messages: list[Any], tools: object, rule: str) -> None:
    assert rule in rules(read_sample(row(*messages, tools=tools)))


OVEN = turn({"id": "c1", "name": "oven", "arguments": {}})
LAMP_PAIR = {"prompt": [ASK], "chosen": [ANSWER], "rejected": [OVEN], "tools": [TOOL]}


@pytest.mark.parametrize(
    ("written", "rule"),
    [
        (row(OVEN), "D-TOOL"),
        ({**LAMP_PAIR, "chosen": [OVEN], "rejected": [ANSWER]}, "D-TOOL"),
        (row({"role": "tool", "tool_call_id": "c9", "content": ""}, SAID), "D-RESULT"),
        (row({**OVEN, "weight": 0}, {"role": "tool", "content": "no such tool"}, SAID), None),
        (row(OVEN, tools=[]), None),
        (LAMP_PAIR, None),
        ({"prompt": [ASK], "completion": [OVEN], "label": False, "tools": [TOOL]}, None),
    ],
)
def test_what_would_be_learnt_wrongly_is_refused_unless_it_was_accepted(
    written: dict[str, object], rule: str | None
) -> None:
    sample = read_sample(written)
    if rule is None:
        return require_uses(sample, frozenset())
    with pytest.raises(Malformed, match=r"calls oven|no call waits") as caught:
        require_uses(sample, frozenset())
    assert caught.value.rule == rule
    assert f"data.accept [{rule}]" in caught.value.remedy
    return require_uses(sample, frozenset({rule}))


def test_a_call_in_the_text_stays_text_and_its_result_is_no_finding() -> None:
    said = '<tool_call>\n{"name": "lamp", "arguments": {"on": true}}\n</tool_call>'
    turns = [("system", "Call tools."), ("human", "On"), ("gpt", said), ("tool", "ok"), ("gpt", "Done.")]
    written = [{"from": sender, "value": value} for sender, value in turns]
    sample = read_sample({"conversations": written, "tools": json.dumps([TOOL])})
    assert (sample.messages[2].content, sample.messages[2].calls) == (said, ())
    assert rules(sample) == []


def test_thoughts_are_read_by_every_name_and_apart_from_what_was_said() -> None:
    thought = RowMessage("assistant", "4", learn=True, reasoning="two and two")
    for key in ("reasoning_content", "reasoning", "thinking"):
        sample = read_sample(row({"role": "assistant", "content": "4", key: "two and two"}))
        assert sample.messages[1] == thought
        assert read_sample(canonical(sample)).messages == sample.messages
    parts = [{"type": "reasoning", "value": "two and two"}, {"type": "text", "value": "4"}]
    assert read_sample(row({"role": "assistant", "content": parts})).messages[1] == thought
    calling = {"from": "function_call", "value": f"<think>why</think>\n{json.dumps(OBJECT)}"}
    found = read_sample(row(calling)).messages[1]
    assert (found.reasoning, found.content, found.calls) == ("why", "", (NUMBERED,))


@pytest.mark.parametrize(
    ("keys", "learnt"),
    [
        ({"weight": 0}, False),
        ({"weight": 1}, True),
        ({"weight": None}, True),
        ({"loss_weight": 0.0}, False),
        ({"train": False}, False),
        ({"training": True}, True),
        ({"training": 0}, False),
    ],
)
def test_an_answers_weight_has_every_name_that_trainers_give_it(
    keys: dict[str, object], learnt: bool
) -> None:
    sample = read_sample(row({**SAID, **keys}, ASK, SAID))
    assert [message.learn for message in sample.messages] == [False, learnt, False, True]


def test_parts_of_a_text_are_joined_as_the_server_joins_them() -> None:
    parts = [{"type": "text", "text": "a", "image_url": None}, "b", {"type": "input_text", "text": "c"}]
    assert (
        read_sample({"messages": [{"role": "user", "content": parts}, SAID]}).messages[0].content == "a\nb\nc"
    )


def test_a_refusal_is_what_the_assistant_said() -> None:
    refused = {"role": "assistant", "content": None, "refusal": "I cannot."}
    assert read_sample(row(refused)).messages[1].content == "I cannot."


def test_xlams_answers_are_calls() -> None:
    calls = json.dumps(
        [{"name": "lamp", "arguments": {"on": True}}, {"name": "lamp", "arguments": {"on": False}}]
    )
    sample = read_sample({"id": 1, "query": "On and off", "answers": calls, "tools": json.dumps([FUNCTION])})
    assert (sample.form, sample.extra) == (RowForm.CALLS, ("id",))
    assert [call.arguments for call in sample.messages[1].calls] == ['{"on": true}', '{"on": false}']


def test_arguments_that_a_table_filled_in_are_left_out() -> None:
    filled = {"id": "c1", "name": "lamp", "arguments": {"on": True, "city": None}}
    assert read_sample(row(turn(filled))).messages[1] == TURN


@pytest.mark.parametrize(
    ("written", "form"),
    [
        ({"prompt": [ASK], "completion": [ANSWER]}, RowForm.PROMPT),
        ({"prompt": [ASK], "completion": [ANSWER], "label": False}, RowForm.KTO),
        ({"prompt": [ASK], "chosen": [ANSWER], "rejected": [SAID]}, RowForm.PREFERENCE),
        (
            {"chosen": [ASK, ANSWER], "rejected": [ASK, turn({"name": "lamp"})]},
            RowForm.PREFERENCE,
        ),
        (
            {
                "input": {"messages": [ASK], "tools": [TOOL], "parallel_tool_calls": True},
                "preferred_output": [ANSWER],
                "non_preferred_output": [SAID],
            },
            RowForm.OPENAI_PREFERENCE,
        ),
    ],
)  # fmt: skip
def test_answers_of_every_kind_may_be_calls(written: dict[str, object], form: RowForm) -> None:
    given = written if form is RowForm.OPENAI_PREFERENCE else {**written, "tools": [TOOL]}
    sample = read_sample(given)
    assert (sample.form, sample.answer) == (form, (TURN,))
    assert [tool["function"]["name"] for tool in sample.tools] == ["lamp"]
    again = read_sample(canonical(sample))
    assert (again.messages, again.rejected, again.tools) == (sample.messages, sample.rejected, sample.tools)
