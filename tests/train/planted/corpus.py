"""Writes the planted files: clean rows of made-up sentences with one fault of each kind among them.

Each fault names the finding that it must give; the rows are known because they are counted while written.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

_VOCABULARY = """
amber basin cedar delta ember fjord grove harbor island juniper kettle lantern meadow nectar orchard pebble
quarry river saddle timber umbra valley willow yonder zephyr anchor bridge copper dapple elder
"""
WORDS = _VOCABULARY.split()


@dataclass
class Planted:
    """One file being written; `expected` are (finding, row)."""

    name: str
    lines: list[bytes] = field(default_factory=list)
    expected: list[tuple[str, int]] = field(default_factory=list)

    def add(self, row: object, *rules: str) -> None:
        """Append a row, raw bytes or JSON, that must give `rules`."""
        line = (
            row
            if isinstance(row, bytes)
            else json.dumps(row, ensure_ascii=False).encode("utf-8", "surrogatepass")
        )
        self.lines.append(line)
        self.expected += [(rule, len(self.lines)) for rule in rules]

    def write(self, folder: Path) -> Path:
        """Write the file and return its path."""
        path = folder / self.name
        path.write_bytes(b"\n".join(self.lines) + b"\n")
        return path


def sentence(seed: str, words: int = 14) -> str:
    """Return a sentence that no other seed gives."""
    chance = random.Random(seed)
    return " ".join(chance.choice(WORDS) + chance.choice(("", "s", "ing", "like")) for _ in range(words))


def chat(question: str, answer: str) -> dict[str, object]:
    """Return a row of one question and one answer."""
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


def clean(seed: str) -> dict[str, object]:
    """Return a row without a fault."""
    return chat(f"What about {sentence(seed)}?", f"It is {sentence(seed + ' answer')}.")


def tool(name: str) -> dict[str, object]:
    """Return a tool with one argument, `on`."""
    schema = {"type": "object", "properties": {"on": {"type": "boolean"}}, "required": ["on"]}
    return {"type": "function", "function": {"name": name, "parameters": schema}}


def called(seed: str, arguments: object, *turns: dict[str, object], **keys: object) -> dict[str, object]:
    """Return a row whose answer calls the lamp, with the turns that follow."""
    function = {"name": "lamp", "arguments": arguments}
    call = {"id": "c1", "type": "function", "function": function} | keys
    question = {"role": "user", "content": sentence(seed)}
    messages = [question, {"role": "assistant", "tool_calls": [call]}, *turns]
    return {"messages": messages, "tools": [tool("lamp")]}


def corpus() -> list[tuple[list[Planted], bool]]:
    """Return groups of files that are checked together; True where with the base's tokenizer."""
    return [
        ([_texts()], True),
        ([_part("train.jsonl"), _held_out()], False),
        ([_labels()], False),
        ([_dominant()], False),
        ([_preferences()], False),
        ([_ratings()], False),
        ([_one_sided()], False),
        ([_calls()], False),
        ([_table()], False),
        ([_foreign()], False),
    ]


def _texts() -> Planted:
    file = Planted("rows.jsonl")
    file.add(b"\xef\xbb\xbf" + json.dumps(clean("first")).encode(), "D-BOM")
    for number in range(25):
        file.add(clean(f"clean {number}"))
    for fault in (_broken_lines, _broken_rows, _wrong_turns, _bad_characters, _personal, _repeats, _lengths):
        fault(file)
    file.add(json.dumps(clean("torn")).encode()[:-12], "D-TORN")
    return file


def _table() -> Planted:
    """Return a table under the name of JSON Lines, with a record that has a cell too many."""
    file = Planted("rows.jsonl")
    file.add(b"prompt,completion")
    for number in range(20):
        file.add(f"{sentence(f'asked {number}')},{sentence(f'told {number}')}".encode())
    file.add(b"a question, with a comma,an answer")
    file.expected += [("D-READ-AS", 1), ("D-CELLS", 21)]
    return file


def _foreign() -> Planted:
    file = Planted("rows.json")
    file.add(b"%PDF-1.7", "D-CONTAINER")
    return file


def _broken_lines(file: Planted) -> None:
    file.add(b'{"prompt": "caf\xe9", "completion": "x"}', "D-ENCODING")
    file.add(b"{'prompt': 'a'}", "D-JSON")
    file.add(b'{"prompt": "a", "prompt": "b", "completion": "c"}', "D-KEY-TWICE")


def _broken_rows(file: Planted) -> None:
    file.add({"frage": "a", "antwort": "b"}, "D-FORM")
    file.add({**clean("seen"), "images": ["a.jpg"]}, "D-MEDIA")
    file.add({**clean("judged"), "is_correct": False}, "D-RATED")
    file.add({"messages": "hello"}, "D-SCHEMA")
    file.add({"messages": [{"role": "robot", "content": "x"}]}, "D-ROLE")
    file.add(chat("Empty?", ""), "D-EMPTY")
    file.add(chat("", "An answer to nothing."), "D-EMPTY-INPUT")
    file.add({"messages": [{"role": "user", "content": "Hello?"}]}, "D-UNTRAINED")
    file.add({"prompt": "Best tree?", "chosen": "The oak.", "rejected": "Stone."}, "D-MIXED")
    file.add({"instruction": sentence("i"), "input": "", "output": sentence("o")}, "D-FORMS")
    file.add({**clean("tools"), "tools": [tool("lamp")]}, "D-TOOLS")
    file.add({**clean("extra"), "source": "wiki"}, "D-EXTRA")
    file.add({**clean("stars"), "rating": 2}, "D-SCORE", "D-EXTRA")


def _calls() -> Planted:
    file = Planted("calls.jsonl")
    result: dict[str, object] = {"role": "tool", "tool_call_id": "c1", "content": "done"}
    said: dict[str, object] = {"role": "assistant", "content": sentence("it is on")}
    file.add(called("fine", {"on": True}, result, said))
    file.add(called("broken", "{on: true}"), "D-CALL")
    file.add(called("wrong", {"on": "yes"}), "D-ARGUMENTS")
    file.add({**called("other", {"on": True}), "tools": [tool("oven")]}, "D-TOOL")
    file.add({**called("none", {"on": True}), "tools": []}, "D-NO-TOOLS")
    file.add(called("anonymous", {"on": True}, id=None), "D-CALL-ID")
    file.add(called("stranger", {"on": True}, result, {**result, "tool_call_id": "c2"}, said), "D-RESULT")
    file.add(called("hasty", {"on": True}, {"role": "user", "content": "And?"}, said), "D-NO-RESULT")
    return file


def _wrong_turns(file: Planted) -> None:
    twice = [{"role": "user", "content": sentence("u1")}, {"role": "user", "content": sentence("u2")}]
    file.add({"messages": [*twice, {"role": "assistant", "content": sentence("u3")}]}, "D-ORDER")
    silent: list[dict[str, object]] = [
        {"role": "user", "content": sentence("w1")},
        {"role": "assistant", "content": sentence("w2")},
        {"role": "user", "content": sentence("w3")},
        {"role": "assistant", "content": sentence("w4"), "weight": 0},
    ]
    file.add({"messages": silent}, "D-UNUSED-ANSWER")
    file.add(chat(sentence("echo"), sentence("echo").upper()), "D-ECHO")


def _bad_characters(file: Planted) -> None:
    file.add(chat(sentence("s1"), f"{sentence('s2')}<|im_end|>"), "D-SPECIAL")
    file.add(chat(sentence("m1"), f"[INST] {sentence('m2')}"), "D-MARKER")
    file.add(chat(sentence("e1"), f"{sentence('e2')} cafÃ© dÃ©jÃ\xa0 vu"), "D-MOJIBAKE")
    file.add(chat(sentence("r1"), f"{sentence('r2')} caf\ufffd"), "D-REPLACEMENT")
    file.add(chat(sentence("c1"), f"{sentence('c2')}\x07"), "D-CONTROL")
    file.add(chat(sentence("z1"), f"{sentence('z2')}\u200bend"), "D-INVISIBLE")
    half = json.dumps(chat(sentence("h1"), f"{sentence('h2')} HALF")).replace("HALF", "\\ud83d")
    file.add(half.encode(), "D-SURROGATE")


def _personal(file: Planted) -> None:
    found = {
        "D-EMAIL": "jane.doe@example.com",
        "D-PHONE": "+49 30 901820",
        "D-IP": "81.2.69.142",
        "D-CARD": "4111 1111 1111 1111",
        "D-IBAN": "DE89 3704 0044 0532 0130 00",
        "D-SSN": "123-45-6789",
        "D-SECRET": "AKIA" + "Q3EGRZT7LW5XPVNB",
        "D-PRIVATE-KEY": "-----BEGIN RSA " + "PRIVATE KEY-----",
    }
    for rule, datum in found.items():
        file.add(chat(sentence(f"{rule} q"), f"{sentence(rule)} {datum}"), rule)


def _repeats(file: Planted) -> None:
    file.add(clean("clean 3"), "D-DUPLICATE")
    question, answer = f"What about {sentence('clean 4')}?", f"It is {sentence('clean 4 answer')}."
    file.add(chat(question + " Say", answer.replace(".", "!") + " Now"), "D-NEAR")
    file.add(chat(f"What about {sentence('clean 5')}?", f"Rather {sentence('other')}."), "D-CONFLICT")


def _lengths(file: Planted) -> None:
    file.add(chat(sentence("long q"), sentence("long", 1500)), "D-LENGTH", "D-CUT")
    file.add(chat(sentence("late", 1600), sentence("late answer")), "D-LENGTH", "D-CUT-OFF")
    file.add({"messages": [{"role": "assistant", "content": sentence("t2")}]}, "D-ORDER", "D-TEMPLATE")


def _part(name: str) -> Planted:
    file = Planted(name)
    for number in range(5):
        file.add(clean(f"part {number}"))
    return file


def _held_out() -> Planted:
    file = Planted("test.jsonl")
    file.add(clean("held out"))
    file.add(clean("part 2"), "D-LEAK")
    return file


def _labels() -> Planted:
    file = Planted("labels.jsonl")
    for number in range(30):
        file.add(chat(sentence(f"label {number}"), ("yes", "no")[number % 2]))
    file.add(chat(sentence("label rare"), "maybe"), "D-RARE")
    file.add(chat(sentence("label case"), "Yes"), "D-SPELLING")
    return file


def _dominant() -> Planted:
    file = Planted("dominant.jsonl")
    for number in range(30):
        rules = ("D-BALANCE",) if number == 0 else ()
        file.add(chat(sentence(f"dominant {number}"), "no" if number % 10 == 9 else "yes"), *rules)
    return file


def _preferences() -> Planted:
    file = Planted("pairs.jsonl")
    for number in range(12):
        chosen, rejected = sentence(f"c{number}", 60 if number == 11 else 40), sentence(f"r{number}", 8)
        rules = ("D-PREF-LENGTH",) if number == 11 else ()
        file.add({"prompt": sentence(f"p{number}"), "chosen": chosen, "rejected": rejected}, *rules)
    file.add({"prompt": sentence("same"), "chosen": "Yes, it is.", "rejected": "Yes, it is."}, "D-PREF-SAME")
    pair = {"prompt": sentence("swap", 3), "chosen": "The left.", "rejected": "The right"}
    file.add(pair, "D-PREF-CONFLICT")
    file.add({**pair, "chosen": pair["rejected"], "rejected": pair["chosen"]}, "D-PREF-CONFLICT")
    return file


def _ratings() -> Planted:
    file = Planted("ratings.jsonl")
    for number in range(12):
        file.add(
            {"prompt": sentence(f"k{number}"), "completion": sentence(f"a{number}"), "label": number % 2 == 0}
        )
    file.add({"prompt": sentence("k3"), "completion": sentence("a3"), "label": True}, "D-KTO-CONFLICT")
    return file


def _one_sided() -> Planted:
    file = Planted("one-sided.jsonl")
    for number in range(12):
        rules = ("D-KTO-BALANCE",) if number == 7 else ()
        row = {"prompt": sentence(f"o{number}"), "completion": sentence(f"b{number}"), "label": number != 7}
        file.add(row, *rules)
    return file


def planted_rules() -> Iterator[str]:
    """Yield the id of every planted fault."""
    for files, _ in corpus():
        for file in files:
            yield from (rule for rule, _ in file.expected)
