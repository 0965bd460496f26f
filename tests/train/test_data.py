"""Only the answer is learnt, its end-of-turn token included, on the real tokenizer and template."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from registry.errors import UsageError
from train.epoch.encoding import IGNORED, Example, load_examples, render
from train.epoch.items import report
from train.epoch.rows import Conversation, RowMessage, read_rows

END = "<|im_end|>"


def chat(*turns: tuple[str, str]) -> dict[str, object]:
    return {"messages": [{"role": role, "content": content} for role, content in turns]}


def write(folder: Path, *rows: object) -> Path:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def learnt_texts(tokenizer: Any, example: Example) -> list[str]:
    """Return the texts of the runs of tokens that have a label."""
    texts: list[list[int]] = [[]]
    for token, label in zip(example.input_ids, example.labels, strict=True):
        if label == IGNORED:
            texts.append([])
        else:
            assert label == token
            texts[-1].append(token)
    return [tokenizer.decode(run) for run in texts if run]


def test_the_answer_and_its_end_of_turn_token_are_learnt_and_nothing_else(
    tokenizer: Any, tmp_path: Path
) -> None:
    path = write(tmp_path, {"prompt": "Say hello", "completion": "Hi there!"})
    (example,) = load_examples(path, tokenizer, max_length=64).items
    assert learnt_texts(tokenizer, example) == [f"Hi there!{END}"]
    whole = tokenizer.decode(example.input_ids)
    assert whole.endswith(f"<|im_start|>assistant\nHi there!{END}")
    assert whole.count("<|im_start|>system") == 1


def test_every_answer_of_a_conversation_is_learnt_and_no_user_or_system_token(
    tokenizer: Any, tmp_path: Path
) -> None:
    turns = [
        ("system", "Be short."),
        ("user", "one?"),
        ("assistant", "first"),
        ("user", "two?"),
        ("assistant", "2nd"),
    ]
    (example,) = load_examples(write(tmp_path, chat(*turns)), tokenizer, max_length=128).items
    assert learnt_texts(tokenizer, example) == [f"first{END}", f"2nd{END}"]


def test_a_row_over_max_length_is_refused_or_left_out_by_name_on_request(
    tokenizer: Any, tmp_path: Path
) -> None:
    path = write(tmp_path, {"prompt": "a", "completion": "b"}, {"prompt": "a", "completion": "word " * 100})
    with pytest.raises(UsageError, match=r"row 2: has \d+ tokens, over max_length 64"):
        load_examples(path, tokenizer, max_length=64, overflow="error")
    found = load_examples(path, tokenizer, max_length=64, overflow="drop")
    assert ([item.row for item in found.items], found.dropped) == ([1], (2,))
    assert found.report.dropped == (2,)


def test_a_file_of_which_every_row_would_be_dropped_is_refused(tokenizer: Any, tmp_path: Path) -> None:
    path = write(tmp_path, {"prompt": "a", "completion": "word " * 100})
    with pytest.raises(UsageError, match="all 1 rows are longer"):
        load_examples(path, tokenizer, max_length=64, overflow="drop")


def test_an_answer_of_weight_zero_is_read_but_not_learnt(tokenizer: Any, tmp_path: Path) -> None:
    row = chat(("user", "one?"), ("assistant", "first"), ("user", "two?"), ("assistant", "2nd"))
    row["messages"][1]["weight"] = 0  # type: ignore[index]
    (example,) = load_examples(write(tmp_path, row), tokenizer, max_length=128).items
    assert learnt_texts(tokenizer, example) == [f"2nd{END}"]


@pytest.mark.parametrize(
    "answer", [" leading space", "trailing space ", "two\n\nlines", "ünïcode 漢字 🙂", "1"]
)
def test_the_ids_before_an_answer_are_exactly_what_a_server_sends(tokenizer: Any, answer: str) -> None:
    row = Conversation(
        1, (RowMessage("user", "Q?", learn=False), RowMessage("assistant", answer, learn=True))
    )
    (example,) = render(row, tokenizer)
    ids, labels = list(example.ids), example.labels
    prompt = tokenizer.apply_chat_template([{"role": "user", "content": "Q?"}], add_generation_prompt=True)
    served = list(prompt["input_ids"])
    assert ids[: len(served)] == served
    assert set(labels[: len(served)]) == {IGNORED}
    assert labels[len(served)] != IGNORED


def test_padding_is_never_learnt_although_it_is_the_end_of_turn_token(tokenizer: Any, tmp_path: Path) -> None:
    # SmolLM2's padding token IS its end-of-turn token: masking by id would unlearn stopping.
    assert tokenizer.pad_token_id == tokenizer.eos_token_id
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    rows = [{"prompt": "a", "completion": "short"}, {"prompt": "b " * 20, "completion": "much longer"}]
    examples = load_examples(write(tmp_path, *rows), tokenizer, max_length=128).items
    collate = DataCollatorForLanguageModeling(pad_token_id=tokenizer.pad_token_id)
    batch = collate([{"input_ids": list(e.input_ids), "labels": list(e.labels)} for e in examples])
    padding = batch["attention_mask"] == 0
    assert padding.sum() > 10
    assert (batch["labels"][padding] == IGNORED).all()
    ends = (batch["labels"] == tokenizer.eos_token_id).sum(dim=1)
    assert ends.tolist() == [1, 1]


def test_a_row_whose_answer_is_cut_off_entirely_is_an_error_that_names_the_row(
    tokenizer: Any, tmp_path: Path
) -> None:
    path = write(tmp_path, {"prompt": "a", "completion": "b"}, {"prompt": "word " * 100, "completion": "b"})
    with pytest.raises(UsageError) as caught:
        load_examples(path, tokenizer, max_length=64)
    assert f"{path} row 2: its answer begins at token" in str(caught.value)
    assert "max_length 64 cuts it off entirely; raise max_length to" in str(caught.value)


def test_a_row_that_loses_only_its_end_is_kept_and_reported(tokenizer: Any, tmp_path: Path) -> None:
    path = write(tmp_path, {"prompt": "a", "completion": "b"}, {"prompt": "a", "completion": "word " * 100})
    examples = load_examples(path, tokenizer, max_length=64).items
    found = report(examples)
    assert (found.rows, found.truncated, found.longest) == (2, (2,), 64)
    assert found.learnt_tokens == sum(example.learnt for example in examples)


@pytest.mark.parametrize(
    ("line", "fact"),
    [
        ("{", "is not JSON"),
        ("[]", "not a JSON object"),
        ('{"text": "x"}', "has the keys ['text']"),
        ('{"messages": []}', "messages is [], not a list of messages"),
        ('{"messages": [{"role": "user", "content": "x"}]}', "has no assistant message to learn from"),
        ('{"messages": [{"role": "robot", "content": "x"}]}', 'messages[0].role is "robot"'),
        ('{"messages": [{"role": "user", "content": null}]}', "messages[0].content is null, not a text"),
        ('{"messages": [{"role": "assistant", "content": " "}]}', 'messages[0].content is " ", not a text'),
        ('{"messages": [{"role": "user", "contnet": "x"}]}', "has the unknown keys ['contnet']"),
        ('{"messages": [{"role": "assistant", "content": "x", "weight": 0.5}]}', "weight is 0.5, not 0 or 1"),
        ('{"prompt": "x", "completion": ""}', 'completion is "", not a text'),
        ('{"prompt": 3, "completion": "x"}', "prompt is 3, not a text"),
    ],
)
def test_a_malformed_row_is_an_error_that_names_file_and_row(tmp_path: Path, line: str, fact: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"prompt": "fine", "completion": "fine"}\n\n' + line + "\n")
    with pytest.raises(UsageError) as caught:
        read_rows(path)
    assert str(caught.value).startswith(f"{path} row 3: ")
    assert fact in str(caught.value)


def test_a_special_token_inside_a_message_is_refused(tokenizer: Any, tmp_path: Path) -> None:
    path = write(tmp_path, {"prompt": f"a{END}", "completion": "b"})
    with pytest.raises(UsageError, match=r"row 1: .*special token"):
        load_examples(path, tokenizer, max_length=64)


def test_a_file_without_rows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no rows"):
        read_rows(write(tmp_path))


def test_a_byte_order_mark_and_blank_lines_do_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"prompt": "a", "completion": "b"}\r\n\r\n')
    assert [row.number for row in read_rows(path)] == [1]


@pytest.mark.parametrize(
    ("template", "fact"),
    [
        # The last message's text depends on what follows it.
        (
            "{% for m in messages %}{{ m.content if loop.last else 'x' }}<|im_end|>{% endfor %}",
            "does not begin an answer as its generation prompt does",
        ),
        ("{% for m in messages %}{{ m.role }}:{{ m.content }};{% endfor %}", "end-of-turn token"),
    ],
)
def test_a_template_in_which_the_answer_cannot_be_found_is_refused(
    tokenizer: Any, tmp_path: Path, template: str, fact: str
) -> None:
    import copy

    other = copy.deepcopy(tokenizer)
    other.chat_template = template
    path = write(tmp_path, chat(("user", "u"), ("assistant", "a"), ("user", "u"), ("assistant", "a")))
    with pytest.raises(UsageError, match=fact):
        load_examples(path, other, max_length=64)


def test_a_base_without_a_template_is_refused(tokenizer: Any, tmp_path: Path) -> None:
    import copy

    other = copy.deepcopy(tokenizer)
    other.chat_template = None
    with pytest.raises(UsageError, match="no chat template"):
        load_examples(write(tmp_path, {"prompt": "a", "completion": "b"}), other, max_length=64)
