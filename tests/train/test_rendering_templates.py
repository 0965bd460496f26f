"""The models' own templates that TRL ships: every answer is learnt behind the very ids that vLLM sends."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deploy.reference.templates import TABLE
from tests.train.bases import ends_of, shipped_templates, speaking
from tests.train.template_table import measured
from tests.train.vllm_prompts import content_in_parts, served_ids
from train.dataset.records import Conversation, RowMessage
from train.rendering.content_format import walks_over_parts
from train.rendering.examples import render
from train.rendering.interface import IGNORED, LabelledTokens, Unrenderable
from train.rendering.tokens import tokens_of

TEMPLATES = shipped_templates()
SINGLE = (("user", "one?"), ("assistant", "first"))
TWO = (*SINGLE, ("user", "two?"), ("assistant", "second"))
SYSTEM = (("system", "Be short."), *TWO)
DEVELOPER = (("developer", "Be short."), *TWO)
NO_SYSTEM_TURN = {"gemma"}


def turns(*pairs: tuple[str, str], thoughts: bool = False) -> tuple[RowMessage, ...]:
    return tuple(
        RowMessage(
            role, text, role == "assistant", f"Hm, {text}." if thoughts and role == "assistant" else ""
        )
        for role, text in pairs
    )


def asked(message: RowMessage) -> dict[str, Any]:
    """Return a turn as a client sends it."""
    thought = {"reasoning": message.reasoning} if message.reasoning else {}
    return {"role": message.role, "content": message.content, **thought}


def runs(example: LabelledTokens) -> Iterator[tuple[int, int]]:
    """Yield begin and end of what is learnt, answer by answer."""
    begin = None
    for place, label in enumerate((*example.labels, IGNORED)):
        if label != IGNORED and begin is None:
            begin = place
        elif label == IGNORED and begin is not None:
            yield begin, place
            begin = None


def check(tokenizer: Any, messages: tuple[RowMessage, ...]) -> list[str]:
    """Check every answer of a row against vLLM; return the texts that are learnt."""
    stops = {tokenizer.convert_tokens_to_ids(one) for one in ends_of(tokenizer.name_or_path.rsplit("/")[-1])}
    learnt: list[int] = []
    texts: list[str] = []
    for example in render(Conversation(1, messages), tokenizer):
        found = list(runs(example))
        assert len(found) == len(example.answers)
        for index, (begin, end) in zip(example.answers, found, strict=True):
            assert list(example.ids[:begin]) == served_ids(
                tokenizer, [asked(one) for one in messages[:index]]
            )
            assert example.ids[end - 1] in stops
            assert not stops & set(example.ids[begin : end - 1])
            texts.append(tokenizer.decode(example.ids[begin:end]))
            assert messages[index].content in texts[-1]
        learnt += example.answers
    assert learnt == [index for index, message in enumerate(messages) if message.learn]
    return texts


@pytest.fixture(params=TEMPLATES, scope="module")
def tokenizer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    name = request.param
    return speaking(tmp_path_factory.mktemp("bases") / name, TEMPLATES[name], ends_of(name))


def name_of(tokenizer: Any) -> str:
    return Path(tokenizer.name_or_path).name


@pytest.mark.parametrize("conversation", [SINGLE, TWO], ids=["one answer", "two answers"])
def test_an_answer_stands_behind_the_servers_prompt_and_ends_where_the_server_stops(
    tokenizer: Any, conversation: Any
) -> None:
    check(tokenizer, turns(*conversation))


@pytest.mark.parametrize("conversation", [SYSTEM, DEVELOPER], ids=["system", "developer"])
def test_a_system_turn_is_rendered_as_the_server_does_or_the_way_out_is_named(
    tokenizer: Any, conversation: Any
) -> None:
    if name_of(tokenizer) in NO_SYSTEM_TURN:
        with pytest.raises(Unrenderable) as caught:
            render(Conversation(1, turns(*conversation)), tokenizer)
        assert caught.value.remedy.startswith("put the system's text into the first user turn")
    else:
        check(tokenizer, turns(*conversation))


def test_reasoning_is_learnt_where_the_template_shows_it_and_told_where_not(tokenizer: Any) -> None:
    messages = turns(*TWO, thoughts=True)
    texts = check(tokenizer, messages)
    hidden = {index for one in render(Conversation(1, messages), tokenizer) for index in one.thoughtless}
    assert hidden == {
        index for index, text in zip((1, 3), texts, strict=True) if messages[index].reasoning not in text
    }


def test_content_goes_in_parts_to_the_templates_that_vllm_gives_parts(tokenizer: Any) -> None:
    template = tokenizer.chat_template
    assert walks_over_parts(template) == content_in_parts(template)


def test_what_is_tokenised_in_pieces_has_the_ids_of_the_whole(tokenizer: Any) -> None:
    messages = turns(*TWO, ("user", "  three?\n\n"), ("assistant", "\n third, 3.141"), thoughts=True)
    tokens = tokens_of(tokenizer)
    for example in render(Conversation(1, messages), tokenizer):
        last = example.answers[-1]
        begin = [begin for begin, _ in runs(example)][-1]
        served = served_ids(tokenizer, [asked(one) for one in messages[:last]])
        assert list(example.ids[:begin]) == served
        assert tokens.decode(example.ids) == tokens.decode(tuple(served)) + tokens.decode(example.ids[begin:])


def test_the_page_on_templates_says_what_is_measured(tokenizer: Any) -> None:
    # `python -m tests.train.template_table` writes it anew.
    assert json.loads(TABLE.read_text(encoding="utf-8"))[name_of(tokenizer)] == measured(tokenizer)
