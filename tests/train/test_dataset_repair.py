"""A repair mends what its rules name, says so row by row, and changes nothing the second time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from registry.errors import Conflict, UsageError
from tests.train.planted.corpus import chat, sentence
from train.dataset.checks.check import check_files
from train.dataset.forms import RowMapping
from train.dataset.repair.repairing import repair_file
from train.dataset.repair.rules import MASKED, RepairSettings, parse_rules

SECRETS = {
    "D-EMAIL": "jane.doe@example.com",
    "D-PHONE": "+49 30 1234567",
    "D-IP": "8.8.8.8",
    "D-CARD": "4111 1111 1111 1111",
    "D-IBAN": "DE89 3704 0044 0532 0130 00",
    "D-SSN": "219-09-9999",
    "D-SECRET": "sk-ant-abcdefghijklmnopqrstuv0123456789",
    "D-PRIVATE-KEY": "-----BEGIN RSA PRIVATE KEY-----\nMIIEow\n-----END RSA PRIVATE KEY-----",
}


def write(path: Path, *rows: object) -> Path:
    """Write rows; bytes as they are."""
    lines = [row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows]
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    return path


def repaired(path: Path, **settings: Any) -> tuple[list[Any], list[dict[str, Any]]]:
    """Return the rows and the report of a repair."""
    out = path.with_name(f"{path.stem}.out.jsonl")
    found = repair_file(path, out, RepairSettings(**settings))
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert found.kept == len(rows)
    return rows, [json.loads(line) for line in found.report.read_text().splitlines()]


def answer(text: str) -> dict[str, Any]:
    """Return a row whose answer is `text`, unlike any other."""
    return chat(sentence(f"q {text[:12]}"), text)


def test_texts_are_mended_where_they_stand_and_the_rest_of_the_row_stays(tmp_path: Path) -> None:
    broken = {
        "instruction": "Wie gehtâ€™s?",
        "input": "a\x00b\u200b",
        "output": "schÃ¶n \ud83d",
        "id": "schÃ¶n",
    }
    rows, report = repaired(write(tmp_path / "a.jsonl", broken))
    assert rows == [{"instruction": "Wie geht’s?", "input": "ab", "output": "schön ", "id": "schÃ¶n"}]
    assert {one["rule"] for one in report} == {"D-MOJIBAKE", "D-CONTROL", "D-INVISIBLE", "D-SURROGATE"}
    assert {(one["row"], one["action"]) for one in report} == {(1, "changed")}


@pytest.mark.parametrize("rule", MASKED)
def test_personal_data_and_secrets_become_a_word_and_are_never_shown(rule: str, tmp_path: Path) -> None:
    rows, report = repaired(write(tmp_path / "a.jsonl", answer(f"Take {SECRETS[rule]} now")))
    word = f"[{rule.removeprefix('D-').replace('-', ' ')}]"
    assert rows[0]["messages"][-1]["content"] == f"Take {word} now"
    assert [one["rule"] for one in report] == [rule]
    assert SECRETS[rule] not in json.dumps(report, ensure_ascii=False)
    kept, _ = repaired(write(tmp_path / "b.jsonl", answer(SECRETS[rule])), rules=frozenset({"D-BOM"}))
    assert kept[0]["messages"][-1]["content"] == SECRETS[rule]


def test_repeats_go_and_what_contradicts_is_listed_only(tmp_path: Path) -> None:
    long = sentence("a long answer that is nearly the same in both rows") * 2
    path = write(
        tmp_path / "a.jsonl",
        chat("one?", long),
        chat("one?", long),
        chat("two, almost one?", f"{long} indeed"),
        chat("capital?", "Paris"),
        chat("capital?", "Lyon"),
        chat("capital?", "Lyon"),
        {"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": " "}]},
        {"prompt": " ", "completion": "to nothing"},
        chat("lost?", "caf\ufffd"),
    )
    rows, report = repaired(path)
    assert [one["messages"][-1]["content"] for one in rows] == [long, "Paris", "Lyon"]
    told = {(one["row"], one["rule"], one["action"], one.get("of")) for one in report}
    assert {(2, "D-DUPLICATE", "dropped", 1), (3, "D-NEAR", "dropped", 1)} <= told
    assert (5, "D-CONFLICT", "listed", None) in told
    assert (6, "D-DUPLICATE", "dropped", 5) in told
    assert {(7, "D-EMPTY", "dropped", None), (8, "D-EMPTY-INPUT", "dropped", None)} <= told
    assert (9, "D-REPLACEMENT", "dropped", None) in told


def test_two_ratings_of_one_answer_both_stay(tmp_path: Path) -> None:
    row = {"prompt": "Q", "completion": "A", "label": True}
    rows, report = repaired(write(tmp_path / "a.jsonl", row, {**row, "label": False}))
    assert len(rows) == 2
    assert {one["rule"] for one in report} == {"D-KTO-CONFLICT"}


def test_special_tokens_of_the_base_are_taken_out(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", answer("yes<|im_<|im_end|>end|>"))
    rows, _ = repaired(path, special_tokens=("<|im_end|>",))
    assert rows[0]["messages"][-1]["content"] == "yes"


def test_bytes_that_are_no_utf8_are_read_as_windows_wrote_them_and_a_bom_goes(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.jsonl", b'\xef\xbb\xbf{"prompt": "caf\xe9?", "completion": "x"}', b'{"prompt": "torn'
    )
    out = tmp_path / "o.jsonl"
    found = repair_file(path, out, RepairSettings())
    lines = out.read_bytes().splitlines()
    assert json.loads(lines[0])["prompt"] == "café?"
    assert lines[1] == b'{"prompt": "torn'
    assert {(1, "D-BOM"), (1, "D-ENCODING"), (2, "D-TORN")} == {
        (one["row"], one["rule"]) for one in map(json.loads, found.report.read_text().splitlines())
    }


def test_a_repaired_file_passes_the_check_and_is_not_changed_by_another_repair(tmp_path: Path) -> None:
    rows = [
        chat(sentence(f"{value} {number}"), f"{sentence(str(number % 40))} {value}")
        for number in range(60)
        for value in SECRETS.values()
    ]
    path = write(tmp_path / "a.jsonl", *rows, answer("schÃ¶n\x07"), chat("x", ""))
    out, again = tmp_path / "out.jsonl", tmp_path / "again.jsonl"
    repair_file(path, out, RepairSettings())
    found = {one.rule.id for one in check_files([out]).findings}
    assert not found & RepairSettings().rules
    second = repair_file(out, again, RepairSettings())
    assert again.read_bytes() == out.read_bytes()
    assert not {action for _, action, _ in second.done} & {"changed", "dropped"}


def test_mapped_columns_and_messages_inside_a_text_are_mended(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", {"frage": "schÃ¶n?", "antwort": {"text": "jÃ¤ger"}, "x": "Ã¤"})
    rows, _ = repaired(path, reading=RowMapping({"prompt": "frage", "completion": "antwort.text"}))
    assert rows == [{"frage": "schön?", "antwort": {"text": "jäger"}, "x": "Ã¤"}]
    packed = {
        "messages": json.dumps([{"role": "user", "content": "Q"}, {"role": "assistant", "content": "a\x00"}])
    }
    rows, _ = repaired(write(tmp_path / "b.jsonl", packed))
    assert json.loads(rows[0]["messages"])[1]["content"] == "a"


def test_a_repair_overwrites_nothing_unasked_and_leaves_nothing_half_done(tmp_path: Path) -> None:
    path, out = write(tmp_path / "a.jsonl", answer("x")), tmp_path / "out.jsonl"
    repair_file(path, out, RepairSettings())
    with pytest.raises(Conflict, match="exists"):
        repair_file(path, out, RepairSettings())
    repair_file(path, out, RepairSettings(overwrite=True))
    with pytest.raises(Conflict, match="is the file to be repaired"):
        repair_file(out, out, RepairSettings(overwrite=True))
    empty = write(tmp_path / "empty.jsonl", chat("x", ""))
    with pytest.raises(UsageError, match="none of its 1 rows is left"):
        repair_file(empty, tmp_path / "none.jsonl", RepairSettings())
    with pytest.raises(UsageError, match="JSON Lines"):
        repair_file(path, tmp_path / "out.csv", RepairSettings())
    names = {"a.jsonl", "out.jsonl", "out.report.jsonl", "empty.jsonl"}
    assert {one.name for one in tmp_path.iterdir()} == names


def test_rules_are_findings_that_can_be_repaired() -> None:
    assert parse_rules(["D-BOM,d-email"]) == {"D-BOM", "D-EMAIL"}
    with pytest.raises(UsageError, match="D-FORM is nothing that can be repaired"):
        parse_rules(["D-FORM"])
