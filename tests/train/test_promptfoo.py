"""Promptfoo's configs as suites: every assertion counts as it does there, or is named with the way out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from registry.errors import UsageError
from tests.fakes.openai_server import openai_server
from train.evaluation.cli import eval_
from train.evaluation.formats.suites import load_suite
from train.evaluation.promptfoo.conversion import ImportedSuite, import_suite
from train.evaluation.promptfoo.passing import grade

EXPORTED = """
description: Support tickets
prompts:
  - - {role: system, content: "Answer in one word."}
    - {role: user, content: "Which team: {{ticket}}"}
providers:
  - id: openai:chat:gpt-4o-mini
    config: {temperature: 0, max_tokens: 20, reasoning_effort: low}
defaultTest:
  assert:
    - {type: not-contains, value: sorry}
tests:
  - vars: {ticket: "My invoice is wrong", team: billing}
    metadata: {language: en}
    assert:
      - {type: equals, value: "{{team}}"}
  - vars: {ticket: "It does not start", team: Support}
    assert:
      - {type: icontains, value: "{{team}}"}
      - {type: javascript, value: "output.length < 10"}
      - {type: similar, value: support, threshold: 0.8}
"""


def imported(folder: Path, config: str | dict[str, Any], **options: Any) -> ImportedSuite:
    path = folder / "promptfooconfig.yaml"
    path.write_text(config if isinstance(config, str) else json.dumps(config))
    return import_suite(path, **options)


def one_test(*asserts: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"prompts": ["Say {{x}}"], "tests": [{"vars": {"x": "a"}, "assert": list(asserts), **more}]}


def told(found: ImportedSuite) -> str:
    return "\n".join(f"{one.place}: {one.what}; {one.remedy}" for one in found.untaken)


def test_an_exported_eval_becomes_a_suite(tmp_path: Path) -> None:
    """Prompts with their variables, defaults, sampling and tags; what is lost is named."""
    found = imported(tmp_path, EXPORTED)
    assert found.suite["name"] == "support-tickets"
    assert found.suite["sampling"] == {"temperature": 0, "max_tokens": 20}
    assert [one["name"] for one in found.suite["graders"]] == ["passed"]
    first, second = found.items
    assert first["messages"][1]["content"] == "Which team: My invoice is wrong"
    assert first["tags"] == {"language": "en"}
    assert first["data"]["assert"] == [
        {"type": "not-contains", "value": "sorry"},
        {"type": "equals", "value": "billing"},
    ]
    assert len(second["data"]["assert"]) == 2
    lost = told(found)
    assert "tests 2 assert 3: javascript is not taken over; write it in Python" in lost
    assert "tests 2 assert 4: similar is not taken over; it needs a model for embeddings" in lost
    assert "providers: config.reasoning_effort" in lost


def test_an_imported_suite_is_evaluated(tmp_path: Path) -> None:
    """`eval import`, then `eval run`: the figure is the share of tests that pass."""
    (tmp_path / "config.yaml").write_text(EXPORTED)
    out = tmp_path / "tickets.yaml"
    runner = CliRunner()
    done = runner.invoke(eval_, ["import", str(tmp_path / "config.yaml"), "-o", str(out), "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["items"] == 2
    assert len(load_suite(out).items) == 2
    with openai_server({"base": lambda chat: "billing", "x@1": lambda chat: "sorry"}) as (url, _):
        arguments = [
            "run",
            str(out),
            "--model",
            "base",
            "--url",
            url,
            "--out",
            str(tmp_path / "run"),
            "--json",
        ]
        ran = runner.invoke(eval_, [*arguments, "--no-attest", "--root", str(tmp_path / "none")])
    assert ran.exit_code == 0, ran.output
    assert json.loads(ran.stdout)["arms"][0]["figures"]["passed"]["all"]["value"] == 0.5
    again = runner.invoke(eval_, ["import", str(tmp_path / "config.yaml"), "-o", str(out)])
    assert "exists" in str(again.exception)


@pytest.mark.parametrize(
    ("assertion", "right", "wrong"),
    [
        ({"type": "equals", "value": "yes"}, "yes", "yes!"),
        ({"type": "equals", "value": 4}, "4", "44"),
        ({"type": "equals", "value": {"a": 1}}, '{"a": 1}', '{"a": 2}'),
        ({"type": "not-equals", "value": "yes"}, "no", "yes"),
        ({"type": "contains", "value": "Es"}, "yEs", "yes"),
        ({"type": "contains", "value": 0}, "a 0", "a"),
        ({"type": "icontains", "value": "ES"}, "yes", "no"),
        ({"type": "contains-any", "value": ["a", "b"]}, "xb", "x"),
        ({"type": "contains-all", "value": "a, b"}, "ba", "b"),
        ({"type": "icontains-any", "value": ["A"]}, "xa", "x"),
        ({"type": "icontains-all", "value": ["A", "b"]}, "aB", "a"),
        ({"type": "starts-with", "value": "ye"}, "yes", "oh yes"),
        ({"type": "regex", "value": r"^\d{4}$"}, "1234", "12345"),
        ({"type": "regex", "value": r"(?<year>\d{4})"}, "in 1999", "now"),
        ({"type": "not-regex", "value": "x"}, "yes", "x"),
        ({"type": "is-json"}, "[1]", "[1"),
        ({"type": "contains-json"}, 'see {"a": [1]}!', "see {a}"),
        ({"type": "levenshtein", "value": "kitten", "threshold": 3}, "sitting", "nothing"),
        ({"type": "word-count", "value": {"min": 2, "max": 3}}, "a b c", "a"),
        ({"type": "assert-set", "threshold": 0.5, "assert": [
            {"type": "contains", "value": "a"}, {"type": "contains", "value": "b"}]}, "a", "c"),
        ({"type": "assert-set", "assert": [
            {"type": "contains", "value": "a"}, {"type": "contains", "value": "b"}]}, "ab", "a"),
    ],
)  # fmt: skip
def test_an_assertion_holds_where_promptfoo_says_so(
    tmp_path: Path, assertion: dict[str, Any], right: str, wrong: str
) -> None:
    """Each kind by one answer that passes and one that does not."""
    found = imported(tmp_path, one_test(assertion))
    assert not found.untaken
    data = found.items[0]["data"]
    assert (grade({"output_text": right}, data), grade({"output_text": wrong}, data)) == (1.0, 0.0)


def test_a_threshold_counts_weights(tmp_path: Path) -> None:
    """With one, the weighted share decides; a weight of 0 decides nothing."""
    both: list[dict[str, Any]] = [
        {"type": "contains", "value": "a", "weight": 3},
        {"type": "contains", "value": "b"},
        {"type": "contains", "value": "c", "weight": 0},
    ]
    data = imported(tmp_path, one_test(*both, threshold=0.7)).items[0]["data"]
    assert [grade({"output_text": text}, data) for text in ("a", "b")] == [1.0, 0.0]
    data = imported(tmp_path, one_test(*both)).items[0]["data"]
    assert [grade({"output_text": text}, data) for text in ("a", "ab")] == [0.0, 1.0]


def test_what_needs_a_schema_or_a_model_is_a_figure_of_its_own(tmp_path: Path) -> None:
    """Schemas, rubrics with a judge, and measures; without a judge the rubric is named."""
    asserts: list[dict[str, Any]] = [
        {"type": "is-json", "value": {"type": "object"}},
        {"type": "llm-rubric", "value": "is polite to {{x}}"},
        {"type": "rouge-n", "value": "hello", "threshold": 0.5},
    ]
    found = imported(tmp_path, one_test(*asserts), judge="base")
    assert [one["name"] for one in found.suite["graders"]] == ["json", "rubric", "rouge_1"]
    assert found.items[0]["data"]["rubric"] == "is polite to a"
    assert "without the threshold 0.5" in told(found)
    assert "--judge MODEL" in told(imported(tmp_path, one_test(*asserts)))


@pytest.mark.parametrize(
    "kind", ["javascript", "python", "webhook", "similar", "cost", "latency", "pi", "classifier", "is-sql"]
)
def test_what_cannot_be_taken_over_is_named_with_the_way_out(tmp_path: Path, kind: str) -> None:
    """A test that nothing judges any more is left out, not passed."""
    config = one_test({"type": kind, "value": "x"})
    config["tests"].append({"vars": {"x": "b"}, "assert": [{"type": "equals", "value": "b"}]})
    found = imported(tmp_path, config)
    assert [item["id"] for item in found.items] == ["2"]
    assert f"tests 1 assert 1: {kind} is not taken over; " in told(found)
    assert "tests 1: has nothing left that judges it" in told(found)


def test_files_of_prompts_and_tests_are_read(tmp_path: Path) -> None:
    """Texts, chats, YAML, JSON Lines and CSV; programs and pages are named."""
    (tmp_path / "ask.txt").write_text("Say {{x}}\n---\nPlease say {{x}}\n")
    (tmp_path / "chat.json").write_text(json.dumps([{"role": "user", "content": 'Say {{x}} "{{y}}"'}]))
    (tmp_path / "more.jsonl").write_text('{"vars": {"x": 1}, "assert": [{"type": "equals", "value": "1"}]}\n')
    (tmp_path / "rows.csv").write_text(
        'x,y,__expected,__expected2,__metadata:kind\n2,"a\nb",contains-any: a,2,sum\n'
    )
    (tmp_path / "t.yaml").write_text(yaml.safe_dump([one_test({"type": "equals", "value": "a"})["tests"][0]]))
    tests = [
        "file://more.jsonl",
        "file://rows.csv",
        "file://t.yaml",
        "file://gen.py:make",
        "https://host/t.csv",
    ]
    found = imported(
        tmp_path, {"prompts": ["file://ask.txt", "file://chat.json", "file://p.js"], "tests": tests}
    )
    assert len(found.items) == 9
    assert found.items[0]["prompt"] == "Say 1"
    by_csv = [item for item in found.items if item["id"].startswith("2")]
    assert by_csv[2]["messages"][0]["content"] == 'Say 2 "a\nb"'
    assert by_csv[0]["tags"]["kind"] == "sum"
    assert [one["type"] for one in by_csv[0]["data"]["assert"]] == ["contains-any", "equals"]
    for lost in ("gen.py:make is a program", "https://host/t.csv is fetched", "p.js is a program"):
        assert lost in told(found)


def test_a_list_of_values_makes_a_test_of_each(tmp_path: Path) -> None:
    """Unless the test says otherwise."""
    config = one_test({"type": "contains", "value": "{{x}}"})
    config["tests"][0]["vars"] = {"x": ["a", "b"], "y": "c"}
    assert [item["prompt"] for item in imported(tmp_path, config).items] == ["Say a", "Say b"]


def test_a_template_reaches_nothing_but_its_variables(tmp_path: Path) -> None:
    """What it asks for beyond is empty or an error of the import, never run."""
    config = one_test({"type": "equals", "value": "x"})
    config["prompts"] = ["{{ x.__class__.__mro__ }}", "{{ y }}ok", "{% for %}", "{{ x | nofilter }}"]
    found = imported(tmp_path, config)
    assert "class" not in json.dumps(found.items)
    assert "no variable is called y" in told(found)
    assert "cannot be filled in" in told(found)


@pytest.mark.parametrize(
    "config", ["name: x\n", "- a\n", "tests: []\n", "tests: [{assert: 7}]\n", "prompts: {a: b}\n"]
)
def test_what_is_no_config_is_refused(tmp_path: Path, config: str) -> None:
    """With the file's name."""
    with pytest.raises(UsageError, match="promptfooconfig"):
        imported(tmp_path, config)
