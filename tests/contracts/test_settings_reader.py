"""Every file that people write is read alike: one wording for a fault, with file and line, whoever reads it.

A reader that comes next joins `READERS`; every fault in every language is tried with it by itself.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import tomli_w
import yaml

from loadtests.runner.loading import load_scenario
from registry.errors import UsageError
from registry.settings.bounds import DEEPEST, MOST_CHARACTERS
from registry.storage.root import Root
from serve.rollout.presets import load_policy
from serve.settings import load_settings
from tests.fakes.store import make_registry
from train.config import load_config
from train.evaluation.formats.suites import load_suite
from train.evaluation.gating.goal import load_goal
from train.sweep.settings import load_sweep


@dataclass(frozen=True)
class Reader:
    """How a kind of file is read; `content` is a valid one, `block` a mapping in it, `key` a number there."""

    load: Callable[[Path], object]
    content: dict[str, Any]
    block: str
    key: str


SCENARIO = {"name": "s", "about": "a", "adapters": {"names": ["a"]}, "arrival": {"rate": 1}}
STEP = {"weight": "5%", "min_units": 10, "min_seconds": 1}
READERS = {
    "serve.toml": Reader(
        lambda path: load_settings({}, path), {"limits": {"max_tools": 2}}, "limits", "max_tools"
    ),
    "training config": Reader(
        load_config, {"name": "support", "data": {"train": "x"}, "lora": {"rank": 8}}, "lora", "rank"
    ),
    "suite": Reader(
        load_suite,
        {"name": "s", "items": [{"prompt": "a"}], "graders": [{"type": "json"}],
         "sampling": {"max_tokens": 3}}, "sampling", "max_tokens",
    ),
    "goal": Reader(load_goal, {"goal": {"suite": "refusals", "seed": 3}}, "goal", "seed"),
    "policy": Reader(
        load_policy, {"steps": [STEP], "shadow": {"pairs": 500, "share": "5%"}}, "shadow", "pairs"
    ),
    "scenario": Reader(lambda path: load_scenario(str(path)), SCENARIO, "arrival", "rate"),
    "sweep": Reader(
        load_sweep,
        {"config": "c.yaml", "space": {"lora.rank": [8]}, "steps": 4, "budget_steps": 8}, "", "steps",
    ),
}  # fmt: skip
LANGUAGES: dict[str, Callable[[Any], str]] = {
    "yaml": lambda value: yaml.safe_dump(value, sort_keys=False),
    "toml": tomli_w.dumps,
    "json": lambda value: json.dumps(value, indent=1),
}
BOTH = [(kind, language) for kind in READERS for language in LANGUAGES]
every_reader = pytest.mark.parametrize("kind", READERS)
every_reader_and_language = pytest.mark.parametrize(("kind", "language"), BOTH)


def changed(reader: Reader, **change: Any) -> dict[str, Any]:
    """Return the reader's content with a change in its block."""
    content: dict[str, Any] = json.loads(json.dumps(reader.content))
    (content[reader.block] if reader.block else content).update(change)
    return content


def refused(kind: str, tmp_path: Path, text: str | bytes, language: str = "yaml") -> UsageError:
    path = tmp_path / f"file.{language}"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UsageError) as caught:
        READERS[kind].load(path)
    assert str(caught.value).startswith(str(path))
    return caught.value


def dotted(reader: Reader, key: str) -> str:
    return f"{reader.block}.{key}" if reader.block else key


def line_of(text: str, key: str) -> int:
    return next(at for at, line in enumerate(text.splitlines(), start=1) if re.search(rf"^\W*{key}\W", line))


@every_reader_and_language
def test_every_reader_reads_every_language(kind: str, language: str, tmp_path: Path) -> None:
    path = tmp_path / f"file.{language}"
    for mark, end in ("", "\n"), ("\ufeff", "\r\n"):
        text = LANGUAGES[language](READERS[kind].content).replace("\n", end)
        path.write_bytes((mark + text).encode())
        READERS[kind].load(path)


@every_reader_and_language
def test_an_unknown_key_names_file_line_and_the_nearest_dotted_one(
    kind: str, language: str, tmp_path: Path
) -> None:
    reader = READERS[kind]
    misspelt = reader.key[:-1] + "e" + reader.key[-1]
    text = LANGUAGES[language](changed(reader, **{misspelt: 1}))
    error = refused(kind, tmp_path, text, language)
    path, line = tmp_path / f"file.{language}", line_of(text, misspelt)
    known, unknown = dotted(reader, reader.key), dotted(reader, misspelt)
    assert str(error) == f"{path}:{line}: unknown setting {unknown}; did you mean {known}?"
    assert (error.param, error.exit_code) == (unknown, 2)


@every_reader_and_language
def test_a_wrong_value_names_file_line_and_key(kind: str, language: str, tmp_path: Path) -> None:
    reader = READERS[kind]
    text = LANGUAGES[language](changed(reader, **{reader.key: "many"}))
    error = refused(kind, tmp_path, text, language)
    assert error.subject == f"{tmp_path / f'file.{language}'}:{line_of(text, reader.key)}"
    assert re.fullmatch(rf"{dotted(reader, reader.key)}: must be a (whole )?number, not 'many'", error.fact)


@every_reader_and_language
def test_several_faults_are_told_at_once(kind: str, language: str, tmp_path: Path) -> None:
    reader = READERS[kind]
    text = LANGUAGES[language](changed(reader, **{reader.key: "many", "zzz": 1, "yyy": 2}))
    told = str(refused(kind, tmp_path, text, language)).splitlines()
    assert len(told) == 3
    for key in ("zzz", "yyy", reader.key):
        place = f"file.{language}:{line_of(text, key)}: "
        assert any(place in line and dotted(reader, key) in line for line in told)


@every_reader_and_language
def test_a_key_that_is_given_twice_names_both_lines(kind: str, language: str, tmp_path: Path) -> None:
    reader = READERS[kind]
    lines = LANGUAGES[language](reader.content).splitlines()
    at = line_of("\n".join(lines), reader.key)
    lines.insert(at - 1, lines[at - 1].rstrip(",") + ("," if language == "json" else ""))
    error = refused(kind, tmp_path, "\n".join(lines), language)
    assert error.subject == f"{tmp_path / f'file.{language}'}:{at + 1}"
    fact = re.fullmatch(r"the key '([\w.]+)' occurs twice \(first on line (\d+)\)", error.fact)
    assert fact is not None
    assert (fact[1].rpartition(".")[2], fact[2], error.remedy) == (reader.key, str(at), "keep one")


@every_reader
@pytest.mark.parametrize("language", LANGUAGES)
def test_what_is_not_valid_is_said_with_its_line(kind: str, language: str, tmp_path: Path) -> None:
    broken = {"yaml": "a: 1\nb: [1\nc: ]\n:", "toml": "a = 1\nb = = 2\n", "json": '{"a": 1,\n "b": }'}
    error = refused(kind, tmp_path, broken[language], language)
    assert re.match(rf"is not valid {language.upper()}: ", error.fact)
    assert re.search(r":[23]$", error.subject)


@every_reader
def test_what_is_no_file_of_settings_is_said_in_one_way(kind: str, tmp_path: Path) -> None:
    for text, fact in (
        (b"a: 1\nb: \xff", "is not UTF-8 text"),
        ("", "holds no settings: it is empty"),
        ("- 1\n", "holds no settings: it is a list, not keys and values"),
        ("words\n", "holds no settings: it is one value, not keys and values"),
        (f"a: {'[' * (DEEPEST + 1)}{']' * (DEEPEST + 1)}", "is not valid YAML: nested too deep"),
        (b"#" * (MOST_CHARACTERS + 1), f"is larger than {MOST_CHARACTERS} bytes"),
    ):
        assert refused(kind, tmp_path, text).fact == fact


@every_reader
def test_what_is_no_plain_file_is_refused_at_once(kind: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for name in ("folder", "pipe"):
        with pytest.raises(UsageError, match=f"{name}: is not a plain file"):
            READERS[kind].load(tmp_path / name)
    if kind != "scenario":  # which may be a name that is misspelt: its error names the near one
        with pytest.raises(UsageError, match="missing: cannot be read"):
            READERS[kind].load(tmp_path / "missing")


FAULTS = {
    "[limits]\nmax_lora_rnk = 1\n": ":5: unknown setting limits.max_lora_rnk; did you mean limits.max_lora",
    "[limits]\nmax_lora_rank = 'x'\n": ":5: limits.max_lora_rank: must be a whole number, not 'x'; ",
    "[limits]\nmax_lora_rank = 1\nmax_lora_rank = 1\n":
        ":6: the key 'limits.max_lora_rank' occurs twice (first on line 5); keep one",
    "[limits\n": ":4: is not valid TOML: ",
    "[publishing]\nrequire = 3\n[limit]\na = 1\n": ":6: unknown setting limit; did you mean limits?",
}  # fmt: skip


@pytest.mark.parametrize("text", FAULTS)
def test_wardrobe_toml_which_only_a_root_has_is_read_like_the_others(text: str, tmp_path: Path) -> None:
    root = make_registry(tmp_path / "root").root
    (root / "wardrobe.toml").write_text(f'[base]\nname = "tiny"\npath = "/x"\n{text}')
    with pytest.raises(UsageError) as caught:
        Root.open(root)
    assert f"wardrobe.toml{FAULTS[text]}" in str(caught.value)


@every_reader
@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("toml", "[" + ".".join(["a"] * 900) + "]\nx = 1\n"),
        ("toml", ".".join(["a"] * 900) + " = 1\n"),
        ("toml", 2 * (".".join(["a"] * 900) + " = 1\n")),
        ("json", '{"a":' * 900 + "1" + "}" * 900),
        ("json", '{"a":' + "[" * 900 + "]" * 900 + "}"),
    ],
)
def test_a_file_deeper_than_python_can_walk_is_refused(
    kind: str, tmp_path: Path, language: str, text: str
) -> None:
    assert refused(kind, tmp_path, text, language).fact.endswith("nested too deep")
